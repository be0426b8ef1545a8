/*
 * Ranges of guest memory: from lists of page frame numbers, cut to size
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-ranges.h"

/* Grow @range by a balloon page inside it or next to it, if @addr is one */
static bool balloon_range_absorb(BalloonRange *range, uint64_t addr)
{
    uint64_t end = range->start + range->size;

    if (addr == end) {
        range->size += BALLOON_PAGE_SIZE;
        return true;
    }
    if (addr + BALLOON_PAGE_SIZE == range->start) {
        range->start = addr;
        range->size += BALLOON_PAGE_SIZE;
        return true;
    }
    return addr >= range->start && addr < end;
}

static int balloon_range_compare(const void *a, const void *b)
{
    const BalloonRange *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

/* Join neighbours and drop what is covered twice; @ranges ascend by start */
static size_t balloon_ranges_merge(BalloonRange *ranges, size_t n)
{
    size_t last = 0;

    for (size_t i = 1; i < n; i++) {
        uint64_t end = ranges[last].start + ranges[last].size;

        if (ranges[i].start > end) {
            ranges[++last] = ranges[i];
        } else {
            end = MAX(end, ranges[i].start + ranges[i].size);
            ranges[last].size = end - ranges[last].start;
        }
    }
    return n ? last + 1 : 0;
}

/*
 * Drivers list pages in runs, up or down, so most pages join the range before
 * them and there is little left to sort.
 */
size_t balloon_ranges_from_pfns(BalloonRange *ranges, const uint32_t *pfns,
                                size_t n_pfns)
{
    size_t n = 0;

    for (size_t i = 0; i < n_pfns; i++) {
        uint64_t addr = (uint64_t)pfns[i] << VIRTIO_BALLOON_PFN_SHIFT;

        if (!n || !balloon_range_absorb(&ranges[n - 1], addr)) {
            ranges[n++] = (BalloonRange) { addr, BALLOON_PAGE_SIZE };
        }
    }
    qsort(ranges, n, sizeof(*ranges), balloon_range_compare);
    return balloon_ranges_merge(ranges, n);
}

bool balloon_range_trim(BalloonRange *range, uint64_t unit)
{
    uint64_t start = ROUND_UP(range->start, unit);
    uint64_t end = ROUND_DOWN(range->start + range->size, unit);

    range->start = start;
    range->size = end - start;
    return start < end;
}
