/*
 * The machine's memory balloon: one provider, driven by QMP and HMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_BALLOON_H
#define SYSTEM_BALLOON_H

#include "exec/cpu-common.h"
#include "qemu/coroutine.h"
#include "qapi/qapi-types-machine.h"

/*
 * Set a new target: the memory, in bytes, to leave to the guest, which is
 * greater than zero.
 */
typedef void QEMUBalloonEvent(void *opaque, ram_addr_t target);

/* Fill in @info, which arrives zeroed */
typedef void QEMUBalloonStatus(void *opaque, BalloonInfo *info);

/* What a provider can do.  All are called with the BQL held */
typedef struct QEMUBalloonOps {
    /* Never less than the @min of get_range() */
    QEMUBalloonEvent *set_target;

    QEMUBalloonStatus *get_info;

    /*
     * The least and the most, in bytes, that a target can come to.  NULL for
     * a provider without limits.
     */
    void (*get_range)(void *opaque, uint64_t *min, uint64_t *max);

    /*
     * Ask the guest for statistics and wait up to @timeout_ms for them.  The
     * provider may be removed meanwhile.  NULL, with @errp set, on error.
     * The operation is NULL for a provider that has no statistics.
     */
    BalloonStats *coroutine_fn (*query_stats)(void *opaque,
                                              uint32_t timeout_ms,
                                              Error **errp);
} QEMUBalloonOps;

/**
 * qemu_add_balloon: become the machine's balloon
 * @ops: what it can do; copied
 * @opaque: passed to all of @ops, and names the provider on removal
 *
 * The caller holds the BQL.
 *
 * Returns: 0, or -EBUSY when the machine has a balloon already; the balloon
 * that is there is not affected.
 */
int qemu_add_balloon(const QEMUBalloonOps *ops, void *opaque);

/**
 * qemu_add_balloon_handler: become the machine's balloon, a plain one
 * @event: sets a target
 * @status: tells the size
 * @opaque: passed to both, and names the provider on removal
 *
 * As qemu_add_balloon() with nothing but these operations.
 */
int qemu_add_balloon_handler(QEMUBalloonEvent *event,
                             QEMUBalloonStatus *status, void *opaque);

/**
 * qemu_remove_balloon_handler: stop being the machine's balloon
 * @opaque: as given to qemu_add_balloon() or qemu_add_balloon_handler()
 *
 * Does nothing when @opaque is not the current balloon, so that a device may
 * call it on any way out.  The caller holds the BQL.
 */
void qemu_remove_balloon_handler(void *opaque);

/**
 * qemu_balloon_info_text: what `info balloon` prints
 * @info: as query-balloon returns it; members that it lacks are left out
 *
 * Returns: lines of text; the caller frees it.
 */
GString *qemu_balloon_info_text(const BalloonInfo *info);

#endif /* SYSTEM_BALLOON_H */
