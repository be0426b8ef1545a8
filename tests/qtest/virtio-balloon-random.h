/*
 * A guest that does with a virtio balloon what it may, in any order
 *
 * Its driver keeps to section 5.5 of virtio 1.2, for only then is there
 * anything that it can count on: pages are not used between inflate and
 * answer, not deflated before that, and with MUST_TELL_HOST not used before
 * the answer to deflate.  What it does depends on GLib's random numbers only,
 * never on how fast the device is, so that a seed brings back a run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_RANDOM_H
#define TESTS_VIRTIO_BALLOON_RANDOM_H

#include "virtio-balloon-model.h"

#define BALLOON_BALLAST (8 * MiB)

typedef struct BalloonGuest {
    BalloonDriver d;
    BalloonModel m;
    /* as for balloon_boot() */
    const char *device;
    const char *options;
    /* the host can take no less than a huge page back */
    bool huge;
    /* what it is like is told by query-balloon, and checked */
    bool told;
    /* the memory that the balloon can take from, in bytes */
    int64_t size;
    /* the file behind the memory is shared with whoever opens it */
    bool shared;
    /* the model is of a DIMM */
    bool dimm;
    /* requests that are not answered, by queue: the oldest first */
    GQueue requests[BALLOON_VQ_MAX];
    /* queues with requests of which the device was not told */
    bool unkicked[BALLOON_VQ_MAX];
    /* negotiated */
    bool tell_host;
    bool report;
    bool poison;
    uint8_t poison_byte;
    /* memory that must be sent again when it was written, after the model's */
    uint64_t ballast;
    /* a device of the host needs all memory to stay */
    bool inhibited;
    /* what the driver, or the end of a balloon, made of it last, in pages */
    uint32_t actual;
    /* the next thing that is done to its machine, and that some can do */
    unsigned turn;
    unsigned turn_told;
    /* how often it went to another QEMU, or to one that does otherwise */
    unsigned moves;
    /* how often all in the balloon became the guest's */
    unsigned endings;
    /* of 100 requests, how many inflate: changes now and then */
    int inclination;
    /* the pages of the last answer to an inflate request */
    unsigned *recent;
    unsigned n_recent;
    /* this QEMU has a disk for snapshots */
    bool disk;
} BalloonGuest;

/* True @percent times of 100 */
bool balloon_chance(int percent);

/* Set up the device, which was reset, and start to drive it */
void balloon_guest_start(BalloonGuest *g);

/* So many random things that a driver does: requests, answers, writes */
void balloon_guest_steps(BalloonGuest *g, unsigned n);

/* Leave a request that keeps the device busy for a while */
void balloon_guest_press(BalloonGuest *g);

/*
 * Have the device in the middle of something, most likely: a request, or pages
 * that wait for their discard
 */
void balloon_guest_prepare(BalloonGuest *g);

/* Wait until the host has got some of what is in the balloon */
void balloon_guest_settle(BalloonGuest *g);

/* Wait for all requests in a queue, for all */
void balloon_guest_drain_queue(BalloonGuest *g, int queue);
void balloon_guest_drain(BalloonGuest *g);

/* Forget what is not answered: the device has forgotten it */
void balloon_guest_forget(BalloonGuest *g);

/* What is in the balloon is the guest's; what is not answered may go on */
void balloon_guest_ended(BalloonGuest *g);

/* The size is what was written last, and all that was given is accounted for */
void balloon_guest_check_told(BalloonGuest *g);

/* Write some of the pages that came back from the balloon */
void balloon_guest_use(BalloonGuest *g);

/* Reset one queue, which may have requests, if that is possible */
bool balloon_guest_reset_queue(BalloonGuest *g);

/*
 * Do something to the machine, with requests not answered: what takes little
 * time, or nothing; what takes long; what only some machines can do
 */
void balloon_guest_act_often(BalloonGuest *g);
void balloon_guest_act(BalloonGuest *g);
void balloon_guest_act_told(BalloonGuest *g);

#endif
