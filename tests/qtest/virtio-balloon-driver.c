/*
 * A driver for the virtio balloon, for tests: set-up, config and memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "virtio-balloon-driver.h"
#include "hw/pci/pci_regs.h"
#include "libqos/libqos-spapr.h"
#include "libqos/virtio-mmio.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

/* What goes through the qtest protocol at a time; it dislikes long lines */
#define CHUNK (32 * KiB)

void balloon_attach(BalloonDriver *d, QTestState *qts, QVirtioDevice *vdev,
                    QGuestAllocator *alloc)
{
    *d = (BalloonDriver) { .qts = qts, .vdev = vdev, .alloc = alloc };
}

void balloon_preload(const char *name)
{
    const char *old = g_getenv("ASAN_OPTIONS");
    g_autofree char *options = g_strconcat(old ? old : "",
                                           ":verify_asan_link_order=0", NULL);
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = g_path_get_dirname(self);
    g_autofree char *library = NULL;

    if (!name) {
        g_unsetenv("LD_PRELOAD");
        return;
    }
    library = g_build_filename(folder, name, NULL);
    g_assert_true(g_file_test(library, G_FILE_TEST_EXISTS));
    g_setenv("ASAN_OPTIONS", options, true);
    g_setenv("LD_PRELOAD", library, true);
}

static void boot(BalloonDriver *d, const char *device, const char *options,
                 const char *how)
{
    QOSState *(*make)(const char *, ...) G_GNUC_PRINTF(1, 2) =
        g_str_equal(qtest_get_arch(), "ppc64") ? qtest_spapr_boot :
                                                 qtest_pc_boot;
    QOSState *machine = make("%s -device %s,id=balloon0,addr=%d %s", options,
                             device, BALLOON_SLOT, how);

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
    d->device = device;
    d->options = options;
}

void balloon_boot(BalloonDriver *d, const char *device, const char *options)
{
    boot(d, device, options, "");
    balloon_find(d);
}

void balloon_boot_incoming(BalloonDriver *d, const char *device,
                           const char *options)
{
    boot(d, device, options, "-incoming defer");
}

void balloon_find(BalloonDriver *d)
{
    balloon_find_at(d, QPCI_DEVFN(BALLOON_SLOT, 0));
}

void balloon_find_at(BalloonDriver *d, int devfn)
{
    QPCIAddress addr = { .devfn = devfn };

    d->pci = virtio_pci_new(d->machine->pcibus, &addr);
    g_assert_nonnull(d->pci);
    d->vdev = &d->pci->vdev;
    qvirtio_pci_device_enable(d->pci);
    g_assert_cmphex(d->vdev->device_type, ==, VIRTIO_ID_BALLOON);
    qvirtio_start_device(d->vdev);
}

static void forget_queues(BalloonDriver *d)
{
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        if (d->vq[i]) {
            qvirtqueue_cleanup(d->vdev->bus, d->vq[i], d->alloc);
            d->vq[i] = NULL;
        }
    }
}

void balloon_lose(BalloonDriver *d)
{
    forget_queues(d);
    if (d->pci) {
        g_free(d->pci->pdev);
        g_clear_pointer(&d->pci, g_free);
    }
    d->vdev = NULL;
}

void balloon_quit(BalloonDriver *d)
{
    balloon_lose(d);
    qtest_shutdown(g_steal_pointer(&d->machine));
}

void balloon_stop(BalloonDriver *d)
{
    qtest_qmp_assert_success(d->qts, "{'execute': 'stop'}");
}

void balloon_cont(BalloonDriver *d)
{
    qtest_qmp_assert_success(d->qts, "{'execute': 'cont'}");
}

uint64_t balloon_negotiate(BalloonDriver *d, uint64_t wanted)
{
    uint64_t offered = qvirtio_get_features(d->vdev);
    uint64_t leave = QVIRTIO_F_BAD_FEATURE | 1ull << VIRTIO_RING_F_EVENT_IDX;

    if (wanted == BALLOON_ALL_FEATURES) {
        leave |= 1ull << VIRTIO_RING_F_INDIRECT_DESC;
    }
    qvirtio_set_features(d->vdev, offered & ~leave &
                                  (wanted | 1ull << VIRTIO_F_VERSION_1));
    return offered;
}

