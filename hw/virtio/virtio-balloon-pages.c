/*
 * Virtio balloon: the pages in the balloon
 *
 * With VIRTIO_BALLOON_F_MUST_TELL_HOST a page of the balloon stays the
 * device's until the driver has its deflate request back (section 5.5.6).  So
 * the driver is answered at once, and its pages are discarded afterwards: in
 * the largest pieces that the backing has, when nothing forbids it.  Nobody
 * needs what they contain, so migration neither reads nor sends them; it sends
 * which ones they are.
 *
 * A page is the guest's until the inflate that lists it is answered, then it
 * is given up and waits, until it is given back to the host.  It is the guest's
 * again before a deflate that lists it is answered, when the device is reset or
 * loses its driver, and when its memory leaves the guest.  To forget a page is
 * always safe.  docs/devel/virtio-balloon.rst has each event in a table.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "exec/address-spaces.h"
#include "exec/ramblock.h"
#include "trace.h"
#include "virtio-balloon-internal.h"
#include "virtio-balloon-slice.h"

#define BALLOON_PAGE_SIZE (1ULL << VIRTIO_BALLOON_PFN_SHIFT)

/* What is discarded at a time where there are no huge pages */
#define UNIT_SIZE (2 * MiB)
/* A request that comes to more ranges has the others discarded at once */
#define STAGED_MAX 4096

/* Enough for a few requests to arrive, which make larger pieces together */
#define GATHER_NS (1 * SCALE_MS)
/* So long after the last request, nothing is waited for that is missing ... */
#define SETTLE_NS (100 * SCALE_MS)
/* ... nor for longer than this, if the driver goes on and on */
#define SETTLE_MAX_NS (1000 * SCALE_MS)
/* A number that no block has: nothing is to be looked at */
#define LOOK_DONE UINT_MAX
/* How often to see what inhibits: nobody tells */
#define INHIBITED_NS (10 * NANOSECONDS_PER_SECOND)
/* Nobody waits for this work: it takes a fifth of the main loop's time */
#define IDLE_SHARE 4

/* Pages of a request that is not answered yet */
typedef struct BalloonStaged {
    RAMBlock *rb;
    BalloonRange range;
} BalloonStaged;

/* The size of a transparent huge page in bytes, 0 if there are none */
static uint64_t pages_thp_size(void)
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

BalloonBlock *balloon_block_new(RAMBlock *rb)
{
    BalloonBlock *block = g_new(BalloonBlock, 1);
    uint64_t page = qemu_ram_pagesize(rb);

    block->rb = rb;
    block->map = balloon_map_new(ROUND_UP(rb->used_length, page), page,
                                 MAX(MAX(page, UNIT_SIZE), pages_thp_size()));
    return block;
}

void balloon_block_free(gpointer data)
{
    BalloonBlock *block = data;

    balloon_map_free(block->map);
    g_free(block);
}

static BalloonBlock *pages_find(VirtIOBalloon *s, RAMBlock *rb)
{
    for (unsigned i = 0; i < s->pages.blocks->len; i++) {
        if (balloon_block(s, i)->rb == rb) {
            return balloon_block(s, i);
        }
    }
    return NULL;
}

bool virtio_balloon_pages_known(VirtIOBalloon *s)
{
    return s->pages.blocks &&
           virtio_vdev_has_feature(VIRTIO_DEVICE(s),
                                   VIRTIO_BALLOON_F_MUST_TELL_HOST);
}

/* --- requests ------------------------------------------------------------ */

void virtio_balloon_pages_stage(VirtIOBalloon *s, RAMBlock *rb,
                                BalloonRange *range)
{
    GArray *staged = s->pages.staged;
    BalloonStaged *last = staged->len ? &g_array_index(staged, BalloonStaged,
                                                       staged->len - 1) : NULL;

    if (!balloon_range_trim(range, BALLOON_PAGE_SIZE)) {
        return;
    }
    if (last && last->rb == rb &&
        last->range.start + last->range.size == range->start) {
        last->range.size += range->size;
    } else if (staged->len < STAGED_MAX) {
        g_array_append_val(staged, ((BalloonStaged) { rb, *range }));
    } else if (virtio_balloon_may_discard(s)) {
        virtio_balloon_discard_block(s, rb, range);
    } else {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_INHIBITED, range->size);
    }
}

static bool pages_is_pending(VirtIOBalloon *s)
{
    for (unsigned i = 0; i < s->pages.blocks->len; i++) {
        if (balloon_map_is_pending(balloon_block(s, i)->map)) {
            return true;
        }
    }
    return false;
}

static void pages_insert(VirtIOBalloon *s, const BalloonStaged *staged)
{
    BalloonBlock *block = pages_find(s, staged->rb);
    uint64_t waiting, fresh;

    if (!block) {
        block = balloon_block_new(staged->rb);
        g_ptr_array_add(s->pages.blocks, block);
    }
    waiting = balloon_map_waiting(block->map);
    fresh = balloon_map_insert(block->map, &staged->range);
    s->counts.revived += balloon_map_waiting(block->map) - waiting - fresh;
    trace_virtio_balloon_pages_insert(staged->rb->idstr, staged->range.start,
                                      staged->range.size, fresh);
    virtio_balloon_discard_skip(s, BALLOON_SKIP_REPEATED,
                                staged->range.size - fresh);
}

