/*
 * Virtio traditional memory balloon (virtio 1.2, section 5.5)
 *
 * A "balloon page" is 4 KiB of guest-physical memory, the unit of the page
 * frame numbers (PFNs) on the queues, whatever the page size of guest and
 * host.  A "host page" is the smallest unit a RAMBlock can give back.
 *
 * Unless a comment says otherwise, every field is protected by the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_H
#define HW_VIRTIO_BALLOON_H

#include "exec/memory.h"
#include "hw/virtio/virtio.h"
#include "qapi/qapi-types-machine.h"
#include "qemu/notify.h"
#include "qemu/queue.h"
#include "qom/object.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "system/iothread.h"

#define TYPE_VIRTIO_BALLOON "virtio-balloon-device"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOBalloon, VIRTIO_BALLOON)

typedef struct BalloonCoordinator BalloonCoordinator;
typedef struct BalloonRange BalloonRange;
typedef struct BalloonHints BalloonHints;

/* Why bytes that the guest gave up were not discarded */
typedef enum BalloonSkip {
    BALLOON_SKIP_REPEATED,      /* listed before, in the same part of a list */
    BALLOON_SKIP_TAKEN_BACK,    /* by the guest, before their discard */
    BALLOON_SKIP_NOT_RAM,       /* a hole, ROM, MMIO, a device's memory */
    BALLOON_SKIP_PARTIAL,       /* less than a whole host page */
    BALLOON_SKIP_INHIBITED,     /* something in QEMU forbids discards now */
    BALLOON_SKIP_POISON,        /* the pages must keep the poison value */
    BALLOON_SKIP_UNSUPPORTED,   /* this backing cannot give memory back */
    BALLOON_SKIP_REFUSED,       /* the host kernel said no */
    BALLOON_SKIP__MAX
} BalloonSkip;

/* What became of the memory that the guest gave up */
typedef struct BalloonCounts {
    /* what the driver put on the queues, as far as that was dealt with */
    uint64_t inflated_pages;
    uint64_t deflated_pages;
    uint64_t reported;
    /* bytes that the host got back */
    uint64_t discarded;
    /* bytes that wait once more, because the host has them in memory again */
    uint64_t revived;
    /* system calls that it took */
    uint64_t calls;
    /* bytes left alone, by cause */
    uint64_t skipped[BALLOON_SKIP__MAX];
} BalloonCounts;

/* virtio-balloon-discard.c: where guest memory is, and how it goes */
typedef struct VirtIOBalloonDiscard {
    /* names of the RAMBlocks whose failure has been reported to the user */
    GHashTable *warned;
    /*
     * MemoryRegions asked about since the guest's memory changed last, and
     * whether each is a DIMM's or virtio-mem's; @memory tells of changes
     */
    GHashTable *plugged;
    MemoryListener memory;
    /* QEMU ends: nothing is discarded any more, and migration not asked */
    bool exiting;
    Notifier shutdown;
    /* something was seen to inhibit, and may have brought memory back */
    bool was_inhibited;
    /* host ranges of one RAMBlock waiting for a common call, and their bytes */
    RAMBlock *vec_block;
    struct iovec *vec;
    unsigned vec_len;
    /* so many go at a time */
    unsigned vec_max;
    uint64_t vec_bytes;
} VirtIOBalloonDiscard;

/*
 * virtio-balloon-pages.c, -reclaim.c, -migration.c: the pages in the balloon,
 * with MUST_TELL_HOST
 */
typedef struct VirtIOBalloonPages {
    /* BalloonBlock: memory with pages in the balloon; NULL: no such property */
    GPtrArray *blocks;
    /* BalloonStaged: pages of the inflate in progress, the guest's still */
    GArray *staged;
    /* for reclaim, which asks by itself whether it may discard now */
    QEMUTimer *timer;
    /*
     * when pages were last given up, and when the first of those that still
     * wait were; nanoseconds of BALLOON_CLOCK
     */
    int64_t last_insert;
    int64_t first_insert;
    /* block and offset to look at next for pages that came back */
    unsigned look_block;
    uint64_t look_offset;
    /* the machine's, or NULL: tells those who pin memory of discards */
    BalloonCoordinator *coordinator;
    /* told when memory is missing for which the machine is stopped */
    Notifier missing;
    /* discards were seen to be forbidden for what is not coordinated */
    bool was_pinned;
    /* tells that memory leaves the guest */
    MemoryListener memory;
    /* told of each step of precopy */
    NotifierWithReturn precopy;
} VirtIOBalloonPages;

typedef struct VirtIOBalloonQueueOps VirtIOBalloonQueueOps;

/* virtio-balloon-queue.c: a queue of requests, served in bounded slices */
typedef struct VirtIOBalloonQueue {
    VirtIOBalloon *dev;
    /* as numbered by the driver that runs, or NULL: see -roles.c */
    VirtQueue *vq;
    const VirtIOBalloonQueueOps *ops;
    /* goes on with the queue when a slice was used up */
    QEMUTimer *resume;
    /* the request in progress, or NULL */
    VirtQueueElement *elem;
    /* how much of @elem has become ranges; @ops says what this counts */
    size_t offset;
    /* those of its ranges that are being served, from @next_range on */
    BalloonRange *ranges;
    unsigned next_range;
    unsigned n_ranges;
    /* why @elem waits for another try: a negative errno, or 0 */
    int held;
    /* what comes of @elem; added to the device's when it is answered */
    BalloonCounts counts;
} VirtIOBalloonQueue;

