/*
 * Free page hints of the virtio balloon, during migration
 *
 * virtio 1.2, section 5.5.6.5
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"

/* Memory that is sent late, and that the allocator does not hand out */
#define FREE (96 * MiB)
#define BLOCK (4 * MiB)

#define STOP VIRTIO_BALLOON_CMD_ID_STOP
#define DONE VIRTIO_BALLOON_CMD_ID_DONE
#define FIRST_ID 0x80000000

/* A legacy device without MSI-X: its registers are I/O ports, see 4.1.4.10 */
#define PORTS HINTING LEGACY ",vectors=0"
#define ISR_CONFIG 2

static void assert_id(BalloonDriver *d, uint32_t id)
{
    g_assert_cmphex(balloon_cmd_id(d), ==, id);
}

/*
 * Begin a migration, which has enough to send until it is to end.  Returns: the
 * id to give hints under
 */
static uint32_t begin(BalloonDriver *d)
{
    uint32_t id;

    qtest_memset(d->qts, FREE - 16 * MiB, OLD, 16 * MiB + 3 * BLOCK);
    balloon_migrate_slowly(d->qts);
    id = balloon_wait_asked(d);
    g_assert_cmphex(id, >=, FIRST_ID);
    return id;
}

/* Let it end; the driver goes on at the destination */
static void arrive(BalloonDriver *d)
{
    balloon_migrate_finish(d->qts);
    assert_id(d, DONE);
    balloon_arrive(d, NULL);
    assert_id(d, DONE);
}

/* Hints that nobody asked for are returned, and nothing happens */
static void unasked(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    assert_id(d, STOP);
    balloon_hint(d, mem, 2 * BALLOON_PAGE);
    balloon_send_id(d, FIRST_ID);
    balloon_hint(d, mem, 2 * BALLOON_PAGE);
    balloon_send_id(d, STOP);
    balloon_assert_pages(d, mem, "xx");
    assert_id(d, STOP);
}

/* The driver has its buffers back in the order in which it left them */
static void order(BalloonDriver *d)
{
    uint32_t id = begin(d), stop = STOP;
    BalloonSeg segs[] = {
        { balloon_copy(d, &id, sizeof(id)), sizeof(id) },
        { FREE, BLOCK, true },
        { balloon_copy(d, &stop, sizeof(stop)), sizeof(stop) },
    };

    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        balloon_publish(d, HINT, balloon_add(d, HINT, &segs[i], 1));
    }
    balloon_kick(d, HINT);
    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        balloon_wait_used(d, HINT, i);
    }
    arrive(d);
}

/* A request, hints, the end of hints, the end of migration; and once more */
static void protocol(BalloonDriver *d)
{
    uint32_t id = 0;

    for (int round = 0; round < 3; round++) {
        uint32_t last = id;

        id = begin(d);
        balloon_wait_config_interrupt(d);
        g_assert_cmphex(id, !=, last);

        balloon_send_id(d, id);
        balloon_hint(d, FREE, BLOCK);
        balloon_hint(d, FREE + BLOCK, BLOCK);
        balloon_send_id(d, STOP);

        balloon_migrate_cancel(d->qts);
        balloon_wait_done(d);
    }
}

/* Pages that are free are not sent, all others are */
static void free_pages_stay(BalloonDriver *d)
{
    uint64_t data = balloon_dirty_pages(d, 4);

    balloon_send_id(d, begin(d));
    balloon_hint(d, FREE + BLOCK, BLOCK);
    balloon_send_id(d, STOP);
    arrive(d);
    balloon_assert_pages(d, data, "xxxx");
    balloon_assert_bytes(d, FREE - 16 * MiB, 16 * MiB + BLOCK, OLD);
    balloon_assert_bytes(d, FREE + BLOCK, BLOCK, 0);
    balloon_assert_bytes(d, FREE + 2 * BLOCK, BLOCK, OLD);
}

/* Hints under no id, or another than the current, are ignored (5.5.6.5.2) */
static void stale_id(BalloonDriver *d)
{
    uint32_t id = begin(d);

    balloon_hint(d, FREE, BLOCK);
    balloon_send_id(d, id + 1);
    balloon_hint(d, FREE, BLOCK);
    balloon_send_id(d, id - 1);
    balloon_hint(d, FREE, BLOCK);
    assert_id(d, id);
    arrive(d);
    balloon_assert_bytes(d, FREE, BLOCK, OLD);
}

/*
 * An id that the driver has done with, sent again: what it hints at then may
 * have been used meanwhile, and is sent
 */
static void replayed_id(BalloonDriver *d)
{
    uint32_t id = begin(d);

    balloon_send_id(d, id);
    balloon_hint(d, FREE, BLOCK);
    balloon_send_id(d, STOP);
    for (int i = 0; i < 3; i++) {
        balloon_send_id(d, id);
        balloon_hint(d, FREE + BLOCK, BLOCK);
    }
    assert_id(d, STOP);
    arrive(d);
    balloon_assert_bytes(d, FREE, BLOCK, 0);
    balloon_assert_bytes(d, FREE + BLOCK, 2 * BLOCK, OLD);
}

