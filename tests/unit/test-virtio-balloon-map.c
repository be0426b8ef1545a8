/*
 * The map of the balloon's pages: hand cases, then random ones against a model
 * that looks at each page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-balloon-map.h"

#define PAGE 4096ULL
/* As many balloon pages as a unit has at least */
#define U 64

static BalloonRange pages(uint64_t first, uint64_t n)
{
    return (BalloonRange) { first * PAGE, n * PAGE };
}

static BalloonMap *new_map(uint64_t size, uint64_t page, uint64_t unit)
{
    return balloon_map_new(size * PAGE, page * PAGE, unit * PAGE);
}

/* Returns: how many pages were not in the balloon */
static uint64_t insert(BalloonMap *map, uint64_t first, uint64_t n)
{
    BalloonRange range = pages(first, n);

    return balloon_map_insert(map, &range) / PAGE;
}

/* Returns: how many pages waited, and in *again how many do again */
static uint64_t take_back(BalloonMap *map, uint64_t first, uint64_t n,
                          uint64_t *again)
{
    BalloonRange range = pages(first, n);
    uint64_t waited = balloon_map_remove(map, &range, again);

    *again /= PAGE;
    return waited / PAGE;
}

/* Returns: how many pages wait that did not */
static uint64_t wait_again(BalloonMap *map, uint64_t first, uint64_t n)
{
    BalloonRange range = pages(first, n);

    return balloon_map_wait_again(map, &range) / PAGE;
}

static void assert_takes_up_to(BalloonMap *map, bool partial, uint64_t limit,
                               uint64_t first, uint64_t n)
{
    BalloonRange range;

    g_assert_true(balloon_map_take(map, partial, limit * PAGE, &range));
    g_assert_cmpuint(range.start, ==, first * PAGE);
    g_assert_cmpuint(range.size, ==, n * PAGE);
}

static void assert_takes(BalloonMap *map, bool partial, uint64_t first,
                         uint64_t n)
{
    assert_takes_up_to(map, partial, U, first, n);
}

static void assert_takes_nothing(BalloonMap *map, bool partial)
{
    BalloonRange range;

    g_assert_false(balloon_map_take(map, partial, U * PAGE, &range));
}

/* How much is in the balloon, and how much of it waits */
static void assert_has(BalloonMap *map, uint64_t held, uint64_t waiting)
{
    g_assert_cmpuint(balloon_map_held(map), ==, held * PAGE);
    g_assert_cmpuint(balloon_map_waiting(map), ==, waiting * PAGE);
}

/* A complete unit goes as a whole, however it came */
static void test_unit(void)
{
    uint64_t again;
    BalloonMap *map = new_map(8 * U, 1, U);

    assert_takes_nothing(map, false);
    g_assert_false(balloon_map_is_pending(map));
    g_assert_cmpuint(insert(map, U + 12, U - 12), ==, U - 12);
    assert_takes_nothing(map, false);
    g_assert_true(balloon_map_is_pending(map));
    g_assert_cmpuint(insert(map, U, 20), ==, 12);
    assert_has(map, U, U);
    assert_takes(map, false, U, U);
    assert_takes_nothing(map, false);
    g_assert_false(balloon_map_is_pending(map));
    assert_has(map, U, 0);
    /* a part of it that is taken back leaves nothing to take */
    g_assert_cmpuint(take_back(map, U, 1, &again), ==, 0);
    g_assert_false(balloon_map_is_pending(map));
    balloon_map_free(map);
}

/* What does not complete a unit is had by asking for it */
static void test_partial(void)
{
    BalloonMap *map = new_map(8 * U, 1, U);

    insert(map, 1, 2);
    insert(map, 5, 2 * U);
    assert_takes(map, false, U, U);
    assert_takes_nothing(map, false);
    assert_takes(map, true, 1, 2);
    assert_takes(map, true, 5, U - 5);
    assert_takes(map, true, 2 * U, 5);
    assert_takes_nothing(map, true);
    g_assert_false(balloon_map_is_pending(map));
    /* the rest of a unit that was taken in part */
    insert(map, 0, 1);
    insert(map, 3, 2);
    assert_takes(map, false, 0, 1);
    assert_takes(map, false, 3, 2);
    assert_takes_nothing(map, false);
    balloon_map_free(map);
}

