/*
 * Migration and snapshots of a virtio balloon, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-migrate.h"

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

/* Where the guest is saved, and where that comes from */
static char *file_uri(void)
{
    return g_strconcat("file:", balloon_saved(), NULL);
}

const char *balloon_saved(void)
{
    return balloon_file("saved");
}

void balloon_patch_saved(const char *mark, size_t after, const void *bytes,
                         size_t size)
{
    g_autofree char *data = NULL;
    gsize length;
    char *at;

    g_assert_true(g_file_get_contents(balloon_saved(), &data, &length, NULL));
    at = memmem(data, length, mark, strlen(mark));
    g_assert_nonnull(at);
    memcpy(at + strlen(mark) + after, bytes, size);
    g_assert_true(g_file_set_contents(balloon_saved(), data, length, NULL));
}

void balloon_migrate_start(QTestState *qts)
{
    g_autofree char *uri = file_uri();

    unlink(balloon_saved());
    balloon_migrate_to(qts, uri);
}

bool balloon_try_capability(QTestState *qts, const char *name)
{
    g_autoptr(QDict) response = qtest_qmp(
        qts, "{'execute': 'migrate-set-capabilities', 'arguments':"
        " {'capabilities': [{'capability': %s, 'state': true}]}}", name);
    bool can = qdict_haskey(response, "return");

    if (!can) {
        g_test_skip("the host has no userfaultfd for this");
    }
    return can;
}

void balloon_set_capability(QTestState *qts, const char *name, bool on)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-capabilities',"
                             " 'arguments': {'capabilities': [{'capability':"
                             " %s, 'state': %i}]}}", name, on);
}

QDict *balloon_migration_info(QTestState *qts)
{
    return qtest_qmp_assert_success_ref(qts, "{'execute': 'query-migrate'}");
}

/* NULL if there was none; the caller frees it */
static char *migration_status(QTestState *qts)
{
    g_autoptr(QDict) info = balloon_migration_info(qts);

    return g_strdup(qdict_get_try_str(info, "status"));
}

bool balloon_migration_is(QTestState *qts, const char *status)
{
    g_autofree char *now = migration_status(qts);

    if (g_strcmp0(status, "failed")) {
        g_assert_cmpstr(now, !=, "failed");
    }
    return g_strcmp0(now, status) == 0;
}

void balloon_migrate_slowly(QTestState *qts)
{
    balloon_set_bandwidth(qts, 64 * KiB);
    balloon_migrate_start(qts);
    balloon_wait_for(balloon_migration_is(qts, "active"));
}

void balloon_migrate_finish(QTestState *qts)
{
    balloon_set_bandwidth(qts, INT64_C(1) << 40);
    balloon_wait_for(balloon_migration_is(qts, "completed"));
}

void balloon_migrate_continue(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-continue',"
                             " 'arguments': {'state': 'pre-switchover'}}");
}

void balloon_migrate_cancel(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate_cancel'}");
    balloon_wait_for(balloon_migration_is(qts, "cancelled"));
}

void balloon_migrate(QTestState *qts)
{
    balloon_migrate_start(qts);
    balloon_migrate_finish(qts);
}

/* Has it measured its speed, which it does every 100 ms? */
static bool migration_is_measured(QTestState *qts)
{
    g_autoptr(QDict) info = balloon_migration_info(qts);
    QDict *ram = qdict_get_qdict(info, "ram");

    return ram && qnum_get_double(qobject_to(QNum, qdict_get(ram, "mbps")));
}

int balloon_migrate_connect(QTestState *qts)
{
    const char *path = balloon_file("socket");
    g_autofree char *uri = g_strconcat("unix:", path, NULL);
    int listener = qtest_socket_server(path);
    int stream;

    balloon_migrate_to(qts, uri);
    stream = accept(listener, NULL, NULL);
    g_assert_cmpint(stream, >=, 0);
    close(listener);
    unlink(path);
    return stream;
}

