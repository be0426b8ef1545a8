/*
 * The state and the target of the virtio balloon
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-manage.h"

#define TARGET (64 * MiB)
#define TARGET_PAGES ((RAM - TARGET) / BALLOON_PAGE)

static void set_actual(BalloonDriver *d, uint32_t pages)
{
    balloon_writel(d, BALLOON_CFG_ACTUAL, pages);
}

static void assert_state(BalloonDriver *d, const char *state)
{
    balloon_assert_state(d->qts, state, NULL);
}

static void assert_event(BalloonDriver *d, const char *state)
{
    balloon_assert_event(d->qts, state, NULL);
}

/* The driver has just come, which is told, and no event is kept back */
static void begin(BalloonDriver *d)
{
    assert_event(d, "reached");
    qtest_clock_step(d->qts, SECOND);
}

static void stall(BalloonDriver *d)
{
    qtest_clock_step(d->qts, 5 * SECOND);
    assert_state(d, "stalled");
}

/* Whatever time passes, nothing happens */
static void assert_quiet(BalloonDriver *d, const char *state)
{
    qtest_clock_step(d->qts, 60 * SECOND);
    assert_state(d, state);
    balloon_assert_no_event(d->qts);
}

/*
 * Before a driver and after it; a target waits for the next one, and nothing
 * is given up, whatever it is
 */
static void no_driver(BalloonDriver *d)
{
    assert_state(d, "no-driver");
    balloon_set_target(d->qts, TARGET);
    assert_state(d, "no-driver");
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    assert_state(d, "no-driver");
    balloon_setup_queues(d);
    qvirtio_set_driver_ok(d->vdev);
    assert_state(d, "inflating");
    balloon_reset(d);
    assert_state(d, "no-driver");
    g_assert_cmpuint(balloon_target(d->qts), ==, TARGET);
    g_assert_cmpuint(balloon_assert_sum(d->qts), ==, 0);
}

/* A driver breaks one of its queues, and is told of without being asked */
static void broken(BalloonDriver *d)
{
    int queue = GPOINTER_TO_INT(balloon_case()->data);

    begin(d);
    balloon_post(d, queue, &(BalloonSeg) { 0x100000, 0 }, 1);
    balloon_wait_for(balloon_status(d) == BALLOON_STATUS_BROKEN);
    assert_event(d, "broken");
    /* until it resets the device */
    balloon_set_target(d->qts, TARGET);
    assert_quiet(d, "broken");
    balloon_reset(d);
    assert_event(d, "no-driver");
    balloon_start(d, BALLOON_ALL_FEATURES);
    assert_state(d, "inflating");
}

/*
 * A guest whose pages have 64 KiB cannot come closer to a target, and has
 * reached it when it moves no more
 */
static void near(BalloonDriver *d)
{
    static const int away[] = { 15, 1, -1, -15 };

    begin(d);
    for (int i = 0; i < ARRAY_SIZE(away); i++) {
        balloon_set_target(d->qts, TARGET);
        set_actual(d, TARGET_PAGES + away[i]);
        qtest_clock_step(d->qts, SECOND - 2 * SCALE_MS);
        assert_state(d, away[i] > 0 ? "deflating" : "inflating");
        qtest_clock_step(d->qts, 2 * SCALE_MS);
        assert_state(d, "reached");
        qtest_clock_step(d->qts, 60 * SECOND);
        assert_state(d, "reached");
    }
    /* a page more is not that */
    set_actual(d, TARGET_PAGES + 16);
    stall(d);
    set_actual(d, TARGET_PAGES - 16);
    stall(d);
}

/* Nobody asks, and a guest of 64 KiB pages is told to be there */
static void near_event(BalloonDriver *d)
{
    begin(d);
    balloon_set_target(d->qts, TARGET);
    assert_event(d, "inflating");
    set_actual(d, TARGET_PAGES + 15);
    qtest_clock_step(d->qts, SECOND - SCALE_MS);
    qtest_clock_step(d->qts, 2 * SCALE_MS);
    /* it went beyond the target, by less than its page */
    assert_event(d, "deflating");
    qtest_clock_step(d->qts, SECOND);
    assert_event(d, "reached");
    assert_quiet(d, "reached");
}

