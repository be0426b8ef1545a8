/*
 * The groups of tests of virtio-balloon-lifecycle-test, and what they share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_LIFECYCLE_H
#define TESTS_VIRTIO_BALLOON_LIFECYCLE_H

#include "virtio-balloon-steps.h"

void balloon_add_backing_tests(void);
void balloon_add_lost_tests(void);
void balloon_add_memory_tests(void);
void balloon_add_pool_tests(void);
void balloon_add_reset_tests(void);
void balloon_add_running_tests(void);

/* A target reaches the driver, and pages go when they shall */
void balloon_assert_works(BalloonDriver *d);

/**
 * balloon_hold_file: a file in a file system that nobody else sees
 * @type, @options: of the file system, as for mount(2)
 * @path: filled in with how others get at the file, NULL if none may be mounted
 *
 * Returns: the process that has the file open until balloon_drop_file()
 */
pid_t balloon_hold_file(const char *type, const char *options, uint64_t size,
                        char **path);
void balloon_drop_file(pid_t pid, char *path);

#endif
