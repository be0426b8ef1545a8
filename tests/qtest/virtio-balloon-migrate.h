/*
 * Migration and snapshots of a virtio balloon, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_MIGRATE_H
#define TESTS_VIRTIO_BALLOON_MIGRATE_H

#include "virtio-balloon-driver.h"

/* A name for a file that does not exist; the caller removes the file */
char *balloon_migration_file(void);

/*
 * Begin to migrate into @file, so slowly that it does not end by itself as
 * long as there is data to be sent
 */
void balloon_migrate_slowly(QTestState *qts, const char *file);

/* How fast a migration is, in bytes a second */
void balloon_set_bandwidth(QTestState *qts, int64_t bytes);

/* Begin to migrate; a QEMU that waits, and is to be migrated to, first */
void balloon_migrate_incoming(QTestState *qts, const char *uri);
void balloon_migrate_to(QTestState *qts, const char *uri);

/* Switch a capability of the next migration on or off */
void balloon_set_capability(QTestState *qts, const char *name, bool on);

/* Is that its status?  "failed" is an error, unless it is asked for */
bool balloon_migration_is(QTestState *qts, const char *status);

/* Let it end */
void balloon_migrate_finish(QTestState *qts);
void balloon_migrate_cancel(QTestState *qts);

/*
 * Migrate through this test into a file, which so decides how far it gets.
 * Returns: a stream for balloon_migrate_pass() and balloon_migrate_end()
 */
int balloon_migrate_begin(QTestState *qts);
/*
 * Let @size bytes pass.  The VM is not stopped as long as more than that must
 * still be sent, and some 512 KiB.
 */
void balloon_migrate_pass(int stream, const char *file, size_t size);
/* Let all pass; the VM is stopped then */
void balloon_migrate_end(QTestState *qts, int stream, const char *file);

/* From begin to end; the VM is stopped then */
void balloon_migrate(QTestState *qts, const char *file);

/* Bytes that it did not look at even once; less than 0 if often */
int64_t balloon_migration_skipped(QTestState *qts);

/* A machine of that balloon that waits to be migrated to; it has no driver */
void balloon_boot_incoming(BalloonDriver *d, const char *device,
                           const char *options);

/*
 * Have it load @file.  Returns: whether that went well; if not, QEMU is there
 * as before
 */
bool balloon_try_load(QTestState *qts, const char *file);

/*
 * @d drives the PCI device of its machine from where @source left it: nothing
 * of it is reset or set up
 */
void balloon_adopt(BalloonDriver *d, BalloonDriver *source);

/**
 * balloon_load: a machine that goes on from what is in @file
 * @d: filled in with the driver of @source, which goes on where it was
 * @device, @options: as for balloon_boot()
 */
void balloon_load(BalloonDriver *d, BalloonDriver *source, const char *device,
                  const char *options, const char *file);

/*
 * Have the guest of @d go on in another QEMU, through a file; this one ends.
 * Returns: balloon_migration_skipped().
 */
int64_t balloon_move(BalloonDriver *d, const char *device,
                     const char *options);

/* Add an empty disk that can hold snapshots, named disk; makes the file */
void balloon_add_disk(QTestState *qts, const char *path);

/* Wait for "snapshot-save" or "snapshot-load" of snapshot @tag on that disk */
void balloon_snapshot(QTestState *qts, const char *command, const char *tag);

/* Returns: whether that went well */
bool balloon_try_snapshot(QTestState *qts, const char *command,
                          const char *tag);

#endif