/* The last that happened before a balloon goes is told, also afterwards */
static void unplug(void)
{
    BalloonDriver d;

    balloon_boot_and_start(&d, NULL, MEMORY);
    assert_event(&d, "reached");
    qtest_qmp_device_del_send(d.qts, "balloon0");
    balloon_reset(&d);
    balloon_eject(&d);
    balloon_assert_no_event(d.qts);
    qtest_clock_step(d.qts, SECOND);
    assert_event(&d, "no-driver");
    balloon_quit(&d);
}

/* A balloon page is what makes the difference */
static void directions(BalloonDriver *d)
{
    assert_state(d, "reached");
    balloon_set_target(d->qts, TARGET);
    assert_state(d, "inflating");
    set_actual(d, TARGET_PAGES - 1);
    assert_state(d, "inflating");
    set_actual(d, TARGET_PAGES);
    assert_state(d, "reached");
    set_actual(d, TARGET_PAGES + 1);
    assert_state(d, "deflating");
    balloon_set_target(d->qts, RAM);
    assert_state(d, "deflating");
    set_actual(d, UINT32_MAX);
    assert_state(d, "deflating");
    set_actual(d, 0);
    assert_state(d, "reached");
    /* less than a balloon page is no difference */
    balloon_set_target(d->qts, RAM - 1);
    assert_state(d, "reached");
}

/* What was asked for, as far as the balloon can follow */
static void target(BalloonDriver *d)
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

    g_assert_cmpuint(balloon_target(d->qts), ==, RAM);
    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        balloon_set_target(d->qts, cases[i].asked);
        g_assert_cmpuint(balloon_target(d->qts), ==, cases[i].target);
        g_assert_cmpint(balloon_query(d->qts), ==, RAM);
    }
    balloon_assert_error(d->qts, "GenericError",
                         "Parameter 'value' expects a size",
                         "{'execute': 'balloon', 'arguments': {'value': 0}}");
    g_assert_cmpuint(balloon_target(d->qts), ==, RAM);
    balloon_assert_error(d->qts, "GenericError", "Parameter 'x' is unexpected",
                         "{'execute': 'query-balloon',"
                         " 'arguments': {'x': 1}}");
}

/* Five seconds without progress, and any progress ends it */
static void stalled(BalloonDriver *d)
{
    qtest_clock_step(d->qts, 60 * SECOND);
    assert_state(d, "reached");

    balloon_set_target(d->qts, TARGET);
    qtest_clock_step(d->qts, 5 * SECOND - 2 * SCALE_MS);
    assert_state(d, "inflating");
    qtest_clock_step(d->qts, 2 * SCALE_MS);
    assert_state(d, "stalled");

    set_actual(d, 1);
    assert_state(d, "inflating");
    stall(d);
    balloon_inflate(d, AREA, BALLOON_PAGE);
    assert_state(d, "inflating");
    stall(d);
    balloon_deflate(d, AREA, BALLOON_PAGE);
    assert_state(d, "inflating");
    stall(d);
    balloon_set_target(d->qts, TARGET);
    assert_state(d, "inflating");
    stall(d);
    set_actual(d, TARGET_PAGES);
    assert_state(d, "reached");
    /* for long at its target, a guest has its time when that changes */
    qtest_clock_step(d->qts, 60 * SECOND);
    balloon_set_target(d->qts, RAM);
    assert_state(d, "deflating");
    stall(d);
}

/* Progress in each of many seconds: never stalled */
static void slow(BalloonDriver *d)
{
    balloon_set_target(d->qts, TARGET);
    for (int i = 1; i <= 10; i++) {
        qtest_clock_step(d->qts, 4 * SECOND);
        assert_state(d, "inflating");
        set_actual(d, i);
    }
    stall(d);
}

/* A guest cannot move while its machine is stopped */
static void stop_cont(BalloonDriver *d)
{
    balloon_set_target(d->qts, TARGET);
    qtest_clock_step(d->qts, 2 * SECOND);
    balloon_stop(d);
    qtest_clock_step(d->qts, 2 * SECOND);
    balloon_cont(d);
    qtest_clock_step(d->qts, 4 * SECOND);
    assert_state(d, "inflating");
    qtest_clock_step(d->qts, SECOND);
    assert_state(d, "stalled");

    balloon_stop(d);
    assert_state(d, "stalled");
    balloon_set_target(d->qts, RAM);
    assert_state(d, "reached");
    balloon_set_target(d->qts, TARGET);
    assert_state(d, "inflating");
    balloon_cont(d);
    assert_state(d, "inflating");
    stall(d);
    balloon_stop(d);
    assert_state(d, "stalled");
}

