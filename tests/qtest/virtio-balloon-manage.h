/*
 * The tests of virtio-balloon-manage-test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_MANAGE_H
#define TESTS_VIRTIO_BALLOON_MANAGE_H

#include "virtio-balloon-case.h"

/* The balloon that QEMU 10.0 came with has none of this */
#define BALLOON_MANAGE "/virtio-balloon/manage/"

void balloon_add_counter_tests(void);
void balloon_add_stats_tests(void);

#endif
