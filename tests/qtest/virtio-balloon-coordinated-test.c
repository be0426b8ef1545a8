/*
 * A virtio balloon beside assigned devices: coordinated discards
 *
 * What is in the balloon is not mapped for the device, and all that the guest
 * may use is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-plug.h"
#include "virtio-balloon-vfio.h"

#define TESTS "/virtio-balloon/improved/coordinated/"
#define DEVICE "virtio-balloon-pci,must-tell-host=on,coordinated-discards=on"
#define REPORTING DEVICE ",free-page-reporting=on"
#define FEATURE (1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define REPORT BALLOON_VQ_FIRST_OPTIONAL
#define RAM "-m 128 "
#define RAM_SIZE (128 * MiB)
#define NODES(a, b) RAM "-smp 2 -numa node,memdev=m0 -numa node,memdev=m1 " \
                    "-object memory-backend-ram,id=m0,size=" a "M " \
                    "-object memory-backend-ram,id=m1,size=" b "M "
#define GRANULE (2 * MiB)
#define AREA (32 * MiB)
#define OLD 0xa5
#define NEW 0x33

static void start(BalloonDriver *d, const char *device, const char *options)
{
    balloon_boot(d, device, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
    qtest_memset(d->qts, AREA, OLD, 4 * GRANULE);
}

/* On a host that is a fake, with a device of its that is assigned */
static FakeVfio *start_assigned(BalloonDriver *d, const char *device,
                                const char *options)
{
    FakeVfio *v = balloon_vfio_begin();
    g_autofree char *all = g_strconcat(options, balloon_vfio_option(), NULL);

    start(d, device, all);
    return v;
}

/* A granule after the other: Linux asks for at most 1 MiB at a time */
static void give(BalloonDriver *d, uint64_t addr, unsigned n)
{
    for (uint64_t at = addr; at < addr + n * GRANULE; at += MiB) {
        balloon_inflate(d, at, MiB);
    }
    balloon_wait_discarded(d->qts);
}

/* Of @n granules the device may use none, or all */
static void assert_mapped(const FakeVfio *v, uint64_t addr, unsigned n,
                          bool mapped)
{
    g_assert_cmpuint(balloon_vfio_mapped(v, addr, n * GRANULE), ==,
                     mapped ? n * GRANULE : 0);
}

static bool is_held(QTestState *qts)
{
    QDict *info = balloon_info(qts);
    bool is = qdict_haskey(info, "held");

    qobject_unref(info);
    return is;
}

static void assert_held(QTestState *qts, uint64_t size, const char *error)
{
    QDict *info = balloon_info(qts);
    QDict *held = qdict_get_qdict(info, "held");

    g_assert_nonnull(held);
    g_assert_cmpuint(qdict_get_int(held, "size"), ==, size);
    g_assert_cmpstr(qdict_get_try_str(held, "error"), ==, error);
    qobject_unref(info);
}

static void quit(BalloonDriver *d)
{
    balloon_assert_sum(d->qts);
    balloon_quit(d);
}

static void quit_assigned(BalloonDriver *d, FakeVfio *v)
{
    quit(d);
    balloon_vfio_end(v);
}

/* In and out of the balloon, whole granules and parts */
static void check_granules(BalloonDriver *d, const FakeVfio *v)
{
    uint64_t all = v->bytes;

    assert_mapped(v, AREA, 4, true);
    give(d, AREA + GRANULE, 2);
    assert_mapped(v, AREA, 1, true);
    assert_mapped(v, AREA + GRANULE, 2, false);
    assert_mapped(v, AREA + 3 * GRANULE, 1, true);
    g_assert_cmpuint(v->bytes, ==, all - 2 * GRANULE);
    balloon_assert_state(d->qts, "reached", NULL);
    balloon_deflate(d, AREA + GRANULE + 5 * BALLOON_PAGE, BALLOON_PAGE);
    assert_mapped(v, AREA + GRANULE, 1, true);
    assert_mapped(v, AREA + 2 * GRANULE, 1, false);
    balloon_deflate(d, AREA + GRANULE, 5 * BALLOON_PAGE);
    balloon_deflate(d, AREA + GRANULE + 6 * BALLOON_PAGE,
                    2 * GRANULE - 6 * BALLOON_PAGE);
    g_assert_cmpuint(v->bytes, ==, all);
    g_assert_false(is_held(d->qts));
    balloon_assert_bytes(d, AREA, GRANULE, OLD);
    balloon_assert_bytes(d, AREA + GRANULE, 2 * GRANULE, 0);
    balloon_assert_bytes(d, AREA + 3 * GRANULE, GRANULE, OLD);
}

