/*
 * Resets of a virtio balloon: device, machine, queue, sleep and snapshot; and
 * a machine whose processor and clock run
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_config.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"
#include "virtio-balloon-migrate.h"

#define TARGET_PAGES 0x1000
#define ACTUAL_PAGES 0x800
#define ACTUAL_LEFT (RAM - ACTUAL_PAGES * BALLOON_PAGE)

/* A driver that has reached half of its target */
static void inflate_some(BalloonDriver *d)
{
    balloon_set_target(d->qts, RAM - TARGET_PAGES * BALLOON_PAGE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, ACTUAL_PAGES);
    g_assert_cmpint(balloon_next_change(d->qts), ==, ACTUAL_LEFT);
}

/* To wait for the event that a reset has would be to miss what comes before */
static void reset_machine(BalloonDriver *d)
{
    balloon_lose(d);
    qtest_system_reset_nowait(d->qts);
    balloon_wait_for(balloon_query(d->qts) == RAM);
    balloon_find(d);
}

/* What one driver wrote does not come back when the next one writes another */
static void config_is_forgotten(BalloonDriver *d)
{
    inflate_some(d);
    balloon_writel(d, BALLOON_CFG_POISON, 0xaaaaaaaa);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0xaaaaaaaa);
    balloon_restart(d);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 1);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0);

    balloon_restart(d);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL), ==, 0);
    balloon_writel(d, BALLOON_CFG_POISON, 0);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL), ==, 0);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);
}

/* Waking up is no reset: size and statistics are what they were */
static void sleep_is_none(BalloonDriver *d)
{
    inflate_some(d);
    balloon_leave_stats(d, 4711);
    balloon_sleep(d);
    balloon_wake(d);
    g_assert_cmpint(balloon_query(d->qts), ==, ACTUAL_LEFT);
    g_assert_cmpuint(balloon_stat(d->qts, "free-memory"), ==, 4711);
    balloon_lose(d);
    balloon_find(d);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, TARGET_PAGES);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_assert_works(d);
}

/* A guest that shut down, in a QEMU that stays, may start again */
static void shut_down(BalloonDriver *d)
{
    balloon_power_off(d);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
    reset_machine(d);
    balloon_cont(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_assert_works(d);
}

static bool count_changes(QTestState *qts, const char *name, QDict *event,
                          void *opaque)
{
    unsigned *changes = opaque;

    *changes += g_str_equal(name, "BALLOON_CHANGE");
    return false;
}

/* The ring of a driver that has gone is not written to, also a legacy one's */
static void stats_of_the_gone(BalloonDriver *d)
{
    balloon_leave_stats(d, 4711);
    balloon_set_bus_master(d, false);
    balloon_set_bus_master(d, true);
    balloon_set_interval(d->qts, 1);
    qtest_clock_step(d->qts, 2 * SECOND);
    g_assert_false(balloon_has_used(d, STATS));
}

/* A snapshot brings its own balloon back, which was never empty in between */
static void snapshot(BalloonDriver *d)
{
    unsigned changes = 0;

    balloon_add_disk(d->qts);
    inflate_some(d);
    balloon_snapshot(d->qts, "snapshot-save", "s");
    balloon_set_target(d->qts, RAM);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 1);
    /* Events of a kind are told once in a second */
    qtest_clock_step(d->qts, 2 * SECOND);
    g_assert_cmpint(balloon_next_change(d->qts), !=, -1);
    qtest_qmp_set_event_callback(d->qts, count_changes, &changes);
    balloon_snapshot(d->qts, "snapshot-load", "s");
    qtest_clock_step(d->qts, 2 * SECOND);
    g_assert_cmpint(balloon_query(d->qts), ==, ACTUAL_LEFT);
    g_assert_cmpuint(changes, ==, 0);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, TARGET_PAGES);
}

/* The held buffer is forgotten with its ring: it is none of the new one's */
static void reset_stats_queue(BalloonDriver *d)
{
    uint32_t head;

    g_assert_cmphex(d->vdev->features & 1ull << VIRTIO_F_RING_RESET, !=, 0);
    for (int i = 1; i < 4; i++) {
        balloon_leave_stats(d, i);
        balloon_reset_queue(d, STATS);
        balloon_renew_queue(d, STATS);
        balloon_set_interval(d->qts, 1);
        qtest_clock_step(d->qts, 3 * SECOND);
        g_assert_false(balloon_has_used(d, STATS));
        g_assert_cmpuint(balloon_stat(d->qts, "free-memory"), ==, i);

        head = balloon_leave_stats(d, 1000 + i);
        g_assert_false(balloon_has_used(d, STATS));
        qtest_clock_step(d->qts, 3 * SECOND);
        balloon_wait_served(d, STATS, head);
        g_assert_false(balloon_has_used(d, STATS));
        balloon_set_interval(d->qts, 0);
    }
    balloon_assert_works(d);
}

