/*
 * A virtio balloon beside assigned devices: coordinated discards
 *
 * What is in the balloon is not mapped for the device, and all that the guest
 * may use is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qjson.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"
#include "virtio-balloon-migrate.h"

#define COORDINATED TELL ",coordinated-discards=on"
#define DEVICE "-device " COORDINATED
#define FEATURE (1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define NODES(a, b) MEMORY "-smp 2 -numa node,memdev=m0 -numa node,memdev=m1" \
                    " -object memory-backend-ram,id=m0,size=" a "M" \
                    " -object memory-backend-ram,id=m1,size=" b "M"
#define GRANULE HUGE

/* Most of the memory, around AREA */
#define MANY 32
#define MANY_AREA (AREA / 2)

#define NO_MEMORY "Cannot allocate memory"

/* The host lets the device have so much more, or all that it wants */
static void limit_bytes(uint64_t more)
{
    balloon_vfio->max_bytes = balloon_vfio->bytes + more;
}

static void lift_limits(void)
{
    balloon_vfio->max_bytes = balloon_vfio->max_mappings = 0;
}

/* The device may use none of these bytes, or all */
static void assert_mapped(uint64_t addr, uint64_t size, bool mapped)
{
    g_assert_cmpuint(balloon_vfio_mapped(addr, size), ==, mapped ? size : 0);
}

/* How much it may use, of all that there is */
static uint64_t all_mapped(void)
{
    return balloon_vfio->bytes;
}

static void assert_all_mapped(uint64_t size)
{
    g_assert_cmpuint(all_mapped(), ==, size);
}

/* In and out of the balloon, whole granules and parts */
static void granules(BalloonDriver *d)
{
    uint64_t all = all_mapped();

    assert_mapped(AREA, 4 * GRANULE, true);
    balloon_give(d, AREA + GRANULE, 2 * GRANULE);
    assert_mapped(AREA, GRANULE, true);
    assert_mapped(AREA + GRANULE, 2 * GRANULE, false);
    assert_mapped(AREA + 3 * GRANULE, GRANULE, true);
    assert_all_mapped(all - 2 * GRANULE);
    balloon_assert_state(d->qts, "reached", NULL);
    balloon_deflate(d, AREA + GRANULE + 5 * BALLOON_PAGE, BALLOON_PAGE);
    assert_mapped(AREA + GRANULE, GRANULE, true);
    assert_mapped(AREA + 2 * GRANULE, GRANULE, false);
    balloon_deflate(d, AREA + GRANULE, 5 * BALLOON_PAGE);
    balloon_deflate(d, AREA + GRANULE + 6 * BALLOON_PAGE,
                    2 * GRANULE - 6 * BALLOON_PAGE);
    assert_all_mapped(all);
    g_assert_false(balloon_is_held(d->qts));
    balloon_assert_bytes(d, AREA, GRANULE, OLD);
    balloon_assert_bytes(d, AREA + GRANULE, 2 * GRANULE, 0);
    balloon_assert_bytes(d, AREA + 3 * GRANULE, GRANULE, OLD);
}

/* The device is behind the balloon on the command line */
static void vfio_last(BalloonDriver *d)
{
    QOSState *machine = qtest_pc_boot(
        MEMORY "-device " COORDINATED ",id=balloon0,addr=4 "
        BALLOON_VFIO_DEVICE);

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
    balloon_find(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    qtest_memset(d->qts, AREA, OLD, AREA_SIZE);
    granules(d);
}

/* What is in the balloon by then is not mapped; when it goes, nothing is */
static void vfio_plugged(BalloonDriver *d)
{
    balloon_give(d, AREA + 4 * GRANULE, 2 * GRANULE);
    for (int i = 0; i < 3; i++) {
        balloon_plug_vfio(d->qts);
        assert_mapped(AREA + 4 * GRANULE, 2 * GRANULE, false);
        granules(d);
        qtest_memset(d->qts, AREA, OLD, AREA_SIZE);
        balloon_unplug_vfio(d->qts);
        g_assert_cmpuint(balloon_vfio->n, ==, 0);
    }
    balloon_deflate(d, AREA + 4 * GRANULE, 2 * GRANULE);
}

/* Less than a granule stays, and goes when the rest of it comes */
static void part(BalloonDriver *d)
{
    uint64_t rest = GRANULE - BALLOON_PAGE;

    balloon_inflate(d, AREA, rest);
    balloon_assert_stays(d, AREA, rest, OLD);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==, rest);
    assert_mapped(AREA, GRANULE, true);
    balloon_give(d, AREA + rest, BALLOON_PAGE);
    assert_mapped(AREA, GRANULE, false);
    balloon_deflate(d, AREA, GRANULE);
    balloon_assert_bytes(d, AREA, GRANULE, 0);
}

