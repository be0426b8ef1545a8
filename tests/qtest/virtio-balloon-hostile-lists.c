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
#include "virtio-balloon-case.h"
#include "standard-headers/linux/virtio_ring.h"

#define PAGES 8

/* Memory of more than one descriptor, and where all of it is in one piece */
#define LARGE_OPTIONS "-m 9G " IOTHREAD
#define LARGE_AREA (4 * GiB)
#define LARGEST 0xffffffffu

/* In how many pages memory is discarded at most, in one go */
#define STEP (4 * MiB)

static void fill_first_pages(BalloonDriver *d)
{
    qtest_memset(d->qts, 0, NEW, PAGES * BALLOON_PAGE);
}

/* All that was given up has had its discard, or will never have one */
static void settle(BalloonDriver *d)
{
    balloon_wait_discarded(d->qts);
    balloon_assert_sum(d->qts);
}

/* Page numbers that come to a page of the guest if bits of them are lost */
static void numbers_wrap(BalloonDriver *d)
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
        balloon_send_pfns(d, INFLATE, pfns, ARRAY_SIZE(pfns));
        settle(d);
        balloon_send_pfns(d, DEFLATE, pfns, ARRAY_SIZE(pfns));
    }
    /* ... and up to the last one, after which none comes */
    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = UINT32_MAX - ARRAY_SIZE(pfns) + 1 + i;
    }
    balloon_send_pfns(d, INFLATE, pfns, ARRAY_SIZE(pfns));
    settle(d);
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), ==, 0);
    balloon_assert_pages(d, mem, "xxxx");
    balloon_assert_bytes(d, 0, PAGES * BALLOON_PAGE, NEW);
}

/*
 * Leave a request, which may break the ring; nothing in RAM changes, unless
 * it is a report that goes on at address 0, as the core has it
 */
static void assert_survives(BalloonDriver *d, int queue, BalloonSeg seg)
{
    bool named = seg.write && queue == REPORT_TOO &&
                 (seg.addr + seg.len < seg.addr || seg.addr < RAM);
    uint64_t mem = balloon_dirty_pages(d, 1);

    fill_first_pages(d);
    qtest_memset(d->qts, RAM - BALLOON_PAGE, NEW, BALLOON_PAGE);
    balloon_post(d, queue, &seg, 1);
    balloon_query(d->qts);
    if (!named) {
        balloon_assert_pages(d, mem, "x");
        balloon_assert_bytes(d, 0, PAGES * BALLOON_PAGE, NEW);
        balloon_assert_bytes(d, RAM - BALLOON_PAGE, BALLOON_PAGE, NEW);
    }
    guest_free(d->alloc, mem);
    balloon_assert_next_driver(d);
}

/* Descriptors that end after the last address, or where there is nothing */
static void addresses_wrap(BalloonDriver *d)
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
static void largest_report(BalloonDriver *d)
{
    const uint64_t last = LARGE_AREA + QEMU_ALIGN_DOWN(LARGEST, BALLOON_PAGE);

    qtest_memset(d->qts, LARGE_AREA, NEW, BALLOON_PAGE);
    qtest_memset(d->qts, last - BALLOON_PAGE, NEW, 3 * BALLOON_PAGE);
    balloon_send_one(d, REPORT_TOO, LARGE_AREA, LARGEST, true);
    balloon_assert_bytes(d, LARGE_AREA, BALLOON_PAGE, 0);
    balloon_assert_bytes(d, last - BALLOON_PAGE, BALLOON_PAGE, 0);
    balloon_assert_bytes(d, last, 2 * BALLOON_PAGE, NEW);
    g_assert_cmpuint(balloon_counter(d->qts, "reported"), ==, LARGEST);
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), <=,
                     LARGEST / STEP + 1);
}

/*
 * A list as long as that, of a gigabyte of numbers, which takes seconds: the
 * monitor sees it grow, nothing is discarded twice, and a reset ends it.
 */
static void largest_list(BalloonDriver *d)
{
    uint64_t before;

    fill_first_pages(d);
    balloon_post(d, INFLATE, &(BalloonSeg) { LARGE_AREA, LARGEST }, 1);
    balloon_wait_for((before = balloon_counter(d->qts, "inflated")));
    balloon_wait_for(balloon_counter(d->qts, "inflated") > before);
    g_assert_false(balloon_has_used(d, INFLATE));
    g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), ==, 0);
    balloon_reset(d);
    before = balloon_counter(d->qts, "inflated");
    balloon_start(d, BALLOON_ALL_FEATURES);
    g_assert_cmpuint(balloon_counter(d->qts, "inflated"), ==, before);
    balloon_assert_bytes(d, 0, PAGES * BALLOON_PAGE, NEW);
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
static void all_tables(BalloonDriver *d)
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
            balloon_assert_bytes(d, 0, PAGES * BALLOON_PAGE, NEW);
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
    balloon_send(d, REPORT_TOO, segs, ARRAY_SIZE(segs));
}

/*
 * What a driver does wrong is a line a request, not one a page.  That a list
 * ends within a number was not logged by what was QEMU's own.
 */
static void log_lines(BalloonDriver *d)
{
    bool odd = !balloon_is_stock(d);
    uint32_t pfns[1000];
    uint64_t list;
    unsigned requests = 0;
    unsigned lines;

    for (int i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = i % 2 ? 0xffffff00 - i : 0xa0000 / BALLOON_PAGE + i % 32;
    }
    list = balloon_copy(d, pfns, sizeof(pfns));
    for (int queue = INFLATE; queue <= DEFLATE; queue++) {
        balloon_send_one(d, queue, list, sizeof(pfns), false);
        lines = balloon_log_lines();
        balloon_send_one(d, queue, list, sizeof(pfns) - 3, false);
        g_assert_cmpuint(balloon_log_lines(), ==, lines + odd);
        balloon_send_one(d, queue, list, sizeof(pfns), true);
        requests += 3;
        g_assert_cmpuint(balloon_log_lines(), <=, requests);
    }
    send_bad_report(d);
    balloon_hint(d, list, sizeof(pfns));
    requests += 2;
    g_assert_cmpuint(balloon_log_lines(), <=, requests);
    /* Of two lists for statistics, the first comes back */
    balloon_post_same(d, STATS, balloon_stats_seg(d, 1), 25);
    balloon_hint(d, list, sizeof(pfns));
    requests += 2;
    g_assert_cmpuint(balloon_log_lines(), <=, requests);
    /* An id of three bytes, after which the device does nothing any more */
    balloon_post_id(d, 5, 3);
    balloon_wait_broken(d);
    balloon_kick(d, HINT);
    balloon_query(d->qts);
    g_assert_cmpuint(balloon_count_in_file("log", "incorrect cmd id"), ==, 1);
    g_assert_cmpuint(balloon_log_lines(), <=, requests + 1);
}

static const BalloonTest tests[] = {
    { "improved/lists/numbers-wrap/plain", numbers_wrap },
    { "improved/lists/numbers-wrap/tell", numbers_wrap,
      ALL_QUEUES ",must-tell-host=on" },
    { "improved/lists/addresses-wrap", addresses_wrap },
    { "improved/lists/largest-report", largest_report,
      .options = LARGE_OPTIONS },
    { "improved/lists/largest-list", largest_list, .options = LARGE_OPTIONS },
    { "improved/lists/tables", all_tables },
    { "lists/log", log_lines,
      .options = MEMORY "-d guest_errors 2> $FILES/log" },
};

BALLOON_TESTS("", ALL_QUEUES, tests)
