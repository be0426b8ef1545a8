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
#include "qemu/bswap.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"

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
        balloon_send_pfns(d, INFLATE, pfns, LIST_PAGES);
    }
    balloon_wait_discarded(d->qts);
}

/* All of them are skipped, at the first look at what has changed ... */
static void skipped(BalloonDriver *d)
{
    inflate_fragments(d, FRAGMENTED);
    g_assert_cmpint(balloon_move(d), ==, FRAGMENTED / 2);
    /* It is known at the other end which they are */
    g_assert_cmpint(balloon_move(d), ==, FRAGMENTED / 2);
}

/* ... and at each later one */
static void skipped_again(BalloonDriver *d)
{
    const uint64_t dirty = 4 * MiB;
    int stream;

    inflate_fragments(d, FRAGMENTED);
    stream = balloon_migrate_begin(d->qts);
    qtest_memset(d->qts, AREA + FRAGMENTED - dirty, NEW, dirty);
    balloon_migrate_end(d->qts, stream);
    /* The pages between them are sent, perhaps for the second time */
    g_assert_cmpint(balloon_migration_skipped(d->qts), <=, FRAGMENTED / 2);
    g_assert_cmpint(balloon_migration_skipped(d->qts), >=,
                    FRAGMENTED / 2 - dirty / 2);
}

/*
 * What is skipped is cleared in the log of who tells what is dirty, which takes
 * a system call with KVM: once, unless it becomes dirty again
 */
static void cleared_once(BalloonDriver *d)
{
    balloon_inflate(d, AREA, PART / 2);
    balloon_migrate(d->qts);
    g_assert_cmpint(balloon_migration_skipped(d->qts), ==, PART / 2);
    g_assert_cmpuint(balloon_count_in_file("trace", "clear_dirty rb pc.ram "),
                     ==, 1);
}

/* Memory may have its place in the file, or go through threads of its own */
static void other_way(BalloonDriver *d)
{
    inflate_fragments(d, PART);
    qtest_memset(d->qts, AREA + BALLOON_PAGE, NEW, BALLOON_PAGE);
    g_assert_cmpint(balloon_move(d), ==, PART / 2);
    balloon_assert_bytes(d, AREA, BALLOON_PAGE, 0);
    balloon_assert_bytes(d, AREA + BALLOON_PAGE, BALLOON_PAGE, NEW);
    balloon_migrate(d->qts);
    g_assert_cmpint(balloon_migration_skipped(d->qts), ==, PART / 2);
}

