/*
 * Discards of main memory that everybody who pins it is told of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/cpu-common.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "migration/blocker.h"
#include "migration/misc.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-balloon-coordinator.h"

#define CHILD "virtio-balloon-coordinator"

/* A guest that goes on at once waits no longer than this; nanoseconds */
#define AT_ONCE_NS (500 * SCALE_US)
/* While the machine stands, commands are answered as often */
#define HELD_SLICE_NS (5 * SCALE_MS)
/* How long to leave the host alone when it has said no; milliseconds */
#define RETRY_MS 100

/* One region of RAM; it stays for as long as the machine */
typedef struct CoordinatedRegion {
    MemoryRegion *mr;
    uint64_t size;
    uint64_t granule;
    unsigned long n;
    /* granules that the listeners know to be discarded */
    unsigned long *discarded;
    /* those of them that are the guest's, and are still to be populated */
    unsigned long *wanted;
} CoordinatedRegion;

/* Somebody who pins a section of a region */
typedef struct CoordinatedListener {
    RamDiscardListener *rdl;
    /* it could not have its section when it came, and has nothing of it */
    bool lacks;
} CoordinatedListener;

struct BalloonCoordinator {
    Object parent;

    uint64_t granule;
    GArray *regions;
    GArray *listeners;
    /* there while there are listeners */
    Error *blocker;
    /* tells that memory changed: is there an IOMMU for the guest?  -1: ask */
    MemoryListener memory;
    int viommu;

    /* bytes that are wanted, and why the last of them did not come */
    uint64_t wanted;
    int error;
    bool warned;
    /* populates them while the machine stands: follows the host's clock */
    QEMUTimer *timer;
    /* it stands because of us, and goes on when all is populated */
    bool holding;
    /* told of each attempt while it stands */
    NotifierList notifiers;
};

static CoordinatedRegion *coordinator_region(const BalloonCoordinator *c,
                                             const MemoryRegion *mr)
{
    for (guint i = 0; i < c->regions->len; i++) {
        CoordinatedRegion *r = &g_array_index(c->regions, CoordinatedRegion, i);

        if (r->mr == mr) {
            return r;
        }
    }
    return NULL;
}

static CoordinatedListener *coordinator_listener(BalloonCoordinator *c, guint i)
{
    return &g_array_index(c->listeners, CoordinatedListener, i);
}

/* The part of @section from @start to before @end; false if that is nothing */
static bool section_part(const MemoryRegionSection *section, uint64_t start,
                         uint64_t end, MemoryRegionSection *part)
{
    uint64_t first = section->offset_within_region;

    start = MAX(start, first);
    end = MIN(end, first + int128_get64(section->size));
    *part = *section;
    part->offset_within_region = start;
    part->offset_within_address_space += start - first;
    part->size = int128_make64(end - start);
    return start < end;
}

static uint64_t region_offset(const CoordinatedRegion *r, unsigned long g)
{
    return MIN(g * r->granule, r->size);
}

/*
 * Find the next run of granules, from *@g on, that are discarded, or else
 * populated.  Returns: their number, and the first of them in *@g; 0 for none.
 */
static unsigned long region_next_run(const CoordinatedRegion *r, bool discarded,
                                     unsigned long *g)
{
    if (discarded) {
        *g = find_next_bit(r->discarded, r->n, *g);
        return find_next_zero_bit(r->discarded, r->n, *g) - *g;
    }
    *g = find_next_zero_bit(r->discarded, r->n, *g);
    return find_next_bit(r->discarded, r->n, *g) - *g;
}

/*
 * Call @fn for each part of @section that is discarded, or else populated,
 * until it fails; not for what begins at offset @stop of the region
 */
static int region_replay(const CoordinatedRegion *r, bool discarded,
                         const MemoryRegionSection *section, uint64_t *stop,
                         ReplayRamPopulate fn, void *opaque)
{
    unsigned long g = section->offset_within_region / r->granule;
    MemoryRegionSection part;
    unsigned long n;

    for (; (n = region_next_run(r, discarded, &g)); g += n) {
        uint64_t start = region_offset(r, g);
        int ret;

        if (!section_part(section, start, region_offset(r, g + n), &part)) {
            break;
        }
        if (part.offset_within_region == *stop) {
            break;
        }
        ret = fn(&part, opaque);
        if (ret) {
            *stop = part.offset_within_region;
            return ret;
        }
    }
    return 0;
}

