/*
 * Which queue of a virtio balloon is which, by what the driver negotiated
 *
 * virtio 1.2, section 5.5.2
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-test.h"
#include "standard-headers/linux/virtio_config.h"

#define OPTIONS "-m 64 -object iothread,id=io0"
#define STATS (1ull << VIRTIO_BALLOON_F_STATS_VQ)
#define HINT (1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT)
#define REPORT (1ull << VIRTIO_BALLOON_F_REPORTING)

/* What devices offer, and the same in words */
static const struct {
    const char *name;
    const char *device;
    uint64_t features;
} offers[] = {
    { "plain", "virtio-balloon-pci", STATS },
    { "hinting", "virtio-balloon-pci,free-page-hint=on,iothread=io0",
      STATS | HINT },
    { "reporting", "virtio-balloon-pci,free-page-reporting=on",
      STATS | REPORT },
    { "both", "virtio-balloon-pci,free-page-hint=on,iothread=io0,"
      "free-page-reporting=on", STATS | HINT | REPORT },
};
#define BOTH (ARRAY_SIZE(offers) - 1)

/* The queue of @role when those of @features are numbered one by one */
static int number(uint64_t features, uint64_t role)
{
    return BALLOON_VQ_STATS + ctpop64(features & (role - 1) &
                                      (STATS | HINT | REPORT));
}

/* Set up the rings of @taken, numbered by @numbered, and no other */
static void start(BalloonDriver *d, uint64_t taken, uint64_t numbered)
{
    static const uint64_t roles[] = { STATS, HINT, REPORT };

    balloon_negotiate(d, taken);
    for (int i = BALLOON_VQ_INFLATE; i <= BALLOON_VQ_DEFLATE; i++) {
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
    balloon_wait_for(balloon_status(d) == BALLOON_STATUS_BROKEN);
}

/* Each queue does what the driver takes it for */
static void assert_roles(BalloonDriver *d, uint64_t taken, uint64_t numbered)
{
    uint64_t mem = balloon_dirty_pages(d, 1);

    balloon_send_range(d, BALLOON_VQ_INFLATE, mem, 1);
    balloon_assert_pages(d, mem, "0");
    balloon_send_range(d, BALLOON_VQ_DEFLATE, mem, 1);
    if (taken & STATS) {
        balloon_leave_stats(d, 1 + taken);
    }
    if (taken & REPORT) {
        assert_reports(d, number(numbered, REPORT));
    }
    if (taken & HINT) {
        assert_hints(d, number(numbered, HINT));
    }
}

static bool is_offered(uint64_t offer, uint64_t taken)
{
    return !(taken & ~offer);
}

/* One after the other, whatever else is offered: Linux does that */
static void without_gaps(const void *data)
{
    int offer = GPOINTER_TO_INT(data);
    BalloonDriver d;

    balloon_boot(&d, offers[offer].device, OPTIONS);
    for (uint64_t taken = 0; taken <= (STATS | HINT | REPORT); taken++) {
        if (is_offered(offers[offer].features, taken)) {
            start(&d, taken, taken);
            assert_roles(&d, taken, taken);
            balloon_reset(&d);
        }
    }
    balloon_quit(&d);
}

/* With a gap for each that is offered and not taken, as it always was */
static void with_gaps(const void *data)
{
    int offer = GPOINTER_TO_INT(data);
    uint64_t offered = offers[offer].features;
    BalloonDriver d;

    balloon_boot(&d, offers[offer].device, OPTIONS);
    for (uint64_t taken = 0; taken <= (STATS | HINT | REPORT); taken++) {
        if (is_offered(offered, taken)) {
            start(&d, taken, offered);
            assert_roles(&d, taken, offered);
            balloon_reset(&d);
        }
    }
    balloon_quit(&d);
}

/* All queues there are, for nothing that was negotiated */
static void not_negotiated(void)
{
    BalloonDriver d;

    balloon_boot(&d, offers[BOTH].device, OPTIONS);
    balloon_start(&d, 0);
    balloon_leave_stats(&d, 77);
    balloon_quit(&d);
}

/* What is in the rings when the VM is saved is served where it is loaded */
static void migrated(uint64_t taken, uint64_t numbered)
{
    g_autofree char *file = balloon_migration_file();
    int queue = number(numbered, REPORT);
    BalloonDriver source, d;
    uint32_t stats, report;
    uint64_t mem;

    balloon_boot(&source, offers[BOTH].device, OPTIONS);
    start(&source, taken, numbered);
    mem = balloon_dirty_pages(&source, 3);
    stats = balloon_leave_stats(&source, 5);
    qtest_qmp_assert_success(source.qts, "{'execute': 'stop'}");
    report = balloon_post(&source, queue, (BalloonSeg[]) {
        { mem + BALLOON_PAGE, BALLOON_PAGE, true }
    }, 1);
    balloon_migrate(source.qts, file);

    balloon_load(&d, &source, offers[BOTH].device, OPTIONS, file);
    unlink(file);
    balloon_assert_pages(&d, mem, "xxx");
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    balloon_wait_served(&d, queue, report);
    balloon_assert_pages(&d, mem, "x0x");
    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, BALLOON_VQ_STATS, stats);
    balloon_leave_stats(&d, 6);
    assert_reports(&d, queue);
    balloon_quit(&source);
    balloon_quit(&d);
}