static void vfio_first(const void *options)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, options);

    check_granules(&d, v);
    quit_assigned(&d, v);
}

static void vfio_last(void)
{
    FakeVfio *v = balloon_vfio_begin();
    BalloonDriver d;
    QOSState *machine = qtest_pc_boot(RAM "-device " DEVICE
                                      ",id=balloon0,addr=4 %s",
                                      balloon_vfio_option());

    balloon_attach(&d, machine->qts, NULL, &machine->alloc);
    d.machine = machine;
    balloon_find(&d, 4);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_memset(d.qts, AREA, OLD, 4 * GRANULE);
    check_granules(&d, v);
    quit_assigned(&d, v);
}

/* What is in the balloon by then is not mapped; when it goes, nothing is */
static void vfio_plugged(void)
{
    FakeVfio *v = balloon_vfio_begin();
    BalloonDriver d;

    start(&d, DEVICE, RAM);
    give(&d, AREA + 4 * GRANULE, 2);
    for (int i = 0; i < 3; i++) {
        balloon_plug_vfio(d.qts);
        assert_mapped(v, AREA + 4 * GRANULE, 2, false);
        check_granules(&d, v);
        qtest_memset(d.qts, AREA, OLD, 4 * GRANULE);
        balloon_unplug_vfio(d.qts);
        g_assert_cmpuint(v->n, ==, 0);
    }
    balloon_deflate(&d, AREA + 4 * GRANULE, 2 * GRANULE);
    quit_assigned(&d, v);
}

/* Less than a granule stays, and goes when the rest of it comes */
static void part(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, RAM);
    uint64_t rest = GRANULE - BALLOON_PAGE;

    balloon_inflate(&d, AREA, rest);
    balloon_assert_stays(&d, AREA, rest, OLD);
    g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, rest);
    assert_mapped(v, AREA, 1, true);
    balloon_inflate(&d, AREA + rest, BALLOON_PAGE);
    balloon_wait_discarded(d.qts);
    assert_mapped(v, AREA, 1, false);
    balloon_deflate(&d, AREA, GRANULE);
    balloon_assert_bytes(&d, AREA, GRANULE, 0);
    quit_assigned(&d, v);
}

/* The last granule of a region may be small, and the next region is another */
static void tail(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, NODES("35", "93"));
    uint64_t all = v->bytes;

    give(&d, AREA + 3 * MiB, 1);
    balloon_inflate(&d, AREA + 2 * MiB, MiB);
    balloon_wait_discarded(d.qts);
    g_assert_cmpuint(v->bytes, ==, all - 3 * MiB);
    g_assert_cmpuint(balloon_vfio_mapped(v, AREA + 2 * MiB, 3 * MiB), ==, 0);
    balloon_deflate(&d, AREA + 3 * MiB - BALLOON_PAGE, BALLOON_PAGE);
    g_assert_cmpuint(balloon_vfio_mapped(v, AREA + 2 * MiB, MiB), ==, MiB);
    g_assert_cmpuint(v->bytes, ==, all - 2 * MiB);
    balloon_deflate(&d, AREA + 2 * MiB, 3 * MiB);
    g_assert_cmpuint(v->bytes, ==, all);
    balloon_assert_bytes(&d, AREA + 2 * MiB, 3 * MiB, 0);
    quit_assigned(&d, v);
}

