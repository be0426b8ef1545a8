/*
 * request-balloon-stats and query-balloon-stats: a guest that answers, sooner
 * or later, one that does not, and what is said then
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/sockets.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"
#include "virtio-balloon-migrate.h"

#define REQUEST "{'execute': 'request-balloon-stats'}"

/* Ask the guest, which must be possible */
static void request(BalloonDriver *d)
{
    qtest_qmp_assert_success(d->qts, REQUEST);
}

/* ... and wait until the driver has its buffer @held back */
static void request_served(BalloonDriver *d, uint32_t held)
{
    request(d);
    balloon_wait_served(d, STATS, held);
}

/* Ask, and be told at once why there is no answer */
static void assert_refused(BalloonDriver *d, const char *desc)
{
    balloon_assert_error(d->qts, "GenericError", desc, REQUEST);
}

static void assert_refused_stopped(BalloonDriver *d)
{
    assert_refused(d, "The machine is stopped, so the guest cannot give"
                   " statistics");
}

/*
 * The data of the next BALLOON_STATS, which is waited for; the caller unrefs
 * it.  The clock is stepped first, so that no event is held back any more.
 */
static QDict *next_event(BalloonDriver *d)
{
    QDict *event, *data;

    qtest_clock_step(d->qts, SECOND);
    event = qtest_qmp_eventwait_ref(d->qts, "BALLOON_STATS");
    data = qdict_get_qdict(event, "data");
    /* QMP leaves empty data out */
    data = data ? qobject_ref(data) : qdict_new();
    qobject_unref(event);
    return data;
}

/* It has @value for the free memory, and nothing else */
static void assert_event(BalloonDriver *d, uint64_t value)
{
    g_autoptr(QDict) stats = next_event(d);

    g_assert_cmpuint(qdict_size(stats), ==, 1);
    g_assert_cmpuint(qdict_get_int(stats, "free-memory"), ==, value);
}

/* Leave a buffer with the free memory alone, which an event tells then */
static uint32_t answer(BalloonDriver *d, uint64_t value)
{
    uint32_t head = balloon_post_stats_value(d, value);

    assert_event(d, value);
    return head;
}

/* Nothing is waited for: so far there is none */
static void assert_no_event(BalloonDriver *d)
{
    qtest_clock_step(d->qts, SECOND);
    g_assert_null(balloon_next_event(d->qts, "BALLOON_STATS"));
}

/* The answer to query-balloon-stats; the caller unrefs it */
static QDict *query(BalloonDriver *d)
{
    return qtest_qmp_assert_success_ref(d->qts,
                                        "{'execute': 'query-balloon-stats'}");
}

/* "asked-ago" or "answered-ago", in milliseconds; -1 if never */
static int64_t ago(BalloonDriver *d, const char *name)
{
    g_autoptr(QDict) info = query(d);

    return qdict_get_try_int(info, name, -1);
}

static bool is_pending(BalloonDriver *d)
{
    g_autoptr(QDict) info = query(d);

    return qdict_get_bool(info, "pending");
}

/* The guest said this of its free memory and nothing else, and owes nothing */
static void assert_known(BalloonDriver *d, uint64_t value)
{
    g_autoptr(QDict) info = query(d);
    QDict *stats = qdict_get_qdict(info, "stats");

    g_assert_false(qdict_get_bool(info, "pending"));
    g_assert_true(qdict_haskey(info, "answered-ago"));
    g_assert_cmpuint(qdict_size(stats), ==, 1);
    g_assert_cmpuint(qdict_get_int(stats, "free-memory"), ==, value);
}

/* The guest said nothing yet; it was asked or not */
static void assert_unknown(BalloonDriver *d, bool pending)
{
    g_autoptr(QDict) info = query(d);

    g_assert_cmpint(qdict_get_bool(info, "pending"), ==, pending);
    g_assert_cmpint(qdict_haskey(info, "asked-ago"), ==, pending);
    g_assert_false(qdict_haskey(info, "answered-ago"));
    g_assert_false(qdict_haskey(info, "stats"));
}

