/*
 * A virtio balloon in huge pages, and the pool that they come from
 *
 * The pool is of a file system of its own, whose pages nobody else can have.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qobject/qdict.h"
#include "virtio-balloon-hugepages.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-lifecycle.h"

#define RAM (128 * MiB)
#define HUGE_SIZE (2 * MiB)
#define AREA (64 * MiB)
#define OLD 0xa5
#define NEW 0x33

#define DEVICE "virtio-balloon-pci,must-tell-host=on"
#define EMPTY_DEVICE DEVICE ",populate-on-deflate=on"
#define MOUNT_OPTIONS "pagesize=2M,size=128M,min_size=128M"

/* What else wants a page of the pool: what follows the RAM in its file */
static int open_file(pid_t pid, int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", pid, fd);
    int file = open(path, O_RDWR);

    g_assert_cmpint(file, >=, 0);
    return file;
}

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

static void start(BalloonDriver *d, const char *device, pid_t pid, int fd,
                  bool shared)
{
    g_autofree char *options = g_strdup_printf(
        "-m 128 -machine pc,memory-backend=ram -object memory-backend-file,"
        "id=ram,size=128M,share=%s,mem-path=/proc/%d/fd/%d",
        shared ? "on" : "off", pid, fd);

    balloon_boot(d, device, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
    qtest_memset(d->qts, AREA, OLD, 3 * HUGE_SIZE);
}

/*
 * A huge page that the guest gives up goes back to the pool.  Of shared memory
 * anybody may have it then, and the guest can use it again as long as nobody
 * does.  Of private memory the kernel keeps it for the guest.
 */
static void check_pool(bool shared, pid_t pid, int fd)
{
    int file = open_file(pid, fd);
    BalloonDriver d;
    bool taken;

    start(&d, DEVICE, pid, fd, shared);
    g_assert_false(can_take(file));
    for (int i = 0; i < 3; i++) {
        balloon_send_range(&d, BALLOON_VQ_INFLATE, AREA + HUGE_SIZE,
                           HUGE_SIZE / BALLOON_PAGE);
        /* To look at it would bring it back */
        balloon_wait_for(!balloon_counter(d.qts, "waiting"));
        g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==,
                         (i + 1) * HUGE_SIZE);
        taken = can_take(file);
        g_test_message("others %s have the page", taken ? "could" : "cannot");
        g_assert_true(taken || !shared);
        balloon_send_range(&d, BALLOON_VQ_DEFLATE, AREA + HUGE_SIZE,
                           HUGE_SIZE / BALLOON_PAGE);
        qtest_memset(d.qts, AREA + HUGE_SIZE, NEW, HUGE_SIZE);
        g_assert_false(can_take(file));
    }
    balloon_assert_bytes(&d, AREA, HUGE_SIZE, OLD);
    balloon_assert_bytes(&d, AREA + HUGE_SIZE, HUGE_SIZE, NEW);
    balloon_assert_bytes(&d, AREA + 2 * HUGE_SIZE, HUGE_SIZE, OLD);
    balloon_quit(&d);
    close(file);
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
static void check_empty(bool coordinated, pid_t pid, int fd)
{
    int file = open_file(pid, fd);
    BalloonDriver d;
    uint32_t head;

    start(&d, coordinated ? EMPTY_DEVICE ",coordinated-discards=on" :
                            EMPTY_DEVICE, pid, fd, true);
    balloon_send_range(&d, BALLOON_VQ_INFLATE, AREA, HUGE_SIZE / BALLOON_PAGE);
    balloon_wait_for(!balloon_counter(d.qts, "waiting"));
    g_assert_true(take(file));
    head = post_deflate(&d, AREA);
    balloon_wait_for(is_held(d.qts));
    /* others are served meanwhile */
    balloon_send_range(&d, BALLOON_VQ_INFLATE, AREA + HUGE_SIZE, 1);
    g_assert_false(balloon_has_used(&d, BALLOON_VQ_DEFLATE));
    give_back(file);
    balloon_wait_served(&d, BALLOON_VQ_DEFLATE, head);
    g_assert_false(is_held(d.qts));
    /* Nobody else can have it, before the guest has even touched it */
    g_assert_false(can_take(file));
    balloon_assert_bytes(&d, AREA, HUGE_SIZE, 0);
    balloon_assert_bytes(&d, AREA + HUGE_SIZE, 2 * HUGE_SIZE, OLD);
    balloon_quit(&d);
    close(file);
}

static void with_pool(void (*check)(bool, pid_t, int), bool how)
{
    pid_t pid;
    int fd;

    if (!balloon_hugepages_take(RAM / HUGE_SIZE)) {
        g_test_skip("the host has no huge pages to spare");
        return;
    }
    pid = balloon_hold_file("hugetlbfs", MOUNT_OPTIONS, RAM + HUGE_SIZE, &fd);
    if (fd < 0) {
        g_test_skip("no hugetlbfs may be mounted");
    } else {
        check(how, pid, fd);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    balloon_hugepages_restore();
}

static void test_pool(const void *shared)
{
    with_pool(check_pool, shared);
}

static void test_empty(const void *coordinated)
{
    with_pool(check_empty, coordinated);
}

void balloon_add_pool_tests(void)
{
    qtest_add_data_func("/virtio-balloon/improved/backing/pool/shared",
                        "shared", test_pool);
    qtest_add_data_func("/virtio-balloon/improved/backing/pool/private",
                        NULL, test_pool);
    qtest_add_data_func("/virtio-balloon/improved/backing/pool/empty",
                        NULL, test_empty);
    if (CAN_COORDINATE) {
        qtest_add_data_func("/virtio-balloon/improved/backing/pool/coordinated",
                            "coordinated", test_empty);
    }
}