void virtio_balloon_pages_commit(VirtIOBalloon *s)
{
    VirtIOBalloonPages *p = &s->pages;

    if (!p->blocks || !p->staged->len) {
        return;
    }
    p->last_insert = qemu_clock_get_ns(BALLOON_CLOCK);
    if (!pages_is_pending(s)) {
        p->first_insert = p->last_insert;
    }
    for (guint i = 0; i < p->staged->len; i++) {
        pages_insert(s, &g_array_index(p->staged, BalloonStaged, i));
    }
    g_array_set_size(p->staged, 0);
    timer_mod_anticipate_ns(p->timer, p->last_insert + GATHER_NS);
}

static uint64_t pages_staged_size(VirtIOBalloon *s)
{
    uint64_t size = 0;

    for (guint i = 0; i < s->pages.staged->len; i++) {
        size += g_array_index(s->pages.staged, BalloonStaged, i).range.size;
    }
    return size;
}

void virtio_balloon_pages_unstage(VirtIOBalloon *s)
{
    if (s->pages.blocks) {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_TAKEN_BACK,
                                    pages_staged_size(s));
        g_array_set_size(s->pages.staged, 0);
    }
}

void virtio_balloon_pages_remove(VirtIOBalloon *s, RAMBlock *rb,
                                 BalloonRange *range)
{
    BalloonBlock *block = pages_find(s, rb);
    uint64_t waited, again;

    if (block && balloon_range_trim(range, BALLOON_PAGE_SIZE)) {
        waited = balloon_map_remove(block->map, range, &again);
        trace_virtio_balloon_pages_remove(rb->idstr, range->start,
                                          range->size, waited, again);
        /* Also if the request is put back: the pages are the guest's */
        s->counts.skipped[BALLOON_SKIP_TAKEN_BACK] += waited;
        s->counts.revived += again;
    }
}

/* --- discards ------------------------------------------------------------ */

/*
 * Have some pages that were given back wait again, where the host has them in
 * memory once more.  False when all that is in the balloon was looked at.
 */
static bool pages_look(VirtIOBalloon *s)
{
    const uint64_t host_page = qemu_real_host_page_size();
    VirtIOBalloonPages *p = &s->pages;
    uint8_t resident[BALLOON_DISCARD_STEP / BALLOON_PAGE_SIZE];
    BalloonBlock *block;
    BalloonRange row;
    uint64_t page;

    if (p->look_block >= p->blocks->len) {
        p->look_block = LOOK_DONE;
        return false;
    }
    block = balloon_block(s, p->look_block);
    page = qemu_ram_pagesize(block->rb);
    if (!balloon_map_next(block->map, p->look_offset, &row)) {
        p->look_block++;
        p->look_offset = 0;
        return true;
    }
    row.size = MIN(row.size, MAX(BALLOON_DISCARD_STEP, page));
    p->look_offset = row.start + row.size;
    /* A huge page is in memory as a whole: its first part tells */
    ram_block_resident(block->rb, row.start,
                       page < row.size ? row.size : host_page, resident);
    for (uint64_t at = 0; at < row.size; at += page) {
        if (resident[at / host_page] & 1) {
            s->counts.revived += balloon_map_wait_again(block->map,
                &(BalloonRange) { row.start + at, page });
        }
    }
    return true;
}

static void pages_look_from_start(VirtIOBalloonPages *p)
{
    p->look_block = 0;
    p->look_offset = 0;
}

void virtio_balloon_pages_look_again(VirtIOBalloon *s)
{
    if (s->pages.blocks) {
        pages_look_from_start(&s->pages);
        virtio_balloon_pages_start(s);
    }
}

/* Discard one piece; false when there is none */
static bool pages_discard(VirtIOBalloon *s, bool partial)
{
    for (unsigned i = 0; i < s->pages.blocks->len; i++) {
        BalloonBlock *block = balloon_block(s, i);
        BalloonRange range;

        if (balloon_map_take(block->map, partial, BALLOON_DISCARD_STEP,
                             &range)) {
            virtio_balloon_discard_block(s, block->rb, &range);
            return true;
        }
    }
    return false;
}

static void pages_wake_later(VirtIOBalloon *s, const BalloonSlice *slice,
                             bool more)
{
    VirtIOBalloonPages *p = &s->pages;

    if (more) {
        balloon_slice_go_on(p->timer, MAX(IDLE_SHARE *
                                          balloon_slice_used(slice),
                                          BALLOON_GAP_NS));
    } else if (pages_is_pending(s)) {
        timer_mod_ns(p->timer, MIN(p->last_insert + SETTLE_NS,
                                   p->first_insert + SETTLE_MAX_NS));
    } else if (p->blocks->len) {
        /* Whether something begins to inhibit, which brings pages back */
        balloon_slice_go_on(p->timer, INHIBITED_NS);
    }
}

