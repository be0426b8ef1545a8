/*
 * query-balloon-stats: steps that several tests take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_FRESH_STATS_H
#define TESTS_VIRTIO_BALLOON_FRESH_STATS_H

#include "qobject/qdict.h"
#include "virtio-balloon-driver.h"

/* What a test waits for comes long before; it fails otherwise */
#define FRESH_LONG_MS 60000

typedef struct BalloonStat {
    uint16_t tag;
    uint64_t value;
} BalloonStat;

/* A machine whose balloon has a driver */
void fresh_start_with(BalloonDriver *d, const char *options);
void fresh_start(BalloonDriver *d);
/* One that writes into the new file @log what queries there are */
void fresh_start_tracing(BalloonDriver *d, char **log);

/* Statistics in guest memory */
BalloonSeg fresh_seg(BalloonDriver *d, const BalloonStat *stats, unsigned n);

/* Leave a buffer with statistics, or with the free memory alone */
uint32_t fresh_leave(BalloonDriver *d, const BalloonStat *stats, unsigned n);
uint32_t fresh_leave_free(BalloonDriver *d, uint64_t value);

/* Send a query */
void fresh_ask(BalloonDriver *d, int timeout_ms);
/* ... and wait until it waits: the driver has its buffer back */
void fresh_ask_and_wait(BalloonDriver *d, uint32_t held);
/* The driver has its buffer already: only the log tells that a query waits */
void fresh_ask_traced(BalloonDriver *d, const char *log);

/* The guest's answer; the caller unrefs it */
QDict *fresh_answer(BalloonDriver *d);
/* It has @value for the free memory, and nothing else */
void fresh_assert_answer(BalloonDriver *d, uint64_t value);
void fresh_assert_no_values(BalloonDriver *d);

/* The query failed */
void fresh_assert_error(BalloonDriver *d, const char *class,
                        const char *desc);
/* Ask, and be told at once or after @timeout_ms why there is no answer */
void fresh_assert_fails(BalloonDriver *d, int timeout_ms, const char *class,
                        const char *desc);

#endif
