/*
 * Virtio balloon: what the guest says of its memory (section 5.5.6.3)
 *
 * The queue runs backwards.  The driver leaves a buffer with statistics; the
 * device keeps it, and hands it back when it wants news.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-events-machine.h"
#include "qapi/visitor.h"
#include "hw/virtio/virtio-access.h"
#include "trace.h"
#include "virtio-balloon-internal.h"
#include "virtio-balloon-slice.h"

/* A statistic's name in guest-stats, and where it is in BalloonStats */
typedef struct StatMember {
    const char *name;
    size_t has;
    size_t value;
} StatMember;

#define STAT_MEMBER(name, member) \
    { name, offsetof(BalloonStats, has_##member), \
      offsetof(BalloonStats, member) }

static const StatMember stat_members[VIRTIO_BALLOON_S_NR] = {
    [VIRTIO_BALLOON_S_SWAP_IN] =
        STAT_MEMBER("stat-swap-in", swap_in),
    [VIRTIO_BALLOON_S_SWAP_OUT] =
        STAT_MEMBER("stat-swap-out", swap_out),
    [VIRTIO_BALLOON_S_MAJFLT] =
        STAT_MEMBER("stat-major-faults", major_faults),
    [VIRTIO_BALLOON_S_MINFLT] =
        STAT_MEMBER("stat-minor-faults", minor_faults),
    [VIRTIO_BALLOON_S_MEMFREE] =
        STAT_MEMBER("stat-free-memory", free_memory),
    [VIRTIO_BALLOON_S_MEMTOT] =
        STAT_MEMBER("stat-total-memory", total_memory),
    [VIRTIO_BALLOON_S_AVAIL] =
        STAT_MEMBER("stat-available-memory", available_memory),
    [VIRTIO_BALLOON_S_CACHES] =
        STAT_MEMBER("stat-disk-caches", disk_caches),
    [VIRTIO_BALLOON_S_HTLB_PGALLOC] =
        STAT_MEMBER("stat-htlb-pgalloc", htlb_pgalloc),
    [VIRTIO_BALLOON_S_HTLB_PGFAIL] =
        STAT_MEMBER("stat-htlb-pgfail", htlb_pgfail),
    [VIRTIO_BALLOON_S_OOM_KILL] =
        STAT_MEMBER("stat-oom-kills", oom_kills),
    [VIRTIO_BALLOON_S_ALLOC_STALL] =
        STAT_MEMBER("stat-alloc-stalls", alloc_stalls),
    [VIRTIO_BALLOON_S_ASYNC_SCAN] =
        STAT_MEMBER("stat-async-scans", async_scans),
    [VIRTIO_BALLOON_S_DIRECT_SCAN] =
        STAT_MEMBER("stat-direct-scans", direct_scans),
    [VIRTIO_BALLOON_S_ASYNC_RECLAIM] =
        STAT_MEMBER("stat-async-reclaims", async_reclaims),
    [VIRTIO_BALLOON_S_DIRECT_RECLAIM] =
        STAT_MEMBER("stat-direct-reclaims", direct_reclaims),
};

/* More entries than any driver has tags; what comes after is ignored */
#define STATS_MAX 256

static void balloon_stats_forget_values(VirtIOBalloonStats *st)
{
    memset(st->values, 0xff, sizeof(st->values));
}

static BalloonStats *balloon_stats_new(const VirtIOBalloonStats *st)
{
    BalloonStats *stats = g_new0(BalloonStats, 1);

    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        /* All ones mean that the driver gave none */
        if (st->values[i] != UINT64_MAX) {
            *(bool *)((char *)stats + stat_members[i].has) = true;
            *(uint64_t *)((char *)stats + stat_members[i].value) =
                st->values[i];
        }
    }
    return stats;
}

/* Unknown tags, and what is too short to be an entry, are ignored */
static void balloon_stats_read(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    VirtIOBalloonStats *st = &s->stats;
    struct virtio_balloon_stat entries[STATS_MAX];
    size_t n = iov_to_buf(st->elem->out_sg, st->elem->out_num, 0, entries,
                          sizeof(entries)) / sizeof(entries[0]);
    g_autoptr(BalloonStats) stats = NULL;

    balloon_stats_forget_values(st);
    for (size_t i = 0; i < n; i++) {
        uint16_t tag = virtio_tswap16(vdev, entries[i].tag);

        if (tag < VIRTIO_BALLOON_S_NR) {
            st->values[tag] = virtio_tswap64(vdev, entries[i].val);
        }
    }
    st->last_update = g_get_real_time() / G_USEC_PER_SEC;
    st->answered_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    st->pending = false;
    trace_virtio_balloon_stats(n);
    stats = balloon_stats_new(st);
    qapi_event_send_balloon_stats(stats);
}