/* The guest is loaded with @options, and so much is discarded there */
static void assert_discards(const char *options, uint64_t size)
{
    BalloonDriver d;

    balloon_boot_incoming(&d, TELL, options);
    g_assert_true(balloon_try_load(d.qts));
    balloon_cont(&d);
    /* It looks for what there is and discards that by turns */
    balloon_wait_for(balloon_counter(d.qts, "discarded") >= size);
    balloon_wait_discarded(d.qts);
    balloon_assert_counter_stays(d.qts, "discarded", size);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

/*
 * A destination discards what it has, and nothing that it never had: all of
 * it, as private memory comes as huge pages, also where only some of their
 * pages are sent
 */
static void destination(BalloonDriver *d)
{
    bool fragmented = d->data;
    g_autofree char *populated = g_strconcat(d->options, ",prealloc=on", NULL);

    if (fragmented) {
        inflate_fragments(d, PART);
    } else {
        balloon_inflate(d, AREA, PART);
    }
    balloon_migrate(d->qts);
    assert_discards(d->options, 0);
    assert_discards(populated, fragmented ? PART / 2 : PART);
}

#define GIVEN (HUGE / 2 + BALLOON_PAGE)

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

/*
 * Whatever becomes of the destination, which shares its memory with the source:
 * it leaves the pages alone
 */
static void source_goes_on(BalloonDriver *d)
{
    When when = GPOINTER_TO_INT(d->data);
    g_autofree char *paused = g_strconcat(d->options, " -S 2> /dev/null", NULL);
    BalloonDriver target;

    if (when == FAILS_AT_ANOTHER_DEVICE) {
        /* The destination does not have it, and fails after the balloon */
        qtest_qmp_device_add(d->qts, "virtio-rng-pci", "rng0",
                             "{'addr': '6'}");
    }
    balloon_give(d, AREA, GIVEN);
    balloon_set_capability(d->qts, "x-ignore-shared", true);
    balloon_migrate(d->qts);
    balloon_boot_incoming(&target, TELL, paused);
    balloon_set_capability(target.qts, "x-ignore-shared", true);
    if (when == FAILS_TOO_LATE) {
        go_on(d);
    }
    g_assert_cmpint(balloon_try_load(target.qts), ==, when == LOADS_AND_WAITS);
    if (when != FAILS_TOO_LATE) {
        go_on(d);
    }
    g_assert_false(balloon_vm_is_running(target.qts));
    balloon_assert_counter_stays(target.qts, "discarded", 0);
    balloon_quit(&target);
    balloon_assert_bytes(d, AREA, HUGE, NEW);
}

/* What there is to be discarded is discarded when the guest goes on there */
static void paused(BalloonDriver *d)
{
    g_autofree char *options = g_strconcat(d->options, ",prealloc=on -S",
                                           NULL);

    balloon_inflate(d, AREA, HUGE / 2);
    balloon_migrate(d->qts);
    balloon_arrive(d, options);
    g_assert_false(balloon_vm_is_running(d->qts));
    qtest_memset(d->qts, AREA, NEW, HUGE);
    balloon_assert_counter_stays(d->qts, "discarded", 0);

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

/* A state of a guest that has given some runs of pages */
typedef struct State {
    char *data;
    gsize size;
    /* where it says which they are: from its own name to the next */
    gsize first;
    gsize end;
} State;

static void read_state(State *s, const char *path)
{
    const char *at, *next;

    g_assert_true(g_file_get_contents(path, &s->data, &s->size, NULL));
    at = memmem(s->data, s->size, SECTION, strlen(SECTION));
    g_assert_nonnull(at);
    s->first = at + strlen(SECTION) - s->data;
    next = memmem(s->data + s->first, s->size - s->first, NEXT, strlen(NEXT));
    g_assert_nonnull(next);
    s->end = next - s->data;
}

static void boot_and_inflate(BalloonDriver *d, const char *device,
                             const char *options)
{
    balloon_boot(d, device, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
    balloon_inflate(d, MIDDLE, HUGE / 2);
    balloon_inflate(d, MIDDLE + HUGE, 3 * BALLOON_PAGE);
    balloon_inflate(d, LONELY, BALLOON_PAGE);
}

static void save(BalloonDriver *d, State *s)
{
    boot_and_inflate(d, TELL, OPTIONS);
    balloon_migrate(d->qts);
    balloon_quit(d);
    read_state(s, balloon_saved());
}

/* Without the property there is no place for them, and that is said */
static void no_property(BalloonDriver *d)
{
    bool exits = d->data;
    g_autofree char *uri = g_strconcat("file:", balloon_saved(), NULL);
    State s;

    save(d, &s);
    g_free(s.data);
    balloon_boot_incoming(d, PLAIN, OPTIONS " 2> $FILES/log");
    if (exits) {
        qtest_set_expected_status(d->qts, EXIT_FAILURE);
        balloon_migrate_incoming(d->qts, uri);
        qtest_wait_qemu(d->qts);
    } else {
        g_assert_false(balloon_try_load(d->qts));
    }
    balloon_quit(d);
    g_assert_cmpuint(balloon_count_in_file("log", "must-tell-host"), >, 0);
}

/* A snapshot is refused; the operator saves that, and goes on all the same */
static void assert_snapshot_refused(BalloonDriver *d)
{
    g_assert_false(balloon_try_snapshot(d->qts, "snapshot-load", "many"));
    balloon_snapshot(d->qts, "snapshot-save", "refused");
    balloon_cont(d);
    for (int queue = 0; queue < BALLOON_VQ_MAX && d->vq[queue]; queue++) {
        balloon_place_ring(d, queue);
        balloon_kick(d, queue);
    }
    balloon_query(d->qts);
    balloon_assert_next_driver(d);
}

/* It leaves the features of its driver, which are more than this QEMU offers */
static void refused_snapshot(BalloonDriver *d)
{
    BalloonDriver source = {};

    boot_and_inflate(&source, TELL ",free-page-hint=on,iothread=io0",
                     OPTIONS " " IOTHREAD);
    balloon_add_disk(source.qts);
    balloon_snapshot(source.qts, "snapshot-save", "many");

    balloon_boot(d, PLAIN, OPTIONS QUIET);
    balloon_adopt(d, &source);
    balloon_quit(&source);
    balloon_open_disk(d->qts);
    assert_snapshot_refused(d);
}

/* A state is refused, and the memory of who was to have it left alone */
static void assert_refused(BalloonDriver *d, const void *data, gsize size)
{
    g_assert_true(g_file_set_contents(balloon_saved(), data, size, NULL));
    balloon_boot_incoming(d, TELL, OPTIONS QUIET);
    g_assert_false(balloon_try_load(d->qts));
    balloon_use(d, MIDDLE, HUGE);
    g_assert_cmpuint(balloon_counter(d->qts, "discarded"), ==, 0);
    balloon_quit(d);
}

/* Cut off in it, or in what follows of the device's state */
static void truncated(BalloonDriver *d)
{
    State s;

    save(d, &s);
    for (gsize at = s.first; at < s.end;
         at += MAX(STEP, (s.end - s.first) / CUTS)) {
        assert_refused(d, s.data, at);
    }
    assert_refused(d, s.data, s.end + KiB);
    g_free(s.data);
}

/*
 * Memory that nobody has is refused: its name follows the version, the number
 * of memory blocks and its own length
 */
static void no_memory(BalloonDriver *d)
{
    State s;

    save(d, &s);
    memcpy(s.data + s.first + 9, "no.ram", 6);
    assert_refused(d, s.data, s.size);
    g_free(s.data);
}

/*
 * The same memory twice is refused: a page that is taken back would stay in the
 * balloon.  In the state, how many there are follows its version, 4 bytes each.
 */
static void twice(BalloonDriver *d)
{
    g_autoptr(GByteArray) both = g_byte_array_new();
    gsize first, end;
    uint8_t *data;
    State s;

    save(d, &s);
    data = (uint8_t *)s.data;
    first = s.first + 8;
    /* A mark and a length are before the name of what follows */
    end = s.end - 2;
    g_assert_cmpint(data[first - 1], ==, 1);
    data[first - 1] = 2;
    g_byte_array_append(both, data, end);
    g_byte_array_append(both, data + first, end - first);
    g_byte_array_append(both, data + end, s.size - end);
    assert_refused(d, both->data, both->len);
    g_free(data);
}

static void write_disk(gsize offset, const void *data, gsize size)
{
    int fd = open(balloon_disk(), O_WRONLY);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, data, size, offset), ==, size);
    close(fd);
}

/*
 * Load that snapshot with some bytes at @at damaged: it goes well or it does
 * not, and QEMU lives
 */
static void load_damaged(QTestState *qts, State *s, gsize at, uint8_t fill)
{
    const gsize n = MIN(DAMAGE, s->end - at);
    uint8_t damage[DAMAGE];

    memset(damage, fill, n);
    write_disk(at, damage, n);
    balloon_try_snapshot(qts, "snapshot-load", "many");
    write_disk(at, s->data + at, n);
}

/*
 * A disk with a snapshot of such a guest, and then another, of when it has all
 * but one of the pages
 */
static void make_snapshots(BalloonDriver *d, State *s)
{
    boot_and_inflate(d, TELL, OPTIONS QUIET);
    balloon_add_disk(d->qts);
    balloon_wait_discarded(d->qts);
    balloon_snapshot(d->qts, "snapshot-save", "many");

    read_state(s, balloon_disk());
    /* What comes next in the state is elsewhere on the disk */
    s->end = MIN(s->end, ROUND_UP(s->first, CLUSTER));

    balloon_deflate(d, MIDDLE, 2 * HUGE);
    qtest_memset(d->qts, MIDDLE, NEW, 2 * HUGE);
    balloon_snapshot(d->qts, "snapshot-save", "one");
}

/* No number at any place does harm, nor does it come back with another state */
static void damaged(BalloonDriver *d)
{
    const uint8_t fill = GPOINTER_TO_INT(d->data);
    State s;

    make_snapshots(d, &s);
    for (gsize at = s.first; at < s.end; at += at - s.first < DAMAGED_MAX ?
                                               STEP : LATER_STEP) {
        load_damaged(d->qts, &s, at, fill);
    }
    load_damaged(d->qts, &s, s.end - 1, fill);
    g_free(s.data);

    balloon_snapshot(d->qts, "snapshot-load", "one");
    balloon_cont(d);
    balloon_assert_stays(d, MIDDLE, 2 * HUGE, NEW);
    balloon_snapshot(d->qts, "snapshot-load", "many");
    balloon_cont(d);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, MIDDLE, HUGE / 2, 0);
}