/* --- listeners ----------------------------------------------------------- */

static int listener_populate(MemoryRegionSection *part, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    return rdl->notify_populate(rdl, part);
}

static int listener_discard(MemoryRegionSection *part, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    rdl->notify_discard(rdl, part);
    return 0;
}

/* Let a listener have what is populated of its section: all of it or nothing */
static void listener_fill(BalloonCoordinator *c, CoordinatedListener *l)
{
    MemoryRegionSection *section = l->rdl->section;
    CoordinatedRegion *r = coordinator_region(c, section->mr);
    uint64_t stop = UINT64_MAX;
    int ret = region_replay(r, false, section, &stop, listener_populate,
                            l->rdl);

    l->lacks = ret;
    if (ret) {
        c->error = ret;
        region_replay(r, false, section, &stop, listener_discard, l->rdl);
    }
}

/* Tell the listeners before number @n that something is discarded */
static void coordinator_tell_discard(BalloonCoordinator *c, MemoryRegion *mr,
                                     uint64_t start, uint64_t end, guint n)
{
    MemoryRegionSection part;

    for (guint i = 0; i < n; i++) {
        CoordinatedListener *l = coordinator_listener(c, i);

        if (l->rdl->section->mr == mr && !l->lacks &&
            section_part(l->rdl->section, start, end, &part)) {
            l->rdl->notify_discard(l->rdl, &part);
        }
    }
}

/* All listeners have it, or an error is returned and none has */
static int coordinator_tell_populate(BalloonCoordinator *c, MemoryRegion *mr,
                                     uint64_t start, uint64_t end)
{
    MemoryRegionSection part;

    for (guint i = 0; i < c->listeners->len; i++) {
        CoordinatedListener *l = coordinator_listener(c, i);

        if (l->rdl->section->mr == mr && !l->lacks &&
            section_part(l->rdl->section, start, end, &part)) {
            int ret = l->rdl->notify_populate(l->rdl, &part);

            if (ret) {
                coordinator_tell_discard(c, mr, start, end, i);
                return ret;
            }
        }
    }
    return 0;
}

static void region_set_wanted(BalloonCoordinator *c, CoordinatedRegion *r,
                              unsigned long g, bool wanted)
{
    uint64_t size = region_offset(r, g + 1) - region_offset(r, g);

    if (wanted != test_bit(g, r->wanted)) {
        change_bit(g, r->wanted);
        c->wanted += wanted ? size : -size;
    }
}

/* Granule @g is discarded.  Returns: 0, or a negative errno, and it still is */
static int region_populate(BalloonCoordinator *c, CoordinatedRegion *r,
                           unsigned long g)
{
    int ret = coordinator_tell_populate(c, r->mr, region_offset(r, g),
                                        region_offset(r, g + 1));

    trace_virtio_balloon_coordinator_populate(memory_region_name(r->mr),
                                              region_offset(r, g), ret);
    if (!ret) {
        clear_bit(g, r->discarded);
        region_set_wanted(c, r, g, false);
    }
    return ret;
}

/* --- the machine stands -------------------------------------------------- */

static bool coordinator_lacks(BalloonCoordinator *c)
{
    for (guint i = 0; i < c->listeners->len; i++) {
        if (coordinator_listener(c, i)->lacks) {
            return true;
        }
    }
    return false;
}

static bool coordinator_is_done(BalloonCoordinator *c)
{
    return !c->wanted && !coordinator_lacks(c);
}

/* Populate what is wanted until it is done, fails, or @ns have passed */
static void coordinator_work(BalloonCoordinator *c, int64_t ns)
{
    int64_t end = get_clock() + ns;

    c->error = 0;
    for (guint i = 0; i < c->listeners->len; i++) {
        CoordinatedListener *l = coordinator_listener(c, i);

        if (l->lacks) {
            listener_fill(c, l);
        }
    }
    for (guint i = 0; i < c->regions->len && c->wanted; i++) {
        CoordinatedRegion *r = &g_array_index(c->regions, CoordinatedRegion, i);
        unsigned long g = 0;

        while ((g = find_next_bit(r->wanted, r->n, g)) < r->n) {
            int ret = region_populate(c, r, g);

            if (ret) {
                c->error = ret;
                return;
            }
            if (get_clock() >= end) {
                return;
            }
        }
    }
}

