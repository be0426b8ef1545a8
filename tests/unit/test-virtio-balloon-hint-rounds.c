/*
 * The rounds of the virtio balloon's free page hints: what migration and a
 * worker thread may do to each other, one step at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "hw/virtio/virtio-balloon.h"

/*
 * The rounds are compiled into this test, so that it decides when a hint is
 * being applied.  Dirty memory is the target's business, and left out.
 */
#define RAM_ADDR_H
#include "exec/ramblock.h"

static unsigned undone;
static ram_addr_t undone_start, undone_size;

static void cpu_physical_memory_set_dirty_range(ram_addr_t start,
                                                ram_addr_t size, uint8_t mask)
{
    g_assert_cmphex(mask, ==, 1 << DIRTY_MEMORY_MIGRATION);
    undone++;
    undone_start = start;
    undone_size = size;
}

/* A thread is about to wait for the worker: see until_waited_for() */
static unsigned waits;
static QemuSemaphore somebody_waits;

static void count_wait(void)
{
    waits++;
    qemu_sem_post(&somebody_waits);
}

#undef qemu_cond_wait
#define qemu_cond_wait(cond, mutex) \
    (count_wait(), qemu_cond_wait_impl(cond, mutex, __FILE__, __LINE__))

/* A device without a type, and a big lock that nobody else wants */
static bool main_loop_waits;
#define VIRTIO_DEVICE(obj) ((VirtIODevice *)(obj))
#define bql_locked() main_loop_waits

#include "hw/virtio/virtio-balloon-hint-rounds.c"

/* --- what the rounds need of QEMU --------------------------------------- */

#define FIRST_ID 0x80000000u
#define HINT_SIZE 8192

/* As much of a device as the rounds look at */
static VirtIOBalloon device;
static unsigned scheduled, cancelled, notified;
static bool running = true;
static bool postcopy;

static uint8_t memory[2 * HINT_SIZE];
static RAMBlock block = { .host = memory, .offset = 0x40000000 };
static bool block_gone;

static NotifierWithReturn *precopy;

/* What happens while a hint is applied, and how many were */
static void (*applying)(BalloonHints *hints);
static BalloonHints *applying_hints;
static unsigned applied;

void qemu_bh_schedule(QEMUBH *bh)
{
    scheduled++;
}

void qemu_bh_cancel(QEMUBH *bh)
{
    cancelled++;
}

void virtio_notify_config(VirtIODevice *vdev)
{
    g_assert_true(vdev == &device.parent_obj);
    notified++;
}

bool runstate_is_running(void)
{
    return running;
}

bool migrate_postcopy_ram(void)
{
    return postcopy;
}

void precopy_add_notifier(NotifierWithReturn *n)
{
    g_assert_null(precopy);
    precopy = n;
}

void precopy_remove_notifier(NotifierWithReturn *n)
{
    g_assert_true(precopy == n);
    precopy = NULL;
}

RAMBlock *qemu_ram_block_from_host(void *ptr, bool round_offset,
                                   ram_addr_t *offset)
{
    g_assert_false(round_offset);
    if (block_gone) {
        return NULL;
    }
    *offset = (uint8_t *)ptr - block.host;
    return &block;
}

void qemu_guest_free_page_hint(void *addr, size_t len)
{
    g_assert_true(addr == memory + HINT_SIZE);
    g_assert_cmpuint(len, ==, HINT_SIZE);
    applied++;
    if (applying) {
        applying(applying_hints);
    }
}

/* --- the tests ----------------------------------------------------------- */

static const struct iovec hint = { memory + HINT_SIZE, HINT_SIZE };

/* A driver that knows hints runs the device */
static BalloonHints *start(void)
{
    device.parent_obj.status = VIRTIO_CONFIG_S_DRIVER_OK;
    device.parent_obj.guest_features = 1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT;
    running = true;
    main_loop_waits = postcopy = block_gone = false;
    applying = NULL;
    applied = undone = waits = scheduled = cancelled = notified = 0;
    applying_hints = balloon_hints_new(&device);
    return applying_hints;
}

static void finish(BalloonHints *hints)
{
    balloon_hints_unref(hints);
    g_assert_null(precopy);
}

static void step(PrecopyNotifyReason reason)
{
    PrecopyNotifyData data = { .reason = reason };

    g_assert_cmpint(precopy->notify(precopy, &data, NULL), ==, 0);
}

/* The migration thread looks for dirty memory; then it asks for hints */
static void synchronise(void)
{
    step(PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC);
    step(PRECOPY_NOTIFY_AFTER_BITMAP_SYNC);
}

static void ask(BalloonHints *hints, uint32_t expected)
{
    synchronise();
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==, expected);
    g_assert_false(balloon_hints_started(hints));
}

static void begin(BalloonHints *hints)
{
    balloon_hints_receive_id(hints, balloon_hints_cmd_id(hints));
    g_assert_true(balloon_hints_started(hints));
}

/* Apply a hint that was taken from the ring just now */
static void apply(BalloonHints *hints)
{
    balloon_hints_apply(hints, balloon_hints_round(hints), &hint);
}

