/*
 * The virtio balloon and resets, of the device and of the machine
 *
 * virtio 1.2, section 2.4
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-test.h"

#define RAM (128 * MiB)
#define SLOT 4

/* Power management of a PC's chipset, at the address that is set below */
#define PM_FUNCTION QPCI_DEVFN(1, 3)
#define PM_BASE 0x600
#define PM1_CONTROL (PM_BASE + 4)
#define PM1_SLEEP (1 << 13)
#define PM1_S3 (1 << 10)

/* Reset the machine; a new driver finds the device as after power-on */
static void machine_reset(BalloonDriver *d)
{
    balloon_lose(d);
    qtest_system_reset(d->qts);
    balloon_find(d, SLOT);
}

static void machine_reset_stats(void)
{
    BalloonDriver d;

    balloon_boot(&d, "virtio-balloon-pci,guest-stats-polling-interval=2",
                 "-m 128");
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 2);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_leave_stats(&d, 5);
    g_assert_cmpint(balloon_last_update(d.qts), !=, 0);

    machine_reset(&d);
    g_assert_cmphex(balloon_stat(d.qts, "free-memory"), ==,
                    BALLOON_STAT_UNSET);
    g_assert_cmpint(balloon_last_update(d.qts), ==, 0);
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 2);

    /* polling goes on with the new driver */
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_leave_stats(&d, 6);
    qtest_clock_step(d.qts, 2 * NANOSECONDS_PER_SECOND);
    balloon_wait_served(&d, BALLOON_VQ_STATS, 0);
    balloon_quit(&d);
}

/* The target is management's: no reset changes it */
static void target_stays(void)
{
    BalloonDriver d;

    balloon_boot(&d, NULL, "-m 128");
    balloon_set_target(d.qts, 64 * MiB);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    machine_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    balloon_quit(&d);
}

/* A driver that went away in the middle of things leaves nothing behind */
static void requests_in_flight(void)
{
    enum { PAGES = 64 };
    BalloonDriver d;
    uint64_t mem;

    balloon_boot(&d, "virtio-balloon-pci,free-page-reporting=on", "-m 128");
    for (int round = 0; round < 20; round++) {
        balloon_start(&d, BALLOON_ALL_FEATURES);
        mem = balloon_dirty_pages(&d, PAGES);
        for (int queue = 0; queue < 4; queue++) {
            bool report = queue == BALLOON_VQ_FIRST_OPTIONAL;

            balloon_post(&d, queue, (BalloonSeg[]) {
                { mem, PAGES * BALLOON_PAGE, report },
            }, 1);
        }
        if (round % 2) {
            balloon_reset(&d);
        } else {
            machine_reset(&d);
        }
    }
    balloon_start(&d, BALLOON_ALL_FEATURES);
    mem = balloon_dirty_pages(&d, 2);
    balloon_send_range(&d, BALLOON_VQ_INFLATE, mem, 1);
    balloon_assert_pages(&d, mem, "0x");
    balloon_quit(&d);
}

/* After a device reset nobody knows of pages given up: there are none */
static void device_reset_empties(void)
{
    BalloonDriver d;

    balloon_boot(&d, NULL, "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0x1000);
    g_assert_cmpint(balloon_next_change(d.qts), ==, RAM - 16 * MiB);
    balloon_reset(&d);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM);
    qtest_clock_step(d.qts, NANOSECONDS_PER_SECOND);
    g_assert_cmpint(balloon_next_change(d.qts), ==, RAM);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_ACTUAL), ==, 0);
    balloon_quit(&d);
}

static void machine_reset_empties(void)
{
    BalloonDriver d;

    balloon_boot(&d, NULL, "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0x1000);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 16 * MiB);
    machine_reset(&d);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM);
    balloon_quit(&d);
}

/* Waking up is no reset in this sense: the guest goes on where it was */
static void wake_up(void)
{
    BalloonDriver d;
    QPCIDevice *pm;

    balloon_boot(&d, NULL, "-machine pc -m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_set_target(d.qts, 64 * MiB);
    balloon_leave_stats(&d, 5);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0x1000);

    pm = qpci_device_find(d.machine->pcibus, PM_FUNCTION);
    g_assert_nonnull(pm);
    qpci_config_writel(pm, 0x40, PM_BASE | 1);
    qpci_config_writeb(pm, 0x80, 1);
    qtest_outw(d.qts, PM1_CONTROL, PM1_S3 | PM1_SLEEP);
    qtest_qmp_eventwait(d.qts, "SUSPEND");
    qtest_qmp_assert_success(d.qts, "{'execute': 'system_wakeup'}");
    qtest_qmp_eventwait(d.qts, "WAKEUP");

    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 16 * MiB);
    balloon_lose(&d);
    balloon_find(&d, SLOT);
    g_free(pm);
    balloon_quit(&d);
}

void virtio_balloon_add_reset_tests(void)
{
    qtest_add_func(BALLOON_TESTS "reset/machine/stats", machine_reset_stats);
    qtest_add_func(BALLOON_TESTS "reset/target-stays", target_stays);
    qtest_add_func(BALLOON_TESTS "reset/requests-in-flight",
                   requests_in_flight);
    qtest_add_func(BALLOON_TESTS "reset/wake-up", wake_up);
    qtest_add_func(BALLOON_IMPROVED "reset/device-empties",
                   device_reset_empties);
    qtest_add_func(BALLOON_IMPROVED "reset/machine-empties",
                   machine_reset_empties);
}
