/*
 * Statistics that do not come, and what is said then
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/sockets.h"
#include "virtio-balloon-fresh-stats.h"

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
    fresh_assert_refused(d, "The guest has no driver running for its"
                         " balloon");
    fresh_assert_unknown(d, false);
    balloon_start(d, 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
    fresh_assert_refused(d, "The guest's balloon driver does not give"
                         " statistics");
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_stop(d);
    fresh_assert_refused_stopped(d);
    fresh_assert_unknown(d, false);
    balloon_cont(d);
    fresh_request_served(d, fresh_answer(d, 7));
}

/* A reset of the driver ends the question, one of the machine all of it */
static void reset(BalloonDriver *d)
{
    fresh_request_served(d, balloon_post_stats_value(d, 7));
    balloon_reset(d);
    fresh_assert_event(d, 7);
    fresh_assert_known(d, 7);
    g_assert_true(fresh_was_asked(d));
    balloon_start(d, BALLOON_ALL_FEATURES);
    fresh_request_served(d, fresh_answer(d, 8));
    qtest_outb(d->qts, KEYBOARD, KEYBOARD_RESET);
    qtest_qmp_eventwait(d->qts, "RESET");
    fresh_assert_unknown(d, false);
}

/* The answer will never come, and the next balloon knows nothing of it */
static void unplug(BalloonDriver *d)
{
    for (int i = 0; i < 2; i++) {
        uint32_t held = fresh_answer(d, 7);

        qtest_qmp_device_del_send(d->qts, "balloon0");
        fresh_request_served(d, held);
        balloon_eject(d);
        qtest_qmp_device_add(d->qts, "virtio-balloon-pci", "balloon0",
                             "{'addr': %s}", stringify(SLOT));
        fresh_assert_unknown(d, false);
        balloon_find(d, SLOT);
        balloon_start(d, BALLOON_ALL_FEATURES);
    }
}

/* What the guest said before its machine stopped is known all the same */
static void stopped(BalloonDriver *d)
{
    uint32_t held = fresh_answer(d, 7);

    fresh_assert_known(d, 7);
    fresh_request_served(d, held);
    qtest_outb(d->qts, PANIC, 1);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
    g_assert_true(fresh_is_pending(d));
    fresh_assert_refused_stopped(d);
}

/* A machine with a driver that left statistics; returns a second monitor */
static int start_with_monitor(BalloonDriver *d, uint32_t *held)
{
    g_autofree char *path = g_strdup_printf("%s/virtio-balloon-%d.sock",
                                            g_get_tmp_dir(), getpid());
    g_autofree char *options =
        g_strdup_printf(MEMORY " -qmp unix:%s,server=on,wait=off", path);

    balloon_boot_and_start(d, NULL, options);
    *held = fresh_answer(d, 7);
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
    balloon_wait_served(&d, STATS, held);
    close(fd);
    g_assert_true(fresh_is_pending(&d));
    fresh_answer(&d, 8);
    fresh_assert_known(&d, 8);
    balloon_quit(&d);
}

/* A person sees what the guest said last, and that it owes an answer */
static void hmp(BalloonDriver *d)
{
    uint32_t held = fresh_answer(d, 64 * MiB);
    g_autofree char *known = qtest_hmp(d->qts, "info balloon -v");
    g_autofree char *pending = NULL;

    g_assert_nonnull(strstr(known, " s old, free 64 MiB\r\n"));
    g_assert_null(strstr(known, "no answer yet"));
    fresh_request_served(d, held);
    pending = qtest_hmp(d->qts, "info balloon -v");
    g_assert_nonnull(strstr(pending, " s ago, no answer yet\r\n"));
}

static const BalloonCase cases[] = {
    { "stats/no-driver", no_driver, .no_driver = true },
    { "stats/reset", reset },
    { "stats/unplug", unplug },
    { "stats/stopped", stopped, NULL,
      MEMORY " -device pvpanic -action panic=pause" },
    { "stats/hmp", hmp },
};

void balloon_add_no_stats_tests(void)
{
    balloon_add_cases(BALLOON_MANAGE, cases, ARRAY_SIZE(cases));
    qtest_add_func(BALLOON_MANAGE "stats/nobody", nobody);
    qtest_add_func(BALLOON_MANAGE "stats/second-monitor", second_monitor);
    qtest_add_func(BALLOON_MANAGE "stats/client-gone", client_gone);
}
