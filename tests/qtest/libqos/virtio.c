/* overlay: after qvirtio_writeq */
static uint16_t qvirtio_ring16(QVirtioDevice *d, QTestState *qts, uint16_t val)
{
    bool little = d->features & (1ull << VIRTIO_F_VERSION_1) ||
                  !qtest_big_endian(qts);

    return little ? cpu_to_le16(val) : cpu_to_be16(val);
}
/*
 * Lay an empty ring at @addr: all descriptors are free, and linked.
 *
 * One write for all of it: each takes its time, and rings are set up often.
 */
void qvring_init(QTestState *qts, const QGuestAllocator *alloc, QVirtQueue *vq,
                 uint64_t addr)
{
    struct vring_desc *table;
    g_autofree void *ring = NULL;
    uint64_t end;

    vq->desc = addr;
    vq->avail = addr + vq->size * sizeof(*table);
    /* Either ring ends with the index of an event */
    vq->used = ROUND_UP(vq->avail +
                        offsetof(struct vring_avail, ring[vq->size + 1]),
                        (uint64_t)vq->align);
    end = vq->used + offsetof(struct vring_used, ring[vq->size]) +
          sizeof(uint16_t);
    ring = table = g_malloc0(end - addr);
    for (uint32_t i = 0; i + 1 < vq->size; i++) {
        table[i].next = qvirtio_ring16(vq->vdev, qts, i + 1);
    }
    qtest_memwrite(qts, addr, ring, end - addr);
}
