/*
 * Virtio balloon: statistics on request
 *
 * A query has the driver's buffer returned at once, as polling does, and
 * sleeps until the driver leaves one.  While it sleeps anything may happen to
 * the device, so who wakes it leaves it all that it needs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "trace.h"
#include "virtio-balloon-internal.h"

struct BalloonStatsQuery {
    Coroutine *co;
    QEMUTimer *timer;
    uint32_t timeout_ms;
    /* the answer and when it came by the host's clock, or an error */
    BalloonStats *stats;
    int64_t answer_ms;
    Error *err;
    QLIST_ENTRY(BalloonStatsQuery) next;
};

/* Where a statistic is in the answer */
typedef struct StatMember {
    size_t has;
    size_t value;
} StatMember;

#define STAT_MEMBER(member) \
    { offsetof(BalloonStats, has_##member), offsetof(BalloonStats, member) }

static const StatMember stat_members[VIRTIO_BALLOON_S_NR] = {
    [VIRTIO_BALLOON_S_SWAP_IN] = STAT_MEMBER(swap_in),
    [VIRTIO_BALLOON_S_SWAP_OUT] = STAT_MEMBER(swap_out),
    [VIRTIO_BALLOON_S_MAJFLT] = STAT_MEMBER(major_faults),
    [VIRTIO_BALLOON_S_MINFLT] = STAT_MEMBER(minor_faults),
    [VIRTIO_BALLOON_S_MEMFREE] = STAT_MEMBER(free_memory),
    [VIRTIO_BALLOON_S_MEMTOT] = STAT_MEMBER(total_memory),
    [VIRTIO_BALLOON_S_AVAIL] = STAT_MEMBER(available_memory),
    [VIRTIO_BALLOON_S_CACHES] = STAT_MEMBER(disk_caches),
    [VIRTIO_BALLOON_S_HTLB_PGALLOC] = STAT_MEMBER(htlb_pgalloc),
    [VIRTIO_BALLOON_S_HTLB_PGFAIL] = STAT_MEMBER(htlb_pgfail),
    [VIRTIO_BALLOON_S_OOM_KILL] = STAT_MEMBER(oom_kills),
    [VIRTIO_BALLOON_S_ALLOC_STALL] = STAT_MEMBER(alloc_stalls),
    [VIRTIO_BALLOON_S_ASYNC_SCAN] = STAT_MEMBER(async_scans),
    [VIRTIO_BALLOON_S_DIRECT_SCAN] = STAT_MEMBER(direct_scans),
    [VIRTIO_BALLOON_S_ASYNC_RECLAIM] = STAT_MEMBER(async_reclaims),
    [VIRTIO_BALLOON_S_DIRECT_RECLAIM] = STAT_MEMBER(direct_reclaims),
};

static BalloonStats *stats_new(const uint64_t *values)
{
    BalloonStats *stats = g_new0(BalloonStats, 1);

    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        /* All ones mean that the driver gave none */
        if (values[i] != UINT64_MAX) {
            *(bool *)((char *)stats + stat_members[i].has) = true;
            *(uint64_t *)((char *)stats + stat_members[i].value) = values[i];
        }
    }
    return stats;
}

/* The query goes on soon, from the main loop: its result is there */
static void query_end(BalloonStatsQuery *query)
{
    trace_virtio_balloon_query_end(query, !query->err);
    QLIST_REMOVE(query, next);
    timer_del(query->timer);
    aio_co_schedule(qemu_get_aio_context(), query->co);
}

static void query_timed_out(void *opaque)
{
    BalloonStatsQuery *query = opaque;

    error_setg(&query->err, "The guest's balloon driver did not give"
               " statistics within %u ms", query->timeout_ms);
    query_end(query);
}

void virtio_balloon_query_answer(VirtIOBalloon *s)
{
    BalloonStatsQuery *query, *next;

    QLIST_FOREACH_SAFE(query, &s->stats.queries, next, next) {
        query->stats = stats_new(s->stats.values);
        query->answer_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
        query_end(query);
    }
}

void virtio_balloon_query_fail(VirtIOBalloon *s, ErrorClass class,
                               const char *why)
{
    BalloonStatsQuery *query, *next;

    QLIST_FOREACH_SAFE(query, &s->stats.queries, next, next) {
        error_set(&query->err, class, "%s before the guest gave statistics",
                  why);
        query_end(query);
    }
}

/* Can there be an answer at all? */
static bool query_check(VirtIOBalloon *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (!vdev->vm_running) {
        error_setg(errp, "The machine is stopped, so the guest cannot give"
                   " statistics");
        return false;
    }
    if (!virtio_balloon_driver_runs(s)) {
        error_setg(errp, "The guest has no driver running for its balloon");
        return false;
    }
    if (!virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_STATS_VQ)) {
        error_setg(errp, "The guest's balloon driver does not give"
                   " statistics");
        return false;
    }
    return true;
}

BalloonStats *coroutine_fn virtio_balloon_query_stats(void *opaque,
                                                      uint32_t timeout_ms,
                                                      Error **errp)
{
    VirtIOBalloon *s = opaque;
    BalloonStatsQuery query = {
        .co = qemu_coroutine_self(),
        .timeout_ms = timeout_ms,
    };

    if (!query_check(s, errp)) {
        return NULL;
    }
    trace_virtio_balloon_query(&query, timeout_ms);
    QLIST_INSERT_HEAD(&s->stats.queries, &query, next);
    query.timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                                SCALE_MS, query_timed_out, &query);
    timer_mod(query.timer,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + timeout_ms);
    virtio_balloon_stats_ask(s);
    qemu_coroutine_yield();

    /* The device may have gone */
    timer_free(query.timer);
    if (query.stats) {
        query.stats->age = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) -
                           query.answer_ms;
    }
    error_propagate(errp, query.err);
    return query.stats;
}
