/*
 * Virtio traditional memory balloon: the device
 *
 * Written from the virtio 1.2 specification, section 5.5.  This file has the
 * properties, features, reset, migration and what the monitor asks; the other
 * virtio-balloon-*.c files have one facility each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/tswap.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "system/balloon.h"
#include "trace.h"
#include "virtio-balloon-internal.h"

static BalloonCounters *balloon_counters_new(VirtIOBalloon *s)
{
    BalloonCounts now = s->counts;
    const uint64_t *skipped = now.skipped;
    BalloonCounters *counters = g_new(BalloonCounters, 1);

    virtio_balloon_queue_add_counts(&s->inflate, &now);
    virtio_balloon_queue_add_counts(&s->deflate, &now);
    virtio_balloon_queue_add_counts(&s->report, &now);
    *counters = (BalloonCounters) {
        .inflated = now.inflated_pages << VIRTIO_BALLOON_PFN_SHIFT,
        .deflated = now.deflated_pages << VIRTIO_BALLOON_PFN_SHIFT,
        .reported = now.reported,
        .hinted = s->state.hinted,
        .discarded = now.discarded,
        .revived = now.revived,
        .waiting = virtio_balloon_pages_waiting(s),
        .discard_calls = now.calls,
        .skipped = g_new(BalloonSkipped, 1),
    };
    *counters->skipped = (BalloonSkipped) {
        .repeated = skipped[BALLOON_SKIP_REPEATED],
        .taken_back = skipped[BALLOON_SKIP_TAKEN_BACK],
        .not_ram = skipped[BALLOON_SKIP_NOT_RAM],
        .partial = skipped[BALLOON_SKIP_PARTIAL],
        .inhibited = skipped[BALLOON_SKIP_INHIBITED],
        .poison = skipped[BALLOON_SKIP_POISON],
        .unsupported = skipped[BALLOON_SKIP_UNSUPPORTED],
        .refused = skipped[BALLOON_SKIP_REFUSED],
    };
    return counters;
}

static void balloon_get_info(void *opaque, BalloonInfo *info)
{
    VirtIOBalloon *s = opaque;
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    bool runs = virtio_balloon_driver_runs(s, vdev->status);

    virtio_balloon_state_look(s);
    *info = (BalloonInfo) {
        .actual = virtio_balloon_guest_size(s),
        .has_target = true,
        .target = virtio_balloon_target(s),
        .has_state = true,
        .state = s->state.now,
        .has_inhibited_by = s->state.inhibitor != BALLOON_INHIBITOR__MAX,
        .inhibited_by = s->state.inhibitor,
        .has_reporting = true,
        .reporting = runs && virtio_vdev_has_feature(
            vdev, VIRTIO_BALLOON_F_REPORTING),
        .has_hinting = true,
        .hinting = runs && virtio_vdev_has_feature(
            vdev, VIRTIO_BALLOON_F_FREE_PAGE_HINT),
        .held = virtio_balloon_pages_held(s),
        .counters = balloon_counters_new(s),
    };
}

static void balloon_get_range(void *opaque, uint64_t *min, uint64_t *max)
{
    *min = VIRTIO_BALLOON(opaque)->min_size;
    *max = virtio_balloon_ram_size();
}

static void balloon_set_target(void *opaque, uint64_t target)
{
    VirtIOBalloon *s = opaque;
    uint64_t ram = virtio_balloon_ram_size();
    uint64_t pages = (ram - MIN(ram, target)) >> VIRTIO_BALLOON_PFN_SHIFT;
    uint32_t before = s->num_pages;

    s->num_pages = MIN(pages, UINT32_MAX);
    trace_virtio_balloon_target(target, s->num_pages);
    if (s->num_pages == before) {
        /* Memory may have come back since: a dump reads all of it, for one */
        virtio_balloon_reclaim_look_again(s);
    }
    virtio_balloon_state_moved(s);
    virtio_notify_config(VIRTIO_DEVICE(s));
}

