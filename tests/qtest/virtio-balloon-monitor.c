/*
 * The virtio balloon as management sees it, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-monitor.h"

bool balloon_vm_is_running(QTestState *qts)
{
    g_autoptr(QDict) status = qtest_qmp_assert_success_ref(
        qts, "{'execute': 'query-status'}");

    return qdict_get_bool(status, "running");
}

void balloon_set_target(QTestState *qts, int64_t bytes)
{
    qtest_qmp_assert_success(qts, "{'execute': 'balloon',"
                             " 'arguments': {'value': %" PRId64 "}}", bytes);
}

QDict *balloon_info(QTestState *qts)
{
    return qtest_qmp_assert_success_ref(qts, "{'execute': 'query-balloon'}");
}

int64_t balloon_query(QTestState *qts)
{
    g_autoptr(QDict) info = balloon_info(qts);

    return qdict_get_int(info, "actual");
}

QDict *balloon_next_event(QTestState *qts, const char *name)
{
    /* The answer to a command comes after all events before it */
    qtest_qmp_assert_success(qts, "{'execute': 'query-status'}");
    return qtest_qmp_event_ref(qts, name);
}

int64_t balloon_next_change(QTestState *qts)
{
    QDict *event = balloon_next_event(qts, "BALLOON_CHANGE");
    int64_t actual = -1;

    if (event) {
        actual = qdict_get_int(qdict_get_qdict(event, "data"), "actual");
        qobject_unref(event);
    }
    return actual;
}

void balloon_assert_error(QTestState *qts, const char *class, const char *desc,
                          const char *command, ...)
{
    va_list ap;
    QDict *error;

    va_start(ap, command);
    error = qtest_vqmp_assert_failure_ref(qts, command, ap);
    va_end(ap);
    g_assert_cmpstr(qdict_get_str(error, "class"), ==, class);
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==, desc);
    qobject_unref(error);
}

void balloon_assert_hmp(QTestState *qts, const char *command,
                        const char *answer)
{
    g_autofree char *said = qtest_hmp(qts, "%s", command);

    said[strcspn(said, "\r\n")] = '\0';
    g_assert_cmpstr(said, ==, answer);
}

void balloon_dump(QTestState *qts, const char *path)
{
    g_autofree char *protocol = g_strconcat("file:", path, NULL);

    qtest_qmp_assert_success(
        qts, "{'execute': 'dump-guest-memory', 'arguments':"
        " {'paging': false, 'protocol': %s}}", protocol);
}

void balloon_set_interval(QTestState *qts, int64_t seconds)
{
    qtest_qmp_assert_success(
        qts, "{'execute': 'qom-set', 'arguments': {'path': %s,"
        " 'property': 'guest-stats-polling-interval', 'value': %" PRId64 "}}",
        BALLOON_PATH, seconds);
}

const char *const balloon_stat_names[VIRTIO_BALLOON_S_NR] = {
    "swap-in", "swap-out", "major-faults", "minor-faults", "free-memory",
    "total-memory", "available-memory", "disk-caches", "htlb-pgalloc",
    "htlb-pgfail", "oom-kills", "alloc-stalls", "async-scans", "direct-scans",
    "async-reclaims", "direct-reclaims",
};

/* The value of a property; an error ends the test */
static QDict *qom_get(QTestState *qts, const char *path, const char *property)
{
    QDict *answer = qtest_qmp(qts, "{'execute': 'qom-get', 'arguments':"
                              " {'path': %s, 'property': %s}}",
                              path, property);

    g_assert(qdict_haskey(answer, "return"));
    return answer;
}

int64_t balloon_get_interval(QTestState *qts)
{
    g_autoptr(QDict) answer = qom_get(qts, BALLOON_PATH,
                                      "guest-stats-polling-interval");

    return qdict_get_int(answer, "return");
}

bool balloon_is_coordinated(QTestState *qts)
{
    return qtest_qom_get_bool(qts, BALLOON_PATH, "coordinated-discards");
}

