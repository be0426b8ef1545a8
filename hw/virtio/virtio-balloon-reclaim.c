/*
 * Virtio balloon: giving back to the host what waits in the balloon
 *
 * A timer sees to pages that were given up: in the largest pieces that the
 * backing has, as soon as these are complete, and in what there is when the
 * driver rests.  It looks for pages that came back, too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/ramblock.h"
#include "trace.h"
#include "virtio-balloon-coordinator.h"
#include "virtio-balloon-internal.h"
#include "virtio-balloon-slice.h"

/* After an inflate: for a few more requests to arrive and complete pieces */
#define GATHER_NS (1 * SCALE_MS)
/* Incomplete pieces wait for so long after the last request ... */
#define SETTLE_NS (100 * SCALE_MS)
/* ... and for no longer than this in all, if the driver goes on and on */
#define SETTLE_MAX_NS (1000 * SCALE_MS)
/* The number of no block: everything has been looked at */
#define LOOK_DONE UINT_MAX
/* How often to ask what inhibits: there is no notifier for all of it */
#define INHIBITED_NS (10 * NANOSECONDS_PER_SECOND)
/* Pause for so many times what a slice took: nobody waits for this work */
#define IDLE_SHARE 4

/* Is memory pinned that the coordinator does not manage? */
static bool balloon_reclaim_is_pinned(VirtIOBalloon *s)
{
    return s->pages.coordinator && ram_block_discard_is_disabled();
}

static bool balloon_reclaim_is_pending(VirtIOBalloon *s)
{
    bool pinned = balloon_reclaim_is_pinned(s);

    for (unsigned i = 0; i < s->pages.blocks->len; i++) {
        BalloonBlock *block = balloon_block(s, i);

        if ((block->granule || !pinned) && balloon_map_is_pending(block->map)) {
            return true;
        }
    }
    return false;
}

/*
 * @range is a host page or a granule, @resident if any of it is in memory.  A
 * granule of which nothing is, because the guest never used it, needs no
 * discard; who has it mapped is told all the same.
 */
static void balloon_reclaim_look_at(VirtIOBalloon *s, BalloonBlock *block,
                                    const BalloonRange *range, bool resident)
{
    BalloonRange rest = *range;
    BalloonRange run;

    if (resident) {
        s->counts.revived += balloon_map_wait_again(block->map, range);
    } else if (block->granule &&
               balloon_map_next_run(block->map, &rest, &run) &&
               run.size == range->size) {
        balloon_coordinator_discard(s->pages.coordinator, block->rb, range);
    }
}

/* Is any of the host pages, each @step pages of the host long, in memory? */
static bool balloon_reclaim_is_resident(const uint8_t *resident, size_t first,
                                        size_t end, size_t step)
{
    for (size_t i = first; i < end; i += step) {
        if (resident[i] & 1) {
            return true;
        }
    }
    return false;
}

/*
 * Have some pages that were given back wait again, where the host has them in
 * memory once more.  False when all that is in the balloon was looked at.
 */
static bool balloon_reclaim_look(VirtIOBalloon *s)
{
    const uint64_t host_page = qemu_real_host_page_size();
    VirtIOBalloonPages *p = &s->pages;
    uint8_t resident[BALLOON_DISCARD_STEP / BALLOON_PAGE_SIZE];
    const unsigned long *unused;
    BalloonBlock *block;
    BalloonRange row;
    uint64_t page, piece, limit, seen;

    if (p->look_block >= p->blocks->len) {
        p->look_block = LOOK_DONE;
        return false;
    }
    block = balloon_block(s, p->look_block);
    page = qemu_ram_pagesize(block->rb);
    piece = MAX(page, block->granule);
    limit = MAX(BALLOON_DISCARD_STEP, piece);
    if (!balloon_map_next(block->map, p->look_offset, limit, &row, &unused)) {
        p->look_block++;
        p->look_offset = 0;
        return true;
    }
    row.size = MIN(row.size, limit);
    p->look_offset = row.start + row.size;
    /* A huge page is in memory as a whole: its first part tells */
    seen = page < row.size ? MIN(row.size, BALLOON_DISCARD_STEP) : host_page;
    ram_block_resident(block->rb, row.start, seen, resident);
    for (uint64_t at = 0; at < row.size; at += piece) {
        BalloonRange range = { row.start + at, MIN(piece, row.size - at) };
        /* The rest of a large granule may be in memory: discard it */
        bool unseen = page < row.size && at + range.size > seen;

        balloon_reclaim_look_at(s, block, &range, unseen ||
                                balloon_reclaim_is_resident(
                                    resident, at / host_page,
                                    MIN(at + range.size, seen) / host_page,
                                    page / host_page));
    }
    return true;
}

static void balloon_reclaim_look_from_start(VirtIOBalloonPages *p)
{
    p->look_block = 0;
    p->look_offset = 0;
}

/* Discard before the coordinator unmaps it for devices */
static void balloon_reclaim_discard_piece(VirtIOBalloon *s, BalloonBlock *block,
                                          BalloonRange range)
{
    BalloonRange told = range;

    virtio_balloon_discard_block(s, block->rb, &range);
    if (block->granule) {
        virtio_balloon_discard_flush(s);
        balloon_coordinator_discard(s->pages.coordinator, block->rb, &told);
    }
}