/* The granule is what the property says */
static void granule(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE ",discard-granule=64K", RAM);

    balloon_inflate(&d, AREA + 32 * KiB, 96 * KiB);
    balloon_wait_for(balloon_counter(d.qts, "waiting") == 32 * KiB);
    g_assert_cmpuint(balloon_vfio_mapped(v, AREA, 64 * KiB), ==, 64 * KiB);
    g_assert_cmpuint(balloon_vfio_mapped(v, AREA + 64 * KiB, 64 * KiB), ==, 0);
    balloon_assert_bytes(&d, AREA, 64 * KiB, OLD);
    balloon_assert_bytes(&d, AREA + 128 * KiB, 64 * KiB, OLD);
    balloon_deflate(&d, AREA + 64 * KiB, BALLOON_PAGE);
    g_assert_cmpuint(balloon_vfio_mapped(v, AREA, GRANULE), ==, GRANULE);
    quit_assigned(&d, v);
}

/* Wait to be told that memory waits because of @error, or NULL: no more */
static void wait_held_event(QTestState *qts, const char *error)
{
    bool is;

    do {
        QDict *event = qtest_qmp_eventwait_ref(qts, "BALLOON_STATE_CHANGE");
        QDict *data = qdict_get_qdict(event, "data");
        QDict *held = qdict_get_qdict(data, "held");

        is = !held == !error &&
             (!held || !g_strcmp0(qdict_get_try_str(held, "error"), error));
        qobject_unref(event);
    } while (!is);
    /* Of a second before this no event is kept back any more */
    qtest_clock_step(qts, 2 * NANOSECONDS_PER_SECOND);
}

/* A deflate that is not answered, because of @error: two granules */
static uint32_t post_held(BalloonDriver *d, FakeVfio *v, const char *error)
{
    uint32_t pfns[2 * GRANULE / BALLOON_PAGE];
    uint64_t list;
    uint32_t head;

    for (unsigned i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = balloon_wire32(d, BALLOON_PFN(AREA) + i);
    }
    list = balloon_copy(d, pfns, sizeof(pfns));
    qtest_clock_step(d->qts, 2 * NANOSECONDS_PER_SECOND);
    head = balloon_post(d, BALLOON_VQ_DEFLATE,
                        &(BalloonSeg) { list, sizeof(pfns) }, 1);
    wait_held_event(d->qts, error);
    assert_held(d->qts, GRANULE, error);
    assert_mapped(v, AREA, 1, true);
    assert_mapped(v, AREA + GRANULE, 1, false);
    g_assert_false(balloon_has_used(d, BALLOON_VQ_DEFLATE));
    return head;
}

/*
 * What cannot be had is waited for: what can is kept, the rest of the balloon
 * is served, and nobody else notices
 */
static void check_held(bool bytes)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, RAM);
    uint32_t head, refused;

    give(&d, AREA, 2);
    v->max_bytes = bytes ? v->bytes + GRANULE : 0;
    v->max_mappings = bytes ? 0 : v->n + 1;
    head = post_held(&d, v, bytes ? "Cannot allocate memory" :
                                    "No space left on device");
    balloon_inflate(&d, AREA + 2 * GRANULE, MiB);
    refused = v->refused;
    balloon_wait_for(v->refused > refused + 1);
    g_assert_true(balloon_vm_is_running(d.qts));
    g_assert_false(balloon_has_used(&d, BALLOON_VQ_DEFLATE));
    v->max_bytes = v->max_mappings = 0;
    balloon_wait_served(&d, BALLOON_VQ_DEFLATE, head);
    wait_held_event(d.qts, NULL);
    g_assert_false(is_held(d.qts));
    assert_mapped(v, AREA, 4, true);
    quit_assigned(&d, v);
}

static void held_bytes(void)
{
    check_held(true);
}

static void held_mappings(void)
{
    check_held(false);
}