static void migrated_without_gaps(void)
{
    migrated(STATS | REPORT, STATS | REPORT);
}

static void migrated_with_gaps(void)
{
    migrated(STATS | REPORT, STATS | HINT | REPORT);
}

/* A queue is reset by its number, with what is in it; the others go on */
static void queue_reset(void)
{
    const uint64_t taken = STATS | REPORT;
    int queue = number(taken, REPORT);
    BalloonDriver d;
    uint32_t stats;
    uint64_t mem;

    balloon_boot(&d, offers[BOTH].device, OPTIONS);
    start(&d, taken | 1ull << VIRTIO_F_RING_RESET, taken);
    mem = balloon_dirty_pages(&d, 1);
    stats = balloon_leave_stats(&d, 5);
    qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
    balloon_post(&d, queue, (BalloonSeg[]) { { mem, BALLOON_PAGE, true } }, 1);
    balloon_reset_queue(&d, queue);
    balloon_renew_queue(&d, queue);
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    assert_reports(&d, queue);
    balloon_assert_pages(&d, mem, "x");
    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, BALLOON_VQ_STATS, stats);

    stats = balloon_leave_stats(&d, 6);
    balloon_reset_queue(&d, BALLOON_VQ_STATS);
    balloon_renew_queue(&d, BALLOON_VQ_STATS);
    balloon_leave_stats(&d, 7);
    assert_reports(&d, queue);
    balloon_quit(&d);
}

/* A driver that leaves gaps does so, too, while its last queue is away */
static void queue_reset_with_gaps(void)
{
    const uint64_t taken = HINT | REPORT, offered = STATS | HINT | REPORT;
    int report = number(offered, REPORT), hint = number(offered, HINT);
    BalloonDriver d;
    uint64_t mem;

    balloon_boot(&d, offers[BOTH].device, OPTIONS);
    start(&d, taken | 1ull << VIRTIO_F_RING_RESET, offered);
    mem = balloon_dirty_pages(&d, 1);
    assert_reports(&d, report);
    balloon_reset_queue(&d, report);
    balloon_send_one(&d, hint, mem, BALLOON_PAGE, true);
    balloon_assert_pages(&d, mem, "x");
    balloon_renew_queue(&d, report);
    assert_reports(&d, report);
    assert_hints(&d, hint);
    balloon_quit(&d);
}

void virtio_balloon_add_roles_tests(void)
{
    for (int i = 0; i < ARRAY_SIZE(offers); i++) {
        g_autofree char *dense = g_strconcat(BALLOON_IMPROVED "roles/",
                                             offers[i].name, NULL);
        g_autofree char *gaps = g_strconcat(BALLOON_TESTS "roles/gaps/",
                                            offers[i].name, NULL);

        qtest_add_data_func(dense, GINT_TO_POINTER(i), without_gaps);
        qtest_add_data_func(gaps, GINT_TO_POINTER(i), with_gaps);
    }
    qtest_add_func(BALLOON_TESTS "roles/not-negotiated", not_negotiated);
    qtest_add_func(BALLOON_IMPROVED "roles/migration", migrated_without_gaps);
    qtest_add_func(BALLOON_TESTS "roles/gaps/migration", migrated_with_gaps);
    qtest_add_func(BALLOON_IMPROVED "roles/queue-reset", queue_reset);
    qtest_add_func(BALLOON_IMPROVED "roles/gaps/queue-reset",
                   queue_reset_with_gaps);
}
