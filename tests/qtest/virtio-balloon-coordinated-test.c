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

#define DEVICE "-device " COORDINATED
/* A balloon that is plugged is one, too */
#define PROPERTIES "'must-tell-host': true, 'coordinated-discards': true"
#define NODES(a, b) MEMORY "-smp 2 -numa node,memdev=m0 -numa node,memdev=m1" \
                    " -object memory-backend-ram,id=m0,size=" a "M" \
                    " -object memory-backend-ram,id=m1,size=" b "M"
#define GRANULE HUGE

/* In and out of the balloon, whole granules and parts */
static void granules(BalloonDriver *d)
{
    uint64_t all = balloon_vfio->bytes;

    balloon_vfio_assert(AREA, 4 * GRANULE, true);
    balloon_give(d, AREA + GRANULE, 2 * GRANULE);
    balloon_vfio_assert(AREA, GRANULE, true);
    balloon_vfio_assert(AREA + GRANULE, 2 * GRANULE, false);
    balloon_vfio_assert(AREA + 3 * GRANULE, GRANULE, true);
    g_assert_cmpuint(balloon_vfio->bytes, ==, all - 2 * GRANULE);
    balloon_assert_state(d->qts, "reached", NULL);
    balloon_deflate(d, AREA + GRANULE + 5 * BALLOON_PAGE, BALLOON_PAGE);
    balloon_vfio_assert(AREA + GRANULE, GRANULE, true);
    balloon_vfio_assert(AREA + 2 * GRANULE, GRANULE, false);
    balloon_deflate(d, AREA + GRANULE, 5 * BALLOON_PAGE);
    balloon_deflate(d, AREA + GRANULE + 6 * BALLOON_PAGE,
                    2 * GRANULE - 6 * BALLOON_PAGE);
    g_assert_cmpuint(balloon_vfio->bytes, ==, all);
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

/* What the guest has again by then is mapped */
static void vfio_after_reset(BalloonDriver *d)
{
    balloon_give(d, AREA, 2 * GRANULE);
    balloon_restart(d);
    balloon_plug_vfio(d->qts);
    balloon_vfio_assert(AREA, AREA_SIZE, true);
    balloon_unplug_vfio(d->qts);
}

/* What is in the balloon by then is not mapped; when it goes, nothing is */
static void vfio_plugged(BalloonDriver *d)
{
    balloon_give(d, AREA + 4 * GRANULE, 2 * GRANULE);
    for (int i = 0; i < 3; i++) {
        balloon_plug_vfio(d->qts);
        balloon_vfio_assert(AREA + 4 * GRANULE, 2 * GRANULE, false);
        granules(d);
        qtest_memset(d->qts, AREA, OLD, AREA_SIZE);
        balloon_unplug_vfio(d->qts);
        g_assert_cmpuint(balloon_vfio->bytes, ==, 0);
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
    balloon_vfio_assert(AREA, GRANULE, true);
    balloon_give(d, AREA + rest, BALLOON_PAGE);
    balloon_vfio_assert(AREA, GRANULE, false);
    balloon_deflate(d, AREA, GRANULE);
    balloon_assert_bytes(d, AREA, GRANULE, 0);
}

/* The last granule of a region may be small, and the next region is another */
static void tail(BalloonDriver *d)
{
    const uint64_t border = AREA + 3 * MiB;
    uint64_t all = balloon_vfio->bytes;

    balloon_give(d, border, GRANULE);
    balloon_give(d, border - MiB, MiB);
    g_assert_cmpuint(balloon_vfio->bytes, ==, all - 3 * MiB);
    balloon_vfio_assert(border - MiB, 3 * MiB, false);
    balloon_deflate(d, border - BALLOON_PAGE, BALLOON_PAGE);
    balloon_vfio_assert(border - MiB, MiB, true);
    g_assert_cmpuint(balloon_vfio->bytes, ==, all - 2 * MiB);
    balloon_deflate(d, border - MiB, 3 * MiB);
    g_assert_cmpuint(balloon_vfio->bytes, ==, all);
    balloon_assert_bytes(d, border - MiB, 3 * MiB, 0);
}

/* The granule is what the property says */
static void granule(BalloonDriver *d)
{
    balloon_inflate(d, AREA + 32 * KiB, 96 * KiB);
    balloon_wait_for(balloon_counter(d->qts, "waiting") == 32 * KiB);
    balloon_vfio_assert(AREA, 64 * KiB, true);
    balloon_vfio_assert(AREA + 64 * KiB, 64 * KiB, false);
    balloon_assert_bytes(d, AREA, 64 * KiB, OLD);
    balloon_assert_bytes(d, AREA + 128 * KiB, 64 * KiB, OLD);
    balloon_deflate(d, AREA + 64 * KiB, BALLOON_PAGE);
    balloon_vfio_assert(AREA, GRANULE, true);
}

/* Another balloon is refused with another granule, and why, and not without */
static void plug_again(BalloonDriver *d, const char *why)
{
    balloon_unplug(d);
    balloon_assert_error(
        d->qts, "GenericError", why, BALLOON_DEVICE_ADD,
        balloon_device("{" PROPERTIES ", 'discard-granule': 4194304}"));
    balloon_plug(d, "{" PROPERTIES "}");
}

/* By default it is so large that VFIO's mappings do for all of the memory */
static void large(BalloonDriver *d)
{
    plug_again(d, "discard-granule must be 8388608 bytes, as when the"
                  " machine started");
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
        balloon_vfio_assert(back, 512 * KiB, true);
        balloon_inflate(d, AREA + MiB, MiB);
        if (i % 2) {
            balloon_wait_for(balloon_vfio_mapped(AREA + MiB, MiB) == 0);
        }
        balloon_unplug_vfio(d->qts);
        g_assert_cmpuint(balloon_vfio->bytes, ==, 0);
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

/* Another balloon has the granule that the machine started with */
static void balloon_plugged(BalloonDriver *d)
{
    plug_again(d, "discard-granule must be 2097152 bytes, as when the"
                  " machine started");
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
          "{" PROPERTIES ", 'discard-granule': 3145728}" },
        { "discard-granule must be a power of two from 4096 to 1073741824",
          "{" PROPERTIES ", 'discard-granule': 2147483648}" },
        { "coordinated-discards needs a machine that was started with such a"
          " balloon", "{" PROPERTIES "}" },
    };

    balloon_unplug(d);
    /* Who looks at the type has one made, and it goes again */
    qtest_qmp_assert_success(d->qts, "{'execute': 'qom-list-properties',"
                             " 'arguments': {'typename':"
                             " 'virtio-balloon-coordinator'}}");
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
    balloon_start(d, ~(1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST));
    balloon_assert_state(d->qts, "reached", "pinned-memory");
    balloon_inflate(d, AREA, GRANULE);
    g_assert_cmpuint(balloon_skipped(d->qts, "inhibited"), ==, 2 * GRANULE);
    balloon_assert_bytes(d, AREA, GRANULE, OLD);
    balloon_vfio_assert(AREA, GRANULE, true);
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
    balloon_vfio_assert(BALLOON_DIMM, GRANULE, true);
    balloon_vfio_assert(AREA, GRANULE, false);
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
    balloon_vfio_assert(AREA, GRANULE, true);
}

/* Is there no migration because of the balloon? */
static bool is_blocked(QTestState *qts)
{
    g_autoptr(QDict) info = balloon_migration_info(qts);
    g_autoptr(GString) text = qobject_to_json(QOBJECT(info));

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
    balloon_vfio_assert(AREA, 4 * GRANULE, true);
}

/* A dump has the rest of the memory, and does not read the balloon */
static void dump(BalloonDriver *d)
{
    const char *file = balloon_file("dump");
    uint64_t revived;
    struct stat st;

    balloon_give(d, AREA, 16 * GRANULE);
    balloon_dump(d->qts, file);
    g_assert_cmpint(stat(file, &st), ==, 0);
    g_assert_cmpuint(st.st_size, >=, RAM - 16 * GRANULE);
    g_assert_cmpuint(st.st_size, <, RAM - 14 * GRANULE);
    /* A look for what came back into memory finds nothing */
    revived = balloon_counter(d->qts, "revived");
    balloon_set_target(d->qts, RAM);
    balloon_give(d, 8 * MiB, GRANULE);
    g_assert_cmpuint(balloon_counter(d->qts, "revived"), ==, revived);
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

static const BalloonTest tests[] = {
    { "refused", refused, PLAIN },
    { "vfio/first/anonymous", granules, .vfio = VFIO_ASSIGNED },
    { "vfio/first/shared", granules, .options = SHARED,
      .vfio = VFIO_ASSIGNED },
    { "vfio/first/numa", granules, .options = NODES("66", "62"),
      .vfio = VFIO_ASSIGNED },
    { "vfio/plugged", vfio_plugged, .vfio = VFIO_HOST },
    { "vfio/after-reset", vfio_after_reset, .vfio = VFIO_HOST },
    { "part", part, .vfio = VFIO_ASSIGNED },
    { "tail", tail, .options = NODES("67", "61"), .vfio = VFIO_ASSIGNED },
    { "granule", granule, COORDINATED ",discard-granule=64K",
      .vfio = VFIO_ASSIGNED },
    { "large", large, .options =
          "-m 256G -machine memory-backend=ram "
          "-object memory-backend-ram,id=ram,size=256G,reserve=off" },
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
    { "vfio/last", vfio_last, .vfio = VFIO_HOST, .bare = true },
    { "no-start", no_start, .vfio = VFIO_HOST, .bare = true },
};

static void add_impossible(void)
{
    if (!CAN_COORDINATE) {
        balloon_add_bare_tests("improved/coordinated/", PLAIN,
                               &(BalloonTest) { "impossible", impossible }, 1);
    }
}

BALLOON_ADD(add_impossible)
BALLOON_TESTS("improved/coordinated/", COORDINATED, tests)
