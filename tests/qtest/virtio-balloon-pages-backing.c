/*
 * Pages in a virtio balloon and what is behind them: all of it goes, and goes
 * again when something other than the guest has brought it back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include <sys/statfs.h>
#include <linux/magic.h>
#include "virtio-balloon-info.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-pages.h"
#include "virtio-balloon-plug.h"

#define PLAIN "virtio-balloon-pci"
#define RAM "-m 128 -machine pc,memory-backend=ram "
#define GIVEN (32 * MiB)
/*
 * What the requests themselves may take of memory that nobody had used, and
 * what a busy kernel keeps of a page cache that it cannot split just then
 */
#define LISTS (256 * BALLOON_PAGE)
#define SHM "/dev/shm"

/* How QEMU's files for memory are named */
#define MEMFD "memfd:"
#define UNNAMED "qemu_back_mem"

typedef struct Private {
    const char *device;
    const char *options;
    const char *name;
} Private;

/* What the file behind guest memory takes, in bytes: it has @name in its own */
static uint64_t file_usage(QTestState *qts, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(qts));
    g_autoptr(GDir) folder = g_dir_open(path, 0, NULL);
    const char *fd;

    g_assert_nonnull(folder);
    while ((fd = g_dir_read_name(folder))) {
        g_autofree char *link = g_build_filename(path, fd, NULL);
        g_autofree char *to = g_file_read_link(link, NULL);
        struct stat st;

        if (to && strstr(to, name) && stat(link, &st) == 0) {
            return st.st_blocks * UINT64_C(512);
        }
    }
    g_assert_not_reached();
}

static void start(BalloonDriver *d, const char *device, const char *options)
{
    balloon_boot(d, device, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

/*
 * Of memory that is a private copy of a file that nobody else has, the file
 * goes, too: a page of the one comes with each page of the other
 */
static void test_private(const void *data)
{
    const Private *p = data;
    struct statfs fs;
    uint64_t before;
    BalloonDriver d;

    if (strcmp(p->name, MEMFD) &&
        (statfs(SHM, &fs) || fs.f_type != TMPFS_MAGIC)) {
        g_test_skip("there is no file system in memory");
        return;
    }
    start(&d, p->device, p->options);
    qtest_memset(d.qts, BALLOON_AREA - GIVEN, BALLOON_OLD, 2 * GIVEN);
    before = file_usage(d.qts, p->name);
    /* A busy host was seen to have 52 pages fewer in the file than were used */
    g_assert_cmpuint(before, >=, 2 * GIVEN - LISTS);
    for (uint64_t at = 0; at < GIVEN; at += MiB) {
        balloon_inflate(&d, BALLOON_AREA - GIVEN + at, MiB);
    }
    balloon_wait_discarded(d.qts);
    g_assert_cmpuint(file_usage(d.qts, p->name), <=, before - GIVEN + LISTS);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==, GIVEN);
    balloon_assert_bytes(&d, BALLOON_AREA - GIVEN, GIVEN, 0);
    balloon_assert_bytes(&d, BALLOON_AREA, GIVEN, BALLOON_OLD);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

/* A file that others may have is none of the balloon's, so it stays whole */
static void test_named(const void *device)
{
    g_autofree char *path = NULL;
    g_autofree char *options = NULL;
    g_autofree uint8_t *data = g_malloc(BALLOON_AREA_SIZE);
    int fd = g_file_open_tmp("virtio-balloon-XXXXXX", &path, NULL);
    BalloonDriver d;

    memset(data, BALLOON_OLD, BALLOON_AREA_SIZE);
    g_assert_cmpint(ftruncate(fd, 128 * MiB), ==, 0);
    g_assert_cmpint(pwrite(fd, data, BALLOON_AREA_SIZE, BALLOON_AREA), ==,
                    BALLOON_AREA_SIZE);
    options = g_strdup_printf(RAM "-object memory-backend-file,id=ram,"
                              "size=128M,share=off,mem-path=%s", path);
    start(&d, device, options);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_NEW, BALLOON_AREA_SIZE);
    balloon_inflate(&d, BALLOON_AREA, BALLOON_AREA_SIZE / 2);
    balloon_wait_discarded(d.qts);
    /* The guest's copy has gone, what it was a copy of has not */
    balloon_assert_bytes(&d, BALLOON_AREA, BALLOON_AREA_SIZE / 2, BALLOON_OLD);
    balloon_assert_bytes(&d, BALLOON_AREA + BALLOON_AREA_SIZE / 2,
                         BALLOON_AREA_SIZE / 2, BALLOON_NEW);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
    unlink(path);
    close(fd);
}

/* An assigned device brings all memory back; it has gone, so may the memory */
static void test_vfio_gone(void)
{
    const uint64_t size = 2 * BALLOON_AREA_SIZE;
    BalloonDriver d;

    balloon_preload("virtio-balloon-fake-vfio.so");
    balloon_boot(&d, BALLOON_TELL, "-m 128");
    balloon_preload(NULL);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_OLD, 2 * size);
    balloon_inflate(&d, BALLOON_AREA, size);
    balloon_wait_discarded(d.qts);
    balloon_assert_bytes(&d, BALLOON_AREA, size, 0);

    balloon_plug_vfio(d.qts);
    balloon_assert_state(d.qts, "reached", "pinned-memory");
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_NEW, size);
    balloon_assert_stays(&d, BALLOON_AREA, size, BALLOON_NEW);
    /* What the guest takes back meanwhile is not in the balloon */
    balloon_deflate(&d, BALLOON_AREA, size / 4);

    balloon_unplug_vfio(d.qts);
    balloon_wait_for((qtest_clock_step(d.qts, NANOSECONDS_PER_SECOND),
                      balloon_has_bytes(&d, BALLOON_AREA + size / 4,
                                        size - size / 4, 0)));
    balloon_wait_discarded(d.qts);
    balloon_assert_bytes(&d, BALLOON_AREA, size / 4, BALLOON_NEW);
    balloon_assert_bytes(&d, BALLOON_AREA + size, size, BALLOON_OLD);
    g_assert_cmpuint(balloon_counter(d.qts, "revived"), >=, size - size / 4);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

