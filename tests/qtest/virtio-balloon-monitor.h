/*
 * The virtio balloon as management sees it, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_MONITOR_H
#define TESTS_VIRTIO_BALLOON_MONITOR_H

#include "libqtest.h"

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

/* The event BALLOON_CHANGE that came next, so far; -1 if none did */
int64_t balloon_next_change(QTestState *qts);

/* A QMP command must fail with this class and these words */
G_GNUC_PRINTF(4, 5)
void balloon_assert_error(QTestState *qts, const char *class, const char *desc,
                          const char *command, ...);

/* The first line that an HMP command says must be this */
void balloon_assert_hmp(QTestState *qts, const char *command,
                        const char *answer);

/* Properties of the balloon at BALLOON_PATH */
void balloon_set_interval(QTestState *qts, int64_t seconds);
int64_t balloon_get_interval(QTestState *qts);

/* Its property "coordinated-discards" */
bool balloon_is_coordinated(QTestState *qts);

/* The statistic @name, without "stat-", of the device at @path */
uint64_t balloon_stat_at(QTestState *qts, const char *path, const char *name);
uint64_t balloon_stat(QTestState *qts, const char *name);
int64_t balloon_last_update(QTestState *qts);

#endif
