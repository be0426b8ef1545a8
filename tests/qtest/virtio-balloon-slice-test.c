/*
 * Requests to the virtio balloon that take long, and what may come between
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "libqos/pci-pc.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-test.h"

#define DEVICE "virtio-balloon-pci"
#define OPTIONS "-machine pc -m 128"
#define SLOT 4
#define INFLATE BALLOON_VQ_INFLATE

/* Pages that are not next to each other, each listed many times */
#define PAGES 8192
#define REPEAT 8
#define SEGMENTS 32

typedef struct Long {
    BalloonDriver d;
    /* the pages listed are every second one from here */
    uint64_t mem;
    uint32_t head;
} Long;

/* Leave a request of 2 million pages */
static void start(Long *l)
{
    g_autofree uint32_t *pfns = g_new(uint32_t, PAGES * REPEAT);
    BalloonSeg segs[SEGMENTS];
    uint64_t list;

    balloon_boot(&l->d, DEVICE, OPTIONS);
    balloon_start(&l->d, BALLOON_ALL_FEATURES);
    l->mem = balloon_dirty_pages(&l->d, 2 * PAGES);
    for (unsigned i = 0; i < PAGES * REPEAT; i++) {
        pfns[i] = balloon_wire32(&l->d,
                                 BALLOON_PFN(l->mem) + 2 * (i % PAGES));
    }
    list = balloon_copy(&l->d, pfns, PAGES * REPEAT * sizeof(*pfns));
    for (int i = 0; i < SEGMENTS; i++) {
        segs[i] = (BalloonSeg) { list, PAGES * REPEAT * sizeof(*pfns) };
    }
    l->head = balloon_post(&l->d, INFLATE, segs, SEGMENTS);
}

static bool begun(Long *l)
{
    return qtest_readb(l->d.qts, l->mem) == 0;
}

/* All that was listed, nothing else, and one answer */
static void assert_served(Long *l)
{
    balloon_wait_used(&l->d, INFLATE, l->head);
    balloon_assert_pages(&l->d, l->mem, "0x0x0x0x0x0x");
    balloon_assert_pages(&l->d, l->mem + (2 * PAGES - 4) * BALLOON_PAGE,
                         "0x0x");
    qtest_qmp_assert_success(l->d.qts, "{'execute': 'query-status'}");
    g_assert_false(balloon_has_used(&l->d, INFLATE));
}

/* Is it used?  If it is not, but begun, @seen says so from now on */
static bool watch(Long *l, bool *seen)
{
    *seen |= begun(l) && !balloon_has_used(&l->d, INFLATE);
    return balloon_has_used(&l->d, INFLATE);
}

/* QEMU answers while it is at it: work is seen that is not done yet */
static void bounded(void)
{
    bool seen = false;
    Long l;

    start(&l);
    balloon_wait_for(watch(&l, &seen));
    g_assert_true(seen);
    assert_served(&l);
    balloon_quit(&l.d);
}

/* While the VM is stopped, its memory does not change */
static void stop(void)
{
    Long l;

    start(&l);
    balloon_wait_for(begun(&l));
    qtest_qmp_assert_success(l.d.qts, "{'execute': 'stop'}");
    qtest_memset(l.d.qts, l.mem, 0xa5, 2 * PAGES * BALLOON_PAGE);
    for (int i = 0; i < 10; i++) {
        qtest_clock_step(l.d.qts, 100 * 1000 * 1000);
        balloon_assert_pages(&l.d, l.mem, "xxxxxxxx");
    }
    balloon_assert_bytes(&l.d, l.mem, 2 * PAGES * BALLOON_PAGE, 0xa5);
    qtest_qmp_assert_success(l.d.qts, "{'execute': 'cont'}");
    balloon_wait_used(&l.d, INFLATE, l.head);
    balloon_assert_pages(&l.d, l.mem + BALLOON_PAGE, "x");
    balloon_quit(&l.d);
}

/*
 * What can be finished when the VM stops is, and the guest is told.  A VM that
 * stops later has nothing to finish, so there are some attempts.
 */
