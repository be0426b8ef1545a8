/*
 * A host with one PCI device for VFIO, for tests: loaded into QEMU with
 * LD_PRELOAD, it answers what QEMU asks of the kernel
 *
 * The device has a config space, which is memory, and nothing else.  All that
 * QEMU wants to be pinned is pinned, as far as it can tell.
 *
 * What is mapped is kept in a table.  QEMU ends when it maps what is mapped,
 * unmaps a part of what was mapped at once, which the kernel would both refuse,
 * unmaps what is not mapped, or leaves something.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-fake-vfio.h"
#include <dlfcn.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define CONFIG_SIZE 256
#define VENDOR_ID 0x1234
#define DEVICE_ID 0x5678

static int device_fd = -1;

/* A number may be that of a device which was closed */
static int vfio_open(void)
{
    int fd = memfd_create("vfio", MFD_CLOEXEC);

    if (fd == device_fd) {
        device_fd = -1;
    }
    return fd;
}

/* With large files, which QEMU is built for, its name is open64 */
int open(const char *path, int flags, ...)
{
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    va_list ap;
    int mode;

    va_start(ap, flags);
    mode = va_arg(ap, int);
    va_end(ap);
    if (g_str_has_prefix(path, "/dev/vfio/")) {
        return vfio_open();
    }
    return next(path, flags, mode);
}

static int device_open(void)
{
    uint16_t config[CONFIG_SIZE / 2] = { VENDOR_ID, DEVICE_ID };

    device_fd = memfd_create("vfio-device", MFD_CLOEXEC);
    return write(device_fd, config, sizeof(config)) == sizeof(config) ?
        device_fd : -1;
}

static int device_ioctl(unsigned long request, void *arg)
{
    struct vfio_device_info *info = arg;
    struct vfio_region_info *region = arg;

    switch (request) {
    case VFIO_DEVICE_GET_INFO:
        info->flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
        info->num_regions = VFIO_PCI_NUM_REGIONS;
        info->num_irqs = VFIO_PCI_NUM_IRQS;
        return 0;
    case VFIO_DEVICE_GET_REGION_INFO:
        region->flags = VFIO_REGION_INFO_FLAG_READ |
                        VFIO_REGION_INFO_FLAG_WRITE;
        region->size = region->index == VFIO_PCI_CONFIG_REGION_INDEX ?
            CONFIG_SIZE : 0;
        region->offset = 0;
        return 0;
    case VFIO_DEVICE_RESET:
        return 0;
    default:
        errno = ENOTTY;
        return -1;
    }
}

/* The table, which a test may look at; one thread of QEMU uses it at a time */
static FakeVfio *vfio(void)
{
    static FakeVfio *shared;
    const char *path = getenv(FAKE_VFIO_ENVIRONMENT);
    int fd = -1;

    if (!shared) {
        if (path) {
            fd = open(path, O_RDWR, 0);
        }
        shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                      fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                      fd, 0);
        if (fd >= 0) {
            close(fd);
        }
    }
    return shared;
}

static void check(bool fine, const char *fault, uint64_t iova, uint64_t size)
{
    if (!fine) {
        fprintf(stderr, "fake VFIO: %s: 0x%" PRIx64 ", 0x%" PRIx64 " bytes\n",
                fault, iova, size);
        abort();
    }
}

/* The first mapping that ends after @iova */
static uint32_t find(const FakeVfio *v, uint64_t iova)
{
    uint32_t low = 0, high = v->n;

    while (low < high) {
        uint32_t middle = (low + high) / 2;
        const FakeVfioMapping *m = &v->table[middle];

        if (m->iova + m->size > iova) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static int refuse(FakeVfio *v, int error)
{
    v->refused++;
    errno = error;
    return -1;
}

/* Something was refused, and is undone now, though it was not done */
static bool undo;

static int map_dma(const struct vfio_iommu_type1_dma_map *map)
{
    FakeVfio *v = vfio();
    uint32_t i = find(v, map->iova);

    check(map->size && (i == v->n ||
                        map->iova + map->size <= v->table[i].iova),
          "mapped twice", map->iova, map->size);
    undo = true;
    if (v->n == (v->max_mappings ? v->max_mappings : FAKE_VFIO_MAX)) {
        return refuse(v, ENOSPC);
    }
    if (v->max_bytes && v->bytes + map->size > v->max_bytes) {
        return refuse(v, ENOMEM);
    }
    undo = false;
    memmove(&v->table[i + 1], &v->table[i], (v->n - i) * sizeof(v->table[0]));
    v->table[i] = (FakeVfioMapping) { map->iova, map->size };
    v->n++;
    v->bytes += map->size;
    return 0;
}

static int unmap_dma(struct vfio_iommu_type1_dma_unmap *unmap)
{
    FakeVfio *v = vfio();
    uint64_t end = unmap->iova + unmap->size;
    uint32_t first = find(v, unmap->iova);
    uint32_t i = first;
    uint64_t size = 0;

    for (; i < v->n && v->table[i].iova < end; i++) {
        const FakeVfioMapping *m = &v->table[i];

        check(m->iova >= unmap->iova && m->iova + m->size <= end,
              "a part unmapped", m->iova, m->size);
        size += m->size;
    }
    check(undo || size == unmap->size, "unmapped what is not mapped",
          unmap->iova, unmap->size);
    memmove(&v->table[first], &v->table[i], (v->n - i) * sizeof(v->table[0]));
    v->n -= i - first;
    v->bytes -= size;
    unmap->size = size;
    return 0;
}

static int unset_container(void)
{
    FakeVfio *v = vfio();

    check(!v->n, "left", v->table[0].iova, v->bytes);
    return 0;
}

static int container_ioctl(unsigned long request, void *arg)
{
    struct vfio_group_status *status = arg;
    struct vfio_iommu_type1_info *info = arg;

    switch (request) {
    case VFIO_GET_API_VERSION:
        return VFIO_API_VERSION;
    case VFIO_CHECK_EXTENSION:
        return (uintptr_t)arg == VFIO_TYPE1v2_IOMMU;
    case VFIO_GROUP_GET_STATUS:
        status->flags = VFIO_GROUP_FLAGS_VIABLE;
        return 0;
    case VFIO_GROUP_GET_DEVICE_FD:
        return device_open();
    case VFIO_IOMMU_GET_INFO:
        info->flags = VFIO_IOMMU_INFO_PGSIZES;
        info->iova_pgsizes = 4096;
        return 0;
    case VFIO_GROUP_SET_CONTAINER:
    case VFIO_SET_IOMMU:
        return 0;
    case VFIO_GROUP_UNSET_CONTAINER:
        return unset_container();
    case VFIO_IOMMU_MAP_DMA:
        return map_dma(arg);
    case VFIO_IOMMU_UNMAP_DMA:
        return unmap_dma(arg);
    default:
        errno = ENOTTY;
        return -1;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (_IOC_TYPE(request) != VFIO_TYPE) {
        return next(fd, request, arg);
    }
    return fd == device_fd ? device_ioctl(request, arg) :
                             container_ioctl(request, arg);
}
