/*
 * Who pins main memory, and what they are told: a RamDiscardManager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "hw/qdev-core.h"
#include "migration/blocker.h"
#include "migration/misc.h"
#include "virtio-balloon-listeners.h"

/* Somebody, such as VFIO, who pins a section of a region */
typedef struct CoordinatedListener {
    RamDiscardListener *rdl;
    /* its section could not be populated when it registered */
    bool lacks;
} CoordinatedListener;

struct BalloonListeners {
    /* of CoordinatedListener */
    GArray *all;
    /* blocks migration while there are listeners */
    Error *blocker;
    BalloonListenersFn *lacking;
    BalloonListenersFn *none;
};

static CoordinatedListener *balloon_listeners_nth(BalloonCoordinator *c,
                                                  guint i)
{
    return &g_array_index(c->listeners->all, CoordinatedListener, i);
}

/* The part of @section from @start to before @end; false if that is nothing */
static bool balloon_section_part(const MemoryRegionSection *section,
                                 uint64_t start, uint64_t end,
                                 MemoryRegionSection *part)
{
    uint64_t first = section->offset_within_region;

    start = MAX(start, first);
    end = MIN(end, first + int128_get64(section->size));
    *part = *section;
    part->offset_within_region = start;
    part->offset_within_address_space += start - first;
    part->size = int128_make64(end - start);
    return start < end;
}

/*
 * Find the next run of granules, from *@g on, that are discarded, or else
 * populated.  Returns: their number, and the first of them in *@g; 0 for none.
 */
static unsigned long balloon_region_next_run(const CoordinatedRegion *r,
                                             bool discarded, unsigned long *g)
{
    if (discarded) {
        *g = find_next_bit(r->discarded, r->n, *g);
        return find_next_zero_bit(r->discarded, r->n, *g) - *g;
    }
    *g = find_next_zero_bit(r->discarded, r->n, *g);
    return find_next_bit(r->discarded, r->n, *g) - *g;
}

/*
 * Call @fn for each part of @section that is discarded, or else populated,
 * until it fails; not for what begins at offset @stop of the region
 */
static int balloon_region_replay(const CoordinatedRegion *r, bool discarded,
                                 const MemoryRegionSection *section,
                                 uint64_t *stop, ReplayRamPopulate fn,
                                 void *opaque)
{
    unsigned long g = section->offset_within_region / r->granule;
    MemoryRegionSection part;
    unsigned long n;

    for (; (n = balloon_region_next_run(r, discarded, &g)); g += n) {
        uint64_t start = balloon_region_offset(r, g);
        uint64_t end = balloon_region_offset(r, g + n);
        int ret;

        if (!balloon_section_part(section, start, end, &part)) {
            break;
        }
        if (part.offset_within_region == *stop) {
            break;
        }
        ret = fn(&part, opaque);
        if (ret) {
            *stop = part.offset_within_region;
            return ret;
        }
    }
    return 0;
}

/* --- listeners ----------------------------------------------------------- */

static int balloon_listener_populate(MemoryRegionSection *part, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    return rdl->notify_populate(rdl, part);
}

static int balloon_listener_discard(MemoryRegionSection *part, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    rdl->notify_discard(rdl, part);
    return 0;
}

static int balloon_listener_add_size(MemoryRegionSection *part, void *opaque)
{
    uint64_t *size = opaque;

    *size += int128_get64(part->size);
    return 0;
}

/* Let a listener have what is populated of its section: all of it or nothing */
static void balloon_listener_fill(BalloonCoordinator *c, CoordinatedListener *l)
{
    MemoryRegionSection *section = l->rdl->section;
    CoordinatedRegion *r = balloon_region_find(c, section->mr);
    uint64_t stop = UINT64_MAX;
    int ret = balloon_region_replay(r, false, section, &stop,
                                    balloon_listener_populate, l->rdl);

    l->lacks = ret;
    if (ret) {
        c->error = ret;
        balloon_region_replay(r, false, section, &stop,
                              balloon_listener_discard, l->rdl);
    }
}

/* Tell the listeners before number @n that something is discarded */
static void balloon_listeners_tell_discard(BalloonCoordinator *c,
                                           MemoryRegion *mr, uint64_t start,
                                           uint64_t end, guint n)
{
    MemoryRegionSection part;

    for (guint i = 0; i < n; i++) {
        CoordinatedListener *l = balloon_listeners_nth(c, i);

        if (l->rdl->section->mr == mr && !l->lacks &&
            balloon_section_part(l->rdl->section, start, end, &part)) {
            l->rdl->notify_discard(l->rdl, &part);
        }
    }
}

