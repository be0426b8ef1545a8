/*
 * The pages of one RAMBlock that are in the balloon, and which of them the
 * host has not got back yet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "virtio-balloon-map.h"

/* Everything is counted in balloon pages */
struct BalloonMap {
    unsigned long size;
    /* a host page, and what is discarded at a time if it is complete */
    unsigned long page;
    unsigned long unit;
    /* a bit is set in @waiting only if it is in @held */
    unsigned long *held;
    unsigned long *waiting;
    unsigned long n_waiting;
    /* pages were inserted in here since all was taken that could be */
    unsigned long first;
    unsigned long end;
    /* complete units before this have been taken */
    unsigned long cursor;
};

BalloonMap *balloon_map_new(uint64_t size, uint64_t page_size,
                            uint64_t unit_size)
{
    BalloonMap *map = g_new0(BalloonMap, 1);

    map->size = size >> VIRTIO_BALLOON_PFN_SHIFT;
    map->page = page_size >> VIRTIO_BALLOON_PFN_SHIFT;
    map->unit = unit_size >> VIRTIO_BALLOON_PFN_SHIFT;
    map->held = bitmap_new(map->size);
    map->waiting = bitmap_new(map->size);
    map->first = map->cursor = map->size;
    return map;
}

void balloon_map_free(BalloonMap *map)
{
    g_free(map->held);
    g_free(map->waiting);
    g_free(map);
}

static BalloonRange bytes_of(unsigned long first, unsigned long end)
{
    return (BalloonRange) {
        .start = (uint64_t)first << VIRTIO_BALLOON_PFN_SHIFT,
        .size = (uint64_t)(end - first) << VIRTIO_BALLOON_PFN_SHIFT,
    };
}

/* Have the pages from @first to before @end wait, or not */
static void map_set_waiting(BalloonMap *map, unsigned long first,
                            unsigned long end, bool wait)
{
    unsigned long n = end - first;
    unsigned long before = bitmap_count_one_with_offset(map->waiting, first,
                                                        n);

    if (wait) {
        bitmap_set(map->waiting, first, n);
    } else {
        bitmap_clear(map->waiting, first, n);
    }
    map->n_waiting += (wait ? n : 0) - before;
}

/* Pages from @first to before @end are worth a look */
static void map_touch(BalloonMap *map, unsigned long first, unsigned long end)
{
    map->first = MIN(map->first, first);
    map->end = MAX(map->end, end);
    map->cursor = MIN(map->cursor, ROUND_DOWN(first, map->unit));
}

uint64_t balloon_map_insert(BalloonMap *map, const BalloonRange *range)
{
    unsigned long first = range->start >> VIRTIO_BALLOON_PFN_SHIFT;
    unsigned long end = first + (range->size >> VIRTIO_BALLOON_PFN_SHIFT);
    unsigned long before = map->n_waiting;

    /* What is in the balloon already has been dealt with */
    while ((first = find_next_zero_bit(map->held, end, first)) < end) {
        unsigned long stop = find_next_bit(map->held, end, first);

        bitmap_set(map->held, first, stop - first);
        map_set_waiting(map, first, stop, true);
        map_touch(map, first, stop);
        first = stop;
    }
    return (uint64_t)(map->n_waiting - before) << VIRTIO_BALLOON_PFN_SHIFT;
}

/* The host page that balloon page @at is in comes back with its first use */
static void map_wait_again(BalloonMap *map, unsigned long at)
{
    unsigned long first = ROUND_DOWN(at, map->page);

    for (unsigned long i = first; i < first + map->page; i++) {
        if (test_bit(i, map->held)) {
            map_set_waiting(map, i, i + 1, true);
        }
    }
}

uint64_t balloon_map_remove(BalloonMap *map, const BalloonRange *range,
                            uint64_t *again)
{
    unsigned long first = range->start >> VIRTIO_BALLOON_PFN_SHIFT;
    unsigned long n = range->size >> VIRTIO_BALLOON_PFN_SHIFT;
    unsigned long before = map->n_waiting;
    unsigned long after;

    bitmap_clear(map->held, first, n);
    map_set_waiting(map, first, first + n, false);
    after = map->n_waiting;
    if (map->page > 1) {
        map_wait_again(map, first);
        map_wait_again(map, first + n - 1);
    }
    *again = (uint64_t)(map->n_waiting - after) << VIRTIO_BALLOON_PFN_SHIFT;
    return (uint64_t)(before - after) << VIRTIO_BALLOON_PFN_SHIFT;
}

static bool map_is_held(BalloonMap *map, unsigned long first,
                        unsigned long end)
{
    return find_next_zero_bit(map->held, end, first) >= end;
}

/*
 * Find the row of whole host pages that begins with the one that @at is in,
 * which waits.  In a host page that is in the balloon as a whole, all balloon
 * pages wait or none.
 *
 * Returns: where to go on; *first is less than *end if something was found.
 */
static unsigned long map_find(BalloonMap *map, unsigned long at, bool partial,
                              unsigned long *first, unsigned long *end)
{
    unsigned long unit = ROUND_DOWN(at, map->unit);
    unsigned long unit_end = MIN(unit + map->unit, map->size);

    *first = *end = ROUND_DOWN(at, map->page);
    if (!partial && !map_is_held(map, unit, unit_end)) {
        return unit_end;
    }
    if (!map_is_held(map, *first, *first + map->page)) {
        return *first + map->page;
    }
    *end = ROUND_DOWN(find_next_zero_bit(map->waiting, unit_end, at),
                      map->page);
    return *end;
}

bool balloon_map_take(BalloonMap *map, bool partial, BalloonRange *range)
{
    unsigned long *at = partial ? &map->first : &map->cursor;
    unsigned long first = 0, end = 0;

    while (first == end && *at < map->end) {
        *at = find_next_bit(map->waiting, map->end, *at);
        if (*at < map->end) {
            *at = map_find(map, *at, partial, &first, &end);
        }
    }
    if (first < end) {
        map_set_waiting(map, first, end, false);
        *range = bytes_of(first, end);
    } else if (partial) {
        map->first = map->cursor = map->size;
        map->end = 0;
    }
    return first < end;
}

bool balloon_map_is_pending(const BalloonMap *map)
{
    return map->first < map->end;
}

uint64_t balloon_map_waiting(const BalloonMap *map)
{
    return (uint64_t)map->n_waiting << VIRTIO_BALLOON_PFN_SHIFT;
}

bool balloon_map_next(const BalloonMap *map, uint64_t start,
                      BalloonRange *range)
{
    unsigned long first = find_next_bit(map->held, map->size,
                                        start >> VIRTIO_BALLOON_PFN_SHIFT);

    if (first >= map->size) {
        return false;
    }
    *range = bytes_of(first, find_next_zero_bit(map->held, map->size, first));
    return true;
}
