/*
 * Discards of main memory that everybody who pins it is told of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "exec/cpu-common.h"
#include "exec/ramblock.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-balloon-listeners.h"

#define CHILD "virtio-balloon-coordinator"

/*
 * How long a release may populate before it stops the machine for the rest;
 * nanoseconds
 */
#define AT_ONCE_NS (500 * SCALE_US)
/*
 * How long the main loop is held at a time while the machine is stopped, so
 * that monitors are answered; nanoseconds
 */
#define HELD_SLICE_NS (5 * SCALE_MS)
/* How long to wait before the next try when the host refused; milliseconds */
#define RETRY_MS 100

static void balloon_region_set_wanted(BalloonCoordinator *c,
                                      CoordinatedRegion *r, unsigned long g,
                                      bool wanted)
{
    uint64_t size = balloon_region_offset(r, g + 1) -
                    balloon_region_offset(r, g);

    if (wanted != test_bit(g, r->wanted)) {
        change_bit(g, r->wanted);
        c->wanted += wanted ? size : -size;
    }
}

/*
 * Populate granule @g, which is discarded.  Returns: 0, or a negative errno:
 * then it stays discarded.
 */
static int balloon_region_populate(BalloonCoordinator *c, CoordinatedRegion *r,
                                   unsigned long g)
{
    int ret = balloon_listeners_populate(c, r, g);

    trace_virtio_balloon_coordinator_populate(memory_region_name(r->mr),
                                              balloon_region_offset(r, g),
                                              ret);
    if (!ret) {
        clear_bit(g, r->discarded);
        balloon_region_set_wanted(c, r, g, false);
    }
    return ret;
}

/* --- while the machine is stopped ---------------------------------------- */

/* Bytes still to be populated, for the guest and for devices that came */
static uint64_t balloon_coordinator_to_populate(BalloonCoordinator *c)
{
    return c->wanted + balloon_listeners_lack(c);
}

