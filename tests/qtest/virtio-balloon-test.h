/*
 * The groups of tests in virtio-balloon-test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_TEST_H
#define TESTS_VIRTIO_BALLOON_TEST_H

#include "virtio-balloon-steps.h"

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
