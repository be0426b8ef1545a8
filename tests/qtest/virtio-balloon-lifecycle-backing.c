/*
 * What a virtio balloon does to the files and locks behind guest memory
 *
 * Comments name the section of virtio 1.2 that they test.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-monitor.h"

#define RAM (128 * MiB)
#define RAM_OPTIONS "-m 128 -machine pc,memory-backend=ram "

/* Where a file has its pattern, and the guest its pages */
#define AREA (32 * MiB)
#define PAGES 16
#define FILE_BYTE 0x5a
#define GUEST_BYTE 0xc3

/* A file of the size of the RAM, and one for what QEMU says */
typedef struct Files {
    char *folder;
    char *ram;
    char *log;
} Files;

static void write_at(const char *path, uint64_t offset, uint8_t byte,
                     size_t size)
{
    g_autofree void *data = g_malloc(size);
    int fd = open(path, O_WRONLY);

    memset(data, byte, size);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, data, size, offset), ==, size);
    close(fd);
}

static void make_files(Files *f)
{
    int fd;

    f->folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    f->ram = g_build_filename(f->folder, "ram", NULL);
    f->log = g_build_filename(f->folder, "log", NULL);
    fd = open(f->ram, O_RDWR | O_CREAT, 0600);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, RAM), ==, 0);
    close(fd);
    write_at(f->ram, AREA, FILE_BYTE, PAGES * BALLOON_PAGE);
}

static void remove_files(Files *f)
{
    unlink(f->ram);
    unlink(f->log);
    rmdir(f->folder);
    g_free(f->ram);
    g_free(f->log);
    g_free(f->folder);
}

static void assert_file(const char *path, unsigned page, unsigned n,
                        uint8_t byte)
{
    g_autofree uint8_t *data = g_malloc(n * BALLOON_PAGE);
    int fd = open(path, O_RDONLY);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, data, n * BALLOON_PAGE,
                          AREA + page * BALLOON_PAGE), ==, n * BALLOON_PAGE);
    close(fd);
    for (unsigned i = 0; i < n * BALLOON_PAGE; i++) {
        g_assert_cmphex(data[i], ==, byte);
    }
}

static unsigned long long file_blocks(const char *path)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_blocks;
}

static unsigned count_lines(const char *path, const char *what)
{
    g_autofree char *text = NULL;
    unsigned n = 0;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (char *at = text; (at = strstr(at, what)); at++) {
        n++;
    }
    return n;
}

static void start(BalloonDriver *d, const char *device, const char *options)
{
    balloon_boot(d, device, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

/* The guest fills its pages, and gives those from @first on, @n, away */
static void use_and_inflate(BalloonDriver *d, unsigned first, unsigned n)
{
    qtest_memset(d->qts, AREA, GUEST_BYTE, PAGES * BALLOON_PAGE);
    balloon_send_range(d, BALLOON_VQ_INFLATE, AREA + first * BALLOON_PAGE, n);
    balloon_assert_bytes(d, AREA, first * BALLOON_PAGE, GUEST_BYTE);
    balloon_assert_bytes(d, AREA + (first + n) * BALLOON_PAGE,
                         (PAGES - first - n) * BALLOON_PAGE, GUEST_BYTE);
}

/* Shared memory goes, and only what was listed */
static void test_memfd(void)
{
    BalloonDriver d;

    start(&d, NULL, RAM_OPTIONS "-object memory-backend-memfd,id=ram,"
          "size=128M,share=on");
    use_and_inflate(&d, 4, 8);
    balloon_assert_bytes(&d, AREA + 4 * BALLOON_PAGE, 8 * BALLOON_PAGE, 0);
    balloon_quit(&d);
}

/* Private memory and shared, of a DIMM, in one list, page by page */
static void test_mixed(const void *options)
{
    uint32_t pfns[2 * PAGES];
    BalloonDriver d;

    start(&d, NULL, options);
    qtest_memset(d.qts, AREA, GUEST_BYTE, 2 * PAGES * BALLOON_PAGE);
    qtest_memset(d.qts, 4 * GiB, GUEST_BYTE, 2 * PAGES * BALLOON_PAGE);
    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = balloon_wire32(&d, BALLOON_PFN(i % 2 ? 4 * GiB : AREA) + i);
    }
    balloon_send_pfns(&d, BALLOON_VQ_INFLATE, pfns, ARRAY_SIZE(pfns));
    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        balloon_assert_bytes(&d, AREA + i * BALLOON_PAGE, BALLOON_PAGE,
                             i % 2 ? GUEST_BYTE : 0);
        balloon_assert_bytes(&d, 4 * GiB + i * BALLOON_PAGE, BALLOON_PAGE,
                             i % 2 ? 0 : GUEST_BYTE);
    }
    balloon_quit(&d);
}

#define MIXED_OPTIONS(ram_shared, dimm_shared)                          \
    "-m 128,slots=1,maxmem=1G -machine pc,memory-backend=ram "          \
    "-object memory-backend-memfd,id=ram,size=128M,share=" ram_shared   \
    " -object memory-backend-memfd,id=m0,size=128M,share=" dimm_shared  \
    " -device pc-dimm,memdev=m0,addr=0x100000000"

