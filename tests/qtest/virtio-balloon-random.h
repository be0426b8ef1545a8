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

#include "virtio-balloon-case.h"

/*
 * The model covers an area of guest memory.  It knows of each balloon page in
 * it whose the page is, and of a page that the guest owns every byte.
 */

/* Balloon pages in a huge page of the host */
#define BALLOON_HUGE 512u

/* Whose a page is.  "Old or zero" is what a page can be after a discard */
typedef enum BalloonPageState {
    /* the guest's: has exactly what the guest wrote last */
    BALLOON_OWNED,
    /* the guest's, old or zero, but it does not change: a check learns it */
    BALLOON_LOOSE,
    /* in a list that the device has not answered: old or zero */
    BALLOON_GIVING,
    /* in the balloon: old or zero */
    BALLOON_GIVEN,
    /* to be taken out of the balloon, not answered: old or zero */
    BALLOON_TAKING,
    /* reported, not answered: old or zero */
    BALLOON_REPORTING,
    BALLOON_STATES
} BalloonPageState;

/* A set of states */
#define BALLOON_IS(state) (1u << (state))
#define BALLOON_USABLE (BALLOON_IS(BALLOON_OWNED) | BALLOON_IS(BALLOON_LOOSE))

typedef struct BalloonModelPage {
    BalloonPageState state;
    /* not old nor zero but anything, until it is written */
    bool wild;
    /* while it is in the balloon: not old any more */
    bool gone;
    /* ... and the device takes it for that, as far as the driver can tell */
    bool known;
} BalloonModelPage;

typedef struct BalloonModel {
    /* the address of the area, a multiple of a huge page, and its pages */
    uint64_t base;
    unsigned pages;
    /* what the guest wrote last, all of it */
    uint8_t *image;
    BalloonModelPage *page;
    /*
     * A live migration goes on: where it goes to, pages that have gone since it
     * began may be old again.  So a check does not get to know them.
     */
    bool live;
    /* counts what was written, so that nothing is written twice */
    uint64_t generation;
    /* what a private mapping of a file shows for zero; NULL for no file */
    const uint8_t *file;
    /* pages given, taken and reported, and other things done */
    uint64_t operations;
    /* the last things done, for a test that fails */
    GString *log;
} BalloonModel;

/* A model of @pages pages from @base on; the guest owns and writes them all */
void balloon_model_init(BalloonModel *m, BalloonDriver *d, uint64_t base,
                        unsigned pages, const uint8_t *file);
void balloon_model_free(BalloonModel *m);

/* Note for a test that fails what happens now */
G_GNUC_PRINTF(2, 3)
void balloon_model_note(BalloonModel *m, const char *format, ...);

/* Say what was done, and how to do it again */
void balloon_model_log(const BalloonModel *m);

/* The guest writes pages, with bytes that never were in any */
void balloon_model_write(BalloonModel *m, BalloonDriver *d,
                         const unsigned *pages, unsigned n);

/* The guest fills pages in a row with one byte */
void balloon_model_fill(BalloonModel *m, BalloonDriver *d, unsigned first,
                        unsigned n, uint8_t byte);

/* Pages have another state now */
void balloon_model_set(BalloonModel *m, const unsigned *pages, unsigned n,
                       BalloonPageState state);

/*
 * Pages are in the balloon; @gone: the host has them already; @known: the
 * device takes them for that
 */
void balloon_model_give(BalloonModel *m, const unsigned *pages, unsigned n,
                        bool gone, bool known);

/* Each page whose state is one of @set has another state now */
void balloon_model_change(BalloonModel *m, unsigned set,
                          BalloonPageState state);

/*
 * The memory is another QEMU's now.  A page that was given up while a live
 * migration went on may be there as it was sent at some time, or in part.
 */
void balloon_model_migrated(BalloonModel *m);

/* How many pages have one of the states @set */
unsigned balloon_model_count(const BalloonModel *m, unsigned set);

/**
 * balloon_model_pick: some pages, by chance: runs, scattered, of huge pages
 * @set: the states that they may have
 * @pages: filled in, no page twice, in any order
 * @max: as many at most
 *
 * Returns: how many, or 0 if no page has such a state.
 */
unsigned balloon_model_pick(const BalloonModel *m, unsigned set,
                            unsigned *pages, unsigned max);

/* As that, with pages that are no neighbours: much work for the device */
unsigned balloon_model_pick_apart(const BalloonModel *m, unsigned set,
                                  unsigned *pages, unsigned max);

/*
 * Wait until the host has got a page that is in the balloon, whatever else is
 * there in its huge page; or, with @whole, if all of that is in the balloon.
 * Which page it is decides chance: maybe there is none.
 */
void balloon_model_wait_gone(const BalloonModel *m, BalloonDriver *d,
                             bool whole);

/*
 * Guest memory is what the model says, every byte, or the test fails.
 */
void balloon_model_check(BalloonModel *m, BalloonDriver *d);

/* As that, in the file behind the memory of a QEMU that has ended */
void balloon_model_check_file(BalloonModel *m, const char *path);

/* As that, for a part of the memory */
void balloon_model_check_part(BalloonModel *m, BalloonDriver *d,
                              unsigned first, unsigned n);

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
