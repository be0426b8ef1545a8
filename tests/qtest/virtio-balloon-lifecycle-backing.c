/*
 * What a virtio balloon does to the files behind guest memory, and what it does
 * when the host keeps them as they are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-monitor.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* Where a file has its pattern, in the middle of a hole, and the guest pages */
#define AREA (32 * MiB)
#define PAGES 16
#define SIZE (PAGES * BALLOON_PAGE)
#define FILE_BYTE 0x5a
#define GUEST_BYTE 0xc3

/* Pages that the guest gives up of them */
#define GIVEN (AREA + 4 * BALLOON_PAGE)
#define GIVEN_SIZE (8 * BALLOON_PAGE)
#define GIVEN_END (GIVEN + GIVEN_SIZE)

#define DEVICE "virtio-balloon-pci,free-page-reporting=on"
#define REPORT BALLOON_VQ_FIRST_OPTIONAL

/* A file of the size of the RAM; the caller removes it */
static char *make_file(void)
{
    uint8_t data[SIZE];
    char *path;
    int fd = g_file_open_tmp("virtio-balloon-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    memset(data, FILE_BYTE, sizeof(data));
    g_assert_cmpint(ftruncate(fd, BALLOON_RAM), ==, 0);
    g_assert_cmpint(pwrite(fd, data, sizeof(data), AREA), ==, sizeof(data));
    close(fd);
    return path;
}

/* What of the file is there: a page that is punched is not */
static unsigned long long file_blocks(const char *path)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_blocks;
}

/* Have the file for RAM, with those properties; what QEMU says is in @log */
static void boot_on_file(BalloonDriver *d, const char *path, const char *how,
                         const char *log)
{
    g_autofree char *options = g_strdup_printf(
        BALLOON_RAM_OF("file,mem-path=%s,%s") "%s%s", path, how,
        log ? "2> " : "", log ? log : "");

    balloon_boot(d, DEVICE, options);
}

/*
 * Of a shared file, pages are punched.  A private mapping is never punched: it
 * is the guest's copy that goes.
 */
static void test_file(const void *how)
{
    const bool shared = g_str_equal(how, "share=on");
    g_autofree char *path = make_file();
    unsigned long long blocks;
    BalloonDriver d;

    boot_on_file(&d, path, how, NULL);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_bytes(&d, AREA, SIZE, FILE_BYTE);
    blocks = file_blocks(path);
    qtest_memset(d.qts, AREA, GUEST_BYTE, SIZE);
    balloon_inflate(&d, GIVEN, GIVEN_SIZE);
    /* To look at a page that is punched may bring it back */
    if (shared) {
        /* The list has taken one page at most, for the pages it took away */
        g_assert_cmpuint(file_blocks(path), <, blocks);
    } else {
        g_assert_cmpuint(file_blocks(path), ==, blocks);
    }
    balloon_assert_bytes(&d, AREA, GIVEN - AREA, GUEST_BYTE);
    balloon_assert_bytes(&d, GIVEN, GIVEN_SIZE, shared ? 0 : FILE_BYTE);
    balloon_assert_bytes(&d, GIVEN_END, AREA + SIZE - GIVEN_END, GUEST_BYTE);
    balloon_quit(&d);
    unlink(path);
}

/* Every byte is as the guest left it, or zero */
static void assert_no_secret(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    g_autofree uint8_t *data = g_malloc(size);

    qtest_memread(d->qts, addr, data, size);
    for (uint64_t i = 0; i < size; i++) {
        g_assert_true(data[i] == 0 || data[i] == GUEST_BYTE);
    }
}

/*
 * virtio 1.2, 5.5.6.7.2: with PAGE_POISON, nothing but poison_val may be in
 * pages that were reported.  Those of a private mapping turn into what is in
 * the file.
 */
static void test_reported_file(void)
{
    const uint64_t start = AREA - SIZE, size = 3 * SIZE;
    g_autofree char *path = make_file();
    unsigned long long blocks = file_blocks(path);
    BalloonDriver d;

    boot_on_file(&d, path, "share=off", NULL);
    balloon_start(&d, 1ull << VIRTIO_BALLOON_F_PAGE_POISON |
                      1ull << VIRTIO_BALLOON_F_REPORTING);
    balloon_assert_bytes(&d, AREA, SIZE, FILE_BYTE);
    /* All of it, and a part that begins and one that ends in the hole */
    for (int i = 0; i < 3; i++) {
        qtest_memset(d.qts, start, GUEST_BYTE, size);
        balloon_send(&d, REPORT, (BalloonSeg[]) {
            { start + i * BALLOON_PAGE, size - 2 * i * BALLOON_PAGE, true },
            { AREA - BALLOON_PAGE, 2 * BALLOON_PAGE, true },
        }, 1 + i % 2);
        assert_no_secret(&d, start, size);
    }
    g_assert_cmpuint(file_blocks(path), ==, blocks);
    balloon_quit(&d);
    unlink(path);
}