/* --- what the coordinator does ------------------------------------------- */

bool balloon_listeners_any(BalloonCoordinator *c)
{
    return c->listeners->all->len;
}

uint64_t balloon_listeners_lack(BalloonCoordinator *c)
{
    uint64_t size = 0;

    for (guint i = 0; i < c->listeners->all->len; i++) {
        CoordinatedListener *l = balloon_listeners_nth(c, i);
        MemoryRegionSection *section = l->rdl->section;
        uint64_t stop = UINT64_MAX;

        if (l->lacks) {
            balloon_region_replay(balloon_region_find(c, section->mr), false,
                                  section, &stop, balloon_listener_add_size,
                                  &size);
        }
    }
    return size;
}

void balloon_listeners_retry(BalloonCoordinator *c)
{
    for (guint i = 0; i < c->listeners->all->len; i++) {
        CoordinatedListener *l = balloon_listeners_nth(c, i);

        if (l->lacks) {
            balloon_listener_fill(c, l);
        }
    }
}

void balloon_listeners_discard(BalloonCoordinator *c, CoordinatedRegion *r,
                               unsigned long g, unsigned long end)
{
    balloon_listeners_tell_discard(c, r->mr, balloon_region_offset(r, g),
                                   balloon_region_offset(r, end),
                                   c->listeners->all->len);
}

int balloon_listeners_populate(BalloonCoordinator *c, CoordinatedRegion *r,
                               unsigned long g)
{
    uint64_t start = balloon_region_offset(r, g);
    uint64_t end = balloon_region_offset(r, g + 1);
    MemoryRegionSection part;

    for (guint i = 0; i < c->listeners->all->len; i++) {
        CoordinatedListener *l = balloon_listeners_nth(c, i);

        if (l->rdl->section->mr == r->mr && !l->lacks &&
            balloon_section_part(l->rdl->section, start, end, &part)) {
            int ret = l->rdl->notify_populate(l->rdl, &part);

            if (ret) {
                balloon_listeners_tell_discard(c, r->mr, start, end, i);
                return ret;
            }
        }
    }
    return 0;
}

/* --- RamDiscardManager --------------------------------------------------- */

static uint64_t balloon_listeners_get_granularity(const RamDiscardManager *rdm,
                                                  const MemoryRegion *mr)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);

    return balloon_region_find(c, mr)->granule;
}

static bool balloon_listeners_is_populated(const RamDiscardManager *rdm,
                                           const MemoryRegionSection *section)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    CoordinatedRegion *r = balloon_region_find(c, section->mr);
    uint64_t start = section->offset_within_region;
    unsigned long end = DIV_ROUND_UP(start + int128_get64(section->size),
                                     r->granule);

    return find_next_bit(r->discarded, end, start / r->granule) >= end;
}

static int balloon_listeners_replay_populated(const RamDiscardManager *rdm,
                                              MemoryRegionSection *section,
                                              ReplayRamPopulate fn,
                                              void *opaque)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    uint64_t stop = UINT64_MAX;

    return balloon_region_replay(balloon_region_find(c, section->mr), false,
                                 section, &stop, fn, opaque);
}

typedef struct ReplayDiscard {
    ReplayRamDiscard fn;
    void *opaque;
} ReplayDiscard;

static int balloon_replay_discard(MemoryRegionSection *part, void *opaque)
{
    ReplayDiscard *replay = opaque;

    replay->fn(part, replay->opaque);
    return 0;
}

/*
 * Migration leaves out what is replayed here.  Postcopy would wait for such a
 * page for ever.  A background snapshot would miss what the guest writes to a
 * page that it takes back before the snapshot stops it.
 */
static void balloon_listeners_replay_discarded(const RamDiscardManager *rdm,
                                               MemoryRegionSection *section,
                                               ReplayRamDiscard fn,
                                               void *opaque)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    ReplayDiscard replay = { fn, opaque };
    uint64_t stop = UINT64_MAX;

    if (!migrate_postcopy_ram() && !migrate_background_snapshot()) {
        balloon_region_replay(balloon_region_find(c, section->mr), true,
                              section, &stop, balloon_replay_discard, &replay);
    }
}

/*
 * vfio_sync_dirty_bitmap() passes a RamDiscardManager the wrong type of pointer
 * for its callback, and crashes.  Not every device gets there, but only VFIO
 * knows which ones do.
 */
