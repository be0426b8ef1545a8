/*
 * Pages in a virtio balloon that are no neighbours, and migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-pages.h"

/* Every other page of so much memory: more runs than can be looked at soon */
#define RAM "-m 1152 "
#define FRAGMENTED GiB

/* As many page numbers as a driver has in a page */
#define LIST_PAGES 1024

/* Give every other page of the memory from BALLOON_AREA on */
static void inflate_fragments(BalloonDriver *d, uint64_t size)
{
    uint32_t pfns[LIST_PAGES];

    for (uint64_t at = 0; at < size; at += 2 * LIST_PAGES * BALLOON_PAGE) {
        for (unsigned i = 0; i < LIST_PAGES; i++) {
            pfns[i] = BALLOON_PFN(BALLOON_AREA + at) + 2 * i;
        }
        balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, LIST_PAGES);
    }
    balloon_wait_discarded(d->qts);
}

static void start(BalloonDriver *d)
{
    balloon_boot(d, BALLOON_TELL, RAM);
    balloon_start(d, BALLOON_ALL_FEATURES);
    inflate_fragments(d, FRAGMENTED);
}

/* All of them are skipped, at the first look at what has changed ... */
static void test_skipped(void)
{
    BalloonDriver d;

    start(&d);
    g_assert_cmpint(balloon_move(&d, BALLOON_TELL, RAM), ==, FRAGMENTED / 2);
    /* It is known at the other end which they are */
    g_assert_cmpint(balloon_move(&d, BALLOON_TELL, RAM), ==, FRAGMENTED / 2);
    balloon_quit(&d);
}

/* ... and at each later one */
static void test_skipped_again(void)
{
    const uint64_t dirty = 4 * MiB;
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;
    int stream;

    start(&d);
    stream = balloon_migrate_begin(d.qts);
    qtest_memset(d.qts, BALLOON_AREA + FRAGMENTED - dirty, BALLOON_NEW, dirty);
    balloon_migrate_end(d.qts, stream, file);
    unlink(file);
    /* The pages between them are sent, perhaps for the second time */
    g_assert_cmpint(balloon_migration_skipped(d.qts), <=, FRAGMENTED / 2);
    g_assert_cmpint(balloon_migration_skipped(d.qts), >=,
                    FRAGMENTED / 2 - dirty / 2);
    balloon_quit(&d);
}

/* Have @file loaded by a machine with @options; returns what it discarded */
static uint64_t load_and_discard(const char *options, const char *file)
{
    uint64_t discarded;
    BalloonDriver d;

    balloon_boot_incoming(&d, BALLOON_TELL, options);
    g_assert_true(balloon_try_load(d.qts, file));
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    balloon_wait_discarded(d.qts);
    discarded = balloon_counter(d.qts, "discarded");
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
    return discarded;
}

/*
 * A destination discards what it has, and nothing that it never had.  Private
 * memory comes as huge pages, also where only some of their pages are sent.
 */
static void test_destination(const void *shared)
{
    const uint64_t size = 64 * MiB;
    const uint64_t given = shared ? size / 2 : size;
    g_autofree char *file = balloon_migration_file();
    g_autofree char *options = g_strdup_printf(
        "-m 256 -machine pc,memory-backend=ram -object %s,id=ram,size=256M",
        shared ? "memory-backend-memfd,share=on" : "memory-backend-ram");
    g_autofree char *populated = g_strconcat(options, ",prealloc=on", NULL);
    BalloonDriver d;

    balloon_boot(&d, BALLOON_TELL, options);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    if (shared) {
        inflate_fragments(&d, size);
    } else {
        balloon_inflate(&d, BALLOON_AREA, size);
    }
    balloon_migrate(d.qts, file);
    balloon_quit(&d);
    g_assert_cmpuint(load_and_discard(options, file), ==, 0);
    g_assert_cmpuint(load_and_discard(populated, file), ==, given);
    unlink(file);
}

void balloon_add_pages_migration_tests(void)
{
    qtest_add_func(BALLOON_PAGES_PATH "fragmented/skipped", test_skipped);
    qtest_add_func(BALLOON_PAGES_PATH "fragmented/skipped-again",
                   test_skipped_again);
    qtest_add_data_func(BALLOON_PAGES_PATH "destination/anonymous", NULL,
                        test_destination);
    qtest_add_data_func(BALLOON_PAGES_PATH "destination/shared", "shared",
                        test_destination);
}
