/* overlay: after ram_block_discard_guest_memfd_range */
bool ram_block_owns_file(RAMBlock *rb)
{
    Object *backend = memory_region_owner(rb->mr);
    g_autofree char *path = NULL;
    struct stat st;

    if (rb->fd < 0 || (rb->flags & RAM_READONLY_FD)) {
        return false;
    }
    if (!qemu_ram_is_named_file(rb)) {
        return true;
    }
    if (fstat(rb->fd, &st) < 0 || st.st_nlink) {
        return false;
    }
    /* A file that has no name now may have had one, and others have it open */
    path = backend ? object_property_get_str(backend, "mem-path", NULL) : NULL;
    return path && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
/* overlay: new */
static int ram_block_punch_hole(int fd, uint64_t offset, size_t length,
                                uint64_t *calls)
{
#ifdef CONFIG_FALLOCATE_PUNCH_HOLE
    ++*calls;
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                     length) ? -errno : 0;
#else
    return -ENOSYS;
#endif
}
/* overlay: new */
static int ram_block_drop(void *host, size_t length, int advice,
                          uint64_t *calls)
{
#ifdef CONFIG_MADVISE
    ++*calls;
    return madvise(host, length, advice) ? -errno : 0;
#else
    /* posix_madvise() may leave the memory as it is */
    return -ENOSYS;
#endif
}
/* overlay: new */
/*
 * A hole unmaps what is shared, and huge pages however they are mapped; other
 * private copies need to be dropped as well.
 */
static int ram_block_discard_one(RAMBlock *rb, const struct iovec *iov,
                                 uint64_t *calls)
{
    uint64_t start = (uint8_t *)iov->iov_base - rb->host;
    bool shared = qemu_ram_is_shared(rb);
    bool punch = rb->fd >= 0 && (shared || ram_block_owns_file(rb));
    bool drop = !punch ||
                (!shared && rb->page_size == qemu_real_host_page_size());
    int ret = 0;

    if (drop) {
        ret = ram_block_drop(iov->iov_base, iov->iov_len,
                             shared ? QEMU_MADV_REMOVE : QEMU_MADV_DONTNEED,
                             calls);
    }
    if (!ret && punch) {
        ret = ram_block_punch_hole(rb->fd, rb->fd_offset + start,
                                   iov->iov_len, calls);
        if (drop && ret == -EOPNOTSUPP) {
            ret = 0; /* The file never held what the copies did */
        }
    }
    if (!ret && rb->guest_memfd >= 0) {
        ret = ram_block_punch_hole(rb->guest_memfd, start, iov->iov_len,
                                   calls);
    }
    trace_ram_block_discard_range(rb->idstr, iov->iov_base, iov->iov_len,
                                  drop, punch, ret);
    return ret;
}
/* overlay: new */
/*
 * Not where a range needs two calls, one for its copy and one for its file, or
 * the host cannot do it
 */
static bool ram_block_takes_vector(RAMBlock *rb)
{
    return rb->guest_memfd < 0 &&
           (qemu_ram_is_shared(rb) || !ram_block_owns_file(rb)) &&
           qemu_madvise_vector(NULL, 0, QEMU_MADV_DONTNEED) == 0;
}
/* overlay: new */
size_t ram_block_discard_ranges_max(RAMBlock *rb)
{
    if (!ram_block_takes_vector(rb)) {
        return 64;
    }
    /* Shared pages are removed one by one within a call */
    return qemu_ram_is_shared(rb) ? 256 : IOV_MAX;
}
/* overlay: new */
/*
 * How many ranges, from the first on, gain from a common call: of shared memory
 * small ones only.
 */
static size_t ram_block_vector_length(RAMBlock *rb, const struct iovec *iov,
                                      size_t n)
{
    const size_t large = 64 * 1024;
    size_t k = 0;

    if (!qemu_ram_is_shared(rb)) {
        return n;
    }
    while (k < n && iov[k].iov_len < large) {
        k++;
    }
    return k;
}
/* overlay: new */
/* Returns: how many whole ranges, from the first on, were discarded */
static size_t ram_block_discard_vector(RAMBlock *rb, const struct iovec *iov,
                                       size_t n, uint64_t *calls)
{
    bool shared = qemu_ram_is_shared(rb);
    ssize_t bytes;
    size_t done = 0;

    if (shared) {
        /* Unmapped in one go; a hole where no page is mapped costs less */
        *calls += qemu_madvise_vector(iov, n, QEMU_MADV_DONTNEED) > 0;
    }
    bytes = qemu_madvise_vector(iov, n, shared ? QEMU_MADV_REMOVE :
                                                 QEMU_MADV_DONTNEED);
    *calls += bytes > 0;
    while (done < n && bytes >= (ssize_t)iov[done].iov_len) {
        bytes -= iov[done++].iov_len;
    }
    return done;
}
/* overlay: new */
int ram_block_discard_ranges(RAMBlock *rb, const struct iovec *iov, size_t n,
                             uint64_t *discarded, uint64_t *calls)
{
    bool vector = ram_block_takes_vector(rb);
    int first_error = 0;

    if (qemu_ram_is_shared(rb) && rb->fd >= 0 &&
        (rb->flags & RAM_READONLY_FD)) {
        return -EACCES;
    }
    while (n) {
        size_t k = vector ? ram_block_vector_length(rb, iov, n) : 0;
        size_t done = k > 1 ? ram_block_discard_vector(rb, iov, k, calls) : 0;

        if (!done) {
            int ret = ram_block_discard_one(rb, iov, calls);

            first_error = first_error ?: ret;
            *discarded += ret ? 0 : iov->iov_len;
            iov++;
            n--;
        }
        for (; done; done--, iov++, n--) {
            *discarded += iov->iov_len;
        }
    }
    return first_error;
}
/* overlay: new */
/*
 * Which of @n pages from @host on are private copies, in memory or swapped out?
 * mincore() would tell of the file below them.  Returns: false when the host
 * does not say.
 */
static bool ram_block_has_copies(const uint8_t *host, size_t n,
                                 uint8_t *resident)
{
#ifdef CONFIG_LINUX
    /* Of an entry of pagemap: in memory, swapped out, a page of the file */
    const uint64_t present = 1ull << 63, swapped = 1ull << 62;
    const uint64_t of_file = 1ull << 61;
    size_t size = n * sizeof(uint64_t);
    g_autofree uint64_t *entries = g_new(uint64_t, n);
    off_t offset = (uintptr_t)host / qemu_real_host_page_size() *
                   sizeof(uint64_t);
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && pread(fd, entries, size, offset) == size;

    for (size_t i = 0; ok && i < n; i++) {
        resident[i] = (entries[i] & swapped) ||
                      (entries[i] & (present | of_file)) == present;
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
#else
    return false;
#endif
}
/* overlay: new */
void ram_block_resident(RAMBlock *rb, uint64_t start, size_t length,
                        uint8_t *resident)
{
    uint8_t *host = rb->host + start;

    if (qemu_ram_is_shared(rb) || ram_block_owns_file(rb)) {
#ifdef CONFIG_LINUX
        if (mincore(host, length, resident) == 0) {
            return;
        }
#endif
    } else if (ram_block_has_copies(host, length / qemu_real_host_page_size(),
                                    resident)) {
        return;
    }
    memset(resident, 1, DIV_ROUND_UP(length, qemu_real_host_page_size()));
}