/* The machine stops and goes on meanwhile: so does the deflate */
static void held_stop(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, RAM);
    uint32_t head;

    give(&d, AREA, 2);
    v->max_bytes = v->bytes + GRANULE;
    head = post_held(&d, v, "Cannot allocate memory");
    qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
    g_assert_false(is_held(d.qts));
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    balloon_wait_for(is_held(d.qts));
    v->max_bytes = 0;
    balloon_wait_served(&d, BALLOON_VQ_DEFLATE, head);
    assert_mapped(v, AREA, 4, true);
    quit_assigned(&d, v);
}

/* All of the memory is the guest's, and the machine runs if it did */
static void wait_populated(BalloonDriver *d, FakeVfio *v, uint64_t all)
{
    balloon_wait_for(balloon_vm_is_running(d->qts));
    g_assert_cmpuint(v->bytes, ==, all);
    g_assert_false(is_held(d->qts));
}

/* After a reset every page may be used at once */
static void reset(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, RAM);
    uint64_t all = v->bytes;

    for (int i = 0; i < 3; i++) {
        give(&d, AREA, 32);
        g_assert_cmpuint(v->bytes, ==, all - 32 * GRANULE);
        if (i == 2) {
            qtest_system_reset(d.qts);
            wait_populated(&d, v, all);
            break;
        }
        balloon_reset(&d);
        wait_populated(&d, v, all);
        balloon_start(&d, BALLOON_ALL_FEATURES);
    }
    balloon_lose(&d);
    quit_assigned(&d, v);
}

/* Where that fails the machine stands, whoever would have it go on */
static void check_hold(BalloonDriver *d, FakeVfio *v, uint64_t all)
{
    qtest_qmp_eventwait(d->qts, "STOP");
    g_assert_false(balloon_vm_is_running(d->qts));
    g_assert_cmpuint(v->bytes, ==, all - 31 * GRANULE);
    assert_held(d->qts, 31 * GRANULE, "Cannot allocate memory");
    qtest_qmp_assert_success(d->qts, "{'execute': 'cont'}");
    qtest_qmp_eventwait(d->qts, "RESUME");
    qtest_qmp_eventwait(d->qts, "STOP");
    g_assert_false(balloon_vm_is_running(d->qts));
    v->max_bytes = 0;
    qtest_qmp_eventwait(d->qts, "RESUME");
    wait_populated(d, v, all);
}

static void hold(const void *how)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, RAM);
    uint64_t all = v->bytes;

    give(&d, AREA, 32);
    v->max_bytes = v->bytes + GRANULE;
    if (!strcmp(how, "device")) {
        balloon_set_bus_master(&d, false);
    } else {
        qtest_qmp_assert_success(d.qts, "{'execute': 'system_reset'}");
    }
    check_hold(&d, v, all);
    balloon_lose(&d);
    balloon_find(&d, 4);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    give(&d, AREA, 2);
    assert_mapped(v, AREA, 2, false);
    quit_assigned(&d, v);
}

/* The driver goes away while its request is held */
static void hold_held(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, RAM);
    uint64_t all = v->bytes;

    give(&d, AREA, 2);
    v->max_bytes = v->bytes + GRANULE;
    post_held(&d, v, "Cannot allocate memory");
    qvirtio_start_device(d.vdev);
    balloon_wait_for(!balloon_vm_is_running(d.qts));
    assert_held(d.qts, GRANULE, "Cannot allocate memory");
    v->max_bytes = 0;
    wait_populated(&d, v, all);
    balloon_lose(&d);
    quit_assigned(&d, v);
}

