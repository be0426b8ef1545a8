/*
 * The virtio balloon: QMP and HMP commands, the event, the target
 *
 * virtio 1.2, sections 5.5.4 and 5.5.6
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"

#define NO_DEVICE "No balloon device has been activated"

static void no_device(BalloonDriver *d)
{
    QTestState *qts = qtest_init("-machine pc");

    balloon_assert_none(qts);
    balloon_assert_hmp(qts, "info balloon", "Error: " NO_DEVICE);
    balloon_assert_hmp(qts, "balloon 64", "Error: " NO_DEVICE);
    qtest_quit(qts);
}

/* Refused values leave the target as it was */
static void refused_values(BalloonDriver *d)
{
    balloon_set_target(d->qts, 64 * MiB);
    for (int value = 0; value > -3; value--) {
        balloon_assert_error(d->qts, "GenericError",
                             "Parameter 'value' expects a size",
                             "{'execute': 'balloon',"
                             " 'arguments': {'value': %d}}", value);
    }
    balloon_assert_error(d->qts, "GenericError",
                         "Invalid parameter type for 'value',"
                         " expected: integer",
                         "{'execute': 'balloon',"
                         " 'arguments': {'value': '64M'}}");
    balloon_assert_error(d->qts, "GenericError",
                         "Parameter 'value' is missing",
                         "{'execute': 'balloon', 'arguments': {}}");
    balloon_assert_error(d->qts, "GenericError",
                         "Parameter 'foo' is unexpected",
                         "{'execute': 'balloon',"
                         " 'arguments': {'value': 1, 'foo': 1}}");
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);
}

/* What `balloon` says to @command, and the target that is set then */
static void assert_balloons(BalloonDriver *d, const char *command,
                            const char *answer, uint32_t num_pages)
{
    balloon_assert_hmp(d->qts, command, answer);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, num_pages);
}

/* Mebibytes; expressions count them, as they always have */
static void hmp(BalloonDriver *d)
{
    static const char *const commands[] = {
        "balloon 64", "balloon 32+32", "balloon 32 + 32",
        "balloon (16 + 16) * 2", "balloon 0x40", "balloon 0100",
        "balloon 128/2", "balloon 96-32",
    };

    balloon_assert_hmp(d->qts, "info balloon", "balloon: actual=128");
    for (int i = 0; i < ARRAY_SIZE(commands); i++) {
        balloon_set_target(d->qts, RAM);
        assert_balloons(d, commands[i], "", 0x4000);
    }
    assert_balloons(d, "balloon 0", "Error: Parameter 'value' expects a size",
                    0x4000);
    assert_balloons(d, "balloon -5", "enter a positive value", 0x4000);
    assert_balloons(d, "balloon 2-4", "enter a positive value", 0x4000);

    /* rounded down */
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x4001);
    balloon_assert_hmp(d->qts, "info balloon", "balloon: actual=63");
}

/* The HMP command takes a suffix */
static void hmp_suffix(BalloonDriver *d)
{
    static const char *const refused[] = {
        "balloon 64X", "balloon much", "balloon 64MM", "balloon 64 M",
        "balloon 64+", "balloon 99999999999999999999", "balloon 16E",
    };

    assert_balloons(d, "balloon 64M", "", 0x4000);
    assert_balloons(d, "balloon 96", "", 0x2000);
    assert_balloons(d, "balloon 65536k", "", 0x4000);
    assert_balloons(d, "balloon 2G", "", 0);
    assert_balloons(d, "balloon 0.0625G", "", 0x4000);
    for (int i = 0; i < ARRAY_SIZE(refused); i++) {
        g_autofree char *said = qtest_hmp(d->qts, "%s", refused[i]);

        g_assert_cmpstr(said, !=, "");
        g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    }
}