/* virtio-balloon-stats.c: the statistics queue (section 5.5.6.3) */
typedef struct VirtIOBalloonStats {
    /* as numbered by the driver that runs, or NULL: see -roles.c */
    VirtQueue *vq;
    /* the driver's buffer, held until news are wanted, or NULL */
    VirtQueueElement *elem;
    /* the next in the ring was held when the VM was saved: it has no news */
    bool rewound;
    /* latest values by tag; all ones where the driver gave none */
    uint64_t values[VIRTIO_BALLOON_S_NR];
    /* when they came: seconds of the host's clock since 1970, 0 for never */
    int64_t last_update;
    /*
     * when they came, and when the driver was asked last, in milliseconds of
     * QEMU_CLOCK_REALTIME, 0 for never; and whether its answer is to come
     */
    int64_t answered_ms;
    int64_t asked_ms;
    bool pending;
    /* seconds between two requests for news, 0 for never */
    uint32_t interval;
    /* armed while the device is realized and @interval is not 0 */
    QEMUTimer *timer;
    /* goes on with a ring that holds more than there was time for */
    QEMUTimer *resume;
} VirtIOBalloonStats;

/* virtio-balloon-state.c: how far the guest follows, and what came of it */
typedef struct VirtIOBalloonState {
    /* as of the last time that anything happened */
    BalloonState now;
    /* what keeps the host from taking memory; BALLOON_INHIBITOR__MAX: none */
    BalloonInhibitor inhibitor;
    /* memory that the guest is to have and cannot have yet, or NULL */
    BalloonHeld *held;
    /* when the guest moved or was asked to: milliseconds of virtual time */
    int64_t moved_ms;
    /* that is long ago */
    bool still;
    /* looks at all this again, sooner or later, or when a device came */
    QEMUTimer *watch;
    DeviceListener devices;
    /* bytes hinted at */
    uint64_t hinted;
} VirtIOBalloonState;

/* virtio-balloon-hint-queue.c: free page hints for migration (5.5.6.5) */
typedef struct VirtIOBalloonHinting {
    /* as numbered by the driver that runs, or NULL: see -roles.c */
    VirtQueue *vq;
    /* property: must be set for hinting, kept alive by the link */
    IOThread *iothread;
    /* NULL when it is off: the protocol's state; shared with threads */
    BalloonHints *hints;
    /* tells the guest, under the BQL, that the command id changed */
    QEMUBH *changed;
    /* goes on with the ring when time was up or the VM runs again */
    QEMUTimer *resume;
    /* the hints that a worker is applying, or NULL */
    struct BalloonHintJob *job;
    /* the command id became another one while the VM was loaded */
    bool retell;
    /* migrated: command id and state, as of the last save or load */
    uint32_t saved_cmd_id;
    uint32_t saved_state;
} VirtIOBalloonHinting;

struct VirtIOBalloon {
    VirtIODevice parent_obj;

    /* properties: VIRTIO_BALLOON_F_* to offer, and the size of config */
    uint32_t host_features;
    bool qemu_4_0_config_size;
    /* property: what no target may be less than, in bytes */
    uint64_t min_size;
    /* properties: tell those who pin memory, of so many bytes; 0 for any */
    bool coordinated_discards;
    uint64_t discard_granule;
    /* property: a deflate waits for the host to have the memory */
    bool populate_on_deflate;

    /* target: balloon pages the guest is asked to give up */
    uint32_t num_pages;
    /* balloon pages the driver says it has given up; not to be trusted */
    uint32_t actual;
    /* what freed pages contain, when PAGE_POISON was negotiated */
    uint32_t poison_val;

    /* a legacy driver has written some bytes of actual, not yet the top one */
    bool actual_incomplete;
    /* those bytes, in place, with the top byte all ones */
    uint32_t actual_written;
    /* config as the driver read it last: new reads are new generations */
    uint8_t config_read[sizeof(struct virtio_balloon_config)];
    /* makes config ready for such bytes again after a read */
    QEMUBH *config_rearm;

    /* since the last reset, the driver was seen to number queues with gaps */
    bool gaps;
    /* queues, a bit each, of which the driver has yet to be notified */
    uint32_t answered;

    /* between reset phases: this is no reset that empties the balloon */
    bool reset_keeps_balloon;

    VirtIOBalloonState state;
    VirtIOBalloonQueue inflate;
    VirtIOBalloonQueue deflate;
    VirtIOBalloonQueue report;
    VirtIOBalloonStats stats;
    VirtIOBalloonHinting hinting;
    VirtIOBalloonPages pages;
    VirtIOBalloonDiscard discard;

    /* of all requests that are answered, and where what is done now counts */
    BalloonCounts counts;
    BalloonCounts *counting;
};

#endif /* HW_VIRTIO_BALLOON_H */
