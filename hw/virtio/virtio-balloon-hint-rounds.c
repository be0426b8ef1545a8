/*
 * Virtio balloon: the rounds of free page hints (section 5.5.6.5)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "block/aio.h"
#include "exec/ram_addr.h"
#include "exec/ramblock.h"
#include "migration/misc.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-balloon-hint-rounds.h"

/* Smaller ids are reserved: 0 means stop, 1 means done */
#define CMD_ID_MIN 0x80000000

/* The values are migrated */
typedef enum HintingState {
    HINTING_STOP = 0,       /* nothing is asked for; hints are ignored */
    HINTING_REQUESTED = 1,  /* asked for under the current id, not begun */
    HINTING_START = 2,      /* hints arrive under the current id */
    HINTING_DONE = 3,       /* the driver may have its pages back */
} HintingState;

static const char *const state_names[] = {
    "stop", "requested", "start", "done",
};

struct BalloonHints {
    QemuMutex lock;
    /*
     * registered as long as this exists, which may be longer than the device: a
     * worker may still be applying hints
     */
    NotifierWithReturn precopy;

    /* All that follows is protected by @lock */
    /* NULL when it has been unplugged; set under the BQL as well */
    VirtIOBalloon *dev;
    HintingState state;
    uint32_t cmd_id;
    /* the driver was asked since it was last told that migration is over */
    bool asked;
    /* the current round; hints that were popped in an earlier one are void */
    unsigned round;
    /* a hint is being applied; @idle says when that is over */
    bool applying;
    QemuCond idle;
    unsigned refs;
};

static int balloon_hints_precopy_notify(NotifierWithReturn *n, void *data,
                                        Error **errp);

BalloonHints *balloon_hints_new(VirtIOBalloon *s)
{
    BalloonHints *hints = g_new0(BalloonHints, 1);

    qemu_mutex_init(&hints->lock);
    qemu_cond_init(&hints->idle);
    hints->dev = s;
    hints->cmd_id = CMD_ID_MIN - 1;
    hints->refs = 1;
    hints->precopy.notify = balloon_hints_precopy_notify;
    precopy_add_notifier(&hints->precopy);
    return hints;
}

BalloonHints *balloon_hints_ref(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    hints->refs++;
    return hints;
}

void balloon_hints_unref(BalloonHints *hints)
{
    unsigned refs;

    WITH_QEMU_LOCK_GUARD(&hints->lock) {
        refs = --hints->refs;
    }
    if (!refs) {
        precopy_remove_notifier(&hints->precopy);
        qemu_cond_destroy(&hints->idle);
        qemu_mutex_destroy(&hints->lock);
        g_free(hints);
    }
}

/* A bottom half notifies the guest: @lock is held here, maybe not the BQL */
static void balloon_hints_set_state_locked(BalloonHints *hints,
                                           HintingState state)
{
    if (state != hints->state) {
        trace_virtio_balloon_hinting_state(state_names[hints->state],
                                           state_names[state], hints->cmd_id);
        hints->state = state;
        if (hints->dev) {
            qemu_bh_schedule(hints->dev->hinting.changed);
        }
    }
}

/* End the round: hints that were taken from the ring are void */
static void balloon_hints_end_round_locked(BalloonHints *hints,
                                           HintingState state)
{
    hints->round++;
    balloon_hints_set_state_locked(hints, state);
}

/* Have migration send memory that a hint had it skip */
static void balloon_hint_undo(const struct iovec *iov)
{
    ram_addr_t offset;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    rb = qemu_ram_block_from_host(iov->iov_base, false, &offset);
    if (rb) {
        cpu_physical_memory_set_dirty_range(rb->offset + offset, iov->iov_len,
                                            1 << DIRTY_MEMORY_MIGRATION);
    }
}

void balloon_hints_apply(BalloonHints *hints, unsigned round,
                         const struct iovec *iov)
{
    bool undo;

    WITH_QEMU_LOCK_GUARD(&hints->lock) {
        if (hints->round != round) {
            return;
        }
        hints->applying = true;
    }

    qemu_guest_free_page_hint(iov->iov_base, iov->iov_len);

    WITH_QEMU_LOCK_GUARD(&hints->lock) {
        undo = hints->round != round;
        if (undo) {
            balloon_hint_undo(iov);
        }
        hints->applying = false;
        qemu_cond_broadcast(&hints->idle);
    }
    trace_virtio_balloon_hinting_apply((uintptr_t)iov->iov_base,
                                       iov->iov_len, undo);
}