/* A device that comes cannot have the memory: the machine stands as well */
static void hold_plugged(void)
{
    FakeVfio *v = balloon_vfio_begin();
    BalloonDriver d;
    uint64_t all, had;

    start(&d, DEVICE, RAM);
    give(&d, AREA, 2);
    balloon_plug_vfio(d.qts);
    all = v->bytes;
    balloon_unplug_vfio(d.qts);
    v->max_bytes = 64 * MiB;
    qtest_clock_step(d.qts, 2 * NANOSECONDS_PER_SECOND);
    balloon_plug_vfio(d.qts);
    wait_held_event(d.qts, "Cannot allocate memory");
    g_assert_false(balloon_vm_is_running(d.qts));
    had = v->bytes;
    /* All that it is to have, which is not what the balloon has */
    assert_held(d.qts, all - had, "Cannot allocate memory");
    v->max_bytes = 0;
    balloon_wait_for(balloon_vm_is_running(d.qts));
    g_assert_cmpuint(v->bytes, ==, all);
    wait_held_event(d.qts, NULL);
    g_assert_false(is_held(d.qts));
    assert_mapped(v, AREA, 2, false);
    assert_mapped(v, AREA + 2 * GRANULE, 2, true);
    balloon_deflate(&d, AREA, 2 * GRANULE);
    assert_mapped(v, AREA, 4, true);
    balloon_unplug_vfio(d.qts);
    g_assert_cmpuint(v->n, ==, 0);
    quit_assigned(&d, v);
}

/* Devices come and go while pages do */
static void hectic(void)
{
    FakeVfio *v = balloon_vfio_begin();
    BalloonDriver d;

    start(&d, DEVICE ",discard-granule=16K", RAM);
    for (int i = 0; i < 8; i++) {
        balloon_inflate(&d, AREA, MiB);
        balloon_inflate(&d, AREA + 2 * MiB, MiB - BALLOON_PAGE);
        balloon_plug_vfio(d.qts);
        balloon_deflate(&d, AREA + i * 20 * KiB, 512 * KiB);
        g_assert_cmpuint(balloon_vfio_mapped(v, AREA + i * 20 * KiB,
                                             512 * KiB), ==, 512 * KiB);
        balloon_inflate(&d, AREA + MiB, MiB);
        if (i % 2) {
            balloon_wait_for(balloon_vfio_mapped(v, AREA + MiB, MiB) == 0);
        }
        balloon_unplug_vfio(d.qts);
        g_assert_cmpuint(v->n, ==, 0);
        balloon_deflate(&d, AREA, 3 * MiB);
    }
    balloon_assert_bytes(&d, AREA + 3 * MiB, MiB, OLD);
    quit_assigned(&d, v);
}

/* QEMU must not start; the balloon is before the device, or behind it */
static void check_no_start(FakeVfio *v, bool before, const char *hint)
{
    static const char balloon[] = "-device " DEVICE;
    g_autofree char *command = g_strdup_printf(
        "%s -display none -accel qtest " RAM "%s %s %s",
        getenv("QTEST_QEMU_BINARY"), before ? balloon : "",
        balloon_vfio_option(), before ? "" : balloon);
    g_autofree char *said = NULL;
    int status;

    g_assert_true(g_spawn_command_line_sync(command, NULL, &said, &status,
                                            NULL));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    g_assert_nonnull(strstr(said, hint));
    memset(v->table, 0, sizeof(v->table));
    v->n = v->bytes = 0;
}

/* What cannot be had at the start: say so, and what to do */
static void no_start(void)
{
    FakeVfio *v = balloon_vfio_begin();

    v->max_mappings = 40;
    check_no_start(v, false, "discard-granule=4194304 or more");
    check_no_start(v, true, "discard-granule=4194304 or more");
    v->max_mappings = 0;
    v->max_bytes = 64 * MiB;
    check_no_start(v, true, "limit of locked memory");
    balloon_vfio_end(v);
}

