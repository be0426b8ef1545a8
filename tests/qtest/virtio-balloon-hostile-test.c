/*
 * The virtio balloon and a driver that means harm
 *
 * A driver may put a ring into the device's own registers, so that to look for
 * a request, or to answer one, resets the device or changes what it does.  No
 * such ring is served.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

/* Of the three parts of a ring */
typedef enum RingPart { DESC, AVAIL, USED } RingPart;

typedef struct Ring {
    int queue;
    RingPart part;
} Ring;

/* The end of the device's common registers has room for so many entries */
#define RING_SIZE 2

/* Where the length of the first used entry is the status of the device */
static uint64_t used_ring_over_status(BalloonDriver *d)
{
    uint64_t status = d->pci->bar.addr + d->pci->common_cfg_offset +
                      offsetof(struct virtio_pci_common_cfg, device_status);

    return status - offsetof(struct vring_used, ring) -
           offsetof(struct vring_used_elem, len);
}

/* The device has a ring at @queue; a part of it is elsewhere now */
static void move_ring(BalloonDriver *d, int queue, RingPart part,
                      uint64_t addr)
{
    QVirtioPCIDevice *pci = d->pci;
    uint32_t common = pci->common_cfg_offset;
    QVirtQueue *vq = d->vq[queue];

    uint64_t *parts[] = { &vq->desc, &vq->avail, &vq->used };

    *parts[part] = addr;
    vq->size = RING_SIZE;
    d->vdev->bus->queue_select(d->vdev, queue);
    qpci_io_writew(pci->pdev, pci->bar, common +
                   offsetof(struct virtio_pci_common_cfg, queue_size),
                   vq->size);
    d->vdev->bus->set_queue_address(d->vdev, vq);
    qpci_io_writew(pci->pdev, pci->bar, common +
                   offsetof(struct virtio_pci_common_cfg, queue_enable), 1);
}

/* Go to DRIVER_OK, which may be the last that the device is asked for */
static void set_driver_ok(BalloonDriver *d)
{
    d->vdev->bus->set_status(d->vdev, balloon_status(d) |
                                      VIRTIO_CONFIG_S_DRIVER_OK);
}

/* The device was not reset; it says that it needs that, and is well then */
static void assert_refused(BalloonDriver *d)
{
    balloon_wait_broken(d);
    balloon_assert_state(d->qts, "broken", NULL);
    balloon_assert_next_driver(d);
}

static void in_registers(BalloonDriver *d)
{
    const Ring *ring = d->data;
    uint64_t desc;

    balloon_reset(d);
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    desc = d->vq[ring->queue]->desc;
    move_ring(d, ring->queue, ring->part, used_ring_over_status(d));
    set_driver_ok(d);
    balloon_kick(d, ring->queue);
    /* Of which it is freed */
    d->vq[ring->queue]->desc = desc;
    assert_refused(d);
}

/* A ring in memory that leaves the guest, with a buffer that is held */
static void memory_leaves(BalloonDriver *d)
{
    const uint64_t used = BALLOON_DIMM;
    const uint16_t one = 1;

    balloon_reset(d);
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    move_ring(d, STATS, USED, used);
    set_driver_ok(d);
    for (int i = 0; i < 2; i++) {
        BalloonSeg seg = balloon_stats_seg(d, 1000 + i);

        balloon_publish(d, STATS, balloon_add(d, STATS, &seg, 1));
        balloon_kick(d, STATS);
        balloon_wait_for(balloon_free_memory(d->qts) == 1000 + i);
    }
    g_assert_cmphex(qtest_readw(d->qts, used + offsetof(struct vring_used,
                                                        idx)), ==, one);
    balloon_unplug_dimm(d->qts);
    balloon_kick(d, STATS);
    assert_refused(d);
}

#define IN_REGISTERS(name, queue, part)                                 \
    { "ring/registers/" name, in_registers, .data = &(Ring) { queue, part } }

static const BalloonTest tests[] = {
    IN_REGISTERS("inflate/desc", INFLATE, DESC),
    IN_REGISTERS("inflate/avail", INFLATE, AVAIL),
    IN_REGISTERS("inflate", INFLATE, USED),
    IN_REGISTERS("deflate", DEFLATE, USED),
    IN_REGISTERS("stats", STATS, USED),
    IN_REGISTERS("hint", HINT, USED),
    IN_REGISTERS("report", REPORT_TOO, USED),
    { "ring/memory-leaves", memory_leaves,
      .options = BALLOON_DIMM_SLOTS IOTHREAD BALLOON_DIMM_PLUGGED },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    balloon_add_tests("improved/", ALL_QUEUES, tests, ARRAY_SIZE(tests));
    balloon_add_hostile_load_tests();
    balloon_add_hostile_list_tests();
    balloon_add_hostile_unplug_tests();
    return g_test_run();
}
