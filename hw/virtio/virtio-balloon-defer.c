/*
 * Virtio balloon: discards that may wait
 *
 * With VIRTIO_BALLOON_F_MUST_TELL_HOST a page of the balloon stays the
 * device's until the driver has its deflate request back (section 5.5.6).  So
 * the driver is answered at once, and its pages are discarded afterwards: in
 * the largest pieces that the backing has, and when nothing forbids it any
 * more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "exec/ramblock.h"
#include "trace.h"
#include "virtio-balloon-internal.h"

#define BALLOON_PAGE_SIZE (1ULL << VIRTIO_BALLOON_PFN_SHIFT)

/* Enough for a few requests to arrive, which make larger pieces together */
#define GATHER_NS (1 * SCALE_MS)
/* So long after the last request, nothing is waited for that is missing ... */
#define SETTLE_NS (100 * SCALE_MS)
/* ... nor for longer than this, if the driver goes on and on */
#define SETTLE_MAX_NS (1000 * SCALE_MS)
/* How often to see whether discards are allowed again */
#define INHIBITED_NS (1000 * SCALE_MS)

bool virtio_balloon_defer_allowed(VirtIOBalloon *s)
{
    return virtio_vdev_has_feature(VIRTIO_DEVICE(s),
                                   VIRTIO_BALLOON_F_MUST_TELL_HOST);
}

/* The size of a transparent huge page in bytes, 0 if there are none */
static uint64_t thp_size(void)
{
    g_autofree char *text = NULL;
    uint64_t size;

    if (!g_file_get_contents("/sys/kernel/mm/transparent_hugepage/"
                             "hpage_pmd_size", &text, NULL, NULL) ||
        qemu_strtou64(g_strchomp(text), NULL, 10, &size) < 0 ||
        !is_power_of_2(size)) {
        return 0;
    }
    return size;
}

static BalloonBlock *block_new(RAMBlock *rb)
{
    BalloonBlock *block = g_new(BalloonBlock, 1);
    uint64_t page = qemu_ram_pagesize(rb);
    uint64_t unit = page == qemu_real_host_page_size() ? thp_size() : page;

    /* Huge pages are aligned in the host's address space, not in the block */
    if (!QEMU_PTR_IS_ALIGNED(rb->host, unit ?: 1)) {
        unit = page;
    }
    block->rb = rb;
    block->map = balloon_map_new(ROUND_UP(rb->used_length, page), page,
                                 MAX(unit, page));
    return block;
}

static void block_free(gpointer data)
{
    BalloonBlock *block = data;

    balloon_map_free(block->map);
    g_free(block);
}

static BalloonBlock *defer_find(VirtIOBalloon *s, RAMBlock *rb)
{
    for (unsigned i = 0; i < s->defer.blocks->len; i++) {
        if (balloon_block(s, i)->rb == rb) {
            return balloon_block(s, i);
        }
    }
    return NULL;
}

static BalloonBlock *defer_find_or_add_locked(VirtIOBalloon *s, RAMBlock *rb)
{
    BalloonBlock *block = defer_find(s, rb);

    if (!block) {
        block = block_new(rb);
        g_ptr_array_add(s->defer.blocks, block);
    }
    return block;
}

static void defer_schedule(VirtIOBalloon *s, int64_t delay)
{
    timer_mod_anticipate_ns(s->defer.timer, s->defer.last_insert + delay);
}

static bool defer_is_pending(VirtIOBalloon *s)
{
    for (unsigned i = 0; i < s->defer.blocks->len; i++) {
        if (balloon_map_is_pending(balloon_block(s, i)->map)) {
            return true;
        }
    }
    return false;
}

void virtio_balloon_defer_insert(VirtIOBalloon *s, RAMBlock *rb,
                                 BalloonRange *range)
{
    if (!balloon_range_trim(range, BALLOON_PAGE_SIZE)) {
        return;
    }
    trace_virtio_balloon_defer_insert(rb->idstr, range->start, range->size);
    s->defer.last_insert = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    if (!defer_is_pending(s)) {
        s->defer.first_insert = s->defer.last_insert;
    }
    WITH_QEMU_LOCK_GUARD(&s->defer.lock) {
        BalloonBlock *block = defer_find_or_add_locked(s, rb);
        uint64_t fresh = balloon_map_insert(block->map, range);

        virtio_balloon_discard_skip(s, BALLOON_SKIP_REPEATED,
                                    range->size - fresh);
    }
    defer_schedule(s, GATHER_NS);
}

