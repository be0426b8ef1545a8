/*
 * Pages in a virtio balloon whose driver is gone, or their memory: they are
 * the guest's from then on, whoever runs it next
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "standard-headers/linux/virtio_config.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-pages.h"
#include "virtio-balloon-plug.h"

#define RAM (128 * MiB)
#define OPTIONS "-m 128 "
#define LEGACY BALLOON_TELL ",disable-modern=on"
#define SIZE BALLOON_AREA_SIZE

/* One way for the guest to have all of its pages back, untold */
typedef struct Ending {
    const char *name;
    void (*end)(BalloonDriver *d);
    const char *device;
    const char *options;
    uint64_t addr;
} Ending;

/* As a kernel does that starts another one */
static void end_bus_master(BalloonDriver *d)
{
    balloon_set_bus_master(d, false);
}

static void end_driver_ok(BalloonDriver *d)
{
    d->vdev->bus->set_status(d->vdev, balloon_status(d) &
                                      ~VIRTIO_CONFIG_S_DRIVER_OK);
}

/* A legacy driver may write the features anew at any time */
static void end_feature(BalloonDriver *d)
{
    d->vdev->bus->set_features(d->vdev, d->vdev->features &
                               ~(1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST));
}

/* What it took back meanwhile it did not have to tell */
static void end_feature_for_a_while(BalloonDriver *d)
{
    end_feature(d);
    d->vdev->bus->set_features(d->vdev, d->vdev->features);
}

/* Other memory at the same place, with the same name and backend */
static void end_dimm(BalloonDriver *d)
{
    balloon_unplug_dimm(d->qts);
    balloon_plug_dimm(d->qts);
}

static const Ending bus_master = {
    "bus-master", end_bus_master, BALLOON_TELL, OPTIONS, BALLOON_AREA
};
static const Ending driver_ok = {
    "driver-ok", end_driver_ok, BALLOON_TELL, OPTIONS, BALLOON_AREA
};
static const Ending feature = {
    "feature", end_feature, LEGACY, OPTIONS, BALLOON_AREA
};
static const Ending feature_for_a_while = {
    "feature", end_feature_for_a_while, LEGACY, OPTIONS, BALLOON_AREA
};
static const Ending dimm = {
    "dimm", end_dimm, BALLOON_TELL, BALLOON_DIMM_SLOTS BALLOON_DIMM_PLUGGED,
    BALLOON_DIMM
};

static void start(BalloonDriver *d, const Ending *e)
{
    balloon_boot(d, e->device, e->options);
    balloon_start(d, BALLOON_ALL_FEATURES);
    qtest_memset(d->qts, e->addr, BALLOON_OLD, SIZE);
}

/* Nothing is discarded of what waited for it: half a huge page does */
static void test_waiting(const void *data)
{
    const Ending *e = data;
    BalloonDriver d;

    start(&d, e);
    balloon_inflate(&d, e->addr, SIZE / 2);
    e->end(&d);
    qtest_memset(d.qts, e->addr, BALLOON_NEW, SIZE);
    balloon_assert_stays(&d, e->addr, SIZE, BALLOON_NEW);
    g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, 0);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

/* What was discarded is the guest's, too, and migrates */
static void test_moved(const void *data)
{
    const Ending *e = data;
    BalloonDriver d;

    start(&d, e);
    balloon_inflate(&d, e->addr, SIZE);
    balloon_wait_discarded(d.qts);
    e->end(&d);
    qtest_memset(d.qts, e->addr, BALLOON_NEW, SIZE);
    balloon_move(&d, e->device, e->options);
    balloon_assert_bytes(&d, e->addr, SIZE, BALLOON_NEW);
    balloon_assert_stays(&d, e->addr, SIZE, BALLOON_NEW);
    balloon_quit(&d);
}

/* A deflate of a driver that does not have to tell is of no consequence */
static void test_feature_later(void)
{
    BalloonDriver d;

    start(&d, &feature);
    balloon_inflate(&d, BALLOON_AREA, SIZE / 2);
    end_feature(&d);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_NEW, SIZE);
    balloon_deflate(&d, BALLOON_AREA, SIZE / 2);
    balloon_assert_stays(&d, BALLOON_AREA, SIZE, BALLOON_NEW);
    balloon_inflate(&d, BALLOON_AREA, BALLOON_PAGE);
    balloon_assert_bytes(&d, BALLOON_AREA, BALLOON_PAGE, 0);
    balloon_assert_bytes(&d, BALLOON_AREA + BALLOON_PAGE, SIZE - BALLOON_PAGE,
                         BALLOON_NEW);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

/* A legacy driver may give pages before it says that it is up */
static void test_not_up(void)
{
    BalloonDriver d;

    balloon_boot(&d, LEGACY, OPTIONS);
    balloon_negotiate(&d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(&d);
    balloon_inflate(&d, BALLOON_AREA, SIZE / 2);
    balloon_set_bus_master(&d, false);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_NEW, SIZE);
    balloon_assert_stays(&d, BALLOON_AREA, SIZE, BALLOON_NEW);
    balloon_quit(&d);
}

