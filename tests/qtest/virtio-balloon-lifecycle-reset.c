/*
 * Resets of a virtio balloon: device, machine, queue, sleep and snapshot
 *
 * Comments name the section of virtio 1.2 that they test.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qobject/qdict.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define RAM BALLOON_LIFE_RAM
#define TARGET_PAGES 0x1000
#define ACTUAL_PAGES 0x800
#define ACTUAL_LEFT (RAM - ACTUAL_PAGES * BALLOON_PAGE)

/* The PC's power management: function 3 of slot 1, and where its ports go */
#define PM_DEVFN QPCI_DEVFN(1, 3)
#define PM_PORTS 0x600
#define PM_CONTROL (PM_PORTS + 4)
#define PM_SLEEP_S3 (1 << 13 | 1 << 10)

static void start(BalloonDriver *d, const char *device, const char *options)
{
    g_autofree char *all = g_strdup_printf("-m 256 %s", options);

    balloon_boot(d, device, all);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

/* A driver that has reached half of its target */
static void inflate_some(BalloonDriver *d)
{
    balloon_set_target(d->qts, RAM - TARGET_PAGES * BALLOON_PAGE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, ACTUAL_PAGES);
    g_assert_cmpint(balloon_next_change(d->qts), ==, ACTUAL_LEFT);
}

/* The target stays when the device is reset */
static void test_target_stays(void)
{
    BalloonDriver d;

    start(&d, NULL, "");
    inflate_some(&d);
    balloon_reset(&d);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_NUM_PAGES), ==,
                    TARGET_PAGES);
    qtest_system_reset(d.qts);
    balloon_lose(&d);
    balloon_find(&d, 4);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_NUM_PAGES), ==,
                    TARGET_PAGES);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_works(&d);
    balloon_quit(&d);
}

/* A reset gives the memory back, and says so once */
static void test_actual_goes(const void *machine)
{
    BalloonDriver d;

    start(&d, NULL, "");
    inflate_some(&d);
    qtest_clock_step(d.qts, 2 * NANOSECONDS_PER_SECOND);
    if (machine) {
        qtest_system_reset_nowait(d.qts);
    } else {
        balloon_reset(&d);
    }
    balloon_wait_for(balloon_query(d.qts) == RAM);
    g_assert_cmpint(balloon_next_change(d.qts), ==, RAM);
    qtest_clock_step(d.qts, 2 * NANOSECONDS_PER_SECOND);
    g_assert_cmpint(balloon_next_change(d.qts), ==, -1);
    balloon_quit(&d);
}

/*
 * What one driver wrote does not come back when
 * the next one writes another field
 */
static void test_poison_is_forgotten(void)
{
    BalloonDriver d;

    start(&d, NULL, "");
    balloon_writel(&d, BALLOON_CFG_POISON, 0xaaaaaaaa);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_POISON), ==, 0xaaaaaaaa);
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 1);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_POISON), ==, 0);
    balloon_quit(&d);
}

/* An old actual does not come back either */
static void test_actual_is_forgotten(void)
{
    BalloonDriver d;

    start(&d, NULL, "");
    inflate_some(&d);
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_writel(&d, BALLOON_CFG_POISON, 0);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_ACTUAL), ==, 0);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM);
    balloon_quit(&d);
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
static void test_sleep(void)
{
    BalloonDriver d;

    start(&d, NULL, "");
    inflate_some(&d);
    balloon_post_stats(&d, 4711);
    sleep_and_wake(&d);
    g_assert_cmpint(balloon_query(d.qts), ==, ACTUAL_LEFT);
    balloon_lose(&d);
    balloon_find(&d, 4);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_NUM_PAGES), ==,
                    TARGET_PAGES);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_works(&d);
    balloon_quit(&d);
}

/* A snapshot brings its own balloon back */
static void test_snapshot(void)
{
    BalloonDriver d;
    g_autofree char *folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "disk.qcow2", NULL);

    start(&d, NULL, "");
    balloon_add_disk(d.qts, path);
    inflate_some(&d);
    balloon_snapshot(d.qts, "snapshot-save", "s");
    balloon_set_target(d.qts, RAM);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 1);
    balloon_snapshot(d.qts, "snapshot-load", "s");
    g_assert_cmpint(balloon_query(d.qts), ==, ACTUAL_LEFT);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_NUM_PAGES), ==,
                    TARGET_PAGES);
    balloon_quit(&d);
    unlink(path);
    rmdir(folder);
}

