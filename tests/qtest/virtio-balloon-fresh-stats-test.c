/*
 * Statistics that are asked for: a guest that answers, sooner or later
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-fresh-stats.h"

/* The members of the answer, by tag */
static const char *const names[VIRTIO_BALLOON_S_NR] = {
    "swap-in", "swap-out", "major-faults", "minor-faults", "free-memory",
    "total-memory", "available-memory", "disk-caches", "htlb-pgalloc",
    "htlb-pgfail", "oom-kills", "alloc-stalls", "async-scans", "direct-scans",
    "async-reclaims", "direct-reclaims",
};

#define VALUE(tag) (0x1122334455660000 + (tag))

static void assert_all(QDict *said)
{
    g_assert_cmpuint(qdict_size(said), ==, VIRTIO_BALLOON_S_NR);
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        g_assert_cmphex(qdict_get_int(said, names[i]), ==, VALUE(i));
    }
}

/* All tags: in the event, in the query, and in guest-stats */
static void all_tags(BalloonDriver *d)
{
    BalloonStat stats[VIRTIO_BALLOON_S_NR];
    QDict *said;

    fresh_request_served(d, fresh_answer(d, 1));
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        stats[i] = (BalloonStat) { i, VALUE(i) };
    }
    fresh_leave(d, stats, ARRAY_SIZE(stats));
    said = fresh_event(d);
    assert_all(said);
    qobject_unref(said);
    said = fresh_info(d);
    assert_all(qdict_get_qdict(said, "stats"));
    qobject_unref(said);
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        g_assert_cmphex(balloon_stat(d->qts, names[i]), ==, VALUE(i));
    }
    g_assert_cmpint(balloon_last_update(d->qts), >, 0);
}

/* A driver that has not left a buffer yet, and then one at each question */
static void first_buffer(BalloonDriver *d)
{
    uint32_t held;

    fresh_assert_unknown(d, false);
    fresh_request(d);
    fresh_assert_unknown(d, true);
    held = fresh_answer(d, 7);
    fresh_assert_known(d, 7);
    for (int i = 1; i < 20; i++) {
        fresh_request_served(d, held);
        g_assert_true(fresh_is_pending(d));
        held = fresh_answer(d, i);
        fresh_assert_known(d, i);
        g_assert_false(balloon_has_used(d, STATS));
    }
}

/* What the driver says when it starts is told, though nobody asked */
static void unasked(BalloonDriver *d)
{
    fresh_answer(d, 7);
    g_assert_false(fresh_was_asked(d));
    fresh_assert_known(d, 7);
}

static int64_t asked_ago(BalloonDriver *d)
{
    QDict *info = fresh_info(d);
    int64_t ms = qdict_get_int(info, "asked-ago");

    qobject_unref(info);
    return ms;
}

/* Silent for long: visible, and asking again changes nothing; then late */
static void late(BalloonDriver *d)
{
    fresh_request_served(d, fresh_answer(d, 7));
    balloon_wait_for(asked_ago(d) >= 50);
    fresh_request(d);
    g_assert_cmpint(asked_ago(d), >=, 50);
    g_assert_true(fresh_is_pending(d));
    fresh_assert_no_event(d);
    g_assert_cmpuint(balloon_stat(d->qts, "free-memory"), ==, 7);

    fresh_request_served(d, fresh_answer(d, 8));
}

/* Two answers at once: the last one counts, and one buffer is held */
static void twice(BalloonDriver *d)
{
    uint32_t heads[2];

    fresh_request_served(d, fresh_answer(d, 7));
    balloon_free_descriptors(d, STATS);
    for (int i = 0; i < 2; i++) {
        BalloonStat stat = { VIRTIO_BALLOON_S_MEMFREE, 8 + i };
        BalloonSeg seg = fresh_seg(d, &stat, 1);

        heads[i] = balloon_add(d, STATS, &seg, 1);
        balloon_publish(d, STATS, heads[i]);
    }
    balloon_kick(d, STATS);
    balloon_wait_served(d, STATS, heads[0]);
    g_assert_false(balloon_has_used(d, STATS));
    fresh_assert_event(d, 9);
    fresh_assert_known(d, 9);
    fresh_request_served(d, heads[1]);
    fresh_answer(d, 10);
}

