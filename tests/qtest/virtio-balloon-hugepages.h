/*
 * Huge pages of the host, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_HUGEPAGES_H
#define TESTS_VIRTIO_BALLOON_HUGEPAGES_H

/**
 * balloon_hugepages_take: make the host's pool larger
 * @pages: how many huge pages of the default size are needed
 *
 * They are given back by balloon_hugepages_restore(), or when the test fails.
 *
 * Returns: false if the host does not have them, or this user may not ask.
 */
bool balloon_hugepages_take(unsigned pages);
void balloon_hugepages_restore(void);

#endif
