/*
 * The virtio balloon and a driver that means harm
 *
 * A driver may put its used ring into the device's own registers, so that the
 * entry that answers a request resets the device: that is what writing its
 * length, 0, to the status does (virtio 1.2, section 4.1.4.3).  The requests
 * are long, so that what the device remembers of them, and frees, is large.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

/* So that the ring, from the status on, does not leave those registers */
#define RING_MAX 256

/* Three requests in one ring */
#define HINTS (RING_MAX / 3)

#define ROUNDS 4

/* Where the length of the first used entry is the status of the device */
static uint64_t used_ring_over_status(BalloonDriver *d)
{
    uint64_t status = d->pci->bar.addr + d->pci->common_cfg_offset +
                      offsetof(struct virtio_pci_common_cfg, device_status);

    return status - offsetof(struct vring_used, ring) -
           offsetof(struct vring_used_elem, len);
}

/* Have the used ring of @queue there, where the device has one already */
static void move_used_ring(BalloonDriver *d, int queue, uint64_t used)
{
    QVirtioPCIDevice *pci = d->pci;
    uint32_t common = pci->common_cfg_offset;
    QVirtQueue *vq = d->vq[queue];

    vq->size = MIN(vq->size, RING_MAX);
    vq->used = used;
    d->vdev->bus->queue_select(d->vdev, queue);
    qpci_io_writew(pci->pdev, pci->bar, common +
                   offsetof(struct virtio_pci_common_cfg, queue_size),
                   vq->size);
    d->vdev->bus->set_queue_address(d->vdev, vq);
    qpci_io_writew(pci->pdev, pci->bar, common +
                   offsetof(struct virtio_pci_common_cfg, queue_enable), 1);
}

/* Everything up to DRIVER_OK, with that used ring for @queue */
static void start(BalloonDriver *d, int queue)
{
    balloon_reset(d);
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    move_used_ring(d, queue, used_ring_over_status(d));
    qvirtio_set_driver_ok(d->vdev);
}

/* The answer has reset the device, and the next driver is served */
static void assert_reset(BalloonDriver *d)
{
    balloon_wait_for(balloon_status(d) == 0);
    balloon_assert_next_driver(d);
}

/* The answer to a request, from a handler of the queue */
static void request(BalloonDriver *d)
{
    int queue = GPOINTER_TO_INT(d->data);
    bool write = queue > STATS;
    uint64_t mem = balloon_alloc(d, BALLOON_PAGE, 1);

    for (int i = 0; i < ROUNDS; i++) {
        start(d, queue);
        balloon_post_same(d, queue, (BalloonSeg) {
            mem, write ? BALLOON_PAGE : 4, write
        }, d->vq[queue]->size);
        assert_reset(d);
    }
}

/* A driver may run without FEATURES_OK, and change features at any time */
#define RUNS (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |        \
              VIRTIO_CONFIG_S_DRIVER_OK)

static void set_features(BalloonDriver *d, uint64_t bits)
{
    d->vdev->features = 1ull << VIRTIO_F_VERSION_1 | bits;
    d->vdev->bus->set_features(d->vdev, d->vdev->features);
    d->vdev->features_negotiated = true;
}

/*
 * A driver runs, with @bit and without FEATURES_OK, and has the answer to what
 * it leaves on @queue next, whose id is RUNS, be its status
 */
static void start_unsettled(BalloonDriver *d, int queue, unsigned bit)
{
    balloon_reset(d);
    set_features(d, 1ull << VIRTIO_BALLOON_F_STATS_VQ | 1ull << bit);
    for (int i = 0; i <= queue; i++) {
        balloon_queue_size(d, i);
        d->vq[i] = qvirtqueue_setup(d->vdev, d->alloc, i);
    }
    move_used_ring(d, queue, used_ring_over_status(d) +
                             offsetof(struct vring_used_elem, len));
    d->vdev->bus->set_status(d->vdev, RUNS);
    d->vq[queue]->free_head = RUNS;
}

