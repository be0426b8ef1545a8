/*
 * When the virtio balloon asks for statistics, on any transport
 *
 * virtio 1.2, section 5.5.6.3
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-qos.h"

#define STATS BALLOON_VQ_STATS
#define SECOND NANOSECONDS_PER_SECOND

static uint64_t free_memory(BalloonDriver *d)
{
    return balloon_stat(d->qts, "free-memory");
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

/* Polling begins, which returns the buffer that is held */
static void begin_polling(BalloonDriver *d, int64_t seconds, uint32_t head)
{
    balloon_set_interval(d->qts, seconds);
    balloon_wait_served(d, STATS, head);
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
    balloon_wait_for(free_memory(d) == 4096);
    begin_polling(d, 1, head);
}

/* A buffer is returned when polling begins, and then once an interval */
static void polling(BalloonDriver *d)
{
    uint32_t head = balloon_leave_stats(d, 0);

    assert_not_returned(d, 1000 * SECOND);
    begin_polling(d, 3, head);
    for (int i = 1; i < 5; i++) {
        assert_returned(d, 3, balloon_leave_stats(d, i));
    }
    /* the values are there while the guest has the buffer */
    g_assert_cmpuint(free_memory(d), ==, 4);
}

/* Polling ends with interval 0, the values stay; it can begin again */
static void polling_off(BalloonDriver *d)
{
    uint32_t head;

    begin_polling(d, 2, balloon_leave_stats(d, 76));
    head = balloon_leave_stats(d, 77);
    balloon_set_interval(d->qts, 0);
    assert_not_returned(d, 100 * SECOND);
    g_assert_cmpuint(free_memory(d), ==, 77);
    g_assert_cmpint(balloon_last_update(d->qts), !=, 0);
    begin_polling(d, 1, head);
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
    begin_polling(d, 5, balloon_leave_stats(d, 1));
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
    balloon_wait_for(free_memory(d) == 2);
    balloon_wait_served(d, STATS, first);
    assert_not_returned(d, 0);
    begin_polling(d, 1, second);
}

/* The buffer held while the VM is stopped is returned when it runs again */
static void stop_cont(BalloonDriver *d)
{
    balloon_set_interval(d->qts, 5);
    for (int i = 1; i < 4; i++) {
        uint32_t head = balloon_leave_stats(d, i);

        balloon_stop(d);
        g_assert_cmpuint(free_memory(d), ==, i);
        balloon_cont(d);
        assert_returned(d, 5, head);
    }
}

/* A reset of the device takes the buffer, not the values */
static void device_reset(BalloonDriver *d)
{
    balloon_leave_stats(d, 9);
    balloon_reset(d);
    g_assert_cmpuint(free_memory(d), ==, 9);

    /* the old buffer is not returned into the new ring */
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_set_interval(d->qts, 1);
    assert_not_returned(d, 10 * SECOND);
    assert_returned(d, 1, balloon_leave_stats(d, 10));
}

/*
 * A device that found a fault in a ring wakes nobody any more: the held buffer
 * is not returned, nor is the guest interrupted for it
 */
static void broken(BalloonDriver *d)
{
    begin_polling(d, 1, balloon_leave_stats(d, 1));
    balloon_leave_stats(d, 2);
    balloon_post(d, BALLOON_VQ_INFLATE, (BalloonSeg[]) {
        { balloon_dirty_pages(d, 1), 0 }
    }, 1);
    balloon_wait_broken(d);
    /* the interrupt that told of that */
    d->vdev->bus->get_queue_isr_status(d->vdev, d->vq[STATS]);
    d->vdev->bus->get_queue_isr_status(d->vdev, d->vq[BALLOON_VQ_INFLATE]);
    assert_not_returned(d, 10 * SECOND);
    g_assert_false(d->vdev->bus->get_queue_isr_status(d->vdev, d->vq[STATS]));

    /* it is well again after a reset */
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    assert_returned(d, 1, balloon_leave_stats(d, 3));
}

static const BalloonTest tests[] = {
    { "polling/early-buffer", early_buffer, .unstarted = true },
    { "polling/interval", polling },
    { "polling/off", polling_off },
    { "polling/changes", polling_changes },
    { "polling/same", polling_same },
    { "polling/silent-guest", silent_guest },
    { "polling/second-buffer", second_buffer },
    { "polling/stop-cont", stop_cont },
    { "polling/device-reset", device_reset },
    { "improved/polling/broken", broken },
};

static void register_virtio_balloon_polling_tests(void)
{
    balloon_add_qos_tests(tests, ARRAY_SIZE(tests), "id=balloon0");
}

libqos_init(register_virtio_balloon_polling_tests);
