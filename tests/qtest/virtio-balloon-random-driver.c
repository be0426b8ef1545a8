/*
 * A guest that does with a virtio balloon what it may: its driver
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-random.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

/* A list has this many pages at most, and most have those of a Linux driver */
#define LIST_MAX 1536
#define LIST_LINUX 256
/* A list may be in so many descriptors, or be there so often in a request */
#define SEGS_MAX 8
#define REPEAT_MAX 120
/* A report may have so many segments */
#define REPORT_MAX 32

typedef struct BalloonRequest {
    uint32_t head;
    /* guest memory for the list of pages, 0 if there is none */
    uint64_t list;
    /* the pages whose state the answer changes */
    unsigned *pages;
    unsigned n;
    /* a driver that must tell takes them back */
    bool taking;
    /* when it was left: @moves and @endings of the guest */
    unsigned moves;
    unsigned endings;
} BalloonRequest;

bool balloon_chance(int percent)
{
    return g_test_rand_int_range(0, 100) < percent;
}

static void request_free(BalloonGuest *g, BalloonRequest *r)
{
    guest_free(g->d.alloc, r->list);
    g_free(r->pages);
    g_free(r);
}

static void kick(BalloonGuest *g, int queue)
{
    if (g->unkicked[queue]) {
        g->unkicked[queue] = false;
        balloon_kick(&g->d, queue);
    }
}

static void remember(BalloonGuest *g, const BalloonRequest *r)
{
    g_free(g->recent);
    g->recent = g_memdup2(r->pages, r->n * sizeof(*r->pages));
    g->n_recent = r->n;
}

static void write_actual(BalloonGuest *g)
{
    g->actual = balloon_model_count(&g->m, BALLOON_IS(BALLOON_GIVEN));
    balloon_writel(&g->d, BALLOON_CFG_ACTUAL, g->actual);
}

/* The device has answered */
static void answered(BalloonGuest *g, int queue, BalloonRequest *r)
{
    if (queue == INFLATE) {
        balloon_model_give(&g->m, r->pages, r->n,
                           !g->huge && !g->tell_host && !g->inhibited &&
                           r->moves == g->moves, r->endings == g->endings);
        remember(g, r);
    } else if (queue == REPORT || r->taking) {
        balloon_model_set(&g->m, r->pages, r->n, BALLOON_LOOSE);
        if (balloon_chance(50)) {
            balloon_model_write(&g->m, &g->d, r->pages, r->n);
        }
    }
    if (balloon_chance(25)) {
        write_actual(g);
    }
}

/* Answers come in order */
static void wait_one(BalloonGuest *g, int queue)
{
    BalloonRequest *r = g_queue_pop_head(&g->requests[queue]);

    kick(g, queue);
    balloon_wait_used(&g->d, queue, r->head);
    answered(g, queue, r);
    request_free(g, r);
}

void balloon_guest_drain_queue(BalloonGuest *g, int queue)
{
    while (!g_queue_is_empty(&g->requests[queue])) {
        wait_one(g, queue);
    }
}

void balloon_guest_drain(BalloonGuest *g)
{
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        balloon_guest_drain_queue(g, i);
    }
}

void balloon_guest_forget(BalloonGuest *g)
{
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        BalloonRequest *r;

        while ((r = g_queue_pop_head(&g->requests[i]))) {
            request_free(g, r);
        }
        g->unkicked[i] = false;
    }
}

/* Leave a request; the model has been told */
static void post(BalloonGuest *g, int queue, const BalloonSeg *segs,
                 unsigned n_segs, BalloonRequest *r)
{
    QVirtQueue *vq = g->d.vq[queue];

    if (vq->free_head + n_segs > vq->size) {
        balloon_guest_drain_queue(g, queue);
        balloon_free_descriptors(&g->d, queue);
    }
    r->moves = g->moves;
    r->endings = g->endings;
    r->head = balloon_add(&g->d, queue, segs, n_segs);
    balloon_publish(&g->d, queue, r->head);
    g_queue_push_tail(&g->requests[queue], r);
    g->unkicked[queue] = true;
    if (balloon_chance(70)) {
        kick(g, queue);
    }
}

void balloon_guest_ended(BalloonGuest *g)
{
    g->moves++;
    g->endings++;
    balloon_model_change(&g->m, BALLOON_IS(BALLOON_GIVEN), BALLOON_LOOSE);
}

void balloon_guest_check_told(BalloonGuest *g)
{
    if (g->told) {
        g_assert_cmpint(balloon_query(g->d.qts), ==,
                        g->size - (int64_t)g->actual * BALLOON_PAGE);
        balloon_assert_sum(g->d.qts);
    }
}