int balloon_migrate_begin(QTestState *qts)
{
    int stream;

    unlink(balloon_saved());
    balloon_set_bandwidth(qts, 64 * KiB);
    set_no_downtime(qts);
    stream = balloon_migrate_connect(qts);
    /* Before that, it takes what it has not looked for for nothing */
    balloon_wait_for(migration_is_measured(qts));
    balloon_set_bandwidth(qts, INT64_C(1) << 40);
    return stream;
}

void balloon_migrate_pass(int stream, size_t size)
{
    char data[16 * KiB];
    int fd = open(balloon_saved(), O_WRONLY | O_CREAT | O_APPEND, 0600);
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

void balloon_migrate_end(QTestState *qts, int stream)
{
    balloon_migrate_pass(stream, SIZE_MAX);
    close(stream);
    balloon_wait_for(balloon_migration_is(qts, "completed"));
}

int64_t balloon_migration_skipped(QTestState *qts)
{
    g_autoptr(QDict) info = balloon_migration_info(qts);
    QDict *ram = qdict_get_qdict(info, "ram");
    int64_t seen = qdict_get_int(ram, "duplicate") +
                   qdict_get_int(ram, "normal");

    return qdict_get_int(ram, "total") - seen * BALLOON_PAGE;
}

void balloon_adopt(BalloonDriver *d, BalloonDriver *source)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(BALLOON_SLOT, 0) };

    balloon_lose(d);
    migrate_allocator(source->alloc, d->alloc);
    d->data = source->data;
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

bool balloon_try_load(QTestState *qts)
{
    g_autofree char *uri = file_uri();
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

void balloon_load(BalloonDriver *d, BalloonDriver *source, const char *options)
{
    balloon_boot_incoming(d, source->device, options ?: source->options);
    g_assert_true(balloon_try_load(d->qts));
    balloon_adopt(d, source);
}

void balloon_arrive(BalloonDriver *d, const char *options)
{
    BalloonDriver source = *d;

    balloon_load(d, &source, options);
    balloon_quit(&source);
}

int64_t balloon_move(BalloonDriver *d)
{
    int64_t skipped;

    balloon_migrate(d->qts);
    skipped = balloon_migration_skipped(d->qts);
    balloon_arrive(d, NULL);
    balloon_cont(d);
    return skipped;
}

bool balloon_begin_postcopy(BalloonDriver *d, BalloonDriver *target)
{
    g_autofree char *uri = g_strconcat("unix:", balloon_file("socket"), NULL);

    balloon_boot_incoming(target, d->device, d->options);
    if (!balloon_try_capability(target->qts, "postcopy-ram")) {
        balloon_quit(target);
        return false;
    }
    balloon_set_capability(d->qts, "postcopy-ram", true);
    balloon_migrate_incoming(target->qts, uri);
    balloon_migrate_to(d->qts, uri);
    return true;
}

const char *balloon_disk(void)
{
    return balloon_file("disk");
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

static void open_disk_file(QTestState *qts)
{
    qtest_qmp_assert_success(
        qts, "{'execute': 'blockdev-add', 'arguments': {'driver': 'file',"
        " 'node-name': 'file', 'filename': %s,"
        " 'cache': {'no-flush': true}}}", balloon_disk());
}

static void open_disk(QTestState *qts)
{
    qtest_qmp_assert_success(
        qts, "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2',"
        " 'node-name': 'disk', 'file': 'file',"
        " 'cache': {'no-flush': true}}}");
}

void balloon_add_disk(QTestState *qts)
{
    g_assert_true(run_job(
        qts, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j',"
        " 'options': {'driver': 'file', 'filename': %s, 'size': 0}}}",
        balloon_disk()));
    open_disk_file(qts);
    g_assert_true(run_job(
        qts, "{'execute': 'blockdev-create', 'arguments': {'job-id': 'j',"
        " 'options': {'driver': 'qcow2', 'file': 'file',"
        " 'size': 1048576}}}"));
    open_disk(qts);
}

void balloon_open_disk(QTestState *qts)
{
    open_disk_file(qts);
    open_disk(qts);
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
