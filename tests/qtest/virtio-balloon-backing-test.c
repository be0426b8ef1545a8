/*
 * The virtio balloon and what guest memory is made of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-test.h"

#define DEVICE "virtio-balloon-pci,free-page-reporting=on"
#define RAM (128 * MiB)
#define REPORT BALLOON_VQ_FIRST_OPTIONAL

/* What is in a file that is memory */
#define FILE_DATA 0x5a

/* A machine with @backend, which has the id "ram", for its memory */
static void boot(BalloonDriver *d, const char *backend)
{
    g_autofree char *options = g_strdup_printf(
        "-m 128 -machine pc,memory-backend=ram -object %s,id=ram,size=128M",
        backend);

    balloon_boot(d, DEVICE, options);
    /* no PAGE_POISON: what is reported need not read as anything */
    balloon_start(d, 1ull << VIRTIO_BALLOON_F_REPORTING);
}

/* Give up five of ten pages, by either way */
static uint64_t give_up(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 10);

    balloon_send_range(d, BALLOON_VQ_INFLATE, mem + BALLOON_PAGE, 2);
    balloon_send_range(d, BALLOON_VQ_INFLATE, mem + 4 * BALLOON_PAGE, 1);
    balloon_send_one(d, REPORT, mem + 7 * BALLOON_PAGE, 2 * BALLOON_PAGE,
                     true);
    return mem;
}

static void memory(const void *backend)
{
    BalloonDriver d;

    boot(&d, backend);
    balloon_assert_pages(&d, give_up(&d), "x00x0xx00x");
    balloon_quit(&d);
}

/* A file with @more bytes than the RAM */
static char *create_file(size_t more)
{
    g_autofree char *data = g_malloc(RAM + more);
    char *name;
    int fd = g_file_open_tmp("balloon-XXXXXX", &name, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    memset(data, FILE_DATA, RAM + more);
    g_assert_true(g_file_set_contents(name, data, RAM + more, NULL));
    return name;
}

static char *file_backend(const char *name, const char *options)
{
    return g_strdup_printf("memory-backend-file,mem-path=%s,%s", name,
                           options);
}

static void shared_file(void)
{
    g_autofree char *name = create_file(0);
    g_autofree char *backend = file_backend(name, "share=on");
    BalloonDriver d;

    boot(&d, backend);
    balloon_assert_pages(&d, give_up(&d), "x00x0xx00x");
    balloon_quit(&d);
    unlink(name);
}

/* No byte from @from up to @end is another than it was */
static void assert_file_kept(const char *data, gsize from, gsize end)
{
    for (gsize i = from; i < end; i++) {
        g_assert_cmphex(data[i], ==, FILE_DATA);
    }
}

/* Others have the file too: not one byte of it changes */
static void private_file(void)
{
    g_autofree char *name = create_file(0);
    g_autofree char *backend = file_backend(name, "share=off");
    g_autofree char *data = NULL;
    BalloonDriver d;
    uint64_t mem;
    gsize size;

    boot(&d, backend);
    mem = give_up(&d);
    balloon_assert_pages(&d, mem, "x");
    balloon_assert_pages(&d, mem + 3 * BALLOON_PAGE, "x");
    balloon_assert_pages(&d, mem + 5 * BALLOON_PAGE, "xx");
    balloon_assert_pages(&d, mem + 9 * BALLOON_PAGE, "x");
    balloon_quit(&d);

    g_assert_true(g_file_get_contents(name, &data, &size, NULL));
    unlink(name);
    g_assert_cmpuint(size, ==, RAM);
    assert_file_kept(data, 0, size);
}

/* Pages of a file are zeroes, or are not: one letter each */
static void assert_file_pages(const char *data, const char *map)
{
    for (int page = 0; map[page]; page++) {
        bool zero = buffer_is_zero(data + page * BALLOON_PAGE, BALLOON_PAGE);

        g_assert(zero == (map[page] == '0'));
    }
}

/*
 * RAM from the middle of a file, between the data of others: a shared mapping
 * is punched where the guest's pages are, a private one nowhere
 */
static void file_offset(const void *share)
{
    const gsize lead = 2 * MiB, trail = MiB;
    bool shared = strstr(share, "=on");
    g_autofree char *name = create_file(lead + trail);
    g_autofree char *more = g_strdup_printf("offset=%zu,%s", lead,
                                            (char *)share);
    g_autofree char *backend = file_backend(name, more);
    g_autofree char *data = NULL;
    BalloonDriver d;
    uint64_t mem;
    gsize size;

    boot(&d, backend);
    mem = give_up(&d);
    /* The last pages of the RAM, before what is not the guest's */
    balloon_send_range(&d, BALLOON_VQ_INFLATE, RAM - 2 * BALLOON_PAGE, 2);
    if (shared) {
        balloon_assert_pages(&d, mem, "x00x0xx00x");
    }
    balloon_quit(&d);

    g_assert_true(g_file_get_contents(name, &data, &size, NULL));
    unlink(name);
    g_assert_cmpuint(size, ==, lead + RAM + trail);
    assert_file_kept(data, 0, lead);
    assert_file_kept(data, lead + RAM, size);
    if (shared) {
        assert_file_pages(data + lead + mem, "x00x0xx00x");
        assert_file_pages(data + lead + RAM - 4 * BALLOON_PAGE, "xx00");
    } else {
        assert_file_kept(data, lead, lead + RAM);
    }
}

/* What a report does not cover wholly is left alone, the rest is taken */
static void report_unaligned(void)
{
    BalloonDriver d;
    uint64_t mem;

    balloon_boot(&d, DEVICE, "-m 128");
    balloon_start(&d, BALLOON_ALL_FEATURES);
    mem = balloon_dirty_pages(&d, 9);
    balloon_send_one(&d, REPORT, mem + 16, 3 * BALLOON_PAGE, true);
    balloon_assert_pages(&d, mem, "x00xxxxxx");
    balloon_send_one(&d, REPORT, mem + 4 * BALLOON_PAGE,
                     2 * BALLOON_PAGE + 100, true);
    balloon_assert_pages(&d, mem, "x00x00xxx");
    balloon_send_one(&d, REPORT, mem + 7 * BALLOON_PAGE - 1,
                     BALLOON_PAGE + 2, true);
    balloon_assert_pages(&d, mem, "x00x00x0x");
    balloon_quit(&d);
}

void virtio_balloon_add_backing_tests(void)
{
    static const struct {
        const char *name;
        const char *backend;
    } backends[] = {
        { "anonymous", "memory-backend-ram" },
        { "anonymous-shared", "memory-backend-ram,share=on" },
        { "anonymous-no-merge", "memory-backend-ram,merge=off,dump=off" },
        { "memfd", "memory-backend-memfd,share=on" },
        { "memfd-private", "memory-backend-memfd,share=off" },
    };

    for (int i = 0; i < ARRAY_SIZE(backends); i++) {
        g_autofree char *path = g_strconcat(BALLOON_TESTS "backing/",
                                            backends[i].name, NULL);

        qtest_add_data_func(path, backends[i].backend, memory);
    }
    qtest_add_func(BALLOON_TESTS "backing/shared-file", shared_file);
    qtest_add_data_func(BALLOON_TESTS "backing/file-offset/shared",
                        "share=on", file_offset);
    qtest_add_func(BALLOON_IMPROVED "backing/private-file", private_file);
    qtest_add_data_func(BALLOON_IMPROVED "backing/file-offset/private",
                        "share=off", file_offset);
    qtest_add_func(BALLOON_IMPROVED "backing/report-unaligned",
                   report_unaligned);
}
