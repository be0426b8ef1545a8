/*
 * What the parts of the virtio balloon offer each other
 *
 * The caller holds the BQL, unless a comment says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_INTERNAL_H
#define HW_VIRTIO_BALLOON_INTERNAL_H

#include "qapi/error.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-balloon.h"
#include "virtio-balloon-map.h"
#include "virtio-balloon-ranges.h"

/*
 * The most that one system call is asked to discard, in bytes, where host
 * pages are smaller: some 300 microseconds' work.
 */
#define BALLOON_DISCARD_STEP (4 * MiB)

/* What waits for its neighbours, where there are no larger pages */
#define BALLOON_UNIT_SIZE (2 * MiB)

/* --- virtio-balloon-driver.c -------------------------------------------- */

/* Does a driver run the device, with @status, or did it break it? */
bool virtio_balloon_driver_runs(VirtIOBalloon *s, uint8_t status);

/* Has it not negotiated VIRTIO_F_VERSION_1? */
bool virtio_balloon_driver_is_legacy(VirtIOBalloon *s);

/* Must it tell before it uses a page again?  Those in the balloon are known */
bool virtio_balloon_driver_tells(VirtIOBalloon *s);

/*
 * May it do anything for its driver?  Not while the VM is stopped or bus
 * mastering is off, and not before DRIVER_OK (section 2.1.2); what is in the
 * rings by then is served when that is over.  Legacy drivers may count on an
 * answer before (section 3.1.2).  A device that found a fault in a ring waits
 * for its reset: no timer may be armed for it.
 */
bool virtio_balloon_is_live(VirtIOBalloon *s);

/*
 * May rings be looked at as well: are all of them in RAM?  A buffer need not be
 * in RAM, and a fault in an IOMMU of the guest's raises an interrupt, which may
 * be written anywhere: so each of the following calls may change any device,
 * and reset or unplug this one.  The caller keeps nothing of its state in local
 * variables.
 */
bool virtio_balloon_may_serve(VirtIOBalloon *s);
bool virtio_balloon_has_request(VirtIOBalloon *s, VirtQueue *vq);

/* The next request, or NULL: there is none, or the device is not live now */
VirtQueueElement *virtio_balloon_pop(VirtIOBalloon *s, VirtQueue *vq);

/*
 * Put it back, and free it: it was the last one that was not put back.  No
 * request is simply forgotten: in a ring that is used in order that would be in
 * the way of all later ones.
 */
void virtio_balloon_unpop(VirtQueue *vq, VirtQueueElement *elem);

/*
 * For a kick that is not served: a ring that is not in RAM, or has become
 * smaller than the core's indices into it, breaks the device.  That raises an
 * interrupt, which may unplug it.
 */
void virtio_balloon_driver_check(VirtIOBalloon *s);

/*
 * Return @elem, which is the callee's now, to the driver, which is told when
 * virtio_balloon_leave() is called; none that was popped before is still to be
 * returned.  If there is no driver any more it is put back, and if the ring is
 * bad that breaks the device.
 */
void virtio_balloon_push(VirtIOBalloon *s, VirtQueue *vq,
                         VirtQueueElement *elem);

/*
 * Kicks, timers, workers and commands serve queues between these two.  In
 * between the device's registers cannot be accessed.  The second, with @within
 * as the first returned it, notifies the driver of what it got back.  Where an
 * interrupt is written to is up to the driver: it may reset, renegotiate or
 * unplug the device, so this is the last thing that a handler does.
 */
bool virtio_balloon_enter(VirtIOBalloon *s);
void virtio_balloon_leave(VirtIOBalloon *s, bool within);

/* --- virtio-balloon-config.c -------------------------------------------- */

/* The memory that the balloon can take from, in bytes */
uint64_t virtio_balloon_ram_size(void);

/* The memory left to the guest, in bytes: a driver's claim has its bounds */
uint64_t virtio_balloon_guest_size(VirtIOBalloon *s);

/* The memory meant to be left to the guest, in bytes */
uint64_t virtio_balloon_target(VirtIOBalloon *s);

