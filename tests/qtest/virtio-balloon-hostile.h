/*
 * Steps of virtio-balloon-hostile-test, and its groups of tests
 *
 * Every test holds for the balloon that QEMU 10.0 came with, except those
 * below /virtio-balloon/improved, where this one differs on purpose.  They all
 * ask for the same in the end: whatever a driver did, the device lives, and it
 * serves the next driver.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_HOSTILE_H
#define TESTS_VIRTIO_BALLOON_HOSTILE_H

#include "qemu/units.h"
#include "virtio-balloon-driver.h"

void balloon_add_hostile_ring_tests(void);
void balloon_add_hostile_load_tests(void);
void balloon_add_hostile_list_tests(void);
void balloon_add_hostile_parked_tests(void);
void balloon_add_hostile_packed_tests(void);
void balloon_add_hostile_migration_tests(void);
void balloon_add_hostile_memory_tests(void);

/* Every queue that there is: of them, hinting is 3 and reporting 4 */
#define BALLOON_HOSTILE_DEVICE                                          \
    "virtio-balloon-pci,free-page-hint=on,iothread=io0,free-page-reporting=on"
#define BALLOON_HOSTILE_OPTIONS "-m 128 -object iothread,id=io0 "
#define BALLOON_VQ_HINT BALLOON_VQ_FIRST_OPTIONAL
#define BALLOON_VQ_REPORT (BALLOON_VQ_FIRST_OPTIONAL + 1)

/* All features but event index: what balloon_start() leaves out of ALL */
#define BALLOON_INDIRECT_TOO (BALLOON_ALL_FEATURES >> 1)

/* Reset the device; then the next driver's inflate request is served */
void balloon_assert_next_driver(BalloonDriver *d);

/* Tell the device, before DRIVER_OK, where @d has a queue, and its size */
void balloon_move_queue(BalloonDriver *d, int queue);

/* Leave statistics of free memory, in a buffer of @n segments */
uint32_t balloon_post_free_memory(BalloonDriver *d, uint64_t bytes, unsigned n);

/*
 * Fill memory from 64 MiB on, and migrate at a pace at which that takes longer
 * than a test; for balloon_migrate_finish()
 */
void balloon_begin_migration(QTestState *qts, const char *uri);
void balloon_wait_migration(QTestState *qts, const char *status);
/* Wait until the device asks for hints.  Returns: the command id */
uint32_t balloon_wait_asked(BalloonDriver *d);

#endif
