/*
 * What a virtio balloon does to what is behind guest memory: files, huge pages,
 * the pool that they come from; and when the host keeps them as they are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include <sys/mman.h>
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* So what is reported need not read as anything */
#define NO_POISON REPORTING ",page-poison=off"
#define RAM_FILE(how) MEMORY_OF("file,mem-path=$FILES/ram," how)
/* ... and a DIMM, at BALLOON_DIMM, that has such a backend */
#define DIMM_OF(backend)                                                \
    " -m slots=1,maxmem=1G -device pc-dimm,memdev=m0 "                  \
    "-object memory-backend-" backend ",id=m0,size=128M"

/* What is in a file that is memory, and what log QEMU has */
#define FILE_BYTE 0x5a
#define LOGGED " 2> $FILES/log"

/* Give up five of ten pages, by either way */
#define GIVEN_UP "x00x0xx00x"
static void give_up(BalloonDriver *d)
{
    balloon_inflate(d, AREA + BALLOON_PAGE, 2 * BALLOON_PAGE);
    balloon_inflate(d, AREA + 4 * BALLOON_PAGE, BALLOON_PAGE);
    balloon_send_one(d, REPORT, AREA + 7 * BALLOON_PAGE, 2 * BALLOON_PAGE,
                     true);
}

static void memory(BalloonDriver *d)
{
    give_up(d);
    balloon_assert_pages(d, AREA, GIVEN_UP);
}

/* What a report does not cover wholly is left alone, the rest is taken */
static void report_unaligned(BalloonDriver *d)
{
    balloon_send_one(d, REPORT, AREA + 16, 3 * BALLOON_PAGE, true);
    balloon_assert_pages(d, AREA, "x00xxxxxx");
    balloon_send_one(d, REPORT, AREA + 4 * BALLOON_PAGE,
                     2 * BALLOON_PAGE + 100, true);
    balloon_assert_pages(d, AREA, "x00x00xxx");
    balloon_send_one(d, REPORT, AREA + 7 * BALLOON_PAGE - 1,
                     BALLOON_PAGE + 2, true);
    balloon_assert_pages(d, AREA, "x00x00x0x");
}

static bool is_shared(BalloonDriver *d)
{
    return strstr(d->options, "share=on");
}

/* Bytes of others in a file before its RAM; half as many are after it */
static size_t file_lead(BalloonDriver *d)
{
    return strstr(d->options, "offset=2M") ? 2 * MiB : 0;
}

static void make_file(size_t size)
{
    g_autofree char *data = g_malloc(size);

    memset(data, FILE_BYTE, size);
    g_assert_true(g_file_set_contents(balloon_file("ram"), data, size, NULL));
}

/* What of it is there: a page that is punched is not */
static unsigned long long file_blocks(void)
{
    struct stat st;

    g_assert_cmpint(stat(balloon_file("ram"), &st), ==, 0);
    return st.st_blocks;
}

/* No byte from @from up to @end is another than it was */
static void assert_file_kept(const char *data, gsize from, gsize end)
{
    for (gsize i = from; i < end; i++) {
        g_assert_cmphex(data[i], ==, FILE_BYTE);
    }
}

/* Pages of a file are zeroes, or are not: one letter each */
static void assert_file_pages(const char *data, const char *map)
{
    for (int page = 0; map[page]; page++) {
        bool zero = buffer_is_zero(data + page * BALLOON_PAGE, BALLOON_PAGE);

        g_assert(zero == (map[page] == '0'));
    }
}

/* Of a private mapping others have the file too: not one byte of it changes */
static void assert_file(BalloonDriver *d)
{
    const size_t lead = file_lead(d);
    g_autofree char *data = NULL;
    gsize size;

    g_assert_true(g_file_get_contents(balloon_file("ram"), &data, &size,
                                      NULL));
    g_assert_cmpuint(size, ==, lead + RAM + lead / 2);
    if (!is_shared(d)) {
        assert_file_kept(data, 0, size);
        return;
    }
    assert_file_kept(data, 0, lead);
    assert_file_pages(data + lead + AREA, GIVEN_UP);
    assert_file_pages(data + lead + RAM - 4 * BALLOON_PAGE, "xx00");
    assert_file_kept(data, lead + RAM, size);
}

/*
 * RAM of a file, maybe from the middle of it, between the data of others: a
 * shared mapping is punched where the guest's pages are, of a private one the
 * guest's copy goes
 */
