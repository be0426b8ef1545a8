/*
 * What query-balloon says of a virtio balloon, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-info.h"

static const char *const causes[] = {
    "repeated", "taken-back", "not-ram", "partial", "inhibited", "poison",
    "unsupported", "refused",
};

QDict *balloon_info(QTestState *qts)
{
    return qtest_qmp_assert_success_ref(qts, "{'execute': 'query-balloon'}");
}

uint64_t balloon_target(QTestState *qts)
{
    QDict *info = balloon_info(qts);
    uint64_t target = qdict_get_int(info, "target");

    qobject_unref(info);
    return target;
}

static uint64_t counter_of(QTestState *qts, const char *part,
                           const char *name)
{
    QDict *info = balloon_info(qts);
    QDict *counters = qdict_get_qdict(info, "counters");
    uint64_t value = qdict_get_int(part ? qdict_get_qdict(counters, part) :
                                          counters, name);

    qobject_unref(info);
    return value;
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

void balloon_wait_discarded(QTestState *qts)
{
    balloon_wait_for(!balloon_counter(qts, "waiting"));
}

void balloon_assert_state(QTestState *qts, const char *state,
                          const char *inhibitor)
{
    QDict *info = balloon_info(qts);

    g_assert_cmpstr(qdict_get_str(info, "state"), ==, state);
    g_assert_cmpstr(qdict_get_try_str(info, "inhibited-by"), ==, inhibitor);
    qobject_unref(info);
}

uint64_t balloon_assert_sum(QTestState *qts)
{
    QDict *info = balloon_info(qts);
    QDict *counters = qdict_get_qdict(info, "counters");
    QDict *skipped = qdict_get_qdict(counters, "skipped");
    uint64_t given = qdict_get_int(counters, "inflated") +
                     qdict_get_int(counters, "reported") +
                     qdict_get_int(counters, "revived");
    uint64_t explained = qdict_get_int(counters, "discarded") +
                         qdict_get_int(counters, "waiting");

    g_assert_cmpuint(qdict_size(skipped), ==, ARRAY_SIZE(causes));
    for (int i = 0; i < ARRAY_SIZE(causes); i++) {
        explained += qdict_get_int(skipped, causes[i]);
    }
    g_assert_cmpuint(explained, ==, given);
    qobject_unref(info);
    return given;
}

void balloon_assert_all_skipped(QTestState *qts, const char *cause,
                                uint64_t size)
{
    g_assert_cmpuint(balloon_assert_sum(qts), ==, size);
    g_assert_cmpuint(balloon_skipped(qts, cause), ==, size);
}

static QDict *next_event(QTestState *qts)
{
    /* The answer to a command comes after all events before it */
    qtest_qmp_assert_success(qts, "{'execute': 'query-status'}");
    return qtest_qmp_event_ref(qts, "BALLOON_STATE_CHANGE");
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
    QDict *event = next_event(qts);

    g_assert_nonnull(event);
    assert_event_is(event, state, inhibitor);
}

void balloon_wait_event(QTestState *qts, const char *state,
                        const char *inhibitor)
{
    assert_event_is(qtest_qmp_eventwait_ref(qts, "BALLOON_STATE_CHANGE"),
                    state, inhibitor);
}

void balloon_assert_no_event(QTestState *qts)
{
    g_assert_null(next_event(qts));
}
