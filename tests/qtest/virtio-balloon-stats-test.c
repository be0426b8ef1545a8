/*
 * The statistics queue of the virtio balloon, and when the device asks for
 * news, on any transport
 *
 * virtio 1.2, section 5.5.6.3
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "virtio-balloon-case.h"

/* Leave a buffer; the device keeps it */
static uint32_t leave(BalloonDriver *d, const BalloonStat *stats, unsigned n)
{
    BalloonSeg seg = balloon_copy_stats(d, stats, n);

    return balloon_post(d, STATS, &seg, 1);
}

static void wait_stat(BalloonDriver *d, int tag, uint64_t value)
{
    balloon_wait_for(balloon_stat(d->qts, balloon_stat_names[tag]) == value);
}

/* No statistic but @tag has a value */
static void assert_only(BalloonDriver *d, int tag)
{
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        if (i != tag) {
            g_assert_cmphex(balloon_stat(d->qts, balloon_stat_names[i]), ==,
                            BALLOON_STAT_UNSET);
        }
    }
}

/* The first buffer counts, polling or not; all tags are known */
static void first_buffer(BalloonDriver *d)
{
    int64_t before = g_get_real_time() / G_USEC_PER_SEC;
    BalloonStat stats[VIRTIO_BALLOON_S_NR];

    assert_only(d, -1);
    g_assert_cmpint(balloon_last_update(d->qts), ==, 0);
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 0);

    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        stats[i] = (BalloonStat) { i, 0x1122334455660000 + i };
    }
    leave(d, stats, ARRAY_SIZE(stats));
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        wait_stat(d, i, 0x1122334455660000 + i);
    }
    g_assert_cmpint(balloon_last_update(d->qts), >=, before);
    g_assert_false(balloon_has_used(d, STATS));
}

/* Unknown tags and an entry that is cut off are ignored; any order will do */
static void odd_entries(BalloonDriver *d)
{
    BalloonStat stats[] = {
        { 0xffff, 1 },
        { VIRTIO_BALLOON_S_SWAP_OUT, 2 },
        { VIRTIO_BALLOON_S_NR, 3 },
        { VIRTIO_BALLOON_S_SWAP_IN, 4 },
        { 0x0400, 5 },
        { VIRTIO_BALLOON_S_MAJFLT, 6 },
    };
    uint64_t addr = balloon_copy_stats(d, stats, ARRAY_SIZE(stats)).addr;

    /* all but the last byte, and in pieces */
    balloon_post(d, STATS, (BalloonSeg[]) {
        { addr, 1 }, { addr + 1, 12 }, { addr + 13, 6 * 10 - 13 - 1 },
    }, 3);
    wait_stat(d, VIRTIO_BALLOON_S_SWAP_OUT, 2);
    g_assert_cmpuint(balloon_stat(d->qts, "swap-in"), ==, 4);
    g_assert_cmphex(balloon_stat(d->qts, "major-faults"), ==,
                    BALLOON_STAT_UNSET);
}

/* Less than an entry, or nothing to read: no values, but a buffer is held */
static void short_buffer(BalloonDriver *d)
{
    BalloonSeg seg = balloon_stats_seg(d, 1);

    seg.len--;
    balloon_set_interval(d->qts, 1);
    for (int writable = 0; writable < 2; writable++) {
        uint32_t head;

        seg.write = writable;
        head = balloon_post(d, STATS, &seg, 1);
        qtest_clock_step(d->qts, SECOND);
        balloon_wait_served(d, STATS, head);
        g_assert_cmpint(balloon_last_update(d->qts), !=, 0);
        assert_only(d, -1);
    }
}

/* Far more entries than there are tags */
static void long_buffer(BalloonDriver *d)
{
    enum { N = 50000 };
    g_autofree BalloonStat *stats = g_new0(BalloonStat, N);
    uint32_t head;

    for (int i = 0; i < N; i++) {
        stats[i] = (BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, 42 };
    }
    head = leave(d, stats, N);
    wait_stat(d, VIRTIO_BALLOON_S_MEMFREE, 42);
    assert_only(d, VIRTIO_BALLOON_S_MEMFREE);
    balloon_begin_polling(d, 1, head);
}

/* What a newer buffer does not say is unknown again */
static void missing_tags(BalloonDriver *d)
{
    BalloonStat both[] = {
        { VIRTIO_BALLOON_S_MEMFREE, 1 }, { VIRTIO_BALLOON_S_MEMTOT, 2 },
    };
    uint32_t head = leave(d, both, 2);

    wait_stat(d, VIRTIO_BALLOON_S_MEMTOT, 2);
    g_assert_cmpuint(balloon_stat(d->qts, "free-memory"), ==, 1);
    balloon_begin_polling(d, 1, head);
    leave(d, &(BalloonStat) { VIRTIO_BALLOON_S_MEMTOT, 3 }, 1);
    wait_stat(d, VIRTIO_BALLOON_S_MEMTOT, 3);
    assert_only(d, VIRTIO_BALLOON_S_MEMTOT);
}

/* Time passes, and the device had its chance: nothing was returned */
static void assert_not_returned(BalloonDriver *d, int64_t ns)
{
    if (ns) {
        qtest_clock_step(d->qts, ns);
    }
    balloon_query(d->qts);
    g_assert_false(balloon_has_used(d, STATS));
}

