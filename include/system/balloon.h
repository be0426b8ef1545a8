/*
 * The machine's memory balloon: one provider, driven by QMP and HMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_BALLOON_H
#define SYSTEM_BALLOON_H

#include "exec/cpu-common.h"
#include "qapi/qapi-types-machine.h"

/*
 * Set a new target: the memory, in bytes, to leave to the guest, which is
 * greater than zero.  For plain balloons; a ram_addr_t may have 32 bits.
 */
typedef void QEMUBalloonEvent(void *opaque, ram_addr_t target);

/* Fill in @info, which arrives zeroed */
typedef void QEMUBalloonStatus(void *opaque, BalloonInfo *info);

/* What a provider can do.  All are called with the BQL held */
typedef struct QEMUBalloonOps {
    /*
     * Set a new target, in bytes, which is greater than zero and not less than
     * the @min of get_range()
     */
    void (*set_target)(void *opaque, uint64_t target);

    QEMUBalloonStatus *get_info;

    /*
     * The least and the most, in bytes, that a target can come to.  NULL for
     * a provider without limits.
     */
    void (*get_range)(void *opaque, uint64_t *min, uint64_t *max);

    /*
     * The latest statistics of the guest, the caller's to free.  NULL, like
     * the next one, for a provider that has none.
     */
    BalloonStatsInfo *(*get_stats)(void *opaque);

    /*
     * Ask the guest for statistics, and do not wait.  Returns: false, with
     * @errp set, when it cannot give any.
     */
    bool (*request_stats)(void *opaque, Error **errp);
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
 * qemu_balloon_info_text: what `info balloon -v` adds to the size
 * @info: as query-balloon returns it; members that it lacks are left out
 *
 * Returns: lines of text; the caller frees it.
 */
GString *qemu_balloon_info_text(const BalloonInfo *info);

/* Likewise of statistics, as query-balloon-stats returns them */
GString *qemu_balloon_stats_text(const BalloonStatsInfo *info);

#endif /* SYSTEM_BALLOON_H */
