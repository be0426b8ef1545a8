/*
 * Virtio balloon: giving guest memory back to the host
 *
 * What is right depends on the backing:
 *
 *  - private memory is dropped with MADV_DONTNEED.  Where it maps a file, the
 *    guest's copy goes and the file, which others may use, stays as it is;
 *  - shared memory with a file descriptor gets a hole punched, which unmaps
 *    it as well;
 *  - shared memory without one takes MADV_REMOVE, which punches a hole, too.
 *
 * Ranges are gathered, so that pages which are not neighbours cost one system
 * call, or two of shared memory, where the kernel lets a process advise itself
 * with process_madvise() (Linux 6.13 and later).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#ifdef CONFIG_LINUX
#include <sys/syscall.h>
#endif
#include "qemu/error-report.h"
#include "qemu/madvise.h"
#include "qemu/units.h"
#include "exec/address-spaces.h"
#include "exec/ramblock.h"
#include "hw/boards.h"
#include "hw/mem/memory-device.h"
#include "migration/misc.h"
#include "trace.h"
#include "virtio-balloon-internal.h"

/* As many as the kernel takes at a time */
#define VEC_MAX 1024
/* Shared pages go one by one within a call: a millisecond's work */
#define VEC_SHARED_MAX 256
/* A range this large gains nothing from being unmapped with others */
#define VEC_SHARED_SIZE (64 * KiB)

typedef enum DiscardMethod {
    METHOD_NONE,
    METHOD_DONTNEED,
    METHOD_REMOVE,
    METHOD_PUNCH,
} DiscardMethod;

BalloonInhibitor virtio_balloon_discard_inhibitor(void)
{
    /*
     * Devices may have pinned the memory.  A page that postcopy waits for
     * would be asked for twice.  A background snapshot still has to read it.
     */
    return ram_block_discard_is_disabled() ? BALLOON_INHIBITOR_PINNED_MEMORY :
           migration_in_incoming_postcopy() ?
               BALLOON_INHIBITOR_INCOMING_POSTCOPY :
           migration_in_bg_snapshot() ?
               BALLOON_INHIBITOR_BACKGROUND_SNAPSHOT : BALLOON_INHIBITOR__MAX;
}

bool virtio_balloon_discard_inhibited(void)
{
    return virtio_balloon_discard_inhibitor() != BALLOON_INHIBITOR__MAX;
}

void virtio_balloon_discard_skip(VirtIOBalloon *s, BalloonSkip cause,
                                 uint64_t size)
{
    if (size) {
        trace_virtio_balloon_skip(cause, size);
        s->discard.skipped[cause] += size;
    }
}

/* The host cannot do it; the user hears of it once for each backing */
static void discard_failed(VirtIOBalloon *s, RAMBlock *rb, BalloonSkip cause,
                           uint64_t size, const char *why)
{
    virtio_balloon_discard_skip(s, cause, size);
    if (g_hash_table_add(s->discard.warned, g_strdup(rb->idstr))) {
        warn_report("virtio-balloon: memory '%s' is not given back to the"
                    " host: %s", rb->idstr, why);
    }
}

#ifdef SYS_process_madvise
/* Try on a page of our own whether the kernel lets a process advise itself */
static int process_madvise_probe(void)
{
    size_t size = qemu_real_host_page_size();
    int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
    struct iovec iov = {
        .iov_base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        .iov_len = size,
    };

    if (pidfd >= 0 && iov.iov_base != MAP_FAILED &&
        syscall(SYS_process_madvise, pidfd, &iov, 1,
                QEMU_MADV_DONTNEED, 0) != size) {
        close(pidfd);
        pidfd = -1;
    }
    if (iov.iov_base != MAP_FAILED) {
        munmap(iov.iov_base, size);
    }
    return pidfd;
}

/* Returns how many bytes were advised, from the first range on */
static size_t advise_vector(const struct iovec *iov, unsigned n, int advice)
{
    static int pidfd = -2;
    ssize_t ret;

    if (pidfd == -2) {
        pidfd = process_madvise_probe();
    }
    if (pidfd < 0) {
        return 0;
    }
    ret = syscall(SYS_process_madvise, pidfd, iov, n, advice, 0);
    return MAX(ret, 0);
}
#else
static size_t advise_vector(const struct iovec *iov, unsigned n, int advice)
{
    return 0;
}
#endif

static int punch_hole(RAMBlock *rb, ram_addr_t offset, size_t size)
{
#ifdef CONFIG_FALLOCATE_PUNCH_HOLE
    return fallocate(rb->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     rb->fd_offset + offset, size);
#else
    errno = ENOSYS;
    return -1;
#endif
}

static DiscardMethod block_method(RAMBlock *rb)
{
    if (!qemu_ram_is_shared(rb)) {
        return METHOD_DONTNEED;
    }
    if (rb->fd < 0) {
        return METHOD_REMOVE;
    }
    return rb->flags & RAM_READONLY_FD ? METHOD_NONE : METHOD_PUNCH;
}

