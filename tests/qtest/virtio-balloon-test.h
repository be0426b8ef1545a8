/*
 * Tests of a virtio balloon, and the groups of them in virtio-balloon-test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_TEST_H
#define TESTS_VIRTIO_BALLOON_TEST_H

#include "virtio-balloon-driver.h"

/* What is tested with a balloon of its own, whose driver goes to DRIVER_OK */
typedef struct BalloonTest {
    /*
     * Below /virtio-balloon/.  Every test holds for the balloon that QEMU 10.0
     * came with, except those below improved/, where this one differs on
     * purpose.
     */
    const char *path;
    void (*run)(BalloonDriver *d);
    /* as for balloon_boot(), if they are not those of most tests */
    const char *device;
    const char *options;
    /* what @run finds in its driver */
    const void *data;
    /* the device was reset, and @run is to start it */
    bool unstarted;
} BalloonTest;

/* Add tests of that @device, with 128 MiB of memory and the iothread io0 */
void balloon_add_tests(const char *device, const BalloonTest *tests,
                       unsigned n);

void virtio_balloon_add_backing_tests(void);
void virtio_balloon_add_command_tests(void);
void virtio_balloon_add_config_tests(void);
void virtio_balloon_add_core_tests(void);
void virtio_balloon_add_hint_tests(void);
void virtio_balloon_add_life_tests(void);
void virtio_balloon_add_migration_tests(void);
void virtio_balloon_add_packed_tests(void);
void virtio_balloon_add_roles_tests(void);
void virtio_balloon_add_slice_tests(void);
void virtio_balloon_add_transport_tests(void);

#endif
