/*
 * The counters of the virtio balloon: every byte is accounted for, and of
 * memory that does not come back query-balloon names the cause
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"
#include "virtio-balloon-migrate.h"

/* Some pages, for most that can happen to them */
#define SIZE (16 * BALLOON_PAGE)

/* What random requests are made of */
#define MIX_PAGES 256
#define PFNS_MAX 600
#define SEGS_MAX 8

/* Known requests: each byte has its place, and so have the calls */
static void exact(BalloonDriver *d)
{
    const uint32_t pfn = BALLOON_PFN(AREA);
    const uint32_t pfns[] = { pfn, pfn + 1, pfn + 2, pfn, 0xffffffff,
                              pfn + 5 };

    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 0);
    balloon_send_pfns(d, INFLATE, pfns, 6);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "inflated"), ==, 6);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "discarded"), ==, 4);
    g_assert_cmpuint(balloon_skipped(d->qts, "repeated"), ==, BALLOON_PAGE);
    g_assert_cmpuint(balloon_skipped(d->qts, "not-ram"), ==, BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), >=, 1);
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), <=, 2);

    balloon_send_pfns(d, DEFLATE, pfns, 5);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "deflated"), ==, 5);

    balloon_send_one(d, REPORT, AREA + 100, 2 * BALLOON_PAGE, true);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "reported"), ==, 2);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "discarded"), ==, 5);
    g_assert_cmpuint(balloon_skipped(d->qts, "partial"), ==, BALLOON_PAGE);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 8 * BALLOON_PAGE);

    /* a reset takes nothing back of what has been */
    balloon_reset(d);
    qtest_system_reset(d->qts);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 8 * BALLOON_PAGE);
}

/* Half a page number is none */
static void cut_off(BalloonDriver *d)
{
    uint64_t list = balloon_alloc(d, 16, 0xff);

    balloon_send_one(d, INFLATE, list, 3, false);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 0);
    balloon_send_one(d, INFLATE, list, 11, false);
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
    balloon_send_pfns(d, INFLATE, pfns, n);
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

    balloon_start_poison(d, GPOINTER_TO_UINT(d->data));
    for (int i = 0; i < 100; i++) {
        given += g_test_rand_bit() ? inflate_randomly(d) : report_randomly(d);
        g_assert_cmpuint(balloon_assert_sum(d->qts), ==, given);
    }
}

/* A migration's hints are counted apart: the host does not take memory */
static void hints(BalloonDriver *d)
{
    balloon_hint(d, AREA, 4 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter(d->qts, "hinted"), ==, 0);
    balloon_migrate_slowly(d->qts);
    balloon_send_id(d, balloon_wait_asked(d));
    balloon_hint(d, AREA, 8 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "hinted"), ==, 8);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 0);
    balloon_migrate_cancel(d->qts);
}

/* A piece of a huge page is nothing; a whole one comes back */
static void hugetlb(BalloonDriver *d)
{
    balloon_inflate(d, AREA, HUGE / 2);
    balloon_assert_all_skipped(d->qts, "partial", HUGE / 2);
    balloon_send_one(d, REPORT, AREA + HUGE / 2, 2 * HUGE, true);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, HUGE);
    g_assert_cmpuint(balloon_skipped(d->qts, "partial"), ==, HUGE / 2 + HUGE);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, HUGE / 2 + 2 * HUGE);
}

/* What the guest's free pages contain must stay */
static void poison(BalloonDriver *d)
{
    balloon_start_poison(d, 0xaaaaaaaa);
    balloon_send_one(d, REPORT, AREA, SIZE, true);
    balloon_assert_all_skipped(d->qts, "poison", SIZE);
}

/* A report of pieces of pages */
static void misaligned(BalloonDriver *d)
{
    balloon_send(d, REPORT, (BalloonSeg[]) {
        { AREA + 1, BALLOON_PAGE, true },
        { AREA + SIZE, BALLOON_PAGE - 1, true },
        { AREA + SIZE - 8, 16, true },
    }, 3);
    balloon_assert_all_skipped(d->qts, "partial", 2 * BALLOON_PAGE - 1 + 16);
}