/* A huge page goes as a whole or not at all */
static void test_huge(void)
{
    uint64_t again;
    BalloonMap *map = new_map(4 * U, U, U);

    insert(map, 0, U - 1);
    /* nobody has to look for what cannot be there */
    g_assert_false(balloon_map_is_pending(map));
    assert_takes_nothing(map, false);
    assert_takes_nothing(map, true);
    assert_has(map, U - 1, U - 1);
    insert(map, U - 1, 1);
    assert_takes(map, false, 0, U);
    /* the guest uses a part: the host has to bring back all of it */
    g_assert_cmpuint(take_back(map, 3, 1, &again), ==, 0);
    g_assert_cmpuint(again, ==, U - 1);
    assert_has(map, U - 1, U - 1);
    assert_takes_nothing(map, true);
    insert(map, 3, 1);
    assert_takes(map, true, 0, U);
    assert_takes_nothing(map, true);
    insert(map, U, U);
    g_assert_cmpuint(take_back(map, U, U, &again), ==, U);
    g_assert_false(balloon_map_is_pending(map));
    balloon_map_free(map);
}

/* What was taken back is not discarded */
static void test_cancel(void)
{
    uint64_t again;
    BalloonMap *map = new_map(4 * U, 1, U);

    insert(map, 0, 2 * U);
    g_assert_cmpuint(take_back(map, 4, 2 * U - 8, &again), ==, 2 * U - 8);
    g_assert_cmpuint(again, ==, 0);
    assert_takes_nothing(map, false);
    assert_takes(map, true, 0, 4);
    assert_takes(map, true, 2 * U - 4, 4);
    assert_takes_nothing(map, true);
    balloon_map_free(map);
}

/* A page that is listed again has been dealt with */
static void test_twice(void)
{
    BalloonMap *map = new_map(4 * U, 8, U);

    insert(map, U, U);
    assert_takes(map, false, U, U);
    g_assert_cmpuint(insert(map, U + 5, 1), ==, 0);
    assert_takes_nothing(map, true);
    g_assert_cmpuint(insert(map, 0, 3 * U), ==, 2 * U);
    assert_takes(map, false, 2 * U, U);
    assert_takes(map, false, 0, U);
    assert_takes_nothing(map, true);
    balloon_map_free(map);
}

/* Complete units in a row go together, as far as the limit lets them */
static void test_limit(void)
{
    BalloonMap *map = new_map(8 * U + 8, 8, U);

    insert(map, 0, 2 * U);
    insert(map, 3 * U, 5 * U + 8);
    assert_takes_up_to(map, false, 8 * U, 0, 2 * U);
    assert_takes_up_to(map, false, 2 * U + 63, 3 * U, 2 * U);
    /* a unit is not split */
    assert_takes_up_to(map, false, 8, 5 * U, U);
    /* and the last one may be short */
    assert_takes_up_to(map, false, 8 * U, 6 * U, 2 * U + 8);
    assert_takes_nothing(map, true);
    /* the next one is not complete, and neither gets worse for it */
    wait_again(map, 0, 2 * U);
    insert(map, 2 * U, U - 1);
    assert_takes_up_to(map, true, 8 * U, 0, 2 * U);
    assert_takes_up_to(map, true, 8 * U, 2 * U, U - 8);
    assert_takes_nothing(map, true);
    balloon_map_free(map);
}

/* How much goes at a time does not depend on how it came */
static void test_few_takes(void)
{
    const unsigned size = 4096 * U;
    BalloonMap *map = new_map(size, 1, U);
    BalloonRange range;
    unsigned n = 0;

    for (unsigned i = 0; i < size; i++) {
        /* an odd factor: each page once, hardly ever next to the last one */
        g_assert_cmpuint(insert(map, i * 40503 % size, 1), ==, 1);
    }
    while (balloon_map_take(map, true, 16 * U * PAGE, &range)) {
        g_assert_cmpuint(range.size, ==, 16 * U * PAGE);
        n++;
    }
    g_assert_cmpuint(n, ==, size / (16 * U));
    assert_has(map, size, 0);
    balloon_map_free(map);
}

