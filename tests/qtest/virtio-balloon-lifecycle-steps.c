/*
 * The life cycle of a virtio balloon: steps that several tests take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-monitor.h"

#define TARGET (64 * MiB)

void balloon_boot_without(BalloonDriver *d, const char *options)
{
    QOSState *machine = qtest_pc_boot("-m 256 %s", options);

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
}

void balloon_assert_resizes(BalloonDriver *d)
{
    balloon_set_target(d->qts, BALLOON_LIFE_RAM - TARGET);
    balloon_wait_config_interrupt(d);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==,
                    TARGET / BALLOON_PAGE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 2);
    g_assert_cmpint(balloon_query(d->qts), ==,
                    BALLOON_LIFE_RAM - 2 * BALLOON_PAGE);
}

void balloon_assert_works(BalloonDriver *d)
{
    uint64_t pages = balloon_alloc(d, 4 * BALLOON_PAGE, 0xa5);

    balloon_assert_resizes(d);
    balloon_send_range(d, BALLOON_VQ_INFLATE, pages + BALLOON_PAGE, 2);
    balloon_assert_bytes(d, pages, BALLOON_PAGE, 0xa5);
    balloon_assert_bytes(d, pages + BALLOON_PAGE, 2 * BALLOON_PAGE, 0);
    balloon_assert_bytes(d, pages + 3 * BALLOON_PAGE, BALLOON_PAGE, 0xa5);
    balloon_send_range(d, BALLOON_VQ_DEFLATE, pages + BALLOON_PAGE, 2);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0);
    guest_free(d->alloc, pages);
}

uint32_t balloon_post_huge(BalloonDriver *d, uint64_t addr, unsigned n)
{
    uint32_t pfns[BALLOON_HUGE_PFNS];
    BalloonSeg segs[BALLOON_HUGE_MAX];

    for (unsigned i = 0; i < BALLOON_HUGE_PFNS; i++) {
        pfns[i] = balloon_wire32(d, addr / BALLOON_PAGE +
                                    i * 2 % BALLOON_HUGE_PAGES);
    }
    segs[0] = (BalloonSeg) { balloon_copy(d, pfns, sizeof(pfns)),
                             sizeof(pfns) };
    for (unsigned i = 1; i < n; i++) {
        segs[i] = segs[0];
    }
    return balloon_post(d, BALLOON_VQ_INFLATE, segs, n);
}

void balloon_post_stats(BalloonDriver *d, uint64_t free_bytes)
{
    uint8_t entry[10];
    uint16_t tag = balloon_wire16(d, VIRTIO_BALLOON_S_MEMFREE);
    uint64_t value = balloon_wire64(d, free_bytes);
    uint64_t addr;

    memcpy(entry, &tag, 2);
    memcpy(entry + 2, &value, 8);
    addr = balloon_copy(d, entry, sizeof(entry));
    balloon_post(d, BALLOON_VQ_STATS,
                 &(BalloonSeg) { addr, sizeof(entry) }, 1);
    balloon_wait_for(balloon_stat(d->qts, "free-memory") == free_bytes);
}
