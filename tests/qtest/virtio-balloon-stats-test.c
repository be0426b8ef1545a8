/*
 * The statistics queue of the virtio balloon, on any transport
 *
 * contract: Stats; virtio 1.2, section 5.5.6.3
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
#include "standard-headers/linux/virtio_config.h"

#define STATS BALLOON_VQ_STATS
#define SECOND NANOSECONDS_PER_SECOND

typedef struct Stat {
    uint16_t tag;
    uint64_t value;
} Stat;

/* The names of the tags; the specification has the first ten */
static const char *const names[VIRTIO_BALLOON_S_NR] = {
    "swap-in", "swap-out", "major-faults", "minor-faults", "free-memory",
    "total-memory", "available-memory", "disk-caches", "htlb-pgalloc",
    "htlb-pgfail", "oom-kills", "alloc-stalls", "async-scans", "direct-scans",
    "async-reclaims", "direct-reclaims",
};

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

static uint64_t stats_copy(BalloonDriver *d, const Stat *stats, unsigned n)
{
    g_autofree struct virtio_balloon_stat *wire =
        g_new(struct virtio_balloon_stat, n);

    for (unsigned i = 0; i < n; i++) {
        wire[i].tag = balloon_wire16(d, stats[i].tag);
        wire[i].val = balloon_wire64(d, stats[i].value);
    }
    return balloon_copy(d, wire, n * sizeof(*wire));
}

/* Leave a buffer; the device keeps it */
static uint32_t leave(BalloonDriver *d, const Stat *stats, unsigned n)
{
    return balloon_post(d, STATS, (BalloonSeg[]) {
        { stats_copy(d, stats, n), n * sizeof(struct virtio_balloon_stat) },
    }, 1);
}

static void wait_stat(BalloonDriver *d, int tag, uint64_t value)
{
    balloon_wait_for(balloon_stat(d->qts, names[tag]) == value);
}

/* No statistic but @tag has a value */
static void assert_only(BalloonDriver *d, int tag)
{
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        if (i != tag) {
            g_assert_cmphex(balloon_stat(d->qts, names[i]), ==,
                            BALLOON_STAT_UNSET);
        }
    }
}

/* The first buffer counts, polling or not; all tags are known */
static void first_buffer(void *obj, void *data, QGuestAllocator *alloc)
{
    int64_t before = g_get_real_time() / G_USEC_PER_SEC;
    Stat stats[VIRTIO_BALLOON_S_NR];
    BalloonDriver d;

    start(&d, obj, alloc);
    assert_only(&d, -1);
    g_assert_cmpint(balloon_last_update(d.qts), ==, 0);
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 0);

    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        stats[i] = (Stat) { i, 0x1122334455660000 + i };
    }
    leave(&d, stats, ARRAY_SIZE(stats));
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        wait_stat(&d, i, 0x1122334455660000 + i);
    }
    g_assert_cmpint(balloon_last_update(d.qts), >=, before);
    g_assert_false(balloon_has_used(&d, STATS));
    finish(&d);
}

