/*
 * A driver for the virtio balloon, for tests
 *
 * It can do what a real driver does, and everything that a real driver must
 * not do.  Whatever it waits for has a deadline; a test fails when that passes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_DRIVER_H
#define TESTS_VIRTIO_BALLOON_DRIVER_H

#include "libqtest.h"
#include "libqos/libqos-malloc.h"
#include "libqos/libqos-pc.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_balloon.h"

/* The number of the balloon page at an address */
#define BALLOON_PFN(addr) ((uint32_t)((addr) >> VIRTIO_BALLOON_PFN_SHIFT))

/* Can discards be coordinated with assigned devices? */
#define CAN_COORDINATE true

/* What is in guest memory at first, and what the guest writes later */
#define OLD 0xa5
#define NEW 0x33

/* Where the PCI device is */
#define BALLOON_SLOT 4

/* A balloon page, whatever the page sizes of guest and host */
#define BALLOON_PAGE 4096

/* Offsets into the config space (virtio 1.2, section 5.5.4) */
#define BALLOON_CFG_NUM_PAGES 0
#define BALLOON_CFG_ACTUAL 4
#define BALLOON_CFG_CMD_ID 8
#define BALLOON_CFG_POISON 12

/* Queues by number; reporting comes after hinting, if that is offered, too */
#define INFLATE 0
#define DEFLATE 1
#define STATS 2
#define HINT 3
#define REPORT 3
#define REPORT_TOO 4
#define BALLOON_VQ_MAX 5

/* For what takes moments, but with sanitizers and beside other work */
#define BALLOON_TIMEOUT_US (180 * G_USEC_PER_SEC)

/* What stays as it is for so long stays: no discard is put off for longer */
#define BALLOON_STAYS_US (G_USEC_PER_SEC / 2)

/* The status of a device that found a fault in its ring (section 2.1) */
#define BALLOON_STATUS_BROKEN 0x4f

/* All features that this driver knows, for balloon_start() */
#define BALLOON_ALL_FEATURES (~0ull)
/* ... with indirect descriptors, which are left out otherwise */
#define BALLOON_INDIRECT_TOO (BALLOON_ALL_FEATURES >> 1)

typedef struct BalloonDriver {
    QTestState *qts;
    QVirtioDevice *vdev;
    QGuestAllocator *alloc;
    QVirtQueue *vq[BALLOON_VQ_MAX];
    /* of a machine that balloon_boot() made */
    QOSState *machine;
    QVirtioPCIDevice *pci;
    const char *device;
    const char *options;
    /* what a test is run with, see BalloonTest */
    const void *data;
} BalloonDriver;

/* One segment of a request; @write: the device is to write it */
typedef struct BalloonSeg {
    uint64_t addr;
    uint32_t len;
    bool write;
} BalloonSeg;

/* Waits, with a deadline, until @cond, which asks QEMU something, is true */
#define balloon_wait_for(cond)                                          \
    do {                                                                \
        gint64 end_ = g_get_monotonic_time() + BALLOON_TIMEOUT_US;      \
        while (!(cond)) {                                               \
            g_assert_cmpint(g_get_monotonic_time(), <, end_);           \
        }                                                               \
    } while (0)

/* Use the device of a machine that somebody else made; it has been reset */
void balloon_attach(BalloonDriver *d, QTestState *qts, QVirtioDevice *vdev,
                    QGuestAllocator *alloc);

/*
 * Let the module @name, of the folder of the test program, be loaded into each
 * QEMU from now on; NULL ends that
 */
void balloon_preload(const char *name);

/**
 * balloon_boot: make a PC, or pseries, with a balloon named balloon0
 * @device: the device and its properties, as for -device
 * @options: the rest of the command line
 */
void balloon_boot(BalloonDriver *d, const char *device, const char *options);

/* One that waits to be migrated to, or loaded; it has no driver */
void balloon_boot_incoming(BalloonDriver *d, const char *device,
                           const char *options);

/* Find the PCI balloon in its slot, or elsewhere, and reset it */
void balloon_find(BalloonDriver *d);
void balloon_find_at(BalloonDriver *d, int devfn);

/* Forget the device, which may have gone, and its queues, if there are any */
void balloon_lose(BalloonDriver *d);