/* The last granule of a region may be small, and the next region is another */
static void tail(BalloonDriver *d)
{
    const uint64_t border = AREA + 3 * MiB;
    uint64_t all = all_mapped();

    balloon_give(d, border, GRANULE);
    balloon_give(d, border - MiB, MiB);
    assert_all_mapped(all - 3 * MiB);
    assert_mapped(border - MiB, 3 * MiB, false);
    balloon_deflate(d, border - BALLOON_PAGE, BALLOON_PAGE);
    assert_mapped(border - MiB, MiB, true);
    assert_all_mapped(all - 2 * MiB);
    balloon_deflate(d, border - MiB, 3 * MiB);
    assert_all_mapped(all);
    balloon_assert_bytes(d, border - MiB, 3 * MiB, 0);
}

/* The granule is what the property says */
static void granule(BalloonDriver *d)
{
    balloon_inflate(d, AREA + 32 * KiB, 96 * KiB);
    balloon_wait_for(balloon_counter(d->qts, "waiting") == 32 * KiB);
    assert_mapped(AREA, 64 * KiB, true);
    assert_mapped(AREA + 64 * KiB, 64 * KiB, false);
    balloon_assert_bytes(d, AREA, 64 * KiB, OLD);
    balloon_assert_bytes(d, AREA + 128 * KiB, 64 * KiB, OLD);
    balloon_deflate(d, AREA + 64 * KiB, BALLOON_PAGE);
    assert_mapped(AREA, GRANULE, true);
}

/* A deflate that is not answered, because of @error: two granules */
static uint32_t post_held(BalloonDriver *d, const char *error)
{
    uint32_t head;

    qtest_clock_step(d->qts, 2 * SECOND);
    head = balloon_post_range(d, DEFLATE, AREA, 2 * GRANULE / BALLOON_PAGE);
    balloon_wait_held_event(d->qts, error);
    balloon_assert_held(d->qts, GRANULE, error);
    assert_mapped(AREA, GRANULE, true);
    assert_mapped(AREA + GRANULE, GRANULE, false);
    g_assert_false(balloon_has_used(d, DEFLATE));
    return head;
}

/*
 * What cannot be had is waited for: what can is kept, the rest of the balloon
 * is served, and nobody else notices
 */
static void check_held(BalloonDriver *d, const char *error)
{
    uint32_t head = post_held(d, error);
    uint32_t refused;

    balloon_inflate(d, AREA + 2 * GRANULE, MiB);
    refused = balloon_vfio->refused;
    balloon_wait_for(balloon_vfio->refused > refused + 1);
    g_assert_true(balloon_vm_is_running(d->qts));
    g_assert_false(balloon_has_used(d, DEFLATE));
    lift_limits();
    balloon_wait_served(d, DEFLATE, head);
    balloon_wait_not_held_event(d->qts);
    g_assert_false(balloon_is_held(d->qts));
    assert_mapped(AREA, 4 * GRANULE, true);
}

static void held_bytes(BalloonDriver *d)
{
    balloon_give(d, AREA, 2 * GRANULE);
    limit_bytes(GRANULE);
    check_held(d, NO_MEMORY);
}

static void held_mappings(BalloonDriver *d)
{
    balloon_give(d, AREA, 2 * GRANULE);
    balloon_vfio->max_mappings = balloon_vfio->n + 1;
    check_held(d, "No space left on device");
}

/* The machine stops and goes on meanwhile: so does the deflate */
static void held_stop(BalloonDriver *d)
{
    uint32_t head;

    balloon_give(d, AREA, 2 * GRANULE);
    limit_bytes(GRANULE);
    head = post_held(d, NO_MEMORY);
    balloon_stop(d);
    balloon_wait_not_held_event(d->qts);
    g_assert_false(balloon_is_held(d->qts));
    balloon_cont(d);
    balloon_wait_held_event(d->qts, NO_MEMORY);
    balloon_assert_held(d->qts, GRANULE, NO_MEMORY);
    lift_limits();
    balloon_wait_served(d, DEFLATE, head);
    balloon_wait_not_held_event(d->qts);
    assert_mapped(AREA, 4 * GRANULE, true);
}