/* Linux leaves and kicks its first buffer before DRIVER_OK */
static void early_buffer(void *obj, void *data, QGuestAllocator *alloc)
{
    QVirtioBalloon *balloon = obj;
    Stat stat = { VIRTIO_BALLOON_S_MEMFREE, 4096 };
    BalloonDriver d;
    uint32_t head;

    balloon_attach(&d, global_qtest, balloon->vdev, alloc);
    balloon_negotiate(&d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(&d);
    head = leave(&d, &stat, 1);
    qvirtio_set_driver_ok(d.vdev);
    wait_stat(&d, stat.tag, 4096);

    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
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

/* A buffer is returned when polling begins, and then once an interval */
static void polling(void *obj, void *data, QGuestAllocator *alloc)
{
    Stat stat = { VIRTIO_BALLOON_S_MEMTOT, 0 };
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    head = leave(&d, &stat, 1);
    wait_stat(&d, stat.tag, 0);
    assert_not_returned(&d, 1000 * SECOND);

    balloon_set_interval(d.qts, 3);
    balloon_wait_served(&d, STATS, head);
    for (int i = 1; i < 5; i++) {
        stat.value = i;
        head = leave(&d, &stat, 1);
        wait_stat(&d, stat.tag, i);
        assert_not_returned(&d, 3 * SECOND - 1000000);
        qtest_clock_step(d.qts, 1000000);
        balloon_wait_served(&d, STATS, head);
        balloon_query(d.qts);
    }
    /* the values are there while the guest has the buffer */
    g_assert_cmpuint(balloon_stat(d.qts, names[stat.tag]), ==, stat.value);
    finish(&d);
}

/* Polling ends with interval 0, the values stay; it can begin again */
static void polling_off(void *obj, void *data, QGuestAllocator *alloc)
{
    Stat stat = { VIRTIO_BALLOON_S_CACHES, 77 };
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    head = leave(&d, &stat, 1);
    wait_stat(&d, stat.tag, 77);
    balloon_set_interval(d.qts, 2);
    balloon_wait_served(&d, STATS, head);
    head = leave(&d, &stat, 1);
    balloon_set_interval(d.qts, 0);
    assert_not_returned(&d, 100 * SECOND);
    g_assert_cmpuint(balloon_stat(d.qts, names[stat.tag]), ==, 77);
    g_assert_cmpint(balloon_last_update(d.qts), !=, 0);

    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

/* No buffer, nothing to return; and a guest that was silent is polled again */
static void silent_guest(void *obj, void *data, QGuestAllocator *alloc)
{
    Stat stat = { VIRTIO_BALLOON_S_AVAIL, 5 };
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    balloon_set_interval(d.qts, 1);
    for (int i = 0; i < 10; i++) {
        assert_not_returned(&d, SECOND);
    }
    head = leave(&d, &stat, 1);
    wait_stat(&d, stat.tag, 5);
    qtest_clock_step(d.qts, SECOND);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

/* Unknown tags and an entry that is cut off are ignored; any order will do */
static void odd_entries(void *obj, void *data, QGuestAllocator *alloc)
{
    Stat stats[] = {
        { 0xffff, 1 },
        { VIRTIO_BALLOON_S_SWAP_OUT, 2 },
        { VIRTIO_BALLOON_S_NR, 3 },
        { VIRTIO_BALLOON_S_SWAP_IN, 4 },
        { 0x0400, 5 },
        { VIRTIO_BALLOON_S_MAJFLT, 6 },
    };
    BalloonDriver d;
    uint64_t addr;

    start(&d, obj, alloc);
    addr = stats_copy(&d, stats, ARRAY_SIZE(stats));
    /* all but the last byte, and in pieces */
    balloon_post(&d, STATS, (BalloonSeg[]) {
        { addr, 1 }, { addr + 1, 12 }, { addr + 13, 6 * 10 - 13 - 1 },
    }, 3);
    wait_stat(&d, VIRTIO_BALLOON_S_SWAP_OUT, 2);
    g_assert_cmpuint(balloon_stat(d.qts, "swap-in"), ==, 4);
    g_assert_cmphex(balloon_stat(d.qts, "major-faults"), ==,
                    BALLOON_STAT_UNSET);
    finish(&d);
}

/* Less than an entry, or nothing to read: no values, but a buffer is held */
static void short_buffer(void *obj, void *data, QGuestAllocator *alloc)
{
    Stat stat = { VIRTIO_BALLOON_S_MEMFREE, 1 };
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    balloon_set_interval(d.qts, 1);
    for (int writable = 0; writable < 2; writable++) {
        head = balloon_post(&d, STATS, (BalloonSeg[]) {
            { stats_copy(&d, &stat, 1), 9, writable },
        }, 1);
        balloon_wait_for(balloon_last_update(d.qts) != 0);
        assert_only(&d, -1);
        qtest_clock_step(d.qts, SECOND);
        balloon_wait_served(&d, STATS, head);
    }
    finish(&d);
}

/* Far more entries than there are tags */
static void long_buffer(void *obj, void *data, QGuestAllocator *alloc)
{
    enum { N = 50000 };
    g_autofree Stat *stats = g_new0(Stat, N);
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    for (int i = 0; i < N; i++) {
        stats[i] = (Stat) { VIRTIO_BALLOON_S_MEMFREE, 42 };
    }
    head = leave(&d, stats, N);
    wait_stat(&d, VIRTIO_BALLOON_S_MEMFREE, 42);
    assert_only(&d, VIRTIO_BALLOON_S_MEMFREE);
    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

/* What a newer buffer does not say is unknown again */
static void missing_tags(void *obj, void *data, QGuestAllocator *alloc)
{
    Stat both[] = {
        { VIRTIO_BALLOON_S_MEMFREE, 1 }, { VIRTIO_BALLOON_S_MEMTOT, 2 },
    };
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    head = leave(&d, both, 2);
    wait_stat(&d, VIRTIO_BALLOON_S_MEMTOT, 2);
    g_assert_cmpuint(balloon_stat(d.qts, "free-memory"), ==, 1);
    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, head);
    leave(&d, &(Stat) { VIRTIO_BALLOON_S_MEMTOT, 3 }, 1);
    wait_stat(&d, VIRTIO_BALLOON_S_MEMTOT, 3);
    assert_only(&d, VIRTIO_BALLOON_S_MEMTOT);
    finish(&d);
}

/* A driver that leaves a second buffer gets the first one back */
static void second_buffer(void *obj, void *data, QGuestAllocator *alloc)
{
    Stat stat = { VIRTIO_BALLOON_S_MEMFREE, 1 };
    BalloonSeg seg = { .len = sizeof(struct virtio_balloon_stat) };
    BalloonDriver d;
    uint32_t first, second;

    start(&d, obj, alloc);
    first = leave(&d, &stat, 1);
    wait_stat(&d, stat.tag, 1);
    stat.value = 2;
    seg.addr = stats_copy(&d, &stat, 1);
    second = balloon_add(&d, STATS, &seg, 1);
    balloon_publish(&d, STATS, second);
    balloon_kick(&d, STATS);
    wait_stat(&d, stat.tag, 2);
    balloon_wait_served(&d, STATS, first);
    assert_not_returned(&d, 0);
    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, second);
    finish(&d);
}

/* The buffer held while the VM is stopped is returned when it runs again */
static void stop_cont(void *obj, void *data, QGuestAllocator *alloc)
{
    Stat stat = { VIRTIO_BALLOON_S_MEMFREE, 1 };
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    balloon_set_interval(d.qts, 5);
    for (int i = 1; i < 4; i++) {
        stat.value = i;
        head = leave(&d, &stat, 1);
        wait_stat(&d, stat.tag, i);
        qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
        g_assert_cmpuint(balloon_stat(d.qts, names[stat.tag]), ==, i);
        qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
        g_assert_false(balloon_has_used(&d, STATS));
        qtest_clock_step(d.qts, 5 * SECOND);
        balloon_wait_served(&d, STATS, head);
    }
    finish(&d);
}

/* A reset of the device takes the buffer, not the values */
static void device_reset(void *obj, void *data, QGuestAllocator *alloc)
{
    Stat stat = { VIRTIO_BALLOON_S_MEMFREE, 9 };
    BalloonDriver d;
    uint32_t head;

    start(&d, obj, alloc);
    leave(&d, &stat, 1);
    wait_stat(&d, stat.tag, 9);
    balloon_reset(&d);
    g_assert_cmpuint(balloon_stat(d.qts, names[stat.tag]), ==, 9);

    /* the old buffer is not returned into the new ring */
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_set_interval(d.qts, 1);
    assert_not_returned(&d, 10 * SECOND);

    stat.value = 10;
    head = leave(&d, &stat, 1);
    wait_stat(&d, stat.tag, 10);
    qtest_clock_step(d.qts, SECOND);
    balloon_wait_served(&d, STATS, head);
    finish(&d);
}

static void register_virtio_balloon_stats_tests(void)
{
    QOSGraphTestOptions opts = {
        .edge.extra_device_opts = "id=balloon0",
    };
    static const struct {
        const char *name;
        QOSTestFunc test;
    } tests[] = {
        { "stats/first-buffer", first_buffer },
        { "stats/early-buffer", early_buffer },
        { "stats/polling", polling },
        { "stats/polling-off", polling_off },
        { "stats/silent-guest", silent_guest },
        { "stats/odd-entries", odd_entries },
        { "stats/short-buffer", short_buffer },
        { "stats/long-buffer", long_buffer },
        { "stats/missing-tags", missing_tags },
        { "stats/second-buffer", second_buffer },
        { "stats/stop-cont", stop_cont },
        { "stats/device-reset", device_reset },
    };

    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        qos_add_test(tests[i].name, "virtio-balloon", tests[i].test, &opts);
    }
}

libqos_init(register_virtio_balloon_stats_tests);
