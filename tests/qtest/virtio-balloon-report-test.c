/*
 * Free page reporting by the virtio balloon, on any transport
 *
 * virtio 1.2, section 5.5.6.7
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "virtio-balloon-case.h"
#include "standard-headers/linux/virtio_config.h"

#define F_REPORTING (1ull << VIRTIO_BALLOON_F_REPORTING)
#define F_POISON (1ull << VIRTIO_BALLOON_F_PAGE_POISON)

/* Reported pages read as zero, their neighbours keep every byte */
static void report(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 10);

    balloon_send_one(d, REPORT, mem + BALLOON_PAGE, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "x0xxxxxxxx");
    balloon_send(d, REPORT, (BalloonSeg[]) {
        { mem + 7 * BALLOON_PAGE, 2 * BALLOON_PAGE, true },
        { mem + 3 * BALLOON_PAGE, BALLOON_PAGE, true },
        { mem + 4 * BALLOON_PAGE, BALLOON_PAGE, true },
    }, 3);
    balloon_assert_pages(d, mem, "x0x00xx00x");
}

/* As many blocks as Linux reports at a time */
static void report_many(BalloonDriver *d)
{
    enum { BLOCKS = 32, BLOCK = 256 * 1024 };
    BalloonSeg segs[BLOCKS];
    uint64_t mem = balloon_dirty_pages(d, BLOCKS * BLOCK / BALLOON_PAGE + 1);

    g_assert_cmpuint(d->vq[REPORT]->size, >=, BLOCKS);
    for (int i = 0; i < BLOCKS; i++) {
        segs[i] = (BalloonSeg) {
            mem + (uint64_t)(BLOCKS - 1 - i) * BLOCK, BLOCK, true
        };
    }
    balloon_send(d, REPORT, segs, BLOCKS);
    balloon_assert_bytes(d, mem, BLOCKS * BLOCK, 0);
    balloon_assert_pages(d, mem + BLOCKS * BLOCK, "x");
}

/* Memory that the device may only read is no free page */
static void report_readable(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 4);

    balloon_send_one(d, REPORT, mem, BALLOON_PAGE, false);
    balloon_assert_pages(d, mem, "xxxx");
    balloon_send(d, REPORT, (BalloonSeg[]) {
        { mem, BALLOON_PAGE, false },
        { mem + 2 * BALLOON_PAGE, BALLOON_PAGE, true },
    }, 2);
    balloon_assert_pages(d, mem, "xx0x");
}

/* Less than a page is not a page */
static void report_partial(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 3);

    balloon_send_one(d, REPORT, mem, BALLOON_PAGE - 1, true);
    balloon_send_one(d, REPORT, mem + 1, BALLOON_PAGE - 1, true);
    balloon_send_one(d, REPORT, mem + 100, BALLOON_PAGE, true);
    balloon_send_one(d, REPORT, mem + 8, 1, true);
    balloon_assert_pages(d, mem, "xxx");
    balloon_assert_well(d);
}

/* MMIO, ROM, holes and what is past RAM: completed, and nothing happens */
static void report_not_ram(BalloonDriver *d)
{
    static const uint64_t places[] = {
        0xfee00000, 0xfffff000, 0xa0000, 1ull << 39, 0xfffffffffffff000,
    };
    uint64_t mem = balloon_dirty_pages(d, 2);

    for (int i = 0; i < ARRAY_SIZE(places); i++) {
        balloon_send_one(d, REPORT, places[i], BALLOON_PAGE, true);
        balloon_assert_well(d);
    }
    balloon_send_one(d, REPORT, mem, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "0x");
}

/*
 * With PAGE_POISON, free pages must go on reading as poison_val: only zero
 * can be had from the host.
 */
static void report_poison(BalloonDriver *d)
{
    uint64_t mem;

    balloon_negotiate(d, F_POISON | F_REPORTING);
    balloon_writel(d, BALLOON_CFG_POISON, 0xa5a5a5a5);
    balloon_setup_queues(d);
    qvirtio_set_driver_ok(d->vdev);
    mem = balloon_dirty_pages(d, 3);
    balloon_send_one(d, REPORT, mem, 2 * BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "xxx");

    /* inflated pages are the device's own */
    balloon_send_range(d, INFLATE, mem, 1);
    balloon_assert_pages(d, mem, "0xx");

    /* 0 is what init_on_free gives */
    balloon_reset(d);
    balloon_start(d, F_POISON | F_REPORTING);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0);
    balloon_send_one(d, REPORT, mem, 2 * BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "00x");

    /* A driver is not to change it any more; if it does, that counts */
    balloon_writel(d, BALLOON_CFG_POISON, 0xa5a5a5a5);
    balloon_send_one(d, REPORT, mem + 2 * BALLOON_PAGE, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "00x");
}

/* Without it, the value that was not agreed upon means nothing */
static void report_no_poison(BalloonDriver *d)
{
    balloon_start(d, F_REPORTING);
    balloon_writel(d, BALLOON_CFG_POISON, 0xa5a5a5a5);
    report(d);
}

static void report_broken_ring(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    balloon_post(d, REPORT, (BalloonSeg[]) { { mem, 0, true } }, 1);
    balloon_wait_broken(d);
    balloon_restart(d);
    balloon_send_one(d, REPORT, mem, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "0x");
}

static const BalloonTest tests[] = {
    { "report/pages", report },
    { "report/many", report_many },
    { "report/readable", report_readable },
    { "report/partial", report_partial },
    { "report/not-ram", report_not_ram },
    { "report/poison", report_poison, .unstarted = true },
    { "report/no-poison", report_no_poison, .unstarted = true },
    { "report/broken-ring", report_broken_ring },
};

static void register_virtio_balloon_report_tests(void)
{
    balloon_add_qos_tests(tests, ARRAY_SIZE(tests), "free-page-reporting=on");
}

libqos_init(register_virtio_balloon_report_tests);
