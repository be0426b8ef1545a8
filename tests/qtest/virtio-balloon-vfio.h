/*
 * What an assigned device of a fake host has mapped, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_VFIO_H
#define TESTS_VIRTIO_BALLOON_VFIO_H

#include "virtio-balloon-fake-vfio.h"

/*
 * Each QEMU from now on finds a host with a device for VFIO, whose mappings are
 * in balloon_vfio; one QEMU at a time
 */
extern FakeVfio *balloon_vfio;
void balloon_vfio_begin(void);
void balloon_vfio_end(void);

/* For the command line, until balloon_vfio_end(): assign that device */
const char *balloon_vfio_option(void);

/* How much of @size bytes from @addr on the device may use */
uint64_t balloon_vfio_mapped(uint64_t addr, uint64_t size);

#endif