/* A virtqueue in a saved state: docs/devel/migration/virtio.rst */
typedef struct QEMU_PACKED SavedQueue {
    uint32_t size;
    uint64_t desc;
    uint16_t last_avail;
    uint16_t vector;
} SavedQueue;

/* What is before the pages of it, if the balloon has these queues */
typedef struct QEMU_PACKED SavedDevice {
    uint16_t queue_sel;
    uint32_t features;
    uint32_t config_len;
    struct virtio_balloon_config config;
    uint32_t n_queues;
    SavedQueue queues[STATS + 1];
} SavedDevice;

/* Where the state has the balloon */
static gsize find_device(const State *s)
{
    for (gsize at = 0; at + sizeof(SavedDevice) <= s->end; at++) {
        SavedDevice *device = (SavedDevice *)(s->data + at);

        if (device->n_queues == cpu_to_be32(STATS + 1) &&
            device->config_len == cpu_to_be32(sizeof(device->config))) {
            return at;
        }
    }
    g_assert_not_reached();
}

/* What bytes in there become */
typedef struct Damage {
    gsize at;
    gsize size;
    const char *bytes;
} Damage;

#define OF(member, bytes) { offsetof(SavedDevice, member), sizeof(bytes) - 1, \
                            bytes }

/* At two places, or at one */
static void queues_damaged(BalloonDriver *d)
{
    const Damage *damage = d->data;
    State s;

    make_snapshots(d, &s);
    for (int i = 0; i < 2; i++) {
        write_disk(find_device(&s) + damage[i].at, damage[i].bytes,
                   damage[i].size);
    }
    assert_snapshot_refused(d);
    g_free(s.data);
}

