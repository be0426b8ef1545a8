/*
 * The counters of the virtio balloon: every byte is accounted for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-manage.h"

/* What random requests are made of */
#define MIX_PAGES 256
#define PFNS_MAX 600
#define SEGS_MAX 8

/* A request that takes many slices has so many lists */
#define LISTS 8

/* Known requests: each byte has its place, and so have the calls */
static void exact(BalloonDriver *d)
{
    const uint32_t pfn = BALLOON_PFN(AREA);
    const uint32_t pfns[] = { pfn, pfn + 1, pfn + 2, pfn, 0xffffffff,
                              pfn + 5 };

    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 0);
    balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, 6);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "inflated"), ==, 6);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "discarded"), ==, 4);
    g_assert_cmpuint(balloon_skipped(d->qts, "repeated"), ==, BALLOON_PAGE);
    g_assert_cmpuint(balloon_skipped(d->qts, "not-ram"), ==, BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), >=, 1);
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), <=, 2);

    balloon_send_pfns(d, BALLOON_VQ_DEFLATE, pfns, 5);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "deflated"), ==, 5);

    balloon_send_one(d, REPORT, AREA + 100, 2 * BALLOON_PAGE, true);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "reported"), ==, 2);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "discarded"), ==, 5);
    g_assert_cmpuint(balloon_skipped(d->qts, "partial"), ==, BALLOON_PAGE);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 8 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==, 0);
    g_assert_cmpuint(balloon_counter(d->qts, "hinted"), ==, 0);

    /* a reset takes nothing back of what has been */
    balloon_reset(d);
    qtest_system_reset(d->qts);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 8 * BALLOON_PAGE);
}

/* Half a page number is none */
static void cut_off(BalloonDriver *d)
{
    uint64_t list = balloon_alloc(d, 16, 0xff);

    balloon_send_one(d, BALLOON_VQ_INFLATE, list, 3, false);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 0);
    balloon_send_one(d, BALLOON_VQ_INFLATE, list, 11, false);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 2 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "inflated"), ==, 2);
}

static uint32_t random_pfn(void)
{
    switch (g_test_rand_int_range(0, 8)) {
    case 0:
        return 0xffffffff - g_test_rand_int_range(0, 4);
    case 1:
        return BALLOON_PFN(0xa0000) + g_test_rand_int_range(0, 96);
    case 2:
        return BALLOON_PFN(AREA);
    default:
        return BALLOON_PFN(AREA) + g_test_rand_int_range(0, MIX_PAGES);
    }
}

/* Returns how many bytes it gave up */
static uint64_t inflate_randomly(BalloonDriver *d)
{
    uint32_t pfns[PFNS_MAX];
    unsigned n = g_test_rand_int_range(1, PFNS_MAX + 1);

    for (unsigned i = 0; i < n; i++) {
        pfns[i] = random_pfn();
    }
    balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, n);
    return (uint64_t)n * BALLOON_PAGE;
}

static uint64_t report_randomly(BalloonDriver *d)
{
    BalloonSeg segs[SEGS_MAX];
    unsigned n = g_test_rand_int_range(1, SEGS_MAX + 1);
    uint64_t size = 0;

    for (unsigned i = 0; i < n; i++) {
        uint64_t unit = g_test_rand_bit() ? BALLOON_PAGE : 1;
        uint64_t at = g_test_rand_int_range(0, MIX_PAGES / 2 * BALLOON_PAGE);
        uint64_t len = g_test_rand_int_range(1, 100 * BALLOON_PAGE);

        segs[i] = (BalloonSeg) { AREA + ROUND_DOWN(at, unit),
                                 ROUND_UP(len, unit), true };
        size += segs[i].len;
    }
    balloon_send(d, REPORT, segs, n);
    return size;
}

/* Sense and nonsense, in any order: the sum holds after each request */
static void mix(BalloonDriver *d)
{
    uint64_t given = 0;

    balloon_start_poison(d, GPOINTER_TO_UINT(balloon_case()->data));
    for (int i = 0; i < 100; i++) {
        given += g_test_rand_bit() ? inflate_randomly(d) : report_randomly(d);
        g_assert_cmpuint(balloon_assert_sum(d->qts), ==, given);
    }
}

/* A request that takes many slices: the sum holds at each moment of it */
static void slices(BalloonDriver *d)
{
    uint32_t head = balloon_post_huge(d, AREA, LISTS);
    uint64_t given = 0;

    for (int i = 0; i < 2; i++) {
        uint64_t now = balloon_assert_sum(d->qts);

        g_assert_cmpuint(now, >=, given);
        given = now;
    }
    /* too long to be finished: it begins anew */
    balloon_stop(d);
    balloon_assert_sum(d->qts);
    balloon_cont(d);
    balloon_wait_served(d, BALLOON_VQ_INFLATE, head);
    g_assert_cmpuint(balloon_assert_sum(d->qts), >=,
                     (uint64_t)BALLOON_HUGE_PFNS * LISTS * BALLOON_PAGE);
    /* with a reset in the middle, what was done is what counts */
    balloon_post_huge(d, AREA, LISTS);
    balloon_reset(d);
}

/* A migration's hints are counted apart: the host does not take memory */
static void hints(BalloonDriver *d)
{
    const int hint = BALLOON_VQ_FIRST_OPTIONAL;
    g_autofree char *file = balloon_migration_file();
    uint32_t id, wire;

    balloon_send_one(d, hint, AREA, 4 * BALLOON_PAGE, true);
    g_assert_cmpuint(balloon_counter(d->qts, "hinted"), ==, 0);
    balloon_migrate_slowly(d->qts, file);
    balloon_wait_for((id = balloon_readl(d, BALLOON_CFG_CMD_ID)) > 1);
    wire = balloon_wire32(d, id);
    balloon_send_one(d, hint, balloon_copy(d, &wire, sizeof(wire)),
                     sizeof(wire), false);
    balloon_send_one(d, hint, AREA, 8 * BALLOON_PAGE, true);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "hinted"), ==, 8);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 0);
    balloon_migrate_cancel(d->qts);
    unlink(file);
}

static const BalloonCase cases[] = {
    { "counters/exact", exact, REPORTING },
    { "counters/cut-off", cut_off },
    { "counters/mix/anonymous", mix, REPORTING, .no_driver = true },
    { "counters/mix/memfd", mix, REPORTING, SHARED, .no_driver = true },
    { "counters/mix/private-memfd", mix, REPORTING,
      MEMORY_OF("memfd,share=off"), .no_driver = true },
    { "counters/mix/poison", mix, REPORTING, NULL,
      GUINT_TO_POINTER(0xaaaaaaaa), .no_driver = true },
    { "counters/slices", slices, NULL, SHARED },
    { "counters/hints", hints, PLAIN ",free-page-hint=on,iothread=io",
      MEMORY " -object iothread,id=io" },
};

void balloon_add_counter_tests(void)
{
    balloon_add_cases(BALLOON_MANAGE, cases, ARRAY_SIZE(cases));
}
