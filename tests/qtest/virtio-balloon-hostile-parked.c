/*
 * The virtio balloon with a request half done, and a driver that cannot wait
 *
 * A kick of a device without ioeventfd is served, for a slice of time, before
 * it returns; what is left of a huge request is parked then.  The host may let
 * the device get on with it before the test does, so a test that needs a
 * parked request tries until it has one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-balloon-hostile.h"
#include "virtio-balloon-info.h"
#include "virtio-balloon-monitor.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"

/* A list of scattered pages, each several times; a request has it so often */
#define PFNS 8192
#define LISTS 64
#define AREA_PAGES 2048

/* Memory enough for a report that takes long */
#define OPTIONS BALLOON_HOSTILE_OPTIONS "-m 1024"
#define REPORT_SIZE (512 * MiB)

#define AREA_BYTE 0x3c
#define ATTEMPTS 10

/* Leave a request to inflate every other page of @area, many times over */
static uint32_t post_huge_inflate(BalloonDriver *d, uint64_t area)
{
    uint32_t pfns[PFNS];
    BalloonSeg segs[LISTS];
    uint64_t list;

    for (int i = 0; i < PFNS; i++) {
        pfns[i] = balloon_wire32(d, BALLOON_PFN(area) + 2 * i % AREA_PAGES);
    }
    list = balloon_copy(d, pfns, sizeof(pfns));
    for (int i = 0; i < LISTS; i++) {
        segs[i] = (BalloonSeg) { list, sizeof(pfns) };
    }
    return balloon_post(d, BALLOON_VQ_INFLATE, segs, LISTS);
}

/* Leave a report of @area and much that follows, many times over */
static uint32_t post_huge_report(BalloonDriver *d, uint64_t area)
{
    unsigned n = MIN(d->vq[BALLOON_VQ_REPORT]->size, LISTS);
    BalloonSeg segs[LISTS];

    for (unsigned i = 0; i < n; i++) {
        segs[i] = (BalloonSeg) { area, REPORT_SIZE, true };
    }
    return balloon_post(d, BALLOON_VQ_REPORT, segs, n);
}

typedef uint32_t (*PostFunc)(BalloonDriver *d, uint64_t area);

static void boot(BalloonDriver *d)
{
    balloon_boot(d, BALLOON_HOSTILE_DEVICE ",ioeventfd=off", OPTIONS);
}

/* The area is the driver's again: it does not wait for a queue to use it */
static void use_area(BalloonDriver *d, uint64_t area)
{
    qtest_memset(d->qts, area, AREA_BYTE, AREA_PAGES * BALLOON_PAGE);
}

/* And it stays as the driver left it */
static void assert_area_kept(BalloonDriver *d, uint64_t area)
{
    uint64_t mem = balloon_dirty_pages(d, 2);

    /* What was parked would go on before these are served */
    for (int i = 0; i < 3; i++) {
        balloon_send_range(d, BALLOON_VQ_INFLATE, mem, 1);
        balloon_send_range(d, BALLOON_VQ_DEFLATE, mem, 1);
        qtest_qmp_assert_success(d->qts, "{'execute': 'query-status'}");
    }
    balloon_assert_pages(d, mem, "0x");
    balloon_assert_bytes(d, area, AREA_PAGES * BALLOON_PAGE, AREA_BYTE);
    guest_free(d->alloc, mem);
}

/*
 * Kicks that announce nothing: they are not answered, and a request that is
 * half done is served once all the same
 */
static void test_kicks(void)
{
    const unsigned kicks = 1000;
    BalloonDriver d;
    uint64_t area;
    uint32_t head;

    boot(&d);
    balloon_start(&d, BALLOON_INDIRECT_TOO);
    for (int queue = 0; queue < BALLOON_VQ_MAX; queue++) {
        for (int i = 0; i < kicks; i++) {
            balloon_kick(&d, queue);
        }
        g_assert_false(balloon_has_used(&d, queue));
    }
    g_assert_false(d.vdev->bus->get_queue_isr_status(d.vdev, d.vq[0]));
    g_assert_cmpuint(balloon_counter(d.qts, "discard-calls"), ==, 0);

    area = guest_alloc(d.alloc, AREA_PAGES * BALLOON_PAGE);
    head = post_huge_inflate(&d, area);
    for (int i = 0; i < kicks; i++) {
        balloon_kick(&d, BALLOON_VQ_INFLATE);
    }
    balloon_wait_served(&d, BALLOON_VQ_INFLATE, head);
    g_assert_cmpuint(balloon_counter_pages(d.qts, "inflated"), ==,
                     PFNS * LISTS);
    use_area(&d, area);
    assert_area_kept(&d, area);
    balloon_quit(&d);
}

