/*
 * Fuzzing the virtio balloon: a driver
 *
 * It has split and packed rings, and both sets of registers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "exec/memory.h"
#include "hw/boards.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"
#include "virtio_balloon_fuzz.h"

#define COMMON_WRITE(f, field, value) \
    fuzz_common_write(f, offsetof(struct virtio_pci_common_cfg, field), \
                      sizeof_field(struct virtio_pci_common_cfg, field), value)
#define COMMON_READ(f, field) \
    fuzz_common_read(f, offsetof(struct virtio_pci_common_cfg, field), \
                     sizeof_field(struct virtio_pci_common_cfg, field))

/* Rings of different queues do not share pages */
#define RING_ROOM 0x4000
#define RING_PART 0x1000

static void bar_write(FuzzBalloon *f, QPCIBar bar, uint64_t offset,
                      unsigned size, uint32_t value)
{
    QPCIDevice *pci = f->pci->pdev;

    switch (size) {
    case 1:
        qpci_io_writeb(pci, bar, offset, value);
        break;
    case 2:
        qpci_io_writew(pci, bar, offset, value);
        break;
    default:
        qpci_io_writel(pci, bar, offset, value);
        break;
    }
}

static uint32_t bar_read(FuzzBalloon *f, QPCIBar bar, uint64_t offset,
                         unsigned size)
{
    QPCIDevice *pci = f->pci->pdev;

    switch (size) {
    case 1:
        return qpci_io_readb(pci, bar, offset);
    case 2:
        return qpci_io_readw(pci, bar, offset);
    default:
        return qpci_io_readl(pci, bar, offset);
    }
}

uint32_t fuzz_common_read(FuzzBalloon *f, unsigned offset, unsigned size)
{
    return bar_read(f, f->pci->bar, f->pci->common_cfg_offset + offset, size);
}

void fuzz_common_write(FuzzBalloon *f, unsigned offset, unsigned size,
                       uint32_t value)
{
    bar_write(f, f->pci->bar, f->pci->common_cfg_offset + offset, size,
              value);
}

uint32_t fuzz_config_read(FuzzBalloon *f, unsigned offset, unsigned size)
{
    return bar_read(f, f->pci->bar, f->pci->device_cfg_offset + offset, size);
}

void fuzz_config_write(FuzzBalloon *f, unsigned offset, unsigned size,
                       uint32_t value)
{
    bar_write(f, f->pci->bar, f->pci->device_cfg_offset + offset, size,
              value);
}

void fuzz_legacy_write(FuzzBalloon *f, unsigned offset, unsigned size,
                       uint32_t value)
{
    bar_write(f, f->legacy, offset, size, value);
}

void fuzz_driver_init(FuzzBalloon *f, QVirtioPCIDevice *pci, QTestState *qts)
{
    f->qts = qts;
    f->pci = pci;
    f->legacy = qpci_iomap(pci->pdev, 0, NULL);
    f->ram = memory_region_get_ram_ptr(current_machine->ram);
}

void fuzz_driver_reset(FuzzBalloon *f)
{
    COMMON_WRITE(f, device_status, 0);
    memset(f->queue, 0, sizeof(f->queue));
    memset(f->ram + FUZZ_RINGS, 0, VQ_MAX * RING_ROOM);
    f->arena = FUZZ_ARENA;
}

void fuzz_driver_usual_ring(unsigned index, uint64_t ring[3])
{
    for (unsigned i = 0; i < 3; i++) {
        ring[i] = FUZZ_RINGS + index * RING_ROOM + i * RING_PART;
    }
}

void fuzz_driver_set_up_queue(FuzzBalloon *f, unsigned index,
                              const uint64_t ring[3])
{
    f->queue[index] = (FuzzQueue) { .wrap = true, .head_wrap = true };
    COMMON_WRITE(f, queue_select, index);
    COMMON_WRITE(f, queue_size,
                 MIN(FUZZ_RING_SIZE, COMMON_READ(f, queue_size)));
    COMMON_WRITE(f, queue_desc_lo, ring[0]);
    COMMON_WRITE(f, queue_desc_hi, ring[0] >> 32);
    COMMON_WRITE(f, queue_avail_lo, ring[1]);
    COMMON_WRITE(f, queue_avail_hi, ring[1] >> 32);
    COMMON_WRITE(f, queue_used_lo, ring[2]);
    COMMON_WRITE(f, queue_used_hi, ring[2] >> 32);
    COMMON_WRITE(f, queue_enable, 1);
}

/* Returns: what the device offers of @features */
static uint64_t negotiate(FuzzBalloon *f, uint64_t features)
{
    for (unsigned half = 0; half < 2; half++) {
        uint32_t offered;

        COMMON_WRITE(f, device_feature_select, half);
        offered = COMMON_READ(f, device_feature);
        features &= (uint64_t)offered << 32 * half |
                    0xffffffffull << 32 * !half;
        COMMON_WRITE(f, guest_feature_select, half);
        COMMON_WRITE(f, guest_feature, features >> 32 * half);
    }
    return features;
}

void fuzz_driver_start(FuzzBalloon *f, uint64_t features)
{
    const uint8_t known = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

    COMMON_WRITE(f, device_status, known);
    f->features = negotiate(f, features);
    COMMON_WRITE(f, device_status, known | VIRTIO_CONFIG_S_FEATURES_OK);
    for (unsigned i = 0; i < VQ_MAX; i++) {
        uint64_t ring[3];

        fuzz_driver_usual_ring(i, ring);
        fuzz_driver_set_up_queue(f, i, ring);
    }
    COMMON_WRITE(f, device_status, known | VIRTIO_CONFIG_S_FEATURES_OK |
                                   VIRTIO_CONFIG_S_DRIVER_OK);
}

