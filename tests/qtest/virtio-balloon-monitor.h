/*
 * The virtio balloon as management sees it, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_MONITOR_H
#define TESTS_VIRTIO_BALLOON_MONITOR_H

#include "libqtest.h"
#include "qobject/qdict.h"
#include "standard-headers/linux/virtio_balloon.h"

/* What a statistic is when the guest did not give it */
#define BALLOON_STAT_UNSET UINT64_MAX

/* Where balloon_boot() puts the PCI device, and the device behind it */
#define BALLOON_PATH "/machine/peripheral/balloon0"
#define BALLOON_BACKEND_PATH BALLOON_PATH "/virtio-backend"

/* Does the VM run, by query-status? */
bool balloon_vm_is_running(QTestState *qts);

/* QMP balloon, which must succeed */
void balloon_set_target(QTestState *qts, int64_t bytes);

/* query-balloon: the memory left to the guest, in bytes */
int64_t balloon_query(QTestState *qts);

/* The answer to it, and whether it has this member; the caller unrefs it */
QDict *balloon_info(QTestState *qts);
bool balloon_info_has(QTestState *qts, const char *name);

/* The event @name that came next, so far, or NULL */
QDict *balloon_next_event(QTestState *qts, const char *name);
/* The event BALLOON_CHANGE that came next, so far; -1 if none did */
int64_t balloon_next_change(QTestState *qts);

/* A QMP command must fail with this class and these words */
G_GNUC_PRINTF(4, 5)
void balloon_assert_error(QTestState *qts, const char *class, const char *desc,
                          const char *command, ...);

/* The first line that an HMP command says must be this */
void balloon_assert_hmp(QTestState *qts, const char *command,
                        const char *answer);

/* Dump the guest's memory into a file */
void balloon_dump(QTestState *qts, const char *path);

/* Properties of the balloon at BALLOON_PATH */
void balloon_set_interval(QTestState *qts, int64_t seconds);
int64_t balloon_get_interval(QTestState *qts);

/* Its property "coordinated-discards" */
bool balloon_is_coordinated(QTestState *qts);

/* The names of statistics by tag; the specification has the first ten */
extern const char *const balloon_stat_names[VIRTIO_BALLOON_S_NR];

/* The statistic @name, without "stat-", of the device at @path */
uint64_t balloon_stat_at(QTestState *qts, const char *path, const char *name);
uint64_t balloon_stat(QTestState *qts, const char *name);
uint64_t balloon_free_memory(QTestState *qts);
int64_t balloon_last_update(QTestState *qts);

/* What query-balloon says: the target */
uint64_t balloon_target(QTestState *qts);

/* A member of "counters", or of "skipped" in there */
uint64_t balloon_counter(QTestState *qts, const char *name);
/* ... in balloon pages */
uint64_t balloon_counter_pages(QTestState *qts, const char *name);
uint64_t balloon_skipped(QTestState *qts, const char *cause);
/* It is @value, and stays so for BALLOON_STAYS_US */
void balloon_assert_counter_stays(QTestState *qts, const char *name,
                                  uint64_t value);

/* Wait until no discard is put off any more */
void balloon_wait_discarded(QTestState *qts);

/* The state must be this, and discards inhibited by @inhibitor or NULL */
void balloon_assert_state(QTestState *qts, const char *state,
                          const char *inhibitor);

/*
 * Memory that a deflate, or the guest, waits for: so much, because of @error or
 * anything, if that is NULL
 */
bool balloon_is_held(QTestState *qts);
void balloon_assert_held(QTestState *qts, uint64_t size, const char *error);
/* Did an event come, so far, that memory waits for that reason? */
bool balloon_was_held_told(QTestState *qts, const char *error);
/* Wait for it, or for one that no memory waits */
void balloon_wait_held_event(QTestState *qts, const char *error);
void balloon_wait_not_held_event(QTestState *qts);

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
/* ... or comes when the device looks, which it does every ten seconds */
void balloon_look_for_event(QTestState *qts, const char *state,
                            const char *inhibitor);
/* ... and so far there is no other */
void balloon_assert_no_event(QTestState *qts);

#endif
