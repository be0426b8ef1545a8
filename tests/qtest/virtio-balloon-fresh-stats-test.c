/*
 * request-balloon-stats and query-balloon-stats: a guest that answers, sooner
 * or later, one that does not, and what is said then
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/sockets.h"
#include "virtio-balloon-manage.h"

#define STATS BALLOON_VQ_STATS
#define REQUEST "{'execute': 'request-balloon-stats'}"

typedef struct BalloonStat {
    uint16_t tag;
    uint64_t value;
} BalloonStat;

/* Statistics in guest memory */
static BalloonSeg make_seg(BalloonDriver *d, const BalloonStat *stats,
                           unsigned n)
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

/* ... and in a buffer that is left */
static uint32_t leave(BalloonDriver *d, const BalloonStat *stats, unsigned n)
{
    BalloonSeg seg = make_seg(d, stats, n);

    return balloon_post(d, STATS, &seg, 1);
}

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

static QDict *event_data(QDict *event)
{
    QDict *data = qdict_get_qdict(event, "data");

    /* QMP leaves empty data out */
    data = data ? qobject_ref(data) : qdict_new();
    qobject_unref(event);
    return data;
}

/*
 * The data of the next BALLOON_STATS, which is waited for; the caller unrefs
 * it.  The clock is stepped first, so that no event is held back any more.
 */
static QDict *next_event(BalloonDriver *d)
{
    qtest_clock_step(d->qts, SECOND);
    return event_data(qtest_qmp_eventwait_ref(d->qts, "BALLOON_STATS"));
}

/* It has @value for the free memory, and nothing else */
static void assert_event(BalloonDriver *d, uint64_t value)
{
    QDict *stats = next_event(d);

    g_assert_cmpuint(qdict_size(stats), ==, 1);
    g_assert_cmpuint(qdict_get_int(stats, "free-memory"), ==, value);
    qobject_unref(stats);
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
    /* The answer to a command comes after all events before it */
    qtest_qmp_assert_success(d->qts, "{'execute': 'query-status'}");
    g_assert_null(qtest_qmp_event_ref(d->qts, "BALLOON_STATS"));
}

/* The answer to query-balloon-stats; the caller unrefs it */
static QDict *query(BalloonDriver *d)
{
    return qtest_qmp_assert_success_ref(d->qts,
                                        "{'execute': 'query-balloon-stats'}");
}

/* When the guest was asked last, in milliseconds; -1 if never */
static int64_t asked_ago(BalloonDriver *d)
{
    QDict *info = query(d);
    int64_t ms = qdict_get_try_int(info, "asked-ago", -1);

    qobject_unref(info);
    return ms;
}

static bool is_pending(BalloonDriver *d)
{
    QDict *info = query(d);
    bool pending = qdict_get_bool(info, "pending");

    qobject_unref(info);
    return pending;
}

/* The guest said this of its free memory and nothing else, and owes nothing */
static void assert_known(BalloonDriver *d, uint64_t value)
{
    QDict *info = query(d);
    QDict *stats = qdict_get_qdict(info, "stats");

    g_assert_false(qdict_get_bool(info, "pending"));
    g_assert_true(qdict_haskey(info, "answered-ago"));
    g_assert_cmpuint(qdict_size(stats), ==, 1);
    g_assert_cmpuint(qdict_get_int(stats, "free-memory"), ==, value);
    qobject_unref(info);
}

/* The guest said nothing yet; it was asked or not */
static void assert_unknown(BalloonDriver *d, bool pending)
{
    QDict *info = query(d);

    g_assert_cmpint(qdict_get_bool(info, "pending"), ==, pending);
    g_assert_cmpint(qdict_haskey(info, "asked-ago"), ==, pending);
    g_assert_false(qdict_haskey(info, "answered-ago"));
    g_assert_false(qdict_haskey(info, "stats"));
    qobject_unref(info);
}

