/*
 * The virtio balloon and a driver whose interrupt unplugs the device
 *
 * Where an interrupt is written to is up to the driver.  Below a root port it
 * may be the port's own register that lets go of what is plugged, so that the
 * device has gone when its answer has been given.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"
#include "hw/pci/pci_regs.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

#define PORT_SLOT 6
#define SAS_SLOT 7
#define OTHER_SAS_SLOT 8
#define DISK_SLOT 9
#define MACHINE "-machine q35 "                                             \
                "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "\
                "-device pcie-root-port,id=port0,addr=6 "

/* Where a q35 has the config space of PCI in memory, and of its own PCIEXBAR */
#define ECAM 0xb0000000
#define PCIEXBAR 0x60

/* Where libqos maps the BARs, in a bridge's units */
#define WINDOW_BASE 0xe000
#define WINDOW_LIMIT 0xeff0

/* Of a SAS adapter, and where they are: as in hw/scsi/mpi.h */
#define MPI_DOORBELL_OFFSET 0
#define MPI_DOORBELL_FUNCTION_SHIFT 24
#define MPI_DOORBELL_ADD_DWORDS_SHIFT 16
#define MPI_FUNCTION_HANDSHAKE 0x42
#define MPI_HOST_INTERRUPT_MASK_OFFSET 0x34
#define MPI_REPLY_POST_FIFO_OFFSET 0x44

/* Power controller off, power indicator off */
#define POWERED_OFF (PCI_EXP_SLTCTL_PCC | PCI_EXP_SLTCTL_PWR_IND_OFF)

/* In place of a queue */
#define CONFIG -1

typedef struct Way {
    /* what the driver does with a queue, if it is about one ... */
    void (*act)(BalloonDriver *d, int queue);
    int queue;
    /* ... and the queue, or CONFIG, whose interrupt then unplugs the device */
    int interrupt;
} Way;

/* Its number is @devfn on bus @bus */
static QPCIDevice *find_pci(BalloonDriver *d, int bus, int devfn)
{
    QPCIDevice *pci = qpci_device_find(d->machine->pcibus, bus << 8 | devfn);

    g_assert_nonnull(pci);
    return pci;
}

/* Where the port's register of its slot is in memory */
static uint64_t slot_register(BalloonDriver *d)
{
    g_autofree QPCIDevice *port = find_pci(d, 0, QPCI_DEVFN(PORT_SLOT, 0));
    uint8_t cap = qpci_find_capability(port, PCI_CAP_ID_EXP, 0);

    return ECAM + (port->devfn << 12) + cap + PCI_EXP_SLTCTL;
}