/* Holes, and places where there never was memory */
static void not_ram(BalloonDriver *d)
{
    static const uint32_t pfns[] = { 0xffffffff, 0xfee00, 0x80000 };

    balloon_send_pfns(d, INFLATE, pfns, ARRAY_SIZE(pfns));
    balloon_assert_all_skipped(d->qts, "not-ram", 3 * BALLOON_PAGE);
    balloon_send_one(d, REPORT, 0xfee00000, 64, true);
    balloon_assert_all_skipped(d->qts, "not-ram", 3 * BALLOON_PAGE + 64);
}

/* Inflating and reporting, and nothing of it is taken */
static void assert_inhibited(BalloonDriver *d, const char *inhibitor)
{
    uint64_t before = balloon_skipped(d->qts, "inhibited");

    balloon_assert_state(d->qts, "reached", inhibitor);
    balloon_inflate(d, AREA, SIZE);
    balloon_send_one(d, REPORT, AREA, SIZE, true);
    g_assert_cmpuint(balloon_skipped(d->qts, "inhibited") - before, ==,
                     2 * SIZE);
    balloon_assert_sum(d->qts);
    balloon_assert_state(d->qts, "reached", inhibitor);
}

/* An assigned device may use any memory at any time, until it is unplugged */
static void vfio(BalloonDriver *d)
{
    balloon_assert_event(d->qts, "reached", NULL);
    qtest_clock_step(d->qts, SECOND);
    balloon_assert_state(d->qts, "reached", NULL);

    /* At rest, and nobody asks: its begin is told all the same ... */
    qtest_clock_step(d->qts, 60 * SECOND);
    balloon_plug_vfio(d->qts);
    balloon_assert_event(d->qts, "reached", "pinned-memory");
    assert_inhibited(d, "pinned-memory");
    balloon_assert_bytes(d, AREA, SIZE, OLD);
    balloon_assert_hmp(d->qts, "info balloon", "balloon: actual=128");

    /* ... and its end, however long that takes */
    qtest_clock_step(d->qts, 60 * SECOND);
    balloon_assert_no_event(d->qts);
    balloon_unplug_vfio(d->qts);
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_assert_event(d->qts, "reached", NULL);
    balloon_send_one(d, REPORT, AREA, SIZE, true);
    balloon_assert_bytes(d, AREA, SIZE, 0);
}

/* A background snapshot has yet to read what the guest gives up */
static void background_snapshot(BalloonDriver *d)
{
    if (!balloon_try_capability(d->qts, "background-snapshot")) {
        return;
    }
    balloon_assert_event(d->qts, "reached", NULL);
    qtest_clock_step(d->qts, SECOND);
    balloon_migrate_slowly(d->qts);
    /* its thread stops the machine for a moment, and starts it again */
    balloon_wait_event(d->qts, "reached", "background-snapshot");
    assert_inhibited(d, "background-snapshot");
    balloon_assert_bytes(d, AREA, SIZE, OLD);
    balloon_migrate_cancel(d->qts);
    /* nobody asks, and it is noticed all the same */
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_assert_event(d->qts, "reached", NULL);
    balloon_assert_state(d->qts, "reached", NULL);
}

/*
 * A target can be waited for while a device is assigned, and without any driver
 * it is told that memory will not come
 */
static void events(BalloonDriver *d)
{
    balloon_plug_vfio(d->qts);
    balloon_assert_event(d->qts, "no-driver", "pinned-memory");
    balloon_start(d, BALLOON_ALL_FEATURES);
    qtest_clock_step(d->qts, SECOND);
    balloon_assert_event(d->qts, "reached", "pinned-memory");
    balloon_set_target(d->qts, RAM - SIZE);
    qtest_clock_step(d->qts, SECOND);
    balloon_assert_event(d->qts, "inflating", "pinned-memory");
    balloon_writel(d, BALLOON_CFG_ACTUAL, SIZE / BALLOON_PAGE);
    qtest_clock_step(d->qts, SECOND);
    balloon_assert_event(d->qts, "reached", "pinned-memory");
}

static void set_postcopy_bandwidth(QTestState *qts, int64_t bytes)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters',"
                             " 'arguments': {'max-postcopy-bandwidth': %"
                             PRId64 "}}", bytes);
}

/*
 * The guest goes on in a new QEMU, which still lacks most of its memory.
 * Returns: false, and the test is skipped, if the host cannot do that
 */
