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
#include "qemu/madvise.h"
#include "qemu/units.h"
#include "exec/address-spaces.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "migration/misc.h"
#include "trace.h"
#include "virtio-balloon-coordinator.h"
#include "virtio-balloon-internal.h"

/* How many ranges of a request are staged; others are discarded at once */
#define STAGED_MAX 4096
/* The largest discard-granule: one discard is not interrupted */
#define GRANULE_MAX GiB
/* The default granule is so large that there are no more of them than this */
#define GRANULES_DEFAULT_MAX 32768
/*
 * The largest unit; transparent huge pages may be larger (512 MiB on hosts with
 * pages of 64 KiB), too large to wait for
 */
#define UNIT_MAX (32 * MiB)
/* The most that a deflate populates at a time, where granules are smaller */
#define POPULATE_STEP (64 * KiB)

/* Pages of a request that is not answered yet */
typedef struct BalloonStaged {
    RAMBlock *rb;
    BalloonRange range;
} BalloonStaged;

/* The size of a transparent huge page in bytes, 0 if there are none */
static uint64_t balloon_pages_thp_size(void)
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

BalloonBlock *balloon_block_new(VirtIOBalloon *s, RAMBlock *rb)
{
    BalloonBlock *block = g_new(BalloonBlock, 1);
    uint64_t page = qemu_ram_pagesize(rb);
    uint64_t size = ROUND_UP(rb->used_length, page);

    block->rb = rb;
    block->granule = balloon_coordinator_granule(s->pages.coordinator, rb);
    page = MAX(page, block->granule);
    block->map = balloon_map_new(size, page, MAX(MAX(page, BALLOON_UNIT_SIZE),
                                                 MIN(balloon_pages_thp_size(),
                                                     UNIT_MAX)));
    return block;
}

void balloon_block_free(gpointer data)
{
    BalloonBlock *block = data;

    balloon_map_free(block->map);
    g_free(block);
}

BalloonBlock *balloon_block_find(GPtrArray *blocks, RAMBlock *rb)
{
    for (guint i = 0; i < blocks->len; i++) {
        BalloonBlock *block = g_ptr_array_index(blocks, i);

        if (block->rb == rb) {
            return block;
        }
    }
    return NULL;
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

static void balloon_pages_insert(VirtIOBalloon *s, const BalloonStaged *staged)
{
    BalloonBlock *block = balloon_block_find(s->pages.blocks, staged->rb);
    uint64_t waiting, fresh;

    if (!block) {
        block = balloon_block_new(s, staged->rb);
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
    virtio_balloon_reclaim_soon(s);
    for (guint i = 0; i < p->staged->len; i++) {
        balloon_pages_insert(s, &g_array_index(p->staged, BalloonStaged, i));
    }
    g_array_set_size(p->staged, 0);
}

static uint64_t balloon_pages_staged_size(VirtIOBalloon *s)
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
                                    balloon_pages_staged_size(s));
        g_array_set_size(s->pages.staged, 0);
    }
}

uint64_t virtio_balloon_pages_step(VirtIOBalloon *s)
{
    if (s->pages.coordinator) {
        return MAX(s->discard_granule, POPULATE_STEP);
    }
    return s->populate_on_deflate ? BALLOON_UNIT_SIZE : UINT64_MAX;
}

/*
 * A page with a memory error cannot be populated; the guest learns of it when
 * it uses the page
 */
static bool balloon_pages_are_lost(int error)
{
#ifdef EHWPOISON
    return error == EHWPOISON;
#else
    return false;
#endif
}

/*
 * Have the host provide the memory of @range that is in the balloon.  Returns:
 * 0, or a negative errno.
 */
static int balloon_pages_populate_host(BalloonBlock *block,
                                       const BalloonRange *range)
{
    uint64_t page = qemu_ram_pagesize(block->rb);
    BalloonRange rest = *range;
    BalloonRange run;

    while (balloon_map_next_run(block->map, &rest, &run)) {
        uint64_t from = ROUND_DOWN(run.start, page);
        uint64_t to = ROUND_UP(run.start + run.size, page);

        if (qemu_madvise(block->rb->host + from, to - from,
                         QEMU_MADV_POPULATE_WRITE) &&
            !balloon_pages_are_lost(errno)) {
            return -errno;
        }
    }
    return 0;
}