#define SHARED_FILE MEMORY_OF("file,share=on,mem-path=$FILES/ram")

#define MAPPED_RAM MEMORY_256("ram") " -global migration.mapped-ram=on"

static const BalloonTest tests[] = {
    { "fragmented/skipped", skipped, .options = LARGE },
    { "fragmented/skipped-again", skipped_again, .options = LARGE },
    { "cleared-once", cleared_once,
      .options = MEMORY "-d trace:migration_bitmap_clear_dirty"
                 " -D $FILES/trace" },
    { "fragmented/mapped-ram", other_way, .options = MAPPED_RAM },
    { "fragmented/multifd", other_way,
      .options = MAPPED_RAM " -global migration.x-multifd=on" },
    { "destination/anonymous", destination, .options = MEMORY_256("ram") },
    { "destination/shared", destination, .data = "fragmented",
      .options = MEMORY_256("memfd,share=on") },
    { "paused/anonymous", paused, .options = MEMORY_OF("ram") },
    { "paused/shared", paused, .options = SHARED },
    { "source-goes-on/paused", source_goes_on, .options = SHARED_FILE,
      .data = GINT_TO_POINTER(LOADS_AND_WAITS) },
    { "source-goes-on/failed-load", source_goes_on, .options = SHARED_FILE,
      .data = GINT_TO_POINTER(FAILS_AT_ANOTHER_DEVICE) },
    { "source-goes-on/late-load", source_goes_on, .options = SHARED_FILE,
      .data = GINT_TO_POINTER(FAILS_TOO_LATE) },
};

static const BalloonTest stream_tests[] = {
    { "stream/no-property", no_property },
    { "stream/no-property-exits", no_property, .data = "exits" },
    { "stream/refused-snapshot", refused_snapshot },
    { "stream/damaged/ones", damaged, .data = GINT_TO_POINTER(0xff) },
    { "stream/damaged/zeroes", damaged, .data = GINT_TO_POINTER(0) },
    { "stream/no-memory", no_memory },
    { "stream/twice", twice },
    { "stream/truncated", truncated },
    /* more queues than the device has */
    { "stream/every-queue", queues_damaged,
      .data = (Damage[2]) { OF(n_queues, "\0\0\4\0") } },
    /* rings with sizes that no driver can give them */
    { "stream/ring-of-none", queues_damaged,
      .data = (Damage[2]) { OF(queues[DEFLATE].size, "\0\0\0\0") } },
    { "stream/rings-of-none", queues_damaged,
      .data = (Damage[2]) { OF(queues[INFLATE].size, "\0\0\0\0"),
                            OF(queues[DEFLATE].size, "\0\0\0\0") } },
    { "stream/ring-too-large", queues_damaged,
      .data = (Damage[2]) { OF(queues[STATS].size, "\0\0\10\0") } },
    /* ... of a queue that has no ring, too */
    { "stream/no-queue", queues_damaged,
      .data = (Damage[2]) { OF(queues[INFLATE],
                               "\0\0\0\0\0\0\0\0\0\0\0\0\0\0") } },
    /* what the core refuses before it asks the device: no byte order yet */
    { "stream/queue-sel", queues_damaged,
      .data = (Damage[2]) { OF(queue_sel, "\377\377") } },
};

BALLOON_TESTS("improved/pages/", TELL, tests)
BALLOON_BARE_TESTS("improved/pages/", TELL, stream_tests)
