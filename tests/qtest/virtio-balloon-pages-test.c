/*
 * Pages in a virtio balloon of a driver that must tell before it uses one
 * again: whose each page is, at any time, and whatever happens
 *
 * A kick of a device without ioeventfd is served, for a slice of time, before
 * it returns; what is left of a huge request is parked then.  The host may let
 * the device get on with it before the test does, so a test that needs a
 * parked request tries until it has one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/statfs.h>
#include <linux/magic.h>
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"
#include "virtio-balloon-migrate.h"

#define DIMM BALLOON_DIMM_SLOTS BALLOON_DIMM_PLUGGED

/* Ways for the guest to have all of its pages back, untold */

/* What it took back meanwhile it did not have to tell */
static void end_feature_for_a_while(BalloonDriver *d)
{
    balloon_drop_tell(d);
    d->vdev->bus->set_features(d->vdev, d->vdev->features);
}

/* Other memory at the same place, with the same name and backend */
static void end_dimm(BalloonDriver *d)
{
    balloon_unplug_dimm(d->qts);
    balloon_plug_dimm(d->qts);
}

/* Nor does another device go on with it */
static void end_unplug(BalloonDriver *d)
{
    balloon_unplug(d);
    balloon_use(d, AREA, 2 * HUGE);
    balloon_plug(d, "{'must-tell-host': true}");
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_assert_bytes(d, AREA, 2 * HUGE, NEW);
}

/* A device that waits for its reset does nothing any more */
static void end_broken(BalloonDriver *d)
{
    balloon_post(d, DEFLATE, &(BalloonSeg) { AREA, 0 }, 1);
    balloon_wait_broken(d);
    balloon_use(d, AREA, 2 * HUGE);
    balloon_restart(d);
    balloon_assert_bytes(d, AREA, 2 * HUGE, NEW);
}

/* The pages are the guest's, and nothing waits to be discarded of them */
static void assert_not_given(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    balloon_use(d, addr, size);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==, 0);
    balloon_assert_sum(d->qts);
}

/*
 * Nothing is discarded of what waited for it, as half a huge page does, and
 * what was discarded is the guest's, too: all of it migrates.  The next driver
 * is served.
 */
static void ended(BalloonDriver *d)
{
    void (*end)(BalloonDriver *d) = d->data;
    const uint64_t addr = end == end_dimm ? BALLOON_DIMM : AREA;

    qtest_memset(d->qts, addr, OLD, 2 * HUGE);
    balloon_give(d, addr, HUGE);
    balloon_inflate(d, addr + HUGE, HUGE / 2);
    end(d);
    assert_not_given(d, addr, 2 * HUGE);
    balloon_move(d);
    balloon_assert_next_driver(d);
    balloon_assert_stays(d, addr, 2 * HUGE, NEW);
}

/* A deflate of a driver that does not have to tell is of no consequence */
static void feature_later(BalloonDriver *d)
{
    balloon_inflate(d, AREA, HUGE / 2);
    balloon_drop_tell(d);
    qtest_memset(d->qts, AREA, NEW, HUGE);
    balloon_deflate(d, AREA, HUGE / 2);
    balloon_assert_stays(d, AREA, HUGE, NEW);
    balloon_inflate(d, AREA, BALLOON_PAGE);
    balloon_assert_bytes(d, AREA, BALLOON_PAGE, 0);
    balloon_assert_bytes(d, AREA + BALLOON_PAGE, HUGE - BALLOON_PAGE, NEW);
}

/* A legacy driver may give pages before it says that it is up */
static void not_up(BalloonDriver *d)
{
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    balloon_inflate(d, AREA, HUGE / 2);
    balloon_set_bus_master(d, false);
    balloon_use(d, AREA, HUGE);
}

/*
 * A page is taken back while the chipset has its memory read-only: it is in the
 * balloon no more, also not for who looks at what came back
 */
static void read_only(BalloonDriver *d)
{
    const unsigned pam3 = 0x5c;
    const uint64_t addr = 0xd0000;
    g_autofree QPCIDevice *host = qpci_device_find(d->machine->pcibus, 0);

    qpci_config_writeb(host, pam3, 0x33);
    balloon_inflate(d, addr, BALLOON_PAGE);
    qpci_config_writeb(host, pam3, 0x11);
    balloon_deflate(d, addr, BALLOON_PAGE);
    qpci_config_writeb(host, pam3, 0x33);
    qtest_memset(d->qts, addr, NEW, BALLOON_PAGE);
    balloon_set_target(d->qts, balloon_target(d->qts));
    balloon_assert_stays(d, addr, BALLOON_PAGE, NEW);
}

