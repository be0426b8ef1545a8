/*
 * A set of balloon pages of one RAMBlock
 *
 * The block is divided in units.  A unit takes a bitmap only while some of its
 * pages are in the set and some are not: what the set takes goes with what is
 * in it, and large pieces take next to nothing.
 *
 * Pure functions: no lock, no access to guest memory.  Everything is counted in
 * balloon pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_PAGE_SET_H
#define HW_VIRTIO_BALLOON_PAGE_SET_H

#include "qemu/bitops.h"

/* The pages of a unit of which some are in the set */
typedef struct BalloonPageUnit {
    unsigned long n;
    unsigned long bits[];
} BalloonPageUnit;

/* To be read only; change it by the functions below */
typedef struct BalloonPageSet {
    unsigned long size;
    unsigned long unit;
    unsigned long n_units;
    /* how many pages are in the set */
    unsigned long n;
    /* units that have any in it, and those that have all */
    unsigned long *used;
    unsigned long *full;
    /* what the units between have; nothing is said of the others */
    BalloonPageUnit **mixed;
    /* the bitmaps of those */
    unsigned long *all;
    unsigned long *none;
} BalloonPageSet;

/* An empty set of a block of @size pages; @unit is a multiple of 64 */
void balloon_page_set_init(BalloonPageSet *set, unsigned long size,
                           unsigned long unit);
void balloon_page_set_cleanup(BalloonPageSet *set);

/* Where unit @u begins, and where it ends: the last one may be smaller */
static inline unsigned long balloon_page_set_start(const BalloonPageSet *set,
                                                   unsigned long u)
{
    return u * set->unit;
}

static inline unsigned long balloon_page_set_end(const BalloonPageSet *set,
                                                 unsigned long u)
{
    return MIN((u + 1) * set->unit, set->size);
}

/* Are any pages of unit @u in the set, or all?  With some it is mixed */
static inline bool balloon_page_set_is_used(const BalloonPageSet *set,
                                            unsigned long u)
{
    return test_bit(u, set->used);
}

static inline bool balloon_page_set_is_full(const BalloonPageSet *set,
                                            unsigned long u)
{
    return test_bit(u, set->full);
}

static inline bool balloon_page_set_is_mixed(const BalloonPageSet *set,
                                             unsigned long u)
{
    return balloon_page_set_is_used(set, u) &&
           !balloon_page_set_is_full(set, u);
}

/*
 * Pages @first to before @end come into the set, or go.  Returns: how many were
 * not in it, or were.
 */
unsigned long balloon_page_set_add(BalloonPageSet *set, unsigned long first,
                                   unsigned long end);
unsigned long balloon_page_set_remove(BalloonPageSet *set, unsigned long first,
                                      unsigned long end);

/*
 * The next page from @first to before @end that is in the set, or is not.
 * Returns: @end if there is none.
 */
unsigned long balloon_page_set_next(const BalloonPageSet *set,
                                    unsigned long first, unsigned long end);
unsigned long balloon_page_set_next_zero(const BalloonPageSet *set,
                                         unsigned long first,
                                         unsigned long end);

/* The set as a bitmap of 64-bit words in little endian order, which was 0 */
void balloon_page_set_to_le(const BalloonPageSet *set, unsigned long *data);

/* Fill an empty set from such a bitmap, however it is filled past the end */
void balloon_page_set_from_le(BalloonPageSet *set, const unsigned long *data);

#endif /* HW_VIRTIO_BALLOON_PAGE_SET_H */
