/*
 * The virtio balloon on packed rings (virtio 1.2, section 2.8)
 *
 * A chain takes as many places of a packed ring as it has segments, and the
 * device has to get all of them right, also when it puts a chain back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

#define PACKED REPORTING ",packed=on"
#define AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)
#define USED (1 << VRING_PACKED_DESC_F_USED)

/* For chains that are as long as the ring, and one of the memory it takes */
#define LONG PACKED KICKED ",indirect_desc=off"
#define LONG_MEMORY                                                     \
    "-m 3072 -machine pc,memory-backend=ram "                           \
    "-object memory-backend-memfd,id=ram,size=3G,share=on "

/* All of this is reported again and again: tens of gigabytes at least */
#define MOST (256 * MiB)
#define MOST_SIZE (2560 * MiB)

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
    balloon_reset(d);
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

/* Write one descriptor at @at */
static void put(BalloonDriver *d, int queue, const Place *at,
                const BalloonSeg *seg, uint16_t id, bool next)
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
}

/*
 * Leave a request.  A device that has just been started may look at any time:
 * the first descriptor, which makes the chain available, is written last.
 */
static void post(BalloonDriver *d, int queue, const BalloonSeg *segs,
                 unsigned n, uint16_t id)
{
    for (unsigned i = n; i-- > 0;) {
        Place at = places[queue];

        move_on(d, queue, &at, i);
        put(d, queue, &at, &segs[i], id, i + 1 < n);
    }
    balloon_kick(d, queue);
}

/* Has the device used what is at the driver's place?  That is in @desc */
static bool read_used(BalloonDriver *d, int queue,
                      struct vring_packed_desc *desc)
{
    Place *at = &places[queue];
    uint16_t want = at->wrap ? AVAIL | USED : 0;

    qtest_memread(d->qts, descriptor(d, queue, at->index), desc,
                  sizeof(*desc));
    return (le16_to_cpu(desc->flags) & (AVAIL | USED)) == want;
}

static void wait_served(BalloonDriver *d, int queue, unsigned n, uint16_t id)
{
    struct vring_packed_desc desc;

    balloon_wait_for(read_used(d, queue, &desc));
    g_assert_cmpuint(le16_to_cpu(desc.id), ==, id);
    g_assert_cmpuint(le32_to_cpu(desc.len), ==, 0);
    qvirtio_wait_queue_isr(d->qts, d->vdev, d->vq[queue], BALLOON_TIMEOUT_US);
    move_on(d, queue, &places[queue], n);
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
    for (unsigned i = 0; i < d->vq[INFLATE]->size; i++) {
        submit(d, INFLATE, (BalloonSeg[]) {
            { list, 3 }, { list + 3, 4 }, { list + 7, 5 },
        }, 3, i);
        if (i % 100 == 0) {
            balloon_assert_pages(d, mem, "x000x");
            qtest_memset(d->qts, mem, OLD, 5 * BALLOON_PAGE);
        }
    }
    submit(d, DEFLATE, &(BalloonSeg) { list, 12 }, 1, 7);
}

static void assert_reports(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 5);

    submit(d, REPORT, (BalloonSeg[]) {
        { mem, BALLOON_PAGE, true },
        { mem + 2 * BALLOON_PAGE, 2 * BALLOON_PAGE, true },
    }, 2, 9);
    balloon_assert_pages(d, mem, "0x00x");
}

/* A driver starts, and what it reports is taken */
static void report(BalloonDriver *d)
{
    start(d);
    assert_reports(d);
}

static void stats(BalloonDriver *d)
{
    start(d);
    for (int i = 0; i < 3; i++) {
        BalloonSeg seg = balloon_stats_seg(d, 99 + i);

        balloon_set_interval(d->qts, 0);
        post(d, STATS, &seg, 1, i);
        balloon_wait_for(balloon_stat(d->qts, "free-memory") == 99 + i);
        balloon_set_interval(d->qts, 1);
        wait_served(d, STATS, 1, i);
    }
}

/* Leave a long report that ends with @last.  Returns: its segments */
static unsigned post_long(BalloonDriver *d, uint64_t last)
{
    /* Two short ones fit into the ring after it */
    unsigned n = MIN(d->vq[REPORT]->size - 5, 500);
    g_autofree BalloonSeg *segs = g_new(BalloonSeg, n);

    for (unsigned i = 0; i < n; i++) {
        segs[i] = (BalloonSeg) { MOST, MOST_SIZE, true };
    }
    segs[n - 1] = (BalloonSeg) { last, BALLOON_PAGE, true };
    post(d, REPORT, segs, n, 3);
    return n;
}

