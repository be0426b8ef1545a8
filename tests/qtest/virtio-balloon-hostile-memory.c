/*
 * What a driver can see through the virtio balloon, and what it can write
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-hostile.h"
#include "standard-headers/linux/virtio_config.h"

#define RAM (128 * MiB)
#define POISON (1ull << VIRTIO_BALLOON_F_PAGE_POISON)
#define REPORTING (1ull << VIRTIO_BALLOON_F_REPORTING)

/* Where the file has something, in the middle of a hole */
#define SECRET (64 * MiB)
#define SECRET_SIZE (64 * KiB)
#define SECRET_BYTE 0x5a

#define GUEST_BYTE 0xc3

static char *make_name(const char *suffix)
{
    return g_strdup_printf("%s/virtio-balloon-%d-%s", g_get_tmp_dir(),
                           getpid(), suffix);
}

static void make_file(const char *path)
{
    uint8_t data[SECRET_SIZE];
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);

    memset(data, SECRET_BYTE, sizeof(data));
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, RAM), ==, 0);
    g_assert_cmpint(pwrite(fd, data, sizeof(data), SECRET), ==, sizeof(data));
    close(fd);
}

/* Every byte is as the guest left it, or zero */
static void assert_no_secret(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    g_autofree uint8_t *data = g_malloc(size);

    qtest_memread(d->qts, addr, data, size);
    for (uint64_t i = 0; i < size; i++) {
        g_assert_true(data[i] == 0 || data[i] == GUEST_BYTE);
    }
}

/*
 * virtio 1.2, 5.5.6.7.2: with PAGE_POISON, nothing but poison_val may be in
 * pages that were reported.  Those of a file that is mapped privately turn
 * into what is in the file.
 */
static void test_private_file(void)
{
    g_autofree char *file = make_name("ram");
    g_autofree char *options = g_strdup_printf(
        "-m 128 -machine pc,memory-backend=ram -object memory-backend-file,"
        "id=ram,size=128M,share=off,mem-path=%s", file);
    uint64_t start = SECRET - SECRET_SIZE, size = 3 * SECRET_SIZE;
    BalloonDriver d;

    make_file(file);
    balloon_boot(&d, "virtio-balloon-pci,free-page-reporting=on", options);
    unlink(file);
    balloon_start(&d, POISON | REPORTING);
    balloon_assert_bytes(&d, SECRET, SECRET_SIZE, SECRET_BYTE);

    /* All of it, and a part that begins and one that ends in the hole */
    for (int i = 0; i < 3; i++) {
        qtest_memset(d.qts, start, GUEST_BYTE, size);
        balloon_send(&d, BALLOON_VQ_FIRST_OPTIONAL, (BalloonSeg[]) {
            { start + i * BALLOON_PAGE, size - 2 * i * BALLOON_PAGE, true },
            { SECRET - BALLOON_PAGE, 2 * BALLOON_PAGE, true },
        }, 1 + i % 2);
        assert_no_secret(&d, start, size);
    }
    balloon_quit(&d);
}

static unsigned count_lines(const char *path)
{
    g_autofree char *text = NULL;
    unsigned n = 0;

    if (g_file_get_contents(path, &text, NULL, NULL)) {
        for (char *at = text; (at = strchr(at, '\n')); at++) {
            n++;
        }
    }
    return n;
}

/* A report of what is no memory, in as many pieces as there may be */
static void send_bad_report(BalloonDriver *d)
{
    BalloonSeg segs[32];

    for (int i = 0; i < ARRAY_SIZE(segs); i++) {
        segs[i] = (BalloonSeg) { 0x100001 + i * 8, 7 + i, true };
    }
    balloon_send(d, BALLOON_VQ_REPORT, segs, ARRAY_SIZE(segs));
}

/* What a driver does wrong is a line a request, not one a page */
static void test_log(void)
{
    g_autofree char *log = make_name("log");
    g_autofree char *options = g_strdup_printf(
        BALLOON_HOSTILE_OPTIONS "-d guest_errors -D %s", log);
    uint32_t pfns[1000];
    uint64_t list;
    unsigned requests = 0;
    BalloonDriver d;

    balloon_boot(&d, BALLOON_HOSTILE_DEVICE, options);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    for (int i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = 0xffffff00 - 2 * i;
    }
    list = balloon_copy(&d, pfns, sizeof(pfns));
    for (int queue = BALLOON_VQ_INFLATE; queue <= BALLOON_VQ_DEFLATE;
         queue++) {
        balloon_send_one(&d, queue, list, sizeof(pfns), false);
        balloon_send_one(&d, queue, list, sizeof(pfns) - 3, false);
        balloon_send_one(&d, queue, list, sizeof(pfns), true);
        requests += 3;
        g_assert_cmpuint(count_lines(log), <=, requests);
    }
    send_bad_report(&d);
    balloon_send_one(&d, BALLOON_VQ_HINT, list, sizeof(pfns), true);
    requests += 2;
    g_assert_cmpuint(count_lines(log), <=, requests);
    /* Of two lists for statistics, the first comes back */
    balloon_post_free_memory(&d, 1, 25);
    balloon_send_one(&d, BALLOON_VQ_HINT, list, sizeof(pfns), true);
    requests += 2;
    g_assert_cmpuint(count_lines(log), <=, requests);
    balloon_quit(&d);
    unlink(log);
}

void balloon_add_hostile_memory_tests(void)
{
    qtest_add_func("/virtio-balloon/memory/private-file",
                   test_private_file);
    qtest_add_func("/virtio-balloon/memory/log", test_log);
}
