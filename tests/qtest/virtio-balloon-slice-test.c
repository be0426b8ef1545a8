/*
 * Requests to the virtio balloon that take long, and what may come between
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqos/pci-pc.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-test.h"

#define DEVICE "virtio-balloon-pci"
#define OPTIONS "-machine pc -m 128"
#define SLOT 4
#define INFLATE BALLOON_VQ_INFLATE
#define SIZE (BALLOON_HUGE_PAGES * BALLOON_PAGE)

/* Leave a long request for every second page at @mem */
static uint32_t post(BalloonDriver *d, uint64_t mem)
{
    qtest_memset(d->qts, mem, 0xa5, SIZE);
    return balloon_post_huge(d, mem, BALLOON_HUGE_MAX);
}

static bool begun(BalloonDriver *d, uint64_t mem)
{
    return qtest_readb(d->qts, mem) == 0;
}

/* The same, and the device is in the middle of it */
static uint32_t begin(BalloonDriver *d, uint64_t *mem)
{
    uint32_t head;

    *mem = guest_alloc(d->alloc, SIZE);
    head = post(d, *mem);
    balloon_wait_for(begun(d, *mem));
    return head;
}

/* All that was listed, nothing else, and one answer */
static void assert_served(BalloonDriver *d, uint64_t mem, uint32_t head)
{
    balloon_wait_used(d, INFLATE, head);
    for (int i = 0; i < BALLOON_HUGE_PAGES; i += 2) {
        balloon_assert_pages(d, mem + i * BALLOON_PAGE, "0x");
    }
    qtest_qmp_assert_success(d->qts, "{'execute': 'query-status'}");
    g_assert_false(balloon_has_used(d, INFLATE));
}

/* The guest uses the memory again, and so it stays, whatever time it is */
static void assert_given_back(BalloonDriver *d, uint64_t mem)
{
    qtest_memset(d->qts, mem, 0x3c, SIZE);
    for (int i = 0; i < 10; i++) {
        qtest_clock_step(d->qts, 100 * 1000 * 1000);
        balloon_assert_bytes(d, mem, SIZE, 0x3c);
    }
}

/*
 * QEMU answers while it is at it: work is seen that is not done yet.  A test
 * that was slow to ask may ask again.
 */
static void bounded(BalloonDriver *d)
{
    uint64_t mem = guest_alloc(d->alloc, SIZE);
    bool half_done = false;

    for (int i = 0; i < 3 && !half_done; i++) {
        uint32_t head = post(d, mem);

        balloon_wait_for(begun(d, mem));
        half_done = !balloon_has_used(d, INFLATE);
        assert_served(d, mem, head);
    }
    g_assert_true(half_done);
}

/* While the VM is stopped, its memory does not change */
static void stop(BalloonDriver *d)
{
    uint64_t mem;
    uint32_t head = begin(d, &mem);

    balloon_stop(d);
    assert_given_back(d, mem);
    balloon_cont(d);
    balloon_wait_used(d, INFLATE, head);
    balloon_assert_bytes(d, mem + BALLOON_PAGE, BALLOON_PAGE, 0x3c);
}

/*
 * What can be finished when the VM stops is, and the guest is told.  A VM that
 * stops later has nothing to finish, so there are some attempts.
 */
static void finish(BalloonDriver *d)
{
    uint64_t mem = guest_alloc(d->alloc, SIZE);

    for (int round = 0; round < 10; round++) {
        uint32_t head;

        qtest_memset(d->qts, mem, 0xa5, SIZE);
        head = balloon_post_huge(d, mem, 1);
        balloon_stop(d);
        balloon_cont(d);
        balloon_wait_served(d, INFLATE, head);
        balloon_assert_pages(d, mem, "0x0x0x0x");
    }
}

/* A request is forgotten with its ring */
static void reset(BalloonDriver *d)
{
    uint64_t mem;

    begin(d, &mem);
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    assert_given_back(d, mem);
    g_assert_false(balloon_has_used(d, INFLATE));
    balloon_send_range(d, INFLATE, mem, 1);
    balloon_assert_bytes(d, mem, BALLOON_PAGE, 0);
    balloon_assert_bytes(d, mem + BALLOON_PAGE, BALLOON_PAGE, 0x3c);
}

static void unplug(BalloonDriver *d)
{
    uint64_t mem;

    begin(d, &mem);
    balloon_lose(d);
    qpci_unplug_acpi_device_test(d->qts, "balloon0", SLOT);
    assert_given_back(d, mem);
}

/* What is begun here is answered there */
static void migrate_away(BalloonDriver *d)
{
    uint64_t mem;
    uint32_t head = begin(d, &mem);

    balloon_move(d, DEVICE, OPTIONS);
    assert_served(d, mem, head);
}

/* QEMU may end at any time: it must not fail, which kills the test */
static void quit(BalloonDriver *d)
{
    uint64_t mem;

    begin(d, &mem);
}

static const BalloonTest tests[] = {
    { "slice/quit", quit },
    { "improved/slice/bounded", bounded },
    { "slice/stop", stop },
    { "slice/finish", finish },
    { "slice/reset", reset },
    { "slice/unplug", unplug },
    { "slice/migrate", migrate_away, .options = OPTIONS },
};

void virtio_balloon_add_slice_tests(void)
{
    balloon_add_tests(NULL, tests, ARRAY_SIZE(tests));
}
