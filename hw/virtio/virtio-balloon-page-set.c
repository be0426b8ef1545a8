/*
 * A set of balloon pages of one RAMBlock
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "virtio-balloon-page-set.h"

void balloon_page_set_init(BalloonPageSet *set, unsigned long size,
                           unsigned long unit)
{
    unsigned long n_units = DIV_ROUND_UP(size, unit);

    *set = (BalloonPageSet) {
        .size = size,
        .unit = unit,
        .n_units = n_units,
        .count = g_new0(uint32_t, n_units),
        .used = bitmap_new(n_units),
        .bits = g_new0(unsigned long *, n_units),
        .all = bitmap_new(unit),
        .none = bitmap_new(unit),
    };
    bitmap_fill(set->all, unit);
}

/* Returns: the next unit from @u on with pages in the set, or set->n_units */
static unsigned long set_next_unit(const BalloonPageSet *set, unsigned long u)
{
    return find_next_bit(set->used, set->n_units, u);
}

void balloon_page_set_cleanup(BalloonPageSet *set)
{
    for (unsigned long u = 0; (u = set_next_unit(set, u)) < set->n_units; u++) {
        if (balloon_page_set_is_mixed(set, u)) {
            g_free(set->bits[u]);
        }
    }
    g_free(set->count);
    g_free(set->used);
    g_free(set->bits);
    g_free(set->all);
    g_free(set->none);
}

/* The bitmap of unit @u, mixed or not; bits past the block's end say nothing */
static const unsigned long *set_bits(const BalloonPageSet *set, unsigned long u)
{
    if (balloon_page_set_is_mixed(set, u)) {
        return set->bits[u];
    }
    return set->count[u] ? set->all : set->none;
}

/* Unit @u, which may have a bitmap, is to have @count pages in the set */
static void set_count(BalloonPageSet *set, unsigned long u,
                      unsigned long count)
{
    bool had_bits = balloon_page_set_is_mixed(set, u);

    set->n += count - set->count[u];
    set->count[u] = count;
    if (count) {
        set_bit(u, set->used);
    } else {
        clear_bit(u, set->used);
    }
    if (had_bits && !balloon_page_set_is_mixed(set, u)) {
        g_clear_pointer(&set->bits[u], g_free);
    }
}

/* The bitmap of unit @u, to be changed: it is mixed, or is about to be */
static unsigned long *set_own_bits(BalloonPageSet *set, unsigned long u)
{
    if (!balloon_page_set_is_mixed(set, u)) {
        set->bits[u] = g_memdup2(set_bits(set, u),
                                 set->unit / BITS_PER_BYTE);
    }
    return set->bits[u];
}

/* How many pages from @first to before @end, of unit @u, are in the set? */
static unsigned long set_count_in(const BalloonPageSet *set, unsigned long u,
                                  unsigned long first, unsigned long end)
{
    if (!balloon_page_set_is_mixed(set, u)) {
        return set->count[u] ? end - first : 0;
    }
    return bitmap_count_one_with_offset(set->bits[u],
                                        first - balloon_page_set_start(set, u),
                                        end - first);
}

/* Pages @first to before @end, of unit @u, are to be in the set, or not */
static void set_put_in_unit(BalloonPageSet *set, unsigned long u,
                            unsigned long first, unsigned long end, bool in)
{
    unsigned long at = first - balloon_page_set_start(set, u);
    unsigned long size = balloon_page_set_end(set, u) -
                         balloon_page_set_start(set, u);
    unsigned long count = set->count[u] - set_count_in(set, u, first, end) +
                          (in ? end - first : 0);

    if (count == set->count[u]) {
        return;
    }
    if (count && count < size) {
        unsigned long *bits = set_own_bits(set, u);

        if (in) {
            bitmap_set(bits, at, end - first);
        } else {
            bitmap_clear(bits, at, end - first);
        }
    }
    set_count(set, u, count);
}

static void set_put(BalloonPageSet *set, unsigned long first,
                    unsigned long end, bool in)
{
    for (unsigned long stop; first < end; first = stop) {
        unsigned long u = first / set->unit;

        stop = MIN(balloon_page_set_end(set, u), end);
        set_put_in_unit(set, u, first, stop, in);
    }
}

unsigned long balloon_page_set_add(BalloonPageSet *set, unsigned long first,
                                   unsigned long end)
{
    unsigned long before = set->n;

    set_put(set, first, end, true);
    return set->n - before;
}

unsigned long balloon_page_set_remove(BalloonPageSet *set, unsigned long first,
                                      unsigned long end)
{
    unsigned long before = set->n;

    set_put(set, first, end, false);
    return before - set->n;
}

unsigned long balloon_page_set_next(const BalloonPageSet *set,
                                    unsigned long first, unsigned long end)
{
    /* No further than @end: the next unit with any may be terabytes away */
    unsigned long n = DIV_ROUND_UP(end, set->unit);
    unsigned long u = find_next_bit(set->used, n, first / set->unit);

    while (u < n) {
        unsigned long start = balloon_page_set_start(set, u);
        unsigned long stop = MIN(balloon_page_set_end(set, u), end);
        unsigned long at = MAX(first, start);

        at = start + find_next_bit(set_bits(set, u), stop - start, at - start);
        if (at < stop) {
            return at;
        }
        u = find_next_bit(set->used, n, u + 1);
    }
    return end;
}

unsigned long balloon_page_set_next_zero(const BalloonPageSet *set,
                                         unsigned long first,
                                         unsigned long end)
{
    for (unsigned long stop; first < end; first = stop) {
        unsigned long u = first / set->unit;
        unsigned long start = balloon_page_set_start(set, u);

        stop = MIN(balloon_page_set_end(set, u), end);
        if (!balloon_page_set_is_full(set, u)) {
            first = start + find_next_zero_bit(set_bits(set, u), stop - start,
                                               first - start);
            if (first < stop) {
                return first;
            }
        }
    }
    return end;
}

void balloon_page_set_to_le(const BalloonPageSet *set, unsigned long *data)
{
    g_autofree unsigned long *bits = bitmap_new(set->unit);

    for (unsigned long u = 0; (u = set_next_unit(set, u)) < set->n_units; u++) {
        unsigned long start = balloon_page_set_start(set, u);
        unsigned long n = balloon_page_set_end(set, u) - start;

        bitmap_copy(bits, set_bits(set, u), set->unit);
        bitmap_clear(bits, n, set->unit - n);
        bitmap_to_le(data + BIT_WORD(start), bits, n);
    }
}

void balloon_page_set_from_le(BalloonPageSet *set, const unsigned long *data)
{
    g_autofree unsigned long *bits = bitmap_new(set->unit);

    for (unsigned long u = 0; u < set->n_units; u++) {
        unsigned long start = balloon_page_set_start(set, u);
        unsigned long n = balloon_page_set_end(set, u) - start;
        unsigned long count;

        bitmap_from_le(bits, data + BIT_WORD(start), n);
        count = bitmap_count_one(bits, n);
        if (count) {
            set_count(set, u, count);
        }
        if (balloon_page_set_is_mixed(set, u)) {
            set->bits[u] = g_memdup2(bits, set->unit / BITS_PER_BYTE);
        }
    }
}
