/*
 * Fuzzing the virtio balloon: which pages must keep what they contain
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "virtio_balloon_fuzz.h"

static uint64_t *page_word(FuzzBalloon *f, unsigned page)
{
    return (uint64_t *)(f->ram + FUZZ_PAGES_START + page * FUZZ_PAGE_SIZE);
}

/* Never zero, and different in each page */
static uint64_t page_contents(unsigned page)
{
    return 0x6b65657000000001 + page;
}

void fuzz_pages_use(FuzzBalloon *f, unsigned first, unsigned n)
{
    for (unsigned i = first; i < first + n && i < FUZZ_PAGES; i++) {
        *page_word(f, i) = page_contents(i);
        f->kept[i] = true;
    }
}

void fuzz_pages_use_all(FuzzBalloon *f)
{
    for (unsigned i = 0; i < FUZZ_PAGES; i++) {
        if (!f->kept[i] || !f->sane) {
            fuzz_pages_use(f, i, 1);
        }
    }
    f->sane = true;
}

void fuzz_pages_name(FuzzBalloon *f, uint64_t addr, uint64_t n)
{
    uint64_t start = addr / FUZZ_PAGE_SIZE;
    uint64_t first = FUZZ_PAGES_START / FUZZ_PAGE_SIZE;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t page = start + i;

        if (page >= first && page < first + FUZZ_PAGES) {
            f->kept[page - first] = false;
        } else if (page < FUZZ_RAM_SIZE / FUZZ_PAGE_SIZE) {
            /* It may have been a ring, or a request */
            f->sane = false;
        }
    }
}

void fuzz_pages_check(FuzzBalloon *f)
{
    for (unsigned i = 0; f->sane && i < FUZZ_PAGES; i++) {
        if (f->kept[i] && *page_word(f, i) != page_contents(i)) {
            fprintf(stderr, "page %u has 0x%" PRIx64 ": it was not given up\n",
                    i, *page_word(f, i));
            abort();
        }
    }
}

void fuzz_pages_init(FuzzBalloon *f)
{
    fuzz_pages_use(f, 0, FUZZ_PAGES);
    f->sane = true;
}
