/*
 * Migration of the virtio balloon; also when the target is lost, or does not
 * take what it gets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"
#include "standard-headers/linux/virtio_ring.h"

/* What the guest can see arrives, what management set up does not */
static void round_trip(BalloonDriver *d)
{
    uint64_t mem;

    balloon_reset(d);
    balloon_start_poison(d, 0xaabbccdd);
    balloon_set_target(d->qts, 64 * MiB);
    balloon_set_interval(d->qts, 10);
    mem = balloon_dirty_pages(d, 4);
    balloon_send_range(d, INFLATE, mem, 2);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x1234);

    balloon_move(d);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL), ==, 0x1234);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - 0x1234000);
    if (d->vdev->features & 1ull << VIRTIO_BALLOON_F_PAGE_POISON) {
        g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0xaabbccdd);
    }
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 0);

    /* the queues go on */
    balloon_assert_pages(d, mem, "00xx");
    balloon_deflate(d, mem, 2 * BALLOON_PAGE);
    balloon_assert_works(d);
}

/* The buffer that the device held is held by the new one, and polled */
static void held_buffer(BalloonDriver *d)
{
    uint32_t head = balloon_leave_stats(d, 42);

    for (int hop = 0; hop < 2; hop++) {
        balloon_move(d);
        g_assert_cmpint(balloon_get_interval(d->qts), ==, 0);
        g_assert_false(balloon_has_used(d, STATS));
    }
    balloon_begin_polling(d, 1, head);
    for (int i = 0; i < 3; i++) {
        head = balloon_leave_stats(d, 43 + i);
        qtest_clock_step(d->qts, SECOND);
        balloon_wait_served(d, STATS, head);
    }
}

/* What a held buffer says is old, and stays */
static void held_values(BalloonDriver *d)
{
    uint32_t head = balloon_leave_stats(d, 42);

    balloon_move(d);
    balloon_begin_polling(d, 1, head);
    g_assert_cmphex(balloon_free_memory(d->qts), ==, BALLOON_STAT_UNSET);
    g_assert_cmpint(balloon_last_update(d->qts), ==, 0);
}

/*
 * Leave as many requests as fit, which take long, on queue @data.  Returns:
 * whether some had no answer when the guest left
 */
static bool leave_in_flight(BalloonDriver *d)
{
    int queue = GPOINTER_TO_INT(d->data);
    enum { REQUESTS = 16, SEGS = 8, PAGES = 1024 };
    g_autofree uint32_t *pfns = g_new(uint32_t, BALLOON_HUGE_PFNS);
    uint64_t mem = balloon_dirty_pages(d, PAGES + 1);
    BalloonSeg segs[SEGS];
    uint64_t list;
    int here;

    for (unsigned i = 0; i < BALLOON_HUGE_PFNS; i++) {
        pfns[i] = BALLOON_PFN(mem) + (i * 77) % PAGES;
    }
    list = balloon_copy_pfns(d, pfns, BALLOON_HUGE_PFNS);
    for (int i = 0; i < SEGS; i++) {
        segs[i] = (BalloonSeg) { list, BALLOON_HUGE_PFNS * sizeof(*pfns) };
    }
    balloon_free_descriptors(d, queue);
    for (int i = 0; i < REQUESTS; i++) {
        balloon_publish(d, queue, balloon_add(d, queue, segs, SEGS));
    }
    balloon_kick(d, queue);
    if (queue == DEFLATE) {
        /* These are soon done */
        balloon_stop(d);
    }
    balloon_migrate(d->qts);
    for (here = 0; here < REQUESTS && balloon_has_used(d, queue); here++) {
        balloon_wait_used(d, queue, here * SEGS);
    }
    balloon_arrive(d, NULL);
    balloon_cont(d);
    for (int i = here; i < REQUESTS; i++) {
        balloon_wait_used(d, queue, i * SEGS);
    }
    balloon_query(d->qts);
    g_assert_false(balloon_has_used(d, queue));
    balloon_assert_bytes(d, mem, PAGES * BALLOON_PAGE,
                         queue == INFLATE ? 0 : OLD);
    balloon_assert_pages(d, mem + PAGES * BALLOON_PAGE, "x");
    guest_free(d->alloc, mem);
    guest_free(d->alloc, list);
    return here < REQUESTS;
}

/* Every request is answered exactly once, here or there */
static void requests_in_flight(BalloonDriver *d)
{
    balloon_come_between(d, leave_in_flight);
}

/*
 * A guest whose target is lost goes on where it is: it has its hinted pages
 * back, what is in the balloon is known, and the next migration brings all of
 * its memory.  FREE is hinted at, of what is before it half is in the balloon.
 */
#define FREE AREA
#define FREE_SIZE (4 * MiB)
#define HELD (FREE - 8 * MiB)
#define HELD_SIZE (2 * MiB)
#define BESIDE (HELD + HELD_SIZE)

