/*
 * The virtio balloon comes and goes, is refused, and has memory that goes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"

#define ROUNDS 100

/* Properties of devices that are plugged ... */
#define HINTS "{'free-page-hint': true, 'iothread': 'io0'}"
#define ALL "{'free-page-hint': true, 'iothread': 'io0'," \
            " 'free-page-reporting': true, 'deflate-on-oom': true," \
            " 'guest-stats-polling-interval': 1}"

/* ... and the same, as for -device */
#define ALL_DEVICE                                                      \
    ALL_QUEUES ",deflate-on-oom=on,guest-stats-polling-interval=1"

#define NO_IOTHREAD "'free-page-hint' requires 'iothread' to be set"
#define NO_IOMMU                                                        \
    "VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor "      \
    "transitional device"

typedef struct Refused {
    const char *name;
    const char *properties;
    const char *desc;
    const char *class;
    /* what was QEMU's own leaves something behind here */
    bool improved;
} Refused;

static const Refused refused[] = {
    { "no-iothread", "{'free-page-hint': true}", NO_IOTHREAD,
      .improved = true },
    { "bad-iothread", "{'free-page-hint': true, 'iothread': 'nope'}",
      "Device 'nope' not found", "DeviceNotFound" },
    { "iommu", "{'iommu_platform': true}", NO_IOMMU },
    { "no-interval", "{'guest-stats-polling-interval': -1}",
      "timer value must be greater than zero" },
    { "polling-no-iothread",
      "{'guest-stats-polling-interval': 1, 'free-page-hint': true}",
      NO_IOTHREAD, .improved = true },
    { "polling-iommu",
      "{'guest-stats-polling-interval': 1, 'iommu_platform': true}",
      NO_IOMMU },
    { "hinting-iommu",
      "{'iommu_platform': true, 'free-page-hint': true, 'iothread': 'io0',"
      " 'free-page-reporting': true}",
      NO_IOMMU },
};

static void assert_refused(BalloonDriver *d, const Refused *r)
{
    balloon_assert_error(d->qts, r->class ?: "GenericError", r->desc,
                         BALLOON_DEVICE_ADD, balloon_device(r->properties));
}

static void refused_device(BalloonDriver *d)
{
    balloon_unplug(d);
    assert_refused(d, d->data);
}

/* Nothing is left of the one that was unplugged; another one starts */
static void plug_another(BalloonDriver *d, const char *properties)
{
    balloon_assert_none(d->qts);
    qtest_clock_step(d->qts, 5 * SECOND);
    balloon_plug(d, properties);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

/* A refused device leaves nothing behind; the next, correct one works */
static void refused_then_correct(BalloonDriver *d)
{
    for (int round = 0; round < 3; round++) {
        balloon_unplug(d);
        for (int n = 0; n <= round; n++) {
            assert_refused(d, d->data);
        }
        plug_another(d, HINTS);
        balloon_assert_works(d);
    }
}

static void second_balloon(BalloonDriver *d)
{
    for (int i = 0; i < 3; i++) {
        QDict *second = balloon_device(HINTS);

        qdict_put_str(second, "id", "second");
        qdict_put_str(second, "addr", "5");
        balloon_assert_error(d->qts, "GenericError",
                             "Only one balloon device is supported",
                             BALLOON_DEVICE_ADD, second);
        balloon_assert_works(d);
    }
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);

    /* neither is there a second one when the first one goes */
    balloon_unplug(d);
    balloon_assert_none(d->qts);
}

static unsigned count_fds(QTestState *qts)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(qts));
    g_autoptr(GDir) folder = g_dir_open(path, 0, NULL);
    unsigned n = 0;

    while (folder && g_dir_read_name(folder)) {
        n++;
    }
    return n;
}

/* A hundred times, and nothing is left behind */
static void plug_many(BalloonDriver *d)
{
    unsigned fds = 0;

    for (int i = 0; i < ROUNDS; i++) {
        balloon_unplug(d);
        balloon_assert_none(d->qts);
        if (i == ROUNDS / 10) {
            fds = count_fds(d->qts);
        }
        balloon_plug(d, "{'free-page-reporting': true}");
        if (i % (ROUNDS / 10) == 0) {
            balloon_start(d, BALLOON_ALL_FEATURES);
            balloon_assert_works(d);
        } else {
            balloon_negotiate(d, BALLOON_ALL_FEATURES);
            qvirtio_set_driver_ok(d->vdev);
            balloon_assert_resizes(d);
        }
    }
    balloon_unplug(d);
    g_assert_cmpuint(count_fds(d->qts), <=, fds);
}

/*
 * Leave a request on every queue, of which one takes long.  Returns: whether
 * that is being served
 */
static bool leave_requests(BalloonDriver *d)
{
    enum { PAGES = 64 };
    uint64_t mem = balloon_dirty_pages(d, PAGES);

    for (int queue = DEFLATE; queue < BALLOON_VQ_MAX; queue++) {
        balloon_post(d, queue, (BalloonSeg[]) {
            { mem, PAGES * BALLOON_PAGE, queue > STATS },
        }, 1);
    }
    balloon_post_huge(d, AREA, BALLOON_HUGE_MAX / 4);
    return !balloon_has_used(d, INFLATE);
}