unsigned balloon_queue_size(BalloonDriver *d, int index)
{
    d->vdev->bus->queue_select(d->vdev, index);
    return d->vdev->bus->get_queue_size(d->vdev);
}

void balloon_setup_queues(BalloonDriver *d)
{
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        if (balloon_queue_size(d, i)) {
            d->vq[i] = qvirtqueue_setup(d->vdev, d->alloc, i);
        }
    }
}

uint64_t balloon_start(BalloonDriver *d, uint64_t wanted)
{
    uint64_t offered = balloon_negotiate(d, wanted);

    balloon_setup_queues(d);
    qvirtio_set_driver_ok(d->vdev);
    return offered;
}

void balloon_reset(BalloonDriver *d)
{
    qvirtio_start_device(d->vdev);
    forget_queues(d);
}

void balloon_restart(BalloonDriver *d)
{
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

void balloon_reset_queue(BalloonDriver *d, int index)
{
    QVirtioPCIDevice *pci = d->pci;
    uint32_t offset = pci->common_cfg_offset + VIRTIO_PCI_COMMON_Q_RESET;

    d->vdev->bus->queue_select(d->vdev, index);
    qpci_io_writew(pci->pdev, pci->bar, offset, 1);
    balloon_wait_for(qpci_io_readw(pci->pdev, pci->bar, offset) == 0);
}

void balloon_renew_queue(BalloonDriver *d, int index)
{
    qvirtqueue_cleanup(d->vdev->bus, d->vq[index], d->alloc);
    d->vq[index] = qvirtqueue_setup(d->vdev, d->alloc, index);
}

void balloon_place_ring(BalloonDriver *d, int index)
{
    QVirtioPCIDevice *pci = d->pci;
    uint32_t common = pci->common_cfg_offset;

    d->vdev->bus->queue_select(d->vdev, index);
    qpci_io_writew(pci->pdev, pci->bar, common +
                   offsetof(struct virtio_pci_common_cfg, queue_size),
                   d->vq[index]->size);
    d->vdev->bus->set_queue_address(d->vdev, d->vq[index]);
    qpci_io_writew(pci->pdev, pci->bar, common +
                   offsetof(struct virtio_pci_common_cfg, queue_enable), 1);
}

void balloon_set_bus_master(BalloonDriver *d, bool on)
{
    uint16_t command = qpci_config_readw(d->pci->pdev, PCI_COMMAND);

    command &= ~PCI_COMMAND_MASTER;
    qpci_config_writew(d->pci->pdev, PCI_COMMAND,
                       command | (on ? PCI_COMMAND_MASTER : 0));
}

uint8_t balloon_status(BalloonDriver *d)
{
    return d->vdev->bus->get_status(d->vdev);
}

void balloon_assert_well(BalloonDriver *d)
{
    g_assert_cmphex(balloon_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
}

void balloon_wait_broken(BalloonDriver *d)
{
    if (d->vdev->features & 1ull << VIRTIO_F_VERSION_1) {
        balloon_wait_for(balloon_status(d) == BALLOON_STATUS_BROKEN);
    }
}

uint8_t balloon_readb(BalloonDriver *d, unsigned offset)
{
    return d->vdev->bus->config_readb(d->vdev, offset);
}

/* Byte by byte: then no transport has an opinion on the order of bytes */
uint32_t balloon_readl(BalloonDriver *d, unsigned offset)
{
    uint32_t value = 0;

    for (int i = 0; i < 4; i++) {
        value |= (uint32_t)balloon_readb(d, offset + i) << (8 * i);
    }
    return value;
}

static QVirtioPCIDevice *pci_of(BalloonDriver *d)
{
    return container_of(d->vdev, QVirtioPCIDevice, vdev);
}

/* Where config is in the BAR of a PCI device */
static uint64_t pci_config(QVirtioPCIDevice *pci)
{
    return pci->device_cfg_offset ? pci->device_cfg_offset :
                                    VIRTIO_PCI_CONFIG_OFF(
                                        pci->pdev->msix_enabled);
}

static bool is_mmio(BalloonDriver *d)
{
    return d->vdev->bus == &qvirtio_mmio;
}

static uint64_t mmio_config(BalloonDriver *d)
{
    return container_of(d->vdev, QVirtioMMIODevice, vdev)->addr +
           QVIRTIO_MMIO_DEVICE_SPECIFIC;
}

void balloon_writeb(BalloonDriver *d, unsigned offset, uint8_t value)
{
    if (is_mmio(d)) {
        qtest_writeb(d->qts, mmio_config(d) + offset, value);
    } else {
        qpci_io_writeb(pci_of(d)->pdev, pci_of(d)->bar,
                       pci_config(pci_of(d)) + offset, value);
    }
}

void balloon_writew(BalloonDriver *d, unsigned offset, uint16_t value)
{
    if (is_mmio(d)) {
        value = qtest_big_endian(d->qts) ? bswap16(value) : value;
        qtest_writew(d->qts, mmio_config(d) + offset, value);
    } else {
        qpci_io_writew(pci_of(d)->pdev, pci_of(d)->bar,
                       pci_config(pci_of(d)) + offset, value);
    }
}

void balloon_writel(BalloonDriver *d, unsigned offset, uint32_t value)
{
    if (is_mmio(d)) {
        value = qtest_big_endian(d->qts) ? bswap32(value) : value;
        qtest_writel(d->qts, mmio_config(d) + offset, value);
    } else {
        qpci_io_writel(pci_of(d)->pdev, pci_of(d)->bar,
                       pci_config(pci_of(d)) + offset, value);
    }
}

void balloon_wait_config_interrupt(BalloonDriver *d)
{
    qvirtio_wait_config_isr(d->vdev, BALLOON_TIMEOUT_US);
}

uint64_t balloon_alloc(BalloonDriver *d, uint64_t size, uint8_t byte)
{
    uint64_t addr = guest_alloc(d->alloc, size);

    qtest_memset(d->qts, addr, byte, size);
    return addr;
}

uint64_t balloon_copy(BalloonDriver *d, const void *data, uint64_t size)
{
    uint64_t addr = guest_alloc(d->alloc, MAX(size, 1));

    for (uint64_t at = 0; at < size; at += CHUNK) {
        qtest_bufwrite(d->qts, addr + at, data + at, MIN(CHUNK, size - at));
    }
    return addr;
}

void balloon_assert_bytes(BalloonDriver *d, uint64_t addr, uint64_t size,
                          uint8_t byte)
{
    uint8_t data[CHUNK];

    for (uint64_t at = 0; at < size; at += CHUNK) {
        uint64_t n = MIN(CHUNK, size - at);

        qtest_bufread(d->qts, addr + at, data, n);
        for (uint64_t i = 0; i < n; i++) {
            if (data[i] != byte) {
                g_error("guest memory at 0x%" PRIx64 ": 0x%02x, not 0x%02x",
                        addr + at + i, data[i], byte);
            }
        }
    }
}

bool balloon_has_bytes(BalloonDriver *d, uint64_t addr, uint64_t size,
                       uint8_t byte)
{
    g_autofree uint8_t *data = g_malloc(size);

    qtest_memread(d->qts, addr, data, size);
    return data[0] == byte && memcmp(data, data + 1, size - 1) == 0;
}

void balloon_assert_stays(BalloonDriver *d, uint64_t addr, uint64_t size,
                          uint8_t byte)
{
    gint64 end = g_get_monotonic_time() + BALLOON_STAYS_US;

    while (g_get_monotonic_time() < end) {
        balloon_assert_bytes(d, addr, size, byte);
    }
}

uint64_t balloon_dirty_pages(BalloonDriver *d, unsigned pages)
{
    return balloon_alloc(d, (uint64_t)pages * BALLOON_PAGE, OLD);
}

void balloon_assert_pages(BalloonDriver *d, uint64_t addr, const char *map)
{
    for (const char *c = map; *c; c++, addr += BALLOON_PAGE) {
        g_assert(*c == '0' || *c == 'x');
        balloon_assert_bytes(d, addr, BALLOON_PAGE, *c == '0' ? 0 : OLD);
    }
}
