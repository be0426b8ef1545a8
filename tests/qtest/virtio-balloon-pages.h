/*
 * The groups of tests of virtio-balloon-pages-test, and what they share
 *
 * They are about pages in the balloon of a driver that must tell before it
 * uses one again: whose each page is, at any time, and whatever happens.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_PAGES_H
#define TESTS_VIRTIO_BALLOON_PAGES_H

#include "qemu/units.h"
#include "virtio-balloon-driver.h"

#define BALLOON_PAGES_PATH "/virtio-balloon/improved/pages/"
#define BALLOON_TELL "virtio-balloon-pci,must-tell-host=on"

/* Where the guest has pages to give: the beginning of a huge page */
#define BALLOON_AREA (64 * MiB)
#define BALLOON_AREA_SIZE (2 * MiB)

/* What is in them before they are given, and what the guest writes later */
#define BALLOON_OLD 0xa5
#define BALLOON_NEW 0x33

void balloon_add_pages_backing_tests(void);
void balloon_add_pages_life_tests(void);
void balloon_add_pages_migration_tests(void);
void balloon_add_pages_paused_tests(void);
void balloon_add_pages_request_tests(void);
void balloon_add_pages_stream_tests(void);

#endif
