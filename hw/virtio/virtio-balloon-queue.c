/*
 * Virtio balloon: the queues of requests, served in bounded slices
 *
 * No request is bounded in size, and a driver may refill a ring as fast as it
 * is emptied.  So a queue is served for a slice of time; what is left waits,
 * with a cursor into the request in progress, for a timer that lets vCPUs and
 * monitors have the BQL meanwhile.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/log.h"
#include "hw/virtio/virtio-access.h"
#include "trace.h"
#include "virtio-balloon-internal.h"
#include "virtio-balloon-slice.h"

/* The most segments of a chain; lists are read in parts of as many pages */
#define RANGES_MAX VIRTQUEUE_MAX_SIZE
QEMU_BUILD_BUG_ON(RANGES_MAX << VIRTIO_BALLOON_PFN_SHIFT >
                  BALLOON_DISCARD_STEP);

/* When to retry a deflate whose memory cannot be had */
#define HELD_NS (100 * SCALE_MS)

static void balloon_counts_add(BalloonCounts *to, const BalloonCounts *counts)
{
    to->inflated_pages += counts->inflated_pages;
    to->deflated_pages += counts->deflated_pages;
    to->reported += counts->reported;
    to->discarded += counts->discarded;
    to->revived += counts->revived;
    to->calls += counts->calls;
    for (int i = 0; i < BALLOON_SKIP__MAX; i++) {
        to->skipped[i] += counts->skipped[i];
    }
}

void virtio_balloon_queue_add_counts(const VirtIOBalloonQueue *q,
                                     BalloonCounts *to)
{
    balloon_counts_add(to, &q->counts);
}

/* Hand the request in progress to the caller, and start afresh */
static VirtQueueElement *balloon_queue_steal_request(VirtIOBalloonQueue *q)
{
    q->offset = 0;
    q->next_range = 0;
    q->n_ranges = 0;
    q->held = 0;
    q->counts = (BalloonCounts) {};
    return g_steal_pointer(&q->elem);
}

static void balloon_queue_answer(VirtIOBalloonQueue *q)
{
    balloon_counts_add(&q->dev->counts, &q->counts);
    virtio_balloon_push(q->dev, q->vq, balloon_queue_steal_request(q));
}

/*
 * Take memory until the request is done (true), or time is up or it is held
 * (false)
 */
static bool balloon_queue_take(VirtIOBalloonQueue *q, const BalloonSlice *slice)
{
    do {
        while (q->next_range < q->n_ranges) {
            if (q->ops->take(q, &q->ranges[q->next_range])) {
                q->next_range++;
            }
            if (q->held || balloon_slice_is_over(slice)) {
                return false;
            }
        }
        virtio_balloon_discard_flush(q->dev);
        if (balloon_slice_is_over(slice)) {
            return false;
        }
    } while (q->ops->fill(q));
    return true;
}

static void balloon_queue_serve_request(VirtIOBalloonQueue *q,
                                        const BalloonSlice *slice)
{
    VirtIOBalloon *s = q->dev;
    bool done;

    q->held = 0;
    s->counting = &q->counts;
    done = balloon_queue_take(q, slice);
    virtio_balloon_discard_flush(s);
    if (done && q == &s->inflate) {
        virtio_balloon_pages_commit(s);
    }
    s->counting = &s->counts;
    if (done) {
        balloon_queue_answer(q);
    }
}

static void balloon_queue_serve(VirtIOBalloonQueue *q)
{
    BalloonSlice slice = balloon_slice_begin();

    while (virtio_balloon_is_live(q->dev) && !balloon_slice_is_over(&slice)) {
        if (!q->elem) {
            q->elem = virtio_balloon_pop(q->dev, q->vq);
        }
        if (!q->elem) {
            break;
        }
        balloon_queue_serve_request(q, &slice);
        if (q->held) {
            break;
        }
    }
    if (virtio_balloon_is_live(q->dev) &&
        (q->elem || virtio_balloon_has_request(q->dev, q->vq))) {
        balloon_slice_go_on(q->resume, q->held ? HELD_NS : BALLOON_GAP_NS);
    }
}

static void balloon_queue_resume(void *opaque)
{
    VirtIOBalloonQueue *q = opaque;
    bool within = virtio_balloon_enter(q->dev);

    balloon_queue_serve(q);
    virtio_balloon_pages_tell_held(q->dev);
    virtio_balloon_leave(q->dev, within);
}

void virtio_balloon_queue_kick(VirtIOBalloonQueue *q)
{
    /*
     * While the timer is pending a kick does nothing, so that a driver which
     * kicks all the time gets no more of the BQL
     */
    if (!timer_pending(q->resume)) {
        balloon_queue_serve(q);
    }
}

