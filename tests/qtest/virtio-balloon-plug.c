/*
 * Memory and devices that come and go while a virtio balloon works, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "virtio-balloon-plug.h"

/* Of the machine's hot plug of memory: see docs/specs/acpi_mem_hotplug.rst */
#define SLOT_SELECTOR 0xa00
#define SLOT_STATUS 0xa14
#define SLOT_EJECT 8

/* Where a PC lets a PCI slot go */
#define ACPI_EJECT 0xae08
#define VFIO_SLOT 5

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
    qtest_qmp_eventwait(qts, "DEVICE_DELETED");
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
    qtest_outl(qts, ACPI_EJECT, 1 << VFIO_SLOT);
    qtest_qmp_eventwait(qts, "DEVICE_DELETED");
}
