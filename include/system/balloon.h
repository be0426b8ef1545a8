/*
 * The machine's memory balloon: one provider, driven by QMP and HMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_BALLOON_H
#define SYSTEM_BALLOON_H

#include "qemu/coroutine.h"
#include "qapi/qapi-types-machine.h"

/* What a provider can do.  All are called with the BQL held */
typedef struct QEMUBalloonOps {
    /*
     * Set a new target: the memory, in bytes, to leave to the guest, which is
     * greater than zero and not less than the @min of get_range().
     */
    void (*set_target)(void *opaque, uint64_t target);

    /* The least and the most, in bytes, that a target can come to */
    void (*get_range)(void *opaque, uint64_t *min, uint64_t *max);

    /* Fill in @info, which arrives zeroed */
    void (*get_info)(void *opaque, BalloonInfo *info);

    /*
     * Ask the guest for statistics and wait up to @timeout_ms for them.  The
     * provider may be removed meanwhile.  NULL, with @errp set, on error.
     */
    BalloonStats *coroutine_fn (*query_stats)(void *opaque,
                                              uint32_t timeout_ms,
                                              Error **errp);
} QEMUBalloonOps;

/**
 * qemu_add_balloon_handler: become the machine's balloon
 * @ops: what it can do
 * @opaque: passed to all of @ops, and names the provider on removal
 *
 * The caller holds the BQL.
 *
 * Returns: 0, or -EBUSY when the machine has a balloon already; the balloon
 * that is there is not affected.
 */
int qemu_add_balloon_handler(const QEMUBalloonOps *ops, void *opaque);

/**
 * qemu_remove_balloon_handler: stop being the machine's balloon
 * @opaque: as given to qemu_add_balloon_handler()
 *
 * Does nothing when @opaque is not the current balloon, so that a device may
 * call it on any way out.  The caller holds the BQL.
 */
void qemu_remove_balloon_handler(void *opaque);

#endif /* SYSTEM_BALLOON_H */
