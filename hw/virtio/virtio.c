/* overlay: after vring_get_region_caches */
bool virtio_queue_is_in_ram(VirtIODevice *vdev, int n)
{
    VirtQueue *vq = &vdev->vq[n];
    VRingMemoryRegionCaches *caches;

    RCU_READ_LOCK_GUARD();
    caches = vring_get_region_caches(vq);
    if (!caches) {
        return !vq->vring.desc;
    }
    return caches->desc.ptr && caches->avail.ptr && caches->used.ptr;
}