static void coordinator_arm(BalloonCoordinator *c)
{
    timer_mod(c->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                        (c->error ? RETRY_MS : 0));
}

/*
 * The guest may not execute another instruction: it could have a device use
 * memory that this does not reach.  A vCPU that is here stops itself, and the
 * others are stopped before the main loop lets go of the BQL.
 */
static void coordinator_hold(BalloonCoordinator *c)
{
    if (c->error && !c->warned) {
        c->warned = true;
        warn_report("virtio-balloon: the machine stands until its memory can"
                    " be had for assigned devices: %s",
                    strerror(-c->error));
    }
    if (!runstate_is_running()) {
        coordinator_arm(c);
        return;
    }
    c->holding = true;
    trace_virtio_balloon_coordinator_hold(c->wanted);
    if (current_cpu) {
        vm_stop(RUN_STATE_PAUSED);
    } else {
        qemu_system_vmstop_request_prepare();
        qemu_system_vmstop_request(RUN_STATE_PAUSED);
    }
}

static void coordinator_go_on(BalloonCoordinator *c)
{
    c->warned = false;
    if (c->holding) {
        c->holding = false;
        trace_virtio_balloon_coordinator_go_on();
        /* Not if it has come to an end meanwhile */
        if (runstate_check(RUN_STATE_PAUSED) ||
            runstate_check(RUN_STATE_PRELAUNCH)) {
            vm_start();
        }
    }
}

static void coordinator_timer(void *opaque)
{
    BalloonCoordinator *c = opaque;

    coordinator_work(c, HELD_SLICE_NS);
    if (coordinator_is_done(c)) {
        coordinator_go_on(c);
    } else {
        coordinator_arm(c);
    }
    notifier_list_notify(&c->notifiers, NULL);
}

/* Who starts the machine meanwhile finds it stopped again at once */
static void coordinator_vm_state_change(void *opaque, bool running,
                                        RunState state)
{
    BalloonCoordinator *c = opaque;

    if (coordinator_is_done(c)) {
        return;
    }
    if (running) {
        coordinator_hold(c);
    } else {
        coordinator_arm(c);
    }
}

/* --- what the balloon does ----------------------------------------------- */

uint64_t balloon_coordinator_granule(BalloonCoordinator *c, RAMBlock *rb)
{
    CoordinatedRegion *r = c ? coordinator_region(c, rb->mr) : NULL;

    return r ? r->granule : 0;
}

static int find_viommu(Object *obj, void *opaque)
{
    return object_dynamic_cast(obj, TYPE_IOMMU_MEMORY_REGION) != NULL;
}

/*
 * What the guest maps in an IOMMU of its own stays pinned when it is discarded:
 * nobody listens.
 */
static bool coordinator_has_viommu(BalloonCoordinator *c)
{
    if (c->viommu < 0) {
        c->viommu = object_child_foreach_recursive(object_get_root(),
                                                   find_viommu, NULL);
    }
    return c->viommu;
}

bool balloon_coordinator_reaches_all(BalloonCoordinator *c)
{
    if (!ram_block_discard_is_disabled()) {
        return true;
    }
    if (!c->listeners->len || coordinator_lacks(c) ||
        coordinator_has_viommu(c) ||
        ram_block_coordinated_discard_require(true) < 0) {
        return false;
    }
    /* Asking was all: who forbids all discards may still come */
    ram_block_coordinated_discard_require(false);
    return true;
}

void balloon_coordinator_discard(BalloonCoordinator *c, RAMBlock *rb,
                                 const BalloonRange *range)
{
    CoordinatedRegion *r = coordinator_region(c, rb->mr);
    unsigned long g = DIV_ROUND_UP(range->start, r->granule);
    unsigned long end = DIV_ROUND_UP(range->start + range->size, r->granule);

    for (unsigned long i = g; i < end; i++) {
        region_set_wanted(c, r, i, false);
    }
    while ((g = find_next_zero_bit(r->discarded, end, g)) < end) {
        unsigned long stop = find_next_bit(r->discarded, end, g);

        trace_virtio_balloon_coordinator_discard(memory_region_name(r->mr),
                                                 region_offset(r, g),
                                                 region_offset(r, stop));
        bitmap_set(r->discarded, g, stop - g);
        coordinator_tell_discard(c, r->mr, region_offset(r, g),
                                 region_offset(r, stop), c->listeners->len);
        g = stop;
    }
}

