/*
 * The virtio balloon in machines of its own, and what virtio asks of every
 * device
 *
 * What needs no particular machine is tested by virtio-balloon-queue-test.c and
 * -stats-test.c, on every transport there is.  The tests in this file are of
 * virtio 1.2, chapters 2 to 4, as far as a device, and not the core, can do it
 * wrong.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-case.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

/* The queues whose requests are answered at once */
static const int request_queues[] = { INFLATE, DEFLATE, HINT, REPORT_TOO };

/* A request for each queue: of one page, or of statistics */
static BalloonSeg make_request(BalloonDriver *d, int queue, uint64_t page)
{
    uint32_t pfn = BALLOON_PFN(page);

    return queue == STATS ? balloon_stats_seg(d, pfn) :
           queue > STATS ? (BalloonSeg) { page, BALLOON_PAGE, true } :
           (BalloonSeg) { balloon_copy_pfns(d, &pfn, 1), sizeof(pfn) };
}

static bool interrupted(BalloonDriver *d, int queue)
{
    return d->vdev->bus->get_queue_isr_status(d->vdev, d->vq[queue]);
}

/*
 * 2.1.2: no buffer is used, and nothing looked at, before DRIVER_OK.  What was
 * left by then, and kicked, is served when it is set.
 */
static void before_driver_ok(BalloonDriver *d)
{
    uint64_t mem;

    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    mem = balloon_dirty_pages(d, BALLOON_VQ_MAX);
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        BalloonSeg seg = make_request(d, i, mem + i * BALLOON_PAGE);

        balloon_post(d, i, &seg, 1);
    }
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        balloon_kick(d, i);
        balloon_query(d->qts);
        g_assert_false(balloon_has_used(d, i));
        g_assert_false(interrupted(d, i));
    }
    balloon_assert_pages(d, mem, "xxxxx");
    g_assert_cmpuint(balloon_free_memory(d->qts), ==, BALLOON_STAT_UNSET);

    qvirtio_set_driver_ok(d->vdev);
    for (int i = 0; i < ARRAY_SIZE(request_queues); i++) {
        balloon_wait_used(d, request_queues[i], 0);
    }
    balloon_wait_for(balloon_free_memory(d->qts) == BALLOON_PFN(mem) + STATS);
    balloon_assert_pages(d, mem, "0xxx0");
}

static uint8_t generation(BalloonDriver *d)
{
    return qpci_io_readb(d->pci->pdev, d->pci->bar, d->pci->common_cfg_offset +
                         offsetof(struct virtio_pci_common_cfg,
                                  config_generation));
}

/* A target of so many balloon pages, which the driver reads */
static void assert_new_target(BalloonDriver *d, uint32_t pages)
{
    uint8_t before = generation(d);

    balloon_set_target(d->qts, 128 * MiB - pages * BALLOON_PAGE);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, pages);
    g_assert_cmphex(generation(d), !=, before);
    before = generation(d);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, pages);
    g_assert_cmphex(generation(d), ==, before);
}

/*
 * 2.5.2 and 4.1.4.3.1: config can be read before the features are agreed on,
 * and a driver that read a new value finds a new generation
 */
static void config_generation(BalloonDriver *d)
{
    for (int round = 1; round < 3; round++) {
        balloon_reset(d);
        for (int i = 1; i < 4; i++) {
            assert_new_target(d, i * round);
            g_assert_cmphex(balloon_readl(d, BALLOON_CFG_CMD_ID), ==, 0);
            g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0);
        }
        balloon_negotiate(d, BALLOON_ALL_FEATURES);
        assert_new_target(d, 5 * round);
        balloon_setup_queues(d);
        qvirtio_set_driver_ok(d->vdev);
        for (int i = 7; i < 10; i++) {
            assert_new_target(d, i * round);
        }
    }
}

/*
 * 2.2.2: a driver may take any of the features of this device, and take them
 * again after a reset
 */
