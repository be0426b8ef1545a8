/*
 * Virtio balloon: the config space (section 5.5.4), and the sizes it speaks of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qapi-events-machine.h"
#include "hw/boards.h"
#include "hw/mem/memory-device.h"
#include "trace.h"
#include "virtio-balloon-hint-rounds.h"
#include "virtio-balloon-internal.h"

/* Memory that was plugged as DIMMs, in bytes; no NVDIMM and no virtio-mem */
static uint64_t balloon_config_dimm_size(void)
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

uint64_t virtio_balloon_ram_size(void)
{
    return current_machine->ram_size + balloon_config_dimm_size();
}

uint64_t virtio_balloon_guest_size(VirtIOBalloon *s)
{
    uint64_t ram = virtio_balloon_ram_size();

    return ram - MIN(ram, (uint64_t)s->actual << VIRTIO_BALLOON_PFN_SHIFT);
}

uint64_t virtio_balloon_target(VirtIOBalloon *s)
{
    uint64_t ram = virtio_balloon_ram_size();

    return ram - MIN(ram, (uint64_t)s->num_pages << VIRTIO_BALLOON_PFN_SHIFT);
}

void virtio_balloon_set_actual(VirtIOBalloon *s, uint32_t actual)
{
    uint64_t before = virtio_balloon_guest_size(s);
    uint64_t now;

    trace_virtio_balloon_actual(s->actual, actual);
    s->actual = actual;
    now = virtio_balloon_guest_size(s);
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
 * it is written when that has gone.  A driver that reads config and writes a
 * byte before the main loop has its turn is taken for one that writes four.
 */
#define ACTUAL_TOP 0xff000000u

static uint32_t balloon_config_actual_armed(VirtIOBalloon *s)
{
    uint32_t actual = s->actual_incomplete ? s->actual_written : s->actual;

    return virtio_balloon_driver_is_legacy(s) ? actual | ACTUAL_TOP : actual;
}

static void balloon_config_write_actual(VirtIOBalloon *s, uint32_t value)
{
    if (value == balloon_config_actual_armed(s)) {
        return;
    }
    s->actual_incomplete = value >= ACTUAL_TOP &&
                           virtio_balloon_driver_is_legacy(s);
    if (s->actual_incomplete) {
        s->actual_written = value;
    } else {
        virtio_balloon_set_actual(s, value);
    }
}

static void balloon_config_fill(VirtIOBalloon *s, uint8_t *data)
{
    BalloonHints *hints = s->hinting.hints;
    struct virtio_balloon_config config = {
        .num_pages = cpu_to_le32(s->num_pages),
        .actual = cpu_to_le32(s->actual_incomplete ? s->actual_written :
                                                     s->actual),
        .free_page_hint_cmd_id =
            cpu_to_le32(hints ? balloon_hints_cmd_id(hints) : 0),
        .poison_val = cpu_to_le32(s->poison_val),
    };

    memcpy(data, &config, VIRTIO_DEVICE(s)->config_len);
}

void virtio_balloon_config_rearm(void *opaque)
{
    VirtIOBalloon *s = opaque;
    uint8_t *data = VIRTIO_DEVICE(s)->config;

    balloon_config_fill(s, data);
    stl_le_p(data + offsetof(struct virtio_balloon_config, actual),
             balloon_config_actual_armed(s));
}

/* See whether the driver was saved between two bytes of actual */
void virtio_balloon_config_post_load(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    s->actual_written =
        ldl_le_p(vdev->config +
                 offsetof(struct virtio_balloon_config, actual));
    s->actual_incomplete = s->actual_written != s->actual &&
                           s->actual_written >= ACTUAL_TOP &&
                           virtio_balloon_driver_is_legacy(s);
}

void virtio_balloon_get_config(VirtIODevice *vdev, uint8_t *data)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    balloon_config_fill(s, data);
    if (memcmp(s->config_read, data, vdev->config_len)) {
        memcpy(s->config_read, data, vdev->config_len);
        /* The core does this only for changes that it notifies of */
        vdev->generation++;
    }
    /* The core has just overwritten its copy; a modern driver's is as it was */
    if (virtio_balloon_driver_is_legacy(s)) {
        qemu_bh_schedule(s->config_rearm);
    }
}

void virtio_balloon_set_config(VirtIODevice *vdev, const uint8_t *data)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);
    struct virtio_balloon_config config = {};

    memcpy(&config, data, vdev->config_len);
    balloon_config_write_actual(s, le32_to_cpu(config.actual));
    if (virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_PAGE_POISON)) {
        s->poison_val = le32_to_cpu(config.poison_val);
    }
    virtio_balloon_config_rearm(s);
}

/* Config ends with the last field that a feature needs, as it always has */
size_t virtio_balloon_config_size(VirtIOBalloon *s)
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
