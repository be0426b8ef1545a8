/*
 * A virtio balloon beside assigned devices, on a host that does not let them
 * have all memory
 *
 * What the guest is to have is waited for: a deflate is not answered, and where
 * the guest does not ask the machine stands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"

#define GRANULE HUGE
/* Most of the memory, around AREA */
#define MANY 32
#define MANY_AREA (AREA / 2)

#define NO_MEMORY "Cannot allocate memory"
#define NO_ROOM "No space left on device"

/* One more granule can be mapped, and then none, because of @error */
static void limit(const char *error)
{
    if (g_str_equal(error, NO_MEMORY)) {
        balloon_vfio_limit(GRANULE);
    } else {
        balloon_vfio->max_mappings = balloon_vfio->n + 1;
    }
}

/* A deflate of two granules that is not answered: one fails, with @error */
static uint32_t post_held(BalloonDriver *d, const char *error)
{
    uint32_t head;

    balloon_give(d, AREA, 2 * GRANULE);
    limit(error);
    qtest_clock_step(d->qts, 2 * SECOND);
    head = balloon_post_range(d, DEFLATE, AREA, 2 * GRANULE / BALLOON_PAGE);
    balloon_wait_held_event(d->qts, error);
    balloon_assert_held(d->qts, GRANULE, error);
    balloon_vfio_assert(AREA, GRANULE, true);
    balloon_vfio_assert(AREA + GRANULE, GRANULE, false);
    g_assert_false(balloon_has_used(d, DEFLATE));
    return head;
}

/*
 * What cannot be had is waited for: what can is kept, the rest of the balloon
 * is served, and nobody else notices
 */
static void held(BalloonDriver *d)
{
    uint32_t head = post_held(d, d->data);
    uint32_t refused;

    balloon_inflate(d, AREA + 2 * GRANULE, MiB);
    refused = balloon_vfio->refused;
    balloon_wait_for(balloon_vfio->refused > refused + 1);
    g_assert_true(balloon_vm_is_running(d->qts));
    g_assert_false(balloon_has_used(d, DEFLATE));
    balloon_vfio_lift_limits();
    balloon_wait_served(d, DEFLATE, head);
    balloon_wait_not_held_event(d->qts);
    g_assert_false(balloon_is_held(d->qts));
    balloon_vfio_assert(AREA, 4 * GRANULE, true);
}

/* The machine stops and goes on meanwhile: so does the deflate */
static void held_stop(BalloonDriver *d)
{
    uint32_t head = post_held(d, NO_MEMORY);

    balloon_stop(d);
    balloon_wait_not_held_event(d->qts);
    g_assert_false(balloon_is_held(d->qts));
    balloon_cont(d);
    balloon_wait_held_event(d->qts, NO_MEMORY);
    balloon_assert_held(d->qts, GRANULE, NO_MEMORY);
    balloon_vfio_lift_limits();
    balloon_wait_served(d, DEFLATE, head);
    balloon_wait_not_held_event(d->qts);
    balloon_vfio_assert(AREA, 4 * GRANULE, true);
}

/* All of the memory is the guest's, and the machine runs if it did */
static void wait_populated(BalloonDriver *d, uint64_t all)
{
    balloon_wait_for(balloon_vm_is_running(d->qts));
    g_assert_cmpuint(balloon_vfio->bytes, ==, all);
    g_assert_false(balloon_is_held(d->qts));
}

/* After a reset every page may be used at once */
static void reset(BalloonDriver *d)
{
    uint64_t all = balloon_vfio->bytes;

    for (int i = 0; i < 3; i++) {
        balloon_give(d, MANY_AREA, MANY * GRANULE);
        g_assert_cmpuint(balloon_vfio->bytes, ==, all - MANY * GRANULE);
        if (i == 2) {
            qtest_system_reset(d->qts);
            wait_populated(d, all);
            break;
        }
        balloon_reset(d);
        wait_populated(d, all);
        balloon_start(d, BALLOON_ALL_FEATURES);
    }
}

/*
 * The guest gives most of its memory, and the host keeps all but a granule,
 * because of @error.  Returns: how much the guest had
 */
static uint64_t give_many(BalloonDriver *d, const char *error)
{
    uint64_t all = balloon_vfio->bytes;

    balloon_give(d, MANY_AREA, MANY * GRANULE);
    limit(error);
    return all;
}