static void subsets(BalloonDriver *d)
{
    for (uint64_t bits = 0; bits < 1 << 6; bits++) {
        for (int i = 0; i < 2; i++) {
            g_assert_cmphex(balloon_start(d, bits) & 0xffffff, ==, 0x3f);
            balloon_assert_serves(d);
            balloon_reset(d);
        }
    }
}

/* 2.2.1: what a driver takes without being offered does not count */
static void not_offered(BalloonDriver *d)
{
    const uint64_t own = 0xffffff;
    uint64_t offered = qvirtio_get_features(d->vdev);

    g_assert_cmphex(offered & own, ==, 1 << VIRTIO_BALLOON_F_STATS_VQ);
    qvirtio_set_features(d->vdev, own | 1ull << VIRTIO_F_VERSION_1);
    d->vdev->features &= offered;
    balloon_setup_queues(d);
    g_assert_null(d->vq[REPORT_TOO]);
    qvirtio_set_driver_ok(d->vdev);
    balloon_writel(d, BALLOON_CFG_POISON, 0xaaaaaaaa);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0);
    balloon_assert_serves(d);
}

/* Leave a request, wait for its answer, and see whether that interrupts */
static void assert_interrupts(BalloonDriver *d, int queue, BalloonSeg seg,
                              bool interrupts)
{
    uint32_t head = balloon_post(d, queue, &seg, 1);

    balloon_wait_used(d, queue, head);
    balloon_query(d->qts);
    g_assert(interrupted(d, queue) == interrupts);
}

/* 2.7.7: a driver says that it does not want to be interrupted */
static void no_interrupt(BalloonDriver *d)
{
    for (int i = 0; i < ARRAY_SIZE(request_queues); i++) {
        int queue = request_queues[i];
        QVirtQueue *vq = d->vq[queue];
        BalloonSeg seg = make_request(d, queue, balloon_dirty_pages(d, 1));

        for (int flags = 0; flags < 4; flags++) {
            /* used_event says that the next one is wanted, which is ignored */
            qtest_writew(d->qts, vq->avail + offsetof(struct vring_avail, ring)
                         + 2 * vq->size, flags);
            qtest_writew(d->qts, vq->avail, flags & 1);
            assert_interrupts(d, queue, seg, !(flags & 1));
        }
    }
}

/* 2.7.7: or after which answer it wants to be */
static void used_event(BalloonDriver *d)
{
    qvirtio_set_features(d->vdev, qvirtio_get_features(d->vdev) &
                         ~(QVIRTIO_F_BAD_FEATURE |
                           1ull << VIRTIO_RING_F_INDIRECT_DESC));
    g_assert_true(d->vdev->features & 1ull << VIRTIO_RING_F_EVENT_IDX);
    balloon_setup_queues(d);
    qvirtio_set_driver_ok(d->vdev);
    for (int i = 0; i < ARRAY_SIZE(request_queues); i++) {
        int queue = request_queues[i];
        QVirtQueue *vq = d->vq[queue];
        BalloonSeg seg = make_request(d, queue, balloon_dirty_pages(d, 1));

        /* The flag means nothing then */
        qtest_writew(d->qts, vq->avail, 1);
        qvirtqueue_set_used_event(d->qts, vq, 0);
        assert_interrupts(d, queue, seg, true);
        qvirtqueue_set_used_event(d->qts, vq, 3);
        assert_interrupts(d, queue, seg, false);
        assert_interrupts(d, queue, seg, false);
        assert_interrupts(d, queue, seg, true);
        assert_interrupts(d, queue, seg, false);
    }
}