/* All of the memory is the guest's, and the machine runs if it did */
static void wait_populated(BalloonDriver *d, uint64_t all)
{
    balloon_wait_for(balloon_vm_is_running(d->qts));
    assert_all_mapped(all);
    g_assert_false(balloon_is_held(d->qts));
}

/* After a reset every page may be used at once */
static void reset(BalloonDriver *d)
{
    uint64_t all = all_mapped();

    for (int i = 0; i < 3; i++) {
        balloon_give(d, MANY_AREA, MANY * GRANULE);
        assert_all_mapped(all - MANY * GRANULE);
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

/* Where that fails the machine stands, whoever would have it go on, or not */
static void check_hold(BalloonDriver *d, uint64_t all)
{
    const uint64_t missing = (MANY - 1) * GRANULE;

    qtest_qmp_eventwait(d->qts, "STOP");
    g_assert_false(balloon_vm_is_running(d->qts));
    assert_all_mapped(all - missing);
    balloon_assert_held(d->qts, missing, NO_MEMORY);
    balloon_cont(d);
    qtest_qmp_eventwait(d->qts, "RESUME");
    qtest_qmp_eventwait(d->qts, "STOP");
    g_assert_false(balloon_vm_is_running(d->qts));
    balloon_stop(d);
    lift_limits();
    qtest_qmp_eventwait(d->qts, "RESUME");
    wait_populated(d, all);
}

static void hold(BalloonDriver *d)
{
    void (*how)(BalloonDriver *d) = d->data;
    uint64_t all = all_mapped();

    balloon_give(d, MANY_AREA, MANY * GRANULE);
    limit_bytes(GRANULE);
    how(d);
    check_hold(d, all);
    balloon_lose(d);
    balloon_find(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_give(d, AREA, 2 * GRANULE);
    assert_mapped(AREA, 2 * GRANULE, false);
}

static void end_machine(BalloonDriver *d)
{
    qtest_qmp_assert_success(d->qts, "{'execute': 'system_reset'}");
}

/* A machine that was stopped by somebody stays so */
static void hold_stopped(BalloonDriver *d)
{
    uint64_t all = all_mapped();

    balloon_give(d, MANY_AREA, MANY * GRANULE);
    limit_bytes(GRANULE);
    balloon_stop(d);
    qtest_qmp_eventwait(d->qts, "STOP");
    balloon_set_bus_master(d, false);
    g_assert_true(balloon_is_held(d->qts));
    lift_limits();
    balloon_wait_for(!balloon_is_held(d->qts));
    assert_all_mapped(all);
    g_assert_false(balloon_vm_is_running(d->qts));
    balloon_cont(d);
    g_assert_true(balloon_vm_is_running(d->qts));
}

/* The driver goes away while its request is held */
static void hold_held(BalloonDriver *d)
{
    uint64_t all = all_mapped();

    balloon_give(d, AREA, 2 * GRANULE);
    limit_bytes(GRANULE);
    post_held(d, NO_MEMORY);
    qvirtio_start_device(d->vdev);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
    balloon_assert_held(d->qts, GRANULE, NO_MEMORY);
    lift_limits();
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
    all = all_mapped();
    balloon_unplug_vfio(d->qts);
    balloon_vfio->max_bytes = 64 * MiB;
    qtest_clock_step(d->qts, 2 * SECOND);
    balloon_plug_vfio(d->qts);
    wait_hold_told(d);
    /* All that it is to have, which is not what the balloon has */
    balloon_assert_held(d->qts, all - all_mapped(), NO_MEMORY);
    lift_limits();
    wait_populated(d, all);
    balloon_wait_not_held_event(d->qts);
    assert_mapped(AREA, 2 * GRANULE, false);
    assert_mapped(AREA + 2 * GRANULE, 2 * GRANULE, true);
    balloon_deflate(d, AREA, 2 * GRANULE);
    assert_mapped(AREA, 4 * GRANULE, true);
    balloon_unplug_vfio(d->qts);
    g_assert_cmpuint(balloon_vfio->n, ==, 0);
}

/* It comes while the guest sleeps: that does not wake up without its memory */
static void hold_asleep(BalloonDriver *d)
{
    balloon_vfio->max_bytes = 64 * MiB;
    balloon_sleep(d);
    balloon_plug_vfio(d->qts);
    balloon_wake(d);
    qtest_qmp_eventwait(d->qts, "STOP");
    lift_limits();
    qtest_qmp_eventwait(d->qts, "RESUME");
    g_assert_false(balloon_is_held(d->qts));
}

/* Devices come and go while pages do */
static void hectic(BalloonDriver *d)
{
    for (int i = 0; i < 8; i++) {
        const uint64_t back = AREA + i * 20 * KiB;

        balloon_inflate(d, AREA, MiB);
        balloon_inflate(d, AREA + 2 * MiB, MiB - BALLOON_PAGE);
        balloon_plug_vfio(d->qts);
        balloon_deflate(d, back, 512 * KiB);
        assert_mapped(back, 512 * KiB, true);
        balloon_inflate(d, AREA + MiB, MiB);
        if (i % 2) {
            balloon_wait_for(balloon_vfio_mapped(AREA + MiB, MiB) == 0);
        }
        balloon_unplug_vfio(d->qts);
        g_assert_cmpuint(balloon_vfio->n, ==, 0);
        balloon_deflate(d, AREA, 3 * MiB);
    }
    balloon_assert_bytes(d, AREA + 3 * MiB, MiB, OLD);
}

/* QEMU must not start with these options, and say so */
static void assert_no_start(const char *options, const char *hint)
{
    g_autofree char *command = g_strdup_printf(
        "%s -display none -accel qtest " MEMORY "%s 2> $FILES/log",
        getenv("QTEST_QEMU_BINARY"), options);

    g_assert_cmpint(WEXITSTATUS(system(command)), ==, 1);
    g_assert_cmpuint(balloon_count_in_file("log", hint), >, 0);
}

/* What cannot be had at the start: say so, and what to do */
static void no_start(BalloonDriver *d)
{
    static const char *const first = DEVICE " " BALLOON_VFIO_DEVICE;
    static const char *const last = BALLOON_VFIO_DEVICE DEVICE;

    balloon_vfio->max_mappings = 40;
    assert_no_start(last, "discard-granule=4194304 or more");
    balloon_vfio->n = balloon_vfio->bytes = 0;
    assert_no_start(first, "discard-granule=4194304 or more");
    balloon_vfio->n = balloon_vfio->bytes = 0;
    balloon_vfio->max_mappings = 0;
    balloon_vfio->max_bytes = 64 * MiB;
    assert_no_start(first, "limit of locked memory");
}

/* Without its balloon a machine has all its memory, even if that takes time */
static void balloon_plugged(BalloonDriver *d)
{
    uint64_t all = all_mapped();

    balloon_give(d, MANY_AREA, MANY * GRANULE);
    limit_bytes(GRANULE);
    balloon_unplug(d);
    balloon_wait_for(!balloon_vm_is_running(d->qts));
    lift_limits();
    balloon_wait_for(balloon_vm_is_running(d->qts));
    assert_all_mapped(all);

    balloon_assert_error(
        d->qts, "GenericError", "discard-granule must be 2097152 bytes, as when"
        " the machine started", BALLOON_DEVICE_ADD,
        balloon_device("{'must-tell-host': true, 'coordinated-discards': true,"
                       " 'discard-granule': 4194304}"));
    balloon_plug(d, "{'must-tell-host': true, 'coordinated-discards': true}");
    balloon_start(d, BALLOON_ALL_FEATURES);
    qtest_memset(d->qts, AREA, OLD, AREA_SIZE);
    granules(d);
}

static void refused(BalloonDriver *d)
{
    static const struct {
        const char *why;
        const char *properties;
    } refusals[] = {
        { "coordinated-discards needs must-tell-host=on",
          "{'coordinated-discards': true}" },
        { "populate-on-deflate needs must-tell-host=on",
          "{'populate-on-deflate': true}" },
        { "discard-granule must be a power of two from 4096 to 1073741824",
          "{'must-tell-host': true, 'coordinated-discards': true,"
          " 'discard-granule': 3145728}" },
        { "discard-granule must be a power of two from 4096 to 1073741824",
          "{'must-tell-host': true, 'coordinated-discards': true,"
          " 'discard-granule': 2147483648}" },
        { "coordinated-discards needs a machine that was started with such a"
          " balloon",
          "{'must-tell-host': true, 'coordinated-discards': true}" },
    };

    balloon_unplug(d);
    for (int i = 0; i < ARRAY_SIZE(refusals); i++) {
        balloon_assert_error(d->qts, "GenericError", refusals[i].why,
                             BALLOON_DEVICE_ADD,
                             balloon_device(refusals[i].properties));
    }
    balloon_plug(d, "{'must-tell-host': true}");
}

/* What the driver may use unasked is not discarded while it is pinned */
static void uncoordinated(BalloonDriver *d)
{
    balloon_send_one(d, REPORT, AREA, GRANULE, true);
    g_assert_cmpuint(balloon_skipped(d->qts, "inhibited"), ==, GRANULE);
    balloon_assert_bytes(d, AREA, GRANULE, OLD);
    balloon_reset(d);
    balloon_start(d, ~FEATURE);
    balloon_assert_state(d->qts, "reached", "pinned-memory");
    balloon_inflate(d, AREA, GRANULE);
    g_assert_cmpuint(balloon_skipped(d->qts, "inhibited"), ==, 2 * GRANULE);
    balloon_assert_bytes(d, AREA, GRANULE, OLD);
    assert_mapped(AREA, GRANULE, true);
}

/* A DIMM is not coordinated: its pages wait */
static void dimm(BalloonDriver *d)
{
    qtest_memset(d->qts, BALLOON_DIMM, OLD, GRANULE);
    balloon_inflate(d, BALLOON_DIMM, GRANULE);
    balloon_inflate(d, AREA, GRANULE);
    balloon_wait_for(balloon_counter(d->qts, "discarded") == GRANULE);
    balloon_assert_stays(d, BALLOON_DIMM, GRANULE, OLD);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==, GRANULE);
    assert_mapped(BALLOON_DIMM, GRANULE, true);
    assert_mapped(AREA, GRANULE, false);
    balloon_unplug_vfio(d->qts);
    /* it looks now and then who pins */
    balloon_set_target(d->qts, 384 * MiB);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, BALLOON_DIMM, GRANULE, 0);
}

/* Where the guest has an IOMMU, what is mapped there would stay pinned */
static void viommu(BalloonDriver *d)
{
    balloon_assert_state(d->qts, "reached", "pinned-memory");
    balloon_inflate(d, AREA, GRANULE);
    balloon_assert_stays(d, AREA, GRANULE, OLD);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==, GRANULE);
    assert_mapped(AREA, GRANULE, true);
}

