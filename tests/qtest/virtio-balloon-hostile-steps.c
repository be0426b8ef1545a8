/*
 * Steps of virtio-balloon-hostile-test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-hostile.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"

/* Ids of commands that ask for something are not below this */
#define CMD_ID_MIN 2

/*
 * Upper half of memory, which migration has to send.  However low its limit is,
 * it sends a buffer every 100 ms: zeroes alone would be through in a second.
 */
#define BUSY_MEMORY (64 * MiB)

void balloon_assert_next_driver(BalloonDriver *d)
{
    uint64_t mem;

    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    mem = balloon_dirty_pages(d, 3);
    balloon_send_range(d, BALLOON_VQ_INFLATE, mem + BALLOON_PAGE, 1);
    balloon_assert_pages(d, mem, "x0x");
    g_assert_cmphex(balloon_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
    guest_free(d->alloc, mem);
}

void balloon_move_queue(BalloonDriver *d, int queue)
{
    QVirtioPCIDevice *pci = d->pci;

    d->vdev->bus->queue_select(d->vdev, queue);
    qpci_io_writew(pci->pdev, pci->bar, pci->common_cfg_offset +
                   offsetof(struct virtio_pci_common_cfg, queue_size),
                   d->vq[queue]->size);
    d->vdev->bus->set_queue_address(d->vdev, d->vq[queue]);
    qpci_io_writew(pci->pdev, pci->bar, pci->common_cfg_offset +
                   offsetof(struct virtio_pci_common_cfg, queue_enable), 1);
}

uint32_t balloon_post_free_memory(BalloonDriver *d, uint64_t bytes, unsigned n)
{
    g_autofree BalloonSeg *segs = g_new(BalloonSeg, n);
    uint8_t entry[10];
    uint16_t tag = balloon_wire16(d, VIRTIO_BALLOON_S_MEMFREE);
    uint64_t value = balloon_wire64(d, bytes);
    uint64_t addr;

    memcpy(entry, &tag, sizeof(tag));
    memcpy(entry + sizeof(tag), &value, sizeof(value));
    addr = balloon_copy(d, entry, sizeof(entry));
    for (unsigned i = 0; i < n; i++) {
        segs[i] = (BalloonSeg) { addr, sizeof(entry) };
    }
    return balloon_post(d, BALLOON_VQ_STATS, segs, n);
}

void balloon_begin_migration(QTestState *qts, const char *uri)
{
    qtest_memset(qts, BUSY_MEMORY, 0x5a, BUSY_MEMORY);
    balloon_set_bandwidth(qts, 4 * KiB);
    balloon_migrate_to(qts, uri);
}

void balloon_wait_migration(QTestState *qts, const char *status)
{
    balloon_wait_for(balloon_migration_is(qts, status));
}

uint32_t balloon_wait_asked(BalloonDriver *d)
{
    balloon_wait_for(balloon_readl(d, BALLOON_CFG_CMD_ID) >= CMD_ID_MIN);
    return balloon_readl(d, BALLOON_CFG_CMD_ID);
}