/* The held buffer is forgotten with its ring */
static void test_reset_stats_queue(void)
{
    BalloonDriver d;

    start(&d, NULL, "");
    g_assert_cmphex(d.vdev->features & 1ull << VIRTIO_F_RING_RESET, !=, 0);
    for (int i = 1; i < 4; i++) {
        balloon_post_stats(&d, i);
        balloon_reset_queue(&d, BALLOON_VQ_STATS);
        balloon_renew_queue(&d, BALLOON_VQ_STATS);
        balloon_set_interval(d.qts, 1);
        qtest_clock_step(d.qts, 3 * NANOSECONDS_PER_SECOND);
        g_assert_false(balloon_has_used(&d, BALLOON_VQ_STATS));
        g_assert_cmpuint(balloon_stat(d.qts, "free-memory"), ==, i);
        balloon_set_interval(d.qts, 0);
    }
    balloon_post_stats(&d, 5);
    balloon_set_interval(d.qts, 1);
    balloon_wait_used(&d, BALLOON_VQ_STATS, 0);
    balloon_quit(&d);
}

/* Every queue may be reset, used or not, and works as before */
static void test_reset_queues(void)
{
    static const int queues[] = {
        BALLOON_VQ_DEFLATE, BALLOON_VQ_FIRST_OPTIONAL,
        BALLOON_VQ_FIRST_OPTIONAL + 1,
    };
    BalloonDriver d;
    uint64_t page;

    start(&d, "virtio-balloon-pci,free-page-reporting=on,free-page-hint=on,"
          "iothread=io0", "-object iothread,id=io0");
    page = balloon_alloc(&d, BALLOON_PAGE, 0x3c);
    for (int i = 0; i < 2 * ARRAY_SIZE(queues); i++) {
        int queue = queues[i % ARRAY_SIZE(queues)];

        balloon_reset_queue(&d, queue);
        balloon_renew_queue(&d, queue);
        balloon_send_one(&d, queue, page, BALLOON_PAGE,
                         queue != BALLOON_VQ_DEFLATE);
    }
    balloon_assert_works(&d);
    balloon_quit(&d);
}

/*
 * The queue, or the device, is reset in a request,
 * which takes nothing more from the guest
 */
static void test_reset_inflating(const void *whole)
{
    BalloonDriver d;
    uint64_t size = BALLOON_HUGE_PAGES * BALLOON_PAGE;
    uint64_t pages;

    start(&d, NULL, "");
    pages = guest_alloc(d.alloc, size);
    for (int i = 0; i < 2; i++) {
        balloon_post_huge(&d, pages, BALLOON_HUGE_MAX);
        if (whole) {
            balloon_reset(&d);
            qtest_memset(d.qts, pages, 0x3c, size);
            balloon_start(&d, BALLOON_ALL_FEATURES);
        } else {
            balloon_reset_queue(&d, BALLOON_VQ_INFLATE);
            qtest_memset(d.qts, pages, 0x3c, size);
            balloon_renew_queue(&d, BALLOON_VQ_INFLATE);
        }
        balloon_assert_works(&d);
        balloon_assert_bytes(&d, pages, size, 0x3c);
    }
    balloon_quit(&d);
}

/*
 * A request of any size does not keep the monitor waiting: it answers while
 * the request is half done.  A test that was slow to ask may try again.
 */
static void test_monitor_answers(void)
{
    BalloonDriver d;
    uint64_t pages;
    bool half_done = false;

    start(&d, NULL, "");
    pages = guest_alloc(d.alloc, BALLOON_HUGE_PAGES * BALLOON_PAGE);
    for (int i = 0; i < 3 && !half_done; i++) {
        uint32_t head;

        qtest_memset(d.qts, pages, 0x3c, BALLOON_PAGE);
        head = balloon_post_huge(&d, pages, BALLOON_HUGE_MAX);
        balloon_wait_for(!qtest_readb(d.qts, pages));
        g_assert_cmpint(balloon_query(d.qts), ==, RAM);
        half_done = !balloon_has_used(&d, BALLOON_VQ_INFLATE);
        balloon_wait_served(&d, BALLOON_VQ_INFLATE, head);
    }
    g_assert_true(half_done);
    balloon_quit(&d);
}

void balloon_add_reset_tests(void)
{
    qtest_add_func("/virtio-balloon/reset/target", test_target_stays);
    qtest_add_data_func("/virtio-balloon/improved/reset/device", NULL,
                        test_actual_goes);
    qtest_add_data_func("/virtio-balloon/improved/reset/machine", "machine",
                        test_actual_goes);
    qtest_add_func("/virtio-balloon/improved/reset/poison",
                   test_poison_is_forgotten);
    qtest_add_func("/virtio-balloon/improved/reset/actual",
                   test_actual_is_forgotten);
    qtest_add_func("/virtio-balloon/reset/sleep", test_sleep);
    qtest_add_func("/virtio-balloon/reset/snapshot", test_snapshot);
    qtest_add_func("/virtio-balloon/improved/reset/stats-queue",
                   test_reset_stats_queue);
    qtest_add_func("/virtio-balloon/reset/queues", test_reset_queues);
    qtest_add_data_func("/virtio-balloon/reset/inflate-queue", NULL,
                        test_reset_inflating);
    qtest_add_data_func("/virtio-balloon/reset/inflating", "whole",
                        test_reset_inflating);
    qtest_add_func("/virtio-balloon/improved/monitor-answers",
                   test_monitor_answers);
}