/* The buffer that is held is returned after so many seconds, not before */
static void assert_returned(BalloonDriver *d, int64_t seconds, uint32_t head)
{
    assert_not_returned(d, seconds * SECOND - SCALE_MS);
    qtest_clock_step(d->qts, SCALE_MS);
    balloon_wait_served(d, STATS, head);
}

/* Linux leaves and kicks its first buffer before DRIVER_OK */
static void early_buffer(BalloonDriver *d)
{
    uint32_t head;

    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    head = balloon_post_stats_value(d, 4096);
    qvirtio_set_driver_ok(d->vdev);
    balloon_wait_for(balloon_free_memory(d->qts) == 4096);
    balloon_begin_polling(d, 1, head);
}

/* A buffer is returned when polling begins, and then once an interval */
static void polling(BalloonDriver *d)
{
    uint32_t head = balloon_leave_stats(d, 0);

    assert_not_returned(d, 1000 * SECOND);
    balloon_begin_polling(d, 3, head);
    for (int i = 1; i < 5; i++) {
        assert_returned(d, 3, balloon_leave_stats(d, i));
    }
    /* the values are there while the guest has the buffer */
    g_assert_cmpuint(balloon_free_memory(d->qts), ==, 4);
}

/* Polling ends with interval 0, the values stay; it can begin again */
static void polling_off(BalloonDriver *d)
{
    uint32_t head;

    balloon_begin_polling(d, 2, balloon_leave_stats(d, 76));
    head = balloon_leave_stats(d, 77);
    balloon_set_interval(d->qts, 0);
    assert_not_returned(d, 100 * SECOND);
    g_assert_cmpuint(balloon_free_memory(d->qts), ==, 77);
    g_assert_cmpint(balloon_last_update(d->qts), !=, 0);
    balloon_begin_polling(d, 1, head);
}

/* A change of the interval counts from now */
static void polling_changes(BalloonDriver *d)
{
    uint32_t head;

    balloon_set_interval(d->qts, 1000);
    head = balloon_leave_stats(d, 1);
    assert_not_returned(d, 500 * SECOND);
    balloon_set_interval(d->qts, 4);
    assert_returned(d, 4, head);
}

/* Setting what is set already changes nothing, however often it is done */
static void polling_same(BalloonDriver *d)
{
    balloon_begin_polling(d, 5, balloon_leave_stats(d, 1));
    for (int i = 2; i < 5; i++) {
        uint32_t head = balloon_leave_stats(d, i);

        assert_not_returned(d, 4 * SECOND);
        balloon_set_interval(d->qts, 5);
        assert_returned(d, 1, head);
    }
}

/* No buffer, nothing to return; and a guest that was silent is polled again */
static void silent_guest(BalloonDriver *d)
{
    balloon_set_interval(d->qts, 1);
    for (int i = 0; i < 10; i++) {
        assert_not_returned(d, SECOND);
    }
    assert_returned(d, 1, balloon_leave_stats(d, 5));
}

/* A driver that leaves a second buffer gets the first one back */
static void second_buffer(BalloonDriver *d)
{
    uint32_t first = balloon_leave_stats(d, 1);
    BalloonSeg seg = balloon_stats_seg(d, 2);
    uint32_t second = balloon_add(d, STATS, &seg, 1);

    balloon_publish(d, STATS, second);
    balloon_kick(d, STATS);
    balloon_wait_for(balloon_free_memory(d->qts) == 2);
    balloon_wait_served(d, STATS, first);
    assert_not_returned(d, 0);
    balloon_begin_polling(d, 1, second);
}

/* The buffer held while the VM is stopped is returned when it runs again */
static void stop_cont(BalloonDriver *d)
{
    balloon_set_interval(d->qts, 5);
    for (int i = 1; i < 4; i++) {
        uint32_t head = balloon_leave_stats(d, i);

        balloon_stop(d);
        g_assert_cmpuint(balloon_free_memory(d->qts), ==, i);
        balloon_cont(d);
        assert_returned(d, 5, head);
    }
}

/* A reset of the device takes the buffer, not the values */
static void device_reset(BalloonDriver *d)
{
    balloon_leave_stats(d, 9);
    balloon_reset(d);
    g_assert_cmpuint(balloon_free_memory(d->qts), ==, 9);

    /* the old buffer is not returned into the new ring */
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_set_interval(d->qts, 1);
    assert_not_returned(d, 10 * SECOND);
    assert_returned(d, 1, balloon_leave_stats(d, 10));
}

static const BalloonTest tests[] = {
    { "stats/first-buffer", first_buffer },
    { "stats/odd-entries", odd_entries },
    { "stats/short-buffer", short_buffer },
    { "stats/long-buffer", long_buffer },
    { "stats/missing-tags", missing_tags },
    { "polling/early-buffer", early_buffer, .unstarted = true },
    { "polling/interval", polling },
    { "polling/off", polling_off },
    { "polling/changes", polling_changes },
    { "polling/same", polling_same },
    { "polling/silent-guest", silent_guest },
    { "polling/second-buffer", second_buffer },
    { "polling/stop-cont", stop_cont },
    { "polling/device-reset", device_reset },
};

static void register_virtio_balloon_stats_tests(void)
{
    balloon_add_qos_tests(tests, ARRAY_SIZE(tests), "id=balloon0");
}

libqos_init(register_virtio_balloon_stats_tests);
