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
#include "virtio-balloon-hostile.h"
#include "virtio-balloon-info.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

/* No chain is longer */
#define CHAIN_MAX 1024

/* Memory enough for a report that takes long */
#define REPORT_OPTIONS "-m 1024 " BALLOON_IOTHREAD
#define REPORT_SIZE (512 * MiB)
#define SEGMENTS 64

/* How often a request has the list of all pages of the area */
#define LISTS (BALLOON_HUGE_MAX / 4)
#define AREA_SIZE (BALLOON_HUGE_PAGES * BALLOON_PAGE)
#define AREA_BYTE 0x3c

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
    bool write = queue == BALLOON_VQ_REPORT || queue == BALLOON_VQ_HINT;
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
    all = vq->size - 1 - (queue == BALLOON_VQ_STATS);
    balloon_wait_for(used_index(d, vq) == all);
    g_assert_cmphex(balloon_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
    guest_free(d->alloc, table);
    guest_free(d->alloc, mem);
    return served == all ? UINT_MAX : served;
}

/*
 * A device that lets go of the ring may be through with it all the same when
 * the test gets to look, if the host so likes: look again.  One that does not
 * is never seen in the middle.
 */
static void test_full_ring(BalloonDriver *d)
{
    unsigned served = UINT_MAX;

    for (int i = 0; i < BALLOON_ATTEMPTS && served == UINT_MAX; i++) {
        served = serve_full_ring(d, GPOINTER_TO_INT(d->data));
    }
    g_assert_cmpuint(served, !=, UINT_MAX);
    balloon_assert_next_driver(d);
}

/* The area is the driver's again: it does not wait for a queue to use it */
static void use_area(BalloonDriver *d, uint64_t area)
{
    qtest_memset(d->qts, area, AREA_BYTE, AREA_SIZE);
}

/* And it stays as the driver left it */
static void assert_area_kept(BalloonDriver *d, uint64_t area)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    /* What was parked would go on before these are served */
    for (int i = 0; i < 3; i++) {
        balloon_inflate(d, mem, BALLOON_PAGE);
        balloon_deflate(d, mem, BALLOON_PAGE);
        qtest_qmp_assert_success(d->qts, "{'execute': 'query-status'}");
    }
    balloon_assert_pages(d, mem, "0x");
    balloon_assert_bytes(d, area, AREA_SIZE, AREA_BYTE);
    guest_free(d->alloc, mem);
}

/*
 * Kicks that announce nothing: they are not answered, and a request that is
 * half done is served once all the same
 */
static void test_kicks(BalloonDriver *d)
{
    const unsigned kicks = 1000;
    uint64_t area = guest_alloc(d->alloc, AREA_SIZE);
    uint32_t head;

    for (int queue = 0; queue < BALLOON_VQ_MAX; queue++) {
        for (int i = 0; i < kicks; i++) {
            balloon_kick(d, queue);
        }
        g_assert_false(balloon_has_used(d, queue));
    }
    g_assert_false(d->vdev->bus->get_queue_isr_status(d->vdev, d->vq[0]));
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), ==, 0);

    head = balloon_post_huge(d, area, LISTS);
    for (int i = 0; i < kicks; i++) {
        balloon_kick(d, BALLOON_VQ_INFLATE);
    }
    balloon_wait_served(d, BALLOON_VQ_INFLATE, head);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "inflated"), ==,
                     LISTS * BALLOON_HUGE_PFNS);
    use_area(d, area);
    assert_area_kept(d, area);
}

/*
 * virtio 1.2, 2.4 and 2.6.1: nothing more is done with a request of a device,
 * or queue, that was reset.  The pages are the driver's at once.
 */
static void test_reset(BalloonDriver *d)
{
    const Reset *reset = d->data;
    const bool report = reset->queue == BALLOON_VQ_REPORT;
    uint64_t area = guest_alloc(d->alloc, report ? REPORT_SIZE : AREA_SIZE);
    unsigned parked = 0;

    g_assert_true(d->vdev->features & 1ull << VIRTIO_F_RING_RESET);
    for (int i = 0; i < BALLOON_ATTEMPTS && parked < 3; i++) {
        qtest_memset(d->qts, area, 1, AREA_SIZE);
        if (report) {
            balloon_post_same(d, reset->queue, (BalloonSeg) {
                area, REPORT_SIZE, true
            }, MIN(d->vq[reset->queue]->size, SEGMENTS));
        } else {
            balloon_post_huge(d, area, LISTS);
        }
        parked += !balloon_has_used(d, reset->queue);
        if (reset->device) {
            qvirtio_reset(d->vdev);
            use_area(d, area);
            balloon_reset(d);
            balloon_start(d, BALLOON_ALL_FEATURES);
        } else {
            balloon_reset_queue(d, reset->queue);
            use_area(d, area);
            balloon_renew_queue(d, reset->queue);
        }
        assert_area_kept(d, area);
    }
    g_assert_cmpuint(parked, ==, 3);
    balloon_assert_next_driver(d);
}

/* A machine that is reset meanwhile starts anew */
static void test_system_reset(BalloonDriver *d)
{
    uint64_t area = guest_alloc(d->alloc, AREA_SIZE);

    balloon_post_huge(d, area, LISTS);
    qtest_system_reset(d->qts);
    use_area(d, area);
    qvirtio_pci_device_enable(d->pci);
    balloon_assert_next_driver(d);
    assert_area_kept(d, area);
}

static const BalloonTest tests[] = {
    { "improved/full-ring/inflate", test_full_ring,
      .data = GINT_TO_POINTER(BALLOON_VQ_INFLATE) },
    { "improved/full-ring/deflate", test_full_ring,
      .data = GINT_TO_POINTER(BALLOON_VQ_DEFLATE) },
    { "improved/full-ring/stats", test_full_ring,
      .data = GINT_TO_POINTER(BALLOON_VQ_STATS) },
    { "full-ring/hint", test_full_ring,
      .data = GINT_TO_POINTER(BALLOON_VQ_HINT) },
    { "improved/full-ring/report", test_full_ring,
      .data = GINT_TO_POINTER(BALLOON_VQ_REPORT) },
    { "improved/parked/kicks", test_kicks },
    { "improved/parked/queue-reset/inflate", test_reset,
      .data = &(Reset) { BALLOON_VQ_INFLATE, false } },
    { "improved/parked/queue-reset/report", test_reset,
      .data = &(Reset) { BALLOON_VQ_REPORT, false },
      .options = REPORT_OPTIONS },
    { "improved/parked/reset-inflate", test_reset,
      .data = &(Reset) { BALLOON_VQ_INFLATE, true } },
    { "improved/parked/reset-report", test_reset,
      .data = &(Reset) { BALLOON_VQ_REPORT, true },
      .options = REPORT_OPTIONS },
    { "parked/system-reset", test_system_reset },
};

void balloon_add_hostile_load_tests(void)
{
    balloon_add_tests(BALLOON_HOSTILE_KICKED, tests, ARRAY_SIZE(tests));
}
