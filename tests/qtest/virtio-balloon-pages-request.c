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
#include "standard-headers/linux/virtio_config.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-migrate.h"
#include "virtio-balloon-pages.h"

#define OPTIONS "-m 256 "
#define PLAIN_KICKED "virtio-balloon-pci,ioeventfd=off"
#define TELL_KICKED BALLOON_TELL ",ioeventfd=off"
#define SIZE (BALLOON_HUGE_PAGES * BALLOON_PAGE)
#define ATTEMPTS 10

static void set_running(QTestState *qts, bool run)
{
    qtest_qmp_assert_success(qts, "{'execute': %s}", run ? "cont" : "stop");
}

static void end_queue_reset(BalloonDriver *d)
{
    balloon_reset_queue(d, BALLOON_VQ_INFLATE);
}

/* What was put back does not count, either */
static void end_stop(BalloonDriver *d)
{
    set_running(d->qts, false);
    balloon_reset_queue(d, BALLOON_VQ_INFLATE);
    set_running(d->qts, true);
}

static void end_driver_ok(BalloonDriver *d)
{
    d->vdev->bus->set_status(d->vdev, balloon_status(d) &
                                      ~VIRTIO_CONFIG_S_DRIVER_OK);
}

static void end_device_reset(BalloonDriver *d)
{
    qvirtio_reset(d->vdev);
}

/* A page is given with the answer, not before */
static void test_unanswered(const void *data)
{
    void (*end)(BalloonDriver *d) = data;
    BalloonDriver d;
    bool unanswered = false;

    balloon_boot(&d, TELL_KICKED, OPTIONS);
    for (int i = 0; i < ATTEMPTS && !unanswered; i++) {
        balloon_start(&d, BALLOON_ALL_FEATURES);
        qtest_memset(d.qts, BALLOON_AREA, BALLOON_OLD, SIZE);
        balloon_post_huge(&d, BALLOON_AREA, BALLOON_HUGE_MAX);
        end(&d);
        unanswered = !balloon_has_used(&d, BALLOON_VQ_INFLATE);
        if (!unanswered) {
            balloon_reset(&d);
        }
    }
    g_assert_true(unanswered);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_NEW, SIZE);
    balloon_assert_stays(&d, BALLOON_AREA, SIZE, BALLOON_NEW);
    g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, 0);
    balloon_assert_sum(d.qts);
    balloon_move(&d, TELL_KICKED, OPTIONS);
    balloon_assert_bytes(&d, BALLOON_AREA, SIZE, BALLOON_NEW);
    balloon_quit(&d);
}

/*
 * A legacy driver drops the feature in the middle of a request.  With the
 * answer it may use the pages, those too that were dealt with before.
 */
static void test_feature_meanwhile(void)
{
    BalloonDriver d;
    bool meanwhile = false;

    balloon_boot(&d, TELL_KICKED ",disable-modern=on", OPTIONS);
    for (int i = 0; i < ATTEMPTS && !meanwhile; i++) {
        uint32_t head;

        balloon_start(&d, BALLOON_ALL_FEATURES);
        head = balloon_post_huge(&d, BALLOON_AREA, BALLOON_HUGE_MAX);
        d.vdev->bus->set_features(d.vdev, d.vdev->features &
            ~(1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST));
        meanwhile = !balloon_has_used(&d, BALLOON_VQ_INFLATE);
        balloon_wait_used(&d, BALLOON_VQ_INFLATE, head);
        qtest_memset(d.qts, BALLOON_AREA, BALLOON_NEW, SIZE);
        balloon_assert_stays(&d, BALLOON_AREA, SIZE, BALLOON_NEW);
        g_assert_cmpuint(balloon_counter(d.qts, "waiting"), ==, 0);
        balloon_assert_sum(d.qts);
        balloon_reset(&d);
    }
    g_assert_true(meanwhile);
    balloon_quit(&d);
}

/* However often a request is put back and served again, it is one */
static void test_counted_once(const void *device)
{
    BalloonDriver d;
    bool again = false;

    balloon_boot(&d, device, OPTIONS);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    for (int i = 1; i <= ATTEMPTS && !again; i++) {
        uint32_t head = balloon_post_huge(&d, BALLOON_AREA, BALLOON_HUGE_MAX);

        for (int j = 0; j < 3; j++) {
            set_running(d.qts, false);
            again |= !balloon_has_used(&d, BALLOON_VQ_INFLATE);
            set_running(d.qts, true);
        }
        balloon_wait_used(&d, BALLOON_VQ_INFLATE, head);
        g_assert_cmpuint(balloon_counter_pages(d.qts, "inflated"), ==,
                         i * BALLOON_HUGE_MAX * BALLOON_HUGE_PFNS);
        balloon_assert_sum(d.qts);
    }
    g_assert_true(again);
    balloon_quit(&d);
}

