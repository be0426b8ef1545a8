/*
 * The pages of one RAMBlock that are in the balloon, and which of them the
 * host has not got back yet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "virtio-balloon-map.h"

/* Units that are worth a look, which is taken in turn */
typedef struct UnitSet {
    unsigned long *bits;
    unsigned long n;
    unsigned long next;
} UnitSet;

/* Everything is counted in balloon pages */
struct BalloonMap {
    unsigned long size;
    /* a host page, and what is discarded at a time if it is complete */
    unsigned long page;
    unsigned long unit;
    unsigned long n_units;
    /*
     * A bit is set in @waiting only if it is in @held.  Of a host page that is
     * in the balloon as a whole, all balloon pages wait or none.  While no page
     * waits, and no unit is worth a look, @waiting may be NULL.
     */
    unsigned long *held;
    unsigned long *waiting;
    unsigned long n_held;
    unsigned long n_waiting;
    /* how many pages of each unit are in @held */
    uint32_t *count;
    /* units with pages that wait; those in neither have none to take */
    UnitSet complete;
    UnitSet partial;
};

BalloonMap *balloon_map_new(uint64_t size, uint64_t page_size,
                            uint64_t unit_size)
{
    BalloonMap *map = g_new0(BalloonMap, 1);

    map->size = size >> VIRTIO_BALLOON_PFN_SHIFT;
    map->page = page_size >> VIRTIO_BALLOON_PFN_SHIFT;
    map->unit = unit_size >> VIRTIO_BALLOON_PFN_SHIFT;
    map->n_units = DIV_ROUND_UP(map->size, map->unit);
    map->held = bitmap_new(map->size);
    map->count = g_new0(uint32_t, map->n_units);
    map->complete.bits = bitmap_new(map->n_units);
    map->partial.bits = bitmap_new(map->n_units);
    return map;
}

void balloon_map_free(BalloonMap *map)
{
    g_free(map->held);
    g_free(map->waiting);
    g_free(map->count);
    g_free(map->complete.bits);
    g_free(map->partial.bits);
    g_free(map);
}

static unsigned long bytes_to_pages(uint64_t size)
{
    return size >> VIRTIO_BALLOON_PFN_SHIFT;
}

static uint64_t pages_to_bytes(unsigned long n)
{
    return (uint64_t)n << VIRTIO_BALLOON_PFN_SHIFT;
}

static BalloonRange bytes_of(unsigned long first, unsigned long end)
{
    return (BalloonRange) { pages_to_bytes(first),
                            pages_to_bytes(end - first) };
}

static unsigned long unit_end(const BalloonMap *map, unsigned long u)
{
    return MIN((u + 1) * map->unit, map->size);
}

static bool unit_is_complete(const BalloonMap *map, unsigned long u)
{
    return map->count[u] == unit_end(map, u) - u * map->unit;
}

static void unit_set_put(UnitSet *set, unsigned long u, bool in)
{
    if (in != test_bit(u, set->bits)) {
        change_bit(u, set->bits);
        set->n += in ? 1 : -1;
    }
}

/* Returns: the next unit of @set, or map->n_units */
static unsigned long unit_set_next(const BalloonMap *map, UnitSet *set)
{
    if (!set->n) {
        return map->n_units;
    }
    set->next = find_next_bit(set->bits, map->n_units, set->next);
    if (set->next == map->n_units) {
        set->next = find_first_bit(set->bits, map->n_units);
    }
    return set->next;
}

/* Pages of unit @u may wait that did not */
static void map_look_at(BalloonMap *map, unsigned long u)
{
    bool some = map->n_waiting && map->count[u];
    bool complete = unit_is_complete(map, u);

    unit_set_put(&map->complete, u, some && complete);
    /* Where a unit is a host page, there is no less to take */
    unit_set_put(&map->partial, u, some && !complete && map->unit > map->page);
}

/* Where the host pages of all before page @end end; the last may be small */
static unsigned long page_end(const BalloonMap *map, unsigned long end)
{
    return MIN(ROUND_UP(end, map->page), map->size);
}

/* Where the last of the host pages ends that end before page @end */
static unsigned long whole_end(const BalloonMap *map, unsigned long end)
{
    return end == map->size ? end : ROUND_DOWN(end, map->page);
}

/* What is in the balloon of pages @first to before @end waits */
static unsigned long map_wait(BalloonMap *map, unsigned long first,
                              unsigned long end)
{
    unsigned long before = map->n_waiting;

    while ((first = find_next_bit(map->held, end, first)) < end) {
        unsigned long stop = find_next_zero_bit(map->held, end, first);

        if (!map->waiting) {
            map->waiting = bitmap_new(map->size);
        }
        map->n_waiting += stop - first -
            bitmap_count_one_with_offset(map->waiting, first, stop - first);
        bitmap_set(map->waiting, first, stop - first);
        first = stop;
    }
    return map->n_waiting - before;
}

