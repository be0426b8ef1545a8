/* overlay: after qemu_madvise */
/**
 * qemu_madvise_vector: advise on scattered memory of this process in one call
 * @iov: host memory; each range begins and ends with a host page
 * @n: how many ranges, at most IOV_MAX; 0 only asks whether the host does it
 * @advice: QEMU_MADV_*
 *
 * Returns: how many bytes were advised on, from the first range on, or a
 * negative errno: -ENOSYS where the host does not do it (Linux before 6.13).
 */
ssize_t qemu_madvise_vector(const struct iovec *iov, size_t n, int advice);