int balloon_coordinator_populate(BalloonCoordinator *c, RAMBlock *rb,
                                 const BalloonRange *range)
{
    CoordinatedRegion *r = coordinator_region(c, rb->mr);
    unsigned long g, end;

    if (!r) {
        return 0;
    }
    g = range->start / r->granule;
    end = DIV_ROUND_UP(range->start + range->size, r->granule);
    for (; (g = find_next_bit(r->discarded, end, g)) < end; g++) {
        int ret = region_populate(c, r, g);

        if (ret) {
            return ret;
        }
    }
    return 0;
}

void balloon_coordinator_release(BalloonCoordinator *c, RAMBlock *rb)
{
    CoordinatedRegion *r = coordinator_region(c, rb->mr);
    unsigned long g = 0;

    if (!r) {
        return;
    }
    for (; (g = find_next_bit(r->discarded, r->n, g)) < r->n; g++) {
        region_set_wanted(c, r, g, true);
    }
    coordinator_work(c, c->listeners->len ? AT_ONCE_NS : INT64_MAX / 2);
    if (!coordinator_is_done(c)) {
        coordinator_hold(c);
    }
}

uint64_t balloon_coordinator_wanted(BalloonCoordinator *c, int *error)
{
    *error = c->error;
    return c->wanted;
}

void balloon_coordinator_add_notifier(BalloonCoordinator *c, Notifier *notifier)
{
    notifier_list_add(&c->notifiers, notifier);
}

/* --- RamDiscardManager --------------------------------------------------- */

static uint64_t coordinator_get_min_granularity(const RamDiscardManager *rdm,
                                                const MemoryRegion *mr)
{
    return coordinator_region(VIRTIO_BALLOON_COORDINATOR(rdm), mr)->granule;
}

static bool coordinator_is_populated(const RamDiscardManager *rdm,
                                     const MemoryRegionSection *section)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    CoordinatedRegion *r = coordinator_region(c, section->mr);
    uint64_t start = section->offset_within_region;
    unsigned long end = DIV_ROUND_UP(start + int128_get64(section->size),
                                     r->granule);

    return find_next_bit(r->discarded, end, start / r->granule) >= end;
}

static int coordinator_replay_populated(const RamDiscardManager *rdm,
                                        MemoryRegionSection *section,
                                        ReplayRamPopulate fn, void *opaque)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    uint64_t stop = UINT64_MAX;

    return region_replay(coordinator_region(c, section->mr), false, section,
                         &stop, fn, opaque);
}

typedef struct ReplayDiscard {
    ReplayRamDiscard fn;
    void *opaque;
} ReplayDiscard;

static int replay_discard(MemoryRegionSection *part, void *opaque)
{
    ReplayDiscard *replay = opaque;

    replay->fn(part, replay->opaque);
    return 0;
}

/* Migration leaves out what is discarded; postcopy would wait for that */
static void coordinator_replay_discarded(const RamDiscardManager *rdm,
                                         MemoryRegionSection *section,
                                         ReplayRamDiscard fn, void *opaque)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    ReplayDiscard replay = { fn, opaque };
    uint64_t stop = UINT64_MAX;

    if (!migrate_postcopy_ram()) {
        region_replay(coordinator_region(c, section->mr), true, section, &stop,
                      replay_discard, &replay);
    }
}

/*
 * VFIO cannot ask a manager which pages are dirty without crashing.  Whether
 * it will is for the devices to know.
 */
static void coordinator_block_migration(BalloonCoordinator *c)
{
    Error *err = NULL;

    error_setg(&c->blocker, "A device is assigned whose writes cannot be"
               " followed while a balloon has coordinated-discards=on");
    if (migrate_add_blocker_internal(&c->blocker, &err) < 0) {
        error_reportf_err(err, "virtio-balloon: ");
    }
}

