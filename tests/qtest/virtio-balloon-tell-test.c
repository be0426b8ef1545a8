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
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-hugepages.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-migrate.h"

#define TELL "/virtio-balloon/improved/tell/"
#define DEVICE "virtio-balloon-pci,must-tell-host=on"
#define FEATURE (1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST)

#define RAM "-m 128 "
#define ANONYMOUS RAM
#define SHARED RAM "-machine pc,memory-backend=ram " \
               "-object memory-backend-memfd,id=ram,size=128M,share=on "
#define HUGE_PAGES RAM "-machine pc,memory-backend=ram " \
                   "-object memory-backend-memfd,id=ram,size=128M,share=on," \
                   "hugetlb=on,hugetlbsize=2M "

/* Where the guest has its pages: the beginning of a huge page */
#define AREA (64 * MiB)
#define HUGE_SIZE (2 * MiB)
#define OLD 0xa5
#define NEW 0x33

static void start_at(BalloonDriver *d, const char *options)
{
    balloon_boot(d, DEVICE, options);
    g_assert_true(balloon_start(d, BALLOON_ALL_FEATURES) & FEATURE);
    qtest_memset(d->qts, AREA, OLD, 4 * HUGE_SIZE);
}

/* The end, and every byte that was given up is accounted for */
static void quit(BalloonDriver *d)
{
    balloon_assert_sum(d->qts);
    balloon_quit(d);
}

/* The one thing that it changes of what a driver sees */
static void offered(void)
{
    uint64_t plain;
    BalloonDriver d;

    balloon_boot(&d, NULL, RAM);
    plain = balloon_start(&d, 0);
    quit(&d);
    balloon_boot(&d, DEVICE, RAM);
    g_assert_cmphex(balloon_start(&d, 0), ==, plain | FEATURE);
    quit(&d);
}

/* Pages go, however few they are, and only those */
static void pages(const void *options)
{
    BalloonDriver d;

    start_at(&d, options);
    balloon_inflate(&d, AREA + 5 * BALLOON_PAGE, 3 * BALLOON_PAGE);
    balloon_inflate(&d, AREA + HUGE_SIZE, HUGE_SIZE / 2);
    balloon_inflate(&d, AREA + HUGE_SIZE + HUGE_SIZE / 2, HUGE_SIZE / 2);
    balloon_wait_for(balloon_has_bytes(&d, AREA + HUGE_SIZE, HUGE_SIZE, 0));
    balloon_wait_for(balloon_has_bytes(&d, AREA + 5 * BALLOON_PAGE,
                                       3 * BALLOON_PAGE, 0));
    balloon_assert_bytes(&d, AREA, 5 * BALLOON_PAGE, OLD);
    balloon_assert_bytes(&d, AREA + 8 * BALLOON_PAGE,
                         HUGE_SIZE - 8 * BALLOON_PAGE, OLD);
    balloon_assert_bytes(&d, AREA + 2 * HUGE_SIZE, HUGE_SIZE, OLD);
    quit(&d);
}

/* A driver that does not accept it may use a page as soon as it is answered */
static void not_accepted(void)
{
    BalloonDriver d;

    balloon_boot(&d, DEVICE, ANONYMOUS);
    balloon_start(&d, ~FEATURE);
    qtest_memset(d.qts, AREA, OLD, HUGE_SIZE);
    for (int i = 0; i < 20; i++) {
        balloon_inflate(&d, AREA + i * BALLOON_PAGE, BALLOON_PAGE);
        balloon_assert_bytes(&d, AREA + i * BALLOON_PAGE, BALLOON_PAGE, 0);
        qtest_memset(d.qts, AREA + i * BALLOON_PAGE, NEW, BALLOON_PAGE);
    }
    balloon_deflate(&d, AREA, 20 * BALLOON_PAGE);
    balloon_assert_bytes(&d, AREA, 20 * BALLOON_PAGE, NEW);
    balloon_assert_bytes(&d, AREA + 20 * BALLOON_PAGE,
                         HUGE_SIZE - 20 * BALLOON_PAGE, OLD);
    quit(&d);
}

