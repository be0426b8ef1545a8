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
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "block/thread-pool.h"
#include "exec/ram_addr.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/virtio/virtio-access.h"
#include "migration/misc.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-balloon-internal.h"

/* Smaller ids have meanings of their own */
#define CMD_ID_MIN 0x80000000

/* How many buffers a worker gets at a time */
#define JOB_MAX 64

/* The values are migrated */
typedef enum HintingState {
    HINTING_STOP = 0,       /* nothing is asked for; hints are ignored */
    HINTING_REQUESTED = 1,  /* asked for under the current id, not begun */
    HINTING_START = 2,      /* hints arrive under the current id */
    HINTING_DONE = 3,       /* the driver may have its pages back */
    HINTING__MAX
} HintingState;

static const char *const state_names[] = {
    "stop", "requested", "start", "done",
};

struct BalloonHints {
    QemuMutex lock;
    /* told of each step of precopy while this exists: for a worker's sake */
    NotifierWithReturn precopy;

    /* All that follows is protected by @lock */
    /* NULL when it has been unplugged; set under the BQL as well */
    VirtIOBalloon *dev;
    HintingState state;
    uint32_t cmd_id;
    /* the driver was asked since it was last told that migration is over */
    bool asked;
    /* hints taken from the ring while this was less are not to be applied */
    unsigned round;
    /* a hint is being applied; @idle says when that is over */
    bool applying;
    QemuCond idle;
    unsigned refs;
};

typedef struct BalloonHintJob {
    /* a reference */
    BalloonHints *hints;
    unsigned round;
    /* the memory hinted at: struct iovec, whole target pages of RAM */
    GArray *ranges;

    /* BQL: whom to answer, NULL when it has gone, and the buffers to return */
    VirtIOBalloon *dev;
    VirtQueueElement *elems[JOB_MAX];
    unsigned n_elems;
} BalloonHintJob;

static int hints_precopy_notify(NotifierWithReturn *n, void *data,
                                Error **errp);

static BalloonHints *hints_new(VirtIOBalloon *s)
{
    BalloonHints *hints = g_new0(BalloonHints, 1);

    qemu_mutex_init(&hints->lock);
    qemu_cond_init(&hints->idle);
    hints->dev = s;
    hints->cmd_id = CMD_ID_MIN - 1;
    hints->refs = 1;
    hints->precopy.notify = hints_precopy_notify;
    precopy_add_notifier(&hints->precopy);
    return hints;
}

static BalloonHints *hints_ref(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    hints->refs++;
    return hints;
}

/* Runs under the BQL, which protects the list of notifiers */
static void hints_unref(BalloonHints *hints)
{
    unsigned refs;

    WITH_QEMU_LOCK_GUARD(&hints->lock) {
        refs = --hints->refs;
    }
    if (!refs) {
        precopy_remove_notifier(&hints->precopy);
        qemu_cond_destroy(&hints->idle);
        qemu_mutex_destroy(&hints->lock);
        g_free(hints);
    }
}

/* The guest hears of it from the main loop: nothing is notified from here */
static void hints_set_state_locked(BalloonHints *hints, HintingState state)
{
    if (state != hints->state) {
        trace_virtio_balloon_hinting_state(state_names[hints->state],
                                           state_names[state], hints->cmd_id);
        hints->state = state;
        if (hints->dev) {
            qemu_bh_schedule(hints->dev->hinting.changed);
        }
    }
}

/* End the round: hints that were taken from the ring are void */
static void hints_end_round_locked(BalloonHints *hints, HintingState state)
{
    hints->round++;
    hints_set_state_locked(hints, state);
}

/* Have migration send memory that a hint had it skip */
static void hint_undo(const struct iovec *iov)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(iov->iov_base, false, &offset);

    if (rb) {
        cpu_physical_memory_set_dirty_range(rb->offset + offset, iov->iov_len,
                                            1 << DIRTY_MEMORY_MIGRATION);
    }
}

/*
 * Apply one hint.  Runs in a worker thread, without the BQL.
 *
 * The guest may have used the memory again when its round ended meanwhile, for
 * whatever reason: then the hint is undone, so that the memory is sent.
 */
