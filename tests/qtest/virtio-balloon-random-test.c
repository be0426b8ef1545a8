/*
 * The virtio balloon never takes a byte that the guest owns
 *
 * A guest gives memory up, takes it back and reports it, in random order and
 * with several requests on their way, while it is stopped, reset, migrated and
 * brought back from snapshots.  A model knows what must be in its memory.
 * The random seed that GLib prints at the beginning brings a run back: give it
 * with --seed.  In slow mode a run takes some minutes, and longer with a number
 * of operations for each test in the environment, VIRTIO_BALLOON_OPERATIONS.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "virtio-balloon-hugepages.h"
#include "virtio-balloon-plug.h"
#include "virtio-balloon-random.h"

#define RAM_MB 48
#define RAM (RAM_MB * MiB)
#define AREA_PAGES (8 * BALLOON_HUGE)
#define HUGE_SIZE (BALLOON_HUGE * BALLOON_PAGE)

/* Pages and other things of one run, and what is done in it seldom */
#define OPERATIONS 12000
#define OPERATIONS_SLOW 500000
#define ACTION_EVERY 2600
/* How many steps there are between two checks, and of how many pages */
#define CHECK_EVERY 16
#define CHECK_PAGES (2 * BALLOON_HUGE)

/* Huge pages for two QEMUs, one of which migrates into the other */
#define POOL_PAGES (2 * RAM / HUGE_SIZE)

typedef enum Backing {
    PRIVATE, MEMFD, HUGE, PRIVATE_HUGE, FILE_COPY, FILE_SHARED, DIMM
} Backing;

typedef struct Case {
    const char *name;
    Backing backing;
    const char *device;
} Case;

/* The file behind the RAM, if there is one */
static char *ram_file;

static void remove_file(void *unused)
{
    unlink(ram_file);
}

/* A file as large as the RAM, full of bytes that are not the guest's */
static uint8_t *make_file(void)
{
    uint8_t *data = g_malloc(RAM);

    for (size_t i = 0; i < RAM; i += sizeof(uint64_t)) {
        stq_he_p(data + i, ~(uint64_t)i);
    }
    ram_file = g_strdup_printf("%s/virtio-balloon-ram-%d", g_get_tmp_dir(),
                                getpid());
    g_assert_true(g_file_set_contents(ram_file, (char *)data, RAM, NULL));
    return data;
}

static void assert_file(const uint8_t *data)
{
    g_autofree char *now = NULL;
    size_t size;

    g_assert_true(g_file_get_contents(ram_file, &now, &size, NULL));
    g_assert_cmpuint(size, ==, RAM);
    g_assert_true(memcmp(now, data, RAM) == 0);
}

static bool has_file(Backing backing)
{
    return backing == FILE_COPY || backing == FILE_SHARED;
}

static char *make_options(Backing backing)
{
    static const char *const objects[] = {
        [PRIVATE] = "memory-backend-ram",
        [MEMFD] = "memory-backend-memfd,share=on",
        [HUGE] = "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize=2M",
        [PRIVATE_HUGE] = "memory-backend-memfd,share=off,hugetlb=on,"
                         "hugetlbsize=2M",
        [FILE_COPY] = "memory-backend-file,share=off,mem-path=",
        [FILE_SHARED] = "memory-backend-file,share=on,mem-path=",
        [DIMM] = "memory-backend-ram",
    };

    return g_strdup_printf("-m %d%s -machine pc,memory-backend=ram"
                           " -object %s%s,id=ram,size=%dM%s",
                           RAM_MB, backing == DIMM ? ",slots=2,maxmem=1G" : "",
                           objects[backing], has_file(backing) ? ram_file : "",
                           RAM_MB, backing == DIMM ? " " BALLOON_DIMM_PLUGGED :
                                                     "");
}

/* What stock does not do is checked, too */
static bool is_told(const Case *c)
{
    return g_str_has_prefix(c->name, "improved/");
}

static bool is_huge(Backing backing)
{
    return backing == HUGE || backing == PRIVATE_HUGE;
}

