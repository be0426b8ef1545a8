/*
 * Ranges of guest memory: from lists of page frame numbers, cut to size
 *
 * Pure functions: no lock, no state, no access to guest memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_RANGES_H
#define HW_VIRTIO_BALLOON_RANGES_H

#include "standard-headers/linux/virtio_balloon.h"

/* What a page frame number of the driver's stands for (section 5.5.6) */
#define BALLOON_PAGE_SIZE (1ULL << VIRTIO_BALLOON_PFN_SHIFT)

/**
 * struct BalloonRange: some bytes in a row, never empty
 * @start: address of the first byte
 * @size: how many
 */
typedef struct BalloonRange {
    uint64_t start;
    uint64_t size;
} BalloonRange;

/**
 * balloon_ranges_from_pfns: the memory that a list of balloon pages covers
 * @ranges: filled in; the caller's, with room for @n_pfns entries
 * @pfns: page frame numbers of balloon pages, in any order, repeated or not
 * @n_pfns: how many
 *
 * Every balloon page of the list is in exactly one range, and nothing else
 * is; ranges ascend and do not touch.  A 32-bit PFN times 4 KiB plus 4 KiB
 * is at most 2^44, so no sum here overflows.
 *
 * Returns: how many ranges there are, at most @n_pfns.
 */
size_t balloon_ranges_from_pfns(BalloonRange *ranges, const uint32_t *pfns,
                                size_t n_pfns);

/**
 * balloon_range_trim: shrink a range to the whole units inside it
 * @range: the range; undefined afterwards when nothing is left
 * @unit: a power of two; @range must end at least @unit below 2^64
 *
 * Returns: true when at least one whole unit is left.
 */
bool balloon_range_trim(BalloonRange *range, uint64_t unit);

#endif /* HW_VIRTIO_BALLOON_RANGES_H */
