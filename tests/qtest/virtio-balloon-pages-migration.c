/*
 * Pages in a virtio balloon that are saved, or go elsewhere
 *
 * The memory of a destination that does not run, or not yet, may be another
 * QEMU's, whose guest goes on: then each page that it discards is one that
 * this guest uses.  And a saved state that does not fit is refused, whatever
 * it says.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-pages.h"

/* Every other page of so much memory: more runs than can be looked at soon */
#define LARGE "-m 1152"
#define FRAGMENTED GiB

/* Enough for a destination, and what is in the balloon of it */
#define MEMORY_256(backend)                                             \
    "-m 256 -machine pc,memory-backend=ram"                             \
    " -object memory-backend-" backend ",id=ram,size=256M"
#define PART (64 * MiB)

/* As many page numbers as a driver has in a page */
#define LIST_PAGES 1024

/* Give every other page of the memory from AREA on */
static void inflate_fragments(BalloonDriver *d, uint64_t size)
{
    uint32_t pfns[LIST_PAGES];

    for (uint64_t at = 0; at < size; at += 2 * LIST_PAGES * BALLOON_PAGE) {
        for (unsigned i = 0; i < LIST_PAGES; i++) {
            pfns[i] = BALLOON_PFN(AREA + at) + 2 * i;
        }
        balloon_send_pfns(d, BALLOON_VQ_INFLATE, pfns, LIST_PAGES);
    }
    balloon_wait_discarded(d->qts);
}

/* All of them are skipped, at the first look at what has changed ... */
static void test_skipped(BalloonDriver *d)
{
    inflate_fragments(d, FRAGMENTED);
    g_assert_cmpint(balloon_case_move(d), ==, FRAGMENTED / 2);
    /* It is known at the other end which they are */
    g_assert_cmpint(balloon_case_move(d), ==, FRAGMENTED / 2);
}

/* ... and at each later one */
static void test_skipped_again(BalloonDriver *d)
{
    const uint64_t dirty = 4 * MiB;
    g_autofree char *file = balloon_migration_file();
    int stream;

    inflate_fragments(d, FRAGMENTED);
    stream = balloon_migrate_begin(d->qts);
    qtest_memset(d->qts, AREA + FRAGMENTED - dirty, NEW, dirty);
    balloon_migrate_end(d->qts, stream, file);
    unlink(file);
    /* The pages between them are sent, perhaps for the second time */
    g_assert_cmpint(balloon_migration_skipped(d->qts), <=, FRAGMENTED / 2);
    g_assert_cmpint(balloon_migration_skipped(d->qts), >=,
                    FRAGMENTED / 2 - dirty / 2);
}

/* Have @file loaded by a machine with @options; returns what it discarded */
static uint64_t load_and_discard(const char *options, const char *file)
{
    uint64_t discarded;
    BalloonDriver d;

    balloon_boot_incoming(&d, TELL, options);
    g_assert_true(balloon_try_load(d.qts, file));
    balloon_cont(&d);
    balloon_wait_discarded(d.qts);
    discarded = balloon_counter(d.qts, "discarded");
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
    return discarded;
}

/* A destination discards what it has, and nothing that it never had ... */
static void check_destination(BalloonDriver *d, uint64_t given)
{
    const char *options = balloon_case()->options;
    g_autofree char *populated = g_strconcat(options, ",prealloc=on", NULL);
    g_autofree char *file = balloon_migration_file();

    balloon_migrate(d->qts, file);
    g_assert_cmpuint(load_and_discard(options, file), ==, 0);
    g_assert_cmpuint(load_and_discard(populated, file), ==, given);
    unlink(file);
}

/*
 * ... all of it, as private memory comes as huge pages, also where only some
 * of their pages are sent
 */
static void test_destination(BalloonDriver *d)
{
    balloon_inflate(d, AREA, PART);
    check_destination(d, PART);
}

static void test_destination_shared(BalloonDriver *d)
{
    inflate_fragments(d, PART);
    check_destination(d, PART / 2);
}

#define GIVEN (HUGE / 2 + BALLOON_PAGE)

