/*
 * Virtio balloon: is it done yet, and what has become of the memory
 *
 * The state follows from what the driver, the target and the host say now,
 * but for one thing that needs a clock: whether anything moves.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qapi/qapi-events-machine.h"
#include "system/qtest.h"
#include "trace.h"
#include "virtio-balloon-internal.h"

/* A guest that has not moved for so long stalls; milliseconds */
#define STALL_MS 5000

/* How often to see whether what inhibits is over; milliseconds */
#define INHIBITED_MS 10000

/* Of the changes within so long, the first and the last are told */
#define TELL_MS 1000

bool virtio_balloon_driver_runs(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return virtio_device_started(vdev, vdev->status) && !vdev->broken;
}

/* The clock of the core's limits on events */
static QEMUClockType tell_clock(void)
{
    return qtest_enabled() ? QEMU_CLOCK_VIRTUAL : QEMU_CLOCK_REALTIME;
}

static void state_tell(void *opaque)
{
    VirtIOBalloon *s = opaque;
    VirtIOBalloonState *st = &s->state;

    if (!st->untold || timer_pending(st->tell)) {
        return;
    }
    st->untold = false;
    trace_virtio_balloon_state_told(BalloonState_str(st->now));
    qapi_event_send_balloon_state_change(st->now,
                                         st->now == BALLOON_STATE_INHIBITED,
                                         st->inhibitor);
    timer_mod(st->tell, qemu_clock_get_ms(tell_clock()) + TELL_MS);
}

static BalloonState state_with_driver(VirtIOBalloon *s)
{
    s->state.inhibitor = virtio_balloon_discard_inhibitor(s);
    if (s->state.inhibitor != BALLOON_INHIBITOR__MAX) {
        return BALLOON_STATE_INHIBITED;
    }
    if (s->actual == s->num_pages) {
        return BALLOON_STATE_REACHED;
    }
    if (s->state.still) {
        return BALLOON_STATE_STALLED;
    }
    return s->actual < s->num_pages ? BALLOON_STATE_INFLATING :
                                      BALLOON_STATE_DEFLATING;
}

static void state_update(VirtIOBalloon *s, bool driver_runs)
{
    VirtIOBalloonState *st = &s->state;
    BalloonState now = driver_runs ? state_with_driver(s) :
                                     BALLOON_STATE_NO_DRIVER;

    if (now != st->now) {
        trace_virtio_balloon_state(BalloonState_str(st->now),
                                   BalloonState_str(now), s->actual,
                                   s->num_pages);
        st->now = now;
        st->untold = true;
        state_tell(s);
    }
}

/* Watch for @ms from now; the clock stands while the VM does */
static void state_watch(VirtIOBalloonState *st, int64_t ms)
{
    timer_mod(st->watch, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + ms);
}

static void state_look(void *opaque)
{
    VirtIOBalloon *s = opaque;
    VirtIOBalloonState *st = &s->state;
    int64_t still_ms = qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) - st->moved_ms;

    st->still = still_ms >= STALL_MS;
    state_update(s, virtio_balloon_driver_runs(s));
    if (!st->still) {
        state_watch(st, STALL_MS - still_ms);
    } else if (st->now == BALLOON_STATE_INHIBITED) {
        /* Nobody says when that ends */
        state_watch(st, INHIBITED_MS);
    }
}

static void state_moved(VirtIOBalloon *s, bool driver_runs)
{
    VirtIOBalloonState *st = &s->state;

    st->still = false;
    st->moved_ms = qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
    if (!timer_pending(st->watch)) {
        state_watch(st, STALL_MS);
    }
    state_update(s, driver_runs);
}

void virtio_balloon_state_moved(VirtIOBalloon *s)
{
    state_moved(s, virtio_balloon_driver_runs(s));
}

void virtio_balloon_state_post_load(VirtIOBalloon *s)
{
    VirtIOBalloonState *st = &s->state;

    timer_del(st->watch);
    if (timer_pending(st->tell)) {
        timer_mod(st->tell, qemu_clock_get_ms(tell_clock()) + TELL_MS);
    }
    virtio_balloon_state_moved(s);
}

void virtio_balloon_state_set_status(VirtIOBalloon *s, uint8_t status)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    bool driver_runs = virtio_device_started(vdev, status) && !vdev->broken;

    if (vdev->vm_running) {
        state_moved(s, driver_runs);
    } else if (status != vdev->status) {
        /* not when QEMU ends: migration cannot be asked any more then */
        state_update(s, driver_runs);
    }
}

static BalloonCounters *counters_new(VirtIOBalloon *s)
{
    BalloonCounts now = s->counts;
    const uint64_t *skipped = now.skipped;
    BalloonCounters *counters = g_new(BalloonCounters, 1);

    virtio_balloon_queue_add_counts(&s->inflate, &now);
    virtio_balloon_queue_add_counts(&s->deflate, &now);
    virtio_balloon_queue_add_counts(&s->report, &now);
    *counters = (BalloonCounters) {
        .inflated_pages = now.inflated_pages,
        .deflated_pages = now.deflated_pages,
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

void virtio_balloon_state_get_info(VirtIOBalloon *s, BalloonInfo *info)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    bool runs = virtio_balloon_driver_runs(s);

    state_update(s, runs);
    info->has_state = true;
    info->state = s->state.now;
    info->has_inhibited_by = info->state == BALLOON_STATE_INHIBITED;
    info->inhibited_by = s->state.inhibitor;
    info->has_reporting = true;
    info->reporting =
        runs && virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_REPORTING);
    info->has_hinting = true;
    info->hinting =
        runs && virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_FREE_PAGE_HINT);
    info->counters = counters_new(s);
}

void virtio_balloon_state_init(VirtIOBalloon *s)
{
    s->state.watch = timer_new_ms(QEMU_CLOCK_VIRTUAL, state_look, s);
    s->state.tell = timer_new_ms(tell_clock(), state_tell, s);
}

void virtio_balloon_state_cleanup(VirtIOBalloon *s)
{
    g_clear_pointer(&s->state.watch, timer_free);
    g_clear_pointer(&s->state.tell, timer_free);
}