/* The guest hears of every target, be it the same, be the VM stopped */
static void target(BalloonDriver *d)
{
    static const struct {
        int64_t target;
        uint32_t num_pages;
    } table[] = {
        { 64 * MiB, 0x4000 },
        { 64 * MiB + 1, 0x3fff },
        { 64 * MiB + 4095, 0x3fff },
        { 64 * MiB + 4096, 0x3fff },
        { 1, 0x7fff },
        { 4096, 0x7fff },
        { RAM - 1, 0 },
        { RAM - 4096, 1 },
        { RAM, 0 },
        { RAM, 0 },
        { RAM + 1, 0 },
        /* more pages than 32 bits can say */
        { 16 * TiB + 64 * MiB, 0 },
        { INT64_MAX, 0 },
    };

    for (int stopped = 0; stopped < 2; stopped++) {
        for (int i = 0; i < ARRAY_SIZE(table); i++) {
            balloon_set_target(d->qts, table[i].target);
            balloon_wait_config_interrupt(d);
            g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==,
                            table[i].num_pages);
        }
        balloon_stop(d);
    }
    balloon_cont(d);
    /* what the guest does about it is its own affair */
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);
    g_assert_cmpint(balloon_next_change(d->qts), ==, -1);
}

/* A size is believed up to RAM */
static void actual_beyond_ram(BalloonDriver *d)
{
    static const uint32_t values[] = {
        RAM / BALLOON_PAGE + 1, 0x10000, 0x7fffffff, 0x80000000, 0xfeffffff,
        0xff000000, 0xffffffff,
    };

    for (int i = 0; i < ARRAY_SIZE(values); i++) {
        balloon_writel(d, BALLOON_CFG_ACTUAL, values[i]);
        g_assert_cmpint(balloon_query(d->qts), ==, 0);
    }
    balloon_assert_hmp(d->qts, "info balloon", "balloon: actual=0");
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x4000);
    g_assert_cmpint(balloon_query(d->qts), ==, 64 * MiB);
}

/* One event for a value that differs, at most one a second */
static void change_event(BalloonDriver *d)
{
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x1000);
    g_assert_cmpint(balloon_next_change(d->qts), ==, RAM - 0x1000000);
    qtest_clock_step(d->qts, 2 * SECOND);
    g_assert_cmpint(balloon_next_change(d->qts), ==, -1);

    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x1000);
    qtest_clock_step(d->qts, 2 * SECOND);
    g_assert_cmpint(balloon_next_change(d->qts), ==, -1);

    for (int i = 1; i <= 10; i++) {
        balloon_writel(d, BALLOON_CFG_ACTUAL, 0x1000 + i);
    }
    g_assert_cmpint(balloon_next_change(d->qts), ==, RAM - 0x1001000);
    g_assert_cmpint(balloon_next_change(d->qts), ==, -1);
    qtest_clock_step(d->qts, SECOND);
    g_assert_cmpint(balloon_next_change(d->qts), ==, RAM - 0x100a000);
    qtest_clock_step(d->qts, SECOND);
    g_assert_cmpint(balloon_next_change(d->qts), ==, -1);
}

/* DIMMs are in, NVDIMMs and virtio-mem are out */
static void memory_devices(BalloonDriver *d)
{
    g_assert_cmpint(balloon_query(d->qts), ==, 192 * MiB);
    balloon_set_target(d->qts, 64 * MiB);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x8000);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x8000);
    g_assert_cmpint(balloon_query(d->qts), ==, 64 * MiB);
}

#define MEMORY_DEVICES                                                  \
    "-machine pc,nvdimm=on -m 128,slots=4,maxmem=2G "                   \
    "-object memory-backend-ram,id=m0,size=64M "                        \
    "-device pc-dimm,memdev=m0 "                                        \
    "-object memory-backend-ram,id=m1,size=128M "                       \
    "-device nvdimm,memdev=m1 "                                         \
    "-object memory-backend-ram,id=m2,size=128M "                       \
    "-device virtio-mem-pci,memdev=m2,addr=5,requested-size=64M"

static const BalloonTest tests[] = {
    { "command/refused-values", refused_values },
    { "command/hmp", hmp },
    { "command/target", target },
    { "command/change-event", change_event },
    { "command/memory-devices", memory_devices, .options = MEMORY_DEVICES },
    { "improved/command/hmp-suffix", hmp_suffix },
    { "improved/command/actual-beyond-ram", actual_beyond_ram },
    { "command/no-device", no_device, .bare = true },
};

BALLOON_TESTS("", NULL, tests)
