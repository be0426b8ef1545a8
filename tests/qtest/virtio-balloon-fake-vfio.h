/*
 * What virtio-balloon-fake-vfio.so, in QEMU, and a test tell each other: a file
 * that both map
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_FAKE_VFIO_H
#define TESTS_VIRTIO_BALLOON_FAKE_VFIO_H

/* Has the name of the file; without it there are no limits */
#define FAKE_VFIO_ENVIRONMENT "VIRTIO_BALLOON_FAKE_VFIO"
#define FAKE_VFIO_MAX 65535

typedef struct FakeVfioMapping {
    uint64_t iova;
    uint64_t size;
} FakeVfioMapping;

typedef struct FakeVfio {
    /* set by the test: what more is refused, with ENOMEM and ENOSPC */
    uint64_t max_bytes;
    uint32_t max_mappings;
    /* what is mapped, by address, and how often something was refused */
    uint32_t n;
    uint64_t bytes;
    uint32_t refused;
    FakeVfioMapping table[FAKE_VFIO_MAX];
} FakeVfio;

#endif
