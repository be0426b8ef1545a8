/*
 * The virtio balloon and a driver that gives it all the work it can, and does
 * not wait
 *
 * QEMU's main loop has others to serve.  A kick of a device without ioeventfd
 * is served, for a slice of time, before it returns; what is left of a ring or
 * a huge request is parked then.  The host may let the device get on with it
 * before the test does, so a test that needs a parked request tries until it
 * has one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-case.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

/* No chain is longer */
#define CHAIN_MAX 1024

/* Memory enough for a report that takes long */
#define REPORT_OPTIONS "-m 1024 " IOTHREAD
#define REPORT_SIZE (512 * MiB)
#define SEGMENTS 64

/* How often a request has the list of all pages of the area */
#define LISTS (BALLOON_HUGE_MAX / 4)

typedef struct Reset {
    int queue;
    enum { QUEUE, DEVICE, MACHINE } what;
} Reset;

/* An indirect table: a chain of CHAIN_MAX times the same */
static uint64_t make_table(BalloonDriver *d, uint64_t addr, bool write)
{
    g_autofree QVRingIndirectDesc *table =
        qvring_indirect_desc_setup(d->qts, d->vdev, d->alloc, CHAIN_MAX);

    for (int i = 0; i < CHAIN_MAX; i++) {
        qvring_indirect_desc_add(d->vdev, d->qts, table, addr, 8, write);
    }
    return table->desc;
}

/* Make a ring full of requests available that are all the same table */
static void fill_ring(BalloonDriver *d, QVirtQueue *vq, uint64_t table)
{
    struct vring_desc desc = {
        .addr = cpu_to_le64(table),
        .len = cpu_to_le32(CHAIN_MAX * sizeof(desc)),
        .flags = cpu_to_le16(VRING_DESC_F_INDIRECT),
    };

    qtest_memwrite(d->qts, vq->desc, &desc, sizeof(desc));
    qtest_memset(d->qts, vq->avail + offsetof(struct vring_avail, ring), 0,
                 2 * vq->size);
    qtest_writew(d->qts, vq->avail + offsetof(struct vring_avail, idx),
                 vq->size - 1);
}

static uint16_t used_index(BalloonDriver *d, QVirtQueue *vq)
{
    return qtest_readw(d->qts, vq->used + offsetof(struct vring_used, idx));
}

/* Returns: whether some requests were not served when the kick returned */
static bool serve_full_ring(BalloonDriver *d)
{
    const int queue = *(const int *)d->data;
    uint64_t mem, table;
    unsigned served, all;
    QVirtQueue *vq;

    balloon_reset(d);
    balloon_start(d, BALLOON_INDIRECT_TOO);
    vq = d->vq[queue];
    mem = balloon_alloc(d, BALLOON_PAGE, 1);
    table = make_table(d, mem, queue > STATS);
    fill_ring(d, vq, table);
    balloon_kick(d, queue);
    served = used_index(d, vq);
    /* The newest of the statistics is held */
    all = vq->size - 1 - (queue == STATS);
    balloon_wait_for(used_index(d, vq) == all);
    balloon_assert_well(d);
    guest_free(d->alloc, table);
    guest_free(d->alloc, mem);
    return served != all;
}

/*
 * A device that lets go of the ring may be through with it all the same when
 * the test gets to look, if the host so likes: look again.  One that does not
 * is never seen in the middle.
 */
static void full_ring(BalloonDriver *d)
{
    bool between = false;

    for (int i = 0; i < ATTEMPTS && !between; i++) {
        between = serve_full_ring(d);
    }
    g_assert_true(between);
    balloon_assert_next_driver(d);
}

/* What the driver has written into the area since then stays */
static void assert_area_kept(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    /* What was parked would go on before these are served */
    for (int i = 0; i < 3; i++) {
        balloon_inflate(d, mem, BALLOON_PAGE);
        balloon_deflate(d, mem, BALLOON_PAGE);
        balloon_query(d->qts);
    }
    balloon_assert_pages(d, mem, "0x");
    balloon_assert_bytes(d, AREA, HUGE, NEW);
    guest_free(d->alloc, mem);
}

