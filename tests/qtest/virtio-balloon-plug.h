/*
 * Memory and devices that come and go while a virtio balloon works, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_PLUG_H
#define TESTS_VIRTIO_BALLOON_PLUG_H

#include "virtio-balloon-driver.h"

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

#endif
