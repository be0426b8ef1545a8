/*
 * The virtio balloon, migration, and what a driver can do about it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-hostile.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"

#define NOWHERE "exec:cat > /dev/null"

/* A legacy device without MSI-X: its registers are I/O ports, see 4.1.4.10 */
#define LEGACY_DEVICE                                                   \
    "virtio-balloon-pci,disable-modern=on,vectors=0,free-page-hint=on," \
    "iothread=io0"
#define ISR_CONFIG 2

/* Leave a buffer that is @size bytes of a command id */
static uint32_t post_id(BalloonDriver *d, uint32_t id, uint32_t size)
{
    uint32_t wire = balloon_wire32(d, id);
    uint64_t addr = balloon_copy(d, &wire, sizeof(wire));

    return balloon_post(d, BALLOON_VQ_HINT, &(BalloonSeg) { addr, size }, 1);
}

/*
 * The device needs a reset, and nothing else is the
 * matter; the next driver is served, and migration ends.
 */
static void test_short_id(const void *data)
{
    BalloonDriver d;

    balloon_boot(&d, BALLOON_HOSTILE_DEVICE, BALLOON_HOSTILE_OPTIONS);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_begin_migration(d.qts, NOWHERE);
    post_id(&d, balloon_wait_asked(&d), GPOINTER_TO_INT(data));
    balloon_wait_for(balloon_status(&d) == BALLOON_STATUS_BROKEN);
    balloon_assert_next_driver(&d);
    balloon_migrate_finish(d.qts);
    balloon_quit(&d);
}

/* As that, but nobody resets the device, which may have been given hints */
static void test_short_id_only(const void *data)
{
    bool begun = data;
    BalloonDriver d;
    uint32_t id;

    balloon_boot(&d, BALLOON_HOSTILE_DEVICE, BALLOON_HOSTILE_OPTIONS);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_begin_migration(d.qts, NOWHERE);
    id = balloon_wait_asked(&d);
    if (begun) {
        balloon_wait_used(&d, BALLOON_VQ_HINT, post_id(&d, id, sizeof(id)));
        balloon_send_one(&d, BALLOON_VQ_HINT, 64 * MiB, 2 * MiB, true);
    }
    post_id(&d, id, 1);
    balloon_wait_for(balloon_status(&d) == BALLOON_STATUS_BROKEN);
    balloon_migrate_finish(d.qts);
    g_assert_cmphex(balloon_status(&d), ==, BALLOON_STATUS_BROKEN);
    balloon_quit(&d);
}

/* Memory that migration does not send has no bitmap to clear a hint from */
static void test_ignored_memory(void)
{
    g_autofree char *file = g_strdup_printf("%s/virtio-balloon-%d",
                                            g_get_tmp_dir(), getpid());
    g_autofree char *options = g_strdup_printf(
        BALLOON_HOSTILE_OPTIONS "-machine pc,memory-backend=ram -object"
        " memory-backend-file,id=ram,size=128M,share=on,mem-path=%s", file);
    BalloonDriver d;
    uint64_t mem;

    balloon_boot(&d, BALLOON_HOSTILE_DEVICE, options);
    unlink(file);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    mem = balloon_dirty_pages(&d, 4);
    balloon_set_capability(d.qts, "x-ignore-shared", true);
    balloon_begin_migration(d.qts, NOWHERE);
    balloon_wait_used(&d, BALLOON_VQ_HINT,
                      post_id(&d, balloon_wait_asked(&d), sizeof(uint32_t)));
    balloon_send_one(&d, BALLOON_VQ_HINT, mem, 2 * BALLOON_PAGE, true);
    balloon_assert_pages(&d, mem, "xxxx");
    balloon_migrate_finish(d.qts);
    balloon_quit(&d);
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

/* A QEMU that has loaded the VM in @file and waits */
static QTestState *load_vm(const char *file)
{
    g_autofree char *load = g_strconcat("exec:cat ", file, NULL);
    QTestState *to;

    to = qtest_initf(BALLOON_HOSTILE_OPTIONS "-device " LEGACY_DEVICE
                     ",id=balloon0,addr=4 -S -incoming defer");
    balloon_migrate_incoming(to, load);
    balloon_wait_migration(to, "completed");
    return to;
}

/*
 * virtio 1.2, 5.5.6.5: a driver keeps the pages until it hears of DONE.  If
 * migration ends with that, the interrupt goes along with the device, for the
 * destination may be an older QEMU, which does not repeat it.
 */
static void test_done_interrupt(void)
{
    g_autofree char *file = g_strdup_printf("%s/virtio-balloon-%d",
                                            g_get_tmp_dir(), getpid());
    g_autofree char *save = g_strconcat("exec:cat > ", file, NULL);
    QTestState *to;
    BalloonDriver d;
    uint16_t isr, config;

    balloon_boot(&d, LEGACY_DEVICE, BALLOON_HOSTILE_OPTIONS);
    isr = d.pci->bar.addr + VIRTIO_PCI_ISR;
    config = d.pci->bar.addr + VIRTIO_PCI_CONFIG_OFF(false);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_set_capability(d.qts, "pause-before-switchover", true);
    balloon_begin_migration(d.qts, save);
    balloon_wait_asked(&d);
    balloon_set_bandwidth(d.qts, 16 * GiB);
    balloon_wait_migration(d.qts, "pre-switchover");
    /* Whatever the device had to say so far, the driver knows it */
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_CMD_ID), !=,
                    VIRTIO_BALLOON_CMD_ID_DONE);
    qtest_inb(d.qts, isr);
    qtest_qmp_assert_success(d.qts, "{'execute': 'migrate-continue',"
                             " 'arguments': {'state': 'pre-switchover'}}");
    balloon_wait_migration(d.qts, "completed");
    g_assert_cmphex(saved_isr(file, d.vdev->features) & ISR_CONFIG, ==,
                    ISR_CONFIG);

    to = load_vm(file);
    g_assert_cmphex(qtest_inb(to, isr) & ISR_CONFIG, ==, ISR_CONFIG);
    g_assert_cmphex(qtest_inl(to, config + BALLOON_CFG_CMD_ID), ==,
                    VIRTIO_BALLOON_CMD_ID_DONE);
    qtest_quit(to);
    balloon_quit(&d);
    unlink(file);
}