/* Some requests were being served when their end came, and all works */
static void assert_ended(BalloonDriver *d, bool busy)
{
    g_assert_true(busy || balloon_is_stock(d));
    balloon_assert_works(d);
}

/* Unplugged with every queue in use and polling on: nothing comes after */
static void unplug_busy(BalloonDriver *d)
{
    bool busy = false;

    for (int i = 0; i < 6; i++) {
        busy |= leave_requests(d);
        if (i % 2) {
            /* the driver had let the device go */
            balloon_reset(d);
        }
        balloon_unplug(d);
        balloon_use(d, AREA, HUGE);
        plug_another(d, ALL);
        balloon_assert_bytes(d, AREA, HUGE, NEW);
    }
    assert_ended(d, busy);
}

/*
 * A driver that went away in the middle of things leaves nothing behind, and
 * the next one has all of the memory
 */
static void reset_busy(BalloonDriver *d)
{
    bool busy = false;

    for (int i = 0; i < 6; i++) {
        busy |= leave_requests(d);
        if (i % 2) {
            balloon_reset(d);
        } else {
            balloon_machine_reset(d);
        }
        balloon_start(d, BALLOON_ALL_FEATURES);
        balloon_use(d, AREA, HUGE);
    }
    assert_ended(d, busy);
}

/*
 * Memory goes while discards in it wait, of half a huge page; those of its
 * successor are others
 */
static void dimm_waiting(BalloonDriver *d)
{
    for (int i = 0; i < 3; i++) {
        balloon_add_dimm_memory(d->qts);
        balloon_plug_dimm(d->qts);
        if (i) {
            balloon_use(d, BALLOON_DIMM, HUGE);
        }
        balloon_inflate(d, BALLOON_DIMM, HUGE / 2);
        balloon_unplug_dimm(d->qts);
        balloon_remove_dimm_memory(d->qts);
    }
    balloon_inflate(d, AREA, HUGE / 2);
    balloon_wait_gone(d, AREA, HUGE / 2);
}

static void set_interval_fails(QTestState *qts, int64_t value,
                               const char *path, const char *desc)
{
    balloon_assert_error(qts, "GenericError", desc,
                         "{'execute': 'qom-set', 'arguments': {'path': %s,"
                         " 'property': 'guest-stats-polling-interval',"
                         " 'value': %" PRId64 "}}", path, value);
}

/* The polling property */
static void polling_property(BalloonDriver *d)
{
    static const char *const paths[] = { BALLOON_PATH, BALLOON_BACKEND_PATH };
    static const int64_t good[] = { 1, UINT32_MAX, 7 };
    const char *low = "timer value must be greater than zero";
    const char *high = "timer value is too big";

    g_assert_cmpint(balloon_get_interval(d->qts), ==, 0);
    balloon_leave_stats(d, 5);
    for (int i = 0; i < ARRAY_SIZE(good); i++) {
        balloon_set_interval(d->qts, good[i]);
        g_assert_cmpint(balloon_get_interval(d->qts), ==, good[i]);
    }
    for (int i = 0; i < ARRAY_SIZE(paths); i++) {
        set_interval_fails(d->qts, -1, paths[i], low);
        set_interval_fails(d->qts, INT64_MIN, paths[i], low);
        set_interval_fails(d->qts, 1ll << 32, paths[i], high);
        set_interval_fails(d->qts, INT64_MAX, paths[i], high);
        g_assert_cmphex(balloon_stat_at(d->qts, paths[i], "free-memory"), ==,
                        5);
    }
    g_assert_cmpint(balloon_get_interval(d->qts), ==, 7);
}

/* guest-stats is for reading */
static void stats_property(BalloonDriver *d)
{
    g_autoptr(QDict) error = qtest_qmp_assert_failure_ref(
        d->qts, "{'execute': 'qom-set', 'arguments': {'path': %s,"
        " 'property': 'guest-stats', 'value': {}}}", BALLOON_PATH);

    g_assert_cmpstr(qdict_get_str(error, "class"), ==, "GenericError");
}

static const BalloonTest tests[] = {
    { "life/plug-many", plug_many },
    { "life/second-balloon", second_balloon },
    { "life/unplug-busy", unplug_busy, ALL_DEVICE },
    { "life/polling-property", polling_property },
    { "life/stats-property", stats_property },
    { "reset/requests-in-flight", reset_busy, ALL_DEVICE },
    { "improved/tell/dimm", dimm_waiting, TELL, BALLOON_DIMM_SLOTS },
};

static void add_refused(void)
{
    for (const Refused *r = refused; r < refused + ARRAY_SIZE(refused); r++) {
        g_autofree char *path = g_strconcat("life/refused/", r->name, NULL);
        g_autofree char *then = g_strconcat(
            r->improved ? "improved/" : "", "life/refused-then-correct/",
            r->name, NULL);

        balloon_add_tests("", NULL, (BalloonTest[]) {
            { then, refused_then_correct, .data = r },
            { path, refused_device, .data = r },
        }, r->improved ? 2 : 1);
    }
}

BALLOON_ADD(add_refused)
BALLOON_TESTS("", NULL, tests)
