/*
 * Test cases of a virtio balloon: what they begin with, and what they share
 *
 * Each has a machine of its own, whose balloon has a driver and whose memory
 * is full of data where the guest will give it up.  After each the counters
 * must explain every byte.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_CASE_H
#define TESTS_VIRTIO_BALLOON_CASE_H

#include "qemu/timer.h"
#include "qemu/units.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-plug.h"
#include "virtio-balloon-vfio.h"

#define SECOND NANOSECONDS_PER_SECOND

#define REPORT BALLOON_VQ_FIRST_OPTIONAL

#define PLAIN "virtio-balloon-pci"
#define REPORTING "virtio-balloon-pci,free-page-reporting=on"
#define TELL "virtio-balloon-pci,must-tell-host=on"

/* The memory of a case that does not say otherwise */
#define RAM (128 * MiB)
#define MEMORY "-m 128"
/* ... with a backend: memory-backend-@backend, and its properties */
#define MEMORY_OF(backend)                                              \
    MEMORY " -machine pc,memory-backend=ram"                            \
    " -object memory-backend-" backend ",id=ram,size=128M"
#define SHARED MEMORY_OF("memfd,share=on")

/* Where the guest has pages to give: the beginning of a huge page */
#define AREA (64 * MiB)
#define AREA_SIZE (8 * MiB)
#define HUGE (2 * MiB)

/* What is in them at the beginning, and what the guest writes later */
#define OLD 0xa5
#define NEW 0x33

/* Has the host a device for VFIO? */
typedef enum BalloonHost {
    HOST_WITHOUT_VFIO,
    /* see balloon_plug_vfio() */
    HOST_WITH_VFIO,
    /* and it is assigned from the start */
    HOST_ASSIGNS_VFIO,
} BalloonHost;

typedef struct BalloonCase {
    const char *path;
    void (*test)(BalloonDriver *d);
    /* as for balloon_boot(); NULL for PLAIN and MEMORY */
    const char *device;
    const char *options;
    /* what the test makes of it, see balloon_case() */
    const void *data;
    /* the test starts the driver */
    bool no_driver;
    /* so many huge pages of 2 MiB are needed; skipped where there are none */
    unsigned huge_pages;
    BalloonHost host;
} BalloonCase;

/* Add tests; @cases must stay where they are */
void balloon_add_cases(const char *prefix, const BalloonCase *cases,
                       unsigned n);

/* The case that runs */
const BalloonCase *balloon_case(void);

/* Have its guest go on in another QEMU.  Returns as balloon_move() */
int64_t balloon_case_move(BalloonDriver *d);

/* A machine and a driver that is up, as a case begins with */
void balloon_boot_and_start(BalloonDriver *d, const char *device,
                            const char *options);

/* Start a driver that fills its free pages with @poison */
void balloon_start_poison(BalloonDriver *d, uint32_t poison);

/* As drivers may, which have all pages back then: clear DRIVER_OK ... */
void balloon_clear_driver_ok(BalloonDriver *d);
/* ... and not accept MUST_TELL_HOST any more, with the legacy interface */
void balloon_drop_tell(BalloonDriver *d);

/* The guest lets the balloon go, which it was asked for with device_del */
void balloon_eject(BalloonDriver *d);

/* Give memory, as Linux does 1 MiB at a time; then no discard is put off */
void balloon_give(BalloonDriver *d, uint64_t addr, uint64_t size);

/* The guest writes memory that is its own, and nobody takes it */
void balloon_use(BalloonDriver *d, uint64_t addr, uint64_t size);

/* Wait until the host has got memory that is in the balloon */
void balloon_wait_gone(BalloonDriver *d, uint64_t addr, uint64_t size);

/* Has the answer to query-balloon this member? */
bool balloon_info_has(BalloonDriver *d, const char *name);

/* Switch a capability on, or skip the test: the host does not have it */
bool balloon_try_capability(QTestState *qts, const char *name);

#endif