/* Private memory and shared, of a DIMM, in one list, page by page */
static void test_mixed(BalloonDriver *d)
{
    uint32_t pfns[2 * PAGES];

    qtest_memset(d->qts, AREA, GUEST_BYTE, 2 * SIZE);
    qtest_memset(d->qts, 4 * GiB, GUEST_BYTE, 2 * SIZE);
    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = BALLOON_PFN(i % 2 ? 4 * GiB : AREA) + i;
    }
    balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, ARRAY_SIZE(pfns));
    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        balloon_assert_bytes(d, AREA + i * BALLOON_PAGE, BALLOON_PAGE,
                             i % 2 ? GUEST_BYTE : 0);
        balloon_assert_bytes(d, 4 * GiB + i * BALLOON_PAGE, BALLOON_PAGE,
                             i % 2 ? 0 : GUEST_BYTE);
    }
}

#define MIXED_OPTIONS(ram_shared, dimm_shared)                          \
    "-m 128,slots=1,maxmem=1G -machine pc,memory-backend=ram "          \
    "-object memory-backend-memfd,id=ram,size=128M,share=" ram_shared   \
    " -object memory-backend-memfd,id=m0,size=128M,share=" dimm_shared  \
    " -device pc-dimm,memdev=m0,addr=0x100000000"

static const BalloonTest mixed[] = {
    { "backing/mixed/dimm-shared", test_mixed,
      .options = MIXED_OPTIONS("off", "on") },
    { "backing/mixed/ram-shared", test_mixed,
      .options = MIXED_OPTIONS("on", "off") },
};

/*
 * The guest gives pages up in each way; the host keeps them, all works, and
 * that is said once
 */
static void check_kept(BalloonDriver *d, const char *log)
{
    uint32_t pfns[PAGES / 2];
    uint64_t pages;

    balloon_start(d, BALLOON_ALL_FEATURES);
    pages = balloon_alloc(d, SIZE, GUEST_BYTE);
    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = BALLOON_PFN(pages) + 2 * i;
    }
    for (unsigned i = 0; i < 4; i++) {
        balloon_inflate(d, pages, SIZE);
        balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, ARRAY_SIZE(pfns));
        balloon_send_one(d, REPORT, pages, SIZE, true);
    }
    balloon_assert_bytes(d, pages, SIZE, GUEST_BYTE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, PAGES);
    g_assert_cmpint(balloon_query(d->qts), ==, BALLOON_RAM - SIZE);
    balloon_quit(d);
    g_assert_cmpuint(balloon_count_in_file(log, "\n"), ==, 1);
    g_assert_cmpuint(balloon_count_in_file(log, "virtio-balloon"), ==, 1);
    unlink(log);
}

static bool may_lock_memory(void)
{
    struct rlimit limit;

    return geteuid() == 0 || (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
                              limit.rlim_cur == RLIM_INFINITY);
}

/* Memory that is locked cannot go */
static void test_locked(void)
{
    g_autofree char *log = balloon_temp_name("log");
    g_autofree char *options = g_strdup_printf(
        "-m 128 -overcommit mem-lock=on 2> %s", log);
    BalloonDriver d;

    if (!may_lock_memory()) {
        g_test_skip("memory cannot be locked");
        return;
    }
    balloon_boot(&d, DEVICE, options);
    check_kept(&d, log);
}

/* A memfd that is sealed while QEMU has it: what is mapped may be written */
static void test_sealed(void)
{
    g_autofree char *log = balloon_temp_name("log");
    int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", getpid(), fd);
    BalloonDriver d;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, BALLOON_RAM), ==, 0);
    boot_on_file(&d, path, "share=on", log);
    g_assert_cmpint(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), ==, 0);
    check_kept(&d, log);
    close(fd);
}

/* A file in a ramfs, which knows no holes */
static void test_no_holes(void)
{
    g_autofree char *log = balloon_temp_name("log");
    char *path;
    pid_t pid = balloon_hold_file("ramfs", NULL, BALLOON_RAM, &path);
    BalloonDriver d;

    if (!path) {
        g_test_skip("no ramfs may be mounted");
    } else {
        boot_on_file(&d, path, "share=on", log);
        check_kept(&d, log);
    }
    balloon_drop_file(pid, path);
}

void balloon_add_backing_tests(void)
{
    balloon_add_tests(NULL, mixed, ARRAY_SIZE(mixed));
    qtest_add_data_func("/virtio-balloon/backing/shared-file", "share=on",
                        test_file);
    qtest_add_data_func("/virtio-balloon/improved/backing/private-file",
                        "share=off", test_file);
    qtest_add_data_func("/virtio-balloon/improved/backing/read-only-file",
                        "share=off,readonly=on,rom=off", test_file);
    qtest_add_func("/virtio-balloon/improved/backing/reported-file",
                   test_reported_file);
    qtest_add_func("/virtio-balloon/improved/backing/locked", test_locked);
    qtest_add_func("/virtio-balloon/improved/backing/sealed", test_sealed);
    qtest_add_func("/virtio-balloon/improved/backing/no-holes",
                   test_no_holes);
}
