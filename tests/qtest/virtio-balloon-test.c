/*
 * The virtio balloon in machines of its own
 *
 * What needs no particular machine is tested by virtio-balloon-queue-test.c,
 * -stats-test.c and -report-test.c, on every transport there is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-test.h"

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_balloon_add_command_tests();
    virtio_balloon_add_backing_tests();
    virtio_balloon_add_slice_tests();
    virtio_balloon_add_config_tests();
    virtio_balloon_add_core_tests();
    virtio_balloon_add_transport_tests();
    virtio_balloon_add_packed_tests();
    virtio_balloon_add_roles_tests();
    virtio_balloon_add_life_tests();
    virtio_balloon_add_hint_tests();
    virtio_balloon_add_migration_tests();
    return g_test_run();
}
