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
 * The driver may make a packed ring smaller while it is in use; the core does
 * not check its own indices against the new size
 */
static bool balloon_driver_ring_has_place(VirtIODevice *vdev, int n)
{
    unsigned places = virtio_queue_get_last_avail_idx(vdev, n);
    unsigned size = virtio_queue_get_num(vdev, n);

    /*
     * last_avail_idx is in bits 0 to 14, used_idx in bits 16 to 30; bits 15 and
     * 31 are the wrap counters
     */
    return (places & 0x7fff) < size && (places >> 16 & 0x7fff) < size;
}

/* Are all rings in RAM, and the core's indices within them? */
static bool balloon_driver_rings_are_sound(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    for (int n = virtio_get_num_queues(vdev); n-- > 0;) {
        if (!virtio_queue_is_in_ram(vdev, n) ||
            (virtio_vdev_has_feature(vdev, VIRTIO_F_RING_PACKED) &&
             !balloon_driver_ring_has_place(vdev, n))) {
            return false;
        }
    }
    return true;
}

/* Is there a driver?  Legacy ones may use queues before DRIVER_OK. */
static bool balloon_driver_is_up(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return DEVICE(s)->realized && !vdev->disabled &&
           (virtio_balloon_driver_is_legacy(s) ||
            (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK));
}

bool virtio_balloon_is_live(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return vdev->vm_running && !vdev->broken && balloon_driver_is_up(s);
}

/*
 * To look a ring up may raise a fault in a vIOMMU, and the guest's handler of
 * its interrupt may stop the device: ask again afterwards
 */
bool virtio_balloon_may_serve(VirtIOBalloon *s)
{
    return virtio_balloon_is_live(s) && balloon_driver_rings_are_sound(s) &&
           virtio_balloon_is_live(s);
}

bool virtio_balloon_has_request(VirtIOBalloon *s, VirtQueue *vq)
{
    return virtio_balloon_may_serve(s) && !virtio_queue_empty(vq) &&
           virtio_balloon_is_live(s);
}

VirtQueueElement *virtio_balloon_pop(VirtIOBalloon *s, VirtQueue *vq)
{
    VirtQueueElement *elem = NULL;

    if (virtio_balloon_may_serve(s)) {
        elem = virtqueue_pop(vq, sizeof(*elem));
    }
    if (elem && !virtio_balloon_is_live(s)) {
        virtio_balloon_unpop(vq, g_steal_pointer(&elem));
    }
    return elem;
}

void virtio_balloon_unpop(VirtQueue *vq, VirtQueueElement *elem)
{
    /* virtqueue_unpop() would give back one descriptor, not the whole chain */
    virtqueue_rewind(vq, elem->ndescs);
    elem->ndescs = 0;
    virtqueue_detach_element(vq, elem, 0);
    g_free(elem);
}

static void balloon_driver_rings_fault(VirtIOBalloon *s)
{
    virtio_error(VIRTIO_DEVICE(s), "virtio-balloon: a ring is not in RAM, or"
                 " has become too small");
}

void virtio_balloon_push(VirtIOBalloon *s, VirtQueue *vq,
                         VirtQueueElement *elem)
{
    bool sound = balloon_driver_rings_are_sound(s);

    if (sound && balloon_driver_is_up(s)) {
        virtqueue_push_in_order(vq, elem, 0);
        s->answered |= 1u << virtio_get_queue_index(vq);
        g_free(elem);
        return;
    }
    virtio_balloon_unpop(vq, elem);
    if (!sound && virtio_balloon_is_live(s)) {
        balloon_driver_rings_fault(s);
    }
}

/* The guard of the device's registers; NULL if it has been unplugged */
static MemReentrancyGuard *balloon_driver_guard(VirtIOBalloon *s)
{
    BusState *bus = qdev_get_parent_bus(DEVICE(s));

    return bus ? &bus->parent->mem_reentrancy_guard : NULL;
}

bool virtio_balloon_enter(VirtIOBalloon *s)
{
    MemReentrancyGuard *guard = balloon_driver_guard(s);
    bool within = guard->engaged_in_io;

    guard->engaged_in_io = true;
    return within;
}

void virtio_balloon_leave(VirtIOBalloon *s, bool within)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    MemReentrancyGuard *guard = balloon_driver_guard(s);

    if (guard) {
        guard->engaged_in_io = within;
    }
    while (s->answered && DEVICE(s)->realized) {
        int n = ctz32(s->answered);

        s->answered &= s->answered - 1;
        virtio_notify_safely(vdev, virtio_get_queue(vdev, n));
    }
}

void virtio_balloon_driver_check(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (virtio_balloon_is_live(s) && !balloon_driver_rings_are_sound(s) &&
        virtio_balloon_is_live(s) &&
        (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        balloon_driver_rings_fault(s);
    }
}
