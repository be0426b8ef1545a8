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

static void run_test(const void *data)
{
    const BalloonTest *test = data;
    BalloonDriver d;

    balloon_boot(&d, test->device, test->options ? test->options :
                                   "-m 128 -object iothread,id=io0");
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

        test->device = test->device ? test->device : device;
        qtest_add_data_func_full(path, test, run_test, g_free);
    }
}

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