static const QEMUBalloonOps balloon_ops = {
    .set_target = balloon_set_target,
    .get_range = balloon_get_range,
    .get_info = balloon_get_info,
    .get_stats = virtio_balloon_stats_get_info,
    .request_stats = virtio_balloon_stats_request,
};

static uint64_t virtio_balloon_get_features(VirtIODevice *vdev,
                                            uint64_t features, Error **errp)
{
    features |= VIRTIO_BALLOON(vdev)->host_features;
    virtio_add_feature(&features, VIRTIO_BALLOON_F_STATS_VQ);
    return features;
}

/*
 * A driver chooses packed or split rings before it sets them up.  One that
 * changes its mind loses its rings: the mappings and indices that the core has
 * are for the other layout, which it does not check.  One that drops
 * MUST_TELL_HOST may use pages that are in the balloon without telling.
 */
static void virtio_balloon_set_features(VirtIODevice *vdev, uint64_t features)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    if (!virtio_has_feature(features, VIRTIO_BALLOON_F_MUST_TELL_HOST)) {
        /* The request in progress is served anew, with the new features */
        if (s->inflate.elem) {
            virtio_balloon_queue_put_back(&s->inflate);
            virtio_balloon_queue_start(&s->inflate);
        }
        virtio_balloon_pages_reset(s);
    }
    if ((features ^ vdev->guest_features) & 1ull << VIRTIO_F_RING_PACKED) {
        for (int i = virtio_get_num_queues(vdev); i-- > 0;) {
            virtio_queue_reset(vdev, i);
        }
    }
}

/*
 * A refused load may leave a state that the core does not expect: no byte
 * order, bad sizes of rings, indices into packed rings with more than 15 bits.
 */
static void balloon_mend(VirtIODevice *vdev)
{
    bool big_endian = target_needs_bswap() != HOST_BIG_ENDIAN;

    virtio_balloon_roles_mend(VIRTIO_BALLOON(vdev));
    if (vdev->device_endian == VIRTIO_DEVICE_ENDIAN_UNKNOWN) {
        vdev->device_endian = big_endian ? VIRTIO_DEVICE_ENDIAN_BIG :
                                           VIRTIO_DEVICE_ENDIAN_LITTLE;
    }
    if (virtio_vdev_has_feature(vdev, VIRTIO_F_RING_PACKED)) {
        for (int n = virtio_get_num_queues(vdev); n-- > 0;) {
            virtio_queue_set_last_avail_idx(
                vdev, n, virtio_queue_get_last_avail_idx(vdev, n));
        }
    }
}

/* The VM stops, or is saved: put half-done requests back into their rings */
static void balloon_settle(VirtIOBalloon *s)
{
    virtio_balloon_queue_put_back(&s->inflate);
    virtio_balloon_queue_put_back(&s->deflate);
    virtio_balloon_queue_put_back(&s->report);
    virtio_balloon_stats_stop(s);
    virtio_balloon_hinting_stop(s);
    virtio_balloon_reclaim_stop(s);
}

/* The next driver, if there is one, does not know which pages were given up */
static void balloon_forget_pages(VirtIOBalloon *s)
{
    virtio_balloon_pages_reset(s);
    if (!s->reset_keeps_balloon) {
        virtio_balloon_set_actual(s, 0);
    }
}

static void virtio_balloon_set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    balloon_mend(vdev);
    /* DRIVER_OK goes, or bus mastering does */
    if (vdev->disabled ||
        ((vdev->status & ~status) & VIRTIO_CONFIG_S_DRIVER_OK)) {
        virtio_balloon_queue_put_back(&s->inflate);
        virtio_balloon_stats_reset(s);
        virtio_balloon_hinting_reset(s);
        balloon_forget_pages(s);
    }
    /* Whether the driver is a legacy one may have been negotiated */
    virtio_balloon_config_rearm(s);
    if (!vdev->vm_running) {
        balloon_settle(s);
    } else if (!virtio_device_started(vdev, status)) {
        virtio_balloon_queue_put_back(&s->inflate);
        virtio_balloon_queue_put_back(&s->deflate);
        virtio_balloon_queue_put_back(&s->report);
    } else {
        virtio_balloon_roles_start(s);
        virtio_balloon_reclaim_start(s);
    }
    virtio_balloon_state_set_status(s, status);
}