static void file(BalloonDriver *d)
{
    const bool shared = is_shared(d);
    unsigned long long blocks;

    make_file(file_lead(d) + RAM + file_lead(d) / 2);
    balloon_boot_and_start(d);
    blocks = file_blocks();
    give_up(d);
    /* The last pages of the RAM, before what is not the guest's */
    balloon_inflate(d, RAM - 2 * BALLOON_PAGE, 2 * BALLOON_PAGE);
    balloon_settle(d);
    if (shared) {
        /* To look at a page that is punched may bring it back */
        g_assert_cmpuint(file_blocks(), <, blocks);
    }
    for (int page = 0; GIVEN_UP[page]; page++) {
        balloon_assert_bytes(d, AREA + page * BALLOON_PAGE, BALLOON_PAGE,
                             GIVEN_UP[page] == 'x' ? OLD :
                             shared ? 0 : FILE_BYTE);
    }
    assert_file(d);
    if (!shared) {
        g_assert_cmpuint(balloon_counter_pages(d->qts, "discarded"), ==, 7);
    }
}

/* The target, said again, empties what has a copy; the file has it anyway */
static void private_file_again(BalloonDriver *d)
{
    const uint64_t size = 2 * HUGE;

    make_file(RAM);
    balloon_boot_and_start(d);
    qtest_memset(d->qts, AREA, OLD, size);
    balloon_set_target(d->qts, RAM - size);
    balloon_inflate(d, AREA, size);
    balloon_writel(d, BALLOON_CFG_ACTUAL, size / BALLOON_PAGE);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, AREA, size, FILE_BYTE);
    qtest_memset(d->qts, AREA, NEW, HUGE);

    balloon_set_target(d->qts, RAM - size);
    balloon_wait_for(balloon_counter(d->qts, "discarded") > size);
    balloon_wait_discarded(d->qts);
    g_assert_cmpuint(balloon_counter(d->qts, "revived"), ==, HUGE);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, size + HUGE);
    balloon_assert_bytes(d, AREA, size, FILE_BYTE);
}

/* A file that lost its name may be a template that others have: it stays */
static void unnamed_file(BalloonDriver *d)
{
    make_file(RAM);
    balloon_boot_and_start(d);
    unlink(balloon_file("ram"));
    balloon_inflate(d, AREA, HUGE);
    balloon_assert_bytes(d, AREA, HUGE, FILE_BYTE);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, HUGE);
}

/* Every byte is as the guest left it, or zero */
static void assert_no_secret(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    g_autofree uint8_t *data = g_malloc(size);

    qtest_memread(d->qts, addr, data, size);
    for (uint64_t i = 0; i < size; i++) {
        g_assert_true(data[i] == 0 || data[i] == NEW);
    }
}

/*
 * virtio 1.2, 5.5.6.7.2: with PAGE_POISON, nothing but poison_val may be in
 * pages that were reported.  Those of a private mapping turn into what is in
 * the file: here data, in the middle of a hole.
 */
static void reported_file(BalloonDriver *d)
{
    enum { SIZE = 16 * BALLOON_PAGE };
    const uint64_t data = AREA / 2, start = data - SIZE, size = 3 * SIZE;
    uint8_t pattern[SIZE];
    unsigned long long blocks;
    int fd = open(balloon_file("ram"), O_WRONLY | O_CREAT, 0600);

    g_assert_cmpint(fd, >=, 0);
    memset(pattern, FILE_BYTE, SIZE);
    g_assert_cmpint(ftruncate(fd, RAM), ==, 0);
    g_assert_cmpint(pwrite(fd, pattern, SIZE, data), ==, SIZE);
    close(fd);
    blocks = file_blocks();
    balloon_boot(d, d->device, d->options);
    balloon_start(d, 1ull << VIRTIO_BALLOON_F_PAGE_POISON |
                     1ull << VIRTIO_BALLOON_F_REPORTING);
    balloon_assert_bytes(d, data, SIZE, FILE_BYTE);
    /* All of it, and a part that begins and one that ends in the hole */
    for (int i = 0; i < 3; i++) {
        qtest_memset(d->qts, start, NEW, size);
        balloon_send(d, REPORT, (BalloonSeg[]) {
            { start + i * BALLOON_PAGE, size - 2 * i * BALLOON_PAGE, true },
            { data - BALLOON_PAGE, 2 * BALLOON_PAGE, true },
        }, 1 + i % 2);
        assert_no_secret(d, start, size);
    }
    g_assert_cmpuint(file_blocks(), ==, blocks);
}