/* So many balloon pages are given up; tells of it */
void virtio_balloon_set_actual(VirtIOBalloon *s, uint32_t actual);

/* How long the config space is, in bytes, for what is offered */
size_t virtio_balloon_config_size(VirtIOBalloon *s);

/* Of a VirtioDeviceClass */
void virtio_balloon_get_config(VirtIODevice *vdev, uint8_t *data);
void virtio_balloon_set_config(VirtIODevice *vdev, const uint8_t *data);

/*
 * Make the core's copy of a VirtIOBalloon's config current, and ready for the
 * next write
 */
void virtio_balloon_config_rearm(void *s);

/* The core's copy was loaded */
void virtio_balloon_config_post_load(VirtIOBalloon *s);

/* --- virtio-balloon-roles.c --------------------------------------------- */

/* Add the virtqueues of what is offered; no driver has numbered them yet */
void virtio_balloon_roles_init(VirtIOBalloon *s);

/*
 * Called with the device's last reference: the core may still look at the
 * queues of a device that has been unplugged
 */
void virtio_balloon_roles_cleanup(VirtIOBalloon *s);

/*
 * Make each queue anew whose ring got an impossible size from a load: the core
 * relies on sizes.  Returns: true if there was one.  A queue that the source
 * did not have does not count.
 */
bool virtio_balloon_roles_mend(VirtIOBalloon *s);

/* How many virtqueues there are, for what is offered */
unsigned virtio_balloon_roles_count(VirtIOBalloon *s);

/*
 * Give the virtqueues their roles, by what the driver negotiated and set up.
 * If one gets another role, which takes a driver that sets up rings while it
 * runs, what is held of it is put back.
 */
void virtio_balloon_roles_bind(VirtIOBalloon *s);

/* The same, and serve what is in the rings, from the main loop: the VM runs */
void virtio_balloon_roles_start(VirtIOBalloon *s);

/* The ring of @vq goes away */
void virtio_balloon_roles_queue_reset(VirtIOBalloon *s, VirtQueue *vq);

/* --- virtio-balloon-discard.c ------------------------------------------- */

void virtio_balloon_discard_init(VirtIOBalloon *s);
void virtio_balloon_discard_cleanup(VirtIOBalloon *s);

/* What in QEMU forbids discards now; BALLOON_INHIBITOR__MAX for nothing */
BalloonInhibitor virtio_balloon_discard_inhibitor(VirtIOBalloon *s);

/*
 * May guest memory be discarded now?  The machine runs, a driver runs the
 * device, nothing inhibits, and QEMU does not end.  Whoever discards asks this
 * in each slice.  The second is for pages in the balloon: those who pin them
 * do not inhibit if the coordinator tells them of each discard.
 */
bool virtio_balloon_may_discard(VirtIOBalloon *s);
bool virtio_balloon_may_discard_pages(VirtIOBalloon *s);

/* Count @size bytes that were left alone because of @cause */
void virtio_balloon_discard_skip(VirtIOBalloon *s, BalloonSkip cause,
                                 uint64_t size);

/*
 * Is @mr the machine's memory or a DIMM's or virtio-mem's?  All other memory is
 * not the balloon's to give back.
 */
bool virtio_balloon_is_guest_ram(VirtIOBalloon *s, MemoryRegion *mr);

/* Deal with offsets into @rb: @range, which may be changed */
typedef void BalloonBlockFn(VirtIOBalloon *s, RAMBlock *rb,
                            BalloonRange *range);

/**
 * virtio_balloon_for_each_block: find guest-physical memory
 * @s: the balloon
 * @range: guest-physical addresses
 * @fn: called for each part of @range that is the guest's RAM, in order
 * @taken: memory is taken from the guest: what is between the parts is counted
 *         as skipped, and so is RAM that is read-only just now
 *
 * virtio_balloon_discard_flush() must be called before the BQL is let go.
 */
void virtio_balloon_for_each_block(VirtIOBalloon *s, const BalloonRange *range,
                                   BalloonBlockFn *fn, bool taken);

