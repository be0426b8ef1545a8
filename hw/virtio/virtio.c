/* overlay: after vring_get_region_caches */
/* Called within rcu_read_lock() */
static bool vring_part_is_in_ram(VirtIODevice *vdev, hwaddr addr, hwaddr size,
                                 const MemoryRegionCache *cache, bool is_write)
{
    /* What an IOMMU has between is not in the cache */
    while (!cache->ptr && size) {
        hwaddr xlat, len = size;
        MemoryRegion *mr = address_space_translate(vdev->dma_as, addr, &xlat,
                                                   &len, is_write,
                                                   MEMTXATTRS_UNSPECIFIED);

        if (!memory_region_is_ram(mr)) {
            return false;
        }
        addr += len;
        size -= len;
    }
    return true;
}
/* overlay: after virtio_queue_get_used_size */
bool virtio_queue_is_in_ram(VirtIODevice *vdev, int n)
{
    VRing *vring = &vdev->vq[n].vring;
    VRingMemoryRegionCaches *caches;

    RCU_READ_LOCK_GUARD();
    caches = vring_get_region_caches(&vdev->vq[n]);
    if (!caches) {
        return !vring->desc;
    }
    return vring_part_is_in_ram(vdev, vring->desc,
                                virtio_queue_get_desc_size(vdev, n),
                                &caches->desc, false) &&
           vring_part_is_in_ram(vdev, vring->avail,
                                virtio_queue_get_avail_size(vdev, n),
                                &caches->avail, false) &&
           vring_part_is_in_ram(vdev, vring->used,
                                virtio_queue_get_used_size(vdev, n),
                                &caches->used, true);
}
/* overlay: new */
bool virtio_queue_is_consistent(VirtIODevice *vdev, int n)
{
    VirtQueue *vq = &vdev->vq[n];
    VRingMemoryRegionCaches *caches;
    uint16_t waiting, in_use;

    RCU_READ_LOCK_GUARD();
    caches = vring_get_region_caches(vq);
    if (!vq->vring.desc ||
        virtio_vdev_has_feature(vdev, VIRTIO_F_RING_PACKED) ||
        (caches && (!caches->avail.ptr || !caches->used.ptr))) {
        return true;
    }
    waiting = vring_avail_idx(vq) - vq->last_avail_idx;
    in_use = vq->last_avail_idx - vring_used_idx(vq);
    return waiting <= vq->vring.num && in_use <= vq->vring.num;
}
/* overlay: new */
void virtio_notify_safely(VirtIODevice *vdev, VirtQueue *vq)
{
    bool is_mapped = false;

    WITH_RCU_READ_LOCK_GUARD() {
        VRingMemoryRegionCaches *caches = vring_get_region_caches(vq);

        is_mapped = caches && caches->avail.ptr && caches->used.ptr;
    }
    if (is_mapped) {
        virtio_notify(vdev, vq);
    } else {
        virtio_irq(vq);
    }
}
/* overlay: new */
void virtqueue_push_in_order(VirtQueue *vq, const VirtQueueElement *elem,
                             unsigned int len)
{
    if (virtio_vdev_has_feature(vq->vdev, VIRTIO_F_IN_ORDER)) {
        unsigned int i = vq->used_idx % vq->vring.num;

        vq->used_elems[i].in_order_filled = false;
        i += vq->used_elems[i].ndescs;
        i -= i >= vq->vring.num ? vq->vring.num : 0;
        vq->used_elems[i].in_order_filled = false;
    }
    virtqueue_push(vq, elem, len);
}
