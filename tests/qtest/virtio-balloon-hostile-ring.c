/*
 * The virtio balloon with a used ring that is not in memory
 *
 * A driver may put it into the device's own registers, so that the entry that
 * answers a request resets the device: that is what writing its length, 0, to
 * the status does (virtio 1.2, section 4.1.4.3).  The requests are long, so
 * that what the device remembers of them, and frees, is large.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-balloon-hostile.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
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

/* Everything up to DRIVER_OK, with that used ring for @queue */
static void start(BalloonDriver *d, int queue)
{
    QVirtioPCIDevice *pci = d->pci;
    uint32_t common = pci->common_cfg_offset;
    QVirtQueue *vq;

    balloon_reset(d);
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    vq = d->vq[queue];
    vq->size = MIN(vq->size, RING_MAX);
    vq->used = used_ring_over_status(d);
    d->vdev->bus->queue_select(d->vdev, queue);
    qpci_io_writew(pci->pdev, pci->bar, common +
                   offsetof(struct virtio_pci_common_cfg, queue_size),
                   vq->size);
    d->vdev->bus->set_queue_address(d->vdev, vq);
    qpci_io_writew(pci->pdev, pci->bar, common +
                   offsetof(struct virtio_pci_common_cfg, queue_enable), 1);
    qvirtio_set_driver_ok(d->vdev);
}

/* Statistics that take half the ring */
static void post_stats(BalloonDriver *d, uint64_t free_memory)
{
    balloon_post_stats(d, free_memory, d->vq[BALLOON_VQ_STATS]->size / 2);
}

/* The answer has reset the device, and the next driver is served */
static void assert_reset(BalloonDriver *d)
{
    balloon_wait_for(balloon_status(d) == 0);
    balloon_assert_next_driver(d);
}

/* The answer to a request, from a handler of the queue */
static void test_request(BalloonDriver *d)
{
    int queue = GPOINTER_TO_INT(d->data);
    bool write = queue == BALLOON_VQ_REPORT || queue == BALLOON_VQ_HINT;
    uint64_t mem = balloon_alloc(d, BALLOON_PAGE, 1);

    for (int i = 0; i < ROUNDS; i++) {
        start(d, queue);
        balloon_post_same(d, queue, (BalloonSeg) {
            mem, write ? BALLOON_PAGE : 4, write
        }, d->vq[queue]->size);
        assert_reset(d);
    }
}

/* A buffer that was held comes back for another one, or to get news */
static void test_stats(BalloonDriver *d)
{
    balloon_set_interval(d->qts, d->data ? 1 : 0);
    for (int i = 0; i < ROUNDS; i++) {
        start(d, BALLOON_VQ_STATS);
        post_stats(d, 1000 + i);
        balloon_wait_for(balloon_stat(d->qts, "free-memory") == 1000 + i);
        if (d->data) {
            qtest_clock_step(d->qts, 2 * NANOSECONDS_PER_SECOND);
        } else {
            post_stats(d, 2000 + i);
        }
        assert_reset(d);
    }
}

/* virtio 1.2, 5.5.6.5: hints that were applied meanwhile, several at a time */
static void test_hints(BalloonDriver *d)
{
    BalloonSeg segs[HINTS];
    uint32_t id;

    start(d, BALLOON_VQ_HINT);
    for (int i = 1; i < HINTS; i++) {
        segs[i] = (BalloonSeg) { 64 * MiB + i * BALLOON_PAGE, BALLOON_PAGE,
                                 true };
    }
    balloon_begin_migration(d->qts, "exec:cat > /dev/null");
    id = balloon_wait_asked(d);
    segs[0] = (BalloonSeg) { balloon_copy(d, &id, sizeof(id)), sizeof(id) };
    for (int i = 0; i < 3; i++) {
        /* The first has the id */
        balloon_publish(d, BALLOON_VQ_HINT,
                        balloon_add(d, BALLOON_VQ_HINT, segs + !!i,
                                    HINTS - !!i));
    }
    balloon_kick(d, BALLOON_VQ_HINT);
    assert_reset(d);
    balloon_migrate_finish(d->qts);
}

static const BalloonTest tests[] = {
    { "used-ring-in-bar/inflate", test_request,
      .data = GINT_TO_POINTER(BALLOON_VQ_INFLATE) },
    { "used-ring-in-bar/deflate", test_request,
      .data = GINT_TO_POINTER(BALLOON_VQ_DEFLATE) },
    { "used-ring-in-bar/hint", test_request,
      .data = GINT_TO_POINTER(BALLOON_VQ_HINT) },
    { "used-ring-in-bar/report", test_request,
      .data = GINT_TO_POINTER(BALLOON_VQ_REPORT) },
    { "improved/used-ring-in-bar/stats-second", test_stats },
    { "improved/used-ring-in-bar/stats-poll", test_stats, .data = "polled",
      .device = BALLOON_HOSTILE_KICKED },
    { "improved/used-ring-in-bar/hints", test_hints },
};

void balloon_add_hostile_ring_tests(void)
{
    balloon_add_tests(BALLOON_HOSTILE_DEVICE, tests, ARRAY_SIZE(tests));
}
