/*
 * Statistics that are asked for: a guest that answers, sooner or later
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-balloon-fresh-stats.h"
#include "virtio-balloon-manage.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define STATS BALLOON_VQ_STATS
#define SECOND NANOSECONDS_PER_SECOND

/* The members of the answer, by tag */
static const char *const names[VIRTIO_BALLOON_S_NR] = {
    "swap-in", "swap-out", "major-faults", "minor-faults", "free-memory",
    "total-memory", "available-memory", "disk-caches", "htlb-pgalloc",
    "htlb-pgfail", "oom-kills", "alloc-stalls", "async-scans", "direct-scans",
    "async-reclaims", "direct-reclaims",
};

static void assert_all(QDict *said)
{
    g_assert_cmpuint(qdict_size(said), ==, VIRTIO_BALLOON_S_NR);
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        g_assert_cmphex(qdict_get_int(said, names[i]), ==,
                        0x1122334455660000 + i);
    }
}

/* All tags: in the event, in the query, and in guest-stats */
static void all_tags(void)
{
    BalloonStat stats[VIRTIO_BALLOON_S_NR];
    BalloonDriver d;
    QDict *said;

    fresh_start(&d);
    fresh_request_served(&d, fresh_leave_free(&d, 1));
    fresh_assert_event(&d, 1);
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        stats[i] = (BalloonStat) { i, 0x1122334455660000 + i };
    }
    fresh_leave(&d, stats, ARRAY_SIZE(stats));
    said = fresh_event(&d);
    assert_all(said);
    qobject_unref(said);
    said = fresh_info(&d);
    assert_all(qdict_get_qdict(said, "stats"));
    qobject_unref(said);
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        g_assert_cmphex(balloon_stat(d.qts, names[i]), ==,
                        0x1122334455660000 + i);
    }
    g_assert_cmpint(balloon_last_update(d.qts), >, 0);
    balloon_quit(&d);
}

/* A driver that has not left a buffer yet, and then one at each question */
static void first_buffer(void)
{
    BalloonDriver d;
    uint32_t held;

    fresh_start(&d);
    fresh_assert_unknown(&d, false);
    fresh_request(&d);
    fresh_assert_unknown(&d, true);
    held = fresh_leave_free(&d, 7);
    fresh_assert_event(&d, 7);
    fresh_assert_known(&d, 7);
    for (int i = 1; i < 20; i++) {
        fresh_request_served(&d, held);
        g_assert_true(fresh_is_pending(&d));
        held = fresh_leave_free(&d, i);
        fresh_assert_event(&d, i);
        fresh_assert_known(&d, i);
        g_assert_false(balloon_has_used(&d, STATS));
    }
    balloon_quit(&d);
}

/* What the driver says when it starts is told, though nobody asked */
static void unasked(void)
{
    BalloonDriver d;
    QDict *info;

    fresh_start(&d);
    fresh_leave_free(&d, 7);
    fresh_assert_event(&d, 7);
    info = fresh_info(&d);
    g_assert_false(qdict_haskey(info, "asked-ago"));
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(info, "stats"),
                                  "free-memory"), ==, 7);
    qobject_unref(info);
    balloon_quit(&d);
}

static int64_t asked_ago(BalloonDriver *d)
{
    QDict *info = fresh_info(d);
    int64_t ms = qdict_get_int(info, "asked-ago");

    qobject_unref(info);
    return ms;
}

/* Silent for long: visible, and asking again changes nothing; then late */
static void late(void)
{
    BalloonDriver d;
    uint32_t held;

    fresh_start(&d);
    held = fresh_leave_free(&d, 7);
    fresh_assert_event(&d, 7);
    fresh_request_served(&d, held);
    balloon_wait_for(asked_ago(&d) >= 50);
    fresh_request(&d);
    g_assert_cmpint(asked_ago(&d), >=, 50);
    g_assert_true(fresh_is_pending(&d));
    fresh_assert_no_event(&d);
    g_assert_cmpuint(balloon_stat(d.qts, "free-memory"), ==, 7);

    held = fresh_leave_free(&d, 8);
    fresh_assert_event(&d, 8);
    fresh_assert_known(&d, 8);
    fresh_request_served(&d, held);
    balloon_quit(&d);
}

/* Two answers at once: the last one counts, and one buffer is held */
static void twice(void)
{
    BalloonDriver d;
    BalloonSeg seg;
    uint32_t heads[2];

    fresh_start(&d);
    fresh_request_served(&d, fresh_leave_free(&d, 7));
    fresh_assert_event(&d, 7);
    balloon_free_descriptors(&d, STATS);
    for (int i = 0; i < 2; i++) {
        seg = fresh_seg(&d, &(BalloonStat) { VIRTIO_BALLOON_S_MEMFREE,
                                             8 + i }, 1);
        heads[i] = balloon_add(&d, STATS, &seg, 1);
        balloon_publish(&d, STATS, heads[i]);
    }
    balloon_kick(&d, STATS);
    balloon_wait_served(&d, STATS, heads[0]);
    g_assert_false(balloon_has_used(&d, STATS));
    fresh_assert_event(&d, 9);
    fresh_assert_known(&d, 9);
    fresh_request_served(&d, heads[1]);
    fresh_leave_free(&d, 10);
    fresh_assert_event(&d, 10);
    balloon_quit(&d);
}

static void assert_no_values(BalloonDriver *d)
{
    QDict *stats = fresh_event(d);

    g_assert_cmpuint(qdict_size(stats), ==, 0);
    qobject_unref(stats);
    g_assert_false(fresh_is_pending(d));
}

