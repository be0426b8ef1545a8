/* overlay: after qemu_shm_alloc */
/*
 * Returns: a handle on this process, or -1 if the kernel does not let a process
 * advise itself; tried on a page of its own.
 */
static int madvise_vector_probe(void)
{
#ifdef SYS_process_madvise
    size_t size = qemu_real_host_page_size();
    int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
    struct iovec iov = {
        .iov_base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        .iov_len = size,
    };

    if (pidfd >= 0 && (iov.iov_base == MAP_FAILED ||
                       syscall(SYS_process_madvise, pidfd, &iov, 1,
                               MADV_DONTNEED, 0) != size)) {
        close(pidfd);
        pidfd = -1;
    }
    if (iov.iov_base != MAP_FAILED) {
        munmap(iov.iov_base, size);
    }
    return pidfd;
#else
    return -1;
#endif
}
/* overlay: new */
ssize_t qemu_madvise_vector(const struct iovec *iov, size_t n, int advice)
{
    static gsize probed;
    static int pidfd;

    if (g_once_init_enter(&probed)) {
        pidfd = madvise_vector_probe();
        g_once_init_leave(&probed, 1);
    }
#ifdef SYS_process_madvise
    if (pidfd >= 0) {
        ssize_t done = n ? syscall(SYS_process_madvise, pidfd, iov, n, advice,
                                   0) : 0;

        return done < 0 ? -errno : done;
    }
#endif
    return -ENOSYS;
}