/* Discard one range of gathered memory, by the method that suits it best */
static void discard_one(VirtIOBalloon *s, const struct iovec *iov)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(iov->iov_base, false, &offset);
    int ret;

    switch (block_method(rb)) {
    case METHOD_PUNCH:
        ret = punch_hole(rb, offset, iov->iov_len);
        break;
    case METHOD_REMOVE:
        ret = qemu_madvise(iov->iov_base, iov->iov_len, QEMU_MADV_REMOVE);
        break;
    default:
        ret = qemu_madvise(iov->iov_base, iov->iov_len, QEMU_MADV_DONTNEED);
        break;
    }
    s->discard.calls++;
    if (ret == 0) {
        s->discard.discarded += iov->iov_len;
    } else {
        discard_failed(s, rb, BALLOON_SKIP_REFUSED, iov->iov_len,
                       strerror(errno));
    }
}

/* Returns how many of the gathered bytes were discarded, from the first on */
static size_t discard_vector(VirtIOBalloon *s)
{
    VirtIOBalloonDiscard *d = &s->discard;
    int advice = d->vec_shared ? QEMU_MADV_REMOVE : QEMU_MADV_DONTNEED;
    size_t done;

    if (d->vec_shared) {
        /* All in one go; a hole then costs less than where a page is mapped */
        d->calls += advise_vector(d->vec, d->vec_len, QEMU_MADV_DONTNEED) > 0;
    }
    done = advise_vector(d->vec, d->vec_len, advice);
    d->calls += done > 0;
    d->discarded += done;
    return done;
}

void virtio_balloon_discard_flush(VirtIOBalloon *s)
{
    VirtIOBalloonDiscard *d = &s->discard;
    size_t done = 0;

    if (d->vec_len > 1) {
        done = discard_vector(s);
    }
    for (unsigned i = 0; i < d->vec_len; i++) {
        if (done >= d->vec[i].iov_len) {
            done -= d->vec[i].iov_len;
        } else {
            /* A range done in part is done once more: it holds nothing now */
            s->discard.discarded -= done;
            done = 0;
            discard_one(s, &d->vec[i]);
        }
    }
    if (d->vec_len) {
        trace_virtio_balloon_flush(d->vec_len, d->vec_bytes);
    }
    d->vec_len = 0;
    d->vec_bytes = 0;
    /* Devices may come and go when the BQL is let go */
    d->region = NULL;
}

static void gather(VirtIOBalloon *s, bool shared, const struct iovec *iov)
{
    VirtIOBalloonDiscard *d = &s->discard;

    if (d->vec_len && d->vec_shared != shared) {
        virtio_balloon_discard_flush(s);
    }
    d->vec_shared = shared;
    d->vec[d->vec_len++] = *iov;
    d->vec_bytes += iov->iov_len;
    if (d->vec_len == (shared ? VEC_SHARED_MAX : VEC_MAX) ||
        d->vec_bytes >= BALLOON_DISCARD_STEP) {
        virtio_balloon_discard_flush(s);
    }
}

/* Discard offsets into @rb, whole host pages of it */
static void discard_block(VirtIOBalloon *s, RAMBlock *rb,
                          const BalloonRange *range)
{
    struct iovec iov = { rb->host + range->start, range->size };
    bool shared = qemu_ram_is_shared(rb);

    trace_virtio_balloon_discard(rb->idstr, range->start, range->size);
    if (block_method(rb) == METHOD_NONE) {
        discard_failed(s, rb, BALLOON_SKIP_UNSUPPORTED, range->size,
                       "its file was opened for reading only");
    } else if (shared && range->size >= VEC_SHARED_SIZE) {
        discard_one(s, &iov);
    } else {
        gather(s, shared, &iov);
    }
}

/* Shrink @range to whole host pages; false, and counted, if none is left */
static bool trim_to_block(VirtIOBalloon *s, RAMBlock *rb, BalloonRange *range)
{
    uint64_t size = range->size;
    bool whole = balloon_range_trim(range, qemu_ram_pagesize(rb));

    virtio_balloon_discard_skip(s, BALLOON_SKIP_PARTIAL,
                                whole ? size - range->size : size);
    return whole;
}

/* Is @mr the memory of a plugged DIMM, or of a virtio-mem device? */
static bool region_is_plugged(MemoryRegion *mr)
{
    Object *owner = memory_region_owner(mr);
    g_autofree char *path = owner ? object_get_canonical_path(owner) : NULL;
    MemoryDeviceInfoList *list = qmp_memory_device_list();
    bool found = false;

    for (MemoryDeviceInfoList *item = list; item && !found;
         item = item->next) {
        MemoryDeviceInfo *info = item->value;
        const char *memdev =
            info->type == MEMORY_DEVICE_INFO_KIND_DIMM ?
                info->u.dimm.data->memdev :
            info->type == MEMORY_DEVICE_INFO_KIND_VIRTIO_MEM ?
                info->u.virtio_mem.data->memdev : NULL;

        found = memdev && !g_strcmp0(memdev, path);
    }
    qapi_free_MemoryDeviceInfoList(list);
    return found;
}

