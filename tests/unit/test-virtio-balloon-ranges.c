/*
 * Ranges of guest memory: hand cases, then random ones against an oracle
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "hw/virtio/virtio-balloon-ranges.h"

#define PAGE 4096ULL

static void check_ranges(const uint32_t *pfns, size_t n_pfns,
                         const BalloonRange *expected, size_t n_expected)
{
    g_autofree BalloonRange *ranges = g_new(BalloonRange, n_pfns + 1);
    size_t n = balloon_ranges_from_pfns(ranges, pfns, n_pfns);

    g_assert_cmpuint(n, ==, n_expected);
    for (size_t i = 0; i < n; i++) {
        g_assert_cmphex(ranges[i].start, ==, expected[i].start);
        g_assert_cmphex(ranges[i].size, ==, expected[i].size);
    }
}

#define CHECK(pfns, ...)                                                    \
    do {                                                                    \
        const BalloonRange expected[] = { __VA_ARGS__ };                    \
        check_ranges(pfns, ARRAY_SIZE(pfns), expected,                      \
                     ARRAY_SIZE(expected));                                 \
    } while (0)

static void test_empty(void)
{
    check_ranges(NULL, 0, NULL, 0);
}

static void test_single(void)
{
    const uint32_t first[] = { 0 };
    const uint32_t last[] = { UINT32_MAX };

    CHECK(first, { 0, PAGE });
    CHECK(last, { UINT32_MAX * PAGE, PAGE });
}

static void test_runs(void)
{
    const uint32_t up[] = { 5, 6, 7, 8 };
    const uint32_t down[] = { 8, 7, 6, 5 };
    const uint32_t outwards[] = { 6, 7, 5, 8 };

    CHECK(up, { 5 * PAGE, 4 * PAGE });
    CHECK(down, { 5 * PAGE, 4 * PAGE });
    CHECK(outwards, { 5 * PAGE, 4 * PAGE });
}

static void test_merge(void)
{
    const uint32_t closed_late[] = { 1, 3, 5, 2, 4 };
    const uint32_t apart[] = { 9, 1, 5 };
    const uint32_t nested[] = { 1, 2, 3, 9, 2, 3, 4 };

    CHECK(closed_late, { PAGE, 5 * PAGE });
    CHECK(apart, { PAGE, PAGE }, { 5 * PAGE, PAGE }, { 9 * PAGE, PAGE });
    CHECK(nested, { PAGE, 4 * PAGE }, { 9 * PAGE, PAGE });
}

static void test_duplicates(void)
{
    const uint32_t same[] = { 7, 7, 7 };
    const uint32_t spread[] = { 7, 1, 7, 1 };

    CHECK(same, { 7 * PAGE, PAGE });
    CHECK(spread, { PAGE, PAGE }, { 7 * PAGE, PAGE });
}

/* The ends of the number space are no neighbours */
static void test_no_wrap(void)
{
    const uint32_t ends[] = { UINT32_MAX, 0 };

    CHECK(ends, { 0, PAGE }, { UINT32_MAX * PAGE, PAGE });
}

/* The oracle: a bitmap of the pages listed, read from left to right */
static size_t oracle(BalloonRange *ranges, const uint32_t *pfns, size_t n_pfns,
                     uint32_t base, unsigned n_pages)
{
    g_autofree unsigned long *listed = bitmap_new(n_pages);
    size_t n = 0;

    for (size_t i = 0; i < n_pfns; i++) {
        set_bit(pfns[i] - base, listed);
    }
    for (unsigned i = 0; i < n_pages; i++) {
        if (!test_bit(i, listed)) {
            continue;
        }
        if (!i || !test_bit(i - 1, listed)) {
            ranges[n++] = (BalloonRange) { (base + i) * PAGE, 0 };
        }
        ranges[n - 1].size += PAGE;
    }
    return n;
}

static void test_random(void)
{
    enum { MOST = 1024 };
    uint32_t pfns[MOST];
    g_autofree BalloonRange *expected = g_new(BalloonRange, MOST);

    for (int round = 0; round < 20000; round++) {
        unsigned n_pages = g_test_rand_int_range(1, 2 * MOST);
        size_t n_pfns = g_test_rand_int_range(0, MOST + 1);
        uint32_t base = g_test_rand_bit() ? 0 : UINT32_MAX - n_pages + 1;
        int step = g_test_rand_int_range(-1, 2);
        uint32_t page = 0;

        for (size_t i = 0; i < n_pfns; i++) {
            /* Runs in either direction, broken now and then */
            if (!step || !g_test_rand_int_range(0, 16)) {
                page = g_test_rand_int_range(0, n_pages);
            }
            pfns[i] = base + page;
            page = (page + n_pages + step) % n_pages;
        }
        check_ranges(pfns, n_pfns, expected,
                     oracle(expected, pfns, n_pfns, base, n_pages));
    }
}

static void check_trim(BalloonRange range, uint64_t unit, BalloonRange left)
{
    g_assert_true(balloon_range_trim(&range, unit));
    g_assert_cmphex(range.start, ==, left.start);
    g_assert_cmphex(range.size, ==, left.size);
}

static void check_trim_all(BalloonRange range, uint64_t unit)
{
    g_assert_false(balloon_range_trim(&range, unit));
}

static void test_trim(void)
{
    const uint64_t huge = 512 * PAGE;

    check_trim((BalloonRange) { PAGE, PAGE }, PAGE,
               (BalloonRange) { PAGE, PAGE });
    check_trim((BalloonRange) { PAGE - 1, 3 * PAGE }, PAGE,
               (BalloonRange) { PAGE, 2 * PAGE });
    check_trim((BalloonRange) { 1, 2 * huge }, huge,
               (BalloonRange) { huge, huge });
    check_trim((BalloonRange) { UINT32_MAX * PAGE, PAGE }, PAGE,
               (BalloonRange) { UINT32_MAX * PAGE, PAGE });
    check_trim_all((BalloonRange) { 0, huge - 1 }, huge);
    check_trim_all((BalloonRange) { 1, huge }, huge);
    check_trim_all((BalloonRange) { PAGE, 1 }, huge);
    check_trim_all((BalloonRange) { huge - 1, 2 }, huge);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-balloon/ranges/empty", test_empty);
    g_test_add_func("/virtio-balloon/ranges/single", test_single);
    g_test_add_func("/virtio-balloon/ranges/runs", test_runs);
    g_test_add_func("/virtio-balloon/ranges/merge", test_merge);
    g_test_add_func("/virtio-balloon/ranges/duplicates", test_duplicates);
    g_test_add_func("/virtio-balloon/ranges/no-wrap", test_no_wrap);
    g_test_add_func("/virtio-balloon/ranges/random", test_random);
    g_test_add_func("/virtio-balloon/ranges/trim", test_trim);
    return g_test_run();
}
