/*
 * Migration of a virtio balloon through a file, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "virtio-balloon-migrate.h"

#define SLOT 4

char *balloon_migration_file(void)
{
    g_autofree char *name = g_strdup_printf("balloon-%d", getpid());

    return g_build_filename(g_get_tmp_dir(), name, NULL);
}

static void set_bandwidth(QTestState *qts, int64_t bytes_per_second)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters',"
                             " 'arguments': {'max-bandwidth': %" PRId64 "}}",
                             bytes_per_second);
}

static void migrate_start(QTestState *qts, const char *file)
{
    g_autofree char *uri = g_strconcat("file:", file, NULL);

    qtest_qmp_assert_success(qts, "{'execute': 'migrate',"
                             " 'arguments': {'uri': %s}}", uri);
}

static bool migration_is(QTestState *qts, const char *status)
{
    QDict *info = qtest_qmp_assert_success_ref(qts,
                                               "{'execute': 'query-migrate'}");
    const char *now = qdict_get_try_str(info, "status");
    bool is = g_strcmp0(now, status) == 0;

    g_assert_cmpstr(now, !=, "failed");
    qobject_unref(info);
    return is;
}

void balloon_migrate_slowly(QTestState *qts, const char *file)
{
    set_bandwidth(qts, 64 * KiB);
    migrate_start(qts, file);
    balloon_wait_for(migration_is(qts, "active"));
}

void balloon_migrate_finish(QTestState *qts)
{
    set_bandwidth(qts, INT64_C(1) << 40);
    balloon_wait_for(migration_is(qts, "completed"));
}

void balloon_migrate_cancel(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate_cancel'}");
    balloon_wait_for(migration_is(qts, "cancelled"));
}

void balloon_migrate(QTestState *qts, const char *file)
{
    migrate_start(qts, file);
    balloon_migrate_finish(qts);
}

/* The PCI device as @source left it: nothing of it is reset or set up */
static void adopt(BalloonDriver *d, BalloonDriver *source)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(SLOT, 0) };

    migrate_allocator(source->alloc, d->alloc);
    d->pci = virtio_pci_new(d->machine->pcibus, &addr);
    g_assert_nonnull(d->pci);
    d->pci->bar = source->pci->bar;
    d->vdev = &d->pci->vdev;
    d->vdev->features = source->vdev->features;
    d->vdev->features_negotiated = true;
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        d->vq[i] = g_steal_pointer(&source->vq[i]);
        if (d->vq[i]) {
            d->vq[i]->vdev = d->vdev;
        }
    }
}

void balloon_load(BalloonDriver *d, BalloonDriver *source, const char *device,
                  const char *options, const char *file)
{
    g_autofree char *uri = g_strconcat("file:", file, NULL);
    QOSState *machine = qtest_pc_boot("%s -device %s,id=balloon0,addr=%d"
                                      " -incoming defer",
                                      options, device, SLOT);

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
    qtest_qmp_assert_success(d->qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
    balloon_wait_for(migration_is(d->qts, "completed"));
    adopt(d, source);
}