/* What the host has in memory again is discarded again */
static void test_wait_again(void)
{
    BalloonMap *map = new_map(4 * U, 8, U);

    insert(map, 0, U + 20);
    assert_takes(map, true, 0, U);
    assert_takes(map, true, U, 16);
    g_assert_cmpuint(wait_again(map, U - 8, 8), ==, 8);
    g_assert_cmpuint(wait_again(map, U - 16, 32), ==, 24);
    g_assert_cmpuint(wait_again(map, 2 * U, 2 * U), ==, 0);
    assert_has(map, U + 20, 36);
    g_assert_true(balloon_map_is_pending(map));
    assert_takes(map, false, U - 16, 16);
    assert_takes_nothing(map, false);
    assert_takes(map, true, U, 16);
    assert_takes_nothing(map, true);
    balloon_map_free(map);
}

/* The last host page has no more pages than there are */
static void test_tail(void)
{
    BalloonMap *map = new_map(U + 5, 8, U);
    uint64_t again;

    insert(map, U, 4);
    assert_takes_nothing(map, true);
    insert(map, U + 4, 1);
    assert_takes(map, false, U, 5);
    take_back(map, U + 2, 1, &again);
    g_assert_cmpuint(again, ==, 4);
    insert(map, U + 2, 1);
    assert_takes(map, true, U, 5);
    balloon_map_free(map);

    map = new_map(U + 21, 8, 2 * U);
    insert(map, U + 8, 13);
    assert_takes_nothing(map, false);
    assert_takes(map, true, U + 8, 13);
    assert_has(map, 13, 0);
    balloon_map_free(map);
}

static void assert_next(BalloonMap *map, uint64_t start, uint64_t first,
                        uint64_t n, bool all)
{
    const unsigned long *bits;
    uint64_t held = 0;
    BalloonRange rest = pages(first, n);
    BalloonRange range, run;

    g_assert_true(balloon_map_next(map, start * PAGE, UINT64_MAX, &range,
                                   &bits));
    g_assert_cmpuint(range.start, ==, first * PAGE);
    g_assert_cmpuint(range.size, ==, n * PAGE);
    g_assert_true(all == !bits);
    while (bits && balloon_map_next_run(map, &rest, &run)) {
        uint64_t at = run.start / PAGE - first;

        held += run.size / PAGE;
        g_assert_cmpuint(find_next_zero_bit(bits, n, at), ==,
                         at + run.size / PAGE);
    }
    g_assert_true(all || bitmap_count_one(bits, n) == held);
}

static void test_next(void)
{
    BalloonMap *map = new_map(9 * U + 8, 1, 2 * U);
    const unsigned long *bits;
    BalloonRange range;

    g_assert_false(balloon_map_next(map, 0, UINT64_MAX, &range, &bits));
    insert(map, 4 * U - 1, 3);
    insert(map, 6 * U, 3 * U + 8);
    assert_next(map, 0, 2 * U, 2 * U, false);
    assert_next(map, 3 * U, 3 * U, U, false);
    assert_next(map, 4 * U, 4 * U, 2 * U, false);
    assert_next(map, 5 * U, 5 * U, U, false);
    assert_next(map, 6 * U, 6 * U, 3 * U + 8, true);
    assert_next(map, 7 * U, 7 * U, 2 * U + 8, true);
    g_assert_true(balloon_map_next(map, 6 * U * PAGE, 2 * U * PAGE, &range,
                                   &bits));
    g_assert_cmpuint(range.size, ==, 2 * U * PAGE);
    g_assert_false(balloon_map_next(map, (9 * U + 8) * PAGE, UINT64_MAX, &range,
                                    &bits));
    balloon_map_free(map);
}

