/*
 * A guest that does with a virtio balloon what it may: what is done to it
 *
 * Nothing here waits for requests to be answered, unless it says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqos/pci-pc.h"
#include "virtio-balloon-host.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-random.h"
#include "standard-headers/linux/virtio_config.h"

#define RNG_SLOT 6

#define TELL_HOST (1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST)

/* Between two things */
#define STEPS_MIN 5
#define STEPS_MAX 30

static void some_steps(BalloonGuest *g)
{
    balloon_guest_steps(g, g_test_rand_int_range(STEPS_MIN, STEPS_MAX));
}

static void note(BalloonGuest *g, const char *what)
{
    balloon_model_note(&g->m, "%s", what);
    g->m.operations++;
}

static void stop(BalloonGuest *g)
{
    note(g, "stop");
    balloon_stop(&g->d);
}

static void cont(BalloonGuest *g)
{
    note(g, "cont");
    balloon_cont(&g->d);
}

static void stop_cont(BalloonGuest *g)
{
    stop(g);
    balloon_model_check(&g->m, &g->d);
    cont(g);
}

/* No request is left, and the memory is the guest's at once */
static void take_all(BalloonGuest *g)
{
    balloon_guest_forget(g);
    balloon_guest_ended(g);
    g->actual = 0;
    balloon_model_change(&g->m, ~BALLOON_IS(BALLOON_OWNED), BALLOON_LOOSE);
    for (int i = g_test_rand_int_range(0, 12); i > 0; i--) {
        balloon_guest_use(g);
    }
}

/* It uses what has come to it, and that stays as it is */
static void use_and_check(BalloonGuest *g)
{
    for (int i = g_test_rand_int_range(0, 6); i > 0; i--) {
        balloon_guest_use(g);
    }
    balloon_model_check(&g->m, &g->d);
    balloon_guest_check_told(g);
}

static void set_status(BalloonGuest *g, uint8_t status)
{
    g->d.vdev->bus->set_status(g->d.vdev, status);
}

/* The driver loses the device, and has it again or begins anew */
static bool pause_driver(BalloonGuest *g)
{
    uint8_t status = balloon_status(&g->d);
    bool bus_master = g_test_rand_bit();

    balloon_guest_prepare(g);
    note(g, bus_master ? "bus-master-off" : "driver-off");
    if (bus_master) {
        balloon_set_bus_master(&g->d, false);
    } else {
        set_status(g, status & ~VIRTIO_CONFIG_S_DRIVER_OK);
    }
    balloon_guest_ended(g);
    g->actual = 0;
    use_and_check(g);
    if (bus_master) {
        balloon_set_bus_master(&g->d, true);
    }
    if (balloon_chance(60)) {
        note(g, "driver-on");
        set_status(g, status);
    } else {
        balloon_reset(&g->d);
        take_all(g);
        balloon_guest_start(g);
    }
    use_and_check(g);
    return true;
}

static void set_tell_host(BalloonGuest *g, bool on)
{
    uint64_t features = (g->d.vdev->features & ~TELL_HOST) |
                        (on ? TELL_HOST : 0);

    note(g, on ? "tell" : "no-tell");
    g->d.vdev->bus->set_features(g->d.vdev, features);
    g->d.vdev->features = features;
    g->tell_host = on;
    balloon_guest_ended(g);
}

/* A legacy driver does not tell any more, for a while or for good */
static bool drop_feature(BalloonGuest *g)
{
    if (g->d.vdev->features & 1ull << VIRTIO_F_VERSION_1 || !g->tell_host) {
        return false;
    }
    balloon_guest_prepare(g);
    set_tell_host(g, false);
    use_and_check(g);
    some_steps(g);
    if (balloon_chance(70)) {
        /* An old message would be about pages that were given up since */
        balloon_guest_drain_queue(g, DEFLATE);
        set_tell_host(g, true);
    }
    use_and_check(g);
    return true;
}

/* The memory leaves the guest, which does nothing with it, and comes back */
static bool replug(BalloonGuest *g)
{
    if (!g->dimm) {
        return false;
    }
    balloon_guest_prepare(g);
    note(g, "unplug");
    balloon_unplug_dimm(g->d.qts);
    if (g_test_rand_bit()) {
        balloon_guest_drain_queue(g, INFLATE);
    }
    balloon_plug_dimm(g->d.qts);
    balloon_guest_ended(g);
    use_and_check(g);
    return true;
}

static void reset_device(BalloonGuest *g)
{
    /* Most likely it is in the middle of that */
    balloon_guest_press(g);
    note(g, "device-reset");
    balloon_reset(&g->d);
    take_all(g);
    balloon_guest_check_told(g);
    if (g_test_rand_bit()) {
        balloon_model_check(&g->m, &g->d);
    }
    balloon_guest_start(g);
}

static void reset_machine(BalloonGuest *g)
{
    balloon_guest_press(g);
    note(g, "machine-reset");
    balloon_machine_reset(&g->d);
    take_all(g);
    balloon_guest_check_told(g);
    balloon_guest_start(g);
}

