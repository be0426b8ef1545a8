/*
 * The virtio balloon as management sees it, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "virtio-balloon-monitor.h"

bool balloon_vm_is_running(QTestState *qts)
{
    QDict *status = qtest_qmp_assert_success_ref(
        qts, "{'execute': 'query-status'}");
    bool running = qdict_get_bool(status, "running");

    qobject_unref(status);
    return running;
}

void balloon_set_target(QTestState *qts, int64_t bytes)
{
    qtest_qmp_assert_success(qts, "{'execute': 'balloon',"
                             " 'arguments': {'value': %" PRId64 "}}", bytes);
}

int64_t balloon_query(QTestState *qts)
{
    QDict *info = qtest_qmp_assert_success_ref(
        qts, "{'execute': 'query-balloon'}");
    int64_t actual = qdict_get_int(info, "actual");

    qobject_unref(info);
    return actual;
}

int64_t balloon_next_change(QTestState *qts)
{
    int64_t actual = -1;
    QDict *event;

    /* The answer to a command comes after all events before it */
    qtest_qmp_assert_success(qts, "{'execute': 'query-status'}");
    event = qtest_qmp_event_ref(qts, "BALLOON_CHANGE");
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

void balloon_set_interval(QTestState *qts, int64_t seconds)
{
    qtest_qmp_assert_success(
        qts, "{'execute': 'qom-set', 'arguments': {'path': %s,"
        " 'property': 'guest-stats-polling-interval', 'value': %" PRId64 "}}",
        BALLOON_PATH, seconds);
}

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
    QDict *answer = qom_get(qts, BALLOON_PATH, "guest-stats-polling-interval");
    int64_t seconds = qdict_get_int(answer, "return");

    qobject_unref(answer);
    return seconds;
}

bool balloon_is_coordinated(QTestState *qts)
{
    return qtest_qom_get_bool(qts, BALLOON_PATH, "coordinated-discards");
}

uint64_t balloon_stat_at(QTestState *qts, const char *path, const char *name)
{
    g_autofree char *key = g_strconcat("stat-", name, NULL);
    QDict *answer = qom_get(qts, path, "guest-stats");
    QDict *stats = qdict_get_qdict(qdict_get_qdict(answer, "return"), "stats");
    QObject *number;
    uint64_t value;

    g_assert_nonnull(stats);
    number = qdict_get(stats, key);
    g_assert_nonnull(number);
    value = qnum_get_uint(qobject_to(QNum, number));
    qobject_unref(answer);
    return value;
}

uint64_t balloon_stat(QTestState *qts, const char *name)
{
    return balloon_stat_at(qts, BALLOON_PATH, name);
}

int64_t balloon_last_update(QTestState *qts)
{
    QDict *answer = qom_get(qts, BALLOON_PATH, "guest-stats");
    int64_t seconds = qdict_get_int(qdict_get_qdict(answer, "return"),
                                "last-update");

    qobject_unref(answer);
    return seconds;
}