/* No use for hints (5.5.6.5.2): a page that was not sent is asked for later */
static void postcopy(BalloonDriver *d)
{
    BalloonDriver target;

    if (balloon_begin_postcopy(d, &target)) {
        balloon_migrate_finish(d->qts);
        /* Neither was there a request, nor is there an end of it to be told */
        assert_id(d, STOP);
        balloon_quit(&target);
    }
}

/* The id while hinting runs */
static void id_while_hinting(BalloonDriver *d)
{
    uint32_t id = begin(d);

    balloon_send_id(d, id);
    assert_id(d, id);
    balloon_hint(d, FREE, BLOCK);
    assert_id(d, id);
    balloon_send_id(d, STOP);
    balloon_wait_for(balloon_cmd_id(d) == STOP);
    balloon_migrate_cancel(d->qts);
    balloon_wait_done(d);
}

/* An id has four bytes */
static void bad_id(BalloonDriver *d)
{
    unsigned len = GPOINTER_TO_UINT(d->data);

    for (int migrating = 0; migrating < 2; migrating++) {
        if (migrating) {
            begin(d);
        }
        balloon_post(d, HINT, &(BalloonSeg) { FREE, len, false }, 1);
        balloon_wait_broken(d);
        balloon_restart(d);
        balloon_send_id(d, 5);
    }
    balloon_migrate_cancel(d->qts);
}

/* As many hints as are applied before the device looks at the ring again */
#define AT_A_TIME 64

/*
 * A ring breaks when the device comes to it by itself.  Nobody asks for the
 * state: it is told all the same, within ten seconds.
 */
static void broken_told(BalloonDriver *d)
{
    BalloonSeg hint = { FREE, BALLOON_PAGE, true };
    BalloonSeg bad = { FREE, 5, false };

    balloon_assert_event(d->qts, "reached", NULL);
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_send_id(d, begin(d));
    for (int i = 0; i < AT_A_TIME; i++) {
        balloon_publish(d, HINT, balloon_add(d, HINT, &hint, 1));
    }
    balloon_publish(d, HINT, balloon_add(d, HINT, &bad, 1));
    balloon_kick(d, HINT);
    balloon_wait_broken(d);
    balloon_assert_no_event(d->qts);
    qtest_clock_step(d->qts, 10 * SECOND);
    balloon_assert_event(d->qts, "broken", NULL);
    balloon_migrate_finish(d->qts);
}

/*
 * The device needs a reset, which nobody does, and nothing else is the matter:
 * migration ends.  There may have been hints before.
 */
static void one_byte_id(BalloonDriver *d)
{
    uint32_t id = begin(d);

    if (d->data) {
        balloon_send_id(d, id);
        balloon_hint(d, FREE, BLOCK);
    }
    balloon_post_id(d, id, 1);
    balloon_wait_broken(d);
    balloon_migrate_finish(d->qts);
    g_assert_cmphex(balloon_status(d), ==, BALLOON_STATUS_BROKEN);
}

/*
 * The VM stops and goes on, or the driver goes away, while hints arrive: what
 * the guest writes from then on arrives
 */
static void interrupted(BalloonDriver *d)
{
    bool reset = d->data;
    BalloonSeg segs[8];

    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        segs[i] = (BalloonSeg) { FREE + i * MiB, MiB, true };
    }
    for (int round = 0; round < 3; round++) {
        uint32_t head;

        balloon_send_id(d, begin(d));
        head = balloon_post(d, HINT, segs, ARRAY_SIZE(segs));
        if (reset) {
            balloon_restart(d);
            balloon_hint(d, FREE, MiB);
        } else {
            balloon_stop(d);
            balloon_cont(d);
            balloon_wait_used(d, HINT, head);
            balloon_send_id(d, STOP);
        }
        if (round < 2) {
            balloon_migrate_cancel(d->qts);
        }
    }
    qtest_memset(d->qts, FREE, NEW, 8 * MiB);
    arrive(d);
    balloon_assert_bytes(d, FREE, 8 * MiB, NEW);
}

/* A driver that has gone is asked for nothing, and what it gave is void */
static void driver_gone(BalloonDriver *d)
{
    balloon_send_id(d, begin(d));
    balloon_set_bus_master(d, false);
    assert_id(d, STOP);
    balloon_set_bus_master(d, true);
    balloon_post(d, HINT, &(BalloonSeg) { FREE, MiB, true }, 1);
    qtest_memset(d->qts, FREE, NEW, MiB);
    balloon_restart(d);
    arrive(d);
    balloon_assert_bytes(d, FREE, MiB, NEW);
}

/* Memory that migration does not send has no bitmap to clear a hint from */
static void ignored_memory(BalloonDriver *d)
{
    balloon_set_capability(d->qts, "x-ignore-shared", true);
    /* It sends a buffer every 100 ms, however low its limit is */
    balloon_set_bandwidth(d->qts, 4 * KiB);
    balloon_migrate_start(d->qts);
    balloon_send_id(d, balloon_wait_asked(d));
    balloon_hint(d, AREA, 2 * BALLOON_PAGE);
    balloon_migrate_finish(d->qts);
}