static void hint_apply(BalloonHints *hints, unsigned round,
                       const struct iovec *iov)
{
    bool undo;

    WITH_QEMU_LOCK_GUARD(&hints->lock) {
        if (hints->round != round) {
            return;
        }
        hints->applying = true;
    }

    qemu_guest_free_page_hint(iov->iov_base, iov->iov_len);

    WITH_QEMU_LOCK_GUARD(&hints->lock) {
        undo = hints->round != round;
        if (undo) {
            hint_undo(iov);
        }
        hints->applying = false;
        qemu_cond_broadcast(&hints->idle);
    }
    trace_virtio_balloon_hinting_apply((uintptr_t)iov->iov_base,
                                       iov->iov_len, undo);
}

static int hint_job_run(void *opaque)
{
    BalloonHintJob *job = opaque;

    /* RAMBlocks are looked up; pool threads are no RCU readers by themselves */
    rcu_register_thread();
    for (guint i = 0; i < job->ranges->len; i++) {
        hint_apply(job->hints, job->round,
                   &g_array_index(job->ranges, struct iovec, i));
    }
    rcu_unregister_thread();
    return 0;
}

static BalloonHintJob *hint_job_new(VirtIOBalloon *s)
{
    BalloonHintJob *job = g_new0(BalloonHintJob, 1);

    job->dev = s;
    job->hints = hints_ref(s->hinting.hints);
    job->ranges = g_array_new(false, false, sizeof(struct iovec));
    WITH_QEMU_LOCK_GUARD(&job->hints->lock) {
        job->round = job->hints->round;
    }
    return job;
}

static void hint_job_free(BalloonHintJob *job)
{
    g_array_unref(job->ranges);
    hints_unref(job->hints);
    g_free(job);
}

/* Add the whole target pages of a segment that migration would send */
static void hint_job_add_range(BalloonHintJob *job, const struct iovec *iov)
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

static void hint_job_add(BalloonHintJob *job, VirtQueueElement *elem)
{
    for (unsigned i = 0; i < elem->in_num; i++) {
        hint_job_add_range(job, &elem->in_sg[i]);
    }
    job->elems[job->n_elems++] = elem;
}

static void hinting_return(VirtIOBalloon *s, VirtQueueElement *elem)
{
    virtqueue_push(s->hinting.vq, elem, 0);
    g_free(elem);
}

/* Return the buffers of @job to the driver; true if there were any */
static bool hint_job_return(BalloonHintJob *job)
{
    unsigned n = job->n_elems;

    /* A push may reset the device: the buffers are nobody's by then */
    job->n_elems = 0;
    for (unsigned i = 0; i < n; i++) {
        hinting_return(job->dev, job->elems[i]);
    }
    return n;
}

static void hinting_serve(VirtIOBalloon *s);

/* The worker is done: answer, and go on with the ring */
static void hint_job_complete(void *opaque, int ret)
{
    BalloonHintJob *job = opaque;
    VirtIOBalloon *s = job->dev;

    if (s) {
        s->hinting.job = NULL;
        if (hint_job_return(job)) {
            virtio_notify(VIRTIO_DEVICE(s), s->hinting.vq);
        }
        hinting_serve(s);
    }
    hint_job_free(job);
}

/* The driver begins to answer the current id, or ends with another one */
static void hinting_receive_id(BalloonHints *hints, uint32_t id)
{
    QEMU_LOCK_GUARD(&hints->lock);

    if (id == hints->cmd_id) {
        if (hints->state == HINTING_REQUESTED) {
            hints_set_state_locked(hints, HINTING_START);
        }
    } else if (hints->state == HINTING_START) {
        hints_set_state_locked(hints, HINTING_STOP);
    }
}

/* False when @elem carries something that cannot be a command id */
static bool hinting_read_id(VirtIOBalloon *s, VirtQueueElement *elem)
{
    uint32_t id;

    if (iov_size(elem->out_sg, elem->out_num) != sizeof(id)) {
        return false;
    }
    iov_to_buf(elem->out_sg, elem->out_num, 0, &id, sizeof(id));
    hinting_receive_id(s->hinting.hints,
                       virtio_tswap32(VIRTIO_DEVICE(s), id));
    return true;
}

