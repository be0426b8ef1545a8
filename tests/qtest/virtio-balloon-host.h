/*
 * What tests of a virtio balloon have of their host, and what comes and goes in
 * their machines while the balloon works
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_HOST_H
#define TESTS_VIRTIO_BALLOON_HOST_H

#include "virtio-balloon-driver.h"
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
 * @size: in bytes; 0 for a folder
 *
 * Returns: the process that has it open until balloon_drop_file(), or 0,
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
/* All of them, or none? */
void balloon_vfio_assert(uint64_t addr, uint64_t size, bool mapped);

/* The host lets it have @more bytes than now, or all that it wants */
void balloon_vfio_limit(uint64_t more);
void balloon_vfio_lift_limits(void);

/* A machine that has slots for memory, and where the guest finds it */
#define BALLOON_DIMM_SLOTS "-m 256,slots=2,maxmem=1G "
#define BALLOON_DIMM (4 * GiB)
#define BALLOON_DIMM_SIZE (128 * MiB)

/* That DIMM, plugged from the start */
#define BALLOON_DIMM_PLUGGED                                            \
    "-object memory-backend-ram,id=m0,size=128M "                       \
    "-device pc-dimm,id=dimm0,memdev=m0,slot=0,addr=0x100000000 "

/* 128 MiB for a DIMM */
void balloon_add_dimm_memory(QTestState *qts);
void balloon_remove_dimm_memory(QTestState *qts);
/* The DIMM itself; its memory stays what it is */
void balloon_plug_dimm(QTestState *qts);
void balloon_unplug_dimm(QTestState *qts);

/*
 * Assign the device that virtio-balloon-fake-vfio.so, preloaded, shows: it
 * keeps all memory from being discarded
 */
void balloon_plug_vfio(QTestState *qts);
void balloon_unplug_vfio(QTestState *qts);

/* Plug a balloon with these properties, of JSON; it is reset */
#define BALLOON_DEVICE_ADD "{'execute': 'device_add', 'arguments': %p}"
QDict *balloon_device(const char *properties);
void balloon_plug(BalloonDriver *d, const char *properties);

/* Unplug it, which the guest must allow; the guest lets it go */
void balloon_unplug(BalloonDriver *d);
/* ... when it was asked for that with device_del before */
void balloon_eject(BalloonDriver *d);

/* There is no balloon, which each command says */
void balloon_assert_none(QTestState *qts);

/* Suspend a PC to RAM as its guest does, and wake it up */
void balloon_sleep(BalloonDriver *d);
void balloon_wake(BalloonDriver *d);
/* Shut it down as its guest does; QEMU is told to stay, and stops the VM */
void balloon_power_off(BalloonDriver *d);

#endif
