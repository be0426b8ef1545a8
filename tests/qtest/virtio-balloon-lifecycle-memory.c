/*
 * What memory a virtio balloon counts, and what it takes from each backing
 *
 * Comments name the section of virtio 1.2 that they test.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-monitor.h"

#define RAM (128 * MiB)
#define RAM_OPTIONS "-m 128M,slots=4,maxmem=2G "
#define DIMM_OPTIONS                                                    \
    "-object memory-backend-ram,id=m0,size=64M -device pc-dimm,id=dimm0," \
    "memdev=m0 "
#define LEGACY "virtio-balloon-pci,disable-modern=on"

static void start(BalloonDriver *d, const char *device, const char *options)
{
    balloon_boot(d, device, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

/* The guest-physical address of a memory device */
static uint64_t device_addr(QTestState *qts)
{
    QDict *answer = qtest_qmp(qts, "{'execute': 'query-memory-devices'}");
    QDict *device = qobject_to(QDict, qlist_peek(
                                   qdict_get_qlist(answer, "return")));
    uint64_t addr = qdict_get_int(qdict_get_qdict(device, "data"),
                                  qdict_haskey(qdict_get_qdict(device, "data"),
                                               "addr") ? "addr" : "memaddr");

    qobject_unref(answer);
    return addr;
}

static void assert_target(BalloonDriver *d, int64_t target, uint32_t pages)
{
    balloon_set_target(d->qts, target);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, pages);
}

/* Inflate the second of four pages at @addr; the others keep their bytes */
static void inflate_one(BalloonDriver *d, uint64_t addr, uint8_t expected)
{
    qtest_memset(d->qts, addr, 0x5a, 4 * BALLOON_PAGE);
    balloon_send_range(d, BALLOON_VQ_INFLATE, addr + BALLOON_PAGE, 1);
    balloon_assert_bytes(d, addr, BALLOON_PAGE, 0x5a);
    balloon_assert_bytes(d, addr + BALLOON_PAGE, BALLOON_PAGE, expected);
    balloon_assert_bytes(d, addr + 2 * BALLOON_PAGE, 2 * BALLOON_PAGE, 0x5a);
}

/* No target is too large */
static void test_large_targets(void)
{
    BalloonDriver d;

    start(&d, NULL, RAM_OPTIONS);
    assert_target(&d, RAM - 1 * MiB, 256);
    assert_target(&d, 16 * TiB + 64 * MiB, 0);
    assert_target(&d, RAM - 2 * MiB, 512);
    assert_target(&d, INT64_MAX, 0);
    assert_target(&d, 1, RAM / BALLOON_PAGE - 1);
    balloon_quit(&d);
}

/*
 * Nor is a balloon.  Here there are more pages than 32 bits can
 * say, and a driver that reaches such a target is believed.
 */
static void test_large_balloon(void)
{
    BalloonDriver d;
    uint32_t pages;

    start(&d, NULL, "-cpu max,phys-bits=46 -m 17T -machine memory-backend=ram "
          "-object memory-backend-ram,id=ram,size=17T,reserve=off");
    assert_target(&d, 17 * TiB - 64 * MiB, 64 * MiB / BALLOON_PAGE);
    balloon_set_target(d.qts, 1 * MiB);
    pages = balloon_readl(&d, BALLOON_CFG_NUM_PAGES);
    g_assert_cmphex(pages, >=, UINT32_MAX - UINT32_MAX / 256);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, pages);
    g_assert_cmpint(balloon_query(d.qts), ==,
                    17 * TiB - pages * (int64_t)BALLOON_PAGE);
    balloon_quit(&d);
}