/* Every queue may be reset, used or not, and works as before */
static void reset_queues(BalloonDriver *d)
{
    static const int queues[] = { DEFLATE, HINT, REPORT_TOO };

    for (int i = 0; i < 2 * ARRAY_SIZE(queues); i++) {
        int queue = queues[i % ARRAY_SIZE(queues)];

        balloon_reset_queue(d, queue);
        balloon_renew_queue(d, queue);
        balloon_send_one(d, queue, AREA, BALLOON_PAGE, queue != DEFLATE);
    }
    balloon_assert_works(d);
}

/* Of statistics only the interval stays, and polling goes on */
static void machine_reset_stats(BalloonDriver *d)
{
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 2);
    balloon_leave_stats(d, 5);
    g_assert_cmpint(balloon_last_update(d->qts), !=, 0);

    balloon_machine_reset(d);
    g_assert_cmphex(balloon_stat(d->qts, "free-memory"), ==,
                    BALLOON_STAT_UNSET);
    g_assert_cmpint(balloon_last_update(d->qts), ==, 0);
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 2);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_leave_stats(d, 6);
    qtest_clock_step(d->qts, 2 * SECOND);
    balloon_wait_served(d, STATS, 0);
}

/*
 * The target is management's: it may be set before there is a driver, and no
 * reset changes it
 */
static void target_stays(BalloonDriver *d)
{
    balloon_set_target(d->qts, 64 * MiB);
    for (int i = 0; i < 3; i++) {
        balloon_start(d, BALLOON_ALL_FEATURES);
        g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
        if (i) {
            balloon_machine_reset(d);
        } else {
            balloon_reset(d);
        }
    }
}

#define FIRMWARE_SIZE (64 * KiB)
/* Where a processor begins */
#define FIRMWARE_ENTRY 0xfff0

/* ljmp $0xf000, $0 */
static const uint8_t entry[] = { 0xea, 0x00, 0x00, 0x00, 0xf0 };

/* cli; again: hlt; jmp again */
static const uint8_t nothing[] = { 0xfa, 0xf4, 0xeb, 0xfd };

/*
 * Writes actual as fast as it can: 1, 2, 3 and so on pages.  The balloon is in
 * slot 4, and its legacy registers go to ports from 0xc000 on.
 */
static const uint8_t busy[] = {
    0x66, 0xb8, 0x10, 0x20, 0x00, 0x80,     /* mov $0x80002010, %eax */
    0xba, 0xf8, 0x0c,                       /* mov $0xcf8, %dx */
    0x66, 0xef,                             /* out %eax, %dx: BAR 0 ... */
    0xb2, 0xfc,                             /* mov $0xfc, %dl */
    0x66, 0xb8, 0x01, 0xc0, 0x00, 0x00,     /* mov $0xc001, %eax */
    0x66, 0xef,                             /* out %eax, %dx: ... is there */
    0xb2, 0xf8,                             /* mov $0xf8, %dl */
    0x66, 0xb8, 0x04, 0x20, 0x00, 0x80,     /* mov $0x80002004, %eax */
    0x66, 0xef,                             /* out %eax, %dx: command ... */
    0xb2, 0xfc,                             /* mov $0xfc, %dl */
    0xb0, 0x05,                             /* mov $5, %al */
    0xee,                                   /* out %al, %dx: ... ports, DMA */
    0xba, 0x12, 0xc0,                       /* mov $0xc012, %dx */
    0xb0, 0x07,                             /* mov $7, %al */
    0xee,                                   /* out %al, %dx: DRIVER_OK */
    0xb2, 0x18,                             /* mov $0x18, %dl */
    0x66, 0x31, 0xc0,                       /* xor %eax, %eax */
    0x40,                                   /* again: inc %ax */
    0x66, 0xef,                             /* out %eax, %dx: actual */
    0xeb, 0xfb,                             /* jmp again */
};

/* How often the machine with that firmware has to end well */
#define ENDS 10

