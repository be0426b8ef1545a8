/*
 * Virtio traditional memory balloon: the device
 *
 * Written from the virtio 1.2 specification, section 5.5.  This file has the
 * properties, features, the config space, reset and migration; the other
 * virtio-balloon-*.c files have one facility each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qapi-events-machine.h"
#include "hw/boards.h"
#include "hw/mem/memory-device.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "system/balloon.h"
#include "trace.h"
#include "virtio-balloon-internal.h"

/* Memory that was plugged as DIMMs, in bytes; no NVDIMM and no virtio-mem */
static uint64_t dimm_size(void)
{
    DeviceMemoryState *plugged = current_machine->device_memory;
    MemoryDeviceInfoList *list;
    uint64_t size = 0;

    if (!plugged || !plugged->used_region_size) {
        return 0;
    }
    list = qmp_memory_device_list();
    for (MemoryDeviceInfoList *item = list; item; item = item->next) {
        if (item->value->type == MEMORY_DEVICE_INFO_KIND_DIMM) {
            size += item->value->u.dimm.data->size;
        }
    }
    qapi_free_MemoryDeviceInfoList(list);
    return size;
}

/* The memory that the balloon can take from, in bytes */
static uint64_t balloon_ram_size(void)
{
    return current_machine->ram_size + dimm_size();
}

/* The memory left to the guest, in bytes: a driver's claim has its bounds */
static uint64_t balloon_guest_size(VirtIOBalloon *s)
{
    uint64_t ram = balloon_ram_size();

    return ram - MIN(ram, (uint64_t)s->actual << VIRTIO_BALLOON_PFN_SHIFT);
}

/* The memory meant to be left to the guest, in bytes */
static uint64_t balloon_target(VirtIOBalloon *s)
{
    uint64_t ram = balloon_ram_size();

    return ram - MIN(ram, (uint64_t)s->num_pages << VIRTIO_BALLOON_PFN_SHIFT);
}

static void balloon_get_info(void *opaque, BalloonInfo *info)
{
    info->actual = balloon_guest_size(opaque);
    info->has_target = true;
    info->target = balloon_target(opaque);
    virtio_balloon_state_get_info(opaque, info);
}

static void balloon_get_range(void *opaque, uint64_t *min, uint64_t *max)
{
    *min = VIRTIO_BALLOON(opaque)->min_size;
    *max = balloon_ram_size();
}