/* Pages of memory that has left the guest are no part of what is saved */
static void dimm_gone(BalloonDriver *d)
{
    balloon_inflate(d, BALLOON_DIMM, HUGE);
    balloon_give(d, AREA, HUGE / 2);
    balloon_unplug_dimm(d->qts);
    d->options = BALLOON_DIMM_SLOTS;
    balloon_move(d);
    balloon_assert_bytes(d, AREA, HUGE / 2, 0);
    balloon_assert_bytes(d, AREA + HUGE / 2, HUGE / 2, OLD);
}

static void end_queue_reset(BalloonDriver *d)
{
    balloon_reset_queue(d, INFLATE);
}

/* What was put back does not count, either */
static void end_stop(BalloonDriver *d)
{
    balloon_stop(d);
    balloon_reset_queue(d, INFLATE);
    balloon_cont(d);
}

static void end_device_reset(BalloonDriver *d)
{
    qvirtio_reset(d->vdev);
}

static bool end_huge(BalloonDriver *d)
{
    void (*end)(BalloonDriver *d) = d->data;

    balloon_restart(d);
    balloon_post_huge(d, AREA, BALLOON_HUGE_MAX);
    end(d);
    return !balloon_has_used(d, INFLATE);
}

/* A page is given with the answer, not before */
static void unanswered(BalloonDriver *d)
{
    balloon_come_between(d, end_huge);
    assert_not_given(d, AREA, HUGE);
    balloon_move(d);
    balloon_assert_bytes(d, AREA, HUGE, NEW);
}

/*
 * A legacy driver drops the feature in the middle of a request.  With the
 * answer it may use the pages, those too that were dealt with before.
 */
static bool drop_meanwhile(BalloonDriver *d)
{
    bool meanwhile;
    uint32_t head;

    balloon_restart(d);
    head = balloon_post_huge(d, AREA, BALLOON_HUGE_MAX);
    balloon_drop_tell(d);
    meanwhile = !balloon_has_used(d, INFLATE);
    balloon_wait_used(d, INFLATE, head);
    assert_not_given(d, AREA, HUGE);
    return meanwhile;
}

/*
 * However often a request is put back and served again, it is one; and the sum
 * holds at each moment of it.  With a reset, what was done is what counts.
 */
static void counted_once(BalloonDriver *d)
{
    bool again = false;

    for (int i = 1; i <= ATTEMPTS && !again; i++) {
        uint32_t head = balloon_post_huge(d, AREA, BALLOON_HUGE_MAX);
        uint64_t before = balloon_assert_sum(d->qts);

        g_assert_cmpuint(balloon_assert_sum(d->qts), >=, before);
        for (int j = 0; j < 3; j++) {
            balloon_stop(d);
            again |= !balloon_has_used(d, INFLATE);
            balloon_assert_sum(d->qts);
            balloon_cont(d);
        }
        balloon_wait_used(d, INFLATE, head);
        g_assert_cmpuint(balloon_counter_pages(d->qts, "inflated"), ==,
                         i * BALLOON_HUGE_MAX * BALLOON_HUGE_PFNS);
        balloon_assert_sum(d->qts);
    }
    g_assert_true(again);
    balloon_post_huge(d, AREA, BALLOON_HUGE_MAX);
    balloon_reset(d);
}

/* What the guest has given is so many pages, and these were discarded */
static void assert_given(BalloonDriver *d, unsigned pages, unsigned discarded)
{
    balloon_wait_discarded(d->qts);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "inflated"), ==, pages);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "discarded"), ==,
                     discarded);
    balloon_assert_sum(d->qts);
}

/*
 * A driver may say the number of a page in 64 bits: every other word is 0, in
 * a list of one page as in one that is read in several parts.  It never meant
 * to give page 0.
 */
