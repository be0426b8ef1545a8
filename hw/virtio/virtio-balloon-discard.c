/*
 * Virtio balloon: giving guest memory back to the host
 *
 * Where guest memory is, whether it may be discarded now, and what became of
 * it.  How the host takes memory back is ram_block_discard_ranges()'s to know.
 *
 * Ranges are gathered, so that pages which are not neighbours share a call.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "exec/address-spaces.h"
#include "exec/ramblock.h"
#include "hw/boards.h"
#include "hw/mem/memory-device.h"
#include "migration/misc.h"
#include "system/hostmem.h"
#include "system/runstate-action.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-balloon-coordinator.h"
#include "virtio-balloon-internal.h"

/*
 * Does anybody need guest memory to stay where it is?  If @told, those who
 * learn of discards from the coordinator do not count.
 */
static bool balloon_discard_is_pinned(VirtIOBalloon *s, bool told)
{
    if (!ram_block_discard_is_disabled()) {
        return false;
    }
    s->pages.was_pinned = s->pages.coordinator;
    return !(told && s->pages.coordinator &&
             balloon_coordinator_reaches_all(s->pages.coordinator));
}

static BalloonInhibitor balloon_discard_inhibitor(VirtIOBalloon *s, bool told)
{
    BalloonInhibitor inhibitor = BALLOON_INHIBITOR__MAX;

    /*
     * While QEMU exits vCPUs may still run, but migration must not be asked.
     * Devices or RDMA may have pinned the memory.  Incoming postcopy requests a
     * missing page only once, so a discarded one would never come.  A
     * background snapshot still has to read what it has not saved.
     */
    if (s->discard.exiting) {
        return BALLOON_INHIBITOR__MAX;
    } else if (balloon_discard_is_pinned(s, told) || migration_pins_ram()) {
        inhibitor = BALLOON_INHIBITOR_PINNED_MEMORY;
    } else if (migration_in_incoming_postcopy()) {
        inhibitor = BALLOON_INHIBITOR_INCOMING_POSTCOPY;
    } else if (migration_in_bg_snapshot()) {
        inhibitor = BALLOON_INHIBITOR_BACKGROUND_SNAPSHOT;
    }
    /*
     * Whatever inhibits may bring memory back that was discarded; pinning does
     * not if the coordinator tells of discards
     */
    if (inhibitor != BALLOON_INHIBITOR__MAX &&
        (told || !s->pages.coordinator)) {
        s->discard.was_inhibited = true;
    }
    return inhibitor;
}

BalloonInhibitor virtio_balloon_discard_inhibitor(VirtIOBalloon *s)
{
    return balloon_discard_inhibitor(s, virtio_balloon_driver_tells(s));
}

static bool balloon_may_discard(VirtIOBalloon *s, bool told)
{
    return virtio_balloon_is_live(s) && !s->discard.exiting &&
           balloon_discard_inhibitor(s, told) == BALLOON_INHIBITOR__MAX;
}

bool virtio_balloon_may_discard(VirtIOBalloon *s)
{
    return balloon_may_discard(s, false);
}

bool virtio_balloon_may_discard_pages(VirtIOBalloon *s)
{
    return balloon_may_discard(s, true);
}

void virtio_balloon_discard_skip(VirtIOBalloon *s, BalloonSkip cause,
                                 uint64_t size)
{
    if (size) {
        trace_virtio_balloon_skip(cause, size);
        s->counting->skipped[cause] += size;
    }
}

/* The host cannot do it; the user hears of it once for each backing */
static void balloon_discard_failed(VirtIOBalloon *s, RAMBlock *rb, int error,
                                   uint64_t size)
{
    bool readonly = error == -EACCES && (rb->flags & RAM_READONLY_FD);

    virtio_balloon_discard_skip(s, readonly ? BALLOON_SKIP_UNSUPPORTED :
                                              BALLOON_SKIP_REFUSED, size);
    if (g_hash_table_add(s->discard.warned, g_strdup(rb->idstr))) {
        warn_report("virtio-balloon: memory '%s' is not given back to the"
                    " host: %s", rb->idstr,
                    readonly ? "its file was opened for reading only" :
                               strerror(-error));
    }
}