/* Is there no migration because of the balloon? */
static bool is_blocked(QTestState *qts)
{
    QDict *info = balloon_migration_info(qts);
    g_autoptr(GString) text = qobject_to_json(QOBJECT(info));

    qobject_unref(info);
    return strstr(text->str, "blocked-reasons") &&
           strstr(text->str, "coordinated-discards");
}

/* QEMU would crash, were it to ask which pages the device wrote to */
static void migration(BalloonDriver *d)
{
    balloon_give(d, AREA, GRANULE);
    balloon_plug_vfio(d->qts);
    g_assert_true(is_blocked(d->qts));
    balloon_unplug_vfio(d->qts);
    g_assert_false(is_blocked(d->qts));
    g_assert_cmpint(balloon_move(d), ==, GRANULE);
    balloon_assert_bytes(d, AREA + GRANULE, 3 * GRANULE, OLD);
    /* Not there, and yet to be told to devices that come */
    balloon_plug_vfio(d->qts);
    balloon_wait_for(!balloon_vfio_mapped(AREA, GRANULE));
    balloon_deflate(d, AREA, GRANULE);
    assert_mapped(AREA, 4 * GRANULE, true);
}

/* What is in the balloon came back into memory by no more than a look at it */
static void assert_still_gone(BalloonDriver *d)
{
    uint64_t revived = balloon_counter(d->qts, "revived");

    balloon_set_target(d->qts, RAM);
    balloon_give(d, 8 * MiB, GRANULE);
    g_assert_cmpuint(balloon_counter(d->qts, "revived"), ==, revived);
}

