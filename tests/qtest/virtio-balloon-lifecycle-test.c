/*
 * The life cycle of a virtio balloon: plug, unplug, and memory that goes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-plug.h"

/* Where balloon_boot() has it */
#define SLOT 4
#define ROUNDS 100
#define TARGET (64 * MiB)

/* The PC's register to let a PCI slot go */
#define ACPI_EJECT 0xae08

/* A driver that must tell, so that discards may be put off */
#define TELL "virtio-balloon-pci,must-tell-host=on"
#define AREA (64 * MiB)
#define SIZE (2 * MiB)
#define OLD 0xa5
#define NEW 0x33

/* A target reaches the driver, and what that says comes back */
static void assert_resizes(BalloonDriver *d)
{
    balloon_set_target(d->qts, BALLOON_RAM - TARGET);
    balloon_wait_config_interrupt(d);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==,
                    TARGET / BALLOON_PAGE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 2);
    g_assert_cmpint(balloon_query(d->qts), ==,
                    BALLOON_RAM - 2 * BALLOON_PAGE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0);
}

void balloon_assert_works(BalloonDriver *d)
{
    assert_resizes(d);
    balloon_assert_serves(d);
}

static void plug(BalloonDriver *d)
{
    qtest_qmp_device_add(d->qts, "virtio-balloon-pci", "balloon0",
                         "{'addr': '4', 'free-page-reporting': true}");
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
static void test_plug_many(BalloonDriver *d)
{
    unsigned fds = 0;

    for (int i = 0; i < ROUNDS; i++) {
        unplug(d);
        assert_no_balloon(d->qts);
        if (i == ROUNDS / 10) {
            fds = count_fds(d->qts);
        }
        plug(d);
        if (i % (ROUNDS / 10) == 0) {
            balloon_start(d, BALLOON_ALL_FEATURES);
            balloon_assert_works(d);
        } else {
            balloon_negotiate(d, BALLOON_ALL_FEATURES);
            qvirtio_set_driver_ok(d->vdev);
            assert_resizes(d);
        }
    }
    unplug(d);
    g_assert_cmpuint(count_fds(d->qts), <=, fds);
}

/* Give half of some memory up: discards are late, and the last is later */
static void give_half(BalloonDriver *d, uint64_t addr)
{
    qtest_memset(d->qts, addr, OLD, SIZE);
    balloon_inflate(d, addr, SIZE / 2);
}

/* The device goes while discards wait: the memory is the guest's */
static void test_unplug_waiting(BalloonDriver *d)
{
    give_half(d, AREA);
    unplug(d);
    qtest_memset(d->qts, AREA, NEW, SIZE);
    balloon_assert_stays(d, AREA, SIZE, NEW);
    qtest_qmp_device_add(d->qts, "virtio-balloon-pci", "balloon0",
                         "{'addr': '4', 'must-tell-host': true}");
    balloon_find(d, SLOT);
    balloon_start(d, BALLOON_ALL_FEATURES);
    give_half(d, AREA + SIZE);
    balloon_wait_for(qtest_readb(d->qts, AREA + SIZE) == 0);
    balloon_assert_bytes(d, AREA, SIZE, NEW);
}

/* Memory goes with pages in the balloon; those of its successor are others */
static void test_dimm_waiting(BalloonDriver *d)
{
    for (int i = 0; i < 3; i++) {
        balloon_add_dimm_memory(d->qts);
        balloon_plug_dimm(d->qts);
        qtest_memset(d->qts, BALLOON_DIMM, NEW, SIZE);
        if (i) {
            balloon_assert_stays(d, BALLOON_DIMM, SIZE, NEW);
        }
        give_half(d, BALLOON_DIMM);
        balloon_unplug_dimm(d->qts);
        balloon_remove_dimm_memory(d->qts);
    }
    give_half(d, AREA);
    balloon_wait_for(qtest_readb(d->qts, AREA) == 0);
}

static const BalloonTest tests[] = {
    { "life/plug-many", test_plug_many },
    { "improved/tell/unplug", test_unplug_waiting, .device = TELL },
    { "improved/tell/dimm", test_dimm_waiting, .device = TELL,
      .options = BALLOON_DIMM_SLOTS },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    balloon_add_tests(NULL, tests, ARRAY_SIZE(tests));
    balloon_add_reset_tests();
    balloon_add_running_tests();
    balloon_add_memory_tests();
    balloon_add_backing_tests();
    balloon_add_pool_tests();
    balloon_add_lost_tests();
    return g_test_run();
}
