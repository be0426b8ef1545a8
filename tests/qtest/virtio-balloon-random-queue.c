/*
 * A guest that does with a virtio balloon what it may: requests in its queues
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-monitor.h"
#include "virtio-balloon-random.h"
#include "standard-headers/linux/virtio_config.h"

#define INFLATE BALLOON_VQ_INFLATE
#define DEFLATE BALLOON_VQ_DEFLATE
#define REPORT BALLOON_VQ_REPORT

bool balloon_chance(int percent)
{
    return g_test_rand_int_range(0, 100) < percent;
}

void balloon_request_free(BalloonGuest *g, BalloonRequest *r)
{
    guest_free(g->d.alloc, r->list);
    g_free(r->pages);
    g_free(r);
}

void balloon_guest_kick(BalloonGuest *g, int queue)
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
void balloon_guest_wait_one(BalloonGuest *g, int queue)
{
    BalloonRequest *r = g_queue_pop_head(&g->requests[queue]);

    balloon_guest_kick(g, queue);
    balloon_wait_used(&g->d, queue, r->head);
    answered(g, queue, r);
    balloon_request_free(g, r);
}

void balloon_guest_drain_queue(BalloonGuest *g, int queue)
{
    while (!g_queue_is_empty(&g->requests[queue])) {
        balloon_guest_wait_one(g, queue);
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
            balloon_request_free(g, r);
        }
        g->unkicked[i] = false;
    }
}

void balloon_guest_post(BalloonGuest *g, int queue, const BalloonSeg *segs,
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
        balloon_guest_kick(g, queue);
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

/* The pages of a request that ended unanswered */
static void unanswered(BalloonGuest *g, int queue, BalloonRequest *r)
{
    if (queue != DEFLATE) {
        balloon_model_set(&g->m, r->pages, r->n, BALLOON_LOOSE);
    } else if (r->taking) {
        balloon_guest_ask_back(g, r->pages, r->n);
    }
    balloon_request_free(g, r);
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
