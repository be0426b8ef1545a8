/*
 * What tests of a virtio balloon have of their host, and what comes and goes in
 * their machines while the balloon works
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include "qapi/error.h"
#include "qobject/qjson.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"

#define POOL "/proc/sys/vm/nr_hugepages"

/* How many of the pool are ours */
static int taken;

static int pool_size(void)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(POOL, &text, NULL, NULL) ? atoi(text) : 0;
}

/* Make the pool @pages larger.  Returns: by how many it became larger */
static int pool_grow(int pages)
{
    int fd = open(POOL, O_WRONLY);
    int before, grown;

    if (fd < 0) {
        return 0;
    }
    /* Other tests may run */
    flock(fd, LOCK_EX);
    before = pool_size();
    dprintf(fd, "%d\n", MAX(0, before + pages));
    grown = pool_size() - before;
    close(fd);
    return grown;
}

/* Has the pool these to spare, though it does not grow? */
static bool pool_has(unsigned pages)
{
    g_autofree char *meminfo = NULL;
    const char *at;

    g_assert_true(g_file_get_contents("/proc/meminfo", &meminfo, NULL, NULL));
    at = strstr(meminfo, "HugePages_Free:");
    return at && strstr(meminfo, "Hugepagesize:       2048 kB") &&
           atol(at + strlen("HugePages_Free:")) >= pages;
}

void balloon_hugepages_restore(void)
{
    if (taken) {
        pool_grow(-taken);
        taken = 0;
        qtest_remove_abrt_handler(&taken);
    }
}

static void restore_aborted(void *data)
{
    pool_grow(-taken);
}

bool balloon_hugepages_take(unsigned pages)
{
    g_assert_cmpint(taken, ==, 0);
    taken = pool_grow(pages);
    if (taken) {
        qtest_add_abrt_handler(restore_aborted, &taken);
    }
    if (taken < pages) {
        balloon_hugepages_restore();
        return pool_has(pages);
    }
    return true;
}

bool balloon_may_lock_memory(void)
{
    struct rlimit limit;
    bool may = geteuid() == 0 || (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
                                  limit.rlim_cur == RLIM_INFINITY);

    if (!may) {
        g_test_skip("memory cannot be locked");
    }
    return may;
}

/*
 * A file in a new file system of that type, or its folder where @size is 0; -1
 * if none may be mounted
 */
static int open_in_mount(const char *type, const char *options, uint64_t size)
{
    g_autofree char *folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    g_autofree char *name = g_build_filename(folder, "ram", NULL);
    int fd = -1;

    if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) == 0 &&
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("none", folder, type, 0, options) == 0) {
        fd = size ? open(name, O_RDWR | O_CREAT, 0600) :
                    open(folder, O_RDONLY | O_DIRECTORY);
        /* What is open stays */
        umount2(folder, MNT_DETACH);
    }
    rmdir(folder);
    return fd < 0 || (size && ftruncate(fd, size) < 0) ? -1 : fd;
}

pid_t balloon_hold_file(const char *type, const char *options, uint64_t size)
{
    g_autofree char *path = NULL;
    int pipes[2];
    pid_t pid;
    int fd;

    g_assert_cmpint(pipe(pipes), ==, 0);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fd = open_in_mount(type, options, size);
        /* QEMU is to look into this process */
        prctl(PR_SET_DUMPABLE, 1);
        g_assert_cmpint(write(pipes[1], &fd, sizeof(fd)), ==, sizeof(fd));
        for (;;) {
            pause();
        }
    }
    g_assert_cmpint(read(pipes[0], &fd, sizeof(fd)), ==, sizeof(fd));
    close(pipes[0]);
    close(pipes[1]);
    if (fd < 0) {
        g_test_skip("no such file system may be mounted");
        balloon_drop_file(pid);
        return 0;
    }
    path = g_strdup_printf("/proc/%d/fd/%d", pid, fd);
    g_assert_cmpint(symlink(path, balloon_file("ram")), ==, 0);
    return pid;
}

void balloon_drop_file(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

FakeVfio *balloon_vfio;

/* QEMU reads of sysfs what the group of the device is, and nothing later */
static void make_vfio_group(void)
{
    const char *group = balloon_file("iommu_group");

    unlink(group);
    g_assert_cmpint(symlink("../42", group), ==, 0);
}

void balloon_vfio_begin(void)
{
    const char *table = balloon_file("table");
    int fd = open(table, O_RDWR | O_CREAT, 0600);

    make_vfio_group();
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, sizeof(*balloon_vfio)), ==, 0);
    balloon_vfio = mmap(NULL, sizeof(*balloon_vfio), PROT_READ | PROT_WRITE,
                        MAP_SHARED, fd, 0);
    g_assert_true(balloon_vfio != MAP_FAILED);
    close(fd);
    g_setenv(FAKE_VFIO_ENVIRONMENT, table, true);
    balloon_preload("virtio-balloon-fake-vfio.so");
}

void balloon_vfio_end(void)
{
    balloon_preload(NULL);
    g_unsetenv(FAKE_VFIO_ENVIRONMENT);
    munmap(balloon_vfio, sizeof(*balloon_vfio));
    balloon_vfio = NULL;
}

uint64_t balloon_vfio_mapped(uint64_t addr, uint64_t size)
{
    const FakeVfio *v = balloon_vfio;
    uint64_t mapped = 0;

    for (uint32_t i = 0; i < v->n; i++) {
        const FakeVfioMapping *m = &v->table[i];
        uint64_t first = MAX(addr, m->iova);
        uint64_t end = MIN(addr + size, m->iova + m->size);

        mapped += first < end ? end - first : 0;
    }
    return mapped;
}

