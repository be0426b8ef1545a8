/*
 * Virtio balloon: pages in the balloon, and migration
 *
 * With VIRTIO_BALLOON_F_MUST_TELL_HOST the device knows which pages are in the
 * balloon, and nobody needs what they contain: they are neither read nor sent.
 * Which ones they are is sent instead.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "migration/misc.h"
#include "migration/vmstate.h"
#include "trace.h"
#include "virtio-balloon-internal.h"

/* What a step of migration may spend on skipping pages, with the BQL held */
#define SKIP_NS (5 * SCALE_MS)

struct BalloonSavedBlock {
    /* of the RAMBlock */
    uint8_t name[sizeof_field(RAMBlock, idstr)];
    /* a bit for each balloon page, little endian; @size is in bytes */
    uint32_t size;
    uint8_t *held;
    QTAILQ_ENTRY(BalloonSavedBlock) next;
};

/* Have migration skip what is in the balloon.  Runs in the migration thread */
static void skip_block_locked(BalloonBlock *block, int64_t deadline)
{
    uint64_t skipped = 0;
    uint64_t next = 0;
    BalloonRange range;

    if (migrate_ram_is_ignored(block->rb)) {
        return;
    }
    while (get_clock() < deadline &&
           balloon_map_next(block->map, next, &range)) {
        next = range.start + range.size;
        if (balloon_range_trim(&range, qemu_target_page_size())) {
            qemu_guest_free_page_hint(block->rb->host + range.start,
                                      range.size);
            skipped += range.size;
        }
    }
    trace_virtio_balloon_migration_skip(block->rb->idstr, skipped);
}

/*
 * A step of precopy.  Runs in the migration thread, with or without the BQL.
 *
 * A guest that takes a page back writes to it after that, which the next
 * synchronisation finds; the lock keeps what is seen here in the balloon until
 * it is skipped.  What there is no time for is sent, as anything else.
 */
static int migration_precopy_notify(NotifierWithReturn *n, void *data,
                                Error **errp)
{
    VirtIOBalloon *s = container_of(n, VirtIOBalloon, defer.precopy);
    PrecopyNotifyData *step = data;
    int64_t deadline = get_clock() + SKIP_NS;

    /* Postcopy would wait for ever for a page that was never sent */
    if (step->reason != PRECOPY_NOTIFY_AFTER_BITMAP_SYNC ||
        migrate_postcopy_ram() || !virtio_balloon_defer_allowed(s)) {
        return 0;
    }
    QEMU_LOCK_GUARD(&s->defer.lock);
    for (unsigned i = 0; i < s->defer.blocks->len; i++) {
        skip_block_locked(balloon_block(s, i), deadline);
    }
    return 0;
}

void virtio_balloon_migration_init(VirtIOBalloon *s)
{
    s->defer.precopy.notify = migration_precopy_notify;
    precopy_add_notifier(&s->defer.precopy);
    QTAILQ_INIT(&s->defer.saved);
}

void virtio_balloon_migration_cleanup(VirtIOBalloon *s)
{
    precopy_remove_notifier(&s->defer.precopy);
}

static BalloonSavedBlock *saved_block_new(BalloonBlock *block)
{
    BalloonSavedBlock *saved = g_new0(BalloonSavedBlock, 1);
    unsigned long n = block->rb->used_length >> VIRTIO_BALLOON_PFN_SHIFT;
    unsigned long *held = bitmap_new(n);
    uint64_t at = 0;
    BalloonRange range;

    while (balloon_map_next(block->map, at, &range)) {
        at = range.start + range.size;
        bitmap_set(held, range.start >> VIRTIO_BALLOON_PFN_SHIFT,
                   range.size >> VIRTIO_BALLOON_PFN_SHIFT);
    }
    pstrcpy((char *)saved->name, sizeof(saved->name), block->rb->idstr);
    saved->size = DIV_ROUND_UP(n, 64) * sizeof(uint64_t);
    saved->held = g_malloc0(saved->size);
    bitmap_to_le((unsigned long *)saved->held, held, n);
    g_free(held);
    return saved;
}

