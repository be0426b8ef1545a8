/*
 * The virtio balloon and a driver that means harm
 *
 * Comments name the section of virtio 1.2 that they test.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-hostile.h"

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    balloon_add_hostile_ring_tests();
    balloon_add_hostile_load_tests();
    balloon_add_hostile_list_tests();
    balloon_add_hostile_parked_tests();
    balloon_add_hostile_packed_tests();
    balloon_add_hostile_migration_tests();
    balloon_add_hostile_memory_tests();
    return g_test_run();
}