/* Pages that were taken back stay, whatever happens around them */
static void taken_back(const void *options)
{
    BalloonDriver d;

    start_at(&d, options);
    for (int i = 0; i < 6; i++) {
        balloon_inflate(&d, AREA, HUGE_SIZE);
        balloon_deflate(&d, AREA + HUGE_SIZE / 4, HUGE_SIZE / 2);
        qtest_memset(d.qts, AREA + HUGE_SIZE / 4, NEW + i, HUGE_SIZE / 2);
        balloon_inflate(&d, AREA + HUGE_SIZE, BALLOON_PAGE);
        balloon_wait_discarded(d.qts);
        balloon_assert_bytes(&d, AREA + HUGE_SIZE / 4, HUGE_SIZE / 2, NEW + i);
        balloon_deflate(&d, AREA, HUGE_SIZE);
        qtest_memset(d.qts, AREA, OLD, HUGE_SIZE);
    }
    quit(&d);
}

/* A driver that never pauses does not keep what is incomplete for ever */
static void busy(void)
{
    BalloonDriver d;

    start_at(&d, ANONYMOUS);
    balloon_inflate(&d, AREA, BALLOON_PAGE);
    balloon_wait_for(
        (balloon_inflate(&d, AREA + HUGE_SIZE, BALLOON_PAGE),
         balloon_deflate(&d, AREA + HUGE_SIZE, BALLOON_PAGE),
         balloon_has_bytes(&d, AREA, BALLOON_PAGE, 0)));
    quit(&d);
}

/* A huge page goes when all of it is in the balloon, not before */
static void huge_pages(void)
{
    BalloonDriver d;

    if (!balloon_hugepages_take(128 * MiB / HUGE_SIZE)) {
        g_test_skip("the host has no huge pages to spare");
        return;
    }
    start_at(&d, HUGE_PAGES);
    balloon_inflate(&d, AREA, HUGE_SIZE / 2);
    balloon_inflate(&d, AREA + HUGE_SIZE, HUGE_SIZE / 2);
    balloon_inflate(&d, AREA + HUGE_SIZE + HUGE_SIZE / 2, HUGE_SIZE / 2);
    balloon_wait_for(balloon_has_bytes(&d, AREA + HUGE_SIZE, HUGE_SIZE, 0));
    balloon_assert_bytes(&d, AREA, HUGE_SIZE, OLD);
    balloon_assert_bytes(&d, AREA + 2 * HUGE_SIZE, HUGE_SIZE, OLD);

    /* A page of it is used again, and given up again */
    balloon_deflate(&d, AREA + HUGE_SIZE, BALLOON_PAGE);
    qtest_memset(d.qts, AREA + HUGE_SIZE, NEW, BALLOON_PAGE);
    balloon_inflate(&d, AREA + 2 * HUGE_SIZE, HUGE_SIZE);
    balloon_wait_for(balloon_has_bytes(&d, AREA + 2 * HUGE_SIZE, HUGE_SIZE, 0));
    balloon_assert_bytes(&d, AREA + HUGE_SIZE, BALLOON_PAGE, NEW);
    balloon_inflate(&d, AREA + HUGE_SIZE, BALLOON_PAGE);
    balloon_wait_for(balloon_has_bytes(&d, AREA + HUGE_SIZE, HUGE_SIZE, 0));
    balloon_assert_bytes(&d, AREA, HUGE_SIZE, OLD);
    quit(&d);
    balloon_hugepages_restore();
}

/* A reset gives all pages back, those too whose discard still waited */
static void reset(const void *options)
{
    BalloonDriver d;

    start_at(&d, options);
    for (int i = 0; i < 6; i++) {
        balloon_inflate(&d, AREA, HUGE_SIZE / 2 + BALLOON_PAGE);
        balloon_reset(&d);
        qtest_memset(d.qts, AREA, NEW, HUGE_SIZE);
        balloon_start(&d, BALLOON_ALL_FEATURES);
        /* that would complete the unit */
        balloon_inflate(&d, AREA + HUGE_SIZE / 2 + BALLOON_PAGE,
                HUGE_SIZE / 2 - BALLOON_PAGE);
        balloon_wait_discarded(d.qts);
        balloon_assert_bytes(&d, AREA, HUGE_SIZE / 2 + BALLOON_PAGE, NEW);
        balloon_deflate(&d, AREA, HUGE_SIZE);
    }
    quit(&d);
}