void virtio_balloon_discard_flush(VirtIOBalloon *s)
{
    VirtIOBalloonDiscard *d = &s->discard;
    uint64_t before = s->counting->discarded;
    int ret;

    if (!d->vec_len) {
        return;
    }
    ret = ram_block_discard_ranges(d->vec_block, d->vec, d->vec_len,
                                   &s->counting->discarded,
                                   &s->counting->calls);
    trace_virtio_balloon_flush(d->vec_len, d->vec_bytes);
    if (ret) {
        balloon_discard_failed(s, d->vec_block, ret, d->vec_bytes -
                               (s->counting->discarded - before));
    }
    d->vec_len = 0;
    d->vec_bytes = 0;
}

/* Discard offsets into @rb, whole host pages of it */
static void balloon_discard_block(VirtIOBalloon *s, RAMBlock *rb,
                                  const BalloonRange *range)
{
    VirtIOBalloonDiscard *d = &s->discard;

    trace_virtio_balloon_discard(rb->idstr, range->start, range->size);
    if (d->vec_len && d->vec_block != rb) {
        virtio_balloon_discard_flush(s);
    }
    if (!d->vec_len) {
        d->vec_block = rb;
        d->vec_max = ram_block_discard_ranges_max(rb);
    }
    d->vec[d->vec_len++] = (struct iovec) { rb->host + range->start,
                                            range->size };
    d->vec_bytes += range->size;
    if (d->vec_len == d->vec_max || d->vec_bytes >= BALLOON_DISCARD_STEP) {
        virtio_balloon_discard_flush(s);
    }
}

/* Shrink @range to whole host pages; false, and counted, if none is left */
static bool balloon_trim_to_block(VirtIOBalloon *s, RAMBlock *rb,
                                  BalloonRange *range)
{
    uint64_t size = range->size;
    bool whole = balloon_range_trim(range, qemu_ram_pagesize(rb));

    virtio_balloon_discard_skip(s, BALLOON_SKIP_PARTIAL,
                                whole ? size - range->size : size);
    return whole;
}

/* Is @mr the memory of a plugged DIMM, or of a virtio-mem device? */
static bool balloon_region_is_plugged(MemoryRegion *mr)
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
 * Is @mr main memory?  Machines that do not set MachineState.ram have it in one
 * region of ram_size bytes.
 */
static bool balloon_region_is_main(MemoryRegion *mr)
{
    MemoryRegion *ram = current_machine->ram;

    return ram ? mr == ram || mr->container == ram :
           memory_region_size(mr) == current_machine->ram_size &&
           !object_dynamic_cast(memory_region_owner(mr), TYPE_MEMORY_BACKEND);
}

/*
 * The memory of NVDIMMs, virtio-pmem, ivshmem and other devices is persistent,
 * or shared, and not the guest's to give up.
 */
bool virtio_balloon_is_guest_ram(VirtIOBalloon *s, MemoryRegion *mr)
{
    gpointer plugged;

    if (!memory_region_is_ram(mr) || memory_region_is_rom(mr)) {
        return false;
    }
    if (balloon_region_is_main(mr)) {
        return true;
    }
    if (!g_hash_table_lookup_extended(s->discard.plugged, mr, NULL, &plugged)) {
        plugged = GINT_TO_POINTER(balloon_region_is_plugged(mr));
        g_hash_table_insert(s->discard.plugged, mr, plugged);
    }
    return GPOINTER_TO_INT(plugged);
}

void virtio_balloon_discard_block(VirtIOBalloon *s, RAMBlock *rb,
                                  BalloonRange *range)
{
    if (balloon_trim_to_block(s, rb, range)) {
        balloon_discard_block(s, rb, range);
    }
}

/* Why @mr is not the balloon's to give back */
static BalloonSkip balloon_region_skip_cause(MemoryRegion *mr)
{
    return mr->ram_block && (mr->ram_block->flags & RAM_READONLY_FD) ?
        BALLOON_SKIP_UNSUPPORTED : BALLOON_SKIP_NOT_RAM;
}

static void balloon_visit_section(VirtIOBalloon *s,
                                  MemoryRegionSection *section,
                                  BalloonBlockFn *fn, bool taken)
{
    BalloonRange range = {
        .start = section->offset_within_region,
        .size = int128_get64(section->size),
    };

    if (virtio_balloon_is_guest_ram(s, section->mr) &&
        !(section->readonly && taken)) {
        fn(s, section->mr->ram_block, &range);
    } else if (taken) {
        virtio_balloon_discard_skip(s, balloon_region_skip_cause(section->mr),
                                    range.size);
    }
}

