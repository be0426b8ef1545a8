/*
 * Virtio balloon: free page hints, so that migration skips free memory
 * (section 5.5.6.5)
 *
 * Each round of precopy asks the driver, under a command id of its own, which
 * pages are free, and clears those in migration's dirty bitmap.  The order of
 * things is what keeps the guest's data safe: a hint that is applied after the
 * bitmap was synchronised would hide what the guest wrote before.  So a round
 * ends before each synchronisation, and no hint of an ended round counts.
 *
 * Who does what:
 *  - the queue is served under the BQL, like any other;
 *  - a worker thread applies the hints, because that may have to wait while
 *    the migration thread sends pages;
 *  - the migration thread begins and ends the rounds.
 * They share a BalloonHints.  Its lock is held for a few instructions only,
 * and never while the guest is notified or the BQL is taken.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "block/thread-pool.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/virtio/virtio-access.h"
#include "migration/misc.h"
#include "virtio-balloon-hint-rounds.h"
#include "virtio-balloon-internal.h"
#include "virtio-balloon-slice.h"

/* The most buffers that a worker gets at a time */
#define JOB_MAX 64

typedef struct BalloonHintJob {
    /* a reference */
    BalloonHints *hints;
    unsigned round;
    /* the memory hinted at: struct iovec, whole target pages of RAM */
    GArray *ranges;
    /* ... and all of it, in bytes; counted when the buffers are returned */
    uint64_t size;

    /*
     * Under the BQL: the device, NULL when it has been unplugged, and the
     * buffers to return to its driver
     */
    VirtIOBalloon *dev;
    VirtQueueElement *elems[JOB_MAX];
    unsigned n_elems;
    unsigned n_returned;
} BalloonHintJob;

static int balloon_hint_job_run(void *opaque)
{
    BalloonHintJob *job = opaque;

    /* RAMBlocks are looked up under RCU: a pool thread must register */
    rcu_register_thread();
    for (guint i = 0; i < job->ranges->len; i++) {
        balloon_hints_apply(job->hints, job->round,
                            &g_array_index(job->ranges, struct iovec, i));
    }
    rcu_unregister_thread();
    return 0;
}

static BalloonHintJob *balloon_hint_job_new(VirtIOBalloon *s)
{
    BalloonHintJob *job = g_new0(BalloonHintJob, 1);

    job->dev = s;
    job->hints = balloon_hints_ref(s->hinting.hints);
    job->ranges = g_array_new(false, false, sizeof(struct iovec));
    job->round = balloon_hints_round(job->hints);
    return job;
}

static void balloon_hint_job_free(BalloonHintJob *job)
{
    g_array_unref(job->ranges);
    balloon_hints_unref(job->hints);
    g_free(job);
}

/* Add the whole target pages of a segment that migration would send */
static void balloon_hint_job_add_range(BalloonHintJob *job,
                                       const struct iovec *iov)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(iov->iov_base, false, &offset);
    BalloonRange range = { offset, iov->iov_len };

    if (rb && !migrate_ram_is_ignored(rb) &&
        range.start + range.size <= rb->used_length &&
        balloon_range_trim(&range, qemu_target_page_size())) {
        struct iovec host = { rb->host + range.start, range.size };

        g_array_append_val(job->ranges, host);
    }
}

static void balloon_hint_job_add_ranges(BalloonHintJob *job,
                                        const VirtQueueElement *elem)
{
    job->size += iov_size(elem->in_sg, elem->in_num);
    for (unsigned i = 0; i < elem->in_num; i++) {
        balloon_hint_job_add_range(job, &elem->in_sg[i]);
    }
}

/* Return the buffers of @job, if they are not put back meanwhile */
static void balloon_hint_job_return(BalloonHintJob *job, VirtIOBalloon *s)
{
    while (job->n_returned < job->n_elems) {
        virtio_balloon_push(s, s->hinting.vq, job->elems[job->n_returned++]);
    }
}

static void balloon_hinting_serve(VirtIOBalloon *s);

/* The worker is done: answer, and go on with the ring */
static void balloon_hint_job_complete(void *opaque, int ret)
{
    BalloonHintJob *job = opaque;
    VirtIOBalloon *s = job->dev;

    if (s) {
        bool within = virtio_balloon_enter(s);

        s->state.hinted += job->size;
        balloon_hint_job_return(job, s);
        s->hinting.job = NULL;
        balloon_hinting_serve(s);
        virtio_balloon_leave(s, within);
    }
    balloon_hint_job_free(job);
}

/* False when @elem carries something that cannot be a command id */
static bool balloon_hinting_read_id(VirtIOBalloon *s, VirtQueueElement *elem)
{
    uint32_t id;

    if (iov_size(elem->out_sg, elem->out_num) != sizeof(id)) {
        return false;
    }
    iov_to_buf(elem->out_sg, elem->out_num, 0, &id, sizeof(id));
    balloon_hints_receive_id(s->hinting.hints,
                             virtio_tswap32(VIRTIO_DEVICE(s), id));
    return true;
}

/*
 * Add a buffer to @job, or return it at once if it is no hint that counts and
 * no earlier one waits: buffers are returned in order.  Returns: false if the
 * buffer is malformed.
 */
