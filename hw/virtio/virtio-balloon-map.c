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
#include "virtio-balloon-page-set.h"

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
     * What waits is in the balloon.  Of a host page that is in the balloon as a
     * whole, all balloon pages wait or none.
     */
    BalloonPageSet held;
    BalloonPageSet waiting;
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
    balloon_page_set_init(&map->held, map->size, map->unit);
    balloon_page_set_init(&map->waiting, map->size, map->unit);
    map->complete.bits = bitmap_new(map->n_units);
    map->partial.bits = bitmap_new(map->n_units);
    return map;
}

void balloon_map_free(BalloonMap *map)
{
    balloon_page_set_cleanup(&map->held);
    balloon_page_set_cleanup(&map->waiting);
    g_free(map->complete.bits);
    g_free(map->partial.bits);
    g_free(map);
}

static unsigned long balloon_bytes_to_pages(uint64_t size)
{
    return size >> VIRTIO_BALLOON_PFN_SHIFT;
}

static uint64_t balloon_pages_to_bytes(unsigned long n)
{
    return (uint64_t)n << VIRTIO_BALLOON_PFN_SHIFT;
}

static BalloonRange balloon_bytes_of(unsigned long first, unsigned long end)
{
    return (BalloonRange) { balloon_pages_to_bytes(first),
                            balloon_pages_to_bytes(end - first) };
}

static void balloon_unit_set_put(UnitSet *set, unsigned long u, bool in)
{
    if (in != test_bit(u, set->bits)) {
        change_bit(u, set->bits);
        set->n += in ? 1 : -1;
    }
}

/* Returns: the next unit of @set, or map->n_units */
static unsigned long balloon_unit_set_next(const BalloonMap *map, UnitSet *set)
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
static void balloon_map_look_at(BalloonMap *map, unsigned long u)
{
    bool some = balloon_page_set_is_used(&map->waiting, u);
    bool complete = balloon_page_set_is_full(&map->held, u);

    balloon_unit_set_put(&map->complete, u, some && complete);
    /* Where a unit is a host page, there is no less to take */
    balloon_unit_set_put(&map->partial, u,
                         some && !complete && map->unit > map->page);
}

/* Where the host pages of all before page @end end; the last may be small */
static unsigned long balloon_page_end(const BalloonMap *map, unsigned long end)
{
    return MIN(ROUND_UP(end, map->page), map->size);
}

/* Where the last of the host pages ends that end before page @end */
static unsigned long balloon_whole_end(const BalloonMap *map, unsigned long end)
{
    return end == map->size ? end : ROUND_DOWN(end, map->page);
}

/*
 * What is in the balloon of pages @first to before @end waits.  Returns: how
 * much did not.
 */
static unsigned long balloon_map_wait(BalloonMap *map, unsigned long first,
                                      unsigned long end)
{
    unsigned long n = 0;

    while ((first = balloon_page_set_next(&map->held, first, end)) < end) {
        unsigned long stop = balloon_page_set_next_zero(&map->held, first, end);

        n += balloon_page_set_add(&map->waiting, first, stop);
        first = stop;
    }
    return n;
}

uint64_t balloon_map_insert(BalloonMap *map, const BalloonRange *range)
{
    unsigned long first = balloon_bytes_to_pages(range->start);
    unsigned long end = first + balloon_bytes_to_pages(range->size);
    unsigned long before = map->held.n;

    /* What is in the balloon already has been dealt with */
    while ((first = balloon_page_set_next_zero(&map->held, first, end)) < end) {
        unsigned long u = first / map->unit;
        unsigned long stop = MIN(end, balloon_page_set_end(&map->held, u));

        stop = balloon_page_set_next(&map->held, first, stop);
        balloon_page_set_add(&map->held, first, stop);
        balloon_map_wait(map, ROUND_DOWN(first, map->page),
                         balloon_page_end(map, stop));
        balloon_map_look_at(map, u);
        first = stop;
    }
    return balloon_pages_to_bytes(map->held.n - before);
}

