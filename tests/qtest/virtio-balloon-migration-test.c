/*
 * Migration of the virtio balloon
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "virtio-balloon-driver.h"
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

static const Variant variants[] = {
    { "default", "virtio-balloon-pci", "-m 128", true },
    { "no-poison", "virtio-balloon-pci,page-poison=off", "-m 128", false },
    { "all",
      "virtio-balloon-pci,free-page-hint=on,iothread=io0"
      ",free-page-reporting=on,deflate-on-oom=on",
      "-m 128 -object iothread,id=io0", true },
    { "legacy", "virtio-balloon-pci,disable-modern=on", "-m 128", true },
    { "3.1", "virtio-balloon-pci", "-machine pc-i440fx-3.1 -m 128", false,
      "pc-i440fx-3.1" },
    { "4.0", "virtio-balloon-pci", "-machine pc-i440fx-4.0 -m 128", false,
      "pc-i440fx-4.0" },
    { "5.0", "virtio-balloon-pci", "-machine pc-i440fx-5.0 -m 128", false,
      "pc-i440fx-5.0" },
    { "9.2", "virtio-balloon-pci", "-machine pc-i440fx-9.2 -m 128", true,
      "pc-i440fx-9.2" },
};

/* Migrate @d, which goes on in a new machine */
static void migrate_to_new(BalloonDriver *d, const char *device,
                           const char *options)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source = *d;

    balloon_migrate(source.qts, file);
    balloon_load(d, &source, device, options, file);
    unlink(file);
    balloon_quit(&source);
}

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

    migrate_to_new(&d, v->device, v->options);
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
static void held_buffer(void)
{
    BalloonDriver d;
    uint32_t head;

    balloon_boot(&d, "virtio-balloon-pci", "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    head = balloon_leave_stats(&d, 42);
    for (int hop = 0; hop < 2; hop++) {
        migrate_to_new(&d, "virtio-balloon-pci", "-m 128");
        g_assert_cmpint(balloon_get_interval(d.qts), ==, 0);
        g_assert_false(balloon_has_used(&d, STATS));
    }
    balloon_set_interval(d.qts, 1);
    balloon_wait_served(&d, STATS, head);
    for (int i = 0; i < 3; i++) {
        head = balloon_leave_stats(&d, 43 + i);
        qtest_clock_step(d.qts, NANOSECONDS_PER_SECOND);
        balloon_wait_served(&d, STATS, head);
    }
    balloon_quit(&d);
}

/* What a held buffer says is old, and stays */
static void held_values(void)
{
    BalloonDriver d;

    balloon_boot(&d, "virtio-balloon-pci", "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_leave_stats(&d, 42);
    migrate_to_new(&d, "virtio-balloon-pci", "-m 128");
    g_assert_cmphex(balloon_stat(d.qts, "free-memory"), ==,
                    BALLOON_STAT_UNSET);
    g_assert_cmpint(balloon_last_update(d.qts), ==, 0);
    balloon_quit(&d);
}

/* Every request is answered exactly once, here or there */
static void requests_in_flight(void)
{
    enum { REQUESTS = 16, PAGES = 1024 };
    g_autofree uint32_t *pfns = g_new(uint32_t, PAGES);
    BalloonDriver d;
    uint64_t mem, list;

    balloon_boot(&d, "virtio-balloon-pci", "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    for (int round = 0; round < 3; round++) {
        uint32_t heads[REQUESTS];

        mem = balloon_dirty_pages(&d, PAGES + 1);
        for (int i = 0; i < PAGES; i++) {
            pfns[i] = balloon_wire32(&d, BALLOON_PFN(mem) + (i * 77) % PAGES);
        }
        list = balloon_copy(&d, pfns, PAGES * sizeof(*pfns));
        balloon_free_descriptors(&d, BALLOON_VQ_INFLATE);
        for (int i = 0; i < REQUESTS; i++) {
            heads[i] = balloon_add(&d, BALLOON_VQ_INFLATE, &(BalloonSeg) {
                list, PAGES * sizeof(*pfns)
            }, 1);
            balloon_publish(&d, BALLOON_VQ_INFLATE, heads[i]);
        }
        balloon_kick(&d, BALLOON_VQ_INFLATE);
        migrate_to_new(&d, "virtio-balloon-pci", "-m 128");
        for (int i = 0; i < REQUESTS; i++) {
            balloon_wait_used(&d, BALLOON_VQ_INFLATE, heads[i]);
        }
        balloon_query(d.qts);
        g_assert_false(balloon_has_used(&d, BALLOON_VQ_INFLATE));
        balloon_assert_bytes(&d, mem, PAGES * BALLOON_PAGE, 0);
        balloon_assert_pages(&d, mem + PAGES * BALLOON_PAGE, "x");
        guest_free(d.alloc, mem);
        guest_free(d.alloc, list);
    }
    balloon_quit(&d);
}

void virtio_balloon_add_migration_tests(void)
{
    for (int i = 0; i < ARRAY_SIZE(variants); i++) {
        g_autofree char *path = g_strconcat(BALLOON_TESTS "migration/",
                                            variants[i].name, NULL);

        qtest_add_data_func(path, &variants[i], round_trip);
    }
    qtest_add_func(BALLOON_TESTS "migration/held-buffer", held_buffer);
    qtest_add_func(BALLOON_IMPROVED "migration/held-values", held_values);
    qtest_add_func(BALLOON_TESTS "migration/requests-in-flight",
                   requests_in_flight);
}