/* The members of the answer, by tag */
static const char *const names[VIRTIO_BALLOON_S_NR] = {
    "swap-in", "swap-out", "major-faults", "minor-faults", "free-memory",
    "total-memory", "available-memory", "disk-caches", "htlb-pgalloc",
    "htlb-pgfail", "oom-kills", "alloc-stalls", "async-scans", "direct-scans",
    "async-reclaims", "direct-reclaims",
};

#define VALUE(tag) (0x1122334455660000 + (tag))

static void assert_all(QDict *said)
{
    g_assert_cmpuint(qdict_size(said), ==, VIRTIO_BALLOON_S_NR);
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        g_assert_cmphex(qdict_get_int(said, names[i]), ==, VALUE(i));
    }
}

/* All tags: in the event, in the query, and in guest-stats */
static void all_tags(BalloonDriver *d)
{
    BalloonStat stats[VIRTIO_BALLOON_S_NR];
    QDict *said;

    request_served(d, answer(d, 1));
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        stats[i] = (BalloonStat) { i, VALUE(i) };
    }
    leave(d, stats, ARRAY_SIZE(stats));
    said = next_event(d);
    assert_all(said);
    qobject_unref(said);
    said = query(d);
    assert_all(qdict_get_qdict(said, "stats"));
    qobject_unref(said);
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        g_assert_cmphex(balloon_stat(d->qts, names[i]), ==, VALUE(i));
    }
    g_assert_cmpint(balloon_last_update(d->qts), >, 0);
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
    g_assert_cmpint(asked_ago(d), ==, -1);
    assert_known(d, 7);
}

/* Silent for long: visible, and asking again changes nothing; then late */
static void late(BalloonDriver *d)
{
    request_served(d, answer(d, 7));
    balloon_wait_for(asked_ago(d) >= 50);
    request(d);
    g_assert_cmpint(asked_ago(d), >=, 50);
    g_assert_true(is_pending(d));
    assert_no_event(d);
    g_assert_cmpuint(balloon_stat(d->qts, "free-memory"), ==, 7);

    request_served(d, answer(d, 8));
}

/* Two answers at once: the last one counts, and one buffer is held */
static void twice(BalloonDriver *d)
{
    uint32_t heads[2];

    request_served(d, answer(d, 7));
    balloon_free_descriptors(d, STATS);
    for (int i = 0; i < 2; i++) {
        BalloonStat stat = { VIRTIO_BALLOON_S_MEMFREE, 8 + i };
        BalloonSeg seg = make_seg(d, &stat, 1);

        heads[i] = balloon_add(d, STATS, &seg, 1);
        balloon_publish(d, STATS, heads[i]);
    }
    balloon_kick(d, STATS);
    balloon_wait_served(d, STATS, heads[0]);
    g_assert_false(balloon_has_used(d, STATS));
    assert_event(d, 9);
    assert_known(d, 9);
    request_served(d, heads[1]);
    answer(d, 10);
}

static void assert_no_values(BalloonDriver *d)
{
    QDict *stats = next_event(d);

    g_assert_cmpuint(qdict_size(stats), ==, 0);
    qobject_unref(stats);
    g_assert_false(is_pending(d));
}

/* Whatever a buffer holds, it is an answer */
static void nonsense(BalloonDriver *d)
{
    enum { MANY = 50000 };
    g_autofree BalloonStat *many = g_new(BalloonStat, MANY);
    BalloonStat unknown[] = { { 0xffff, 1 }, { VIRTIO_BALLOON_S_NR, 2 },
                              { VIRTIO_BALLOON_S_MEMFREE, UINT64_MAX } };
    BalloonSeg seg;
    uint32_t held;

    request_served(d, answer(d, 7));
    held = leave(d, unknown, ARRAY_SIZE(unknown));
    assert_no_values(d);

    /* less than an entry */
    request_served(d, held);
    seg = make_seg(d, &(BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, 1 }, 1);
    seg.len--;
    held = balloon_post(d, STATS, &seg, 1);
    assert_no_values(d);

    /* nothing to read */
    request_served(d, held);
    seg.write = true;
    held = balloon_post(d, STATS, &seg, 1);
    assert_no_values(d);

    request_served(d, held);
    for (int i = 0; i < MANY; i++) {
        many[i] = (BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, 42 };
    }
    leave(d, many, MANY);
    assert_event(d, 42);
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
    uint32_t held = answer(d, 7);

    balloon_set_interval(d->qts, 5);
    balloon_wait_served(d, STATS, held);
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

    balloon_case_move(d);
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
    balloon_case_move(d);
    assert_unknown(d, false);
    answer(d, 8);
}

