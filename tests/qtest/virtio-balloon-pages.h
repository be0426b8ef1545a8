/*
 * The groups of tests of virtio-balloon-pages-test
 *
 * They are about pages in the balloon of a driver that must tell before it
 * uses one again: whose each page is, at any time, and whatever happens.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_PAGES_H
#define TESTS_VIRTIO_BALLOON_PAGES_H

#include "virtio-balloon-case.h"

#define BALLOON_PAGES "/virtio-balloon/improved/pages/"

void balloon_add_pages_backing_tests(void);
void balloon_add_pages_life_tests(void);
void balloon_add_pages_migration_tests(void);
void balloon_add_pages_paused_tests(void);
void balloon_add_pages_request_tests(void);
void balloon_add_pages_stream_tests(void);

#endif