/* What the guest has given is so many pages, and all of them were discarded */
static void assert_given(QTestState *qts, unsigned pages)
{
    balloon_wait_discarded(qts);
    g_assert_cmpuint(balloon_counter_pages(qts, "inflated"), ==, pages);
    g_assert_cmpuint(balloon_counter(qts, "discarded"), ==,
                     pages * BALLOON_PAGE);
    balloon_assert_sum(qts);
}

/*
 * A driver may say the number of a page in 64 bits: every other word is 0, in
 * a list of one page as in one that is read in several parts
 */
static void test_wide(const void *device)
{
    static const unsigned sizes[] = { 96, 1, 1500 };
    uint64_t addr = BALLOON_AREA;
    unsigned given = 0;
    BalloonDriver d;

    balloon_boot(&d, device, OPTIONS);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_memset(d.qts, addr, BALLOON_OLD, 8 * MiB);
    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        unsigned n = sizes[i];
        uint64_t list = balloon_copy_spread_pfns(&d, addr, n);

        balloon_send_one(&d, BALLOON_VQ_INFLATE, list, n * 8, false);
        given += n;
        assert_given(d.qts, given);
        balloon_assert_bytes(&d, addr, n * BALLOON_PAGE, 0);
        balloon_assert_bytes(&d, addr + n * BALLOON_PAGE, BALLOON_PAGE,
                             BALLOON_OLD);
        balloon_send_one(&d, BALLOON_VQ_DEFLATE, list, n * 8, false);
        g_assert_cmpuint(balloon_counter_pages(d.qts, "deflated"), ==, given);
        addr += n * BALLOON_PAGE;
    }
    balloon_quit(&d);
}

/* Page 0 among others is page 0, which no driver has to give */
static void test_mixed(const void *device)
{
    const uint32_t pfn = BALLOON_PFN(BALLOON_AREA);
    const uint32_t lists[][4] = {
        { pfn, 0, pfn + 1, pfn + 2 },
        { pfn + 3, pfn + 4, pfn + 5, 0 },
        { 0, pfn + 6, 0, pfn + 7 },
    };
    BalloonDriver d;

    balloon_boot(&d, device, OPTIONS);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    qtest_memset(d.qts, BALLOON_AREA, BALLOON_OLD, BALLOON_AREA_SIZE);
    for (int i = 0; i < ARRAY_SIZE(lists); i++) {
        balloon_send_pfns(&d, BALLOON_VQ_INFLATE, lists[i], 4);
    }
    balloon_wait_discarded(d.qts);
    balloon_assert_bytes(&d, BALLOON_AREA, 8 * BALLOON_PAGE, 0);
    g_assert_cmpuint(balloon_counter_pages(d.qts, "inflated"), ==, 12);
    g_assert_cmpuint(balloon_counter(d.qts, "discarded"), ==,
                     8 * BALLOON_PAGE);
    balloon_assert_sum(d.qts);
    balloon_quit(&d);
}

void balloon_add_pages_request_tests(void)
{
    qtest_add_data_func(BALLOON_PAGES_PATH "unanswered/queue-reset",
                        end_queue_reset, test_unanswered);
    qtest_add_data_func(BALLOON_PAGES_PATH "unanswered/stop", end_stop,
                        test_unanswered);
    qtest_add_data_func(BALLOON_PAGES_PATH "unanswered/driver-ok",
                        end_driver_ok, test_unanswered);
    qtest_add_data_func(BALLOON_PAGES_PATH "unanswered/device-reset",
                        end_device_reset, test_unanswered);
    qtest_add_func(BALLOON_PAGES_PATH "end/feature-meanwhile",
                   test_feature_meanwhile);
    qtest_add_data_func(BALLOON_PAGES_PATH "counted-once/plain", PLAIN_KICKED,
                        test_counted_once);
    qtest_add_data_func(BALLOON_PAGES_PATH "counted-once/tell", TELL_KICKED,
                        test_counted_once);
    qtest_add_data_func(BALLOON_PAGES_PATH "wide/plain", "virtio-balloon-pci",
                        test_wide);
    qtest_add_data_func(BALLOON_PAGES_PATH "wide/tell", BALLOON_TELL,
                        test_wide);
    qtest_add_data_func(BALLOON_PAGES_PATH "wide/mixed/plain",
                        "virtio-balloon-pci", test_mixed);
    qtest_add_data_func(BALLOON_PAGES_PATH "wide/mixed/tell", BALLOON_TELL,
                        test_mixed);
}
