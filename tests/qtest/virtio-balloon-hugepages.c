/*
 * Huge pages of the host, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/file.h>
#include "libqtest.h"
#include "virtio-balloon-hugepages.h"

#define POOL "/proc/sys/vm/nr_hugepages"

/* How many of the pool are ours */
static int taken;

static int pool_size(void)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(POOL, &text, NULL, NULL) ? atoi(text) : 0;
}

/* Make the pool @pages larger.  Returns: by how many it became larger */
static int pool_grow(int pages)
{
    int fd = open(POOL, O_WRONLY);
    int before, grown;

    if (fd < 0) {
        return 0;
    }
    /* Other tests may run */
    flock(fd, LOCK_EX);
    before = pool_size();
    dprintf(fd, "%d\n", MAX(0, before + pages));
    grown = pool_size() - before;
    close(fd);
    return grown;
}

void balloon_hugepages_restore(void)
{
    if (taken) {
        pool_grow(-taken);
        taken = 0;
        qtest_remove_abrt_handler(&taken);
    }
}

static void restore_aborted(void *data)
{
    pool_grow(-taken);
}

bool balloon_hugepages_take(unsigned pages)
{
    g_assert_cmpint(taken, ==, 0);
    taken = pool_grow(pages);
    if (taken) {
        qtest_add_abrt_handler(restore_aborted, &taken);
    }
    if (taken < pages) {
        balloon_hugepages_restore();
        return false;
    }
    return true;
}