void balloon_vfio_assert(uint64_t addr, uint64_t size, bool mapped)
{
    g_assert_cmpuint(balloon_vfio_mapped(addr, size), ==, mapped ? size : 0);
}

void balloon_vfio_limit(uint64_t more)
{
    balloon_vfio->max_bytes = balloon_vfio->bytes + more;
}

void balloon_vfio_lift_limits(void)
{
    balloon_vfio->max_bytes = balloon_vfio->max_mappings = 0;
}

/* The PC's power management: function 3 of slot 1, and where its ports go */
#define PM_DEVFN QPCI_DEVFN(1, 3)
#define PM_PORTS 0x600
#define PM_CONTROL (PM_PORTS + 4)
#define PM_SLEEP_S3 (1 << 13 | 1 << 10)
#define PM_POWER_OFF (1 << 13)

static void set_power(BalloonDriver *d, uint16_t value)
{
    QPCIDevice *pm = qpci_device_find(d->machine->pcibus, PM_DEVFN);

    qpci_config_writel(pm, 0x40, PM_PORTS | 1);
    qpci_config_writeb(pm, 0x80, 1);
    g_free(pm);
    qtest_outw(d->qts, PM_CONTROL, value);
}

void balloon_sleep(BalloonDriver *d)
{
    set_power(d, PM_SLEEP_S3);
    qtest_qmp_eventwait(d->qts, "SUSPEND");
}

void balloon_wake(BalloonDriver *d)
{
    qtest_qmp_assert_success(d->qts, "{'execute': 'system_wakeup'}");
    qtest_qmp_eventwait(d->qts, "WAKEUP");
}

void balloon_power_off(BalloonDriver *d)
{
    set_power(d, PM_POWER_OFF);
    qtest_qmp_eventwait(d->qts, "SHUTDOWN");
}

/* Of the machine's hot plug of memory: see docs/specs/acpi_mem_hotplug.rst */
#define SLOT_SELECTOR 0xa00
#define SLOT_STATUS 0xa14
#define SLOT_EJECT 8

/* Where a PC lets a PCI slot go */
#define ACPI_EJECT 0xae08
#define VFIO_SLOT 5

/* What is behind a device may be deleted with it, which is told, too */
static void wait_deleted(QTestState *qts, const char *id)
{
    bool found = false;

    while (!found) {
        QDict *event = qtest_qmp_eventwait_ref(qts, "DEVICE_DELETED");
        const char *name = qdict_get_try_str(qdict_get_qdict(event, "data"),
                                             "device");

        found = !g_strcmp0(name, id);
        qobject_unref(event);
    }
}

static void eject(QTestState *qts, const char *id, int slot)
{
    qtest_outl(qts, ACPI_EJECT, 1 << slot);
    wait_deleted(qts, id);
}

void balloon_add_dimm_memory(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'object-add', 'arguments':"
                             " {'qom-type': 'memory-backend-ram', 'id': 'm0',"
                             " 'size': 134217728}}");
}

void balloon_remove_dimm_memory(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'object-del',"
                             " 'arguments': {'id': 'm0'}}");
}

void balloon_plug_dimm(QTestState *qts)
{
    qtest_qmp_device_add(qts, "pc-dimm", "dimm0",
                         "{'memdev': 'm0', 'slot': 0, 'addr': 4294967296}");
}

void balloon_unplug_dimm(QTestState *qts)
{
    qtest_qmp_device_del_send(qts, "dimm0");
    qtest_outl(qts, SLOT_SELECTOR, 0);
    qtest_outb(qts, SLOT_STATUS, SLOT_EJECT);
    wait_deleted(qts, "dimm0");
}

void balloon_plug_vfio(QTestState *qts)
{
    make_vfio_group();
    qtest_qmp_device_add(qts, "vfio-pci", "vfio0",
                         "{'addr': %s, 'sysfsdev': %s}",
                         stringify(VFIO_SLOT), g_getenv("FILES"));
}

void balloon_unplug_vfio(QTestState *qts)
{
    qtest_qmp_device_del_send(qts, "vfio0");
    eject(qts, "vfio0", VFIO_SLOT);
}

QDict *balloon_device(const char *properties)
{
    QDict *args = qobject_to(QDict, qobject_from_json(properties,
                                                      &error_abort));

    qdict_put_str(args, "driver", "virtio-balloon-pci");
    qdict_put_str(args, "id", "balloon0");
    qdict_put_str(args, "addr", stringify(BALLOON_SLOT));
    return args;
}

void balloon_plug(BalloonDriver *d, const char *properties)
{
    qtest_qmp_assert_success(d->qts, BALLOON_DEVICE_ADD,
                             balloon_device(properties));
    balloon_find(d);
}

void balloon_eject(BalloonDriver *d)
{
    eject(d->qts, "balloon0", BALLOON_SLOT);
    balloon_lose(d);
}

void balloon_unplug(BalloonDriver *d)
{
    qtest_qmp_device_del_send(d->qts, "balloon0");
    balloon_eject(d);
}

void balloon_assert_none(QTestState *qts)
{
    const char *none = "No balloon device has been activated";

    balloon_assert_error(qts, "DeviceNotActive", none,
                         "{'execute': 'query-balloon'}");
    balloon_assert_error(qts, "DeviceNotActive", none,
                         "{'execute': 'balloon', 'arguments': {'value': 1}}");
}