static void balloon_set_target(void *opaque, uint64_t target)
{
    VirtIOBalloon *s = opaque;
    uint64_t ram = balloon_ram_size();
    uint64_t pages = (ram - MIN(ram, target)) >> VIRTIO_BALLOON_PFN_SHIFT;
    uint32_t before = s->num_pages;

    s->num_pages = MIN(pages, UINT32_MAX);
    trace_virtio_balloon_target(target, s->num_pages);
    if (s->num_pages == before) {
        /* Something may have read what was given back, a dump for instance */
        virtio_balloon_pages_look_again(s);
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

static void balloon_set_actual(VirtIOBalloon *s, uint32_t actual)
{
    uint64_t before = balloon_guest_size(s);
    uint64_t now;

    trace_virtio_balloon_actual(s->actual, actual);
    s->actual = actual;
    now = balloon_guest_size(s);
    if (now != before) {
        qapi_event_send_balloon_change(now);
        virtio_balloon_state_moved(s);
    }
}

/*
 * Without VIRTIO_F_VERSION_1 a driver may write actual byte by byte, and it
 * counts once the top byte is there (section 5.5.6.2.1).  The core hands over
 * the whole config space, not what was written, so the top byte of the core's
 * copy is kept at a value that such a driver's balloon does not reach (16 TiB):
 * it is written when that has gone.
 */
#define ACTUAL_TOP 0xff000000u

static bool balloon_is_legacy(VirtIOBalloon *s)
{
    return !virtio_vdev_has_feature(VIRTIO_DEVICE(s), VIRTIO_F_VERSION_1);
}

bool virtio_balloon_may_serve(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return vdev->vm_running && !vdev->broken && !vdev->disabled &&
           (balloon_is_legacy(s) || (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK));
}

static uint32_t balloon_actual_armed(VirtIOBalloon *s)
{
    uint32_t actual = s->actual_incomplete ? s->actual_written : s->actual;

    return balloon_is_legacy(s) ? actual | ACTUAL_TOP : actual;
}

static void balloon_write_actual(VirtIOBalloon *s, uint32_t value)
{
    if (value == balloon_actual_armed(s)) {
        return;
    }
    s->actual_incomplete = balloon_is_legacy(s) && value >= ACTUAL_TOP;
    if (s->actual_incomplete) {
        s->actual_written = value;
    } else {
        balloon_set_actual(s, value);
    }
}

static void balloon_fill_config(VirtIOBalloon *s, uint8_t *data)
{
    struct virtio_balloon_config config = {
        .num_pages = cpu_to_le32(s->num_pages),
        .actual = cpu_to_le32(s->actual_incomplete ? s->actual_written :
                                                     s->actual),
        .free_page_hint_cmd_id =
            cpu_to_le32(virtio_balloon_hinting_cmd_id(s)),
        .poison_val = cpu_to_le32(s->poison_val),
    };

    memcpy(data, &config, VIRTIO_DEVICE(s)->config_len);
}

/* Make the core's copy of config current, and ready for the next write */
static void balloon_rearm_config(void *opaque)
{
    VirtIOBalloon *s = opaque;
    uint8_t *data = VIRTIO_DEVICE(s)->config;

    balloon_fill_config(s, data);
    stl_le_p(data + offsetof(struct virtio_balloon_config, actual),
             balloon_actual_armed(s));
}

/* Was the driver saved between two bytes of actual? */
static void balloon_load_incomplete(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    s->actual_written =
        ldl_le_p(vdev->config +
                 offsetof(struct virtio_balloon_config, actual));
    s->actual_incomplete = s->actual_written != s->actual &&
                           s->actual_written >= ACTUAL_TOP &&
                           balloon_is_legacy(s);
}

static void virtio_balloon_get_config(VirtIODevice *vdev, uint8_t *data)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    balloon_fill_config(s, data);
    if (memcmp(s->config_read, data, vdev->config_len)) {
        memcpy(s->config_read, data, vdev->config_len);
        /* The core does this only for changes that it notifies of */
        vdev->generation++;
    }
    qemu_bh_schedule(s->config_rearm);
}

static void virtio_balloon_set_config(VirtIODevice *vdev, const uint8_t *data)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);
    struct virtio_balloon_config config = {};

    memcpy(&config, data, vdev->config_len);
    balloon_write_actual(s, le32_to_cpu(config.actual));
    if (virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_PAGE_POISON)) {
        s->poison_val = le32_to_cpu(config.poison_val);
    }
    balloon_rearm_config(s);
}

static uint64_t virtio_balloon_get_features(VirtIODevice *vdev,
                                            uint64_t features, Error **errp)
{
    features |= VIRTIO_BALLOON(vdev)->host_features;
    virtio_add_feature(&features, VIRTIO_BALLOON_F_STATS_VQ);
    return features;
}

/*
 * A driver agrees on how rings are laid out before it sets them up.  One that
 * changes its mind loses them: what the core has mapped, and where it is in
 * them, is of the other layout, and it would not check that.  One that does not
 * tell any more uses pages that are in the balloon unasked.
 */
static void virtio_balloon_set_features(VirtIODevice *vdev, uint64_t features)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    if (!virtio_has_feature(features, VIRTIO_BALLOON_F_MUST_TELL_HOST)) {
        /* What is being served is served anew, with the features of then */
        if (s->inflate.elem) {
            virtio_balloon_queue_put_back(&s->inflate);
            virtio_balloon_queue_start(&s->inflate);
        }
        virtio_balloon_pages_reset(s);
    }
    if ((features ^ vdev->guest_features) & 1ull << VIRTIO_F_RING_PACKED) {
        for (int i = 0; virtio_queue_get_num(vdev, i); i++) {
            virtio_queue_reset(vdev, i);
        }
    }
}

