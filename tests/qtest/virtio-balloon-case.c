/*
 * Test cases of a virtio balloon: what they begin with, and what they share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_config.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-hugepages.h"

/* Where balloon_boot() puts it, and where a PC lets a slot go */
#define SLOT 4
#define ACPI_EJECT 0xae08

static const BalloonCase *running;

const BalloonCase *balloon_case(void)
{
    return running;
}

static const char *case_device(void)
{
    return running->device ? running->device : PLAIN;
}

static const char *case_options(void)
{
    return running->options ? running->options : MEMORY;
}

/* Has the pool of huge pages these to spare, though it does not grow? */
static bool has_huge_pages(unsigned n)
{
    g_autofree char *meminfo = NULL;
    const char *at;

    g_assert_true(g_file_get_contents("/proc/meminfo", &meminfo, NULL, NULL));
    at = strstr(meminfo, "HugePages_Free:");
    return at && strstr(meminfo, "Hugepagesize:       2048 kB") &&
           atol(at + strlen("HugePages_Free:")) >= n;
}

static void run(const void *data)
{
    g_autofree char *options = NULL;
    const char *assigned = NULL;
    BalloonDriver d;

    running = data;
    if (running->huge_pages &&
        !balloon_hugepages_take(running->huge_pages) &&
        !has_huge_pages(running->huge_pages)) {
        g_test_skip("the host has no huge pages to spare");
        return;
    }
    if (running->host) {
        balloon_vfio_begin();
    }
    if (running->host == HOST_ASSIGNS_VFIO) {
        assigned = balloon_vfio_option();
    }
    options = g_strconcat(case_options(), assigned, NULL);
    balloon_boot(&d, case_device(), options);
    if (!running->no_driver) {
        balloon_start(&d, BALLOON_ALL_FEATURES);
    }
    qtest_memset(d.qts, AREA, OLD, AREA_SIZE);
    running->test(&d);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
    if (running->host) {
        balloon_vfio_end();
    }
    balloon_hugepages_restore();
}

void balloon_add_cases(const char *prefix, const BalloonCase *cases,
                       unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *path = g_strconcat(prefix, cases[i].path, NULL);

        qtest_add_data_func(path, &cases[i], run);
    }
}

int64_t balloon_case_move(BalloonDriver *d)
{
    return balloon_move(d, case_device(), case_options());
}

void balloon_boot_and_start(BalloonDriver *d, const char *device,
                            const char *options)
{
    balloon_boot(d, device, options);
    balloon_start(d, BALLOON_ALL_FEATURES);
    qtest_memset(d->qts, AREA, OLD, AREA_SIZE);
}

void balloon_start_poison(BalloonDriver *d, uint32_t poison)
{
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_writel(d, BALLOON_CFG_POISON, poison);
    balloon_setup_queues(d);
    qvirtio_set_driver_ok(d->vdev);
}

void balloon_clear_driver_ok(BalloonDriver *d)
{
    d->vdev->bus->set_status(d->vdev, balloon_status(d) &
                                      ~VIRTIO_CONFIG_S_DRIVER_OK);
}

void balloon_drop_tell(BalloonDriver *d)
{
    d->vdev->bus->set_features(d->vdev, d->vdev->features &
                               ~(1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST));
}

void balloon_eject(BalloonDriver *d)
{
    qtest_outl(d->qts, ACPI_EJECT, 1 << SLOT);
    qtest_qmp_eventwait(d->qts, "DEVICE_DELETED");
    balloon_lose(d);
}

void balloon_give(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    for (uint64_t at = 0; at < size; at += MiB) {
        balloon_inflate(d, addr + at, MIN(MiB, size - at));
    }
    balloon_wait_discarded(d->qts);
}

void balloon_use(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    qtest_memset(d->qts, addr, NEW, size);
    balloon_assert_stays(d, addr, size, NEW);
}

void balloon_wait_gone(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    balloon_wait_for(balloon_has_bytes(d, addr, size, 0));
}

bool balloon_info_has(BalloonDriver *d, const char *name)
{
    QDict *info = balloon_info(d->qts);
    bool has = qdict_haskey(info, name);

    qobject_unref(info);
    return has;
}

bool balloon_try_capability(QTestState *qts, const char *name)
{
    QDict *response = qtest_qmp(
        qts, "{'execute': 'migrate-set-capabilities', 'arguments':"
        " {'capabilities': [{'capability': %s, 'state': true}]}}", name);
    bool can = qdict_haskey(response, "return");

    qobject_unref(response);
    if (!can) {
        g_test_skip("the host has no userfaultfd for this");
    }
    return can;
}
