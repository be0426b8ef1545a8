/*
 * Who pins main memory, and what they are told; for the coordinator alone
 *
 * The coordinator knows what of its regions is discarded.  Here is how those
 * who listen learn it, and how they are asked whether they can have memory.
 *
 * The caller holds the BQL.  As a RamDiscardManager it is asked without, too,
 * by the threads of a background snapshot and of postcopy: what they are told
 * may be a moment old.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_LISTENERS_H
#define HW_VIRTIO_BALLOON_LISTENERS_H

#include "exec/memory.h"
#include "virtio-balloon-coordinator.h"

/* One region of RAM; it stays for as long as the machine */
typedef struct CoordinatedRegion {
    MemoryRegion *mr;
    uint64_t size;
    uint64_t granule;
    unsigned long n;
    /* granules that the listeners know to be discarded */
    unsigned long *discarded;
    /* those of them that are the guest's, and are still to be populated */
    unsigned long *wanted;
} CoordinatedRegion;

/* What is known of those who listen, and who wants to know that */
typedef struct BalloonListeners BalloonListeners;

struct BalloonCoordinator {
    Object parent;

    uint64_t granule;
    /* of CoordinatedRegion */
    GArray *regions;
    BalloonListeners *listeners;
    /* tells that memory changed: is there an IOMMU for the guest?  -1: ask */
    MemoryListener memory;
    int viommu;

    /* bytes that the guest wants, and why the last of them did not come */
    uint64_t wanted;
    int error;
    bool warned;
    /* how long the last attempt took, in milliseconds */
    int64_t work_ms;
    /* populates it while the machine is stopped: follows the host's clock */
    QEMUTimer *timer;
    /*
     * the coordinator stopped the machine, and starts it when all is populated
     */
    bool holding;
    /* told of each attempt meanwhile */
    NotifierList notifiers;
};

/* NULL for memory that is not coordinated */
static inline CoordinatedRegion *
balloon_region_find(const BalloonCoordinator *c, const MemoryRegion *mr)
{
    for (guint i = 0; i < c->regions->len; i++) {
        CoordinatedRegion *r = &g_array_index(c->regions, CoordinatedRegion, i);

        if (r->mr == mr) {
            return r;
        }
    }
    return NULL;
}

/* Where granule @g begins; the end of the region for the one past the last */
static inline uint64_t balloon_region_offset(const CoordinatedRegion *r,
                                             unsigned long g)
{
    return MIN(g * r->granule, r->size);
}

/* The interfaces that a type needs to be a RamDiscardManager */
extern InterfaceInfo balloon_listeners_interfaces[];
void balloon_listeners_class_init(ObjectClass *klass);

typedef void BalloonListenersFn(BalloonCoordinator *c);

/*
 * @lacking: a listener came whose section cannot be populated, so nothing may
 * use it yet.  @none: the last listener has gone.
 */
void balloon_listeners_init(BalloonCoordinator *c, BalloonListenersFn *lacking,
                            BalloonListenersFn *none);
void balloon_listeners_finalize(BalloonCoordinator *c);

/* Can this QEMU tell listeners of discards?  False: @errp is set */
bool balloon_listeners_possible(Error **errp);

/* Listeners of the region's memory, which is not mapped, listen to @c */
void balloon_listeners_attach(BalloonCoordinator *c, CoordinatedRegion *r);

/* Are there listeners? */
bool balloon_listeners_any(BalloonCoordinator *c);

/* What is still to be populated for listeners that came, in bytes */
uint64_t balloon_listeners_lack(BalloonCoordinator *c);

/* Populate that; a failure is in the coordinator's @error */
void balloon_listeners_retry(BalloonCoordinator *c);

/* Granules @g to before @end are discarded */
void balloon_listeners_discard(BalloonCoordinator *c, CoordinatedRegion *r,
                               unsigned long g, unsigned long end);

/*
 * Populate granule @g, which stays marked as discarded, for all listeners, or
 * for none.  Returns: 0, or a negative errno.
 */
int balloon_listeners_populate(BalloonCoordinator *c, CoordinatedRegion *r,
                               unsigned long g);

#endif /* HW_VIRTIO_BALLOON_LISTENERS_H */