void balloon_guest_start(BalloonGuest *g)
{
    uint64_t tell_host = 1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST;
    uint64_t poison = 1ull << VIRTIO_BALLOON_F_PAGE_POISON;
    uint64_t leave = 1ull << VIRTIO_RING_F_INDIRECT_DESC;

    leave |= balloon_chance(12) ? tell_host : 0;
    leave |= balloon_chance(70) ? poison : 0;
    balloon_negotiate(&g->d, ~leave);
    g->tell_host = g->d.vdev->features & tell_host;
    g->poison = g->d.vdev->features & poison;
    g->report = g->d.vdev->features & 1ull << VIRTIO_BALLOON_F_REPORTING;
    g->poison_byte = balloon_chance(50) ? 0xaa : 0;
    if (g->poison) {
        balloon_writel(&g->d, BALLOON_CFG_POISON,
                       0x01010101u * g->poison_byte);
    }
    balloon_setup_queues(&g->d);
    qvirtio_set_driver_ok(g->d.vdev);
    balloon_model_note(&g->m, "start%s%s", g->tell_host ? "-tell" : "",
                       g->poison ? "-poison" : "");
}

static uint32_t nonsense_pfn(void)
{
    static const uint32_t pfns[] = { 0xa0, 0xbf, 0x100000, 0xfee00,
                                     0x7fffffff, UINT32_MAX };

    return pfns[g_test_rand_int_range(0, G_N_ELEMENTS(pfns))];
}

/* The list as the device sees it: pages more than once, and what is no RAM */
static unsigned make_list(BalloonGuest *g, const unsigned *pages, unsigned n,
                          uint32_t *pfns)
{
    bool odd = balloon_chance(20);
    unsigned length = 0;

    for (unsigned i = 0; i < n; i++) {
        uint32_t pfn = BALLOON_PFN(g->m.base) + pages[i];

        if (odd && balloon_chance(10)) {
            pfn = nonsense_pfn();
            i--;
        } else if (odd && i && balloon_chance(10)) {
            pfn = BALLOON_PFN(g->m.base) +
                  pages[g_test_rand_int_range(0, i--)];
        }
        pfns[length++] = balloon_wire32(&g->d, pfn);
    }
    return length;
}

/* Descriptors for a list, cut anywhere, a page number or not */
static unsigned cut_list(uint64_t list, uint32_t size, BalloonSeg *segs)
{
    unsigned n = 0;
    uint32_t done = 0;

    while (done < size) {
        uint32_t len = size - done;

        if (n + 1 < SEGS_MAX && balloon_chance(20)) {
            len = g_test_rand_int_range(1, len + 1);
        }
        segs[n++] = (BalloonSeg) { list + done, len };
        done += len;
    }
    return n;
}

/* Ask for inflation or deflation, with the list @repeat times */
static void post_list(BalloonGuest *g, int queue, const unsigned *pages,
                      unsigned n, unsigned repeat)
{
    g_autofree uint32_t *pfns = g_new(uint32_t, 4 * n + 64);
    unsigned size = make_list(g, pages, n, pfns) * sizeof(*pfns);
    BalloonSeg segs[REPEAT_MAX];
    unsigned n_segs;
    BalloonRequest *r = g_new0(BalloonRequest, 1);

    r->list = balloon_copy(&g->d, pfns, size);
    r->pages = g_memdup2(pages, n * sizeof(*pages));
    r->n = n;
    r->taking = queue == DEFLATE && g->tell_host;
    if (repeat == 1) {
        n_segs = cut_list(r->list, size, segs);
    } else {
        for (n_segs = 0; n_segs < repeat; n_segs++) {
            segs[n_segs] = (BalloonSeg) { r->list, size };
        }
    }
    post(g, queue, segs, n_segs, r);
    g->m.operations += n;
}

static unsigned random_length(void)
{
    return balloon_chance(80) ? g_test_rand_int_range(1, LIST_LINUX + 1) :
                        g_test_rand_int_range(1, LIST_MAX + 1);
}

/* Give pages up, with the list @repeat times */
static void inflate_pages(BalloonGuest *g, const unsigned *pages, unsigned n,
                          unsigned repeat)
{
    if (n) {
        balloon_model_set(&g->m, pages, n, BALLOON_GIVING);
        post_list(g, INFLATE, pages, n, repeat);
    }
}

static void inflate(BalloonGuest *g)
{
    unsigned pages[LIST_MAX];
    unsigned n = balloon_model_pick(&g->m, BALLOON_USABLE, pages,
                                    random_length());

    inflate_pages(g, pages, n, 1);
}

/* Those that were given last and still are in the balloon */
static unsigned pick_recent(BalloonGuest *g, unsigned *pages)
{
    unsigned n = 0;

    for (unsigned i = 0; i < g->n_recent; i++) {
        if (g->m.page[g->recent[i]].state == BALLOON_GIVEN) {
            pages[n++] = g->recent[i];
        }
    }
    return n;
}

