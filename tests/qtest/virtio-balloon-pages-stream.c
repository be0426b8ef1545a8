/*
 * Pages in a virtio balloon as they stand in a saved state: one that does not
 * fit here is refused, whatever it says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-pages.h"

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
    qtest_memset(d.qts, MIDDLE, NEW, HUGE);
    balloon_assert_stays(&d, MIDDLE, HUGE, NEW);
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

void balloon_add_pages_stream_tests(void)
{
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
