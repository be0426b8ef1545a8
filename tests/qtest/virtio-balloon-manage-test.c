/*
 * What management can ask of the virtio balloon, and have it do: the state, the
 * target and its limits, and what people read of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qjson.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"
#include "virtio-balloon-migrate.h"

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

/* What the state is when the driver says so many pages ... */
static void expect_at(BalloonDriver *d, uint32_t pages, const char *state)
{
    set_actual(d, pages);
    assert_state(d, state);
}

/* ... when the target is so many bytes ... */
static void expect_for(BalloonDriver *d, int64_t target, const char *state)
{
    balloon_set_target(d->qts, target);
    assert_state(d, state);
}

/* ... and when so much time has passed */
static void expect_after(BalloonDriver *d, int64_t ns, const char *state)
{
    qtest_clock_step(d->qts, ns);
    assert_state(d, state);
}

static void stall(BalloonDriver *d)
{
    expect_after(d, 5 * SECOND, "stalled");
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
    expect_for(d, TARGET, "no-driver");
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
    begin(d);
    balloon_post(d, GPOINTER_TO_INT(d->data), &(BalloonSeg) { 0x100000, 0 }, 1);
    balloon_wait_broken(d);
    assert_event(d, "broken");
    balloon_set_target(d->qts, TARGET);
    assert_quiet(d, "broken");
    /* until it resets the device */
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
        expect_after(d, SECOND - 2 * SCALE_MS,
                     away[i] > 0 ? "deflating" : "inflating");
        expect_after(d, 2 * SCALE_MS, "reached");
        expect_after(d, 60 * SECOND, "reached");
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
    qtest_clock_step(d->qts, SECOND + SCALE_MS);
    /* it went beyond the target, by less than its page */
    assert_event(d, "deflating");
    qtest_clock_step(d->qts, SECOND);
    assert_event(d, "reached");
    assert_quiet(d, "reached");
}

/* The last that happened before a balloon goes is told, also afterwards */
static void unplug(BalloonDriver *d)
{
    assert_event(d, "reached");
    qtest_qmp_device_del_send(d->qts, "balloon0");
    balloon_reset(d);
    balloon_eject(d);
    balloon_assert_no_event(d->qts);
    qtest_clock_step(d->qts, SECOND);
    assert_event(d, "no-driver");
}

/* A balloon page is what makes the difference */
static void directions(BalloonDriver *d)
{
    assert_state(d, "reached");
    expect_for(d, TARGET, "inflating");
    expect_at(d, TARGET_PAGES - 1, "inflating");
    expect_at(d, TARGET_PAGES, "reached");
    expect_at(d, TARGET_PAGES + 1, "deflating");
    expect_for(d, RAM, "deflating");
    expect_at(d, UINT32_MAX, "deflating");
    expect_at(d, 0, "reached");
    /* less than a balloon page is no difference */
    expect_for(d, RAM - 1, "reached");
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
    balloon_assert_error(d->qts, "GenericError", "Parameter 'x' is unexpected",
                         "{'execute': 'query-balloon',"
                         " 'arguments': {'x': 1}}");
}

/* Five seconds without progress, and any progress ends it */
static void stalled(BalloonDriver *d)
{
    expect_after(d, 60 * SECOND, "reached");

    balloon_set_target(d->qts, TARGET);
    expect_after(d, 5 * SECOND - 2 * SCALE_MS, "inflating");
    expect_after(d, 2 * SCALE_MS, "stalled");

    /* slow is not stalled */
    expect_at(d, 1, "inflating");
    expect_after(d, 4 * SECOND, "inflating");
    expect_at(d, 2, "inflating");
    expect_after(d, 4 * SECOND, "inflating");
    expect_at(d, 3, "inflating");
    stall(d);
    balloon_inflate(d, AREA, BALLOON_PAGE);
    assert_state(d, "inflating");
    stall(d);
    balloon_deflate(d, AREA, BALLOON_PAGE);
    assert_state(d, "inflating");
    stall(d);
    expect_for(d, TARGET, "inflating");
    stall(d);
    expect_at(d, TARGET_PAGES, "reached");
    /* for long at its target, a guest has its time when that changes */
    qtest_clock_step(d->qts, 60 * SECOND);
    expect_for(d, RAM, "deflating");
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
    expect_after(d, 4 * SECOND, "inflating");
    expect_after(d, SECOND, "stalled");

    balloon_stop(d);
    assert_state(d, "stalled");
    expect_for(d, RAM, "reached");
    expect_for(d, TARGET, "inflating");
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
    balloon_move(d);
    g_assert_cmpuint(balloon_target(d->qts), ==, TARGET);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - 2 * BALLOON_PAGE);
    assert_state(d, "inflating");
    stall(d);
    expect_at(d, TARGET_PAGES, "reached");
}