/*
 * A BalloonBlockFn: give the whole host pages of @range back to the host, in
 * one go.  What the backing or the host cannot take is left alone and counted.
 * The work may be gathered: it is done when virtio_balloon_discard_flush()
 * returns, which must be called before the BQL is let go and before the guest
 * is answered.
 */
void virtio_balloon_discard_block(VirtIOBalloon *s, RAMBlock *rb,
                                  BalloonRange *range);

/**
 * virtio_balloon_discard_host_range: the whole host pages of a buffer
 * @s: the balloon
 * @iov: a buffer of the guest, mapped by the virtio core
 * @range: filled in with host addresses; they stay valid as long as the mapping
 *
 * Returns: true, or false when the buffer is not in the guest's RAM or covers
 * no host page.  What is left out is counted.
 */
bool virtio_balloon_discard_host_range(VirtIOBalloon *s,
                                       const struct iovec *iov,
                                       BalloonRange *range);

/**
 * virtio_balloon_discard_host: give some of a range of host addresses back
 * @s: the balloon
 * @range: from virtio_balloon_discard_host_range(), or what is left of it
 * @zero: leave the memory alone unless it reads as zero afterwards
 *
 * Gathers the work, see virtio_balloon_discard_block().
 *
 * Returns: how many bytes, from the start of @range, are dealt with.
 */
uint64_t virtio_balloon_discard_host(VirtIOBalloon *s,
                                     const BalloonRange *range, bool zero);

/* Carry out the discards that were gathered */
void virtio_balloon_discard_flush(VirtIOBalloon *s);

/* --- virtio-balloon-pages.c --------------------------------------------- */

/* Memory with pages in the balloon: see VirtIOBalloonPages.blocks */
typedef struct BalloonBlock {
    RAMBlock *rb;
    BalloonMap *map;
    /* the least that is discarded at a time, in bytes, where that is told */
    uint64_t granule;
} BalloonBlock;

/* With nothing in the balloon yet */
BalloonBlock *balloon_block_new(VirtIOBalloon *s, RAMBlock *rb);
void balloon_block_free(gpointer block);

/* Which of @blocks is of @rb; NULL: none */
BalloonBlock *balloon_block_find(GPtrArray *blocks, RAMBlock *rb);

static inline BalloonBlock *balloon_block(VirtIOBalloon *s, unsigned i)
{
    return g_ptr_array_index(s->pages.blocks, i);
}

/*
 * Have the coordinator, if the properties ask for it.  Returns false, with
 * @errp set, when they ask for what cannot be.
 */
bool virtio_balloon_pages_prepare(VirtIOBalloon *s, Error **errp);

/* Only where it is offered that drivers tell */
void virtio_balloon_pages_init(VirtIOBalloon *s);
void virtio_balloon_pages_cleanup(VirtIOBalloon *s);

/* A BalloonBlockFn: the request in progress lists these pages */
void virtio_balloon_pages_stage(VirtIOBalloon *s, RAMBlock *rb,
                                BalloonRange *range);

/*
 * The request in progress is about to be answered: its pages are in the
 * balloon from now on, and discarded some time later.
 */
void virtio_balloon_pages_commit(VirtIOBalloon *s);

/* The request in progress will not be answered: its pages are the guest's */
void virtio_balloon_pages_unstage(VirtIOBalloon *s);

/*
 * How many bytes a deflate may take back at a time: they may have to be
 * populated
 */
uint64_t virtio_balloon_pages_step(VirtIOBalloon *s);

/*
 * A BalloonBlockFn: the driver takes pages back.  They are not discarded any
 * more, and migrated again, when this returns; unless their memory cannot be
 * had: then the deflate is held, and nothing has changed.
 */
void virtio_balloon_pages_remove(VirtIOBalloon *s, RAMBlock *rb,
                                 BalloonRange *range);

/* Nothing is in the balloon: who drives the device next knows of no pages */
void virtio_balloon_pages_reset(VirtIOBalloon *s);

/*
 * What the guest wants back and cannot have yet, or NULL; the caller frees it
 */
BalloonHeld *virtio_balloon_pages_held(VirtIOBalloon *s);

