/* overlay: after virtio_queue_get_used_size */
/*
 * Can queue @n be served without doing more than to access memory: is all of
 * its ring in RAM?  True, too, if it has none.
 *
 * To pop from, or push to, a ring in registers may do anything to any device:
 * reset, reconfigure or unplug the one that does it.
 */
bool virtio_queue_is_in_ram(VirtIODevice *vdev, int n);
/* overlay: new */
/*
 * Is what a split ring in RAM says of queue @n in keeping with its place there?
 * A state for which it is not may be refused when it is loaded.  True for other
 * rings.
 */
bool virtio_queue_is_consistent(VirtIODevice *vdev, int n);
/* overlay: new */
/*
 * Notify the driver of what is used in @vq.  Where an IOMMU is between, it is
 * not asked whether it wants that: a fault could unplug the device.
 */
void virtio_notify_safely(VirtIODevice *vdev, VirtQueue *vq);
/* overlay: new */
/*
 * virtqueue_push() for devices that return requests in the order in which they
 * popped them.  With VIRTIO_F_IN_ORDER the core marks what was returned before
 * its turn, and neither a reset nor a new ring clears that.  Of such a device
 * only @elem may be marked: other marks are left over from a hostile driver,
 * and may be beyond the end of the ring.
 */
void virtqueue_push_in_order(VirtQueue *vq, const VirtQueueElement *elem,
                             unsigned int len);