static void assert_features(BalloonDriver *d, bool reporting, bool hinting)
{
    g_autoptr(QDict) info = balloon_info(d->qts);

    g_assert_cmpint(qdict_get_bool(info, "reporting"), ==, reporting);
    g_assert_cmpint(qdict_get_bool(info, "hinting"), ==, hinting);
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
    balloon_restart(d);
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

#define LIMITED PLAIN ",min-size=64M"
#define REFUSAL " bytes is too small a target: the balloon's min-size is" \
                " 67108864 bytes, give at least that"

/* Below it a target is refused and changes nothing; what is not, works */
static void min_size(BalloonDriver *d)
{
    static const struct {
        int64_t target;
        const char *error;
    } refused[] = {
        { 64 * MiB - 1, "67108863" REFUSAL },
        { 1, "1" REFUSAL },
        { 0, "Parameter 'value' expects a size" },
        { -1, "Parameter 'value' expects a size" },
    };

    balloon_set_target(d->qts, 96 * MiB);
    for (int i = 0; i < ARRAY_SIZE(refused); i++) {
        balloon_assert_error(d->qts, "GenericError", refused[i].error,
                             "{'execute': 'balloon',"
                             " 'arguments': {'value': %" PRId64 "}}",
                             refused[i].target);
        g_assert_cmpuint(balloon_target(d->qts), ==, 96 * MiB);
        g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==,
                        32 * MiB / BALLOON_PAGE);
    }
    balloon_set_target(d->qts, 64 * MiB);
    g_assert_cmpuint(balloon_target(d->qts), ==, 64 * MiB);
    /* the driver is not bound by it */
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x5000);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - 0x5000 * BALLOON_PAGE);
}

/* More than there is cannot be had; as much as there is can */
static void large_min_size(BalloonDriver *d)
{
    QTestState *qts = qtest_init(MEMORY);

    balloon_assert_error(qts, "GenericError",
                         "min-size, 134217729 bytes, is more than the"
                         " machine's memory, 134217728 bytes",
                         BALLOON_DEVICE_ADD,
                         balloon_device("{'min-size': 134217729}"));
    balloon_assert_error(qts, "GenericError",
                         "min-size, 9223372036854775807 bytes, is more than"
                         " the machine's memory, 134217728 bytes",
                         BALLOON_DEVICE_ADD,
                         balloon_device("{'min-size': 9223372036854775807}"));
    balloon_assert_none(qts);
    qtest_qmp_assert_success(qts, BALLOON_DEVICE_ADD,
                             balloon_device("{'min-size': 134217728}"));
    balloon_set_target(qts, RAM);
    qtest_quit(qts);
}

/* The whole of what an HMP command says, on one line */
static void assert_says(BalloonDriver *d, const char *command,
                        const char *text)
{
    g_autofree char *said = qtest_hmp(d->qts, "%s", command);

    g_strdelimit(said, "\r", ' ');
    if (!strstr(said, text)) {
        g_error("'%s' does not say '%s' but: %s", command, text, said);
    }
}

static void assert_shows(BalloonDriver *d, const char *text)
{
    assert_says(d, "info balloon -v", text);
}

static void assert_never_shows(BalloonDriver *d, const char *text)
{
    g_autofree char *said = qtest_hmp(d->qts, "info balloon -v");

    g_assert_null(strstr(said, text));
}

/* A target that cannot be says which can */
static void hmp_range(BalloonDriver *d)
{
    assert_says(d, "balloon 0", "The guest can be left with more than 0 B,"
                " up to 128 MiB.");
}

