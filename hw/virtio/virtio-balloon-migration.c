/*
 * Virtio balloon: pages in the balloon, and migration
 *
 * Nobody needs what pages in the balloon contain: they are neither read nor
 * sent.  Which ones they are is sent instead.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "migration/misc.h"
#include "migration/qemu-file-types.h"
#include "migration/vmstate.h"
#include "trace.h"
#include "virtio-balloon-internal.h"

/* What migration is to skip of a map */
typedef struct MigrationSkip {
    const BalloonMap *map;
    /* where to go on, in bytes */
    uint64_t at;
    /* target pages that are in the balloon as a whole, where they are larger */
    unsigned long *whole;
} MigrationSkip;

/* Of which of @n target pages are all balloon pages set in @bits? */
static unsigned long *balloon_migration_whole_pages(const unsigned long *bits,
                                                    unsigned long n)
{
    unsigned long pages = 1ul << (qemu_target_page_bits() -
                                  VIRTIO_BALLOON_PFN_SHIFT);
    unsigned long *whole = bitmap_new(n);

    for (unsigned long i = 0; i < n; i++) {
        unsigned long end = (i + 1) * pages;

        if (find_next_zero_bit(bits, end, i * pages) == end) {
            set_bit(i, whole);
        }
    }
    return whole;
}

/* For qemu_guest_free_bitmap_hint() */
static bool balloon_migration_skip_next(void *opaque,
                                        const unsigned long **bitmap,
                                        unsigned long *first, unsigned long *n)
{
    MigrationSkip *skip = opaque;
    unsigned shift = qemu_target_page_bits();
    BalloonRange range;

    g_clear_pointer(&skip->whole, g_free);
    if (!balloon_map_next(skip->map, skip->at, UINT64_MAX, &range,
                          bitmap)) {
        return false;
    }
    skip->at = range.start + range.size;
    *first = range.start >> shift;
    *n = range.size >> shift;
    if (*bitmap && shift > VIRTIO_BALLOON_PFN_SHIFT) {
        skip->whole = balloon_migration_whole_pages(*bitmap, *n);
        *bitmap = skip->whole;
    }
    return true;
}

/*
 * A step of precopy, with the BQL; without it at a checkpoint of COLO, which
 * sends all.
 *
 * A guest that takes a page back writes to it after that, which the next
 * synchronisation finds.
 */
static int balloon_migration_precopy_notify(NotifierWithReturn *n, void *data,
                                            Error **errp)
{
    VirtIOBalloon *s = container_of(n, VirtIOBalloon, pages.precopy);
    PrecopyNotifyData *step = data;

    if (step->reason == PRECOPY_NOTIFY_SETUP && migrate_background_snapshot()) {
        /*
         * It reads all memory, maybe before the inhibitors are looked at again
         */
        s->discard.was_inhibited = true;
    }
    /*
     * Postcopy would wait for ever for a page that was never sent.  And who is
     * told before may have unplugged this device.  Machines whose pages are
     * smaller than the balloon's have no balloon.
     */
    if (step->reason != PRECOPY_NOTIFY_AFTER_BITMAP_SYNC ||
        migrate_postcopy_ram() || !bql_locked() || !s->pages.blocks ||
        qemu_target_page_bits() < VIRTIO_BALLOON_PFN_SHIFT) {
        return 0;
    }
    for (unsigned i = 0; i < s->pages.blocks->len; i++) {
        BalloonBlock *block = balloon_block(s, i);
        MigrationSkip skip = { .map = block->map };
        uint64_t skipped = qemu_guest_free_bitmap_hint(
            block->rb, balloon_migration_skip_next, &skip);

        trace_virtio_balloon_migration_skip(block->rb->idstr, skipped);
    }
    return 0;
}

static int balloon_migration_put(QEMUFile *f, void *pv, size_t unused,
                                 const VMStateField *field, JSONWriter *vmdesc)
{
    VirtIOBalloon *s = container_of(pv, VirtIOBalloon, pages);

    qemu_put_be32(f, s->pages.blocks->len);
    for (unsigned i = 0; i < s->pages.blocks->len; i++) {
        BalloonBlock *block = balloon_block(s, i);
        size_t size;
        g_autofree void *data = balloon_map_save(block->map, &size);

        qemu_put_counted_string(f, block->rb->idstr);
        qemu_put_be64(f, balloon_map_size(block->map));
        qemu_put_be64(f, size);
        qemu_put_buffer(f, data, size);
    }
    return 0;
}

