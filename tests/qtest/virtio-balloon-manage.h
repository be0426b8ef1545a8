/*
 * The groups of tests of virtio-balloon-manage-test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_MANAGE_H
#define TESTS_VIRTIO_BALLOON_MANAGE_H

#include "virtio-balloon-case.h"

/* The balloon that QEMU 10.0 came with has none of this */
#define BALLOON_MANAGE "/virtio-balloon/manage/"

void balloon_add_state_tests(void);
void balloon_add_counter_tests(void);
void balloon_add_cause_tests(void);
void balloon_add_inhibited_tests(void);
void balloon_add_fresh_stats_tests(void);
void balloon_add_no_stats_tests(void);
void balloon_add_limit_tests(void);

#endif
