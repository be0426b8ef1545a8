/*
 * A virtio balloon in a machine whose processor and clock run
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define RAM BALLOON_RAM
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
#define RUN_ON_NS (4 * NANOSECONDS_PER_SECOND)
#define POLLED_BY_NS (2 * NANOSECONDS_PER_SECOND)
#define STALLED_BY_NS (6 * NANOSECONDS_PER_SECOND)

#define HPET 0xfed00000
#define HPET_CONFIG (HPET + 0x10)
#define HPET_COUNTER (HPET + 0xf0)
#define HPET_TICK_NS 10

/* Options for a processor that runs @code, in a file that the caller removes */
static char *options_running(const uint8_t *code, size_t size, char **path)
{
    g_autofree uint8_t *image = g_malloc0(FIRMWARE_SIZE);

    memcpy(image, code, size);
    memcpy(image + FIRMWARE_ENTRY, entry, sizeof(entry));
    *path = balloon_temp_name("firmware");
    g_assert_true(g_file_set_contents(*path, (char *)image, FIRMWARE_SIZE,
                                      NULL));
    return g_strdup_printf("-accel tcg -m 128 -nodefaults -bios %s", *path);
}

/*
 * QEMU ends properly while a processor is in the balloon's registers nearly
 * all the time.  What it uses after it was freed would be found out of reach
 * by chance only, so see to it.
 */
static void test_quit_busy(void)
{
    g_autofree char *path = NULL;
    g_autofree char *options = options_running(busy, sizeof(busy), &path);

#ifndef QEMU_SANITIZE_ADDRESS
    balloon_preload("virtio-balloon-lifecycle-fence.so");
#endif
    for (int i = 0; i < ENDS; i++) {
        QTestState *qts = qtest_initf("%s -device virtio-balloon-pci,"
                                      "id=balloon0,addr=4", options);

        balloon_wait_for(balloon_query(qts) != RAM);
        qtest_quit(qts);
    }
    balloon_preload(NULL);
    unlink(path);
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
static void test_clock_set_back(void)
{
    g_autofree char *disk = balloon_temp_name("disk");
    g_autofree char *path = NULL;
    g_autofree char *options = options_running(nothing, sizeof(nothing),
                                               &path);
    BalloonDriver d;

    balloon_boot(&d, NULL, options);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_add_disk(d.qts, disk);
    balloon_leave_stats(&d, 4711);
    balloon_set_interval(d.qts, 1);
    balloon_wait_used(&d, BALLOON_VQ_STATS, 0);
    balloon_leave_stats(&d, 4712);
    balloon_stop(&d);
    qtest_writel(d.qts, HPET_CONFIG, 1);
    balloon_snapshot(d.qts, "snapshot-save", "s");
    balloon_cont(&d);

    balloon_wait_for(clock_ns(d.qts) > RUN_ON_NS);
    balloon_set_target(d.qts, RAM / 2);
    balloon_snapshot(d.qts, "snapshot-load", "s");
    g_assert_cmpint(clock_ns(d.qts), <, RUN_ON_NS);
    balloon_set_target(d.qts, RAM / 2);

    balloon_wait_for(clock_ns(d.qts) > POLLED_BY_NS);
    g_assert_true(balloon_has_used(&d, BALLOON_VQ_STATS));
    balloon_wait_for(clock_ns(d.qts) > STALLED_BY_NS);
    balloon_assert_state(d.qts, "stalled", NULL);
    balloon_quit(&d);
    unlink(path);
    unlink(disk);
}

void balloon_add_running_tests(void)
{
    if (!qtest_has_accel("tcg")) {
        return;
    }
    qtest_add_func("/virtio-balloon/improved/running/quit", test_quit_busy);
    qtest_add_func("/virtio-balloon/improved/running/clock-set-back",
                   test_clock_set_back);
}