/* Returns: true if a report was still to be served when the VM stopped */
static bool stop_in_report(BalloonDriver *d)
{
    uint64_t mem;
    unsigned n;
    struct vring_packed_desc desc;
    bool put_back;

    start(d);
    mem = balloon_dirty_pages(d, 2);
    n = post_long(d, mem);
    balloon_stop(d);
    put_back = !read_used(d, REPORT, &desc);
    if (put_back) {
        /* Nothing is done while the VM is stopped */
        balloon_assert_pages(d, mem, "xx");
        g_assert_false(read_used(d, REPORT, &desc));
    }
    balloon_cont(d);
    wait_served(d, REPORT, n, 3);
    balloon_assert_pages(d, mem, "0x");
    assert_reports(d);
    assert_reports(d);
    balloon_assert_well(d);
    return put_back;
}

/*
 * The layout of the rings changes while they are in use, which takes a driver
 * that goes back behind FEATURES_OK
 */
static void layout_changes(BalloonDriver *d)
{
    const uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE |
                           VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK;

    for (int i = 0; i < 3; i++) {
        uint64_t features;

        start(d);
        features = d->vdev->features;
        assert_reports(d);
        post_long(d, MOST);
        d->vdev->bus->set_status(d->vdev, status);
        d->vdev->bus->set_features(d->vdev,
                                   features ^ 1ull << VIRTIO_F_RING_PACKED);
        /* An available ring with much to serve */
        qtest_memset(d->qts, d->vq[REPORT]->avail, 0x11, BALLOON_PAGE);
        for (int queue = 0; queue <= REPORT; queue++) {
            balloon_kick(d, queue);
        }
        balloon_stop(d);
        balloon_cont(d);
        d->vdev->bus->set_features(d->vdev, features);
        balloon_kick(d, REPORT);
    }
    report(d);
}

/* The driver makes a ring that is in use smaller, which the core lets it do */
static void shrink(BalloonDriver *d, int queue)
{
    d->vdev->bus->queue_select(d->vdev, queue);
    qpci_io_writew(d->pci->pdev, d->pci->bar, d->pci->common_cfg_offset +
                   offsetof(struct virtio_pci_common_cfg, queue_size), 2);
}

/* A ring becomes smaller than the device has come in it, maybe in a request */
static void ring_shrinks(BalloonDriver *d)
{
    for (int i = 0; i < 4; i++) {
        start(d);
        for (int n = 0; n < 4; n++) {
            assert_reports(d);
        }
        if (i % 2) {
            post_long(d, MOST);
        }
        shrink(d, REPORT);
        balloon_kick(d, REPORT);
        if (i / 2) {
            balloon_stop(d);
            balloon_cont(d);
        }
        balloon_query(d->qts);
    }
    report(d);
}

/* Nobody kicks, and the device finds it when it is to return the request */
static bool shrinks_meanwhile(BalloonDriver *d)
{
    struct vring_packed_desc desc;
    bool broken;

    start(d);
    for (int n = 0; n < 4; n++) {
        assert_reports(d);
    }
    post_long(d, MOST);
    shrink(d, REPORT);
    balloon_wait_for((broken = balloon_status(d) == BALLOON_STATUS_BROKEN) ||
                     read_used(d, REPORT, &desc));
    report(d);
    return broken;
}

/* Leave statistics in a chain of @n, which are read.  Returns: the id */
static uint16_t leave_stats(BalloonDriver *d, unsigned n)
{
    static uint64_t value;
    g_autofree BalloonSeg *segs = g_new(BalloonSeg, n);

    segs[0] = balloon_stats_seg(d, ++value);
    for (unsigned i = 1; i < n; i++) {
        segs[i] = (BalloonSeg) { AREA, 4 };
    }
    post(d, STATS, segs, n, value);
    balloon_wait_for(balloon_stat(d->qts, "free-memory") == value);
    move_on(d, STATS, &places[STATS], n);
    return value;
}

/* A ring becomes smaller while a buffer is held, which another QEMU takes */
static void ring_of_stats_shrinks(BalloonDriver *d)
{
    start(d);
    for (int n = 0; n < 4; n++) {
        leave_stats(d, 1);
    }
    shrink(d, STATS);
    balloon_move(d);
    balloon_query(d->qts);
    report(d);
}