/* QEMU ends whatever it is owed */
static void quit(void)
{
    BalloonDriver d;

    balloon_boot_and_start(&d, NULL, MEMORY);
    request_served(&d, answer(&d, 7));
    g_assert_true(is_pending(&d));
    qtest_qmp_assert_success(d.qts, "{'execute': 'quit'}");
    qtest_wait_qemu(d.qts);
    balloon_lose(&d);
    balloon_quit(&d);
}

#define SLOT 4

/* Where a PC resets, and panics */
#define KEYBOARD 0x64
#define KEYBOARD_RESET 0xfe
#define PANIC 0x505

/* Nobody there who could answer: said at once */
static void nobody(void)
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
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_stop(d);
    assert_refused_stopped(d);
    assert_unknown(d, false);
    balloon_cont(d);
    request_served(d, answer(d, 7));
}

/* A reset of the driver ends the question, one of the machine all of it */
static void reset(BalloonDriver *d)
{
    request_served(d, balloon_post_stats_value(d, 7));
    balloon_reset(d);
    assert_event(d, 7);
    assert_known(d, 7);
    g_assert_cmpint(asked_ago(d), >=, 0);
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
        qtest_qmp_device_add(d->qts, "virtio-balloon-pci", "balloon0",
                             "{'addr': %s}", stringify(SLOT));
        assert_unknown(d, false);
        balloon_find(d, SLOT);
        balloon_start(d, BALLOON_ALL_FEATURES);
    }
}

/* What the guest said before its machine stopped is known all the same */
static void stopped(BalloonDriver *d)
{
    uint32_t held = answer(d, 7);

    assert_known(d, 7);
    request_served(d, held);
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
static void second_monitor(void)
{
    g_autofree char *path = g_strdup_printf("%s/virtio-balloon-%d.sock",
                                            g_get_tmp_dir(), getpid());
    g_autofree char *options =
        g_strdup_printf(MEMORY " -qmp unix:%s,server=on,wait=off", path);
    BalloonDriver d;
    FILE *monitor;
    uint32_t held;

    balloon_boot_and_start(&d, NULL, options);
    held = answer(&d, 7);
    monitor = fdopen(unix_connect(path, &error_abort), "r");
    execute(monitor, "qmp_capabilities");
    execute(monitor, "request-balloon-stats");
    balloon_wait_served(&d, STATS, held);
    for (int i = 0; i < 1000; i++) {
        request(&d);
        execute(monitor, "query-status");
    }
    fclose(monitor);
    g_assert_true(is_pending(&d));
    answer(&d, 8);
    assert_known(&d, 8);
    balloon_quit(&d);
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

static const BalloonCase cases[] = {
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
    { "stats/no-driver", no_driver, .no_driver = true },
    { "stats/reset", reset },
    { "stats/unplug", unplug },
    { "stats/stopped", stopped, NULL,
      MEMORY " -device pvpanic -action panic=pause" },
    { "stats/hmp", hmp },
};

void balloon_add_stats_tests(void)
{
    balloon_add_cases(BALLOON_MANAGE, cases, ARRAY_SIZE(cases));
    qtest_add_func(BALLOON_MANAGE "stats/quit", quit);
    qtest_add_func(BALLOON_MANAGE "stats/nobody", nobody);
    qtest_add_func(BALLOON_MANAGE "stats/second-monitor", second_monitor);
}
