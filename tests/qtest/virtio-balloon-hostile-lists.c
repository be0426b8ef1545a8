/*
 * The virtio balloon and requests that are not what a driver should send
 *
 * Whatever they say, no page changes but those that they name, the work for
 * them is bounded, and the next driver is served.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-hostile.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-monitor.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

#define RAM BALLOON_RAM
#define PAGES 8
#define BYTE 0x6c

/* Memory of more than one descriptor, and where all of it is in one piece */
#define LARGE_OPTIONS "-m 9G " BALLOON_IOTHREAD
#define LARGE_AREA (4 * GiB)
#define LARGEST 0xffffffffu

/* In how many pages memory is discarded at most, in one go */
#define STEP (4 * MiB)

static void fill_first_pages(BalloonDriver *d)
{
    qtest_memset(d->qts, 0, BYTE, PAGES * BALLOON_PAGE);
}

/* All that was given up has had its discard, or will never have one */
static void settle(BalloonDriver *d)
{
    balloon_wait_discarded(d->qts);
    balloon_assert_sum(d->qts);
}

/*
 * A driver that takes page numbers for 64 bits wide: half of what it lists is
 * page 0, which it never meant to give up.
 */
static void test_wide_numbers(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, PAGES + 1);
    uint64_t list = balloon_copy_spread_pfns(d, mem, PAGES);
    const uint32_t size = 2 * PAGES * sizeof(uint32_t);

    fill_first_pages(d);
    balloon_send_one(d, BALLOON_VQ_INFLATE, list, size, false);
    /* The same with others beside it, in order */
    balloon_inflate(d, 0, 3 * BALLOON_PAGE);
    settle(d);
    balloon_assert_bytes(d, mem, PAGES * BALLOON_PAGE, 0);
    balloon_assert_pages(d, mem + PAGES * BALLOON_PAGE, "x");
    balloon_assert_bytes(d, 0, BALLOON_PAGE, BYTE);
    balloon_assert_bytes(d, BALLOON_PAGE, 2 * BALLOON_PAGE, 0);
    balloon_assert_bytes(d, 3 * BALLOON_PAGE, BALLOON_PAGE, BYTE);

    balloon_send_one(d, BALLOON_VQ_DEFLATE, list, size, false);
    qtest_memset(d->qts, mem, BYTE, PAGES * BALLOON_PAGE);
    settle(d);
    balloon_assert_bytes(d, mem, PAGES * BALLOON_PAGE, BYTE);
    balloon_assert_bytes(d, 0, BALLOON_PAGE, BYTE);
}

/* Page numbers that come to a page of the guest if bits of them are lost */
static void test_numbers_wrap(BalloonDriver *d)
{
    uint32_t pfns[1024];
    uint64_t mem = balloon_dirty_pages(d, 4);

    fill_first_pages(d);
    for (int shift = 20; shift < 32; shift++) {
        /* After that shift, as a 32-bit address ... */
        for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
            pfns[i] = BALLOON_PFN(mem) + (i + 1) % 4 +
                      (UINT32_MAX << shift) - (i / 4 << 20);
        }
        balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, ARRAY_SIZE(pfns));
        settle(d);
        balloon_send_pfns(d, BALLOON_VQ_DEFLATE, pfns, ARRAY_SIZE(pfns));
    }
    /* ... and up to the last one, after which none comes */
    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = UINT32_MAX - ARRAY_SIZE(pfns) + 1 + i;
    }
    balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, ARRAY_SIZE(pfns));
    settle(d);
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), ==, 0);
    balloon_assert_pages(d, mem, "xxxx");
    balloon_assert_bytes(d, 0, PAGES * BALLOON_PAGE, BYTE);
}

/*
 * Leave a request, which may break the ring; nothing in RAM changes, unless
 * it is a report that goes on at address 0, as the core has it
 */
static void assert_survives(BalloonDriver *d, int queue, BalloonSeg seg)
{
    bool named = seg.write && queue == BALLOON_VQ_REPORT &&
                 (seg.addr + seg.len < seg.addr || seg.addr < RAM);
    uint64_t mem = balloon_dirty_pages(d, 1);

    fill_first_pages(d);
    qtest_memset(d->qts, RAM - BALLOON_PAGE, BYTE, BALLOON_PAGE);
    balloon_post(d, queue, &seg, 1);
    balloon_query(d->qts);
    if (!named) {
        balloon_assert_pages(d, mem, "x");
        balloon_assert_bytes(d, 0, PAGES * BALLOON_PAGE, BYTE);
        balloon_assert_bytes(d, RAM - BALLOON_PAGE, BALLOON_PAGE, BYTE);
    }
    guest_free(d->alloc, mem);
    balloon_assert_next_driver(d);
}

