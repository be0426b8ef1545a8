/*
 * What management can ask of the virtio balloon, and have it do
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-manage.h"

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    balloon_add_state_tests();
    balloon_add_counter_tests();
    balloon_add_cause_tests();
    balloon_add_inhibited_tests();
    balloon_add_fresh_stats_tests();
    balloon_add_no_stats_tests();
    balloon_add_limit_tests();
    return g_test_run();
}
