/*
 * Virtio balloon: which virtqueue is which
 *
 * After those of inflation and deflation come, without a gap, the virtqueues of
 * the features that the driver negotiated (section 5.5.2).  Some drivers leave
 * a gap for what they were offered and did not take: that was the numbering of
 * this device.  They are known by a ring beyond the last one that they have a
 * feature for; a driver that leaves no gap never sets up that one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-internal.h"

/* The queues that every driver has */
enum { VQ_INFLATE, VQ_DEFLATE, VQ_FIRST_ROLE };

/* What the others are for, in the order of their numbers */
typedef enum BalloonRole {
    ROLE_STATS,
    ROLE_HINTING,
    ROLE_REPORT,
    ROLE__MAX
} BalloonRole;

static const struct {
    unsigned feature;
    int size;
} roles[ROLE__MAX] = {
    [ROLE_STATS] = { VIRTIO_BALLOON_F_STATS_VQ, 128 },
    [ROLE_HINTING] = { VIRTIO_BALLOON_F_FREE_PAGE_HINT, VIRTQUEUE_MAX_SIZE },
    [ROLE_REPORT] = { VIRTIO_BALLOON_F_REPORTING, 32 },
};

static uint64_t balloon_roles_offered(VirtIOBalloon *s)
{
    return s->host_features | 1ull << VIRTIO_BALLOON_F_STATS_VQ;
}

/* The number of the first virtqueue after those of roles less than @role */
static int balloon_roles_number(uint64_t features, BalloonRole role)
{
    int number = VQ_FIRST_ROLE;

    for (int i = 0; i < role; i++) {
        number += virtio_has_feature(features, roles[i].feature);
    }
    return number;
}

unsigned virtio_balloon_roles_count(VirtIOBalloon *s)
{
    return balloon_roles_number(balloon_roles_offered(s), ROLE__MAX);
}

/* NULL if there is none with @features */
static VirtQueue *balloon_roles_queue(VirtIOBalloon *s, uint64_t features,
                                      BalloonRole role)
{
    return virtio_has_feature(features, roles[role].feature) ?
               virtio_get_queue(VIRTIO_DEVICE(s),
                                balloon_roles_number(features, role)) : NULL;
}

/* Has the driver a ring that it would not have if it left no gaps? */
static bool balloon_roles_leave_gaps(VirtIODevice *vdev)
{
    int n = virtio_get_num_queues(vdev);
    int i = balloon_roles_number(vdev->guest_features, ROLE__MAX);

    for (; i < n; i++) {
        if (virtio_queue_get_desc_addr(vdev, i)) {
            return true;
        }
    }
    return false;
}

void virtio_balloon_roles_bind(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    uint64_t features;

    /* Once seen, a gap is remembered: the queue that shows it may be reset */
    s->gaps = s->gaps || balloon_roles_leave_gaps(vdev);
    /* A refused load may leave guest_features that are not offered */
    features = balloon_roles_offered(s);
    if (!s->gaps) {
        features &= vdev->guest_features;
    }
    virtio_balloon_stats_bind(s, balloon_roles_queue(s, features, ROLE_STATS));
    virtio_balloon_hinting_bind(s,
                                balloon_roles_queue(s, features, ROLE_HINTING));
    virtio_balloon_queue_bind(&s->report,
                              balloon_roles_queue(s, features, ROLE_REPORT));
}

void virtio_balloon_roles_start(VirtIOBalloon *s)
{
    virtio_balloon_roles_bind(s);
    virtio_balloon_queue_start(&s->inflate);
    virtio_balloon_queue_start(&s->deflate);
    virtio_balloon_queue_start(&s->report);
    virtio_balloon_stats_start(s);
    virtio_balloon_hinting_start(s);
}

static void balloon_roles_kick(VirtIOBalloon *s, VirtQueue *vq)
{
    /* A legacy driver may kick before it has set up all of its queues */
    virtio_balloon_roles_bind(s);
    if (vq == s->inflate.vq) {
        virtio_balloon_queue_kick(&s->inflate);
    } else if (vq == s->deflate.vq) {
        virtio_balloon_queue_kick(&s->deflate);
    } else if (vq == s->report.vq) {
        virtio_balloon_queue_kick(&s->report);
    } else if (vq == s->stats.vq) {
        virtio_balloon_stats_kick(s);
    } else if (vq == s->hinting.vq) {
        virtio_balloon_hinting_kick(s);
    }
    virtio_balloon_pages_tell_held(s);
}

static void balloon_roles_handle_output(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);
    bool within = virtio_balloon_enter(s);

    if (virtio_balloon_may_serve(s)) {
        balloon_roles_kick(s, vq);
    } else {
        virtio_balloon_driver_check(s);
    }
    virtio_balloon_leave(s, within);
}

void virtio_balloon_roles_queue_reset(VirtIOBalloon *s, VirtQueue *vq)
{
    if (vq == s->inflate.vq) {
        virtio_balloon_queue_reset(&s->inflate);
    } else if (vq == s->deflate.vq) {
        virtio_balloon_queue_reset(&s->deflate);
    } else if (vq == s->report.vq) {
        virtio_balloon_queue_reset(&s->report);
    } else if (vq == s->stats.vq) {
        virtio_balloon_stats_reset(s);
    } else if (vq == s->hinting.vq) {
        virtio_balloon_hinting_reset(s);
    }
}

/* How many entries the ring of virtqueue @n may have */
static int balloon_roles_ring_size(VirtIOBalloon *s, int n)
{
    uint64_t features = balloon_roles_offered(s);

    for (int i = 0; i < ROLE__MAX; i++) {
        if (virtio_has_feature(features, roles[i].feature) &&
            n == balloon_roles_number(features, i)) {
            return roles[i].size;
        }
    }
    return 128;
}

void virtio_balloon_roles_init(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    for (int n = 0; n < virtio_balloon_roles_count(s); n++) {
        virtio_add_queue(vdev, balloon_roles_ring_size(s, n),
                         balloon_roles_handle_output);
    }
    s->inflate.vq = virtio_get_queue(vdev, VQ_INFLATE);
    s->deflate.vq = virtio_get_queue(vdev, VQ_DEFLATE);
}

static bool balloon_roles_is_size(int size)
{
    return size > 0 && size <= VIRTQUEUE_MAX_SIZE;
}

bool virtio_balloon_roles_mend(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    int count = virtio_balloon_roles_count(s);
    bool mended = false;

    for (int n = 0; n < VIRTIO_QUEUE_MAX; n++) {
        bool sized = balloon_roles_is_size(virtio_queue_get_num(vdev, n));
        int most = virtio_queue_get_max_num(vdev, n);

        if (n < count ? sized && balloon_roles_is_size(most) : !most) {
            continue;
        }
        mended |= n >= count || !sized || virtio_queue_get_desc_addr(vdev, n);
        virtio_queue_reset(vdev, n);
        virtio_del_queue(vdev, n);
        if (n < count) {
            virtio_add_queue(vdev, balloon_roles_ring_size(s, n),
                             balloon_roles_handle_output);
        }
    }
    return mended;
}

void virtio_balloon_roles_cleanup(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    for (int n = virtio_balloon_roles_count(s); vdev->vq && n-- > 0;) {
        virtio_del_queue(vdev, n);
    }
}