static void test_next_run(void)
{
    BalloonMap *map = new_map(6 * U, 1, U);
    BalloonRange rest = pages(U / 2, 5 * U);
    BalloonRange run;

    insert(map, 0, 1);
    insert(map, 2 * U - 1, 2 * U + 2);
    insert(map, 6 * U - 1, 1);
    g_assert_true(balloon_map_next_run(map, &rest, &run));
    g_assert_cmpuint(run.start, ==, (2 * U - 1) * PAGE);
    g_assert_cmpuint(run.size, ==, (2 * U + 2) * PAGE);
    g_assert_cmpuint(rest.start, ==, (4 * U + 1) * PAGE);
    g_assert_cmpuint(rest.size, ==, (U + U / 2 - 1) * PAGE);
    g_assert_false(balloon_map_next_run(map, &rest, &run));
    g_assert_false(balloon_map_next_run(map, &rest, &run));
    balloon_map_free(map);
}

#define N 4096

typedef struct Model {
    BalloonMap *map;
    unsigned size;
    unsigned page;
    unsigned unit;
    bool held[N];
    bool waiting[N];
} Model;

static Model *model_new(void)
{
    static const unsigned page[] = { 1, 8, 16, 2 * U };
    Model *m = g_new0(Model, 1);

    m->page = page[g_test_rand_int_range(0, ARRAY_SIZE(page))];
    m->unit = MAX(m->page, U) << g_test_rand_int_range(0, 4);
    /* the last unit and the last host page need not be there as a whole */
    m->size = N - (g_test_rand_bit() ?
                   m->page * g_test_rand_int_range(0, 12) :
                   g_test_rand_int_range(0, 12 * m->page));
    m->map = new_map(m->size, m->page, m->unit);
    return m;
}

static void model_free(Model *m)
{
    balloon_map_free(m->map);
    g_free(m);
}

/* Of pages @first to before @end, as far as there are any */
static unsigned model_count(Model *m, const bool *set, unsigned first,
                            unsigned end)
{
    unsigned n = 0;

    for (unsigned i = first; i < MIN(end, m->size); i++) {
        n += set[i];
    }
    return n;
}

/* Is all that there is of this unit or host page in the balloon? */
static bool model_is_whole(Model *m, unsigned at, unsigned piece)
{
    unsigned first = ROUND_DOWN(at, piece);
    unsigned end = MIN(first + piece, m->size);

    return model_count(m, m->held, first, end) == end - first;
}

/* May the host page that begins here be taken? */
static bool model_can_go(Model *m, unsigned first)
{
    return m->waiting[first] && model_is_whole(m, first, m->page);
}

/* All that is in the balloon of the host pages of these pages waits */
static unsigned model_wait(Model *m, unsigned first, unsigned end)
{
    unsigned n = 0;

    for (unsigned i = ROUND_DOWN(first, m->page); i < ROUND_UP(end, m->page);
         i++) {
        n += m->held[i] && !m->waiting[i];
        m->waiting[i] = m->held[i];
    }
    return n;
}

static void model_insert(Model *m, unsigned first, unsigned n)
{
    unsigned fresh = 0;

    for (unsigned i = first; i < first + n; i++) {
        if (!m->held[i]) {
            fresh++;
            m->held[i] = true;
            model_wait(m, i, i + 1);
        }
    }
    g_assert_cmpuint(insert(m->map, first, n), ==, fresh);
}

static void model_remove(Model *m, unsigned first, unsigned n)
{
    unsigned waited = model_count(m, m->waiting, first, first + n);
    unsigned expected = 0;
    uint64_t again;
    unsigned stop;

    for (unsigned at = first; at < first + n; at = stop) {
        stop = MIN(first + n, ROUND_UP(at + 1, m->unit));
        if (model_count(m, m->held, at, stop)) {
            memset(m->held + at, false, stop - at);
            memset(m->waiting + at, false, stop - at);
            expected += model_wait(m, at, stop);
        }
    }
    g_assert_cmpuint(take_back(m->map, first, n, &again), ==, waited);
    g_assert_cmpuint(again, ==, expected);
}

static void model_wait_again(Model *m, unsigned first, unsigned n)
{
    first = ROUND_DOWN(first, m->page);
    n = ROUND_UP(n, m->page);
    n = MIN(n, m->size - first);
    g_assert_cmpuint(wait_again(m->map, first, n), ==,
                     model_wait(m, first, first + n));
}

