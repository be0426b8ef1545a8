/*
 * A virtio balloon that should have been migrated, but the target is lost
 *
 * The guest goes on where it is: it has its hinted pages back, what is in the
 * balloon is known, and the next migration brings all of its memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define DEVICE "virtio-balloon-pci,free-page-hint=on,iothread=io0,"     \
               "must-tell-host=on"
#define OPTIONS "-m 128 -object iothread,id=io0 "
#define HINT BALLOON_VQ_FIRST_OPTIONAL

/* Pages that are hinted at, and what is before them: half in the balloon */
#define FREE (64 * MiB)
#define FREE_SIZE (4 * MiB)
#define HELD (FREE - 8 * MiB)
#define HELD_SIZE (2 * MiB)
#define BYTE 0x5b

/* How much of the stream is read before it breaks off: some of the memory */
#define SOME (3 * MiB)

static void migrate_to(QTestState *qts, const char *path)
{
    g_autofree char *uri = g_strconcat("unix:", path, NULL);

    balloon_migrate_to(qts, uri);
}

/* Answer the request for hints, so that the device is in the middle of them */
static void hint(BalloonDriver *d)
{
    uint32_t id, wire;

    balloon_wait_for(balloon_readl(d, BALLOON_CFG_CMD_ID) >
                     VIRTIO_BALLOON_CMD_ID_DONE);
    id = balloon_readl(d, BALLOON_CFG_CMD_ID);
    wire = balloon_wire32(d, id);
    balloon_send_one(d, HINT, balloon_copy(d, &wire, sizeof(wire)),
                     sizeof(wire), false);
    balloon_send_one(d, HINT, FREE, FREE_SIZE, true);
}

/* The connection ends when @size bytes of it were read */
static void lose_stream(BalloonDriver *d, const char *path, size_t size)
{
    int listener = qtest_socket_server(path);
    g_autofree char *data = g_malloc(64 * KiB);
    int stream;

    balloon_set_bandwidth(d->qts, size ? 1 * MiB : 0);
    migrate_to(d->qts, path);
    stream = accept(listener, NULL, NULL);
    g_assert_cmpint(stream, >=, 0);
    if (size) {
        hint(d);
    }
    while (size) {
        ssize_t n = read(stream, data, MIN(size, 64 * KiB));

        g_assert_cmpint(n, >, 0);
        size -= n;
    }
    close(stream);
    close(listener);
    unlink(path);
}

static void lose_in_setup(BalloonDriver *d, const char *path)
{
    lose_stream(d, path, 0);
}

static void lose_in_active(BalloonDriver *d, const char *path)
{
    lose_stream(d, path, SOME);
}

/* The target ends when it has all memory and is to get the devices */
static void lose_in_device(BalloonDriver *d, const char *path)
{
    g_autofree char *uri = g_strconcat("unix:", path, NULL);
    BalloonDriver target;

    balloon_boot(&target, DEVICE, OPTIONS "-incoming defer");
    balloon_migrate_incoming(target.qts, uri);
    balloon_set_capability(d->qts, "pause-before-switchover", true);
    balloon_set_bandwidth(d->qts, 1 * MiB);
    migrate_to(d->qts, path);
    hint(d);
    balloon_set_bandwidth(d->qts, 16 * GiB);
    balloon_wait_for(balloon_migration_is(d->qts, "pre-switchover"));
    balloon_quit(&target);
    qtest_qmp_assert_success(d->qts, "{'execute': 'migrate-continue',"
                             " 'arguments': {'state': 'pre-switchover'}}");
    balloon_wait_for(balloon_migration_is(d->qts, "failed"));
    balloon_set_capability(d->qts, "pause-before-switchover", false);
    unlink(path);
}

static void assert_works(BalloonDriver *d)
{
    uint64_t page = balloon_alloc(d, BALLOON_PAGE, BYTE);

    balloon_send_range(d, BALLOON_VQ_INFLATE, page, 1);
    balloon_wait_for(!balloon_counter(d->qts, "waiting"));
    balloon_assert_bytes(d, page, BALLOON_PAGE, 0);
    balloon_send_range(d, BALLOON_VQ_DEFLATE, page, 1);
    balloon_assert_sum(d->qts);
}

static void assert_memory(BalloonDriver *d)
{
    balloon_assert_bytes(d, FREE, FREE_SIZE, BYTE);
    balloon_assert_bytes(d, HELD + HELD_SIZE, FREE - HELD - HELD_SIZE, BYTE);
}

static void test_lost(const void *data)
{
    void (*lose)(BalloonDriver *d, const char *path) = data;
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source, d;

    balloon_boot(&source, DEVICE, OPTIONS);
    balloon_start(&source, BALLOON_ALL_FEATURES);
    qtest_memset(source.qts, HELD, BYTE, FREE + FREE_SIZE - HELD);
    balloon_send_range(&source, BALLOON_VQ_INFLATE, HELD,
                       HELD_SIZE / BALLOON_PAGE);
    for (int i = 0; i < 2; i++) {
        lose(&source, file);
        balloon_wait_for(balloon_migration_is(source.qts, "failed"));
        balloon_wait_for(balloon_vm_is_running(source.qts));
        balloon_wait_for(balloon_readl(&source, BALLOON_CFG_CMD_ID) ==
                         VIRTIO_BALLOON_CMD_ID_DONE);
        assert_memory(&source);
        assert_works(&source);
    }
    balloon_migrate(source.qts, file);
    balloon_load(&d, &source, DEVICE, OPTIONS, file);
    unlink(file);
    balloon_quit(&source);
    qtest_qmp_assert_success(d.qts, "{'execute': 'cont'}");
    assert_memory(&d);
    balloon_assert_bytes(&d, HELD, HELD_SIZE, 0);
    assert_works(&d);
    balloon_quit(&d);
}

void balloon_add_lost_tests(void)
{
    qtest_add_data_func("/virtio-balloon/improved/migration/lost/setup",
                        lose_in_setup, test_lost);
    qtest_add_data_func("/virtio-balloon/improved/migration/lost/active",
                        lose_in_active, test_lost);
    qtest_add_data_func("/virtio-balloon/improved/migration/lost/device",
                        lose_in_device, test_lost);
}