/* virtio 1.2, 2.6.1: nothing more is done with requests of the old queue */
static void test_queue_reset(const void *data)
{
    PostFunc post = data;
    BalloonDriver d;
    uint64_t area;
    int queue = post == post_huge_inflate ? BALLOON_VQ_INFLATE :
                                            BALLOON_VQ_REPORT;
    bool parked = false;

    boot(&d);
    balloon_start(&d, BALLOON_INDIRECT_TOO);
    g_assert_true(d.vdev->features & 1ull << VIRTIO_F_RING_RESET);
    area = guest_alloc(d.alloc, REPORT_SIZE);
    for (int i = 0; i < ATTEMPTS && !parked; i++) {
        post(&d, area);
        parked = !balloon_has_used(&d, queue);
        balloon_reset_queue(&d, queue);
        use_area(&d, area);
        balloon_renew_queue(&d, queue);
        assert_area_kept(&d, area);
    }
    g_assert_true(parked);
    balloon_assert_next_driver(&d);
    balloon_quit(&d);
}

/* virtio 1.2, 2.6.1: the buffer that was held is none of the new queue's */
static void test_queue_reset_stats(void)
{
    BalloonDriver d;
    uint32_t head;

    boot(&d);
    balloon_start(&d, BALLOON_INDIRECT_TOO);
    balloon_post_free_memory(&d, 1000, 1);
    balloon_wait_for(balloon_stat(d.qts, "free-memory") == 1000);
    balloon_reset_queue(&d, BALLOON_VQ_STATS);
    balloon_renew_queue(&d, BALLOON_VQ_STATS);

    /* With nothing to return, nothing is */
    balloon_set_interval(d.qts, 1);
    qtest_clock_step(d.qts, 2 * NANOSECONDS_PER_SECOND);
    g_assert_false(balloon_has_used(&d, BALLOON_VQ_STATS));

    head = balloon_post_free_memory(&d, 2000, 1);
    balloon_wait_for(balloon_stat(d.qts, "free-memory") == 2000);
    g_assert_false(balloon_has_used(&d, BALLOON_VQ_STATS));
    qtest_clock_step(d.qts, 2 * NANOSECONDS_PER_SECOND);
    balloon_wait_served(&d, BALLOON_VQ_STATS, head);
    g_assert_false(balloon_has_used(&d, BALLOON_VQ_STATS));
    balloon_assert_next_driver(&d);
    balloon_quit(&d);
}

/* A reset gives all memory back, at once */
static void test_device_reset(const void *data)
{
    PostFunc post = data;
    BalloonDriver d;
    uint64_t area;
    int queue = post == post_huge_inflate ? BALLOON_VQ_INFLATE :
                                            BALLOON_VQ_REPORT;
    unsigned parked = 0;

    boot(&d);
    area = guest_alloc(d.alloc, REPORT_SIZE);
    for (int i = 0; i < ATTEMPTS && parked < 3; i++) {
        balloon_start(&d, BALLOON_INDIRECT_TOO);
        qtest_memset(d.qts, area, 1, AREA_PAGES * BALLOON_PAGE);
        post(&d, area);
        parked += !balloon_has_used(&d, queue);
        qvirtio_reset(d.vdev);
        use_area(&d, area);
        balloon_reset(&d);
        balloon_start(&d, BALLOON_INDIRECT_TOO);
        assert_area_kept(&d, area);
        balloon_reset(&d);
    }
    g_assert_cmpuint(parked, ==, 3);
    balloon_assert_next_driver(&d);
    balloon_quit(&d);
}

/* A machine that is reset meanwhile starts anew */
static void test_system_reset(void)
{
    BalloonDriver d;
    uint64_t area;

    boot(&d);
    balloon_start(&d, BALLOON_INDIRECT_TOO);
    area = guest_alloc(d.alloc, AREA_PAGES * BALLOON_PAGE);
    post_huge_inflate(&d, area);
    qtest_system_reset(d.qts);
    use_area(&d, area);
    qvirtio_pci_device_enable(d.pci);
    balloon_assert_next_driver(&d);
    assert_area_kept(&d, area);
    balloon_quit(&d);
}

void balloon_add_hostile_parked_tests(void)
{
    qtest_add_data_func("/virtio-balloon/improved/parked/queue-reset/inflate",
                        post_huge_inflate, test_queue_reset);
    qtest_add_data_func("/virtio-balloon/improved/parked/queue-reset/report",
                        post_huge_report, test_queue_reset);
    qtest_add_func("/virtio-balloon/improved/parked/kicks", test_kicks);
    qtest_add_func("/virtio-balloon/improved/queue-reset/stats",
                   test_queue_reset_stats);
    qtest_add_data_func("/virtio-balloon/improved/parked/reset-inflate",
                        post_huge_inflate, test_device_reset);
    qtest_add_data_func("/virtio-balloon/improved/parked/reset-report",
                        post_huge_report, test_device_reset);
    qtest_add_func("/virtio-balloon/parked/system-reset", test_system_reset);
}