/* Returns false when there was nothing to take */
static bool model_take(Model *m, bool partial)
{
    unsigned limit = g_test_rand_int_range(0, 4 * m->unit);
    BalloonRange range;
    unsigned first, end;
    bool complete;

    if (!balloon_map_take(m->map, partial, limit * PAGE, &range)) {
        return false;
    }
    first = range.start / PAGE;
    end = first + range.size / PAGE;
    complete = model_is_whole(m, first, m->unit);
    g_assert_true(range.start % PAGE == 0 && range.size % PAGE == 0);
    g_assert_true(first % m->page == 0);
    g_assert_true(end % m->page == 0 || end == m->size);
    g_assert_true(first < end && end <= m->size);
    g_assert_true(partial || complete);
    g_assert_true(end - first <= limit ||
                  end <= ROUND_DOWN(first, m->unit) + m->unit);
    for (unsigned i = first; i < end; i++) {
        g_assert_true(m->held[i] && m->waiting[i]);
        g_assert_true(i % m->unit ||
                      model_is_whole(m, i, m->unit) == complete);
    }
    /* Nothing was left that belongs to it */
    g_assert_true(first % m->unit == 0 || !model_can_go(m, first - m->page));
    if (end < m->size && end % m->unit) {
        g_assert_false(model_can_go(m, end));
    } else if (end < m->size && complete && end + m->unit <= first + limit) {
        g_assert_false(model_is_whole(m, end, m->unit) && m->waiting[end]);
    }
    memset(m->waiting + first, false, end - first);
    return true;
}

/* All that can go has gone */
static void model_drain(Model *m, bool partial)
{
    while (model_take(m, partial)) {
        continue;
    }
    for (unsigned i = 0; i < m->size; i += m->page) {
        g_assert_false(model_can_go(m, i) &&
                       (partial || model_is_whole(m, i, m->unit)));
    }
    if (partial) {
        g_assert_false(balloon_map_is_pending(m->map));
    }
}

/* The units with pages in the balloon, each of their pages, and no others */
static void model_assert_units(Model *m)
{
    const unsigned long *bits;
    BalloonRange range;
    unsigned at = 0;

    while (balloon_map_next(m->map, at * PAGE, UINT64_MAX, &range, &bits)) {
        unsigned first = range.start / PAGE;
        unsigned n = range.size / PAGE;

        g_assert_cmpuint(first, >=, at);
        g_assert_cmpuint(first % m->unit, ==, 0);
        g_assert_cmpuint(model_count(m, m->held, at, first), ==, 0);
        at = first + n;
        g_assert_true(at % m->unit == 0 || at == m->size);
        for (unsigned i = 0; i < n && bits; i++) {
            g_assert_cmpint(test_bit(i, bits), ==, m->held[first + i]);
        }
        if (bits) {
            g_assert_true(n <= m->unit);
            g_assert_cmpuint(model_count(m, m->held, first, at), >, 0);
            g_assert_cmpuint(model_count(m, m->held, first, at), <, n);
        } else {
            g_assert_cmpuint(model_count(m, m->held, first, at), ==, n);
            g_assert_true(at == m->size || !model_is_whole(m, at, m->unit));
        }
    }
    g_assert_cmpuint(model_count(m, m->held, at, m->size), ==, 0);
}

/* Runs of pages in the balloon, in any part of the block */
static void model_assert_runs(Model *m)
{
    unsigned at = g_test_rand_int_range(0, m->size);
    unsigned end = g_test_rand_int_range(at, m->size + 1);
    BalloonRange rest = pages(at, end - at);
    BalloonRange run;

    while (balloon_map_next_run(m->map, &rest, &run)) {
        unsigned first = run.start / PAGE;
        unsigned n = run.size / PAGE;

        g_assert_cmpuint(model_count(m, m->held, at, first), ==, 0);
        at = first + n;
        g_assert_cmpuint(model_count(m, m->held, first, at), ==, n);
        g_assert_true(n && (at == end || !m->held[at]));
        g_assert_cmpuint(rest.start, ==, at * PAGE);
        g_assert_cmpuint(rest.size, ==, (end - at) * PAGE);
    }
    g_assert_cmpuint(model_count(m, m->held, at, end), ==, 0);
}