/* Discard one piece; false when there is none */
static bool balloon_reclaim_discard(VirtIOBalloon *s, bool partial)
{
    bool pinned = balloon_reclaim_is_pinned(s);

    for (unsigned i = 0; i < s->pages.blocks->len; i++) {
        BalloonBlock *block = balloon_block(s, i);
        BalloonRange range;

        if (!block->granule && pinned) {
            continue;
        }
        if (balloon_map_take(block->map, partial, block->granule ?
                             BALLOON_UNIT_SIZE : BALLOON_DISCARD_STEP,
                             &range)) {
            balloon_reclaim_discard_piece(s, block, range);
            return true;
        }
    }
    return false;
}

/* Did something bring back what is in the balloon, and is that over? */
static bool balloon_reclaim_came_back(VirtIOBalloon *s)
{
    bool over = s->discard.was_inhibited;

    s->discard.was_inhibited = false;
    if (s->pages.was_pinned && !balloon_reclaim_is_pinned(s)) {
        s->pages.was_pinned = false;
        over = true;
    }
    return over;
}

static void balloon_reclaim_wake_later(VirtIOBalloon *s,
                                       const BalloonSlice *slice, bool more,
                                       bool settled)
{
    VirtIOBalloonPages *p = &s->pages;

    if (more) {
        balloon_slice_go_on(p->timer, MAX(IDLE_SHARE *
                                          balloon_slice_used(slice),
                                          BALLOON_GAP_NS));
    } else if (!settled || balloon_reclaim_is_pending(s)) {
        timer_mod_ns(p->timer, MIN(p->last_insert + SETTLE_NS,
                                   p->first_insert + SETTLE_MAX_NS));
    } else if (p->blocks->len) {
        /* See whether something inhibits in between: it may bring pages back */
        balloon_slice_go_on(p->timer, INHIBITED_NS);
    }
}

static void balloon_reclaim_work(void *opaque)
{
    VirtIOBalloon *s = opaque;
    VirtIOBalloonPages *p = &s->pages;
    BalloonSlice slice = balloon_slice_begin();
    int64_t now = qemu_clock_get_ns(BALLOON_CLOCK);
    bool partial = now >= p->last_insert + SETTLE_NS ||
                   now >= p->first_insert + SETTLE_MAX_NS;
    bool more = true;

    if (!virtio_balloon_may_discard_pages(s)) {
        if (virtio_balloon_discard_inhibitor(s) != BALLOON_INHIBITOR__MAX) {
            balloon_slice_go_on(p->timer, INHIBITED_NS);
        }
        return;
    }
    if (balloon_reclaim_came_back(s)) {
        balloon_reclaim_look_from_start(p);
    }
    while (more && !balloon_slice_is_over(&slice)) {
        /* Find all that came back before any of it is discarded */
        more = balloon_reclaim_look(s) || balloon_reclaim_discard(s, partial);
    }
    virtio_balloon_discard_flush(s);
    trace_virtio_balloon_reclaim(partial, virtio_balloon_reclaim_waiting(s));
    balloon_reclaim_wake_later(s, &slice, more, partial);
}

/* --- what the pages tell ------------------------------------------------- */

void virtio_balloon_reclaim_soon(VirtIOBalloon *s)
{
    VirtIOBalloonPages *p = &s->pages;

    p->last_insert = qemu_clock_get_ns(BALLOON_CLOCK);
    if (!balloon_reclaim_is_pending(s)) {
        p->first_insert = p->last_insert;
    }
    timer_mod_anticipate_ns(p->timer, p->last_insert + GATHER_NS);
}

void virtio_balloon_reclaim_loaded(VirtIOBalloon *s)
{
    /*
     * Their contents were not migrated, but something on this host may have
     * touched them
     */
    balloon_reclaim_look_from_start(&s->pages);
    s->pages.last_insert = 0;
    s->pages.first_insert = 0;
}

void virtio_balloon_reclaim_block_gone(VirtIOBalloon *s)
{
    if (s->pages.look_block != LOOK_DONE) {
        balloon_reclaim_look_from_start(&s->pages);
    }
}

void virtio_balloon_reclaim_look_again(VirtIOBalloon *s)
{
    if (s->pages.blocks) {
        balloon_reclaim_look_from_start(&s->pages);
        virtio_balloon_reclaim_start(s);
    }
}

uint64_t virtio_balloon_reclaim_waiting(VirtIOBalloon *s)
{
    uint64_t size = 0;

    for (unsigned i = 0; i < s->pages.blocks->len; i++) {
        size += balloon_map_waiting(balloon_block(s, i)->map);
    }
    return size;
}

void virtio_balloon_reclaim_start(VirtIOBalloon *s)
{
    if (VIRTIO_DEVICE(s)->vm_running && s->pages.blocks &&
        s->pages.blocks->len) {
        balloon_slice_go_on(s->pages.timer, BALLOON_GAP_NS);
    }
}

void virtio_balloon_reclaim_stop(VirtIOBalloon *s)
{
    if (s->pages.blocks) {
        timer_del(s->pages.timer);
    }
}

void virtio_balloon_reclaim_init(VirtIOBalloon *s)
{
    s->pages.look_block = LOOK_DONE;
    s->pages.timer = balloon_slice_timer_new(balloon_reclaim_work, s);
}

void virtio_balloon_reclaim_cleanup(VirtIOBalloon *s)
{
    g_clear_pointer(&s->pages.timer, timer_free);
}