/* The source, on memory that it shares with its destination, is migrated */
static void run_source(BalloonDriver *d, const char *options, const char *file,
                       bool more)
{
    balloon_boot_and_start(d, TELL, options);
    if (more) {
        /* The destination does not have it, and fails after the balloon */
        qtest_qmp_device_add(d->qts, "virtio-rng-pci", "rng0",
                             "{'addr': '6'}");
    }
    balloon_give(d, AREA, GIVEN);
    balloon_set_capability(d->qts, "x-ignore-shared", true);
    balloon_migrate(d->qts, file);
}

/* Its guest goes on all the same, and has its pages back */
static void go_on(BalloonDriver *d)
{
    balloon_cont(d);
    balloon_deflate(d, AREA, GIVEN);
    qtest_memset(d->qts, AREA, NEW, HUGE);
}

/* When the destination gets to look at what was saved */
typedef enum When {
    LOADS_AND_WAITS,
    FAILS_AT_ANOTHER_DEVICE,
    /* the rings have moved on, so that the device itself does not load */
    FAILS_TOO_LATE,
} When;

/* Whatever becomes of the destination, it leaves the pages alone */
static void test_source_goes_on(const void *data)
{
    When when = GPOINTER_TO_INT(data);
    g_autofree char *folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    g_autofree char *ram = g_build_filename(folder, "ram", NULL);
    g_autofree char *file = g_build_filename(folder, "state", NULL);
    g_autofree char *options =
        g_strdup_printf(MEMORY_OF("file,share=on,mem-path=%s"), ram);
    g_autofree char *paused = g_strconcat(options, " -S 2> /dev/null", NULL);
    BalloonDriver source, target;

    run_source(&source, options, file, when == FAILS_AT_ANOTHER_DEVICE);
    balloon_boot_incoming(&target, TELL, paused);
    balloon_set_capability(target.qts, "x-ignore-shared", true);
    if (when == FAILS_TOO_LATE) {
        go_on(&source);
    }
    g_assert_cmpint(balloon_try_load(target.qts, file), ==,
                    when == LOADS_AND_WAITS);
    if (when != FAILS_TOO_LATE) {
        go_on(&source);
    }
    g_assert_false(balloon_vm_is_running(target.qts));
    balloon_assert_stays(&source, AREA, HUGE, NEW);
    g_assert_cmpuint(balloon_counter(target.qts, "discarded"), ==, 0);
    balloon_quit(&target);
    balloon_assert_bytes(&source, AREA, HUGE, NEW);
    balloon_quit(&source);
    unlink(file);
    unlink(ram);
    rmdir(folder);
}

/* What there is to be discarded is discarded when the guest goes on there */
static void test_paused(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *paused = g_strconcat(balloon_case()->options,
                                          ",prealloc=on -S", NULL);
    BalloonDriver source = *d;

    balloon_inflate(&source, AREA, HUGE / 2);
    balloon_migrate(source.qts, file);
    balloon_load(d, &source, TELL, paused, file);
    balloon_quit(&source);
    unlink(file);

    g_assert_false(balloon_vm_is_running(d->qts));
    balloon_use(d, AREA, HUGE);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, 0);

    balloon_cont(d);
    balloon_wait_gone(d, AREA, HUGE / 2);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, AREA + HUGE / 2, HUGE / 2, NEW);
}

/* Little memory, which many states are loaded into */
#define OPTIONS "-m 32"
#define SIZE (32 * MiB)
#define MIDDLE (16 * MiB)
#define LONELY (28 * MiB)
#define QUIET " 2> /dev/null"

/* How the part of the state that says the pages is named, and what follows */
#define SECTION "virtio-balloon-device/must-tell-host"
#define NEXT "virtio"

/* How much of it is damaged at each place */
#define DAMAGED_MAX 320

/* Damage is as wide as the widest number, at each place for a 32-bit one */
#define DAMAGE 8
#define STEP 4
#define LATER_STEP 256
#define CUTS 10

/* Of a disk with snapshots */
#define CLUSTER (64 * KiB)

/* Some runs of pages */
static void inflate_many(BalloonDriver *d)
{
    balloon_inflate(d, MIDDLE, HUGE / 2);
    balloon_inflate(d, MIDDLE + HUGE, 3 * BALLOON_PAGE);
    balloon_inflate(d, LONELY, BALLOON_PAGE);
}

