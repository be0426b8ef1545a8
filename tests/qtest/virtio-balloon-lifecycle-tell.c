/*
 * The life of a virtio balloon whose driver must tell before it uses a page:
 * device and memory go, memory is not migrated, a saved state is damaged
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqos/pci-pc.h"
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-plug.h"

#define DEVICE "virtio-balloon-pci,must-tell-host=on"
#define AREA (64 * MiB)
#define SIZE (2 * MiB)
#define OLD 0xa5
#define NEW 0x33

static void start(BalloonDriver *d, const char *options)
{
    balloon_boot(d, DEVICE, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
}

/* Give half of some memory up: discards are late, and the last is later */
static void give_half(BalloonDriver *d, uint64_t addr)
{
    qtest_memset(d->qts, addr, OLD, SIZE);
    balloon_send_range(d, BALLOON_VQ_INFLATE, addr, SIZE / 2 / BALLOON_PAGE);
}

/* The device goes while discards wait: the memory is the guest's */
static void test_unplug(void)
{
    BalloonDriver d;

    start(&d, "-m 256");
    give_half(&d, AREA);
    balloon_lose(&d);
    qpci_unplug_acpi_device_test(d.qts, "balloon0", 4);
    qtest_memset(d.qts, AREA, NEW, SIZE);
    balloon_assert_stays(&d, AREA, SIZE, NEW);
    qtest_qmp_device_add(d.qts, "virtio-balloon-pci", "balloon0",
                         "{'addr': '4', 'must-tell-host': true}");
    balloon_find(&d, 4);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    give_half(&d, AREA + SIZE);
    balloon_wait_for(qtest_readb(d.qts, AREA + SIZE) == 0);
    balloon_assert_bytes(&d, AREA, SIZE, NEW);
    balloon_quit(&d);
}

/* Memory goes with pages in the balloon; those of its successor are others */
static void test_dimm(void)
{
    BalloonDriver d;

    start(&d, "-m 256,slots=2,maxmem=1G");
    for (int i = 0; i < 3; i++) {
        balloon_add_dimm_memory(d.qts);
        balloon_plug_dimm(d.qts);
        qtest_memset(d.qts, BALLOON_DIMM, NEW, SIZE);
        if (i) {
            balloon_assert_stays(&d, BALLOON_DIMM, SIZE, NEW);
        }
        give_half(&d, BALLOON_DIMM);
        balloon_unplug_dimm(d.qts);
        balloon_remove_dimm_memory(d.qts);
    }
    give_half(&d, AREA);
    balloon_wait_for(qtest_readb(d.qts, AREA) == 0);
    balloon_quit(&d);
}

/* Memory that migration leaves out has no pages for it to skip */
static void test_ignored_memory(void)
{
    g_autofree char *ram = g_strdup_printf("%s/virtio-balloon-%d-ram",
                                           g_get_tmp_dir(), getpid());
    g_autofree char *file = balloon_migration_file();
    g_autofree char *options = g_strdup_printf(
        "-m 256 -machine pc,memory-backend=ram -object memory-backend-file,"
        "id=ram,size=256M,share=on,mem-path=%s", ram);
    BalloonDriver d;

    start(&d, options);
    give_half(&d, AREA);
    balloon_set_capability(d.qts, "x-ignore-shared", true);
    balloon_migrate(d.qts, file);
    balloon_assert_bytes(&d, AREA + SIZE / 2, SIZE / 2, OLD);
    balloon_quit(&d);
    unlink(file);
    unlink(ram);
}

/* Have the saved balloon name memory that nobody has */
static void damage(const char *file)
{
    static const char section[] = "virtio-balloon-device/must-tell-host";
    g_autofree char *data = NULL;
    char *at;
    gsize size;

    g_assert_true(g_file_get_contents(file, &data, &size, NULL));
    at = memmem(data, size, section, sizeof(section) - 1);
    g_assert_nonnull(at);
    at = memmem(at, data + size - at, "pc.ram", 6);
    g_assert_nonnull(at);
    memcpy(at, "no.ram", 6);
    g_assert_true(g_file_set_contents(file, data, size, NULL));
}

/* A saved state that does not fit is refused */
static void test_damaged(void)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *uri = g_strconcat("file:", file, NULL);
    BalloonDriver d, target;

    start(&d, "-m 256");
    give_half(&d, AREA);
    balloon_migrate(d.qts, file);
    balloon_quit(&d);
    damage(file);
    balloon_boot(&target, DEVICE, "-m 256 -incoming defer 2> /dev/null");
    qtest_qmp_assert_success(target.qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s,"
                             " 'exit-on-error': false}}", uri);
    balloon_wait_for(balloon_migration_is(target.qts, "failed"));
    balloon_lose(&target);
    balloon_quit(&target);
    unlink(file);
}

void balloon_add_tell_tests(void)
{
    qtest_add_func("/virtio-balloon/improved/tell/unplug", test_unplug);
    qtest_add_func("/virtio-balloon/improved/tell/dimm", test_dimm);
    qtest_add_func("/virtio-balloon/improved/tell/ignored-memory",
                   test_ignored_memory);
    qtest_add_func("/virtio-balloon/improved/tell/damaged", test_damaged);
}