static void virtio_balloon_queue_reset_one(VirtIODevice *vdev, uint32_t index)
{
    virtio_balloon_roles_queue_reset(VIRTIO_BALLOON(vdev),
                                     virtio_get_queue(vdev, index));
}

static void virtio_balloon_reset(VirtIODevice *vdev)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    trace_virtio_balloon_reset(s->reset_keeps_balloon);
    virtio_balloon_queue_reset(&s->inflate);
    virtio_balloon_queue_reset(&s->deflate);
    virtio_balloon_queue_reset(&s->report);
    virtio_balloon_stats_reset(s);
    virtio_balloon_hinting_reset(s);
    s->answered = 0;
    s->poison_val = 0;
    s->actual_incomplete = false;
    s->gaps = false;
    balloon_forget_pages(s);
    virtio_balloon_config_rearm(s);
}

/*
 * A reset of the machine begins; virtio_balloon_reset() is still to come.
 * Waking up leaves the guest with the memory it had, and a snapshot brings its
 * own state.
 */
static void virtio_balloon_reset_enter(Object *obj, ResetType type)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(obj);

    s->reset_keeps_balloon = type == RESET_TYPE_WAKEUP ||
                             type == RESET_TYPE_SNAPSHOT_LOAD;
    if (type != RESET_TYPE_WAKEUP) {
        virtio_balloon_stats_clear(s);
    }
}

static void virtio_balloon_reset_exit(Object *obj, ResetType type)
{
    VIRTIO_BALLOON(obj)->reset_keeps_balloon = false;
}

static void virtio_balloon_device_realize(DeviceState *dev, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOBalloon *s = VIRTIO_BALLOON(dev);

    if (!virtio_balloon_hinting_check(s, errp)) {
        return;
    }
    if (s->min_size > virtio_balloon_ram_size()) {
        error_setg(errp, "min-size, %" PRIu64 " bytes, is more than the"
                   " machine's memory, %" PRIu64 " bytes", s->min_size,
                   virtio_balloon_ram_size());
        return;
    }
    if (!virtio_balloon_pages_prepare(s, errp)) {
        return;
    }
    if (qemu_add_balloon(&balloon_ops, s) < 0) {
        error_setg(errp, "Only one balloon device is supported");
        return;
    }
    virtio_init(vdev, VIRTIO_ID_BALLOON, virtio_balloon_config_size(s));
    virtio_balloon_state_init(s);
    virtio_balloon_discard_init(s);
    if (virtio_has_feature(s->host_features,
                           VIRTIO_BALLOON_F_MUST_TELL_HOST)) {
        virtio_balloon_pages_init(s);
        virtio_balloon_migration_init(s);
    }
    virtio_balloon_queue_init(s, &s->inflate, &virtio_balloon_inflate_ops);
    virtio_balloon_queue_init(s, &s->deflate, &virtio_balloon_deflate_ops);
    virtio_balloon_queue_init(s, &s->report, &virtio_balloon_report_ops);
    virtio_balloon_stats_init(s);
    if (virtio_has_feature(s->host_features,
                           VIRTIO_BALLOON_F_FREE_PAGE_HINT)) {
        virtio_balloon_hinting_init(s);
    }
    virtio_balloon_roles_init(s);
    s->config_rearm = virtio_bh_new_guarded(dev, virtio_balloon_config_rearm,
                                            s);
    virtio_balloon_config_rearm(s);
}