static void test_ids(void)
{
    BalloonHints *hints = start();

    g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                    VIRTIO_BALLOON_CMD_ID_STOP);
    ask(hints, FIRST_ID);
    ask(hints, FIRST_ID + 1);
    g_assert_true(balloon_hints_load(hints, UINT32_MAX - 1,
                                     HINTING_REQUESTED));
    ask(hints, UINT32_MAX);
    /* Smaller ones mean something else */
    ask(hints, FIRST_ID);
    finish(hints);
}

/* Where there is nobody to answer, or no use for an answer, nobody is asked */
static void test_not_asked(void)
{
    BalloonHints *hints = start();

    device.parent_obj.status = 0;
    ask(hints, VIRTIO_BALLOON_CMD_ID_STOP);
    device.parent_obj.status = VIRTIO_CONFIG_S_DRIVER_OK;
    device.parent_obj.guest_features = 0;
    ask(hints, VIRTIO_BALLOON_CMD_ID_STOP);
    device.parent_obj.guest_features = 1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT;
    postcopy = true;
    ask(hints, VIRTIO_BALLOON_CMD_ID_STOP);
    step(PRECOPY_NOTIFY_CLEANUP);
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                    VIRTIO_BALLOON_CMD_ID_STOP);
    g_assert_cmpuint(scheduled, ==, 0);

    postcopy = false;
    ask(hints, FIRST_ID);
    g_assert_cmpuint(scheduled, ==, 1);
    balloon_hints_unplug(hints);
    synchronise();
    step(PRECOPY_NOTIFY_CLEANUP);
    g_assert_cmpuint(scheduled, ==, 1);
    finish(hints);
}

/* Each state, and what each id does in it */
static void test_states(void)
{
    BalloonHints *hints = start();

    balloon_hints_receive_id(hints, FIRST_ID);
    g_assert_false(balloon_hints_started(hints));
    ask(hints, FIRST_ID);
    balloon_hints_receive_id(hints, FIRST_ID + 1);
    balloon_hints_receive_id(hints, VIRTIO_BALLOON_CMD_ID_STOP);
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==, FIRST_ID);
    begin(hints);
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==, FIRST_ID);
    balloon_hints_receive_id(hints, FIRST_ID);
    g_assert_true(balloon_hints_started(hints));
    balloon_hints_receive_id(hints, VIRTIO_BALLOON_CMD_ID_STOP);
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                    VIRTIO_BALLOON_CMD_ID_STOP);
    /* An id that is over stays over */
    balloon_hints_receive_id(hints, FIRST_ID);
    g_assert_false(balloon_hints_started(hints));
    step(PRECOPY_NOTIFY_CLEANUP);
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                    VIRTIO_BALLOON_CMD_ID_DONE);

    /* Another migration, which the driver resets the device in */
    ask(hints, FIRST_ID + 1);
    begin(hints);
    balloon_hints_reset(hints);
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                    VIRTIO_BALLOON_CMD_ID_STOP);
    step(PRECOPY_NOTIFY_CLEANUP);
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                    VIRTIO_BALLOON_CMD_ID_STOP);
    finish(hints);
}

/* The machine has stopped for good: the driver is told at once, if that may */
static void test_done(void)
{
    for (int i = 0; i < 2; i++) {
        BalloonHints *hints = start();

        main_loop_waits = i;
        ask(hints, FIRST_ID);
        begin(hints);
        running = false;
        synchronise();
        g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                        VIRTIO_BALLOON_CMD_ID_DONE);
        g_assert_cmpuint(notified, ==, i);
        g_assert_cmpuint(cancelled, ==, i);
        finish(hints);
    }
}

/* The other side has nothing to do with the migration it came by */
static void test_load(void)
{
    BalloonHints *hints = start();
    uint32_t id, state;

    ask(hints, FIRST_ID);
    begin(hints);
    balloon_hints_save(hints, &id, &state);
    finish(hints);

    hints = start();
    g_assert_true(balloon_hints_load(hints, id, state));
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                    VIRTIO_BALLOON_CMD_ID_DONE);
    ask(hints, FIRST_ID + 1);
    g_assert_false(balloon_hints_load(hints, 0, HINTING_STOP));
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                    VIRTIO_BALLOON_CMD_ID_STOP);
    ask(hints, FIRST_ID);
    finish(hints);
}

