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
#include "trace.h"
#include "virtio-balloon-internal.h"

/* A guest that has not moved for so long stalls; milliseconds */
#define STALL_MS 5000

/*
 * The largest page of a guest, 64 KiB, in balloon pages.  A guest cannot come
 * closer to a target than its pages are large, and has reached it when it has
 * not moved for so many milliseconds.
 */
#define NEAR_PAGES 16
#define NEAR_MS 1000

/* How often to look for what has no notifier: inhibitors, a broken ring */
#define LOOK_MS 10000

static bool balloon_state_is_near(VirtIOBalloon *s)
{
    return s->actual < (uint64_t)s->num_pages + NEAR_PAGES &&
           s->num_pages < (uint64_t)s->actual + NEAR_PAGES;
}

/* How long the guest has to stand still for that to mean something */
static int64_t balloon_state_still_ms(VirtIOBalloon *s)
{
    return balloon_state_is_near(s) ? NEAR_MS : STALL_MS;
}

static BalloonState balloon_state_find(VirtIOBalloon *s, uint8_t status)
{
    if (status && VIRTIO_DEVICE(s)->broken) {
        return BALLOON_STATE_BROKEN;
    }
    if (!virtio_balloon_driver_runs(s, status)) {
        return BALLOON_STATE_NO_DRIVER;
    }
    if (s->actual == s->num_pages ||
        (s->state.still && balloon_state_is_near(s))) {
        return BALLOON_STATE_REACHED;
    }
    if (s->state.still) {
        return BALLOON_STATE_STALLED;
    }
    return s->actual < s->num_pages ? BALLOON_STATE_INFLATING :
                                      BALLOON_STATE_DEFLATING;
}

/* See what the state is, and tell if it is another one, or @held_changes */
static void balloon_state_update(VirtIOBalloon *s, uint8_t status,
                                 bool held_changes)
{
    VirtIOBalloonState *st = &s->state;
    BalloonState now = balloon_state_find(s, status);
    BalloonInhibitor inhibitor;

    if (s->discard.exiting) {
        /* QEMU exits: migration must not be asked, and no monitor listens */
        return;
    }
    inhibitor = virtio_balloon_discard_inhibitor(s);
    if (now != st->now || inhibitor != st->inhibitor || held_changes) {
        trace_virtio_balloon_state(BalloonState_str(st->now),
                                   BalloonState_str(now), inhibitor,
                                   s->actual, s->num_pages);
        st->now = now;
        st->inhibitor = inhibitor;
        qapi_event_send_balloon_state_change(
            now, inhibitor != BALLOON_INHIBITOR__MAX, inhibitor, st->held);
    }
}

/* Look again @ms from now; the clock stops with the VM */
static void balloon_state_watch(VirtIOBalloonState *st, int64_t ms)
{
    timer_mod(st->watch, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + ms);
}

static void balloon_state_look(void *opaque)
{
    VirtIOBalloon *s = opaque;
    VirtIOBalloonState *st = &s->state;
    int64_t still_ms = qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) - st->moved_ms;
    int64_t left_ms = balloon_state_still_ms(s) - still_ms;

    st->still = left_ms <= 0;
    balloon_state_update(s, VIRTIO_DEVICE(s)->status, false);
    balloon_state_watch(st, st->still ? LOOK_MS : left_ms);
}

static void balloon_state_moved(VirtIOBalloon *s, uint8_t status)
{
    VirtIOBalloonState *st = &s->state;

    st->still = false;
    st->moved_ms = qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
    timer_mod_anticipate(st->watch, st->moved_ms + balloon_state_still_ms(s));
    balloon_state_update(s, status, false);
}

void virtio_balloon_state_moved(VirtIOBalloon *s)
{
    balloon_state_moved(s, VIRTIO_DEVICE(s)->status);
}

void virtio_balloon_state_look(VirtIOBalloon *s)
{
    balloon_state_update(s, VIRTIO_DEVICE(s)->status, false);
}

void virtio_balloon_state_served(VirtIOBalloon *s, BalloonHeld *held)
{
    VirtIOBalloonState *st = &s->state;
    bool changes = !st->held != !held ||
                   (held && !st->held->error != !held->error);

    qapi_free_BalloonHeld(st->held);
    st->held = held;
    if (changes || VIRTIO_DEVICE(s)->broken) {
        balloon_state_update(s, VIRTIO_DEVICE(s)->status, changes);
    }
}

void virtio_balloon_state_post_load(VirtIOBalloon *s)
{
    timer_del(s->state.watch);
    virtio_balloon_state_moved(s);
}

void virtio_balloon_state_set_status(VirtIOBalloon *s, uint8_t status)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (vdev->vm_running) {
        balloon_state_moved(s, status);
    } else if (status != vdev->status) {
        balloon_state_update(s, status, false);
    }
}

/* A device may pin memory and be unplugged before the next look */
static void balloon_state_device_came(DeviceListener *listener,
                                      DeviceState *dev)
{
    virtio_balloon_state_look(container_of(listener, VirtIOBalloon,
                                           state.devices));
}

void virtio_balloon_state_init(VirtIOBalloon *s)
{
    s->state.inhibitor = BALLOON_INHIBITOR__MAX;
    s->state.watch = timer_new_ms(QEMU_CLOCK_VIRTUAL, balloon_state_look, s);
    balloon_state_watch(&s->state, LOOK_MS);
    s->state.devices.realize = balloon_state_device_came;
    device_listener_register(&s->state.devices);
}

void virtio_balloon_state_cleanup(VirtIOBalloon *s)
{
    device_listener_unregister(&s->state.devices);
    g_clear_pointer(&s->state.watch, timer_free);
    g_clear_pointer(&s->state.held, qapi_free_BalloonHeld);
}
