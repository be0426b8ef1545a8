/*
 * A driver for the virtio balloon, for tests: requests on its queues
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-monitor.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

/* Legacy requests are in the guest's byte order (virtio 1.2, section 2.6.3) */
static bool wire_is_big_endian(BalloonDriver *d)
{
    return !(d->vdev->features & 1ull << VIRTIO_F_VERSION_1) &&
           qtest_big_endian(d->qts);
}

uint16_t balloon_wire16(BalloonDriver *d, uint16_t value)
{
    return wire_is_big_endian(d) ? cpu_to_be16(value) : cpu_to_le16(value);
}

uint32_t balloon_wire32(BalloonDriver *d, uint32_t value)
{
    return wire_is_big_endian(d) ? cpu_to_be32(value) : cpu_to_le32(value);
}

uint64_t balloon_wire64(BalloonDriver *d, uint64_t value)
{
    return wire_is_big_endian(d) ? cpu_to_be64(value) : cpu_to_le64(value);
}

uint32_t balloon_add(BalloonDriver *d, int queue, const BalloonSeg *segs,
                     unsigned n)
{
    QVirtQueue *vq = d->vq[queue];
    uint32_t head = vq->free_head;

    g_assert_cmpuint(n, >, 0);
    g_assert_cmpuint(head + n, <=, vq->size);
    for (unsigned i = 0; i < n; i++) {
        qvirtqueue_add(d->qts, vq, segs[i].addr, segs[i].len, segs[i].write,
                       i + 1 < n);
    }
    return head;
}

/* Ring fields are in the byte order of requests; qtest speaks the guest's */
static uint16_t ring_read16(BalloonDriver *d, uint64_t addr)
{
    uint16_t value;

    qtest_memread(d->qts, addr, &value, sizeof(value));
    return balloon_wire16(d, value);
}

void balloon_write16(BalloonDriver *d, uint64_t addr, uint16_t value)
{
    value = balloon_wire16(d, value);
    qtest_memwrite(d->qts, addr, &value, sizeof(value));
}

void balloon_publish(BalloonDriver *d, int queue, uint32_t head)
{
    QVirtQueue *vq = d->vq[queue];
    uint64_t idx_addr = vq->avail + offsetof(struct vring_avail, idx);
    uint16_t idx = ring_read16(d, idx_addr);

    balloon_write16(d, vq->avail + offsetof(struct vring_avail, ring) +
                       2 * (idx % vq->size), head);
    balloon_write16(d, idx_addr, idx + 1);
}

void balloon_kick(BalloonDriver *d, int queue)
{
    d->vdev->bus->virtqueue_kick(d->vdev, d->vq[queue]);
}

bool balloon_has_used(BalloonDriver *d, int queue)
{
    QVirtQueue *vq = d->vq[queue];

    return ring_read16(d, vq->used + offsetof(struct vring_used, idx)) !=
           vq->last_used_idx;
}

void balloon_wait_used(BalloonDriver *d, int queue, uint32_t head)
{
    uint32_t used, len;

    balloon_wait_for(balloon_has_used(d, queue));
    g_assert_true(qvirtqueue_get_buf(d->qts, d->vq[queue], &used, &len));
    g_assert_cmpuint(used, ==, head);
    g_assert_cmpuint(len, ==, 0);
}

void balloon_wait_served(BalloonDriver *d, int queue, uint32_t head)
{
    balloon_wait_used(d, queue, head);
    qvirtio_wait_queue_isr(d->qts, d->vdev, d->vq[queue], BALLOON_TIMEOUT_US);
}

void balloon_free_descriptors(BalloonDriver *d, int queue)
{
    QVirtQueue *vq = d->vq[queue];

    vq->num_free = vq->size;
    vq->free_head = 0;
}

uint32_t balloon_post(BalloonDriver *d, int queue, const BalloonSeg *segs,
                      unsigned n)
{
    uint32_t head;

    /* An interrupt that was not waited for shall not count for this one */
    d->vdev->bus->get_queue_isr_status(d->vdev, d->vq[queue]);
    balloon_free_descriptors(d, queue);
    head = balloon_add(d, queue, segs, n);
    balloon_publish(d, queue, head);
    balloon_kick(d, queue);
    return head;
}

void balloon_post_same(BalloonDriver *d, int queue, BalloonSeg seg,
                       unsigned n)
{
    g_autofree BalloonSeg *segs = g_new(BalloonSeg, n);

    for (unsigned i = 0; i < n; i++) {
        segs[i] = seg;
    }
    balloon_post(d, queue, segs, n);
}

void balloon_send(BalloonDriver *d, int queue, const BalloonSeg *segs,
                  unsigned n)
{
    balloon_wait_served(d, queue, balloon_post(d, queue, segs, n));
}

void balloon_send_one(BalloonDriver *d, int queue, uint64_t addr, uint32_t len,
                      bool write)
{
    balloon_send(d, queue, &(BalloonSeg) { addr, len, write }, 1);
}

uint64_t balloon_copy_spread_pfns(BalloonDriver *d, uint64_t addr, unsigned n)
{
    g_autofree uint32_t *wire = g_new0(uint32_t, 2 * n);

    for (unsigned i = 0; i < n; i++) {
        wire[2 * i] = balloon_wire32(d, BALLOON_PFN(addr) + i);
    }
    return balloon_copy(d, wire, 2 * n * sizeof(*wire));
}