/* Config ends with the last field that a feature needs, as it always has */
static size_t balloon_config_size(VirtIOBalloon *s)
{
    if (s->qemu_4_0_config_size ||
        virtio_has_feature(s->host_features, VIRTIO_BALLOON_F_PAGE_POISON)) {
        return sizeof(struct virtio_balloon_config);
    }
    if (virtio_has_feature(s->host_features,
                           VIRTIO_BALLOON_F_FREE_PAGE_HINT)) {
        return offsetof(struct virtio_balloon_config, poison_val);
    }
    return offsetof(struct virtio_balloon_config, free_page_hint_cmd_id);
}

/* Nothing may be half done when the rings are looked at from outside */
static void balloon_settle(VirtIOBalloon *s)
{
    virtio_balloon_queue_put_back(&s->inflate);
    virtio_balloon_queue_put_back(&s->deflate);
    virtio_balloon_queue_put_back(&s->report);
    virtio_balloon_stats_stop(s);
    virtio_balloon_hinting_stop(s);
    virtio_balloon_pages_stop(s);
}

/* Who drives the device next, if anybody, does not know of pages given up */
static void balloon_forget_pages(VirtIOBalloon *s)
{
    virtio_balloon_pages_reset(s);
    if (!s->reset_keeps_balloon) {
        balloon_set_actual(s, 0);
    }
}

static void virtio_balloon_set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    /* The driver ends, or the core says so: bus mastering may be off */
    if (vdev->disabled ||
        ((vdev->status & ~status) & VIRTIO_CONFIG_S_DRIVER_OK)) {
        virtio_balloon_queue_put_back(&s->inflate);
        balloon_forget_pages(s);
    }
    /* What is legacy may have been negotiated */
    balloon_rearm_config(s);
    virtio_balloon_state_set_status(s, status);
    if (!vdev->vm_running) {
        balloon_settle(s);
    } else if (!virtio_device_started(vdev, status)) {
        virtio_balloon_queue_put_back(&s->inflate);
        virtio_balloon_queue_put_back(&s->deflate);
        virtio_balloon_queue_put_back(&s->report);
    } else {
        virtio_balloon_roles_bind(s);
        virtio_balloon_queue_start(&s->inflate);
        virtio_balloon_queue_start(&s->deflate);
        virtio_balloon_queue_start(&s->report);
        virtio_balloon_stats_start(s);
        virtio_balloon_hinting_start(s);
        virtio_balloon_pages_start(s);
    }
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
    s->poison_val = 0;
    s->actual_incomplete = false;
    s->gaps = false;
    balloon_forget_pages(s);
    balloon_rearm_config(s);
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
    if (s->min_size > balloon_ram_size()) {
        error_setg(errp, "min-size, %" PRIu64 " bytes, is more than the"
                   " machine's memory, %" PRIu64 " bytes", s->min_size,
                   balloon_ram_size());
        return;
    }
    if (!virtio_balloon_pages_check(s, errp)) {
        return;
    }
    if (qemu_add_balloon(&balloon_ops, s) < 0) {
        error_setg(errp, "Only one balloon device is supported");
        return;
    }
    virtio_init(vdev, VIRTIO_ID_BALLOON, balloon_config_size(s));
    virtio_balloon_state_init(s);
    virtio_balloon_discard_init(s);
    virtio_balloon_pages_init(s);
    virtio_balloon_queue_init(s, &s->inflate, &virtio_balloon_inflate_ops);
    virtio_balloon_queue_init(s, &s->deflate, &virtio_balloon_deflate_ops);
    virtio_balloon_queue_init(s, &s->report, &virtio_balloon_report_ops);
    virtio_balloon_stats_init(s);
    if (virtio_has_feature(s->host_features,
                           VIRTIO_BALLOON_F_FREE_PAGE_HINT)) {
        virtio_balloon_hinting_init(s);
    }
    virtio_balloon_roles_init(s);
    s->config_rearm = virtio_bh_new_guarded(dev, balloon_rearm_config, s);
    balloon_rearm_config(s);
}