static void boot(BalloonGuest *g, const Case *c, Backing backing,
                 const char *options, const uint8_t *file)
{
    uint64_t base;

    *g = (BalloonGuest) {
        .device = c->device,
        .options = options,
        .huge = is_huge(backing),
        .told = is_told(c),
        .size = RAM + (backing == DIMM ? BALLOON_DIMM_SIZE : 0),
        .shared = backing == FILE_SHARED ? ram_file : NULL,
        .dimm = backing == DIMM,
        .inclination = 60,
    };
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        g_queue_init(&g->requests[i]);
    }
    balloon_boot(&g->d, c->device, options);
    base = guest_alloc(g->d.alloc, (AREA_PAGES + BALLOON_HUGE) * BALLOON_PAGE);
    base = ROUND_UP(base, HUGE_SIZE);
    /* The first page of a DIMM is one that lists have by mistake */
    base = g->dimm ? BALLOON_DIMM + HUGE_SIZE : base;
    g->ballast = balloon_alloc(&g->d, BALLOON_BALLAST, 1);
    balloon_model_init(&g->m, &g->d, base, AREA_PAGES,
                       backing == FILE_COPY ? file + base : NULL);
    balloon_guest_start(g);
}

/* QEMU may end in the middle of anything, and that changes nothing */
static void quit(BalloonGuest *g)
{
    if (g->told && balloon_chance(75)) {
        balloon_guest_press(g);
    }
    balloon_guest_forget(g);
    balloon_quit(&g->d);
    if (g->shared) {
        balloon_model_check_file(&g->m, g->shared);
    }
    balloon_model_free(&g->m);
    g_free(g->recent);
    if (g->disk) {
        unlink(g->disk);
        g_free(g->disk);
    }
}

/* What takes long, each as often as the others */
static void act(BalloonGuest *g, unsigned turn)
{
    static void (*const actions[])(BalloonGuest *) = {
        balloon_guest_move,
        balloon_guest_reset_machine,
        balloon_guest_save,
        balloon_guest_snapshot,
    };

    actions[turn % G_N_ELEMENTS(actions)](g);
}

static void act_told(BalloonGuest *g)
{
    static bool (*const actions[])(BalloonGuest *) = {
        balloon_guest_pause,
        balloon_guest_reset_queue,
        balloon_guest_drop_feature,
        balloon_guest_replug,
        balloon_guest_share,
        balloon_guest_inhibit,
    };

    while (!actions[g->turn++ % G_N_ELEMENTS(actions)](g)) {
        ;
    }
}

static void check_some(BalloonGuest *g)
{
    unsigned first = g_test_rand_int_range(0, AREA_PAGES - CHECK_PAGES + 1);

    balloon_model_check_part(&g->m, &g->d, first, CHECK_PAGES);
}

static void play(BalloonGuest *g, uint64_t operations)
{
    unsigned turn = g_test_rand_int_range(0, 4);
    uint64_t next = ACTION_EVERY;
    uint64_t next_told = g->told ? ACTION_EVERY / 2 : UINT64_MAX;

    g->turn = g_test_rand_int_range(0, 6);
    while (g->m.operations < operations) {
        balloon_guest_steps(g, g_test_rand_int_range(1, CHECK_EVERY));
        if (g_test_rand_int_range(0, 4) == 0) {
            balloon_guest_press(g);
        }
        switch (g_test_rand_int_range(0, 12)) {
        case 0:
            balloon_guest_stop_cont(g);
            break;
        case 1:
            balloon_guest_reset_device(g);
            break;
        case 2:
            balloon_guest_drain(g);
            balloon_guest_settle(g);
            break;
        }
        check_some(g);
        if (g->m.operations >= next) {
            act(g, turn++);
            next = g->m.operations + ACTION_EVERY;
        }
        if (g->m.operations >= next_told) {
            act_told(g);
            /* What became the guest's has to arrive */
            if (balloon_chance(30)) {
                balloon_guest_move(g);
            }
            next_told = g->m.operations + ACTION_EVERY;
        }
    }
    balloon_guest_drain(g);
    balloon_guest_settle(g);
    balloon_model_check(&g->m, &g->d);
}

