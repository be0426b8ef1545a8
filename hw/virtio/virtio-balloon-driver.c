/*
 * Virtio balloon: the guest's driver, as far as the virtio core knows it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-internal.h"

bool virtio_balloon_driver_is_legacy(VirtIOBalloon *s)
{
    return !virtio_vdev_has_feature(VIRTIO_DEVICE(s), VIRTIO_F_VERSION_1);
}

bool virtio_balloon_driver_tells(VirtIOBalloon *s)
{
    return s->pages.blocks &&
           virtio_vdev_has_feature(VIRTIO_DEVICE(s),
                                   VIRTIO_BALLOON_F_MUST_TELL_HOST);
}

bool virtio_balloon_driver_runs(VirtIOBalloon *s, uint8_t status)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return virtio_device_started(vdev, status) && !vdev->broken;
}

/*
 * Are the rings there, and has the device its place within each?  The core does
 * not check that of a packed ring, which the driver may have made smaller.  Of
 * a driver that is not up there are none, but for a legacy one's.
 */
static bool driver_rings_are_sound(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (!DEVICE(s)->realized ||
        !(virtio_balloon_driver_is_legacy(s) ||
          (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK))) {
        return false;
    }
    if (!virtio_vdev_has_feature(vdev, VIRTIO_F_RING_PACKED)) {
        return true;
    }
    for (int n = virtio_get_num_queues(vdev); n-- > 0;) {
        unsigned places = virtio_queue_get_last_avail_idx(vdev, n);
        unsigned size = virtio_queue_get_num(vdev, n);

        /* One for what the driver has left, one for what goes back to it */
        if ((places & 0x7fff) >= size || (places >> 16 & 0x7fff) >= size) {
            return false;
        }
    }
    return true;
}

void virtio_balloon_push(VirtIOBalloon *s, VirtQueue *vq,
                         VirtQueueElement *elem)
{
    if (driver_rings_are_sound(s)) {
        s->answering++;
        virtqueue_push(vq, elem, 0);
        s->answering--;
    } else {
        virtqueue_detach_element(vq, elem, 0);
    }
    g_free(elem);
}

void virtio_balloon_notify(VirtIOBalloon *s, VirtQueue *vq)
{
    if (DEVICE(s)->realized) {
        s->answering++;
        virtio_notify(VIRTIO_DEVICE(s), vq);
        s->answering--;
    }
}

bool virtio_balloon_may_serve(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return vdev->vm_running && !vdev->broken && !vdev->disabled &&
           driver_rings_are_sound(s);
}