/* Bus 1, on which the balloon is, is behind the port */
static void open_port(BalloonDriver *d)
{
    g_autofree QPCIDevice *host = find_pci(d, 0, 0);
    g_autofree QPCIDevice *port = find_pci(d, 0, QPCI_DEVFN(PORT_SLOT, 0));

    qpci_config_writel(host, PCIEXBAR, ECAM | 1);
    qpci_config_writeb(port, PCI_SECONDARY_BUS, 1);
    qpci_config_writeb(port, PCI_SUBORDINATE_BUS, 1);
    qpci_config_writew(port, PCI_MEMORY_BASE, WINDOW_BASE);
    qpci_config_writew(port, PCI_MEMORY_LIMIT, WINDOW_LIMIT);
    qpci_config_writew(port, PCI_PREF_MEMORY_BASE, WINDOW_BASE);
    qpci_config_writew(port, PCI_PREF_MEMORY_LIMIT, WINDOW_LIMIT);
    qpci_config_writew(port, PCI_COMMAND,
                       PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* An interrupt of @queue, or CONFIG, writes POWERED_OFF to @addr */
static void aim_interrupt(BalloonDriver *d, int queue, uint64_t addr)
{
    QPCIDevice *pdev = d->pci->pdev;
    QPCIBar table = pdev->msix_table_bar;
    uint64_t entry = pdev->msix_table_off;
    size_t field = offsetof(struct virtio_pci_common_cfg, msix_config);

    qpci_io_writel(pdev, table, entry + PCI_MSIX_ENTRY_LOWER_ADDR, addr);
    qpci_io_writel(pdev, table, entry + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
    qpci_io_writel(pdev, table, entry + PCI_MSIX_ENTRY_DATA, POWERED_OFF);
    qpci_io_writel(pdev, table, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
    if (queue != CONFIG) {
        d->vdev->bus->queue_select(d->vdev, queue);
        field = offsetof(struct virtio_pci_common_cfg, queue_msix_vector);
    }
    qpci_io_writew(pdev, d->pci->bar, d->pci->common_cfg_offset + field, 0);
}

/* A driver runs a balloon, behind that port, which that interrupt unplugs */
static void begin(BalloonDriver *d, int queue)
{
    QOSState *machine = qtest_pc_boot(MACHINE "%s -device %s,bus=port0,"
                                      "id=balloon0", d->options, d->device);

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
    open_port(d);
    balloon_find_at(d, 1 << 8);
    qpci_msix_enable(d->pci->pdev);
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    aim_interrupt(d, queue, slot_register(d));
    qvirtio_set_driver_ok(d->vdev);
    qtest_memset(d->qts, AREA, OLD, HUGE);
}

static bool is_gone(BalloonDriver *d)
{
    g_autoptr(QDict) answer = qtest_qmp(d->qts, "{'execute': 'query-balloon'}");

    return qdict_haskey(answer, "error");
}

/* The balloon goes, and QEMU is well */
static void unplug(BalloonDriver *d)
{
    const Way *way = d->data;

    begin(d, way->interrupt);
    way->act(d, way->queue);
    balloon_wait_for(is_gone(d));
    balloon_quit(d);
}

/* More is left than is answered by then */
static void request(BalloonDriver *d, int queue)
{
    for (int i = 0; i < 3; i++) {
        balloon_publish(d, queue, balloon_add(d, queue, &(BalloonSeg) {
            AREA, BALLOON_PAGE, queue > STATS
        }, 1));
    }
    balloon_kick(d, queue);
}

/* The ring names a descriptor that there is not, of which the driver is told */
static void broken_ring(BalloonDriver *d, int queue)
{
    BalloonSeg seg = { AREA, BALLOON_PAGE, queue > STATS };

    balloon_publish(d, queue, balloon_add(d, queue, &seg, 1));
    balloon_publish(d, queue, UINT16_MAX);
    balloon_kick(d, queue);
}

/* ... and so does one that is not in RAM */
static void bad_ring(BalloonDriver *d, int queue)
{
    d->vq[queue]->used = ECAM;
    balloon_place_ring(d, queue);
    balloon_kick(d, queue);
}

/*
 * A register that interrupts again when it is read, of the SAS adapter in
 * @slot: that writes @data to @addr
 */
static uint64_t sas_register(BalloonDriver *d, int slot, uint64_t addr,
                             uint16_t data)
{
    g_autofree QPCIDevice *sas = find_pci(d, 0, QPCI_DEVFN(slot, 0));
    uint8_t cap = qpci_find_capability(sas, PCI_CAP_ID_MSI, 0);
    QPCIBar bar;

    qpci_device_enable(sas);
    bar = qpci_iomap(sas, 1, NULL);
    /* It has begun to listen to a message */
    qpci_io_writel(sas, bar, MPI_DOORBELL_OFFSET,
                   MPI_FUNCTION_HANDSHAKE << MPI_DOORBELL_FUNCTION_SHIFT |
                   1 << MPI_DOORBELL_ADD_DWORDS_SHIFT);
    qpci_io_writel(sas, bar, MPI_HOST_INTERRUPT_MASK_OFFSET, 0);
    qpci_config_writel(sas, cap + PCI_MSI_ADDRESS_LO, addr);
    qpci_config_writew(sas, cap + PCI_MSI_DATA_64, data);
    qpci_config_writew(sas, cap + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
    return bar.addr + MPI_REPLY_POST_FIFO_OFFSET;
}

static uint64_t unplugging(BalloonDriver *d)
{
    return sas_register(d, SAS_SLOT, slot_register(d), POWERED_OFF);
}

/* The device goes when it only looks at a request */
static void odd_buffer(BalloonDriver *d, int queue)
{
    balloon_post(d, queue, &(BalloonSeg) { unplugging(d), 4 }, 1);
}

/* ... in which it finds a fault besides, a segment of no bytes */
static void broken_buffer(BalloonDriver *d, int queue)
{
    balloon_post(d, queue, (BalloonSeg[]) {
        { unplugging(d), 4 }, { AREA, 0 }
    }, 2);
}

/* A packed ring of @n entries, whose chain goes on after buffers at @addrs */
static void post_packed(BalloonDriver *d, int queue, const uint64_t *addrs,
                        unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct vring_packed_desc desc = {
            .addr = cpu_to_le64(addrs[i]),
            .len = cpu_to_le32(4),
            .flags = cpu_to_le16(1 << VRING_PACKED_DESC_F_AVAIL |
                                 VRING_DESC_F_NEXT),
        };

        qtest_memwrite(d->qts, d->vq[queue]->desc + i * sizeof(desc), &desc,
                       sizeof(desc));
    }
    d->vq[queue]->size = n;
    balloon_place_ring(d, queue);
    balloon_kick(d, queue);
}

static void packed_buffer(BalloonDriver *d, int queue)
{
    post_packed(d, queue, (uint64_t[]) { unplugging(d) }, 1);
}

/* A register of another SAS adapter, whose interrupt resets a disk in use */
static uint64_t waiting(BalloonDriver *d)
{
    QPCIAddress at = { QPCI_DEVFN(DISK_SLOT, 0) };
    g_autofree QVirtioPCIDevice *disk = virtio_pci_new(d->machine->pcibus,
                                                       &at);
    uint64_t addr;

    qvirtio_pci_device_enable(disk);
    qvirtio_start_device(&disk->vdev);
    qvirtio_set_features(&disk->vdev, 1ull << VIRTIO_F_VERSION_1);
    qvirtio_set_driver_ok(&disk->vdev);
    addr = disk->bar.addr + disk->common_cfg_offset +
           offsetof(struct virtio_pci_common_cfg, device_status);
    g_free(disk->pdev);
    return sas_register(d, OTHER_SAS_SLOT, addr, 0);
}

/*
 * It is reset when the device looks at a request, and what happens next has
 * QEMU wait for something else; QEMU is well
 */
static void reset(BalloonDriver *d)
{
    uint64_t control = ECAM + (1 << 20) + PCI_EXP_DEVCTL;

    begin(d, CONFIG);
    control += qpci_find_capability(d->pci->pdev, PCI_CAP_ID_EXP, 0);
    post_packed(d, INFLATE, (uint64_t[]) {
        sas_register(d, SAS_SLOT, control, PCI_EXP_DEVCTL_BCR_FLR), waiting(d)
    }, 2);
    balloon_wait_for(!qpci_config_readw(d->pci->pdev, PCI_COMMAND));
    balloon_query(d->qts);
    balloon_quit(d);
}

/*
 * A snapshot brings back a buffer that was held, where the ring has become bad
 * meanwhile
 */
static void snapshot(BalloonDriver *d, int queue)
{
    balloon_add_disk(d->qts);
    balloon_leave_stats(d, 4711);
    qtest_writew(d->qts, d->vq[queue]->avail +
                 offsetof(struct vring_avail, ring), UINT16_MAX);
    balloon_snapshot(d->qts, "snapshot-save", "held");
    balloon_snapshot(d->qts, "snapshot-load", "held");
    balloon_cont(d);
}

static void config(BalloonDriver *d, int none)
{
    balloon_set_target(d->qts, RAM - HUGE);
}

/* Statistics that are asked for by a timer */
static void poll(BalloonDriver *d, int queue)
{
    balloon_leave_stats(d, 4711);
    qtest_clock_step(d->qts, 2 * SECOND);
}

/* It goes while migration tells all who listen that nothing more will come */
static void last_sync(BalloonDriver *d, int none)
{
    balloon_stop(d);
    balloon_migrate(d->qts);
}

/* The first answer to hints, when some are with the worker or are to be */
static void hints(BalloonDriver *d, int queue)
{
    BalloonSeg hint = { AREA, BALLOON_PAGE, true };
    uint32_t id;

    balloon_migrate_slowly(d->qts);
    id = balloon_wait_asked(d);
    balloon_publish(d, queue, balloon_add(d, queue, &(BalloonSeg) {
        balloon_copy(d, &id, sizeof(id)), sizeof(id)
    }, 1));
    balloon_publish(d, queue, balloon_add(d, queue, &hint, 1));
    balloon_kick(d, queue);
    balloon_migrate_finish(d->qts);
}

#define WAY(name, act, queue, interrupt)                                \
    { "unplug/" name, unplug, .data = &(Way) { act, queue, interrupt } }
#define SAS MEMORY "-device mptsas1068,msi=on,addr=" stringify(SAS_SLOT) " "
#define DISK SAS "-device mptsas1068,msi=on,addr="                          \
    stringify(OTHER_SAS_SLOT) " -blockdev null-co,node-name=disk0 "         \
    "-device virtio-blk-pci,drive=disk0,addr=" stringify(DISK_SLOT)
#define ODD_BUFFER(name, act, queue)                                    \
    { "unplug/buffer/" name, unplug, NULL, SAS, &(Way) { act, queue, CONFIG } }

static const BalloonTest tests[] = {
    /* it goes with the answer to a request ... */
    WAY("inflate", request, INFLATE, INFLATE),
    WAY("deflate", request, DEFLATE, DEFLATE),
    WAY("stats", request, STATS, STATS),
    WAY("hint", request, HINT, HINT),
    WAY("report", request, REPORT_TOO, REPORT_TOO),
    WAY("hints", hints, HINT, HINT),
    /* ... when one is looked at ... */
    ODD_BUFFER("inflate", odd_buffer, INFLATE),
    ODD_BUFFER("deflate", odd_buffer, DEFLATE),
    ODD_BUFFER("stats", odd_buffer, STATS),
    ODD_BUFFER("hint", odd_buffer, HINT),
    ODD_BUFFER("broken", broken_buffer, INFLATE),
    { "unplug/buffer/in-order", unplug, ALL_QUEUES ",in_order=on", SAS,
      &(Way) { odd_buffer, INFLATE, CONFIG } },
    { "unplug/buffer/packed", unplug, ALL_QUEUES ",packed=on", SAS,
      &(Way) { packed_buffer, INFLATE, CONFIG } },
    { "unplug/buffer/reset", reset, ALL_QUEUES ",packed=on", DISK },
    /* ... and with word of a bad ring, or of a target */
    WAY("broken/inflate", broken_ring, INFLATE, CONFIG),
    WAY("broken/deflate", broken_ring, DEFLATE, CONFIG),
    WAY("broken/stats", broken_ring, STATS, CONFIG),
    WAY("broken/hint", broken_ring, HINT, CONFIG),
    WAY("broken/report", broken_ring, REPORT_TOO, CONFIG),
    WAY("bad-ring", bad_ring, INFLATE, CONFIG),
    WAY("config", config, 0, CONFIG),
    { "unplug/snapshot", unplug, PLAIN, NULL,
      &(Way) { snapshot, STATS, CONFIG } },
    { "unplug/poll", unplug, ALL_QUEUES ",guest-stats-polling-interval=1", NULL,
      &(Way) { poll, STATS, STATS } },
    { "unplug/last-sync", unplug, ALL_QUEUES ",must-tell-host=on", NULL,
      &(Way) { last_sync, 0, CONFIG } },
};

BALLOON_BARE_TESTS("improved/", ALL_QUEUES, tests)