/*
 * The machine's memory is the balloon's to give back.  NVDIMMs, virtio-pmem,
 * ivshmem and other devices have memory as well, which is to be kept or is
 * somebody else's.
 */
static bool region_is_guest_ram(VirtIOBalloon *s, MemoryRegion *mr)
{
    MemoryRegion *ram = current_machine->ram;

    if (!memory_region_is_ram(mr) || memory_region_is_rom(mr)) {
        return false;
    }
    if (mr == ram || mr->container == ram) {
        return true;
    }
    if (s->discard.region != mr) {
        s->discard.region = mr;
        s->discard.region_is_plugged = region_is_plugged(mr);
    }
    return s->discard.region_is_plugged;
}

void virtio_balloon_discard_block(VirtIOBalloon *s, RAMBlock *rb,
                                  BalloonRange *range)
{
    if (trim_to_block(s, rb, range)) {
        discard_block(s, rb, range);
    }
}

/* Why it is that @mr is not ours to give back */
static BalloonSkip region_skip_cause(MemoryRegion *mr)
{
    return mr->ram_block && (mr->ram_block->flags & RAM_READONLY_FD) ?
        BALLOON_SKIP_UNSUPPORTED : BALLOON_SKIP_NOT_RAM;
}

static void visit_section(VirtIOBalloon *s, MemoryRegionSection *section,
                          BalloonBlockFn *fn, BalloonSkipFn *skip)
{
    BalloonRange range = {
        .start = section->offset_within_region,
        .size = int128_get64(section->size),
    };

    if (!region_is_guest_ram(s, section->mr) || section->readonly) {
        skip(s, region_skip_cause(section->mr), range.size);
    } else {
        fn(s, section->mr->ram_block, &range);
    }
}

void virtio_balloon_for_each_block(VirtIOBalloon *s, const BalloonRange *range,
                                   BalloonBlockFn *fn, BalloonSkipFn *skip)
{
    uint64_t start = range->start;
    uint64_t end = start + range->size;

    while (start < end) {
        MemoryRegionSection section =
            memory_region_find(get_system_memory(), start, end - start);
        uint64_t next = section.offset_within_address_space;

        if (!section.mr) {
            skip(s, BALLOON_SKIP_NOT_RAM, end - start);
            return;
        }
        skip(s, BALLOON_SKIP_NOT_RAM, next - start);
        visit_section(s, &section, fn, skip);
        start = next + int128_get64(section.size);
        memory_region_unref(section.mr);
    }
}

/*
 * A private mapping shows its file's contents once the copy has gone; only
 * where the file is known to hold nothing does it read as zero.
 */
static bool block_discards_to_zero(RAMBlock *rb, const BalloonRange *range)
{
    off_t start = rb->fd_offset + range->start;
    struct stat st;

    if (rb->fd < 0 || qemu_ram_is_shared(rb)) {
        return true;
    }
    if (qemu_ram_pagesize(rb) > qemu_real_host_page_size()) {
        /* hugetlbfs cannot tell holes, but counts what is there */
        return fstat(rb->fd, &st) == 0 && st.st_blocks == 0;
    }
#ifdef SEEK_DATA
    off_t data = lseek(rb->fd, start, SEEK_DATA);

    return data < 0 ? errno == ENXIO : data >= start + range->size;
#else
    return false;
#endif
}

bool virtio_balloon_discard_host_range(VirtIOBalloon *s,
                                       const struct iovec *iov,
                                       BalloonRange *range)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(iov->iov_base, false, &offset);

    if (!rb || !region_is_guest_ram(s, rb->mr)) {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_NOT_RAM, iov->iov_len);
        return false;
    }
    *range = (BalloonRange) { (uintptr_t)iov->iov_base, iov->iov_len };
    return trim_to_block(s, rb, range);
}

uint64_t virtio_balloon_discard_host(VirtIOBalloon *s,
                                     const BalloonRange *range, bool zero)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host((void *)(uintptr_t)range->start,
                                            false, &offset);
    uint64_t step = MAX(BALLOON_DISCARD_STEP, qemu_ram_pagesize(rb));
    BalloonRange now = { offset, MIN(range->size, step) };

    if (zero && !block_discards_to_zero(rb, &now)) {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_POISON, now.size);
    } else {
        discard_block(s, rb, &now);
    }
    return now.size;
}

void virtio_balloon_discard_init(VirtIOBalloon *s)
{
    s->discard.vec = g_new(struct iovec, VEC_MAX);
    s->discard.warned = g_hash_table_new_full(g_str_hash, g_str_equal,
                                              g_free, NULL);
}

void virtio_balloon_discard_cleanup(VirtIOBalloon *s)
{
    g_clear_pointer(&s->discard.vec, g_free);
    g_clear_pointer(&s->discard.warned, g_hash_table_unref);
}