/* A dump has the rest of the memory, and does not read the balloon */
static void dump(BalloonDriver *d)
{
    const char *file = balloon_file("dump");
    struct stat st;

    balloon_give(d, AREA, 16 * GRANULE);
    balloon_dump(d->qts, file);
    g_assert_cmpint(stat(file, &st), ==, 0);
    g_assert_cmpuint(st.st_size, >=, RAM - 16 * GRANULE);
    g_assert_cmpuint(st.st_size, <, RAM - 14 * GRANULE);
    assert_still_gone(d);
}

/*
 * What a background snapshot leaves out the guest may have again, and have
 * written to, by the time that it is taken: nobody notes that
 */
static void background_snapshot(BalloonDriver *d)
{
    balloon_give(d, AREA, 16 * GRANULE);
    if (balloon_try_capability(d->qts, "background-snapshot")) {
        balloon_migrate(d->qts);
        g_assert_cmpint(balloon_migration_skipped(d->qts), <=, 0);
        /* It brings them back, and they go again */
        balloon_wait_for(balloon_counter(d->qts, "revived") == 16 * GRANULE);
        balloon_wait_discarded(d->qts);
    }
}

/* Where QEMU cannot do it the balloon is refused, with the reason */
static void impossible(BalloonDriver *d)
{
    assert_no_start(DEVICE, "this QEMU does not let a device have all");
}