/* Descriptors that end after the last address, or where there is nothing */
static void test_addresses_wrap(BalloonDriver *d)
{
    static const BalloonSeg segs[] = {
        { UINT64_MAX - BALLOON_PAGE + 1, BALLOON_PAGE },
        { UINT64_MAX - BALLOON_PAGE + 1, 4 * BALLOON_PAGE },
        { UINT64_MAX - BALLOON_PAGE + 1, LARGEST },
        { UINT64_MAX, 4 },
        { UINT64_MAX - 3, 8 },
        { RAM - BALLOON_PAGE, LARGEST },
        { RAM, LARGEST },
        { 1ull << 63, LARGEST },
    };

    for (int queue = 0; queue < BALLOON_VQ_MAX; queue++) {
        for (int i = 0; i < 2 * ARRAY_SIZE(segs); i++) {
            BalloonSeg seg = segs[i / 2];

            seg.write = i % 2;
            assert_survives(d, queue, seg);
        }
    }
}

/* A report as long as a descriptor can tell */
static void test_largest_report(BalloonDriver *d)
{
    const uint64_t last = LARGE_AREA + QEMU_ALIGN_DOWN(LARGEST, BALLOON_PAGE);

    qtest_memset(d->qts, LARGE_AREA, BYTE, BALLOON_PAGE);
    qtest_memset(d->qts, last - BALLOON_PAGE, BYTE, 3 * BALLOON_PAGE);
    balloon_send_one(d, BALLOON_VQ_REPORT, LARGE_AREA, LARGEST, true);
    balloon_assert_bytes(d, LARGE_AREA, BALLOON_PAGE, 0);
    balloon_assert_bytes(d, last - BALLOON_PAGE, BALLOON_PAGE, 0);
    balloon_assert_bytes(d, last, 2 * BALLOON_PAGE, BYTE);
    g_assert_cmpuint(balloon_counter(d->qts, "reported"), ==, LARGEST);
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), <=,
                     LARGEST / STEP + 1);
}

static uint64_t inflated(BalloonDriver *d)
{
    return balloon_counter_pages(d->qts, "inflated");
}

/*
 * A list as long as that, of a gigabyte of numbers, which takes seconds: the
 * monitor sees it grow, nothing is discarded twice, and a reset ends it.
 */
static void test_largest_list(BalloonDriver *d)
{
    uint64_t before;

    fill_first_pages(d);
    balloon_post(d, BALLOON_VQ_INFLATE,
                 &(BalloonSeg) { LARGE_AREA, LARGEST }, 1);
    balloon_wait_for(inflated(d));
    before = inflated(d);
    balloon_wait_for(inflated(d) > before);
    g_assert_false(balloon_has_used(d, BALLOON_VQ_INFLATE));
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), ==, 0);
    balloon_reset(d);
    before = inflated(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    g_assert_cmpuint(inflated(d), ==, before);
    balloon_assert_bytes(d, 0, PAGES * BALLOON_PAGE, BYTE);
    balloon_assert_next_driver(d);
}

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

/* Tables of indirect descriptors: 16 bytes each, whatever the length says */
static const struct {
    uint32_t size;
    /* where it is; 0 for in memory */
    uint64_t addr;
    uint16_t flags;
    struct {
        uint16_t flags;
        uint16_t next;
        uint32_t len;
    } entries[3];
} tables[] = {
    /* no whole entries, or none */
    { 0, 0, 0, { { 0, 0, 4 } } },
    { 15, 0, 0, { { 0, 0, 4 } } },
    { 40, 0, 0, { { NEXT, 1, 4 }, { NEXT, 2, 4 }, { 0, 0, 4 } } },
    { LARGEST & ~15, 0, 0, { { 0, 0, 4 } } },
    /* where there is nothing, or a device */
    { 48, 1ull << 50, 0, { } },
    { 48, UINT64_MAX - 15, 0, { } },
    { 48, 0xfec00000, 0, { } },
    /* loops, and what is next is not in it */
    { 48, 0, 0, { { NEXT, 0, 4 } } },
    { 48, 0, 0, { { NEXT, 1, 4 }, { NEXT, 2, 4 }, { NEXT, 0, 4 } } },
    { 48, 0, 0, { { NEXT, 3, 4 } } },
    { 48, 0, 0, { { NEXT, 0xffff, 4 } } },
    /* a table in a table, a table with a successor */
    { 48, 0, 0, { { INDIRECT, 0, 48 } } },
    { 48, 0, 0, { { NEXT, 1, 4 }, { INDIRECT | NEXT, 1, 48 } } },
    { 48, 0, NEXT, { { 0, 0, 4 } } },
    /* what is to be written before what is to be read, nothing at all */
    { 48, 0, 0, { { NEXT | WRITE, 1, 4 }, { 0, 0, 4 } } },
    { 48, 0, 0, { { NEXT, 1, 4 }, { 0, 0, 0 } } },
};