/* Where the file goes with the copy, zeroes are behind it, whatever it holds */
static void reported_own_file(BalloonDriver *d)
{
    balloon_start_poison(d, 0);
    qtest_memset(d->qts, AREA, NEW, HUGE);
    balloon_send_one(d, REPORT, AREA, HUGE, true);
    balloon_assert_bytes(d, AREA, HUGE, 0);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, HUGE);
}

/* Private memory and shared, of a DIMM, in one list, page by page */
static void mixed(BalloonDriver *d)
{
    enum { PAGES = 32 };
    uint32_t pfns[PAGES];

    qtest_memset(d->qts, BALLOON_DIMM, OLD, PAGES * BALLOON_PAGE);
    for (unsigned i = 0; i < PAGES; i++) {
        pfns[i] = BALLOON_PFN(i % 2 ? BALLOON_DIMM : AREA) + i;
    }
    balloon_send_pfns(d, INFLATE, pfns, PAGES);
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t at = i * BALLOON_PAGE;

        balloon_assert_pages(d, AREA + at, i % 2 ? "x" : "0");
        balloon_assert_pages(d, BALLOON_DIMM + at, i % 2 ? "0" : "x");
    }
}

/*
 * The guest gives pages up in each way; the host keeps them, all works, and
 * that is said once
 */
static void check_kept(BalloonDriver *d)
{
    enum { PAGES = 16, SIZE = PAGES * BALLOON_PAGE };
    uint32_t pfns[PAGES / 2];

    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = BALLOON_PFN(AREA) + 2 * i;
    }
    for (unsigned i = 0; i < 4; i++) {
        balloon_inflate(d, AREA, SIZE);
        balloon_send_pfns(d, INFLATE, pfns, ARRAY_SIZE(pfns));
        balloon_send_one(d, REPORT, AREA, SIZE, true);
    }
    balloon_assert_bytes(d, AREA, SIZE, OLD);
    balloon_writel(d, BALLOON_CFG_ACTUAL, PAGES);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - SIZE);
    g_assert_cmpuint(balloon_log_lines(), ==, 1);
    g_assert_cmpuint(balloon_count_in_file("log", "virtio-balloon"), ==, 1);
    balloon_assert_all_skipped(d->qts, "refused", 4 * 5 * SIZE / 2);
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), >=, 1);
}

/* Memory that is locked cannot go */
static void locked(BalloonDriver *d)
{
    if (balloon_may_lock_memory()) {
        balloon_boot_and_start(d);
        check_kept(d);
    }
}

/* Of two backends whose memory is locked, each is mentioned once */
static void locked_dimm(BalloonDriver *d)
{
    if (!balloon_may_lock_memory()) {
        return;
    }
    balloon_boot_and_start(d);
    qtest_memset(d->qts, BALLOON_DIMM, OLD, HUGE);
    for (int i = 0; i < 4; i++) {
        balloon_inflate(d, AREA, HUGE);
        balloon_inflate(d, BALLOON_DIMM, HUGE);
    }
    balloon_assert_bytes(d, AREA, HUGE, OLD);
    balloon_assert_bytes(d, BALLOON_DIMM, HUGE, OLD);
    g_assert_cmpuint(balloon_count_in_file("log", "virtio-balloon"), ==, 2);
    g_assert_cmpuint(balloon_log_lines(), ==, 2);
    balloon_assert_all_skipped(d->qts, "refused", 4 * 2 * HUGE);
}

/* A memfd that is sealed while QEMU has it: what is mapped may be written */
static void sealed(BalloonDriver *d)
{
    int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", getpid(), fd);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, RAM), ==, 0);
    g_assert_cmpint(symlink(path, balloon_file("ram")), ==, 0);
    balloon_boot_and_start(d);
    g_assert_cmpint(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), ==, 0);
    check_kept(d);
    close(fd);
}

/* A file in a ramfs, which knows no holes */
static void no_holes(BalloonDriver *d)
{
    pid_t pid = balloon_hold_file("ramfs", NULL, RAM);

    if (pid) {
        balloon_boot_and_start(d);
        check_kept(d);
        balloon_drop_file(pid);
    }
}

/* A private file in a folder of such a one: the copies are all there is */
static void no_holes_private(BalloonDriver *d)
{
    pid_t pid = balloon_hold_file("ramfs", NULL, 0);

    if (pid) {
        balloon_boot_and_start(d);
        memory(d);
        g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==,
                         5 * BALLOON_PAGE);
        g_assert_cmpuint(balloon_log_lines(), ==, 0);
        balloon_drop_file(pid);
    }
}

