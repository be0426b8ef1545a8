/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the kernel needs to take memory back in large steps: the least that a
 * balloon can cost.
 *
 *   floor BACKING MIB
 *
 * Writes to MIB of memory, discards it in steps of 1 MiB while another thread
 * of the process runs, and prints the CPU seconds of the discarding a GiB.
 * BACKING is anonymous, thp, memfd, or file (of nothing, mapped privately).
 */

#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define STEP (1024 * 1024)
#define HUGE_PAGE (2 * STEP)

static volatile bool running;

static void *run(void *opaque)
{
    running = true;
    while (running) {
        /* as a vCPU does */
    }
    return NULL;
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int open_file(const char *backing)
{
    char name[] = "/var/tmp/floor-XXXXXX";
    int fd = -1;

    if (!strcmp(backing, "memfd")) {
        fd = memfd_create("floor", MFD_CLOEXEC);
    } else if (!strcmp(backing, "file")) {
        fd = mkstemp(name);
        unlink(name);
    } else {
        return -1;
    }
    if (fd < 0) {
        err(1, "cannot make a file for %s", backing);
    }
    return fd;
}

static char *map(const char *backing, size_t size, int fd)
{
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS :
                !strcmp(backing, "memfd") ? MAP_SHARED : MAP_PRIVATE;
    char *p;

    if (fd >= 0 && ftruncate(fd, size + HUGE_PAGE)) {
        err(1, "cannot make a file of %zu bytes", size);
    }
    p = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (p == MAP_FAILED) {
        err(1, "cannot map %zu bytes", size);
    }
    p += -(size_t)p % HUGE_PAGE;
    if (!strcmp(backing, "thp")) {
        madvise(p, size, MADV_HUGEPAGE);
    }
    return p;
}

/* CPU seconds of discarding @size bytes from @start on */
static double discard(char *start, size_t size, bool shared)
{
    double before = cpu_seconds();

    for (char *p = start; p < start + size; p += STEP) {
        if (madvise(p, STEP, shared ? MADV_REMOVE : MADV_DONTNEED)) {
            err(1, "cannot discard");
        }
    }
    return cpu_seconds() - before;
}

int main(int argc, char **argv)
{
    size_t size = argc == 3 ? atoi(argv[2]) * (size_t)STEP : 0;
    pthread_t thread;
    double seconds;
    char *memory;

    if (!size) {
        errx(2, "usage: floor anonymous|thp|memfd|file MIB");
    }
    if (strcmp(argv[1], "thp")) {
        prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
    memory = map(argv[1], size, open_file(argv[1]));
    memset(memory, 0xa5, size);
    pthread_create(&thread, NULL, run, NULL);
    while (!running) {
        /* it is about to start */
    }
    seconds = discard(memory, size, !strcmp(argv[1], "memfd"));
    printf("%.6f\n", seconds * 1024 * STEP / size);
    running = false;
    pthread_join(thread, NULL);
    return 0;
}
