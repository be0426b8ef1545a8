/*
 * The limits of the virtio balloon, and what people read of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qjson.h"
#include "virtio-balloon-manage.h"

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

static const char *const device_add =
    "{'execute': 'device_add', 'arguments': {'driver': 'virtio-balloon-pci',"
    " 'id': 'balloon0', 'addr': '4', 'min-size': %" PRId64 "}}";

/* More than there is cannot be had; as much as there is can */
static void large_min_size(void)
{
    QTestState *qts = qtest_init(MEMORY);

    balloon_assert_error(qts, "GenericError",
                         "min-size, 134217729 bytes, is more than the"
                         " machine's memory, 134217728 bytes",
                         device_add, RAM + 1);
    balloon_assert_error(qts, "GenericError",
                         "min-size, 9223372036854775807 bytes, is more than"
                         " the machine's memory, 134217728 bytes",
                         device_add, INT64_MAX);
    balloon_assert_error(qts, "DeviceNotActive",
                         "No balloon device has been activated",
                         "{'execute': 'query-balloon'}");
    qtest_qmp_assert_success(qts, device_add, RAM);
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
    balloon_send_pfns(d, BALLOON_VQ_INFLATE, (uint32_t[]) { 0xffffffff }, 1);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 257);
    balloon_assert_hmp(d->qts, "info balloon", "balloon: actual=126");
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
static void stable(void)
{
    BalloonDriver d;
    QDict *info;

    balloon_boot_and_start(&d, LIMITED,
                           MEMORY " -compat unstable-output=hide");
    info = balloon_info(d.qts);
    g_assert_cmpstr(qdict_get_str(info, "state"), ==, "reached");
    g_assert_cmpint(qdict_get_int(info, "target"), ==, RAM);
    g_assert_false(qdict_haskey(info, "counters"));
    qobject_unref(info);
    balloon_quit(&d);
}

static const BalloonCase cases[] = {
    { "limits/min-size", min_size, LIMITED },
    { "limits/hmp-range/none", hmp_range },
    { "limits/hmp-range/min-size", hmp_limited_range, LIMITED },
    { "limits/hmp-info", hmp_info, REPORTING, .no_driver = true },
    { "limits/as-ever", as_ever, LIMITED },
};

void balloon_add_limit_tests(void)
{
    balloon_add_cases(BALLOON_MANAGE, cases, ARRAY_SIZE(cases));
    qtest_add_func(BALLOON_MANAGE "limits/large-min-size", large_min_size);
    qtest_add_func(BALLOON_MANAGE "limits/stable", stable);
}
