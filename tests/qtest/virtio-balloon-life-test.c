/*
 * The virtio balloon comes and goes: hot plug, refused devices, properties
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
#include "virtio-balloon-driver.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-test.h"

#define RAM (128 * MiB)
#define SLOT 6
#define DEVICE_ADD "{'execute': 'device_add', 'arguments': %p}"

/* A device without its name and place; each has these properties besides */
#define PLAIN "{}"
#define HINTING "{'free-page-hint': true, 'iothread': 'io0'}"
#define ALL "{'free-page-hint': true, 'iothread': 'io0'," \
            " 'free-page-reporting': true, 'deflate-on-oom': true," \
            " 'guest-stats-polling-interval': 1}"

static const struct {
    const char *name;
    const char *properties;
    const char *desc;
    const char *class;
    /* what was QEMU's own leaves something behind here */
    bool improved;
} refused[] = {
    { "no-iothread", "{'free-page-hint': true}",
      "'free-page-hint' requires 'iothread' to be set", .improved = true },
    { "bad-iothread", "{'free-page-hint': true, 'iothread': 'nope'}",
      "Device 'nope' not found", "DeviceNotFound" },
    { "iommu", "{'iommu_platform': true}",
      "VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor"
      " transitional device" },
    { "no-interval", "{'guest-stats-polling-interval': -1}",
      "timer value must be greater than zero" },
    { "polling-no-iothread",
      "{'guest-stats-polling-interval': 1, 'free-page-hint': true}",
      "'free-page-hint' requires 'iothread' to be set", .improved = true },
    { "polling-iommu",
      "{'guest-stats-polling-interval': 1, 'iommu_platform': true}",
      "VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor"
      " transitional device" },
    { "hinting-iommu",
      "{'iommu_platform': true, 'free-page-hint': true, 'iothread': 'io0',"
      " 'free-page-reporting': true}",
      "VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor"
      " transitional device" },
};

/* A machine without a balloon, to be used by balloon_find() */
static void boot_empty(BalloonDriver *d)
{
    QOSState *machine = qtest_pc_boot("-machine pc -m 128"
                                      " -object iothread,id=io0");

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
}

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

