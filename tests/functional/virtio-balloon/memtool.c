/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Use memory in a guest, in ways that can be checked afterwards.
 *
 *   memtool dirty MIB              write MIB of fresh memory, then free it
 *   memtool hog MIB                the same, but keep it until killed
 *   memtool fill FILE MIB SEED     write a pattern to FILE (on a tmpfs)
 *   memtool verify FILE MIB SEED   is the pattern still there?
 *   memtool churn FILE MIB SEED    verify and rewrite FILE until FILE.stop
 *                                  exists, leaving the pattern of SEED
 *   memtool scatter FILE MIB SEED  fill it, and free half of it at random
 *   memtool work FILE MIB SEED     allocate, fill, verify and free pieces of
 *                                  memory at random, MIB at most, for ever;
 *                                  FILE says how many bytes were verified
 *   memtool pace FILE              use a little memory, rest a millisecond, and
 *                                  so on for ever; FILE says how many rounds
 *                                  that were and how many us the slowest took,
 *                                  the first ones excepted
 *
 * The exit code is 0 when all went well, 1 when a pattern was damaged and 2
 * when the system refused something.
 */

#define _GNU_SOURCE

#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024 * 1024)
#define PIECE (16 * 1024)       /* as large as a small file */
#define PAGE_WORDS (4096 / sizeof(uint64_t))
#define REST_US 1000            /* between two rounds of pace() */
#define WARM_ROUNDS 200         /* of pace() that do not count */

typedef struct {
    uint64_t *words;
    size_t count;
} Memory;

/* The word at @index of the pattern of @seed (the mixer of splitmix64). */
static uint64_t pattern(uint64_t seed, uint64_t index)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15 + index;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static void fill(Memory memory, uint64_t seed)
{
    for (size_t i = 0; i < memory.count; i++) {
        memory.words[i] = pattern(seed, i);
    }
}

/* Is the pattern there?  If not, name the first page and count them. */
static bool verify(Memory memory, uint64_t seed)
{
    size_t damaged = 0;

    for (size_t i = 0; i < memory.count; i++) {
        if (memory.words[i] == pattern(seed, i)) {
            continue;
        }
        if (!damaged++) {
            printf("page %zu differs: %016" PRIx64 "\n",
                   i / PAGE_WORDS, memory.words[i]);
        }
        i |= PAGE_WORDS - 1;            /* on to the next page */
    }
    if (damaged) {
        printf("%zu pages damaged\n", damaged);
    }
    return !damaged;
}

static Memory map(size_t mib, int flags, int fd)
{
    Memory memory = { .count = mib * MIB / sizeof(uint64_t) };

    memory.words = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory.words == MAP_FAILED) {
        err(2, "cannot map %zu MiB", mib);
    }
    return memory;
}

