/*
 * query-balloon-stats: no answer, and what is said then
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
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
    QTestState *qts = qtest_init("-m 128");
    BalloonDriver d;

    balloon_assert_error(qts, "DeviceNotActive",
                         "No balloon device has been activated",
                         "{'execute': 'query-balloon-stats',"
                         " 'arguments': {'timeout': 60000}}");
    qtest_quit(qts);

    balloon_boot(&d, NULL, "-m 128");
    fresh_assert_fails(&d, FRESH_LONG_MS, "GenericError",
                       "The guest has no driver running for its balloon");
    balloon_start(&d, 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
    fresh_assert_fails(&d, FRESH_LONG_MS, "GenericError",
                       "The guest's balloon driver does not give statistics");
    balloon_reset(&d);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
    fresh_assert_fails(&d, FRESH_LONG_MS, "GenericError", "The machine is"
                       " stopped, so the guest cannot give statistics");
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    fresh_ask_and_wait(&d, fresh_leave_free(&d, 7));
    fresh_leave_free(&d, 8);
    fresh_assert_answer(&d, 8);
    balloon_quit(&d);
}

static const struct {
    const char *arguments;
    const char *desc;
} bad_arguments[] = {
    { "", "Parameter 'timeout' is missing" },
    { "'timeout': 'soon'",
      "Invalid parameter type for 'timeout', expected: integer" },
    { "'timeout': null",
      "Invalid parameter type for 'timeout', expected: integer" },
    { "'timeout': 1.5",
      "Invalid parameter type for 'timeout', expected: integer" },
    { "'timeout': 18446744073709551615",
      "Invalid parameter type for 'timeout', expected: integer" },
    { "'timeout': -1",
      "Parameter 'timeout' expects milliseconds from 1 to 60000" },
    { "'timeout': 0",
      "Parameter 'timeout' expects milliseconds from 1 to 60000" },
    { "'timeout': 60001",
      "Parameter 'timeout' expects milliseconds from 1 to 60000" },
    { "'timeout': 9223372036854775807",
      "Parameter 'timeout' expects milliseconds from 1 to 60000" },
    { "'timeout': -9223372036854775808",
      "Parameter 'timeout' expects milliseconds from 1 to 60000" },
    { "'timeout': 1, 'x': 1", "Parameter 'x' is unexpected" },
};

static void bad_input(void)
{
    BalloonDriver d;

    fresh_start(&d);
    for (int i = 0; i < ARRAY_SIZE(bad_arguments); i++) {
        qtest_qmp_send_raw(d.qts, "{'execute': 'query-balloon-stats',"
                           " 'arguments': {%s}}\n",
                           bad_arguments[i].arguments);
        fresh_assert_error(&d, "GenericError", bad_arguments[i].desc);
    }
    balloon_quit(&d);
}

/* What the guest does to its driver while a query waits for it */
static void reset_meanwhile(void)
{
    BalloonDriver d;

    fresh_start(&d);
    fresh_ask_and_wait(&d, fresh_leave_free(&d, 7));
    balloon_reset(&d);
    fresh_assert_error(&d, "GenericError", "The balloon was reset before the"
                       " guest gave statistics");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    fresh_ask_and_wait(&d, fresh_leave_free(&d, 8));
    qtest_outb(d.qts, KEYBOARD, KEYBOARD_RESET);
    fresh_assert_error(&d, "GenericError", "The balloon was reset before the"
                       " guest gave statistics");
    balloon_quit(&d);
}

static void unplug_meanwhile(void)
{
    BalloonDriver d;

    fresh_start(&d);
    for (int i = 0; i < 2; i++) {
        uint32_t held = fresh_leave_free(&d, 7);

        qtest_qmp_device_del_send(d.qts, "balloon0");
        fresh_ask_and_wait(&d, held);
        qtest_outl(d.qts, ACPI_EJECT, 1 << SLOT);
        fresh_assert_error(&d, "DeviceNotActive", "The balloon was unplugged"
                           " before the guest gave statistics");
        qtest_qmp_eventwait(d.qts, "DEVICE_DELETED");
        balloon_lose(&d);
        qtest_qmp_device_add(d.qts, "virtio-balloon-pci", "balloon0",
                             "{'addr': %s}", stringify(SLOT));
        balloon_find(&d, SLOT);
        balloon_start(&d, BALLOON_ALL_FEATURES);
    }
    fresh_ask_and_wait(&d, fresh_leave_free(&d, 8));
    fresh_leave_free(&d, 9);
    fresh_assert_answer(&d, 9);
    balloon_quit(&d);
}

static void stop_meanwhile(void)
{
    BalloonDriver d;

    fresh_start_with(&d, "-m 128 -device pvpanic -action panic=pause");
    fresh_ask_and_wait(&d, fresh_leave_free(&d, 7));
    qtest_outb(d.qts, PANIC, 1);
    fresh_assert_error(&d, "GenericError", "The machine was stopped before"
                       " the guest gave statistics");
    balloon_quit(&d);
}

/* QEMU ends although nobody answers, and long before the query would */
static void quit_meanwhile(void)
{
    gint64 begin = g_get_monotonic_time();
    BalloonDriver d;

    fresh_start(&d);
    fresh_ask_and_wait(&d, fresh_leave_free(&d, 7));
    balloon_quit(&d);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, FRESH_LONG_MS * 1000LL);
}

void balloon_add_no_stats_tests(void)
{
    static const struct {
        const char *path;
        void (*test)(void);
    } tests[] = {
        { BALLOON_MANAGE "stats/nobody", nobody },
        { BALLOON_MANAGE "stats/bad-input", bad_input },
        { BALLOON_MANAGE "stats/reset-meanwhile", reset_meanwhile },
        { BALLOON_MANAGE "stats/unplug-meanwhile", unplug_meanwhile },
        { BALLOON_MANAGE "stats/stop-meanwhile", stop_meanwhile },
        { BALLOON_MANAGE "stats/quit-meanwhile", quit_meanwhile },
    };

    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        qtest_add_func(tests[i].path, tests[i].test);
    }
}