static void unplug(BalloonDriver *d)
{
    balloon_lose(d);
    qpci_unplug_acpi_device_test(d->qts, "balloon0", SLOT);
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

static void assert_none(BalloonDriver *d)
{
    balloon_assert_error(d->qts, "DeviceNotActive",
                         "No balloon device has been activated",
                         "{'execute': 'query-balloon'}");
}

static void second_balloon(void)
{
    BalloonDriver d;

    boot_empty(&d);
    plug(&d, PLAIN);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    for (int i = 0; i < 3; i++) {
        balloon_assert_error(d.qts, "GenericError",
                             "Only one balloon device is supported",
                             DEVICE_ADD, device("second", SLOT + 1, HINTING));
        assert_alive(&d);
    }
    g_assert_cmpint(balloon_query(d.qts), ==, RAM);

    /* neither is there a second one when the first one goes */
    unplug(&d);
    assert_none(&d);
    balloon_quit(&d);
}

static void hot_plug(void)
{
    BalloonDriver d;

    boot_empty(&d);
    for (int i = 0; i < 20; i++) {
        assert_none(&d);
        plug(&d, i % 2 ? ALL : PLAIN);
        g_assert_cmpint(balloon_query(d.qts), ==, RAM);
        balloon_start(&d, BALLOON_ALL_FEATURES);
        assert_alive(&d);
        balloon_writel(&d, BALLOON_CFG_ACTUAL, 0x1000 + i);
        g_assert_cmpint(balloon_query(d.qts), ==, RAM - (0x1000 + i) * 4096);
        unplug(&d);
    }
    assert_none(&d);
    balloon_quit(&d);
}

/* Unplugged with every queue in use and polling on: nothing comes after */
static void unplug_busy(void)
{
    enum { PAGES = 64 };
    BalloonDriver d;

    boot_empty(&d);
    for (int i = 0; i < 10; i++) {
        uint64_t mem;

        plug(&d, ALL);
        balloon_start(&d, BALLOON_ALL_FEATURES);
        mem = balloon_dirty_pages(&d, PAGES);
        for (int queue = 0; queue < BALLOON_VQ_MAX; queue++) {
            bool write = queue > BALLOON_VQ_STATS;

            balloon_post(&d, queue, (BalloonSeg[]) {
                { mem, PAGES * BALLOON_PAGE, write },
            }, 1);
        }
        if (i % 2) {
            unplug(&d);
        } else {
            /* the driver had let the device go */
            balloon_reset(&d);
            unplug(&d);
        }
        qtest_clock_step(d.qts, 5 * NANOSECONDS_PER_SECOND);
        assert_none(&d);
        guest_free(d.alloc, mem);
    }
    balloon_quit(&d);
}

static void assert_refused(BalloonDriver *d, int i)
{
    const char *class = refused[i].class ? refused[i].class : "GenericError";

    balloon_assert_error(d->qts, class, refused[i].desc, DEVICE_ADD,
                         device("balloon0", SLOT, refused[i].properties));
}

static void refused_device(const void *data)
{
    BalloonDriver d;

    boot_empty(&d);
    assert_refused(&d, GPOINTER_TO_INT(data));
    balloon_quit(&d);
}

/* A refused device leaves nothing behind; the next, correct one works */
static void refused_then_correct(const void *data)
{
    BalloonDriver d;

    boot_empty(&d);
    for (int round = 0; round < 3; round++) {
        for (int n = 0; n <= round; n++) {
            assert_refused(&d, GPOINTER_TO_INT(data));
        }
        assert_none(&d);
        qtest_clock_step(d.qts, 5 * NANOSECONDS_PER_SECOND);
        plug(&d, HINTING);
        balloon_start(&d, BALLOON_ALL_FEATURES);
        assert_alive(&d);
        unplug(&d);
    }
    balloon_quit(&d);
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
static void polling_property(void)
{
    static const char *const paths[] = { BALLOON_PATH, BALLOON_BACKEND_PATH };
    static const int64_t good[] = { 1, UINT32_MAX, 7 };
    BalloonDriver d;

    balloon_boot(&d, NULL, "-m 128");
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 0);
    for (int i = 0; i < ARRAY_SIZE(good); i++) {
        balloon_set_interval(d.qts, good[i]);
        g_assert_cmpint(balloon_get_interval(d.qts), ==, good[i]);
    }
    for (int i = 0; i < ARRAY_SIZE(paths); i++) {
        set_interval_fails(d.qts, -1, paths[i],
                           "timer value must be greater than zero");
        set_interval_fails(d.qts, INT64_MIN, paths[i],
                           "timer value must be greater than zero");
        set_interval_fails(d.qts, 1ll << 32, paths[i],
                           "timer value is too big");
        set_interval_fails(d.qts, INT64_MAX, paths[i],
                           "timer value is too big");
        g_assert_cmphex(balloon_stat_at(d.qts, paths[i], "swap-in"), ==,
                        BALLOON_STAT_UNSET);
    }
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 7);
    balloon_quit(&d);
}

/* guest-stats is for reading */
static void stats_property(void)
{
    BalloonDriver d;
    QDict *error;

    balloon_boot(&d, NULL, "-m 128");
    error = qtest_qmp_assert_failure_ref(
        d.qts, "{'execute': 'qom-set', 'arguments': {'path': %s,"
        " 'property': 'guest-stats', 'value': {}}}", BALLOON_PATH);
    g_assert_cmpstr(qdict_get_str(error, "class"), ==, "GenericError");
    qobject_unref(error);
    balloon_quit(&d);
}

void virtio_balloon_add_life_tests(void)
{
    qtest_add_func(BALLOON_TESTS "life/second-balloon", second_balloon);
    qtest_add_func(BALLOON_TESTS "life/hot-plug", hot_plug);
    qtest_add_func(BALLOON_TESTS "life/unplug-busy", unplug_busy);
    qtest_add_func(BALLOON_TESTS "life/polling-property", polling_property);
    qtest_add_func(BALLOON_TESTS "life/stats-property", stats_property);
    for (int i = 0; i < ARRAY_SIZE(refused); i++) {
        g_autofree char *path = g_strconcat(BALLOON_TESTS "life/refused/",
                                            refused[i].name, NULL);
        g_autofree char *then = g_strconcat(refused[i].improved ?
                                                BALLOON_IMPROVED :
                                                BALLOON_TESTS,
                                            "life/refused-then-correct/",
                                            refused[i].name, NULL);

        qtest_add_data_func(path, GINT_TO_POINTER(i), refused_device);
        qtest_add_data_func(then, GINT_TO_POINTER(i), refused_then_correct);
    }
}
