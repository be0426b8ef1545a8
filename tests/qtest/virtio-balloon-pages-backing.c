/*
 * Pages in a virtio balloon and what is behind them: all of it goes, and goes
 * again when something other than the guest has brought it back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/statfs.h>
#include <linux/magic.h>
#include "virtio-balloon-pages.h"

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

/*
 * Of memory that is a private copy of a file that nobody else has, the file
 * goes, too: a page of the one comes with each page of the other
 */
static void test_private(BalloonDriver *d)
{
    const char *name = balloon_case()->data;
    struct statfs fs;
    uint64_t before;

    if (strcmp(name, MEMFD) &&
        (statfs(SHM, &fs) || fs.f_type != TMPFS_MAGIC)) {
        g_test_skip("there is no file system in memory");
        return;
    }
    qtest_memset(d->qts, AREA - GIVEN, OLD, 2 * GIVEN);
    before = file_usage(d->qts, name);
    /* A busy host was seen to have 52 pages fewer in the file than were used */
    g_assert_cmpuint(before, >=, 2 * GIVEN - LISTS);
    for (uint64_t at = 0; at < GIVEN; at += MiB) {
        balloon_inflate(d, AREA - GIVEN + at, MiB);
    }
    balloon_wait_discarded(d->qts);
    g_assert_cmpuint(file_usage(d->qts, name), <=, before - GIVEN + LISTS);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, GIVEN);
    balloon_assert_bytes(d, AREA - GIVEN, GIVEN, 0);
    balloon_assert_bytes(d, AREA, GIVEN, OLD);
}

/* A file that others may have is none of the balloon's, so it stays whole */
static void test_named(const void *device)
{
    g_autofree char *path = NULL;
    g_autofree char *options = NULL;
    g_autofree uint8_t *data = g_malloc(HUGE);
    int fd = g_file_open_tmp("virtio-balloon-XXXXXX", &path, NULL);
    BalloonDriver d;

    memset(data, NEW, HUGE);
    g_assert_cmpint(ftruncate(fd, RAM), ==, 0);
    g_assert_cmpint(pwrite(fd, data, HUGE, AREA), ==, HUGE);
    options = g_strdup_printf(MEMORY_OF("file,share=off,mem-path=%s"), path);
    balloon_boot_and_start(&d, device, options);
    balloon_inflate(&d, AREA, HUGE / 2);
    balloon_wait_discarded(d.qts);
    /* The guest's copy has gone, what it was a copy of has not */
    balloon_assert_bytes(&d, AREA, HUGE / 2, NEW);
    balloon_assert_bytes(&d, AREA + HUGE / 2, HUGE / 2, OLD);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
    unlink(path);
    close(fd);
}

/* An assigned device brings all memory back; it has gone, so may the memory */
static void test_vfio_gone(BalloonDriver *d)
{
    const uint64_t size = 2 * HUGE;

    balloon_inflate(d, AREA, size);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, AREA, size, 0);

    balloon_plug_vfio(d->qts);
    balloon_assert_state(d->qts, "reached", "pinned-memory");
    qtest_memset(d->qts, AREA, NEW, size);
    balloon_assert_stays(d, AREA, size, NEW);
    /* What the guest takes back meanwhile is not in the balloon */
    balloon_deflate(d, AREA, size / 4);

    balloon_unplug_vfio(d->qts);
    balloon_wait_for((qtest_clock_step(d->qts, SECOND),
                      balloon_has_bytes(d, AREA + size / 4, size - size / 4,
                                        0)));
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, AREA, size / 4, NEW);
    balloon_assert_bytes(d, AREA + size, size, OLD);
    g_assert_cmpuint(balloon_counter(d->qts, "revived"), >=, size - size / 4);
}

/* Who reads shared memory fills it; the target, said again, empties it again */
static void test_same_target(BalloonDriver *d)
{
    const uint64_t size = 2 * HUGE;
    uint64_t before;

    balloon_set_target(d->qts, RAM - size);
    balloon_inflate(d, AREA, size);
    balloon_writel(d, BALLOON_CFG_ACTUAL, size / BALLOON_PAGE);
    balloon_wait_discarded(d->qts);
    before = file_usage(d->qts, MEMFD);
    balloon_assert_bytes(d, AREA, size, 0);
    g_assert_cmpuint(file_usage(d->qts, MEMFD), ==, before + size);

    balloon_set_target(d->qts, RAM - size);
    balloon_wait_for(file_usage(d->qts, MEMFD) == before);
    balloon_wait_discarded(d->qts);
    g_assert_cmpuint(balloon_counter(d->qts, "revived"), ==, size);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, 2 * size);
    balloon_assert_bytes(d, AREA + size, size, OLD);
}

#define PRIVATE_MEMFD MEMORY_OF("memfd,share=off")
#define PRIVATE_UNNAMED MEMORY_OF("file,share=off,mem-path=" SHM)

static const BalloonCase cases[] = {
    { "private/memfd/plain", test_private, PLAIN, PRIVATE_MEMFD, MEMFD },
    { "private/memfd/tell", test_private, TELL, PRIVATE_MEMFD, MEMFD },
    { "private/unnamed/plain", test_private, PLAIN, PRIVATE_UNNAMED, UNNAMED },
    { "private/unnamed/tell", test_private, TELL, PRIVATE_UNNAMED, UNNAMED },
    { "again/vfio-gone", test_vfio_gone, TELL, .host = HOST_WITH_VFIO },
    { "again/same-target", test_same_target, TELL, SHARED },
};

void balloon_add_pages_backing_tests(void)
{
    balloon_add_cases(BALLOON_PAGES, cases, ARRAY_SIZE(cases));
    qtest_add_data_func(BALLOON_PAGES "private/named/plain", PLAIN,
                        test_named);
    qtest_add_data_func(BALLOON_PAGES "private/named/tell", TELL, test_named);
}