static void wide(BalloonDriver *d)
{
    static const unsigned sizes[] = { 96, 1, 1500 };
    uint64_t addr = AREA;
    unsigned given = 0;

    qtest_memset(d->qts, 0, NEW, BALLOON_PAGE);
    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        unsigned n = sizes[i];
        uint64_t list = balloon_copy_spread_pfns(d, addr, n);

        balloon_send_one(d, INFLATE, list, n * 8, false);
        given += n;
        assert_given(d, given, given);
        balloon_assert_bytes(d, addr, n * BALLOON_PAGE, 0);
        balloon_send_one(d, DEFLATE, list, n * 8, false);
        g_assert_cmpuint(balloon_counter_pages(d->qts, "deflated"), ==, given);
        balloon_use(d, addr, n * BALLOON_PAGE);
        balloon_assert_bytes(d, 0, BALLOON_PAGE, NEW);
        addr += n * BALLOON_PAGE;
        balloon_assert_bytes(d, addr, BALLOON_PAGE, OLD);
    }
}

/*
 * Page 0 among others is page 0, which no driver has to give; in order, its
 * neighbours go
 */
static void mixed(BalloonDriver *d)
{
    const uint32_t pfn = BALLOON_PFN(AREA);
    const uint32_t lists[][4] = {
        { pfn, 0, pfn + 1, pfn + 2 },
        { pfn + 3, pfn + 4, pfn + 5, 0 },
        { 0, pfn + 6, 0, pfn + 7 },
        { 0, 1, 2, 3 },
    };

    qtest_memset(d->qts, 0, NEW, 5 * BALLOON_PAGE);
    for (int i = 0; i < ARRAY_SIZE(lists); i++) {
        balloon_send_pfns(d, INFLATE, lists[i], 4);
    }
    assert_given(d, 16, 11);
    balloon_assert_pages(d, AREA, "00000000x");
    balloon_assert_bytes(d, 0, BALLOON_PAGE, NEW);
    balloon_assert_bytes(d, BALLOON_PAGE, 3 * BALLOON_PAGE, 0);
    balloon_assert_bytes(d, 4 * BALLOON_PAGE, BALLOON_PAGE, NEW);
}

#define GIVEN (16 * MiB)
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
static void private_file(BalloonDriver *d)
{
    const char *name = d->data;
    struct statfs fs;
    uint64_t before;

    if (strcmp(name, MEMFD) &&
        (statfs(SHM, &fs) || fs.f_type != TMPFS_MAGIC ||
         fs.f_bavail * fs.f_bsize < 3 * GIVEN)) {
        g_test_skip("no file system in memory has room for the guest's");
        return;
    }
    qtest_memset(d->qts, AREA - GIVEN, OLD, 2 * GIVEN);
    before = file_usage(d->qts, name);
    /* A busy host was seen to have 52 pages fewer in the file than were used */
    g_assert_cmpuint(before, >=, 2 * GIVEN - LISTS);
    balloon_give(d, AREA - GIVEN, GIVEN);
    g_assert_cmpuint(file_usage(d->qts, name), <=, before - GIVEN + LISTS);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, GIVEN);
    balloon_assert_bytes(d, AREA - GIVEN, GIVEN, 0);
    balloon_assert_bytes(d, AREA, GIVEN, OLD);
}

/* An assigned device brings all memory back; it has gone, so may the memory */
static void vfio_gone(BalloonDriver *d)
{
    const uint64_t size = 2 * HUGE;

    balloon_give(d, AREA, size);
    balloon_assert_bytes(d, AREA, size, 0);

    balloon_plug_vfio(d->qts);
    balloon_assert_state(d->qts, "reached", "pinned-memory");
    balloon_use(d, AREA, size);
    /* What the guest takes back meanwhile is not in the balloon */
    balloon_deflate(d, AREA, size / 4);

    balloon_unplug_vfio(d->qts);
    balloon_wait_gone(d, AREA + size / 4, size - size / 4);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, AREA, size / 4, NEW);
    balloon_assert_bytes(d, AREA + size, size, OLD);
    g_assert_cmpuint(balloon_counter(d->qts, "revived"), >=, size - size / 4);
}

/* A device comes and goes within a moment */
static bool bring_by_vfio(BalloonDriver *d)
{
    balloon_plug_vfio(d->qts);
    balloon_use(d, AREA, HUGE);
    balloon_unplug_vfio(d->qts);
    return true;
}

static bool bring_by_snapshot(BalloonDriver *d)
{
    if (!balloon_try_capability(d->qts, "background-snapshot")) {
        return false;
    }
    balloon_migrate_slowly(d->qts);
    balloon_use(d, AREA, HUGE);
    balloon_migrate_finish(d->qts);
    return true;
}

