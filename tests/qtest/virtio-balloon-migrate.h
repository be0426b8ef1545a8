/*
 * Migration of a virtio balloon through a file, for tests
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

/* Let it end */
void balloon_migrate_finish(QTestState *qts);
void balloon_migrate_cancel(QTestState *qts);

/* From begin to end; the VM is stopped then */
void balloon_migrate(QTestState *qts, const char *file);

/**
 * balloon_load: a machine that goes on from what is in @file
 * @d: filled in with the driver of @source, which goes on where it was
 * @device, @options: as for balloon_boot()
 */
void balloon_load(BalloonDriver *d, BalloonDriver *source, const char *device,
                  const char *options, const char *file);

#endif
