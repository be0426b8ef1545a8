/*
 * Migration and snapshots of a virtio balloon, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "virtio-balloon-migrate.h"

#define SLOT 4

char *balloon_migration_file(void)
{
    g_autofree char *name = g_strdup_printf("balloon-%d", getpid());

    return g_build_filename(g_get_tmp_dir(), name, NULL);
}

void balloon_set_bandwidth(QTestState *qts, int64_t bytes_per_second)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters',"
                             " 'arguments': {'max-bandwidth': %" PRId64 "}}",
                             bytes_per_second);
}

/*
 * The VM is stopped when what is left takes a millisecond at 1000 bytes per
 * millisecond: less than a page, that is, nothing.
 */
static void set_no_downtime(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters',"
                             " 'arguments': {'downtime-limit': 1,"
                             " 'avail-switchover-bandwidth': 1000000}}");
}

void balloon_migrate_to(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate',"
                             " 'arguments': {'uri': %s}}", uri);
}

void balloon_migrate_incoming(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
}

static void migrate_start(QTestState *qts, const char *file)
{
    g_autofree char *uri = g_strconcat("file:", file, NULL);

    balloon_migrate_to(qts, uri);
}

void balloon_set_capability(QTestState *qts, const char *name, bool on)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-capabilities',"
                             " 'arguments': {'capabilities': [{'capability':"
                             " %s, 'state': %i}]}}", name, on);
}

/* NULL if there was none; the caller frees it */
static char *migration_status(QTestState *qts)
{
    QDict *info = qtest_qmp_assert_success_ref(qts,
                                               "{'execute': 'query-migrate'}");
    char *status = g_strdup(qdict_get_try_str(info, "status"));

    qobject_unref(info);
    return status;
}

bool balloon_migration_is(QTestState *qts, const char *status)
{
    g_autofree char *now = migration_status(qts);

    if (g_strcmp0(status, "failed")) {
        g_assert_cmpstr(now, !=, "failed");
    }
    return g_strcmp0(now, status) == 0;
}

void balloon_migrate_slowly(QTestState *qts, const char *file)
{
    balloon_set_bandwidth(qts, 64 * KiB);
    migrate_start(qts, file);
    balloon_wait_for(balloon_migration_is(qts, "active"));
}

void balloon_migrate_finish(QTestState *qts)
{
    balloon_set_bandwidth(qts, INT64_C(1) << 40);
    balloon_wait_for(balloon_migration_is(qts, "completed"));
}

void balloon_migrate_cancel(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate_cancel'}");
    balloon_wait_for(balloon_migration_is(qts, "cancelled"));
}

void balloon_migrate(QTestState *qts, const char *file)
{
    migrate_start(qts, file);
    balloon_migrate_finish(qts);
}

/* Has it measured its speed, which it does every 100 ms? */
static bool migration_is_measured(QTestState *qts)
{
    QDict *info = qtest_qmp_assert_success_ref(qts,
                                               "{'execute': 'query-migrate'}");
    QDict *ram = qdict_get_qdict(info, "ram");
    bool is = ram && qnum_get_double(qobject_to(QNum, qdict_get(ram, "mbps")));

    qobject_unref(info);
    return is;
}

int balloon_migrate_begin(QTestState *qts)
{
    g_autofree char *file = balloon_migration_file();
    g_autofree char *path = g_strconcat(file, "-socket", NULL);
    g_autofree char *uri = g_strconcat("unix:", path, NULL);
    int listener = qtest_socket_server(path);
    int stream;

    balloon_set_bandwidth(qts, 64 * KiB);
    set_no_downtime(qts);
    balloon_migrate_to(qts, uri);
    stream = accept(listener, NULL, NULL);
    g_assert_cmpint(stream, >=, 0);
    close(listener);
    unlink(path);
    /* Before that, it takes what it has not looked for for nothing */
    balloon_wait_for(migration_is_measured(qts));
    balloon_set_bandwidth(qts, INT64_C(1) << 40);
    return stream;
}

void balloon_migrate_pass(int stream, const char *file, size_t size)
{
    char data[16 * KiB];
    int fd = open(file, O_WRONLY | O_CREAT | O_APPEND, 0600);
    ssize_t n = 1;

    g_assert_cmpint(fd, >=, 0);
    while (size && n) {
        n = read(stream, data, MIN(size, sizeof(data)));
        g_assert_cmpint(n, >=, 0);
        g_assert_cmpint(write(fd, data, n), ==, n);
        size -= n;
    }
    close(fd);
}