/* Of a shared file, pages are punched where listed */
static void test_shared_file(void)
{
    BalloonDriver d;
    Files f;
    g_autofree char *options = NULL;
    unsigned long long blocks;

    make_files(&f);
    options = g_strdup_printf(RAM_OPTIONS "-object memory-backend-file,id=ram,"
                              "size=128M,share=on,mem-path=%s", f.ram);
    start(&d, NULL, options);
    balloon_assert_bytes(&d, AREA, PAGES * BALLOON_PAGE, FILE_BYTE);
    blocks = file_blocks(f.ram);
    use_and_inflate(&d, 4, 8);
    balloon_assert_bytes(&d, AREA + 4 * BALLOON_PAGE, 8 * BALLOON_PAGE, 0);
    assert_file(f.ram, 0, 4, GUEST_BYTE);
    assert_file(f.ram, 4, 8, 0);
    assert_file(f.ram, 12, 4, GUEST_BYTE);
    /* The list has taken one page at most, for the pages it took away */
    g_assert_cmpuint(file_blocks(f.ram), <, blocks);
    balloon_quit(&d);
    remove_files(&f);
}

/* A private mapping of a file is never punched */
static void test_private_file(const void *more)
{
    BalloonDriver d;
    Files f;
    g_autofree char *options = NULL;
    unsigned long long blocks;

    make_files(&f);
    options = g_strdup_printf(RAM_OPTIONS "-object memory-backend-file,id=ram,"
                              "size=128M,share=off,mem-path=%s%s -D %s",
                              f.ram, (const char *)more, f.log);
    blocks = file_blocks(f.ram);
    start(&d, "virtio-balloon-pci,free-page-reporting=on", options);
    use_and_inflate(&d, 4, 8);
    assert_file(f.ram, 0, PAGES, FILE_BYTE);
    g_assert_cmpuint(file_blocks(f.ram), ==, blocks);
    /* The guest's copy has gone */
    balloon_assert_bytes(&d, AREA + 4 * BALLOON_PAGE, 8 * BALLOON_PAGE,
                         FILE_BYTE);
    /* A report with poison must leave zeroes, or what there was */
    balloon_send_one(&d, BALLOON_VQ_FIRST_OPTIONAL, AREA, BALLOON_PAGE, true);
    balloon_assert_bytes(&d, AREA, BALLOON_PAGE, GUEST_BYTE);
    assert_file(f.ram, 0, PAGES, FILE_BYTE);
    balloon_quit(&d);
    remove_files(&f);
}

static bool may_lock_memory(void)
{
    struct rlimit limit;

    return geteuid() == 0 || (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
                              limit.rlim_cur == RLIM_INFINITY);
}

/* Memory that cannot go is left alone, and that is said once */
static void test_locked(void)
{
    BalloonDriver d;
    Files f;
    g_autofree char *options = NULL;

    if (!may_lock_memory()) {
        g_test_skip("memory cannot be locked");
        return;
    }
    make_files(&f);
    options = g_strdup_printf("-m 128 -overcommit mem-lock=on 2> %s", f.log);
    start(&d, NULL, options);
    for (int i = 0; i < 10; i++) {
        use_and_inflate(&d, 4, 8);
        use_and_inflate(&d, 1, 1);
    }
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 9);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 9 * BALLOON_PAGE);
    balloon_quit(&d);
    g_assert_cmpuint(count_lines(f.log, "\n"), ==, 1);
    g_assert_cmpuint(count_lines(f.log, "virtio-balloon"), ==, 1);
    remove_files(&f);
}

/* What a guest does wrong is a line a request, not one a page */
static void test_log(void)
{
    BalloonDriver d;
    Files f;
    g_autofree char *options = NULL;
    uint32_t pfns[1024];
    uint64_t list;

    make_files(&f);
    options = g_strdup_printf("-m 128 -d guest_errors -D %s", f.log);
    start(&d, NULL, options);
    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = i % 2 ? 0xffffff00 - i : 0xa0000 / BALLOON_PAGE + i % 32;
    }
    balloon_send_pfns(&d, BALLOON_VQ_INFLATE, pfns, ARRAY_SIZE(pfns));
    g_assert_cmpuint(count_lines(f.log, "\n"), <=, 1);
    list = balloon_copy(&d, pfns, sizeof(pfns));
    balloon_send_one(&d, BALLOON_VQ_INFLATE, list, sizeof(pfns) - 1, false);
    g_assert_cmpuint(count_lines(f.log, "\n"), <=, 2);
    balloon_send_one(&d, BALLOON_VQ_DEFLATE, list, sizeof(pfns) - 1, false);
    g_assert_cmpuint(count_lines(f.log, "\n"), <=, 3);
    balloon_quit(&d);
    remove_files(&f);
}

void balloon_add_backing_tests(void)
{
    qtest_add_func("/virtio-balloon/backing/memfd", test_memfd);
    qtest_add_data_func("/virtio-balloon/backing/mixed/dimm-shared",
                        MIXED_OPTIONS("off", "on"), test_mixed);
    qtest_add_data_func("/virtio-balloon/backing/mixed/ram-shared",
                        MIXED_OPTIONS("on", "off"), test_mixed);
    qtest_add_func("/virtio-balloon/backing/shared-file", test_shared_file);
    qtest_add_func("/virtio-balloon/backing/log", test_log);
    qtest_add_data_func("/virtio-balloon/improved/backing/private-file", "",
                        test_private_file);
    qtest_add_data_func("/virtio-balloon/improved/backing/read-only-file",
                        ",readonly=on,rom=off", test_private_file);
    qtest_add_func("/virtio-balloon/improved/backing/locked", test_locked);
}
