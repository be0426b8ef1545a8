/*
 * A driver that must tell the virtio balloon before it uses a page again
 *
 * VIRTIO_BALLOON_F_MUST_TELL_HOST (virtio 1.2, sections 5.5.3 and 5.5.6): the
 * device may answer first and discard later.  What "later" means is not
 * tested, only that it comes, and that the guest's pages are not hit.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"

#define FEATURE (1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST)

/* The one thing that it changes of what a driver sees */
static void offered(BalloonDriver *d)
{
    uint64_t plain = balloon_start(d, 0);

    balloon_quit(d);
    balloon_boot(d, TELL, MEMORY);
    g_assert_cmphex(balloon_start(d, 0), ==, plain | FEATURE);
}

/* Pages go, however few they are, and only those */
static void pages(BalloonDriver *d)
{
    balloon_inflate(d, AREA + 5 * BALLOON_PAGE, 3 * BALLOON_PAGE);
    balloon_inflate(d, AREA + HUGE, HUGE / 2);
    balloon_inflate(d, AREA + HUGE + HUGE / 2, HUGE / 2);
    balloon_wait_gone(d, AREA + HUGE, HUGE);
    balloon_wait_gone(d, AREA + 5 * BALLOON_PAGE, 3 * BALLOON_PAGE);
    balloon_assert_bytes(d, AREA, 5 * BALLOON_PAGE, OLD);
    balloon_assert_bytes(d, AREA + 8 * BALLOON_PAGE, HUGE - 8 * BALLOON_PAGE,
                         OLD);
    balloon_assert_bytes(d, AREA + 2 * HUGE, HUGE, OLD);
}

/* A driver that does not accept it may use a page as soon as it is answered */
static void not_accepted(BalloonDriver *d)
{
    balloon_start(d, ~FEATURE);
    for (int i = 0; i < 20; i++) {
        balloon_inflate(d, AREA + i * BALLOON_PAGE, BALLOON_PAGE);
        balloon_assert_bytes(d, AREA + i * BALLOON_PAGE, BALLOON_PAGE, 0);
        qtest_memset(d->qts, AREA + i * BALLOON_PAGE, NEW, BALLOON_PAGE);
    }
    balloon_deflate(d, AREA, 20 * BALLOON_PAGE);
    balloon_assert_bytes(d, AREA, 20 * BALLOON_PAGE, NEW);
    balloon_assert_bytes(d, AREA + 20 * BALLOON_PAGE,
                         HUGE - 20 * BALLOON_PAGE, OLD);
}

/* Pages that were taken back stay, whatever happens around them */
static void taken_back(BalloonDriver *d)
{
    for (int i = 0; i < 6; i++) {
        balloon_inflate(d, AREA, HUGE);
        balloon_deflate(d, AREA + HUGE / 4, HUGE / 2);
        qtest_memset(d->qts, AREA + HUGE / 4, NEW + i, HUGE / 2);
        balloon_give(d, AREA + HUGE, BALLOON_PAGE);
        balloon_assert_bytes(d, AREA + HUGE / 4, HUGE / 2, NEW + i);
        balloon_deflate(d, AREA, HUGE);
        qtest_memset(d->qts, AREA, OLD, HUGE);
    }
}

/* A driver that never pauses does not keep what is incomplete for ever */
static void busy(BalloonDriver *d)
{
    balloon_inflate(d, AREA, BALLOON_PAGE);
    balloon_wait_for((balloon_inflate(d, AREA + HUGE, BALLOON_PAGE),
                      balloon_deflate(d, AREA + HUGE, BALLOON_PAGE),
                      balloon_has_bytes(d, AREA, BALLOON_PAGE, 0)));
}

/*
 * For the rest of a transparent huge page the device waits a tenth of a second:
 * so a test has to be through in less, but it looks for longer than requests
 * are gathered
 */
#define WHOLE_US (80 * 1000)
#define LOOK_US (20 * 1000)

/* The halves of one go together, in one call, and the first not before */
static void whole(BalloonDriver *d)
{
    bool quick = false;

    for (int i = 0; i < ATTEMPTS && !quick; i++) {
        uint64_t calls = balloon_counter(d->qts, "discard-calls");
        gint64 begin = g_get_monotonic_time();
        uint64_t waiting;

        balloon_inflate(d, AREA, HUGE / 2);
        do {
            waiting = balloon_counter(d->qts, "waiting");
        } while (g_get_monotonic_time() < begin + LOOK_US);
        balloon_inflate(d, AREA + HUGE / 2, HUGE / 2);
        balloon_wait_discarded(d->qts);
        quick = g_get_monotonic_time() < begin + WHOLE_US;
        if (quick) {
            g_assert_cmpuint(waiting, ==, HUGE / 2);
            g_assert_cmpuint(balloon_counter(d->qts, "discard-calls"), ==,
                             calls + 1);
        }
        balloon_deflate(d, AREA, HUGE);
        qtest_memset(d->qts, AREA, OLD, HUGE);
    }
    if (!quick) {
        g_test_skip("the host is too slow to see what waits for how long");
    }
}

