/*
 * Which queue of a virtio balloon is which, by what the driver negotiated
 *
 * virtio 1.2, section 5.5.2
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"
#include "standard-headers/linux/virtio_config.h"

#define F_STATS (1ull << VIRTIO_BALLOON_F_STATS_VQ)
#define F_HINT (1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT)
#define F_REPORT (1ull << VIRTIO_BALLOON_F_REPORTING)
#define ALL (F_STATS | F_HINT | F_REPORT)

/* The queue of @role when those of @features are numbered one by one */
static int number(uint64_t features, uint64_t role)
{
    return STATS + ctpop64(features & (role - 1) & ALL);
}

/* A new driver sets up the rings of @taken, numbered by @numbered, no other */
static void start(BalloonDriver *d, uint64_t taken, uint64_t numbered)
{
    static const uint64_t roles[] = { F_STATS, F_HINT, F_REPORT };

    balloon_reset(d);
    balloon_negotiate(d, taken);
    for (int i = INFLATE; i <= DEFLATE; i++) {
        d->vq[i] = qvirtqueue_setup(d->vdev, d->alloc, i);
    }
    for (int i = 0; i < ARRAY_SIZE(roles); i++) {
        int n = number(numbered, roles[i]);

        if (taken & roles[i]) {
            d->vq[n] = qvirtqueue_setup(d->vdev, d->alloc, n);
        }
    }
    qvirtio_set_driver_ok(d->vdev);
}

static void assert_reports(BalloonDriver *d, int queue)
{
    uint64_t mem = balloon_dirty_pages(d, 3);

    balloon_send_one(d, queue, mem + BALLOON_PAGE, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "x0x");
}

/* Hints nobody asked for are returned; and only here an id has four bytes */
static void assert_hints(BalloonDriver *d, int queue)
{
    uint64_t mem = balloon_dirty_pages(d, 1);

    balloon_send_one(d, queue, mem, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "x");
    balloon_post(d, queue, (BalloonSeg[]) { { mem, 3 } }, 1);
    balloon_wait_broken(d);
}

/* Each queue does what the driver takes it for */
static void assert_roles(BalloonDriver *d, uint64_t taken, uint64_t numbered)
{
    uint64_t mem = balloon_dirty_pages(d, 1);

    balloon_send_range(d, INFLATE, mem, 1);
    balloon_assert_pages(d, mem, "0");
    balloon_send_range(d, DEFLATE, mem, 1);
    if (taken & F_STATS) {
        balloon_leave_stats(d, 1 + taken);
    }
    if (taken & F_REPORT) {
        assert_reports(d, number(numbered, F_REPORT));
    }
    if (taken & F_HINT) {
        assert_hints(d, number(numbered, F_HINT));
    }
}

/*
 * Whatever of the features that are offered the driver takes: queues are one
 * after the other, as Linux does it, or with a gap for each that is offered and
 * not taken, as it always was
 */
static void subsets(BalloonDriver *d)
{
    bool gaps = d->data;
    uint64_t offered = qvirtio_get_features(d->vdev) & ALL;

    for (uint64_t taken = 0; taken <= ALL; taken++) {
        if (!(taken & ~offered)) {
            start(d, taken, gaps ? offered : taken);
            assert_roles(d, taken, gaps ? offered : taken);
        }
    }
}

/* All queues there are, for nothing that was negotiated */
static void not_negotiated(BalloonDriver *d)
{
    balloon_start(d, 0);
    balloon_leave_stats(d, 77);
}

/* What is in the rings when the VM is saved is served where it is loaded */
static void migrated(BalloonDriver *d)
{
    uint64_t numbered = d->data ? ALL : F_STATS | F_REPORT;
    int queue = number(numbered, F_REPORT);
    uint32_t stats, report;
    uint64_t mem;

    start(d, F_STATS | F_REPORT, numbered);
    mem = balloon_dirty_pages(d, 3);
    stats = balloon_leave_stats(d, 5);
    balloon_stop(d);
    report = balloon_post(d, queue, (BalloonSeg[]) {
        { mem + BALLOON_PAGE, BALLOON_PAGE, true }
    }, 1);
    balloon_migrate(d->qts);

    balloon_arrive(d, NULL);
    balloon_assert_pages(d, mem, "xxx");
    balloon_cont(d);
    balloon_wait_served(d, queue, report);
    balloon_assert_pages(d, mem, "x0x");
    balloon_begin_polling(d, 1, stats);
    balloon_leave_stats(d, 6);
    assert_reports(d, queue);
}

/* A queue is reset by its number, with what is in it; the others go on */
static void queue_reset(BalloonDriver *d)
{
    const uint64_t taken = F_STATS | F_REPORT;
    int queue = number(taken, F_REPORT);
    uint32_t stats;
    uint64_t mem;

    start(d, taken | 1ull << VIRTIO_F_RING_RESET, taken);
    mem = balloon_dirty_pages(d, 1);
    stats = balloon_leave_stats(d, 5);
    balloon_stop(d);
    balloon_post(d, queue, (BalloonSeg[]) { { mem, BALLOON_PAGE, true } }, 1);
    balloon_reset_queue(d, queue);
    balloon_renew_queue(d, queue);
    balloon_cont(d);
    assert_reports(d, queue);
    balloon_assert_pages(d, mem, "x");
    balloon_begin_polling(d, 1, stats);

    balloon_leave_stats(d, 6);
    balloon_reset_queue(d, STATS);
    balloon_renew_queue(d, STATS);
    balloon_leave_stats(d, 7);
    assert_reports(d, queue);
}

/* A driver that leaves gaps does so, too, while its last queue is away */
static void queue_reset_with_gaps(BalloonDriver *d)
{
    const uint64_t taken = F_HINT | F_REPORT;
    int report = number(ALL, F_REPORT), hint = number(ALL, F_HINT);
    uint64_t mem;

    start(d, taken | 1ull << VIRTIO_F_RING_RESET, ALL);
    mem = balloon_dirty_pages(d, 1);
    assert_reports(d, report);
    balloon_reset_queue(d, report);
    balloon_send_one(d, hint, mem, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "x");
    balloon_renew_queue(d, report);
    assert_reports(d, report);
    assert_hints(d, hint);
}

/* The next driver numbers its queues as it likes, firmware or another kernel */
static void next_driver(BalloonDriver *d)
{
    const uint64_t taken = F_STATS | F_REPORT;

    for (int i = 0; i < 2; i++) {
        start(d, taken, ALL);
        assert_roles(d, taken, ALL);
        start(d, taken, taken);
        assert_roles(d, taken, taken);
    }
}

static const BalloonTest tests[] = {
    { "improved/roles/hinting", subsets, HINTING },
    { "improved/roles/reporting", subsets, REPORTING },
    { "improved/roles/both", subsets },
    /* where there is nothing to leave a gap for */
    { "roles/plain", subsets, PLAIN },
    { "roles/gaps/hinting", subsets, HINTING, .data = "gaps" },
    { "roles/gaps/reporting", subsets, REPORTING, .data = "gaps" },
    { "roles/gaps/both", subsets, .data = "gaps" },
    { "roles/not-negotiated", not_negotiated, .unstarted = true },
    { "improved/roles/migration", migrated },
    { "improved/roles/gaps/migration", migrated, .data = "gaps" },
    { "improved/roles/next-driver", next_driver },
    { "improved/roles/queue-reset", queue_reset },
    { "roles/gaps/queue-reset", queue_reset_with_gaps },
};

BALLOON_TESTS("", ALL_QUEUES, tests)