/*
 * Hold @elem, or nothing, instead of what is held; that goes back to be filled
 * anew.
 */
static void balloon_stats_exchange_buffer(VirtIOBalloon *s,
                                          VirtQueueElement *elem)
{
    VirtIOBalloonStats *st = &s->stats;
    VirtQueueElement *old = st->elem;

    st->elem = elem;
    if (old) {
        virtio_balloon_push(s, st->vq, old);
    }
}

/*
 * Hold the newest buffer.  There should be no other (5.5.6.3.1); a driver that
 * leaves more gets the older ones back, as many as time allows.
 */
static bool balloon_stats_take_buffer(VirtIOBalloon *s)
{
    VirtIOBalloonStats *st = &s->stats;
    BalloonSlice slice = balloon_slice_begin();
    VirtQueueElement *elem;
    bool taken = false;

    while (!balloon_slice_is_over(&slice) &&
           (elem = virtio_balloon_pop(s, st->vq))) {
        taken = !st->rewound;
        st->rewound = false;
        balloon_stats_exchange_buffer(s, elem);
    }
    if (virtio_balloon_has_request(s, st->vq)) {
        balloon_slice_go_on(st->resume, BALLOON_GAP_NS);
    }
    return taken && st->elem;
}

static void balloon_stats_serve(VirtIOBalloon *s)
{
    if (balloon_stats_take_buffer(s)) {
        balloon_stats_read(s);
    }
}

static void balloon_stats_resume(void *opaque)
{
    bool within = virtio_balloon_enter(opaque);

    balloon_stats_serve(opaque);
    virtio_balloon_leave(opaque, within);
}

void virtio_balloon_stats_kick(VirtIOBalloon *s)
{
    if (!timer_pending(s->stats.resume)) {
        balloon_stats_serve(s);
    }
}

/* Ask for news @ms milliseconds from now; the clock stops with the VM */
static void balloon_stats_arm(VirtIOBalloonStats *st, int64_t ms)
{
    timer_mod(st->timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + ms);
}

/*
 * Return the held buffer, which asks the driver for news.  Without one it has
 * been asked before, or its first buffer is still to come.
 */
static void balloon_stats_ask(VirtIOBalloon *s)
{
    VirtIOBalloonStats *st = &s->stats;
    bool within = virtio_balloon_enter(s);

    if (st->rewound) {
        balloon_stats_serve(s);
    }
    if (virtio_balloon_is_live(s) && st->vq) {
        trace_virtio_balloon_stats_ask(st->elem);
        if (st->elem || !st->pending) {
            st->asked_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
            st->pending = true;
        }
        balloon_stats_exchange_buffer(s, NULL);
    }
    virtio_balloon_leave(s, within);
}

bool virtio_balloon_stats_request(void *opaque, Error **errp)
{
    VirtIOBalloon *s = opaque;
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (!vdev->vm_running) {
        error_setg(errp, "The machine is stopped, so the guest cannot give"
                   " statistics");
        return false;
    }
    if (vdev->broken) {
        error_setg(errp, "The guest's balloon driver broke the rules of its"
                   " queues, and has to reset the device first");
        return false;
    }
    if (!virtio_balloon_driver_runs(s, vdev->status)) {
        error_setg(errp, "The guest has no driver running for its balloon");
        return false;
    }
    if (!virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_STATS_VQ)) {
        error_setg(errp, "The guest's balloon driver does not give"
                   " statistics");
        return false;
    }
    balloon_stats_ask(s);
    return true;
}

BalloonStatsInfo *virtio_balloon_stats_get_info(void *opaque)
{
    VirtIOBalloonStats *st = &VIRTIO_BALLOON(opaque)->stats;
    BalloonStatsInfo *info = g_new0(BalloonStatsInfo, 1);
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    info->pending = st->pending;
    info->has_asked_ago = st->asked_ms;
    info->asked_ago = now - st->asked_ms;
    info->has_answered_ago = st->answered_ms;
    info->answered_ago = now - st->answered_ms;
    info->stats = st->answered_ms ? balloon_stats_new(st) : NULL;
    return info;
}

static void balloon_stats_poll(void *opaque)
{
    VirtIOBalloon *s = opaque;

    balloon_stats_arm(&s->stats, s->stats.interval * 1000LL);
    balloon_stats_ask(s);
}

static void balloon_stats_get_interval(Object *obj, Visitor *v,
                                       const char *name, void *opaque,
                                       Error **errp)
{
    int64_t interval = VIRTIO_BALLOON(obj)->stats.interval;

    visit_type_int(v, name, &interval, errp);
}