/* Have descriptor 0 refer to a table whose entries refer to @data */
static void make_table(BalloonDriver *d, QVirtQueue *vq, int i, uint64_t data)
{
    struct vring_desc table[3];
    struct vring_desc desc = {
        .addr = cpu_to_le64(tables[i].addr),
        .len = cpu_to_le32(tables[i].size),
        .flags = cpu_to_le16(INDIRECT | tables[i].flags),
    };

    for (int k = 0; k < ARRAY_SIZE(table); k++) {
        table[k] = (struct vring_desc) {
            .addr = cpu_to_le64(data),
            .len = cpu_to_le32(tables[i].entries[k].len),
            .flags = cpu_to_le16(tables[i].entries[k].flags),
            .next = cpu_to_le16(tables[i].entries[k].next),
        };
    }
    if (!tables[i].addr) {
        desc.addr = cpu_to_le64(balloon_copy(d, table, sizeof(table)));
    }
    qtest_memwrite(d->qts, vq->desc, &desc, sizeof(desc));
}

/* Also when indirect descriptors were not agreed on */
static void test_tables(BalloonDriver *d)
{
    const uint64_t features[] = { BALLOON_INDIRECT_TOO, BALLOON_ALL_FEATURES };
    uint32_t nowhere[] = { UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX };
    uint64_t data = balloon_copy(d, nowhere, sizeof(nowhere));
    uint64_t mem = balloon_dirty_pages(d, 2);

    for (int i = 0; i < ARRAY_SIZE(features) * ARRAY_SIZE(tables); i++) {
        for (int queue = 0; queue < BALLOON_VQ_MAX; queue++) {
            balloon_reset(d);
            balloon_start(d, features[i % 2]);
            fill_first_pages(d);
            make_table(d, d->vq[queue], i / 2, data);
            balloon_publish(d, queue, 0);
            balloon_kick(d, queue);
            balloon_query(d->qts);
            balloon_assert_bytes(d, 0, PAGES * BALLOON_PAGE, BYTE);
            balloon_assert_pages(d, mem, "xx");
        }
        balloon_assert_next_driver(d);
    }
}

/* A report of what is no memory, in as many pieces as there may be */
static void send_bad_report(BalloonDriver *d)
{
    BalloonSeg segs[32];

    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        segs[i] = (BalloonSeg) { 0x100001 + i * 8, 7 + i, true };
    }
    balloon_send(d, BALLOON_VQ_REPORT, segs, ARRAY_SIZE(segs));
}

/* What a driver does wrong is a line a request, not one a page */
static void test_log(void)
{
    g_autofree char *log = balloon_temp_name("log");
    g_autofree char *options = g_strdup_printf(
        "-m 128 " BALLOON_IOTHREAD "-d guest_errors -D %s", log);
    uint32_t pfns[1000];
    uint64_t list;
    unsigned requests = 0;
    BalloonDriver d;

    balloon_boot(&d, BALLOON_HOSTILE_DEVICE, options);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    for (int i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = i % 2 ? 0xffffff00 - i : 0xa0000 / BALLOON_PAGE + i % 32;
    }
    list = balloon_copy(&d, pfns, sizeof(pfns));
    for (int queue = BALLOON_VQ_INFLATE; queue <= BALLOON_VQ_DEFLATE;
         queue++) {
        balloon_send_one(&d, queue, list, sizeof(pfns), false);
        balloon_send_one(&d, queue, list, sizeof(pfns) - 3, false);
        balloon_send_one(&d, queue, list, sizeof(pfns), true);
        requests += 3;
        g_assert_cmpuint(balloon_count_in_file(log, "\n"), <=, requests);
    }
    send_bad_report(&d);
    balloon_send_one(&d, BALLOON_VQ_HINT, list, sizeof(pfns), true);
    requests += 2;
    g_assert_cmpuint(balloon_count_in_file(log, "\n"), <=, requests);
    /* Of two lists for statistics, the first comes back */
    balloon_post_stats(&d, 1, 25);
    balloon_send_one(&d, BALLOON_VQ_HINT, list, sizeof(pfns), true);
    requests += 2;
    g_assert_cmpuint(balloon_count_in_file(log, "\n"), <=, requests);
    balloon_quit(&d);
    unlink(log);
}

#define TELL BALLOON_HOSTILE_DEVICE ",must-tell-host=on"

static const BalloonTest tests[] = {
    { "improved/lists/wide-numbers/plain", test_wide_numbers },
    { "improved/lists/wide-numbers/tell", test_wide_numbers, .device = TELL },
    { "improved/lists/numbers-wrap/plain", test_numbers_wrap },
    { "improved/lists/numbers-wrap/tell", test_numbers_wrap, .device = TELL },
    { "improved/lists/addresses-wrap", test_addresses_wrap },
    { "improved/lists/largest-report", test_largest_report,
      .options = LARGE_OPTIONS },
    { "improved/lists/largest-list", test_largest_list,
      .options = LARGE_OPTIONS },
    { "improved/lists/tables", test_tables },
};

void balloon_add_hostile_list_tests(void)
{
    balloon_add_tests(BALLOON_HOSTILE_DEVICE, tests, ARRAY_SIZE(tests));
    qtest_add_func("/virtio-balloon/lists/log", test_log);
}
