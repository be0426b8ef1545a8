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
        .used = bitmap_new(n_units),
        .full = bitmap_new(n_units),
        .mixed = g_new0(BalloonPageUnit *, n_units),
        .all = bitmap_new(unit),
        .none = bitmap_new(unit),
    };
    bitmap_fill(set->all, unit);
}

/* Returns: the next unit from @u on with pages in the set, or set->n_units */
static unsigned long balloon_set_next_unit(const BalloonPageSet *set,
                                           unsigned long u)
{
    return find_next_bit(set->used, set->n_units, u);
}

void balloon_page_set_cleanup(BalloonPageSet *set)
{
    for (unsigned long u = 0;
         (u = balloon_set_next_unit(set, u)) < set->n_units; u++) {
        if (balloon_page_set_is_mixed(set, u)) {
            g_free(set->mixed[u]);
        }
    }
    g_free(set->used);
    g_free(set->full);
    g_free(set->mixed);
    g_free(set->all);
    g_free(set->none);
}

/* How many pages unit @u has */
static unsigned long balloon_set_unit_size(const BalloonPageSet *set,
                                           unsigned long u)
{
    return balloon_page_set_end(set, u) - balloon_page_set_start(set, u);
}

/* How many of those are in the set */
static unsigned long balloon_set_unit_count(const BalloonPageSet *set,
                                            unsigned long u)
{
    if (balloon_page_set_is_mixed(set, u)) {
        return set->mixed[u]->n;
    }
    return balloon_page_set_is_used(set, u) ? balloon_set_unit_size(set, u) : 0;
}

/* The bitmap of unit @u, mixed or not; bits past the block's end say nothing */
static const unsigned long *balloon_set_bits(const BalloonPageSet *set,
                                             unsigned long u)
{
    if (balloon_page_set_is_mixed(set, u)) {
        return set->mixed[u]->bits;
    }
    return balloon_page_set_is_used(set, u) ? set->all : set->none;
}

/* What a unit gets that is about to be mixed: @bits, not counted yet */
static BalloonPageUnit *balloon_set_mixed_new(const BalloonPageSet *set,
                                              const unsigned long *bits)
{
    BalloonPageUnit *mixed = g_malloc(sizeof(*mixed) +
                                      set->unit / BITS_PER_BYTE);

    bitmap_copy(mixed->bits, bits, set->unit);
    return mixed;
}

/*
 * Unit @u has @count pages in the set now; if those are some, it was mixed, or
 * set->mixed[u] is new.
 */
static void balloon_set_unit_counted(BalloonPageSet *set, unsigned long u,
                                     unsigned long count)
{
    bool was_mixed = balloon_page_set_is_mixed(set, u);

    set->n += count - balloon_set_unit_count(set, u);
    if (count) {
        set_bit(u, set->used);
    } else {
        clear_bit(u, set->used);
    }
    if (count == balloon_set_unit_size(set, u)) {
        set_bit(u, set->full);
    } else {
        clear_bit(u, set->full);
    }
    if (balloon_page_set_is_mixed(set, u)) {
        set->mixed[u]->n = count;
    } else if (was_mixed) {
        g_clear_pointer(&set->mixed[u], g_free);
    }
}

/* How many pages from @first to before @end, of unit @u, are in the set? */
static unsigned long balloon_set_count_in(const BalloonPageSet *set,
                                          unsigned long u, unsigned long first,
                                          unsigned long end)
{
    if (!balloon_page_set_is_mixed(set, u)) {
        return balloon_page_set_is_used(set, u) ? end - first : 0;
    }
    return bitmap_count_one_with_offset(set->mixed[u]->bits,
                                        first - balloon_page_set_start(set, u),
                                        end - first);
}

/* Pages @first to before @end, of unit @u, are to be in the set, or not */
static void balloon_set_put_in_unit(BalloonPageSet *set, unsigned long u,
                                    unsigned long first, unsigned long end,
                                    bool in)
{
    unsigned long at = first - balloon_page_set_start(set, u);
    unsigned long before = balloon_set_unit_count(set, u);
    unsigned long count = before - balloon_set_count_in(set, u, first, end) +
                          (in ? end - first : 0);

    if (count == before) {
        return;
    }
    if (count && count < balloon_set_unit_size(set, u)) {
        if (!balloon_page_set_is_mixed(set, u)) {
            set->mixed[u] = balloon_set_mixed_new(set,
                                                  balloon_set_bits(set, u));
        }
        if (in) {
            bitmap_set(set->mixed[u]->bits, at, end - first);
        } else {
            bitmap_clear(set->mixed[u]->bits, at, end - first);
        }
    }
    balloon_set_unit_counted(set, u, count);
}

static void balloon_set_put(BalloonPageSet *set, unsigned long first,
                            unsigned long end, bool in)
{
    for (unsigned long u = first / set->unit; first < end; u++) {
        unsigned long stop = MIN(balloon_page_set_end(set, u), end);

        balloon_set_put_in_unit(set, u, first, stop, in);
        first = stop;
    }
}

unsigned long balloon_page_set_add(BalloonPageSet *set, unsigned long first,
                                   unsigned long end)
{
    unsigned long before = set->n;

    balloon_set_put(set, first, end, true);
    return set->n - before;
}

unsigned long balloon_page_set_remove(BalloonPageSet *set, unsigned long first,
                                      unsigned long end)
{
    unsigned long before = set->n;

    balloon_set_put(set, first, end, false);
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

        at = start + find_next_bit(balloon_set_bits(set, u), stop - start,
                                   at - start);
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
    unsigned long n = DIV_ROUND_UP(end, set->unit);
    unsigned long u = find_next_zero_bit(set->full, n, first / set->unit);

    while (u < n) {
        unsigned long start = balloon_page_set_start(set, u);
        unsigned long stop = MIN(balloon_page_set_end(set, u), end);
        unsigned long at = MAX(first, start);

        at = start + find_next_zero_bit(balloon_set_bits(set, u), stop - start,
                                        at - start);
        if (at < stop) {
            return at;
        }
        u = find_next_zero_bit(set->full, n, u + 1);
    }
    return end;
}

void balloon_page_set_to_le(const BalloonPageSet *set, unsigned long *data)
{
    g_autofree unsigned long *bits = bitmap_new(set->unit);

    for (unsigned long u = 0;
         (u = balloon_set_next_unit(set, u)) < set->n_units; u++) {
        unsigned long start = balloon_page_set_start(set, u);
        unsigned long n = balloon_set_unit_size(set, u);

        bitmap_copy(bits, balloon_set_bits(set, u), set->unit);
        bitmap_clear(bits, n, set->unit - n);
        bitmap_to_le(data + BIT_WORD(start), bits, n);
    }
}

void balloon_page_set_from_le(BalloonPageSet *set, const unsigned long *data)
{
    g_autofree unsigned long *bits = bitmap_new(set->unit);

    for (unsigned long u = 0; u < set->n_units; u++) {
        unsigned long n = balloon_set_unit_size(set, u);
        unsigned long count;

        bitmap_from_le(bits, data + BIT_WORD(balloon_page_set_start(set, u)),
                       n);
        count = bitmap_count_one(bits, n);
        if (count && count < n) {
            set->mixed[u] = balloon_set_mixed_new(set, bits);
        }
        if (count) {
            balloon_set_unit_counted(set, u, count);
        }
    }
}