static bool begin_postcopy(BalloonDriver *d, BalloonDriver *source)
{
    *source = *d;
    balloon_set_bandwidth(source->qts, 64 * KiB);
    set_postcopy_bandwidth(source->qts, 64 * KiB);
    if (!balloon_begin_postcopy(source, d)) {
        *d = *source;
        return false;
    }
    balloon_wait_for(balloon_migration_is(source->qts, "active"));
    qtest_qmp_assert_success(source->qts,
                             "{'execute': 'migrate-start-postcopy'}");
    balloon_wait_for(balloon_migration_is(d->qts, "postcopy-active"));
    /* Nobody asks: it is told when the device arrives, before the guest runs */
    balloon_wait_event(d->qts, "reached", "incoming-postcopy");
    qtest_qmp_eventwait(d->qts, "RESUME");
    balloon_adopt(d, source);
    return true;
}

static void end_postcopy(BalloonDriver *d, BalloonDriver *source)
{
    set_postcopy_bandwidth(source->qts, 0);
    balloon_wait_for(balloon_migration_is(d->qts, "completed"));
    /* QEMU says so a moment before postcopy has ended, which is told */
    balloon_look_for_event(d->qts, "reached", NULL);
    balloon_assert_state(d->qts, "reached", NULL);
    balloon_quit(source);
}

/* The destination of a postcopy migration would ask for pages twice */
static void incoming_postcopy(BalloonDriver *d)
{
    BalloonDriver source;

    if (begin_postcopy(d, &source)) {
        qtest_clock_step(d->qts, SECOND);
        assert_inhibited(d, "incoming-postcopy");
        end_postcopy(d, &source);
        balloon_assert_bytes(d, AREA, AREA_SIZE, OLD);
    }
}

/* Nor does QEMU wait for pages because they are to be populated */
static void postcopy_populates_nothing(BalloonDriver *d)
{
    const uint64_t last = RAM - HUGE;
    BalloonDriver source;
    QDict *info;

    balloon_inflate(d, last, HUGE);
    if (begin_postcopy(d, &source)) {
        balloon_deflate(d, last, HUGE);
        info = balloon_migration_info(source.qts);
        g_assert_cmpint(qdict_get_int(qdict_get_qdict(info, "ram"),
                                      "postcopy-requests"), ==, 0);
        qobject_unref(info);
        end_postcopy(d, &source);
    }
}

/* ... nor for a background snapshot that has yet to save them, and is slow */
static void snapshot_populates_nothing(BalloonDriver *d)
{
    const uint64_t size = 16 * MiB;

    if (!balloon_try_capability(d->qts, "background-snapshot")) {
        return;
    }
    balloon_inflate(d, AREA, size);
    balloon_wait_discarded(d->qts);
    balloon_migrate_slowly(d->qts);
    /* A page that reads as zero takes some 10 bytes: a second for ten pages */
    balloon_set_bandwidth(d->qts, 100);
    balloon_deflate(d, AREA, size);
    g_assert_true(balloon_migration_is(d->qts, "active"));
    balloon_migrate_finish(d->qts);
}

static const BalloonTest tests[] = {
    { "counters/exact", exact, REPORTING },
    { "counters/cut-off", cut_off },
    { "counters/mix/anonymous", mix, REPORTING, .unstarted = true },
    { "counters/mix/memfd", mix, REPORTING, SHARED, .unstarted = true },
    { "counters/mix/private-memfd", mix, REPORTING,
      MEMORY_OF("memfd,share=off"), .unstarted = true },
    { "counters/mix/poison", mix, REPORTING, NULL,
      GUINT_TO_POINTER(0xaaaaaaaa), .unstarted = true },
    { "counters/hints", hints, HINTING },
    { "causes/hugetlb", hugetlb, REPORTING, HUGETLB("on"), .huge_pages = true },
    { "causes/poison", poison, REPORTING, .unstarted = true },
    { "causes/misaligned", misaligned, REPORTING },
    { "causes/not-ram", not_ram, REPORTING },
    { "inhibited/vfio", vfio, REPORTING, .vfio = VFIO_HOST },
    { "inhibited/events", events, REPORTING, .unstarted = true,
      .vfio = VFIO_HOST },
    { "inhibited/background-snapshot", background_snapshot, REPORTING },
    { "inhibited/incoming-postcopy", incoming_postcopy, REPORTING },
    { "inhibited/populate-in-postcopy", postcopy_populates_nothing,
      TELL ",populate-on-deflate=on" },
    { "inhibited/populate-in-background-snapshot", snapshot_populates_nothing,
      TELL ",populate-on-deflate=on" },
};

BALLOON_TESTS("manage/", NULL, tests)
