/*
 * What query-balloon says of a virtio balloon, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_INFO_H
#define TESTS_VIRTIO_BALLOON_INFO_H

#include "libqtest.h"
#include "qobject/qdict.h"

/* The answer to query-balloon; the caller unrefs it */
QDict *balloon_info(QTestState *qts);

/* Its member "target" */
uint64_t balloon_target(QTestState *qts);

/* A member of its "counters", or of "skipped" in there */
uint64_t balloon_counter(QTestState *qts, const char *name);
/* ... in balloon pages */
uint64_t balloon_counter_pages(QTestState *qts, const char *name);
uint64_t balloon_skipped(QTestState *qts, const char *cause);

/* Wait until no discard is put off any more */
void balloon_wait_discarded(QTestState *qts);

/* The state must be this, and discards inhibited by @inhibitor or NULL */
void balloon_assert_state(QTestState *qts, const char *state,
                          const char *inhibitor);

/* What the guest gave up, in bytes; all of it must be accounted for */
uint64_t balloon_assert_sum(QTestState *qts);

/*
 * All of @size bytes, the only ones that the guest gave up, must have been
 * skipped because of @cause
 */
void balloon_assert_all_skipped(QTestState *qts, const char *cause,
                                uint64_t size);

/*
 * The event BALLOON_STATE_CHANGE that came next, though nobody asked for the
 * state, must be of @state and @inhibitor ...
 */
void balloon_assert_event(QTestState *qts, const char *state,
                          const char *inhibitor);
/* ... or will come by itself */
void balloon_wait_event(QTestState *qts, const char *state,
                        const char *inhibitor);
/* ... and so far there is no other */
void balloon_assert_no_event(QTestState *qts);

#endif
