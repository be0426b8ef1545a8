/*
 * The virtio balloon on every transport that a PC has
 *
 * The same short life of a driver on all of them: give memory up, tell so,
 * take it back, hear of a target, give statistics.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-test.h"
#include "hw/pci/pci_regs.h"
#include "libqos/virtio-mmio.h"
#include "standard-headers/linux/virtio_config.h"

#define RAM (128 * MiB)
#define MICROVM_MMIO 0xfeb00000
#define MICROVM_TRANSPORTS 8

/* The driver's life, from the reset state; the VM has 128 MiB */
static void live(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 4);

    balloon_set_target(d->qts, 64 * MiB);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    balloon_wait_config_interrupt(d);
    balloon_set_target(d->qts, 96 * MiB);
    balloon_wait_config_interrupt(d);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x2000);

    balloon_send_range(d, BALLOON_VQ_INFLATE, mem + BALLOON_PAGE, 2);
    balloon_assert_pages(d, mem, "x00x");
    balloon_writel(d, BALLOON_CFG_ACTUAL, 2);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - 2 * BALLOON_PAGE);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL), ==, 2);
    balloon_send_range(d, BALLOON_VQ_DEFLATE, mem + BALLOON_PAGE, 2);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);
    balloon_leave_stats(d, 12345);
}

static void pci(const void *data)
{
    bool legacy = strstr(data, "disable-modern=on");
    BalloonDriver d;

    balloon_boot(&d, data, "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    g_assert(!(d.vdev->features & 1ull << VIRTIO_F_VERSION_1) == legacy);
    live(&d);
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    live(&d);
    balloon_quit(&d);
}

/* One vector for config, one for all queues: what Linux does with two */
static void msix(const void *data)
{
    BalloonDriver d;

    balloon_boot(&d, data, "-m 128");
    qpci_msix_enable(d.pci->pdev);
    g_assert_cmpuint(qpci_msix_table_size(d.pci->pdev), ==, 2);
    balloon_negotiate(&d, BALLOON_ALL_FEATURES);
    qvirtio_pci_set_msix_configuration_vector(d.pci, d.alloc, 0);
    balloon_setup_queues(&d);
    for (int i = 0; d.vq[i]; i++) {
        qvirtqueue_pci_msix_setup(d.pci, container_of(d.vq[i], QVirtQueuePCI,
                                                      vq), d.alloc, 1);
    }
    /* the queues share the vector: the last one's address is the one in use */
    for (int i = 0; d.vq[i]; i++) {
        container_of(d.vq[i], QVirtQueuePCI, vq)->msix_addr =
            container_of(d.vq[BALLOON_VQ_STATS], QVirtQueuePCI, vq)->msix_addr;
    }
    qvirtio_set_driver_ok(d.vdev);
    live(&d);
    balloon_quit(&d);
}

static void no_vectors(void)
{
    BalloonDriver d;

    balloon_boot(&d, "virtio-balloon-pci,vectors=0", "-m 128");
    g_assert_cmphex(qpci_find_capability(d.pci->pdev, PCI_CAP_ID_MSIX, 0), ==,
                    0);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    live(&d);
    balloon_quit(&d);
}

/* Find the balloon among the transports of a microvm */
static void find_mmio(QVirtioMMIODevice *mmio, QTestState *qts)
{
    for (int i = 0; i < MICROVM_TRANSPORTS; i++) {
        qvirtio_mmio_init_device(mmio, qts, MICROVM_MMIO + i * 512, 4096);
        if (mmio->vdev.device_type == VIRTIO_ID_BALLOON) {
            return;
        }
    }
    g_assert_not_reached();
}

static void mmio(void)
{
    QTestState *qts = qtest_init("-machine microvm,acpi=off -m 128"
                                 " -device virtio-balloon-device,id=balloon0");
    QGuestAllocator alloc;
    QVirtioMMIODevice device = {};
    BalloonDriver d;

    alloc_init(&alloc, ALLOC_NO_FLAGS, MiB, RAM, 4096);
    find_mmio(&device, qts);
    balloon_attach(&d, qts, &device.vdev, &alloc);
    qvirtio_start_device(d.vdev);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    live(&d);
    balloon_lose(&d);
    alloc_destroy(&alloc);
    qtest_quit(qts);
}

void virtio_balloon_add_transport_tests(void)
{
    static const struct {
        const char *name;
        const char *device;
    } devices[] = {
        { "default", "virtio-balloon-pci" },
        { "transitional", "virtio-balloon-pci-transitional" },
        { "non-transitional", "virtio-balloon-pci-non-transitional" },
        { "modern", "virtio-balloon-pci,disable-legacy=on" },
        { "legacy", "virtio-balloon-pci,disable-modern=on" },
        { "page-per-vq", "virtio-balloon-pci,page-per-vq=on" },
        { "no-ioeventfd", "virtio-balloon-pci,ioeventfd=off" },
    };

    for (int i = 0; i < ARRAY_SIZE(devices); i++) {
        g_autofree char *path = g_strconcat(BALLOON_TESTS "transport/pci/",
                                            devices[i].name, NULL);

        qtest_add_data_func(path, devices[i].device, pci);
    }
    qtest_add_data_func(BALLOON_TESTS "transport/pci/msix",
                        "virtio-balloon-pci", msix);
    qtest_add_data_func(BALLOON_TESTS "transport/pci/legacy-msix",
                        "virtio-balloon-pci,disable-modern=on", msix);
    qtest_add_func(BALLOON_TESTS "transport/pci/no-vectors", no_vectors);
    qtest_add_func(BALLOON_TESTS "transport/mmio", mmio);
}