/* Save a state with them in @file */
static void save(const char *file)
{
    BalloonDriver d;

    balloon_boot(&d, TELL, OPTIONS);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    inflate_many(&d);
    balloon_migrate(d.qts, file);
    balloon_quit(&d);
}

/* Without the property there is no place for them, and that is said */
static void test_no_property(const void *exits)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *log = g_strconcat(file, "-log", NULL);
    g_autofree char *uri = g_strconcat("file:", file, NULL);
    g_autofree char *options = g_strdup_printf(OPTIONS " 2> %s", log);
    g_autofree char *said = NULL;
    BalloonDriver d;

    save(file);
    balloon_boot_incoming(&d, "virtio-balloon-pci", options);
    if (exits) {
        qtest_set_expected_status(d.qts, EXIT_FAILURE);
        balloon_migrate_incoming(d.qts, uri);
        qtest_wait_qemu(d.qts);
    } else {
        g_assert_false(balloon_try_load(d.qts, file));
        g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, 0);
    }
    balloon_quit(&d);
    g_assert_true(g_file_get_contents(log, &said, NULL, NULL));
    g_assert_nonnull(strstr(said, "must-tell-host"));
    unlink(log);
    unlink(file);
}

/* What of @data says the pages: from its own name to the next */
static gsize find_section(const char *data, gsize size, gsize *end)
{
    const char *at = memmem(data, size, SECTION, strlen(SECTION));
    const char *next;

    g_assert_nonnull(at);
    at += strlen(SECTION);
    next = memmem(at, data + size - at, NEXT, strlen(NEXT));
    g_assert_nonnull(next);
    *end = next - data;
    return at - data;
}

/* A state is refused, and the memory of who was to have it left alone */
static void assert_refused(const char *file, const char *data, gsize size)
{
    BalloonDriver d;

    g_assert_true(g_file_set_contents(file, data, size, NULL));
    balloon_boot_incoming(&d, TELL, OPTIONS QUIET);
    g_assert_false(balloon_try_load(d.qts, file));
    balloon_use(&d, MIDDLE, HUGE);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==, 0);
    balloon_quit(&d);
}

/* Cut off in it, or in what follows of the device's state */
static void test_truncated(void)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *data = NULL;
    gsize size, first, end;

    save(file);
    g_assert_true(g_file_get_contents(file, &data, &size, NULL));
    first = find_section(data, size, &end);
    for (gsize at = first; at < end; at += MAX(STEP, (end - first) / CUTS)) {
        assert_refused(file, data, at);
    }
    assert_refused(file, data, end + KiB);
    unlink(file);
}

/*
 * The same memory twice is refused: a page that is taken back would stay in the
 * balloon.  In the state, how many there are follows its version, 4 bytes each.
 */
static void test_twice(void)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *data = NULL;
    g_autoptr(GByteArray) twice = g_byte_array_new();
    gsize size, first, end;

    save(file);
    g_assert_true(g_file_get_contents(file, &data, &size, NULL));
    first = find_section(data, size, &end) + 8;
    /* A mark and a length are before the name of what follows */
    end -= 2;
    g_assert_cmpint(data[first - 1], ==, 1);
    data[first - 1] = 2;
    g_byte_array_append(twice, (uint8_t *)data, end);
    g_byte_array_append(twice, (uint8_t *)data + first, end - first);
    g_byte_array_append(twice, (uint8_t *)data + end, size - end);
    assert_refused(file, (char *)twice->data, twice->len);
    unlink(file);
}

static void write_at(const char *path, gsize offset, const void *data,
                     gsize size)
{
    int fd = open(path, O_WRONLY);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, data, size, offset), ==, size);
    close(fd);
}

/* A disk with a snapshot of a guest that has given many pages ... */
typedef struct Snapshot {
    char *path;
    char *data;
    /* where its state says which they are */
    gsize first;
    gsize end;
} Snapshot;

/*
 * Load that snapshot with @n bytes at @at damaged: it goes well or it does not,
 * and QEMU lives
 */
static void load_damaged(QTestState *qts, Snapshot *s, gsize at, gsize n,
                         uint8_t fill)
{
    g_autofree void *damage = g_malloc(n);

    memset(damage, fill, n);
    write_at(s->path, at, damage, n);
    balloon_try_snapshot(qts, "snapshot-load", "many");
    write_at(s->path, at, s->data + at, n);
    g_assert_cmpuint(balloon_counter(qts, "waiting"), <=, SIZE);
}