/* What the device holds is asked for */
static void ask(BalloonDriver *d)
{
    balloon_set_interval(d->qts, 1);
    qtest_clock_step(d->qts, 2 * SECOND);
    balloon_set_interval(d->qts, 0);
}

/* Start with a ring of SHORT entries, and use it */
#define SHORT 16
static void start_short(BalloonDriver *d)
{
    start(d);
    d->vq[STATS]->size = SHORT;
    balloon_place_ring(d, STATS);
    leave_stats(d, 1);
    ask(d);
    leave_stats(d, 1);
    leave_stats(d, 1);
    balloon_assert_well(d);
}

/*
 * A chain of @n is held when the driver goes, without a reset; it comes again,
 * leaves chains of @after, and has the first one back
 */
static void come_again(BalloonDriver *d, unsigned n, const unsigned *after)
{
    uint16_t id = leave_stats(d, n);

    balloon_clear_driver_ok(d);
    qvirtio_set_driver_ok(d->vdev);
    for (; *after; after++) {
        leave_stats(d, *after);
    }
    places[STATS] = (Place) { 0, true };
    wait_served(d, STATS, n, id);
}

/*
 * What is held when the driver goes is neither lost nor, in rings that are used
 * in order, in the way of all that comes after it.  In a later and smaller ring
 * the core does not come upon marks of it, one beyond the ring's end.
 */
static void comes_again(BalloonDriver *d)
{
    unsigned beyond;

    start(d);
    beyond = d->vq[STATS]->size / 2;
    come_again(d, beyond, (unsigned[]) { 1, 1, 0 });
    start(d);
    come_again(d, 1, (unsigned[]) { 1, beyond - 2 + SHORT, 1, 0 });
    start_short(d);
}

/* After a chain of @n one of @held is asked for, and has no ring to go to */
static void take_ring(BalloonDriver *d, unsigned n, unsigned held)
{
    uint64_t desc = d->vq[STATS]->desc;

    leave_stats(d, n);
    leave_stats(d, held);
    d->vq[STATS]->desc = 0;
    balloon_place_ring(d, STATS);
    d->vq[STATS]->desc = desc;
    ask(d);
}

/* The same of a driver that takes the ring away before it has its answer */
static void ring_goes(BalloonDriver *d)
{
    unsigned beyond;

    start(d);
    beyond = d->vq[STATS]->size / 2;
    take_ring(d, beyond, 1);
    start(d);
    take_ring(d, 1, beyond - 1 + SHORT);
    start_short(d);
}

/* A state has a place in the ring that has more bits than there are */
static void wide_place(BalloonDriver *d)
{
    /* Of the first queue: after the version, and after its wrap counter */
    const size_t after = sizeof(uint32_t) +
                         (d->data ? sizeof(uint16_t) + sizeof(uint8_t) : 0);
    const uint16_t place = cpu_to_be16(0x8003);

    report(d);
    balloon_migrate(d->qts);
    balloon_patch_saved("virtio/packed_virtqueues", after, &place,
                        sizeof(place));
    balloon_arrive(d, NULL);
    balloon_cont(d);
    post(d, INFLATE, &(BalloonSeg) { AREA, 4 }, 1, 0);
    balloon_query(d->qts);
    report(d);
}

static const BalloonTest tests[] = {
    { "packed/inflate", inflate, .unstarted = true },
    { "packed/report", report, .unstarted = true },
    { "packed/stats", stats, .unstarted = true },
    { "improved/packed/stop", balloon_test_come_between, LONG, LONG_MEMORY,
      stop_in_report, .unstarted = true },
    { "improved/packed/features", layout_changes, LONG, LONG_MEMORY,
      .unstarted = true },
    { "improved/packed/shrinks", ring_shrinks, LONG, LONG_MEMORY,
      .unstarted = true },
    { "improved/packed/shrinks-meanwhile", balloon_test_come_between, LONG,
      LONG_MEMORY, shrinks_meanwhile, .unstarted = true },
    { "improved/packed/shrinks-held", ring_of_stats_shrinks,
      .unstarted = true },
    { "improved/packed/comes-again", comes_again, PACKED ",in_order=on",
      .unstarted = true },
    { "improved/packed/ring-goes", ring_goes, PACKED ",in_order=on",
      .unstarted = true },
    { "improved/packed/wide-place/avail", wide_place, .unstarted = true },
    { "improved/packed/wide-place/used", wide_place, .data = "used",
      .unstarted = true },
};

BALLOON_TESTS("", PACKED, tests)
