/*
 * What tests of a virtio balloon have of their host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_HOST_H
#define TESTS_VIRTIO_BALLOON_HOST_H

#include "virtio-balloon-fake-vfio.h"

/**
 * balloon_hugepages_take: make the host's pool larger, if it has none to spare
 * @pages: how many huge pages of 2 MiB are needed
 *
 * They are given back by balloon_hugepages_restore(), or when the test fails.
 *
 * Returns: false if the host does not have them, or this user may not ask.
 */
bool balloon_hugepages_take(unsigned pages);
void balloon_hugepages_restore(void);

/* May this user lock memory?  If not, the test is skipped */
bool balloon_may_lock_memory(void);

/**
 * balloon_hold_file: have $FILES/ram be in a file system that nobody else sees
 * @type, @options: of the file system, as for mount(2)
 *
 * Returns: the process that has the file open until balloon_drop_file(), or 0,
 * and the test is skipped, if none may be mounted.
 */
pid_t balloon_hold_file(const char *type, const char *options, uint64_t size);
void balloon_drop_file(pid_t pid);

/*
 * Each QEMU from now on finds a host with a device for VFIO, whose mappings are
 * in balloon_vfio; one QEMU at a time
 */
extern FakeVfio *balloon_vfio;
void balloon_vfio_begin(void);
void balloon_vfio_end(void);

/* For the command line, until balloon_vfio_end(): assign that device */
#define BALLOON_VFIO_DEVICE                                             \
    "-device vfio-pci,id=vfio0,addr=5,sysfsdev=$FILES "

/* How much of @size bytes from @addr on the device may use */
uint64_t balloon_vfio_mapped(uint64_t addr, uint64_t size);

#endif
