/*
 * The rings of the virtio balloon, and its deflate queue, on any transport
 *
 * virtio 1.2, sections 5.5.6.1 and 5.5.6.2
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-qos.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

#define INFLATE BALLOON_VQ_INFLATE
#define DEFLATE BALLOON_VQ_DEFLATE

/* The device found a fault in the ring, and is well again after a reset */
static void assert_broken_until_reset(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 1);

    balloon_wait_broken(d);
    if (d->vdev->features & 1ull << VIRTIO_F_VERSION_1) {
        balloon_wait_config_interrupt(d);
    }
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_send_range(d, INFLATE, mem, 1);
    balloon_assert_pages(d, mem, "0");
}

/* As many segments as the ring has descriptors */
static void long_chain(BalloonDriver *d)
{
    unsigned n = d->vq[INFLATE]->size;
    g_autofree BalloonSeg *segs = g_new0(BalloonSeg, n);
    uint64_t mem = balloon_dirty_pages(d, n + 1);
    uint64_t list = balloon_copy_spread_pfns(d, mem, n);

    for (unsigned i = 0; i < n; i++) {
        segs[i] = (BalloonSeg) { list + 8 * i, 4 };
    }
    balloon_send(d, INFLATE, segs, n);
    balloon_assert_bytes(d, mem, (uint64_t)n * BALLOON_PAGE, 0);
    balloon_assert_pages(d, mem + (uint64_t)n * BALLOON_PAGE, "x");
}

/* virtio 1.2, section 2.7.5.3 */
static void indirect(BalloonDriver *d)
{
    enum { N = 64 };
    g_autofree QVRingIndirectDesc *table = NULL;
    uint64_t mem, list;
    uint32_t head;

    balloon_start(d, 1ull << VIRTIO_RING_F_INDIRECT_DESC);
    mem = balloon_dirty_pages(d, N + 1);
    list = balloon_copy_spread_pfns(d, mem, N);
    table = qvring_indirect_desc_setup(d->qts, d->vdev, d->alloc, N);
    for (int i = 0; i < N; i++) {
        qvring_indirect_desc_add(d->vdev, d->qts, table, list + 8 * i, 4,
                                 false);
    }
    head = qvirtqueue_add_indirect(d->qts, d->vq[INFLATE], table);
    balloon_publish(d, INFLATE, head);
    balloon_kick(d, INFLATE);
    balloon_wait_served(d, INFLATE, head);
    balloon_assert_bytes(d, mem, N * BALLOON_PAGE, 0);
    balloon_assert_pages(d, mem + N * BALLOON_PAGE, "x");
}

/* Many requests and one kick: every one is returned, in order */
static void full_ring(BalloonDriver *d)
{
    unsigned n = d->vq[INFLATE]->size;
    uint64_t mem = balloon_dirty_pages(d, n);
    uint64_t list = balloon_copy_spread_pfns(d, mem, n);

    for (unsigned i = 0; i < n; i++) {
        BalloonSeg seg = { list + 8 * i, 4 };

        balloon_publish(d, INFLATE, balloon_add(d, INFLATE, &seg, 1));
    }
    balloon_kick(d, INFLATE);
    for (unsigned i = 0; i < n; i++) {
        balloon_wait_used(d, INFLATE, i);
    }
    balloon_assert_bytes(d, mem, (uint64_t)n * BALLOON_PAGE, 0);
}

/* The ring wraps around; a driver may use one descriptor for ever */
static void ring_wraps(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    for (unsigned i = 0; i < d->vq[INFLATE]->size + 3; i++) {
        balloon_send_range(d, INFLATE, mem, 1);
    }
    balloon_assert_pages(d, mem, "0x");
}

static void write16(BalloonDriver *d, uint64_t addr, uint16_t value)
{
    value = balloon_wire16(d, value);
    qtest_memwrite(d->qts, addr, &value, sizeof(value));
}

/* Faults in the ring itself are found by the core, and need a reset */
static void broken_rings(BalloonDriver *d)
{
    uint64_t list = balloon_copy_spread_pfns(d, balloon_dirty_pages(d, 1), 1);

    for (int queue = INFLATE; queue <= DEFLATE; queue++) {
        uint64_t desc;
        uint32_t head;

        /* no bytes at all */
        balloon_post(d, queue, (BalloonSeg[]) { { list, 0 } }, 1);
        assert_broken_until_reset(d);

        /* among others */
        balloon_post(d, queue, (BalloonSeg[]) {
            { list, 4 }, { list, 0 }, { list, 4 },
        }, 3);
        assert_broken_until_reset(d);

        /* a chain without an end: a descriptor that is followed by itself */
        head = balloon_add(d, queue, &(BalloonSeg) { list, 4 }, 1);
        desc = d->vq[queue]->desc + head * sizeof(struct vring_desc);
        write16(d, desc + offsetof(struct vring_desc, flags),
                VRING_DESC_F_NEXT);
        write16(d, desc + offsetof(struct vring_desc, next), head);
        balloon_publish(d, queue, head);
        balloon_kick(d, queue);
        assert_broken_until_reset(d);

        /* a descriptor that is not in the ring */
        balloon_publish(d, queue, d->vq[queue]->size);
        balloon_kick(d, queue);
        assert_broken_until_reset(d);
    }
}

/* Deflate is acknowledged and takes nothing from the guest */
static void deflate(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 4);

    balloon_send_range(d, INFLATE, mem, 4);
    balloon_assert_pages(d, mem, "0000");

    /* before the request is sent, which the driver may do ... */
    qtest_memset(d->qts, mem, 0xa5, BALLOON_PAGE);
    balloon_send_range(d, DEFLATE, mem, 4);
    balloon_assert_pages(d, mem, "x000");
    /* ... and after it was acknowledged */
    qtest_memset(d->qts, mem + BALLOON_PAGE, 0xa5, BALLOON_PAGE);
    balloon_assert_pages(d, mem, "xx00");

    /* pages that were never given up */
    mem = balloon_dirty_pages(d, 2);
    balloon_send_range(d, DEFLATE, mem, 2);
    balloon_assert_pages(d, mem, "xx");
}

static void deflate_nonsense(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    balloon_send_pfns(d, DEFLATE, (uint32_t[]) { 0xffffffff, 0xfffff }, 2);
    balloon_send_one(d, DEFLATE, mem, 3, false);
    balloon_send_one(d, DEFLATE, mem, BALLOON_PAGE, false);
    balloon_send_one(d, DEFLATE, mem, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "xx");
    g_assert_cmphex(balloon_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
}

static const BalloonTest tests[] = {
    { "ring/long-chain", long_chain },
    { "ring/indirect", indirect, .unstarted = true },
    { "ring/full", full_ring },
    { "ring/wraps", ring_wraps },
    { "ring/broken", broken_rings },
    { "deflate/keeps-data", deflate },
    { "deflate/nonsense", deflate_nonsense },
};

static void register_virtio_balloon_ring_tests(void)
{
    balloon_add_qos_tests(tests, ARRAY_SIZE(tests), NULL);
}

libqos_init(register_virtio_balloon_ring_tests);
