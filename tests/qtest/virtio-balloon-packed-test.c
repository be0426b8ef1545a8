/*
 * The virtio balloon on a packed ring (virtio 1.2, section 2.8)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-test.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

#define AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)
#define USED (1 << VRING_PACKED_DESC_F_USED)
#define REPORT BALLOON_VQ_FIRST_OPTIONAL

/* The driver's place in the ring of a queue */
typedef struct Place {
    unsigned index;
    bool wrap;
} Place;

typedef struct Packed {
    BalloonDriver d;
    Place places[BALLOON_VQ_MAX];
} Packed;

static uint64_t descriptor(Packed *p, int queue, unsigned index)
{
    return p->d.vq[queue]->desc + index * sizeof(struct vring_packed_desc);
}

static void clear_ring(Packed *p, int queue)
{
    QVirtQueue *vq = p->d.vq[queue];

    qtest_memset(p->d.qts, vq->desc, 0,
                 vq->size * sizeof(struct vring_packed_desc));
    qtest_memset(p->d.qts, vq->avail, 0,
                 sizeof(struct vring_packed_desc_event));
    qtest_memset(p->d.qts, vq->used, 0,
                 sizeof(struct vring_packed_desc_event));
    p->places[queue] = (Place) { 0, true };
}

static void start(Packed *p)
{
    balloon_boot(&p->d, "virtio-balloon-pci,packed=on,free-page-reporting=on",
                 "-m 128");
    g_assert_true(balloon_negotiate(&p->d, BALLOON_ALL_FEATURES) &
                  1ull << VIRTIO_F_RING_PACKED);
    balloon_setup_queues(&p->d);
    for (int i = 0; i < BALLOON_VQ_MAX && p->d.vq[i]; i++) {
        clear_ring(p, i);
    }
    qvirtio_set_driver_ok(p->d.vdev);
}

/* Write one descriptor at @at, which moves on */
static void put(Packed *p, int queue, Place *at, const BalloonSeg *seg,
                uint16_t id, bool next)
{
    struct vring_packed_desc desc = {
        .addr = cpu_to_le64(seg->addr),
        .len = cpu_to_le32(seg->len),
        .id = cpu_to_le16(id),
        .flags = cpu_to_le16((at->wrap ? AVAIL : USED) |
                             (next ? VRING_DESC_F_NEXT : 0) |
                             (seg->write ? VRING_DESC_F_WRITE : 0)),
    };

    qtest_memwrite(p->d.qts, descriptor(p, queue, at->index), &desc,
                   sizeof(desc));
    if (++at->index == p->d.vq[queue]->size) {
        at->index = 0;
        at->wrap = !at->wrap;
    }
}

static void post(Packed *p, int queue, const BalloonSeg *segs, unsigned n,
                 uint16_t id)
{
    Place at = p->places[queue];

    for (unsigned i = 0; i < n; i++) {
        put(p, queue, &at, &segs[i], id, i + 1 < n);
    }
    balloon_kick(&p->d, queue);
}

/* The device has used what is at the driver's place */
static bool is_used(Packed *p, int queue, struct vring_packed_desc *desc)
{
    Place *at = &p->places[queue];
    uint16_t want = at->wrap ? AVAIL | USED : 0;

    qtest_memread(p->d.qts, descriptor(p, queue, at->index), desc,
                  sizeof(*desc));
    return (le16_to_cpu(desc->flags) & (AVAIL | USED)) == want;
}

static void wait_served(Packed *p, int queue, unsigned n, uint16_t id)
{
    Place *at = &p->places[queue];
    struct vring_packed_desc desc;

    balloon_wait_for(is_used(p, queue, &desc));
    g_assert_cmpuint(le16_to_cpu(desc.id), ==, id);
    g_assert_cmpuint(le32_to_cpu(desc.len), ==, 0);
    qvirtio_wait_queue_isr(p->d.qts, p->d.vdev, p->d.vq[queue],
                           BALLOON_TIMEOUT_US);
    at->index += n;
    if (at->index >= p->d.vq[queue]->size) {
        at->index -= p->d.vq[queue]->size;
        at->wrap = !at->wrap;
    }
}

static void submit(Packed *p, int queue, const BalloonSeg *segs, unsigned n,
                   uint16_t id)
{
    post(p, queue, segs, n, id);
    wait_served(p, queue, n, id);
}

/* Twice around the ring, with chains of three that cross its end */
static void inflate(void)
{
    Packed p;
    uint64_t mem, list;
    uint32_t pfns[3];

    start(&p);
    mem = balloon_dirty_pages(&p.d, 5);
    for (int i = 0; i < 3; i++) {
        pfns[i] = cpu_to_le32(BALLOON_PFN(mem) + 1 + i);
    }
    list = balloon_copy(&p.d, pfns, sizeof(pfns));
    for (unsigned i = 0; i < p.d.vq[BALLOON_VQ_INFLATE]->size; i++) {
        submit(&p, BALLOON_VQ_INFLATE, (BalloonSeg[]) {
            { list, 3 }, { list + 3, 4 }, { list + 7, 5 },
        }, 3, i);
        if (i % 100 == 0) {
            balloon_assert_pages(&p.d, mem, "x000x");
            qtest_memset(p.d.qts, mem, 0xa5, 5 * BALLOON_PAGE);
        }
    }
    submit(&p, BALLOON_VQ_DEFLATE, &(BalloonSeg) { list, 12 }, 1, 7);
    balloon_quit(&p.d);
}

static void report(void)
{
    Packed p;
    uint64_t mem;

    start(&p);
    mem = balloon_dirty_pages(&p.d, 5);
    submit(&p, REPORT, (BalloonSeg[]) {
        { mem, BALLOON_PAGE, true },
        { mem + 2 * BALLOON_PAGE, 2 * BALLOON_PAGE, true },
    }, 2, 9);
    balloon_assert_pages(&p.d, mem, "0x00x");
    balloon_quit(&p.d);
}

static void stats(void)
{
    struct virtio_balloon_stat stat = {
        .tag = cpu_to_le16(VIRTIO_BALLOON_S_MEMFREE),
        .val = cpu_to_le64(99),
    };
    BalloonSeg seg = { .len = sizeof(stat) };
    Packed p;

    start(&p);
    seg.addr = balloon_copy(&p.d, &stat, sizeof(stat));
    for (int i = 0; i < 3; i++) {
        balloon_set_interval(p.d.qts, 0);
        post(&p, BALLOON_VQ_STATS, &seg, 1, i);
        balloon_wait_for(balloon_stat(p.d.qts, "free-memory") == 99);
        balloon_set_interval(p.d.qts, 1);
        wait_served(&p, BALLOON_VQ_STATS, 1, i);
    }
    balloon_quit(&p.d);
}

void virtio_balloon_add_packed_tests(void)
{
    qtest_add_func(BALLOON_TESTS "packed/inflate", inflate);
    qtest_add_func(BALLOON_TESTS "packed/report", report);
    qtest_add_func(BALLOON_TESTS "packed/stats", stats);
}
