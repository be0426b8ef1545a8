/*
 * What memory a virtio balloon counts, and what it takes of memory devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qlist.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"

#define SLOTS "-m 128M,slots=4,maxmem=2G "
#define DEVICE_MEMORY "-object memory-backend-ram,id=m0,size=64M "

/* The guest-physical address of a memory device */
static uint64_t device_addr(QTestState *qts)
{
    g_autoptr(QDict) answer =
        qtest_qmp(qts, "{'execute': 'query-memory-devices'}");
    QDict *device = qobject_to(QDict, qlist_peek(
                                   qdict_get_qlist(answer, "return")));
    QDict *data = qdict_get_qdict(device, "data");

    return qdict_get_int(data,
                         qdict_haskey(data, "addr") ? "addr" : "memaddr");
}

static void assert_target(BalloonDriver *d, int64_t target, uint32_t pages)
{
    balloon_set_target(d->qts, target);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, pages);
}

/* Inflate the second of four pages at @addr; the others keep their bytes */
static void inflate_one(BalloonDriver *d, uint64_t addr, const char *map)
{
    qtest_memset(d->qts, addr, OLD, 4 * BALLOON_PAGE);
    balloon_send_range(d, INFLATE, addr + BALLOON_PAGE, 1);
    balloon_assert_pages(d, addr, map);
}

/*
 * No balloon is too large.  Here there are more pages than 32 bits can
 * say, and a driver that reaches such a target is believed.
 */
static void large_balloon(BalloonDriver *d)
{
    uint32_t pages;

    assert_target(d, 17 * TiB - 64 * MiB, 64 * MiB / BALLOON_PAGE);
    balloon_set_target(d->qts, 1 * MiB);
    pages = balloon_readl(d, BALLOON_CFG_NUM_PAGES);
    g_assert_cmphex(pages, >=, UINT32_MAX - UINT32_MAX / 256);
    balloon_writel(d, BALLOON_CFG_ACTUAL, pages);
    g_assert_cmpint(balloon_query(d->qts), ==,
                    17 * TiB - pages * (int64_t)BALLOON_PAGE);
}

/* DIMMs are in, from the start or plugged later */
static void dimm(BalloonDriver *d)
{
    uint64_t addr = device_addr(d->qts);

    g_assert_cmpint(balloon_query(d->qts), ==, 192 * MiB);
    assert_target(d, 64 * MiB, 0x8000);
    inflate_one(d, addr, "x0xx");
    inflate_one(d, addr + 64 * MiB - 4 * BALLOON_PAGE, "x0xx");
    qtest_qmp_assert_success(d->qts, "{'execute': 'object-add', 'arguments':"
                             " {'qom-type': 'memory-backend-ram', 'id': 'm1',"
                             " 'size': 134217728}}");
    qtest_qmp_device_add(d->qts, "pc-dimm", "dimm1", "{'memdev': 'm1'}");
    g_assert_cmpint(balloon_query(d->qts), ==, 320 * MiB);
    assert_target(d, 64 * MiB, 0x10000);
    inflate_one(d, addr + 128 * MiB, "x0xx");
}

/*
 * What is stored on a memory device is kept, while what virtio-mem gives the
 * guest is memory like any other
 */
static void device_pages(BalloonDriver *d)
{
    inflate_one(d, device_addr(d->qts), d->data);
}

static bool write_number(const char *folder, const char *name, int64_t value)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    FILE *file = fopen(path, "w");
    bool written = file && fprintf(file, "%" PRId64, value) > 0;

    return file && fclose(file) == 0 && written;
}

/* A new group of processes below @root, with @limit bytes; NULL if not */
static char *make_group(const char *root, const char *limit, int64_t bytes)
{
    g_autofree char *name = g_strdup_printf("virtio-balloon-%d", getpid());
    char *folder = g_build_filename(root, name, NULL);

    if (mkdir(folder, 0755) == 0) {
        if (write_number(folder, limit, bytes)) {
            return folder;
        }
        rmdir(folder);
    }
    g_free(folder);
    return NULL;
}

/*
 * A host that grants half of the guest's memory and kills who takes more: the
 * guest uses all of it, one part after another, and gives back what it used.
 */
static void pressure(BalloonDriver *d)
{
    /* QEMU needs some itself, AddressSanitizer 256 MiB for what was freed */
    const uint64_t part = 256 * MiB, limit = 4 * part;
    char *folder = make_group("/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                              limit) ?:
                   make_group("/sys/fs/cgroup", "memory.max", limit);

    if (!folder) {
        g_test_skip("no control group may be made");
        return;
    }
    balloon_boot_and_start(d);
    g_assert_true(write_number(folder, "cgroup.procs", qtest_pid(d->qts)));
    for (uint64_t at = 2 * part; at < 8 * part; at += part) {
        for (uint64_t i = at; i < at + part; i += MiB) {
            qtest_memset(d->qts, i, NEW, MiB);
        }
        for (uint64_t i = at; i < at + part; i += MiB) {
            balloon_inflate(d, i, MiB);
        }
    }
    balloon_quit(d);
    balloon_wait_for(rmdir(folder) == 0);
    g_free(folder);
}

/*
 * virtio 1.2, 5.5.6.2.1: a legacy driver's size counts when the top byte was
 * written.  One that is saved between two bytes goes on with the third.
 */
static void actual_half_saved(BalloonDriver *d)
{
    int64_t before = RAM - 0x3fff * BALLOON_PAGE;

    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x3fff);
    balloon_writew(d, BALLOON_CFG_ACTUAL, 0x1000);
    balloon_move(d);
    g_assert_cmpint(balloon_query(d->qts), ==, before);
    balloon_writeb(d, BALLOON_CFG_ACTUAL + 2, 0);
    g_assert_cmpint(balloon_query(d->qts), ==, before);
    balloon_writeb(d, BALLOON_CFG_ACTUAL + 3, 0);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - 0x1000 * BALLOON_PAGE);
}

static const BalloonTest tests[] = {
    { "improved/memory/large-balloon", large_balloon,
      .options = "-cpu max,phys-bits=46 -m 17T -machine memory-backend=ram "
                 "-object memory-backend-ram,id=ram,size=17T,reserve=off" },
    { "memory/dimm", dimm,
      .options = SLOTS DEVICE_MEMORY "-device pc-dimm,memdev=m0" },
    { "improved/memory/nvdimm-pages", device_pages, .data = "xxxx",
      .options = SLOTS "-machine pc,nvdimm=on " DEVICE_MEMORY
                 "-device nvdimm,id=nvdimm0,memdev=m0" },
    { "improved/memory/pmem-pages", device_pages, .data = "xxxx",
      .options = SLOTS DEVICE_MEMORY
                 "-device virtio-pmem-pci,memdev=m0,addr=5" },
    { "memory/virtio-mem-pages", device_pages, .data = "x0xx",
      .options = SLOTS DEVICE_MEMORY
                 "-device virtio-mem-pci,memdev=m0,addr=5,requested-size=32M" },
    { "improved/memory/actual-half-saved", actual_half_saved, PLAIN LEGACY },
    { "backing/pressure", pressure, .options = "-m 2G", .bare = true },
};

BALLOON_TESTS("", NULL, tests)
