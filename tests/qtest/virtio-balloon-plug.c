/*
 * Memory and devices that come and go while a virtio balloon works, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-plug.h"

/* Of the machine's hot plug of memory: see docs/specs/acpi_mem_hotplug.rst */
#define SLOT_SELECTOR 0xa00
#define SLOT_STATUS 0xa14
#define SLOT_EJECT 8

/* Where a PC lets a PCI slot go */
#define ACPI_EJECT 0xae08
#define VFIO_SLOT 5

/* What is behind a device may be deleted with it, which is told, too */
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

static void eject(QTestState *qts, const char *id, int slot)
{
    qtest_outl(qts, ACPI_EJECT, 1 << slot);
    wait_deleted(qts, id);
}

void balloon_add_dimm_memory(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'object-add', 'arguments':"
                             " {'qom-type': 'memory-backend-ram', 'id': 'm0',"
                             " 'size': 134217728}}");
}

void balloon_remove_dimm_memory(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'object-del',"
                             " 'arguments': {'id': 'm0'}}");
}

void balloon_plug_dimm(QTestState *qts)
{
    qtest_qmp_device_add(qts, "pc-dimm", "dimm0",
                         "{'memdev': 'm0', 'slot': 0, 'addr': 4294967296}");
}

void balloon_unplug_dimm(QTestState *qts)
{
    qtest_qmp_device_del_send(qts, "dimm0");
    qtest_outl(qts, SLOT_SELECTOR, 0);
    qtest_outb(qts, SLOT_STATUS, SLOT_EJECT);
    wait_deleted(qts, "dimm0");
}

/* QEMU reads of sysfs what the group of the device is, and nothing later */
void balloon_plug_vfio(QTestState *qts)
{
    g_autofree char *folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    g_autofree char *group = g_build_filename(folder, "iommu_group", NULL);

    g_assert_cmpint(symlink("../42", group), ==, 0);
    qtest_qmp_device_add(qts, "vfio-pci", "vfio0",
                         "{'addr': %s, 'sysfsdev': %s}",
                         stringify(VFIO_SLOT), folder);
    unlink(group);
    rmdir(folder);
}

void balloon_unplug_vfio(QTestState *qts)
{
    qtest_qmp_device_del_send(qts, "vfio0");
    eject(qts, "vfio0", VFIO_SLOT);
}

QDict *balloon_device(const char *properties)
{
    QDict *args = qobject_to(QDict, qobject_from_json(properties,
                                                      &error_abort));

    qdict_put_str(args, "driver", "virtio-balloon-pci");
    qdict_put_str(args, "id", "balloon0");
    qdict_put_str(args, "addr", stringify(BALLOON_SLOT));
    return args;
}

void balloon_plug(BalloonDriver *d, const char *properties)
{
    qtest_qmp_assert_success(d->qts, BALLOON_DEVICE_ADD,
                             balloon_device(properties));
    balloon_find(d);
}

void balloon_eject(BalloonDriver *d)
{
    eject(d->qts, "balloon0", BALLOON_SLOT);
    balloon_lose(d);
}

void balloon_unplug(BalloonDriver *d)
{
    qtest_qmp_device_del_send(d->qts, "balloon0");
    balloon_eject(d);
}

void balloon_assert_none(QTestState *qts)
{
    const char *none = "No balloon device has been activated";

    balloon_assert_error(qts, "DeviceNotActive", none,
                         "{'execute': 'query-balloon'}");
    balloon_assert_error(qts, "DeviceNotActive", none,
                         "{'execute': 'balloon', 'arguments': {'value': 1}}");
}
