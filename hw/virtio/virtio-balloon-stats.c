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
#include "qapi/visitor.h"
#include "hw/virtio/virtio-access.h"
#include "trace.h"
#include "virtio-balloon-internal.h"
#include "virtio-balloon-slice.h"

/* The names of the tags as management knows them */
static const char *const stat_names[VIRTIO_BALLOON_S_NR] = {
    [VIRTIO_BALLOON_S_SWAP_IN] = "stat-swap-in",
    [VIRTIO_BALLOON_S_SWAP_OUT] = "stat-swap-out",
    [VIRTIO_BALLOON_S_MAJFLT] = "stat-major-faults",
    [VIRTIO_BALLOON_S_MINFLT] = "stat-minor-faults",
    [VIRTIO_BALLOON_S_MEMFREE] = "stat-free-memory",
    [VIRTIO_BALLOON_S_MEMTOT] = "stat-total-memory",
    [VIRTIO_BALLOON_S_AVAIL] = "stat-available-memory",
    [VIRTIO_BALLOON_S_CACHES] = "stat-disk-caches",
    [VIRTIO_BALLOON_S_HTLB_PGALLOC] = "stat-htlb-pgalloc",
    [VIRTIO_BALLOON_S_HTLB_PGFAIL] = "stat-htlb-pgfail",
    [VIRTIO_BALLOON_S_OOM_KILL] = "stat-oom-kills",
    [VIRTIO_BALLOON_S_ALLOC_STALL] = "stat-alloc-stalls",
    [VIRTIO_BALLOON_S_ASYNC_SCAN] = "stat-async-scans",
    [VIRTIO_BALLOON_S_DIRECT_SCAN] = "stat-direct-scans",
    [VIRTIO_BALLOON_S_ASYNC_RECLAIM] = "stat-async-reclaims",
    [VIRTIO_BALLOON_S_DIRECT_RECLAIM] = "stat-direct-reclaims",
};

/* More entries than any driver has tags; what comes after is ignored */
#define STATS_MAX 256

static void stats_forget_values(VirtIOBalloonStats *st)
{
    memset(st->values, 0xff, sizeof(st->values));
}

/* Unknown tags, and what is too short to be an entry, are ignored */
static void stats_read(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    VirtIOBalloonStats *st = &s->stats;
    struct virtio_balloon_stat entries[STATS_MAX];
    size_t n = iov_to_buf(st->elem->out_sg, st->elem->out_num, 0, entries,
                          sizeof(entries)) / sizeof(entries[0]);

    stats_forget_values(st);
    for (size_t i = 0; i < n; i++) {
        uint16_t tag = virtio_tswap16(vdev, entries[i].tag);

        if (tag < VIRTIO_BALLOON_S_NR) {
            st->values[tag] = virtio_tswap64(vdev, entries[i].val);
        }
    }
    st->last_update = g_get_real_time() / G_USEC_PER_SEC;
    trace_virtio_balloon_stats(n);
    virtio_balloon_query_answer(s);
}

/*
 * Hold @elem, or nothing, instead of what is held; that goes back to be filled
 * anew.  Returns true when there was something.
 *
 * A push may reset the device, so what is held is in order before it.
 */
static bool stats_exchange_buffer(VirtIOBalloonStats *st,
                                  VirtQueueElement *elem)
{
    g_autofree VirtQueueElement *old = g_steal_pointer(&st->elem);

    st->elem = elem;
    if (old) {
        virtqueue_push(st->vq, old, 0);
    }
    return old;
}

/*
 * Hold the newest buffer.  There should be no other (5.5.6.3.1); a driver that
 * leaves more gets the older ones back, as many as time allows.
 */
static bool stats_take_buffer(VirtIOBalloon *s)
{
    VirtIOBalloonStats *st = &s->stats;
    BalloonSlice slice = balloon_slice_begin();
    bool taken = false, returned = false;

    do {
        VirtQueueElement *elem = virtqueue_pop(st->vq, sizeof(*elem));

        if (!elem) {
            break;
        }
        returned |= stats_exchange_buffer(st, elem);
        taken = true;
    } while (!balloon_slice_is_over(&slice));
    if (virtio_balloon_may_serve(s) && !virtio_queue_empty(st->vq)) {
        balloon_slice_go_on(st->resume, BALLOON_GAP_NS);
    }
    if (returned) {
        virtio_notify(VIRTIO_DEVICE(s), st->vq);
    }
    return taken && st->elem;
}

static void stats_serve(void *opaque)
{
    if (virtio_balloon_may_serve(opaque) && stats_take_buffer(opaque)) {
        stats_read(opaque);
    }
}

void virtio_balloon_stats_kick(VirtIOBalloon *s)
{
    if (!timer_pending(s->stats.resume)) {
        stats_serve(s);
    }
}