static const BalloonTest refused_test = { "refused", refused, PLAIN };
static const BalloonTest impossible_test = { "impossible", impossible };

static const BalloonTest tests[] = {
    { "vfio/first/anonymous", granules, .vfio = VFIO_ASSIGNED },
    { "vfio/first/shared", granules, .options = SHARED,
      .vfio = VFIO_ASSIGNED },
    { "vfio/first/numa", granules, .options = NODES("66", "62"),
      .vfio = VFIO_ASSIGNED },
    { "vfio/plugged", vfio_plugged, .vfio = VFIO_HOST },
    { "part", part, .vfio = VFIO_ASSIGNED },
    { "tail", tail, .options = NODES("67", "61"), .vfio = VFIO_ASSIGNED },
    { "granule", granule, COORDINATED ",discard-granule=64K",
      .vfio = VFIO_ASSIGNED },
    { "held/bytes", held_bytes, .vfio = VFIO_ASSIGNED },
    { "held/mappings", held_mappings, .vfio = VFIO_ASSIGNED },
    { "held/stop", held_stop, .vfio = VFIO_ASSIGNED },
    { "reset", reset, .vfio = VFIO_ASSIGNED },
    { "hold/device", hold, .data = balloon_end_bus_master,
      .vfio = VFIO_ASSIGNED },
    { "hold/machine", hold, .data = end_machine, .vfio = VFIO_ASSIGNED },
    { "hold/stopped", hold_stopped, .vfio = VFIO_ASSIGNED },
    { "hold/held", hold_held, .vfio = VFIO_ASSIGNED },
    { "hold/plugged", hold_plugged, .vfio = VFIO_HOST },
    { "hold/asleep", hold_asleep, .vfio = VFIO_HOST },
    { "hectic", hectic, COORDINATED ",discard-granule=16K",
      .vfio = VFIO_HOST },
    { "balloon-plugged", balloon_plugged, .vfio = VFIO_ASSIGNED },
    { "uncoordinated", uncoordinated, COORDINATED ",free-page-reporting=on",
      .vfio = VFIO_ASSIGNED },
    { "dimm", dimm, .options = BALLOON_DIMM_SLOTS BALLOON_DIMM_PLUGGED,
      .vfio = VFIO_ASSIGNED },
    { "viommu", viommu, .vfio = VFIO_ASSIGNED,
      .options = MEMORY "-machine q35 -device intel-iommu,caching-mode=on" },
    { "migration", migration, .vfio = VFIO_HOST },
    { "dump", dump },
    { "background-snapshot", background_snapshot },
};

static const BalloonTest bare_tests[] = {
    { "vfio/last", vfio_last, .vfio = VFIO_HOST },
    { "no-start", no_start, .vfio = VFIO_HOST },
};

int main(int argc, char **argv)
{
    const char *prefix = "improved/coordinated/";

    g_test_init(&argc, &argv, NULL);
    balloon_add_tests(prefix, NULL, &refused_test, 1);
    if (!CAN_COORDINATE) {
        balloon_add_bare_tests(prefix, NULL, &impossible_test, 1);
        return g_test_run();
    }
    balloon_add_tests(prefix, COORDINATED, tests, ARRAY_SIZE(tests));
    balloon_add_bare_tests(prefix, COORDINATED, bare_tests,
                           ARRAY_SIZE(bare_tests));
    return g_test_run();
}
