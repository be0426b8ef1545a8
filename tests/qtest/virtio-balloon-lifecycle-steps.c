/*
 * The life cycle of a virtio balloon: steps that several tests take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include "virtio-balloon-lifecycle.h"
#include "virtio-balloon-monitor.h"

#define TARGET (64 * MiB)

void balloon_boot_without(BalloonDriver *d, const char *options)
{
    QOSState *machine = qtest_pc_boot("-m 256 %s", options);

    balloon_attach(d, machine->qts, NULL, &machine->alloc);
    d->machine = machine;
}

void balloon_assert_resizes(BalloonDriver *d)
{
    balloon_set_target(d->qts, BALLOON_LIFE_RAM - TARGET);
    balloon_wait_config_interrupt(d);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==,
                    TARGET / BALLOON_PAGE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 2);
    g_assert_cmpint(balloon_query(d->qts), ==,
                    BALLOON_LIFE_RAM - 2 * BALLOON_PAGE);
}

void balloon_assert_works(BalloonDriver *d)
{
    uint64_t pages = balloon_alloc(d, 4 * BALLOON_PAGE, 0xa5);

    balloon_assert_resizes(d);
    balloon_send_range(d, BALLOON_VQ_INFLATE, pages + BALLOON_PAGE, 2);
    balloon_assert_bytes(d, pages, BALLOON_PAGE, 0xa5);
    balloon_assert_bytes(d, pages + BALLOON_PAGE, 2 * BALLOON_PAGE, 0);
    balloon_assert_bytes(d, pages + 3 * BALLOON_PAGE, BALLOON_PAGE, 0xa5);
    balloon_send_range(d, BALLOON_VQ_DEFLATE, pages + BALLOON_PAGE, 2);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0);
    guest_free(d->alloc, pages);
}

void balloon_post_stats(BalloonDriver *d, uint64_t free_bytes)
{
    uint8_t entry[10];
    uint16_t tag = balloon_wire16(d, VIRTIO_BALLOON_S_MEMFREE);
    uint64_t value = balloon_wire64(d, free_bytes);
    uint64_t addr;

    memcpy(entry, &tag, 2);
    memcpy(entry + 2, &value, 8);
    addr = balloon_copy(d, entry, sizeof(entry));
    balloon_post(d, BALLOON_VQ_STATS,
                 &(BalloonSeg) { addr, sizeof(entry) }, 1);
    balloon_wait_for(balloon_stat(d->qts, "free-memory") == free_bytes);
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

pid_t balloon_hold_file(const char *type, const char *options, uint64_t size,
                        int *fd)
{
    int pipes[2];
    pid_t pid;

    g_assert_cmpint(pipe(pipes), ==, 0);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        *fd = open_in_mount(type, options, size);
        /* QEMU is to look into this process */
        prctl(PR_SET_DUMPABLE, 1);
        g_assert_cmpint(write(pipes[1], fd, sizeof(*fd)), ==, sizeof(*fd));
        for (;;) {
            pause();
        }
    }
    g_assert_cmpint(read(pipes[0], fd, sizeof(*fd)), ==, sizeof(*fd));
    close(pipes[0]);
    close(pipes[1]);
    return pid;
}
