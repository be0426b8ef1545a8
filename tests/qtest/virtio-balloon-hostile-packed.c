/*
 * The virtio balloon with packed rings (virtio 1.2, section 2.8)
 *
 * A chain takes as many places of a packed ring as it has segments, and the
 * device has to get all of them right when it puts a chain back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-hostile.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

#define DEVICE                                                          \
    "virtio-balloon-pci,packed=on,indirect_desc=off,ioeventfd=off,"     \
    "free-page-reporting=on"
#define OPTIONS                                                         \
    "-m 3072 -machine pc,memory-backend=ram "                           \
    "-object memory-backend-memfd,id=ram,size=3G,share=on "

#define REPORT BALLOON_VQ_FIRST_OPTIONAL

/* All of this is reported again and again: tens of gigabytes at least */
#define AREA (256 * MiB)
#define AREA_SIZE (2560 * MiB)

#define AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)
#define USED (1 << VRING_PACKED_DESC_F_USED)

/* Everything up to DRIVER_OK; no ring has anything that looks available */
static void start(BalloonDriver *d)
{
    balloon_reset(d);
    balloon_negotiate(d, BALLOON_INDIRECT_TOO);
    g_assert_true(d->vdev->features & 1ull << VIRTIO_F_RING_PACKED);
    g_assert_false(d->vdev->features & 1ull << VIRTIO_RING_F_INDIRECT_DESC);
    balloon_setup_queues(d);
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        if (d->vq[i]) {
            qtest_memset(d->qts, d->vq[i]->desc, 0,
                         d->vq[i]->used + sizeof(uint32_t) - d->vq[i]->desc);
        }
    }
    qvirtio_set_driver_ok(d->vdev);
}

/*
 * Leave a report of @n segments, of which all but the last are the same, from
 * place @at of a ring that is gone through for the first time.
 */
static void post_report(BalloonDriver *d, unsigned at, unsigned n,
                        BalloonSeg same, BalloonSeg last)
{
    g_autofree struct vring_packed_desc *descs =
        g_new(struct vring_packed_desc, n);

    g_assert_cmpuint(at + n, <, d->vq[REPORT]->size);
    for (unsigned i = 0; i < n; i++) {
        const BalloonSeg *seg = i == n - 1 ? &last : &same;

        descs[i] = (struct vring_packed_desc) {
            .addr = cpu_to_le64(seg->addr),
            .len = cpu_to_le32(seg->len),
            .id = cpu_to_le16(at),
            .flags = cpu_to_le16(AVAIL | VRING_DESC_F_WRITE |
                                 (i < n - 1 ? VRING_DESC_F_NEXT : 0)),
        };
    }
    qtest_memwrite(d->qts, d->vq[REPORT]->desc + at * sizeof(*descs), descs,
                   n * sizeof(*descs));
    balloon_kick(d, REPORT);
}

/* Segments of a report after which two short ones fit into the ring */
static unsigned long_chain(BalloonDriver *d)
{
    return MIN(d->vq[REPORT]->size - 5, 500);
}

static bool report_is_used(BalloonDriver *d, unsigned at)
{
    struct vring_packed_desc desc;

    qtest_memread(d->qts, d->vq[REPORT]->desc + at * sizeof(desc), &desc,
                  sizeof(desc));
    if (!(desc.flags & cpu_to_le16(USED))) {
        return false;
    }
    g_assert_cmpuint(le16_to_cpu(desc.id), ==, at);
    return true;
}

/* A short report is served, from there on in the ring */
static void assert_serves_report(BalloonDriver *d, unsigned at)
{
    uint64_t mem = balloon_dirty_pages(d, 3);

    post_report(d, at, 2, (BalloonSeg) { mem, BALLOON_PAGE, true },
                (BalloonSeg) { mem + 2 * BALLOON_PAGE, BALLOON_PAGE, true });
    balloon_wait_for(report_is_used(d, at));
    balloon_assert_pages(d, mem, "0x0");
}

/* Returns: true if the report was still to be served when the VM stopped */
static bool stop_in_report(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 2);
    bool put_back;

    post_report(d, 0, long_chain(d), (BalloonSeg) { AREA, AREA_SIZE, true },
                (BalloonSeg) { mem, BALLOON_PAGE, true });
    balloon_stop(d);
    put_back = !report_is_used(d, 0);
    if (put_back) {
        /* Nothing is done while the VM is stopped */
        balloon_assert_pages(d, mem, "xx");
        g_assert_false(report_is_used(d, 0));
    }
    balloon_cont(d);
    balloon_wait_for(report_is_used(d, 0));
    balloon_assert_pages(d, mem, "0x");
    return put_back;
}

static void test_stop(BalloonDriver *d)
{
    bool put_back = false;

    for (int i = 0; i < BALLOON_ATTEMPTS && !put_back; i++) {
        start(d);
        put_back = stop_in_report(d);
        assert_serves_report(d, long_chain(d));
        assert_serves_report(d, long_chain(d) + 2);
        g_assert_cmphex(balloon_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, ==,
                        0);
    }
    g_assert_true(put_back);
}

/*
 * The layout of the rings changes while they are in use, which takes a driver
 * that goes back behind FEATURES_OK
 */
static void test_features(BalloonDriver *d)
{
    const uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE |
                           VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK;

    for (int i = 0; i < 3; i++) {
        uint64_t features;

        start(d);
        features = d->vdev->features;
        assert_serves_report(d, 0);
        post_report(d, 2, long_chain(d),
                    (BalloonSeg) { AREA, AREA_SIZE, true },
                    (BalloonSeg) { AREA, BALLOON_PAGE, true });
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
    start(d);
    assert_serves_report(d, 0);
}

static const BalloonTest tests[] = {
    { "improved/packed/stop", test_stop, .options = OPTIONS,
      .unstarted = true },
    { "improved/packed/features", test_features, .options = OPTIONS,
      .unstarted = true },
};

void balloon_add_hostile_packed_tests(void)
{
    balloon_add_tests(DEVICE, tests, ARRAY_SIZE(tests));
}