/* Whatever a buffer holds, it is an answer */
static void nonsense(void)
{
    enum { MANY = 50000 };
    g_autofree BalloonStat *many = g_new0(BalloonStat, MANY);
    BalloonStat unknown[] = { { 0xffff, 1 }, { VIRTIO_BALLOON_S_NR, 2 },
                       { VIRTIO_BALLOON_S_MEMFREE, UINT64_MAX } };
    BalloonDriver d;
    BalloonSeg seg;
    uint32_t held;

    fresh_start(&d);
    held = fresh_leave_free(&d, 7);
    fresh_assert_event(&d, 7);
    fresh_request_served(&d, held);
    held = fresh_leave(&d, unknown, ARRAY_SIZE(unknown));
    assert_no_values(&d);

    /* less than an entry */
    fresh_request_served(&d, held);
    seg = fresh_seg(&d, &(BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, 1 }, 1);
    seg.len--;
    held = balloon_post(&d, STATS, &seg, 1);
    assert_no_values(&d);

    /* nothing to read */
    fresh_request_served(&d, held);
    seg.write = true;
    held = balloon_post(&d, STATS, &seg, 1);
    assert_no_values(&d);

    fresh_request_served(&d, held);
    for (int i = 0; i < MANY; i++) {
        many[i] = (BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, 42 };
    }
    fresh_leave(&d, many, MANY);
    fresh_assert_event(&d, 42);
    balloon_quit(&d);
}

/* A guest that answers very often is told once a second, and the last counts */
static void rate(void)
{
    BalloonDriver d;
    uint32_t held;

    fresh_start(&d);
    held = fresh_leave_free(&d, 100);
    fresh_assert_event(&d, 100);
    qtest_clock_step(d.qts, SECOND);
    for (int i = 0; i < 50; i++) {
        fresh_request_served(&d, held);
        held = fresh_leave_free(&d, i);
        balloon_wait_for(balloon_stat(d.qts, "free-memory") == i);
    }
    fresh_assert_event(&d, 0);
    fresh_assert_event(&d, 49);
    fresh_assert_no_event(&d);
    balloon_quit(&d);
}

/* What polling brings is told, too, and asking does not change when it asks */
static void polling(void)
{
    BalloonDriver d;
    uint32_t held;

    fresh_start(&d);
    held = fresh_leave_free(&d, 7);
    fresh_assert_event(&d, 7);
    balloon_set_interval(d.qts, 5);
    balloon_wait_served(&d, STATS, held);
    g_assert_true(fresh_is_pending(&d));
    fresh_request(&d);
    held = fresh_leave_free(&d, 8);
    fresh_assert_event(&d, 8);
    g_assert_false(balloon_has_used(&d, STATS));
    qtest_clock_step(d.qts, 4 * SECOND);
    balloon_wait_served(&d, STATS, held);
    fresh_leave_free(&d, 9);
    fresh_assert_event(&d, 9);
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 5);
    balloon_quit(&d);
}

/* After a migration the buffer that the source held is the one to return */
static void migrated(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source, d;
    uint32_t held;

    fresh_start(&source);
    held = fresh_leave_free(&source, 7);
    fresh_assert_event(&source, 7);
    balloon_migrate(source.qts, file);
    balloon_load(&d, &source, "virtio-balloon-pci", "-m 128", file);
    balloon_wait_for(balloon_vm_is_running(d.qts));
    fresh_assert_unknown(&d, false);
    fresh_request_served(&d, held);
    fresh_leave_free(&d, 8);
    fresh_assert_event(&d, 8);
    fresh_assert_known(&d, 8);
    balloon_quit(&d);
    balloon_quit(&source);
    unlink(file);
}

/* Asked before the machine is saved, a guest answers where it is loaded */
static void saved(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source, d;

    fresh_start(&source);
    fresh_request_served(&source, fresh_leave_free(&source, 7));
    fresh_assert_event(&source, 7);
    balloon_migrate(source.qts, file);
    g_assert_true(fresh_is_pending(&source));
    fresh_assert_refused(&source, "The machine is stopped, so the guest cannot"
                         " give statistics");
    balloon_load(&d, &source, "virtio-balloon-pci", "-m 128", file);
    balloon_wait_for(balloon_vm_is_running(d.qts));
    fresh_assert_unknown(&d, false);
    fresh_leave_free(&d, 8);
    fresh_assert_event(&d, 8);
    balloon_quit(&d);
    balloon_quit(&source);
    unlink(file);
}

/* QEMU ends whatever it is owed */
static void quit(void)
{
    BalloonDriver d;

    fresh_start(&d);
    fresh_request_served(&d, fresh_leave_free(&d, 7));
    g_assert_true(fresh_is_pending(&d));
    qtest_qmp_assert_success(d.qts, "{'execute': 'quit'}");
    qtest_wait_qemu(d.qts);
    balloon_lose(&d);
    balloon_quit(&d);
}

void balloon_add_fresh_stats_tests(void)
{
    static const struct {
        const char *path;
        void (*test)(void);
    } tests[] = {
        { BALLOON_MANAGE "stats/all-tags", all_tags },
        { BALLOON_MANAGE "stats/first-buffer", first_buffer },
        { BALLOON_MANAGE "stats/unasked", unasked },
        { BALLOON_MANAGE "stats/late", late },
        { BALLOON_MANAGE "stats/twice", twice },
        { BALLOON_MANAGE "stats/nonsense", nonsense },
        { BALLOON_MANAGE "stats/rate", rate },
        { BALLOON_MANAGE "stats/polling", polling },
        { BALLOON_MANAGE "stats/migrated", migrated },
        { BALLOON_MANAGE "stats/saved", saved },
        { BALLOON_MANAGE "stats/quit", quit },
    };

    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        qtest_add_func(tests[i].path, tests[i].test);
    }
}