static void balloon_listeners_block_migration(BalloonCoordinator *c)
{
    Error *err = NULL;

    error_setg(&c->listeners->blocker, "A device is assigned whose writes"
               " cannot be followed while a balloon has"
               " coordinated-discards=on");
    if (migrate_add_blocker_internal(&c->listeners->blocker, &err) < 0) {
        error_reportf_err(err, "virtio-balloon: ");
    }
}

/* Before the machine is ready there is no guest yet that would be lost */
static void balloon_listeners_refuse(BalloonCoordinator *c,
                                     const CoordinatedRegion *r)
{
    error_report("virtio-balloon: memory '%s' cannot be mapped for assigned"
                 " devices, %lu pieces of %" PRIu64 " bytes: %s",
                 memory_region_name(r->mr), r->n, r->granule,
                 strerror(-c->error));
    if (c->error == -ENOSPC) {
        error_printf("There are too many pieces: give the balloon"
                     " discard-granule=%" PRIu64 " or more, or raise the"
                     " parameter dma_entry_limit of the host's module"
                     " vfio_iommu_type1.\n", 2 * r->granule);
    } else {
        error_printf("The limit of locked memory has to allow for all of"
                     " the guest's memory.\n");
    }
    exit(EXIT_FAILURE);
}

static void balloon_listeners_register(RamDiscardManager *rdm,
                                       RamDiscardListener *rdl,
                                       MemoryRegionSection *section)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    CoordinatedListener l = { .rdl = rdl };

    if (!c->listeners->all->len) {
        balloon_listeners_block_migration(c);
    }
    c->viommu = -1;
    rdl->section = memory_region_section_new_copy(section);
    balloon_listener_fill(c, &l);
    g_array_append_val(c->listeners->all, l);
    if (l.lacks && !phase_check(PHASE_MACHINE_READY)) {
        balloon_listeners_refuse(c, balloon_region_find(c, section->mr));
    }
    if (l.lacks) {
        c->listeners->lacking(c);
    }
}

static void balloon_listeners_unregister(RamDiscardManager *rdm,
                                         RamDiscardListener *rdl)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    uint64_t stop = UINT64_MAX;

    for (guint i = 0; i < c->listeners->all->len; i++) {
        CoordinatedListener l = *balloon_listeners_nth(c, i);

        if (l.rdl == rdl) {
            g_array_remove_index_fast(c->listeners->all, i);
            if (!l.lacks) {
                balloon_region_replay(balloon_region_find(c, rdl->section->mr),
                                      false, rdl->section, &stop,
                                      balloon_listener_discard, rdl);
            }
            break;
        }
    }
    g_clear_pointer(&rdl->section, memory_region_section_free_copy);
    if (!c->listeners->all->len) {
        c->listeners->none(c);
        migrate_del_blocker(&c->listeners->blocker);
    }
}

/* --- as a type ----------------------------------------------------------- */

InterfaceInfo balloon_listeners_interfaces[] = {
    { TYPE_RAM_DISCARD_MANAGER },
    { }
};

void balloon_listeners_class_init(ObjectClass *klass)
{
    RamDiscardManagerClass *rdmc = RAM_DISCARD_MANAGER_CLASS(klass);

    rdmc->get_min_granularity = balloon_listeners_get_granularity;
    rdmc->is_populated = balloon_listeners_is_populated;
    rdmc->replay_populated = balloon_listeners_replay_populated;
    rdmc->replay_discarded = balloon_listeners_replay_discarded;
    rdmc->register_listener = balloon_listeners_register;
    rdmc->unregister_listener = balloon_listeners_unregister;
}

void balloon_listeners_init(BalloonCoordinator *c, BalloonListenersFn *lacking,
                            BalloonListenersFn *none)
{
    c->listeners = g_new0(BalloonListeners, 1);
    c->listeners->lacking = lacking;
    c->listeners->none = none;
    c->listeners->all = g_array_new(false, true, sizeof(CoordinatedListener));
}

void balloon_listeners_finalize(BalloonCoordinator *c)
{
    g_array_unref(c->listeners->all);
    g_free(c->listeners);
}

bool balloon_listeners_possible(Error **errp)
{
    return true;
}

void balloon_listeners_attach(BalloonCoordinator *c, CoordinatedRegion *r)
{
    memory_region_set_ram_discard_manager(r->mr, RAM_DISCARD_MANAGER(c));
}