static void migration_forget_saved(VirtIOBalloon *s)
{
    BalloonSavedBlock *saved;

    while ((saved = QTAILQ_FIRST(&s->defer.saved))) {
        QTAILQ_REMOVE(&s->defer.saved, saved, next);
        g_free(saved->held);
        g_free(saved);
    }
}

static int migration_pre_save(void *opaque)
{
    VirtIOBalloon *s = opaque;

    migration_forget_saved(s);
    for (unsigned i = 0; i < s->defer.blocks->len; i++) {
        BalloonSavedBlock *saved = saved_block_new(balloon_block(s, i));

        QTAILQ_INSERT_TAIL(&s->defer.saved, saved, next);
    }
    return 0;
}

static int migration_post_save(void *opaque)
{
    migration_forget_saved(opaque);
    return 0;
}

/* They are in the balloon, and the host may have to get them back once more */
static void saved_block_load(VirtIOBalloon *s, BalloonSavedBlock *saved,
                             RAMBlock *rb)
{
    unsigned long n = MIN(saved->size * 8ULL,
                          rb->used_length >> VIRTIO_BALLOON_PFN_SHIFT);
    unsigned long *held = bitmap_new(n);
    unsigned long first = 0;

    memcpy(held, saved->held, MIN(saved->size, BITS_TO_LONGS(n) *
                                               sizeof(*held)));
    bitmap_from_le(held, held, n);
    while ((first = find_next_bit(held, n, first)) < n) {
        unsigned long end = find_next_zero_bit(held, n, first);

        s->state.inflated_pages += end - first;
        virtio_balloon_defer_insert(s, rb, &(BalloonRange) {
            .start = (uint64_t)first << VIRTIO_BALLOON_PFN_SHIFT,
            .size = (uint64_t)(end - first) << VIRTIO_BALLOON_PFN_SHIFT,
        });
        first = end;
    }
    g_free(held);
}

static int migration_post_load(void *opaque, int version_id)
{
    VirtIOBalloon *s = opaque;
    BalloonSavedBlock *saved;
    int ret = 0;

    virtio_balloon_defer_reset(s);
    QTAILQ_FOREACH(saved, &s->defer.saved, next) {
        RAMBlock *rb;

        saved->name[sizeof(saved->name) - 1] = 0;
        rb = qemu_ram_block_by_name((char *)saved->name);
        if (!rb) {
            error_report("virtio-balloon: there is no memory '%s' here that"
                         " the balloon could have taken", saved->name);
            ret = -EINVAL;
            break;
        }
        saved_block_load(s, saved, rb);
    }
    migration_forget_saved(s);
    return ret;
}

static bool migration_needed(void *opaque)
{
    VirtIOBalloon *s = opaque;

    return virtio_balloon_defer_allowed(s) && s->defer.blocks->len;
}

static const VMStateDescription vmstate_saved_block = {
    .name = "virtio-balloon-device/must-tell-host/block",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BUFFER(name, BalloonSavedBlock),
        VMSTATE_UINT32(size, BalloonSavedBlock),
        VMSTATE_VBUFFER_ALLOC_UINT32(held, BalloonSavedBlock, 1, NULL, size),
        VMSTATE_END_OF_LIST()
    }
};

const VMStateDescription vmstate_virtio_balloon_held = {
    .name = "virtio-balloon-device/must-tell-host",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = migration_needed,
    .pre_save = migration_pre_save,
    .post_save = migration_post_save,
    .post_load = migration_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_QTAILQ_V(defer.saved, VirtIOBalloon, 1, vmstate_saved_block,
                         BalloonSavedBlock, next),
        VMSTATE_END_OF_LIST()
    }
};
