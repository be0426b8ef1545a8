/*
 * The virtio balloon, migration, and what a driver can do about it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-hostile.h"
#include "virtio-balloon-migrate.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"

#define NOWHERE "exec:cat > /dev/null"

/* A legacy device without MSI-X: its registers are I/O ports, see 4.1.4.10 */
#define LEGACY_DEVICE                                                   \
    "virtio-balloon-pci,disable-modern=on,vectors=0,free-page-hint=on," \
    "iothread=io0"
#define LEGACY_OPTIONS "-m 128 " BALLOON_IOTHREAD
#define ISR_CONFIG 2

/*
 * The device needs a reset, which nobody does, and nothing else is the matter:
 * migration ends.  There may have been hints before.
 */
static void test_short_id(BalloonDriver *d)
{
    bool begun = d->data;
    uint32_t id;

    balloon_begin_migration(d->qts, NOWHERE);
    id = balloon_wait_asked(d);
    if (begun) {
        balloon_send_id(d, id);
        balloon_send_one(d, BALLOON_VQ_HINT, 64 * MiB, 2 * MiB, true);
    }
    balloon_post_id(d, id, 1);
    balloon_wait_for(balloon_status(d) == BALLOON_STATUS_BROKEN);
    balloon_migrate_finish(d->qts);
    g_assert_cmphex(balloon_status(d), ==, BALLOON_STATUS_BROKEN);
}

/* Memory that migration does not send has no bitmap to clear a hint from */
static void test_ignored_memory(void)
{
    g_autofree char *file = balloon_temp_name("ram");
    g_autofree char *options = g_strdup_printf(
        BALLOON_RAM_OF("file,share=on,mem-path=%s") BALLOON_IOTHREAD, file);
    BalloonDriver d;
    uint64_t mem;

    balloon_boot(&d, BALLOON_HOSTILE_DEVICE, options);
    unlink(file);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    mem = balloon_dirty_pages(&d, 4);
    balloon_set_capability(d.qts, "x-ignore-shared", true);
    balloon_begin_migration(d.qts, NOWHERE);
    balloon_send_id(&d, balloon_wait_asked(&d));
    balloon_send_one(&d, BALLOON_VQ_HINT, mem, 2 * BALLOON_PAGE, true);
    balloon_assert_pages(&d, mem, "xxxx");
    balloon_migrate_finish(d.qts);
    balloon_quit(&d);
}

/* Of a legacy device without MSI-X; to read it clears it */
static bool config_interrupt(BalloonDriver *d)
{
    return qpci_io_readb(d->pci->pdev, d->pci->bar, VIRTIO_PCI_ISR) &
           ISR_CONFIG;
}

static uint32_t cmd_id(BalloonDriver *d)
{
    return balloon_readl(d, BALLOON_CFG_CMD_ID);
}

/*
 * The interrupt status in a saved VM: docs/devel/migration/virtio.rst has the
 * layout.  It is found by what follows: the selected queue, the features and
 * the size of config, big endian.
 */
static uint8_t saved_isr(const char *file, uint32_t features)
{
    uint32_t follows[] = { cpu_to_be32(features), cpu_to_be32(16) };
    g_autofree char *data = NULL;
    uint8_t *at;
    gsize size;

    g_assert_true(g_file_get_contents(file, &data, &size, NULL));
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
static void test_done_interrupt(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *uri = g_strconcat("file:", file, NULL);
    uint32_t features = d->vdev->features;
    BalloonDriver to;

    balloon_set_capability(d->qts, "pause-before-switchover", true);
    balloon_begin_migration(d->qts, uri);
    balloon_wait_asked(d);
    balloon_set_bandwidth(d->qts, 16 * GiB);
    balloon_wait_for(balloon_migration_is(d->qts, "pre-switchover"));
    /* Whatever the device had to say so far, the driver knows it */
    g_assert_cmphex(cmd_id(d), !=, VIRTIO_BALLOON_CMD_ID_DONE);
    config_interrupt(d);
    qtest_qmp_assert_success(d->qts, "{'execute': 'migrate-continue',"
                             " 'arguments': {'state': 'pre-switchover'}}");
    balloon_wait_for(balloon_migration_is(d->qts, "completed"));
    g_assert_cmphex(saved_isr(file, features) & ISR_CONFIG, ==, ISR_CONFIG);

    balloon_load(&to, d, LEGACY_DEVICE, LEGACY_OPTIONS "-S", file);
    g_assert_true(config_interrupt(&to));
    g_assert_cmphex(cmd_id(&to), ==, VIRTIO_BALLOON_CMD_ID_DONE);
    balloon_quit(&to);
    unlink(file);
}

/*
 * A VM may arrive in the middle of a round, or with nonsense for a state: the
 * migration that asked is over, so the driver gets its pages back and hears of
 * it, and the next migration asks again.
 */
static void test_half_done(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *uri = g_strconcat("file:", file, NULL);
    const uint32_t id = 0x80000005;
    const uint32_t values[] = {
        cpu_to_be32(id), cpu_to_be32(GPOINTER_TO_UINT(d->data)),
    };
    BalloonDriver to;

    balloon_begin_migration(d->qts, uri);
    balloon_wait_asked(d);
    balloon_migrate_finish(d->qts);
    /* The id and the state, after a version */
    balloon_patch_state(file, "virtio-balloon-device/free-page-report", 4,
                        values, sizeof(values));

    balloon_load(&to, d, LEGACY_DEVICE, LEGACY_OPTIONS "-S", file);
    balloon_cont(&to);
    balloon_wait_for(config_interrupt(&to));
    g_assert_cmphex(cmd_id(&to), ==, VIRTIO_BALLOON_CMD_ID_DONE);
    balloon_begin_migration(to.qts, NOWHERE);
    balloon_wait_for(cmd_id(&to) > id);
    balloon_quit(&to);
    unlink(file);
}

static const BalloonTest tests[] = {
    { "migration/one-byte-id", test_short_id },
    { "migration/one-byte-id-late", test_short_id, .data = "begun" },
};

static const BalloonTest legacy_tests[] = {
    { "migration/done-interrupt", test_done_interrupt },
    { "improved/migration/half-done/1", test_half_done,
      .data = GINT_TO_POINTER(1) },
    { "improved/migration/half-done/2", test_half_done,
      .data = GINT_TO_POINTER(2) },
    { "migration/half-done/3", test_half_done,
      .data = GINT_TO_POINTER(3) },
    { "improved/migration/half-done/4", test_half_done,
      .data = GINT_TO_POINTER(4) },
};

void balloon_add_hostile_migration_tests(void)
{
    balloon_add_tests(BALLOON_HOSTILE_DEVICE, tests, ARRAY_SIZE(tests));
    balloon_add_tests(LEGACY_DEVICE, legacy_tests,
                      ARRAY_SIZE(legacy_tests));
    qtest_add_func("/virtio-balloon/improved/migration/ignored-memory",
                   test_ignored_memory);
}
