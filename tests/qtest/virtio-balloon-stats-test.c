/*
 * The statistics queue of the virtio balloon, on any transport
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
        { "stats/odd-entries", odd_entries },
        { "stats/short-buffer", short_buffer },
        { "stats/long-buffer", long_buffer },
        { "stats/missing-tags", missing_tags },
    };

    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        qos_add_test(tests[i].name, "virtio-balloon", tests[i].test, &opts);
    }
}

libqos_init(register_virtio_balloon_stats_tests);
