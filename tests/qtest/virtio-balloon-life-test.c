/*
 * The virtio balloon comes and goes: hot plug, resets, refused devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "libqos/pci-pc.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-test.h"

#define RAM (128 * MiB)
#define SLOT 4
#define DEVICE_ADD "{'execute': 'device_add', 'arguments': %p}"

/* A device without its name and place; each has these properties besides */
#define HINTING "{'free-page-hint': true, 'iothread': 'io0'}"
#define ALL "{'free-page-hint': true, 'iothread': 'io0'," \
            " 'free-page-reporting': true, 'deflate-on-oom': true," \
            " 'guest-stats-polling-interval': 1}"

/* The same, as for -device */
#define ALL_DEVICE                                                      \
    "virtio-balloon-pci,free-page-hint=on,iothread=io0,"                \
    "free-page-reporting=on,deflate-on-oom=on,guest-stats-polling-interval=1"

#define NO_IOTHREAD "'free-page-hint' requires 'iothread' to be set"
#define NO_IOMMU                                                        \
    "VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor "      \
    "transitional device"

typedef struct Refused {
    const char *name;
    const char *properties;
    const char *desc;
    const char *class;
    /* what was QEMU's own leaves something behind here */
    bool improved;
} Refused;

static const Refused refused[] = {
    { "no-iothread", "{'free-page-hint': true}", NO_IOTHREAD,
      .improved = true },
    { "bad-iothread", "{'free-page-hint': true, 'iothread': 'nope'}",
      "Device 'nope' not found", "DeviceNotFound" },
    { "iommu", "{'iommu_platform': true}", NO_IOMMU },
    { "no-interval", "{'guest-stats-polling-interval': -1}",
      "timer value must be greater than zero" },
    { "polling-no-iothread",
      "{'guest-stats-polling-interval': 1, 'free-page-hint': true}",
      NO_IOTHREAD, .improved = true },
    { "polling-iommu",
      "{'guest-stats-polling-interval': 1, 'iommu_platform': true}",
      NO_IOMMU },
    { "hinting-iommu",
      "{'iommu_platform': true, 'free-page-hint': true, 'iothread': 'io0',"
      " 'free-page-reporting': true}",
      NO_IOMMU },
};

static QDict *device(const char *id, int slot, const char *properties)
{
    QDict *args = qobject_to(QDict, qobject_from_json(properties,
                                                      &error_abort));
    g_autofree char *addr = g_strdup_printf("%02x.0", slot);

    qdict_put_str(args, "driver", "virtio-balloon-pci");
    qdict_put_str(args, "id", id);
    qdict_put_str(args, "addr", addr);
    return args;
}

static void plug(BalloonDriver *d, const char *properties)
{
    qtest_qmp_assert_success(d->qts, DEVICE_ADD,
                             device("balloon0", SLOT, properties));
    balloon_find(d, SLOT);
}

static void assert_none(BalloonDriver *d)
{
    balloon_assert_error(d->qts, "DeviceNotActive",
                         "No balloon device has been activated",
                         "{'execute': 'query-balloon'}");
}

static void unplug(BalloonDriver *d)
{
    balloon_lose(d);
    qpci_unplug_acpi_device_test(d->qts, "balloon0", SLOT);
    assert_none(d);
}

/* Reset the machine; a new driver finds the device as after power-on */
static void machine_reset(BalloonDriver *d)
{
    balloon_lose(d);
    qtest_system_reset(d->qts);
    balloon_find(d, SLOT);
}

/* The device works */
static void assert_alive(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 3);

    balloon_set_target(d->qts, 64 * MiB);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    balloon_send_range(d, BALLOON_VQ_INFLATE, mem + BALLOON_PAGE, 1);
    balloon_assert_pages(d, mem, "x0x");
    guest_free(d->alloc, mem);
}

static void second_balloon(BalloonDriver *d)
{
    for (int i = 0; i < 3; i++) {
        balloon_assert_error(d->qts, "GenericError",
                             "Only one balloon device is supported",
                             DEVICE_ADD, device("second", SLOT + 1, HINTING));
        assert_alive(d);
    }
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);

    /* neither is there a second one when the first one goes */
    unplug(d);
}

/* Leave a request on every queue */
static void leave_requests(BalloonDriver *d)
{
    enum { PAGES = 64 };
    uint64_t mem = balloon_dirty_pages(d, PAGES);

    for (int queue = 0; queue < BALLOON_VQ_MAX; queue++) {
        balloon_post(d, queue, (BalloonSeg[]) {
            { mem, PAGES * BALLOON_PAGE, queue > BALLOON_VQ_STATS },
        }, 1);
    }
}

/* Unplugged with every queue in use and polling on: nothing comes after */
static void unplug_busy(BalloonDriver *d)
{
    for (int i = 0; i < 10; i++) {
        leave_requests(d);
        if (i % 2) {
            /* the driver had let the device go */
            balloon_reset(d);
        }
        unplug(d);
        qtest_clock_step(d->qts, 5 * NANOSECONDS_PER_SECOND);
        plug(d, ALL);
        balloon_start(d, BALLOON_ALL_FEATURES);
    }
    assert_alive(d);
}