#define VALUE(tag) (0x1122334455660000 + (tag))

static void assert_all(QDict *said)
{
    g_assert_cmpuint(qdict_size(said), ==, VIRTIO_BALLOON_S_NR);
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        g_assert_cmphex(qdict_get_int(said, balloon_stat_names[i]), ==,
                        VALUE(i));
    }
}

/* All tags: in the event, and in the query */
static void all_tags(BalloonDriver *d)
{
    BalloonStat stats[VIRTIO_BALLOON_S_NR];
    BalloonSeg seg;
    QDict *said;

    request_served(d, answer(d, 1));
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        stats[i] = (BalloonStat) { i, VALUE(i) };
    }
    seg = balloon_copy_stats(d, stats, ARRAY_SIZE(stats));
    balloon_post(d, STATS, &seg, 1);
    said = next_event(d);
    assert_all(said);
    qobject_unref(said);
    said = query(d);
    assert_all(qdict_get_qdict(said, "stats"));
    qobject_unref(said);
}

/* A driver that has not left a buffer yet, and then one at each question */
static void first_buffer(BalloonDriver *d)
{
    uint32_t held;

    assert_unknown(d, false);
    request(d);
    assert_unknown(d, true);
    held = answer(d, 7);
    assert_known(d, 7);
    for (int i = 1; i < 20; i++) {
        request_served(d, held);
        g_assert_true(is_pending(d));
        held = answer(d, i);
        assert_known(d, i);
        g_assert_false(balloon_has_used(d, STATS));
    }
}

/* What the driver says when it starts is told, though nobody asked */
static void unasked(BalloonDriver *d)
{
    answer(d, 7);
    g_assert_cmpint(ago(d, "asked-ago"), ==, -1);
    assert_known(d, 7);
}

/* Silent for long: visible, and asking again changes nothing; then late */
static void late(BalloonDriver *d)
{
    request_served(d, answer(d, 7));
    balloon_wait_for(ago(d, "asked-ago") >= 50);
    request(d);
    g_assert_cmpint(ago(d, "asked-ago"), >=, 50);
    /* That was before it was asked */
    g_assert_cmpint(ago(d, "answered-ago"), >=, 50);
    g_assert_true(is_pending(d));
    assert_no_event(d);
    g_assert_cmpuint(balloon_stat(d->qts, "free-memory"), ==, 7);

    request_served(d, answer(d, 8));
}

/* Two answers at once: the last one counts, and one buffer is held */
static void twice(BalloonDriver *d)
{
    request_served(d, answer(d, 7));
    balloon_free_descriptors(d, STATS);
    for (int i = 0; i < 2; i++) {
        BalloonSeg seg = balloon_stats_seg(d, 8 + i);

        balloon_publish(d, STATS, balloon_add(d, STATS, &seg, 1));
    }
    balloon_kick(d, STATS);
    balloon_wait_served(d, STATS, 0);
    g_assert_false(balloon_has_used(d, STATS));
    assert_event(d, 9);
    assert_known(d, 9);
    request_served(d, 1);
    answer(d, 10);
}

/*
 * Whatever a buffer holds, it is an answer: of tags that nobody knows, of less
 * than an entry, of nothing to read
 */
static void nonsense(BalloonDriver *d)
{
    BalloonStat unknown[] = { { 0xffff, 1 }, { VIRTIO_BALLOON_S_NR, 2 },
                              { VIRTIO_BALLOON_S_MEMFREE, UINT64_MAX } };
    BalloonSeg segs[] = {
        balloon_copy_stats(d, unknown, ARRAY_SIZE(unknown)),
        balloon_stats_seg(d, 1),
        balloon_stats_seg(d, 1),
    };
    uint32_t held = answer(d, 7);

    segs[1].len--;
    segs[2].write = true;
    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        QDict *stats;

        request_served(d, held);
        held = balloon_post(d, STATS, &segs[i], 1);
        stats = next_event(d);
        g_assert_cmpuint(qdict_size(stats), ==, 0);
        qobject_unref(stats);
        g_assert_false(is_pending(d));
    }
}