static void map_stop_waiting(BalloonMap *map, unsigned long first,
                             unsigned long n)
{
    if (map->waiting) {
        map->n_waiting -= bitmap_count_one_with_offset(map->waiting, first, n);
        bitmap_clear(map->waiting, first, n);
    }
}

/* Pages @first to before @end, of unit @u, come into the balloon */
static void map_hold(BalloonMap *map, unsigned long u, unsigned long first,
                     unsigned long end)
{
    bitmap_set(map->held, first, end - first);
    map->count[u] += end - first;
    map->n_held += end - first;
}

uint64_t balloon_map_insert(BalloonMap *map, const BalloonRange *range)
{
    unsigned long first = bytes_to_pages(range->start);
    unsigned long end = first + bytes_to_pages(range->size);
    unsigned long before = map->n_held;

    /* What is in the balloon already has been dealt with */
    while ((first = find_next_zero_bit(map->held, end, first)) < end) {
        unsigned long u = first / map->unit;
        unsigned long stop = find_next_bit(map->held,
                                           MIN(end, unit_end(map, u)), first);

        map_hold(map, u, first, stop);
        map_wait(map, ROUND_DOWN(first, map->page), page_end(map, stop));
        map_look_at(map, u);
        first = stop;
    }
    return pages_to_bytes(map->n_held - before);
}

/*
 * Pages @first to before @end, of unit @u, are the guest's.  Returns: how many
 * others wait again, because their host page comes back with the first use.
 */
static unsigned long map_release(BalloonMap *map, unsigned long u,
                                 unsigned long first, unsigned long end)
{
    unsigned long n = end - first;
    unsigned long held = bitmap_count_one_with_offset(map->held, first, n);
    unsigned long again = 0;

    if (held) {
        map->count[u] -= held;
        map->n_held -= held;
        bitmap_clear(map->held, first, n);
        map_stop_waiting(map, first, n);
        again = map_wait(map, ROUND_DOWN(first, map->page), first) +
                map_wait(map, end, page_end(map, end));
        map_look_at(map, u);
    }
    return again;
}

uint64_t balloon_map_remove(BalloonMap *map, const BalloonRange *range,
                            uint64_t *again)
{
    unsigned long first = bytes_to_pages(range->start);
    unsigned long end = first + bytes_to_pages(range->size);
    unsigned long before = map->n_waiting;
    unsigned long n = 0;

    while (first < end) {
        unsigned long u = first / map->unit;
        unsigned long stop = MIN(end, unit_end(map, u));

        n += map_release(map, u, first, stop);
        first = stop;
    }
    *again = pages_to_bytes(n);
    return pages_to_bytes(before + n - map->n_waiting);
}

uint64_t balloon_map_wait_again(BalloonMap *map, const BalloonRange *range)
{
    unsigned long first = bytes_to_pages(range->start);
    unsigned long end = first + bytes_to_pages(range->size);
    unsigned long before = map->n_waiting;

    while ((first = find_next_bit(map->held, end, first)) < end) {
        unsigned long u = first / map->unit;
        unsigned long stop = MIN(end, unit_end(map, u));

        if (map_wait(map, first, stop)) {
            map_look_at(map, u);
        }
        first = stop;
    }
    return pages_to_bytes(map->n_waiting - before);
}

/* Where to stop taking what begins with @first: whole units, up to the limit */
static unsigned long map_take_end(BalloonMap *map, unsigned long u,
                                  unsigned long first, unsigned long limit)
{
    unsigned long end = unit_end(map, u);

    while (end < map->size && end + map->unit <= first + limit &&
           test_bit(end / map->unit, map->complete.bits)) {
        end = unit_end(map, end / map->unit);
    }
    return find_next_zero_bit(map->waiting, end, first);
}

static bool map_take_complete(BalloonMap *map, unsigned long limit,
                              unsigned long *first, unsigned long *end)
{
    unsigned long u;

    while ((u = unit_set_next(map, &map->complete)) < map->n_units) {
        *first = find_next_bit(map->waiting, unit_end(map, u), u * map->unit);
        if (*first < unit_end(map, u)) {
            *end = map_take_end(map, u, *first, limit);
            return true;
        }
        unit_set_put(&map->complete, u, false);
    }
    return false;
}

