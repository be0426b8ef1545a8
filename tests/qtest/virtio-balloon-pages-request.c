/*
 * Pages that a virtio balloon is given by a request that ends some other way,
 * is served twice, or says them in other words
 *
 * A kick of a device without ioeventfd is served, for a slice of time, before
 * it returns; what is left of a huge request is parked then.  The host may let
 * the device get on with it before the test does, so a test that needs a
 * parked request tries until it has one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-pages.h"

#define PLAIN_KICKED PLAIN ",ioeventfd=off"
#define TELL_KICKED TELL ",ioeventfd=off"
#define ATTEMPTS 10

static uint32_t post_huge(BalloonDriver *d)
{
    return balloon_post_huge(d, AREA, BALLOON_HUGE_MAX);
}

static void end_queue_reset(BalloonDriver *d)
{
    balloon_reset_queue(d, BALLOON_VQ_INFLATE);
}

/* What was put back does not count, either */
static void end_stop(BalloonDriver *d)
{
    balloon_stop(d);
    balloon_reset_queue(d, BALLOON_VQ_INFLATE);
    balloon_cont(d);
}

static void end_device_reset(BalloonDriver *d)
{
    qvirtio_reset(d->vdev);
}

/* The pages are the guest's, and nothing waits to be discarded of them */
static void assert_not_given(BalloonDriver *d)
{
    qtest_memset(d->qts, AREA, NEW, HUGE);
    balloon_assert_stays(d, AREA, HUGE, NEW);
    g_assert_cmpuint(balloon_counter(d->qts, "waiting"), ==, 0);
    balloon_assert_sum(d->qts);
}

/* A page is given with the answer, not before */
static void test_unanswered(BalloonDriver *d)
{
    void (*end)(BalloonDriver *d) = balloon_case()->data;
    bool unanswered = false;

    for (int i = 0; i < ATTEMPTS && !unanswered; i++) {
        balloon_reset(d);
        balloon_start(d, BALLOON_ALL_FEATURES);
        post_huge(d);
        end(d);
        unanswered = !balloon_has_used(d, BALLOON_VQ_INFLATE);
    }
    g_assert_true(unanswered);
    assert_not_given(d);
    balloon_case_move(d);
    balloon_assert_bytes(d, AREA, HUGE, NEW);
}

/*
 * A legacy driver drops the feature in the middle of a request.  With the
 * answer it may use the pages, those too that were dealt with before.
 */
static void test_feature_meanwhile(BalloonDriver *d)
{
    bool meanwhile = false;

    for (int i = 0; i < ATTEMPTS && !meanwhile; i++) {
        uint32_t head;

        balloon_reset(d);
        balloon_start(d, BALLOON_ALL_FEATURES);
        head = post_huge(d);
        balloon_drop_tell(d);
        meanwhile = !balloon_has_used(d, BALLOON_VQ_INFLATE);
        balloon_wait_used(d, BALLOON_VQ_INFLATE, head);
        assert_not_given(d);
    }
    g_assert_true(meanwhile);
}

/* However often a request is put back and served again, it is one */
static void test_counted_once(BalloonDriver *d)
{
    bool again = false;

    for (int i = 1; i <= ATTEMPTS && !again; i++) {
        uint32_t head = post_huge(d);

        for (int j = 0; j < 3; j++) {
            balloon_stop(d);
            again |= !balloon_has_used(d, BALLOON_VQ_INFLATE);
            balloon_cont(d);
        }
        balloon_wait_used(d, BALLOON_VQ_INFLATE, head);
        g_assert_cmpuint(balloon_counter_pages(d->qts, "inflated"), ==,
                         i * BALLOON_HUGE_MAX * BALLOON_HUGE_PFNS);
        balloon_assert_sum(d->qts);
    }
    g_assert_true(again);
}

/* What the guest has given is so many pages, and these were discarded */
static void assert_given(BalloonDriver *d, unsigned pages, unsigned discarded)
{
    balloon_wait_discarded(d->qts);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "inflated"), ==, pages);
    g_assert_cmpuint(balloon_counter_pages(d->qts, "discarded"), ==,
                     discarded);
    balloon_assert_sum(d->qts);
}

/*
 * A driver may say the number of a page in 64 bits: every other word is 0, in
 * a list of one page as in one that is read in several parts
 */
static void test_wide(BalloonDriver *d)
{
    static const unsigned sizes[] = { 96, 1, 1500 };
    uint64_t addr = AREA;
    unsigned given = 0;

    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        unsigned n = sizes[i];
        uint64_t list = balloon_copy_spread_pfns(d, addr, n);

        balloon_send_one(d, BALLOON_VQ_INFLATE, list, n * 8, false);
        given += n;
        assert_given(d, given, given);
        balloon_assert_bytes(d, addr, n * BALLOON_PAGE, 0);
        addr += n * BALLOON_PAGE;
        balloon_assert_bytes(d, addr, BALLOON_PAGE, OLD);
        balloon_send_one(d, BALLOON_VQ_DEFLATE, list, n * 8, false);
        g_assert_cmpuint(balloon_counter_pages(d->qts, "deflated"), ==, given);
    }
}

/* Page 0 among others is page 0, which no driver has to give */
static void test_mixed(BalloonDriver *d)
{
    const uint32_t pfn = BALLOON_PFN(AREA);
    const uint32_t lists[][4] = {
        { pfn, 0, pfn + 1, pfn + 2 },
        { pfn + 3, pfn + 4, pfn + 5, 0 },
        { 0, pfn + 6, 0, pfn + 7 },
    };

    for (int i = 0; i < ARRAY_SIZE(lists); i++) {
        balloon_send_pfns(d, BALLOON_VQ_INFLATE, lists[i], 4);
    }
    assert_given(d, 12, 8);
    balloon_assert_pages(d, AREA, "00000000x");
}

static const BalloonCase cases[] = {
    { "unanswered/queue-reset", test_unanswered, TELL_KICKED, NULL,
      end_queue_reset },
    { "unanswered/stop", test_unanswered, TELL_KICKED, NULL, end_stop },
    { "unanswered/driver-ok", test_unanswered, TELL_KICKED, NULL,
      balloon_clear_driver_ok },
    { "unanswered/device-reset", test_unanswered, TELL_KICKED, NULL,
      end_device_reset },
    { "end/feature-meanwhile", test_feature_meanwhile,
      TELL_KICKED ",disable-modern=on" },
    { "counted-once/plain", test_counted_once, PLAIN_KICKED },
    { "counted-once/tell", test_counted_once, TELL_KICKED },
    { "wide/plain", test_wide, PLAIN },
    { "wide/tell", test_wide, TELL },
    { "wide/mixed/plain", test_mixed, PLAIN },
    { "wide/mixed/tell", test_mixed, TELL },
};

void balloon_add_pages_request_tests(void)
{
    balloon_add_cases(BALLOON_PAGES, cases, ARRAY_SIZE(cases));
}
