/*
 * The tests of virtio-balloon-pages-test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_PAGES_H
#define TESTS_VIRTIO_BALLOON_PAGES_H

#include "virtio-balloon-case.h"

#define BALLOON_PAGES "/virtio-balloon/improved/pages/"

void balloon_add_pages_migration_tests(void);

#endif
