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
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"
#include "hw/pci/pci_regs.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

#define PORT_SLOT 6
#define MACHINE "-machine q35 "                                             \
                "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "\
                "-device pcie-root-port,id=port0,addr=6 "                   \
                "-device pcie-pci-bridge,id=bridge0,bus=port0 "

/* Where a q35 has the config space of PCI in memory, and of its own PCIEXBAR */
#define ECAM 0xb0000000
#define PCIEXBAR 0x60

/* Where libqos maps the BARs, in a bridge's units */
#define WINDOW_BASE 0xe000
#define WINDOW_LIMIT 0xeff0

/* Power controller off, power indicator off */
#define POWERED_OFF (PCI_EXP_SLTCTL_PCC | PCI_EXP_SLTCTL_PWR_IND_OFF)

/* In place of a queue */
#define CONFIG -1

/* Its number is @devfn on bus @bus */
static QPCIDevice *find_pci(BalloonDriver *d, int bus, int devfn)
{
    QPCIDevice *pci = qpci_device_find(d->machine->pcibus, bus << 8 | devfn);

    g_assert_nonnull(pci);
    return pci;
}

/* Bus @bus, on which it is, goes on behind this bridge */
static void open_bridge(QPCIDevice *bridge, int bus)
{
    qpci_config_writeb(bridge, PCI_PRIMARY_BUS, bus);
    qpci_config_writeb(bridge, PCI_SECONDARY_BUS, bus + 1);
    qpci_config_writeb(bridge, PCI_SUBORDINATE_BUS, 2);
    qpci_config_writew(bridge, PCI_MEMORY_BASE, WINDOW_BASE);
    qpci_config_writew(bridge, PCI_MEMORY_LIMIT, WINDOW_LIMIT);
    qpci_config_writew(bridge, PCI_PREF_MEMORY_BASE, WINDOW_BASE);
    qpci_config_writew(bridge, PCI_PREF_MEMORY_LIMIT, WINDOW_LIMIT);
    qpci_config_writew(bridge, PCI_COMMAND,
                       PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* Returns: where the port's register of its slot is in memory */
static uint64_t open_bridges(BalloonDriver *d)
{
    g_autofree QPCIDevice *host = find_pci(d, 0, 0);
    g_autofree QPCIDevice *port = find_pci(d, 0, QPCI_DEVFN(PORT_SLOT, 0));
    g_autofree QPCIDevice *bridge = NULL;
    uint8_t cap = qpci_find_capability(port, PCI_CAP_ID_EXP, 0);

    qpci_config_writel(host, PCIEXBAR, ECAM | 1);
    open_bridge(port, 0);
    bridge = find_pci(d, 1, 0);
    open_bridge(bridge, 1);
    return ECAM + (port->devfn << 12) + cap + PCI_EXP_SLTCTL;
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
    const char *device = d->device;
    QOSState *machine = qtest_pc_boot(MACHINE MEMORY "-device %s,bus=bridge0,"
                                      "id=balloon0,addr=%d", device,
                                      BALLOON_SLOT);
    uint64_t slot;

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
    slot = open_bridges(d);
    balloon_find_at(d, 2 << 8 | QPCI_DEVFN(BALLOON_SLOT, 0));
    qpci_msix_enable(d->pci->pdev);
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    aim_interrupt(d, queue, slot);
    qvirtio_set_driver_ok(d->vdev);
    qtest_memset(d->qts, AREA, OLD, HUGE);
}

static bool is_gone(BalloonDriver *d)
{
    g_autoptr(QDict) answer = qtest_qmp(d->qts, "{'execute': 'query-balloon'}");

    return qdict_haskey(answer, "error");
}

/* The balloon goes, and QEMU is well */
static void end(BalloonDriver *d)
{
    balloon_wait_for(is_gone(d));
    balloon_quit(d);
}

/* More is left than is answered by then */
static void request(BalloonDriver *d)
{
    int queue = GPOINTER_TO_INT(d->data);

    begin(d, queue);
    for (int i = 0; i < 3; i++) {
        balloon_publish(d, queue, balloon_add(d, queue, &(BalloonSeg) {
            AREA, BALLOON_PAGE, queue > STATS
        }, 1));
    }
    balloon_kick(d, queue);
    end(d);
}

/* The ring names a descriptor that there is not, of which the driver is told */
static void broken_ring(BalloonDriver *d)
{
    int queue = GPOINTER_TO_INT(d->data);
    BalloonSeg seg = { AREA, BALLOON_PAGE, queue > STATS };

    begin(d, CONFIG);
    balloon_publish(d, queue, balloon_add(d, queue, &seg, 1));
    balloon_publish(d, queue, UINT16_MAX);
    balloon_kick(d, queue);
    end(d);
}

/* ... and so does one that is not in RAM */
static void bad_ring(BalloonDriver *d)
{
    begin(d, CONFIG);
    d->vq[INFLATE]->used = ECAM;
    balloon_place_ring(d, INFLATE);
    balloon_kick(d, INFLATE);
    end(d);
}

/*
 * A snapshot brings back a buffer that was held, where the ring has become bad
 * meanwhile
 */
static void snapshot(BalloonDriver *d)
{
    begin(d, CONFIG);
    balloon_add_disk(d->qts);
    balloon_leave_stats(d, 4711);
    qtest_writew(d->qts, d->vq[STATS]->avail +
                 offsetof(struct vring_avail, ring), UINT16_MAX);
    balloon_snapshot(d->qts, "snapshot-save", "held");
    balloon_snapshot(d->qts, "snapshot-load", "held");
    balloon_cont(d);
    end(d);
}

static void config(BalloonDriver *d)
{
    begin(d, CONFIG);
    balloon_set_target(d->qts, RAM - HUGE);
    end(d);
}

/* Statistics that are asked for by a timer */
static void poll(BalloonDriver *d)
{
    begin(d, STATS);
    balloon_leave_stats(d, 4711);
    qtest_clock_step(d->qts, 2 * SECOND);
    end(d);
}

/* It goes while migration tells all who listen that nothing more will come */
static void last_sync(BalloonDriver *d)
{
    begin(d, CONFIG);
    balloon_stop(d);
    balloon_migrate(d->qts);
    end(d);
}

/* The first answer to hints, when some are with the worker or are to be */
static void hints(BalloonDriver *d)
{
    BalloonSeg hint = { AREA, BALLOON_PAGE, true };
    uint32_t id;

    begin(d, HINT);
    balloon_migrate_slowly(d->qts);
    id = balloon_wait_asked(d);
    balloon_publish(d, HINT, balloon_add(d, HINT, &(BalloonSeg) {
        balloon_copy(d, &id, sizeof(id)), sizeof(id)
    }, 1));
    balloon_publish(d, HINT, balloon_add(d, HINT, &hint, 1));
    balloon_kick(d, HINT);
    balloon_migrate_finish(d->qts);
    end(d);
}

static const BalloonTest tests[] = {
    { "unplug/inflate", request, .data = GINT_TO_POINTER(INFLATE) },
    { "unplug/deflate", request, .data = GINT_TO_POINTER(DEFLATE) },
    { "unplug/stats", request, .data = GINT_TO_POINTER(STATS) },
    { "unplug/hint", request, .data = GINT_TO_POINTER(HINT) },
    { "unplug/report", request, .data = GINT_TO_POINTER(REPORT_TOO) },
    { "unplug/hints", hints },
    { "unplug/broken/inflate", broken_ring,
      .data = GINT_TO_POINTER(INFLATE) },
    { "unplug/broken/deflate", broken_ring,
      .data = GINT_TO_POINTER(DEFLATE) },
    { "unplug/broken/stats", broken_ring, .data = GINT_TO_POINTER(STATS) },
    { "unplug/broken/hint", broken_ring, .data = GINT_TO_POINTER(HINT) },
    { "unplug/broken/report", broken_ring,
      .data = GINT_TO_POINTER(REPORT_TOO) },
    { "unplug/bad-ring", bad_ring },
    { "unplug/snapshot", snapshot, PLAIN },
    { "unplug/config", config },
    { "unplug/poll", poll, ALL_QUEUES ",guest-stats-polling-interval=1" },
    { "unplug/last-sync", last_sync, ALL_QUEUES ",must-tell-host=on" },
};

BALLOON_BARE_TESTS("improved/", ALL_QUEUES, tests)