/* Ask for news @ms milliseconds from now; the clock stands while the VM does */
static void stats_arm(VirtIOBalloonStats *st, int64_t ms)
{
    timer_mod(st->timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + ms);
}

void virtio_balloon_stats_ask(VirtIOBalloon *s)
{
    if (virtio_balloon_may_serve(s) &&
        stats_exchange_buffer(&s->stats, NULL)) {
        virtio_notify(VIRTIO_DEVICE(s), s->stats.vq);
    }
}

static void stats_poll(void *opaque)
{
    VirtIOBalloon *s = opaque;

    virtio_balloon_stats_ask(s);
    stats_arm(&s->stats, s->stats.interval * 1000LL);
}

static void stats_get_interval(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    int64_t interval = VIRTIO_BALLOON(obj)->stats.interval;

    visit_type_int(v, name, &interval, errp);
}

static void stats_set_interval(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
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
        /* A script may set it again and again: the next poll comes in time */
        return;
    }
    st->interval = interval;
    if (!st->timer) {
        return;
    }
    if (!interval) {
        timer_del(st->timer);
    } else {
        stats_arm(st, was_off ? 0 : interval * 1000);
    }
}

static bool stats_visit_values(VirtIOBalloonStats *st, Visitor *v,
                               Error **errp)
{
    bool ok = true;

    if (!visit_start_struct(v, "stats", NULL, 0, errp)) {
        return false;
    }
    for (int i = 0; ok && i < VIRTIO_BALLOON_S_NR; i++) {
        ok = visit_type_uint64(v, stat_names[i], &st->values[i], errp);
    }
    ok = ok && visit_check_struct(v, errp);
    visit_end_struct(v, NULL);
    return ok;
}

static void stats_get_all(Object *obj, Visitor *v, const char *name,
                          void *opaque, Error **errp)
{
    VirtIOBalloonStats *st = &VIRTIO_BALLOON(obj)->stats;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    if (stats_visit_values(st, v, errp) &&
        visit_type_int64(v, "last-update", &st->last_update, errp)) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
}

void virtio_balloon_stats_add_properties(Object *obj)
{
    object_property_add(obj, "guest-stats", "guest statistics",
                        stats_get_all, NULL, NULL, NULL);
    object_property_add(obj, "guest-stats-polling-interval", "int",
                        stats_get_interval, stats_set_interval, NULL, NULL);
    stats_forget_values(&VIRTIO_BALLOON(obj)->stats);
}

void virtio_balloon_stats_init(VirtIOBalloon *s)
{
    VirtIOBalloonStats *st = &s->stats;

    st->timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, stats_poll, s);
    st->resume = balloon_slice_timer_new(stats_serve, s);
    if (st->interval) {
        stats_arm(st, st->interval * 1000LL);
    }
}

void virtio_balloon_stats_cleanup(VirtIOBalloon *s)
{
    VirtIOBalloonStats *st = &s->stats;

    virtio_balloon_query_fail(s, ERROR_CLASS_DEVICE_NOT_ACTIVE,
                              "The balloon was unplugged");
    virtio_balloon_stats_bind(s, NULL);
    g_clear_pointer(&st->timer, timer_free);
    g_clear_pointer(&st->resume, timer_free);
}

void virtio_balloon_stats_start(VirtIOBalloon *s)
{
    bool rewound = false;

    if (!s->stats.vq) {
        return;
    }
    /*
     * A buffer held by the source is in use as far as the ring goes.  Hold it
     * again; what it says is the source's, and old.
     */
    for (int n = VIRTQUEUE_MAX_SIZE; !s->stats.elem && n && !rewound; n--) {
        rewound = virtqueue_rewind(s->stats.vq, n);
    }
    if (rewound) {
        stats_take_buffer(s);
    }
    balloon_slice_go_on(s->stats.resume, BALLOON_GAP_NS);
}

void virtio_balloon_stats_post_load(VirtIOBalloon *s)
{
    if (s->stats.interval) {
        stats_arm(&s->stats, s->stats.interval * 1000LL);
    }
}

void virtio_balloon_stats_stop(VirtIOBalloon *s)
{
    timer_del(s->stats.resume);
}

void virtio_balloon_stats_reset(VirtIOBalloon *s)
{
    g_autofree VirtQueueElement *elem = g_steal_pointer(&s->stats.elem);

    virtio_balloon_query_fail(s, ERROR_CLASS_GENERIC_ERROR,
                              "The balloon was reset");
    timer_del(s->stats.resume);
    if (elem) {
        virtqueue_detach_element(s->stats.vq, elem, 0);
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
    stats_forget_values(&s->stats);
    s->stats.last_update = 0;
}
