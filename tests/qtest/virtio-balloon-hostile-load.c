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
    /* the device, and not the queue only */
    bool device;
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

/* Returns: how many requests were served when the kick returned */
static unsigned serve_full_ring(BalloonDriver *d, int queue)
{
    bool write = queue > STATS;
    uint64_t mem, table;
    unsigned served, all;
    QVirtQueue *vq;

    balloon_reset(d);
    balloon_start(d, BALLOON_INDIRECT_TOO);
    vq = d->vq[queue];
    mem = balloon_alloc(d, BALLOON_PAGE, 1);
    table = make_table(d, mem, write);
    fill_ring(d, vq, table);
    balloon_kick(d, queue);
    served = used_index(d, vq);
    /* The newest of the statistics is held */
    all = vq->size - 1 - (queue == STATS);
    balloon_wait_for(used_index(d, vq) == all);
    balloon_assert_well(d);
    guest_free(d->alloc, table);
    guest_free(d->alloc, mem);
    return served == all ? UINT_MAX : served;
}

/*
 * A device that lets go of the ring may be through with it all the same when
 * the test gets to look, if the host so likes: look again.  One that does not
 * is never seen in the middle.
 */
static void full_ring(BalloonDriver *d)
{
    unsigned served = UINT_MAX;

    for (int i = 0; i < ATTEMPTS && served == UINT_MAX; i++) {
        served = serve_full_ring(d, GPOINTER_TO_INT(d->data));
    }
    g_assert_cmpuint(served, !=, UINT_MAX);
    balloon_assert_next_driver(d);
}

/* The area is the driver's again: it does not wait for a queue to use it */
static void use_area(BalloonDriver *d)
{
    qtest_memset(d->qts, AREA, NEW, HUGE);
}

/* And it stays as the driver left it */
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
    use_area(d);
    assert_area_kept(d);
}

/* Returns: whether the request was parked when its end came */
static bool reset_once(BalloonDriver *d)
{
    const Reset *reset = d->data;
    const bool report = reset->queue == REPORT_TOO;
    bool parked;

    qtest_memset(d->qts, AREA, 1, HUGE);
    if (report) {
        balloon_post_same(d, reset->queue, (BalloonSeg) {
            AREA, REPORT_SIZE, true
        }, MIN(d->vq[reset->queue]->size, SEGMENTS));
    } else {
        balloon_post_huge(d, AREA, BALLOON_HUGE_MAX);
    }
    parked = !balloon_has_used(d, reset->queue);
    if (reset->device) {
        qvirtio_reset(d->vdev);
        use_area(d);
        balloon_restart(d);
    } else {
        balloon_reset_queue(d, reset->queue);
        use_area(d);
        balloon_renew_queue(d, reset->queue);
    }
    assert_area_kept(d);
    return parked;
}

/*
 * virtio 1.2, 2.4 and 2.6.1: nothing more is done with a request of a device,
 * or queue, that was reset.  The pages are the driver's at once.
 */
static void reset_parked(BalloonDriver *d)
{
    g_assert_true(d->vdev->features & 1ull << VIRTIO_F_RING_RESET);
    for (int i = 0; i < 3; i++) {
        balloon_come_between(d, reset_once);
    }
    balloon_assert_next_driver(d);
}

/* A machine that is reset meanwhile starts anew */
static bool system_reset_once(BalloonDriver *d)
{
    bool parked;

    balloon_post_huge(d, AREA, BALLOON_HUGE_MAX);
    parked = !balloon_has_used(d, INFLATE);
    qtest_system_reset(d->qts);
    use_area(d);
    qvirtio_pci_device_enable(d->pci);
    balloon_assert_next_driver(d);
    assert_area_kept(d);
    return parked;
}

static void system_reset(BalloonDriver *d)
{
    balloon_come_between(d, system_reset_once);
}

static const BalloonTest tests[] = {
    { "improved/full-ring/inflate", full_ring,
      .data = GINT_TO_POINTER(INFLATE) },
    { "improved/full-ring/deflate", full_ring,
      .data = GINT_TO_POINTER(DEFLATE) },
    { "improved/full-ring/stats", full_ring, .data = GINT_TO_POINTER(STATS) },
    { "full-ring/hint", full_ring, .data = GINT_TO_POINTER(HINT) },
    { "improved/full-ring/report", full_ring,
      .data = GINT_TO_POINTER(REPORT_TOO) },
    { "improved/parked/kicks", idle_kicks },
    { "improved/parked/queue-reset/inflate", reset_parked,
      .data = &(Reset) { INFLATE, false } },
    { "improved/parked/queue-reset/report", reset_parked,
      .data = &(Reset) { REPORT_TOO, false },
      .options = REPORT_OPTIONS },
    { "improved/parked/reset-inflate", reset_parked,
      .data = &(Reset) { INFLATE, true } },
    { "improved/parked/reset-report", reset_parked,
      .data = &(Reset) { REPORT_TOO, true },
      .options = REPORT_OPTIONS },
    { "parked/system-reset", system_reset },
};

BALLOON_TESTS("", ALL_QUEUES KICKED, tests)
