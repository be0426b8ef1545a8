/*
 * Migration and snapshots of a virtio balloon, for tests
 *
 * A guest is saved in a file of the test, and loaded from it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_MIGRATE_H
#define TESTS_VIRTIO_BALLOON_MIGRATE_H

#include "virtio-balloon-driver.h"

/* That file; there is none before something was saved */
const char *balloon_saved(void);
/* Overwrite @size bytes of it, so many after the first @mark in it */
void balloon_patch_saved(const char *mark, size_t after, const void *bytes,
                         size_t size);

/* How fast a migration is, in bytes a second */
void balloon_set_bandwidth(QTestState *qts, int64_t bytes);

/* Switch a capability of the next migration on or off */
void balloon_set_capability(QTestState *qts, const char *name, bool on);
/* Switch it on, or skip the test: the host does not have it */
bool balloon_try_capability(QTestState *qts, const char *name);

/* The answer to query-migrate; the caller unrefs it */
QDict *balloon_migration_info(QTestState *qts);

/* Is that its status?  "failed" is an error, unless it is asked for */
bool balloon_migration_is(QTestState *qts, const char *status);

/* Begin to save the guest, while it goes on */
void balloon_migrate_start(QTestState *qts);
/* ... so slowly that it does not end as long as there is data to be sent */
void balloon_migrate_slowly(QTestState *qts);

/* Let it end, or go on from "pre-switchover" */
void balloon_migrate_finish(QTestState *qts);
void balloon_migrate_continue(QTestState *qts);
void balloon_migrate_cancel(QTestState *qts);

/* From begin to end; the VM is stopped then */
void balloon_migrate(QTestState *qts);

/* Begin to migrate; a QEMU that waits, and is to be migrated to, first */
void balloon_migrate_incoming(QTestState *qts, const char *uri);
void balloon_migrate_to(QTestState *qts, const char *uri);

/* Begin to migrate to this test.  Returns: the stream, which the caller ends */
int balloon_migrate_connect(QTestState *qts);

/*
 * Save the guest through this test, which so decides how far it gets.
 * Returns: a stream for balloon_migrate_pass() and balloon_migrate_end()
 */
int balloon_migrate_begin(QTestState *qts);
/*
 * Let @size bytes pass.  The VM is not stopped as long as more than that must
 * still be sent, and some 512 KiB.
 */
void balloon_migrate_pass(int stream, size_t size);
/* Let all pass; the VM is stopped then */
void balloon_migrate_end(QTestState *qts, int stream);

/*
 * Begin to migrate to a new machine, with postcopy when it is asked for.
 * Returns: false, and the test is skipped, if the host cannot do that
 */
bool balloon_begin_postcopy(BalloonDriver *d, BalloonDriver *target);

/* Bytes that it did not look at even once; less than 0 if often */
int64_t balloon_migration_skipped(QTestState *qts);

/*
 * Load what was saved.  Returns: whether that went well; if not, QEMU is there
 * as before
 */
bool balloon_try_load(QTestState *qts);

/*
 * @d drives the PCI device of its machine from where @source left it: nothing
 * of it is reset or set up
 */
void balloon_adopt(BalloonDriver *d, BalloonDriver *source);

/**
 * balloon_load: a machine that goes on from what was saved
 * @d: filled in with the driver of @source, which goes on where it was
 * @options: as for balloon_boot(); NULL for those of @source
 */
void balloon_load(BalloonDriver *d, BalloonDriver *source, const char *options);
/* ... where @d is that driver, and the QEMU that it had ends */
void balloon_arrive(BalloonDriver *d, const char *options);

/*
 * Have the guest of @d go on in another QEMU; this one ends.
 * Returns: balloon_migration_skipped().
 */
int64_t balloon_move(BalloonDriver *d);

/* Add an empty disk that can hold snapshots, named disk; and its file */
void balloon_add_disk(QTestState *qts);
/* Add the disk that another QEMU has left */
void balloon_open_disk(QTestState *qts);
const char *balloon_disk(void);

/* Wait for "snapshot-save" or "snapshot-load" of snapshot @tag on that disk */
void balloon_snapshot(QTestState *qts, const char *command, const char *tag);

/* Returns: whether that went well */
bool balloon_try_snapshot(QTestState *qts, const char *command,
                          const char *tag);

#endif