static Memory map_anonymous(size_t mib)
{
    return map(mib, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static Memory map_file(const char *name, size_t mib, bool create)
{
    int fd = open(name, O_RDWR | (create ? O_CREAT : 0), 0600);

    if (fd < 0 || (create && ftruncate(fd, mib * MIB))) {
        err(2, "%s", name);
    }
    return map(mib, MAP_SHARED, fd);
}

/* Verify and rewrite in turns until the file @name.stop appears. */
static bool churn(const char *name, Memory memory, uint64_t seed)
{
    char stop[256];
    uint64_t round = 0;

    snprintf(stop, sizeof(stop), "%s.stop", name);
    fill(memory, seed);
    while (access(stop, F_OK)) {
        if (!verify(memory, seed + round)) {
            return false;
        }
        fill(memory, seed + ++round);
    }
    printf("%" PRIu64 " rounds\n", round);
    if (!verify(memory, seed + round)) {
        return false;
    }
    fill(memory, seed);
    return true;
}

/* Free pieces of a file on a tmpfs, as if they were files of their own */
static void scatter(const char *name, size_t mib, uint64_t seed)
{
    int fd = open(name, O_RDWR);

    for (size_t at = 0; fd >= 0 && at < mib * MIB; at += PIECE) {
        if (pattern(seed, at / PIECE) % 2 &&
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
                      PIECE)) {
            err(2, "cannot free a piece");
        }
    }
    if (fd < 0) {
        err(2, "%s", name);
    }
}

/*
 * Fill a slot that is free, verify and free one that is not, until a pattern
 * was damaged.
 */
static bool work(int fd, size_t mib, uint64_t seed)
{
    enum { SLOTS = 8 };
    Memory slots[SLOTS] = { 0 };
    uint64_t seeds[SLOTS], verified = 0;

    for (uint64_t round = 0; ; round++) {
        uint64_t random = pattern(seed, round);
        size_t i = random % SLOTS;
        size_t bytes = slots[i].count * sizeof(uint64_t);

        if (!bytes) {
            slots[i] = map_anonymous(1 + random / SLOTS % (mib / SLOTS));
            seeds[i] = seed + round;    /* what was here before is wrong */
            fill(slots[i], seeds[i]);
            continue;
        }
        if (!verify(slots[i], seeds[i])) {
            return false;
        }
        verified += bytes;
        munmap(slots[i].words, bytes);
        slots[i].count = 0;
        /* as wide as any, so that the old number is overwritten */
        if (lseek(fd, 0, SEEK_SET) || dprintf(fd, "%20" PRIu64 "\n",
                                              verified) < 0) {
            err(2, "cannot tell what was verified");
        }
    }
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * UINT64_C(1000000) + now.tv_nsec / 1000;
}

/* Whatever keeps this from running makes a round longer, its rest included. */
static void pace(int fd)
{
    uint64_t begin = now_us(), slowest = 0;

    for (uint64_t round = 1; ; round++) {
        Memory memory = map_anonymous(1);
        uint64_t end;

        for (size_t i = 0; i < memory.count / 8; i += PAGE_WORDS) {
            memory.words[i] = round;
        }
        munmap(memory.words, MIB);
        usleep(REST_US);
        end = now_us();
        if (round > WARM_ROUNDS) {
            slowest = end - begin > slowest ? end - begin : slowest;
            /* as wide as any, so that the old numbers are overwritten */
            if (lseek(fd, 0, SEEK_SET) ||
                dprintf(fd, "%20" PRIu64 " %20" PRIu64 "\n",
                        round - WARM_ROUNDS, slowest) < 0) {
                err(2, "cannot tell how it goes");
            }
        }
        begin = end;
    }
}

static int create(const char *name)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (fd < 0) {
        err(2, "%s", name);
    }
    return fd;
}

static bool is(const char *command, const char *name, int argc, int wanted)
{
    return !strcmp(command, name) && argc == wanted;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    size_t mib = argc > 2 ? atoi(argv[argc == 5 ? 3 : 2]) : 0;
    uint64_t seed = argc == 5 ? atoll(argv[4]) : 1;
    bool good = true;

    setlinebuf(stdout);
    if (is(command, "dirty", argc, 3)) {
        fill(map_anonymous(mib), seed);
    } else if (is(command, "hog", argc, 3)) {
        fill(map_anonymous(mib), seed);
        printf("holding %zu MiB\n", mib);
        pause();
    } else if (is(command, "fill", argc, 5)) {
        fill(map_file(argv[2], mib, true), seed);
    } else if (is(command, "scatter", argc, 5)) {
        fill(map_file(argv[2], mib, true), seed);
        scatter(argv[2], mib, seed);
    } else if (is(command, "verify", argc, 5)) {
        good = verify(map_file(argv[2], mib, false), seed);
    } else if (is(command, "churn", argc, 5)) {
        good = churn(argv[2], map_file(argv[2], mib, true), seed);
    } else if (is(command, "work", argc, 5)) {
        good = work(create(argv[2]), mib, seed);
    } else if (is(command, "pace", argc, 3)) {
        pace(create(argv[2]));
    } else {
        errx(2, "usage: memtool dirty|hog MIB | pace FILE | "
             "fill|verify|churn|scatter|work FILE MIB SEED");
    }
    return good ? 0 : 1;
}