/* DIMMs are in, from the start or plugged later */
static void test_dimm(void)
{
    BalloonDriver d;
    uint64_t addr;

    start(&d, NULL, RAM_OPTIONS DIMM_OPTIONS);
    g_assert_cmpint(balloon_query(d.qts), ==, 192 * MiB);
    assert_target(&d, 64 * MiB, 0x8000);
    addr = device_addr(d.qts);
    inflate_one(&d, addr, 0);
    inflate_one(&d, addr + 64 * MiB - 4 * BALLOON_PAGE, 0);
    qtest_qmp_assert_success(d.qts, "{'execute': 'object-add', 'arguments':"
                             " {'qom-type': 'memory-backend-ram', 'id': 'm1',"
                             " 'size': 134217728}}");
    qtest_qmp_device_add(d.qts, "pc-dimm", "dimm1", "{'memdev': 'm1'}");
    g_assert_cmpint(balloon_query(d.qts), ==, 320 * MiB);
    assert_target(&d, 64 * MiB, 0x10000);
    inflate_one(&d, addr + 128 * MiB, 0);
    balloon_quit(&d);
}

#define NVDIMM_OPTIONS                                                  \
    "-machine pc,nvdimm=on " RAM_OPTIONS                                \
    "-object memory-backend-ram,id=m0,size=64M -device nvdimm,id=nvdimm0," \
    "memdev=m0"

/* NVDIMMs are out */
static void test_nvdimm_size(void)
{
    BalloonDriver d;

    start(&d, NULL, NVDIMM_OPTIONS);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM);
    assert_target(&d, 64 * MiB, 0x4000);
    balloon_quit(&d);
}

/* And what is on them is kept */
static void test_nvdimm_pages(void)
{
    BalloonDriver d;

    start(&d, NULL, NVDIMM_OPTIONS);
    inflate_one(&d, device_addr(d.qts), 0x5a);
    balloon_quit(&d);
}

/* A disk in the shape of memory is kept just the same */
static void test_pmem_pages(void)
{
    BalloonDriver d;

    start(&d, NULL, RAM_OPTIONS "-object memory-backend-ram,id=m0,size=64M "
          "-device virtio-pmem-pci,memdev=m0,addr=5");
    inflate_one(&d, device_addr(d.qts), 0x5a);
    balloon_quit(&d);
}

/* Memory of virtio-mem is counted by who asked for it */
static void test_virtio_mem(void)
{
    BalloonDriver d;

    start(&d, NULL, RAM_OPTIONS "-object memory-backend-ram,id=m0,size=256M "
          "-device virtio-mem-pci,memdev=m0,addr=5,requested-size=128M");
    g_assert_cmpint(balloon_query(d.qts), ==, RAM);
    assert_target(&d, 64 * MiB, 0x4000);
    balloon_quit(&d);
}

/* What it gives the guest is memory like any other */
static void test_virtio_mem_pages(void)
{
    BalloonDriver d;

    start(&d, NULL, RAM_OPTIONS "-object memory-backend-ram,id=m0,size=256M "
          "-device virtio-mem-pci,memdev=m0,addr=5,requested-size=128M");
    inflate_one(&d, device_addr(d.qts), 0);
    balloon_quit(&d);
}

/* A size is believed only up to the RAM there is */
static void test_actual_beyond(void)
{
    BalloonDriver d;

    start(&d, NULL, RAM_OPTIONS DIMM_OPTIONS);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0xc000);
    g_assert_cmpint(balloon_query(d.qts), ==, 0);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0xc001);
    g_assert_cmpint(balloon_query(d.qts), ==, 0);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0xfffffffe);
    g_assert_cmpint(balloon_query(d.qts), ==, 0);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0x4000);
    g_assert_cmpint(balloon_query(d.qts), ==, 128 * MiB);
    balloon_quit(&d);
}

/* Bytes, words and dwords, in the end they count */
static void test_actual_widths(const void *device)
{
    BalloonDriver d;

    start(&d, device, RAM_OPTIONS);
    for (unsigned i = 0; i < 4; i++) {
        balloon_writeb(&d, BALLOON_CFG_ACTUAL + i, 0x00001234 >> (8 * i));
    }
    g_assert_cmphex(balloon_readl(&d, BALLOON_CFG_ACTUAL), ==, 0x1234);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 0x1234 * BALLOON_PAGE);
    balloon_writew(&d, BALLOON_CFG_ACTUAL, 0x4321);
    balloon_writew(&d, BALLOON_CFG_ACTUAL + 2, 0);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 0x4321 * BALLOON_PAGE);
    balloon_writel(&d, BALLOON_CFG_ACTUAL, 0x11);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 0x11 * BALLOON_PAGE);
    balloon_quit(&d);
}

