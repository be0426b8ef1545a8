/*
 * Statistics that do not come, and what is said then
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/sockets.h"
#include "virtio-balloon-fresh-stats.h"
#include "virtio-balloon-manage.h"
#include "virtio-balloon-monitor.h"

#define SLOT 4

/* Where a PC lets a PCI slot go, resets, and panics */
#define ACPI_EJECT 0xae08
#define KEYBOARD 0x64
#define KEYBOARD_RESET 0xfe
#define PANIC 0x505

/* Nobody there who could answer: said at once */
static void nobody(void)
{
    static const char *const commands[] = {
        "query-balloon-stats", "request-balloon-stats",
    };
    QTestState *qts = qtest_init("-m 128");
    BalloonDriver d;

    for (int i = 0; i < ARRAY_SIZE(commands); i++) {
        balloon_assert_error(qts, "DeviceNotActive",
                             "No balloon device has been activated",
                             "{'execute': %s}", commands[i]);
    }
    qtest_quit(qts);

    balloon_boot(&d, NULL, "-m 128");
    fresh_assert_refused(&d, "The guest has no driver running for its"
                         " balloon");
    fresh_assert_unknown(&d, false);
    balloon_start(&d, 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
    fresh_assert_refused(&d, "The guest's balloon driver does not give"
                         " statistics");
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
    fresh_assert_refused(&d, "The machine is stopped, so the guest cannot give"
                         " statistics");
    fresh_assert_unknown(&d, false);
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    fresh_request_served(&d, fresh_leave_free(&d, 7));
    fresh_assert_event(&d, 7);
    balloon_quit(&d);
}

/* A reset of the driver ends the question, one of the machine all of it */
static void reset(void)
{
    BalloonDriver d;
    QDict *info;

    fresh_start(&d);
    fresh_request_served(&d, fresh_leave_free(&d, 7));
    balloon_reset(&d);
    fresh_assert_event(&d, 7);
    fresh_assert_known(&d, 7);
    info = fresh_info(&d);
    g_assert_true(qdict_haskey(info, "asked-ago"));
    qobject_unref(info);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    fresh_request_served(&d, fresh_leave_free(&d, 8));
    fresh_assert_event(&d, 8);
    qtest_outb(d.qts, KEYBOARD, KEYBOARD_RESET);
    qtest_qmp_eventwait(d.qts, "RESET");
    fresh_assert_unknown(&d, false);
    balloon_quit(&d);
}

/* The answer will never come, and the next balloon knows nothing of it */
static void unplug(void)
{
    BalloonDriver d;

    fresh_start(&d);
    for (int i = 0; i < 2; i++) {
        uint32_t held = fresh_leave_free(&d, 7);

        fresh_assert_event(&d, 7);
        qtest_qmp_device_del_send(d.qts, "balloon0");
        fresh_request_served(&d, held);
        qtest_outl(d.qts, ACPI_EJECT, 1 << SLOT);
        qtest_qmp_eventwait(d.qts, "DEVICE_DELETED");
        balloon_lose(&d);
        qtest_qmp_device_add(d.qts, "virtio-balloon-pci", "balloon0",
                             "{'addr': %s}", stringify(SLOT));
        fresh_assert_unknown(&d, false);
        balloon_find(&d, SLOT);
        balloon_start(&d, BALLOON_ALL_FEATURES);
    }
    balloon_quit(&d);
}

/* What the guest said before its machine stopped is known all the same */
static void stopped(void)
{
    BalloonDriver d;
    uint32_t held;

    balloon_boot(&d, NULL, "-m 128 -device pvpanic -action panic=pause");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    held = fresh_leave_free(&d, 7);
    fresh_assert_event(&d, 7);
    fresh_assert_known(&d, 7);
    fresh_request_served(&d, held);
    qtest_outb(d.qts, PANIC, 1);
    balloon_wait_for(!balloon_vm_is_running(d.qts));
    g_assert_true(fresh_is_pending(&d));
    fresh_assert_refused(&d, "The machine is stopped, so the guest cannot give"
                         " statistics");
    qtest_qmp_assert_success(d.qts, "{'execute': 'query-status'}");
    balloon_quit(&d);
}

/* A machine with a driver that left statistics; returns a second monitor */
static int start_with_monitor(BalloonDriver *d, uint32_t *held)
{
    g_autofree char *path = g_strdup_printf("%s/virtio-balloon-%d.sock",
                                            g_get_tmp_dir(), getpid());
    g_autofree char *options =
        g_strdup_printf("-m 128 -qmp unix:%s,server=on,wait=off", path);

    balloon_boot(d, NULL, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
    *held = fresh_leave_free(d, 7);
    fresh_assert_event(d, 7);
    return unix_connect(path, &error_abort);
}

static void say(int monitor, const char *commands)
{
    g_assert_cmpint(write(monitor, commands, strlen(commands)), ==,
                    strlen(commands));
}

/* Read until an answer has come.  Returns: how long that took, in seconds */
static double hear(FILE *monitor)
{
    int64_t start = g_get_monotonic_time();
    char line[4096];

    do {
        g_assert_nonnull(fgets(line, sizeof(line), monitor));
    } while (!strstr(line, "\"return\""));
    return (g_get_monotonic_time() - start) / 1e6;
}

/* A guest that never answers holds up nobody: how long others wait is told */
static void second_monitor(void)
{
    BalloonDriver d;
    uint32_t held;
    double longest = 0;
    int fd = start_with_monitor(&d, &held);
    FILE *monitor = fdopen(fd, "r");

    say(fd, "{'execute': 'qmp_capabilities'}\n");
    hear(monitor);
    fresh_request_served(&d, held);
    for (int i = 0; i < 1000; i++) {
        qtest_qmp_send(d.qts, "{'execute': 'request-balloon-stats'}");
        say(fd, "{'execute': 'query-status'}\n");
        longest = MAX(longest, hear(monitor));
        qobject_unref(qtest_qmp_receive(d.qts));
    }
    g_assert_true(fresh_is_pending(&d));
    g_test_minimized_result(longest, "longest answer of 1000: %.1f ms",
                            longest * 1000);
    fclose(monitor);
    balloon_quit(&d);
}

/* Who asked goes away, and others hear of the answer */
static void client_gone(void)
{
    BalloonDriver d;
    uint32_t held;
    int fd = start_with_monitor(&d, &held);

    say(fd, "{'execute': 'qmp_capabilities'}"
        "{'execute': 'request-balloon-stats'}\n");
    balloon_wait_served(&d, BALLOON_VQ_STATS, held);
    close(fd);
    g_assert_true(fresh_is_pending(&d));
    fresh_leave_free(&d, 8);
    fresh_assert_event(&d, 8);
    fresh_assert_known(&d, 8);
    balloon_quit(&d);
}

/* A person sees what the guest said last, and that it owes an answer */
static void hmp(void)
{
    g_autofree char *known = NULL;
    g_autofree char *pending = NULL;
    BalloonDriver d;
    uint32_t held;

    fresh_start(&d);
    held = fresh_leave_free(&d, 64 * 1024 * 1024);
    fresh_assert_event(&d, 64 * 1024 * 1024);
    known = qtest_hmp(d.qts, "info balloon -v");
    g_assert_nonnull(strstr(known, " s old, free 64 MiB\r\n"));
    g_assert_null(strstr(known, "no answer yet"));
    fresh_request_served(&d, held);
    pending = qtest_hmp(d.qts, "info balloon -v");
    g_assert_nonnull(strstr(pending, " s ago, no answer yet\r\n"));
    balloon_quit(&d);
}

void balloon_add_no_stats_tests(void)
{
    qtest_add_func(BALLOON_MANAGE "stats/nobody", nobody);
    qtest_add_func(BALLOON_MANAGE "stats/reset", reset);
    qtest_add_func(BALLOON_MANAGE "stats/unplug", unplug);
    qtest_add_func(BALLOON_MANAGE "stats/stopped", stopped);
    qtest_add_func(BALLOON_MANAGE "stats/second-monitor", second_monitor);
    qtest_add_func(BALLOON_MANAGE "stats/client-gone", client_gone);
    qtest_add_func(BALLOON_MANAGE "stats/hmp", hmp);
}
