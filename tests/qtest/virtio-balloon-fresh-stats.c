/*
 * request-balloon-stats and query-balloon-stats: steps that several tests take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-fresh-stats.h"

#define REQUEST "{'execute': 'request-balloon-stats'}"

BalloonSeg fresh_seg(BalloonDriver *d, const BalloonStat *stats, unsigned n)
{
    g_autofree struct virtio_balloon_stat *wire =
        g_new(struct virtio_balloon_stat, n);

    for (unsigned i = 0; i < n; i++) {
        wire[i].tag = balloon_wire16(d, stats[i].tag);
        wire[i].val = balloon_wire64(d, stats[i].value);
    }
    return (BalloonSeg) { balloon_copy(d, wire, n * sizeof(*wire)),
                          n * sizeof(*wire) };
}

uint32_t fresh_leave(BalloonDriver *d, const BalloonStat *stats, unsigned n)
{
    BalloonSeg seg = fresh_seg(d, stats, n);

    return balloon_post(d, STATS, &seg, 1);
}

uint32_t fresh_answer(BalloonDriver *d, uint64_t value)
{
    uint32_t head = balloon_post_stats_value(d, value);

    fresh_assert_event(d, value);
    return head;
}

void fresh_request(BalloonDriver *d)
{
    qtest_qmp_assert_success(d->qts, REQUEST);
}

void fresh_request_served(BalloonDriver *d, uint32_t held)
{
    fresh_request(d);
    balloon_wait_served(d, STATS, held);
}

void fresh_assert_refused(BalloonDriver *d, const char *desc)
{
    balloon_assert_error(d->qts, "GenericError", desc, REQUEST);
}

void fresh_assert_refused_stopped(BalloonDriver *d)
{
    fresh_assert_refused(d, "The machine is stopped, so the guest cannot give"
                         " statistics");
}

static QDict *event_data(QDict *event)
{
    QDict *data = qdict_get_qdict(event, "data");

    /* QMP leaves empty data out */
    data = data ? qobject_ref(data) : qdict_new();
    qobject_unref(event);
    return data;
}

QDict *fresh_event(BalloonDriver *d)
{
    qtest_clock_step(d->qts, SECOND);
    return event_data(qtest_qmp_eventwait_ref(d->qts, "BALLOON_STATS"));
}

void fresh_assert_event(BalloonDriver *d, uint64_t value)
{
    QDict *stats = fresh_event(d);

    g_assert_cmpuint(qdict_size(stats), ==, 1);
    g_assert_cmpuint(qdict_get_int(stats, "free-memory"), ==, value);
    qobject_unref(stats);
}

void fresh_assert_no_event(BalloonDriver *d)
{
    qtest_clock_step(d->qts, SECOND);
    /* The answer to a command comes after all events before it */
    qtest_qmp_assert_success(d->qts, "{'execute': 'query-status'}");
    g_assert_null(qtest_qmp_event_ref(d->qts, "BALLOON_STATS"));
}

QDict *fresh_info(BalloonDriver *d)
{
    return qtest_qmp_assert_success_ref(d->qts,
                                        "{'execute': 'query-balloon-stats'}");
}

bool fresh_was_asked(BalloonDriver *d)
{
    QDict *info = fresh_info(d);
    bool was = qdict_haskey(info, "asked-ago");

    qobject_unref(info);
    return was;
}

bool fresh_is_pending(BalloonDriver *d)
{
    QDict *info = fresh_info(d);
    bool pending = qdict_get_bool(info, "pending");

    qobject_unref(info);
    return pending;
}

void fresh_assert_known(BalloonDriver *d, uint64_t value)
{
    QDict *info = fresh_info(d);
    QDict *stats = qdict_get_qdict(info, "stats");

    g_assert_false(qdict_get_bool(info, "pending"));
    g_assert_true(qdict_haskey(info, "answered-ago"));
    g_assert_cmpuint(qdict_size(stats), ==, 1);
    g_assert_cmpuint(qdict_get_int(stats, "free-memory"), ==, value);
    qobject_unref(info);
}

void fresh_assert_unknown(BalloonDriver *d, bool pending)
{
    QDict *info = fresh_info(d);

    g_assert_cmpint(qdict_get_bool(info, "pending"), ==, pending);
    g_assert_cmpint(qdict_haskey(info, "asked-ago"), ==, pending);
    g_assert_false(qdict_haskey(info, "answered-ago"));
    g_assert_false(qdict_haskey(info, "stats"));
    qobject_unref(info);
}