/* A machine that was stopped by somebody stays so */
static void reset_stopped(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, RAM);
    uint64_t all = v->bytes;

    give(&d, AREA, 32);
    v->max_bytes = v->bytes + GRANULE;
    qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
    qtest_qmp_eventwait(d.qts, "STOP");
    balloon_set_bus_master(&d, false);
    g_assert_true(is_held(d.qts));
    v->max_bytes = 0;
    balloon_wait_for(!is_held(d.qts));
    g_assert_cmpuint(v->bytes, ==, all);
    g_assert_false(balloon_vm_is_running(d.qts));
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    g_assert_true(balloon_vm_is_running(d.qts));
    balloon_lose(&d);
    quit_assigned(&d, v);
}

static void unplug(BalloonDriver *d)
{
    qpci_unplug_acpi_device_test(d->qts, "balloon0", 4);
    balloon_lose(d);
}

/* Without its balloon a machine has all its memory, even if that takes time */
static void balloon_plugged(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, RAM);
    uint64_t all = v->bytes;

    give(&d, AREA, 32);
    v->max_bytes = v->bytes + GRANULE;
    unplug(&d);
    balloon_wait_for(!balloon_vm_is_running(d.qts));
    v->max_bytes = 0;
    balloon_wait_for(balloon_vm_is_running(d.qts));
    g_assert_cmpuint(v->bytes, ==, all);

    balloon_assert_error(
        d.qts, "GenericError", "discard-granule must be 2097152 bytes, as when"
        " the machine started", "{'execute': 'device_add', 'arguments':"
        " {'driver': 'virtio-balloon-pci', 'id': 'balloon0', 'addr': '4',"
        " 'must-tell-host': true, 'coordinated-discards': true,"
        " 'discard-granule': 4194304}}");
    qtest_qmp_device_add(d.qts, "virtio-balloon-pci", "balloon0",
                         "{'addr': '4', 'must-tell-host': true,"
                         " 'coordinated-discards': true}");
    balloon_find(&d, 4);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_memset(d.qts, AREA, OLD, 4 * GRANULE);
    check_granules(&d, v);
    quit_assigned(&d, v);
}

#define ADD "{'execute': 'device_add', 'arguments':" \
            " {'driver': 'virtio-balloon-pci', 'id': 'balloon0', "

static void refused(void)
{
    QTestState *qts = qtest_init(RAM);

    balloon_assert_error(qts, "GenericError", "coordinated-discards needs"
                         " must-tell-host=on",
                         ADD "'coordinated-discards': true}}");
    balloon_assert_error(qts, "GenericError", "populate-on-deflate needs"
                         " must-tell-host=on",
                         ADD "'populate-on-deflate': true}}");
    balloon_assert_error(qts, "GenericError", "discard-granule must be a power"
                         " of two and no less than 4096",
                         ADD "'must-tell-host': true,"
                         " 'coordinated-discards': true,"
                         " 'discard-granule': 3145728}}");
    balloon_assert_error(qts, "GenericError", "coordinated-discards needs a"
                         " machine that was started with such a balloon",
                         ADD "'must-tell-host': true,"
                         " 'coordinated-discards': true}}");
    qtest_qmp_device_add(qts, "virtio-balloon-pci", "balloon0",
                         "{'must-tell-host': true}");
    qtest_quit(qts);
}

/* What the driver may use unasked is not discarded while it is pinned */
static void uncoordinated(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, REPORTING, RAM);

    balloon_send_one(&d, REPORT, AREA, GRANULE, true);
    g_assert_cmpuint(balloon_skipped(d.qts, "inhibited"), ==, GRANULE);
    balloon_assert_bytes(&d, AREA, GRANULE, OLD);
    balloon_reset(&d);
    balloon_start(&d, ~FEATURE);
    balloon_assert_state(d.qts, "reached", "pinned-memory");
    balloon_inflate(&d, AREA, GRANULE);
    g_assert_cmpuint(balloon_skipped(d.qts, "inhibited"), ==, 2 * GRANULE);
    balloon_assert_bytes(&d, AREA, GRANULE, OLD);
    assert_mapped(v, AREA, 1, true);
    quit_assigned(&d, v);
}

