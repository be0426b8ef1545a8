/*
 * A virtio balloon whose host cannot, or does not, do what it should
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-hugepages.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define RAM (128 * MiB)
#define PAGES 16
#define BYTE 0xc3
#define DEVICE "virtio-balloon-pci,free-page-reporting=on"
#define REPORT BALLOON_VQ_FIRST_OPTIONAL

static char *log_file(void)
{
    char *name;
    int fd = g_file_open_tmp("virtio-balloon-XXXXXX", &name, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    return name;
}

/* How many lines the balloon had to say; the file has done its service */
static unsigned log_lines(char *log)
{
    g_autofree char *text = NULL;
    unsigned n = 0;

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    for (char *at = text; (at = strstr(at, "virtio-balloon")); at++) {
        n++;
    }
    unlink(log);
    g_free(log);
    return n;
}

/* A machine on the file that is descriptor @fd of process @pid */
static void boot_on(BalloonDriver *d, pid_t pid, int fd, const char *log)
{
    g_autofree char *options = g_strdup_printf(
        "-m 128 -machine pc,memory-backend=ram -object memory-backend-file,"
        "id=ram,size=128M,share=on,mem-path=/proc/%d/fd/%d 2> %s",
        pid, fd, log);

    balloon_boot(d, DEVICE, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

/* The guest gives pages up in each way; the host keeps them, and all works */
static void assert_kept(BalloonDriver *d)
{
    uint64_t pages = balloon_alloc(d, PAGES * BALLOON_PAGE, BYTE);
    uint32_t pfns[PAGES / 2];

    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = balloon_wire32(d, BALLOON_PFN(pages) + 2 * i);
    }
    for (unsigned i = 0; i < 4; i++) {
        balloon_send_range(d, BALLOON_VQ_INFLATE, pages, PAGES);
        balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, ARRAY_SIZE(pfns));
        balloon_send_one(d, REPORT, pages, PAGES * BALLOON_PAGE, true);
    }
    balloon_assert_bytes(d, pages, PAGES * BALLOON_PAGE, BYTE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, PAGES);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - PAGES * BALLOON_PAGE);
}

/* A memfd that is sealed while QEMU has it: what is mapped may be written */
static void test_sealed(void)
{
    char *log = log_file();
    BalloonDriver d;
    int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, RAM), ==, 0);
    boot_on(&d, getpid(), fd, log);
    g_assert_cmpint(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), ==, 0);
    assert_kept(&d);
    balloon_quit(&d);
    close(fd);
    g_assert_cmpuint(log_lines(log), ==, 1);
}

