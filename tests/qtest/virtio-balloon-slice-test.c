/*
 * Requests to the virtio balloon that take long, and what may come between
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"

/* Leave a long request for every second page of HUGE, of which one is done */
static uint32_t begin(BalloonDriver *d)
{
    uint32_t head;

    qtest_memset(d->qts, AREA, OLD, HUGE);
    head = balloon_post_huge(d, AREA, BALLOON_HUGE_MAX);
    balloon_wait_for(qtest_readb(d->qts, AREA) == 0);
    return head;
}

/* All that was listed, nothing else, and one answer */
static void assert_served(BalloonDriver *d, uint32_t head)
{
    balloon_wait_used(d, INFLATE, head);
    for (uint64_t at = 0; at < HUGE; at += 2 * BALLOON_PAGE) {
        balloon_assert_pages(d, AREA + at, "0x");
    }
    balloon_query(d->qts);
    g_assert_false(balloon_has_used(d, INFLATE));
}

/* QEMU answers while it is at it: work is seen that is not done yet */
static bool see(BalloonDriver *d)
{
    uint32_t head = begin(d);
    bool half_done = !balloon_has_used(d, INFLATE);

    assert_served(d, head);
    return half_done;
}

/* While the VM is stopped, its memory does not change */
static bool stop(BalloonDriver *d)
{
    uint32_t head = begin(d);
    bool half_done;

    balloon_stop(d);
    half_done = !balloon_has_used(d, INFLATE);
    balloon_use(d, AREA, HUGE);
    balloon_cont(d);
    balloon_wait_used(d, INFLATE, head);
    for (uint64_t at = BALLOON_PAGE; at < HUGE; at += 2 * BALLOON_PAGE) {
        balloon_assert_bytes(d, AREA + at, BALLOON_PAGE, NEW);
    }
    return half_done;
}

/*
 * What can be finished when the VM stops is, and the guest is told.  A VM that
 * stops later has nothing to finish, so there are some attempts.
 */
static void finish(BalloonDriver *d)
{
    for (int round = 0; round < 10; round++) {
        uint32_t head;

        qtest_memset(d->qts, AREA, OLD, HUGE);
        head = balloon_post_huge(d, AREA, 1);
        balloon_stop(d);
        balloon_cont(d);
        balloon_wait_served(d, INFLATE, head);
        balloon_assert_pages(d, AREA, "0x0x0x0x");
    }
}

/* What is begun here is answered there */
static bool migrate_away(BalloonDriver *d)
{
    uint32_t head = begin(d);
    bool half_done;

    balloon_migrate(d->qts);
    half_done = !balloon_has_used(d, INFLATE);
    balloon_arrive(d, NULL);
    balloon_cont(d);
    assert_served(d, head);
    return half_done;
}

/* ... and so is a report */
static bool migrate_report(BalloonDriver *d)
{
    BalloonSeg segs[16];
    bool half_done;
    uint32_t head;

    qtest_memset(d->qts, AREA, OLD, RAM - AREA);
    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        segs[i] = (BalloonSeg) { AREA + i * 4 * MiB, 4 * MiB, true };
    }
    head = balloon_post(d, REPORT, segs, ARRAY_SIZE(segs));
    balloon_stop(d);
    half_done = !balloon_has_used(d, REPORT);
    balloon_migrate(d->qts);
    balloon_arrive(d, NULL);
    balloon_cont(d);
    balloon_wait_used(d, REPORT, head);
    balloon_assert_bytes(d, AREA, RAM - AREA, 0);
    return half_done;
}

/*
 * The host takes scattered pages back one by one, where the copies and a file
 * of QEMU's own have to go: after so many calls it is another's turn.
 */
static void calls(BalloonDriver *d)
{
    const char *flush = "virtio_balloon_flush ";
    g_autofree char *trace = NULL;
    unsigned n = 0;

    balloon_wait_served(d, INFLATE, balloon_post_huge(d, AREA, 1));
    g_assert_true(g_file_get_contents(balloon_file("trace"), &trace, NULL,
                                      NULL));
    for (char *at = trace; (at = strstr(at, flush)); n++) {
        at += strlen(flush);
        g_assert_cmpuint(g_ascii_strtoull(at, NULL, 10), <=, 64);
    }
    g_assert_cmpuint(n, >=, BALLOON_HUGE_PAGES / 64);
}

/* QEMU may end at any time: it must not fail, which kills the test */
static void quit(BalloonDriver *d)
{
    begin(d);
}

static const BalloonTest tests[] = {
    { "slice/quit", quit },
    { "improved/slice/bounded", balloon_test_come_between, .data = see },
    { "improved/slice/calls", calls, .options = MEMORY_OF("memfd,share=off")
      " -d trace:virtio_balloon_flush -D $FILES/trace" },
    { "slice/stop", balloon_test_come_between, .data = stop },
    { "slice/finish", finish },
    { "slice/migrate", balloon_test_come_between, .data = migrate_away },
    /* Private memory may be of huge pages, whose report is soon done */
    { "slice/migrate-report", balloon_test_come_between, REPORTING, SHARED,
      migrate_report },
};

BALLOON_TESTS("", NULL, tests)
