/*
 * The groups of tests of virtio-balloon-lifecycle-test, and their steps
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_LIFECYCLE_H
#define TESTS_VIRTIO_BALLOON_LIFECYCLE_H

#include "qemu/units.h"
#include "virtio-balloon-driver.h"

/*
 * Every test holds for the balloon that QEMU 10.0 came with, except those
 * below /virtio-balloon/improved, where this one differs on purpose.
 */
void balloon_add_reset_tests(void);
void balloon_add_running_tests(void);
void balloon_add_memory_tests(void);
void balloon_add_backing_tests(void);
void balloon_add_fault_tests(void);
void balloon_add_lost_tests(void);
void balloon_add_pool_tests(void);
void balloon_add_tell_tests(void);

/* Memory of the machine of balloon_boot_without(); others take -m 256 */
#define BALLOON_LIFE_RAM (256 * MiB)

/* Make a PC that has no balloon, but the devices of @options */
void balloon_boot_without(BalloonDriver *d, const char *options);

/* A target reaches the driver, and what that says comes back */
void balloon_assert_resizes(BalloonDriver *d);

/* As that, and pages go when they shall; the queues are set up */
void balloon_assert_works(BalloonDriver *d);

/* Leave a statistics buffer, and wait until the device has read it */
void balloon_post_stats(BalloonDriver *d, uint64_t free_bytes);

/**
 * balloon_hold_file: a file in a file system that nobody else sees
 * @type, @options: of the file system, as for mount(2)
 * @fd: filled in with the file's descriptor, -1 if none may be mounted
 *
 * Returns: the process that has the file open until it is killed
 */
pid_t balloon_hold_file(const char *type, const char *options, uint64_t size,
                        int *fd);

#endif
