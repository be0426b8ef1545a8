/*
 * A guest that does with a virtio balloon what it may: ends of a balloon
 *
 * After each of these what was in the balloon is the guest's, or somebody else
 * uses all memory.  Requests stay where they are.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-plug.h"
#include "virtio-balloon-random.h"
#include "standard-headers/linux/virtio_config.h"

#define INFLATE BALLOON_VQ_INFLATE
#define DEFLATE BALLOON_VQ_DEFLATE
#define TELL_HOST (1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST)

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

bool balloon_guest_pause(BalloonGuest *g)
{
    uint8_t status = balloon_status(&g->d);
    bool bus_master = g_test_rand_bit();

    balloon_guest_prepare(g);
    balloon_model_note(&g->m, bus_master ? "bus-master-off" : "driver-off");
    g->m.operations++;
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
        balloon_model_note(&g->m, "driver-on");
        set_status(g, status);
    } else {
        balloon_reset(&g->d);
        balloon_guest_take_all(g);
        balloon_guest_start(g);
    }
    use_and_check(g);
    return true;
}

static void set_tell_host(BalloonGuest *g, bool on)
{
    uint64_t features = (g->d.vdev->features & ~TELL_HOST) |
                        (on ? TELL_HOST : 0);

    balloon_model_note(&g->m, on ? "tell" : "no-tell");
    g->m.operations++;
    g->d.vdev->bus->set_features(g->d.vdev, features);
    g->d.vdev->features = features;
    g->tell_host = on;
    balloon_guest_ended(g);
}

bool balloon_guest_drop_feature(BalloonGuest *g)
{
    if (g->d.vdev->features & 1ull << VIRTIO_F_VERSION_1 || !g->tell_host) {
        return false;
    }
    balloon_guest_prepare(g);
    set_tell_host(g, false);
    use_and_check(g);
    balloon_guest_some_steps(g);
    if (balloon_chance(70)) {
        /* An old message would be about pages that were given up since */
        balloon_guest_drain_queue(g, DEFLATE);
        set_tell_host(g, true);
    }
    use_and_check(g);
    return true;
}

/* Without its memory the guest does nothing with it */
bool balloon_guest_replug(BalloonGuest *g)
{
    if (!g->dimm) {
        return false;
    }
    balloon_guest_prepare(g);
    balloon_model_note(&g->m, "unplug");
    g->m.operations++;
    balloon_unplug_dimm(g->d.qts);
    if (g_test_rand_bit()) {
        balloon_guest_drain_queue(g, INFLATE);
    }
    balloon_plug_dimm(g->d.qts);
    balloon_guest_ended(g);
    use_and_check(g);
    return true;
}

static void set_inhibited(BalloonGuest *g, bool on)
{
    balloon_model_note(&g->m, on ? "inhibit" : "allow");
    g->m.operations++;
    g->moves++;
    g->inhibited = on;
    if (on) {
        balloon_plug_vfio(g->d.qts);
    } else {
        balloon_unplug_vfio(g->d.qts);
    }
}

bool balloon_guest_inhibit(BalloonGuest *g)
{
    uint64_t discarded;

    balloon_guest_prepare(g);
    set_inhibited(g, true);
    discarded = balloon_counter(g->d.qts, "discarded");
    balloon_guest_some_steps(g);
    if (balloon_chance(25)) {
        balloon_guest_stop_cont(g);
    }
    if (balloon_chance(25)) {
        balloon_guest_reset_device(g);
    }
    use_and_check(g);
    if (!balloon_is_coordinated(g->d.qts)) {
        g_assert_cmpuint(balloon_counter(g->d.qts, "discarded"), ==, discarded);
    }
    set_inhibited(g, false);
    /* It sees that at once when it is asked for the same once more */
    balloon_set_target(g->d.qts, balloon_target(g->d.qts));
    use_and_check(g);
    return true;
}
