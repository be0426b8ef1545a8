/*
 * Discards of main memory that everybody who pins it is told of
 *
 * A device that is assigned to the guest has all of its memory pinned, so what
 * a balloon gives back to the host would stay.  Where the driver of the balloon
 * must tell before it uses a page again, QEMU can have it otherwise: whoever
 * pins memory listens to a RamDiscardManager, lets go of what is discarded and
 * pins it again before the guest hears that it may use it.
 *
 * The manager is the machine's and outlives the balloon, as the manager of
 * memory may not change while that is mapped.  It knows "granules", the unit of
 * what is told; the last one of a region may be smaller.
 *
 * The caller holds the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_COORDINATOR_H
#define HW_VIRTIO_BALLOON_COORDINATOR_H

#include "exec/address-spaces.h"
#include "qemu/notify.h"
#include "qom/object.h"
#include "virtio-balloon-ranges.h"

#define TYPE_VIRTIO_BALLOON_COORDINATOR "virtio-balloon-coordinator"
OBJECT_DECLARE_SIMPLE_TYPE(BalloonCoordinator, VIRTIO_BALLOON_COORDINATOR)

/**
 * balloon_coordinator_get: the machine's coordinator
 * @granule: what to tell of at a time, in bytes: no less than the pages of the
 *           target and the host, and a power of two; larger pages of a region
 *           win
 * @create: the machine is not ready: let it have one, if it has none
 *
 * Returns: the coordinator, which belongs to the machine; or NULL with @errp
 * set, and everything as it was.
 */
BalloonCoordinator *balloon_coordinator_get(uint64_t granule, bool create,
                                            Error **errp);

/* The granule of @rb in bytes, 0 if it is not coordinated */
uint64_t balloon_coordinator_granule(BalloonCoordinator *c, RAMBlock *rb);

/*
 * Does everybody who forbids discards, if anybody does, listen to those of the
 * coordinated memory?
 */
bool balloon_coordinator_reaches_all(BalloonCoordinator *c);

/* @range, whole granules, has been discarded: tell the listeners */
void balloon_coordinator_discard(BalloonCoordinator *c, RAMBlock *rb,
                                 const BalloonRange *range);

/**
 * balloon_coordinator_populate: the guest wants to use memory
 * @c: the coordinator
 * @rb: a RAMBlock, coordinated or not
 * @range: offsets into @rb; it is the guest's when this has succeeded
 *
 * Goes granule by granule, and keeps what has succeeded before a failure.
 *
 * Returns: 0, or a negative errno.
 */
int balloon_coordinator_populate(BalloonCoordinator *c, RAMBlock *rb,
                                 const BalloonRange *range);

/*
 * All of @rb becomes the guest's at once, without its asking.  What cannot be
 * populated within a moment is populated while the machine is stopped.
 */
void balloon_coordinator_release(BalloonCoordinator *c, RAMBlock *rb);

/**
 * balloon_coordinator_missing: does the machine stand for memory?
 * @c: the coordinator
 * @error: set to what the host says, 0 if it is only slow; a negative errno
 *
 * Returns: how many bytes the guest does not have back yet, or a device that
 * came does not have; 0: the machine may run.
 */
uint64_t balloon_coordinator_missing(BalloonCoordinator *c, int *error);

/* Have @notifier told when that may have changed */
void balloon_coordinator_add_notifier(BalloonCoordinator *c,
                                      Notifier *notifier);

#endif /* HW_VIRTIO_BALLOON_COORDINATOR_H */