/* A driver that went away in the middle of things leaves nothing behind */
static void reset_busy(BalloonDriver *d)
{
    for (int i = 0; i < 20; i++) {
        leave_requests(d);
        if (i % 2) {
            balloon_reset(d);
        } else {
            machine_reset(d);
        }
        balloon_start(d, BALLOON_ALL_FEATURES);
    }
    assert_alive(d);
}

static void machine_reset_stats(BalloonDriver *d)
{
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 2);
    balloon_leave_stats(d, 5);
    g_assert_cmpint(balloon_last_update(d->qts), !=, 0);

    machine_reset(d);
    g_assert_cmphex(balloon_stat(d->qts, "free-memory"), ==,
                    BALLOON_STAT_UNSET);
    g_assert_cmpint(balloon_last_update(d->qts), ==, 0);
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 2);

    /* polling goes on with the new driver */
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_leave_stats(d, 6);
    qtest_clock_step(d->qts, 2 * NANOSECONDS_PER_SECOND);
    balloon_wait_served(d, BALLOON_VQ_STATS, 0);
}

/*
 * The target is management's: it may be set before there is a driver, and no
 * reset changes it
 */
static void target_stays(BalloonDriver *d)
{
    balloon_set_target(d->qts, 64 * MiB);
    for (int i = 0; i < 3; i++) {
        balloon_start(d, BALLOON_ALL_FEATURES);
        g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
        if (i) {
            machine_reset(d);
        } else {
            balloon_reset(d);
        }
    }
}

static void assert_refused(BalloonDriver *d, const Refused *r)
{
    balloon_assert_error(d->qts, r->class ? r->class : "GenericError", r->desc,
                         DEVICE_ADD, device("balloon0", SLOT, r->properties));
}

static void refused_device(BalloonDriver *d)
{
    unplug(d);
    assert_refused(d, d->data);
}

/* A refused device leaves nothing behind; the next, correct one works */
static void refused_then_correct(BalloonDriver *d)
{
    for (int round = 0; round < 3; round++) {
        unplug(d);
        for (int n = 0; n <= round; n++) {
            assert_refused(d, d->data);
        }
        assert_none(d);
        qtest_clock_step(d->qts, 5 * NANOSECONDS_PER_SECOND);
        plug(d, HINTING);
        balloon_start(d, BALLOON_ALL_FEATURES);
        assert_alive(d);
    }
}

static void set_interval_fails(QTestState *qts, int64_t value,
                               const char *path, const char *desc)
{
    balloon_assert_error(qts, "GenericError", desc,
                         "{'execute': 'qom-set', 'arguments': {'path': %s,"
                         " 'property': 'guest-stats-polling-interval',"
                         " 'value': %" PRId64 "}}", path, value);
}

/* The polling property */
static void polling_property(BalloonDriver *d)
{
    static const char *const paths[] = { BALLOON_PATH, BALLOON_BACKEND_PATH };
    static const int64_t good[] = { 1, UINT32_MAX, 7 };
    const char *low = "timer value must be greater than zero";
    const char *high = "timer value is too big";

    g_assert_cmpint(balloon_get_interval(d->qts), ==, 0);
    for (int i = 0; i < ARRAY_SIZE(good); i++) {
        balloon_set_interval(d->qts, good[i]);
        g_assert_cmpint(balloon_get_interval(d->qts), ==, good[i]);
    }
    for (int i = 0; i < ARRAY_SIZE(paths); i++) {
        set_interval_fails(d->qts, -1, paths[i], low);
        set_interval_fails(d->qts, INT64_MIN, paths[i], low);
        set_interval_fails(d->qts, 1ll << 32, paths[i], high);
        set_interval_fails(d->qts, INT64_MAX, paths[i], high);
        g_assert_cmphex(balloon_stat_at(d->qts, paths[i], "swap-in"), ==,
                        BALLOON_STAT_UNSET);
    }
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 7);
}

/* guest-stats is for reading */
static void stats_property(BalloonDriver *d)
{
    QDict *error = qtest_qmp_assert_failure_ref(
        d->qts, "{'execute': 'qom-set', 'arguments': {'path': %s,"
        " 'property': 'guest-stats', 'value': {}}}", BALLOON_PATH);

    g_assert_cmpstr(qdict_get_str(error, "class"), ==, "GenericError");
    qobject_unref(error);
}

static const BalloonTest tests[] = {
    { "life/second-balloon", second_balloon },
    { "life/unplug-busy", unplug_busy, ALL_DEVICE },
    { "reset/requests-in-flight", reset_busy, ALL_DEVICE },
    { "reset/machine/stats", machine_reset_stats,
      "virtio-balloon-pci,guest-stats-polling-interval=2" },
    { "reset/target-stays", target_stays, .unstarted = true },
    { "life/polling-property", polling_property },
    { "life/stats-property", stats_property },
};

void virtio_balloon_add_life_tests(void)
{
    balloon_add_tests(NULL, tests, ARRAY_SIZE(tests));
    for (int i = 0; i < ARRAY_SIZE(refused); i++) {
        const Refused *r = &refused[i];
        g_autofree char *path = g_strconcat("life/refused/", r->name, NULL);
        g_autofree char *then = g_strconcat(
            r->improved ? "improved/" : "", "life/refused-then-correct/",
            r->name, NULL);

        balloon_add_tests(NULL, (BalloonTest[]) {
            { then, refused_then_correct, .data = r },
            { path, refused_device, .data = r },
        }, r->improved ? 2 : 1);
    }
}