/* End what balloon_boot() made */
void balloon_quit(BalloonDriver *d);

/* Stop the VM, and let it go on */
void balloon_stop(BalloonDriver *d);
void balloon_cont(BalloonDriver *d);

/**
 * balloon_negotiate: from reset to FEATURES_OK
 * @wanted: features to accept, if they are offered
 *
 * Event index and, unless it is wanted by itself, indirect descriptors are
 * left out.  Returns: the features offered.
 */
uint64_t balloon_negotiate(BalloonDriver *d, uint64_t wanted);

/* Set up all queues that there are */
void balloon_setup_queues(BalloonDriver *d);

/* Everything up to DRIVER_OK.  Returns: the features offered */
uint64_t balloon_start(BalloonDriver *d, uint64_t wanted);

/* Reset the device and forget the queues */
void balloon_reset(BalloonDriver *d);
/* ... for the next driver, which starts it again */
void balloon_restart(BalloonDriver *d);

/* Take a queue from the device (section 2.6.1), and give it a new one */
void balloon_reset_queue(BalloonDriver *d, int index);
void balloon_renew_queue(BalloonDriver *d, int index);
/* Tell the PCI device where the ring of a queue is, which has been moved */
void balloon_place_ring(BalloonDriver *d, int index);

/* May the PCI device access memory?  If not, its driver does not run, either */
void balloon_set_bus_master(BalloonDriver *d, bool on);

/* How many entries the ring of queue @index has; 0 if there is no such queue */
unsigned balloon_queue_size(BalloonDriver *d, int index);

uint8_t balloon_status(BalloonDriver *d);
/* The device has found no fault */
void balloon_assert_well(BalloonDriver *d);
/* Wait until it has found a fault; the status of a legacy device is silent */
void balloon_wait_broken(BalloonDriver *d);

/* Config accesses; 32-bit ones are little endian on every transport */
uint8_t balloon_readb(BalloonDriver *d, unsigned offset);
uint32_t balloon_readl(BalloonDriver *d, unsigned offset);
void balloon_writeb(BalloonDriver *d, unsigned offset, uint8_t value);
void balloon_writew(BalloonDriver *d, unsigned offset, uint16_t value);
void balloon_writel(BalloonDriver *d, unsigned offset, uint32_t value);

/* Wait for a config interrupt; there was no other since the last wait */
void balloon_wait_config_interrupt(BalloonDriver *d);

/* Guest memory that nothing else uses, filled with @byte */
uint64_t balloon_alloc(BalloonDriver *d, uint64_t size, uint8_t byte);
/* Guest memory with a copy of @data */
uint64_t balloon_copy(BalloonDriver *d, const void *data, uint64_t size);
/* All of that memory has the value @byte */
void balloon_assert_bytes(BalloonDriver *d, uint64_t addr, uint64_t size,
                          uint8_t byte);

/* Has it, as far as anyone can tell now? */
bool balloon_has_bytes(BalloonDriver *d, uint64_t addr, uint64_t size,
                       uint8_t byte);
/* It has, and keeps it for BALLOON_STAYS_US */
void balloon_assert_stays(BalloonDriver *d, uint64_t addr, uint64_t size,
                          uint8_t byte);

/* Some balloon pages of guest memory, full of data */
uint64_t balloon_dirty_pages(BalloonDriver *d, unsigned pages);
/*
 * What has become of them, one letter each: '0' for a page that reads as zero,
 * 'x' for one that has its data.
 */
void balloon_assert_pages(BalloonDriver *d, uint64_t addr, const char *map);

/* Values as they stand in a request: little endian, or the guest's if legacy */
uint16_t balloon_wire16(BalloonDriver *d, uint16_t value);
uint32_t balloon_wire32(BalloonDriver *d, uint32_t value);
uint64_t balloon_wire64(BalloonDriver *d, uint64_t value);
/* ... and in a ring: write one to @addr */
void balloon_write16(BalloonDriver *d, uint64_t addr, uint16_t value);

/* Guest memory with these numbers of pages as they stand in a request ... */
uint64_t balloon_copy_pfns(BalloonDriver *d, const uint32_t *pfns, unsigned n);
/* ... or with those from @addr on, and 4 bytes of nothing after each */
uint64_t balloon_copy_spread_pfns(BalloonDriver *d, uint64_t addr, unsigned n);