/*
 * Pages @first to before @end, of unit @u, are the guest's.  Returns: how many
 * others wait again, because their host page comes back with the first use.
 */
static unsigned long balloon_map_release(BalloonMap *map, unsigned long u,
                                         unsigned long first, unsigned long end)
{
    unsigned long again = 0;

    if (balloon_page_set_remove(&map->held, first, end)) {
        balloon_page_set_remove(&map->waiting, first, end);
        again = balloon_map_wait(map, ROUND_DOWN(first, map->page), first) +
                balloon_map_wait(map, end, balloon_page_end(map, end));
        balloon_map_look_at(map, u);
    }
    return again;
}

uint64_t balloon_map_remove(BalloonMap *map, const BalloonRange *range,
                            uint64_t *again)
{
    unsigned long first = balloon_bytes_to_pages(range->start);
    unsigned long end = first + balloon_bytes_to_pages(range->size);
    unsigned long before = map->waiting.n;
    unsigned long n = 0;

    for (unsigned long stop; first < end; first = stop) {
        unsigned long u = first / map->unit;

        stop = MIN(end, balloon_page_set_end(&map->held, u));
        n += balloon_map_release(map, u, first, stop);
    }
    *again = balloon_pages_to_bytes(n);
    return balloon_pages_to_bytes(before + n - map->waiting.n);
}

uint64_t balloon_map_wait_again(BalloonMap *map, const BalloonRange *range)
{
    unsigned long first = balloon_bytes_to_pages(range->start);
    unsigned long end = first + balloon_bytes_to_pages(range->size);
    unsigned long before = map->waiting.n;

    for (unsigned long stop; first < end; first = stop) {
        unsigned long u = first / map->unit;

        stop = MIN(end, balloon_page_set_end(&map->held, u));
        if (balloon_map_wait(map, first, stop)) {
            balloon_map_look_at(map, u);
        }
    }
    return balloon_pages_to_bytes(map->waiting.n - before);
}

/* Where to stop taking what begins with @first: whole units, up to the limit */
static unsigned long balloon_map_take_end(BalloonMap *map, unsigned long u,
                                          unsigned long first,
                                          unsigned long limit)
{
    unsigned long end = balloon_page_set_end(&map->held, u);

    while (end < map->size && end + map->unit <= first + limit &&
           test_bit(++u, map->complete.bits)) {
        end = balloon_page_set_end(&map->held, u);
    }
    return balloon_page_set_next_zero(&map->waiting, first, end);
}

static bool balloon_map_take_complete(BalloonMap *map, unsigned long limit,
                                      unsigned long *first, unsigned long *end)
{
    unsigned long u;

    while ((u = balloon_unit_set_next(map, &map->complete)) < map->n_units) {
        unsigned long stop = balloon_page_set_end(&map->held, u);

        *first = balloon_page_set_next(&map->waiting, u * map->unit, stop);
        if (*first < stop) {
            *end = balloon_map_take_end(map, u, *first, limit);
            return true;
        }
        balloon_unit_set_put(&map->complete, u, false);
    }
    return false;
}

static bool balloon_map_take_partial(BalloonMap *map, unsigned long *first,
                                     unsigned long *end)
{
    unsigned long u;

    while ((u = balloon_unit_set_next(map, &map->partial)) < map->n_units) {
        unsigned long stop = balloon_page_set_end(&map->held, u);
        unsigned long at = u * map->unit;

        while ((at = balloon_page_set_next(&map->waiting, at, stop)) < stop) {
            *first = ROUND_DOWN(at, map->page);
            *end = balloon_whole_end(map, balloon_page_set_next_zero(
                                              &map->held, *first, stop));
            /* Whole host pages are in the balloon, and those up to here wait */
            *end = balloon_page_set_next_zero(&map->waiting, at, *end);
            if (*first < *end) {
                return true;
            }
            at = *first + map->page;
        }
        balloon_unit_set_put(&map->partial, u, false);
    }
    return false;
}