static bool balloon_hinting_serve_buffer(VirtIOBalloon *s, BalloonHintJob *job,
                                         VirtQueueElement *elem)
{
    bool ok = !elem->out_num || balloon_hinting_read_id(s, elem);
    bool counts = ok && elem->in_num &&
                  balloon_hints_started(s->hinting.hints);

    if (counts) {
        balloon_hint_job_add_ranges(job, elem);
    }
    if (counts || job->n_elems) {
        job->elems[job->n_elems++] = elem;
    } else {
        virtio_balloon_push(s, s->hinting.vq, elem);
    }
    return ok;
}

/* Take buffers into @job, or return them, until time is up */
static void balloon_hinting_fill_job(VirtIOBalloon *s, BalloonHintJob *job)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    VirtIOBalloonHinting *h = &s->hinting;
    BalloonSlice slice = balloon_slice_begin();
    VirtQueueElement *elem;
    bool ok = true;

    while (ok && job->n_elems < JOB_MAX && !balloon_slice_is_over(&slice) &&
           (elem = virtio_balloon_pop(s, h->vq))) {
        ok = balloon_hinting_serve_buffer(s, job, elem);
    }
    if (!ok && virtio_balloon_is_live(s)) {
        virtio_error(vdev, "received an incorrect cmd id");
    }
}

static void balloon_hinting_serve(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;
    BalloonHintJob *job;

    if (!h->vq || h->job || !virtio_balloon_is_live(s)) {
        return;
    }
    job = h->job = balloon_hint_job_new(s);
    balloon_hinting_fill_job(s, job);
    /* Its buffers have been put back if the device has been unplugged */
    if (job->n_elems) {
        thread_pool_submit_aio(balloon_hint_job_run, job,
                               balloon_hint_job_complete, job);
        return;
    }
    h->job = NULL;
    balloon_hint_job_free(job);
    /* There is none to serve if a malformed buffer has broken the device */
    if (virtio_balloon_has_request(s, h->vq)) {
        balloon_slice_go_on(h->resume, BALLOON_GAP_NS);
    }
}

static void balloon_hinting_resume(void *opaque)
{
    bool within = virtio_balloon_enter(opaque);

    balloon_hinting_serve(opaque);
    virtio_balloon_leave(opaque, within);
}

void virtio_balloon_hinting_kick(VirtIOBalloon *s)
{
    if (!timer_pending(s->hinting.resume)) {
        balloon_hinting_serve(s);
    }
}

static void balloon_hinting_changed(void *opaque)
{
    virtio_notify_config(VIRTIO_DEVICE(opaque));
}

bool virtio_balloon_hinting_check(VirtIOBalloon *s, Error **errp)
{
    ERRP_GUARD();

    if (virtio_has_feature(s->host_features,
                           VIRTIO_BALLOON_F_FREE_PAGE_HINT) &&
        !s->hinting.iothread) {
        error_setg(errp, "'free-page-hint' requires 'iothread' to be set");
        error_append_hint(errp, "Create one with -object iothread,id=ID and"
                          " give the balloon iothread=ID.\n");
        return false;
    }
    return true;
}

void virtio_balloon_hinting_init(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    h->changed = virtio_bh_new_guarded(DEVICE(s), balloon_hinting_changed, s);
    h->resume = balloon_slice_timer_new(balloon_hinting_resume, s);
    h->hints = balloon_hints_new(s);
}

void virtio_balloon_hinting_cleanup(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (!h->hints) {
        return;
    }
    virtio_balloon_hinting_bind(s, NULL);
    balloon_hints_reset(h->hints);
    balloon_hints_unplug(h->hints);
    if (h->job) {
        h->job->dev = NULL;
        h->job = NULL;
    }
    g_clear_pointer(&h->changed, qemu_bh_delete);
    g_clear_pointer(&h->resume, timer_free);
    g_clear_pointer(&h->hints, balloon_hints_unref);
}

void virtio_balloon_hinting_start(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (!h->vq) {
        return;
    }
    balloon_slice_go_on(h->resume, BALLOON_GAP_NS);
    if (h->retell) {
        h->retell = false;
        qemu_bh_schedule(h->changed);
    }
}

void virtio_balloon_hinting_stop(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;
    BalloonHintJob *job = h->job;

    if (h->vq) {
        timer_del(h->resume);
    }
    if (job) {
        /*
         * The worker may go on: the driver does not use hinted pages before it
         * has its buffers back
         */
        while (job->n_elems > job->n_returned) {
            virtio_balloon_unpop(h->vq, job->elems[--job->n_elems]);
        }
        job->size = 0;
    }
}

void virtio_balloon_hinting_bind(VirtIOBalloon *s, VirtQueue *vq)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (vq != h->vq) {
        virtio_balloon_hinting_stop(s);
        balloon_hints_void(h->hints);
        h->vq = vq;
    }
}

void virtio_balloon_hinting_reset(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (!h->hints) {
        return;
    }
    virtio_balloon_hinting_stop(s);
    balloon_hints_reset(h->hints);
    /*
     * They are loaded by a subsection; a stream without it must not leave the
     * values of an earlier save
     */
    h->saved_cmd_id = 0;
    h->saved_state = 0;
    h->retell = false;
}

void virtio_balloon_hinting_pre_save(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    balloon_hints_save(h->hints, &h->saved_cmd_id, &h->saved_state);
}

void virtio_balloon_hinting_post_load(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (h->hints) {
        h->retell = balloon_hints_load(h->hints, h->saved_cmd_id,
                                       h->saved_state);
    }
}