uint64_t balloon_stat_at(QTestState *qts, const char *path, const char *name)
{
    g_autofree char *key = g_strconcat("stat-", name, NULL);
    g_autoptr(QDict) answer = qom_get(qts, path, "guest-stats");
    QDict *stats = qdict_get_qdict(qdict_get_qdict(answer, "return"), "stats");
    QObject *number;

    g_assert_nonnull(stats);
    number = qdict_get(stats, key);
    g_assert_nonnull(number);
    return qnum_get_uint(qobject_to(QNum, number));
}

uint64_t balloon_stat(QTestState *qts, const char *name)
{
    return balloon_stat_at(qts, BALLOON_PATH, name);
}

uint64_t balloon_free_memory(QTestState *qts)
{
    return balloon_stat(qts, "free-memory");
}

int64_t balloon_last_update(QTestState *qts)
{
    g_autoptr(QDict) answer = qom_get(qts, BALLOON_PATH, "guest-stats");

    return qdict_get_int(qdict_get_qdict(answer, "return"), "last-update");
}

static const char *const causes[] = {
    "repeated", "taken-back", "not-ram", "partial", "inhibited", "poison",
    "unsupported", "refused",
};

bool balloon_info_has(QTestState *qts, const char *name)
{
    g_autoptr(QDict) info = balloon_info(qts);

    return qdict_haskey(info, name);
}

uint64_t balloon_target(QTestState *qts)
{
    g_autoptr(QDict) info = balloon_info(qts);

    return qdict_get_int(info, "target");
}

static uint64_t counter_of(QTestState *qts, const char *part,
                           const char *name)
{
    g_autoptr(QDict) info = balloon_info(qts);
    QDict *counters = qdict_get_qdict(info, "counters");

    g_assert_nonnull(counters);
    return qdict_get_int(part ? qdict_get_qdict(counters, part) : counters,
                         name);
}

uint64_t balloon_counter(QTestState *qts, const char *name)
{
    return counter_of(qts, NULL, name);
}

uint64_t balloon_counter_pages(QTestState *qts, const char *name)
{
    return balloon_counter(qts, name) / BALLOON_PAGE;
}

uint64_t balloon_skipped(QTestState *qts, const char *cause)
{
    return counter_of(qts, "skipped", cause);
}

void balloon_assert_counter_stays(QTestState *qts, const char *name,
                                  uint64_t value)
{
    gint64 end = g_get_monotonic_time() + BALLOON_STAYS_US;

    do {
        g_assert_cmpuint(balloon_counter(qts, name), ==, value);
    } while (g_get_monotonic_time() < end);
}

void balloon_wait_discarded(QTestState *qts)
{
    balloon_wait_for(!balloon_counter(qts, "waiting"));
}

void balloon_assert_state(QTestState *qts, const char *state,
                          const char *inhibitor)
{
    g_autoptr(QDict) info = balloon_info(qts);

    g_assert_cmpstr(qdict_get_str(info, "state"), ==, state);
    g_assert_cmpstr(qdict_get_try_str(info, "inhibited-by"), ==, inhibitor);
}

uint64_t balloon_assert_sum(QTestState *qts)
{
    g_autoptr(QDict) info = balloon_info(qts);
    QDict *counters = qdict_get_qdict(info, "counters");
    QDict *skipped;
    uint64_t given, explained;

    g_assert_nonnull(counters);
    skipped = qdict_get_qdict(counters, "skipped");
    given = qdict_get_int(counters, "inflated") +
            qdict_get_int(counters, "reported") +
            qdict_get_int(counters, "revived");
    explained = qdict_get_int(counters, "discarded") +
                qdict_get_int(counters, "waiting");
    g_assert_cmpuint(qdict_size(skipped), ==, ARRAY_SIZE(causes));
    for (int i = 0; i < ARRAY_SIZE(causes); i++) {
        explained += qdict_get_int(skipped, causes[i]);
    }
    g_assert_cmpuint(explained, ==, given);
    return given;
}

