/*
 * Fuzzing the virtio balloon: a clock that can be moved
 *
 * The device serves its queues for a slice of time, and waits before it does
 * some things.  So that a fuzzer need not wait, and a slice may end anywhere,
 * this program has a clock_gettime() of its own.  libFuzzer looks at another
 * clock, CLOCK_REALTIME.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#include "qemu/units.h"
#include "virtio_balloon_fuzz.h"

static int64_t offset;
static int64_t drag;

void fuzz_clock_jump(int64_t ns)
{
    __atomic_add_fetch(&offset, ns, __ATOMIC_RELAXED);
}

void fuzz_clock_drag(int64_t ns)
{
    __atomic_store_n(&drag, ns, __ATOMIC_RELAXED);
}

/* In place of the C library's; also called before sanitizers are ready */
__attribute__((no_sanitize("address", "undefined", "coverage")))
int clock_gettime(clockid_t id, struct timespec *ts)
{
    int ret = syscall(SYS_clock_gettime, id, ts);

    if (ret == 0 && id == CLOCK_MONOTONIC) {
        int64_t ns = __atomic_load_n(&drag, __ATOMIC_RELAXED);

        ns = ts->tv_nsec + __atomic_add_fetch(&offset, ns, __ATOMIC_RELAXED);
        ts->tv_sec += ns / 1000000000;
        ts->tv_nsec = ns % 1000000000;
    }
    return ret;
}