/* A page is taken back while the chipset has its memory read-only */
static void test_read_only(void)
{
    const unsigned pam3 = 0x5c;
    const uint64_t addr = 0xd0000;
    g_autofree QPCIDevice *host = NULL;
    BalloonDriver d;

    balloon_boot(&d, BALLOON_TELL, "-machine pc " OPTIONS);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    host = qpci_device_find(d.machine->pcibus, 0);
    qpci_config_writeb(host, pam3, 0x33);
    balloon_inflate(&d, addr, BALLOON_PAGE);
    qpci_config_writeb(host, pam3, 0x11);
    balloon_deflate(&d, addr, BALLOON_PAGE);
    qpci_config_writeb(host, pam3, 0x33);
    qtest_memset(d.qts, addr, BALLOON_NEW, BALLOON_PAGE);
    balloon_assert_stays(&d, addr, BALLOON_PAGE, BALLOON_NEW);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

/* A device that waits for its reset does nothing any more; then it works */
static void test_broken(void)
{
    BalloonDriver d;

    balloon_boot(&d, BALLOON_TELL, OPTIONS);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_OLD, SIZE);
    balloon_inflate(&d, BALLOON_AREA, SIZE / 2);
    balloon_post(&d, BALLOON_VQ_DEFLATE, &(BalloonSeg) { BALLOON_AREA, 0 }, 1);
    balloon_wait_for(balloon_status(&d) == BALLOON_STATUS_BROKEN);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_NEW, SIZE);
    balloon_assert_stays(&d, BALLOON_AREA, SIZE, BALLOON_NEW);
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_stays(&d, BALLOON_AREA, SIZE, BALLOON_NEW);
    balloon_inflate(&d, BALLOON_AREA, SIZE);
    balloon_wait_discarded(d.qts);
    balloon_assert_bytes(&d, BALLOON_AREA, SIZE, 0);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

/* The balloon is empty then, which is told; what was asked for stays */
static void test_actual(const void *data)
{
    const Ending *e = data;
    int64_t target = RAM - 4 * MiB;
    int64_t change;
    BalloonDriver d;

    start(&d, e);
    balloon_set_target(d.qts, target);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, MiB / BALLOON_PAGE);
    g_assert_cmpint(balloon_next_change(d.qts), ==, RAM - MiB);
    qtest_clock_step(d.qts, 2 * NANOSECONDS_PER_SECOND);
    e->end(&d);
    balloon_wait_for((change = balloon_next_change(d.qts)) != -1);
    g_assert_cmpint(change, ==, RAM);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM);
    g_assert_cmpuint(balloon_target(d.qts), ==, target);
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_NUM_PAGES), ==,
                    4 * MiB / BALLOON_PAGE);
    qtest_clock_step(d.qts, 2 * NANOSECONDS_PER_SECOND);
    g_assert_cmpint(balloon_next_change(d.qts), ==, -1);
    balloon_quit(&d);
}

/* Pages of memory that has left the guest are no part of what is saved */
static void test_dimm_gone(void)
{
    BalloonDriver d;

    start(&d, &dimm);
    balloon_inflate(&d, BALLOON_DIMM, SIZE);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_OLD, SIZE);
    balloon_inflate(&d, BALLOON_AREA, SIZE / 2);
    balloon_wait_discarded(d.qts);
    balloon_unplug_dimm(d.qts);
    balloon_move(&d, BALLOON_TELL, BALLOON_DIMM_SLOTS);
    balloon_assert_bytes(&d, BALLOON_AREA, SIZE / 2, 0);
    balloon_assert_bytes(&d, BALLOON_AREA + SIZE / 2, SIZE / 2, BALLOON_OLD);
    balloon_quit(&d);
}

static void add_test(const char *what, const Ending *e,
                     void (*test)(const void *data))
{
    g_autofree char *path = g_strconcat(BALLOON_PAGES_PATH "end/", what, "/",
                                        e->name, NULL);

    qtest_add_data_func(path, e, test);
}

void balloon_add_pages_life_tests(void)
{
    add_test("waiting", &bus_master, test_waiting);
    add_test("waiting", &driver_ok, test_waiting);
    add_test("waiting", &feature, test_waiting);
    add_test("waiting", &dimm, test_waiting);
    add_test("moved", &bus_master, test_moved);
    add_test("moved", &driver_ok, test_moved);
    add_test("moved", &feature_for_a_while, test_moved);
    add_test("moved", &dimm, test_moved);
    add_test("actual", &bus_master, test_actual);
    add_test("actual", &driver_ok, test_actual);
    qtest_add_func(BALLOON_PAGES_PATH "end/feature-later", test_feature_later);
    qtest_add_func(BALLOON_PAGES_PATH "end/dimm-gone", test_dimm_gone);
    qtest_add_func(BALLOON_PAGES_PATH "end/not-up", test_not_up);
    qtest_add_func(BALLOON_PAGES_PATH "read-only", test_read_only);
    qtest_add_func(BALLOON_PAGES_PATH "broken", test_broken);
}