/* A huge page goes when all of it is in the balloon, not before */
static void huge_pages(BalloonDriver *d)
{
    balloon_inflate(d, AREA, HUGE / 2);
    balloon_inflate(d, AREA + HUGE, HUGE / 2);
    balloon_inflate(d, AREA + HUGE + HUGE / 2, HUGE / 2);
    balloon_wait_gone(d, AREA + HUGE, HUGE);
    balloon_assert_bytes(d, AREA, HUGE, OLD);
    balloon_assert_bytes(d, AREA + 2 * HUGE, HUGE, OLD);

    /* A page of it is used again, and given up again */
    balloon_deflate(d, AREA + HUGE, BALLOON_PAGE);
    qtest_memset(d->qts, AREA + HUGE, NEW, BALLOON_PAGE);
    balloon_inflate(d, AREA + 2 * HUGE, HUGE);
    balloon_wait_gone(d, AREA + 2 * HUGE, HUGE);
    balloon_assert_bytes(d, AREA + HUGE, BALLOON_PAGE, NEW);
    balloon_inflate(d, AREA + HUGE, BALLOON_PAGE);
    balloon_wait_gone(d, AREA + HUGE, HUGE);
    balloon_assert_bytes(d, AREA, HUGE, OLD);
}

/* A reset gives all pages back, those too whose discard still waited */
static void reset(BalloonDriver *d)
{
    const uint64_t given = HUGE / 2 + BALLOON_PAGE;

    for (int i = 0; i < 6; i++) {
        balloon_inflate(d, AREA, given);
        balloon_reset(d);
        qtest_memset(d->qts, AREA, NEW, HUGE);
        balloon_start(d, BALLOON_ALL_FEATURES);
        /* that would complete the unit */
        balloon_give(d, AREA + given, HUGE - given);
        balloon_assert_bytes(d, AREA, given, NEW);
        balloon_deflate(d, AREA, HUGE);
    }
}

/* While the VM is stopped its memory is what it is; then discards go on */
static void stop(BalloonDriver *d)
{
    bool waits = false;

    for (int i = 0; i < ATTEMPTS && !waits; i++) {
        balloon_cont(d);
        balloon_deflate(d, AREA, 2 * HUGE);
        balloon_inflate(d, AREA, BALLOON_PAGE);
        balloon_inflate(d, AREA + HUGE, HUGE);
        balloon_stop(d);
        waits = balloon_counter(d->qts, "waiting");
    }
    if (!waits) {
        g_test_skip("the host is too slow to stop before all is discarded");
        return;
    }
    balloon_use(d, AREA, 2 * HUGE);
    balloon_cont(d);
    balloon_wait_gone(d, AREA, BALLOON_PAGE);
    balloon_assert_bytes(d, AREA + BALLOON_PAGE, HUGE - BALLOON_PAGE, NEW);
}

/* Pages in the balloon are not sent; which ones they are is known there too */
static void migration(BalloonDriver *d)
{
    const uint64_t given = 32 * MiB;

    g_assert_cmpint(balloon_move(d), <=, 0);
    for (uint64_t at = 16 * MiB; at < 16 * MiB + given; at += MiB) {
        balloon_inflate(d, at, MiB);
    }
    g_assert_cmpint(balloon_move(d), ==, given);
    balloon_assert_bytes(d, AREA, AREA_SIZE, OLD);

    /* Some are taken back there: they are sent again */
    balloon_deflate(d, 20 * MiB, MiB);
    qtest_memset(d->qts, 20 * MiB, NEW, MiB);
    g_assert_cmpint(balloon_move(d), ==, given - MiB);
    balloon_assert_bytes(d, 20 * MiB, MiB, NEW);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, 20 * MiB, MiB, NEW);
}

/* A destination that may ask for pages later must be sent every page */
static void postcopy(BalloonDriver *d)
{
    BalloonDriver target;

    balloon_inflate(d, AREA, HUGE);
    if (balloon_begin_postcopy(d, &target)) {
        balloon_migrate_finish(d->qts);
        g_assert_cmpint(balloon_migration_skipped(d->qts), <=, 0);
        balloon_quit(&target);
    }
}

/*
 * A background snapshot still has to read the memory.  What was given up
 * meanwhile goes when it has ended, unless it was taken back.
 */