static void pages_work(void *opaque)
{
    VirtIOBalloon *s = opaque;
    VirtIOBalloonPages *p = &s->pages;
    BalloonSlice slice = balloon_slice_begin();
    int64_t now = qemu_clock_get_ns(BALLOON_CLOCK);
    bool partial = now >= p->last_insert + SETTLE_NS ||
                   now >= p->first_insert + SETTLE_MAX_NS;
    bool more = true;

    if (!virtio_balloon_may_discard(s)) {
        if (virtio_balloon_discard_inhibited(s)) {
            balloon_slice_go_on(p->timer, INHIBITED_NS);
        }
        return;
    }
    if (qatomic_xchg(&s->discard.was_inhibited, false)) {
        pages_look_from_start(p);
    }
    while (more && !balloon_slice_is_over(&slice)) {
        more = pages_look(s) || pages_discard(s, partial);
    }
    virtio_balloon_discard_flush(s);
    trace_virtio_balloon_pages_work(partial, virtio_balloon_pages_waiting(s));
    pages_wake_later(s, &slice, more);
}

void virtio_balloon_pages_replace(VirtIOBalloon *s, GPtrArray *loaded)
{
    virtio_balloon_pages_reset(s);
    g_ptr_array_extend_and_steal(s->pages.blocks, loaded);
    /* They did not come, but the host may have them in memory all the same */
    pages_look_from_start(&s->pages);
    s->pages.last_insert = 0;
    s->pages.first_insert = 0;
}

uint64_t virtio_balloon_pages_waiting(VirtIOBalloon *s)
{
    uint64_t size = 0;

    if (s->pages.blocks) {
        size = pages_staged_size(s);
        for (unsigned i = 0; i < s->pages.blocks->len; i++) {
            size += balloon_map_waiting(balloon_block(s, i)->map);
        }
    }
    return size;
}

/* --- life cycle ---------------------------------------------------------- */

static void pages_forget(VirtIOBalloon *s, unsigned i)
{
    s->counts.skipped[BALLOON_SKIP_TAKEN_BACK] +=
        balloon_map_waiting(balloon_block(s, i)->map);
    g_ptr_array_remove_index_fast(s->pages.blocks, i);
    if (s->pages.look_block != LOOK_DONE) {
        pages_look_from_start(&s->pages);
    }
}

void virtio_balloon_pages_reset(VirtIOBalloon *s)
{
    while (s->pages.blocks && s->pages.blocks->len) {
        pages_forget(s, 0);
    }
}

void virtio_balloon_pages_start(VirtIOBalloon *s)
{
    if (VIRTIO_DEVICE(s)->vm_running && s->pages.blocks &&
        s->pages.blocks->len) {
        balloon_slice_go_on(s->pages.timer, BALLOON_GAP_NS);
    }
}

void virtio_balloon_pages_stop(VirtIOBalloon *s)
{
    if (s->pages.blocks) {
        timer_del(s->pages.timer);
    }
}

/*
 * The guest's memory has changed.  What has left it is not in the balloon: if
 * the same memory is plugged again, the guest has it anew.
 */
static void pages_memory_commit(MemoryListener *listener)
{
    VirtIOBalloon *s = container_of(listener, VirtIOBalloon, pages.memory);
    GArray *staged = s->pages.staged;

    for (unsigned i = s->pages.blocks->len; i-- > 0;) {
        if (!memory_region_is_mapped(balloon_block(s, i)->rb->mr)) {
            pages_forget(s, i);
        }
    }
    for (unsigned i = staged->len; i-- > 0;) {
        BalloonStaged *one = &g_array_index(staged, BalloonStaged, i);

        if (!memory_region_is_mapped(one->rb->mr)) {
            s->inflate.counts.skipped[BALLOON_SKIP_TAKEN_BACK] +=
                one->range.size;
            g_array_remove_index(staged, i);
        }
    }
}

void virtio_balloon_pages_init(VirtIOBalloon *s)
{
    VirtIOBalloonPages *p = &s->pages;

    if (!virtio_has_feature(s->host_features,
                            VIRTIO_BALLOON_F_MUST_TELL_HOST)) {
        return;
    }
    p->blocks = g_ptr_array_new_with_free_func(balloon_block_free);
    p->look_block = LOOK_DONE;
    p->staged = g_array_new(false, false, sizeof(BalloonStaged));
    p->timer = balloon_slice_timer_new(pages_work, s);
    p->memory = (MemoryListener) {
        .name = "virtio-balloon-pages",
        .commit = pages_memory_commit,
    };
    memory_listener_register(&p->memory, &address_space_memory);
    virtio_balloon_migration_init(s);
}

void virtio_balloon_pages_cleanup(VirtIOBalloon *s)
{
    VirtIOBalloonPages *p = &s->pages;

    if (p->blocks) {
        virtio_balloon_migration_cleanup(s);
        memory_listener_unregister(&p->memory);
        g_clear_pointer(&p->timer, timer_free);
        g_clear_pointer(&p->staged, g_array_unref);
        g_clear_pointer(&p->blocks, g_ptr_array_unref);
    }
}