static bool map_take_partial(BalloonMap *map, unsigned long *first,
                             unsigned long *end)
{
    unsigned long u;

    while ((u = unit_set_next(map, &map->partial)) < map->n_units) {
        unsigned long stop = unit_end(map, u);
        unsigned long at = u * map->unit;

        while ((at = find_next_bit(map->waiting, stop, at)) < stop) {
            *first = ROUND_DOWN(at, map->page);
            *end = whole_end(map, find_next_zero_bit(map->held, stop, *first));
            /* Whole host pages are in the balloon, and those up to here wait */
            *end = find_next_zero_bit(map->waiting, *end, at);
            if (*first < *end) {
                return true;
            }
            at = *first + map->page;
        }
        unit_set_put(&map->partial, u, false);
    }
    return false;
}

bool balloon_map_take(BalloonMap *map, bool partial, uint64_t limit,
                      BalloonRange *range)
{
    unsigned long first, end;

    if (!map_take_complete(map, bytes_to_pages(limit), &first, &end) &&
        (!partial || !map_take_partial(map, &first, &end))) {
        if (partial && !map->n_waiting) {
            g_clear_pointer(&map->waiting, g_free);
        }
        return false;
    }
    map_stop_waiting(map, first, end - first);
    *range = bytes_of(first, end);
    return true;
}

bool balloon_map_is_pending(const BalloonMap *map)
{
    return map->complete.n || map->partial.n;
}

uint64_t balloon_map_size(const BalloonMap *map)
{
    return pages_to_bytes(map->size);
}

uint64_t balloon_map_held(const BalloonMap *map)
{
    return pages_to_bytes(map->n_held);
}

uint64_t balloon_map_waiting(const BalloonMap *map)
{
    return pages_to_bytes(map->n_waiting);
}

const unsigned long *balloon_map_bits(const BalloonMap *map)
{
    return map->held;
}

bool balloon_map_next(const BalloonMap *map, uint64_t start,
                      BalloonRange *range)
{
    unsigned long first = bytes_to_pages(start);
    unsigned long end;

    while (first < map->size && !map->count[first / map->unit]) {
        first = unit_end(map, first / map->unit);
    }
    end = first;
    while (end < map->size && map->count[end / map->unit]) {
        end = unit_end(map, end / map->unit);
    }
    *range = bytes_of(first, end);
    return first < end;
}

size_t balloon_map_save_max(uint64_t size)
{
    return DIV_ROUND_UP(bytes_to_pages(size), 64) * sizeof(uint64_t);
}

void *balloon_map_save(const BalloonMap *map, size_t *size)
{
    size_t max = balloon_map_save_max(pages_to_bytes(map->size));
    uint32_t *runs = g_malloc0(max);
    size_t n = 0;
    BalloonRange row;

    for (uint64_t at = 0; balloon_map_next(map, at, &row); at += row.size) {
        unsigned long first = bytes_to_pages(row.start);
        unsigned long end = first + bytes_to_pages(row.size);

        at = row.start;
        while ((first = find_next_bit(map->held, end, first)) < end) {
            unsigned long stop = find_next_zero_bit(map->held, end, first);

            if ((n + 2) * sizeof(*runs) >= max) {
                bitmap_to_le((unsigned long *)runs, map->held, map->size);
                *size = max;
                return runs;
            }
            runs[n++] = cpu_to_le32(first);
            runs[n++] = cpu_to_le32(stop - first);
            first = stop;
        }
    }
    *size = n * sizeof(*runs);
    return runs;
}

static void map_load_bitmap(BalloonMap *map, const void *data)
{
    bitmap_from_le(map->held, data, map->size);
    map->held[BITS_TO_LONGS(map->size) - 1] &=
        BITMAP_LAST_WORD_MASK(map->size);
    for (unsigned long u = 0; u < map->n_units; u++) {
        unsigned long first = u * map->unit;

        map->count[u] = bitmap_count_one_with_offset(map->held, first,
                                                     unit_end(map, u) - first);
        map->n_held += map->count[u];
    }
}

bool balloon_map_load(BalloonMap *map, const void *data, size_t size)
{
    size_t max = balloon_map_save_max(pages_to_bytes(map->size));
    const uint32_t *runs = data;
    uint64_t end = 0;

    if (size == max) {
        map_load_bitmap(map, data);
        return true;
    }
    if (size > max || size % (2 * sizeof(*runs))) {
        return false;
    }
    for (size_t i = 0; i < size / sizeof(*runs); i += 2) {
        uint64_t first = le32_to_cpu(runs[i]);

        if (first < end || first + le32_to_cpu(runs[i + 1]) > map->size) {
            return false;
        }
        end = first + le32_to_cpu(runs[i + 1]);
        while (first < end) {
            unsigned long u = first / map->unit;
            unsigned long stop = MIN(end, unit_end(map, u));

            map_hold(map, u, first, stop);
            first = stop;
        }
    }
    return true;
}
