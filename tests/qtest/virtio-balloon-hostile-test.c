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

/* A driver whose ring has a part elsewhere */
static void start_with_ring(BalloonDriver *d, int queue, RingPart part,
                            uint64_t addr)
{
    QVirtQueue *vq;
    uint64_t desc;

    balloon_reset(d);
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    vq = d->vq[queue];
    desc = vq->desc;
    *(part == DESC ? &vq->desc : part == AVAIL ? &vq->avail : &vq->used) = addr;
    vq->size = RING_SIZE;
    balloon_place_ring(d, queue);
    /* Of which it is freed */
    vq->desc = desc;
    /* This may be the last that the device is asked for */
    d->vdev->bus->set_status(d->vdev, balloon_status(d) |
                                      VIRTIO_CONFIG_S_DRIVER_OK);
}

/* The device was not reset; it says that it needs that, and is well then */
static void assert_refused(BalloonDriver *d, int queue)
{
    balloon_kick(d, queue);
    balloon_wait_broken(d);
    balloon_assert_state(d->qts, "broken", NULL);
    balloon_assert_next_driver(d);
}

static void in_registers(BalloonDriver *d)
{
    const Ring *ring = d->data;

    start_with_ring(d, ring->queue, ring->part, used_ring_over_status(d));
    assert_refused(d, ring->queue);
}

/* A ring in memory that leaves the guest, with a buffer that is held */
static void memory_leaves(BalloonDriver *d)
{
    start_with_ring(d, STATS, USED, BALLOON_DIMM);
    balloon_leave_stats(d, 1000);
    balloon_leave_stats(d, 1001);
    g_assert_cmphex(qtest_readw(d->qts, BALLOON_DIMM +
                                offsetof(struct vring_used, idx)), ==, 1);
    balloon_unplug_dimm(d->qts);
    assert_refused(d, STATS);
}

/*
 * With an IOMMU that translates, by tables that the test keeps below AREA: the
 * first GiB is what it is, and the second has the registers, but not those that
 * interrupts are written to, which no page may have
 */
#define IOMMU 0xfed90000
#define IOMMU_COMMAND (IOMMU + 0x18)
#define IOMMU_STATUS (IOMMU + 0x1c)
#define IOMMU_ROOT (IOMMU + 0x20)
#define TABLES (AREA - 4 * BALLOON_PAGE)
#define SET_ROOT (1u << 30)
#define ENABLE (1u << 31)
#define REGISTERS (3 * GiB)

static void translate(BalloonDriver *d)
{
    const uint64_t root = TABLES, context = root + BALLOON_PAGE;
    const uint64_t giants = context + BALLOON_PAGE;
    const uint64_t pages = giants + BALLOON_PAGE;
    const uint64_t read_write = 3, page = 1 << 7 | read_write;

    qtest_memset(d->qts, TABLES, 0, 4 * BALLOON_PAGE);
    qtest_writeq(d->qts, root, context | 1);
    /* 39 bits, three levels */
    qtest_writeq(d->qts, context + 16 * d->pci->pdev->devfn, giants | 1);
    qtest_writeq(d->qts, context + 16 * d->pci->pdev->devfn + 8, 1 << 8 | 1);
    qtest_writeq(d->qts, giants, page);
    qtest_writeq(d->qts, giants + 8, pages | read_write);
    for (uint64_t i = 0; i < GiB / HUGE / 2 + 1; i++) {
        qtest_writeq(d->qts, pages + 8 * i, (REGISTERS + i * HUGE) | page);
    }
    qtest_writeq(d->qts, IOMMU_ROOT, root);
    qtest_writel(d->qts, IOMMU_COMMAND, SET_ROOT);
    qtest_writel(d->qts, IOMMU_COMMAND, ENABLE);
    g_assert_cmphex(qtest_readl(d->qts, IOMMU_STATUS) & ENABLE, ==, ENABLE);
}

static void iommu(BalloonDriver *d)
{
    translate(d);
    balloon_restart(d);
    g_assert_true(d->vdev->features & 1ull << VIRTIO_F_ACCESS_PLATFORM);
    balloon_assert_works(d);
}

static void registers_behind_iommu(BalloonDriver *d)
{
    translate(d);
    start_with_ring(d, INFLATE, USED,
                    used_ring_over_status(d) - REGISTERS + GiB);
    assert_refused(d, INFLATE);
}

#define TRANSLATED PLAIN ",iommu_platform=on,disable-legacy=on"
#define WITH_IOMMU MEMORY "-machine q35 -device intel-iommu"

#define IN_REGISTERS(name, queue, part)                                 \
    { "improved/ring/registers/" name, in_registers,                    \
      .data = &(Ring) { queue, part } }

static const BalloonTest tests[] = {
    IN_REGISTERS("inflate/desc", INFLATE, DESC),
    IN_REGISTERS("inflate/avail", INFLATE, AVAIL),
    IN_REGISTERS("inflate", INFLATE, USED),
    IN_REGISTERS("deflate", DEFLATE, USED),
    IN_REGISTERS("stats", STATS, USED),
    IN_REGISTERS("hint", HINT, USED),
    IN_REGISTERS("report", REPORT_TOO, USED),
    { "improved/ring/registers/iommu", registers_behind_iommu, TRANSLATED,
      WITH_IOMMU },
    { "improved/ring/memory-leaves", memory_leaves,
      .options = BALLOON_DIMM_SLOTS IOTHREAD BALLOON_DIMM_PLUGGED },
    { "ring/iommu", iommu, TRANSLATED, WITH_IOMMU },
};

BALLOON_TESTS("", ALL_QUEUES, tests)