/* Of a legacy device without MSI-X; to read it clears it */
static bool config_interrupt(BalloonDriver *d)
{
    return qpci_io_readb(d->pci->pdev, d->pci->bar, VIRTIO_PCI_ISR) &
           ISR_CONFIG;
}

/*
 * The interrupt status in a saved VM: docs/devel/migration/virtio.rst has the
 * layout.  It is found by what follows: the selected queue, the features and
 * the size of config, big endian.
 */
static uint8_t saved_isr(uint32_t features)
{
    uint32_t follows[] = { cpu_to_be32(features), cpu_to_be32(16) };
    g_autofree char *data = NULL;
    uint8_t *at;
    gsize size;

    g_assert_true(g_file_get_contents(balloon_saved(), &data, &size, NULL));
    at = memmem(data, size, follows, sizeof(follows));
    g_assert_nonnull(at);
    g_assert_cmphex(at[-4], ==, VIRTIO_CONFIG_S_ACKNOWLEDGE |
                                VIRTIO_CONFIG_S_DRIVER |
                                VIRTIO_CONFIG_S_DRIVER_OK);
    return at[-3];
}

/*
 * virtio 1.2, 5.5.6.5: a driver keeps the pages until it hears of DONE.  If
 * migration ends with that, the interrupt goes along with the device, for the
 * destination may be an older QEMU, which does not repeat it.
 */
static void done_interrupt(BalloonDriver *d)
{
    uint32_t features = d->vdev->features;

    balloon_set_capability(d->qts, "pause-before-switchover", true);
    begin(d);
    balloon_set_bandwidth(d->qts, 16 * GiB);
    balloon_wait_for(balloon_migration_is(d->qts, "pre-switchover"));
    /* Whatever the device had to say so far, the driver knows it */
    g_assert_cmphex(balloon_cmd_id(d), !=, DONE);
    config_interrupt(d);
    balloon_migrate_continue(d->qts);
    balloon_wait_for(balloon_migration_is(d->qts, "completed"));
    g_assert_cmphex(saved_isr(features) & ISR_CONFIG, ==, ISR_CONFIG);

    balloon_arrive(d, MEMORY "-S");
    g_assert_true(config_interrupt(d));
    assert_id(d, DONE);
}

/*
 * A VM may arrive in the middle of a round, or with nonsense for a state: the
 * migration that asked is over, so the driver gets its pages back and hears of
 * it, and the next migration asks again.
 */
static void half_done(BalloonDriver *d)
{
    const uint32_t id = FIRST_ID + 5;
    const uint32_t state = GPOINTER_TO_UINT(d->data);

    begin(d);
    balloon_migrate_finish(d->qts);
    /* They come after a version */
    balloon_patch_saved("virtio-balloon-device/free-page-report",
                        sizeof(uint32_t), (uint32_t[]) {
                            cpu_to_be32(id), cpu_to_be32(state),
                        }, 2 * sizeof(uint32_t));
    balloon_arrive(d, MEMORY "-S");
    balloon_cont(d);
    balloon_wait_for(config_interrupt(d));
    assert_id(d, DONE);
    g_assert_cmphex(begin(d), >, id);
}

static const BalloonTest tests[] = {
    { "hint/unasked", unasked },
    { "hint/order", order },
    { "hint/protocol", protocol },
    { "hint/free-pages-stay", free_pages_stay },
    { "hint/stale-id", stale_id },
    { "hint/replayed-id", replayed_id },
    { "hint/postcopy", postcopy },
    { "hint/stop-cont", interrupted },
    { "hint/reset", interrupted, .data = "reset" },
    { "improved/hint/driver-gone", driver_gone },
    { "hint/bad-id/1", bad_id, .data = GUINT_TO_POINTER(1) },
    { "hint/bad-id/3", bad_id, .data = GUINT_TO_POINTER(3) },
    /* longer ones were let pass by what was QEMU's own */
    { "improved/hint/bad-id/5", bad_id, .data = GUINT_TO_POINTER(5) },
    { "improved/hint/bad-id/8", bad_id, .data = GUINT_TO_POINTER(8) },
    { "improved/hint/bad-id/4096", bad_id, .data = GUINT_TO_POINTER(4096) },
    { "improved/hint/broken-told", broken_told },
    { "hint/one-byte-id", one_byte_id },
    { "hint/one-byte-id-late", one_byte_id, .data = "begun" },
    { "improved/hint/id-while-hinting", id_while_hinting },
    { "improved/hint/ignored-memory", ignored_memory,
      .options = MEMORY_OF("file,share=on,mem-path=$FILES/ram") },
    { "hint/done-interrupt", done_interrupt, PORTS },
    { "improved/hint/half-done/1", half_done, PORTS,
      .data = GUINT_TO_POINTER(1) },
    { "improved/hint/half-done/2", half_done, PORTS,
      .data = GUINT_TO_POINTER(2) },
    { "hint/half-done/3", half_done, PORTS, .data = GUINT_TO_POINTER(3) },
    { "improved/hint/half-done/4", half_done, PORTS,
      .data = GUINT_TO_POINTER(4) },
};

BALLOON_TESTS("", HINTING, tests)
