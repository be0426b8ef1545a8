/*
 * Whose the pages in a virtio balloon are: all tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-pages.h"

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    balloon_add_pages_life_tests();
    balloon_add_pages_paused_tests();
    balloon_add_pages_request_tests();
    balloon_add_pages_migration_tests();
    balloon_add_pages_backing_tests();
    balloon_add_pages_stream_tests();
    return g_test_run();
}
