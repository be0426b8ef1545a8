/*
 * The counters of the virtio balloon: every byte is accounted for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-manage.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define REPORT BALLOON_VQ_FIRST_OPTIONAL
#define REPORTING "virtio-balloon-pci,free-page-reporting=on"

/* What random requests are made of */
#define AREA_PAGES 256
#define PFNS_MAX 600
#define SEGS_MAX 8

/* Known requests: each byte has its place, and so have the calls */
static void exact(void)
{
    BalloonDriver d;
    uint64_t mem;
    uint32_t pfns[6];

    balloon_boot(&d, REPORTING, "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, 0);
    mem = balloon_dirty_pages(&d, 8);
    for (int i = 0; i < 3; i++) {
        pfns[i] = BALLOON_PFN(mem) + i;
    }
    pfns[3] = pfns[0];
    pfns[4] = 0xffffffff;
    pfns[5] = BALLOON_PFN(mem) + 5;
    balloon_send_pfns(&d, BALLOON_VQ_INFLATE, pfns, 6);
    g_assert_cmpuint(balloon_counter_pages(d.qts, "inflated"), ==, 6);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==,
                     4 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_skipped(d.qts, "repeated"), ==, BALLOON_PAGE);
    g_assert_cmpuint(balloon_skipped(d.qts, "not-ram"), ==, BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter(d.qts, "discard-calls"), >=, 1);
    g_assert_cmpuint(balloon_counter(d.qts, "discard-calls"), <=, 2);

    balloon_send_pfns(&d, BALLOON_VQ_DEFLATE, pfns, 5);
    g_assert_cmpuint(balloon_counter_pages(d.qts, "deflated"), ==, 5);

    balloon_send_one(&d, REPORT, mem + 100, 2 * BALLOON_PAGE, true);
    g_assert_cmpuint(balloon_counter(d.qts, "reported"), ==, 2 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==,
                     5 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_skipped(d.qts, "partial"), ==, BALLOON_PAGE);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, 8 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, 0);
    g_assert_cmpuint(balloon_counter(d.qts, "hinted"), ==, 0);

    /* a reset takes nothing back of what has been */
    balloon_reset(&d);
    qtest_system_reset(d.qts);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, 8 * BALLOON_PAGE);
    balloon_quit(&d);
}

/* Half a page number is none */
static void cut_off(void)
{
    BalloonDriver d;
    uint64_t list;

    balloon_boot(&d, NULL, "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    list = balloon_alloc(&d, 16, 0xff);
    balloon_send_one(&d, BALLOON_VQ_INFLATE, list, 3, false);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, 0);
    balloon_send_one(&d, BALLOON_VQ_INFLATE, list, 11, false);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, 2 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter_pages(d.qts, "inflated"), ==, 2);
    balloon_quit(&d);
}

static uint32_t random_pfn(GRand *rand, uint64_t area)
{
    switch (g_rand_int_range(rand, 0, 8)) {
    case 0:
        return 0xffffffff - g_rand_int_range(rand, 0, 4);
    case 1:
        return BALLOON_PFN(0xa0000) + g_rand_int_range(rand, 0, 96);
    case 2:
        return BALLOON_PFN(area);
    default:
        return BALLOON_PFN(area) + g_rand_int_range(rand, 0, AREA_PAGES);
    }
}

/* Returns how many bytes it gave up */
static uint64_t inflate_randomly(BalloonDriver *d, GRand *rand, uint64_t area)
{
    uint32_t pfns[PFNS_MAX];
    unsigned n = g_rand_int_range(rand, 1, PFNS_MAX + 1);

    for (unsigned i = 0; i < n; i++) {
        pfns[i] = random_pfn(rand, area);
    }
    balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, n);
    return (uint64_t)n * BALLOON_PAGE;
}

static uint64_t report_randomly(BalloonDriver *d, GRand *rand, uint64_t area)
{
    BalloonSeg segs[SEGS_MAX];
    unsigned n = g_rand_int_range(rand, 1, SEGS_MAX + 1);
    uint64_t size = 0;

    for (unsigned i = 0; i < n; i++) {
        bool aligned = g_rand_boolean(rand);
        uint64_t unit = aligned ? BALLOON_PAGE : 1;

        segs[i] = (BalloonSeg) {
            area + g_rand_int_range(rand, 0, AREA_PAGES / 2 * BALLOON_PAGE) /
                   unit * unit,
            MAX(g_rand_int_range(rand, 1, 100 * BALLOON_PAGE) / unit * unit,
                unit), true,
        };
        size += segs[i].len;
    }
    balloon_send(d, REPORT, segs, n);
    return size;
}

static const struct {
    const char *path;
    const char *options;
    uint32_t poison;
} mixes[] = {
    { "anonymous", "-m 128" },
    { "memfd", "-m 128 -machine memory-backend=ram -object"
      " memory-backend-memfd,id=ram,size=128M,share=on" },
    { "private-memfd", "-m 128 -machine memory-backend=ram -object"
      " memory-backend-memfd,id=ram,size=128M,share=off" },
    { "poison", "-m 128", 0xaaaaaaaa },
};

