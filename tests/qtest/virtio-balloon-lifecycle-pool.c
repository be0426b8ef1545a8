/*
 * A virtio balloon in huge pages, and the pool that they come from
 *
 * The pool is of a file system of its own, whose pages nobody else can have.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include "qobject/qdict.h"
#include "virtio-balloon-hugepages.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-lifecycle.h"

#define RAM BALLOON_RAM
#define HUGE_SIZE (2 * MiB)
#define AREA (64 * MiB)
#define OLD 0xa5
#define NEW 0x33

#define DEVICE "virtio-balloon-pci,must-tell-host=on"
#define EMPTY_DEVICE DEVICE ",populate-on-deflate=on"
#define MOUNT_OPTIONS "pagesize=2M,size=128M,min_size=128M"

/* A file in a new file system of that type; -1 if none may be mounted */
static int open_in_mount(const char *type, const char *options, uint64_t size)
{
    g_autofree char *folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    g_autofree char *name = g_build_filename(folder, "ram", NULL);
    int fd = -1;

    if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) == 0 &&
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("none", folder, type, 0, options) == 0) {
        fd = open(name, O_RDWR | O_CREAT, 0600);
        /* The file stays as long as it is open */
        umount2(folder, MNT_DETACH);
    }
    rmdir(folder);
    return fd < 0 || ftruncate(fd, size) < 0 ? -1 : fd;
}

pid_t balloon_hold_file(const char *type, const char *options, uint64_t size,
                        char **path)
{
    int pipes[2];
    pid_t pid;
    int fd;

    g_assert_cmpint(pipe(pipes), ==, 0);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fd = open_in_mount(type, options, size);
        /* QEMU is to look into this process */
        prctl(PR_SET_DUMPABLE, 1);
        g_assert_cmpint(write(pipes[1], &fd, sizeof(fd)), ==, sizeof(fd));
        for (;;) {
            pause();
        }
    }
    g_assert_cmpint(read(pipes[0], &fd, sizeof(fd)), ==, sizeof(fd));
    close(pipes[0]);
    close(pipes[1]);
    *path = fd < 0 ? NULL : g_strdup_printf("/proc/%d/fd/%d", pid, fd);
    return pid;
}

void balloon_drop_file(pid_t pid, char *path)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    g_free(path);
}

/* What else wants a page of the pool: what follows the RAM in its file */
static bool take(int file)
{
    void *page = mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                      file, RAM);

    if (page == MAP_FAILED) {
        return false;
    }
    memset(page, NEW, HUGE_SIZE);
    munmap(page, HUGE_SIZE);
    return true;
}

static void give_back(int file)
{
    g_assert_cmpint(fallocate(file, FALLOC_FL_PUNCH_HOLE |
                              FALLOC_FL_KEEP_SIZE, RAM, HUGE_SIZE), ==, 0);
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
static void check_given_up(BalloonDriver *d, int file, bool shared)
{
    bool taken;

    g_assert_false(can_take(file));
    for (int i = 0; i < 3; i++) {
        balloon_inflate(d, AREA + HUGE_SIZE, HUGE_SIZE);
        /* To look at it would bring it back */
        balloon_wait_discarded(d->qts);
        g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==,
                         (i + 1) * HUGE_SIZE);
        taken = can_take(file);
        g_test_message("others %s have the page", taken ? "could" : "cannot");
        g_assert_true(taken || !shared);
        balloon_deflate(d, AREA + HUGE_SIZE, HUGE_SIZE);
        qtest_memset(d->qts, AREA + HUGE_SIZE, NEW, HUGE_SIZE);
        g_assert_false(can_take(file));
    }
    balloon_assert_bytes(d, AREA, HUGE_SIZE, OLD);
    balloon_assert_bytes(d, AREA + HUGE_SIZE, HUGE_SIZE, NEW);
    balloon_assert_bytes(d, AREA + 2 * HUGE_SIZE, HUGE_SIZE, OLD);
}

static bool is_held(QTestState *qts)
{
    QDict *info = balloon_info(qts);
    QDict *held = qdict_get_qdict(info, "held");

    if (held) {
        g_assert_cmpuint(qdict_get_int(held, "size"), ==, HUGE_SIZE);
        g_assert_true(qdict_haskey(held, "error"));
    }
    qobject_unref(info);
    return held;
}

/* Leave a deflate request with all balloon pages of the huge one at @addr */
static uint32_t post_deflate(BalloonDriver *d, uint64_t addr)
{
    uint32_t pfns[HUGE_SIZE / BALLOON_PAGE];
    uint64_t list;

    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = balloon_wire32(d, BALLOON_PFN(addr) + i);
    }
    list = balloon_copy(d, pfns, sizeof(pfns));
    return balloon_post(d, BALLOON_VQ_DEFLATE,
                        &(BalloonSeg) { list, sizeof(pfns) }, 1);
}