/* While a buffer is being returned its queue becomes that of nothing */
static void stats_role(BalloonDriver *d)
{
    BalloonSeg seg = balloon_stats_seg(d, 1000);

    balloon_set_interval(d->qts, 1);
    start_unsettled(d, STATS, VIRTIO_BALLOON_F_STATS_VQ);
    balloon_publish(d, STATS, balloon_add(d, STATS, &seg, 1));
    balloon_kick(d, STATS);
    balloon_wait_for(balloon_stat(d->qts, "free-memory") == 1000);
    /* It is the queue of reports now */
    set_features(d, 1ull << VIRTIO_BALLOON_F_REPORTING);
    qtest_clock_step(d->qts, 2 * SECOND);
    balloon_assert_next_driver(d);
}

/* ... or a report is being answered that took several slices */
static void report_role(BalloonDriver *d)
{
    BalloonSeg segs[64];

    qtest_memset(d->qts, AREA, OLD, RAM - AREA);
    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        segs[i] = (BalloonSeg) { AREA + i * MiB, MiB, true };
    }
    /* Without hinting, the queue after that of statistics */
    start_unsettled(d, REPORT, VIRTIO_BALLOON_F_REPORTING);
    balloon_publish(d, REPORT,
                    balloon_add(d, REPORT, segs, ARRAY_SIZE(segs)));
    balloon_kick(d, REPORT);
    /* It is the queue of hints now */
    set_features(d, 1ull << VIRTIO_BALLOON_F_STATS_VQ |
                    1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT);
    balloon_wait_for(balloon_counter(d->qts, "reported") >= RAM - AREA);
    balloon_assert_next_driver(d);
}

/* A buffer that was held comes back for another one, or to get news */
static void stats(BalloonDriver *d)
{
    balloon_set_interval(d->qts, d->data ? 1 : 0);
    for (int i = 0; i < ROUNDS; i++) {
        unsigned half;

        start(d, STATS);
        half = d->vq[STATS]->size / 2;
        balloon_post_same(d, STATS, balloon_stats_seg(d, 1000 + i), half);
        balloon_wait_for(balloon_stat(d->qts, "free-memory") == 1000 + i);
        if (d->data) {
            qtest_clock_step(d->qts, 2 * SECOND);
        } else {
            balloon_post_same(d, STATS, balloon_stats_seg(d, 2000 + i),
                              half);
        }
        assert_reset(d);
    }
}

/* virtio 1.2, 5.5.6.5: hints that were applied meanwhile, several at a time */
static void hints(BalloonDriver *d)
{
    BalloonSeg segs[HINTS];
    uint32_t id;

    start(d, HINT);
    for (int i = 1; i < HINTS; i++) {
        segs[i] = (BalloonSeg) { AREA + i * BALLOON_PAGE, BALLOON_PAGE, true };
    }
    balloon_migrate_slowly(d->qts);
    id = balloon_wait_asked(d);
    segs[0] = (BalloonSeg) { balloon_copy(d, &id, sizeof(id)), sizeof(id) };
    for (int i = 0; i < 3; i++) {
        /* The first has the id */
        balloon_publish(d, HINT,
                        balloon_add(d, HINT, segs + !!i, HINTS - !!i));
    }
    balloon_kick(d, HINT);
    assert_reset(d);
    balloon_migrate_finish(d->qts);
}

static const BalloonTest tests[] = {
    { "used-ring-in-bar/inflate", request, .data = GINT_TO_POINTER(INFLATE) },
    { "used-ring-in-bar/deflate", request, .data = GINT_TO_POINTER(DEFLATE) },
    { "used-ring-in-bar/hint", request, .data = GINT_TO_POINTER(HINT) },
    { "used-ring-in-bar/report", request,
      .data = GINT_TO_POINTER(REPORT_TOO) },
    { "improved/used-ring-in-bar/stats-second", stats },
    { "improved/used-ring-in-bar/stats-poll", stats, .data = "polled",
      .device = ALL_QUEUES KICKED },
    { "improved/used-ring-in-bar/hints", hints },
    { "improved/used-ring-in-bar/role/stats", stats_role, ALL_QUEUES KICKED },
    { "improved/used-ring-in-bar/role/report", report_role,
      ALL_QUEUES KICKED },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    balloon_add_tests("", ALL_QUEUES, tests, ARRAY_SIZE(tests));
    balloon_add_hostile_load_tests();
    balloon_add_hostile_list_tests();
    balloon_add_hostile_unplug_tests();
    return g_test_run();
}
