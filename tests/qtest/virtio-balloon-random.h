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

#include "qemu/units.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-model.h"

#define BALLOON_VQ_REPORT BALLOON_VQ_FIRST_OPTIONAL

#define BALLOON_BALLAST (8 * MiB)

typedef struct BalloonGuest {
    BalloonDriver d;
    BalloonModel m;
    /* as for balloon_boot() */
    const char *device;
    const char *options;
    /* the host can take no less than a huge page back */
    bool huge;
    /* what is not answered, by queue: the oldest first */
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
    /* how often it went to another QEMU */
    unsigned moves;
    /* of 100 requests, how many inflate: changes now and then */
    int inclination;
    /* the pages of the last answer to an inflate request */
    unsigned *recent;
    unsigned n_recent;
    /* this QEMU has a disk for snapshots, in this file */
    char *disk;
} BalloonGuest;

/* Set up the device, which was reset, and start to drive it */
void balloon_guest_start(BalloonGuest *g);

/* One random thing that a driver does: requests, answers, writes */
void balloon_guest_step(BalloonGuest *g);
void balloon_guest_steps(BalloonGuest *g, unsigned n);

/* Leave a request that keeps the device busy for a while */
void balloon_guest_press(BalloonGuest *g);

/* Wait until the host has got some of what is in the balloon */
void balloon_guest_settle(BalloonGuest *g);

/* Wait for all answers */
void balloon_guest_drain(BalloonGuest *g);

/* Forget what is not answered: the device has forgotten it */
void balloon_guest_forget(BalloonGuest *g);

/* Write some of the pages that came back from the balloon */
void balloon_guest_use(BalloonGuest *g);

/* What is done to the machine, with requests not answered */
void balloon_guest_stop_cont(BalloonGuest *g);
void balloon_guest_reset_device(BalloonGuest *g);
void balloon_guest_reset_machine(BalloonGuest *g);
/* Migrate into a file, and go on here */
void balloon_guest_save(BalloonGuest *g);
/* Migrate into another QEMU, and go on there */
void balloon_guest_move(BalloonGuest *g);
/* Go on for a while, and go back to where that began */
void balloon_guest_snapshot(BalloonGuest *g);

#endif