/* 2.7.5.3.2: that the device is to write a table means nothing */
static void writable_table(BalloonDriver *d)
{
    struct vring_desc desc = {
        .len = cpu_to_le32(sizeof(desc)),
        .flags = cpu_to_le16(VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE),
    };
    static const int queues[] = { INFLATE, REPORT_TOO };

    for (int i = 0; i < ARRAY_SIZE(queues); i++) {
        uint64_t mem = balloon_dirty_pages(d, 2);
        BalloonSeg seg;
        struct vring_desc entry;

        balloon_start(d, 1ull << VIRTIO_RING_F_INDIRECT_DESC |
                          1ull << VIRTIO_BALLOON_F_REPORTING);
        seg = make_request(d, queues[i], mem);
        entry = (struct vring_desc) {
            .addr = cpu_to_le64(seg.addr),
            .len = cpu_to_le32(seg.len),
            .flags = cpu_to_le16(seg.write ? VRING_DESC_F_WRITE : 0),
        };
        desc.addr = cpu_to_le64(balloon_copy(d, &entry, sizeof(entry)));
        qtest_memwrite(d->qts, d->vq[queues[i]]->desc, &desc, sizeof(desc));
        balloon_publish(d, queues[i], 0);
        balloon_kick(d, queues[i]);
        balloon_wait_served(d, queues[i], 0);
        balloon_assert_pages(d, mem, "0x");
        balloon_reset(d);
    }
}

/* 2.7.9: buffers come back in the order in which they were made available */
static void in_order(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 3);

    g_assert_true(d->vdev->features & 1ull << VIRTIO_F_IN_ORDER);
    for (int i = 0; i < 3 * d->vq[INFLATE]->size / 2; i++) {
        balloon_assert_serves(d);
    }
    for (int queue = 0; queue < BALLOON_VQ_MAX; queue++) {
        /* The newest statistics are held */
        int returned = queue == STATS ? 2 : 3;

        balloon_free_descriptors(d, queue);
        for (int i = 0; i < 3; i++) {
            BalloonSeg seg = make_request(d, queue, mem + i * BALLOON_PAGE);

            balloon_publish(d, queue, balloon_add(d, queue, &seg, 1));
            balloon_kick(d, queue);
        }
        for (int i = 0; i < returned; i++) {
            balloon_wait_used(d, queue, i);
        }
    }
    g_assert_cmpuint(balloon_free_memory(d->qts), ==, BALLOON_PFN(mem) + 2);
    balloon_set_interval(d->qts, 1);
    balloon_wait_used(d, STATS, 2);
}

/*
 * 2.1: a device that found a fault in a ring wakes nobody any more: the held
 * buffer is not returned, nor is the guest interrupted for it
 */
static void broken_while_polled(BalloonDriver *d)
{
    uint32_t head;

    balloon_begin_polling(d, 1, balloon_leave_stats(d, 1));
    balloon_leave_stats(d, 2);
    balloon_post(d, INFLATE, (BalloonSeg[]) {
        { balloon_dirty_pages(d, 1), 0 }
    }, 1);
    balloon_wait_broken(d);
    /* the interrupt that told of that */
    interrupted(d, INFLATE);
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_query(d->qts);
    g_assert_false(balloon_has_used(d, STATS));
    g_assert_false(interrupted(d, STATS));

    /* it is well again after a reset */
    balloon_restart(d);
    head = balloon_leave_stats(d, 3);
    qtest_clock_step(d->qts, SECOND);
    balloon_wait_served(d, STATS, head);
}

static const BalloonTest tests[] = {
    { "improved/core/before-driver-ok/ioeventfd", before_driver_ok,
      .unstarted = true },
    { "improved/core/before-driver-ok/kick", before_driver_ok,
      ALL_QUEUES KICKED, .unstarted = true },
    { "improved/core/config-generation", config_generation },
    { "improved/core/feature-subsets", subsets,
      ALL_QUEUES ",must-tell-host=on,deflate-on-oom=on", .unstarted = true },
    { "core/features-not-offered", not_offered,
      PLAIN ",page-poison=off,qemu-4-0-config-size=on", .unstarted = true },
    { "core/no-interrupt", no_interrupt, ALL_QUEUES KICKED },
    { "core/used-event", used_event, ALL_QUEUES KICKED, .unstarted = true },
    { "core/writable-table", writable_table, .unstarted = true },
    { "improved/core/broken-while-polled", broken_while_polled },
    { "core/in-order", in_order, ALL_QUEUES ",in_order=on" },
};

BALLOON_TESTS("", ALL_QUEUES, tests)