static void assert_no_values(BalloonDriver *d)
{
    QDict *stats = fresh_event(d);

    g_assert_cmpuint(qdict_size(stats), ==, 0);
    qobject_unref(stats);
    g_assert_false(fresh_is_pending(d));
}

/* Whatever a buffer holds, it is an answer */
static void nonsense(BalloonDriver *d)
{
    enum { MANY = 50000 };
    g_autofree BalloonStat *many = g_new(BalloonStat, MANY);
    BalloonStat unknown[] = { { 0xffff, 1 }, { VIRTIO_BALLOON_S_NR, 2 },
                              { VIRTIO_BALLOON_S_MEMFREE, UINT64_MAX } };
    BalloonSeg seg;
    uint32_t held;

    fresh_request_served(d, fresh_answer(d, 7));
    held = fresh_leave(d, unknown, ARRAY_SIZE(unknown));
    assert_no_values(d);

    /* less than an entry */
    fresh_request_served(d, held);
    seg = fresh_seg(d, &(BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, 1 }, 1);
    seg.len--;
    held = balloon_post(d, STATS, &seg, 1);
    assert_no_values(d);

    /* nothing to read */
    fresh_request_served(d, held);
    seg.write = true;
    held = balloon_post(d, STATS, &seg, 1);
    assert_no_values(d);

    fresh_request_served(d, held);
    for (int i = 0; i < MANY; i++) {
        many[i] = (BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, 42 };
    }
    fresh_leave(d, many, MANY);
    fresh_assert_event(d, 42);
}

/* A guest that answers very often is told once a second, and the last counts */
static void rate(BalloonDriver *d)
{
    uint32_t held = fresh_answer(d, 100);

    qtest_clock_step(d->qts, SECOND);
    for (int i = 0; i < 50; i++) {
        fresh_request_served(d, held);
        held = balloon_leave_stats(d, i);
    }
    fresh_assert_event(d, 0);
    fresh_assert_event(d, 49);
    fresh_assert_no_event(d);
}

/* What polling brings is told, too, and asking does not change when it asks */
static void polling(BalloonDriver *d)
{
    uint32_t held = fresh_answer(d, 7);

    balloon_set_interval(d->qts, 5);
    balloon_wait_served(d, STATS, held);
    g_assert_true(fresh_is_pending(d));
    fresh_request(d);
    held = fresh_answer(d, 8);
    g_assert_false(balloon_has_used(d, STATS));
    qtest_clock_step(d->qts, 4 * SECOND);
    balloon_wait_served(d, STATS, held);
    fresh_answer(d, 9);
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 5);
}

/* After a migration the buffer that the source held is the one to return */
static void migrated(BalloonDriver *d)
{
    uint32_t held = fresh_answer(d, 7);

    balloon_case_move(d);
    fresh_assert_unknown(d, false);
    fresh_request_served(d, held);
    fresh_answer(d, 8);
    fresh_assert_known(d, 8);
}

/* Asked before the machine is saved, a guest answers where it is loaded */
static void saved(BalloonDriver *d)
{
    fresh_request_served(d, fresh_answer(d, 7));
    balloon_stop(d);
    g_assert_true(fresh_is_pending(d));
    fresh_assert_refused_stopped(d);
    balloon_case_move(d);
    fresh_assert_unknown(d, false);
    fresh_answer(d, 8);
}

/* QEMU ends whatever it is owed */
static void quit(void)
{
    BalloonDriver d;

    balloon_boot_and_start(&d, NULL, MEMORY);
    fresh_request_served(&d, fresh_answer(&d, 7));
    g_assert_true(fresh_is_pending(&d));
    qtest_qmp_assert_success(d.qts, "{'execute': 'quit'}");
    qtest_wait_qemu(d.qts);
    balloon_lose(&d);
    balloon_quit(&d);
}

static const BalloonCase cases[] = {
    { "stats/all-tags", all_tags },
    { "stats/first-buffer", first_buffer },
    { "stats/unasked", unasked },
    { "stats/late", late },
    { "stats/twice", twice },
    { "stats/nonsense", nonsense },
    { "stats/rate", rate },
    { "stats/polling", polling },
    { "stats/migrated", migrated },
    { "stats/saved", saved },
};

void balloon_add_fresh_stats_tests(void)
{
    balloon_add_cases(BALLOON_MANAGE, cases, ARRAY_SIZE(cases));
    qtest_add_func(BALLOON_MANAGE "stats/quit", quit);
}
