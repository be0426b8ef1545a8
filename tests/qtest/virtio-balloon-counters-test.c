/*
 * The counters of the virtio balloon: every byte is accounted for, and of
 * memory that does not come back query-balloon names the cause
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "virtio-balloon-manage.h"

/* Some pages, for most that can happen to them */
#define SIZE (16 * BALLOON_PAGE)

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

/* Where a PC has its DIMMs */
#define DIMM (4 * GiB)

static bool may_lock_memory(void)
{
    struct rlimit limit;

    return geteuid() == 0 || (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
                              limit.rlim_cur == RLIM_INFINITY);
}

/* The host's kernel does not take locked memory */
static void locked(void)
{
    BalloonDriver d;

    if (!may_lock_memory()) {
        g_test_skip("memory cannot be locked");
        return;
    }
    balloon_boot_and_start(&d, NULL,
                           MEMORY " -overcommit mem-lock=on 2> /dev/null");
    balloon_inflate(&d, AREA, SIZE);
    balloon_assert_all_skipped(d.qts, "refused", SIZE);
    g_assert_cmpuint(balloon_counter(d.qts, "discard-calls"), >=, 1);
    balloon_assert_state(d.qts, "reached", NULL);
    balloon_quit(&d);
}

/* Shared memory that may not be written cannot be punched */
static void read_only_file(void)
{
    g_autofree char *options = NULL;
    g_autofree char *file = NULL;
    BalloonDriver d;
    int fd = g_file_open_tmp("virtio-balloon-XXXXXX", &file, NULL);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, RAM), ==, 0);
    close(fd);
    options = g_strdup_printf("-m 128,slots=1,maxmem=512M -object"
                              " memory-backend-file,id=file,size=128M,"
                              "share=on,readonly=on,mem-path=%s"
                              " -device pc-dimm,memdev=file", file);
    balloon_boot_and_start(&d, NULL, options);
    balloon_inflate(&d, DIMM, SIZE);
    balloon_assert_all_skipped(d.qts, "unsupported", SIZE);
    balloon_quit(&d);
    g_free(options);

    /* of a private mapping the guest's copy goes, if the file is there or not */
    options = g_strdup_printf(MEMORY_OF("file,share=off,readonly=on,rom=off,"
                                        "mem-path=%s"), file);
    for (int named = 1; named >= 0; named--) {
        balloon_boot_and_start(&d, NULL, options);
        if (!named) {
            unlink(file);
        }
        balloon_inflate(&d, AREA, SIZE);
        g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==, SIZE);
        g_assert_cmpuint(balloon_assert_sum(d.qts), ==, SIZE);
        balloon_quit(&d);
    }
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

    balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, ARRAY_SIZE(pfns));
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
    qtest_clock_step(d->qts, 10 * SECOND);
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
    g_autofree char *file = balloon_migration_file();

    if (!balloon_try_capability(d->qts, "background-snapshot")) {
        return;
    }
    balloon_assert_event(d->qts, "reached", NULL);
    qtest_clock_step(d->qts, SECOND);
    balloon_migrate_slowly(d->qts, file);
    /* its thread stops the machine for a moment, and starts it again */
    balloon_wait_event(d->qts, "reached", "background-snapshot");
    assert_inhibited(d, "background-snapshot");
    balloon_assert_bytes(d, AREA, SIZE, OLD);
    balloon_migrate_cancel(d->qts);
    /* nobody asks, and it is noticed all the same */
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_assert_event(d->qts, "reached", NULL);
    balloon_assert_state(d->qts, "reached", NULL);
    unlink(file);
}

/*
 * A target can be waited for while a device is assigned, and without any driver
 * it is told that memory will not come
 */
static void events(BalloonDriver *d)
{
    balloon_plug_vfio(d->qts);
    qtest_clock_step(d->qts, 10 * SECOND);
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

/* Begin a postcopy migration that lasts; the guest goes on in @d */
static void start_postcopy(BalloonDriver *source, BalloonDriver *d,
                           const char *uri)
{
    balloon_migrate_incoming(d->qts, uri);
    balloon_set_bandwidth(source->qts, 64 * KiB);
    set_postcopy_bandwidth(source->qts, 64 * KiB);
    balloon_migrate_to(source->qts, uri);
    balloon_wait_for(balloon_migration_is(source->qts, "active"));
    qtest_qmp_assert_success(source->qts,
                             "{'execute': 'migrate-start-postcopy'}");
    balloon_wait_for(balloon_migration_is(d->qts, "postcopy-active"));
    qtest_qmp_eventwait(d->qts, "RESUME");
    balloon_adopt(d, source);
}

/* The destination of a postcopy migration would ask for pages twice */
static void incoming_postcopy(BalloonDriver *d)
{
    g_autofree char *path = balloon_migration_file();
    g_autofree char *uri = g_strconcat("unix:", path, NULL);
    BalloonDriver source = *d;

    balloon_boot_incoming(d, REPORTING, MEMORY);
    if (balloon_try_capability(d->qts, "postcopy-ram") &&
        balloon_try_capability(source.qts, "postcopy-ram")) {
        start_postcopy(&source, d, uri);
        assert_inhibited(d, "incoming-postcopy");
        set_postcopy_bandwidth(source.qts, 0);
        balloon_wait_for(balloon_migration_is(d->qts, "completed"));
        /* QEMU says so a moment before postcopy has come to its end */
        balloon_wait_for(!balloon_info_has(d, "inhibited-by"));
        balloon_assert_bytes(d, AREA, AREA_SIZE, OLD);
    }
    balloon_quit(&source);
    unlink(path);
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
    { "causes/hugetlb", hugetlb, REPORTING,
      MEMORY_OF("memfd,hugetlb=on,hugetlbsize=2M"),
      .huge_pages = RAM / HUGE },
    { "causes/poison", poison, REPORTING, .no_driver = true },
    { "causes/misaligned", misaligned, REPORTING },
    { "causes/not-ram", not_ram, REPORTING },
    { "inhibited/vfio", vfio, REPORTING, .host = HOST_WITH_VFIO },
    { "inhibited/events", events, REPORTING, .no_driver = true,
      .host = HOST_WITH_VFIO },
    { "inhibited/background-snapshot", background_snapshot, REPORTING },
    { "inhibited/incoming-postcopy", incoming_postcopy, REPORTING },
};

void balloon_add_counter_tests(void)
{
    balloon_add_cases(BALLOON_MANAGE, cases, ARRAY_SIZE(cases));
    qtest_add_func(BALLOON_MANAGE "causes/locked", locked);
    qtest_add_func(BALLOON_MANAGE "causes/read-only-file", read_only_file);
}