/* A DIMM is not coordinated: its pages wait */
static void dimm(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, BALLOON_DIMM_SLOTS
                                 BALLOON_DIMM_PLUGGED);

    qtest_memset(d.qts, BALLOON_DIMM, OLD, GRANULE);
    balloon_inflate(&d, BALLOON_DIMM, GRANULE);
    balloon_inflate(&d, AREA, GRANULE);
    balloon_wait_for(balloon_counter(d.qts, "discarded") == GRANULE);
    balloon_assert_stays(&d, BALLOON_DIMM, GRANULE, OLD);
    g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, GRANULE);
    assert_mapped(v, BALLOON_DIMM, 1, true);
    assert_mapped(v, AREA, 1, false);
    balloon_unplug_vfio(d.qts);
    /* it looks now and then who pins */
    balloon_set_target(d.qts, 384 * MiB);
    balloon_wait_discarded(d.qts);
    balloon_assert_bytes(&d, BALLOON_DIMM, GRANULE, 0);
    quit_assigned(&d, v);
}

/* Where the guest has an IOMMU, what is mapped there would stay pinned */
static void viommu(void)
{
    BalloonDriver d;
    FakeVfio *v = start_assigned(&d, DEVICE, RAM "-machine q35 "
                                 "-device intel-iommu,caching-mode=on ");

    balloon_assert_state(d.qts, "reached", "pinned-memory");
    balloon_inflate(&d, AREA, GRANULE);
    balloon_assert_stays(&d, AREA, GRANULE, OLD);
    g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, GRANULE);
    assert_mapped(v, AREA, 1, true);
    quit_assigned(&d, v);
}

/* Is there no migration because of the balloon? */
static bool is_blocked(QTestState *qts)
{
    QDict *info = qtest_qmp_assert_success_ref(qts,
                                               "{'execute': 'query-migrate'}");
    QListEntry *entry;
    bool is = false;

    if (qdict_haskey(info, "blocked-reasons")) {
        QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "blocked-reasons"), entry) {
            const char *why = qstring_get_str(qobject_to(QString,
                                                         entry->value));

            is |= strstr(why, "coordinated-discards") != NULL;
        }
    }
    qobject_unref(info);
    return is;
}

/* QEMU would crash, were it to ask which pages the device wrote to */
static void migration(void)
{
    FakeVfio *v = balloon_vfio_begin();
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;

    start(&d, DEVICE, RAM);
    give(&d, AREA, 1);
    balloon_plug_vfio(d.qts);
    g_assert_true(is_blocked(d.qts));
    balloon_unplug_vfio(d.qts);
    g_assert_false(is_blocked(d.qts));
    g_assert_cmpint(balloon_move(&d, DEVICE, RAM), ==, GRANULE);
    balloon_assert_bytes(&d, AREA + GRANULE, 3 * GRANULE, OLD);
    /* Not there, and yet to be told to devices that come */
    balloon_plug_vfio(d.qts);
    balloon_wait_for(!balloon_vfio_mapped(v, AREA, GRANULE));
    balloon_deflate(&d, AREA, GRANULE);
    assert_mapped(v, AREA, 4, true);
    quit_assigned(&d, v);
}

/* What is in the balloon came back into memory by no more than a look at it */
static void assert_still_gone(BalloonDriver *d)
{
    uint64_t revived = balloon_counter(d->qts, "revived");

    balloon_set_target(d->qts, RAM_SIZE);
    balloon_inflate(d, 8 * MiB, GRANULE);
    balloon_wait_discarded(d->qts);
    g_assert_cmpuint(balloon_counter(d->qts, "revived"), ==, revived);
}

