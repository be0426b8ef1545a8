/*
 * The state and the target of the virtio balloon
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-manage.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define SECOND NANOSECONDS_PER_SECOND
#define RAM (128 * MiB)
#define TARGET (64 * MiB)
#define TARGET_PAGES ((RAM - TARGET) / BALLOON_PAGE)

/* Where balloon_boot() puts it, and where a PC lets a slot go */
#define SLOT 4
#define ACPI_EJECT 0xae08

static void boot(BalloonDriver *d)
{
    balloon_boot(d, NULL, "-m 128");
}

static void start(BalloonDriver *d)
{
    boot(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

static void set_actual(BalloonDriver *d, uint32_t pages)
{
    balloon_writel(d, BALLOON_CFG_ACTUAL, pages);
}

static void assert_state(BalloonDriver *d, const char *state)
{
    balloon_assert_state(d->qts, state, NULL);
}

static void stall(BalloonDriver *d)
{
    qtest_clock_step(d->qts, 5 * SECOND);
    assert_state(d, "stalled");
}

/* Before a driver and after it; a target waits for the next one */
static void no_driver(void)
{
    BalloonDriver d;

    boot(&d);
    assert_state(&d, "no-driver");
    balloon_set_target(d.qts, TARGET);
    assert_state(&d, "no-driver");
    balloon_negotiate(&d, BALLOON_ALL_FEATURES);
    assert_state(&d, "no-driver");
    balloon_setup_queues(&d);
    qvirtio_set_driver_ok(d.vdev);
    assert_state(&d, "inflating");
    balloon_reset(&d);
    assert_state(&d, "no-driver");
    g_assert_cmpuint(balloon_target(d.qts), ==, TARGET);
    balloon_quit(&d);
}

/* A driver breaks one of its queues, and is told of without being asked */
static void broken(const void *opaque)
{
    int queue = GPOINTER_TO_INT(opaque);
    BalloonDriver d;

    balloon_boot(&d, "virtio-balloon-pci,free-page-reporting=on", "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_assert_event(d.qts, "reached", NULL);
    qtest_clock_step(d.qts, SECOND);
    balloon_post(&d, queue, &(BalloonSeg) { 0x100000, 0 }, 1);
    balloon_wait_for(balloon_status(&d) == BALLOON_STATUS_BROKEN);
    balloon_assert_event(d.qts, "broken", NULL);
    /* until it resets the device */
    balloon_set_target(d.qts, TARGET);
    qtest_clock_step(d.qts, 60 * SECOND);
    assert_state(&d, "broken");
    balloon_assert_no_event(d.qts);
    balloon_reset(&d);
    balloon_assert_event(d.qts, "no-driver", NULL);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    assert_state(&d, "inflating");
    balloon_quit(&d);
}

/*
 * A guest whose pages have 64 KiB cannot come closer to a target, and has
 * reached it when it moves no more
 */
static void near(void)
{
    static const int away[] = { 15, 1, -1, -15 };
    BalloonDriver d;

    start(&d);
    balloon_assert_event(d.qts, "reached", NULL);
    qtest_clock_step(d.qts, SECOND);
    for (int i = 0; i < ARRAY_SIZE(away); i++) {
        balloon_set_target(d.qts, TARGET);
        set_actual(&d, TARGET_PAGES + away[i]);
        qtest_clock_step(d.qts, SECOND - 2 * SCALE_MS);
        assert_state(&d, away[i] > 0 ? "deflating" : "inflating");
        qtest_clock_step(d.qts, 2 * SCALE_MS);
        assert_state(&d, "reached");
        qtest_clock_step(d.qts, 60 * SECOND);
        assert_state(&d, "reached");
    }
    /* a page more is not that */
    set_actual(&d, TARGET_PAGES + 16);
    stall(&d);
    set_actual(&d, TARGET_PAGES - 16);
    stall(&d);
    balloon_quit(&d);
}

/* Nobody asks, and a guest of 64 KiB pages is told to be there */
static void near_event(void)
{
    BalloonDriver d;

    start(&d);
    balloon_assert_event(d.qts, "reached", NULL);
    qtest_clock_step(d.qts, SECOND);
    balloon_set_target(d.qts, TARGET);
    balloon_assert_event(d.qts, "inflating", NULL);
    set_actual(&d, TARGET_PAGES + 15);
    qtest_clock_step(d.qts, SECOND - SCALE_MS);
    qtest_clock_step(d.qts, 2 * SCALE_MS);
    /* it went beyond the target, by less than its page */
    balloon_assert_event(d.qts, "deflating", NULL);
    qtest_clock_step(d.qts, SECOND);
    balloon_assert_event(d.qts, "reached", NULL);
    qtest_clock_step(d.qts, 60 * SECOND);
    balloon_assert_no_event(d.qts);
    balloon_quit(&d);
}

/* The last that happened before a balloon goes is told, also afterwards */
static void unplug(void)
{
    BalloonDriver d;

    start(&d);
    balloon_assert_event(d.qts, "reached", NULL);
    qtest_qmp_device_del_send(d.qts, "balloon0");
    balloon_reset(&d);
    qtest_outl(d.qts, ACPI_EJECT, 1 << SLOT);
    qtest_qmp_eventwait(d.qts, "DEVICE_DELETED");
    balloon_lose(&d);
    balloon_assert_no_event(d.qts);
    qtest_clock_step(d.qts, SECOND);
    balloon_assert_event(d.qts, "no-driver", NULL);
    balloon_quit(&d);
}

/* A balloon page is what makes the difference */
static void directions(void)
{
    BalloonDriver d;

    start(&d);
    assert_state(&d, "reached");
    balloon_set_target(d.qts, TARGET);
    assert_state(&d, "inflating");
    set_actual(&d, TARGET_PAGES - 1);
    assert_state(&d, "inflating");
    set_actual(&d, TARGET_PAGES);
    assert_state(&d, "reached");
    set_actual(&d, TARGET_PAGES + 1);
    assert_state(&d, "deflating");
    balloon_set_target(d.qts, RAM);
    assert_state(&d, "deflating");
    set_actual(&d, UINT32_MAX);
    assert_state(&d, "deflating");
    set_actual(&d, 0);
    assert_state(&d, "reached");
    /* less than a balloon page is no difference */
    balloon_set_target(d.qts, RAM - 1);
    assert_state(&d, "reached");
    balloon_quit(&d);
}

/* What was asked for, as far as the balloon can follow */
static void target(void)
{
    static const struct {
        int64_t asked, target;
    } cases[] = {
        { TARGET, TARGET },
        { TARGET + 1, TARGET + BALLOON_PAGE },
        { TARGET + BALLOON_PAGE - 1, TARGET + BALLOON_PAGE },
        { 1, BALLOON_PAGE },
        { RAM, RAM },
        { RAM + 1, RAM },
        { INT64_MAX, RAM },
    };
    BalloonDriver d;

    start(&d);
    g_assert_cmpuint(balloon_target(d.qts), ==, RAM);
    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        balloon_set_target(d.qts, cases[i].asked);
        g_assert_cmpuint(balloon_target(d.qts), ==, cases[i].target);
        g_assert_cmpint(balloon_query(d.qts), ==, RAM);
    }
    balloon_assert_error(d.qts, "GenericError",
                         "Parameter 'value' expects a size",
                         "{'execute': 'balloon', 'arguments': {'value': 0}}");
    g_assert_cmpuint(balloon_target(d.qts), ==, RAM);
    balloon_assert_error(d.qts, "GenericError", "Parameter 'x' is unexpected",
                         "{'execute': 'query-balloon',"
                         " 'arguments': {'x': 1}}");
    balloon_quit(&d);
}

/* Five seconds without progress, and any progress ends it */
static void stalled(void)
{
    BalloonDriver d;
    uint64_t pages;

    start(&d);
    pages = balloon_dirty_pages(&d, 1);
    qtest_clock_step(d.qts, 60 * SECOND);
    assert_state(&d, "reached");

    balloon_set_target(d.qts, TARGET);
    qtest_clock_step(d.qts, 5 * SECOND - 2 * SCALE_MS);
    assert_state(&d, "inflating");
    qtest_clock_step(d.qts, 2 * SCALE_MS);
    assert_state(&d, "stalled");

    set_actual(&d, 1);
    assert_state(&d, "inflating");
    stall(&d);
    balloon_send_range(&d, BALLOON_VQ_INFLATE, pages, 1);
    assert_state(&d, "inflating");
    stall(&d);
    balloon_send_range(&d, BALLOON_VQ_DEFLATE, pages, 1);
    assert_state(&d, "inflating");
    stall(&d);
    balloon_set_target(d.qts, TARGET);
    assert_state(&d, "inflating");
    stall(&d);
    set_actual(&d, TARGET_PAGES);
    assert_state(&d, "reached");
    /* for long at its target, a guest has its time when that changes */
    qtest_clock_step(d.qts, 60 * SECOND);
    balloon_set_target(d.qts, RAM);
    assert_state(&d, "deflating");
    stall(&d);
    balloon_quit(&d);
}

/* Progress in each of many seconds: never stalled */
static void slow(void)
{
    BalloonDriver d;

    start(&d);
    balloon_set_target(d.qts, TARGET);
    for (int i = 1; i <= 10; i++) {
        qtest_clock_step(d.qts, 4 * SECOND);
        assert_state(&d, "inflating");
        set_actual(&d, i);
    }
    stall(&d);
    balloon_quit(&d);
}

/* A guest cannot move while its machine is stopped */
static void stop_cont(void)
{
    BalloonDriver d;

    start(&d);
    balloon_set_target(d.qts, TARGET);
    qtest_clock_step(d.qts, 2 * SECOND);
    qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
    qtest_clock_step(d.qts, 2 * SECOND);
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    qtest_clock_step(d.qts, 4 * SECOND);
    assert_state(&d, "inflating");
    qtest_clock_step(d.qts, SECOND);
    assert_state(&d, "stalled");

    qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
    assert_state(&d, "stalled");
    balloon_set_target(d.qts, RAM);
    assert_state(&d, "reached");
    balloon_set_target(d.qts, TARGET);
    assert_state(&d, "inflating");
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    assert_state(&d, "inflating");
    stall(&d);
    qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
    assert_state(&d, "stalled");
    balloon_quit(&d);
}

/* A machine that goes on elsewhere has its target, and its time to follow */
static void migration(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source, d;

    start(&source);
    balloon_set_target(source.qts, TARGET);
    set_actual(&source, 2);
    stall(&source);
    balloon_migrate(source.qts, file);
    balloon_load(&d, &source, "virtio-balloon-pci", "-m 128", file);
    g_assert_cmpuint(balloon_target(d.qts), ==, TARGET);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 2 * BALLOON_PAGE);
    assert_state(&d, "inflating");
    stall(&d);
    set_actual(&d, TARGET_PAGES);
    assert_state(&d, "reached");
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
    balloon_quit(&source);
    unlink(file);
}

static void assert_features(BalloonDriver *d, bool reporting, bool hinting)
{
    QDict *info = balloon_info(d->qts);

    g_assert_cmpint(qdict_get_bool(info, "reporting"), ==, reporting);
    g_assert_cmpint(qdict_get_bool(info, "hinting"), ==, hinting);
    qobject_unref(info);
}

/* Offered is not accepted, and what was accepted ends with the driver */
static void features(void)
{
    BalloonDriver d;

    balloon_boot(&d, "virtio-balloon-pci,free-page-reporting=on,"
                 "free-page-hint=on,iothread=io", "-m 128"
                 " -object iothread,id=io");
    assert_features(&d, false, false);
    balloon_start(&d, 1ull << VIRTIO_BALLOON_F_REPORTING);
    assert_features(&d, true, false);
    balloon_reset(&d);
    assert_features(&d, false, false);
    balloon_start(&d, 1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT);
    assert_features(&d, false, true);
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    assert_features(&d, true, true);
    balloon_quit(&d);
}

/* Of the changes within a second, the first and the last */
static void events(void)
{
    BalloonDriver d;

    start(&d);
    balloon_assert_event(d.qts, "reached", NULL);
    balloon_set_target(d.qts, TARGET);
    set_actual(&d, 1);
    balloon_assert_no_event(d.qts);
    qtest_clock_step(d.qts, SECOND - 2 * SCALE_MS);
    balloon_assert_no_event(d.qts);
    qtest_clock_step(d.qts, 2 * SCALE_MS);
    balloon_assert_event(d.qts, "inflating", NULL);

    qtest_clock_step(d.qts, SECOND);
    set_actual(&d, TARGET_PAGES);
    balloon_assert_event(d.qts, "reached", NULL);
    for (int i = 0; i < 100; i++) {
        set_actual(&d, TARGET_PAGES + 1);
        set_actual(&d, TARGET_PAGES - 1);
        set_actual(&d, TARGET_PAGES);
    }
    balloon_assert_no_event(d.qts);
    qtest_clock_step(d.qts, SECOND);
    /* a quick guest is at its target again: whoever waits for that hears it */
    balloon_assert_event(d.qts, "reached", NULL);
    qtest_clock_step(d.qts, 60 * SECOND);
    balloon_assert_no_event(d.qts);

    balloon_set_target(d.qts, RAM);
    balloon_assert_event(d.qts, "deflating", NULL);
    qtest_clock_step(d.qts, 5 * SECOND);
    balloon_assert_event(d.qts, "stalled", NULL);
    qtest_clock_step(d.qts, 60 * SECOND);
    balloon_assert_no_event(d.qts);
    balloon_reset(&d);
    balloon_assert_event(d.qts, "no-driver", NULL);
    balloon_quit(&d);
}

/* Whoever reads actual and BALLOON_CHANGE alone sees what he always saw */
static void actual_as_ever(void)
{
    BalloonDriver d;
    QDict *info;

    start(&d);
    set_actual(&d, 1);
    g_assert_cmpint(balloon_next_change(d.qts), ==, RAM - BALLOON_PAGE);
    info = balloon_info(d.qts);
    g_assert_cmpint(qdict_get_int(info, "actual"), ==, RAM - BALLOON_PAGE);
    qobject_unref(info);
    balloon_assert_hmp(d.qts, "info balloon", "balloon: actual=127");
    balloon_quit(&d);
}

void balloon_add_state_tests(void)
{
    qtest_add_func(BALLOON_MANAGE "state/no-driver", no_driver);
    qtest_add_data_func(BALLOON_MANAGE "state/broken/inflate",
                        GINT_TO_POINTER(BALLOON_VQ_INFLATE), broken);
    qtest_add_data_func(BALLOON_MANAGE "state/broken/deflate",
                        GINT_TO_POINTER(BALLOON_VQ_DEFLATE), broken);
    qtest_add_data_func(BALLOON_MANAGE "state/broken/stats",
                        GINT_TO_POINTER(BALLOON_VQ_STATS), broken);
    qtest_add_data_func(BALLOON_MANAGE "state/broken/report",
                        GINT_TO_POINTER(BALLOON_VQ_FIRST_OPTIONAL), broken);
    qtest_add_func(BALLOON_MANAGE "state/near", near);
    qtest_add_func(BALLOON_MANAGE "state/near-event", near_event);
    qtest_add_func(BALLOON_MANAGE "state/unplug", unplug);
    qtest_add_func(BALLOON_MANAGE "state/directions", directions);
    qtest_add_func(BALLOON_MANAGE "state/target", target);
    qtest_add_func(BALLOON_MANAGE "state/stalled", stalled);
    qtest_add_func(BALLOON_MANAGE "state/slow", slow);
    qtest_add_func(BALLOON_MANAGE "state/stop-cont", stop_cont);
    qtest_add_func(BALLOON_MANAGE "state/migration", migration);
    qtest_add_func(BALLOON_MANAGE "state/features", features);
    qtest_add_func(BALLOON_MANAGE "state/events", events);
    qtest_add_func(BALLOON_MANAGE "state/actual-as-ever", actual_as_ever);
}