/*
 * With MUST_TELL_HOST pages are used after the answer; without, whenever it
 * suits the guest, also before it says a word (section 5.5.6.1).
 */
static void deflate_pages(BalloonGuest *g, const unsigned *pages, unsigned n)
{
    int when = g_test_rand_int_range(0, 3);

    if (!n) {
        return;
    }
    balloon_model_set(&g->m, pages, n,
                      g->tell_host ? BALLOON_TAKING : BALLOON_LOOSE);
    if (!g->tell_host && when == 0) {
        balloon_model_write(&g->m, &g->d, pages, n);
    }
    post_list(g, DEFLATE, pages, n, 1);
    if (!g->tell_host && when == 1) {
        balloon_model_write(&g->m, &g->d, pages, n);
    }
}

static void deflate(BalloonGuest *g)
{
    unsigned pages[LIST_MAX];
    unsigned n = balloon_chance(40) ? pick_recent(g, pages) :
                 balloon_model_pick(&g->m, BALLOON_IS(BALLOON_GIVEN), pages,
                                    random_length());

    deflate_pages(g, pages, n);
}

/* From some milliseconds of work to more than stopping the VM waits for */
static unsigned many_times(void)
{
    return balloon_chance(75) ? g_test_rand_int_range(2, REPEAT_MAX / 4) :
                        g_test_rand_int_range(REPEAT_MAX / 2, REPEAT_MAX + 1);
}

void balloon_guest_press(BalloonGuest *g)
{
    unsigned pages[LIST_MAX];
    unsigned n = balloon_model_pick_apart(&g->m, BALLOON_USABLE, pages,
                                          LIST_MAX);

    balloon_model_note(&g->m, "press");
    inflate_pages(g, pages, n, many_times());
    kick(g, INFLATE);
    /* What comes late hits pages that are used as soon as may be */
    if (balloon_chance(40)) {
        balloon_guest_drain_queue(g, INFLATE);
        deflate_pages(g, pages, pick_recent(g, pages));
    }
}

static void give(BalloonGuest *g)
{
    unsigned pages[LIST_LINUX];
    unsigned n;

    balloon_guest_drain_queue(g, INFLATE);
    n = balloon_model_pick_apart(&g->m, BALLOON_USABLE, pages, LIST_LINUX);
    balloon_model_note(&g->m, "give");
    inflate_pages(g, pages, n, 1);
    balloon_guest_drain_queue(g, INFLATE);
}

void balloon_guest_prepare(BalloonGuest *g)
{
    if (g_test_rand_bit()) {
        give(g);
    } else {
        balloon_guest_press(g);
    }
}

void balloon_guest_settle(BalloonGuest *g)
{
    balloon_model_note(&g->m, "settle");
    for (int i = 0; g->tell_host && i < 8; i++) {
        balloon_model_wait_gone(&g->m, &g->d, g->huge);
    }
    /* Huge pages of which the guest uses a part are waited for */
    if (g->tell_host && !g->huge) {
        balloon_wait_discarded(g->d.qts);
    }
    balloon_guest_check_told(g);
}

/* Usable pages in a row, from anywhere or from the start of a huge page */
static unsigned pick_segment(BalloonGuest *g, unsigned *first)
{
    unsigned max = balloon_chance(30) ? 3 * BALLOON_HUGE : 64;
    unsigned n = 0;

    max = g_test_rand_int_range(1, max + 1);
    *first = g_test_rand_int_range(0, g->m.pages);
    if (balloon_chance(40)) {
        *first = ROUND_DOWN(*first, BALLOON_HUGE);
    }
    while (n < max && *first + n < g->m.pages &&
           BALLOON_USABLE & BALLOON_IS(g->m.page[*first + n].state)) {
        n++;
    }
    return n;
}

/* With PAGE_POISON the pages have that value before and after the report */
static void add_segment(BalloonGuest *g, unsigned first, unsigned n,
                        BalloonSeg *seg, BalloonRequest *r)
{
    *seg = (BalloonSeg) {
        g->m.base + first * BALLOON_PAGE, n * BALLOON_PAGE, true
    };
    if (g->poison) {
        balloon_model_fill(&g->m, &g->d, first, n, g->poison_byte);
        return;
    }
    r->pages = g_renew(unsigned, r->pages, r->n + n);
    for (unsigned i = 0; i < n; i++) {
        r->pages[r->n++] = first + i;
        g->m.page[first + i].state = BALLOON_REPORTING;
    }
}

