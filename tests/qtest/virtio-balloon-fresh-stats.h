/*
 * request-balloon-stats and query-balloon-stats: steps that several tests take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_FRESH_STATS_H
#define TESTS_VIRTIO_BALLOON_FRESH_STATS_H

#include "qobject/qdict.h"
#include "virtio-balloon-manage.h"

#define STATS BALLOON_VQ_STATS

typedef struct BalloonStat {
    uint16_t tag;
    uint64_t value;
} BalloonStat;

/* Statistics in guest memory, and in a buffer that is left */
BalloonSeg fresh_seg(BalloonDriver *d, const BalloonStat *stats, unsigned n);
uint32_t fresh_leave(BalloonDriver *d, const BalloonStat *stats, unsigned n);

/* Leave a buffer with the free memory alone, which an event tells then */
uint32_t fresh_answer(BalloonDriver *d, uint64_t value);

/* Ask the guest, which must be possible */
void fresh_request(BalloonDriver *d);
/* ... and wait until the driver has its buffer @held back */
void fresh_request_served(BalloonDriver *d, uint32_t held);
/* Ask, and be told at once why there is no answer */
void fresh_assert_refused(BalloonDriver *d, const char *desc);
void fresh_assert_refused_stopped(BalloonDriver *d);

/*
 * The data of the next BALLOON_STATS, which is waited for; the caller unrefs
 * it.  The clock is stepped first, so that no event is held back any more.
 */
QDict *fresh_event(BalloonDriver *d);
/* It has @value for the free memory, and nothing else */
void fresh_assert_event(BalloonDriver *d, uint64_t value);
/* Nothing is waited for: so far there is none */
void fresh_assert_no_event(BalloonDriver *d);

/* The answer to query-balloon-stats; the caller unrefs it */
QDict *fresh_info(BalloonDriver *d);
/* Was the guest ever asked?  Does it owe an answer? */
bool fresh_was_asked(BalloonDriver *d);
bool fresh_is_pending(BalloonDriver *d);
/* The guest said this of its free memory and nothing else, and owes nothing */
void fresh_assert_known(BalloonDriver *d, uint64_t value);
/* The guest said nothing yet; it was asked or not */
void fresh_assert_unknown(BalloonDriver *d, bool pending);

#endif
