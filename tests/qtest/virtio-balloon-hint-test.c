/*
 * Free page hints of the virtio balloon, during migration
 *
 * virtio 1.2, section 5.5.6.5
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-test.h"

#define HINT BALLOON_VQ_FIRST_OPTIONAL
#define DEVICE "virtio-balloon-pci,free-page-hint=on,iothread=io0"
#define OPTIONS "-m 128 -object iothread,id=io0"
#define FIRST_ID 0x80000000

/* Memory that is sent late, and that the allocator does not hand out */
#define FREE (96 * MiB)
#define BLOCK (4 * MiB)

static uint32_t cmd_id(BalloonDriver *d)
{
    return balloon_readl(d, BALLOON_CFG_CMD_ID);
}

/* A request of the driver, which Linux waits for without an interrupt */
static void give(BalloonDriver *d, BalloonSeg seg)
{
    balloon_wait_used(d, HINT, balloon_post(d, HINT, &seg, 1));
}

static void hint(BalloonDriver *d, uint64_t addr, uint32_t size)
{
    give(d, (BalloonSeg) { addr, size, true });
}

static void send_id(BalloonDriver *d, uint32_t id)
{
    uint32_t wire = balloon_wire32(d, id);
    uint64_t addr = balloon_copy(d, &wire, sizeof(wire));

    give(d, (BalloonSeg) { addr, sizeof(wire) });
    guest_free(d->alloc, addr);
}

/*
 * Begin a migration, which has enough to send until it is to end.  Returns: the
 * id to give hints under
 */
static uint32_t begin(BalloonDriver *d, const char *file)
{
    qtest_memset(d->qts, FREE - 16 * MiB, 0xa5, 16 * MiB + 3 * BLOCK);
    balloon_migrate_slowly(d->qts, file);
    balloon_wait_for(cmd_id(d) >= FIRST_ID);
    return cmd_id(d);
}

/* Let it end; the driver goes on at the destination */
static void arrive(BalloonDriver *d, const char *file)
{
    BalloonDriver source = *d;

    balloon_migrate_finish(source.qts);
    g_assert_cmphex(cmd_id(&source), ==, VIRTIO_BALLOON_CMD_ID_DONE);
    balloon_load(d, &source, DEVICE, OPTIONS, file);
    unlink(file);
    balloon_quit(&source);
    g_assert_cmphex(cmd_id(d), ==, VIRTIO_BALLOON_CMD_ID_DONE);
}

