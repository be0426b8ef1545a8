/*
 * The groups of tests of virtio-balloon-hostile-test, and their steps
 *
 * They all ask for the same in the end: whatever a driver did, the device
 * lives, and it serves the next driver.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_HOSTILE_H
#define TESTS_VIRTIO_BALLOON_HOSTILE_H

#include "virtio-balloon-steps.h"

void balloon_add_hostile_ring_tests(void);
void balloon_add_hostile_load_tests(void);
void balloon_add_hostile_list_tests(void);
void balloon_add_hostile_packed_tests(void);
void balloon_add_hostile_migration_tests(void);

/* Every queue that there is: of them, hinting is 3 and reporting 4 */
#define BALLOON_HOSTILE_DEVICE                                          \
    "virtio-balloon-pci,free-page-hint=on,iothread=io0,free-page-reporting=on"
/* A kick is served, as far as it is in one go, before it returns */
#define BALLOON_HOSTILE_KICKED BALLOON_HOSTILE_DEVICE ",ioeventfd=off"
#define BALLOON_IOTHREAD "-object iothread,id=io0 "
#define BALLOON_VQ_REPORT (BALLOON_VQ_HINT + 1)

/* All features but event index: what balloon_start() leaves out of ALL */
#define BALLOON_INDIRECT_TOO (BALLOON_ALL_FEATURES >> 1)

/* A test that needs a request half done tries so often until it has one */
#define BALLOON_ATTEMPTS 10

/* Reset the device; then the next driver's requests are served */
void balloon_assert_next_driver(BalloonDriver *d);

/* Leave a request of @n times the same segment */
void balloon_post_same(BalloonDriver *d, int queue, BalloonSeg seg,
                       unsigned n);

/* Leave statistics of free memory, in a buffer of @n segments */
void balloon_post_stats(BalloonDriver *d, uint64_t bytes, unsigned n);

/*
 * Fill memory from 64 MiB on, and migrate at a pace at which that takes longer
 * than a test; for balloon_migrate_finish()
 */
void balloon_begin_migration(QTestState *qts, const char *uri);

#endif