/* Where that fails the machine stands, whoever would have it go on, or not */
static void check_hold(BalloonDriver *d, uint64_t all)
{
    const uint64_t missing = (MANY - 1) * GRANULE;

    qtest_qmp_eventwait(d->qts, "STOP");
    g_assert_false(balloon_vm_is_running(d->qts));
    g_assert_cmpuint(balloon_vfio->bytes, ==, all - missing);
    balloon_assert_held(d->qts, missing, NO_MEMORY);
    balloon_cont(d);
    qtest_qmp_eventwait(d->qts, "RESUME");
    qtest_qmp_eventwait(d->qts, "STOP");
    g_assert_false(balloon_vm_is_running(d->qts));
    balloon_stop(d);
    balloon_vfio_lift_limits();
    qtest_qmp_eventwait(d->qts, "RESUME");
    wait_populated(d, all);
}

static void hold(BalloonDriver *d)
{
    void (*how)(BalloonDriver *d) = d->data;
    uint64_t all = give_many(d, NO_MEMORY);

    how(d);
    check_hold(d, all);
    balloon_lose(d);
    balloon_find(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_give(d, AREA, 2 * GRANULE);
    balloon_vfio_assert(AREA, 2 * GRANULE, false);
}

static void end_machine(BalloonDriver *d)
{
    qtest_qmp_assert_success(d->qts, "{'execute': 'system_reset'}");
}

/* A machine that was stopped by somebody stays so */
static void hold_stopped(BalloonDriver *d)
{
    uint64_t all = give_many(d, NO_MEMORY);

    balloon_stop(d);
    qtest_qmp_eventwait(d->qts, "STOP");
    balloon_set_bus_master(d, false);
    g_assert_true(balloon_is_held(d->qts));
    balloon_vfio_lift_limits();
    balloon_wait_for(!balloon_is_held(d->qts));
    g_assert_cmpuint(balloon_vfio->bytes, ==, all);
    g_assert_false(balloon_vm_is_running(d->qts));
    balloon_cont(d);
    g_assert_true(balloon_vm_is_running(d->qts));
}

/* Without its balloon a machine has all its memory, even if that takes time */
static void hold_unplugged(BalloonDriver *d)
{
    uint64_t all = give_many(d, NO_MEMORY);

    balloon_unplug(d);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
    balloon_vfio_lift_limits();
    balloon_wait_for(balloon_vm_is_running(d->qts));
    g_assert_cmpuint(balloon_vfio->bytes, ==, all);
    balloon_plug(d, "{'must-tell-host': true, 'coordinated-discards': true}");
}

/* The driver goes away while its request is held */
static void hold_held(BalloonDriver *d)
{
    uint64_t all = balloon_vfio->bytes;

    post_held(d, NO_MEMORY);
    qvirtio_start_device(d->vdev);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
    balloon_assert_held(d->qts, GRANULE, NO_MEMORY);
    balloon_vfio_lift_limits();
    wait_populated(d, all);
}

/*
 * Wait to be told that memory waits while the machine stands.  Here an event
 * that comes soon after another waits for the guest's time, which cont lets go
 * on for a moment.
 */
static void wait_hold_told(BalloonDriver *d)
{
    balloon_wait_for((qtest_clock_step(d->qts, 2 * SECOND), balloon_cont(d),
                      balloon_was_held_told(d->qts, NO_MEMORY)));
    qtest_clock_step(d->qts, 2 * SECOND);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
}

/* A device that comes cannot have the memory: the machine stands as well */
static void hold_plugged(BalloonDriver *d)
{
    uint64_t all;

    balloon_give(d, AREA, 2 * GRANULE);
    balloon_plug_vfio(d->qts);
    all = balloon_vfio->bytes;
    balloon_unplug_vfio(d->qts);
    balloon_vfio->max_bytes = 64 * MiB;
    qtest_clock_step(d->qts, 2 * SECOND);
    balloon_plug_vfio(d->qts);
    wait_hold_told(d);
    /* All that it is to have, which is not what the balloon has */
    balloon_assert_held(d->qts, all - balloon_vfio->bytes, NO_MEMORY);
    balloon_vfio_lift_limits();
    wait_populated(d, all);
    balloon_wait_not_held_event(d->qts);
    balloon_vfio_assert(AREA, 2 * GRANULE, false);
    balloon_vfio_assert(AREA + 2 * GRANULE, 2 * GRANULE, true);
    balloon_deflate(d, AREA, 2 * GRANULE);
    balloon_vfio_assert(AREA, 4 * GRANULE, true);
    balloon_unplug_vfio(d->qts);
    g_assert_cmpuint(balloon_vfio->bytes, ==, 0);
}

/* The device goes that could not have the memory: nobody waits any more */
static void hold_unassigned(BalloonDriver *d)
{
    balloon_plug_vfio(d->qts);
    give_many(d, NO_MEMORY);
    balloon_end_bus_master(d);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
    balloon_unplug_vfio(d->qts);
    g_assert_false(balloon_is_held(d->qts));
    balloon_wait_for(balloon_vm_is_running(d->qts));
    balloon_vfio_lift_limits();
    balloon_plug_vfio(d->qts);
    balloon_vfio_assert(MANY_AREA, MANY * GRANULE, true);
}

/* It comes while the guest sleeps: that does not wake up without its memory */
static void hold_asleep(BalloonDriver *d)
{
    balloon_vfio->max_bytes = 64 * MiB;
    balloon_sleep(d);
    balloon_plug_vfio(d->qts);
    balloon_wake(d);
    qtest_qmp_eventwait(d->qts, "STOP");
    balloon_vfio_lift_limits();
    qtest_qmp_eventwait(d->qts, "RESUME");
    g_assert_false(balloon_is_held(d->qts));
}

/* A dump that has begun meanwhile is of a machine that stands to its end */
static void hold_dump(BalloonDriver *d)
{
    char data[64 * KiB];
    int fds[2];

    balloon_give(d, AREA, 2 * GRANULE);
    balloon_vfio_limit(GRANULE);
    balloon_end_bus_master(d);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
    g_assert_cmpint(pipe(fds), ==, 0);
    qtest_qmp_fds_assert_success(d->qts, &fds[1], 1, "{'execute': 'getfd',"
                                 " 'arguments': {'fdname': 'dump'}}");
    close(fds[1]);
    qtest_qmp_assert_success(
        d->qts, "{'execute': 'dump-guest-memory', 'arguments':"
        " {'paging': false, 'protocol': 'fd:dump', 'detach': true}}");
    balloon_vfio_lift_limits();
    balloon_wait_for(!balloon_is_held(d->qts));
    g_assert_false(balloon_vm_is_running(d->qts));
    while (read(fds[0], data, sizeof(data)) > 0) {
        continue;
    }
    close(fds[0]);
    balloon_wait_for(balloon_vm_is_running(d->qts));
}

/* What helps is said, where the host has room for no more pieces */
static void hold_pieces(BalloonDriver *d)
{
    uint64_t all = give_many(d, NO_ROOM);

    balloon_end_bus_master(d);
    qtest_qmp_eventwait(d->qts, "STOP");
    balloon_wait_for(balloon_count_in_file("log", "larger discard-granule"));
    balloon_vfio_lift_limits();
    qtest_qmp_eventwait(d->qts, "RESUME");
    wait_populated(d, all);
}

static const BalloonTest tests[] = {
    { "held/bytes", held, .data = NO_MEMORY, .vfio = VFIO_ASSIGNED },
    { "held/mappings", held, .data = NO_ROOM, .vfio = VFIO_ASSIGNED },
    { "held/stop", held_stop, .vfio = VFIO_ASSIGNED },
    { "reset", reset, .vfio = VFIO_ASSIGNED },
    { "hold/device", hold, .data = balloon_end_bus_master,
      .vfio = VFIO_ASSIGNED },
    { "hold/machine", hold, .data = end_machine, .vfio = VFIO_ASSIGNED },
    { "hold/pieces", hold_pieces, .options = MEMORY " 2> $FILES/log",
      .vfio = VFIO_ASSIGNED },
    { "hold/stopped", hold_stopped, .vfio = VFIO_ASSIGNED },
    { "hold/unplugged", hold_unplugged, .vfio = VFIO_ASSIGNED },
    { "hold/held", hold_held, .vfio = VFIO_ASSIGNED },
    { "hold/plugged", hold_plugged, .vfio = VFIO_HOST },
    { "hold/unassigned", hold_unassigned, .vfio = VFIO_HOST },
    { "hold/asleep", hold_asleep, .vfio = VFIO_HOST },
    { "hold/dump", hold_dump, .vfio = VFIO_ASSIGNED },
};

BALLOON_TESTS("improved/coordinated/", COORDINATED, tests)
