/*
 * The map of the balloon's pages: hand cases, then random ones against a model
 * that looks at each page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/virtio/virtio-balloon-map.h"

#define PAGE 4096ULL

static BalloonRange pages(uint64_t first, uint64_t n)
{
    return (BalloonRange) { first * PAGE, n * PAGE };
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

static void assert_takes(BalloonMap *map, bool partial, uint64_t first,
                         uint64_t n)
{
    BalloonRange range;

    g_assert_true(balloon_map_take(map, partial, &range));
    g_assert_cmphex(range.start, ==, first * PAGE);
    g_assert_cmphex(range.size, ==, n * PAGE);
}

static void assert_takes_nothing(BalloonMap *map, bool partial)
{
    BalloonRange range;

    g_assert_false(balloon_map_take(map, partial, &range));
}

/* A complete unit goes as a whole, however it came */
static void test_unit(void)
{
    BalloonMap *map = balloon_map_new(64 * PAGE, PAGE, 8 * PAGE);

    assert_takes_nothing(map, false);
    g_assert_false(balloon_map_is_pending(map));
    insert(map, 12, 4);
    assert_takes_nothing(map, false);
    g_assert_true(balloon_map_is_pending(map));
    insert(map, 8, 4);
    g_assert_cmpuint(balloon_map_waiting(map), ==, 8 * PAGE);
    assert_takes(map, false, 8, 8);
    assert_takes_nothing(map, false);
    g_assert_cmpuint(balloon_map_waiting(map), ==, 0);
    balloon_map_free(map);
}

/* What does not complete a unit is had by asking for it */
static void test_partial(void)
{
    BalloonMap *map = balloon_map_new(64 * PAGE, PAGE, 8 * PAGE);

    insert(map, 1, 2);
    insert(map, 5, 12);
    assert_takes(map, false, 8, 8);
    assert_takes_nothing(map, false);
    assert_takes(map, true, 1, 2);
    assert_takes(map, true, 5, 3);
    assert_takes(map, true, 16, 1);
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
    BalloonMap *map = balloon_map_new(32 * PAGE, 8 * PAGE, 8 * PAGE);

    insert(map, 0, 7);
    assert_takes_nothing(map, false);
    assert_takes_nothing(map, true);
    g_assert_cmpuint(balloon_map_waiting(map), ==, 7 * PAGE);
    insert(map, 7, 1);
    assert_takes(map, false, 0, 8);
    /* the guest uses a part: the host has to bring back all of it */
    g_assert_cmpuint(take_back(map, 3, 1, &again), ==, 0);
    g_assert_cmpuint(again, ==, 7);
    g_assert_cmpuint(balloon_map_waiting(map), ==, 7 * PAGE);
    assert_takes_nothing(map, true);
    insert(map, 3, 1);
    assert_takes(map, true, 0, 8);
    balloon_map_free(map);
}

/* What was taken back is not discarded */
static void test_cancel(void)
{
    uint64_t again;
    BalloonMap *map = balloon_map_new(32 * PAGE, PAGE, 8 * PAGE);

    insert(map, 0, 16);
    g_assert_cmpuint(take_back(map, 4, 8, &again), ==, 8);
    g_assert_cmpuint(again, ==, 0);
    assert_takes_nothing(map, false);
    assert_takes(map, true, 0, 4);
    assert_takes(map, true, 12, 4);
    assert_takes_nothing(map, true);
    balloon_map_free(map);
}