uint64_t fuzz_put(FuzzBalloon *f, const void *data, size_t size)
{
    uint64_t addr;

    if (f->arena + size > FUZZ_ARENA_END) {
        /* Requests that were not served yet change */
        f->arena = FUZZ_ARENA;
        f->sane = false;
    }
    addr = f->arena;
    memcpy(f->ram + addr, data, size);
    f->arena += ROUND_UP(size, 16);
    return addr;
}

static bool is_packed(FuzzBalloon *f)
{
    return f->features & 1ull << VIRTIO_F_RING_PACKED;
}

static void *ring_part(FuzzBalloon *f, unsigned queue, unsigned part)
{
    return f->ram + FUZZ_RINGS + queue * RING_ROOM + part * RING_PART;
}

static struct vring_desc split_desc(const FuzzSeg *seg, bool more, int next)
{
    return (struct vring_desc) {
        .addr = cpu_to_le64(seg->addr),
        .len = cpu_to_le32(seg->len),
        .flags = cpu_to_le16((seg->write ? VRING_DESC_F_WRITE : 0) |
                             (more ? VRING_DESC_F_NEXT : 0)),
        .next = cpu_to_le16(next),
    };
}

static struct vring_packed_desc packed_desc(const FuzzSeg *seg, int flags)
{
    return (struct vring_packed_desc) {
        .addr = cpu_to_le64(seg->addr),
        .len = cpu_to_le32(seg->len),
        .flags = cpu_to_le16(flags | (seg->write ? VRING_DESC_F_WRITE : 0)),
    };
}

/* An indirect table with @segs; the segment that it is itself */
static FuzzSeg make_table(FuzzBalloon *f, const FuzzSeg *segs, unsigned n)
{
    union {
        struct vring_desc split[FUZZ_SEGS];
        struct vring_packed_desc packed[FUZZ_SEGS];
    } table = {};

    for (unsigned i = 0; i < n; i++) {
        if (is_packed(f)) {
            table.packed[i] = packed_desc(&segs[i], 0);
        } else {
            table.split[i] = split_desc(&segs[i], i + 1 < n, i + 1);
        }
    }
    return (FuzzSeg) {
        .addr = fuzz_put(f, &table, n * sizeof(table.split[0])),
        .len = n * sizeof(table.split[0]),
    };
}

static void add_split(FuzzBalloon *f, unsigned queue, const FuzzSeg *segs,
                      unsigned n, int flags)
{
    FuzzQueue *q = &f->queue[queue];
    struct vring_desc *descs = ring_part(f, queue, 0);
    struct vring_avail *avail = ring_part(f, queue, 1);
    uint16_t head = q->next;

    for (unsigned i = 0; i < n; i++) {
        uint16_t at = q->next;

        q->next = (q->next + 1) % FUZZ_RING_SIZE;
        descs[at] = split_desc(&segs[i], i + 1 < n, q->next);
        descs[at].flags |= cpu_to_le16(flags);
    }
    avail->ring[q->avail++ % FUZZ_RING_SIZE] = cpu_to_le16(head);
    avail->idx = cpu_to_le16(q->avail);
}

static void add_packed(FuzzBalloon *f, unsigned queue, const FuzzSeg *segs,
                       unsigned n, int flags)
{
    FuzzQueue *q = &f->queue[queue];
    struct vring_packed_desc *ring = ring_part(f, queue, 0);

    q->head = q->next;
    q->head_wrap = q->wrap;
    q->avail++;
    for (unsigned i = 0; i < n; i++) {
        int bit = q->wrap ? VRING_PACKED_DESC_F_AVAIL :
                            VRING_PACKED_DESC_F_USED;

        ring[q->next] = packed_desc(&segs[i], flags | 1 << bit |
                                    (i + 1 < n ? VRING_DESC_F_NEXT : 0));
        q->next = (q->next + 1) % FUZZ_RING_SIZE;
        q->wrap ^= !q->next;
    }
}

void fuzz_add(FuzzBalloon *f, unsigned queue, const FuzzSeg *segs, unsigned n,
              bool indirect)
{
    int flags = indirect ? VRING_DESC_F_INDIRECT : 0;
    FuzzSeg table;

    if (indirect) {
        table = make_table(f, segs, n);
        segs = &table;
        n = 1;
    }
    if (is_packed(f)) {
        add_packed(f, queue, segs, n, flags);
    } else {
        add_split(f, queue, segs, n, flags);
    }
}

void fuzz_kick(FuzzBalloon *f, unsigned queue)
{
    bar_write(f, f->pci->bar, f->pci->notify_cfg_offset +
              queue * f->pci->notify_off_multiplier, 2, queue);
}

bool fuzz_is_idle(FuzzBalloon *f, unsigned queue)
{
    FuzzQueue *q = &f->queue[queue];

    if (!q->avail) {
        return true;
    }
    if (is_packed(f)) {
        struct vring_packed_desc *ring = ring_part(f, queue, 0);
        int flags = le16_to_cpu(ring[q->head].flags);

        return !!(flags & 1 << VRING_PACKED_DESC_F_USED) == q->head_wrap &&
               !!(flags & 1 << VRING_PACKED_DESC_F_AVAIL) == q->head_wrap;
    }
    return le16_to_cpu(((struct vring_used *)ring_part(f, queue, 2))->idx) ==
           q->avail;
}
