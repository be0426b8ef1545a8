/*
 * Virtio balloon: how long the big QEMU lock is held at a time
 *
 * No request is bounded in size.  So the device works for a slice of time, lets
 * go of the BQL, and goes on from a timer, whose clock stops with the machine.
 *
 * Under record/replay the host's time must not decide what the guest sees:
 * what is begun is finished, and a slice counts as if it had taken its time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_SLICE_H
#define HW_VIRTIO_BALLOON_SLICE_H

#include "qemu/timer.h"
#include "system/replay.h"

/* A slice, and how long at least the BQL is left to others after it */
#define BALLOON_SLICE_NS (500 * SCALE_US)
#define BALLOON_GAP_NS (100 * SCALE_US)

/*
 * For the device's own work; it runs under qtest without being stepped.  It
 * stands while the machine does, and the main loop would wake up again and
 * again for a timer that comes no nearer: no timer is left armed then.
 */
#define BALLOON_CLOCK QEMU_CLOCK_VIRTUAL_RT

typedef struct BalloonSlice {
    int64_t start;
} BalloonSlice;

static inline BalloonSlice balloon_slice_begin(void)
{
    return (BalloonSlice) { get_clock() };
}

static inline int64_t balloon_slice_used(const BalloonSlice *slice)
{
    return replay_mode == REPLAY_MODE_NONE ? get_clock() - slice->start :
                                             BALLOON_SLICE_NS;
}

static inline bool balloon_slice_is_over(const BalloonSlice *slice)
{
    return replay_mode == REPLAY_MODE_NONE &&
           balloon_slice_used(slice) >= BALLOON_SLICE_NS;
}

static inline QEMUTimer *balloon_slice_timer_new(QEMUTimerCB *cb, void *opaque)
{
    return timer_new_ns(BALLOON_CLOCK, cb, opaque);
}

/* Have @timer go off @ns nanoseconds from now */
static inline void balloon_slice_go_on(QEMUTimer *timer, int64_t ns)
{
    timer_mod_ns(timer, qemu_clock_get_ns(BALLOON_CLOCK) + ns);
}

#endif /* HW_VIRTIO_BALLOON_SLICE_H */