/* A guest that answers very often is told once a second, and the last counts */
static void rate(BalloonDriver *d)
{
    uint32_t held = answer(d, 100);

    qtest_clock_step(d->qts, SECOND);
    for (int i = 0; i < 50; i++) {
        request_served(d, held);
        held = balloon_leave_stats(d, i);
    }
    assert_event(d, 0);
    assert_event(d, 49);
    assert_no_event(d);
}

/* What polling brings is told, too, and asking does not change when it asks */
static void polling(BalloonDriver *d)
{
    uint32_t held;

    balloon_begin_polling(d, 5, answer(d, 7));
    g_assert_true(is_pending(d));
    request(d);
    held = answer(d, 8);
    g_assert_false(balloon_has_used(d, STATS));
    qtest_clock_step(d->qts, 4 * SECOND);
    balloon_wait_served(d, STATS, held);
    answer(d, 9);
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 5);
}

/* After a migration the buffer that the source held is the one to return */
static void migrated(BalloonDriver *d)
{
    uint32_t held = answer(d, 7);

    balloon_move(d);
    assert_unknown(d, false);
    request_served(d, held);
    answer(d, 8);
    assert_known(d, 8);
}

/* Asked before the machine is saved, a guest answers where it is loaded */
static void saved(BalloonDriver *d)
{
    request_served(d, answer(d, 7));
    balloon_stop(d);
    g_assert_true(is_pending(d));
    assert_refused_stopped(d);
    balloon_move(d);
    assert_unknown(d, false);
    answer(d, 8);
}

/* QEMU ends whatever it is owed */
static void quit(BalloonDriver *d)
{
    request_served(d, answer(d, 7));
    g_assert_true(is_pending(d));
    qtest_qmp_assert_success(d->qts, "{'execute': 'quit'}");
    qtest_wait_qemu(d->qts);
    balloon_lose(d);
}

/* Where a PC resets, and panics */
#define KEYBOARD 0x64
#define KEYBOARD_RESET 0xfe
#define PANIC 0x505

/* Nobody there who could answer: said at once */
static void nobody(BalloonDriver *d)
{
    static const char *const commands[] = {
        "query-balloon-stats", "request-balloon-stats",
    };
    QTestState *qts = qtest_init(MEMORY);

    for (int i = 0; i < ARRAY_SIZE(commands); i++) {
        balloon_assert_error(qts, "DeviceNotActive",
                             "No balloon device has been activated",
                             "{'execute': %s}", commands[i]);
    }
    qtest_quit(qts);
}

