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

/* What is behind the guest's memory, of which the model is a part */
typedef struct Backing {
    const char *object;
    bool huge;
    bool file;
    bool shared;
    bool dimm;
} Backing;

#define HUGE_PAGES ",hugetlb=on,hugetlbsize=2M"

static const Backing private = { "ram" };
static const Backing memfd = { "memfd,share=on" };
static const Backing huge = { "memfd,share=on" HUGE_PAGES, .huge = true };
static const Backing private_huge = {
    "memfd,share=off" HUGE_PAGES, .huge = true
};
static const Backing file_copy = { "file,share=off,mem-path=", .file = true };
static const Backing file_shared = {
    "file,share=on,mem-path=", .file = true, .shared = true
};
static const Backing dimm = { "ram", .dimm = true };

typedef struct Case {
    const char *name;
    const Backing *backing;
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

static char *make_options(const Backing *b)
{
    return g_strdup_printf("-m %d%s -machine pc,memory-backend=ram"
                           " -object memory-backend-%s%s,id=ram,size=%dM %s",
                           RAM_MB, b->dimm ? ",slots=2,maxmem=1G" : "",
                           b->object, b->file ? ram_file : "", RAM_MB,
                           b->dimm ? BALLOON_DIMM_PLUGGED : "");
}

/* What stock does not do is checked, too */
static bool is_told(const Case *c)
{
    return g_str_has_prefix(c->name, "improved/");
}

static void boot(BalloonGuest *g, const Case *c, const Backing *b,
                 const char *options, const uint8_t *file)
{
    uint64_t base;

    *g = (BalloonGuest) {
        .device = c->device,
        .options = options,
        .huge = b->huge,
        .told = is_told(c),
        .size = RAM + (b->dimm ? BALLOON_DIMM_SIZE : 0),
        .shared = b->shared ? ram_file : NULL,
        .dimm = b->dimm,
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
        balloon_model_check_file(&g->m, g->shared);
    }
    balloon_model_free(&g->m);
    g_free(g->recent);
    if (g->disk) {
        unlink(g->disk);
        g_free(g->disk);
    }
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

#define PLAIN "virtio-balloon-pci"
#define REPORTING PLAIN ",free-page-reporting=on"
#define TELL ",must-tell-host=on"
#define LEGACY ",disable-modern=on"

static const Case cases[] = {
    { "random/private", &private, PLAIN },
    { "random/private-report", &private, REPORTING ",ioeventfd=off" },
    { "random/memfd", &memfd, PLAIN ",ioeventfd=off" },
    { "random/memfd-report", &memfd, REPORTING },
    { "random/huge", &huge, PLAIN },
    { "random/huge-report", &huge, REPORTING ",ioeventfd=off" },
    { "random/private-huge", &private_huge, REPORTING },
    { "improved/random/file", &file_copy, PLAIN },
    { "improved/random/file-report", &file_copy, REPORTING },
    { "improved/random/tell-private", &private, PLAIN TELL },
    { "improved/random/tell-private-report", &private, REPORTING TELL },
    { "improved/random/tell-memfd", &memfd, PLAIN TELL },
    { "improved/random/tell-memfd-report", &memfd, REPORTING TELL },
    { "improved/random/tell-huge", &huge, PLAIN TELL },
    { "improved/random/tell-huge-report", &huge, REPORTING TELL },
    { "improved/random/tell-private-huge", &private_huge, REPORTING TELL },
    { "improved/random/tell-file", &file_copy, PLAIN TELL },
    { "improved/random/tell-file-report", &file_copy, REPORTING TELL },
    { "improved/random/tell-shared-file", &file_shared, PLAIN TELL },
    { "improved/random/tell-shared-file-report", &file_shared, REPORTING TELL },
    { "improved/random/tell-dimm", &dimm, PLAIN TELL },
    { "improved/random/tell-dimm-report", &dimm, REPORTING TELL },
    { "improved/random/tell-legacy", &private, PLAIN TELL LEGACY },
    { "improved/random/tell-legacy-report", &private, REPORTING TELL LEGACY },
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
    const Backing *b = c->backing;
    g_autofree char *options = NULL;
    g_autofree uint8_t *file = NULL;
    BalloonGuest g;

    /* GLib gives each test the same random numbers: here are others */
    for (int i = c - cases; i > 0; i--) {
        g_test_rand_int();
    }
    if (b->huge && !balloon_hugepages_take(POOL_PAGES)) {
        g_test_message("no huge pages to be had: private memory instead");
        b = &private;
    }
    if (b->file) {
        file = make_file();
        qtest_add_abrt_handler(remove_file, &ram_file);
    }
    options = make_options(b);
    balloon_preload(is_told(c) ? "virtio-balloon-fake-vfio.so" : NULL);
    boot(&g, c, b, options, file);
    qtest_add_abrt_handler(say_log, &g);
    play(&g, operations());
    g_test_message("%" PRIu64 " operations", g.m.operations);
    qtest_remove_abrt_handler(&g);
    quit(&g);
    balloon_preload(NULL);
    if (b->file) {
        if (!b->shared) {
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