/* It ends when nothing of it was read yet ... */
static void lose_in_setup(BalloonDriver *d)
{
    balloon_set_bandwidth(d->qts, 0);
    close(balloon_migrate_connect(d->qts));
}

/* A hint waits for who sends memory, and that for who reads it: read on */
static void read_until_served(BalloonDriver *d, int stream, uint32_t head)
{
    balloon_wait_for((balloon_migrate_pass(stream, 64 * KiB),
                      balloon_has_used(d, HINT)));
    balloon_wait_served(d, HINT, head);
}

/* A migration in which hints count from now on.  Returns: its stream */
static int begin_hints(BalloonDriver *d, int64_t bandwidth)
{
    int stream;

    balloon_set_bandwidth(d->qts, bandwidth);
    stream = balloon_migrate_connect(d->qts);
    read_until_served(d, stream, balloon_post_id(d, balloon_wait_asked(d),
                                                 sizeof(uint32_t)));
    return stream;
}

/* ... or when some of the memory was, in the middle of hints */
static void lose_in_active(BalloonDriver *d)
{
    BalloonSeg free = { FREE, FREE_SIZE, true };
    int stream = begin_hints(d, 1 * MiB);

    read_until_served(d, stream, balloon_post(d, HINT, &free, 1));
    balloon_migrate_pass(stream, 3 * MiB);
    close(stream);
}

static void set_driver_ok(BalloonDriver *d)
{
    qvirtio_set_driver_ok(d->vdev);
}

static void cont_and_be_done(BalloonDriver *d)
{
    balloon_cont(d);
    balloon_wait_done(d);
}

typedef struct Pause {
    void (*begin)(BalloonDriver *d);
    void (*end)(BalloonDriver *d);
} Pause;

/* A pause while a hint waits: the driver has it back later, and once */
static void pause_in_hint(BalloonDriver *d)
{
    const Pause *pause = d->data;
    BalloonSeg free = { FREE, FREE_SIZE, true };
    int stream = begin_hints(d, 16 * GiB);
    uint32_t head = balloon_post(d, HINT, &free, 1);

    pause->begin(d);
    close(stream);
    balloon_wait_for(balloon_migration_is(d->qts, "failed"));
    pause->end(d);
    balloon_wait_used(d, HINT, head);
    g_assert_false(balloon_has_used(d, HINT));
    qtest_memset(d->qts, FREE, NEW, FREE_SIZE);
    balloon_move(d);
    balloon_assert_bytes(d, FREE, FREE_SIZE, NEW);
}

/* ... and elsewhere, if it is there that the VM goes on */
static void stop_and_leave_in_hint(BalloonDriver *d)
{
    BalloonSeg free = { FREE, FREE_SIZE, true };
    int stream = begin_hints(d, 16 * GiB);
    uint32_t head = balloon_post(d, HINT, &free, 1);
    bool used;

    balloon_stop(d);
    used = balloon_has_used(d, HINT);
    balloon_migrate_end(d->qts, stream);
    /* The memory of a machine that is stopped does not change */
    g_assert_cmpint(balloon_has_used(d, HINT), ==, used);
    balloon_arrive(d, NULL);
    balloon_cont(d);
    balloon_wait_used(d, HINT, head);
}

/* The target ends when it has all memory and is to get the devices */
static void lose_in_device(BalloonDriver *d)
{
    g_autofree char *uri = g_strconcat("unix:", balloon_file("socket"), NULL);
    BalloonDriver target;

    balloon_boot_incoming(&target, d->device, d->options);
    balloon_migrate_incoming(target.qts, uri);
    balloon_set_capability(d->qts, "pause-before-switchover", true);
    balloon_set_bandwidth(d->qts, 1 * MiB);
    balloon_migrate_to(d->qts, uri);
    balloon_send_id(d, balloon_wait_asked(d));
    balloon_hint(d, FREE, FREE_SIZE);
    balloon_set_bandwidth(d->qts, 16 * GiB);
    balloon_wait_for(balloon_migration_is(d->qts, "pre-switchover"));
    balloon_quit(&target);
    balloon_migrate_continue(d->qts);
    balloon_wait_for(balloon_migration_is(d->qts, "failed"));
    balloon_set_capability(d->qts, "pause-before-switchover", false);
}

static void lost(BalloonDriver *d)
{
    void (*lose)(BalloonDriver *d) = d->data;

    qtest_memset(d->qts, HELD, OLD, FREE + FREE_SIZE - HELD);
    balloon_inflate(d, HELD, HELD_SIZE);
    for (int i = 0; i < 2; i++) {
        lose(d);
        balloon_wait_for(balloon_migration_is(d->qts, "failed"));
        balloon_wait_for(balloon_vm_is_running(d->qts));
        balloon_wait_done(d);
        balloon_assert_bytes(d, BESIDE, FREE - BESIDE, OLD);
        balloon_assert_serves(d);
    }
    balloon_move(d);
    balloon_assert_bytes(d, HELD, HELD_SIZE, 0);
    balloon_assert_bytes(d, BESIDE, FREE + FREE_SIZE - BESIDE, OLD);
    balloon_assert_serves(d);
}

