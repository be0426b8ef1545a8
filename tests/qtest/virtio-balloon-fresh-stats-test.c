/*
 * query-balloon-stats: a guest that answers, sooner or later
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-balloon-fresh-stats.h"
#include "virtio-balloon-manage.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define STATS BALLOON_VQ_STATS

/* The members of the answer, by tag */
static const char *const names[VIRTIO_BALLOON_S_NR] = {
    "swap-in", "swap-out", "major-faults", "minor-faults", "free-memory",
    "total-memory", "available-memory", "disk-caches", "htlb-pgalloc",
    "htlb-pgfail", "oom-kills", "alloc-stalls", "async-scans", "direct-scans",
    "async-reclaims", "direct-reclaims",
};

/* All tags, and what guest-stats says afterwards */
static void all_tags(void)
{
    BalloonStat stats[VIRTIO_BALLOON_S_NR];
    BalloonDriver d;
    QDict *said;

    fresh_start(&d);
    fresh_ask_and_wait(&d, fresh_leave_free(&d, 1));
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        stats[i] = (BalloonStat) { i, 0x1122334455660000 + i };
    }
    fresh_leave(&d, stats, ARRAY_SIZE(stats));
    said = fresh_answer(&d);
    g_assert_cmpuint(qdict_size(said), ==, VIRTIO_BALLOON_S_NR + 1);
    for (int i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        g_assert_cmphex(qdict_get_int(said, names[i]), ==,
                        0x1122334455660000 + i);
        g_assert_cmphex(balloon_stat(d.qts, names[i]), ==,
                        0x1122334455660000 + i);
    }
    qobject_unref(said);
    g_assert_cmpint(balloon_last_update(d.qts), >, 0);
    balloon_quit(&d);
}

/* A driver that has not left a buffer yet, and then one at each question */
static void first_buffer(void)
{
    g_autofree char *log = NULL;
    BalloonDriver d;
    uint32_t held;

    fresh_start_tracing(&d, &log);
    fresh_ask_traced(&d, log);
    held = fresh_leave_free(&d, 7);
    fresh_assert_answer(&d, 7);
    for (int i = 1; i < 20; i++) {
        fresh_ask_and_wait(&d, held);
        held = fresh_leave_free(&d, i);
        fresh_assert_answer(&d, i);
        g_assert_false(balloon_has_used(&d, STATS));
    }
    balloon_quit(&d);
    unlink(log);
}

/* It is news that is wanted: what is known already is none */
static void not_old_news(void)
{
    BalloonDriver d;

    fresh_start(&d);
    fresh_leave_free(&d, 7);
    balloon_wait_for(balloon_stat(d.qts, "free-memory") == 7);
    fresh_assert_fails(&d, 1, "GenericError", "The guest's balloon driver"
                       " did not give statistics within 1 ms");
    g_assert_cmpuint(balloon_stat(d.qts, "free-memory"), ==, 7);
    balloon_quit(&d);
}

/* Silent, then late: that answers nobody, and the next question works */
static void late(void)
{
    BalloonDriver d;
    uint32_t head;

    fresh_start(&d);
    head = fresh_leave_free(&d, 7);
    fresh_assert_fails(&d, 10, "GenericError", "The guest's balloon driver"
                       " did not give statistics within 10 ms");
    balloon_wait_served(&d, STATS, head);
    fresh_assert_fails(&d, 10, "GenericError", "The guest's balloon driver"
                       " did not give statistics within 10 ms");
    head = fresh_leave_free(&d, 8);
    balloon_wait_for(balloon_stat(d.qts, "free-memory") == 8);
    fresh_ask_and_wait(&d, head);
    fresh_leave_free(&d, 9);
    fresh_assert_answer(&d, 9);
    balloon_quit(&d);
}

/* Two answers at once: one of them counts, and one buffer is held */
static void twice(void)
{
    BalloonDriver d;
    BalloonSeg seg;
    uint32_t heads[2];
    QDict *stats;

    fresh_start(&d);
    fresh_ask_and_wait(&d, fresh_leave_free(&d, 7));
    balloon_free_descriptors(&d, STATS);
    for (int i = 0; i < 2; i++) {
        seg = fresh_seg(&d, &(BalloonStat) { VIRTIO_BALLOON_S_MEMFREE,
                                             8 + i }, 1);
        heads[i] = balloon_add(&d, STATS, &seg, 1);
        balloon_publish(&d, STATS, heads[i]);
    }
    balloon_kick(&d, STATS);
    stats = fresh_answer(&d);
    g_assert_cmpint(qdict_get_int(stats, "free-memory"), >=, 8);
    qobject_unref(stats);
    balloon_wait_served(&d, STATS, heads[0]);
    g_assert_false(balloon_has_used(&d, STATS));
    fresh_ask_and_wait(&d, heads[1]);
    fresh_leave_free(&d, 10);
    fresh_assert_answer(&d, 10);
    balloon_quit(&d);
}

