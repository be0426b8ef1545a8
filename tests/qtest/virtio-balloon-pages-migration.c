/*
 * Pages in a virtio balloon that are no neighbours, and migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-pages.h"

/* Every other page of so much memory: more runs than can be looked at soon */
#define LARGE "-m 1152"
#define FRAGMENTED GiB

/* Enough for a destination, and what is in the balloon of it */
#define MEMORY_256(backend)                                             \
    "-m 256 -machine pc,memory-backend=ram"                             \
    " -object memory-backend-" backend ",id=ram,size=256M"
#define PART (64 * MiB)

/* As many page numbers as a driver has in a page */
#define LIST_PAGES 1024

/* Give every other page of the memory from AREA on */
static void inflate_fragments(BalloonDriver *d, uint64_t size)
{
    uint32_t pfns[LIST_PAGES];

    for (uint64_t at = 0; at < size; at += 2 * LIST_PAGES * BALLOON_PAGE) {
        for (unsigned i = 0; i < LIST_PAGES; i++) {
            pfns[i] = BALLOON_PFN(AREA + at) + 2 * i;
        }
        balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, LIST_PAGES);
    }
    balloon_wait_discarded(d->qts);
}

/* All of them are skipped, at the first look at what has changed ... */
static void test_skipped(BalloonDriver *d)
{
    inflate_fragments(d, FRAGMENTED);
    g_assert_cmpint(balloon_case_move(d), ==, FRAGMENTED / 2);
    /* It is known at the other end which they are */
    g_assert_cmpint(balloon_case_move(d), ==, FRAGMENTED / 2);
}

/* ... and at each later one */
static void test_skipped_again(BalloonDriver *d)
{
    const uint64_t dirty = 4 * MiB;
    g_autofree char *file = balloon_migration_file();
    int stream;

    inflate_fragments(d, FRAGMENTED);
    stream = balloon_migrate_begin(d->qts);
    qtest_memset(d->qts, AREA + FRAGMENTED - dirty, NEW, dirty);
    balloon_migrate_end(d->qts, stream, file);
    unlink(file);
    /* The pages between them are sent, perhaps for the second time */
    g_assert_cmpint(balloon_migration_skipped(d->qts), <=, FRAGMENTED / 2);
    g_assert_cmpint(balloon_migration_skipped(d->qts), >=,
                    FRAGMENTED / 2 - dirty / 2);
}

/* Have @file loaded by a machine with @options; returns what it discarded */
static uint64_t load_and_discard(const char *options, const char *file)
{
    uint64_t discarded;
    BalloonDriver d;

    balloon_boot_incoming(&d, TELL, options);
    g_assert_true(balloon_try_load(d.qts, file));
    balloon_cont(&d);
    balloon_wait_discarded(d.qts);
    discarded = balloon_counter(d.qts, "discarded");
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
    return discarded;
}

/* A destination discards what it has, and nothing that it never had ... */
static void check_destination(BalloonDriver *d, uint64_t given)
{
    const char *options = balloon_case()->options;
    g_autofree char *populated = g_strconcat(options, ",prealloc=on", NULL);
    g_autofree char *file = balloon_migration_file();

    balloon_migrate(d->qts, file);
    g_assert_cmpuint(load_and_discard(options, file), ==, 0);
    g_assert_cmpuint(load_and_discard(populated, file), ==, given);
    unlink(file);
}

/*
 * ... all of it, as private memory comes as huge pages, also where only some
 * of their pages are sent
 */
static void test_destination(BalloonDriver *d)
{
    balloon_inflate(d, AREA, PART);
    check_destination(d, PART);
}

static void test_destination_shared(BalloonDriver *d)
{
    inflate_fragments(d, PART);
    check_destination(d, PART / 2);
}

static const BalloonCase cases[] = {
    { "fragmented/skipped", test_skipped, TELL, LARGE },
    { "fragmented/skipped-again", test_skipped_again, TELL, LARGE },
    { "destination/anonymous", test_destination, TELL, MEMORY_256("ram") },
    { "destination/shared", test_destination_shared, TELL,
      MEMORY_256("memfd,share=on") },
};

void balloon_add_pages_migration_tests(void)
{
    balloon_add_cases(BALLOON_PAGES, cases, ARRAY_SIZE(cases));
}
