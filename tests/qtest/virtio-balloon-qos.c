/*
 * Tests of the virtio balloon on any transport
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest-single.h"
#include "libqos/qgraph.h"
#include "libqos/virtio-balloon.h"
#include "virtio-balloon-case.h"

static void run_test(void *obj, void *data, QGuestAllocator *alloc)
{
    QVirtioBalloon *balloon = obj;
    const BalloonTest *test = data;
    BalloonDriver d;

    balloon_attach(&d, global_qtest, balloon->vdev, alloc);
    if (!test->unstarted) {
        balloon_start(&d, BALLOON_ALL_FEATURES);
    }
    test->run(&d);
    balloon_reset(&d);
    /* Statistics survive that: the next test needs a new machine */
    qos_invalidate_command_line();
}

void balloon_add_qos_tests(const BalloonTest *tests, unsigned n,
                           const char *properties)
{
    for (unsigned i = 0; i < n; i++) {
        qos_add_test(tests[i].path, "virtio-balloon", run_test,
                     &(QOSGraphTestOptions) {
                         .edge.extra_device_opts = properties,
                         .arg = (void *)&tests[i],
                     });
    }
}