static void virtio_balloon_device_unrealize(DeviceState *dev)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(dev);

    /* A virtio_error() that led here must not go on to notify the driver */
    VIRTIO_DEVICE(dev)->status = 0;
    qemu_remove_balloon_handler(s);
    g_clear_pointer(&s->config_rearm, qemu_bh_delete);
    virtio_balloon_queue_cleanup(&s->report);
    virtio_balloon_hinting_cleanup(s);
    virtio_balloon_stats_cleanup(s);
    virtio_balloon_queue_cleanup(&s->deflate);
    virtio_balloon_queue_cleanup(&s->inflate);
    if (s->pages.blocks) {
        virtio_balloon_migration_cleanup(s);
        virtio_balloon_pages_cleanup(s);
    }
    virtio_balloon_discard_cleanup(s);
    virtio_balloon_state_cleanup(s);
    virtio_cleanup(VIRTIO_DEVICE(dev));
}

static void virtio_balloon_instance_init(Object *obj)
{
    virtio_balloon_stats_add_properties(obj);
}

static void virtio_balloon_instance_finalize(Object *obj)
{
    virtio_balloon_roles_cleanup(VIRTIO_BALLOON(obj));
}

/* A refused load may leave features in guest_features that are not offered */
static bool balloon_hinting_needed(void *opaque)
{
    return VIRTIO_BALLOON(opaque)->hinting.hints &&
           virtio_vdev_has_feature(opaque, VIRTIO_BALLOON_F_FREE_PAGE_HINT);
}

static int balloon_hinting_pre_save(void *opaque)
{
    virtio_balloon_hinting_pre_save(opaque);
    return 0;
}

static const VMStateDescription vmstate_balloon_hinting = {
    .name = "virtio-balloon-device/free-page-report",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = balloon_hinting_needed,
    .pre_save = balloon_hinting_pre_save,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(hinting.saved_cmd_id, VirtIOBalloon),
        VMSTATE_UINT32(hinting.saved_state, VirtIOBalloon),
        VMSTATE_END_OF_LIST()
    }
};

static bool balloon_poison_needed(void *opaque)
{
    return virtio_vdev_has_feature(opaque, VIRTIO_BALLOON_F_PAGE_POISON);
}

static const VMStateDescription vmstate_balloon_poison = {
    .name = "virtio-balloon-device/page-poison",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = balloon_poison_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(poison_val, VirtIOBalloon),
        VMSTATE_END_OF_LIST()
    }
};

static int balloon_check_rings(VirtIOBalloon *s)
{
    if (virtio_balloon_roles_mend(s)) {
        error_report("virtio-balloon: the saved state has a ring with more"
                     " entries than there can be, or with none");
        return -EINVAL;
    }
    return 0;
}

/* The core looks at the rings next, and relies on their sizes */
static int balloon_post_load_device(void *opaque, int version_id)
{
    return balloon_check_rings(opaque);
}

static const VMStateDescription vmstate_balloon_device = {
    .name = "virtio-balloon-device",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = balloon_post_load_device,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(num_pages, VirtIOBalloon),
        VMSTATE_UINT32(actual, VirtIOBalloon),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &vmstate_balloon_hinting,
        &vmstate_balloon_poison,
        &vmstate_virtio_balloon_pages,
        NULL
    }
};

/*
 * When its driver has gone, a ring is memory that the guest may use for
 * anything; a kernel started by kexec does.  The indices there would make no
 * sense, and the destination would refuse the state.
 */
static void balloon_forget_rings(VirtIODevice *vdev)
{
    for (int n = virtio_get_num_queues(vdev); n-- > 0;) {
        if (!virtio_queue_is_consistent(vdev, n)) {
            virtio_queue_reset(vdev, n);
        }
    }
}

static int balloon_pre_save(void *opaque)
{
    VirtIODevice *vdev = opaque;

    balloon_mend(opaque);
    balloon_settle(opaque);
    if (vdev->disabled ||
        !virtio_balloon_driver_runs(opaque, vdev->status)) {
        balloon_forget_rings(vdev);
    }
    /* The core saves its copy of config: bring it up to date */
    virtio_balloon_get_config(vdev, vdev->config);
    return 0;
}