/*
 * Make @range usable for the guest, and for those who pin its memory.  Returns:
 * false if that is not possible now.
 */
static bool balloon_pages_populate(VirtIOBalloon *s, BalloonBlock *block,
                                   const BalloonRange *range)
{
    int ret = 0;

    /*
     * Postcopy brings the page anyway, and a background snapshot needs it; to
     * wait for either here stops all of QEMU.
     */
    if (s->populate_on_deflate && !migration_in_incoming_postcopy() &&
        !migration_in_bg_snapshot()) {
        ret = balloon_pages_populate_host(block, range);
    }
    if (!ret && block->granule) {
        ret = balloon_coordinator_populate(s->pages.coordinator, block->rb,
                                           range);
    }
    if (ret) {
        trace_virtio_balloon_pages_held(block->rb->idstr, range->start,
                                        range->size, ret);
        s->deflate.held = ret;
    }
    return !ret;
}

void virtio_balloon_pages_remove(VirtIOBalloon *s, RAMBlock *rb,
                                 BalloonRange *range)
{
    BalloonBlock *block = balloon_block_find(s->pages.blocks, rb);
    uint64_t waited, again;

    if (block && balloon_range_trim(range, BALLOON_PAGE_SIZE) &&
        balloon_pages_populate(s, block, range)) {
        waited = balloon_map_remove(block->map, range, &again);
        trace_virtio_balloon_pages_remove(rb->idstr, range->start,
                                          range->size, waited, again);
        /*
         * Counted for good, even if the request is put back later: the pages
         * are the guest's now
         */
        s->counts.skipped[BALLOON_SKIP_TAKEN_BACK] += waited;
        s->counts.revived += again;
    }
}

void virtio_balloon_pages_replace(VirtIOBalloon *s, GPtrArray *loaded)
{
    virtio_balloon_pages_reset(s);
    g_ptr_array_extend_and_steal(s->pages.blocks, loaded);
    virtio_balloon_reclaim_loaded(s);
}

BalloonHeld *virtio_balloon_pages_held(VirtIOBalloon *s)
{
    VirtIOBalloonQueue *q = &s->deflate;
    uint64_t size = 0;
    int error = 0;
    BalloonHeld *held;

    if (s->pages.coordinator) {
        size = balloon_coordinator_missing(s->pages.coordinator, &error);
    }
    if (q->held) {
        error = q->held;
        for (unsigned i = q->next_range; i < q->n_ranges; i++) {
            size += q->ranges[i].size;
        }
    }
    if (!size) {
        return NULL;
    }
    held = g_new0(BalloonHeld, 1);
    held->size = size;
    held->error = error ? g_strdup(strerror(-error)) : NULL;
    return held;
}

void virtio_balloon_pages_tell_held(VirtIOBalloon *s)
{
    /* A fault in a ring is told by an interrupt, which may unplug the device */
    if (DEVICE(s)->realized) {
        virtio_balloon_state_served(s, virtio_balloon_pages_held(s));
    }
}

uint64_t virtio_balloon_pages_waiting(VirtIOBalloon *s)
{
    return s->pages.blocks ? balloon_pages_staged_size(s) +
                             virtio_balloon_reclaim_waiting(s) : 0;
}

/* --- life cycle ---------------------------------------------------------- */

static void balloon_pages_forget(VirtIOBalloon *s, unsigned i)
{
    if (s->pages.coordinator) {
        balloon_coordinator_release(s->pages.coordinator,
                                    balloon_block(s, i)->rb);
    }
    s->counts.skipped[BALLOON_SKIP_TAKEN_BACK] +=
        balloon_map_waiting(balloon_block(s, i)->map);
    g_ptr_array_remove_index_fast(s->pages.blocks, i);
    virtio_balloon_reclaim_block_gone(s);
}

void virtio_balloon_pages_reset(VirtIOBalloon *s)
{
    while (s->pages.blocks && s->pages.blocks->len) {
        balloon_pages_forget(s, 0);
    }
}

