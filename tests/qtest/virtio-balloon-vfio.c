/*
 * What an assigned device of a fake host has mapped, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "virtio-balloon-driver.h"
#include "virtio-balloon-vfio.h"

FakeVfio *balloon_vfio;

static char *folder;
static char *option;

static char *in_folder(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

void balloon_vfio_begin(void)
{
    const size_t size = sizeof(*balloon_vfio);
    g_autofree char *table = NULL, *group = NULL;
    int fd;

    folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    table = in_folder("table");
    group = in_folder("iommu_group");
    g_assert_cmpint(symlink("../42", group), ==, 0);
    fd = open(table, O_RDWR | O_CREAT, 0600);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    balloon_vfio = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert_true(balloon_vfio != MAP_FAILED);
    close(fd);
    option = g_strdup_printf(" -device vfio-pci,id=vfio0,addr=5,sysfsdev=%s ",
                             folder);
    g_setenv(FAKE_VFIO_ENVIRONMENT, table, true);
    balloon_preload("virtio-balloon-fake-vfio.so");
}

void balloon_vfio_end(void)
{
    g_autofree char *table = in_folder("table");
    g_autofree char *group = in_folder("iommu_group");

    balloon_preload(NULL);
    g_unsetenv(FAKE_VFIO_ENVIRONMENT);
    munmap(balloon_vfio, sizeof(*balloon_vfio));
    balloon_vfio = NULL;
    unlink(table);
    unlink(group);
    rmdir(folder);
    g_clear_pointer(&folder, g_free);
    g_clear_pointer(&option, g_free);
}

const char *balloon_vfio_option(void)
{
    return option;
}

uint64_t balloon_vfio_mapped(uint64_t addr, uint64_t size)
{
    const FakeVfio *v = balloon_vfio;
    uint64_t mapped = 0;

    for (uint32_t i = 0; i < v->n; i++) {
        const FakeVfioMapping *m = &v->table[i];
        uint64_t first = MAX(addr, m->iova);
        uint64_t end = MIN(addr + size, m->iova + m->size);

        mapped += first < end ? end - first : 0;
    }
    return mapped;
}