/* Before the machine is ready there is somebody to tell, and nothing to lose */
static void coordinator_refuse(BalloonCoordinator *c,
                               const CoordinatedRegion *r)
{
    error_report("virtio-balloon: memory '%s' cannot be had for assigned"
                 " devices, %lu pieces of %" PRIu64 " bytes: %s",
                 memory_region_name(r->mr), r->n, r->granule,
                 strerror(-c->error));
    if (c->error == -ENOSPC) {
        error_printf("There are too many pieces: give the balloon"
                     " discard-granule=%" PRIu64 " or more, or raise the"
                     " parameter dma_entry_limit of the host's module"
                     " vfio_iommu_type1.\n", 2 * r->granule);
    } else {
        error_printf("The limit of locked memory has to allow for all of"
                     " the guest's memory.\n");
    }
    exit(EXIT_FAILURE);
}

static void coordinator_register_listener(RamDiscardManager *rdm,
                                          RamDiscardListener *rdl,
                                          MemoryRegionSection *section)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    CoordinatedListener l = { .rdl = rdl };

    if (!c->listeners->len) {
        coordinator_block_migration(c);
    }
    c->viommu = -1;
    rdl->section = memory_region_section_new_copy(section);
    listener_fill(c, &l);
    g_array_append_val(c->listeners, l);
    if (l.lacks && !phase_check(PHASE_MACHINE_READY)) {
        coordinator_refuse(c, coordinator_region(c, section->mr));
    }
    if (l.lacks) {
        coordinator_hold(c);
    }
}

static void coordinator_unregister_listener(RamDiscardManager *rdm,
                                            RamDiscardListener *rdl)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(rdm);
    uint64_t stop = UINT64_MAX;

    for (guint i = 0; i < c->listeners->len; i++) {
        CoordinatedListener l = *coordinator_listener(c, i);

        if (l.rdl == rdl) {
            g_array_remove_index_fast(c->listeners, i);
            if (!l.lacks) {
                region_replay(coordinator_region(c, rdl->section->mr), false,
                              rdl->section, &stop, listener_discard, rdl);
            }
            break;
        }
    }
    g_clear_pointer(&rdl->section, memory_region_section_free_copy);
    if (!c->listeners->len) {
        migrate_del_blocker(&c->blocker);
    }
}

/* --- creation ------------------------------------------------------------ */

static void coordinator_add_region(BalloonCoordinator *c, MemoryRegion *mr)
{
    CoordinatedRegion r = {
        .mr = mr,
        .size = memory_region_size(mr),
        .granule = MAX(c->granule, qemu_ram_pagesize(mr->ram_block)),
    };

    r.n = DIV_ROUND_UP(r.size, r.granule);
    r.discarded = bitmap_new(r.n);
    r.wanted = bitmap_new(r.n);
    g_array_append_val(c->regions, r);
}

/* Main memory is one region, or has one for each NUMA node */
static void coordinator_add_regions(BalloonCoordinator *c, MemoryRegion *ram)
{
    MemoryRegion *part;

    if (memory_region_is_ram(ram)) {
        coordinator_add_region(c, ram);
        return;
    }
    QTAILQ_FOREACH(part, &ram->subregions, subregions_link) {
        if (memory_region_is_ram(part)) {
            coordinator_add_region(c, part);
        }
    }
}

static bool coordinator_check(BalloonCoordinator *c, Error **errp)
{
    for (guint i = 0; i < c->regions->len; i++) {
        MemoryRegion *mr = g_array_index(c->regions, CoordinatedRegion, i).mr;

        if (memory_region_has_ram_discard_manager(mr)) {
            error_setg(errp, "memory '%s' has a manager of discards already",
                       memory_region_name(mr));
            return false;
        }
    }
    if (!c->regions->len) {
        error_setg(errp, "the machine's memory cannot have"
                   " coordinated-discards=on");
        return false;
    }
    return true;
}

/* A manager cannot be changed while its memory is mapped */
static void coordinator_attach(BalloonCoordinator *c, MemoryRegion *ram)
{
    memory_region_set_enabled(ram, false);
    for (guint i = 0; i < c->regions->len; i++) {
        memory_region_set_ram_discard_manager(
            g_array_index(c->regions, CoordinatedRegion, i).mr,
            RAM_DISCARD_MANAGER(c));
    }
    memory_region_set_enabled(ram, true);
}