void virtio_balloon_defer_remove(VirtIOBalloon *s, RAMBlock *rb,
                                 BalloonRange *range)
{
    BalloonBlock *block = defer_find(s, rb);
    uint64_t waited, again;

    if (block && balloon_range_trim(range, BALLOON_PAGE_SIZE)) {
        trace_virtio_balloon_defer_remove(rb->idstr, range->start,
                                          range->size);
        QEMU_LOCK_GUARD(&s->defer.lock);
        waited = balloon_map_remove(block->map, range, &again);
        virtio_balloon_discard_skip(s, BALLOON_SKIP_TAKEN_BACK, waited);
        s->discard.revived += again;
    }
}

/* Discard one piece; false when there is none */
static bool defer_discard(VirtIOBalloon *s, bool partial)
{
    for (unsigned i = 0; i < s->defer.blocks->len; i++) {
        BalloonBlock *block = balloon_block(s, i);
        BalloonRange range;

        if (balloon_map_take(block->map, partial, &range)) {
            virtio_balloon_discard_block(s, block->rb, &range);
            return true;
        }
    }
    return false;
}

static void defer_work(void *opaque)
{
    VirtIOBalloon *s = opaque;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t deadline = get_clock() + BALLOON_SLICE_NS;
    bool partial = now >= s->defer.last_insert + SETTLE_NS ||
                   now >= s->defer.first_insert + SETTLE_MAX_NS;
    bool more = true;

    if (virtio_balloon_discard_inhibited()) {
        timer_mod(s->defer.timer, now + INHIBITED_NS);
        return;
    }
    while (more && get_clock() < deadline) {
        more = defer_discard(s, partial);
    }
    virtio_balloon_discard_flush(s);
    trace_virtio_balloon_defer_work(partial, virtio_balloon_defer_waiting(s));
    if (more) {
        virtio_balloon_resume_soon(s->defer.timer);
    } else if (defer_is_pending(s)) {
        defer_schedule(s, SETTLE_NS);
    }
}

void virtio_balloon_defer_start(VirtIOBalloon *s)
{
    if (s->defer.blocks && defer_is_pending(s)) {
        virtio_balloon_resume_soon(s->defer.timer);
    }
}

void virtio_balloon_defer_stop(VirtIOBalloon *s)
{
    if (s->defer.blocks) {
        timer_del(s->defer.timer);
    }
}

void virtio_balloon_defer_reset(VirtIOBalloon *s)
{
    if (s->defer.blocks) {
        timer_del(s->defer.timer);
        virtio_balloon_discard_skip(s, BALLOON_SKIP_TAKEN_BACK,
                                    virtio_balloon_defer_waiting(s));
        QEMU_LOCK_GUARD(&s->defer.lock);
        g_ptr_array_set_size(s->defer.blocks, 0);
    }
}

uint64_t virtio_balloon_defer_waiting(VirtIOBalloon *s)
{
    uint64_t size = 0;

    for (unsigned i = 0; s->defer.blocks && i < s->defer.blocks->len; i++) {
        size += balloon_map_waiting(balloon_block(s, i)->map);
    }
    return size;
}

static void defer_ram_removed(RAMBlockNotifier *n, void *host, size_t size,
                              size_t max_size)
{
    VirtIOBalloon *s = container_of(n, VirtIOBalloon, defer.ram);

    QEMU_LOCK_GUARD(&s->defer.lock);
    for (unsigned i = 0; i < s->defer.blocks->len; i++) {
        BalloonBlock *block = balloon_block(s, i);

        if (block->rb->host == host) {
            virtio_balloon_discard_skip(s, BALLOON_SKIP_TAKEN_BACK,
                                        balloon_map_waiting(block->map));
            g_ptr_array_remove_index_fast(s->defer.blocks, i);
            return;
        }
    }
}

void virtio_balloon_defer_init(VirtIOBalloon *s)
{
    VirtIOBalloonDefer *d = &s->defer;

    if (!virtio_has_feature(s->host_features,
                            VIRTIO_BALLOON_F_MUST_TELL_HOST)) {
        return;
    }
    qemu_mutex_init(&d->lock);
    d->blocks = g_ptr_array_new_with_free_func(block_free);
    d->timer = timer_new_ns(QEMU_CLOCK_REALTIME, defer_work, s);
    d->ram.ram_block_removed = defer_ram_removed;
    ram_block_notifier_add(&d->ram);
    virtio_balloon_migration_init(s);
}

void virtio_balloon_defer_cleanup(VirtIOBalloon *s)
{
    VirtIOBalloonDefer *d = &s->defer;

    if (d->blocks) {
        virtio_balloon_migration_cleanup(s);
        ram_block_notifier_remove(&d->ram);
        g_clear_pointer(&d->timer, timer_free);
        g_clear_pointer(&d->blocks, g_ptr_array_unref);
        qemu_mutex_destroy(&d->lock);
    }
}