/* Called when a load begins, which may still be refused */
static int virtio_balloon_pre_load_queues(VirtIODevice *vdev, uint32_t n)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);
    unsigned count = virtio_balloon_roles_count(s);

    /*
     * The memory that is loaded is all of the guest: nothing is in the balloon
     * before vmstate_virtio_balloon_pages says so
     */
    virtio_balloon_pages_reset(s);
    virtio_balloon_stats_reset(s);
    if (n > count) {
        error_report("virtio-balloon: the saved state has %" PRIu32 " queues,"
                     " and this balloon %u; give it the properties that it had"
                     " when it was saved", n, count);
        return -EINVAL;
    }
    return 0;
}

static int virtio_balloon_post_load(VirtIODevice *vdev)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    virtio_balloon_roles_bind(s);
    virtio_balloon_hinting_post_load(s);
    virtio_balloon_config_post_load(s);
    virtio_balloon_config_rearm(s);
    virtio_balloon_stats_post_load(s);
    virtio_balloon_state_post_load(s);
    /* The default sizes of rings are loaded last */
    return balloon_check_rings(s);
}

static const VMStateDescription vmstate_balloon = {
    .name = "virtio-balloon",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = balloon_pre_save,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    }
};

static const Property virtio_balloon_properties[] = {
    DEFINE_PROP_BIT("must-tell-host", VirtIOBalloon, host_features,
                    VIRTIO_BALLOON_F_MUST_TELL_HOST, false),
    DEFINE_PROP_BIT("deflate-on-oom", VirtIOBalloon, host_features,
                    VIRTIO_BALLOON_F_DEFLATE_ON_OOM, false),
    DEFINE_PROP_BIT("free-page-hint", VirtIOBalloon, host_features,
                    VIRTIO_BALLOON_F_FREE_PAGE_HINT, false),
    DEFINE_PROP_BIT("page-poison", VirtIOBalloon, host_features,
                    VIRTIO_BALLOON_F_PAGE_POISON, true),
    DEFINE_PROP_BIT("free-page-reporting", VirtIOBalloon, host_features,
                    VIRTIO_BALLOON_F_REPORTING, false),
    DEFINE_PROP_BOOL("qemu-4-0-config-size", VirtIOBalloon,
                     qemu_4_0_config_size, false),
    DEFINE_PROP_SIZE("min-size", VirtIOBalloon, min_size, 0),
    DEFINE_PROP_BOOL("coordinated-discards", VirtIOBalloon,
                     coordinated_discards, false),
    DEFINE_PROP_SIZE("discard-granule", VirtIOBalloon, discard_granule, 0),
    DEFINE_PROP_BOOL("populate-on-deflate", VirtIOBalloon, populate_on_deflate,
                     false),
    DEFINE_PROP_LINK("iothread", VirtIOBalloon, hinting.iothread,
                     TYPE_IOTHREAD, IOThread *),
};

static void virtio_balloon_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    device_class_set_props(dc, virtio_balloon_properties);
    dc->vmsd = &vmstate_balloon;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    rc->phases.enter = virtio_balloon_reset_enter;
    rc->phases.exit = virtio_balloon_reset_exit;
    vdc->realize = virtio_balloon_device_realize;
    vdc->unrealize = virtio_balloon_device_unrealize;
    vdc->reset = virtio_balloon_reset;
    vdc->queue_reset = virtio_balloon_queue_reset_one;
    vdc->set_status = virtio_balloon_set_status;
    vdc->get_features = virtio_balloon_get_features;
    vdc->set_features = virtio_balloon_set_features;
    vdc->get_config = virtio_balloon_get_config;
    vdc->set_config = virtio_balloon_set_config;
    vdc->vmsd = &vmstate_balloon_device;
    vdc->pre_load_queues = virtio_balloon_pre_load_queues;
    vdc->post_load = virtio_balloon_post_load;
}

static const TypeInfo virtio_balloon_types[] = {
    {
        .name = TYPE_VIRTIO_BALLOON,
        .parent = TYPE_VIRTIO_DEVICE,
        .instance_size = sizeof(VirtIOBalloon),
        .instance_init = virtio_balloon_instance_init,
        .instance_finalize = virtio_balloon_instance_finalize,
        .class_init = virtio_balloon_class_init,
    },
};

DEFINE_TYPES(virtio_balloon_types)
