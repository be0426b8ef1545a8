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
#include "virtio-balloon-host.h"
#include "virtio-balloon-random.h"

/* Two QEMUs have it, when one migrates into the other */
#define SIZE (48 * MiB)
#define AREA_PAGES (8 * BALLOON_HUGE)

/* Pages and other things of one run, and what is done in it seldom */
#define OPERATIONS 12000
#define OPERATIONS_SLOW 500000
#define ACTION_EVERY 2600
/* How many steps there are between two checks, and of how many pages */
#define CHECK_EVERY 16
#define CHECK_PAGES (2 * BALLOON_HUGE)

/* What is behind the guest's memory, of which the model is a part */
typedef struct Backing {
    const char *options;
    bool huge;
    bool file;
    bool shared;
    bool dimm;
} Backing;

#define OF(slots, object)                                               \
    "-m 48" slots " -machine pc,memory-backend=ram "                    \
    "-object memory-backend-" object ",id=ram,size=48M "
#define HUGE_PAGES ",hugetlb=on,hugetlbsize=2M"

static const Backing private = { OF("", "ram") };
static const Backing memfd = { OF("", "memfd,share=on") };
static const Backing huge = {
    OF("", "memfd,share=on" HUGE_PAGES), .huge = true
};
static const Backing private_huge = {
    OF("", "memfd,share=off" HUGE_PAGES), .huge = true
};
static const Backing file_copy = {
    OF("", "file,share=off,mem-path=$FILES/ram"), .file = true
};
static const Backing file_shared = {
    OF("", "file,share=on,mem-path=$FILES/ram"), .file = true, .shared = true
};
static const Backing dimm = {
    OF(",slots=2,maxmem=1G", "ram") BALLOON_DIMM_PLUGGED, .dimm = true
};

/* A file as large as the RAM, full of bytes that are not the guest's */
static uint8_t *make_file(void)
{
    uint8_t *data = g_malloc(SIZE);

    for (size_t i = 0; i < SIZE; i += sizeof(uint64_t)) {
        stq_he_p(data + i, ~(uint64_t)i);
    }
    g_assert_true(g_file_set_contents(balloon_file("ram"), (char *)data, SIZE,
                                      NULL));
    return data;
}

static void assert_file(const uint8_t *data)
{
    g_autofree char *now = NULL;
    size_t size;

    g_assert_true(g_file_get_contents(balloon_file("ram"), &now, &size, NULL));
    g_assert_cmpuint(size, ==, SIZE);
    g_assert_true(memcmp(now, data, SIZE) == 0);
}

static void boot(BalloonGuest *g, const char *device, const Backing *b,
                 bool told, const uint8_t *file)
{
    uint64_t base;

    *g = (BalloonGuest) {
        .device = device,
        .options = b->options,
        .huge = b->huge,
        .told = told,
        .size = SIZE + (b->dimm ? BALLOON_DIMM_SIZE : 0),
        .shared = b->shared,
        .dimm = b->dimm,
        .inclination = 60,
    };
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        g_queue_init(&g->requests[i]);
    }
    balloon_boot(&g->d, device, b->options);
    base = guest_alloc(g->d.alloc, (AREA_PAGES + BALLOON_HUGE) * BALLOON_PAGE);
    base = ROUND_UP(base, HUGE);
    /* The first page of a DIMM is one that lists have by mistake */
    base = g->dimm ? BALLOON_DIMM + HUGE : base;
    g->ballast = balloon_alloc(&g->d, BALLOON_BALLAST, 1);
    balloon_model_init(&g->m, &g->d, base, AREA_PAGES,
                       b->file && !b->shared ? file + base : NULL);
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
        balloon_model_check_file(&g->m, balloon_file("ram"));
    }
    balloon_model_free(&g->m);
    g_free(g->recent);
}

static void check_some(BalloonGuest *g)
{
    unsigned first = g_test_rand_int_range(0, AREA_PAGES - CHECK_PAGES + 1);

    balloon_model_check_part(&g->m, &g->d, first, CHECK_PAGES);
}

