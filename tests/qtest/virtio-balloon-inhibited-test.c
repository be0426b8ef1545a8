/*
 * Memory that does not come back because something in QEMU needs it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-manage.h"

#define SIZE (16 * BALLOON_PAGE)

/* Inflating and reporting, and nothing of it is taken */
static void assert_inhibited(BalloonDriver *d, const char *inhibitor)
{
    uint64_t before = balloon_skipped(d->qts, "inhibited");

    balloon_assert_state(d->qts, "reached", inhibitor);
    balloon_inflate(d, AREA, SIZE);
    balloon_send_one(d, REPORT, AREA, SIZE, true);
    g_assert_cmpuint(balloon_skipped(d->qts, "inhibited") - before, ==,
                     2 * SIZE);
    balloon_assert_sum(d->qts);
    balloon_assert_state(d->qts, "reached", inhibitor);
}

/* An assigned device may use any memory at any time, until it is unplugged */
static void vfio(BalloonDriver *d)
{
    balloon_assert_event(d->qts, "reached", NULL);
    qtest_clock_step(d->qts, SECOND);
    balloon_assert_state(d->qts, "reached", NULL);

    /* At rest, and nobody asks: its begin is told all the same ... */
    qtest_clock_step(d->qts, 60 * SECOND);
    balloon_plug_vfio(d->qts);
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_assert_event(d->qts, "reached", "pinned-memory");
    assert_inhibited(d, "pinned-memory");
    balloon_assert_bytes(d, AREA, SIZE, OLD);
    balloon_assert_hmp(d->qts, "info balloon", "balloon: actual=128");

    /* ... and its end, however long that takes */
    qtest_clock_step(d->qts, 60 * SECOND);
    balloon_assert_no_event(d->qts);
    balloon_unplug_vfio(d->qts);
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_assert_event(d->qts, "reached", NULL);
    balloon_send_one(d, REPORT, AREA, SIZE, true);
    balloon_assert_bytes(d, AREA, SIZE, 0);
}

/* A background snapshot has yet to read what the guest gives up */
static void background_snapshot(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();

    if (!balloon_try_capability(d->qts, "background-snapshot")) {
        return;
    }
    balloon_assert_event(d->qts, "reached", NULL);
    qtest_clock_step(d->qts, SECOND);
    balloon_migrate_slowly(d->qts, file);
    /* its thread stops the machine for a moment, and starts it again */
    balloon_wait_event(d->qts, "reached", "background-snapshot");
    assert_inhibited(d, "background-snapshot");
    balloon_assert_bytes(d, AREA, SIZE, OLD);
    balloon_migrate_cancel(d->qts);
    /* nobody asks, and it is noticed all the same */
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_assert_event(d->qts, "reached", NULL);
    balloon_assert_state(d->qts, "reached", NULL);
    unlink(file);
}

/*
 * A target can be waited for while a device is assigned, and without any driver
 * it is told that memory will not come
 */
static void events(BalloonDriver *d)
{
    balloon_plug_vfio(d->qts);
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_assert_event(d->qts, "no-driver", "pinned-memory");
    balloon_start(d, BALLOON_ALL_FEATURES);
    qtest_clock_step(d->qts, SECOND);
    balloon_assert_event(d->qts, "reached", "pinned-memory");
    balloon_set_target(d->qts, RAM - SIZE);
    qtest_clock_step(d->qts, SECOND);
    balloon_assert_event(d->qts, "inflating", "pinned-memory");
    balloon_writel(d, BALLOON_CFG_ACTUAL, SIZE / BALLOON_PAGE);
    qtest_clock_step(d->qts, SECOND);
    balloon_assert_event(d->qts, "reached", "pinned-memory");
}

static void set_postcopy_bandwidth(QTestState *qts, int64_t bytes)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters',"
                             " 'arguments': {'max-postcopy-bandwidth': %"
                             PRId64 "}}", bytes);
}

/* Begin a postcopy migration that lasts; the guest goes on in @d */
static void start_postcopy(BalloonDriver *source, BalloonDriver *d,
                           const char *uri)
{
    balloon_migrate_incoming(d->qts, uri);
    balloon_set_bandwidth(source->qts, 64 * KiB);
    set_postcopy_bandwidth(source->qts, 64 * KiB);
    balloon_migrate_to(source->qts, uri);
    balloon_wait_for(balloon_migration_is(source->qts, "active"));
    qtest_qmp_assert_success(source->qts,
                             "{'execute': 'migrate-start-postcopy'}");
    balloon_wait_for(balloon_migration_is(d->qts, "postcopy-active"));
    qtest_qmp_eventwait(d->qts, "RESUME");
    balloon_adopt(d, source);
}

/* The destination of a postcopy migration would ask for pages twice */
static void incoming_postcopy(BalloonDriver *d)
{
    g_autofree char *path = balloon_migration_file();
    g_autofree char *uri = g_strconcat("unix:", path, NULL);
    BalloonDriver source = *d;

    balloon_boot_incoming(d, REPORTING, MEMORY);
    if (balloon_try_capability(d->qts, "postcopy-ram") &&
        balloon_try_capability(source.qts, "postcopy-ram")) {
        start_postcopy(&source, d, uri);
        assert_inhibited(d, "incoming-postcopy");
        set_postcopy_bandwidth(source.qts, 0);
        balloon_wait_for(balloon_migration_is(d->qts, "completed"));
        /* QEMU says so a moment before postcopy has come to its end */
        balloon_wait_for(!balloon_info_has(d, "inhibited-by"));
        balloon_assert_bytes(d, AREA, AREA_SIZE, OLD);
    }
    balloon_quit(&source);
    unlink(path);
}

static const BalloonCase cases[] = {
    { "inhibited/vfio", vfio, REPORTING, .host = HOST_WITH_VFIO },
    { "inhibited/events", events, REPORTING, .no_driver = true,
      .host = HOST_WITH_VFIO },
    { "inhibited/background-snapshot", background_snapshot, REPORTING },
    { "inhibited/incoming-postcopy", incoming_postcopy, REPORTING },
};

void balloon_add_inhibited_tests(void)
{
    balloon_add_cases(BALLOON_MANAGE, cases, ARRAY_SIZE(cases));
}
