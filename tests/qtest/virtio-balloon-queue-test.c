/*
 * Lists of pages for the virtio balloon, rings and reports, on any transport
 *
 * virtio 1.2, sections 5.5.6.1, 5.5.6.2 and 5.5.6.7
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "virtio-balloon-case.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

/*
 * Listed pages read as zero, in whatever order and however often they are
 * listed; their neighbours keep every byte
 */
static void inflate(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 8);
    uint32_t pfn = BALLOON_PFN(mem);

    balloon_send_pfns(d, INFLATE, (uint32_t[]) {
        pfn + 5, pfn + 1, pfn + 2, pfn + 1, pfn + 1,
    }, 5);
    balloon_assert_pages(d, mem, "x00xx0xx");

    /* a page that is given up again is as good as new */
    qtest_memset(d->qts, mem + BALLOON_PAGE, OLD, BALLOON_PAGE);
    balloon_send_range(d, INFLATE, mem + BALLOON_PAGE, 1);
    balloon_assert_pages(d, mem, "x00xx0xx");
}

/* A list where there is no memory has something in it, or nothing */
static void inflate_list_nowhere(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 1);

    balloon_send_one(d, INFLATE, 1ull << 50, 64, false);
    balloon_assert_pages(d, mem, "x");
    balloon_send_range(d, INFLATE, mem, 1);
    balloon_assert_pages(d, mem, "0");
}

/* Numbers of pages that are not RAM are skipped, the others are served */
static void inflate_bad_pfns(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 7);
    uint32_t pfn = BALLOON_PFN(mem);

    balloon_send_pfns(d, INFLATE, (uint32_t[]) {
        pfn + 1,
        0xffffffff, /* the largest number */
        pfn + 3,
        0xfffff,    /* ROM of a PC; past RAM elsewhere */
        0xfffe0,
        0xfec00,    /* MMIO of a PC */
        0xfee00,
        0xa0,       /* MMIO or a hole of a PC */
        0x8000000,  /* past RAM anywhere */
        0x7fffffff,
        0x80000000,
        pfn + 5,
    }, 12);
    balloon_assert_pages(d, mem, "x0x0x0x");
    balloon_assert_well(d);

    /* a list of nothing else */
    balloon_send_pfns(d, INFLATE, (uint32_t[]) { 0xffffffff, 0xfffff }, 2);
    balloon_send_range(d, INFLATE, mem, 1);
    balloon_assert_pages(d, mem, "00x0x0x");
}

/* What is left of a list after whole numbers is ignored */
static void inflate_odd_length(BalloonDriver *d)
{
    static const char *const maps[] = { "xxx", "x0x", "x00" };
    uint64_t mem = balloon_dirty_pages(d, 3);
    uint32_t pfn = BALLOON_PFN(mem);
    uint64_t list = balloon_copy_pfns(d, (uint32_t[]) { pfn + 1, pfn + 2 }, 2);

    for (int len = 1; len <= 8; len++) {
        balloon_send_one(d, INFLATE, list, len, false);
        balloon_assert_pages(d, mem, maps[len / 4]);
        qtest_memset(d->qts, mem, OLD, 3 * BALLOON_PAGE);
    }
}

/* Segments are one list; where one ends means nothing (section 2.7.4.1) */
static void inflate_split_pfn(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 5);
    uint32_t pfn = BALLOON_PFN(mem);
    uint64_t list = balloon_copy_pfns(d, (uint32_t[]) {
        pfn + 1, pfn + 2, pfn + 3,
    }, 3);

    balloon_send(d, INFLATE, (BalloonSeg[]) {
        { list, 1 }, { list + 1, 2 }, { list + 3, 4 }, { list + 7, 5 },
    }, 4);
    balloon_assert_pages(d, mem, "x000x");
}

/* Only what the device is to read is part of the list */
static void inflate_writable(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 4);
    uint64_t list = balloon_copy_spread_pfns(d, mem, 4);

    balloon_send_one(d, INFLATE, list, 4, true);
    balloon_assert_pages(d, mem, "xxxx");
    balloon_send(d, INFLATE, (BalloonSeg[]) {
        { list + 8, 4 }, { list + 24, 4, true },
    }, 2);
    balloon_assert_pages(d, mem, "x0xx");
}