/* Put a request into descriptors.  Returns: the first of them */
uint32_t balloon_add(BalloonDriver *d, int queue, const BalloonSeg *segs,
                     unsigned n);
/* Make the request that starts at @head available, without a kick */
void balloon_publish(BalloonDriver *d, int queue, uint32_t head);
void balloon_kick(BalloonDriver *d, int queue);
/* Is there an entry in the used ring that was not looked at? */
bool balloon_has_used(BalloonDriver *d, int queue);
/* Wait for the request that starts at @head to be used, with length 0 */
void balloon_wait_used(BalloonDriver *d, int queue, uint32_t head);
/* As that, and with an interrupt */
void balloon_wait_served(BalloonDriver *d, int queue, uint32_t head);

/* All requests of the queue have been used: their descriptors are free again */
void balloon_free_descriptors(BalloonDriver *d, int queue);
/* Leave a request; all earlier ones of the queue have been used */
uint32_t balloon_post(BalloonDriver *d, int queue, const BalloonSeg *segs,
                      unsigned n);
/* Leave a request of @n times the same segment */
void balloon_post_same(BalloonDriver *d, int queue, BalloonSeg seg,
                       unsigned n);
/* Leave a request and wait until it is served */
void balloon_send(BalloonDriver *d, int queue, const BalloonSeg *segs,
                  unsigned n);
/* Send a request of one segment */
void balloon_send_one(BalloonDriver *d, int queue, uint64_t addr, uint32_t len,
                      bool write);
/* Send a list of pages */
void balloon_send_pfns(BalloonDriver *d, int queue, const uint32_t *pfns,
                       unsigned n);
/* Leave, or send, the pages of one range, in order */
uint32_t balloon_post_range(BalloonDriver *d, int queue, uint64_t addr,
                            unsigned pages);
void balloon_send_range(BalloonDriver *d, int queue, uint64_t addr,
                        unsigned pages);

/* Send the pages of one range of bytes */
void balloon_inflate(BalloonDriver *d, uint64_t addr, uint64_t size);
void balloon_deflate(BalloonDriver *d, uint64_t addr, uint64_t size);

/*
 * A request that takes many slices: one list of scattered pages, of so many,
 * again and again
 */
#define BALLOON_HUGE_PAGES 512
#define BALLOON_HUGE_PFNS (64 * 1024)
#define BALLOON_HUGE_MAX 64

/* Leave an inflate request with @n such lists of the pages at @addr */
uint32_t balloon_post_huge(BalloonDriver *d, uint64_t addr, unsigned n);

typedef struct BalloonStat {
    uint16_t tag;
    uint64_t value;
} BalloonStat;

/* Statistics as a segment of a request; or of one value, the free memory */
BalloonSeg balloon_copy_stats(BalloonDriver *d, const BalloonStat *stats,
                              unsigned n);
BalloonSeg balloon_stats_seg(BalloonDriver *d, uint64_t value);

/* Leave them */
uint32_t balloon_post_stats_value(BalloonDriver *d, uint64_t value);

/*
 * Leave statistics of one value, the free memory, and wait until they are
 * known.  The device, named balloon0, has no buffer.
 */
uint32_t balloon_leave_stats(BalloonDriver *d, uint64_t value);
/* Polling begins, which returns the buffer @held */
void balloon_begin_polling(BalloonDriver *d, int64_t seconds, uint32_t held);

/* The command id for hints that the driver reads */
uint32_t balloon_cmd_id(BalloonDriver *d);
/* Wait until the device asks for hints.  Returns: the command id */
uint32_t balloon_wait_asked(BalloonDriver *d);
/* Wait until the driver has its hinted pages back */
void balloon_wait_done(BalloonDriver *d);
/* Leave a buffer that is @size bytes of a command id; 4 are a whole one */
uint32_t balloon_post_id(BalloonDriver *d, uint32_t id, uint32_t size);
/* Send a command id, and free pages */
void balloon_send_id(BalloonDriver *d, uint32_t id);
void balloon_hint(BalloonDriver *d, uint64_t addr, uint32_t size);

#endif