/* A page that is listed again has been dealt with */
static void test_twice(void)
{
    BalloonMap *map = balloon_map_new(32 * PAGE, 4 * PAGE, 4 * PAGE);

    insert(map, 4, 4);
    assert_takes(map, false, 4, 4);
    insert(map, 5, 1);
    assert_takes_nothing(map, true);
    insert(map, 0, 12);
    assert_takes(map, false, 0, 4);
    assert_takes(map, false, 8, 4);
    assert_takes_nothing(map, true);
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

static bool model_is_held(Model *m, unsigned first, unsigned n)
{
    for (unsigned i = first; i < MIN(first + n, m->size); i++) {
        if (!m->held[i]) {
            return false;
        }
    }
    return true;
}

static void model_insert(Model *m, unsigned first, unsigned n)
{
    unsigned fresh = 0;

    for (unsigned i = first; i < first + n; i++) {
        fresh += !m->held[i];
        m->waiting[i] |= !m->held[i];
        m->held[i] = true;
    }
    g_assert_cmpuint(insert(m->map, first, n), ==, fresh);
}

static void model_remove(Model *m, unsigned first, unsigned n)
{
    unsigned waited = 0;
    unsigned wait_again = 0;
    uint64_t again;

    for (unsigned i = first; i < first + n; i++) {
        waited += m->waiting[i];
        m->held[i] = m->waiting[i] = false;
    }
    for (unsigned i = ROUND_DOWN(first, m->page);
         i < ROUND_UP(first + n, m->page); i++) {
        wait_again += m->held[i] && !m->waiting[i];
        m->waiting[i] |= m->held[i];
    }
    g_assert_cmpuint(take_back(m->map, first, n, &again), ==, waited);
    g_assert_cmpuint(again, ==, wait_again);
}

/* Returns false when there was nothing to take */
static bool model_take(Model *m, bool partial)
{
    BalloonRange range;
    unsigned first, n, unit;

    if (!balloon_map_take(m->map, partial, &range)) {
        return false;
    }
    first = range.start / PAGE;
    n = range.size / PAGE;
    unit = ROUND_DOWN(first, m->unit);
    g_assert_cmpuint(n, >, 0);
    g_assert_cmpuint(first % m->page, ==, 0);
    g_assert_cmpuint(n % m->page, ==, 0);
    g_assert_cmpuint(first + n, <=, unit + m->unit);
    g_assert_true(model_is_held(m, first, n));
    g_assert_true(partial || model_is_held(m, unit, m->unit));
    for (unsigned i = first; i < first + n; i++) {
        g_assert_true(m->waiting[i]);
        m->waiting[i] = false;
    }
    return true;
}

/* All that can go has gone */
static void model_assert_drained(Model *m, unsigned piece)
{
    for (unsigned i = 0; i < m->size; i++) {
        g_assert_false(m->waiting[i] &&
                       model_is_held(m, ROUND_DOWN(i, piece), piece));
    }
}

static void model_assert_same(Model *m)
{
    unsigned waiting = 0;
    uint64_t at = 0;
    BalloonRange range;

    for (unsigned i = 0; i < m->size; i++) {
        waiting += m->waiting[i];
    }
    g_assert_cmpuint(balloon_map_waiting(m->map), ==, waiting * PAGE);
    while (balloon_map_next(m->map, at, &range)) {
        g_assert_true(model_is_held(m, range.start / PAGE,
                                    range.size / PAGE));
        for (; at < range.start; at += PAGE) {
            g_assert_false(m->held[at / PAGE]);
        }
        at = range.start + range.size;
        g_assert_true(at == m->size * PAGE || !m->held[at / PAGE]);
    }
    for (; at < m->size * PAGE; at += PAGE) {
        g_assert_false(m->held[at / PAGE]);
    }
}

static void model_step(Model *m)
{
    unsigned n = 1 + g_test_rand_int_range(0, g_test_rand_bit() ? 8 : 300);
    unsigned first = g_test_rand_int_range(0, m->size - n);

    switch (g_test_rand_int_range(0, 8)) {
    case 0 ... 3:
        model_insert(m, first, n);
        break;
    case 4 ... 5:
        model_remove(m, first, n);
        break;
    case 6:
        for (unsigned i = 0; i < n && model_take(m, first % 2); i++) {
            continue;
        }
        break;
    default:
        while (model_take(m, false)) {
            continue;
        }
        model_assert_drained(m, m->unit);
        while (first % 2 && model_take(m, true)) {
            continue;
        }
        if (first % 2) {
            model_assert_drained(m, m->page);
            g_assert_false(balloon_map_is_pending(m->map));
        }
    }
}

static void test_random(void)
{
    for (int i = 0; i < 60; i++) {
        g_autofree Model *m = g_new0(Model, 1);

        m->page = 1 << g_test_rand_int_range(0, 5);
        m->unit = m->page << g_test_rand_int_range(0, 6);
        /* the last unit need not be there as a whole */
        m->size = N - m->page * g_test_rand_int_range(0, 5);
        m->map = balloon_map_new(m->size * PAGE, m->page * PAGE,
                                 m->unit * PAGE);
        for (int step = 0; step < 200; step++) {
            model_step(m);
            model_assert_same(m);
        }
        balloon_map_free(m->map);
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
    g_test_add_func("/virtio-balloon/map/random", test_random);
    return g_test_run();
}
