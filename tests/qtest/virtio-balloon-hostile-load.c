/*
 * The virtio balloon and a driver that gives it all the work it can
 *
 * QEMU's main loop has others to serve.  A kick of a device without ioeventfd
 * is served before it returns, so what the used index says then tells whether
 * the device went through all of the ring in one go.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-hostile.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

/* No chain is longer */
#define CHAIN_MAX 1024

/*
 * A device that lets go of the ring may be through with it all the same when
 * the test gets to look, if the host so likes: look again.  One that does not
 * is never seen in the middle.
 */
#define ATTEMPTS 10

/* An indirect table: a chain of CHAIN_MAX times @seg */
static uint64_t make_table(BalloonDriver *d, BalloonSeg seg)
{
    g_autofree struct vring_desc *table = g_new(struct vring_desc, CHAIN_MAX);

    for (int i = 0; i < CHAIN_MAX; i++) {
        bool last = i == CHAIN_MAX - 1;

        table[i] = (struct vring_desc) {
            .addr = cpu_to_le64(seg.addr),
            .len = cpu_to_le32(seg.len),
            .flags = cpu_to_le16((seg.write ? VRING_DESC_F_WRITE : 0) |
                                 (last ? 0 : VRING_DESC_F_NEXT)),
            .next = cpu_to_le16(last ? 0 : i + 1),
        };
    }
    return balloon_copy(d, table, CHAIN_MAX * sizeof(*table));
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

    balloon_start(d, BALLOON_INDIRECT_TOO);
    vq = d->vq[queue];
    mem = balloon_alloc(d, BALLOON_PAGE, 1);
    table = make_table(d, (BalloonSeg) { mem, 8, write });
    fill_ring(d, vq, table);
    balloon_kick(d, queue);
    served = used_index(d, vq);
    /* The newest of the statistics is held */
    all = vq->size - 1 - (queue == BALLOON_VQ_STATS);
    balloon_wait_for(used_index(d, vq) == all);
    g_assert_cmphex(balloon_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
    guest_free(d->alloc, table);
    guest_free(d->alloc, mem);
    balloon_reset(d);
    return served == all ? UINT_MAX : served;
}

static void test_full_ring(const void *data)
{
    BalloonDriver d;
    unsigned served = UINT_MAX;

    balloon_boot(&d, BALLOON_HOSTILE_DEVICE ",ioeventfd=off",
                 BALLOON_HOSTILE_OPTIONS);
    for (int i = 0; i < ATTEMPTS && served == UINT_MAX; i++) {
        served = serve_full_ring(&d, GPOINTER_TO_INT(data));
    }
    g_assert_cmpuint(served, !=, UINT_MAX);
    balloon_assert_next_driver(&d);
    balloon_quit(&d);
}

void balloon_add_hostile_load_tests(void)
{
    static const struct {
        const char *path;
        int queue;
    } loads[] = {
        { "/virtio-balloon/improved/full-ring/inflate", BALLOON_VQ_INFLATE },
        { "/virtio-balloon/improved/full-ring/deflate", BALLOON_VQ_DEFLATE },
        { "/virtio-balloon/improved/full-ring/stats", BALLOON_VQ_STATS },
        { "/virtio-balloon/full-ring/hint", BALLOON_VQ_HINT },
        { "/virtio-balloon/improved/full-ring/report", BALLOON_VQ_REPORT },
    };

    for (int i = 0; i < ARRAY_SIZE(loads); i++) {
        qtest_add_data_func(loads[i].path, GINT_TO_POINTER(loads[i].queue),
                            test_full_ring);
    }
}
