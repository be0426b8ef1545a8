/*
 * The byte order of a virtio balloon's requests and config
 *
 * Requests of a legacy driver are in the order of the guest's CPU, those of
 * others little endian (virtio 1.2, sections 5.5.6.1.1 and 5.5.6.3.2); config
 * always is little endian (5.5.4.0.0.1).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "libqos/libqos-spapr.h"
#include "standard-headers/linux/virtio_config.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define SLOT 4
#define RAM (256 * MiB)
#define OPTIONS "-m 256 -object iothread,id=io0"                        \
                " -device %s,id=balloon0,addr=4,free-page-hint=on,iothread=io0"
#define HINT BALLOON_VQ_FIRST_OPTIONAL

typedef struct Case {
    const char *device;
    bool modern;
} Case;

static const Case legacy = {
    .device = "virtio-balloon-pci,disable-modern=on,disable-legacy=off",
};
static const Case modern = {
    .device = "virtio-balloon-pci,disable-modern=off",
    .modern = true,
};

static bool big_endian(BalloonDriver *d)
{
    return !(d->vdev->features & 1ull << VIRTIO_F_VERSION_1) &&
           qtest_big_endian(d->qts);
}

static void boot(BalloonDriver *d, const Case *c)
{
    QOSState *machine = g_str_equal(qtest_get_arch(), "ppc64") ?
                        qtest_spapr_boot(OPTIONS, c->device) :
                        qtest_pc_boot(OPTIONS, c->device);

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
    balloon_find(d, SLOT);
    balloon_start(d, BALLOON_ALL_FEATURES);
    g_assert_cmpint(!(d->vdev->features & 1ull << VIRTIO_F_VERSION_1), ==,
                    !c->modern);
}

/* The page of a number in the right order goes, that in the other one stays */
static void test_pages(const void *data)
{
    static const uint8_t little[] = { 0x34, 0x12, 0x00, 0x00 };
    static const uint8_t big[] = { 0x00, 0x00, 0x12, 0x34 };
    BalloonDriver d;
    uint64_t page = 0x1234 * (uint64_t)BALLOON_PAGE;
    uint64_t list;

    boot(&d, data);
    qtest_memset(d.qts, page, 0x11, BALLOON_PAGE);
    list = balloon_copy(&d, big_endian(&d) ? little : big, sizeof(big));
    balloon_send_one(&d, BALLOON_VQ_INFLATE, list, sizeof(big), false);
    balloon_assert_bytes(&d, page, BALLOON_PAGE, 0x11);
    list = balloon_copy(&d, big_endian(&d) ? big : little, sizeof(big));
    balloon_send_one(&d, BALLOON_VQ_INFLATE, list, sizeof(big), false);
    balloon_assert_bytes(&d, page, BALLOON_PAGE, 0);
    balloon_quit(&d);
}

/* Tag and value of an entry */
static void test_stats(const void *data)
{
    static const uint8_t little[] = { 4, 0, 8, 7, 6, 5, 4, 3, 2, 1 };
    static const uint8_t big[] = { 0, 4, 1, 2, 3, 4, 5, 6, 7, 8 };
    BalloonDriver d;
    uint64_t entry;

    boot(&d, data);
    entry = balloon_copy(&d, big_endian(&d) ? big : little, sizeof(big));
    balloon_post(&d, BALLOON_VQ_STATS, &(BalloonSeg) { entry, sizeof(big) },
                 1);
    balloon_wait_for(balloon_stat(d.qts, "free-memory") ==
                     0x0102030405060708ull);
    balloon_quit(&d);
}

/* Bytes of config, in both directions */
static void test_config(const void *data)
{
    BalloonDriver d;

    boot(&d, data);
    balloon_set_target(d.qts, RAM - 0x1234 * BALLOON_PAGE);
    g_assert_cmphex(balloon_readb(&d, BALLOON_CFG_NUM_PAGES), ==, 0x34);
    g_assert_cmphex(balloon_readb(&d, BALLOON_CFG_NUM_PAGES + 1), ==, 0x12);
    g_assert_cmphex(balloon_readb(&d, BALLOON_CFG_NUM_PAGES + 2), ==, 0);
    for (unsigned i = 0; i < 4; i++) {
        balloon_writeb(&d, BALLOON_CFG_ACTUAL + i, 0x00001234 >> (8 * i));
    }
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 0x1234 * BALLOON_PAGE);
    /* A PCI register that the driver wrote in one access: bytes as before */
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0x4321);
    g_assert_cmphex(balloon_readb(&d, BALLOON_CFG_ACTUAL), ==, 0x21);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 0x4321 * BALLOON_PAGE);
    balloon_quit(&d);
}

static uint32_t cmd_id(BalloonDriver *d)
{
    return balloon_readl(d, BALLOON_CFG_CMD_ID);
}

/* Send a command id, and then that there are no more hints */
static void send_id_and_stop(BalloonDriver *d, uint32_t wire)
{
    const uint32_t stop = VIRTIO_BALLOON_CMD_ID_STOP;

    balloon_send_one(d, HINT, balloon_copy(d, &wire, sizeof(wire)),
                     sizeof(wire), false);
    balloon_send_one(d, HINT, balloon_copy(d, &stop, sizeof(stop)),
                     sizeof(stop), false);
}

/* The command id is known in the right order, and in no other */
static void test_ids(const void *data)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver d;
    uint32_t id;

    boot(&d, data);
    qtest_memset(d.qts, RAM / 2, 0x11, 16 * MiB);
    balloon_migrate_slowly(d.qts, file);
    balloon_wait_for(cmd_id(&d) > VIRTIO_BALLOON_CMD_ID_DONE);
    id = cmd_id(&d);
    send_id_and_stop(&d, bswap32(balloon_wire32(&d, id)));
    g_assert_cmphex(cmd_id(&d), ==, id);
    send_id_and_stop(&d, big_endian(&d) ? cpu_to_be32(id) : cpu_to_le32(id));
    g_assert_cmphex(cmd_id(&d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_migrate_cancel(d.qts);
    unlink(file);
    balloon_quit(&d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_data_func("/virtio-balloon/endian/pages/legacy", &legacy,
                        test_pages);
    qtest_add_data_func("/virtio-balloon/endian/pages/modern", &modern,
                        test_pages);
    qtest_add_data_func("/virtio-balloon/endian/stats/legacy", &legacy,
                        test_stats);
    qtest_add_data_func("/virtio-balloon/endian/stats/modern", &modern,
                        test_stats);
    qtest_add_data_func("/virtio-balloon/endian/config/legacy", &legacy,
                        test_config);
    qtest_add_data_func("/virtio-balloon/endian/config/modern", &modern,
                        test_config);
    qtest_add_data_func("/virtio-balloon/improved/endian/ids/legacy", &legacy,
                        test_ids);
    qtest_add_data_func("/virtio-balloon/improved/endian/ids/modern", &modern,
                        test_ids);
    return g_test_run();
}