/* While the VM is stopped its memory is what it is; then discards go on */
static void stop(void)
{
    BalloonDriver d;

    start_at(&d, ANONYMOUS);
    balloon_inflate(&d, AREA, BALLOON_PAGE);
    balloon_inflate(&d, AREA + HUGE_SIZE, HUGE_SIZE);
    qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
    qtest_memset(d.qts, AREA, NEW, 2 * HUGE_SIZE);
    balloon_assert_stays(&d, AREA, 2 * HUGE_SIZE, NEW);
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    balloon_wait_for(balloon_has_bytes(&d, AREA, BALLOON_PAGE, 0));
    balloon_assert_bytes(&d, AREA + BALLOON_PAGE, HUGE_SIZE - BALLOON_PAGE,
                         NEW);
    quit(&d);
}

/* Pages in the balloon are not sent; which ones they are is known there too */
static void migration(const void *options)
{
    const uint64_t given = 32 * MiB;
    BalloonDriver d;

    start_at(&d, options);
    g_assert_cmpint(balloon_move(&d, DEVICE, options), <=, 0);
    for (uint64_t at = 16 * MiB; at < 16 * MiB + given; at += MiB) {
        balloon_inflate(&d, at, MiB);
    }
    g_assert_cmpint(balloon_move(&d, DEVICE, options), ==, given);
    balloon_assert_bytes(&d, AREA, 4 * HUGE_SIZE, OLD);

    /* Some are taken back there: they are sent again */
    balloon_deflate(&d, 20 * MiB, MiB);
    qtest_memset(d.qts, 20 * MiB, NEW, MiB);
    g_assert_cmpint(balloon_move(&d, DEVICE, options), ==, given - MiB);
    balloon_assert_bytes(&d, 20 * MiB, MiB, NEW);
    balloon_wait_discarded(d.qts);
    balloon_assert_bytes(&d, 20 * MiB, MiB, NEW);
    quit(&d);
}

/* A destination that may ask for pages later must be sent every page */
static void postcopy(void)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *uri = g_strconcat("unix:", file, NULL);
    BalloonDriver d, target;

    start_at(&d, SHARED);
    balloon_inflate(&d, AREA, HUGE_SIZE);
    balloon_boot(&target, DEVICE, SHARED "-incoming defer");
    balloon_set_capability(d.qts, "postcopy-ram", true);
    balloon_set_capability(target.qts, "postcopy-ram", true);
    balloon_migrate_incoming(target.qts, uri);
    balloon_migrate_to(d.qts, uri);
    balloon_migrate_finish(d.qts);
    g_assert_cmpint(balloon_migration_skipped(d.qts), <=, 0);
    balloon_lose(&target);
    balloon_quit(&target);
    quit(&d);
    unlink(file);
}

/* A background snapshot, which still has to read the memory */
static void start_snapshot(BalloonDriver *d, const char *file)
{
    start_at(d, ANONYMOUS);
    balloon_set_capability(d->qts, "background-snapshot", true);
    balloon_migrate_slowly(d->qts, file);
}

/*
 * A background snapshot still has to read the memory.  What was given up
 * meanwhile goes when it has ended, unless it was taken back.
 */
static void inhibited(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;

    start_snapshot(&d, file);
    balloon_inflate(&d, AREA, HUGE_SIZE);
    balloon_inflate(&d, AREA + HUGE_SIZE, 8 * BALLOON_PAGE);
    balloon_deflate(&d, AREA + HUGE_SIZE, 4 * BALLOON_PAGE);
    balloon_assert_bytes(&d, AREA, 2 * HUGE_SIZE, OLD);
    balloon_migrate_finish(d.qts);
    balloon_wait_for(balloon_has_bytes(&d, AREA, HUGE_SIZE, 0));
    balloon_wait_for(balloon_has_bytes(&d, AREA + HUGE_SIZE + 4 * BALLOON_PAGE,
                                       4 * BALLOON_PAGE, 0));
    balloon_assert_bytes(&d, AREA + HUGE_SIZE, 4 * BALLOON_PAGE, OLD);
    balloon_assert_bytes(&d, AREA + HUGE_SIZE + 8 * BALLOON_PAGE,
                         HUGE_SIZE - 8 * BALLOON_PAGE, OLD);
    quit(&d);
    unlink(file);
}

