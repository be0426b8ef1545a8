/*
 * A guest that does with a virtio balloon what it may: what is done to it
 *
 * Nothing here waits for requests to be answered, unless it says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-random.h"

#define SLOT 4

/* Where balloon_boot() put the balloon, and what is done in between */
#define STEPS_MIN 5
#define STEPS_MAX 30

static void run_steps(BalloonGuest *g)
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
    qtest_qmp_assert_success(g->d.qts, "{'execute': 'stop'}");
}

static void cont(BalloonGuest *g)
{
    note(g, "cont");
    qtest_qmp_assert_success(g->d.qts, "{'execute': 'cont'}");
}

void balloon_guest_stop_cont(BalloonGuest *g)
{
    stop(g);
    balloon_model_check(&g->m, &g->d);
    cont(g);
}

/* No request is left, and the memory is the guest's at once */
static void take_all(BalloonGuest *g)
{
    balloon_guest_forget(g);
    balloon_model_reset(&g->m);
    for (int i = g_test_rand_int_range(0, 12); i > 0; i--) {
        balloon_guest_use(g);
    }
}

void balloon_guest_reset_device(BalloonGuest *g)
{
    /* Most likely it is in the middle of that */
    balloon_guest_press(g);
    note(g, "device-reset");
    balloon_reset(&g->d);
    take_all(g);
    if (g_test_rand_bit()) {
        balloon_model_check(&g->m, &g->d);
    }
    balloon_guest_start(g);
}

void balloon_guest_reset_machine(BalloonGuest *g)
{
    balloon_guest_press(g);
    note(g, "machine-reset");
    balloon_lose(&g->d);
    qtest_system_reset(g->d.qts);
    take_all(g);
    balloon_find(&g->d, SLOT);
    balloon_guest_start(g);
}

/*
 * Migration gets a bit further, and ends only when it is let: there is always
 * more to be sent, for the guest writes to its ballast.
 */
static void live_part(BalloonGuest *g, int stream, const char *file)
{
    qtest_memset(g->d.qts, g->ballast, g_test_rand_int_range(1, 256),
                 BALLOON_BALLAST);
    balloon_migrate_pass(stream, file,
                         g_test_rand_int_range(0, BALLOON_BALLAST - MiB));
    run_steps(g);
    if (g_test_rand_int_range(0, 4) == 0) {
        balloon_guest_reset_device(g);
    }
}

/* Maybe while the guest goes on; the VM is stopped then */
static void leave(BalloonGuest *g, const char *file)
{
    if (g_test_rand_bit()) {
        int stream = balloon_migrate_begin(g->d.qts);

        note(g, "live");
        g->m.live = true;
        for (int i = g_test_rand_int_range(1, 5); i > 0; i--) {
            live_part(g, stream, file);
        }
        balloon_guest_press(g);
        balloon_migrate_end(g->d.qts, stream, file);
    } else {
        balloon_migrate(g->d.qts, file);
    }
    note(g, "migrated");
}

void balloon_guest_save(BalloonGuest *g)
{
    g_autofree char *file = balloon_migration_file();

    note(g, "save");
    leave(g, file);
    unlink(file);
    g->m.live = false;
    balloon_model_check(&g->m, &g->d);
    cont(g);
}

static void lose_disk(BalloonGuest *g)
{
    if (g->disk) {
        unlink(g->disk);
        g_clear_pointer(&g->disk, g_free);
    }
}

void balloon_guest_move(BalloonGuest *g)
{
    g_autofree char *file = balloon_migration_file();
    bool stopped = g_test_rand_int_range(0, 4) == 0;
    BalloonDriver source;

    note(g, "move");
    if (stopped) {
        stop(g);
        balloon_migrate(g->d.qts, file);
    } else {
        leave(g, file);
    }
    source = g->d;
    balloon_load(&g->d, &source, g->device, g->options, file);
    unlink(file);
    balloon_quit(&source);
    lose_disk(g);
    g->moves++;
    balloon_model_migrated(&g->m);
    balloon_model_check(&g->m, &g->d);
    if (stopped) {
        cont(g);
    }
}

/* What a driver knows of its queues is in memory that a snapshot brings back */
typedef struct Saved {
    BalloonModel m;
    QVirtQueue vq[BALLOON_VQ_MAX];
} Saved;

static void remember(BalloonGuest *g, Saved *s)
{
    *s = (Saved) { .m = g->m };
    s->m.image = g_memdup2(g->m.image, (size_t)g->m.pages * BALLOON_PAGE);
    s->m.state = g_memdup2(g->m.state, g->m.pages);
    s->m.wild = g_memdup2(g->m.wild, g->m.pages * sizeof(*g->m.wild));
    s->m.gone = g_memdup2(g->m.gone, g->m.pages * sizeof(*g->m.gone));
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
    balloon_model_copy(&g->m, &s->m);
    g_free(s->m.image);
    g_free(s->m.state);
    g_free(s->m.wild);
    g_free(s->m.gone);
    for (unsigned i = 0; i < g->m.pages; i++) {
        g->m.wild[i] |= g->tell_host && g->m.state[i] == BALLOON_GIVEN;
    }
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        if (g->d.vq[i]) {
            *g->d.vq[i] = s->vq[i];
        }
    }
}

/* All is answered when it is saved, but not when it is loaded */
void balloon_guest_snapshot(BalloonGuest *g)
{
    g_autofree char *tag = g_strdup_printf("at-%" PRIu64, g->m.operations);
    Saved saved;

    if (!g->disk) {
        g->disk = g_strdup_printf("%s/virtio-balloon-disk-%d",
                                  g_get_tmp_dir(), getpid());
        balloon_add_disk(g->d.qts, g->disk);
    }
    balloon_guest_drain(g);
    note(g, "snapshot-save");
    balloon_snapshot(g->d.qts, "snapshot-save", tag);
    remember(g, &saved);
    run_steps(g);
    note(g, "snapshot-load");
    balloon_snapshot(g->d.qts, "snapshot-load", tag);
    balloon_guest_forget(g);
    recall(g, &saved);
    balloon_model_check(&g->m, &g->d);
}
