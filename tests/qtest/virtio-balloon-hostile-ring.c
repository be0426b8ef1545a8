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
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_setup_queues(d);
    d->vq[queue]->size = MIN(d->vq[queue]->size, RING_MAX);
    d->vq[queue]->used = used_ring_over_status(d);
    balloon_move_queue(d, queue);
    qvirtio_set_driver_ok(d->vdev);
}

static void boot(BalloonDriver *d, const char *ioeventfd)
{
    g_autofree char *device = g_strconcat(BALLOON_HOSTILE_DEVICE,
                                          ",ioeventfd=", ioeventfd, NULL);

    balloon_boot(d, device, BALLOON_HOSTILE_OPTIONS);
}

/* A request that is as long as the ring, of the same over and over */
static void post_long(BalloonDriver *d, int queue, BalloonSeg seg)
{
    unsigned n = d->vq[queue]->size;
    BalloonSeg segs[RING_MAX];

    for (unsigned i = 0; i < n; i++) {
        segs[i] = seg;
    }
    balloon_post(d, queue, segs, n);
}

/* Statistics that take half the ring */
static void post_stats(BalloonDriver *d, uint64_t free_memory)
{
    balloon_post_free_memory(d, free_memory, d->vq[BALLOON_VQ_STATS]->size / 2);
}

static void wait_reset(BalloonDriver *d)
{
    balloon_wait_for(balloon_status(d) == 0);
}

/* The answer to a request, from a handler of the queue */
static void test_requests(const void *data)
{
    int queue = GPOINTER_TO_INT(data);
    bool write = queue == BALLOON_VQ_REPORT || queue == BALLOON_VQ_HINT;
    BalloonDriver d;
    uint64_t mem;

    boot(&d, "on");
    for (int i = 0; i < 4; i++) {
        start(&d, queue);
        mem = balloon_alloc(&d, BALLOON_PAGE, 1);
        post_long(&d, queue, (BalloonSeg) { mem, write ? BALLOON_PAGE : 4,
                                            write });
        wait_reset(&d);
        balloon_assert_next_driver(&d);
        balloon_reset(&d);
    }
    balloon_quit(&d);
}

/* A buffer that was held comes back for another one */
static void test_stats_second(void)
{
    BalloonDriver d;

    boot(&d, "on");
    for (int i = 0; i < 4; i++) {
        start(&d, BALLOON_VQ_STATS);
        post_stats(&d, 1000 + i);
        balloon_wait_for(balloon_stat(d.qts, "free-memory") == 1000 + i);
        post_stats(&d, 2000 + i);
        wait_reset(&d);
        balloon_assert_next_driver(&d);
        balloon_reset(&d);
    }
    balloon_quit(&d);
}

/* Or because the device asks for news */
static void test_stats_poll(void)
{
    BalloonDriver d;

    boot(&d, "off");
    balloon_set_interval(d.qts, 1);
    for (int i = 0; i < 4; i++) {
        start(&d, BALLOON_VQ_STATS);
        post_stats(&d, 1000 + i);
        balloon_wait_for(balloon_stat(d.qts, "free-memory") == 1000 + i);
        qtest_clock_step(d.qts, 2 * NANOSECONDS_PER_SECOND);
        wait_reset(&d);
        balloon_assert_next_driver(&d);
        balloon_reset(&d);
    }
    balloon_quit(&d);
}

/* virtio 1.2, 5.5.6.5: hints that were applied meanwhile, several at a time */
static void test_hints(void)
{
    BalloonDriver d;
    BalloonSeg segs[HINTS];
    uint32_t id;

    boot(&d, "on");
    start(&d, BALLOON_VQ_HINT);
    for (int i = 1; i < HINTS; i++) {
        segs[i] = (BalloonSeg) { 64 * MiB + i * BALLOON_PAGE, BALLOON_PAGE,
                                 true };
    }
    balloon_begin_migration(d.qts, "exec:cat > /dev/null");
    id = balloon_wait_asked(&d);
    segs[0] = (BalloonSeg) { balloon_copy(&d, &id, sizeof(id)), sizeof(id) };
    for (int i = 0; i < 3; i++) {
        /* The first has the id */
        uint32_t head = balloon_add(&d, BALLOON_VQ_HINT, segs + !!i,
                                    HINTS - !!i);

        balloon_publish(&d, BALLOON_VQ_HINT, head);
    }
    balloon_kick(&d, BALLOON_VQ_HINT);
    wait_reset(&d);
    balloon_assert_next_driver(&d);
    balloon_migrate_finish(d.qts);
    balloon_quit(&d);
}

void balloon_add_hostile_ring_tests(void)
{
    static const struct {
        const char *path;
        int queue;
    } requests[] = {
        { "/virtio-balloon/used-ring-in-bar/inflate", BALLOON_VQ_INFLATE },
        { "/virtio-balloon/used-ring-in-bar/deflate", BALLOON_VQ_DEFLATE },
        { "/virtio-balloon/used-ring-in-bar/hint", BALLOON_VQ_HINT },
        { "/virtio-balloon/used-ring-in-bar/report", BALLOON_VQ_REPORT },
    };

    for (int i = 0; i < ARRAY_SIZE(requests); i++) {
        qtest_add_data_func(requests[i].path,
                            GINT_TO_POINTER(requests[i].queue),
                            test_requests);
    }
    qtest_add_func("/virtio-balloon/improved/used-ring-in-bar/stats-second",
                   test_stats_second);
    qtest_add_func("/virtio-balloon/improved/used-ring-in-bar/stats-poll",
                   test_stats_poll);
    qtest_add_func("/virtio-balloon/improved/used-ring-in-bar/hints",
                   test_hints);
}