bool balloon_map_take(BalloonMap *map, bool partial, uint64_t limit,
                      BalloonRange *range)
{
    unsigned long first, end;

    if (!balloon_map_take_complete(map, balloon_bytes_to_pages(limit), &first,
                                   &end) &&
        (!partial || !balloon_map_take_partial(map, &first, &end))) {
        return false;
    }
    balloon_page_set_remove(&map->waiting, first, end);
    *range = balloon_bytes_of(first, end);
    return true;
}

bool balloon_map_is_pending(const BalloonMap *map)
{
    return map->complete.n || map->partial.n;
}

uint64_t balloon_map_size(const BalloonMap *map)
{
    return balloon_pages_to_bytes(map->size);
}

uint64_t balloon_map_held(const BalloonMap *map)
{
    return balloon_pages_to_bytes(map->held.n);
}

uint64_t balloon_map_waiting(const BalloonMap *map)
{
    return balloon_pages_to_bytes(map->waiting.n);
}

bool balloon_map_next(const BalloonMap *map, uint64_t start, uint64_t limit,
                      BalloonRange *range, const unsigned long **bits)
{
    const BalloonPageSet *held = &map->held;
    unsigned long first = balloon_bytes_to_pages(start);
    unsigned long u = find_next_bit(held->used, held->n_units,
                                    first / held->unit);
    unsigned long end;

    *bits = NULL;
    if (first >= map->size || u == held->n_units) {
        return false;
    }
    end = first = MAX(first, balloon_page_set_start(held, u));
    if (balloon_page_set_is_mixed(held, u)) {
        end = balloon_page_set_end(held, u);
        *bits = held->mixed[u]->bits + BIT_WORD(first % held->unit);
    }
    while (!*bits && u < held->n_units && balloon_page_set_is_full(held, u) &&
           end - first < balloon_bytes_to_pages(limit)) {
        end = balloon_page_set_end(held, u++);
    }
    *range = balloon_bytes_of(first, end);
    return true;
}

bool balloon_map_next_run(const BalloonMap *map, BalloonRange *rest,
                          BalloonRange *run)
{
    unsigned long first = balloon_bytes_to_pages(rest->start);
    unsigned long end = first + balloon_bytes_to_pages(rest->size);
    unsigned long stop;

    first = balloon_page_set_next(&map->held, first, end);
    stop = balloon_page_set_next_zero(&map->held, first, end);
    *run = balloon_bytes_of(first, stop);
    *rest = balloon_bytes_of(stop, end);
    return first < end;
}

size_t balloon_map_save_max(uint64_t size)
{
    return DIV_ROUND_UP(balloon_bytes_to_pages(size), 64) * sizeof(uint64_t);
}

void *balloon_map_save(const BalloonMap *map, size_t *size)
{
    size_t max = balloon_map_save_max(balloon_pages_to_bytes(map->size));
    uint32_t *runs = g_malloc0(max);
    BalloonRange rest = balloon_bytes_of(0, map->size);
    BalloonRange run;
    size_t n = 0;

    while (balloon_map_next_run(map, &rest, &run)) {
        if ((n + 2) * sizeof(*runs) >= max) {
            memset(runs, 0, max);
            balloon_page_set_to_le(&map->held, (unsigned long *)runs);
            *size = max;
            return runs;
        }
        runs[n++] = cpu_to_le32(balloon_bytes_to_pages(run.start));
        runs[n++] = cpu_to_le32(balloon_bytes_to_pages(run.size));
    }
    *size = n * sizeof(*runs);
    return runs;
}

bool balloon_map_load(BalloonMap *map, const void *data, size_t size)
{
    size_t max = balloon_map_save_max(balloon_pages_to_bytes(map->size));
    const uint32_t *runs = data;
    uint64_t end = 0;

    if (size == max) {
        balloon_page_set_from_le(&map->held, data);
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
        balloon_page_set_add(&map->held, first, end);
    }
    return true;
}