/* Hints that nobody asked for are returned, and nothing happens */
static void unasked(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    g_assert_cmphex(cmd_id(d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
    hint(d, mem, 2 * BALLOON_PAGE);
    send_id(d, FIRST_ID);
    hint(d, mem, 2 * BALLOON_PAGE);
    send_id(d, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_assert_pages(d, mem, "xx");
    g_assert_cmphex(cmd_id(d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
}

/* A request, hints, the end of hints, the end of migration; and once more */
static void protocol(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    uint32_t id = 0;

    for (int round = 0; round < 3; round++) {
        uint32_t last = id;

        id = begin(d, file);
        balloon_wait_config_interrupt(d);
        g_assert_cmphex(id, !=, last);

        send_id(d, id);
        hint(d, FREE, BLOCK);
        hint(d, FREE + BLOCK, BLOCK);
        send_id(d, VIRTIO_BALLOON_CMD_ID_STOP);

        balloon_migrate_cancel(d->qts);
        balloon_wait_for(cmd_id(d) == VIRTIO_BALLOON_CMD_ID_DONE);
        balloon_assert_bytes(d, FREE, 2 * BLOCK, 0xa5);
    }
    unlink(file);
}

/* Pages that are free are not sent, all others are */
static void free_pages_stay(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    uint64_t data = balloon_dirty_pages(d, 4);

    send_id(d, begin(d, file));
    hint(d, FREE + BLOCK, BLOCK);
    send_id(d, VIRTIO_BALLOON_CMD_ID_STOP);
    arrive(d, file);
    balloon_assert_pages(d, data, "xxxx");
    balloon_assert_bytes(d, FREE - 16 * MiB, 16 * MiB + BLOCK, 0xa5);
    balloon_assert_bytes(d, FREE + BLOCK, BLOCK, 0);
    balloon_assert_bytes(d, FREE + 2 * BLOCK, BLOCK, 0xa5);
}

/* Hints under no id, or another than the current, are ignored (5.5.6.5.2) */
static void stale_id(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    uint32_t id = begin(d, file);

    hint(d, FREE, BLOCK);
    send_id(d, id + 1);
    hint(d, FREE, BLOCK);
    send_id(d, id - 1);
    hint(d, FREE, BLOCK);
    g_assert_cmphex(cmd_id(d), ==, id);
    arrive(d, file);
    balloon_assert_bytes(d, FREE, BLOCK, 0xa5);
}

/*
 * An id that the driver has done with, sent again: what it hints at then may
 * have been used meanwhile, and is sent
 */
static void replayed_id(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    uint32_t id = begin(d, file);

    send_id(d, id);
    hint(d, FREE, BLOCK);
    send_id(d, VIRTIO_BALLOON_CMD_ID_STOP);
    for (int i = 0; i < 3; i++) {
        send_id(d, id);
        hint(d, FREE + BLOCK, BLOCK);
    }
    g_assert_cmphex(cmd_id(d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
    arrive(d, file);
    balloon_assert_bytes(d, FREE, BLOCK, 0);
    balloon_assert_bytes(d, FREE + BLOCK, 2 * BLOCK, 0xa5);
}

/* No use for hints (5.5.6.5.2): a page that was not sent is asked for later */
static void postcopy(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *uri = g_strconcat("unix:", file, NULL);
    BalloonDriver target;

    balloon_boot_incoming(&target, DEVICE, OPTIONS);
    balloon_set_capability(d->qts, "postcopy-ram", true);
    balloon_set_capability(target.qts, "postcopy-ram", true);
    balloon_migrate_incoming(target.qts, uri);
    balloon_migrate_to(d->qts, uri);
    balloon_migrate_finish(d->qts);
    /* Neither was there a request, nor is there an end of it to be told */
    g_assert_cmphex(cmd_id(d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_quit(&target);
    unlink(file);
}

/* The id while hinting runs */
static void id_while_hinting(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    uint32_t id = begin(d, file);

    send_id(d, id);
    g_assert_cmphex(cmd_id(d), ==, id);
    hint(d, FREE, BLOCK);
    g_assert_cmphex(cmd_id(d), ==, id);
    send_id(d, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_wait_for(cmd_id(d) == VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_migrate_cancel(d->qts);
    balloon_wait_for(cmd_id(d) == VIRTIO_BALLOON_CMD_ID_DONE);
    unlink(file);
}

/* An id has four bytes */
static void bad_id(BalloonDriver *d)
{
    unsigned len = GPOINTER_TO_UINT(d->data);
    g_autofree char *file = balloon_migration_file();

    for (int migrating = 0; migrating < 2; migrating++) {
        if (migrating) {
            begin(d, file);
        }
        balloon_post(d, HINT, &(BalloonSeg) { FREE, len, false }, 1);
        balloon_wait_broken(d);
        balloon_reset(d);
        balloon_start(d, BALLOON_ALL_FEATURES);
        send_id(d, 5);
    }
    balloon_migrate_cancel(d->qts);
    unlink(file);
}

/*
 * The VM stops and goes on, or the driver goes away, while hints arrive: what
 * the guest writes from then on arrives
 */
static void interrupted(BalloonDriver *d)
{
    bool reset = d->data;
    g_autofree char *file = balloon_migration_file();
    BalloonSeg segs[8];

    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        segs[i] = (BalloonSeg) { FREE + i * MiB, MiB, true };
    }
    for (int round = 0; round < 3; round++) {
        uint32_t head;

        send_id(d, begin(d, file));
        head = balloon_post(d, HINT, segs, ARRAY_SIZE(segs));
        if (reset) {
            balloon_reset(d);
            balloon_start(d, BALLOON_ALL_FEATURES);
            hint(d, FREE, MiB);
        } else {
            balloon_stop(d);
            balloon_cont(d);
            balloon_wait_used(d, HINT, head);
            send_id(d, VIRTIO_BALLOON_CMD_ID_STOP);
        }
        balloon_assert_bytes(d, FREE, 8 * MiB, 0xa5);
        if (round < 2) {
            balloon_migrate_cancel(d->qts);
        }
    }
    qtest_memset(d->qts, FREE, 0x3c, 8 * MiB);
    arrive(d, file);
    balloon_assert_bytes(d, FREE, 8 * MiB, 0x3c);
}

static const BalloonTest tests[] = {
    { "hint/unasked", unasked },
    { "hint/protocol", protocol },
    { "hint/free-pages-stay", free_pages_stay },
    { "hint/stale-id", stale_id },
    { "hint/replayed-id", replayed_id },
    { "hint/postcopy", postcopy },
    { "hint/stop-cont", interrupted },
    { "hint/reset", interrupted, .data = "reset" },
    { "hint/bad-id/1", bad_id, .data = GUINT_TO_POINTER(1) },
    { "hint/bad-id/3", bad_id, .data = GUINT_TO_POINTER(3) },
    /* longer ones were let pass by what was QEMU's own */
    { "improved/hint/bad-id/5", bad_id, .data = GUINT_TO_POINTER(5) },
    { "improved/hint/bad-id/8", bad_id, .data = GUINT_TO_POINTER(8) },
    { "improved/hint/bad-id/4096", bad_id, .data = GUINT_TO_POINTER(4096) },
    { "improved/hint/id-while-hinting", id_while_hinting },
};

void virtio_balloon_add_hint_tests(void)
{
    balloon_add_tests(DEVICE, tests, ARRAY_SIZE(tests));
}