void virtio_balloon_queue_start(VirtIOBalloonQueue *q)
{
    if (q->vq) {
        balloon_slice_go_on(q->resume, BALLOON_GAP_NS);
    }
}

/*
 * The request in progress, if there is one, is not answered: its pages are the
 * guest's, and what was done with them is counted only if it is @final.
 */
static void balloon_queue_put_back(VirtIOBalloonQueue *q, bool final)
{
    VirtIOBalloon *s = q->dev;
    VirtQueueElement *elem;
    size_t offset = q->offset;
    bool held = q->held;

    if (!q->vq) {
        return;
    }
    timer_del(q->resume);
    if (q == &s->inflate) {
        s->counting = &q->counts;
        virtio_balloon_pages_unstage(s);
        s->counting = &s->counts;
    }
    if (final) {
        balloon_counts_add(&s->counts, &q->counts);
    }
    elem = balloon_queue_steal_request(q);
    if (elem) {
        trace_virtio_balloon_put_back(virtio_get_queue_index(q->vq), offset);
        virtio_balloon_unpop(q->vq, elem);
    }
    if (held) {
        virtio_balloon_pages_tell_held(s);
    }
}

void virtio_balloon_queue_put_back(VirtIOBalloonQueue *q)
{
    balloon_queue_put_back(q, false);
}

void virtio_balloon_queue_reset(VirtIOBalloonQueue *q)
{
    balloon_queue_put_back(q, true);
}

void virtio_balloon_queue_bind(VirtIOBalloonQueue *q, VirtQueue *vq)
{
    if (vq != q->vq) {
        virtio_balloon_queue_reset(q);
        q->vq = vq;
    }
}

void virtio_balloon_queue_init(VirtIOBalloon *s, VirtIOBalloonQueue *q,
                               const VirtIOBalloonQueueOps *ops)
{
    q->dev = s;
    q->ops = ops;
    q->resume = balloon_slice_timer_new(balloon_queue_resume, q);
    q->ranges = g_new(BalloonRange, RANGES_MAX);
}

void virtio_balloon_queue_cleanup(VirtIOBalloonQueue *q)
{
    virtio_balloon_queue_bind(q, NULL);
    g_clear_pointer(&q->resume, timer_free);
    g_clear_pointer(&q->ranges, g_free);
}

/*
 * No driver has page 0 to spare.  Where each second number is 0, the numbers
 * are 64 bits wide: drop the upper halves.  Returns: how many numbers are left.
 */
static size_t balloon_list_narrow(uint32_t *pfns, size_t n)
{
    if (!n || n % 2) {
        return n;
    }
    for (size_t i = 1; i < n; i += 2) {
        if (pfns[i]) {
            return n;
        }
    }
    for (size_t i = 0; i < n; i += 2) {
        pfns[i / 2] = pfns[i];
    }
    return n / 2;
}

/*
 * Copy the next part of the list to @pfns, with room for RANGES_MAX, once.  The
 * driver may change the list meanwhile: what was copied counts.  Returns: how
 * many pages were listed, 0 at the end.
 */
static size_t balloon_list_copy(VirtIOBalloonQueue *q, uint32_t *pfns)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(q->dev);
    size_t size = iov_to_buf(q->elem->out_sg, q->elem->out_num, q->offset,
                             pfns, RANGES_MAX * sizeof(pfns[0]));
    size_t n = size / sizeof(pfns[0]);

    if (size % sizeof(pfns[0])) {
        qemu_log_mask(LOG_GUEST_ERROR,
                      "virtio-balloon: a list of pages ends in %zu of 4 bytes"
                      " of a page number\n", size % sizeof(pfns[0]));
    }
    for (size_t i = 0; i < n; i++) {
        pfns[i] = virtio_ldl_p(vdev, &pfns[i]);
    }
    q->offset += size;
    return balloon_list_narrow(pfns, n);
}

/* Make ranges of the next part of the list.  Returns: as balloon_list_copy() */
static size_t balloon_list_fill(VirtIOBalloonQueue *q)
{
    uint32_t pfns[RANGES_MAX];
    size_t n = balloon_list_copy(q, pfns);

    q->next_range = 0;
    q->n_ranges = balloon_ranges_from_pfns(q->ranges, pfns, n);
    return n;
}

static void balloon_list_seen(VirtIOBalloonQueue *q, size_t n)
{
    trace_virtio_balloon_pages(virtio_get_queue_index(q->vq), n, q->n_ranges);
    if (n) {
        virtio_balloon_state_moved(q->dev);
    }
}

/* Pages that a list has twice are in its ranges once: count the others */
static void balloon_inflate_count_repeated(VirtIOBalloonQueue *q, uint64_t n)
{
    uint64_t size = n << VIRTIO_BALLOON_PFN_SHIFT;

    for (unsigned i = 0; i < q->n_ranges; i++) {
        size -= q->ranges[i].size;
    }
    q->counts.inflated_pages += size >> VIRTIO_BALLOON_PFN_SHIFT;
    virtio_balloon_discard_skip(q->dev, BALLOON_SKIP_REPEATED, size);
}

