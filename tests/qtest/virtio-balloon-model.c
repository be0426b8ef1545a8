/*
 * What a guest with a virtio balloon knows of its memory, for random tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "virtio-balloon-random.h"

/* What is written at a time: the protocol dislikes long lines */
#define WRITE_PAGES 8u

/* How much of the log a test that fails shows */
#define LOG_SIZE (4 * KiB)

static uint8_t *image_of(const BalloonModel *m, unsigned page)
{
    return m->image + (size_t)page * BALLOON_PAGE;
}

static uint64_t addr_of(const BalloonModel *m, unsigned page)
{
    return m->base + (uint64_t)page * BALLOON_PAGE;
}

void balloon_model_init(BalloonModel *m, BalloonDriver *d, uint64_t base,
                        unsigned pages, const uint8_t *file)
{
    g_autofree unsigned *all = g_new(unsigned, pages);

    *m = (BalloonModel) {
        .base = base,
        .pages = pages,
        .image = g_malloc0((size_t)pages * BALLOON_PAGE),
        .page = g_new0(BalloonModelPage, pages),
        .file = file,
        .log = g_string_new(NULL),
    };
    for (unsigned i = 0; i < pages; i++) {
        all[i] = i;
    }
    balloon_model_write(m, d, all, pages);
}

void balloon_model_free(BalloonModel *m)
{
    g_free(m->image);
    g_free(m->page);
    g_string_free(m->log, true);
}

void balloon_model_note(BalloonModel *m, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_string_append_printf(m->log, " %" PRIu64 ":", m->operations);
    g_string_append_vprintf(m->log, format, ap);
    va_end(ap);
    if (m->log->len > 2 * LOG_SIZE) {
        g_string_erase(m->log, 0, m->log->len - LOG_SIZE);
    }
}

/* Bytes that depend on all of @seed; no word of them is zero */
static void fill_pattern(uint8_t *data, uint64_t seed)
{
    uint64_t word = seed * UINT64_C(0x9e3779b97f4a7c15);

    for (unsigned i = 0; i < BALLOON_PAGE; i += sizeof(word)) {
        word ^= word >> 29;
        word = word * UINT64_C(0xd1342543de82ef95) + 2 * seed + 1;
        stq_he_p(data + i, word | 1);
    }
}

/* Pages in a row go from the image to the guest */
static void write_run(BalloonModel *m, BalloonDriver *d, unsigned first,
                      unsigned n)
{
    qtest_bufwrite(d->qts, addr_of(m, first), image_of(m, first),
                   (size_t)n * BALLOON_PAGE);
}

static int compare_pages(const void *a, const void *b)
{
    const unsigned *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

void balloon_model_write(BalloonModel *m, BalloonDriver *d,
                         const unsigned *pages, unsigned n)
{
    g_autofree unsigned *sorted = g_memdup2(pages, n * sizeof(*pages));
    unsigned run;

    if (!n) {
        return;
    }
    qsort(sorted, n, sizeof(*sorted), compare_pages);
    for (unsigned i = 0; i < n; i += run) {
        for (run = 0; i + run < n && run < WRITE_PAGES &&
                      sorted[i + run] == sorted[i] + run; run++) {
            fill_pattern(image_of(m, sorted[i + run]), ++m->generation);
            m->page[sorted[i + run]].wild = false;
        }
        write_run(m, d, sorted[i], run);
    }
    balloon_model_set(m, pages, n, BALLOON_OWNED);
}

void balloon_model_fill(BalloonModel *m, BalloonDriver *d, unsigned first,
                        unsigned n, uint8_t byte)
{
    memset(image_of(m, first), byte, (size_t)n * BALLOON_PAGE);
    for (unsigned i = first; i < first + n; i++) {
        m->page[i].state = BALLOON_OWNED;
        m->page[i].wild = false;
    }
    qtest_memset(d->qts, addr_of(m, first), byte, (size_t)n * BALLOON_PAGE);
}

void balloon_model_set(BalloonModel *m, const unsigned *pages, unsigned n,
                       BalloonPageState state)
{
    for (unsigned i = 0; i < n; i++) {
        m->page[pages[i]].state = state;
    }
}

void balloon_model_give(BalloonModel *m, const unsigned *pages, unsigned n,
                        bool gone, bool known)
{
    for (unsigned i = 0; i < n; i++) {
        m->page[pages[i]] = (BalloonModelPage) {
            .state = BALLOON_GIVEN,
            .wild = m->page[pages[i]].wild,
            .gone = gone,
            .known = known,
        };
    }
}

void balloon_model_migrated(BalloonModel *m)
{
    for (unsigned i = 0; i < m->pages; i++) {
        m->page[i].gone = false;
        m->page[i].wild |= m->live && m->page[i].state != BALLOON_OWNED;
    }
    m->live = false;
}

void balloon_model_log(const BalloonModel *m)
{
    fprintf(stderr, "# %" PRIu64 " operations; control:%s\n"
            "# The random seed at the beginning of this run brings it back,"
            " with --seed\n", m->operations, m->log->str);
}

static bool has_state(const BalloonModel *m, unsigned page, unsigned set)
{
    return set & BALLOON_IS(m->page[page].state);
}

void balloon_model_change(BalloonModel *m, unsigned set,
                          BalloonPageState state)
{
    for (unsigned i = 0; i < m->pages; i++) {
        if (has_state(m, i, set)) {
            m->page[i].state = state;
        }
    }
}

unsigned balloon_model_count(const BalloonModel *m, unsigned set)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->pages; i++) {
        n += has_state(m, i, set);
    }
    return n;
}