/* Who reads shared memory fills it; the target, said again, empties it again */
static void test_same_target(void)
{
    const uint64_t size = 2 * BALLOON_AREA_SIZE;
    g_autofree uint8_t *data = g_malloc(size);
    uint64_t before;
    BalloonDriver d;

    start(&d, BALLOON_TELL, RAM "-object memory-backend-memfd,id=ram,"
          "size=128M,share=on");
    balloon_set_target(d.qts, 128 * MiB - size);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_OLD, 2 * size);
    balloon_inflate(&d, BALLOON_AREA, size);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, size / BALLOON_PAGE);
    balloon_wait_discarded(d.qts);
    before = file_usage(d.qts, MEMFD);
    qtest_memread(d.qts, BALLOON_AREA, data, size);
    g_assert_cmpuint(file_usage(d.qts, MEMFD), ==, before + size);

    balloon_set_target(d.qts, 128 * MiB - size);
    balloon_wait_for(file_usage(d.qts, MEMFD) == before);
    balloon_wait_discarded(d.qts);
    g_assert_cmpuint(balloon_counter(d.qts, "revived"), ==, size);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==, 2 * size);
    balloon_assert_sum(d.qts);
    balloon_assert_bytes(&d, BALLOON_AREA + size, size, BALLOON_OLD);
    balloon_quit(&d);
}

void balloon_add_pages_backing_tests(void)
{
    static const char memfd[] =
        RAM "-object memory-backend-memfd,id=ram,size=128M,share=off";
    static const char unnamed[] =
        RAM "-object memory-backend-file,id=ram,size=128M,share=off,"
        "mem-path=" SHM;
    static const Private private[] = {
        { PLAIN, memfd, MEMFD },
        { BALLOON_TELL, memfd, MEMFD },
        { PLAIN, unnamed, UNNAMED },
        { BALLOON_TELL, unnamed, UNNAMED },
    };

    qtest_add_data_func(BALLOON_PAGES_PATH "private/memfd/plain", &private[0],
                        test_private);
    qtest_add_data_func(BALLOON_PAGES_PATH "private/memfd/tell", &private[1],
                        test_private);
    qtest_add_data_func(BALLOON_PAGES_PATH "private/unnamed/plain",
                        &private[2], test_private);
    qtest_add_data_func(BALLOON_PAGES_PATH "private/unnamed/tell",
                        &private[3], test_private);
    qtest_add_data_func(BALLOON_PAGES_PATH "private/named/plain", PLAIN,
                        test_named);
    qtest_add_data_func(BALLOON_PAGES_PATH "private/named/tell", BALLOON_TELL,
                        test_named);
    qtest_add_func(BALLOON_PAGES_PATH "again/vfio-gone", test_vfio_gone);
    qtest_add_func(BALLOON_PAGES_PATH "again/same-target", test_same_target);
}