/* Something brings memory back, and nobody asks for anything */
static void unasked(BalloonDriver *d)
{
    bool (*bring)(BalloonDriver *d) = d->data;

    balloon_give(d, AREA, HUGE);
    balloon_assert_counter_stays(d->qts, "discarded", HUGE);
    if (bring(d)) {
        balloon_wait_gone(d, AREA, HUGE);
        balloon_assert_bytes(d, AREA + HUGE, HUGE, OLD);
    }
}

#define READ_SIZE (2 * HUGE)

static void read_area(BalloonDriver *d)
{
    balloon_assert_bytes(d, AREA, READ_SIZE, 0);
}

static void dump(BalloonDriver *d)
{
    balloon_dump(d->qts, balloon_file("dump"));
}

/* Who reads shared memory fills it; the target, said again, empties it again */
static void same_target(BalloonDriver *d)
{
    void (*read_memory)(BalloonDriver *d) = d->data;
    const uint64_t size = READ_SIZE;
    uint64_t before;

    /* From here on the file lacks nothing but the balloon */
    dump(d);
    balloon_set_target(d->qts, RAM - size);
    balloon_inflate(d, AREA, size);
    balloon_writel(d, BALLOON_CFG_ACTUAL, size / BALLOON_PAGE);
    balloon_wait_discarded(d->qts);
    before = file_usage(d->qts, MEMFD);
    read_memory(d);
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

static const BalloonTest tests[] = {
    { "end/pages/bus-master", ended, TELL, NULL, balloon_end_bus_master },
    { "end/pages/driver-ok", ended, TELL, NULL, balloon_clear_driver_ok },
    { "end/pages/feature", ended, TELL LEGACY, NULL, balloon_drop_tell },
    { "end/pages/feature-for-a-while", ended, TELL LEGACY, NULL,
      end_feature_for_a_while },
    { "end/pages/dimm", ended, TELL, DIMM, end_dimm },
    { "end/pages/unplug", ended, TELL, NULL, end_unplug },
    { "broken", ended, TELL, NULL, end_broken },
    { "end/actual/bus-master", balloon_test_end_is_told, TELL, NULL,
      balloon_end_bus_master },
    { "end/actual/driver-ok", balloon_test_end_is_told, TELL, NULL,
      balloon_clear_driver_ok },
    { "end/feature-later", feature_later, TELL LEGACY },
    { "end/dimm-gone", dimm_gone, TELL, DIMM },
    { "end/not-up", not_up, TELL LEGACY, .unstarted = true },
    { "read-only", read_only, TELL, "-machine pc " MEMORY },
    { "unanswered/queue-reset", unanswered, TELL KICKED, NULL,
      end_queue_reset },
    { "unanswered/stop", unanswered, TELL KICKED, NULL, end_stop },
    { "unanswered/driver-ok", unanswered, TELL KICKED, NULL,
      balloon_clear_driver_ok },
    { "unanswered/device-reset", unanswered, TELL KICKED, NULL,
      end_device_reset },
    { "end/feature-meanwhile", balloon_test_come_between, TELL KICKED LEGACY,
      NULL, drop_meanwhile },
    { "counted-once/plain", counted_once, PLAIN KICKED },
    { "counted-once/tell", counted_once, TELL KICKED },
    { "wide/plain", wide, PLAIN },
    { "wide/tell", wide, TELL },
    { "wide/mixed/plain", mixed, PLAIN },
    { "wide/mixed/tell", mixed, TELL },
    { "private/memfd/plain", private_file, PLAIN, PRIVATE_MEMFD, MEMFD },
    { "private/memfd/tell", private_file, TELL, PRIVATE_MEMFD, MEMFD },
    { "private/unnamed/plain", private_file, PLAIN, PRIVATE_UNNAMED, UNNAMED },
    { "private/unnamed/tell", private_file, TELL, PRIVATE_UNNAMED, UNNAMED },
    { "again/vfio-gone", vfio_gone, TELL, .vfio = VFIO_HOST },
    { "again/vfio-unseen", unasked, .data = bring_by_vfio, .vfio = VFIO_HOST },
    { "again/snapshot", unasked, TELL, NULL, bring_by_snapshot },
    { "again/same-target", same_target, TELL, SHARED, read_area },
    { "again/dump", same_target, TELL, SHARED, dump },
};

BALLOON_TESTS("improved/pages/", TELL, tests)