/* A file in a ramfs, which knows no holes */
static void test_no_holes(void)
{
    char *log = log_file();
    BalloonDriver d;
    int fd;
    pid_t pid = balloon_hold_file("ramfs", NULL, RAM, &fd);

    if (fd < 0) {
        g_test_skip("no ramfs may be mounted");
        log_lines(log);
    } else {
        boot_on(&d, pid, fd, log);
        assert_kept(&d);
        balloon_quit(&d);
        g_assert_cmpuint(log_lines(log), ==, 1);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static bool write_number(const char *folder, const char *name, int64_t value)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    FILE *file = fopen(path, "w");
    bool written = file && fprintf(file, "%" PRId64, value) > 0;

    return file && fclose(file) == 0 && written;
}

/* A new group of processes below @root, with @limit bytes; NULL if not */
static char *make_group(const char *root, const char *limit, int64_t bytes)
{
    g_autofree char *name = g_strdup_printf("virtio-balloon-%d", getpid());
    char *folder = g_build_filename(root, name, NULL);

    if (mkdir(folder, 0755) == 0) {
        if (write_number(folder, limit, bytes)) {
            return folder;
        }
        rmdir(folder);
    }
    g_free(folder);
    return NULL;
}

/*
 * A host that grants half of the guest's memory and kills who takes more: the
 * guest uses all of it, one part after another, and gives back what it used.
 */
static void test_pressure(void)
{
    /* QEMU needs some itself, AddressSanitizer 256 MiB for what was freed */
    const uint64_t part = 256 * MiB, limit = 4 * part;
    char *folder = make_group("/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                              limit) ?:
                   make_group("/sys/fs/cgroup", "memory.max", limit);
    BalloonDriver d;

    if (!folder) {
        g_test_skip("no control group may be made");
        return;
    }
    balloon_boot(&d, DEVICE, "-m 2G");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    g_assert_true(write_number(folder, "cgroup.procs", qtest_pid(d.qts)));
    for (uint64_t at = 2 * part; at < 8 * part; at += part) {
        for (uint64_t i = at; i < at + part; i += MiB) {
            qtest_memset(d.qts, i, BYTE, MiB);
        }
        for (uint64_t i = at; i < at + part; i += MiB) {
            balloon_send_range(&d, BALLOON_VQ_INFLATE, i, MiB / BALLOON_PAGE);
        }
    }
    balloon_quit(&d);
    balloon_wait_for(rmdir(folder) == 0);
    g_free(folder);
}

/* What libqtest knows of the process stays: it cannot end one that has gone */
static void kill_qemu(BalloonDriver *d)
{
    pid_t pid = qtest_pid(d->qts);

    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    qtest_remove_abrt_handler(d->qts);
}

/* Memory that a background snapshot has still to read is kept */
static void test_snapshot(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;
    uint64_t pages;

    balloon_boot(&d, DEVICE, "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    pages = balloon_dirty_pages(&d, 4);
    balloon_set_capability(d.qts, "background-snapshot", true);
    balloon_migrate_slowly(d.qts, file);
    balloon_send_range(&d, BALLOON_VQ_INFLATE, pages, 2);
    balloon_send_one(&d, REPORT, pages + 2 * BALLOON_PAGE, BALLOON_PAGE, true);
    balloon_assert_pages(&d, pages, "xxxx");
    balloon_migrate_finish(d.qts);
    balloon_send_range(&d, BALLOON_VQ_INFLATE, pages, 2);
    balloon_assert_pages(&d, pages, "00xx");
    balloon_quit(&d);
    unlink(file);
}

/*
 * A private mapping of huge pages: with PAGE_POISON, a report may be taken only
 * if zeroes are behind it, and the file tells so by what it takes up.
 */
static void test_private_huge_pages(void)
{
    const uint64_t size = 2 * MiB;
    BalloonDriver d;
    uint64_t addr = 64 * MiB;

    if (!balloon_hugepages_take(RAM / size)) {
        g_test_skip("the host has no huge pages to spare");
        return;
    }
    balloon_boot(&d, DEVICE, "-m 128 -machine pc,memory-backend=ram -object "
                 "memory-backend-memfd,id=ram,size=128M,share=off,hugetlb=on,"
                 "hugetlbsize=2M");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_memset(d.qts, addr, BYTE, 3 * size);
    balloon_send_one(&d, REPORT, addr + size, size, true);
    balloon_assert_bytes(&d, addr, size, BYTE);
    balloon_assert_bytes(&d, addr + size, size, 0);
    balloon_assert_bytes(&d, addr + 2 * size, size, BYTE);
    balloon_quit(&d);
    balloon_hugepages_restore();
}

/*
 * QEMU is killed while it serves a request; the guest goes on from what was
 * saved before, where all its memory is and no request was made yet.
 */
static void test_killed(void)
{
    g_autofree char *file = balloon_migration_file();
    static BalloonDriver source;
    BalloonDriver d;
    uint64_t pages;

    balloon_boot(&source, DEVICE, "-m 256");
    balloon_start(&source, BALLOON_ALL_FEATURES);
    pages = balloon_alloc(&source, 2 * BALLOON_HUGE_PAGES * BALLOON_PAGE,
                          BYTE);
    balloon_migrate(source.qts, file);
    qtest_qmp_assert_success(source.qts, "{'execute': 'cont'}");
    balloon_post_huge(&source, pages, BALLOON_HUGE_MAX);
    kill_qemu(&source);

    balloon_load(&d, &source, DEVICE, "-m 256", file);
    unlink(file);
    /* The rings are as they were saved, and so are the driver's numbers */
    balloon_assert_bytes(&d, pages, 2 * BALLOON_HUGE_PAGES * BALLOON_PAGE,
                         BYTE);
    g_assert_false(balloon_has_used(&d, BALLOON_VQ_INFLATE));
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_works(&d);
    balloon_quit(&d);
}

void balloon_add_fault_tests(void)
{
    qtest_add_func("/virtio-balloon/improved/backing/sealed", test_sealed);
    qtest_add_func("/virtio-balloon/improved/backing/no-holes",
                   test_no_holes);
    qtest_add_func("/virtio-balloon/backing/snapshot", test_snapshot);
    qtest_add_func("/virtio-balloon/backing/private-huge-pages",
                   test_private_huge_pages);
    qtest_add_func("/virtio-balloon/backing/pressure", test_pressure);
    qtest_add_func("/virtio-balloon/reset/killed", test_killed);
}