static void no_driver(BalloonDriver *d)
{
    assert_refused(d, "The guest has no driver running for its balloon");
    assert_unknown(d, false);
    balloon_start(d, 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
    assert_refused(d, "The guest's balloon driver does not give"
                   " statistics");
    balloon_restart(d);
    balloon_stop(d);
    assert_refused_stopped(d);
    assert_unknown(d, false);
    balloon_cont(d);
    request_served(d, answer(d, 7));
}

/* What broke the device has to be mended first */
static void broken(BalloonDriver *d)
{
    BalloonSeg empty = { balloon_alloc(d, 4, 0), 0 };

    answer(d, 7);
    balloon_post(d, INFLATE, &empty, 1);
    balloon_wait_broken(d);
    assert_refused(d, "The guest's balloon driver broke the rules of its"
                   " queues, and has to reset the device first");
    balloon_restart(d);
    request_served(d, answer(d, 8));
}

/* A reset of the driver ends the question, one of the machine all of it */
static void reset(BalloonDriver *d)
{
    request_served(d, balloon_post_stats_value(d, 7));
    balloon_reset(d);
    assert_event(d, 7);
    assert_known(d, 7);
    g_assert_cmpint(ago(d, "asked-ago"), >=, 0);
    balloon_start(d, BALLOON_ALL_FEATURES);
    request_served(d, answer(d, 8));
    qtest_outb(d->qts, KEYBOARD, KEYBOARD_RESET);
    qtest_qmp_eventwait(d->qts, "RESET");
    assert_unknown(d, false);
}

/* The answer will never come, and the next balloon knows nothing of it */
static void unplug(BalloonDriver *d)
{
    for (int i = 0; i < 2; i++) {
        uint32_t held = answer(d, 7);

        qtest_qmp_device_del_send(d->qts, "balloon0");
        request_served(d, held);
        balloon_eject(d);
        balloon_plug(d, "{}");
        assert_unknown(d, false);
        balloon_start(d, BALLOON_ALL_FEATURES);
    }
}

/* A machine that panicked owes its answer, and cannot be asked again */
static void stopped(BalloonDriver *d)
{
    request_served(d, answer(d, 7));
    qtest_outb(d->qts, PANIC, 1);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
    g_assert_true(is_pending(d));
    assert_refused_stopped(d);
}

/* On a monitor: have @command executed; it must be answered with success */
static void execute(FILE *monitor, const char *command)
{
    char line[4096];

    g_assert_cmpint(dprintf(fileno(monitor), "{'execute': '%s'}\n", command),
                    >, 0);
    do {
        g_assert_nonnull(fgets(line, sizeof(line), monitor));
        g_assert_null(strstr(line, "\"error\""));
    } while (!strstr(line, "\"return\""));
}

/*
 * A guest that never answers holds up nobody, on this monitor or another.  Who
 * asked goes away then, and others hear of the answer.
 */
static void second_monitor(BalloonDriver *d)
{
    uint32_t held = answer(d, 7);
    FILE *monitor = fdopen(unix_connect(balloon_file("monitor"), &error_abort),
                           "r");

    execute(monitor, "qmp_capabilities");
    execute(monitor, "request-balloon-stats");
    balloon_wait_served(d, STATS, held);
    for (int i = 0; i < 1000; i++) {
        request(d);
        execute(monitor, "query-status");
    }
    fclose(monitor);
    g_assert_true(is_pending(d));
    answer(d, 8);
    assert_known(d, 8);
}

/* A person sees what the guest said last, and that it owes an answer */
static void hmp(BalloonDriver *d)
{
    uint32_t held = answer(d, 64 * MiB);
    g_autofree char *known = qtest_hmp(d->qts, "info balloon -v");
    g_autofree char *pending = NULL;

    g_assert_nonnull(strstr(known, " s old, free 64 MiB\r\n"));
    g_assert_null(strstr(known, "no answer yet"));
    request_served(d, held);
    pending = qtest_hmp(d->qts, "info balloon -v");
    g_assert_nonnull(strstr(pending, " s ago, no answer yet\r\n"));
}

static const BalloonTest tests[] = {
    { "stats/all-tags", all_tags },
    { "stats/first-buffer", first_buffer },
    { "stats/unasked", unasked },
    { "stats/late", late },
    { "stats/twice", twice },
    { "stats/nonsense", nonsense },
    { "stats/rate", rate },
    { "stats/polling", polling },
    { "stats/migrated", migrated },
    { "stats/saved", saved },
    { "stats/no-driver", no_driver, .unstarted = true },
    { "stats/broken", broken },
    { "stats/reset", reset },
    { "stats/unplug", unplug },
    { "stats/stopped", stopped, NULL,
      MEMORY "-device pvpanic -action panic=pause" },
    { "stats/hmp", hmp },
    { "stats/quit", quit },
    { "stats/second-monitor", second_monitor,
      .options = MEMORY "-qmp unix:$FILES/monitor,server=on,wait=off" },
    { "stats/nobody", nobody, .bare = true },
};

BALLOON_TESTS("manage/", NULL, tests)