/* Of @n pages from @first on, @gap after each other, round to the beginning */
static unsigned pick_run(const BalloonModel *m, unsigned set, unsigned *pages,
                         unsigned max, unsigned first, unsigned n,
                         unsigned gap)
{
    unsigned found = 0;

    for (unsigned i = 0; i < n && found < max; i += gap) {
        unsigned page = (first + i) % m->pages;

        if (has_state(m, page, set)) {
            pages[found++] = page;
        }
    }
    return found;
}

/* Those of one huge page, now and then all but a few */
static unsigned pick_huge(const BalloonModel *m, unsigned set, unsigned *pages,
                          unsigned max)
{
    unsigned huge = g_test_rand_int_range(0, m->pages / BALLOON_HUGE);
    unsigned leave = MAX(0, g_test_rand_int_range(-4, 4));
    unsigned n = pick_run(m, set, pages, max, huge * BALLOON_HUGE,
                          BALLOON_HUGE, 1);

    return n > leave ? n - leave : n;
}

static void swap(unsigned *pages, unsigned i, unsigned j)
{
    unsigned page = pages[i];

    pages[i] = pages[j];
    pages[j] = page;
}

static void reverse(unsigned *pages, unsigned n)
{
    for (unsigned i = 0; i < n / 2; i++) {
        swap(pages, i, n - 1 - i);
    }
}

static void shuffle(unsigned *pages, unsigned n)
{
    for (unsigned i = n; i > 1; i--) {
        swap(pages, i - 1, g_test_rand_int_range(0, i));
    }
}

unsigned balloon_model_pick(const BalloonModel *m, unsigned set,
                            unsigned *pages, unsigned max)
{
    unsigned first = g_test_rand_int_range(0, m->pages);
    unsigned gap = g_test_rand_int_range(0, 3) ?
                   1 : g_test_rand_int_range(1, 64);
    unsigned n;

    n = g_test_rand_int_range(0, 3) ?
        pick_run(m, set, pages, max, first, m->pages, gap) :
        pick_huge(m, set, pages, max);
    switch (g_test_rand_int_range(0, 4)) {
    case 0:
        reverse(pages, n);
        break;
    case 1:
        shuffle(pages, n);
        break;
    }
    return n;
}

unsigned balloon_model_pick_apart(const BalloonModel *m, unsigned set,
                                  unsigned *pages, unsigned max)
{
    return pick_run(m, set, pages, max, g_test_rand_int_range(0, m->pages),
                    m->pages, 2);
}

/*
 * Some pages through a file, which is far faster than the protocol.  QEMU
 * reads them in one go, while no request is served.
 */
static uint8_t *read_pages(const BalloonModel *m, BalloonDriver *d,
                           unsigned first, unsigned n)
{
    uint64_t size = (uint64_t)n * BALLOON_PAGE;
    const char *path = balloon_file("area");
    char *data;
    size_t got;

    qtest_qmp_assert_success(d->qts, "{'execute': 'pmemsave', 'arguments':"
                             " {'val': %" PRIu64 ", 'size': %" PRIu64 ","
                             " 'filename': %s}}", addr_of(m, first), size,
                             path);
    g_assert_true(g_file_get_contents(path, &data, &got, NULL));
    g_assert_cmpuint(got, ==, size);
    return (uint8_t *)data;
}