/* Shared memory that may not be written cannot be punched */
static void read_only_dimm(BalloonDriver *d)
{
    make_file(RAM);
    balloon_boot_and_start(d);
    balloon_inflate(d, BALLOON_DIMM, HUGE);
    balloon_assert_all_skipped(d->qts, "unsupported", HUGE);
    balloon_assert_bytes(d, BALLOON_DIMM, HUGE, FILE_BYTE);
}

/* A private mapping of huge pages, of a file that is QEMU's own */
static void private_huge_pages(BalloonDriver *d)
{
    balloon_send_one(d, REPORT, AREA + HUGE, HUGE, true);
    balloon_assert_bytes(d, AREA, HUGE, OLD);
    balloon_assert_bytes(d, AREA + HUGE, HUGE, 0);
    balloon_assert_bytes(d, AREA + 2 * HUGE, HUGE, OLD);
}

/* What else wants a page of the pool: what follows the RAM in its file */
static bool take(int file)
{
    void *page = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, file,
                      RAM);

    if (page == MAP_FAILED) {
        return false;
    }
    memset(page, NEW, HUGE);
    munmap(page, HUGE);
    return true;
}

static void give_back(int file)
{
    g_assert_cmpint(fallocate(file, FALLOC_FL_PUNCH_HOLE |
                              FALLOC_FL_KEEP_SIZE, RAM, HUGE), ==, 0);
}

static bool can_take(int file)
{
    bool can = take(file);

    if (can) {
        give_back(file);
    }
    return can;
}

/*
 * A huge page that the guest gives up goes back to the pool.  Of shared memory
 * anybody may have it then, and the guest can use it again as long as nobody
 * does.  Of private memory the kernel keeps it for the guest.
 */
static void check_given_up(BalloonDriver *d, int file)
{
    const bool shared = is_shared(d);
    bool taken;

    g_assert_false(can_take(file));
    for (int i = 0; i < 3; i++) {
        balloon_inflate(d, AREA + HUGE, HUGE);
        /* To look at it would bring it back */
        balloon_wait_discarded(d->qts);
        g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==,
                         (i + 1) * HUGE);
        taken = can_take(file);
        g_assert_true(taken || !shared);
        if (taken && !shared) {
            g_test_skip("this kernel gives reservations away");
        }
        balloon_deflate(d, AREA + HUGE, HUGE);
        qtest_memset(d->qts, AREA + HUGE, NEW, HUGE);
        g_assert_false(can_take(file));
    }
    balloon_assert_bytes(d, AREA, HUGE, OLD);
    balloon_assert_bytes(d, AREA + HUGE, HUGE, NEW);
    balloon_assert_bytes(d, AREA + 2 * HUGE, HUGE, OLD);
}

/*
 * A guest that wants a huge page back while the pool is empty waits for its
 * answer, and is not killed
 */
static void check_empty(BalloonDriver *d, int file)
{
    uint32_t head;

    balloon_inflate(d, AREA, HUGE);
    balloon_wait_discarded(d->qts);
    g_assert_true(take(file));
    /* Of a second before this no event is kept back any more */
    qtest_clock_step(d->qts, 2 * SECOND);
    head = balloon_post_range(d, DEFLATE, AREA, HUGE / BALLOON_PAGE);
    balloon_wait_held_event(d->qts, NULL);
    balloon_assert_held(d->qts, HUGE, NULL);
    /* others are served meanwhile */
    balloon_inflate(d, AREA + HUGE, BALLOON_PAGE);
    g_assert_false(balloon_has_used(d, DEFLATE));
    give_back(file);
    balloon_wait_served(d, DEFLATE, head);
    balloon_wait_not_held_event(d->qts);
    g_assert_false(balloon_is_held(d->qts));
    /* Nobody else can have it, before the guest has even touched it */
    g_assert_false(can_take(file));
    balloon_assert_bytes(d, AREA, HUGE, 0);
    balloon_assert_bytes(d, AREA + HUGE, 2 * HUGE, OLD);
}

/*
 * With PAGE_POISON a report may be taken only if zeroes are behind it.  A file
 * of huge pages does not tell where it has holes, only that it has nothing.
 */
static void check_reported(BalloonDriver *d, int file)
{
    balloon_send_one(d, REPORT, AREA + HUGE, HUGE, true);
    balloon_assert_bytes(d, AREA + HUGE, HUGE, 0);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, HUGE);
    g_assert_true(take(file));
    balloon_send_one(d, REPORT, AREA, HUGE, true);
    balloon_assert_bytes(d, AREA, HUGE, OLD);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, HUGE);
}