void balloon_hints_receive_id(BalloonHints *hints, uint32_t id)
{
    QEMU_LOCK_GUARD(&hints->lock);

    if (id == hints->cmd_id) {
        if (hints->state == HINTING_REQUESTED) {
            balloon_hints_set_state_locked(hints, HINTING_START);
        }
    } else if (hints->state == HINTING_START) {
        balloon_hints_set_state_locked(hints, HINTING_STOP);
    }
}

bool balloon_hints_started(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    return hints->state == HINTING_START;
}

uint32_t balloon_hints_cmd_id(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    switch (hints->state) {
    case HINTING_REQUESTED:
    case HINTING_START:
        return hints->cmd_id;
    case HINTING_DONE:
        return VIRTIO_BALLOON_CMD_ID_DONE;
    default:
        return VIRTIO_BALLOON_CMD_ID_STOP;
    }
}

/* Ask for hints under a new id, if there is a driver that gives any */
static void balloon_hints_request(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    VirtIODevice *vdev = VIRTIO_DEVICE(hints->dev);

    /* Postcopy would wait for ever for a page that was never sent */
    if (vdev && (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
        virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_FREE_PAGE_HINT) &&
        !migrate_postcopy_ram()) {
        hints->cmd_id = MAX(hints->cmd_id + 1, CMD_ID_MIN);
        hints->asked = true;
        balloon_hints_end_round_locked(hints, HINTING_REQUESTED);
    }
}

/*
 * End the round.  When this returns no hint is being applied, and none will be
 * before the next request.
 */
static void balloon_hints_settle(BalloonHints *hints, HintingState state)
{
    QEMU_LOCK_GUARD(&hints->lock);

    balloon_hints_end_round_locked(hints, hints->asked ? state : hints->state);
    if (state == HINTING_DONE) {
        hints->asked = false;
    }
    while (hints->applying) {
        qemu_cond_wait(&hints->idle, &hints->lock);
    }
}

/*
 * The VM has stopped for good, so the guest's interrupt must be on its way
 * before the devices are saved, not when the main loop gets to it.
 */
static void balloon_hints_tell_now(BalloonHints *hints)
{
    if (bql_locked() && hints->dev) {
        qemu_bh_cancel(hints->dev->hinting.changed);
        virtio_notify_config(VIRTIO_DEVICE(hints->dev));
    }
}

/*
 * A step of precopy.  Runs in the migration thread, with or without the BQL, or
 * in the main loop, when a snapshot is saved or the guest is throttled.
 *
 * It may wait for the worker to apply one hint, which in turn waits for the
 * lock of the dirty bitmap: who synchronises does not hold that yet.
 */
static int balloon_hints_precopy_notify(NotifierWithReturn *n, void *data,
                                        Error **errp)
{
    BalloonHints *hints = container_of(n, BalloonHints, precopy);
    PrecopyNotifyData *step = data;

    switch (step->reason) {
    case PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC:
        balloon_hints_settle(hints, HINTING_STOP);
        break;
    case PRECOPY_NOTIFY_AFTER_BITMAP_SYNC:
        if (runstate_is_running()) {
            balloon_hints_request(hints);
        } else {
            balloon_hints_settle(hints, HINTING_DONE);
            balloon_hints_tell_now(hints);
        }
        break;
    case PRECOPY_NOTIFY_CLEANUP:
        balloon_hints_settle(hints, HINTING_DONE);
        break;
    default:
        break;
    }
    return 0;
}

unsigned balloon_hints_round(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    return hints->round;
}

void balloon_hints_unplug(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    hints->dev = NULL;
}

void balloon_hints_reset(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    hints->asked = false;
    balloon_hints_end_round_locked(hints, HINTING_STOP);
}

void balloon_hints_void(BalloonHints *hints)
{
    QEMU_LOCK_GUARD(&hints->lock);
    balloon_hints_end_round_locked(hints, hints->state);
}

void balloon_hints_save(BalloonHints *hints, uint32_t *cmd_id, uint32_t *state)
{
    QEMU_LOCK_GUARD(&hints->lock);
    *cmd_id = hints->cmd_id;
    *state = hints->state;
}

bool balloon_hints_load(BalloonHints *hints, uint32_t cmd_id, uint32_t state)
{
    bool done = state != HINTING_STOP;

    QEMU_LOCK_GUARD(&hints->lock);
    hints->cmd_id = MAX(cmd_id, CMD_ID_MIN - 1);
    balloon_hints_end_round_locked(hints, done ? HINTING_DONE : HINTING_STOP);
    return done;
}