static bool page_is(const uint8_t *page, const uint8_t *other)
{
    return memcmp(page, other, BALLOON_PAGE) == 0;
}

/* A page that was discarded */
static bool page_is_gone(const BalloonModel *m, unsigned page,
                         const uint8_t *data)
{
    return m->file ? page_is(data, m->file + (size_t)page * BALLOON_PAGE) :
                     buffer_is_zero(data, BALLOON_PAGE);
}

static bool read_is_gone(const BalloonModel *m, BalloonDriver *d,
                         unsigned page)
{
    uint8_t data[BALLOON_PAGE];

    qtest_bufread(d->qts, addr_of(m, page), data, sizeof(data));
    return page_is_gone(m, page, data);
}

void balloon_model_wait_gone(const BalloonModel *m, BalloonDriver *d,
                             bool whole)
{
    unsigned page;

    if (!balloon_model_pick_apart(m, BALLOON_IS(BALLOON_GIVEN), &page, 1) ||
        !m->page[page].known) {
        return;
    }
    for (unsigned i = 0; whole && i < BALLOON_HUGE; i++) {
        const BalloonModelPage *other =
            &m->page[ROUND_DOWN(page, BALLOON_HUGE) + i];

        if (other->state != BALLOON_GIVEN || !other->known) {
            return;
        }
    }
    balloon_wait_for(read_is_gone(m, d, page));
}

/* What a page may be that is not the guest's, or was not a moment ago */
static bool page_is_fair(const BalloonModel *m, unsigned page,
                         const uint8_t *data)
{
    const BalloonModelPage *p = &m->page[page];
    bool gone = p->gone && p->state == BALLOON_GIVEN;

    return p->wild || page_is_gone(m, page, data) ||
           buffer_is_zero(data, BALLOON_PAGE) ||
           (!gone && page_is(data, image_of(m, page)));
}

static void fail(const BalloonModel *m, unsigned page,
                 const uint8_t *data)
{
    static const char *const names[BALLOON_STATES] = {
        "owned", "loose", "giving", "given", "taking", "reporting"
    };
    const uint8_t *old = image_of(m, page);
    unsigned at = 0;

    while (at < BALLOON_PAGE - 1 && data[at] == old[at]) {
        at++;
    }

    g_autofree char *what = g_strdup_printf(
        "guest memory at 0x%" PRIx64 ", page %u of the model, %s:"
        " 0x%02x, not 0x%02x; the page is %s", addr_of(m, page) + at, page,
        names[m->page[page].state], data[at], old[at],
        buffer_is_zero(data, BALLOON_PAGE) ? "zero" : "not zero");

    /* Not g_error(), which leaves no time to clean up */
    g_assertion_message(NULL, __FILE__, __LINE__, __func__, what);
}

static void check_page(BalloonModel *m, unsigned page, const uint8_t *data)
{
    BalloonModelPage *p = &m->page[page];

    if (p->state == BALLOON_OWNED ? !page_is(data, image_of(m, page)) :
                                    !page_is_fair(m, page, data)) {
        fail(m, page, data);
    }
    if (p->state == BALLOON_LOOSE && !m->live) {
        memcpy(image_of(m, page), data, BALLOON_PAGE);
        p->state = BALLOON_OWNED;
        p->wild = false;
    }
}

void balloon_model_check_part(BalloonModel *m, BalloonDriver *d,
                              unsigned first, unsigned n)
{
    g_autofree uint8_t *data = read_pages(m, d, first, n);

    for (unsigned i = 0; i < n; i++) {
        check_page(m, first + i, data + (size_t)i * BALLOON_PAGE);
    }
}

void balloon_model_check_file(BalloonModel *m, const char *path)
{
    g_autofree char *data = NULL;
    size_t size;

    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    g_assert_cmpuint(size, >=, addr_of(m, m->pages));
    for (unsigned i = 0; i < m->pages; i++) {
        check_page(m, i, (uint8_t *)data + addr_of(m, i));
    }
}

void balloon_model_check(BalloonModel *m, BalloonDriver *d)
{
    balloon_model_check_part(m, d, 0, m->pages);
}