/*
 * A guest that wants a huge page back while the pool is empty waits for its
 * answer, and is not killed
 */
static void check_empty(BalloonDriver *d, int file, bool shared)
{
    uint32_t head;

    balloon_inflate(d, AREA, HUGE_SIZE);
    balloon_wait_discarded(d->qts);
    g_assert_true(take(file));
    head = post_deflate(d, AREA);
    balloon_wait_for(is_held(d->qts));
    /* others are served meanwhile */
    balloon_inflate(d, AREA + HUGE_SIZE, BALLOON_PAGE);
    g_assert_false(balloon_has_used(d, BALLOON_VQ_DEFLATE));
    give_back(file);
    balloon_wait_served(d, BALLOON_VQ_DEFLATE, head);
    g_assert_false(is_held(d->qts));
    /* Nobody else can have it, before the guest has even touched it */
    g_assert_false(can_take(file));
    balloon_assert_bytes(d, AREA, HUGE_SIZE, 0);
    balloon_assert_bytes(d, AREA + HUGE_SIZE, 2 * HUGE_SIZE, OLD);
}

typedef struct Pool {
    const char *path;
    void (*check)(BalloonDriver *d, int file, bool shared);
    const char *device;
    bool shared;
} Pool;

/* Check it with RAM on a file of the pool */
static void check_on_file(const Pool *pool, const char *path)
{
    g_autofree char *options = g_strdup_printf(
        BALLOON_RAM_OF("file,share=%s,mem-path=%s"),
        pool->shared ? "on" : "off", path);
    int file = open(path, O_RDWR);
    BalloonDriver d;

    g_assert_cmpint(file, >=, 0);
    balloon_boot(&d, pool->device, options);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_memset(d.qts, AREA, OLD, 3 * HUGE_SIZE);
    pool->check(&d, file, pool->shared);
    balloon_quit(&d);
    close(file);
}

static void test_pool(const void *pool)
{
    char *path;
    pid_t pid;

    if (!balloon_hugepages_take(RAM / HUGE_SIZE)) {
        g_test_skip("the host has no huge pages to spare");
        return;
    }
    pid = balloon_hold_file("hugetlbfs", MOUNT_OPTIONS, RAM + HUGE_SIZE,
                            &path);
    if (!path) {
        g_test_skip("no hugetlbfs may be mounted");
    } else {
        check_on_file(pool, path);
    }
    balloon_drop_file(pid, path);
    balloon_hugepages_restore();
}

/*
 * A private mapping of huge pages: with PAGE_POISON, a report may be taken only
 * if zeroes are behind it, and the file tells so by what it takes up.
 */
static void test_private_huge_pages(void)
{
    BalloonDriver d;

    if (!balloon_hugepages_take(RAM / HUGE_SIZE)) {
        g_test_skip("the host has no huge pages to spare");
        return;
    }
    balloon_boot(&d, "virtio-balloon-pci,free-page-reporting=on",
                 BALLOON_RAM_OF("memfd,share=off,hugetlb=on,hugetlbsize=2M"));
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_memset(d.qts, AREA, OLD, 3 * HUGE_SIZE);
    balloon_send_one(&d, BALLOON_VQ_FIRST_OPTIONAL, AREA + HUGE_SIZE,
                     HUGE_SIZE, true);
    balloon_assert_bytes(&d, AREA, HUGE_SIZE, OLD);
    balloon_assert_bytes(&d, AREA + HUGE_SIZE, HUGE_SIZE, 0);
    balloon_assert_bytes(&d, AREA + 2 * HUGE_SIZE, HUGE_SIZE, OLD);
    balloon_quit(&d);
    balloon_hugepages_restore();
}

static const Pool pools[] = {
    { "shared", check_given_up, DEVICE, true },
    { "private", check_given_up, DEVICE, false },
    { "empty", check_empty, EMPTY_DEVICE, true },
    { "coordinated", check_empty, EMPTY_DEVICE ",coordinated-discards=on",
      true },
};

void balloon_add_pool_tests(void)
{
    for (int i = 0; i < ARRAY_SIZE(pools) - !CAN_COORDINATE; i++) {
        g_autofree char *path = g_strconcat(
            "/virtio-balloon/improved/backing/pool/", pools[i].path, NULL);

        qtest_add_data_func(path, &pools[i], test_pool);
    }
    qtest_add_func("/virtio-balloon/backing/private-huge-pages",
                   test_private_huge_pages);
}