/* A dump has the rest of the memory, and does not read the balloon */
static void dump(void)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *protocol = g_strconcat("file:", file, NULL);
    BalloonDriver d;
    struct stat st;

    start(&d, DEVICE, RAM);
    give(&d, 64 * MiB, 16);
    qtest_qmp_assert_success(
        d.qts, "{'execute': 'dump-guest-memory', 'arguments':"
        " {'paging': false, 'protocol': %s}}", protocol);
    g_assert_cmpint(stat(file, &st), ==, 0);
    g_assert_cmpuint(st.st_size, >=, RAM_SIZE - 16 * GRANULE);
    g_assert_cmpuint(st.st_size, <, RAM_SIZE - 14 * GRANULE);
    assert_still_gone(&d);
    quit(&d);
    unlink(file);
}

static bool can_snapshot(QTestState *qts)
{
    QDict *response = qtest_qmp(
        qts, "{'execute': 'migrate-set-capabilities', 'arguments':"
        " {'capabilities': [{'capability': 'background-snapshot',"
        " 'state': true}]}}");
    bool can = qdict_haskey(response, "return");

    qobject_unref(response);
    if (!can) {
        g_test_skip("the host has no userfaultfd for this");
    }
    return can;
}

/* A background snapshot does not, either */
static void background_snapshot(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;

    start(&d, DEVICE, RAM);
    give(&d, 64 * MiB, 16);
    if (can_snapshot(d.qts)) {
        g_autofree char *uri = g_strconcat("file:", file, NULL);

        balloon_migrate_to(d.qts, uri);
        balloon_wait_for(balloon_migration_is(d.qts, "completed"));
        assert_still_gone(&d);
    }
    quit(&d);
    unlink(file);
}

/* Where QEMU cannot do it the balloon is refused, with the reason */
static void impossible(void)
{
    g_autofree char *command = g_strdup_printf(
        "%s -display none -accel qtest -device " DEVICE,
        getenv("QTEST_QEMU_BINARY"));
    g_autofree char *said = NULL;
    int status;

    g_assert_true(g_spawn_command_line_sync(command, NULL, &said, &status,
                                            NULL));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    g_assert_nonnull(strstr(said, "this QEMU does not let a device have all"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func(TESTS "refused", refused);
    if (!CAN_COORDINATE) {
        qtest_add_func(TESTS "impossible", impossible);
        return g_test_run();
    }
    qtest_add_data_func(TESTS "vfio/first/anonymous", RAM, vfio_first);
    qtest_add_data_func(TESTS "vfio/first/shared",
                        RAM "-machine pc,memory-backend=ram "
                        "-object memory-backend-memfd,id=ram,size=128M,"
                        "share=on ", vfio_first);
    qtest_add_data_func(TESTS "vfio/first/numa",
                        NODES("34", "94"), vfio_first);
    qtest_add_func(TESTS "vfio/last", vfio_last);
    qtest_add_func(TESTS "vfio/plugged", vfio_plugged);
    qtest_add_func(TESTS "part", part);
    qtest_add_func(TESTS "tail", tail);
    qtest_add_func(TESTS "granule", granule);
    qtest_add_func(TESTS "held/bytes", held_bytes);
    qtest_add_func(TESTS "held/mappings", held_mappings);
    qtest_add_func(TESTS "held/stop", held_stop);
    qtest_add_func(TESTS "reset", reset);
    qtest_add_data_func(TESTS "hold/device", "device", hold);
    qtest_add_data_func(TESTS "hold/machine", "machine", hold);
    qtest_add_func(TESTS "hold/stopped", reset_stopped);
    qtest_add_func(TESTS "hold/held", hold_held);
    qtest_add_func(TESTS "hold/plugged", hold_plugged);
    qtest_add_func(TESTS "hectic", hectic);
    qtest_add_func(TESTS "no-start", no_start);
    qtest_add_func(TESTS "balloon-plugged", balloon_plugged);
    qtest_add_func(TESTS "uncoordinated", uncoordinated);
    qtest_add_func(TESTS "dimm", dimm);
    qtest_add_func(TESTS "viommu", viommu);
    qtest_add_func(TESTS "migration", migration);
    qtest_add_func(TESTS "dump", dump);
    qtest_add_func(TESTS "background-snapshot", background_snapshot);
    return g_test_run();
}
