/*
 * Pages in the balloon of a destination that does not run, or not yet
 *
 * Its memory may be another QEMU's, whose guest goes on: then each page that
 * it discards is one that this guest uses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-pages.h"

#define GIVEN (HUGE / 2 + BALLOON_PAGE)

/* The source, on memory that it shares with its destination, is migrated */
static void run_source(BalloonDriver *d, const char *options, const char *file,
                       bool more)
{
    balloon_boot_and_start(d, TELL, options);
    if (more) {
        /* The destination does not have it, and fails after the balloon */
        qtest_qmp_device_add(d->qts, "virtio-rng-pci", "rng0",
                             "{'addr': '6'}");
    }
    balloon_inflate(d, AREA, GIVEN);
    balloon_wait_discarded(d->qts);
    balloon_set_capability(d->qts, "x-ignore-shared", true);
    balloon_migrate(d->qts, file);
}

/* Its guest goes on all the same, and has its pages back */
static void go_on(BalloonDriver *d)
{
    balloon_cont(d);
    balloon_deflate(d, AREA, GIVEN);
    qtest_memset(d->qts, AREA, NEW, HUGE);
}

/* When the destination gets to look at what was saved */
typedef enum When {
    LOADS_AND_WAITS,
    FAILS_AT_ANOTHER_DEVICE,
    /* the rings have moved on, so that the device itself does not load */
    FAILS_TOO_LATE,
} When;

/* Whatever becomes of the destination, it leaves the pages alone */
static void test_source_goes_on(const void *data)
{
    When when = GPOINTER_TO_INT(data);
    g_autofree char *folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    g_autofree char *ram = g_build_filename(folder, "ram", NULL);
    g_autofree char *file = g_build_filename(folder, "state", NULL);
    g_autofree char *options =
        g_strdup_printf(MEMORY_OF("file,share=on,mem-path=%s"), ram);
    g_autofree char *paused = g_strconcat(options, " -S 2> /dev/null", NULL);
    BalloonDriver source, target;

    run_source(&source, options, file, when == FAILS_AT_ANOTHER_DEVICE);
    balloon_boot_incoming(&target, TELL, paused);
    balloon_set_capability(target.qts, "x-ignore-shared", true);
    if (when == FAILS_TOO_LATE) {
        go_on(&source);
    }
    g_assert_cmpint(balloon_try_load(target.qts, file), ==,
                    when == LOADS_AND_WAITS);
    if (when != FAILS_TOO_LATE) {
        go_on(&source);
    }
    g_assert_false(balloon_vm_is_running(target.qts));
    balloon_assert_stays(&source, AREA, HUGE, NEW);
    g_assert_cmpuint(balloon_counter(target.qts, "discarded"), ==, 0);
    balloon_quit(&target);
    balloon_assert_bytes(&source, AREA, HUGE, NEW);
    balloon_quit(&source);
    unlink(file);
    unlink(ram);
    rmdir(folder);
}

/* What there is to be discarded is discarded when the guest goes on there */
static void test_paused(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *paused = g_strconcat(balloon_case()->options,
                                          ",prealloc=on -S", NULL);
    BalloonDriver source = *d;

    balloon_inflate(&source, AREA, HUGE / 2);
    balloon_migrate(source.qts, file);
    balloon_load(d, &source, TELL, paused, file);
    balloon_quit(&source);
    unlink(file);

    g_assert_false(balloon_vm_is_running(d->qts));
    qtest_memset(d->qts, AREA, NEW, HUGE);
    balloon_assert_stays(d, AREA, HUGE, NEW);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, 0);

    balloon_cont(d);
    balloon_wait_gone(d, AREA, HUGE / 2);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, AREA + HUGE / 2, HUGE / 2, NEW);
}

static const BalloonCase cases[] = {
    { "paused/anonymous", test_paused, TELL, MEMORY_OF("ram") },
    { "paused/shared", test_paused, TELL, SHARED },
};

void balloon_add_pages_paused_tests(void)
{
    balloon_add_cases(BALLOON_PAGES, cases, ARRAY_SIZE(cases));
    qtest_add_data_func(BALLOON_PAGES "source-goes-on/paused",
                        GINT_TO_POINTER(LOADS_AND_WAITS), test_source_goes_on);
    qtest_add_data_func(BALLOON_PAGES "source-goes-on/failed-load",
                        GINT_TO_POINTER(FAILS_AT_ANOTHER_DEVICE),
                        test_source_goes_on);
    qtest_add_data_func(BALLOON_PAGES "source-goes-on/late-load",
                        GINT_TO_POINTER(FAILS_TOO_LATE), test_source_goes_on);
}
