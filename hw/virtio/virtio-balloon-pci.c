/*
 * Virtio balloon on PCI
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/virtio-balloon.h"
#include "hw/virtio/virtio-pci.h"
#include "qom/object.h"

#define TYPE_VIRTIO_BALLOON_PCI "virtio-balloon-pci-base"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOBalloonPCI, VIRTIO_BALLOON_PCI)

struct VirtIOBalloonPCI {
    VirtIOPCIProxy parent_obj;
    VirtIOBalloon vdev;
};

/* One vector for config changes, one that the queues share */
#define BALLOON_PCI_VECTORS 2

static const Property virtio_balloon_pci_properties[] = {
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors,
                       DEV_NVECTORS_UNSPECIFIED),
    DEFINE_PROP_BIT("ioeventfd", VirtIOPCIProxy, flags,
                    VIRTIO_PCI_FLAG_USE_IOEVENTFD_BIT, true),
};

static void virtio_balloon_pci_realize(VirtIOPCIProxy *proxy, Error **errp)
{
    VirtIOBalloonPCI *pci = VIRTIO_BALLOON_PCI(proxy);

    if (proxy->nvectors == DEV_NVECTORS_UNSPECIFIED) {
        proxy->nvectors = BALLOON_PCI_VECTORS;
    }
    qdev_realize(DEVICE(&pci->vdev), BUS(&proxy->bus), errp);
}

static ResettablePhases virtio_balloon_pci_parent_phases;

static void virtio_balloon_pci_reset_hold(Object *obj, ResetType type);

static void virtio_balloon_pci_reset_later(void *opaque)
{
    if (DEVICE(opaque)->realized) {
        virtio_balloon_pci_reset_hold(opaque, RESET_TYPE_COLD);
    }
    object_unref(opaque);
}

/*
 * While a queue is served the guest can reset the function, or its bus, by what
 * that does to another device, see virtio_balloon_pop().  The virtio core does
 * not expect that, so it comes afterwards; not at once if QEMU has yet to wait
 * for something while the queue is served.
 */
static void virtio_balloon_pci_reset_hold(Object *obj, ResetType type)
{
    if (DEVICE(obj)->mem_reentrancy_guard.engaged_in_io) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(),
                                virtio_balloon_pci_reset_later,
                                object_ref(obj));
    } else {
        virtio_balloon_pci_parent_phases.hold(obj, type);
    }
}

static void virtio_balloon_pci_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pcidev = PCI_DEVICE_CLASS(klass);

    resettable_class_set_parent_phases(RESETTABLE_CLASS(klass), NULL,
                                       virtio_balloon_pci_reset_hold, NULL,
                                       &virtio_balloon_pci_parent_phases);
    VIRTIO_PCI_CLASS(klass)->realize = virtio_balloon_pci_realize;
    device_class_set_props(dc, virtio_balloon_pci_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    pcidev->vendor_id = PCI_VENDOR_ID_REDHAT_QUMRANET;
    pcidev->device_id = PCI_DEVICE_ID_VIRTIO_BALLOON;
    pcidev->revision = VIRTIO_PCI_ABI_VERSION;
    pcidev->class_id = PCI_CLASS_OTHERS;
}

static void virtio_balloon_pci_instance_init(Object *obj)
{
    VirtIOBalloonPCI *pci = VIRTIO_BALLOON_PCI(obj);
    Object *vdev = OBJECT(&pci->vdev);

    virtio_instance_init_common(obj, vdev, sizeof(pci->vdev),
                                TYPE_VIRTIO_BALLOON);
    object_property_add_alias(obj, "guest-stats", vdev, "guest-stats");
    object_property_add_alias(obj, "guest-stats-polling-interval", vdev,
                              "guest-stats-polling-interval");
}

static const VirtioPCIDeviceTypeInfo virtio_balloon_pci_info = {
    .base_name = TYPE_VIRTIO_BALLOON_PCI,
    .generic_name = "virtio-balloon-pci",
    .transitional_name = "virtio-balloon-pci-transitional",
    .non_transitional_name = "virtio-balloon-pci-non-transitional",
    .instance_size = sizeof(VirtIOBalloonPCI),
    .instance_init = virtio_balloon_pci_instance_init,
    .class_init = virtio_balloon_pci_class_init,
};

static void virtio_balloon_pci_register(void)
{
    virtio_pci_types_register(&virtio_balloon_pci_info);
}

type_init(virtio_balloon_pci_register)