static bool balloon_inflate_fill(VirtIOBalloonQueue *q)
{
    size_t n = balloon_list_fill(q);

    balloon_list_seen(q, n);
    balloon_inflate_count_repeated(q, n);
    return n;
}

/* No driver has page 0 to spare, but one may list it all the same */
static void balloon_inflate_leave_page_0(VirtIOBalloon *s, BalloonRange *range)
{
    if (!range->start) {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_NOT_RAM, BALLOON_PAGE_SIZE);
        range->start += BALLOON_PAGE_SIZE;
        range->size -= BALLOON_PAGE_SIZE;
    }
}

/* The range is of guest-physical addresses, and no larger than a step */
static bool balloon_inflate_take(VirtIOBalloonQueue *q, BalloonRange *range)
{
    VirtIOBalloon *s = q->dev;
    bool known = virtio_balloon_driver_tells(s);

    q->counts.inflated_pages += range->size >> VIRTIO_BALLOON_PFN_SHIFT;
    balloon_inflate_leave_page_0(s, range);
    if (!known && !virtio_balloon_may_discard(s)) {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_INHIBITED, range->size);
    } else if (range->size) {
        virtio_balloon_for_each_block(s, range,
                                      known ? virtio_balloon_pages_stage :
                                              virtio_balloon_discard_block,
                                      true);
    }
    return true;
}

const VirtIOBalloonQueueOps virtio_balloon_inflate_ops = {
    .fill = balloon_inflate_fill,
    .take = balloon_inflate_take,
};

/*
 * Unless it must tell first, a guest may use pages of a list before the device
 * has seen it, and its next access brings the memory back: there is nothing to
 * do and nothing to refuse.
 */
static bool balloon_deflate_fill(VirtIOBalloonQueue *q)
{
    uint32_t pfns[RANGES_MAX];
    size_t n = virtio_balloon_driver_tells(q->dev) ? balloon_list_fill(q) :
                                                    balloon_list_copy(q, pfns);

    balloon_list_seen(q, n);
    q->counts.deflated_pages += n;
    return n;
}

static bool balloon_deflate_take(VirtIOBalloonQueue *q, BalloonRange *range)
{
    BalloonRange now = {
        .start = range->start,
        .size = MIN(range->size, virtio_balloon_pages_step(q->dev)),
    };
    uint64_t size = now.size;

    /* What is no RAM was counted as skipped when it was inflated */
    virtio_balloon_for_each_block(q->dev, &now, virtio_balloon_pages_remove,
                                  false);
    if (!q->held) {
        range->start += size;
        range->size -= size;
    }
    return range->size == 0;
}

const VirtIOBalloonQueueOps virtio_balloon_deflate_ops = {
    .fill = balloon_deflate_fill,
    .take = balloon_deflate_take,
};

/* Take the whole host pages of every segment: ranges of host addresses */
static bool balloon_report_fill(VirtIOBalloonQueue *q)
{
    VirtIOBalloon *s = q->dev;
    bool first = !q->offset++;

    q->next_range = 0;
    q->n_ranges = 0;
    if (first) {
        for (unsigned i = 0; i < q->elem->in_num; i++) {
            BalloonRange *range = &q->ranges[q->n_ranges];
            bool whole = virtio_balloon_discard_host_range(
                s, &q->elem->in_sg[i], range);

            q->n_ranges += whole;
            q->counts.reported += q->elem->in_sg[i].iov_len -
                                  (whole ? range->size : 0);
        }
        trace_virtio_balloon_report(q->elem->in_num, q->n_ranges);
    }
    return first;
}

/*
 * Discarded memory reads as zero; with PAGE_POISON negotiated it must read as
 * poison_val (section 5.5.6.7.2).
 */
static bool balloon_report_take(VirtIOBalloonQueue *q, BalloonRange *range)
{
    VirtIOBalloon *s = q->dev;
    bool zero = virtio_vdev_has_feature(VIRTIO_DEVICE(s),
                                        VIRTIO_BALLOON_F_PAGE_POISON);
    uint64_t size = range->size;

    if (!virtio_balloon_may_discard(s)) {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_INHIBITED, size);
    } else if (s->poison_val) {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_POISON, size);
    } else {
        size = virtio_balloon_discard_host(s, range, zero);
    }
    q->counts.reported += size;
    range->start += size;
    range->size -= size;
    return range->size == 0;
}

const VirtIOBalloonQueueOps virtio_balloon_report_ops = {
    .fill = balloon_report_fill,
    .take = balloon_report_take,
};