static void virtio_balloon_device_unrealize(DeviceState *dev)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(dev);

    qemu_remove_balloon_handler(s);
    g_clear_pointer(&s->config_rearm, qemu_bh_delete);
    virtio_balloon_queue_cleanup(&s->report);
    virtio_balloon_hinting_cleanup(s);
    virtio_balloon_stats_cleanup(s);
    virtio_balloon_queue_cleanup(&s->deflate);
    virtio_balloon_queue_cleanup(&s->inflate);
    virtio_balloon_roles_cleanup(s);
    virtio_balloon_pages_cleanup(s);
    virtio_balloon_discard_cleanup(s);
    virtio_balloon_state_cleanup(s);
    virtio_cleanup(VIRTIO_DEVICE(dev));
}

static void virtio_balloon_instance_init(Object *obj)
{
    virtio_balloon_stats_add_properties(obj);
}

static bool hinting_needed(void *opaque)
{
    return virtio_vdev_has_feature(opaque, VIRTIO_BALLOON_F_FREE_PAGE_HINT);
}

static int hinting_pre_save(void *opaque)
{
    virtio_balloon_hinting_pre_save(opaque);
    return 0;
}

static const VMStateDescription vmstate_balloon_hinting = {
    .name = "virtio-balloon-device/free-page-report",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = hinting_needed,
    .pre_save = hinting_pre_save,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(hinting.saved_cmd_id, VirtIOBalloon),
        VMSTATE_UINT32(hinting.saved_state, VirtIOBalloon),
        VMSTATE_END_OF_LIST()
    }
};

static bool poison_needed(void *opaque)
{
    return virtio_vdev_has_feature(opaque, VIRTIO_BALLOON_F_PAGE_POISON);
}

static const VMStateDescription vmstate_balloon_poison = {
    .name = "virtio-balloon-device/page-poison",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = poison_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(poison_val, VirtIOBalloon),
        VMSTATE_END_OF_LIST()
    }
};

/* A stream without pages in the balloon leaves none of an earlier load */
static int balloon_pre_load(void *opaque)
{
    virtio_balloon_pages_reset(opaque);
    return 0;
}

static const VMStateDescription vmstate_balloon_device = {
    .name = "virtio-balloon-device",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = balloon_pre_load,
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

static int balloon_pre_save(void *opaque)
{
    balloon_settle(opaque);
    /* The core saves its copy of config: as a driver would read it */
    virtio_balloon_get_config(opaque, VIRTIO_DEVICE(opaque)->config);
    return 0;
}

static int virtio_balloon_post_load(VirtIODevice *vdev)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    virtio_balloon_roles_bind(s);
    virtio_balloon_hinting_post_load(s);
    balloon_load_incomplete(s);
    balloon_rearm_config(s);
    virtio_balloon_stats_post_load(s);
    virtio_balloon_state_post_load(s);
    return 0;
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
    DEFINE_PROP_SIZE("discard-granule", VirtIOBalloon, discard_granule,
                     2 * MiB),
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
    vdc->post_load = virtio_balloon_post_load;
}

static const TypeInfo virtio_balloon_types[] = {
    {
        .name = TYPE_VIRTIO_BALLOON,
        .parent = TYPE_VIRTIO_DEVICE,
        .instance_size = sizeof(VirtIOBalloon),
        .instance_init = virtio_balloon_instance_init,
        .class_init = virtio_balloon_class_init,
    },
};

DEFINE_TYPES(virtio_balloon_types)