static void hmp_limited_range(BalloonDriver *d)
{
    balloon_assert_hmp(d->qts, "balloon 0",
                       "Error: Parameter 'value' expects a size");
    assert_says(d, "balloon 0", "The guest can be left with 64 MiB to"
                " 128 MiB.");
    balloon_assert_hmp(d->qts, "balloon 63", "Error: 66060288" REFUSAL);
    assert_says(d, "balloon 63", "64 MiB to 128 MiB.");
    balloon_assert_hmp(d->qts, "balloon 64", "");
}

/* For a person: what is so, and nothing of what is not */
static void hmp_info(BalloonDriver *d)
{
    assert_shows(d, "state: no-driver");
    balloon_start(d, BALLOON_ALL_FEATURES);
    assert_never_shows(d, "not given back");
    assert_never_shows(d, "waiting");
    balloon_set_target(d->qts, 96 * MiB);
    balloon_inflate(d, AREA, MiB);
    balloon_send_pfns(d, INFLATE, (uint32_t[]) { 0xffffffff }, 1);
    set_actual(d, 257);
    assert_shows(d, "target: 96 MiB");
    assert_shows(d, "state: inflating");
    assert_shows(d, "free page reporting: on");
    assert_shows(d, "free page hinting: off");
    assert_shows(d, "given back to the host: 1 MiB (system calls: 1)");
    assert_shows(d, "not given back: 4 KiB, not the machine's memory");
    assert_never_shows(d, "refused");
}

/*
 * Who reads actual and BALLOON_CHANGE alone sees what he always saw.  Scripts
 * take one line apart, and tools the first number of the answer for the size.
 */
static void as_ever(BalloonDriver *d)
{
    const int64_t actual = RAM - 257 * BALLOON_PAGE;
    g_autofree char *said = NULL;
    g_autoptr(GString) text = NULL;
    QDict *info;
    size_t at;

    balloon_set_target(d->qts, 96 * MiB);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 257);
    g_assert_cmpint(balloon_next_change(d->qts), ==, actual);
    said = qtest_hmp(d->qts, "info balloon");
    g_assert_cmpstr(said, ==, "balloon: actual=126\r\n");
    info = balloon_info(d->qts);
    g_assert_cmpint(qdict_get_int(info, "actual"), ==, actual);
    text = qobject_to_json(QOBJECT(info));
    at = strcspn(text->str, "0123456789");
    g_assert_cmpint(g_ascii_strtoll(text->str + at, NULL, 10), ==, actual);
    qobject_unref(info);
}

/* Who wants stable interfaces only has all but the counters */
static void stable(BalloonDriver *d)
{
    QDict *info;

    balloon_boot_and_start(d);
    info = balloon_info(d->qts);
    g_assert_cmpstr(qdict_get_str(info, "state"), ==, "reached");
    g_assert_cmpint(qdict_get_int(info, "target"), ==, RAM);
    g_assert_false(qdict_haskey(info, "counters"));
    qobject_unref(info);
    balloon_quit(d);
}

static const BalloonTest tests[] = {
    { "state/no-driver", no_driver, .unstarted = true },
    { "state/broken/inflate", broken, REPORTING, NULL,
      GINT_TO_POINTER(INFLATE) },
    { "state/broken/deflate", broken, REPORTING, NULL,
      GINT_TO_POINTER(DEFLATE) },
    { "state/broken/stats", broken, REPORTING, NULL, GINT_TO_POINTER(STATS) },
    { "state/broken/report", broken, REPORTING, NULL,
      GINT_TO_POINTER(REPORT) },
    { "state/near", near },
    { "state/near-event", near_event },
    { "state/directions", directions },
    { "state/target", target },
    { "state/stalled", stalled },
    { "state/stop-cont", stop_cont },
    { "state/migration", migration },
    { "state/unplug", unplug },
    { "state/features", features, ALL_QUEUES, .unstarted = true },
    { "state/events", events },
    { "limits/min-size", min_size, LIMITED },
    { "limits/hmp-range/none", hmp_range },
    { "limits/hmp-range/min-size", hmp_limited_range, LIMITED },
    { "limits/hmp-info", hmp_info, REPORTING, .unstarted = true },
    { "limits/as-ever", as_ever, LIMITED },
    { "limits/large-min-size", large_min_size, .bare = true },
    { "limits/stable", stable, LIMITED, MEMORY "-compat unstable-output=hide",
      .bare = true },
};

BALLOON_TESTS("manage/", NULL, tests)
