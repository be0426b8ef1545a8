/*
 * The virtio balloon and a driver that means harm
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-hostile.h"
#include "virtio-balloon-migrate.h"

/*
 * Upper half of memory, which migration has to send.  However low its limit is,
 * it sends a buffer every 100 ms: zeroes alone would be through in a second.
 */
#define BUSY_MEMORY (64 * MiB)

void balloon_assert_next_driver(BalloonDriver *d)
{
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_assert_serves(d);
}

void balloon_post_same(BalloonDriver *d, int queue, BalloonSeg seg,
                       unsigned n)
{
    g_autofree BalloonSeg *segs = g_new(BalloonSeg, n);

    for (unsigned i = 0; i < n; i++) {
        segs[i] = seg;
    }
    balloon_post(d, queue, segs, n);
}

void balloon_post_stats(BalloonDriver *d, uint64_t bytes, unsigned n)
{
    struct virtio_balloon_stat stat = {
        .tag = balloon_wire16(d, VIRTIO_BALLOON_S_MEMFREE),
        .val = balloon_wire64(d, bytes),
    };
    BalloonSeg seg = { balloon_copy(d, &stat, sizeof(stat)), sizeof(stat) };

    balloon_post_same(d, BALLOON_VQ_STATS, seg, n);
}

void balloon_begin_migration(QTestState *qts, const char *uri)
{
    qtest_memset(qts, BUSY_MEMORY, 0x5a, BUSY_MEMORY);
    balloon_set_bandwidth(qts, 4 * KiB);
    balloon_migrate_to(qts, uri);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    balloon_add_hostile_ring_tests();
    balloon_add_hostile_load_tests();
    balloon_add_hostile_list_tests();
    balloon_add_hostile_packed_tests();
    balloon_add_hostile_migration_tests();
    return g_test_run();
}
