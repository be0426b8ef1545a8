/*
 * Who pins main memory, and what they are told: a RamDiscardSource
 *
 * The memory's RamDiscardManager keeps the listeners, and asks here what is
 * populated.  It does not say that one came, went, or could not have its memory
 * when it came; that last it reports itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qapi/error.h"
#include "migration/misc.h"
#include "virtio-balloon-listeners.h"

struct BalloonListeners {
    BalloonCoordinator *coordinator;
    /* asks before a migration begins */
    NotifierWithReturn migration;
};

/* --- what the coordinator does ------------------------------------------- */

bool balloon_listeners_any(BalloonCoordinator *c)
{
    for (guint i = 0; i < c->regions->len; i++) {
        MemoryRegion *mr = g_array_index(c->regions, CoordinatedRegion, i).mr;
        RamDiscardManager *rdm = memory_region_get_ram_discard_manager(mr);

        if (!QLIST_EMPTY(&rdm->rdl_list)) {
            return true;
        }
    }
    return false;
}

uint64_t balloon_listeners_lack(BalloonCoordinator *c)
{
    return 0;
}

void balloon_listeners_retry(BalloonCoordinator *c)
{
}

void balloon_listeners_discard(BalloonCoordinator *c, CoordinatedRegion *r,
                               unsigned long g, unsigned long end)
{
    uint64_t start = balloon_region_offset(r, g);

    ram_discard_manager_notify_discard(
        memory_region_get_ram_discard_manager(r->mr), RAM_DISCARD_SOURCE(c),
        start, balloon_region_offset(r, end) - start);
}

int balloon_listeners_populate(BalloonCoordinator *c, CoordinatedRegion *r,
                               unsigned long g)
{
    uint64_t start = balloon_region_offset(r, g);

    return ram_discard_manager_notify_populate(
        memory_region_get_ram_discard_manager(r->mr), RAM_DISCARD_SOURCE(c),
        start, balloon_region_offset(r, g + 1) - start);
}

/* --- RamDiscardSource ---------------------------------------------------- */

static uint64_t listeners_get_min_granularity(const RamDiscardSource *rds,
                                              const MemoryRegion *mr)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rds);

    return balloon_region_find(c, mr)->granule;
}

/*
 * Migration leaves out what is discarded.  Postcopy would wait for that; and of
 * what the guest has back, and writes to, before a background snapshot stops
 * it, nobody would take note: all is there meanwhile.  No listener comes then.
 */
static bool listeners_is_populated(const RamDiscardSource *rds,
                                   const MemoryRegionSection *section)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rds);
    CoordinatedRegion *r = balloon_region_find(c, section->mr);
    uint64_t start = section->offset_within_region;
    unsigned long end = DIV_ROUND_UP(start + int128_get64(section->size),
                                     r->granule);

    /* It may be a listener that comes who asks */
    c->viommu = -1;
    end = MIN(end, r->n);
    return ((migrate_postcopy_ram() || migrate_background_snapshot()) &&
            migration_is_running()) ||
           find_next_bit(r->discarded, end, start / r->granule) >= end;
}

/*
 * vfio_sync_dirty_bitmap() has a manager call it with a pointer of the wrong
 * type, and crashes.  Not for each device, but which ones is VFIO's to know.
 */
static int listeners_migration(NotifierWithReturn *notifier, MigrationEvent *e,
                               Error **errp)
{
    BalloonListeners *l = container_of(notifier, BalloonListeners, migration);

    if (e->type == MIG_EVENT_SETUP && balloon_listeners_any(l->coordinator)) {
        error_setg(errp, "A device is assigned whose writes cannot be followed"
                   " while a balloon has coordinated-discards=on");
        return -EBUSY;
    }
    return 0;
}

/* --- as a type ----------------------------------------------------------- */

InterfaceInfo balloon_listeners_interfaces[] = {
    { TYPE_RAM_DISCARD_SOURCE },
    { }
};

void balloon_listeners_class_init(ObjectClass *klass)
{
    RamDiscardSourceClass *rdsc = RAM_DISCARD_SOURCE_CLASS(klass);

    rdsc->get_min_granularity = listeners_get_min_granularity;
    rdsc->is_populated = listeners_is_populated;
}

/* Who lacks memory when it comes is not told to us */
void balloon_listeners_init(BalloonCoordinator *c, BalloonLackFn *lacking)
{
    c->listeners = g_new0(BalloonListeners, 1);
    c->listeners->coordinator = c;
    migration_add_notifier(&c->listeners->migration, listeners_migration);
}

void balloon_listeners_finalize(BalloonCoordinator *c)
{
    migration_remove_notifier(&c->listeners->migration);
    g_free(c->listeners);
}

/*
 * When a listener comes, QEMU 11.1 asks in steps of a granule from where its
 * memory begins, which need not be where a granule does.  A step that has a
 * part of what is discarded is not populated for it, so that it would lack
 * memory that the guest uses.
 */
bool balloon_listeners_possible(Error **errp)
{
    error_setg(errp, "coordinated-discards: this QEMU does not let a device"
               " have all of the memory beside what is discarded");
    return false;
}

void balloon_listeners_attach(BalloonCoordinator *c, CoordinatedRegion *r)
{
    /* There are no listeners yet who could say no */
    memory_region_add_ram_discard_source(r->mr, RAM_DISCARD_SOURCE(c));
}
