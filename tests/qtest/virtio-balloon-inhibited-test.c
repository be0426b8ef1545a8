/*
 * Memory that does not come back because something in QEMU needs it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-manage.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-plug.h"

#define SECOND NANOSECONDS_PER_SECOND
#define REPORT BALLOON_VQ_FIRST_OPTIONAL
#define REPORTING "virtio-balloon-pci,free-page-reporting=on"
#define PAGES 16
#define SIZE (PAGES * BALLOON_PAGE)

/* Guest memory that nobody uses */
#define AREA (32 * MiB)

static void start(BalloonDriver *d, const char *device, const char *options)
{
    balloon_boot(d, device, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

/* Inflating and reporting, and nothing of it is taken */
static void assert_inhibited(BalloonDriver *d, const char *inhibitor)
{
    uint64_t before = balloon_skipped(d->qts, "inhibited");

    balloon_assert_state(d->qts, "reached", inhibitor);
    balloon_send_range(d, BALLOON_VQ_INFLATE, AREA, PAGES);
    balloon_send_one(d, REPORT, AREA, SIZE, true);
    g_assert_cmpuint(balloon_skipped(d->qts, "inhibited") - before, ==,
                     2 * SIZE);
    balloon_assert_sum(d->qts);
    balloon_assert_state(d->qts, "reached", inhibitor);
}

/* An assigned device may use any memory at any time, until it is unplugged */
static void vfio(void)
{
    BalloonDriver d;

    /* QEMU finds a host with a device for VFIO */
    balloon_preload("virtio-balloon-fake-vfio.so");
    start(&d, REPORTING, "-m 128");
    balloon_preload(NULL);
    balloon_assert_event(d.qts, "reached", NULL);
    qtest_clock_step(d.qts, SECOND);
    qtest_memset(d.qts, AREA, 0xa5, SIZE);
    balloon_assert_state(d.qts, "reached", NULL);

    /* At rest, and nobody asks: its begin is told all the same ... */
    qtest_clock_step(d.qts, 60 * SECOND);
    balloon_plug_vfio(d.qts);
    qtest_clock_step(d.qts, 10 * SECOND);
    balloon_assert_event(d.qts, "reached", "pinned-memory");
    assert_inhibited(&d, "pinned-memory");
    balloon_assert_bytes(&d, AREA, SIZE, 0xa5);
    balloon_assert_hmp(d.qts, "info balloon", "balloon: actual=128");

    /* ... and its end, however long that takes */
    qtest_clock_step(d.qts, 60 * SECOND);
    balloon_assert_no_event(d.qts);
    balloon_unplug_vfio(d.qts);
    qtest_clock_step(d.qts, 10 * SECOND);
    balloon_assert_event(d.qts, "reached", NULL);
    balloon_send_one(&d, REPORT, AREA, SIZE, true);
    balloon_assert_bytes(&d, AREA, SIZE, 0);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

static bool set_capability(QTestState *qts, const char *name)
{
    QDict *response = qtest_qmp(
        qts, "{'execute': 'migrate-set-capabilities', 'arguments':"
        " {'capabilities': [{'capability': %s, 'state': true}]}}", name);
    bool ok = qdict_haskey(response, "return");

    qobject_unref(response);
    if (!ok) {
        g_test_skip("the host has no userfaultfd for this");
    }
    return ok;
}

/* A background snapshot has yet to read what the guest gives up */
static void background_snapshot(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;

    start(&d, REPORTING, "-m 128");
    balloon_assert_event(d.qts, "reached", NULL);
    qtest_clock_step(d.qts, SECOND);
    qtest_memset(d.qts, AREA, 0xa5, 4 * MiB);
    if (set_capability(d.qts, "background-snapshot")) {
        balloon_migrate_slowly(d.qts, file);
        /* its thread stops the machine for a moment, and starts it again */
        balloon_wait_event(d.qts, "reached", "background-snapshot");
        assert_inhibited(&d, "background-snapshot");
        balloon_assert_bytes(&d, AREA, SIZE, 0xa5);
        balloon_migrate_cancel(d.qts);
        /* nobody asks, and it is noticed all the same */
        qtest_clock_step(d.qts, 10 * SECOND);
        balloon_assert_event(d.qts, "reached", NULL);
        balloon_assert_state(d.qts, "reached", NULL);
    }
    balloon_quit(&d);
    unlink(file);
}

/*
 * A target can be waited for while a device is assigned, and without any driver
 * it is told that memory will not come
 */
static void events(void)
{
    BalloonDriver d;

    balloon_preload("virtio-balloon-fake-vfio.so");
    balloon_boot(&d, REPORTING, "-m 128");
    balloon_preload(NULL);
    balloon_plug_vfio(d.qts);
    qtest_clock_step(d.qts, 10 * SECOND);
    balloon_assert_event(d.qts, "no-driver", "pinned-memory");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_clock_step(d.qts, SECOND);
    balloon_assert_event(d.qts, "reached", "pinned-memory");
    balloon_set_target(d.qts, 128 * MiB - SIZE);
    qtest_clock_step(d.qts, SECOND);
    balloon_assert_event(d.qts, "inflating", "pinned-memory");
    balloon_writel(&d, BALLOON_CFG_ACTUAL, PAGES);
    qtest_clock_step(d.qts, SECOND);
    balloon_assert_event(d.qts, "reached", "pinned-memory");
    balloon_quit(&d);
}

static bool is_inhibited(QTestState *qts)
{
    QDict *info = balloon_info(qts);
    bool is = qdict_haskey(info, "inhibited-by");

    qobject_unref(info);
    return is;
}

/* The destination of a postcopy migration would ask for pages twice */
static void incoming_postcopy(void)
{
    g_autofree char *path = balloon_migration_file();
    g_autofree char *uri = g_strconcat("unix:", path, NULL);
    BalloonDriver source, d;

    start(&source, REPORTING, "-m 128");
    qtest_memset(source.qts, AREA, 0xa5, 16 * MiB);
    balloon_boot(&d, REPORTING, "-m 128 -incoming defer");
    if (!set_capability(d.qts, "postcopy-ram") ||
        !set_capability(source.qts, "postcopy-ram")) {
        goto out;
    }
    balloon_migrate_incoming(d.qts, uri);
    qtest_qmp_assert_success(source.qts, "{'execute':"
                             " 'migrate-set-parameters', 'arguments':"
                             " {'max-bandwidth': 65536,"
                             " 'max-postcopy-bandwidth': 65536}}");
    balloon_migrate_to(source.qts, uri);
    balloon_wait_for(balloon_migration_is(source.qts, "active"));
    qtest_qmp_assert_success(source.qts,
                             "{'execute': 'migrate-start-postcopy'}");
    balloon_wait_for(balloon_migration_is(d.qts, "postcopy-active"));
    qtest_qmp_eventwait(d.qts, "RESUME");
    balloon_lose(&d);
    balloon_adopt(&d, &source);
    assert_inhibited(&d, "incoming-postcopy");
    qtest_qmp_assert_success(source.qts, "{'execute':"
                             " 'migrate-set-parameters', 'arguments':"
                             " {'max-postcopy-bandwidth': 0}}");
    balloon_wait_for(balloon_migration_is(d.qts, "completed"));
    /* QEMU says so a moment before postcopy has come to its end */
    balloon_wait_for(!is_inhibited(d.qts));
    balloon_assert_bytes(&d, AREA, 16 * MiB, 0xa5);
out:
    balloon_quit(&d);
    balloon_quit(&source);
    unlink(path);
}

void balloon_add_inhibited_tests(void)
{
    qtest_add_func(BALLOON_MANAGE "inhibited/vfio", vfio);
    qtest_add_func(BALLOON_MANAGE "inhibited/events", events);
    qtest_add_func(BALLOON_MANAGE "inhibited/background-snapshot",
                   background_snapshot);
    qtest_add_func(BALLOON_MANAGE "inhibited/incoming-postcopy",
                   incoming_postcopy);
}
