/*
 * A fuzzer that speaks the queues of the virtio balloon
 *
 * An input is a program: a byte says what to do, those after it how.  Reading
 * beyond its end gives zeroes, so every input is a valid program.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_FUZZ_H
#define TESTS_VIRTIO_BALLOON_FUZZ_H

#include "tests/qtest/libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_balloon.h"

#define FUZZ_RAM_SIZE (16 * MiB)

/* Where the rings are, and where requests are put together */
#define FUZZ_RINGS (1 * MiB)
#define FUZZ_ARENA (2 * MiB)
#define FUZZ_ARENA_END (4 * MiB)

/* The pages that are given up and taken back: two huge pages of the host */
#define FUZZ_PAGES_START (4 * MiB)
#define FUZZ_PAGE_SIZE 4096
#define FUZZ_PAGES 1024

enum { VQ_INFLATE, VQ_DEFLATE, VQ_STATS, VQ_HINT, VQ_REPORT, VQ_MAX };

/* Rings are small, so that they wrap */
#define FUZZ_RING_SIZE 64
/* The most segments in a request that is not raw */
#define FUZZ_SEGS 16

typedef struct FuzzInput {
    const uint8_t *data;
    size_t size;
} FuzzInput;

typedef struct FuzzQueue {
    /* what an index says next: of a descriptor, of the avail ring */
    uint16_t next;
    uint16_t avail;
    /* packed rings: the wrap counter; where the last request begins */
    bool wrap;
    uint16_t head;
    bool head_wrap;
} FuzzQueue;

typedef struct FuzzSeg {
    uint64_t addr;
    uint32_t len;
    bool write;
} FuzzSeg;

typedef struct FuzzBalloon {
    QTestState *qts;
    QVirtioPCIDevice *pci;
    /* the registers of the legacy interface */
    QPCIBar legacy;
    /* guest memory from address 0 */
    uint8_t *ram;
    uint64_t features;
    FuzzQueue queue[VQ_MAX];
    uint64_t arena;
    /* what the host may do: migrate, reset the machine, save and load */
    bool host_ops;

    /*
     * Pages that must keep their contents, because no request since the last
     * reset named them, or they were taken back.  Nothing is known if @sane is
     * false: what the device was told is not what this program thinks.
     */
    bool kept[FUZZ_PAGES];
    bool sane;
} FuzzBalloon;

static inline uint8_t fuzz_u8(FuzzInput *in)
{
    if (!in->size) {
        return 0;
    }
    in->size--;
    return *in->data++;
}

static inline uint16_t fuzz_u16(FuzzInput *in)
{
    uint8_t low = fuzz_u8(in);

    return low | fuzz_u8(in) << 8;
}

static inline uint32_t fuzz_u32(FuzzInput *in)
{
    uint32_t low = fuzz_u16(in);

    return low | (uint32_t)fuzz_u16(in) << 16;
}

/* --- virtio_balloon_fuzz_clock.c: the host's clock ----------------------- */

/* Let @ns pass at once */
void fuzz_clock_jump(int64_t ns);
/* Let @ns pass whenever anybody looks at the clock */
void fuzz_clock_drag(int64_t ns);

/* --- virtio_balloon_fuzz_pages.c: what must not change -------------------- */

void fuzz_pages_init(FuzzBalloon *f);
/* A request names @n pages from @addr on, whatever lies there */
void fuzz_pages_name(FuzzBalloon *f, uint64_t addr, uint64_t n);
/* The guest uses pages from number @first on again */
void fuzz_pages_use(FuzzBalloon *f, unsigned first, unsigned n);
/* Whoever drives the device next has all pages */
void fuzz_pages_use_all(FuzzBalloon *f);
void fuzz_pages_check(FuzzBalloon *f);

/* --- virtio_balloon_fuzz_driver.c: a driver ------------------------------- */

void fuzz_driver_init(FuzzBalloon *f, QVirtioPCIDevice *pci, QTestState *qts);
/* Reset the device */
void fuzz_driver_reset(FuzzBalloon *f);
/* From reset to DRIVER_OK, with @features of those offered */
void fuzz_driver_start(FuzzBalloon *f, uint64_t features);
/* Set a queue up; the three parts of its ring are at @ring */
void fuzz_driver_set_up_queue(FuzzBalloon *f, unsigned index,
                              const uint64_t ring[3]);
void fuzz_driver_usual_ring(unsigned index, uint64_t ring[3]);
/* Access a field of the common, or the balloon's, configuration */
uint32_t fuzz_common_read(FuzzBalloon *f, unsigned offset, unsigned size);
void fuzz_common_write(FuzzBalloon *f, unsigned offset, unsigned size,
                       uint32_t value);
uint32_t fuzz_config_read(FuzzBalloon *f, unsigned offset, unsigned size);
void fuzz_config_write(FuzzBalloon *f, unsigned offset, unsigned size,
                       uint32_t value);
void fuzz_legacy_write(FuzzBalloon *f, unsigned offset, unsigned size,
                       uint32_t value);
/* Put data where the device can read it.  Returns: its address */
uint64_t fuzz_put(FuzzBalloon *f, const void *data, size_t size);
/* Make a request available */
void fuzz_add(FuzzBalloon *f, unsigned queue, const FuzzSeg *segs, unsigned n,
              bool indirect);
void fuzz_kick(FuzzBalloon *f, unsigned queue);
/* Have all requests of the queue been answered? */
bool fuzz_is_idle(FuzzBalloon *f, unsigned queue);

/* --- virtio_balloon_fuzz_host.c: what the host does ----------------------- */

/* Let QEMU's main loop turn @n times */
void fuzz_run(unsigned n);
/* The balloon's target, polling, stop and cont, and more if host_ops is set */
void fuzz_host_op(FuzzBalloon *f, FuzzInput *in);
/* The VM runs, nothing migrates */
void fuzz_host_settle(FuzzBalloon *f);
void fuzz_host_init(FuzzBalloon *f);

#endif /* TESTS_VIRTIO_BALLOON_FUZZ_H */
