/*
 * Tests of the virtio balloon on any transport
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_QOS_H
#define TESTS_VIRTIO_BALLOON_QOS_H

#include "qemu/module.h"
#include "libqos/qgraph.h"
#include "virtio-balloon-steps.h"

/*
 * Have qos-test run each of @tests on a balloon with these properties, in a
 * machine that it knows: their devices and options do not count
 */
void balloon_add_qos_tests(const BalloonTest *tests, unsigned n,
                           const char *properties);

#endif
