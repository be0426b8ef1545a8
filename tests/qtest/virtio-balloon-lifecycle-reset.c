/*
 * Resets of a virtio balloon: device, machine, queue, sleep and snapshot
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "standard-headers/linux/virtio_config.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define RAM BALLOON_RAM
#define TARGET_PAGES 0x1000
#define ACTUAL_PAGES 0x800
#define ACTUAL_LEFT (RAM - ACTUAL_PAGES * BALLOON_PAGE)

/* The PC's power management: function 3 of slot 1, and where its ports go */
#define PM_DEVFN QPCI_DEVFN(1, 3)
#define PM_PORTS 0x600
#define PM_CONTROL (PM_PORTS + 4)
#define PM_SLEEP_S3 (1 << 13 | 1 << 10)

/* A driver that has reached half of its target */
static void inflate_some(BalloonDriver *d)
{
    balloon_set_target(d->qts, RAM - TARGET_PAGES * BALLOON_PAGE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, ACTUAL_PAGES);
    g_assert_cmpint(balloon_next_change(d->qts), ==, ACTUAL_LEFT);
}

/* A reset gives the memory back, and says so once */
static void test_actual_goes(BalloonDriver *d)
{
    inflate_some(d);
    qtest_clock_step(d->qts, 2 * NANOSECONDS_PER_SECOND);
    if (d->data) {
        qtest_system_reset_nowait(d->qts);
        balloon_wait_for(balloon_query(d->qts) == RAM);
    } else {
        balloon_reset(d);
        g_assert_cmpint(balloon_query(d->qts), ==, RAM);
    }
    g_assert_cmpint(balloon_next_change(d->qts), ==, RAM);
    qtest_clock_step(d->qts, 2 * NANOSECONDS_PER_SECOND);
    g_assert_cmpint(balloon_next_change(d->qts), ==, -1);
}

/* What one driver wrote does not come back when the next one writes another */
static void test_config_is_forgotten(BalloonDriver *d)
{
    inflate_some(d);
    balloon_writel(d, BALLOON_CFG_POISON, 0xaaaaaaaa);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0xaaaaaaaa);
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 1);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0);

    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL), ==, 0);
    balloon_writel(d, BALLOON_CFG_POISON, 0);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL), ==, 0);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);
}

/* Suspend to RAM as the guest does, and wake up */
static void sleep_and_wake(BalloonDriver *d)
{
    QPCIDevice *pm = qpci_device_find(d->machine->pcibus, PM_DEVFN);

    qpci_config_writel(pm, 0x40, PM_PORTS | 1);
    qpci_config_writeb(pm, 0x80, 1);
    g_free(pm);
    qtest_outw(d->qts, PM_CONTROL, PM_SLEEP_S3);
    qtest_qmp_eventwait(d->qts, "SUSPEND");
    qtest_qmp_assert_success(d->qts, "{'execute': 'system_wakeup'}");
    qtest_qmp_eventwait(d->qts, "WAKEUP");
}

/* Waking up is no reset, the balloon is as large as before */
static void test_sleep(BalloonDriver *d)
{
    inflate_some(d);
    balloon_leave_stats(d, 4711);
    sleep_and_wake(d);
    g_assert_cmpint(balloon_query(d->qts), ==, ACTUAL_LEFT);
    balloon_lose(d);
    balloon_find(d, 4);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, TARGET_PAGES);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_assert_works(d);
}

/* A snapshot brings its own balloon back */
static void test_snapshot(BalloonDriver *d)
{
    g_autofree char *path = balloon_temp_name("disk");

    balloon_add_disk(d->qts, path);
    inflate_some(d);
    balloon_snapshot(d->qts, "snapshot-save", "s");
    balloon_set_target(d->qts, RAM);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 1);
    balloon_snapshot(d->qts, "snapshot-load", "s");
    unlink(path);
    g_assert_cmpint(balloon_query(d->qts), ==, ACTUAL_LEFT);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, TARGET_PAGES);
}

/* The held buffer is forgotten with its ring: it is none of the new one's */
static void test_reset_stats_queue(BalloonDriver *d)
{
    uint32_t head;

    g_assert_cmphex(d->vdev->features & 1ull << VIRTIO_F_RING_RESET, !=, 0);
    for (int i = 1; i < 4; i++) {
        balloon_leave_stats(d, i);
        balloon_reset_queue(d, BALLOON_VQ_STATS);
        balloon_renew_queue(d, BALLOON_VQ_STATS);
        balloon_set_interval(d->qts, 1);
        qtest_clock_step(d->qts, 3 * NANOSECONDS_PER_SECOND);
        g_assert_false(balloon_has_used(d, BALLOON_VQ_STATS));
        g_assert_cmpuint(balloon_stat(d->qts, "free-memory"), ==, i);

        head = balloon_leave_stats(d, 1000 + i);
        g_assert_false(balloon_has_used(d, BALLOON_VQ_STATS));
        qtest_clock_step(d->qts, 3 * NANOSECONDS_PER_SECOND);
        balloon_wait_served(d, BALLOON_VQ_STATS, head);
        g_assert_false(balloon_has_used(d, BALLOON_VQ_STATS));
        balloon_set_interval(d->qts, 0);
    }
    balloon_assert_works(d);
}

/* Every queue may be reset, used or not, and works as before */
static void test_reset_queues(BalloonDriver *d)
{
    static const int queues[] = {
        BALLOON_VQ_DEFLATE, BALLOON_VQ_HINT, BALLOON_VQ_HINT + 1,
    };
    uint64_t page = balloon_alloc(d, BALLOON_PAGE, 0x3c);

    for (int i = 0; i < 2 * ARRAY_SIZE(queues); i++) {
        int queue = queues[i % ARRAY_SIZE(queues)];

        balloon_reset_queue(d, queue);
        balloon_renew_queue(d, queue);
        balloon_send_one(d, queue, page, BALLOON_PAGE,
                         queue != BALLOON_VQ_DEFLATE);
    }
    balloon_assert_works(d);
}

static const BalloonTest tests[] = {
    { "improved/reset/device", test_actual_goes },
    { "improved/reset/machine", test_actual_goes, .data = "machine" },
    { "improved/reset/config", test_config_is_forgotten },
    { "reset/sleep", test_sleep },
    { "reset/snapshot", test_snapshot },
    { "improved/reset/stats-queue", test_reset_stats_queue },
    { "reset/queues", test_reset_queues,
      .device = "virtio-balloon-pci,free-page-reporting=on,free-page-hint=on,"
                "iothread=io0" },
};

void balloon_add_reset_tests(void)
{
    balloon_add_tests(NULL, tests, ARRAY_SIZE(tests));
}
