/*
 * The groups of tests of virtio-balloon-test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_TEST_H
#define TESTS_VIRTIO_BALLOON_TEST_H

/*
 * Every test holds for the balloon that QEMU 10.0 came with, except those
 * below /virtio-balloon/improved, where this one differs on purpose.
 */
#define BALLOON_TESTS "/virtio-balloon/"
#define BALLOON_IMPROVED BALLOON_TESTS "improved/"

void virtio_balloon_add_backing_tests(void);
void virtio_balloon_add_command_tests(void);
void virtio_balloon_add_config_tests(void);
void virtio_balloon_add_core_tests(void);
void virtio_balloon_add_hint_tests(void);
void virtio_balloon_add_life_tests(void);
void virtio_balloon_add_machine_tests(void);
void virtio_balloon_add_migration_tests(void);
void virtio_balloon_add_packed_tests(void);
void virtio_balloon_add_reset_tests(void);
void virtio_balloon_add_roles_tests(void);
void virtio_balloon_add_slice_tests(void);
void virtio_balloon_add_transport_tests(void);

#endif
