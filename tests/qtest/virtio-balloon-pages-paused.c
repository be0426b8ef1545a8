/*
 * Pages in the balloon of a destination that does not run, or not yet
 *
 * Its memory may be another QEMU's, whose guest goes on: then each page that
 * it discards is one that this guest uses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-pages.h"

#define SIZE BALLOON_AREA_SIZE

#define RAM "-m 128 -machine pc,memory-backend=ram "

/* The source, on memory that it shares with its destination, is migrated */
static void run_source(BalloonDriver *d, const char *options, const char *file,
                       bool more)
{
    balloon_boot(d, BALLOON_TELL, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
    if (more) {
        /* The destination does not have it, and fails after the balloon */
        qtest_qmp_device_add(d->qts, "virtio-rng-pci", "rng0",
                             "{'addr': '6'}");
    }
    qtest_memset(d->qts, BALLOON_AREA, BALLOON_OLD, SIZE);
    balloon_inflate(d, BALLOON_AREA, SIZE / 2 + BALLOON_PAGE);
    balloon_wait_discarded(d->qts);
    balloon_set_capability(d->qts, "x-ignore-shared", true);
    balloon_migrate(d->qts, file);
}

/* Its guest goes on all the same, and has its pages back */
static void go_on(BalloonDriver *d)
{
    qtest_qmp_assert_success(d->qts, "{'execute': 'cont'}");
    balloon_deflate(d, BALLOON_AREA, SIZE / 2 + BALLOON_PAGE);
    qtest_memset(d->qts, BALLOON_AREA, BALLOON_NEW, SIZE);
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
    g_autofree char *options = g_strdup_printf(
        RAM "-object memory-backend-file,id=ram,size=128M,share=on,"
        "mem-path=%s ", ram);
    g_autofree char *paused = g_strconcat(options, "-S 2> /dev/null", NULL);
    BalloonDriver source, target;

    run_source(&source, options, file, when == FAILS_AT_ANOTHER_DEVICE);
    balloon_boot_incoming(&target, BALLOON_TELL, paused);
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
    balloon_assert_stays(&source, BALLOON_AREA, SIZE, BALLOON_NEW);
    g_assert_cmpuint(balloon_counter(target.qts, "discarded"), ==, 0);
    balloon_quit(&target);
    balloon_assert_bytes(&source, BALLOON_AREA, SIZE, BALLOON_NEW);
    balloon_quit(&source);
    unlink(file);
    unlink(ram);
    rmdir(folder);
}

/* What there is to be discarded is discarded when the guest goes on there */
static void test_paused(const void *backend)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *options = g_strdup_printf(
        RAM "-object %s,id=ram,size=128M", (const char *)backend);
    g_autofree char *paused = g_strconcat(options, ",prealloc=on -S", NULL);
    BalloonDriver source, d;

    balloon_boot(&source, BALLOON_TELL, options);
    balloon_start(&source, BALLOON_ALL_FEATURES);
    qtest_memset(source.qts, BALLOON_AREA, BALLOON_OLD, SIZE);
    balloon_inflate(&source, BALLOON_AREA, SIZE / 2);
    balloon_migrate(source.qts, file);
    balloon_load(&d, &source, BALLOON_TELL, paused, file);
    balloon_quit(&source);
    unlink(file);

    g_assert_false(balloon_vm_is_running(d.qts));
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_NEW, SIZE);
    balloon_assert_stays(&d, BALLOON_AREA, SIZE, BALLOON_NEW);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==, 0);

    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    balloon_wait_for(balloon_has_bytes(&d, BALLOON_AREA, SIZE / 2, 0));
    balloon_wait_discarded(d.qts);
    balloon_assert_bytes(&d, BALLOON_AREA + SIZE / 2, SIZE / 2, BALLOON_NEW);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

void balloon_add_pages_paused_tests(void)
{
    qtest_add_data_func(BALLOON_PAGES_PATH "source-goes-on/paused",
                        GINT_TO_POINTER(LOADS_AND_WAITS), test_source_goes_on);
    qtest_add_data_func(BALLOON_PAGES_PATH "source-goes-on/failed-load",
                        GINT_TO_POINTER(FAILS_AT_ANOTHER_DEVICE),
                        test_source_goes_on);
    qtest_add_data_func(BALLOON_PAGES_PATH "source-goes-on/late-load",
                        GINT_TO_POINTER(FAILS_TOO_LATE), test_source_goes_on);
    qtest_add_data_func(BALLOON_PAGES_PATH "paused/anonymous",
                        "memory-backend-ram", test_paused);
    qtest_add_data_func(BALLOON_PAGES_PATH "paused/shared",
                        "memory-backend-memfd,share=on", test_paused);
}