static void test_apply(void)
{
    BalloonHints *hints = start();
    unsigned round;

    ask(hints, FIRST_ID);
    begin(hints);
    apply(hints);
    apply(hints);
    g_assert_cmpuint(applied, ==, 2);
    /* Its last hints are on their way when the driver ends */
    round = balloon_hints_round(hints);
    balloon_hints_receive_id(hints, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_hints_apply(hints, round, &hint);
    g_assert_cmpuint(applied, ==, 3);
    g_assert_cmpuint(undone, ==, 0);
    finish(hints);
}

static void end_by_reset(BalloonHints *hints)
{
    balloon_hints_reset(hints);
}

static void end_by_load(BalloonHints *hints)
{
    balloon_hints_load(hints, FIRST_ID, HINTING_REQUESTED);
}

static void end_by_stop(BalloonHints *hints)
{
    balloon_hints_void(hints);
}

/* Whatever ends the round, a hint of it does not count after that */
static void test_ended(const void *end_round)
{
    void (*end)(BalloonHints *hints) = end_round;
    BalloonHints *hints = start();
    unsigned round;

    ask(hints, FIRST_ID);
    begin(hints);
    round = balloon_hints_round(hints);
    end(hints);
    balloon_hints_apply(hints, round, &hint);
    g_assert_cmpuint(applied, ==, 0);
    finish(hints);

    /* It ends while the hint is applied: the memory is sent all the same */
    hints = start();
    ask(hints, FIRST_ID);
    begin(hints);
    applying = end;
    apply(hints);
    g_assert_cmpuint(applied, ==, 1);
    g_assert_cmpuint(undone, ==, 1);
    g_assert_cmphex(undone_start, ==, block.offset + HINT_SIZE);
    g_assert_cmphex(undone_size, ==, HINT_SIZE);
    finish(hints);

    /* The memory has gone meanwhile */
    hints = start();
    ask(hints, FIRST_ID);
    begin(hints);
    applying = end;
    block_gone = true;
    apply(hints);
    g_assert_cmpuint(undone, ==, 0);
    finish(hints);
}

/* After a stop, the driver goes on as if nothing had happened */
static void test_goes_on(void)
{
    BalloonHints *hints = start();

    ask(hints, FIRST_ID);
    balloon_hints_void(hints);
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==, FIRST_ID);
    begin(hints);
    scheduled = 0;
    balloon_hints_void(hints);
    g_assert_true(balloon_hints_started(hints));
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==, FIRST_ID);
    g_assert_cmpuint(scheduled, ==, 0);
    apply(hints);
    g_assert_cmpuint(applied, ==, 1);
    g_assert_cmpuint(undone, ==, 0);
    step(PRECOPY_NOTIFY_CLEANUP);
    g_assert_cmphex(balloon_hints_cmd_id(hints), ==,
                    VIRTIO_BALLOON_CMD_ID_DONE);
    finish(hints);
}

static QemuSemaphore worker_applies;

/* The hint takes until somebody waits for it */
static void until_waited_for(BalloonHints *hints)
{
    qemu_sem_post(&worker_applies);
    qemu_sem_wait(&somebody_waits);
}

static void *worker(void *opaque)
{
    apply(opaque);
    return NULL;
}

/* Nothing is synchronised, nor the end told, while a hint is being applied */
static void test_waits(const void *data)
{
    PrecopyNotifyReason reason = GPOINTER_TO_UINT(data);
    BalloonHints *hints = start();
    QemuThread thread;

    qemu_sem_init(&worker_applies, 0);
    qemu_sem_init(&somebody_waits, 0);
    ask(hints, FIRST_ID);
    begin(hints);
    applying = until_waited_for;
    qemu_thread_create(&thread, "worker", worker, hints, QEMU_THREAD_JOINABLE);
    qemu_sem_wait(&worker_applies);
    running = false;
    step(reason);
    g_assert_cmpuint(waits, >=, 1);
    g_assert_cmpuint(undone, ==, 1);
    qemu_thread_join(&thread);
    qemu_sem_destroy(&worker_applies);
    qemu_sem_destroy(&somebody_waits);
    finish(hints);
}

/* A worker may outlive the device */
static void test_outlives(void)
{
    BalloonHints *hints = start();

    ask(hints, FIRST_ID);
    begin(hints);
    balloon_hints_ref(hints);
    balloon_hints_reset(hints);
    balloon_hints_unplug(hints);
    balloon_hints_unref(hints);
    g_assert_nonnull(precopy);
    synchronise();
    finish(hints);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        PrecopyNotifyReason reason;
    } waiting[] = {
        { "/balloon-hints/waits/sync", PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC },
        { "/balloon-hints/waits/stopped", PRECOPY_NOTIFY_AFTER_BITMAP_SYNC },
        { "/balloon-hints/waits/cleanup", PRECOPY_NOTIFY_CLEANUP },
    };

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/balloon-hints/ids", test_ids);
    g_test_add_func("/balloon-hints/not-asked", test_not_asked);
    g_test_add_func("/balloon-hints/states", test_states);
    g_test_add_func("/balloon-hints/done", test_done);
    g_test_add_func("/balloon-hints/load", test_load);
    g_test_add_func("/balloon-hints/apply", test_apply);
    g_test_add_data_func("/balloon-hints/ended/reset", end_by_reset,
                         test_ended);
    g_test_add_data_func("/balloon-hints/ended/load", end_by_load, test_ended);
    g_test_add_data_func("/balloon-hints/ended/stop", end_by_stop, test_ended);
    g_test_add_func("/balloon-hints/goes-on", test_goes_on);
    for (int i = 0; i < ARRAY_SIZE(waiting); i++) {
        g_test_add_data_func(waiting[i].path,
                             GUINT_TO_POINTER(waiting[i].reason), test_waits);
    }
    g_test_add_func("/balloon-hints/outlives", test_outlives);
    return g_test_run();
}