void balloon_assert_all_skipped(QTestState *qts, const char *cause,
                                uint64_t size)
{
    g_assert_cmpuint(balloon_assert_sum(qts), ==, size);
    g_assert_cmpuint(balloon_skipped(qts, cause), ==, size);
}

bool balloon_is_held(QTestState *qts)
{
    return balloon_info_has(qts, "held");
}

void balloon_assert_held(QTestState *qts, uint64_t size, const char *error)
{
    g_autoptr(QDict) info = balloon_info(qts);
    QDict *held = qdict_get_qdict(info, "held");
    const char *why;

    g_assert_nonnull(held);
    g_assert_cmpuint(qdict_get_int(held, "size"), ==, size);
    why = qdict_get_try_str(held, "error");
    g_assert_nonnull(why);
    if (error) {
        g_assert_cmpstr(why, ==, error);
    }
}

/* Does the event say that memory waits, and for @error, if that is given? */
static bool event_is_held(QDict *event, const char *error)
{
    QDict *held = qdict_get_qdict(qdict_get_qdict(event, "data"), "held");
    const char *why = held ? qdict_get_try_str(held, "error") : NULL;

    return why && (!error || g_str_equal(why, error));
}

static bool event_is_not_held(QDict *event, const char *unused)
{
    return !qdict_haskey(qdict_get_qdict(event, "data"), "held");
}

bool balloon_was_held_told(QTestState *qts, const char *error)
{
    bool was = false;
    QDict *event;

    while (!was &&
           (event = balloon_next_event(qts, "BALLOON_STATE_CHANGE"))) {
        was = event_is_held(event, error);
        qobject_unref(event);
    }
    return was;
}

static void wait_event_that(QTestState *qts,
                            bool (*is)(QDict *event, const char *error),
                            const char *error)
{
    bool found = false;

    while (!found) {
        QDict *event = qtest_qmp_eventwait_ref(qts, "BALLOON_STATE_CHANGE");

        found = is(event, error);
        qobject_unref(event);
    }
    /* Of a second before this no event is kept back any more */
    qtest_clock_step(qts, 2 * NANOSECONDS_PER_SECOND);
}

void balloon_wait_held_event(QTestState *qts, const char *error)
{
    wait_event_that(qts, event_is_held, error);
}

void balloon_wait_not_held_event(QTestState *qts)
{
    wait_event_that(qts, event_is_not_held, NULL);
}

static void assert_event_is(QDict *event, const char *state,
                            const char *inhibitor)
{
    QDict *data = qdict_get_qdict(event, "data");

    g_assert_cmpstr(qdict_get_str(data, "state"), ==, state);
    g_assert_cmpstr(qdict_get_try_str(data, "inhibited-by"), ==, inhibitor);
    qobject_unref(event);
}

void balloon_assert_event(QTestState *qts, const char *state,
                          const char *inhibitor)
{
    QDict *event = balloon_next_event(qts, "BALLOON_STATE_CHANGE");

    g_assert_nonnull(event);
    assert_event_is(event, state, inhibitor);
}

void balloon_wait_event(QTestState *qts, const char *state,
                        const char *inhibitor)
{
    assert_event_is(qtest_qmp_eventwait_ref(qts, "BALLOON_STATE_CHANGE"),
                    state, inhibitor);
}

void balloon_look_for_event(QTestState *qts, const char *state,
                            const char *inhibitor)
{
    QDict *event;

    balloon_wait_for((qtest_clock_step(qts, 10 * NANOSECONDS_PER_SECOND),
                      event = balloon_next_event(qts,
                                                 "BALLOON_STATE_CHANGE")));
    assert_event_is(event, state, inhibitor);
}

void balloon_assert_no_event(QTestState *qts)
{
    g_assert_null(balloon_next_event(qts, "BALLOON_STATE_CHANGE"));
}
