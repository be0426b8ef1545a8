/*
 * The life cycle of a virtio balloon: plug, unplug, failed realize, reset
 *
 * Comments name the section of virtio 1.2 that they test.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qobject/qdict.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-monitor.h"

#define SLOT 5
#define ROUNDS 100

/* The PC's register to let a PCI slot go */
#define ACPI_EJECT 0xae08

static void plug(BalloonDriver *d)
{
    qtest_qmp_device_add(d->qts, "virtio-balloon-pci", "balloon0",
                         "{'addr': %s, 'free-page-reporting': true}",
                         stringify(SLOT));
    balloon_find(d, SLOT);
}

static void wait_deleted(QTestState *qts, const char *id)
{
    bool found = false;

    while (!found) {
        QDict *event = qtest_qmp_eventwait_ref(qts, "DEVICE_DELETED");
        const char *name = qdict_get_try_str(qdict_get_qdict(event, "data"),
                                             "device");

        found = !g_strcmp0(name, id);
        qobject_unref(event);
    }
}

/* The driver does nothing to help; its memory stays as it is */
static void unplug(BalloonDriver *d)
{
    qtest_qmp_device_del_send(d->qts, "balloon0");
    qtest_outl(d->qts, ACPI_EJECT, 1 << SLOT);
    wait_deleted(d->qts, "balloon0");
    balloon_lose(d);
}

static void assert_no_balloon(QTestState *qts)
{
    balloon_assert_error(qts, "DeviceNotActive",
                         "No balloon device has been activated",
                         "{'execute': 'query-balloon'}");
    balloon_assert_error(qts, "DeviceNotActive",
                         "No balloon device has been activated",
                         "{'execute': 'balloon', 'arguments': {'value': 1}}");
}

static unsigned count_fds(QTestState *qts)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(qts));
    g_autoptr(GDir) folder = g_dir_open(path, 0, NULL);
    unsigned n = 0;

    while (folder && g_dir_read_name(folder)) {
        n++;
    }
    return n;
}

/* A hundred times, and nothing is left behind */
static void test_plug_many(void)
{
    BalloonDriver d;
    unsigned fds = 0;

    balloon_boot_without(&d, "");
    assert_no_balloon(d.qts);
    for (int i = 0; i < ROUNDS; i++) {
        plug(&d);
        if (i % (ROUNDS / 10) == 0) {
            balloon_start(&d, BALLOON_ALL_FEATURES);
            balloon_assert_works(&d);
        } else {
            balloon_negotiate(&d, BALLOON_ALL_FEATURES);
            qvirtio_set_driver_ok(d.vdev);
            balloon_assert_resizes(&d);
        }
        unplug(&d);
        assert_no_balloon(d.qts);
        if (i == ROUNDS / 10) {
            fds = count_fds(d.qts);
        }
    }
    g_assert_cmpuint(count_fds(d.qts), <=, fds);
    balloon_quit(&d);
}

/* Unplugged with a request half done, it stays so */
static void test_unplug_inflating(void)
{
    BalloonDriver d;
    uint64_t pages;

    balloon_boot_without(&d, "");
    plug(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    pages = guest_alloc(d.alloc, BALLOON_HUGE_PAGES * BALLOON_PAGE);
    balloon_post_huge(&d, pages, BALLOON_HUGE_MAX / 4);
    unplug(&d);
    assert_no_balloon(d.qts);

    qtest_memset(d.qts, pages, 0x3c, BALLOON_HUGE_PAGES * BALLOON_PAGE);
    plug(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_works(&d);
    balloon_assert_bytes(&d, pages, BALLOON_HUGE_PAGES * BALLOON_PAGE, 0x3c);
    balloon_quit(&d);
}

/* Unplugged while polling, the buffer held or not */
static void test_unplug_polling(void)
{
    BalloonDriver d;

    balloon_boot_without(&d, "");
    for (int held = 0; held < 2; held++) {
        plug(&d);
        balloon_start(&d, BALLOON_ALL_FEATURES);
        balloon_post_stats(&d, 12345);
        balloon_set_interval(d.qts, 1);
        qtest_clock_step(d.qts, NANOSECONDS_PER_SECOND);
        if (held) {
            balloon_post_stats(&d, 23456);
        }
        unplug(&d);
        qtest_clock_step(d.qts, 5 * NANOSECONDS_PER_SECOND);
        assert_no_balloon(d.qts);
    }
    plug(&d);
    g_assert_cmpuint(balloon_stat(d.qts, "free-memory"), ==,
                     BALLOON_STAT_UNSET);
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 0);
    balloon_quit(&d);
}

/* The first balloon does not notice a second */
static void test_second_balloon(void)
{
    BalloonDriver d;

    balloon_boot_without(&d, "");
    plug(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_error(d.qts, "GenericError",
                         "Only one balloon device is supported",
                         "{'execute': 'device_add', 'arguments': {'driver':"
                         " 'virtio-balloon-pci', 'id': 'other'}}");
    balloon_assert_works(&d);
    unplug(&d);
    assert_no_balloon(d.qts);
    plug(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_works(&d);
    balloon_quit(&d);
}

static const struct {
    const char *path;
    const char *properties;
} realize_errors[] = {
    { "/virtio-balloon/improved/failed-realize/iothread",
      "'guest-stats-polling-interval': 1, 'free-page-hint': true" },
    { "/virtio-balloon/failed-realize/iommu-platform",
      "'guest-stats-polling-interval': 1, 'iommu_platform': true" },
    { "/virtio-balloon/failed-realize/interval",
      "'guest-stats-polling-interval': -1" },
    { "/virtio-balloon/failed-realize/link", "'iothread': 'nope'" },
    { "/virtio-balloon/failed-realize/type", "'deflate-on-oom': 7" },
    { "/virtio-balloon/failed-realize/unknown", "'no-such-property': true" },
};

/* A failed device_add leaves nothing behind, the next one works */
static void test_failed_realize(const void *data)
{
    BalloonDriver d;
    g_autofree char *command = g_strdup_printf(
        "{'execute': 'device_add', 'arguments': {'driver':"
        " 'virtio-balloon-pci', 'id': 'balloon0', 'addr': '5', %s}}",
        (const char *)data);

    balloon_boot_without(&d, "");
    for (int i = 0; i < 3; i++) {
        QDict *error;

        qtest_qmp_send_raw(d.qts, "%s\n", command);
        error = qtest_qmp_receive(d.qts);
        g_assert(qdict_haskey(error, "error"));
        qobject_unref(error);
        assert_no_balloon(d.qts);
        qtest_clock_step(d.qts, 5 * NANOSECONDS_PER_SECOND);
    }
    plug(&d);
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 0);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_works(&d);
    balloon_quit(&d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/virtio-balloon/life/plug-many", test_plug_many);
    qtest_add_func("/virtio-balloon/life/unplug-inflating",
                   test_unplug_inflating);
    qtest_add_func("/virtio-balloon/life/unplug-polling",
                   test_unplug_polling);
    qtest_add_func("/virtio-balloon/life/second-balloon",
                   test_second_balloon);
    for (int i = 0; i < ARRAY_SIZE(realize_errors); i++) {
        qtest_add_data_func(realize_errors[i].path,
                            realize_errors[i].properties,
                            test_failed_realize);
    }
    balloon_add_reset_tests();
    balloon_add_running_tests();
    balloon_add_memory_tests();
    balloon_add_backing_tests();
    balloon_add_fault_tests();
    balloon_add_tell_tests();
    balloon_add_pool_tests();
    balloon_add_lost_tests();
    return g_test_run();
}
