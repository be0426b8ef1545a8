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
 * Set a new target: @target is the memory, in bytes, to leave to the guest,
 * always greater than zero.  Called with the BQL held.
 */
typedef void (QEMUBalloonEvent)(void *opaque, ram_addr_t target);

/*
 * Fill in @info, which arrives zeroed.  Called with the BQL held.
 */
typedef void (QEMUBalloonStatus)(void *opaque, BalloonInfo *info);

/**
 * qemu_add_balloon_handler: become the machine's balloon
 * @event_func: called for each new target
 * @stat_func: called for each query
 * @opaque: passed to both, and names the provider on removal
 *
 * The caller holds the BQL.
 *
 * Returns: 0, or -EBUSY when the machine has a balloon already; the balloon
 * that is there is not affected.
 */
int qemu_add_balloon_handler(QEMUBalloonEvent *event_func,
                             QEMUBalloonStatus *stat_func, void *opaque);

/**
 * qemu_remove_balloon_handler: stop being the machine's balloon
 * @opaque: as given to qemu_add_balloon_handler()
 *
 * Does nothing when @opaque is not the current balloon, so that a device may
 * call it on any way out.  The caller holds the BQL.
 */
void qemu_remove_balloon_handler(void *opaque);

#endif /* SYSTEM_BALLOON_H */