/*
 * Tell how much is held, if that has changed: call it when a queue was served,
 * or the coordinator has tried to populate memory
 */
void virtio_balloon_pages_tell_held(VirtIOBalloon *s);

/* Bytes given up, staged or in the balloon, that the host has not got back */
uint64_t virtio_balloon_pages_waiting(VirtIOBalloon *s);

/*
 * What is in the balloon was loaded: the BalloonBlocks of @loaded, which is the
 * callee's now
 */
void virtio_balloon_pages_replace(VirtIOBalloon *s, GPtrArray *loaded);

/* --- virtio-balloon-reclaim.c ------------------------------------------- */

void virtio_balloon_reclaim_init(VirtIOBalloon *s);
void virtio_balloon_reclaim_cleanup(VirtIOBalloon *s);

/* Pages are about to come into the balloon: see to them some time later */
void virtio_balloon_reclaim_soon(VirtIOBalloon *s);

/* All that is in the balloon was loaded */
void virtio_balloon_reclaim_loaded(VirtIOBalloon *s);

/* One of the blocks is no longer there */
void virtio_balloon_reclaim_block_gone(VirtIOBalloon *s);

/* Give back once more what the host has in memory again, whatever read it */
void virtio_balloon_reclaim_look_again(VirtIOBalloon *s);

/* Bytes in the balloon that the host has not got back yet */
uint64_t virtio_balloon_reclaim_waiting(VirtIOBalloon *s);

/* The machine runs: go on with what waits */
void virtio_balloon_reclaim_start(VirtIOBalloon *s);

/* The machine stops: do not wake up for nothing */
void virtio_balloon_reclaim_stop(VirtIOBalloon *s);

/* --- virtio-balloon-migration.c ----------------------------------------- */

/* Where virtio_balloon_pages_init() was called */
void virtio_balloon_migration_init(VirtIOBalloon *s);
void virtio_balloon_migration_cleanup(VirtIOBalloon *s);

/* The pages in the balloon, a subsection of a VirtIOBalloon */
extern const VMStateDescription vmstate_virtio_balloon_pages;

/* --- virtio-balloon-queue.c --------------------------------------------- */

/* What distinguishes the queues */
struct VirtIOBalloonQueueOps {
    /*
     * Turn the next part of @q->elem into @q->ranges, at most
     * VIRTQUEUE_MAX_SIZE of them; false when nothing is left.
     */
    bool (*fill)(VirtIOBalloonQueue *q);
    /*
     * Deal with (the start of) @range; true when nothing is left of it.  False
     * with @q->held set: it is tried again later.
     */
    bool (*take)(VirtIOBalloonQueue *q, BalloonRange *range);
};

/* Lists of pages to take from the guest (section 5.5.6.1) */
extern const VirtIOBalloonQueueOps virtio_balloon_inflate_ops;
/* Lists of pages that the guest uses again */
extern const VirtIOBalloonQueueOps virtio_balloon_deflate_ops;
/* Free page reports (section 5.5.6.7) */
extern const VirtIOBalloonQueueOps virtio_balloon_report_ops;

/* A queue of requests that has no virtqueue yet */
void virtio_balloon_queue_init(VirtIOBalloon *s, VirtIOBalloonQueue *q,
                               const VirtIOBalloonQueueOps *ops);

/* Its virtqueue is @vq from now on, or none when that is NULL */
void virtio_balloon_queue_bind(VirtIOBalloonQueue *q, VirtQueue *vq);

/* The driver put something into the ring */
void virtio_balloon_queue_kick(VirtIOBalloonQueue *q);

/* Undo virtio_balloon_queue_init(); does nothing if that was not called */
void virtio_balloon_queue_cleanup(VirtIOBalloonQueue *q);

/* Serve what is in the ring, from the main loop: the VM runs */
void virtio_balloon_queue_start(VirtIOBalloonQueue *q);

/*
 * Put the request in progress back into the ring, to be served from its
 * beginning: the VM stops, or the driver pauses.
 */
void virtio_balloon_queue_put_back(VirtIOBalloonQueue *q);