static void model_assert_same(Model *m)
{
    bool can_go = false;

    assert_has(m->map, model_count(m, m->held, 0, m->size),
               model_count(m, m->waiting, 0, m->size));
    for (unsigned i = 0; i < m->size && !can_go; i += m->page) {
        can_go = model_can_go(m, i);
    }
    g_assert_true(balloon_map_is_pending(m->map) || !can_go);
    model_assert_units(m);
    model_assert_runs(m);
}

static unsigned model_runs(Model *m)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->size; i++) {
        n += m->held[i] && (i == 0 || !m->held[i - 1]);
    }
    return n;
}

/*
 * Behind the data is memory that cannot be accessed, if the host can do that.
 * Where the size is not of whole runs that leaves no room for the alignment of
 * a bitmap: it is refused.
 */
static bool load(BalloonMap *map, const void *data, size_t size)
{
#ifdef CONFIG_POSIX
    static uint8_t *end;

    if (!end) {
        size_t room = MAX(qemu_real_host_page_size(), 64 * KiB);
        uint8_t *start = mmap(NULL, 2 * room, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        g_assert_true(start != MAP_FAILED);
        end = start + room;
        g_assert_cmpint(mprotect(end, room, PROT_NONE), ==, 0);
    }
    memcpy(end - ROUND_UP(size, 4), data, size);
    return balloon_map_load(map, end - ROUND_UP(size, 4), size);
#else
    return balloon_map_load(map, data, size);
#endif
}

/* It goes on with a map that has come from the other one */
static void model_migrate(Model *m)
{
    const size_t max = balloon_map_save_max(m->size * PAGE);
    size_t size;
    g_autofree void *data = balloon_map_save(m->map, &size);

    g_assert_cmpuint(max, ==, DIV_ROUND_UP(m->size, 64) * 8);
    g_assert_cmpuint(size, ==, MIN(max, model_runs(m) * 8));
    if (size == max && m->size % 64) {
        /* no bit is set beyond the end */
        g_assert_cmpuint(ldq_le_p(data + max - 8) >> m->size % 64, ==, 0);
    }
    balloon_map_free(m->map);
    m->map = new_map(m->size, m->page, m->unit);
    g_assert_true(load(m->map, data, size));
    memset(m->waiting, false, sizeof(m->waiting));
    g_assert_false(balloon_map_is_pending(m->map));
}

static void model_step(Model *m)
{
    unsigned n = 1 + g_test_rand_int_range(0, g_test_rand_bit() ? 8 : 600);
    unsigned first = g_test_rand_int_range(0, m->size - n + 1);

    switch (g_test_rand_int_range(0, 32)) {
    case 0 ... 13:
        model_insert(m, first, n);
        break;
    case 14 ... 18:
        model_remove(m, first, n);
        break;
    case 19 ... 22:
        model_wait_again(m, first, n);
        break;
    case 23 ... 26:
        for (unsigned i = 0; i < n % 8 && model_take(m, first % 2); i++) {
            continue;
        }
        break;
    case 27 ... 30:
        model_drain(m, first % 2);
        break;
    default:
        model_migrate(m);
    }
}

static void test_random(void)
{
    for (int i = 0; i < 60; i++) {
        Model *m = model_new();

        for (int step = 0; step < 200; step++) {
            model_step(m);
            model_assert_same(m);
        }
        /* Everything goes in the end, and once */
        model_insert(m, 0, m->size);
        model_drain(m, true);
        g_assert_cmpuint(balloon_map_waiting(m->map), ==, 0);
        model_remove(m, 0, m->size);
        model_assert_same(m);
        model_free(m);
    }
}

static void assert_same(BalloonMap *a, BalloonMap *b, unsigned size)
{
    BalloonRange rest_a = pages(0, size);
    BalloonRange rest_b = rest_a;
    BalloonRange run_a, run_b;

    while (balloon_map_next_run(a, &rest_a, &run_a)) {
        g_assert_true(balloon_map_next_run(b, &rest_b, &run_b));
        g_assert_true(run_a.start == run_b.start && run_a.size == run_b.size);
    }
    g_assert_false(balloon_map_next_run(b, &rest_b, &run_b));
}

/* Eight bytes for each run, but never more than a bit for each page */
static void test_save_size(void)
{
    const unsigned size = 64 * 64 + 8;
    BalloonMap *map = new_map(size, 8, U);
    size_t n;

    g_assert_cmpuint(balloon_map_save_max(64 * PAGE), ==, 8);
    g_assert_cmpuint(balloon_map_save_max(65 * PAGE), ==, 16);
    for (unsigned runs = 0; runs < 128; runs++) {
        g_autofree uint32_t *data = balloon_map_save(map, &n);
        BalloonMap *copy = new_map(size, 8, U);

        g_assert_cmpuint(n, ==, MIN(runs, 65) * 8);
        for (unsigned i = 0; i < runs && runs < 65; i++) {
            g_assert_cmpuint(le32_to_cpu(data[2 * i]), ==,
                             size - 2 - 32 * (runs - 1 - i));
            g_assert_cmpuint(le32_to_cpu(data[2 * i + 1]), ==, 2);
        }
        g_assert_true(load(copy, data, n));
        assert_same(copy, map, size);
        assert_has(copy, runs * 2, 0);
        balloon_map_free(copy);
        insert(map, size - 2 - 32 * runs, 2);
    }
    balloon_map_free(map);
}

/* Nothing of what came waits; what is added takes its host page with it */
static void test_load_and_go_on(void)
{
    const uint32_t whole[] = { cpu_to_le32(0), cpu_to_le32(U) };
    const uint32_t part[] = { cpu_to_le32(2), cpu_to_le32(4) };
    BalloonMap *map = new_map(4 * U, 8, U);

    g_assert_true(load(map, whole, sizeof(whole)));
    assert_has(map, U, 0);
    assert_takes_nothing(map, true);
    g_assert_cmpuint(insert(map, 8, 8), ==, 0);
    assert_takes_nothing(map, true);
    g_assert_cmpuint(wait_again(map, 8, 8), ==, 8);
    assert_takes(map, false, 8, 8);
    balloon_map_free(map);

    for (unsigned n = 8; n <= U; n += U - 8) {
        map = new_map(4 * U, 8, U);
        g_assert_true(load(map, part, sizeof(part)));
        g_assert_cmpuint(insert(map, 0, n), ==, n - 4);
        assert_takes(map, true, 0, n);
        assert_has(map, n, 0);
        assert_takes_nothing(map, true);
        balloon_map_free(map);
    }
}

/* Returns: was it taken?  Then the map has to make sense */
static bool load_anything(unsigned size, const void *data, size_t n)
{
    BalloonMap *map = new_map(size, 8, U);
    bool ok = load(map, data, n);
    BalloonRange rest = pages(0, size);
    const unsigned long *bits;
    BalloonRange range;
    uint64_t held = 0;
    uint64_t again;

    if (ok) {
        g_assert_cmpuint(n, <=, balloon_map_save_max(size * PAGE));
        while (balloon_map_next_run(map, &rest, &range)) {
            held += range.size / PAGE;
        }
        assert_has(map, held, 0);
        assert_takes_nothing(map, true);
        g_assert_cmpuint(insert(map, 0, size), ==, size - held);
        while (balloon_map_take(map, false, U * PAGE, &range)) {
            continue;
        }
        assert_has(map, size, 0);
        g_assert_cmpuint(take_back(map, 0, size, &again), ==, 0);
        assert_has(map, 0, 0);
        /* no unit was miscounted */
        g_assert_false(balloon_map_next(map, 0, UINT64_MAX, &range, &bits));
    }
    balloon_map_free(map);
    return ok;
}

static bool load_runs(uint32_t a, uint32_t n_a, uint32_t b, uint32_t n_b)
{
    const uint32_t data[] = { cpu_to_le32(a), cpu_to_le32(n_a),
                              cpu_to_le32(b), cpu_to_le32(n_b) };

    return load_anything(4 * U + 8, data, sizeof(data));
}

static void test_load_refuses(void)
{
    uint32_t data[256] = { };
    const unsigned size = 4 * U + 8;

    g_assert_true(load_runs(0, 3, 4 * U, 8));
    /* beyond the end */
    g_assert_false(load_runs(0, 3, 4 * U, 9));
    g_assert_false(load_runs(0, 3, 4 * U + 8, 1));
    g_assert_false(load_runs(0, 3, 4 * U, UINT32_MAX));
    g_assert_false(load_runs(0, 3, UINT32_MAX, 1));
    g_assert_false(load_runs(0, 3, UINT32_MAX, UINT32_MAX));
    /* one on the other, or not in order */
    g_assert_false(load_runs(4, 4, 7, 1));
    g_assert_false(load_runs(4, 4, 4, 4));
    g_assert_false(load_runs(8, 4, 0, 4));
    /* no run, though it does not take anything */
    for (size_t n = 1; n < 40; n++) {
        g_assert_true(n % 8 == 0 || !load_anything(size, data, n));
    }
    /* more than there is ever to say */
    for (unsigned i = 0; i < 128; i++) {
        data[2 * i] = cpu_to_le32(2 * i);
        data[2 * i + 1] = cpu_to_le32(1);
    }
    for (size_t n = balloon_map_save_max(size * PAGE) + 1; n <= sizeof(data);
         n++) {
        g_assert_false(load_anything(size, data, n));
    }
}

/* Whatever comes is refused, or makes a map that is one */
static void test_load_mangled(void)
{
    for (int i = 0; i < 200; i++) {
        Model *m = model_new();
        size_t size;
        g_autofree uint8_t *data = NULL;
        g_autofree uint8_t *mangled = NULL;

        for (int n = g_test_rand_int_range(0, 40); n >= 0; n--) {
            model_insert(m, g_test_rand_int_range(0, m->size - 40),
                         g_test_rand_int_range(1, 40));
        }
        data = balloon_map_save(m->map, &size);
        g_assert_true(load_anything(ROUND_UP(m->size, 8), data, size) ||
                      m->size % 8);
        for (size_t n = 0; n < size; n++) {
            load_anything(ROUND_UP(m->size, 8), data, n);
        }
        mangled = g_memdup2(data, size);
        for (int n = g_test_rand_int_range(0, 8); n >= 0; n--) {
            mangled[g_test_rand_int_range(0, size)] ^=
                1 << g_test_rand_int_range(0, 8);
        }
        load_anything(ROUND_UP(m->size, 8), mangled, size);
        model_free(m);
    }
    /* pages of a bitmap that are not there */
    for (unsigned size = 8; size <= 2 * U; size += 8) {
        static const uint64_t all[2] = { UINT64_MAX, UINT64_MAX };

        load_anything(size, all, balloon_map_save_max(size * PAGE));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-balloon/map/unit", test_unit);
    g_test_add_func("/virtio-balloon/map/partial", test_partial);
    g_test_add_func("/virtio-balloon/map/huge", test_huge);
    g_test_add_func("/virtio-balloon/map/cancel", test_cancel);
    g_test_add_func("/virtio-balloon/map/twice", test_twice);
    g_test_add_func("/virtio-balloon/map/limit", test_limit);
    g_test_add_func("/virtio-balloon/map/few-takes", test_few_takes);
    g_test_add_func("/virtio-balloon/map/wait-again", test_wait_again);
    g_test_add_func("/virtio-balloon/map/tail", test_tail);
    g_test_add_func("/virtio-balloon/map/next", test_next);
    g_test_add_func("/virtio-balloon/map/next-run", test_next_run);
    g_test_add_func("/virtio-balloon/map/random", test_random);
    g_test_add_func("/virtio-balloon/map/save-size", test_save_size);
    g_test_add_func("/virtio-balloon/map/load-and-go-on",
                    test_load_and_go_on);
    g_test_add_func("/virtio-balloon/map/load-refuses", test_load_refuses);
    g_test_add_func("/virtio-balloon/map/load-mangled", test_load_mangled);
    return g_test_run();
}
