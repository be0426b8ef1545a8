/*
 * Pages in a virtio balloon whose driver is gone, or their memory: they are
 * the guest's from then on, whoever runs it next
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqos/pci-pc.h"
#include "virtio-balloon-pages.h"

#define LEGACY TELL ",disable-modern=on"
#define DIMM BALLOON_DIMM_SLOTS BALLOON_DIMM_PLUGGED

/* One way for the guest to have all of its pages back, untold */
typedef struct Ending {
    void (*end)(BalloonDriver *d);
    uint64_t addr;
} Ending;

/* As a kernel does that starts another one */
static void end_bus_master(BalloonDriver *d)
{
    balloon_set_bus_master(d, false);
}

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

static const Ending bus_master = { end_bus_master, AREA };
static const Ending driver_ok = { balloon_clear_driver_ok, AREA };
static const Ending feature = { balloon_drop_tell, AREA };
static const Ending feature_for_a_while = { end_feature_for_a_while, AREA };
static const Ending dimm = { end_dimm, BALLOON_DIMM };

/* Nothing is discarded of what waited for it: half a huge page does */
static void test_waiting(BalloonDriver *d)
{
    const Ending *e = balloon_case()->data;

    balloon_inflate(d, e->addr, HUGE / 2);
    e->end(d);
    qtest_memset(d->qts, e->addr, NEW, HUGE);
    balloon_assert_stays(d, e->addr, HUGE, NEW);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==, 0);
}

/* What was discarded is the guest's, too, and migrates */
static void test_moved(BalloonDriver *d)
{
    const Ending *e = balloon_case()->data;

    qtest_memset(d->qts, e->addr, OLD, HUGE);
    balloon_inflate(d, e->addr, HUGE);
    balloon_wait_discarded(d->qts);
    e->end(d);
    qtest_memset(d->qts, e->addr, NEW, HUGE);
    balloon_case_move(d);
    balloon_assert_stays(d, e->addr, HUGE, NEW);
}

/* A deflate of a driver that does not have to tell is of no consequence */
static void test_feature_later(BalloonDriver *d)
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
static void test_not_up(BalloonDriver *d)
{
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    balloon_inflate(d, AREA, HUGE / 2);
    balloon_set_bus_master(d, false);
    qtest_memset(d->qts, AREA, NEW, HUGE);
    balloon_assert_stays(d, AREA, HUGE, NEW);
}

/* A page is taken back while the chipset has its memory read-only */
static void test_read_only(BalloonDriver *d)
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
    balloon_assert_stays(d, addr, BALLOON_PAGE, NEW);
}

/* A device that waits for its reset does nothing any more; then it works */
static void test_broken(BalloonDriver *d)
{
    balloon_inflate(d, AREA, HUGE / 2);
    balloon_post(d, BALLOON_VQ_DEFLATE, &(BalloonSeg) { AREA, 0 }, 1);
    balloon_wait_for(balloon_status(d) == BALLOON_STATUS_BROKEN);
    qtest_memset(d->qts, AREA, NEW, HUGE);
    balloon_assert_stays(d, AREA, HUGE, NEW);
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_assert_stays(d, AREA, HUGE, NEW);
    balloon_inflate(d, AREA, HUGE);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, AREA, HUGE, 0);
}

/* The balloon is empty then, which is told; what was asked for stays */
static void test_actual(BalloonDriver *d)
{
    const Ending *e = balloon_case()->data;
    int64_t target = RAM - 4 * MiB;
    int64_t change;

    balloon_set_target(d->qts, target);
    balloon_writel(d, BALLOON_CFG_ACTUAL, MiB / BALLOON_PAGE);
    g_assert_cmpint(balloon_next_change(d->qts), ==, RAM - MiB);
    qtest_clock_step(d->qts, 2 * SECOND);
    e->end(d);
    balloon_wait_for((change = balloon_next_change(d->qts)) != -1);
    g_assert_cmpint(change, ==, RAM);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);
    g_assert_cmpuint(balloon_target(d->qts), ==, target);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==,
                    4 * MiB / BALLOON_PAGE);
    qtest_clock_step(d->qts, 2 * SECOND);
    g_assert_cmpint(balloon_next_change(d->qts), ==, -1);
}

/* Pages of memory that has left the guest are no part of what is saved */
static void test_dimm_gone(BalloonDriver *d)
{
    balloon_inflate(d, BALLOON_DIMM, HUGE);
    balloon_inflate(d, AREA, HUGE / 2);
    balloon_wait_discarded(d->qts);
    balloon_unplug_dimm(d->qts);
    balloon_move(d, TELL, BALLOON_DIMM_SLOTS);
    balloon_assert_bytes(d, AREA, HUGE / 2, 0);
    balloon_assert_bytes(d, AREA + HUGE / 2, HUGE / 2, OLD);
}

static const BalloonCase cases[] = {
    { "end/waiting/bus-master", test_waiting, TELL, NULL, &bus_master },
    { "end/waiting/driver-ok", test_waiting, TELL, NULL, &driver_ok },
    { "end/waiting/feature", test_waiting, LEGACY, NULL, &feature },
    { "end/waiting/dimm", test_waiting, TELL, DIMM, &dimm },
    { "end/moved/bus-master", test_moved, TELL, NULL, &bus_master },
    { "end/moved/driver-ok", test_moved, TELL, NULL, &driver_ok },
    { "end/moved/feature", test_moved, LEGACY, NULL, &feature_for_a_while },
    { "end/moved/dimm", test_moved, TELL, DIMM, &dimm },
    { "end/actual/bus-master", test_actual, TELL, NULL, &bus_master },
    { "end/actual/driver-ok", test_actual, TELL, NULL, &driver_ok },
    { "end/feature-later", test_feature_later, LEGACY },
    { "end/dimm-gone", test_dimm_gone, TELL, DIMM },
    { "end/not-up", test_not_up, LEGACY, .no_driver = true },
    { "read-only", test_read_only, TELL, "-machine pc " MEMORY },
    { "broken", test_broken, TELL },
};

void balloon_add_pages_life_tests(void)
{
    balloon_add_cases(BALLOON_PAGES, cases, ARRAY_SIZE(cases));
}
