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
#include "libqos/libqos-spapr.h"
#include "standard-headers/linux/virtio_config.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-steps.h"

#define SLOT 4
#define RAM (256 * MiB)
#define OPTIONS "-m 256 -object iothread,id=io0"                        \
                " -device virtio-balloon-pci,%s,id=balloon0,addr=4,"    \
                "free-page-hint=on,iothread=io0"

#define LEGACY "disable-modern=on,disable-legacy=off"
#define MODERN "disable-modern=off"

static bool big_endian(BalloonDriver *d)
{
    return !(d->vdev->features & 1ull << VIRTIO_F_VERSION_1) &&
           qtest_big_endian(d->qts);
}

/* The page of a number in the right order goes, that in the other one stays */
static void pages(BalloonDriver *d)
{
    static const uint8_t little[] = { 0x34, 0x12, 0x00, 0x00 };
    static const uint8_t big[] = { 0x00, 0x00, 0x12, 0x34 };
    uint64_t page = 0x1234 * (uint64_t)BALLOON_PAGE;
    uint64_t list;

    qtest_memset(d->qts, page, 0x11, BALLOON_PAGE);
    list = balloon_copy(d, big_endian(d) ? little : big, sizeof(big));
    balloon_send_one(d, BALLOON_VQ_INFLATE, list, sizeof(big), false);
    balloon_assert_bytes(d, page, BALLOON_PAGE, 0x11);
    list = balloon_copy(d, big_endian(d) ? big : little, sizeof(big));
    balloon_send_one(d, BALLOON_VQ_INFLATE, list, sizeof(big), false);
    balloon_assert_bytes(d, page, BALLOON_PAGE, 0);
}

/* Tag and value of an entry */
static void stats(BalloonDriver *d)
{
    static const uint8_t little[] = { 4, 0, 8, 7, 6, 5, 4, 3, 2, 1 };
    static const uint8_t big[] = { 0, 4, 1, 2, 3, 4, 5, 6, 7, 8 };
    uint64_t entry;

    entry = balloon_copy(d, big_endian(d) ? big : little, sizeof(big));
    balloon_post(d, BALLOON_VQ_STATS, &(BalloonSeg) { entry, sizeof(big) },
                 1);
    balloon_wait_for(balloon_stat(d->qts, "free-memory") ==
                     0x0102030405060708ull);
}

/* Bytes of config, in both directions */
static void config(BalloonDriver *d)
{
    balloon_set_target(d->qts, RAM - 0x1234 * BALLOON_PAGE);
    g_assert_cmphex(balloon_readb(d, BALLOON_CFG_NUM_PAGES), ==, 0x34);
    g_assert_cmphex(balloon_readb(d, BALLOON_CFG_NUM_PAGES + 1), ==, 0x12);
    g_assert_cmphex(balloon_readb(d, BALLOON_CFG_NUM_PAGES + 2), ==, 0);
    for (unsigned i = 0; i < 4; i++) {
        balloon_writeb(d, BALLOON_CFG_ACTUAL + i, 0x00001234 >> (8 * i));
    }
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - 0x1234 * BALLOON_PAGE);
    /* A PCI register that the driver wrote in one access: bytes as before */
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x4321);
    g_assert_cmphex(balloon_readb(d, BALLOON_CFG_ACTUAL), ==, 0x21);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - 0x4321 * BALLOON_PAGE);
}

static uint32_t cmd_id(BalloonDriver *d)
{
    return balloon_readl(d, BALLOON_CFG_CMD_ID);
}

/* Send a command id, and then that there are no more hints */
static void send_id_and_stop(BalloonDriver *d, uint32_t id)
{
    balloon_send_id(d, id);
    balloon_send_id(d, VIRTIO_BALLOON_CMD_ID_STOP);
}

/* The command id is known in the right order, and in no other */
static void ids(BalloonDriver *d)
{
    g_autofree char *file = balloon_migration_file();
    uint32_t id;

    qtest_memset(d->qts, RAM / 2, 0x11, 16 * MiB);
    balloon_migrate_slowly(d->qts, file);
    id = balloon_wait_asked(d);
    send_id_and_stop(d, bswap32(id));
    g_assert_cmphex(cmd_id(d), ==, id);
    send_id_and_stop(d, id);
    g_assert_cmphex(cmd_id(d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_migrate_cancel(d->qts);
    unlink(file);
}

/* How the driver and the device speak, and what about */
typedef struct Case {
    const char *interface;
    void (*run)(BalloonDriver *d);
} Case;

static void run_case(const void *data)
{
    const Case *c = data;
    QOSState *machine = g_str_equal(qtest_get_arch(), "ppc64") ?
                        qtest_spapr_boot(OPTIONS, c->interface) :
                        qtest_pc_boot(OPTIONS, c->interface);
    BalloonDriver d;

    balloon_attach(&d, machine->qts, NULL, &machine->alloc);
    d.machine = machine;
    balloon_find(&d, SLOT);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    g_assert_cmpint(!(d.vdev->features & 1ull << VIRTIO_F_VERSION_1), ==,
                    g_str_equal(c->interface, LEGACY));
    c->run(&d);
    balloon_quit(&d);
}

static void add(const char *subject, void (*run)(BalloonDriver *d))
{
    for (int modern = 0; modern < 2; modern++) {
        g_autofree char *path = g_strconcat("/virtio-balloon/", subject,
                                            modern ? "/modern" : "/legacy",
                                            NULL);
        Case *c = g_new(Case, 1);

        *c = (Case) { modern ? MODERN : LEGACY, run };
        qtest_add_data_func_full(path, c, run_case, g_free);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    add("endian/pages", pages);
    add("endian/stats", stats);
    add("endian/config", config);
    add("improved/endian/ids", ids);
    return g_test_run();
}
