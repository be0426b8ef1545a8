/*
 * The virtio balloon and what guest memory is made of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "virtio-balloon-test.h"

#define REPORTING "virtio-balloon-pci,free-page-reporting=on"
/* So what is reported need not read as anything */
#define NO_POISON REPORTING ",page-poison=off"
#define RAM (128 * MiB)
#define REPORT BALLOON_VQ_FIRST_OPTIONAL

/* A machine with that backend, and its properties, for its memory */
#define MEMORY(backend)                                                 \
    "-m 128 -machine pc,memory-backend=ram "                            \
    "-object memory-backend-" backend ",id=ram,size=128M"

/* What is in a file that is memory */
#define FILE_DATA 0x5a

/* RAM of a file, with bytes of others before and after it */
typedef struct File {
    const char *path;
    bool shared;
    size_t lead;
    size_t trail;
} File;

static const File files[] = {
    { "backing/shared-file", true },
    { "backing/file-offset/shared", true, 2 * MiB, MiB },
    { "improved/backing/private-file", false },
    { "improved/backing/file-offset/private", false, 2 * MiB, MiB },
};

/* Give up five of ten pages, by either way */
#define GIVEN_UP "x00x0xx00x"
static uint64_t give_up(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 10);

    balloon_send_range(d, BALLOON_VQ_INFLATE, mem + BALLOON_PAGE, 2);
    balloon_send_range(d, BALLOON_VQ_INFLATE, mem + 4 * BALLOON_PAGE, 1);
    balloon_send_one(d, REPORT, mem + 7 * BALLOON_PAGE, 2 * BALLOON_PAGE,
                     true);
    return mem;
}

static void memory(BalloonDriver *d)
{
    balloon_assert_pages(d, give_up(d), GIVEN_UP);
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

/* No byte from @from up to @end is another than it was */
static void assert_file_kept(const char *data, gsize from, gsize end)
{
    for (gsize i = from; i < end; i++) {
        g_assert_cmphex(data[i], ==, FILE_DATA);
    }
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
 * RAM of a file, maybe from the middle of it, between the data of others: a
 * shared mapping is punched where the guest's pages are; of a private one
 * others have the file too, and not one byte of it changes
 */
static void file(const void *data)
{
    const File *f = data;
    g_autofree char *name = create_file(f->lead + f->trail);
    g_autofree char *options = g_strdup_printf(
        MEMORY("file,mem-path=%s,offset=%zu,share=%s"), name, f->lead,
        f->shared ? "on" : "off");
    g_autofree char *bytes = NULL;
    BalloonDriver d;
    uint64_t mem;
    gsize size;

    balloon_boot(&d, NO_POISON, options);
    balloon_start(&d, BALLOON_ALL_FEATURES);
    mem = give_up(&d);
    /* The last pages of the RAM, before what is not the guest's */
    balloon_send_range(&d, BALLOON_VQ_INFLATE, RAM - 2 * BALLOON_PAGE, 2);
    for (int page = 0; GIVEN_UP[page]; page++) {
        uint8_t given = f->shared ? 0 : FILE_DATA;

        balloon_assert_bytes(&d, mem + page * BALLOON_PAGE, BALLOON_PAGE,
                             GIVEN_UP[page] == '0' ? given : 0xa5);
    }
    balloon_quit(&d);

    g_assert_true(g_file_get_contents(name, &bytes, &size, NULL));
    unlink(name);
    g_assert_cmpuint(size, ==, f->lead + RAM + f->trail);
    assert_file_kept(bytes, 0, f->lead);
    assert_file_kept(bytes, f->lead + RAM, size);
    if (f->shared) {
        assert_file_pages(bytes + f->lead + mem, GIVEN_UP);
        assert_file_pages(bytes + f->lead + RAM - 4 * BALLOON_PAGE, "xx00");
    } else {
        assert_file_kept(bytes, f->lead, f->lead + RAM);
    }
}

/* What a report does not cover wholly is left alone, the rest is taken */
static void report_unaligned(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 9);

    balloon_send_one(d, REPORT, mem + 16, 3 * BALLOON_PAGE, true);
    balloon_assert_pages(d, mem, "x00xxxxxx");
    balloon_send_one(d, REPORT, mem + 4 * BALLOON_PAGE,
                     2 * BALLOON_PAGE + 100, true);
    balloon_assert_pages(d, mem, "x00x00xxx");
    balloon_send_one(d, REPORT, mem + 7 * BALLOON_PAGE - 1,
                     BALLOON_PAGE + 2, true);
    balloon_assert_pages(d, mem, "x00x00x0x");
}

static const BalloonTest tests[] = {
    { "backing/anonymous", memory, .options = MEMORY("ram") },
    { "backing/anonymous-shared", memory, .options = MEMORY("ram,share=on") },
    { "backing/anonymous-no-merge", memory,
      .options = MEMORY("ram,merge=off,dump=off") },
    { "backing/memfd", memory, .options = MEMORY("memfd,share=on") },
    { "backing/memfd-private", memory, .options = MEMORY("memfd,share=off") },
    { "improved/backing/report-unaligned", report_unaligned, REPORTING },
};

void virtio_balloon_add_backing_tests(void)
{
    balloon_add_tests(NO_POISON, tests, ARRAY_SIZE(tests));
    for (int i = 0; i < ARRAY_SIZE(files); i++) {
        g_autofree char *path = g_strconcat("/virtio-balloon/", files[i].path,
                                            NULL);

        qtest_add_data_func(path, &files[i], file);
    }
}