static void set_inhibited(BalloonGuest *g, bool on)
{
    note(g, on ? "inhibit" : "allow");
    g->moves++;
    g->inhibited = on;
    if (on) {
        balloon_plug_vfio(g->d.qts);
    } else {
        balloon_unplug_vfio(g->d.qts);
    }
}

/* An assigned device comes and goes */
static bool inhibit(BalloonGuest *g)
{
    uint64_t discarded;

    balloon_guest_prepare(g);
    set_inhibited(g, true);
    discarded = balloon_counter(g->d.qts, "discarded");
    some_steps(g);
    if (balloon_chance(25)) {
        stop_cont(g);
    }
    if (balloon_chance(25)) {
        reset_device(g);
    }
    use_and_check(g);
    if (!balloon_is_coordinated(g->d.qts)) {
        /* A request that was put back takes what it had counted with it */
        g_assert_cmpuint(balloon_counter(g->d.qts, "discarded"), <=, discarded);
    }
    set_inhibited(g, false);
    /* It sees that at once when it is asked for the same once more */
    balloon_set_target(g->d.qts, balloon_target(g->d.qts));
    use_and_check(g);
    return true;
}

/*
 * Migration gets a bit further, and ends only when it is let: there is always
 * more to be sent, for the guest writes to its ballast.
 */
static void live_part(BalloonGuest *g, int stream)
{
    qtest_memset(g->d.qts, g->ballast, g_test_rand_int_range(1, 256),
                 BALLOON_BALLAST);
    balloon_migrate_pass(stream,
                         g_test_rand_int_range(0, BALLOON_BALLAST - MiB));
    some_steps(g);
    if (balloon_chance(25)) {
        reset_device(g);
    } else if (g->told && balloon_chance(25)) {
        pause_driver(g);
    } else if (g->told && balloon_chance(25)) {
        balloon_guest_reset_queue(g);
    }
}

/* Maybe while the guest goes on; the VM is stopped then */
static void leave(BalloonGuest *g)
{
    if (g_test_rand_bit()) {
        int stream = balloon_migrate_begin(g->d.qts);

        note(g, "live");
        g->m.live = true;
        for (int i = g_test_rand_int_range(1, 5); i > 0; i--) {
            live_part(g, stream);
        }
        balloon_guest_press(g);
        balloon_migrate_end(g->d.qts, stream);
    } else {
        balloon_migrate(g->d.qts);
    }
    note(g, "migrated");
}

/* Migrate into a file, and go on here */
static void save(BalloonGuest *g)
{
    note(g, "save");
    leave(g);
    g->m.live = false;
    balloon_model_check(&g->m, &g->d);
    balloon_guest_check_told(g);
    cont(g);
}

static void lose_disk(BalloonGuest *g)
{
    if (g->disk) {
        unlink(balloon_disk());
        g->disk = false;
    }
}

/* A QEMU that has the guest, but does not run, leaves its memory alone */
static void watch_idle(BalloonGuest *g)
{
    if (g->told) {
        balloon_assert_counter_stays(g->d.qts, "discarded", 0);
    }
    balloon_model_check(&g->m, &g->d);
}

/* What is to arrive was saved, but for the memory, which is there */
static void load_shared(BalloonGuest *g, BalloonDriver *source,
                        const char *options)
{
    balloon_boot_incoming(&g->d, g->device, options);
    balloon_set_capability(g->d.qts, "x-ignore-shared", true);
    g_assert_true(balloon_try_load(g->d.qts));
    balloon_set_capability(g->d.qts, "x-ignore-shared", false);
    balloon_adopt(&g->d, source);
}

/* Save all but the memory; the VM is stopped then */
static void save_shared(BalloonGuest *g)
{
    balloon_set_capability(g->d.qts, "x-ignore-shared", true);
    balloon_migrate(g->d.qts);
    balloon_set_capability(g->d.qts, "x-ignore-shared", false);
}

/* The guest goes on where it was loaded, with @options */
static void arrive(BalloonGuest *g, const char *options, bool shared)
{
    BalloonDriver source = g->d;

    if (shared) {
        load_shared(g, &source, options);
    } else {
        balloon_load(&g->d, &source, options);
    }
    balloon_quit(&source);
    lose_disk(g);
    g->moves++;
    balloon_model_migrated(&g->m);
}

/* Migrate into another QEMU, and go on there */
static void move(BalloonGuest *g)
{
    g_autofree char *paused = g_strconcat(g->options, " -S", NULL);
    bool stopped = balloon_chance(25);
    bool wait = balloon_chance(50);
    bool shared = g->shared && balloon_chance(50);

    note(g, shared ? "move-shared" : "move");
    if (stopped) {
        stop(g);
    }
    if (shared) {
        save_shared(g);
    } else if (stopped) {
        balloon_migrate(g->d.qts);
    } else {
        leave(g);
    }
    arrive(g, wait ? paused : g->options, shared);
    balloon_model_check(&g->m, &g->d);
    if (wait) {
        watch_idle(g);
    }
    balloon_guest_check_told(g);
    if (stopped || wait) {
        cont(g);
    }
}

