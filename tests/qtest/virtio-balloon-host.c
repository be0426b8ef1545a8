/*
 * What tests of a virtio balloon have of their host
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

/* A file in a new file system of that type; -1 if none may be mounted */
static int open_in_mount(const char *type, const char *options, uint64_t size)
{
    g_autofree char *folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    g_autofree char *name = g_build_filename(folder, "ram", NULL);
    int fd = -1;

    if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) == 0 &&
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("none", folder, type, 0, options) == 0) {
        fd = open(name, O_RDWR | O_CREAT, 0600);
        /* The file stays as long as it is open */
        umount2(folder, MNT_DETACH);
    }
    rmdir(folder);
    return fd < 0 || ftruncate(fd, size) < 0 ? -1 : fd;
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

void balloon_vfio_begin(void)
{
    const char *table = balloon_file("table");
    int fd = open(table, O_RDWR | O_CREAT, 0600);

    g_assert_cmpint(symlink("../42", balloon_file("iommu_group")), ==, 0);
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
