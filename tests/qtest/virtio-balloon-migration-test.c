/*
 * Migration of the virtio balloon
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-test.h"

#define RAM (128 * MiB)
#define STATS BALLOON_VQ_STATS

typedef struct Variant {
    const char *name;
    const char *device;
    const char *options;
    bool poison;
    /* QEMU drops machine types when they are six years old */
    const char *machine;
} Variant;

#define DEVICE "virtio-balloon-pci"
#define OPTIONS "-m 128 -object iothread,id=io0"

static const Variant variants[] = {
    { "default", DEVICE, "-m 128", true },
    { "no-poison", DEVICE ",page-poison=off", "-m 128", false },
    { "all", DEVICE ",free-page-hint=on,iothread=io0,free-page-reporting=on"
      ",deflate-on-oom=on", OPTIONS, true },
    { "legacy", DEVICE ",disable-modern=on", "-m 128", true },
    { "3.1", DEVICE, "-machine pc-i440fx-3.1 -m 128", false, "pc-i440fx-3.1" },
    { "4.0", DEVICE, "-machine pc-i440fx-4.0 -m 128", false, "pc-i440fx-4.0" },
    { "5.0", DEVICE, "-machine pc-i440fx-5.0 -m 128", false, "pc-i440fx-5.0" },
    { "9.2", DEVICE, "-machine pc-i440fx-9.2 -m 128", true, "pc-i440fx-9.2" },
};

/* What the guest can see arrives, what management set up does not */
static void round_trip(const void *data)
{
    const Variant *v = data;
    BalloonDriver d;
    uint64_t mem;

    if (v->machine && !qtest_has_machine(v->machine)) {
        g_test_skip("this QEMU has no such machine type any more");
        return;
    }
    balloon_boot(&d, v->device, v->options);
    balloon_negotiate(&d, BALLOON_ALL_FEATURES);
    if (v->poison) {
        balloon_writel(&d, BALLOON_CFG_POISON, 0xaabbccdd);
    }
    balloon_setup_queues(&d);
    qvirtio_set_driver_ok(d.vdev);
    balloon_set_target(d.qts, 64 * MiB);
    balloon_set_interval(d.qts, 10);
    mem = balloon_dirty_pages(&d, 4);
    balloon_send_range(&d, BALLOON_VQ_INFLATE, mem, 2);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0x1234);

    balloon_move(&d, v->device, v->options);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_ACTUAL), ==, 0x1234);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 0x1234000);
    if (v->poison) {
        g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_POISON), ==,
                        0xaabbccdd);
    }
    g_assert_cmphex(balloon_stat(d.qts, "free-memory"), ==,
                    BALLOON_STAT_UNSET);
    g_assert_cmpint(balloon_last_update(d.qts), ==, 0);
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 0);

    /* the queues go on */
    balloon_assert_pages(&d, mem, "00xx");
    balloon_send_range(&d, BALLOON_VQ_INFLATE, mem + 2 * BALLOON_PAGE, 1);
    balloon_assert_pages(&d, mem, "000x");
    balloon_send_range(&d, BALLOON_VQ_DEFLATE, mem, 3);
    balloon_set_target(d.qts, 96 * MiB);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_NUM_PAGES), ==, 0x2000);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM);
    balloon_quit(&d);
}

/* The buffer that the device held is held by the new one, and polled */
static void held_buffer(BalloonDriver *d)
{
    uint32_t head = balloon_leave_stats(d, 42);

    for (int hop = 0; hop < 2; hop++) {
        balloon_move(d, DEVICE, OPTIONS);
        g_assert_cmpint(balloon_get_interval(d->qts), ==, 0);
        g_assert_false(balloon_has_used(d, STATS));
    }
    balloon_set_interval(d->qts, 1);
    balloon_wait_served(d, STATS, head);
    for (int i = 0; i < 3; i++) {
        head = balloon_leave_stats(d, 43 + i);
        qtest_clock_step(d->qts, NANOSECONDS_PER_SECOND);
        balloon_wait_served(d, STATS, head);
    }
}

/* What a held buffer says is old, and stays */
static void held_values(BalloonDriver *d)
{
    balloon_leave_stats(d, 42);
    balloon_move(d, DEVICE, OPTIONS);
    g_assert_cmphex(balloon_stat(d->qts, "free-memory"), ==,
                    BALLOON_STAT_UNSET);
    g_assert_cmpint(balloon_last_update(d->qts), ==, 0);
}

/* Every request is answered exactly once, here or there */
static void requests_in_flight(BalloonDriver *d)
{
    enum { REQUESTS = 16, PAGES = 1024 };
    uint32_t pfns[PAGES];

    for (int round = 0; round < 3; round++) {
        uint64_t mem = balloon_dirty_pages(d, PAGES + 1);
        uint32_t heads[REQUESTS];
        uint64_t list;

        for (int i = 0; i < PAGES; i++) {
            pfns[i] = BALLOON_PFN(mem) + (i * 77) % PAGES;
        }
        list = balloon_copy_pfns(d, pfns, PAGES);
        balloon_free_descriptors(d, BALLOON_VQ_INFLATE);
        for (int i = 0; i < REQUESTS; i++) {
            heads[i] = balloon_add(d, BALLOON_VQ_INFLATE, &(BalloonSeg) {
                list, sizeof(pfns)
            }, 1);
            balloon_publish(d, BALLOON_VQ_INFLATE, heads[i]);
        }
        balloon_kick(d, BALLOON_VQ_INFLATE);
        balloon_move(d, DEVICE, OPTIONS);
        for (int i = 0; i < REQUESTS; i++) {
            balloon_wait_used(d, BALLOON_VQ_INFLATE, heads[i]);
        }
        balloon_query(d->qts);
        g_assert_false(balloon_has_used(d, BALLOON_VQ_INFLATE));
        balloon_assert_bytes(d, mem, PAGES * BALLOON_PAGE, 0);
        balloon_assert_pages(d, mem + PAGES * BALLOON_PAGE, "x");
        guest_free(d->alloc, mem);
        guest_free(d->alloc, list);
    }
}

static const BalloonTest tests[] = {
    { "migration/held-buffer", held_buffer },
    { "improved/migration/held-values", held_values },
    { "migration/requests-in-flight", requests_in_flight },
};

void virtio_balloon_add_migration_tests(void)
{
    for (int i = 0; i < ARRAY_SIZE(variants); i++) {
        g_autofree char *path = g_strconcat("/virtio-balloon/migration/",
                                            variants[i].name, NULL);

        qtest_add_data_func(path, &variants[i], round_trip);
    }
    balloon_add_tests(DEVICE, tests, ARRAY_SIZE(tests));
}
