/*
 * What a guest with a virtio balloon knows of its memory, for random tests
 *
 * The model covers an area of guest memory.  It knows of each balloon page in
 * it whose the page is, and of a page that the guest owns every byte.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_MODEL_H
#define TESTS_VIRTIO_BALLOON_MODEL_H

#include "virtio-balloon-case.h"

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

#endif
