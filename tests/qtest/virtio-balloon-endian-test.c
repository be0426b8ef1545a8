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
#include "standard-headers/linux/virtio_config.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"

/* What a pseries machine has at least */
#define SIZE (256 * MiB)
#define OPTIONS "-m 256 " IOTHREAD

#define MODERN ",disable-modern=off"
#define LEGACY_ONLY LEGACY ",disable-legacy=off"

static bool big_endian(BalloonDriver *d)
{
    bool legacy = !(d->vdev->features & 1ull << VIRTIO_F_VERSION_1);

    g_assert(legacy == !!strstr(d->device, LEGACY_ONLY));
    return legacy && qtest_big_endian(d->qts);
}

/* The page of a number in the right order goes, that in the other one stays */
static void pages(BalloonDriver *d)
{
    static const uint8_t little[] = { 0x34, 0x12, 0x00, 0x00 };
    static const uint8_t big[] = { 0x00, 0x00, 0x12, 0x34 };
    uint64_t page = 0x1234 * (uint64_t)BALLOON_PAGE;
    uint64_t list;

    qtest_memset(d->qts, page, OLD, BALLOON_PAGE);
    list = balloon_copy(d, big_endian(d) ? little : big, sizeof(big));
    balloon_send_one(d, INFLATE, list, sizeof(big), false);
    balloon_assert_bytes(d, page, BALLOON_PAGE, OLD);
    list = balloon_copy(d, big_endian(d) ? big : little, sizeof(big));
    balloon_send_one(d, INFLATE, list, sizeof(big), false);
    balloon_assert_bytes(d, page, BALLOON_PAGE, 0);
}

/* Tag and value of an entry */
static void stats(BalloonDriver *d)
{
    static const uint8_t little[] = { 4, 0, 8, 7, 6, 5, 4, 3, 2, 1 };
    static const uint8_t big[] = { 0, 4, 1, 2, 3, 4, 5, 6, 7, 8 };
    uint64_t entry;

    entry = balloon_copy(d, big_endian(d) ? big : little, sizeof(big));
    balloon_post(d, STATS, &(BalloonSeg) { entry, sizeof(big) }, 1);
    balloon_wait_for(balloon_stat(d->qts, "free-memory") ==
                     0x0102030405060708ull);
}

/* Bytes of config, in both directions */
static void config(BalloonDriver *d)
{
    balloon_set_target(d->qts, SIZE - 0x1234 * BALLOON_PAGE);
    g_assert_cmphex(balloon_readb(d, BALLOON_CFG_NUM_PAGES), ==, 0x34);
    g_assert_cmphex(balloon_readb(d, BALLOON_CFG_NUM_PAGES + 1), ==, 0x12);
    g_assert_cmphex(balloon_readb(d, BALLOON_CFG_NUM_PAGES + 2), ==, 0);
    for (unsigned i = 0; i < 4; i++) {
        balloon_writeb(d, BALLOON_CFG_ACTUAL + i, 0x00001234 >> (8 * i));
    }
    g_assert_cmpint(balloon_query(d->qts), ==, SIZE - 0x1234 * BALLOON_PAGE);
    /* A PCI register that the driver wrote in one access: bytes as before */
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x4321);
    g_assert_cmphex(balloon_readb(d, BALLOON_CFG_ACTUAL), ==, 0x21);
    g_assert_cmpint(balloon_query(d->qts), ==, SIZE - 0x4321 * BALLOON_PAGE);
}

/* The command id is known in the right order, and in no other */
static void ids(BalloonDriver *d)
{
    uint32_t id;

    balloon_migrate_slowly(d->qts);
    id = balloon_wait_asked(d);
    /* An id, and then that there are no more hints */
    balloon_send_id(d, bswap32(id));
    balloon_send_id(d, VIRTIO_BALLOON_CMD_ID_STOP);
    g_assert_cmphex(balloon_cmd_id(d), ==, id);
    balloon_send_id(d, id);
    balloon_send_id(d, VIRTIO_BALLOON_CMD_ID_STOP);
    g_assert_cmphex(balloon_cmd_id(d), ==, VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_migrate_cancel(d->qts);
}

static const BalloonTest tests[] = {
    { "endian/pages/legacy", pages, HINTING LEGACY_ONLY, OPTIONS },
    { "endian/pages/modern", pages, HINTING MODERN, OPTIONS },
    { "endian/stats/legacy", stats, HINTING LEGACY_ONLY, OPTIONS },
    { "endian/stats/modern", stats, HINTING MODERN, OPTIONS },
    { "endian/config/legacy", config, HINTING LEGACY_ONLY, OPTIONS },
    { "endian/config/modern", config, HINTING MODERN, OPTIONS },
    { "improved/endian/ids/legacy", ids, HINTING LEGACY_ONLY, OPTIONS },
    { "improved/endian/ids/modern", ids, HINTING MODERN, OPTIONS },
};

BALLOON_TESTS("", NULL, tests)