static void report(BalloonGuest *g)
{
    unsigned tries = g_test_rand_int_range(1, REPORT_MAX + 1);
    unsigned n_segs = 0;
    BalloonSeg segs[REPORT_MAX];
    BalloonRequest *r = g_new0(BalloonRequest, 1);

    for (unsigned i = 0; i < tries && r->n < LIST_MAX; i++) {
        unsigned first;
        unsigned n = pick_segment(g, &first);

        if (n) {
            add_segment(g, first, n, &segs[n_segs++], r);
            g->m.operations += n;
        }
    }
    if (!n_segs) {
        request_free(g, r);
        return;
    }
    post(g, REPORT, segs, n_segs, r);
    if (g->poison) {
        balloon_guest_drain_queue(g, REPORT);
    }
}

void balloon_guest_use(BalloonGuest *g)
{
    unsigned pages[LIST_MAX];
    unsigned set = balloon_chance(80) ? BALLOON_IS(BALLOON_LOOSE) :
                                        BALLOON_USABLE;
    unsigned n = balloon_model_pick(&g->m, set, pages, random_length());

    balloon_model_write(&g->m, &g->d, pages, n);
}

static void wait_some(BalloonGuest *g)
{
    int queue = g_test_rand_int_range(0, REPORT + 1);
    unsigned n = g_test_rand_int_range(1, 5);

    while (n-- && !g_queue_is_empty(&g->requests[queue])) {
        wait_one(g, queue);
    }
}

/* A device with no reporting queue has nothing to be kicked there */
static void kick_some(BalloonGuest *g)
{
    for (int i = 0; i < BALLOON_VQ_MAX; i++) {
        kick(g, i);
    }
}

static void step(BalloonGuest *g)
{
    int what = g_test_rand_int_range(0, 100);

    if (what < 4) {
        g->inclination = g_test_rand_int_range(15, 85);
    } else if (what < 10) {
        kick_some(g);
    } else if (what < 14) {
        balloon_guest_use(g);
    } else if (what < 16) {
        balloon_guest_press(g);
    } else if (what < 40) {
        wait_some(g);
    } else if (what < 46 && g->report) {
        report(g);
    } else if (balloon_chance(g->inclination)) {
        inflate(g);
    } else {
        deflate(g);
    }
}

void balloon_guest_steps(BalloonGuest *g, unsigned n)
{
    while (n--) {
        step(g);
    }
}

/* The pages of a request that ended unanswered */
static void unanswered(BalloonGuest *g, int queue, BalloonRequest *r)
{
    if (queue != DEFLATE) {
        balloon_model_set(&g->m, r->pages, r->n, BALLOON_LOOSE);
    } else if (r->taking) {
        post_list(g, DEFLATE, r->pages, r->n, 1);
    }
    request_free(g, r);
}

/*
 * What was answered without the driver's notice is in the balloon, and it says
 * so when it takes it back, at once: how fast the device is makes no difference
 * to what follows.
 */
static void take_back_answered(BalloonGuest *g)
{
    while (balloon_has_used(&g->d, INFLATE)) {
        BalloonRequest *r = g_queue_pop_head(&g->requests[INFLATE]);
        g_autofree uint32_t *pfns = g_new(uint32_t, r->n);

        balloon_wait_used(&g->d, INFLATE, r->head);
        for (unsigned i = 0; i < r->n; i++) {
            pfns[i] = BALLOON_PFN(g->m.base) + r->pages[i];
        }
        balloon_send_pfns(&g->d, DEFLATE, pfns, r->n);
        unanswered(g, INFLATE, r);
    }
    balloon_free_descriptors(&g->d, DEFLATE);
}

bool balloon_guest_reset_queue(BalloonGuest *g)
{
    int queue = g_test_rand_int_range(0, g->report ? 3 : 2);
    GQueue lost = G_QUEUE_INIT;
    BalloonRequest *r;

    if (!(g->d.vdev->features & 1ull << VIRTIO_F_RING_RESET)) {
        return false;
    }
    queue = queue == 2 ? REPORT : queue;
    balloon_guest_press(g);
    balloon_model_note(&g->m, "queue-reset-%d", queue);
    if (queue == INFLATE) {
        balloon_guest_drain_queue(g, DEFLATE);
    }
    balloon_reset_queue(&g->d, queue);
    if (queue == INFLATE) {
        take_back_answered(g);
    }
    g->unkicked[queue] = false;
    balloon_renew_queue(&g->d, queue);
    /* What is left again comes into the same queue */
    while ((r = g_queue_pop_head(&g->requests[queue]))) {
        g_queue_push_tail(&lost, r);
    }
    while ((r = g_queue_pop_head(&lost))) {
        unanswered(g, queue, r);
    }
    balloon_guest_use(g);
    balloon_guest_check_told(g);
    return true;
}