/*
 * Kicks that announce nothing: they are not answered, and a request that is
 * half done is served once all the same
 */
static void idle_kicks(BalloonDriver *d)
{
    const unsigned kicks = 1000;
    uint32_t head;

    for (int queue = 0; queue < BALLOON_VQ_MAX; queue++) {
        for (int i = 0; i < kicks; i++) {
            balloon_kick(d, queue);
        }
        g_assert_false(balloon_has_used(d, queue));
    }
    g_assert_false(d->vdev->bus->get_queue_isr_status(d->vdev, d->vq[0]));

    head = balloon_post_huge(d, AREA, LISTS);
    for (int i = 0; i < kicks; i++) {
        balloon_kick(d, INFLATE);
    }
    balloon_wait_served(d, INFLATE, head);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "inflated"), ==,
                     LISTS * BALLOON_HUGE_PFNS);
    qtest_memset(d->qts, AREA, NEW, HUGE);
    assert_area_kept(d);
}

/* Returns: whether the request was parked when its end came */
static bool reset_once(BalloonDriver *d)
{
    const Reset *reset = d->data;
    bool parked;

    qtest_memset(d->qts, AREA, 1, HUGE);
    if (reset->queue == REPORT_TOO) {
        balloon_post_same(d, reset->queue, (BalloonSeg) {
            AREA, REPORT_SIZE, true
        }, MIN(d->vq[reset->queue]->size, SEGMENTS));
    } else {
        balloon_post_huge(d, AREA, BALLOON_HUGE_MAX);
    }
    parked = !balloon_has_used(d, reset->queue);
    if (reset->what == QUEUE) {
        balloon_reset_queue(d, reset->queue);
    } else if (reset->what == DEVICE) {
        qvirtio_reset(d->vdev);
    } else {
        qtest_system_reset(d->qts);
        qvirtio_pci_device_enable(d->pci);
    }
    /* The area is the driver's again: it does not wait for a queue to use it */
    qtest_memset(d->qts, AREA, NEW, HUGE);
    if (reset->what == QUEUE) {
        balloon_renew_queue(d, reset->queue);
    } else {
        balloon_restart(d);
    }
    assert_area_kept(d);
    return parked;
}

/*
 * virtio 1.2, 2.4 and 2.6.1: nothing more is done with a request of a device,
 * or queue, that was reset, maybe with the machine.  The pages are the driver's
 * at once.
 */
static void reset_parked(BalloonDriver *d)
{
    g_assert_true(d->vdev->features & 1ull << VIRTIO_F_RING_RESET);
    for (int i = 0; i < 3; i++) {
        balloon_come_between(d, reset_once);
    }
    balloon_assert_next_driver(d);
}

static const BalloonTest tests[] = {
    { "improved/full-ring/inflate", full_ring, .data = &(int) { INFLATE } },
    { "improved/full-ring/deflate", full_ring, .data = &(int) { DEFLATE } },
    { "improved/full-ring/stats", full_ring, .data = &(int) { STATS } },
    { "full-ring/hint", full_ring, .data = &(int) { HINT } },
    { "improved/full-ring/report", full_ring, .data = &(int) { REPORT_TOO } },
    { "improved/parked/kicks", idle_kicks },
    { "improved/parked/queue-reset/inflate", reset_parked,
      .data = &(Reset) { INFLATE, QUEUE } },
    { "improved/parked/queue-reset/report", reset_parked, NULL, REPORT_OPTIONS,
      &(Reset) { REPORT_TOO, QUEUE } },
    { "improved/parked/reset-inflate", reset_parked,
      .data = &(Reset) { INFLATE, DEVICE } },
    { "improved/parked/reset-report", reset_parked, NULL, REPORT_OPTIONS,
      &(Reset) { REPORT_TOO, DEVICE } },
    { "parked/system-reset", reset_parked,
      .data = &(Reset) { INFLATE, MACHINE } },
};

BALLOON_TESTS("", ALL_QUEUES KICKED, tests)