/* Have the VM in @file hint under @id, in @state */
static void patch_hinting(const char *file, uint32_t id, uint32_t state)
{
    const char name[] = "virtio-balloon-device/free-page-report";
    uint32_t values[] = { cpu_to_be32(id), cpu_to_be32(state) };
    g_autofree char *data = NULL;
    char *at;
    gsize size;

    g_assert_true(g_file_get_contents(file, &data, &size, NULL));
    at = memmem(data, size, name, strlen(name));
    g_assert_nonnull(at);
    memcpy(at + strlen(name) + sizeof(uint32_t), values, sizeof(values));
    g_assert_true(g_file_set_contents(file, data, size, NULL));
}

/*
 * A VM may arrive in the middle of a round, or with nonsense for a state: the
 * migration that asked is over, so the driver gets its pages back and hears of
 * it, and the next migration asks again.
 */
static void test_half_done(const void *data)
{
    uint32_t state = GPOINTER_TO_UINT(data), id = 0x80000005;
    g_autofree char *file = g_strdup_printf("%s/virtio-balloon-%d",
                                            g_get_tmp_dir(), getpid());
    g_autofree char *save = g_strconcat("exec:cat > ", file, NULL);
    uint16_t isr, config;
    BalloonDriver d;
    QTestState *to;

    balloon_boot(&d, LEGACY_DEVICE, BALLOON_HOSTILE_OPTIONS);
    isr = d.pci->bar.addr + VIRTIO_PCI_ISR;
    config = d.pci->bar.addr + VIRTIO_PCI_CONFIG_OFF(false);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    balloon_begin_migration(d.qts, save);
    balloon_wait_asked(&d);
    balloon_migrate_finish(d.qts);
    balloon_quit(&d);
    patch_hinting(file, id, state);

    to = load_vm(file);
    qtest_qmp_assert_success(to, "{'execute': 'cont'}");
    balloon_wait_for(qtest_inb(to, isr) & ISR_CONFIG);
    g_assert_cmphex(qtest_inl(to, config + BALLOON_CFG_CMD_ID), ==,
                    VIRTIO_BALLOON_CMD_ID_DONE);
    balloon_begin_migration(to, NOWHERE);
    balloon_wait_for(qtest_inl(to, config + BALLOON_CFG_CMD_ID) > id);
    qtest_quit(to);
    unlink(file);
}

void balloon_add_hostile_migration_tests(void)
{
    qtest_add_data_func("/virtio-balloon/migration/one-byte-id",
                        GINT_TO_POINTER(1), test_short_id);
    qtest_add_data_func("/virtio-balloon/migration/three-byte-id",
                        GINT_TO_POINTER(3), test_short_id);
    qtest_add_data_func("/virtio-balloon/migration/one-byte-id-only",
                        NULL, test_short_id_only);
    qtest_add_data_func("/virtio-balloon/migration/one-byte-id-late",
                        GINT_TO_POINTER(true), test_short_id_only);
    qtest_add_func("/virtio-balloon/improved/migration/ignored-memory",
                   test_ignored_memory);
    for (uint32_t state = 1; state < 5; state++) {
        g_autofree char *path = g_strdup_printf(
            "/virtio-balloon/%smigration/half-done/%u",
            state == 3 ? "" : "improved/", state);

        qtest_add_data_func(path, GUINT_TO_POINTER(state), test_half_done);
    }
    qtest_add_func("/virtio-balloon/migration/done-interrupt",
                   test_done_interrupt);
}