/* Whatever a buffer holds, it is an answer */
static void nonsense(void)
{
    enum { MANY = 50000 };
    g_autofree BalloonStat *many = g_new0(BalloonStat, MANY);
    BalloonStat unknown[] = { { 0xffff, 1 }, { VIRTIO_BALLOON_S_NR, 2 },
                       { VIRTIO_BALLOON_S_MEMFREE, UINT64_MAX } };
    BalloonDriver d;
    BalloonSeg seg;
    uint32_t held;

    fresh_start(&d);
    held = fresh_leave_free(&d, 7);
    fresh_ask_and_wait(&d, held);
    held = fresh_leave(&d, unknown, ARRAY_SIZE(unknown));
    fresh_assert_no_values(&d);

    /* less than an entry */
    fresh_ask_and_wait(&d, held);
    seg = fresh_seg(&d, &(BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, 1 }, 1);
    seg.len--;
    held = balloon_post(&d, STATS, &seg, 1);
    fresh_assert_no_values(&d);

    /* nothing to read */
    fresh_ask_and_wait(&d, held);
    seg.write = true;
    held = balloon_post(&d, STATS, &seg, 1);
    fresh_assert_no_values(&d);

    fresh_ask_and_wait(&d, held);
    for (int i = 0; i < MANY; i++) {
        many[i] = (BalloonStat) { VIRTIO_BALLOON_S_MEMFREE, 42 };
    }
    fresh_leave(&d, many, MANY);
    fresh_assert_answer(&d, 42);
    balloon_quit(&d);
}

/* A reader who asks three times before it listens gets three answers */
static void several(void)
{
    BalloonDriver d;
    uint32_t held;

    fresh_start(&d);
    held = fresh_leave_free(&d, 7);
    for (int i = 0; i < 3; i++) {
        fresh_ask(&d, FRESH_LONG_MS);
    }
    for (int i = 0; i < 3; i++) {
        balloon_wait_served(&d, STATS, held);
        held = fresh_leave_free(&d, i);
        fresh_assert_answer(&d, i);
    }
    balloon_quit(&d);
}

/* The guest and the clock go on while a query waits, and so does polling */
static void polling(void)
{
    g_autofree char *log = NULL;
    BalloonDriver d;
    uint32_t held;

    fresh_start_tracing(&d, &log);
    held = fresh_leave_free(&d, 7);
    balloon_set_interval(d.qts, 5);
    balloon_wait_served(&d, STATS, held);
    fresh_ask_traced(&d, log);
    qtest_clock_step(d.qts, 10 * NANOSECONDS_PER_SECOND);
    balloon_send_range(&d, BALLOON_VQ_INFLATE, balloon_dirty_pages(&d, 1), 1);
    held = fresh_leave_free(&d, 8);
    fresh_assert_answer(&d, 8);
    g_assert_false(balloon_has_used(&d, STATS));
    qtest_clock_step(d.qts, 5 * NANOSECONDS_PER_SECOND);
    balloon_wait_served(&d, STATS, held);
    g_assert_cmpint(balloon_get_interval(d.qts), ==, 5);
    balloon_quit(&d);
    unlink(log);
}

/* After a migration the buffer that the source held is the one to return */
static void migrated(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source, d;
    uint32_t held;

    fresh_start(&source);
    held = fresh_leave_free(&source, 7);
    balloon_wait_for(balloon_stat(source.qts, "free-memory") == 7);
    balloon_migrate(source.qts, file);
    balloon_load(&d, &source, "virtio-balloon-pci", "-m 128", file);
    balloon_wait_for(balloon_vm_is_running(d.qts));
    fresh_ask_and_wait(&d, held);
    fresh_leave_free(&d, 8);
    fresh_assert_answer(&d, 8);
    balloon_quit(&d);
    balloon_quit(&source);
    unlink(file);
}

void balloon_add_fresh_stats_tests(void)
{
    static const struct {
        const char *path;
        void (*test)(void);
    } tests[] = {
        { BALLOON_MANAGE "stats/all-tags", all_tags },
        { BALLOON_MANAGE "stats/first-buffer", first_buffer },
        { BALLOON_MANAGE "stats/not-old-news", not_old_news },
        { BALLOON_MANAGE "stats/late", late },
        { BALLOON_MANAGE "stats/twice", twice },
        { BALLOON_MANAGE "stats/nonsense", nonsense },
        { BALLOON_MANAGE "stats/several", several },
        { BALLOON_MANAGE "stats/polling", polling },
        { BALLOON_MANAGE "stats/migrated", migrated },
    };

    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        qtest_add_func(tests[i].path, tests[i].test);
    }
}