/* A reset while discards are forbidden: nothing goes when they are allowed */
static void inhibited_reset(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;

    start_snapshot(&d, file);
    balloon_inflate(&d, AREA, HUGE_SIZE);
    g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, HUGE_SIZE);
    balloon_reset(&d);
    g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, 0);
    qtest_memset(d.qts, AREA, NEW, HUGE_SIZE);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_migrate_finish(d.qts);
    balloon_inflate(&d, AREA + HUGE_SIZE, HUGE_SIZE);
    balloon_wait_for(balloon_has_bytes(&d, AREA + HUGE_SIZE, HUGE_SIZE, 0));
    balloon_assert_bytes(&d, AREA, HUGE_SIZE, NEW);
    balloon_assert_bytes(&d, AREA + 2 * HUGE_SIZE, 2 * HUGE_SIZE, OLD);
    quit(&d);
    unlink(file);
}

/*
 * A driver that uses a page and tells afterwards, or never.  It may lose what
 * it wrote into that page, until it told; nobody else loses anything.
 */
static void frees_first(const void *options)
{
    const uint64_t page = AREA + 5 * BALLOON_PAGE;
    BalloonDriver d;

    start_at(&d, options);
    for (int i = 0; i < 4; i++) {
        balloon_inflate(&d, page, BALLOON_PAGE);
        /* Once before the discard, most likely, once after it */
        if (i % 2) {
            balloon_wait_discarded(d.qts);
        }
        qtest_memset(d.qts, page, NEW, BALLOON_PAGE);
        balloon_wait_discarded(d.qts);
        g_assert_true(balloon_has_bytes(&d, page, BALLOON_PAGE, NEW) ||
                      (i % 2 == 0 &&
                       balloon_has_bytes(&d, page, BALLOON_PAGE, 0)));
        if (i < 2) {
            balloon_deflate(&d, page, BALLOON_PAGE);
            qtest_memset(d.qts, page, NEW, BALLOON_PAGE);
            balloon_inflate(&d, AREA + HUGE_SIZE, BALLOON_PAGE);
            balloon_wait_discarded(d.qts);
            balloon_assert_bytes(&d, page, BALLOON_PAGE, NEW);
        }
    }
    /* It is in the balloon still, so it does not arrive elsewhere */
    balloon_move(&d, DEVICE, options);
    balloon_assert_bytes(&d, AREA, 5 * BALLOON_PAGE, OLD);
    balloon_assert_bytes(&d, page + BALLOON_PAGE,
                         HUGE_SIZE - 6 * BALLOON_PAGE, OLD);
    balloon_assert_bytes(&d, AREA + HUGE_SIZE + BALLOON_PAGE,
                         HUGE_SIZE - BALLOON_PAGE, OLD);
    quit(&d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func(TELL "offered", offered);
    qtest_add_data_func(TELL "pages/anonymous", ANONYMOUS, pages);
    qtest_add_data_func(TELL "pages/shared", SHARED, pages);
    qtest_add_func(TELL "not-accepted", not_accepted);
    qtest_add_data_func(TELL "taken-back/anonymous", ANONYMOUS, taken_back);
    qtest_add_data_func(TELL "taken-back/shared", SHARED, taken_back);
    qtest_add_func(TELL "busy", busy);
    qtest_add_func(TELL "huge-pages", huge_pages);
    qtest_add_data_func(TELL "reset/anonymous", ANONYMOUS, reset);
    qtest_add_data_func(TELL "reset/shared", SHARED, reset);
    qtest_add_func(TELL "stop", stop);
    qtest_add_data_func(TELL "migration/anonymous", ANONYMOUS, migration);
    qtest_add_data_func(TELL "migration/shared", SHARED, migration);
    qtest_add_func(TELL "postcopy", postcopy);
    qtest_add_func(TELL "inhibited", inhibited);
    qtest_add_func(TELL "inhibited-reset", inhibited_reset);
    qtest_add_data_func(TELL "frees-first/anonymous", ANONYMOUS, frees_first);
    qtest_add_data_func(TELL "frees-first/shared", SHARED, frees_first);
    return g_test_run();
}