#define PLAIN "virtio-balloon-pci"
#define REPORTING PLAIN ",free-page-reporting=on"
#define TELL ",must-tell-host=on"
#define LEGACY ",disable-modern=on"

static const Case cases[] = {
    { "random/private", PRIVATE, PLAIN },
    { "random/private-report", PRIVATE, REPORTING ",ioeventfd=off" },
    { "random/memfd", MEMFD, PLAIN ",ioeventfd=off" },
    { "random/memfd-report", MEMFD, REPORTING },
    { "random/huge", HUGE, PLAIN },
    { "random/huge-report", HUGE, REPORTING ",ioeventfd=off" },
    { "random/private-huge", PRIVATE_HUGE, REPORTING },
    { "improved/random/file", FILE_COPY, PLAIN },
    { "improved/random/file-report", FILE_COPY, REPORTING },
    { "improved/random/tell-private", PRIVATE, PLAIN TELL },
    { "improved/random/tell-private-report", PRIVATE, REPORTING TELL },
    { "improved/random/tell-memfd", MEMFD, PLAIN TELL },
    { "improved/random/tell-memfd-report", MEMFD, REPORTING TELL },
    { "improved/random/tell-huge", HUGE, PLAIN TELL },
    { "improved/random/tell-huge-report", HUGE, REPORTING TELL },
    { "improved/random/tell-private-huge", PRIVATE_HUGE, REPORTING TELL },
    { "improved/random/tell-file", FILE_COPY, PLAIN TELL },
    { "improved/random/tell-file-report", FILE_COPY, REPORTING TELL },
    { "improved/random/tell-shared-file", FILE_SHARED, PLAIN TELL },
    { "improved/random/tell-shared-file-report", FILE_SHARED, REPORTING TELL },
    { "improved/random/tell-dimm", DIMM, PLAIN TELL },
    { "improved/random/tell-dimm-report", DIMM, REPORTING TELL },
    { "improved/random/tell-legacy", PRIVATE, PLAIN TELL LEGACY },
    { "improved/random/tell-legacy-report", PRIVATE, REPORTING TELL LEGACY },
};

/* The environment may say how long to go on */
static uint64_t operations(void)
{
    const char *text = g_getenv("VIRTIO_BALLOON_OPERATIONS");

    return text ? g_ascii_strtoull(text, NULL, 10) :
           g_test_slow() ? OPERATIONS_SLOW : OPERATIONS;
}

static void say_log(void *guest)
{
    balloon_model_log(&((BalloonGuest *)guest)->m);
}

static void test_random(const void *data)
{
    const Case *c = data;
    Backing backing = c->backing;
    g_autofree char *options = NULL;
    g_autofree uint8_t *file = NULL;
    BalloonGuest g;

    /* GLib gives each test the same random numbers: here are others */
    for (int i = c - cases; i > 0; i--) {
        g_test_rand_int();
    }
    if (is_huge(backing) && !balloon_hugepages_take(POOL_PAGES)) {
        g_test_message("no huge pages to be had: private memory instead");
        backing = PRIVATE;
    }
    if (has_file(backing)) {
        file = make_file();
        qtest_add_abrt_handler(remove_file, &ram_file);
    }
    options = make_options(backing);
    balloon_preload(is_told(c) ? "virtio-balloon-fake-vfio.so" : NULL);
    boot(&g, c, backing, options, file);
    qtest_add_abrt_handler(say_log, &g);
    play(&g, operations());
    g_test_message("%" PRIu64 " operations", g.m.operations);
    qtest_remove_abrt_handler(&g);
    quit(&g);
    balloon_preload(NULL);
    if (has_file(backing)) {
        if (backing == FILE_COPY) {
            assert_file(file);
        }
        qtest_remove_abrt_handler(&ram_file);
        unlink(ram_file);
        g_clear_pointer(&ram_file, g_free);
    }
    balloon_hugepages_restore();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strconcat("/virtio-balloon/",
                                            cases[i].name, NULL);

        qtest_add_data_func(path, &cases[i], test_random);
    }
    return g_test_run();
}