/*
 * QEMU is killed while it serves a request; the guest goes on from what was
 * saved before, where all its memory is and no request was made yet.
 */
static void killed(BalloonDriver *d)
{
    const uint64_t size = 2 * BALLOON_HUGE_PAGES * BALLOON_PAGE;
    /* What libqtest knows of it stays: it cannot end a process that has gone */
    static BalloonDriver source;
    pid_t pid = qtest_pid(d->qts);
    uint64_t pages = balloon_alloc(d, size, OLD);

    balloon_migrate(d->qts);
    balloon_cont(d);
    balloon_post_huge(d, pages, BALLOON_HUGE_MAX);
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    qtest_remove_abrt_handler(d->qts);

    source = *d;
    balloon_load(d, &source, NULL);
    /* The rings are as they were saved, and so are the driver's numbers */
    balloon_assert_bytes(d, pages, size, OLD);
    g_assert_false(balloon_has_used(d, INFLATE));
    balloon_restart(d);
    balloon_assert_serves(d);
}

/* A queue that the source does not have is as it was, for the next driver */
static void fewer_queues(BalloonDriver *d)
{
    BalloonDriver source = *d;

    /* How large rings may be is saved if one is not that large */
    source.vq[STATS]->size /= 2;
    balloon_place_ring(&source, STATS);
    balloon_migrate(source.qts);
    balloon_boot_incoming(d, REPORTING, source.options);
    g_assert_true(balloon_try_load(d->qts));
    balloon_adopt(d, &source);
    balloon_quit(&source);
    balloon_cont(d);
    balloon_restart(d);
    balloon_send_one(d, REPORT, AREA, BALLOON_PAGE, true);
}

static void break_device(BalloonDriver *d)
{
    balloon_publish(d, INFLATE, UINT16_MAX);
    balloon_kick(d, INFLATE);
    balloon_wait_broken(d);
}

/* The next kernel may do as much before it resets the device */
static void end_and_enable(BalloonDriver *d)
{
    balloon_end_bus_master(d);
    balloon_set_bus_master(d, true);
}

/*
 * The rings of a driver that has gone, or whose device is broken, may be memory
 * that the guest uses: its next kernel, for instance
 */
static void rings_reused(BalloonDriver *d)
{
    void (*end)(BalloonDriver *d) = d->data;

    balloon_assert_serves(d);
    end(d);
    qtest_memset(d->qts, d->vq[INFLATE]->used, NEW, sizeof(struct vring_used));
    balloon_move(d);
    balloon_set_bus_master(d, true);
    balloon_assert_next_driver(d);
}

static const BalloonTest tests[] = {
    { "migration/default", round_trip },
    { "migration/no-poison", round_trip, PLAIN ",page-poison=off" },
    { "migration/all", round_trip, ALL_QUEUES ",deflate-on-oom=on" },
    { "migration/legacy", round_trip, PLAIN LEGACY },
    { "migration/3.1", round_trip, .machine = "pc-i440fx-3.1" },
    { "migration/4.0", round_trip, .machine = "pc-i440fx-4.0" },
    { "migration/5.0", round_trip, .machine = "pc-i440fx-5.0" },
    { "migration/9.2", round_trip, .machine = "pc-i440fx-9.2" },
    { "migration/held-buffer", held_buffer },
    { "improved/migration/held-values", held_values },
    { "improved/migration/fewer-queues", fewer_queues },
    { "improved/migration/rings-reused/gone", rings_reused,
      .data = balloon_end_bus_master },
    { "improved/migration/rings-reused/enabled-again", rings_reused,
      .data = end_and_enable },
    { "improved/migration/rings-reused/broken", rings_reused,
      .data = break_device },
    { "migration/requests-in-flight", requests_in_flight,
      .data = GINT_TO_POINTER(INFLATE) },
    { "migration/deflates-in-flight", requests_in_flight,
      .data = GINT_TO_POINTER(DEFLATE) },
};

static const BalloonTest lost_tests[] = {
    { "improved/migration/lost/setup", lost, .data = lose_in_setup },
    { "improved/migration/lost/active", lost, .data = lose_in_active },
    { "improved/migration/lost/device", lost, .data = lose_in_device },
    { "improved/hint/stop", pause_in_hint,
      .data = &(Pause) { balloon_stop, cont_and_be_done } },
    { "improved/hint/gone", pause_in_hint,
      .data = &(Pause) { balloon_clear_driver_ok, set_driver_ok } },
    { "improved/hint/stop-and-leave", stop_and_leave_in_hint, HINTING KICKED },
    { "improved/reset/killed", killed },
};

BALLOON_TESTS("", NULL, tests)
BALLOON_TESTS("", HINTING ",must-tell-host=on", lost_tests)