/* Add to @to what has come of the request in progress */
void virtio_balloon_queue_add_counts(const VirtIOBalloonQueue *q,
                                     BalloonCounts *to);

/* The same when the ring goes away: it will not be served again */
void virtio_balloon_queue_reset(VirtIOBalloonQueue *q);

/* --- virtio-balloon-state.c --------------------------------------------- */

void virtio_balloon_state_init(VirtIOBalloon *s);
void virtio_balloon_state_cleanup(VirtIOBalloon *s);

/* The guest did something with the balloon, or was asked to */
void virtio_balloon_state_moved(VirtIOBalloon *s);

/*
 * A queue was served: the driver may have broken it, and @held, which is the
 * callee's now, is what the guest wants back and cannot have yet, or NULL
 */
void virtio_balloon_state_served(VirtIOBalloon *s, BalloonHeld *held);

/* Look for changes that have no notifier */
void virtio_balloon_state_look(VirtIOBalloon *s);

/* The guest moved, and the virtual clock is another one */
void virtio_balloon_state_post_load(VirtIOBalloon *s);

/* The driver comes or goes: @status is about to be the device's */
void virtio_balloon_state_set_status(VirtIOBalloon *s, uint8_t status);

/* --- virtio-balloon-stats.c --------------------------------------------- */

/* Add the properties guest-stats and guest-stats-polling-interval */
void virtio_balloon_stats_add_properties(Object *obj);
void virtio_balloon_stats_init(VirtIOBalloon *s);
void virtio_balloon_stats_cleanup(VirtIOBalloon *s);

/* The virtqueue is @vq from now on, or none when that is NULL */
void virtio_balloon_stats_bind(VirtIOBalloon *s, VirtQueue *vq);

/* The driver put something into the ring */
void virtio_balloon_stats_kick(VirtIOBalloon *s);

/*
 * Serve what is in the ring: the VM runs.  A buffer that was held when the VM
 * was saved is held again.
 */
void virtio_balloon_stats_start(VirtIOBalloon *s);

/* A load has changed the virtual clock: poll an interval from now on */
void virtio_balloon_stats_post_load(VirtIOBalloon *s);

/* Leave the ring alone: the VM stops */
void virtio_balloon_stats_stop(VirtIOBalloon *s);

/*
 * Have the driver give news, and do not wait for them.  Returns: false, with
 * @errp set, if there can be none.
 */
bool virtio_balloon_stats_request(void *opaque, Error **errp);

/* The latest news; the caller frees them */
BalloonStatsInfo *virtio_balloon_stats_get_info(void *opaque);

/* Put the driver's buffer back, keep the values: it goes, or the ring does */
void virtio_balloon_stats_reset(VirtIOBalloon *s);

/* Forget the values: another guest will run */
void virtio_balloon_stats_clear(VirtIOBalloon *s);

/* --- virtio-balloon-hint-queue.c ---------------------------------------- */

/* Returns false, with @errp set, when hinting is on and lacks its IOThread */
bool virtio_balloon_hinting_check(VirtIOBalloon *s, Error **errp);
void virtio_balloon_hinting_init(VirtIOBalloon *s);
void virtio_balloon_hinting_cleanup(VirtIOBalloon *s);

/* The virtqueue is @vq from now on, or none when that is NULL */
void virtio_balloon_hinting_bind(VirtIOBalloon *s, VirtQueue *vq);

/* The driver put something into the ring */
void virtio_balloon_hinting_kick(VirtIOBalloon *s);

/* Serve what is in the ring: the VM runs */
void virtio_balloon_hinting_start(VirtIOBalloon *s);

/* Put every buffer back, without waiting: the VM stops */
void virtio_balloon_hinting_stop(VirtIOBalloon *s);

/* The same, and end what migration asked for: the driver or the ring goes */
void virtio_balloon_hinting_reset(VirtIOBalloon *s);

/* Fill in what is migrated, and make sense of what was */
void virtio_balloon_hinting_pre_save(VirtIOBalloon *s);
void virtio_balloon_hinting_post_load(VirtIOBalloon *s);

#endif /* HW_VIRTIO_BALLOON_INTERNAL_H */