static void inhibited(BalloonDriver *d)
{
    const uint64_t next = AREA + HUGE;

    if (!balloon_try_capability(d->qts, "background-snapshot")) {
        return;
    }
    balloon_migrate_slowly(d->qts);
    balloon_inflate(d, AREA, HUGE);
    balloon_inflate(d, next, 8 * BALLOON_PAGE);
    balloon_deflate(d, next, 4 * BALLOON_PAGE);
    balloon_assert_stays(d, AREA, 2 * HUGE, OLD);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==,
                     HUGE + 4 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_skipped(d->qts, "taken-back"), ==,
                     4 * BALLOON_PAGE);
    balloon_migrate_finish(d->qts);
    balloon_wait_gone(d, AREA, HUGE);
    balloon_wait_gone(d, next + 4 * BALLOON_PAGE, 4 * BALLOON_PAGE);
    balloon_assert_bytes(d, next, 4 * BALLOON_PAGE, OLD);
    balloon_assert_bytes(d, next + 8 * BALLOON_PAGE, HUGE - 8 * BALLOON_PAGE,
                         OLD);
}

/* A reset while discards are forbidden: nothing goes when they are allowed */
static void inhibited_reset(BalloonDriver *d)
{
    if (!balloon_try_capability(d->qts, "background-snapshot")) {
        return;
    }
    balloon_migrate_slowly(d->qts);
    balloon_inflate(d, AREA, HUGE);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==, HUGE);
    balloon_reset(d);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==, 0);
    qtest_memset(d->qts, AREA, NEW, HUGE);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_migrate_finish(d->qts);
    balloon_inflate(d, AREA + HUGE, HUGE);
    balloon_wait_gone(d, AREA + HUGE, HUGE);
    balloon_assert_bytes(d, AREA, HUGE, NEW);
    balloon_assert_bytes(d, AREA + 2 * HUGE, 2 * HUGE, OLD);
}

/*
 * A driver that uses a page and tells afterwards, or never.  It may lose what
 * it wrote into that page, until it told; nobody else loses anything.
 */
static void frees_first(BalloonDriver *d)
{
    const uint64_t page = AREA + 5 * BALLOON_PAGE;

    for (int i = 0; i < 4; i++) {
        balloon_inflate(d, page, BALLOON_PAGE);
        /* Once before the discard, most likely, once after it */
        if (i % 2) {
            balloon_wait_discarded(d->qts);
        }
        qtest_memset(d->qts, page, NEW, BALLOON_PAGE);
        balloon_wait_discarded(d->qts);
        g_assert_true(balloon_has_bytes(d, page, BALLOON_PAGE, NEW) ||
                      (i % 2 == 0 &&
                       balloon_has_bytes(d, page, BALLOON_PAGE, 0)));
        if (i < 2) {
            balloon_deflate(d, page, BALLOON_PAGE);
            qtest_memset(d->qts, page, NEW, BALLOON_PAGE);
            balloon_give(d, AREA + HUGE, BALLOON_PAGE);
            balloon_assert_bytes(d, page, BALLOON_PAGE, NEW);
        }
    }
    /* It is in the balloon still, so it does not arrive elsewhere */
    balloon_move(d);
    balloon_assert_bytes(d, AREA, 5 * BALLOON_PAGE, OLD);
    balloon_assert_bytes(d, page + BALLOON_PAGE, HUGE - 6 * BALLOON_PAGE, OLD);
    balloon_assert_bytes(d, AREA + HUGE + BALLOON_PAGE, HUGE - BALLOON_PAGE,
                         OLD);
}

static const BalloonTest tests[] = {
    { "offered", offered, PLAIN, .unstarted = true },
    { "pages/anonymous", pages },
    { "pages/shared", pages, .options = SHARED },
    { "not-accepted", not_accepted, .unstarted = true },
    { "taken-back/anonymous", taken_back },
    { "taken-back/shared", taken_back, .options = SHARED },
    { "busy", busy },
    { "whole", whole },
    { "huge-pages", huge_pages, .options = HUGETLB("on"), .huge_pages = true },
    { "reset/anonymous", reset },
    { "reset/shared", reset, .options = SHARED },
    { "stop", stop },
    { "migration/anonymous", migration },
    { "migration/shared", migration, .options = SHARED },
    { "postcopy", postcopy, .options = SHARED },
    { "inhibited", inhibited },
    { "inhibited-reset", inhibited_reset },
    { "frees-first/anonymous", frees_first },
    { "frees-first/shared", frees_first, .options = SHARED },
};

BALLOON_TESTS("improved/tell/", TELL, tests)
