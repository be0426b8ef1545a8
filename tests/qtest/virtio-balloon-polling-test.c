/*
 * When the virtio balloon asks for statistics, on any transport
 *
 * virtio 1.2, section 5.5.6.3
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest-single.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "libqos/qgraph.h"
#include "libqos/virtio-balloon.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-monitor.h"

#define STATS BALLOON_VQ_STATS
#define SECOND NANOSECONDS_PER_SECOND

static void start(BalloonDriver *d, QVirtioBalloon *balloon,
                  QGuestAllocator *alloc)
{
    balloon_attach(d, global_qtest, balloon->vdev, alloc);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

static void finish(BalloonDriver *d)
{
    balloon_reset(d);
    /* values survive that: the next test needs a new machine */
    qos_invalidate_command_line();
}

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

/* Linux leaves and kicks its first buffer before DRIVER_OK */
static void early_buffer(void *obj, void *data, QGuestAllocator *alloc)
{
    QVirtioBalloon *balloon = obj;
    BalloonDriver d;
    uint32_t head;

    balloon_attach(&d, global_qtest, balloon->vdev, alloc);
    balloon_negotiate(&d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(&d);
    head = balloon_post_stats_value(&d, 4096);
    qvirtio_set_driver_ok(d.vdev);
    balloon_wait_for(free_memory(&d) == 4096);

    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

/* A buffer is returned when polling begins, and then once an interval */
static void polling(void *obj, void *data, QGuestAllocator *alloc)
{
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    head = balloon_leave_stats(&d, 0);
    assert_not_returned(&d, 1000 * SECOND);

    balloon_set_interval(d.qts, 3);
    balloon_wait_served(&d, STATS, head);
    for (int i = 1; i < 5; i++) {
        head = balloon_leave_stats(&d, i);
        assert_not_returned(&d, 3 * SECOND - SCALE_MS);
        qtest_clock_step(d.qts, SCALE_MS);
        balloon_wait_served(&d, STATS, head);
    }
    /* the values are there while the guest has the buffer */
    g_assert_cmpuint(free_memory(&d), ==, 4);
    finish(&d);
}

/* Polling ends with interval 0, the values stay; it can begin again */
static void polling_off(void *obj, void *data, QGuestAllocator *alloc)
{
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    head = balloon_leave_stats(&d, 76);
    balloon_set_interval(d.qts, 2);
    balloon_wait_served(&d, STATS, head);
    head = balloon_leave_stats(&d, 77);
    balloon_set_interval(d.qts, 0);
    assert_not_returned(&d, 100 * SECOND);
    g_assert_cmpuint(free_memory(&d), ==, 77);
    g_assert_cmpint(balloon_last_update(d.qts), !=, 0);

    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

/* A change of the interval counts from now */
static void polling_changes(void *obj, void *data, QGuestAllocator *alloc)
{
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    balloon_set_interval(d.qts, 1000);
    head = balloon_leave_stats(&d, 1);
    assert_not_returned(&d, 500 * SECOND);
    balloon_set_interval(d.qts, 4);
    assert_not_returned(&d, 4 * SECOND - SCALE_MS);
    qtest_clock_step(d.qts, SCALE_MS);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

/* Setting what is set already changes nothing, however often it is done */
static void polling_same(void *obj, void *data, QGuestAllocator *alloc)
{
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    head = balloon_leave_stats(&d, 1);
    balloon_set_interval(d.qts, 5);
    balloon_wait_served(&d, STATS, head);
    for (int i = 2; i < 5; i++) {
        head = balloon_leave_stats(&d, i);
        assert_not_returned(&d, 4 * SECOND);
        balloon_set_interval(d.qts, 5);
        assert_not_returned(&d, SECOND - SCALE_MS);
        qtest_clock_step(d.qts, SCALE_MS);
        balloon_wait_served(&d, STATS, head);
    }
    finish(&d);
}

/* No buffer, nothing to return; and a guest that was silent is polled again */
static void silent_guest(void *obj, void *data, QGuestAllocator *alloc)
{
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    balloon_set_interval(d.qts, 1);
    for (int i = 0; i < 10; i++) {
        assert_not_returned(&d, SECOND);
    }
    head = balloon_leave_stats(&d, 5);
    qtest_clock_step(d.qts, SECOND);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

/* A driver that leaves a second buffer gets the first one back */
static void second_buffer(void *obj, void *data, QGuestAllocator *alloc)
{
    struct virtio_balloon_stat stat;
    BalloonSeg seg = { .len = sizeof(stat) };
    BalloonDriver d;
    uint32_t first, second;

    start(&d, obj, alloc);
    first = balloon_leave_stats(&d, 1);
    stat.tag = balloon_wire16(&d, VIRTIO_BALLOON_S_MEMFREE);
    stat.val = balloon_wire64(&d, 2);
    seg.addr = balloon_copy(&d, &stat, sizeof(stat));
    second = balloon_add(&d, STATS, &seg, 1);
    balloon_publish(&d, STATS, second);
    balloon_kick(&d, STATS);
    balloon_wait_for(free_memory(&d) == 2);
    balloon_wait_served(&d, STATS, first);
    assert_not_returned(&d, 0);
    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, second);
    finish(&d);
}

/* The buffer held while the VM is stopped is returned when it runs again */
static void stop_cont(void *obj, void *data, QGuestAllocator *alloc)
{
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    balloon_set_interval(d.qts, 5);
    for (int i = 1; i < 4; i++) {
        head = balloon_leave_stats(&d, i);
        qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
        g_assert_cmpuint(free_memory(&d), ==, i);
        qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
        assert_not_returned(&d, 0);
        qtest_clock_step(d.qts, 5 * SECOND);
        balloon_wait_served(&d, STATS, head);
    }
    finish(&d);
}

/* A reset of the device takes the buffer, not the values */
static void device_reset(void *obj, void *data, QGuestAllocator *alloc)
{
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    balloon_leave_stats(&d, 9);
    balloon_reset(&d);
    g_assert_cmpuint(free_memory(&d), ==, 9);

    /* the old buffer is not returned into the new ring */
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_set_interval(d.qts, 1);
    assert_not_returned(&d, 10 * SECOND);

    head = balloon_leave_stats(&d, 10);
    qtest_clock_step(d.qts, SECOND);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

/*
 * A device that found a fault in a ring wakes nobody any more: the held buffer
 * is not returned, nor is the guest interrupted for it
 */
static void broken(void *obj, void *data, QGuestAllocator *alloc)
{
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    head = balloon_leave_stats(&d, 1);
    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, head);
    balloon_leave_stats(&d, 2);
    balloon_post(&d, BALLOON_VQ_INFLATE, (BalloonSeg[]) {
        { balloon_dirty_pages(&d, 1), 0 }
    }, 1);
    if (d.vdev->features & 1ull << VIRTIO_F_VERSION_1) {
        balloon_wait_for(balloon_status(&d) == BALLOON_STATUS_BROKEN);
    }
    /* the interrupt that told of that */
    d.vdev->bus->get_queue_isr_status(d.vdev, d.vq[STATS]);
    d.vdev->bus->get_queue_isr_status(d.vdev, d.vq[BALLOON_VQ_INFLATE]);
    assert_not_returned(&d, 10 * SECOND);
    g_assert_false(d.vdev->bus->get_queue_isr_status(d.vdev, d.vq[STATS]));

    /* it is well again after a reset */
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    head = balloon_leave_stats(&d, 3);
    qtest_clock_step(d.qts, SECOND);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

static void register_virtio_balloon_polling_tests(void)
{
    QOSGraphTestOptions opts = {
        .edge.extra_device_opts = "id=balloon0",
    };
    static const struct {
        const char *name;
        QOSTestFunc test;
    } tests[] = {
        { "polling/early-buffer", early_buffer },
        { "polling/interval", polling },
        { "polling/off", polling_off },
        { "polling/changes", polling_changes },
        { "polling/same", polling_same },
        { "polling/silent-guest", silent_guest },
        { "polling/second-buffer", second_buffer },
        { "polling/stop-cont", stop_cont },
        { "polling/device-reset", device_reset },
        { "polling/broken", broken },
    };

    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        qos_add_test(tests[i].name, "virtio-balloon", tests[i].test, &opts);
    }
}

libqos_init(register_virtio_balloon_polling_tests);