static void finish(void)
{
    Long l;

    balloon_boot(&l.d, DEVICE, OPTIONS);
    balloon_start(&l.d, BALLOON_ALL_FEATURES);
    l.mem = balloon_alloc(&l.d, 2 * PAGES * BALLOON_PAGE, 0xa5);
    for (int round = 0; round < 10; round++) {
        uint32_t pfns[PAGES];
        uint32_t head;
        uint64_t list;

        qtest_memset(l.d.qts, l.mem, 0xa5, 2 * PAGES * BALLOON_PAGE);
        for (unsigned i = 0; i < PAGES; i++) {
            pfns[i] = balloon_wire32(&l.d, BALLOON_PFN(l.mem) + 2 * i);
        }
        list = balloon_copy(&l.d, pfns, sizeof(pfns));
        head = balloon_post(&l.d, INFLATE,
                            &(BalloonSeg) { list, sizeof(pfns) }, 1);
        qtest_qmp_assert_success(l.d.qts, "{'execute': 'stop'}");
        qtest_qmp_assert_success(l.d.qts, "{'execute': 'cont'}");
        balloon_wait_served(&l.d, INFLATE, head);
        balloon_assert_pages(&l.d, l.mem, "0x0x0x0x");
        guest_free(l.d.alloc, list);
    }
    balloon_quit(&l.d);
}

/* A request is forgotten with its ring */
static void reset(void)
{
    Long l;

    start(&l);
    balloon_wait_for(begun(&l));
    balloon_reset(&l.d);
    qtest_memset(l.d.qts, l.mem, 0xa5, 2 * PAGES * BALLOON_PAGE);
    balloon_start(&l.d, BALLOON_ALL_FEATURES);
    balloon_assert_bytes(&l.d, l.mem, 2 * PAGES * BALLOON_PAGE, 0xa5);
    g_assert_false(balloon_has_used(&l.d, INFLATE));
    balloon_send_range(&l.d, INFLATE, l.mem, 1);
    balloon_assert_pages(&l.d, l.mem, "0x");
    balloon_quit(&l.d);
}

static void unplug(void)
{
    Long l;

    start(&l);
    balloon_wait_for(begun(&l));
    balloon_lose(&l.d);
    qpci_unplug_acpi_device_test(l.d.qts, "balloon0", SLOT);
    qtest_memset(l.d.qts, l.mem, 0xa5, 2 * PAGES * BALLOON_PAGE);
    for (int i = 0; i < 10; i++) {
        qtest_clock_step(l.d.qts, 100 * 1000 * 1000);
    }
    balloon_assert_bytes(&l.d, l.mem, 2 * PAGES * BALLOON_PAGE, 0xa5);
    balloon_quit(&l.d);
}

/* What is begun here is answered there */
static void migrate_away(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source;
    Long l;

    start(&l);
    balloon_wait_for(begun(&l));
    source = l.d;
    balloon_migrate(source.qts, file);
    balloon_load(&l.d, &source, DEVICE, OPTIONS, file);
    unlink(file);
    balloon_quit(&source);
    assert_served(&l);
    balloon_quit(&l.d);
}

/* QEMU may end at any time: it must not fail, which kills the test */
static void quit(void)
{
    Long l;

    start(&l);
    balloon_wait_for(begun(&l));
    balloon_quit(&l.d);
}

void virtio_balloon_add_slice_tests(void)
{
    qtest_add_func(BALLOON_TESTS "slice/quit", quit);
    qtest_add_func(BALLOON_IMPROVED "slice/bounded", bounded);
    qtest_add_func(BALLOON_TESTS "slice/stop", stop);
    qtest_add_func(BALLOON_TESTS "slice/finish", finish);
    qtest_add_func(BALLOON_TESTS "slice/reset", reset);
    qtest_add_func(BALLOON_TESTS "slice/unplug", unplug);
    qtest_add_func(BALLOON_TESTS "slice/migrate", migrate_away);
}