static void play(BalloonGuest *g, uint64_t operations)
{
    uint64_t next = ACTION_EVERY;
    uint64_t next_told = g->told ? ACTION_EVERY / 2 : UINT64_MAX;

    g->turn = g_test_rand_int_range(0, 4);
    g->turn_told = g_test_rand_int_range(0, 6);
    while (g->m.operations < operations) {
        balloon_guest_steps(g, g_test_rand_int_range(1, CHECK_EVERY));
        if (balloon_chance(25)) {
            balloon_guest_press(g);
        }
        balloon_guest_act_often(g);
        check_some(g);
        if (g->m.operations >= next) {
            balloon_guest_act(g);
            next = g->m.operations + ACTION_EVERY;
        }
        if (g->m.operations >= next_told) {
            balloon_guest_act_told(g);
            next_told = g->m.operations + ACTION_EVERY;
        }
    }
    balloon_guest_drain(g);
    balloon_guest_settle(g);
    balloon_model_check(&g->m, &g->d);
}

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

/* @told: what stock does not do is checked, too */
static void play_random(BalloonDriver *d, bool told)
{
    const Backing *b = d->data;
    g_autofree uint8_t *file = NULL;
    BalloonGuest g;

    /* GLib gives each test the same random numbers: here are others */
    for (int i = (g_str_hash(d->device) ^ g_str_hash(b->options)) % 64; i > 0;
         i--) {
        g_test_rand_int();
    }
    if (b->huge && !balloon_hugepages_take(2 * SIZE / HUGE)) {
        g_test_skip("the host has no huge pages to spare");
        return;
    }
    file = b->file ? make_file() : NULL;
    balloon_preload(told ? "virtio-balloon-fake-vfio.so" : NULL);
    boot(&g, d->device, b, told, file);
    qtest_add_abrt_handler(say_log, &g);
    play(&g, operations());
    g_test_message("%" PRIu64 " operations", g.m.operations);
    qtest_remove_abrt_handler(&g);
    quit(&g);
    balloon_preload(NULL);
    if (b->file && !b->shared) {
        assert_file(file);
    }
}

static void plain(BalloonDriver *d)
{
    play_random(d, false);
}

static void told(BalloonDriver *d)
{
    play_random(d, true);
}

#define REPORT_TELL REPORTING ",must-tell-host=on"

static const BalloonTest tests[] = {
    { "random/private", plain, PLAIN, .data = &private },
    { "random/private-report", plain, REPORTING KICKED, .data = &private },
    { "random/memfd", plain, PLAIN KICKED, .data = &memfd },
    { "random/memfd-report", plain, REPORTING, .data = &memfd },
    { "random/huge", plain, PLAIN, .data = &huge },
    { "random/huge-report", plain, REPORTING KICKED, .data = &huge },
    { "random/private-huge", plain, REPORTING, .data = &private_huge },
    { "improved/random/file", told, PLAIN, .data = &file_copy },
    { "improved/random/file-report", told, REPORTING, .data = &file_copy },
    { "improved/random/tell-private", told, TELL, .data = &private },
    { "improved/random/tell-private-report", told, REPORT_TELL,
      .data = &private },
    { "improved/random/tell-memfd", told, TELL, .data = &memfd },
    { "improved/random/tell-memfd-report", told, REPORT_TELL, .data = &memfd },
    { "improved/random/tell-huge", told, TELL, .data = &huge },
    { "improved/random/tell-huge-report", told, REPORT_TELL, .data = &huge },
    { "improved/random/tell-private-huge", told, REPORT_TELL,
      .data = &private_huge },
    { "improved/random/tell-file", told, TELL, .data = &file_copy },
    { "improved/random/tell-file-report", told, REPORT_TELL,
      .data = &file_copy },
    { "improved/random/tell-shared-file", told, TELL, .data = &file_shared },
    { "improved/random/tell-shared-file-report", told, REPORT_TELL,
      .data = &file_shared },
    { "improved/random/tell-dimm", told, TELL, .data = &dimm },
    { "improved/random/tell-dimm-report", told, REPORT_TELL, .data = &dimm },
    { "improved/random/tell-legacy", told, TELL LEGACY, .data = &private },
    { "improved/random/tell-legacy-report", told, REPORT_TELL LEGACY,
      .data = &private },
};

BALLOON_BARE_TESTS("", NULL, tests)
