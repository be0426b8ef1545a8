/*
 * Tests of a virtio balloon that begin alike, and steps that they take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-steps.h"
#include "standard-headers/linux/virtio_config.h"

static void run_test(const void *data)
{
    const BalloonTest *test = data;
    BalloonDriver d;

    balloon_boot(&d, test->device,
                 test->options ?: "-m 128 -object iothread,id=io0");
    d.data = test->data;
    if (!test->unstarted) {
        balloon_start(&d, BALLOON_ALL_FEATURES);
    }
    test->run(&d);
    balloon_quit(&d);
}

void balloon_add_tests(const char *device, const BalloonTest *tests,
                       unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *path = g_strconcat("/virtio-balloon/", tests[i].path,
                                            NULL);
        BalloonTest *test = g_memdup2(&tests[i], sizeof(tests[i]));

        test->device = test->device ?: device;
        qtest_add_data_func_full(path, test, run_test, g_free);
    }
}

void balloon_assert_serves(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 4);

    balloon_inflate(d, mem + BALLOON_PAGE, 2 * BALLOON_PAGE);
    balloon_assert_pages(d, mem, "x00x");
    balloon_deflate(d, mem + BALLOON_PAGE, 2 * BALLOON_PAGE);
    g_assert_cmphex(balloon_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
    guest_free(d->alloc, mem);
}

uint32_t balloon_wait_asked(BalloonDriver *d)
{
    uint32_t id;

    balloon_wait_for((id = balloon_readl(d, BALLOON_CFG_CMD_ID)) >
                     VIRTIO_BALLOON_CMD_ID_DONE);
    return id;
}

uint32_t balloon_post_id(BalloonDriver *d, uint32_t id, uint32_t size)
{
    uint32_t wire = balloon_wire32(d, id);
    uint64_t addr = balloon_copy(d, &wire, sizeof(wire));

    return balloon_post(d, BALLOON_VQ_HINT, &(BalloonSeg) { addr, size }, 1);
}

void balloon_send_id(BalloonDriver *d, uint32_t id)
{
    balloon_wait_served(d, BALLOON_VQ_HINT,
                        balloon_post_id(d, id, sizeof(id)));
}

char *balloon_temp_name(const char *suffix)
{
    return g_strdup_printf("%s/virtio-balloon-%d-%s", g_get_tmp_dir(),
                           getpid(), suffix);
}

void balloon_patch_state(const char *file, const char *section,
                         unsigned offset, const void *bytes, unsigned n)
{
    g_autofree char *data = NULL;
    char *at;
    gsize size;

    g_assert_true(g_file_get_contents(file, &data, &size, NULL));
    at = memmem(data, size, section, strlen(section));
    g_assert_nonnull(at);
    memcpy(at + strlen(section) + offset, bytes, n);
    g_assert_true(g_file_set_contents(file, data, size, NULL));
}

unsigned balloon_count_in_file(const char *path, const char *what)
{
    g_autofree char *text = NULL;
    unsigned n = 0;

    if (g_file_get_contents(path, &text, NULL, NULL)) {
        for (char *at = text; (at = strstr(at, what)); at++) {
            n++;
        }
    }
    return n;
}
