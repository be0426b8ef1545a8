/*
 * Memory that nobody can use once it was freed, for tests: loaded into QEMU
 * with LD_PRELOAD
 *
 * Pieces of the size of a large structure have a page each, which stays out
 * of reach for ever when it is freed.  Everything else is glibc's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>

#define SMALLEST 1024
#define PAGE 4096
#define PAGES (64 * 1024)

/* glibc's own, for those who replace the functions without the prefix */
typeof(malloc) __libc_malloc;
typeof(calloc) __libc_calloc;
typeof(realloc) __libc_realloc;
typeof(free) __libc_free;

static char area[PAGES][PAGE] __attribute__((aligned(PAGE)));
static size_t used;

static bool is_fenced(void *piece)
{
    return (char *)piece >= area[0] && (char *)piece < area[PAGES];
}

/* A page full of zeroes; NULL if @size is not one of those, or all are used */
static void *fenced(size_t size)
{
    size_t page;

    if (size < SMALLEST || size > PAGE) {
        return NULL;
    }
    page = __atomic_fetch_add(&used, 1, __ATOMIC_RELAXED);
    return page < PAGES ? area[page] : NULL;
}

void *malloc(size_t size)
{
    return fenced(size) ?: __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    /* No piece that is fenced is so large that this wraps */
    void *piece = n <= PAGE && size <= PAGE ? fenced(n * size) : NULL;

    return piece ?: __libc_calloc(n, size);
}

void free(void *old)
{
    if (!is_fenced(old)) {
        __libc_free(old);
    } else if (mprotect(old, PAGE, PROT_NONE)) {
        abort();
    }
}

void *realloc(void *old, size_t size)
{
    void *piece;

    if (!is_fenced(old)) {
        return __libc_realloc(old, size);
    }
    piece = malloc(size);
    if (piece) {
        memcpy(piece, old, MIN(size, PAGE));
        free(old);
    }
    return piece;
}
