/*
 * The virtio balloon on a packed ring (virtio 1.2, section 2.8)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
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

static Place places[BALLOON_VQ_MAX];

static uint64_t descriptor(BalloonDriver *d, int queue, unsigned index)
{
    return d->vq[queue]->desc + index * sizeof(struct vring_packed_desc);
}

/* Everything up to DRIVER_OK; nothing in the rings looks available */
static void start(BalloonDriver *d)
{
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    g_assert_true(d->vdev->features & 1ull << VIRTIO_F_RING_PACKED);
    balloon_setup_queues(d);
    for (int i = 0; i < BALLOON_VQ_MAX && d->vq[i]; i++) {
        QVirtQueue *vq = d->vq[i];

        qtest_memset(d->qts, vq->desc, 0, vq->used - vq->desc +
                     sizeof(struct vring_packed_desc_event));
        places[i] = (Place) { 0, true };
    }
    qvirtio_set_driver_ok(d->vdev);
}

static void move_on(BalloonDriver *d, int queue, Place *at, unsigned n)
{
    at->index += n;
    if (at->index >= d->vq[queue]->size) {
        at->index -= d->vq[queue]->size;
        at->wrap = !at->wrap;
    }
}

/* Write one descriptor at @at, which moves on */
static void put(BalloonDriver *d, int queue, Place *at, const BalloonSeg *seg,
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

    qtest_memwrite(d->qts, descriptor(d, queue, at->index), &desc,
                   sizeof(desc));
    move_on(d, queue, at, 1);
}

static void post(BalloonDriver *d, int queue, const BalloonSeg *segs,
                 unsigned n, uint16_t id)
{
    Place at = places[queue];

    for (unsigned i = 0; i < n; i++) {
        put(d, queue, &at, &segs[i], id, i + 1 < n);
    }
    balloon_kick(d, queue);
}

/* The device has used what is at the driver's place */
static bool is_used(BalloonDriver *d, int queue, struct vring_packed_desc *desc)
{
    Place *at = &places[queue];
    uint16_t want = at->wrap ? AVAIL | USED : 0;

    qtest_memread(d->qts, descriptor(d, queue, at->index), desc,
                  sizeof(*desc));
    return (le16_to_cpu(desc->flags) & (AVAIL | USED)) == want;
}

static void wait_served(BalloonDriver *d, int queue, unsigned n, uint16_t id)
{
    Place *at = &places[queue];
    struct vring_packed_desc desc;

    balloon_wait_for(is_used(d, queue, &desc));
    g_assert_cmpuint(le16_to_cpu(desc.id), ==, id);
    g_assert_cmpuint(le32_to_cpu(desc.len), ==, 0);
    qvirtio_wait_queue_isr(d->qts, d->vdev, d->vq[queue],
                           BALLOON_TIMEOUT_US);
    move_on(d, queue, at, n);
}

static void submit(BalloonDriver *d, int queue, const BalloonSeg *segs,
                   unsigned n, uint16_t id)
{
    post(d, queue, segs, n, id);
    wait_served(d, queue, n, id);
}

/* Twice around the ring, with chains of three that cross its end */
static void inflate(BalloonDriver *d)
{
    uint64_t mem, list;

    start(d);
    mem = balloon_dirty_pages(d, 5);
    list = balloon_copy_pfns(d, (uint32_t[]) {
        BALLOON_PFN(mem) + 1, BALLOON_PFN(mem) + 2, BALLOON_PFN(mem) + 3,
    }, 3);
    for (unsigned i = 0; i < d->vq[BALLOON_VQ_INFLATE]->size; i++) {
        submit(d, BALLOON_VQ_INFLATE, (BalloonSeg[]) {
            { list, 3 }, { list + 3, 4 }, { list + 7, 5 },
        }, 3, i);
        if (i % 100 == 0) {
            balloon_assert_pages(d, mem, "x000x");
            qtest_memset(d->qts, mem, 0xa5, 5 * BALLOON_PAGE);
        }
    }
    submit(d, BALLOON_VQ_DEFLATE, &(BalloonSeg) { list, 12 }, 1, 7);
}

static void report(BalloonDriver *d)
{
    uint64_t mem;

    start(d);
    mem = balloon_dirty_pages(d, 5);
    submit(d, REPORT, (BalloonSeg[]) {
        { mem, BALLOON_PAGE, true },
        { mem + 2 * BALLOON_PAGE, 2 * BALLOON_PAGE, true },
    }, 2, 9);
    balloon_assert_pages(d, mem, "0x00x");
}

static void stats(BalloonDriver *d)
{
    start(d);
    for (int i = 0; i < 3; i++) {
        BalloonSeg seg = balloon_stats_seg(d, 99 + i);

        balloon_set_interval(d->qts, 0);
        post(d, BALLOON_VQ_STATS, &seg, 1, i);
        balloon_wait_for(balloon_stat(d->qts, "free-memory") == 99 + i);
        balloon_set_interval(d->qts, 1);
        wait_served(d, BALLOON_VQ_STATS, 1, i);
    }
}

static const BalloonTest tests[] = {
    { "packed/inflate", inflate, .unstarted = true },
    { "packed/report", report, .unstarted = true },
    { "packed/stats", stats, .unstarted = true },
};

void virtio_balloon_add_packed_tests(void)
{
    balloon_add_tests("virtio-balloon-pci,packed=on,free-page-reporting=on",
                      tests, ARRAY_SIZE(tests));
}