static BalloonCoordinator *coordinator_create(uint64_t granule, Error **errp)
{
    MemoryRegion *ram = current_machine->ram;
    BalloonCoordinator *c;

    if (!ram) {
        error_setg(errp, "the machine has no memory to discard");
        return NULL;
    }
    c = VIRTIO_BALLOON_COORDINATOR(object_new(TYPE_VIRTIO_BALLOON_COORDINATOR));
    c->granule = granule;
    coordinator_add_regions(c, ram);
    if (!coordinator_check(c, errp)) {
        object_unref(c);
        return NULL;
    }
    object_property_add_child(OBJECT(current_machine), CHILD, OBJECT(c));
    object_unref(c);
    qemu_add_vm_change_state_handler(coordinator_vm_state_change, c);
    memory_listener_register(&c->memory, &address_space_memory);
    coordinator_attach(c, ram);
    return c;
}

BalloonCoordinator *balloon_coordinator_get(uint64_t granule, bool create,
                                            Error **errp)
{
    Object *obj = object_resolve_path_component(OBJECT(current_machine), CHILD);
    BalloonCoordinator *c = obj ? VIRTIO_BALLOON_COORDINATOR(obj) : NULL;

    if (!c && create) {
        return coordinator_create(granule, errp);
    }
    if (!c) {
        error_setg(errp, "coordinated-discards needs a machine that was"
                   " started with such a balloon");
        error_append_hint(errp, "Start QEMU with a virtio-balloon that has"
                          " coordinated-discards=on; it may be unplugged, and"
                          " another one plugged.\n");
    } else if (c->granule != granule) {
        error_setg(errp, "discard-granule must be %" PRIu64 " bytes, as when"
                   " the machine started", c->granule);
        c = NULL;
    }
    return c;
}

static void coordinator_memory_commit(MemoryListener *listener)
{
    container_of(listener, BalloonCoordinator, memory)->viommu = -1;
}

static void coordinator_init(Object *obj)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(obj);

    c->regions = g_array_new(false, true, sizeof(CoordinatedRegion));
    c->listeners = g_array_new(false, true, sizeof(CoordinatedListener));
    c->timer = timer_new_ms(QEMU_CLOCK_REALTIME, coordinator_timer, c);
    notifier_list_init(&c->notifiers);
    c->viommu = -1;
    c->memory = (MemoryListener) {
        .name = "virtio-balloon-coordinator",
        .commit = coordinator_memory_commit,
    };
}

/* Only of one that was refused: the machine keeps the others to its end */
static void coordinator_finalize(Object *obj)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(obj);

    for (guint i = 0; i < c->regions->len; i++) {
        g_free(g_array_index(c->regions, CoordinatedRegion, i).discarded);
        g_free(g_array_index(c->regions, CoordinatedRegion, i).wanted);
    }
    g_array_unref(c->regions);
    g_array_unref(c->listeners);
    timer_free(c->timer);
}

static void coordinator_class_init(ObjectClass *klass, void *data)
{
    RamDiscardManagerClass *rdmc = RAM_DISCARD_MANAGER_CLASS(klass);

    rdmc->get_min_granularity = coordinator_get_min_granularity;
    rdmc->is_populated = coordinator_is_populated;
    rdmc->replay_populated = coordinator_replay_populated;
    rdmc->replay_discarded = coordinator_replay_discarded;
    rdmc->register_listener = coordinator_register_listener;
    rdmc->unregister_listener = coordinator_unregister_listener;
}

static const TypeInfo coordinator_types[] = {
    {
        .name = TYPE_VIRTIO_BALLOON_COORDINATOR,
        .parent = TYPE_OBJECT,
        .instance_size = sizeof(BalloonCoordinator),
        .instance_init = coordinator_init,
        .instance_finalize = coordinator_finalize,
        .class_init = coordinator_class_init,
        .interfaces = (InterfaceInfo[]) {
            { TYPE_RAM_DISCARD_MANAGER },
            { }
        },
    },
};

DEFINE_TYPES(coordinator_types)
