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
 * @page_size: the least that can be discarded at a time, in bytes
 * @unit_size: what had better be discarded at a time, in bytes
 *
 * @page_size and @unit_size are powers of two and no less than a balloon page;
 * @unit_size is no less than @page_size.  Where that does not divide @size, the
 * last host page is a smaller one.
 */
BalloonMap *balloon_map_new(uint64_t size, uint64_t page_size,
                            uint64_t unit_size);
void balloon_map_free(BalloonMap *map);

/*
 * The driver gives up @range: it waits for its discard, and so does what was
 * loaded of the host pages at its ends.  Returns: how many bytes of @range were
 * not in the balloon yet.
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

/*
 * The host has @range, which begins and ends with host pages, in memory again:
 * what is in the balloon of it waits.  Returns: how many bytes did not yet.
 */
uint64_t balloon_map_wait_again(BalloonMap *map, const BalloonRange *range);

/**
 * balloon_map_take: what to discard next
 * @map: the map
 * @partial: take host pages out of units that are not complete, as well
 * @limit: the most to take, in bytes, if a unit is not larger
 * @range: filled in; whole host pages, all of them in the balloon
 *
 * What is taken does not wait any more.  No more is looked at than what was
 * inserted since, and a bit for each unit.
 *
 * Returns: false when there is nothing.
 */
bool balloon_map_take(BalloonMap *map, bool partial, uint64_t limit,
                      BalloonRange *range);

/* May balloon_map_take() with @partial have something? */
bool balloon_map_is_pending(const BalloonMap *map);

/* The block's size, how much is in the balloon, and how much of that waits */
uint64_t balloon_map_size(const BalloonMap *map);
uint64_t balloon_map_held(const BalloonMap *map);
uint64_t balloon_map_waiting(const BalloonMap *map);

/**
 * balloon_map_next: the next units with pages in the balloon
 * @map: the map
 * @start: where to begin, in bytes: a unit's begin, or 64 balloon pages, or a
 *         multiple of that, behind it
 * @limit: no more units of a row are looked at than make that, in bytes
 * @range: filled in, from @start on, with the longest row of units of which all
 *         pages are in the balloon, or one of which some are not
 * @bits: set to a bit for each page of @range, set if it is in the balloon, or
 *        to NULL if all are; valid until the map changes
 *
 * Returns: false when there are none from @start on.
 */
bool balloon_map_next(const BalloonMap *map, uint64_t start, uint64_t limit,
                      BalloonRange *range, const unsigned long **bits);

/*
 * The next pages in a row that are in the balloon, of those in @rest, which is
 * set to what is behind them.  Returns: false when there are none.
 */
bool balloon_map_next_run(const BalloonMap *map, BalloonRange *rest,
                          BalloonRange *run);

/**
 * balloon_map_save: what is in the balloon, for balloon_map_load()
 * @map: the map
 * @size: set to how many bytes are returned: 8 for each run of pages, or a
 *        bitmap where that is less, which is balloon_map_save_max()
 *
 * Returns: the data, the caller's to free.
 */
void *balloon_map_save(const BalloonMap *map, size_t *size);

/* The most that is saved of a block of so many bytes, in bytes */
size_t balloon_map_save_max(uint64_t size);

/**
 * balloon_map_load: put what was saved into an empty map
 * @map: the map, of a block of the same size; nothing of it waits afterwards
 * @data: aligned like an unsigned long
 * @size: of @data, in bytes
 *
 * Returns: false when @data cannot come from such a block; then @map is only
 * good for balloon_map_free().
 */
bool balloon_map_load(BalloonMap *map, const void *data, size_t size);

#endif /* HW_VIRTIO_BALLOON_MAP_H */