/* virtio 1.2, 5.5.6.2.1: legacy, it counts when the top byte was written */
static void test_actual_legacy(void)
{
    BalloonDriver d;
    int64_t before = RAM - 0x3fff * BALLOON_PAGE;

    start(&d, LEGACY, RAM_OPTIONS);
    for (unsigned round = 0; round < 2; round++) {
        balloon_writel(&d, BALLOON_CFG_ACTUAL, 0x3fff);
        g_assert_cmpint(balloon_query(d.qts), ==, before);
        if (round) {
            balloon_writew(&d, BALLOON_CFG_ACTUAL, 0x1000);
            g_assert_cmpint(balloon_query(d.qts), ==, before);
            balloon_writew(&d, BALLOON_CFG_ACTUAL + 2, 0);
        } else {
            for (unsigned i = 0; i < 4; i++) {
                g_assert_cmpint(balloon_query(d.qts), ==, before);
                balloon_writeb(&d, BALLOON_CFG_ACTUAL + i, i == 1 ? 0x10 : 0);
            }
        }
        g_assert_cmpint(balloon_query(d.qts), ==, RAM - 0x1000 * BALLOON_PAGE);
    }
    balloon_quit(&d);
}

/* A legacy driver that is saved between two bytes goes on with the third */
static void test_actual_half_saved(void)
{
    g_autofree char *file = balloon_migration_file();
    int64_t before = RAM - 0x3fff * BALLOON_PAGE;
    BalloonDriver d, source;

    start(&source, LEGACY, RAM_OPTIONS);
    balloon_writel(&source, BALLOON_CFG_ACTUAL, 0x3fff);
    balloon_writew(&source, BALLOON_CFG_ACTUAL, 0x1000);
    balloon_migrate(source.qts, file);
    balloon_load(&d, &source, LEGACY, RAM_OPTIONS, file);
    unlink(file);
    balloon_quit(&source);
    g_assert_cmpint(balloon_query(d.qts), ==, before);
    balloon_writeb(&d, BALLOON_CFG_ACTUAL + 2, 0);
    g_assert_cmpint(balloon_query(d.qts), ==, before);
    balloon_writeb(&d, BALLOON_CFG_ACTUAL + 3, 0);
    g_assert_cmpint(balloon_query(d.qts), ==, RAM - 0x1000 * BALLOON_PAGE);
    balloon_quit(&d);
}

void balloon_add_memory_tests(void)
{
    qtest_add_func("/virtio-balloon/memory/large-targets",
                   test_large_targets);
    qtest_add_func("/virtio-balloon/improved/memory/large-balloon",
                   test_large_balloon);
    qtest_add_func("/virtio-balloon/memory/dimm", test_dimm);
    qtest_add_func("/virtio-balloon/memory/nvdimm-size", test_nvdimm_size);
    qtest_add_func("/virtio-balloon/improved/memory/nvdimm-pages",
                   test_nvdimm_pages);
    qtest_add_func("/virtio-balloon/improved/memory/pmem-pages",
                   test_pmem_pages);
    qtest_add_func("/virtio-balloon/memory/virtio-mem", test_virtio_mem);
    qtest_add_func("/virtio-balloon/memory/virtio-mem-pages",
                   test_virtio_mem_pages);
    qtest_add_func("/virtio-balloon/improved/memory/actual-beyond",
                   test_actual_beyond);
    qtest_add_data_func("/virtio-balloon/memory/actual-widths",
                        "virtio-balloon-pci", test_actual_widths);
    qtest_add_data_func("/virtio-balloon/memory/actual-widths-legacy", LEGACY,
                        test_actual_widths);
    qtest_add_func("/virtio-balloon/improved/memory/actual-legacy",
                   test_actual_legacy);
    qtest_add_func("/virtio-balloon/improved/memory/actual-half-saved",
                   test_actual_half_saved);
}