/*
 * Memory may have been unplugged.  Then its pages are no longer in the balloon:
 * if it is plugged again, all of it is the guest's.
 */
static void balloon_pages_memory_commit(MemoryListener *listener)
{
    VirtIOBalloon *s = container_of(listener, VirtIOBalloon, pages.memory);
    GArray *staged = s->pages.staged;

    for (unsigned i = s->pages.blocks->len; i-- > 0;) {
        if (!memory_region_is_mapped(balloon_block(s, i)->rb->mr)) {
            balloon_pages_forget(s, i);
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

static void balloon_pages_missing(Notifier *notifier, void *data)
{
    virtio_balloon_pages_tell_held(container_of(notifier, VirtIOBalloon,
                                                pages.missing));
}

/*
 * 2 MiB, or larger, so that all memory takes no more than half of the mappings
 * that VFIO allows by default
 */
static uint64_t balloon_pages_default_granule(void)
{
    uint64_t granule = BALLOON_UNIT_SIZE;

    while (granule < GRANULE_MAX &&
           current_machine->ram_size / granule > GRANULES_DEFAULT_MAX) {
        granule *= 2;
    }
    return granule;
}

static bool balloon_pages_prepare_coordination(VirtIOBalloon *s, Error **errp)
{
    uint64_t granule = s->discard_granule ?: balloon_pages_default_granule();

    if (!is_power_of_2(granule) || granule < BALLOON_PAGE_SIZE ||
        granule > GRANULE_MAX) {
        error_setg(errp, "discard-granule must be a power of two from %llu to"
                   " %" PRId64, BALLOON_PAGE_SIZE, GRANULE_MAX);
        return false;
    }
    granule = MAX(granule, MAX(qemu_real_host_page_size(),
                               qemu_target_page_size()));
    s->discard_granule = granule;
    s->pages.coordinator = balloon_coordinator_get(
        granule, !phase_check(PHASE_MACHINE_READY), errp);
    return s->pages.coordinator;
}

bool virtio_balloon_pages_prepare(VirtIOBalloon *s, Error **errp)
{
    ERRP_GUARD();

    if (!s->coordinated_discards && !s->populate_on_deflate) {
        return true;
    }
    if (!virtio_has_feature(s->host_features,
                            VIRTIO_BALLOON_F_MUST_TELL_HOST)) {
        error_setg(errp, "%s needs must-tell-host=on",
                   s->coordinated_discards ? "coordinated-discards" :
                                             "populate-on-deflate");
        error_append_hint(errp, "A driver that does not tell uses pages of the"
                          " balloon before anybody can prepare them.\n");
        return false;
    }
    if (s->populate_on_deflate &&
        qemu_madvise(NULL, 0, QEMU_MADV_POPULATE_WRITE)) {
        error_setg(errp, "populate-on-deflate needs a host that knows"
                   " MADV_POPULATE_WRITE, such as Linux 5.14");
        return false;
    }
    return !s->coordinated_discards ||
           balloon_pages_prepare_coordination(s, errp);
}

void virtio_balloon_pages_init(VirtIOBalloon *s)
{
    VirtIOBalloonPages *p = &s->pages;

    p->blocks = g_ptr_array_new_with_free_func(balloon_block_free);
    p->staged = g_array_new(false, false, sizeof(BalloonStaged));
    virtio_balloon_reclaim_init(s);
    p->memory = (MemoryListener) {
        .name = "virtio-balloon-pages",
        .commit = balloon_pages_memory_commit,
    };
    memory_listener_register(&p->memory, &address_space_memory);
    if (p->coordinator) {
        p->missing.notify = balloon_pages_missing;
        balloon_coordinator_add_notifier(p->coordinator, &p->missing);
    }
}

void virtio_balloon_pages_cleanup(VirtIOBalloon *s)
{
    VirtIOBalloonPages *p = &s->pages;

    virtio_balloon_pages_reset(s);
    memory_listener_unregister(&p->memory);
    if (p->coordinator) {
        notifier_remove(&p->missing);
    }
    virtio_balloon_reclaim_cleanup(s);
    g_clear_pointer(&p->staged, g_array_unref);
    g_clear_pointer(&p->blocks, g_ptr_array_unref);
}