/* A machine that goes on elsewhere has its target, and its time to follow */
static void migration(BalloonDriver *d)
{
    balloon_set_target(d->qts, TARGET);
    set_actual(d, 2);
    stall(d);
    balloon_case_move(d);
    g_assert_cmpuint(balloon_target(d->qts), ==, TARGET);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - 2 * BALLOON_PAGE);
    assert_state(d, "inflating");
    stall(d);
    set_actual(d, TARGET_PAGES);
    assert_state(d, "reached");
}

static void assert_features(BalloonDriver *d, bool reporting, bool hinting)
{
    QDict *info = balloon_info(d->qts);

    g_assert_cmpint(qdict_get_bool(info, "reporting"), ==, reporting);
    g_assert_cmpint(qdict_get_bool(info, "hinting"), ==, hinting);
    qobject_unref(info);
}

/* Offered is not accepted, and what was accepted ends with the driver */
static void features(BalloonDriver *d)
{
    assert_features(d, false, false);
    balloon_start(d, 1ull << VIRTIO_BALLOON_F_REPORTING);
    assert_features(d, true, false);
    balloon_reset(d);
    assert_features(d, false, false);
    balloon_start(d, 1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT);
    assert_features(d, false, true);
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    assert_features(d, true, true);
}

/* Of the changes within a second, the first and the last */
static void events(BalloonDriver *d)
{
    assert_event(d, "reached");
    balloon_set_target(d->qts, TARGET);
    set_actual(d, 1);
    balloon_assert_no_event(d->qts);
    qtest_clock_step(d->qts, SECOND - 2 * SCALE_MS);
    balloon_assert_no_event(d->qts);
    qtest_clock_step(d->qts, 2 * SCALE_MS);
    assert_event(d, "inflating");

    qtest_clock_step(d->qts, SECOND);
    set_actual(d, TARGET_PAGES);
    assert_event(d, "reached");
    for (int i = 0; i < 100; i++) {
        set_actual(d, TARGET_PAGES + 1);
        set_actual(d, TARGET_PAGES - 1);
        set_actual(d, TARGET_PAGES);
    }
    balloon_assert_no_event(d->qts);
    qtest_clock_step(d->qts, SECOND);
    /* a quick guest is at its target again: whoever waits for that hears it */
    assert_event(d, "reached");
    assert_quiet(d, "reached");

    balloon_set_target(d->qts, RAM);
    assert_event(d, "deflating");
    qtest_clock_step(d->qts, 5 * SECOND);
    assert_event(d, "stalled");
    assert_quiet(d, "stalled");
    balloon_reset(d);
    assert_event(d, "no-driver");
}

static const BalloonCase cases[] = {
    { "state/no-driver", no_driver, .no_driver = true },
    { "state/broken/inflate", broken, REPORTING, NULL,
      GINT_TO_POINTER(BALLOON_VQ_INFLATE) },
    { "state/broken/deflate", broken, REPORTING, NULL,
      GINT_TO_POINTER(BALLOON_VQ_DEFLATE) },
    { "state/broken/stats", broken, REPORTING, NULL,
      GINT_TO_POINTER(BALLOON_VQ_STATS) },
    { "state/broken/report", broken, REPORTING, NULL,
      GINT_TO_POINTER(REPORT) },
    { "state/near", near },
    { "state/near-event", near_event },
    { "state/directions", directions },
    { "state/target", target },
    { "state/stalled", stalled },
    { "state/slow", slow },
    { "state/stop-cont", stop_cont },
    { "state/migration", migration },
    { "state/features", features, REPORTING ",free-page-hint=on,iothread=io",
      MEMORY " -object iothread,id=io", .no_driver = true },
    { "state/events", events },
};

void balloon_add_state_tests(void)
{
    balloon_add_cases(BALLOON_MANAGE, cases, ARRAY_SIZE(cases));
    qtest_add_func(BALLOON_MANAGE "state/unplug", unplug);
}
