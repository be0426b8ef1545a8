/*
 * The pages of one RAMBlock that are in the balloon, and which of them the
 * host has not got back yet
 *
 * With VIRTIO_BALLOON_F_MUST_TELL_HOST a page of the balloon stays the
 * device's until the driver has its deflate request back (section 5.5.6), so
 * its discard may wait for its neighbours: a huge page can only go as a whole.
 *
 * Pure functions: no lock, no access to guest memory.  Ranges are of bytes,
 * offsets into the block, and begin and end with balloon pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_MAP_H
#define HW_VIRTIO_BALLOON_MAP_H

#include "virtio-balloon-ranges.h"

typedef struct BalloonMap BalloonMap;

/**
 * balloon_map_new: a map with no page in the balloon
 * @size: of the block, in bytes
 * @page_size: the least that the host can take back, in bytes
 * @unit_size: what it had better take back at a time, in bytes
 *
 * @page_size and @unit_size are powers of two and no less than a balloon page;
 * @unit_size is no less than @page_size, which divides @size.
 */
BalloonMap *balloon_map_new(uint64_t size, uint64_t page_size,
                            uint64_t unit_size);
void balloon_map_free(BalloonMap *map);

/*
 * The driver gives up @range: it waits for its discard.  Returns: how many
 * bytes of it were not in the balloon yet.
 */
uint64_t balloon_map_insert(BalloonMap *map, const BalloonRange *range);

/**
 * balloon_map_remove: the driver takes pages back
 * @map: the map
 * @range: it is not to be discarded any more
 * @again: set to how many bytes wait again: what stays in the balloon of host
 *         pages which come back because a part of them is used
 *
 * Returns: how many bytes of @range waited.
 */
uint64_t balloon_map_remove(BalloonMap *map, const BalloonRange *range,
                            uint64_t *again);

/**
 * balloon_map_take: what to discard next
 * @map: the map
 * @partial: take host pages out of units that are not complete, as well
 * @range: filled in; whole host pages of one unit, all of them in the balloon
 *
 * What is taken does not wait any more.  Without @partial, each call goes on
 * after what earlier ones saw, unless pages were inserted before that.
 *
 * Returns: false when there is nothing, and, without @partial, what waits has
 * been seen.
 */
bool balloon_map_take(BalloonMap *map, bool partial, BalloonRange *range);

/* May balloon_map_take() with @partial have something? */
bool balloon_map_is_pending(const BalloonMap *map);

/* How much of the balloon waits, in bytes */
uint64_t balloon_map_waiting(const BalloonMap *map);

/**
 * balloon_map_next: the next pages that are in the balloon
 * @map: the map
 * @start: where to begin, in bytes
 * @range: filled in with the longest row of them
 *
 * Returns: false when there are none from @start on.
 */
bool balloon_map_next(const BalloonMap *map, uint64_t start,
                      BalloonRange *range);

#endif /* HW_VIRTIO_BALLOON_MAP_H */
