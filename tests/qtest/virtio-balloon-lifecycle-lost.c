/*
 * A virtio balloon that should have been migrated, but the target is lost, or
 * does not take what it gets
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

/* Begin to migrate through a connection that the caller ends */
static int migrate_to_test(QTestState *qts, const char *path)
{
    int listener = qtest_socket_server(path);
    int stream;

    migrate_to(qts, path);
    stream = accept(listener, NULL, NULL);
    g_assert_cmpint(stream, >=, 0);
    close(listener);
    unlink(path);
    return stream;
}

/* It ends when nothing of it was read yet ... */
static void lose_in_setup(BalloonDriver *d, const char *path)
{
    balloon_set_bandwidth(d->qts, 0);
    close(migrate_to_test(d->qts, path));
}

/* A hint waits for who sends memory, and that for who reads it: read on */
static void read_until_served(BalloonDriver *d, int stream, uint32_t head)
{
    balloon_wait_for((balloon_migrate_pass(stream, "/dev/null", 64 * KiB),
                      balloon_has_used(d, BALLOON_VQ_HINT)));
    balloon_wait_served(d, BALLOON_VQ_HINT, head);
}

/* ... or when some of the memory was, in the middle of hints */
static void lose_in_active(BalloonDriver *d, const char *path)
{
    BalloonSeg free = { FREE, FREE_SIZE, true };
    int stream;

    balloon_set_bandwidth(d->qts, 1 * MiB);
    stream = migrate_to_test(d->qts, path);
    read_until_served(d, stream, balloon_post_id(d, balloon_wait_asked(d),
                                                 sizeof(uint32_t)));
    read_until_served(d, stream, balloon_post(d, BALLOON_VQ_HINT, &free, 1));
    balloon_migrate_pass(stream, "/dev/null", SOME);
    close(stream);
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
    balloon_send_id(d, balloon_wait_asked(d));
    balloon_send_one(d, BALLOON_VQ_HINT, FREE, FREE_SIZE, true);
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

    balloon_inflate(d, page, BALLOON_PAGE);
    balloon_wait_discarded(d->qts);
    balloon_assert_bytes(d, page, BALLOON_PAGE, 0);
    balloon_deflate(d, page, BALLOON_PAGE);
    balloon_assert_sum(d->qts);
}

static void assert_memory(BalloonDriver *d)
{
    balloon_assert_bytes(d, FREE, FREE_SIZE, BYTE);
    balloon_assert_bytes(d, HELD + HELD_SIZE, FREE - HELD - HELD_SIZE, BYTE);
}

static void test_lost(BalloonDriver *d)
{
    void (*lose)(BalloonDriver *d, const char *path) = d->data;
    g_autofree char *path = balloon_temp_name("socket");

    qtest_memset(d->qts, HELD, BYTE, FREE + FREE_SIZE - HELD);
    balloon_inflate(d, HELD, HELD_SIZE);
    for (int i = 0; i < 2; i++) {
        lose(d, path);
        balloon_wait_for(balloon_migration_is(d->qts, "failed"));
        balloon_wait_for(balloon_vm_is_running(d->qts));
        balloon_wait_for(balloon_readl(d, BALLOON_CFG_CMD_ID) ==
                         VIRTIO_BALLOON_CMD_ID_DONE);
        assert_memory(d);
        assert_works(d);
    }
    balloon_move(d, DEVICE, OPTIONS);
    assert_memory(d);
    balloon_assert_bytes(d, HELD, HELD_SIZE, 0);
    assert_works(d);
}

/*
 * QEMU is killed while it serves a request; the guest goes on from what was
 * saved before, where all its memory is and no request was made yet.
 */
static void test_killed(BalloonDriver *d)
{
    const uint64_t size = 2 * BALLOON_HUGE_PAGES * BALLOON_PAGE;
    g_autofree char *file = balloon_migration_file();
    /* What libqtest knows of it stays: it cannot end a process that has gone */
    static BalloonDriver source;
    pid_t pid = qtest_pid(d->qts);
    uint64_t pages = balloon_alloc(d, size, BYTE);

    balloon_migrate(d->qts, file);
    balloon_cont(d);
    balloon_post_huge(d, pages, BALLOON_HUGE_MAX);
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    qtest_remove_abrt_handler(d->qts);

    source = *d;
    balloon_load(d, &source, DEVICE, OPTIONS, file);
    unlink(file);
    /* The rings are as they were saved, and so are the driver's numbers */
    balloon_assert_bytes(d, pages, size, BYTE);
    g_assert_false(balloon_has_used(d, BALLOON_VQ_INFLATE));
    balloon_reset(d);
    balloon_start(d, BALLOON_ALL_FEATURES);
    assert_works(d);
}

/*
 * A saved state that names memory that nobody has is refused: the name follows
 * the version, the number of memory blocks and its own length
 */
static void test_damaged(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver target;

    balloon_inflate(d, HELD, HELD_SIZE / 2);
    balloon_migrate(d->qts, file);
    balloon_patch_state(file, "virtio-balloon-device/must-tell-host", 9,
                        "no.ram", 6);
    balloon_boot_incoming(&target, DEVICE, OPTIONS "2> /dev/null");
    g_assert_false(balloon_try_load(target.qts, file));
    balloon_quit(&target);
    unlink(file);
}

static const BalloonTest tests[] = {
    { "improved/migration/lost/setup", test_lost, .data = lose_in_setup },
    { "improved/migration/lost/active", test_lost, .data = lose_in_active },
    { "improved/migration/lost/device", test_lost, .data = lose_in_device },
    { "improved/reset/killed", test_killed },
    { "improved/tell/damaged", test_damaged },
};

void balloon_add_lost_tests(void)
{
    balloon_add_tests(DEVICE, tests, ARRAY_SIZE(tests));
}