void virtio_balloon_for_each_block(VirtIOBalloon *s, const BalloonRange *range,
                                   BalloonBlockFn *fn, bool taken)
{
    uint64_t start = range->start;
    uint64_t end = start + range->size;

    while (start < end) {
        MemoryRegionSection section =
            memory_region_find(get_system_memory(), start, end - start);
        uint64_t next = section.mr ? section.offset_within_address_space : end;

        if (taken) {
            virtio_balloon_discard_skip(s, BALLOON_SKIP_NOT_RAM, next - start);
        }
        start = next;
        if (section.mr) {
            balloon_visit_section(s, &section, fn, taken);
            start += int128_get64(section.size);
            memory_region_unref(section.mr);
        }
    }
}

/*
 * A private mapping shows its file's contents once the copy has gone; only
 * where the file goes as well, or is known to hold nothing, are there zeroes.
 */
static bool balloon_block_discards_to_zero(RAMBlock *rb,
                                           const BalloonRange *range)
{
    if (rb->fd < 0 || qemu_ram_is_shared(rb) || ram_block_owns_file(rb)) {
        return true;
    }
#ifdef CONFIG_LINUX
    if (qemu_ram_pagesize(rb) > qemu_real_host_page_size()) {
        struct stat st;

        /* hugetlbfs cannot tell holes, but counts what is there */
        return fstat(rb->fd, &st) == 0 && st.st_blocks == 0;
    }
#endif
#ifdef SEEK_DATA
    off_t start = rb->fd_offset + range->start;
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

    if (!rb || !virtio_balloon_is_guest_ram(s, rb->mr)) {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_NOT_RAM, iov->iov_len);
        return false;
    }
    *range = (BalloonRange) { (uintptr_t)iov->iov_base, iov->iov_len };
    return balloon_trim_to_block(s, rb, range);
}

uint64_t virtio_balloon_discard_host(VirtIOBalloon *s,
                                     const BalloonRange *range, bool zero)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host((void *)(uintptr_t)range->start,
                                            false, &offset);
    uint64_t step = MAX(BALLOON_DISCARD_STEP, qemu_ram_pagesize(rb));
    BalloonRange now = { offset, MIN(range->size, step) };

    if (zero && !balloon_block_discards_to_zero(rb, &now)) {
        virtio_balloon_discard_skip(s, BALLOON_SKIP_POISON, now.size);
    } else {
        balloon_discard_block(s, rb, &now);
    }
    return now.size;
}

/* The memory map has changed: forget what is known of MemoryRegions */
static void balloon_discard_memory_commit(MemoryListener *listener)
{
    VirtIOBalloonDiscard *d = container_of(listener, VirtIOBalloonDiscard,
                                           memory);

    g_hash_table_remove_all(d->plugged);
}

/*
 * Migration is torn down before vCPUs stop.  With -action shutdown=pause QEMU
 * stays, and so does migration.
 */
static void balloon_discard_shutdown(Notifier *notifier, void *data)
{
    VirtIOBalloonDiscard *d = container_of(notifier, VirtIOBalloonDiscard,
                                           shutdown);

    d->exiting = shutdown_action != SHUTDOWN_ACTION_PAUSE;
}

void virtio_balloon_discard_init(VirtIOBalloon *s)
{
    VirtIOBalloonDiscard *d = &s->discard;

    s->counting = &s->counts;
    d->vec = g_new(struct iovec, IOV_MAX);
    d->warned = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    d->plugged = g_hash_table_new(NULL, NULL);
    d->memory = (MemoryListener) {
        .name = "virtio-balloon",
        .commit = balloon_discard_memory_commit,
    };
    memory_listener_register(&d->memory, &address_space_memory);
    d->shutdown.notify = balloon_discard_shutdown;
    qemu_register_shutdown_notifier(&d->shutdown);
}

void virtio_balloon_discard_cleanup(VirtIOBalloon *s)
{
    VirtIOBalloonDiscard *d = &s->discard;

    notifier_remove(&d->shutdown);
    memory_listener_unregister(&d->memory);
    g_clear_pointer(&d->vec, g_free);
    g_clear_pointer(&d->warned, g_hash_table_unref);
    g_clear_pointer(&d->plugged, g_hash_table_unref);
}