/* So long the clock runs before it is set back, and is followed after that */
#define RUN_ON_NS (4 * SECOND)
#define POLLED_AFTER_NS (3 * SECOND / 2)
#define STALLED_AFTER_NS (11 * SECOND / 2)

#define HPET 0xfed00000
#define HPET_CONFIG (HPET + 0x10)
#define HPET_COUNTER (HPET + 0xf0)
#define HPET_TICK_NS 10

/* Have a processor run @code, as its firmware */
static void make_firmware(const uint8_t *code, size_t size)
{
    g_autofree uint8_t *image = g_malloc0(FIRMWARE_SIZE);

    memcpy(image, code, size);
    memcpy(image + FIRMWARE_ENTRY, entry, sizeof(entry));
    g_assert_true(g_file_set_contents(balloon_file("firmware"), (char *)image,
                                      FIRMWARE_SIZE, NULL));
}

/*
 * QEMU ends properly while a processor is in the balloon's registers nearly
 * all the time.  What it uses after it was freed would be found out of reach
 * by chance only, so see to it.
 */
static void quit_busy(BalloonDriver *d)
{
    make_firmware(busy, sizeof(busy));
#ifndef QEMU_SANITIZE_ADDRESS
    balloon_preload("virtio-balloon-lifecycle-fence.so");
#endif
    for (int i = 0; i < ENDS; i++) {
        QTestState *qts = qtest_initf("%s -device %s,id=balloon0,addr=4",
                                      d->options, d->device);

        balloon_wait_for(balloon_query(qts) != RAM);
        qtest_quit(qts);
    }
    balloon_preload(NULL);
}

/* By the machine's own clock, in nanoseconds since it was started */
static int64_t clock_ns(QTestState *qts)
{
    return qtest_readl(qts, HPET_COUNTER) * (int64_t)HPET_TICK_NS;
}

/*
 * Polling and stalling take as long after the clock was set back as they do
 * otherwise.  Who is slow to look only gives the device more time.
 */
static void clock_set_back(BalloonDriver *d)
{
    int64_t before, start;

    make_firmware(nothing, sizeof(nothing));
    balloon_boot_and_start(d);
    balloon_add_disk(d->qts);
    balloon_begin_polling(d, 1, balloon_leave_stats(d, 4711));
    balloon_leave_stats(d, 4712);
    balloon_stop(d);
    qtest_writel(d->qts, HPET_CONFIG, 1);
    balloon_snapshot(d->qts, "snapshot-save", "s");
    balloon_cont(d);

    balloon_wait_for(clock_ns(d->qts) > RUN_ON_NS);
    balloon_set_target(d->qts, RAM / 2);
    /* The clock stands while the machine does, however slow the test is */
    balloon_stop(d);
    before = clock_ns(d->qts);
    balloon_snapshot(d->qts, "snapshot-load", "s");
    start = clock_ns(d->qts);
    g_assert_cmpint(start, <, before - RUN_ON_NS / 2);
    balloon_set_target(d->qts, RAM / 2);
    balloon_cont(d);

    balloon_wait_for(clock_ns(d->qts) > start + POLLED_AFTER_NS);
    g_assert_true(balloon_has_used(d, STATS));
    balloon_wait_for(clock_ns(d->qts) > start + STALLED_AFTER_NS);
    balloon_assert_state(d->qts, "stalled", NULL);
}

#define RUNNING "-accel tcg -m 128 -nodefaults -bios $FILES/firmware"

static const BalloonTest tests[] = {
    { "improved/reset/device", balloon_test_end_is_told,
      .data = balloon_reset },
    { "improved/reset/machine", balloon_test_end_is_told,
      .data = reset_machine },
    { "reset/machine/stats", machine_reset_stats,
      PLAIN ",guest-stats-polling-interval=2" },
    { "reset/target-stays", target_stays, .unstarted = true },
    { "improved/reset/config", config_is_forgotten },
    { "improved/reset/stats-of-the-gone", stats_of_the_gone, PLAIN LEGACY },
    { "reset/sleep", sleep_is_none },
    { "reset/shut-down", shut_down, PLAIN, MEMORY "-action shutdown=pause" },
    { "reset/snapshot", snapshot },
    { "improved/reset/stats-queue", reset_stats_queue },
    { "reset/queues", reset_queues, ALL_QUEUES },
    { "improved/running/quit", quit_busy, .options = RUNNING, .bare = true },
    { "improved/running/clock-set-back", clock_set_back, .options = RUNNING,
      .bare = true },
};

BALLOON_TESTS("", NULL, tests)