static bool hinting_started(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    return hints->state == HINTING_START;
}

/* Serve one buffer: into @job, or back to the driver; false on a bad one */
static bool hinting_serve_buffer(VirtIOBalloon *s, BalloonHintJob *job,
                                 VirtQueueElement *elem)
{
    bool ok = !elem->out_num || hinting_read_id(s, elem);

    if (ok && elem->in_num && hinting_started(s->hinting.hints)) {
        hint_job_add(job, elem);
    } else {
        hinting_return(s, elem);
    }
    return ok;
}

/* Take buffers into @job, or return them, until time is up */
static void hinting_fill_job(VirtIOBalloon *s, BalloonHintJob *job)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    VirtIOBalloonHinting *h = &s->hinting;
    int64_t deadline = get_clock() + BALLOON_SLICE_NS;
    bool returned = false;

    do {
        VirtQueueElement *elem = virtqueue_pop(h->vq, sizeof(*elem));
        unsigned taken = job->n_elems;

        if (!elem) {
            break;
        }
        if (!hinting_serve_buffer(s, job, elem)) {
            virtio_error(vdev, "received an incorrect cmd id");
            break;
        }
        returned |= job->n_elems == taken;
    } while (job->n_elems < JOB_MAX && get_clock() < deadline);
    if (returned) {
        virtio_notify(vdev, h->vq);
    }
}

static void hinting_serve(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (h->job || !VIRTIO_DEVICE(s)->vm_running) {
        return;
    }
    h->job = hint_job_new(s);
    hinting_fill_job(s, h->job);
    if (h->job->n_elems) {
        thread_pool_submit_aio(hint_job_run, h->job, hint_job_complete,
                               h->job);
        return;
    }
    g_clear_pointer(&h->job, hint_job_free);
    if (!virtio_queue_empty(h->vq)) {
        virtio_balloon_resume_soon(h->resume);
    }
}

static void hinting_resume(void *opaque)
{
    hinting_serve(opaque);
}

static void hinting_handle_output(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    if (!timer_pending(s->hinting.resume)) {
        hinting_serve(s);
    }
}

static void hinting_changed(void *opaque)
{
    virtio_notify_config(VIRTIO_DEVICE(opaque));
}

uint32_t virtio_balloon_hinting_cmd_id(VirtIOBalloon *s)
{
    BalloonHints *hints = s->hinting.hints;

    if (!hints) {
        return 0;
    }
    QEMU_LOCK_GUARD(&hints->lock);
    switch (hints->state) {
    case HINTING_REQUESTED:
    case HINTING_START:
        return hints->cmd_id;
    case HINTING_DONE:
        return VIRTIO_BALLOON_CMD_ID_DONE;
    default:
        return VIRTIO_BALLOON_CMD_ID_STOP;
    }
}

/* Ask for hints under a new id, if there is a driver that gives any */
static void hints_request(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    VirtIODevice *vdev = VIRTIO_DEVICE(hints->dev);

    /* Postcopy would wait for ever for a page that was never sent */
    if (vdev && (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
        virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_FREE_PAGE_HINT) &&
        !migrate_postcopy_ram()) {
        hints->cmd_id = MAX(hints->cmd_id + 1, CMD_ID_MIN);
        hints->asked = true;
        hints_end_round_locked(hints, HINTING_REQUESTED);
    }
}

/* From here on no hint is being applied, and none will be before a request */
static void hints_settle(BalloonHints *hints, HintingState state)
{
    QEMU_LOCK_GUARD(&hints->lock);

    hints_end_round_locked(hints, hints->asked ? state : hints->state);
    if (state == HINTING_DONE) {
        hints->asked = false;
    }
    while (hints->applying) {
        qemu_cond_wait(&hints->idle, &hints->lock);
    }
}

/*
 * The VM has stopped for good, so the guest's interrupt must be on its way
 * before the devices are saved, not when the main loop gets to it.
 */
static void hints_tell_now(BalloonHints *hints)
{
    if (bql_locked() && hints->dev) {
        qemu_bh_cancel(hints->dev->hinting.changed);
        virtio_notify_config(VIRTIO_DEVICE(hints->dev));
    }
}

