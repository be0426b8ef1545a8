/*
 * Memory that does not come back: query-balloon names the cause
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qemu/units.h"
#include "virtio-balloon-hugepages.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-manage.h"
#include "virtio-balloon-monitor.h"

#define REPORT BALLOON_VQ_FIRST_OPTIONAL
#define REPORTING "virtio-balloon-pci,free-page-reporting=on"
#define RAM_OPTIONS "-m 128 -machine pc,memory-backend=ram "
#define PAGES 16
#define SIZE (PAGES * BALLOON_PAGE)

/* Guest memory that nobody uses, in a huge page of its own */
#define AREA (32 * MiB)

/* Where a PC has its DIMMs */
#define DIMM (4 * GiB)

#define HUGE (2 * MiB)
#define HUGE_PAGES (128 * MiB / HUGE)

static void start(BalloonDriver *d, const char *device, const char *options)
{
    balloon_boot(d, device, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

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
    start(&d, NULL, "-m 128 -overcommit mem-lock=on 2> /dev/null");
    balloon_send_range(&d, BALLOON_VQ_INFLATE, AREA, PAGES);
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
    g_assert_cmpint(ftruncate(fd, 128 * MiB), ==, 0);
    close(fd);
    options = g_strdup_printf("-m 128,slots=1,maxmem=512M -object"
                              " memory-backend-file,id=file,size=128M,"
                              "share=on,readonly=on,mem-path=%s"
                              " -device pc-dimm,memdev=file", file);
    start(&d, NULL, options);
    balloon_send_range(&d, BALLOON_VQ_INFLATE, DIMM, PAGES);
    balloon_assert_all_skipped(d.qts, "unsupported", SIZE);
    balloon_quit(&d);
    g_free(options);

    /* of a private mapping it is the guest's copy that goes */
    options = g_strdup_printf(RAM_OPTIONS "-object memory-backend-file,id=ram,"
                              "size=128M,share=off,readonly=on,rom=off,"
                              "mem-path=%s", file);
    start(&d, NULL, options);
    balloon_send_range(&d, BALLOON_VQ_INFLATE, AREA, PAGES);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==, SIZE);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, SIZE);
    balloon_quit(&d);
    unlink(file);
}

static bool huge_pages_are_free(void)
{
    g_autofree char *meminfo = NULL;
    const char *at;

    g_assert_true(g_file_get_contents("/proc/meminfo", &meminfo, NULL, NULL));
    at = strstr(meminfo, "HugePages_Free:");
    return at && strstr(meminfo, "Hugepagesize:       2048 kB") &&
           atol(at + strlen("HugePages_Free:")) >= HUGE_PAGES;
}

/* A piece of a huge page is nothing; a whole one comes back */
static void hugetlb(void)
{
    BalloonDriver d;

    if (!balloon_hugepages_take(HUGE_PAGES) && !huge_pages_are_free()) {
        g_test_skip("the host has no huge pages, and cannot get any");
        return;
    }
    start(&d, REPORTING, RAM_OPTIONS "-object memory-backend-memfd,id=ram,"
          "size=128M,hugetlb=on,hugetlbsize=2M");
    balloon_send_range(&d, BALLOON_VQ_INFLATE, AREA, HUGE / BALLOON_PAGE / 2);
    balloon_assert_all_skipped(d.qts, "partial", HUGE / 2);
    balloon_send_one(&d, REPORT, AREA + HUGE / 2, 2 * HUGE, true);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==, HUGE);
    g_assert_cmpuint(balloon_skipped(d.qts, "partial"), ==, HUGE / 2 + HUGE);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, HUGE / 2 + 2 * HUGE);
    balloon_quit(&d);
    balloon_hugepages_restore();
}

/* What the guest's free pages contain must stay */
static void poison(void)
{
    BalloonDriver d;

    balloon_boot(&d, REPORTING, "-m 128");
    balloon_negotiate(&d, BALLOON_ALL_FEATURES);
    balloon_writel(&d, BALLOON_CFG_POISON, 0xaaaaaaaa);
    balloon_setup_queues(&d);
    qvirtio_set_driver_ok(d.vdev);
    balloon_send_one(&d, REPORT, AREA, SIZE, true);
    balloon_assert_all_skipped(d.qts, "poison", SIZE);
    balloon_quit(&d);
}

/* A report of pieces of pages */
static void misaligned(void)
{
    BalloonDriver d;

    start(&d, REPORTING, "-m 128");
    balloon_send(&d, REPORT, (BalloonSeg[]) {
        { AREA + 1, BALLOON_PAGE, true },
        { AREA + SIZE, BALLOON_PAGE - 1, true },
        { AREA + SIZE - 8, 16, true },
    }, 3);
    balloon_assert_all_skipped(d.qts, "partial", 2 * BALLOON_PAGE - 1 + 16);
    balloon_quit(&d);
}

/* Holes, and places where there never was memory */
static void not_ram(void)
{
    static const uint32_t pfns[] = { 0xffffffff, 0xfee00, 0x80000 };
    BalloonDriver d;

    start(&d, REPORTING, "-m 128");
    balloon_send_pfns(&d, BALLOON_VQ_INFLATE, pfns, ARRAY_SIZE(pfns));
    balloon_assert_all_skipped(d.qts, "not-ram", 3 * BALLOON_PAGE);
    balloon_send_one(&d, REPORT, 0xfee00000, 64, true);
    balloon_assert_all_skipped(d.qts, "not-ram", 3 * BALLOON_PAGE + 64);
    balloon_quit(&d);
}

/* Without a driver nothing is given up, whatever the target */
static void no_driver(void)
{
    BalloonDriver d;

    balloon_boot(&d, NULL, "-m 128");
    balloon_set_target(d.qts, 64 * MiB);
    balloon_assert_state(d.qts, "no-driver", NULL);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, 0);
    balloon_quit(&d);
}

void balloon_add_cause_tests(void)
{
    qtest_add_func(BALLOON_MANAGE "causes/no-driver", no_driver);
    qtest_add_func(BALLOON_MANAGE "causes/locked", locked);
    qtest_add_func(BALLOON_MANAGE "causes/read-only-file", read_only_file);
    qtest_add_func(BALLOON_MANAGE "causes/hugetlb", hugetlb);
    qtest_add_func(BALLOON_MANAGE "causes/poison", poison);
    qtest_add_func(BALLOON_MANAGE "causes/misaligned", misaligned);
    qtest_add_func(BALLOON_MANAGE "causes/not-ram", not_ram);
}