/* The device found a fault in the ring, and is well again after a reset */
static void assert_broken_until_reset(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 1);

    balloon_wait_broken(d);
    if (d->vdev->features & 1ull << VIRTIO_F_VERSION_1) {
        balloon_wait_config_interrupt(d);
    }
    /* Nothing is served any more */
    balloon_post_range(d, INFLATE, mem, 1);
    balloon_query(d->qts);
    balloon_assert_pages(d, mem, "x");
    balloon_restart(d);
    balloon_send_range(d, INFLATE, mem, 1);
    balloon_assert_pages(d, mem, "0");
}

/* As many segments as the ring has descriptors */
static void long_chain(BalloonDriver *d)
{
    unsigned n = d->vq[INFLATE]->size;
    g_autofree BalloonSeg *segs = g_new0(BalloonSeg, n);
    uint64_t mem = balloon_dirty_pages(d, n + 1);
    uint64_t list = balloon_copy_spread_pfns(d, mem, n);

    for (unsigned i = 0; i < n; i++) {
        segs[i] = (BalloonSeg) { list + 8 * i, 4 };
    }
    balloon_send(d, INFLATE, segs, n);
    balloon_assert_bytes(d, mem, (uint64_t)n * BALLOON_PAGE, 0);
    balloon_assert_pages(d, mem + (uint64_t)n * BALLOON_PAGE, "x");
}

/* virtio 1.2, section 2.7.5.3 */
static void indirect(BalloonDriver *d)
{
    enum { N = 64 };
    g_autofree QVRingIndirectDesc *table = NULL;
    uint64_t mem, list;
    uint32_t head;

    balloon_start(d, 1ull << VIRTIO_RING_F_INDIRECT_DESC);
    mem = balloon_dirty_pages(d, N + 1);
    list = balloon_copy_spread_pfns(d, mem, N);
    table = qvring_indirect_desc_setup(d->qts, d->vdev, d->alloc, N);
    for (int i = 0; i < N; i++) {
        qvring_indirect_desc_add(d->vdev, d->qts, table, list + 8 * i, 4,
                                 false);
    }
    head = qvirtqueue_add_indirect(d->qts, d->vq[INFLATE], table);
    balloon_publish(d, INFLATE, head);
    balloon_kick(d, INFLATE);
    balloon_wait_served(d, INFLATE, head);
    balloon_assert_bytes(d, mem, N * BALLOON_PAGE, 0);
    balloon_assert_pages(d, mem + N * BALLOON_PAGE, "x");
}

/* Many requests and one kick: every one is returned, in order */
static void full_ring(BalloonDriver *d)
{
    unsigned n = d->vq[INFLATE]->size;
    uint64_t mem = balloon_dirty_pages(d, n);
    uint64_t list = balloon_copy_spread_pfns(d, mem, n);

    for (unsigned i = 0; i < n; i++) {
        BalloonSeg seg = { list + 8 * i, 4 };

        balloon_publish(d, INFLATE, balloon_add(d, INFLATE, &seg, 1));
    }
    balloon_kick(d, INFLATE);
    for (unsigned i = 0; i < n; i++) {
        balloon_wait_used(d, INFLATE, i);
    }
    balloon_assert_bytes(d, mem, (uint64_t)n * BALLOON_PAGE, 0);
}

/* The ring wraps around; a driver may use one descriptor for ever */
static void ring_wraps(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    for (unsigned i = 0; i < d->vq[INFLATE]->size + 3; i++) {
        balloon_send_range(d, INFLATE, mem, 1);
    }
    balloon_assert_pages(d, mem, "0x");
}

