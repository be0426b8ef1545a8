/*
 * query-balloon-stats: steps that several tests take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-fresh-stats.h"

#define STATS BALLOON_VQ_STATS

void fresh_start_with(BalloonDriver *d, const char *options)
{
    balloon_boot(d, NULL, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

void fresh_start(BalloonDriver *d)
{
    fresh_start_with(d, "-m 128");
}

BalloonSeg fresh_seg(BalloonDriver *d, const BalloonStat *stats, unsigned n)
{
    g_autofree struct virtio_balloon_stat *wire =
        g_new(struct virtio_balloon_stat, n);

    for (unsigned i = 0; i < n; i++) {
        wire[i].tag = balloon_wire16(d, stats[i].tag);
        wire[i].val = balloon_wire64(d, stats[i].value);
    }
    return (BalloonSeg) { balloon_copy(d, wire, n * sizeof(*wire)),
                          n * sizeof(*wire) };
}

uint32_t fresh_leave(BalloonDriver *d, const BalloonStat *stats, unsigned n)
{
    BalloonSeg seg = fresh_seg(d, stats, n);

    return balloon_post(d, STATS, &seg, 1);
}

uint32_t fresh_leave_free(BalloonDriver *d, uint64_t value)
{
    return fresh_leave(d, &(BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, value },
                       1);
}

void fresh_ask(BalloonDriver *d, int timeout_ms)
{
    qtest_qmp_send(d->qts, "{'execute': 'query-balloon-stats',"
                   " 'arguments': {'timeout': %d}}", timeout_ms);
}

void fresh_ask_and_wait(BalloonDriver *d, uint32_t held)
{
    fresh_ask(d, FRESH_LONG_MS);
    balloon_wait_served(d, STATS, held);
}

void fresh_start_tracing(BalloonDriver *d, char **log)
{
    g_autofree char *options = NULL;
    int fd = g_file_open_tmp("virtio-balloon-XXXXXX", log, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    options = g_strdup_printf("-m 128 -trace virtio_balloon_query -D %s",
                              *log);
    fresh_start_with(d, options);
}

static bool log_says(const char *log, const char *what)
{
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    return strstr(text, what);
}

void fresh_ask_traced(BalloonDriver *d, const char *log)
{
    fresh_ask(d, FRESH_LONG_MS);
    balloon_wait_for(log_says(log, "virtio_balloon_query "));
}

QDict *fresh_answer(BalloonDriver *d)
{
    QDict *response = qtest_qmp_receive(d->qts);
    QDict *stats = qdict_get_qdict(response, "return");

    g_assert_nonnull(stats);
    qobject_ref(stats);
    qobject_unref(response);
    g_assert_cmpint(qdict_get_int(stats, "age"), >=, 0);
    g_assert_cmpint(qdict_get_int(stats, "age"), <, FRESH_LONG_MS);
    return stats;
}

void fresh_assert_answer(BalloonDriver *d, uint64_t value)
{
    QDict *stats = fresh_answer(d);

    g_assert_cmpuint(qdict_size(stats), ==, 2);
    g_assert_cmpuint(qdict_get_int(stats, "free-memory"), ==, value);
    qobject_unref(stats);
}

void fresh_assert_no_values(BalloonDriver *d)
{
    QDict *stats = fresh_answer(d);

    g_assert_cmpuint(qdict_size(stats), ==, 1);
    qobject_unref(stats);
}

void fresh_assert_error(BalloonDriver *d, const char *class,
                        const char *desc)
{
    QDict *response = qtest_qmp_receive(d->qts);
    QDict *error = qdict_get_qdict(response, "error");

    g_assert_nonnull(error);
    g_assert_cmpstr(qdict_get_str(error, "class"), ==, class);
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==, desc);
    qobject_unref(response);
}

void fresh_assert_fails(BalloonDriver *d, int timeout_ms, const char *class,
                        const char *desc)
{
    fresh_ask(d, timeout_ms);
    fresh_assert_error(d, class, desc);
}