/* Sense and nonsense, in any order: the sum holds after each request */
static void mix(const void *data)
{
    int which = GPOINTER_TO_INT(data);
    g_autoptr(GRand) rand = g_rand_new_with_seed(which + 1);
    uint64_t given = 0;
    BalloonDriver d;
    uint64_t area;

    balloon_boot(&d, REPORTING, mixes[which].options);
    balloon_negotiate(&d, BALLOON_ALL_FEATURES);
    balloon_writel(&d, BALLOON_CFG_POISON, mixes[which].poison);
    balloon_setup_queues(&d);
    qvirtio_set_driver_ok(d.vdev);
    area = balloon_dirty_pages(&d, AREA_PAGES);
    for (int i = 0; i < 100; i++) {
        given += g_rand_boolean(rand) ? inflate_randomly(&d, rand, area) :
                                        report_randomly(&d, rand, area);
        g_assert_cmpuint(balloon_assert_sum(d.qts), ==, given);
    }
    balloon_quit(&d);
}

/* A request that takes many slices: the sum holds at each moment of it */
static void slices(void)
{
    enum { PAGES = 64 * KiB, LISTS = 4 };
    g_autofree uint32_t *pfns = g_new(uint32_t, PAGES);
    BalloonSeg segs[LISTS];
    BalloonDriver d;
    uint64_t given = 0;
    uint32_t head;

    /* a system call a page: a slice ends anywhere in a list */
    balloon_boot(&d, NULL, "-m 512 -machine memory-backend=ram -object"
                 " memory-backend-memfd,id=ram,size=512M,share=on");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    for (int i = 0; i < PAGES; i++) {
        pfns[i] = BALLOON_PFN(256 * MiB) + i * 7 % PAGES;
    }
    segs[0] = (BalloonSeg) { balloon_copy(&d, pfns, PAGES * sizeof(*pfns)),
                             PAGES * sizeof(*pfns) };
    for (int i = 1; i < LISTS; i++) {
        segs[i] = segs[0];
    }
    head = balloon_post(&d, BALLOON_VQ_INFLATE, segs, LISTS);
    for (int i = 0; !balloon_has_used(&d, BALLOON_VQ_INFLATE); i++) {
        uint64_t now = balloon_assert_sum(d.qts);

        g_assert_cmpuint(now, >=, given);
        given = now;
        if (i % 4 == 1) {
            /* too long to be finished: it begins anew */
            qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
            balloon_assert_sum(d.qts);
            qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
            break;
        }
    }
    balloon_wait_for(balloon_has_used(&d, BALLOON_VQ_INFLATE));
    balloon_wait_served(&d, BALLOON_VQ_INFLATE, head);
    g_assert_cmpuint(balloon_assert_sum(d.qts), >=,
                     (uint64_t)PAGES * LISTS * BALLOON_PAGE);
    /* with a reset in the middle, what was done is what counts */
    balloon_post(&d, BALLOON_VQ_INFLATE, segs, LISTS);
    balloon_reset(&d);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

/* A migration's hints are counted apart: the host does not take memory */
static void hints(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;
    uint64_t mem;
    uint32_t id, wire;

    balloon_boot(&d, "virtio-balloon-pci,free-page-hint=on,iothread=io",
                 "-m 128 -object iothread,id=io");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    mem = balloon_dirty_pages(&d, 16);
    balloon_send_one(&d, BALLOON_VQ_FIRST_OPTIONAL, mem, 4 * BALLOON_PAGE,
                     true);
    g_assert_cmpuint(balloon_counter(d.qts, "hinted"), ==, 0);
    balloon_migrate_slowly(d.qts, file);
    balloon_wait_for((id = balloon_readl(&d, BALLOON_CFG_CMD_ID)) > 1);
    wire = balloon_wire32(&d, id);
    balloon_send_one(&d, BALLOON_VQ_FIRST_OPTIONAL,
                     balloon_copy(&d, &wire, sizeof(wire)), sizeof(wire),
                     false);
    balloon_send_one(&d, BALLOON_VQ_FIRST_OPTIONAL, mem, 8 * BALLOON_PAGE,
                     true);
    g_assert_cmpuint(balloon_counter(d.qts, "hinted"), ==, 8 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, 0);
    balloon_migrate_cancel(d.qts);
    balloon_quit(&d);
    unlink(file);
}

void balloon_add_counter_tests(void)
{
    qtest_add_func(BALLOON_MANAGE "counters/exact", exact);
    qtest_add_func(BALLOON_MANAGE "counters/cut-off", cut_off);
    for (int i = 0; i < ARRAY_SIZE(mixes); i++) {
        g_autofree char *path = g_strconcat(BALLOON_MANAGE "counters/mix/",
                                            mixes[i].path, NULL);

        qtest_add_data_func(path, GINT_TO_POINTER(i), mix);
    }
    qtest_add_func(BALLOON_MANAGE "counters/slices", slices);
    qtest_add_func(BALLOON_MANAGE "counters/hints", hints);
}