/* Faults in the ring itself are found by the core, and need a reset */
static void broken_rings(BalloonDriver *d)
{
    uint64_t list = balloon_copy_spread_pfns(d, balloon_dirty_pages(d, 1), 1);

    for (int queue = INFLATE; queue <= DEFLATE; queue++) {
        uint64_t desc;
        uint32_t head;

        /* no bytes at all */
        balloon_post(d, queue, (BalloonSeg[]) { { list, 0 } }, 1);
        assert_broken_until_reset(d);

        /* among others */
        balloon_post(d, queue, (BalloonSeg[]) {
            { list, 4 }, { list, 0 }, { list, 4 },
        }, 3);
        assert_broken_until_reset(d);

        /* a chain without an end: a descriptor that is followed by itself */
        head = balloon_add(d, queue, &(BalloonSeg) { list, 4 }, 1);
        desc = d->vq[queue]->desc + head * sizeof(struct vring_desc);
        balloon_write16(d, desc + offsetof(struct vring_desc, flags),
                        VRING_DESC_F_NEXT);
        balloon_write16(d, desc + offsetof(struct vring_desc, next), head);
        balloon_publish(d, queue, head);
        balloon_kick(d, queue);
        assert_broken_until_reset(d);

        /* a descriptor that is not in the ring */
        balloon_publish(d, queue, d->vq[queue]->size);
        balloon_kick(d, queue);
        assert_broken_until_reset(d);
    }
}

/* Deflate is acknowledged and takes nothing from the guest */
static void deflate(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 4);

    balloon_send_range(d, INFLATE, mem, 4);
    balloon_assert_pages(d, mem, "0000");

    /* before the request is sent, which the driver may do ... */
    qtest_memset(d->qts, mem, OLD, BALLOON_PAGE);
    balloon_send_range(d, DEFLATE, mem, 4);
    balloon_assert_pages(d, mem, "x000");
    /* ... and after it was acknowledged */
    qtest_memset(d->qts, mem + BALLOON_PAGE, OLD, BALLOON_PAGE);
    balloon_send_range(d, INFLATE, mem + 3 * BALLOON_PAGE, 1);
    balloon_assert_pages(d, mem, "xx00");

    /* pages that were never given up */
    mem = balloon_dirty_pages(d, 2);
    balloon_send_range(d, DEFLATE, mem, 2);
    balloon_assert_pages(d, mem, "xx");
}

static void deflate_nonsense(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    balloon_send_pfns(d, DEFLATE, (uint32_t[]) { 0xffffffff, 0xfffff }, 2);
    balloon_send_one(d, DEFLATE, mem, 3, false);
    balloon_send_one(d, DEFLATE, mem, BALLOON_PAGE, false);
    balloon_send_one(d, DEFLATE, mem, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "xx");
    balloon_assert_well(d);
}

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
    assert_broken_until_reset(d);
    balloon_send_one(d, REPORT, mem, BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "0x");
}

static const BalloonTest tests[] = {
    { "inflate/listed-pages", inflate },
    { "inflate/bad-pfns", inflate_bad_pfns },
    { "inflate/list-nowhere", inflate_list_nowhere },
    { "inflate/odd-length", inflate_odd_length },
    { "inflate/split-pfn", inflate_split_pfn },
    { "inflate/writable", inflate_writable },
    { "ring/long-chain", long_chain },
    { "ring/indirect", indirect, .unstarted = true },
    { "ring/full", full_ring },
    { "ring/wraps", ring_wraps },
    { "ring/broken", broken_rings },
    { "deflate/keeps-data", deflate },
    { "deflate/nonsense", deflate_nonsense },
};

static const BalloonTest report_tests[] = {
    { "report/pages", report },
    { "report/many", report_many },
    { "report/readable", report_readable },
    { "report/partial", report_partial },
    { "report/not-ram", report_not_ram },
    { "report/poison", report_poison, .unstarted = true },
    { "report/no-poison", report_no_poison, .unstarted = true },
    { "report/broken-ring", report_broken_ring },
};

static void register_virtio_balloon_queue_tests(void)
{
    balloon_add_qos_tests(tests, ARRAY_SIZE(tests), NULL);
    balloon_add_qos_tests(report_tests, ARRAY_SIZE(report_tests),
                          "free-page-reporting=on");
}

libqos_init(register_virtio_balloon_queue_tests);