/*
 * A step of precopy.  Runs in the migration thread, with or without the BQL.
 *
 * It may wait for the worker to apply one hint, which in turn only waits for
 * locks that the migration thread does not hold between two steps.
 */
static int hints_precopy_notify(NotifierWithReturn *n, void *data,
                                Error **errp)
{
    BalloonHints *hints = container_of(n, BalloonHints, precopy);
    PrecopyNotifyData *step = data;

    switch (step->reason) {
    case PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC:
        hints_settle(hints, HINTING_STOP);
        break;
    case PRECOPY_NOTIFY_AFTER_BITMAP_SYNC:
        if (runstate_is_running()) {
            hints_request(hints);
        } else {
            hints_settle(hints, HINTING_DONE);
            hints_tell_now(hints);
        }
        break;
    case PRECOPY_NOTIFY_CLEANUP:
        hints_settle(hints, HINTING_DONE);
        break;
    default:
        break;
    }
    return 0;
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

    h->vq = virtio_add_queue(VIRTIO_DEVICE(s), VIRTQUEUE_MAX_SIZE,
                             hinting_handle_output);
    h->changed = virtio_bh_new_guarded(DEVICE(s), hinting_changed, s);
    h->resume = timer_new_ns(QEMU_CLOCK_REALTIME, hinting_resume, s);
    h->hints = hints_new(s);
}

void virtio_balloon_hinting_cleanup(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (!h->vq) {
        return;
    }
    virtio_balloon_hinting_reset(s);
    WITH_QEMU_LOCK_GUARD(&h->hints->lock) {
        h->hints->dev = NULL;
    }
    if (h->job) {
        h->job->dev = NULL;
        h->job = NULL;
    }
    g_clear_pointer(&h->changed, qemu_bh_delete);
    g_clear_pointer(&h->resume, timer_free);
    g_clear_pointer(&h->hints, hints_unref);
    virtio_delete_queue(h->vq);
    h->vq = NULL;
}

void virtio_balloon_hinting_start(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (!h->vq) {
        return;
    }
    virtio_balloon_resume_soon(h->resume);
    if (h->retell) {
        h->retell = false;
        qemu_bh_schedule(h->changed);
    }
}

void virtio_balloon_hinting_stop(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (!h->vq) {
        return;
    }
    timer_del(h->resume);
    if (h->job && hint_job_return(h->job)) {
        virtio_notify(VIRTIO_DEVICE(s), h->vq);
    }
}

void virtio_balloon_hinting_reset(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (!h->vq) {
        return;
    }
    timer_del(h->resume);
    for (unsigned i = 0; h->job && i < h->job->n_elems; i++) {
        virtqueue_detach_element(h->vq, h->job->elems[i], 0);
        g_free(h->job->elems[i]);
    }
    if (h->job) {
        h->job->n_elems = 0;
    }
    WITH_QEMU_LOCK_GUARD(&h->hints->lock) {
        h->hints->asked = false;
        hints_end_round_locked(h->hints, HINTING_STOP);
    }
    /* A stream without them must not bring back those of an earlier save */
    h->saved_cmd_id = 0;
    h->saved_state = HINTING_STOP;
}

void virtio_balloon_hinting_pre_save(VirtIOBalloon *s)
{
    BalloonHints *hints = s->hinting.hints;

    QEMU_LOCK_GUARD(&hints->lock);
    s->hinting.saved_cmd_id = hints->cmd_id;
    s->hinting.saved_state = hints->state;
}

/*
 * The migration that a round belonged to is not this side's: the driver may
 * have its pages back.
 */
void virtio_balloon_hinting_post_load(VirtIOBalloon *s)
{
    VirtIOBalloonHinting *h = &s->hinting;

    if (!h->hints) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&h->hints->lock) {
        h->hints->cmd_id = MAX(h->saved_cmd_id, CMD_ID_MIN - 1);
        h->retell = h->saved_state != HINTING_STOP;
        hints_end_round_locked(h->hints, h->retell ? HINTING_DONE :
                                                     HINTING_STOP);
    }
}