static void balloon_stats_set_interval(Object *obj, Visitor *v,
                                       const char *name, void *opaque,
                                       Error **errp)
{
    VirtIOBalloonStats *st = &VIRTIO_BALLOON(obj)->stats;
    bool was_off = !st->interval;
    int64_t interval;

    if (!visit_type_int(v, name, &interval, errp)) {
        return;
    }
    if (interval < 0) {
        error_setg(errp, "timer value must be greater than zero");
        return;
    }
    if (interval > UINT32_MAX) {
        error_setg(errp, "timer value is too big");
        return;
    }
    if (interval == st->interval) {
        /* To set the same interval does not put the next poll off */
        return;
    }
    st->interval = interval;
    if (!st->timer) {
        return;
    }
    if (!interval) {
        timer_del(st->timer);
    } else {
        balloon_stats_arm(st, was_off ? 0 : interval * 1000);
    }
}

static bool balloon_stats_visit_values(VirtIOBalloonStats *st, Visitor *v,
                                       Error **errp)
{
    bool ok = true;

    if (!visit_start_struct(v, "stats", NULL, 0, errp)) {
        return false;
    }
    for (int i = 0; ok && i < VIRTIO_BALLOON_S_NR; i++) {
        ok = visit_type_uint64(v, stat_members[i].name, &st->values[i], errp);
    }
    ok = ok && visit_check_struct(v, errp);
    visit_end_struct(v, NULL);
    return ok;
}

static void balloon_stats_get_values(Object *obj, Visitor *v, const char *name,
                                     void *opaque, Error **errp)
{
    VirtIOBalloonStats *st = &VIRTIO_BALLOON(obj)->stats;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    if (balloon_stats_visit_values(st, v, errp) &&
        visit_type_int64(v, "last-update", &st->last_update, errp)) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
}

void virtio_balloon_stats_add_properties(Object *obj)
{
    object_property_add(obj, "guest-stats", "guest statistics",
                        balloon_stats_get_values, NULL, NULL, NULL);
    object_property_add(obj, "guest-stats-polling-interval", "int",
                        balloon_stats_get_interval, balloon_stats_set_interval,
                        NULL, NULL);
    balloon_stats_forget_values(&VIRTIO_BALLOON(obj)->stats);
}

void virtio_balloon_stats_init(VirtIOBalloon *s)
{
    VirtIOBalloonStats *st = &s->stats;

    st->timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, balloon_stats_poll, s);
    st->resume = balloon_slice_timer_new(balloon_stats_resume, s);
    if (st->interval) {
        balloon_stats_arm(st, st->interval * 1000LL);
    }
}

void virtio_balloon_stats_cleanup(VirtIOBalloon *s)
{
    VirtIOBalloonStats *st = &s->stats;

    virtio_balloon_stats_bind(s, NULL);
    g_clear_pointer(&st->timer, timer_free);
    g_clear_pointer(&st->resume, timer_free);
}

void virtio_balloon_stats_start(VirtIOBalloon *s)
{
    VirtIOBalloonStats *st = &s->stats;

    if (!st->vq) {
        return;
    }
    /* A buffer that the source held was popped and not pushed: pop it again */
    for (int n = VIRTQUEUE_MAX_SIZE; !st->elem && n && !st->rewound; n--) {
        st->rewound = virtqueue_rewind(st->vq, n);
    }
    balloon_slice_go_on(st->resume, BALLOON_GAP_NS);
}

void virtio_balloon_stats_post_load(VirtIOBalloon *s)
{
    if (s->stats.interval) {
        balloon_stats_arm(&s->stats, s->stats.interval * 1000LL);
    }
}

void virtio_balloon_stats_stop(VirtIOBalloon *s)
{
    timer_del(s->stats.resume);
}

void virtio_balloon_stats_reset(VirtIOBalloon *s)
{
    VirtQueueElement *elem = g_steal_pointer(&s->stats.elem);

    /* There will be no answer to the last request */
    s->stats.pending = false;
    s->stats.rewound = false;
    timer_del(s->stats.resume);
    if (elem) {
        virtio_balloon_unpop(s->stats.vq, elem);
    }
}

void virtio_balloon_stats_bind(VirtIOBalloon *s, VirtQueue *vq)
{
    if (vq != s->stats.vq) {
        virtio_balloon_stats_reset(s);
        s->stats.vq = vq;
    }
}

void virtio_balloon_stats_clear(VirtIOBalloon *s)
{
    balloon_stats_forget_values(&s->stats);
    s->stats.last_update = 0;
    s->stats.answered_ms = 0;
    s->stats.asked_ms = 0;
}