/* The pool is of a file system whose pages nobody else can have */
static void pool(BalloonDriver *d)
{
    void (*check)(BalloonDriver *d, int file) = d->data;
    pid_t pid = balloon_hold_file(
        "hugetlbfs", "pagesize=2M,size=128M,min_size=128M", RAM + HUGE);
    int fd;

    if (pid) {
        fd = open(balloon_file("ram"), O_RDWR);
        g_assert_cmpint(fd, >=, 0);
        balloon_boot_and_start(d);
        check(d, fd);
        balloon_quit(d);
        close(fd);
        balloon_drop_file(pid);
    }
}

static const BalloonTest tests[] = {
    { "backing/anonymous", memory, .options = MEMORY_OF("ram") },
    { "backing/anonymous-shared", memory, NULL, MEMORY_OF("ram,share=on") },
    { "backing/anonymous-no-merge", memory,
      .options = MEMORY_OF("ram,merge=off,dump=off") },
    { "backing/memfd", memory, .options = SHARED },
    { "backing/memfd-private", memory, NULL, MEMORY_OF("memfd,share=off") },
    { "improved/backing/report-unaligned", report_unaligned, REPORTING },
    { "backing/mixed/dimm-shared", mixed,
      .options = MEMORY_OF("memfd,share=off") DIMM_OF("memfd,share=on") },
    { "backing/mixed/ram-shared", mixed,
      .options = SHARED DIMM_OF("memfd,share=off") },
    { "backing/private-huge-pages", private_huge_pages, REPORTING,
      HUGETLB("off"), .huge_pages = true },
    { "improved/backing/reported-memfd", reported_own_file, REPORTING,
      MEMORY_OF("memfd,share=off"), .unstarted = true },
};

/* Those that make a file first */
static const BalloonTest file_tests[] = {
    { "backing/shared-file", file, NULL, RAM_FILE("share=on") },
    { "backing/file-offset/shared", file, NULL,
      RAM_FILE("share=on,offset=2M") },
    { "improved/backing/private-file", file, NULL, RAM_FILE("share=off") },
    { "improved/backing/private-file-tell", file,
      NO_POISON ",must-tell-host=on", RAM_FILE("share=off") },
    { "improved/backing/read-only-file", file, NULL,
      RAM_FILE("share=off,readonly=on,rom=off") },
    { "improved/backing/private-file-again", private_file_again,
      NO_POISON ",must-tell-host=on", RAM_FILE("share=off") },
    { "improved/backing/unnamed-file", unnamed_file, NULL,
      RAM_FILE("share=off") },
    { "improved/backing/read-only-unnamed-file", unnamed_file, NULL,
      RAM_FILE("share=off,readonly=on,rom=off") },
    { "improved/backing/file-offset/private", file, NULL,
      RAM_FILE("share=off,offset=2M") },
    { "improved/backing/reported-file", reported_file, REPORTING,
      RAM_FILE("share=off") },
    { "improved/backing/locked", locked, REPORTING,
      MEMORY "-overcommit mem-lock=on" LOGGED },
    { "improved/backing/locked/dimm", locked_dimm, REPORTING,
      BALLOON_DIMM_SLOTS BALLOON_DIMM_PLUGGED "-overcommit mem-lock=on"
      LOGGED },
    { "improved/backing/sealed", sealed, REPORTING,
      RAM_FILE("share=on") LOGGED },
    { "improved/backing/no-holes", no_holes, REPORTING,
      RAM_FILE("share=on") LOGGED },
    { "improved/backing/no-holes-private", no_holes_private, NO_POISON,
      RAM_FILE("share=off") LOGGED },
    { "improved/backing/read-only-dimm", read_only_dimm, PLAIN,
      MEMORY DIMM_OF("file,share=on,readonly=on,mem-path=$FILES/ram") },
    { "improved/backing/pool/shared", pool, TELL, RAM_FILE("share=on"),
      check_given_up, .huge_pages = true },
    { "improved/backing/pool/private", pool, TELL, RAM_FILE("share=off"),
      check_given_up, .huge_pages = true },
    { "improved/backing/pool/reported", pool, REPORTING,
      RAM_FILE("share=off,reserve=off"), check_reported, .huge_pages = true },
    { "improved/backing/pool/empty", pool, TELL ",populate-on-deflate=on",
      RAM_FILE("share=on"), check_empty, .huge_pages = true },
    { "improved/backing/pool/coordinated", pool,
      TELL ",populate-on-deflate=on,coordinated-discards=on",
      RAM_FILE("share=on"), check_empty, .huge_pages = true },
};

BALLOON_TESTS("", NO_POISON, tests)
BALLOON_BARE_TESTS("", NO_POISON, file_tests)
