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
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-test.h"
#include "hw/pci/pci_regs.h"
#include "libqos/virtio-mmio.h"
#include "standard-headers/linux/virtio_config.h"

#define RAM (128 * MiB)
#define MICROVM_MMIO 0xfeb00000
#define MICROVM_TRANSPORTS 8

/* The life of a driver that is at DRIVER_OK; the VM has 128 MiB */
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

static void pci(BalloonDriver *d)
{
    live(d);
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    live(d);
}

static void modern(BalloonDriver *d)
{
    g_assert_true(d->vdev->features & 1ull << VIRTIO_F_VERSION_1);
    pci(d);
}

static void legacy(BalloonDriver *d)
{
    g_assert_false(d->vdev->features & 1ull << VIRTIO_F_VERSION_1);
    pci(d);
}

static void no_vectors(BalloonDriver *d)
{
    g_assert_cmphex(qpci_find_capability(d->pci->pdev, PCI_CAP_ID_MSIX, 0), ==,
                    0);
    live(d);
}

static QVirtQueuePCI *pci_queue(BalloonDriver *d, int index)
{
    return container_of(d->vq[index], QVirtQueuePCI, vq);
}

/* One vector for config, one for all queues: what Linux does with two */
static void msix(BalloonDriver *d)
{
    qpci_msix_enable(d->pci->pdev);
    g_assert_cmpuint(qpci_msix_table_size(d->pci->pdev), ==, 2);
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    qvirtio_pci_set_msix_configuration_vector(d->pci, d->alloc, 0);
    balloon_setup_queues(d);
    for (int i = 0; d->vq[i]; i++) {
        qvirtqueue_pci_msix_setup(d->pci, pci_queue(d, i), d->alloc, 1);
    }
    /* the queues share the vector: the last one's address is the one in use */
    for (int i = 0; d->vq[i]; i++) {
        pci_queue(d, i)->msix_addr = pci_queue(d, BALLOON_VQ_STATS)->msix_addr;
    }
    qvirtio_set_driver_ok(d->vdev);
    live(d);
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

#define DEVICE "virtio-balloon-pci"

static const BalloonTest tests[] = {
    { "transport/pci/default", modern, DEVICE },
    { "transport/pci/transitional", modern, DEVICE "-transitional" },
    { "transport/pci/non-transitional", modern, DEVICE "-non-transitional" },
    { "transport/pci/modern", modern, DEVICE ",disable-legacy=on" },
    { "transport/pci/legacy", legacy, DEVICE ",disable-modern=on" },
    { "transport/pci/page-per-vq", modern, DEVICE ",page-per-vq=on" },
    { "transport/pci/no-ioeventfd", modern, DEVICE ",ioeventfd=off" },
    { "transport/pci/no-vectors", no_vectors, DEVICE ",vectors=0" },
    { "transport/pci/msix", msix, DEVICE, .unstarted = true },
    { "transport/pci/legacy-msix", msix, DEVICE ",disable-modern=on",
      .unstarted = true },
};

void virtio_balloon_add_transport_tests(void)
{
    balloon_add_tests(NULL, tests, ARRAY_SIZE(tests));
    qtest_add_func("/virtio-balloon/transport/mmio", mmio);
}
