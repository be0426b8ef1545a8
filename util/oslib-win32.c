/* overlay: after qemu/cutils.h */
#include "qemu/madvise.h"
/* overlay: after qemu_shm_alloc */
ssize_t qemu_madvise_vector(const struct iovec *iov, size_t n, int advice)
{
    return -ENOSYS;
}