/* It will not be loaded: after the balloon there is what nobody has there */
static void set_foreign(BalloonGuest *g, bool on)
{
    if (on) {
        qtest_qmp_device_add(g->d.qts, "virtio-rng-pci", "rng0",
                             "{'addr': %s}", stringify(RNG_SLOT));
    } else {
        qpci_unplug_acpi_device_test(g->d.qts, "rng0", RNG_SLOT);
    }
}

/* Here the guest goes on; there is a QEMU that got its state, and waits */
static void go_on_here(BalloonGuest *g, BalloonDriver *target)
{
    cont(g);
    for (int i = g_test_rand_int_range(1, 5); i > 0; i--) {
        some_steps(g);
        balloon_model_check(&g->m, &g->d);
    }
    balloon_assert_counter_stays(target->qts, "discarded", 0);
}

/* Another QEMU gets the state and the memory, and this one goes on */
static bool share(BalloonGuest *g)
{
    g_autofree char *paused = g_strconcat(g->options,
                                          " -S 2> /dev/null", NULL);
    bool foreign = g_test_rand_bit();
    BalloonDriver target;

    if (!g->shared) {
        return false;
    }
    balloon_guest_prepare(g);
    note(g, foreign ? "share-failed" : "share");
    if (foreign) {
        set_foreign(g, true);
    }
    save_shared(g);
    balloon_boot_incoming(&target, g->device, paused);
    balloon_set_capability(target.qts, "x-ignore-shared", true);
    g_assert_cmpint(balloon_try_load(target.qts), ==, !foreign);
    balloon_model_check(&g->m, &g->d);
    go_on_here(g, &target);
    balloon_quit(&target);
    if (foreign) {
        set_foreign(g, false);
    }
    balloon_model_check(&g->m, &g->d);
    balloon_guest_check_told(g);
    return true;
}

/* What a driver knows of its queues is in memory that a snapshot brings back */
typedef struct Saved {
    uint8_t *image;
    BalloonModelPage *page;
    uint32_t actual;
    QVirtQueue vq[BALLOON_VQ_MAX];
} Saved;

static void remember(BalloonGuest *g, Saved *s)
{
    *s = (Saved) {
        .image = g_memdup2(g->m.image, (size_t)g->m.pages * BALLOON_PAGE),
        .page = g_memdup2(g->m.page, g->m.pages * sizeof(*g->m.page)),
        .actual = g->actual,
    };
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        s->vq[i] = g->d.vq[i] ? *g->d.vq[i] : (QVirtQueue) {};
    }
}

/*
 * With MUST_TELL_HOST a snapshot need not have what is in the balloon: such
 * pages may be as they were when it was loaded.
 */
static void recall(BalloonGuest *g, Saved *s)
{
    g_free(g->m.image);
    g_free(g->m.page);
    g->m.image = s->image;
    g->m.page = s->page;
    g->actual = s->actual;
    for (unsigned i = 0; i < g->m.pages; i++) {
        g->m.page[i].wild |= g->tell_host &&
                             g->m.page[i].state == BALLOON_GIVEN;
    }
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        if (g->d.vq[i]) {
            *g->d.vq[i] = s->vq[i];
        }
    }
}

/*
 * Go on for a while, and go back to where that began.  All is answered when it
 * is saved, but not when it is loaded.
 */
static void snapshot(BalloonGuest *g)
{
    g_autofree char *tag = g_strdup_printf("at-%" PRIu64, g->m.operations);
    Saved saved;

    if (!g->disk) {
        g->disk = true;
        balloon_add_disk(g->d.qts);
    }
    balloon_guest_drain(g);
    note(g, "snapshot-save");
    balloon_snapshot(g->d.qts, "snapshot-save", tag);
    remember(g, &saved);
    some_steps(g);
    note(g, "snapshot-load");
    balloon_snapshot(g->d.qts, "snapshot-load", tag);
    balloon_guest_forget(g);
    recall(g, &saved);
    balloon_model_check(&g->m, &g->d);
    balloon_guest_check_told(g);
}

void balloon_guest_act_often(BalloonGuest *g)
{
    switch (g_test_rand_int_range(0, 12)) {
    case 0:
        stop_cont(g);
        break;
    case 1:
        reset_device(g);
        break;
    case 2:
        balloon_guest_drain(g);
        balloon_guest_settle(g);
        break;
    }
}

/* What takes long, each as often as the others */
void balloon_guest_act(BalloonGuest *g)
{
    static void (*const actions[])(BalloonGuest *) = {
        move, reset_machine, save, snapshot,
    };

    actions[g->turn++ % ARRAY_SIZE(actions)](g);
}

/* What not every machine can do: each returns whether this one did */
void balloon_guest_act_told(BalloonGuest *g)
{
    static bool (*const actions[])(BalloonGuest *) = {
        pause_driver, balloon_guest_reset_queue, drop_feature, replug, share,
        inhibit,
    };

    while (!actions[g->turn_told++ % ARRAY_SIZE(actions)](g)) {
        ;
    }
    /* What became the guest's has to arrive */
    if (balloon_chance(30)) {
        move(g);
    }
}