/* Returns: what is wrong with what follows in the stream; NULL if it is fine */
static const char *balloon_migration_get_map(QEMUFile *f, BalloonMap *map)
{
    g_autofree void *data = NULL;
    uint64_t size;

    if (qemu_get_be64(f) != balloon_map_size(map)) {
        return "it is of another size here; give it the one it had";
    }
    size = qemu_get_be64(f);
    if (size > balloon_map_save_max(balloon_map_size(map))) {
        return "the state says more of it than there can be";
    }
    data = g_malloc(size);
    if (qemu_get_buffer(f, data, size) != size) {
        return "the state ends too early";
    }
    return balloon_map_load(map, data, size) ? NULL :
           "the state has pages that it does not have";
}

/* Add a block from the stream to @loaded; false, and told, if that fails */
static bool balloon_migration_get_block(VirtIOBalloon *s, QEMUFile *f,
                                        GPtrArray *loaded)
{
    char name[256] = "";
    RAMBlock *rb = NULL;
    BalloonBlock *block;
    const char *fault;

    if (qemu_get_counted_string(f, name)) {
        rb = qemu_ram_block_by_name(name);
    }
    if (!rb || !virtio_balloon_is_guest_ram(s, rb->mr) ||
        balloon_block_find(loaded, rb)) {
        error_report("virtio-balloon: the saved state has pages in the balloon"
                     " of memory '%s', which this machine lacks, or twice of"
                     " the same; start this QEMU with the memory that the guest"
                     " had when it was saved", name);
        return false;
    }
    block = balloon_block_new(s, rb);
    g_ptr_array_add(loaded, block);
    fault = balloon_migration_get_map(f, block->map);
    if (fault) {
        error_report("virtio-balloon: cannot load the pages in the balloon of"
                     " memory '%s': %s", name, fault);
    }
    return !fault;
}

/* All of it is read before any of it counts */
static int balloon_migration_get(QEMUFile *f, void *pv, size_t unused,
                                 const VMStateField *field)
{
    VirtIOBalloon *s = container_of(pv, VirtIOBalloon, pages);
    g_autoptr(GPtrArray) loaded =
        g_ptr_array_new_with_free_func(balloon_block_free);

    if (!s->pages.blocks) {
        error_report("virtio-balloon: the state has pages in the balloon of a"
                     " driver that must tell; give the balloon"
                     " must-tell-host=on, as it had when it was saved");
        return -EINVAL;
    }
    for (uint32_t n = qemu_get_be32(f); n; n--) {
        if (!balloon_migration_get_block(s, f, loaded)) {
            return -EINVAL;
        }
    }
    virtio_balloon_pages_replace(s, g_steal_pointer(&loaded));
    return 0;
}

static const VMStateInfo migration_pages_info = {
    .name = "virtio-balloon pages",
    .get = balloon_migration_get,
    .put = balloon_migration_put,
};

static bool balloon_migration_needed(void *opaque)
{
    return virtio_balloon_driver_tells(opaque) &&
           VIRTIO_BALLOON(opaque)->pages.blocks->len;
}

const VMStateDescription vmstate_virtio_balloon_pages = {
    .name = "virtio-balloon-device/must-tell-host",
    .version_id = 2,
    .minimum_version_id = 2,
    .needed = balloon_migration_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_SINGLE(pages, VirtIOBalloon, 0, migration_pages_info,
                       VirtIOBalloonPages),
        VMSTATE_END_OF_LIST()
    }
};

void virtio_balloon_migration_init(VirtIOBalloon *s)
{
    s->pages.precopy.notify = balloon_migration_precopy_notify;
    precopy_add_notifier(&s->pages.precopy);
}

void virtio_balloon_migration_cleanup(VirtIOBalloon *s)
{
    precopy_remove_notifier(&s->pages.precopy);
}
