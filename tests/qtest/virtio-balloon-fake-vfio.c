/*
 * A host with one PCI device for VFIO, for tests: loaded into QEMU with
 * LD_PRELOAD, it answers what QEMU asks of the kernel
 *
 * The device has a config space, which is memory, and nothing else.  All that
 * QEMU wants to be pinned is pinned, as far as it can tell.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <dlfcn.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>

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
    case VFIO_GROUP_UNSET_CONTAINER:
    case VFIO_SET_IOMMU:
    case VFIO_IOMMU_MAP_DMA:
    case VFIO_IOMMU_UNMAP_DMA:
        return 0;
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