uint64_t balloon_copy_pfns(BalloonDriver *d, const uint32_t *pfns, unsigned n)
{
    g_autofree uint32_t *wire = g_new(uint32_t, n);

    for (unsigned i = 0; i < n; i++) {
        wire[i] = balloon_wire32(d, pfns[i]);
    }
    return balloon_copy(d, wire, n * sizeof(*wire));
}

void balloon_send_pfns(BalloonDriver *d, int queue, const uint32_t *pfns,
                       unsigned n)
{
    uint64_t list = balloon_copy_pfns(d, pfns, n);

    balloon_send_one(d, queue, list, n * sizeof(*pfns), false);
    guest_free(d->alloc, list);
}

/* Guest memory with the numbers of the pages of one range */
static uint64_t copy_range(BalloonDriver *d, uint64_t addr, unsigned pages)
{
    g_autofree uint32_t *pfns = g_new(uint32_t, pages);

    for (unsigned i = 0; i < pages; i++) {
        pfns[i] = BALLOON_PFN(addr) + i;
    }
    return balloon_copy_pfns(d, pfns, pages);
}

uint32_t balloon_post_range(BalloonDriver *d, int queue, uint64_t addr,
                            unsigned pages)
{
    return balloon_post(d, queue, &(BalloonSeg) {
        copy_range(d, addr, pages), pages * sizeof(uint32_t)
    }, 1);
}

void balloon_send_range(BalloonDriver *d, int queue, uint64_t addr,
                        unsigned pages)
{
    uint64_t list = copy_range(d, addr, pages);

    balloon_send_one(d, queue, list, pages * sizeof(uint32_t), false);
    guest_free(d->alloc, list);
}

void balloon_inflate(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    balloon_send_range(d, INFLATE, addr, size / BALLOON_PAGE);
}

void balloon_deflate(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    balloon_send_range(d, DEFLATE, addr, size / BALLOON_PAGE);
}

uint32_t balloon_post_huge(BalloonDriver *d, uint64_t addr, unsigned n)
{
    uint32_t pfns[BALLOON_HUGE_PFNS];
    BalloonSeg segs[BALLOON_HUGE_MAX];

    for (unsigned i = 0; i < BALLOON_HUGE_PFNS; i++) {
        pfns[i] = BALLOON_PFN(addr) + i * 2 % BALLOON_HUGE_PAGES;
    }
    segs[0] = (BalloonSeg) { balloon_copy_pfns(d, pfns, BALLOON_HUGE_PFNS),
                             sizeof(pfns) };
    for (unsigned i = 1; i < n; i++) {
        segs[i] = segs[0];
    }
    return balloon_post(d, INFLATE, segs, n);
}

BalloonSeg balloon_copy_stats(BalloonDriver *d, const BalloonStat *stats,
                              unsigned n)
{
    g_autofree struct virtio_balloon_stat *wire =
        g_new(struct virtio_balloon_stat, n);

    for (unsigned i = 0; i < n; i++) {
        wire[i].tag = balloon_wire16(d, stats[i].tag);
        wire[i].val = balloon_wire64(d, stats[i].value);
    }
    return (BalloonSeg) { balloon_copy(d, wire, n * sizeof(*wire)),
                          n * sizeof(*wire) };
}

BalloonSeg balloon_stats_seg(BalloonDriver *d, uint64_t value)
{
    BalloonStat stat = { VIRTIO_BALLOON_S_MEMFREE, value };

    return balloon_copy_stats(d, &stat, 1);
}

uint32_t balloon_post_stats_value(BalloonDriver *d, uint64_t value)
{
    BalloonSeg seg = balloon_stats_seg(d, value);

    return balloon_post(d, STATS, &seg, 1);
}

uint32_t balloon_leave_stats(BalloonDriver *d, uint64_t value)
{
    uint32_t head = balloon_post_stats_value(d, value);

    balloon_wait_for(balloon_stat(d->qts, "free-memory") == value);
    return head;
}

void balloon_begin_polling(BalloonDriver *d, int64_t seconds, uint32_t held)
{
    balloon_set_interval(d->qts, seconds);
    balloon_wait_served(d, STATS, held);
}

uint32_t balloon_cmd_id(BalloonDriver *d)
{
    return balloon_readl(d, BALLOON_CFG_CMD_ID);
}

uint32_t balloon_wait_asked(BalloonDriver *d)
{
    uint32_t id;

    balloon_wait_for((id = balloon_cmd_id(d)) > VIRTIO_BALLOON_CMD_ID_DONE);
    return id;
}

void balloon_wait_done(BalloonDriver *d)
{
    balloon_wait_for(balloon_cmd_id(d) == VIRTIO_BALLOON_CMD_ID_DONE);
}

uint32_t balloon_post_id(BalloonDriver *d, uint32_t id, uint32_t size)
{
    uint32_t wire = balloon_wire32(d, id);
    uint64_t addr = balloon_copy(d, &wire, sizeof(wire));

    return balloon_post(d, HINT, &(BalloonSeg) { addr, size }, 1);
}

void balloon_send_id(BalloonDriver *d, uint32_t id)
{
    balloon_wait_served(d, HINT, balloon_post_id(d, id, sizeof(id)));
}

void balloon_hint(BalloonDriver *d, uint64_t addr, uint32_t size)
{
    balloon_send_one(d, HINT, addr, size, true);
}