/* Populate what is wanted until it is done, fails, or @end */
static void balloon_coordinator_populate_until(BalloonCoordinator *c,
                                               int64_t end)
{
    for (guint i = 0; i < c->regions->len && c->wanted; i++) {
        CoordinatedRegion *r = &g_array_index(c->regions, CoordinatedRegion, i);
        unsigned long g = 0;

        while ((g = find_next_bit(r->wanted, r->n, g)) < r->n) {
            int ret = balloon_region_populate(c, r, g);

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

/*
 * Populate what the guest wants, for @ns.  Listeners that lack memory come
 * first: each gets all of its section or nothing, however long that takes.
 */
static void balloon_coordinator_work(BalloonCoordinator *c, int64_t ns)
{
    int64_t start = get_clock();

    c->error = 0;
    balloon_listeners_retry(c);
    balloon_coordinator_populate_until(c, start + ns);
    c->work_ms = (get_clock() - start) / SCALE_MS;
}

static void balloon_coordinator_wake(BalloonCoordinator *c, int64_t ms)
{
    timer_mod(c->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms);
}

/* Retries that fail take a fifth of the main loop's time at most */
static void balloon_coordinator_arm(BalloonCoordinator *c)
{
    balloon_coordinator_wake(c, c->error ? MAX(RETRY_MS, 4 * c->work_ms) : 0);
}

/*
 * Stop the machine until all memory is populated: the guest could have a device
 * use memory that is not mapped for it.  A vCPU thread that comes here stops
 * itself at once; other vCPUs run until the main loop has stopped them.
 */
static void balloon_coordinator_hold(BalloonCoordinator *c)
{
    if (c->error && !c->warned) {
        c->warned = true;
        warn_report("virtio-balloon: the machine is stopped until its memory"
                    " can be mapped for assigned devices: %s",
                    strerror(-c->error));
        if (c->error == -ENOSPC) {
            error_printf("There are too many pieces: unplug the device"
                         " (device_del, and system_reset if the guest does not"
                         " let it go), and start the guest with a larger"
                         " discard-granule.\n");
        }
    }
    if (!runstate_is_running()) {
        balloon_coordinator_arm(c);
        return;
    }
    c->holding = true;
    trace_virtio_balloon_coordinator_hold(balloon_coordinator_to_populate(c));
    if (current_cpu) {
        vm_stop(RUN_STATE_PAUSED);
    } else {
        qemu_system_vmstop_request_prepare();
        qemu_system_vmstop_request(RUN_STATE_PAUSED);
    }
    /*
     * A "cont" before the machine has stopped cancels the request without any
     * notice, so check later that it did stop
     */
    balloon_coordinator_wake(c, RETRY_MS);
}

static void balloon_coordinator_go_on(BalloonCoordinator *c)
{
    c->warned = false;
    if (c->holding && qemu_system_dump_in_progress()) {
        /* The machine must not run while it is dumped */
        balloon_coordinator_wake(c, RETRY_MS);
    } else if (c->holding) {
        c->holding = false;
        trace_virtio_balloon_coordinator_go_on();
        /* Not if it has shut down or crashed meanwhile */
        if (runstate_check(RUN_STATE_PAUSED) ||
            runstate_check(RUN_STATE_PRELAUNCH)) {
            vm_start();
        }
    }
}

static void balloon_coordinator_timer(void *opaque)
{
    BalloonCoordinator *c = opaque;

    if (c->holding && runstate_is_running()) {
        balloon_coordinator_hold(c);
        return;
    }
    balloon_coordinator_work(c, HELD_SLICE_NS);
    if (balloon_coordinator_to_populate(c)) {
        /* Waking up starts the machine without a state change notifier */
        balloon_coordinator_hold(c);
    } else {
        balloon_coordinator_go_on(c);
    }
    notifier_list_notify(&c->notifiers, NULL);
}

/*
 * There are no listeners any more: what the guest wants is populated, before
 * anybody asks what to migrate.
 */
static void balloon_coordinator_unpinned(BalloonCoordinator *c)
{
    if (!c->wanted) {
        return;
    }
    for (guint i = 0; i < c->regions->len; i++) {
        CoordinatedRegion *r = &g_array_index(c->regions, CoordinatedRegion, i);

        bitmap_andnot(r->discarded, r->discarded, r->wanted, r->n);
        bitmap_zero(r->wanted, r->n);
    }
    c->wanted = 0;
    balloon_coordinator_wake(c, 0);
}

/* A "cont" while memory is missing: stop again at once */
static void balloon_coordinator_vm_state_change(void *opaque, bool running,
                                                RunState state)
{
    BalloonCoordinator *c = opaque;

    if (!balloon_coordinator_to_populate(c)) {
        return;
    }
    if (running) {
        balloon_coordinator_hold(c);
    } else {
        balloon_coordinator_arm(c);
    }
}

/* --- what the balloon does ----------------------------------------------- */

uint64_t balloon_coordinator_granule(BalloonCoordinator *c, RAMBlock *rb)
{
    CoordinatedRegion *r = c ? balloon_region_find(c, rb->mr) : NULL;

    return r ? r->granule : 0;
}

static int balloon_find_viommu(Object *obj, void *opaque)
{
    return object_dynamic_cast(obj, TYPE_IOMMU_MEMORY_REGION) != NULL;
}

/*
 * What the guest maps in an IOMMU of its own stays pinned when it is discarded:
 * VFIO does not register a listener for it.
 */
static bool balloon_coordinator_has_viommu(BalloonCoordinator *c)
{
    if (c->viommu < 0) {
        c->viommu = object_child_foreach_recursive(object_get_root(),
                                                   balloon_find_viommu, NULL);
    }
    return c->viommu;
}

bool balloon_coordinator_reaches_all(BalloonCoordinator *c)
{
    if (!ram_block_discard_is_disabled()) {
        return true;
    }
    if (!balloon_listeners_any(c) || balloon_listeners_lack(c) ||
        balloon_coordinator_has_viommu(c) ||
        ram_block_coordinated_discard_require(true) < 0) {
        return false;
    }
    /* This only asks: a device that forbids all discards may still come */
    ram_block_coordinated_discard_require(false);
    return true;
}

void balloon_coordinator_discard(BalloonCoordinator *c, RAMBlock *rb,
                                 const BalloonRange *range)
{
    CoordinatedRegion *r = balloon_region_find(c, rb->mr);
    unsigned long g = DIV_ROUND_UP(range->start, r->granule);
    unsigned long end = DIV_ROUND_UP(range->start + range->size, r->granule);

    for (unsigned long i = g; i < end; i++) {
        balloon_region_set_wanted(c, r, i, false);
    }
    while ((g = find_next_zero_bit(r->discarded, end, g)) < end) {
        unsigned long stop = find_next_bit(r->discarded, end, g);

        trace_virtio_balloon_coordinator_discard(
            memory_region_name(r->mr), balloon_region_offset(r, g),
            balloon_region_offset(r, stop));
        bitmap_set(r->discarded, g, stop - g);
        balloon_listeners_discard(c, r, g, stop);
        g = stop;
    }
}

int balloon_coordinator_populate(BalloonCoordinator *c, RAMBlock *rb,
                                 const BalloonRange *range)
{
    CoordinatedRegion *r = balloon_region_find(c, rb->mr);
    unsigned long g, end;

    if (!r) {
        return 0;
    }
    g = range->start / r->granule;
    end = DIV_ROUND_UP(range->start + range->size, r->granule);
    for (; (g = find_next_bit(r->discarded, end, g)) < end; g++) {
        int ret = balloon_region_populate(c, r, g);

        if (ret) {
            return ret;
        }
    }
    return 0;
}

void balloon_coordinator_release(BalloonCoordinator *c, RAMBlock *rb)
{
    CoordinatedRegion *r = balloon_region_find(c, rb->mr);
    unsigned long g = 0;

    if (!r) {
        return;
    }
    if (!balloon_listeners_any(c)) {
        bitmap_zero(r->discarded, r->n);
        return;
    }
    for (; (g = find_next_bit(r->discarded, r->n, g)) < r->n; g++) {
        balloon_region_set_wanted(c, r, g, true);
    }
    balloon_coordinator_work(c, AT_ONCE_NS);
    if (balloon_coordinator_to_populate(c)) {
        balloon_coordinator_hold(c);
    }
}

uint64_t balloon_coordinator_missing(BalloonCoordinator *c, int *error)
{
    *error = c->error;
    return balloon_coordinator_to_populate(c);
}

void balloon_coordinator_add_notifier(BalloonCoordinator *c, Notifier *notifier)
{
    notifier_list_add(&c->notifiers, notifier);
}

/* --- creation ------------------------------------------------------------ */

static void balloon_coordinator_add_region(BalloonCoordinator *c,
                                           MemoryRegion *mr)
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
static void balloon_coordinator_add_regions(BalloonCoordinator *c,
                                            MemoryRegion *ram)
{
    MemoryRegion *part;

    if (memory_region_is_ram(ram)) {
        balloon_coordinator_add_region(c, ram);
        return;
    }
    QTAILQ_FOREACH(part, &ram->subregions, subregions_link) {
        if (memory_region_is_ram(part)) {
            balloon_coordinator_add_region(c, part);
        }
    }
}

/* A region's RamDiscardManager cannot be set while the region is mapped */
static void balloon_coordinator_attach(BalloonCoordinator *c, MemoryRegion *ram)
{
    memory_region_set_enabled(ram, false);
    for (guint i = 0; i < c->regions->len; i++) {
        balloon_listeners_attach(
            c, &g_array_index(c->regions, CoordinatedRegion, i));
    }
    memory_region_set_enabled(ram, true);
}

static BalloonCoordinator *balloon_coordinator_create(uint64_t granule,
                                                      Error **errp)
{
    MemoryRegion *ram = current_machine->ram;
    BalloonCoordinator *c;

    if (!balloon_listeners_possible(errp)) {
        return NULL;
    }
    if (!ram) {
        error_setg(errp, "the machine has no memory to discard");
        return NULL;
    }
    c = VIRTIO_BALLOON_COORDINATOR(object_new(TYPE_VIRTIO_BALLOON_COORDINATOR));
    c->granule = granule;
    balloon_coordinator_add_regions(c, ram);
    object_property_add_child(OBJECT(current_machine), CHILD, OBJECT(c));
    object_unref(c);
    qemu_add_vm_change_state_handler(balloon_coordinator_vm_state_change, c);
    memory_listener_register(&c->memory, &address_space_memory);
    balloon_coordinator_attach(c, ram);
    return c;
}

BalloonCoordinator *balloon_coordinator_get(uint64_t granule, bool create,
                                            Error **errp)
{
    Object *obj = object_resolve_path_component(OBJECT(current_machine), CHILD);
    BalloonCoordinator *c = obj ? VIRTIO_BALLOON_COORDINATOR(obj) : NULL;
    ERRP_GUARD();

    if (!c && create) {
        return balloon_coordinator_create(granule, errp);
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

static void balloon_coordinator_memory_commit(MemoryListener *listener)
{
    container_of(listener, BalloonCoordinator, memory)->viommu = -1;
}

static void balloon_coordinator_init(Object *obj)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(obj);

    c->regions = g_array_new(false, true, sizeof(CoordinatedRegion));
    c->timer = timer_new_ms(QEMU_CLOCK_REALTIME, balloon_coordinator_timer, c);
    notifier_list_init(&c->notifiers);
    c->viommu = -1;
    balloon_listeners_init(c, balloon_coordinator_hold,
                           balloon_coordinator_unpinned);
    c->memory = (MemoryListener) {
        .name = "virtio-balloon-coordinator",
        .commit = balloon_coordinator_memory_commit,
    };
}

/*
 * Runs only for the object that QMP makes to list its properties: the one of
 * the machine lives as long as QEMU.
 */
static void balloon_coordinator_finalize(Object *obj)
{
    BalloonCoordinator *c = VIRTIO_BALLOON_COORDINATOR(obj);

    g_array_unref(c->regions);
    balloon_listeners_finalize(c);
    timer_free(c->timer);
}

static void balloon_coordinator_class_init(ObjectClass *klass, void *data)
{
    balloon_listeners_class_init(klass);
}

static const TypeInfo coordinator_types[] = {
    {
        .name = TYPE_VIRTIO_BALLOON_COORDINATOR,
        .parent = TYPE_OBJECT,
        .instance_size = sizeof(BalloonCoordinator),
        .instance_init = balloon_coordinator_init,
        .instance_finalize = balloon_coordinator_finalize,
        .class_init = balloon_coordinator_class_init,
        .interfaces = balloon_listeners_interfaces,
    },
};

DEFINE_TYPES(coordinator_types)
