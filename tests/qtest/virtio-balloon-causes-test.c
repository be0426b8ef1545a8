/*
 * Memory that does not come back: query-balloon names the cause
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "virtio-balloon-hugepages.h"
#include "virtio-balloon-manage.h"

#define SIZE (16 * BALLOON_PAGE)

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

    /* of a private mapping it is the guest's copy that goes */
    options = g_strdup_printf(MEMORY_OF("file,share=off,readonly=on,rom=off,"
                                        "mem-path=%s"), file);
    balloon_boot_and_start(&d, NULL, options);
    balloon_inflate(&d, AREA, SIZE);
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
           atol(at + strlen("HugePages_Free:")) >= RAM / HUGE;
}

/* A piece of a huge page is nothing; a whole one comes back */
static void hugetlb(void)
{
    BalloonDriver d;

    if (!balloon_hugepages_take(RAM / HUGE) && !huge_pages_are_free()) {
        g_test_skip("the host has no huge pages, and cannot get any");
        return;
    }
    balloon_boot_and_start(&d, REPORTING,
                           MEMORY_OF("memfd,hugetlb=on,hugetlbsize=2M"));
    balloon_inflate(&d, AREA, HUGE / 2);
    balloon_assert_all_skipped(d.qts, "partial", HUGE / 2);
    balloon_send_one(&d, REPORT, AREA + HUGE / 2, 2 * HUGE, true);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==, HUGE);
    g_assert_cmpuint(balloon_skipped(d.qts, "partial"), ==, HUGE / 2 + HUGE);
    g_assert_cmpuint(balloon_assert_sum(d.qts), ==, HUGE / 2 + 2 * HUGE);
    balloon_quit(&d);
    balloon_hugepages_restore();
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

static const BalloonCase cases[] = {
    { "causes/poison", poison, REPORTING, .no_driver = true },
    { "causes/misaligned", misaligned, REPORTING },
    { "causes/not-ram", not_ram, REPORTING },
};

void balloon_add_cause_tests(void)
{
    balloon_add_cases(BALLOON_MANAGE, cases, ARRAY_SIZE(cases));
    qtest_add_func(BALLOON_MANAGE "causes/locked", locked);
    qtest_add_func(BALLOON_MANAGE "causes/read-only-file", read_only_file);
    qtest_add_func(BALLOON_MANAGE "causes/hugetlb", hugetlb);
}
