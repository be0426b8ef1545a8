/*
 * The statistics queue of the virtio balloon, on any transport
 *
 * virtio 1.2, section 5.5.6.3
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-qos.h"
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

static uint64_t copy_stats(BalloonDriver *d, const Stat *stats, unsigned n)
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
        { copy_stats(d, stats, n), n * sizeof(struct virtio_balloon_stat) },
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
static void first_buffer(BalloonDriver *d)
{
    int64_t before = g_get_real_time() / G_USEC_PER_SEC;
    Stat stats[VIRTIO_BALLOON_S_NR];

    assert_only(d, -1);
    g_assert_cmpint(balloon_last_update(d->qts), ==, 0);
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 0);

    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        stats[i] = (Stat) { i, 0x1122334455660000 + i };
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
    Stat stats[] = {
        { 0xffff, 1 },
        { VIRTIO_BALLOON_S_SWAP_OUT, 2 },
        { VIRTIO_BALLOON_S_NR, 3 },
        { VIRTIO_BALLOON_S_SWAP_IN, 4 },
        { 0x0400, 5 },
        { VIRTIO_BALLOON_S_MAJFLT, 6 },
    };
    uint64_t addr = copy_stats(d, stats, ARRAY_SIZE(stats));

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
    Stat stat = { VIRTIO_BALLOON_S_MEMFREE, 1 };
    uint32_t head;

    balloon_set_interval(d->qts, 1);
    for (int writable = 0; writable < 2; writable++) {
        head = balloon_post(d, STATS, (BalloonSeg[]) {
            { copy_stats(d, &stat, 1), 9, writable },
        }, 1);
        balloon_wait_for(balloon_last_update(d->qts) != 0);
        assert_only(d, -1);
        qtest_clock_step(d->qts, SECOND);
        balloon_wait_served(d, STATS, head);
    }
}

/* Far more entries than there are tags */
static void long_buffer(BalloonDriver *d)
{
    enum { N = 50000 };
    g_autofree Stat *stats = g_new0(Stat, N);
    uint32_t head;

    for (int i = 0; i < N; i++) {
        stats[i] = (Stat) { VIRTIO_BALLOON_S_MEMFREE, 42 };
    }
    head = leave(d, stats, N);
    wait_stat(d, VIRTIO_BALLOON_S_MEMFREE, 42);
    assert_only(d, VIRTIO_BALLOON_S_MEMFREE);
    balloon_set_interval(d->qts, 1);
    balloon_wait_served(d, STATS, head);
}

/* What a newer buffer does not say is unknown again */
static void missing_tags(BalloonDriver *d)
{
    Stat both[] = {
        { VIRTIO_BALLOON_S_MEMFREE, 1 }, { VIRTIO_BALLOON_S_MEMTOT, 2 },
    };
    uint32_t head = leave(d, both, 2);

    wait_stat(d, VIRTIO_BALLOON_S_MEMTOT, 2);
    g_assert_cmpuint(balloon_stat(d->qts, "free-memory"), ==, 1);
    balloon_set_interval(d->qts, 1);
    balloon_wait_served(d, STATS, head);
    leave(d, &(Stat) { VIRTIO_BALLOON_S_MEMTOT, 3 }, 1);
    wait_stat(d, VIRTIO_BALLOON_S_MEMTOT, 3);
    assert_only(d, VIRTIO_BALLOON_S_MEMTOT);
}

static const BalloonTest tests[] = {
    { "stats/first-buffer", first_buffer },
    { "stats/odd-entries", odd_entries },
    { "stats/short-buffer", short_buffer },
    { "stats/long-buffer", long_buffer },
    { "stats/missing-tags", missing_tags },
};

static void register_virtio_balloon_stats_tests(void)
{
    balloon_add_qos_tests(tests, ARRAY_SIZE(tests), "id=balloon0");
}

libqos_init(register_virtio_balloon_stats_tests);