void balloon_migrate_end(QTestState *qts, int stream, const char *file)
{
    balloon_migrate_pass(stream, file, SIZE_MAX);
    close(stream);
    balloon_wait_for(balloon_migration_is(qts, "completed"));
}

int64_t balloon_migration_skipped(QTestState *qts)
{
    QDict *info = qtest_qmp_assert_success_ref(qts,
                                               "{'execute': 'query-migrate'}");
    QDict *ram = qdict_get_qdict(info, "ram");
    int64_t seen = qdict_get_int(ram, "duplicate") +
                   qdict_get_int(ram, "normal");
    int64_t skipped = qdict_get_int(ram, "total") - seen * BALLOON_PAGE;

    qobject_unref(info);
    return skipped;
}

void balloon_adopt(BalloonDriver *d, BalloonDriver *source)
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

void balloon_boot_incoming(BalloonDriver *d, const char *device,
                           const char *options)
{
    QOSState *machine = qtest_pc_boot("%s -device %s,id=balloon0,addr=%d"
                                      " -incoming defer",
                                      options, device, SLOT);

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
}

bool balloon_try_load(QTestState *qts, const char *file)
{
    g_autofree char *uri = g_strconcat("file:", file, NULL);
    bool failed = false;
    bool completed = false;

    qtest_qmp_assert_success(qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s,"
                             " 'exit-on-error': false}}", uri);
    while (!failed && !completed) {
        g_autofree char *status = migration_status(qts);

        failed = !g_strcmp0(status, "failed");
        completed = !g_strcmp0(status, "completed");
    }
    return completed;
}

void balloon_load(BalloonDriver *d, BalloonDriver *source, const char *device,
                  const char *options, const char *file)
{
    g_autofree char *uri = g_strconcat("file:", file, NULL);

    balloon_boot_incoming(d, device, options);
    balloon_migrate_incoming(d->qts, uri);
    balloon_wait_for(balloon_migration_is(d->qts, "completed"));
    balloon_adopt(d, source);
}

int64_t balloon_move(BalloonDriver *d, const char *device, const char *options)
{
    g_autofree char *file = balloon_migration_file();
    BalloonDriver source = *d;
    int64_t skipped;

    balloon_migrate(source.qts, file);
    skipped = balloon_migration_skipped(source.qts);
    balloon_load(d, &source, device, options, file);
    unlink(file);
    balloon_quit(&source);
    balloon_cont(d);
    return skipped;
}

/* Returns: whether the job came to a good end */
static bool G_GNUC_PRINTF(2, 3) run_job(QTestState *qts, const char *command,
                                        ...)
{
    va_list ap;
    bool aborted = false;
    bool concluded = false;

    va_start(ap, command);
    qtest_vqmp_assert_success(qts, command, ap);
    va_end(ap);
    while (!concluded) {
        QDict *event = qtest_qmp_eventwait_ref(qts, "JOB_STATUS_CHANGE");
        const char *status = qdict_get_str(qdict_get_qdict(event, "data"),
                                           "status");

        aborted |= g_str_equal(status, "aborting");
        concluded = g_str_equal(status, "concluded");
        qobject_unref(event);
    }
    qtest_qmp_assert_success(qts, "{'execute': 'job-dismiss',"
                             " 'arguments': {'id': 'j'}}");
    return !aborted;
}

void balloon_add_disk(QTestState *qts, const char *path)
{
    g_assert_true(run_job(
        qts, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j',"
        " 'options': {'driver': 'file', 'filename': %s, 'size': 0}}}", path));
    qtest_qmp_assert_success(
        qts, "{'execute': 'blockdev-add', 'arguments': {'driver': 'file',"
        " 'node-name': 'file', 'filename': %s,"
        " 'cache': {'no-flush': true}}}", path);
    g_assert_true(run_job(
        qts, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j',"
        " 'options': {'driver': 'qcow2', 'file': 'file',"
        " 'size': 1048576}}}"));
    qtest_qmp_assert_success(
        qts, "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2',"
        " 'node-name': 'disk', 'file': 'file',"
        " 'cache': {'no-flush': true}}}");
}

bool balloon_try_snapshot(QTestState *qts, const char *command,
                          const char *tag)
{
    return run_job(qts, "{'execute': %s, 'arguments': {'job-id': 'j',"
                   " 'tag': %s, 'vmstate': 'disk', 'devices': ['disk']}}",
                   command, tag);
}

void balloon_snapshot(QTestState *qts, const char *command, const char *tag)
{
    g_assert_true(balloon_try_snapshot(qts, command, tag));
}
