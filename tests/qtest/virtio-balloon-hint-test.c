/*
 * Free page hints of the virtio balloon, during migration
 *
 * virtio 1.2, section 5.5.6.5
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "virtio-balloon-driver.h"
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

static void boot(BalloonDriver *d)
{
    balloon_boot(d, DEVICE, OPTIONS);
    balloon_start(d, BALLOON_ALL_FEATURES);
    g_assert_cmphex(cmd_id(d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
}

/* A request of the driver, which Linux waits for without an interrupt */
static void hint(BalloonDriver *d, BalloonSeg seg)
{
    balloon_wait_used(d, HINT, balloon_post(d, HINT, &seg, 1));
}

static void send_id(BalloonDriver *d, uint32_t id)
{
    uint32_t wire = balloon_wire32(d, id);
    uint64_t addr = balloon_copy(d, &wire, sizeof(wire));

    hint(d, (BalloonSeg) { addr, sizeof(wire), false });
    guest_free(d->alloc, addr);
}

/* Wait until hints are wanted.  Returns: the id to give them under */
static uint32_t wait_request(BalloonDriver *d)
{
    balloon_wait_for(cmd_id(d) >= FIRST_ID);
    return cmd_id(d);
}

/* Hints that nobody asked for are returned, and nothing happens */
static void unasked(void)
{
    BalloonDriver d;
    uint64_t mem;

    boot(&d);
    mem = balloon_dirty_pages(&d, 2);
    hint(&d, (BalloonSeg) { mem, 2 * BALLOON_PAGE, true });
    send_id(&d, FIRST_ID);
    hint(&d, (BalloonSeg) { mem, 2 * BALLOON_PAGE, true });
    send_id(&d, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_assert_pages(&d, mem, "xx");
    g_assert_cmphex(cmd_id(&d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_quit(&d);
}

/* A request, hints, the end of hints, the end of migration; and once more */
static void protocol(void)
{
    g_autofree char *file = balloon_migration_file();
    uint32_t id = 0, last;
    BalloonDriver d;

    boot(&d);
    qtest_memset(d.qts, FREE - 16 * MiB, 0xa5, 16 * MiB + 2 * BLOCK);
    for (int round = 0; round < 3; round++) {
        balloon_migrate_slowly(d.qts, file);
        last = id;
        id = wait_request(&d);
        balloon_wait_config_interrupt(&d);
        g_assert_cmphex(id, !=, last);

        send_id(&d, id);
        hint(&d, (BalloonSeg) { FREE, BLOCK, true });
        hint(&d, (BalloonSeg) { FREE + BLOCK, BLOCK, true });
        send_id(&d, VIRTIO_BALLOON_CMD_ID_STOP);

        balloon_migrate_cancel(d.qts);
        balloon_wait_for(cmd_id(&d) == VIRTIO_BALLOON_CMD_ID_DONE);
        balloon_assert_bytes(&d, FREE, 2 * BLOCK, 0xa5);
    }
    unlink(file);
    balloon_quit(&d);
}

/* Pages that are free are not sent, all others are */
static void free_pages_stay(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source, d;
    uint64_t data;

    boot(&source);
    data = balloon_dirty_pages(&source, 4);
    qtest_memset(source.qts, FREE - 16 * MiB, 0xa5, 16 * MiB + 3 * BLOCK);
    balloon_migrate_slowly(source.qts, file);
    send_id(&source, wait_request(&source));
    hint(&source, (BalloonSeg) { FREE + BLOCK, BLOCK, true });
    send_id(&source, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_migrate_finish(source.qts);
    g_assert_cmphex(cmd_id(&source), ==, VIRTIO_BALLOON_CMD_ID_DONE);

    balloon_load(&d, &source, DEVICE, OPTIONS, file);
    unlink(file);
    balloon_assert_pages(&d, data, "xxxx");
    balloon_assert_bytes(&d, FREE - 16 * MiB, 16 * MiB + BLOCK, 0xa5);
    balloon_assert_bytes(&d, FREE + BLOCK, BLOCK, 0);
    balloon_assert_bytes(&d, FREE + 2 * BLOCK, BLOCK, 0xa5);
    g_assert_cmphex(cmd_id(&d), ==, VIRTIO_BALLOON_CMD_ID_DONE);
    balloon_quit(&source);
    balloon_quit(&d);
}

/* Hints under another id than the current one are ignored (5.5.6.5.2) */
static void stale_id(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source, d;
    uint32_t id;

    boot(&source);
    qtest_memset(source.qts, FREE - 16 * MiB, 0xa5, 16 * MiB + BLOCK);
    balloon_migrate_slowly(source.qts, file);
    id = wait_request(&source);
    send_id(&source, id + 1);
    hint(&source, (BalloonSeg) { FREE, BLOCK, true });
    send_id(&source, id - 1);
    hint(&source, (BalloonSeg) { FREE, BLOCK, true });
    g_assert_cmphex(cmd_id(&source), ==, id);
    balloon_migrate_finish(source.qts);

    balloon_load(&d, &source, DEVICE, OPTIONS, file);
    unlink(file);
    balloon_assert_bytes(&d, FREE, BLOCK, 0xa5);
    balloon_quit(&source);
    balloon_quit(&d);
}

/*
 * An id that the driver has done with, sent again: what it hints at then may
 * have been used meanwhile, and is sent
 */
static void replayed_id(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source, d;
    uint32_t id;

    boot(&source);
    qtest_memset(source.qts, FREE - 16 * MiB, 0xa5, 16 * MiB + 3 * BLOCK);
    balloon_migrate_slowly(source.qts, file);
    id = wait_request(&source);
    send_id(&source, id);
    hint(&source, (BalloonSeg) { FREE, BLOCK, true });
    send_id(&source, VIRTIO_BALLOON_CMD_ID_STOP);
    for (int i = 0; i < 3; i++) {
        send_id(&source, id);
        hint(&source, (BalloonSeg) { FREE + BLOCK, BLOCK, true });
    }
    g_assert_cmphex(cmd_id(&source), ==, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_migrate_finish(source.qts);

    balloon_load(&d, &source, DEVICE, OPTIONS, file);
    unlink(file);
    balloon_assert_bytes(&d, FREE, BLOCK, 0);
    balloon_assert_bytes(&d, FREE + BLOCK, 2 * BLOCK, 0xa5);
    balloon_quit(&source);
    balloon_quit(&d);
}

/* No use for hints (5.5.6.5.2): a page that was not sent is asked for later */
static void postcopy(void)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *uri = g_strconcat("unix:", file, NULL);
    BalloonDriver d, target;

    boot(&d);
    balloon_boot(&target, DEVICE, OPTIONS " -incoming defer");
    balloon_set_capability(d.qts, "postcopy-ram", true);
    balloon_set_capability(target.qts, "postcopy-ram", true);
    balloon_migrate_incoming(target.qts, uri);
    balloon_migrate_to(d.qts, uri);
    balloon_migrate_finish(d.qts);
    /* Neither was there a request, nor is there an end of it to be told */
    g_assert_cmphex(cmd_id(&d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_quit(&d);
    balloon_quit(&target);
    unlink(file);
}

/* The id while hinting runs */
static void id_while_hinting(void)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;
    uint32_t id;

    boot(&d);
    qtest_memset(d.qts, FREE - 16 * MiB, 0xa5, 16 * MiB);
    balloon_migrate_slowly(d.qts, file);
    id = wait_request(&d);
    send_id(&d, id);
    g_assert_cmphex(cmd_id(&d), ==, id);
    hint(&d, (BalloonSeg) { FREE, BLOCK, true });
    g_assert_cmphex(cmd_id(&d), ==, id);
    send_id(&d, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_wait_for(cmd_id(&d) == VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_migrate_cancel(d.qts);
    balloon_wait_for(cmd_id(&d) == VIRTIO_BALLOON_CMD_ID_DONE);
    unlink(file);
    balloon_quit(&d);
}

/* An id has four bytes */
static void bad_id(const void *data)
{
    unsigned len = GPOINTER_TO_UINT(data);
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;

    boot(&d);
    for (int migrating = 0; migrating < 2; migrating++) {
        if (migrating) {
            qtest_memset(d.qts, FREE - 16 * MiB, 0xa5, 16 * MiB);
            balloon_migrate_slowly(d.qts, file);
            wait_request(&d);
        }
        balloon_post(&d, HINT, &(BalloonSeg) { FREE, len, false }, 1);
        balloon_wait_for(balloon_status(&d) == BALLOON_STATUS_BROKEN);
        balloon_reset(&d);
        balloon_start(&d, BALLOON_ALL_FEATURES);
        send_id(&d, 5);
    }
    balloon_migrate_cancel(d.qts);
    unlink(file);
    balloon_quit(&d);
}

/* The VM stops and goes on, or the driver goes away, while hints arrive */
static void interrupted(const void *data)
{
    bool reset = data != NULL;
    g_autofree char *file = balloon_migration_file();
    BalloonSeg segs[8];
    BalloonDriver d;

    boot(&d);
    qtest_memset(d.qts, FREE - 16 * MiB, 0xa5, 16 * MiB + 8 * MiB);
    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        segs[i] = (BalloonSeg) { FREE + i * MiB, MiB, true };
    }
    for (int round = 0; round < 3; round++) {
        uint32_t head;

        balloon_migrate_slowly(d.qts, file);
        send_id(&d, wait_request(&d));
        head = balloon_post(&d, HINT, segs, ARRAY_SIZE(segs));
        if (reset) {
            balloon_reset(&d);
            balloon_start(&d, BALLOON_ALL_FEATURES);
            hint(&d, segs[0]);
        } else {
            qtest_qmp_assert_success(d.qts, "{'execute': 'stop'}");
            qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
            balloon_wait_used(&d, HINT, head);
            send_id(&d, VIRTIO_BALLOON_CMD_ID_STOP);
        }
        balloon_migrate_cancel(d.qts);
        balloon_assert_bytes(&d, FREE, 8 * MiB, 0xa5);
    }
    unlink(file);
    balloon_quit(&d);
}

void virtio_balloon_add_hint_tests(void)
{
    /* longer ones were let pass by what was QEMU's own */
    static const unsigned lengths[] = { 1, 3, 5, 8, 4096 };

    qtest_add_func(BALLOON_TESTS "hint/unasked", unasked);
    qtest_add_func(BALLOON_TESTS "hint/protocol", protocol);
    qtest_add_func(BALLOON_TESTS "hint/free-pages-stay", free_pages_stay);
    qtest_add_func(BALLOON_TESTS "hint/stale-id", stale_id);
    qtest_add_func(BALLOON_TESTS "hint/replayed-id", replayed_id);
    qtest_add_func(BALLOON_TESTS "hint/postcopy", postcopy);
    qtest_add_data_func(BALLOON_TESTS "hint/stop-cont", NULL, interrupted);
    qtest_add_data_func(BALLOON_TESTS "hint/reset", "reset", interrupted);
    for (int i = 0; i < ARRAY_SIZE(lengths); i++) {
        g_autofree char *path = g_strdup_printf("%shint/bad-id/%u",
                                                lengths[i] > 4 ?
                                                    BALLOON_IMPROVED :
                                                    BALLOON_TESTS,
                                                lengths[i]);

        qtest_add_data_func(path, GUINT_TO_POINTER(lengths[i]), bad_id);
    }
    qtest_add_func(BALLOON_IMPROVED "hint/id-while-hinting",
                   id_while_hinting);
}