/* ... and then another, of the same guest when it has all but one of them */
static void make_snapshots(BalloonDriver *d, Snapshot *s)
{
    gsize size;

    balloon_boot(d, TELL, OPTIONS QUIET);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_add_disk(d->qts, s->path);
    inflate_many(d);
    balloon_wait_discarded(d->qts);
    balloon_snapshot(d->qts, "snapshot-save", "many");

    g_assert_true(g_file_get_contents(s->path, &s->data, &size, NULL));
    s->first = find_section(s->data, size, &s->end);
    /* What comes next in the state is elsewhere on the disk */
    s->end = MIN(s->end, ROUND_UP(s->first, CLUSTER));

    balloon_deflate(d, MIDDLE, 2 * HUGE);
    qtest_memset(d->qts, MIDDLE, NEW, 2 * HUGE);
    balloon_snapshot(d->qts, "snapshot-save", "one");
}

/* No number at any place does harm, nor does it come back with another state */
static void test_damaged(const void *fill)
{
    g_autofree char *folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    Snapshot s = { .path = g_build_filename(folder, "disk.qcow2", NULL) };
    BalloonDriver d;

    make_snapshots(&d, &s);
    for (gsize at = s.first; at < s.end; at += at - s.first < DAMAGED_MAX ?
                                               STEP : LATER_STEP) {
        load_damaged(d.qts, &s, at, MIN(DAMAGE, s.end - at),
                     GPOINTER_TO_INT(fill));
    }
    load_damaged(d.qts, &s, s.end - 1, 1, GPOINTER_TO_INT(fill));

    balloon_snapshot(d.qts, "snapshot-load", "one");
    balloon_cont(&d);
    balloon_assert_stays(&d, MIDDLE, 2 * HUGE, NEW);
    balloon_snapshot(d.qts, "snapshot-load", "many");
    balloon_cont(&d);
    balloon_wait_discarded(d.qts);
    balloon_assert_bytes(&d, MIDDLE, HUGE / 2, 0);
    balloon_quit(&d);
    unlink(s.path);
    rmdir(folder);
    g_free(s.path);
    g_free(s.data);
}

static const BalloonCase cases[] = {
    { "fragmented/skipped", test_skipped, TELL, LARGE },
    { "fragmented/skipped-again", test_skipped_again, TELL, LARGE },
    { "destination/anonymous", test_destination, TELL, MEMORY_256("ram") },
    { "destination/shared", test_destination_shared, TELL,
      MEMORY_256("memfd,share=on") },
    { "paused/anonymous", test_paused, TELL, MEMORY_OF("ram") },
    { "paused/shared", test_paused, TELL, SHARED },
};

void balloon_add_pages_migration_tests(void)
{
    balloon_add_cases(BALLOON_PAGES, cases, ARRAY_SIZE(cases));
    qtest_add_data_func(BALLOON_PAGES "source-goes-on/paused",
                        GINT_TO_POINTER(LOADS_AND_WAITS), test_source_goes_on);
    qtest_add_data_func(BALLOON_PAGES "source-goes-on/failed-load",
                        GINT_TO_POINTER(FAILS_AT_ANOTHER_DEVICE),
                        test_source_goes_on);
    qtest_add_data_func(BALLOON_PAGES "source-goes-on/late-load",
                        GINT_TO_POINTER(FAILS_TOO_LATE), test_source_goes_on);
    qtest_add_data_func(BALLOON_PAGES "stream/no-property", NULL,
                        test_no_property);
    qtest_add_data_func(BALLOON_PAGES "stream/no-property-exits",
                        "exits", test_no_property);
    qtest_add_data_func(BALLOON_PAGES "stream/damaged/ones",
                        GINT_TO_POINTER(0xff), test_damaged);
    qtest_add_data_func(BALLOON_PAGES "stream/damaged/zeroes",
                        GINT_TO_POINTER(0), test_damaged);
    qtest_add_func(BALLOON_PAGES "stream/twice", test_twice);
    qtest_add_func(BALLOON_PAGES "stream/truncated", test_truncated);
}
