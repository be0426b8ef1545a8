/*
 * Virtio balloon: the rounds of free page hints (section 5.5.6.5)
 *
 * What the device, the migration thread and a worker thread share.  Every
 * function takes the lock inside and may run in any thread, unless its comment
 * says otherwise.  None waits, but for the step of precopy that ends a round.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_HINT_ROUNDS_H
#define HW_VIRTIO_BALLOON_HINT_ROUNDS_H

#include "hw/virtio/virtio-balloon.h"

/* No round yet; follows precopy from now on.  One reference; BQL */
BalloonHints *balloon_hints_new(VirtIOBalloon *s);

BalloonHints *balloon_hints_ref(BalloonHints *hints);

/* The last one stops following precopy.  BQL */
void balloon_hints_unref(BalloonHints *hints);

/* The device is unplugged: there is nobody to notify any more.  BQL */
void balloon_hints_unplug(BalloonHints *hints);

/* The ring goes away: what was taken from it is void */
void balloon_hints_reset(BalloonHints *hints);

/*
 * What was taken from the ring goes back before it was applied: it is void.
 * What the driver gives from now on counts as before.
 */
void balloon_hints_void(BalloonHints *hints);

/* The command id as the driver is to see it (section 5.5.4) */
uint32_t balloon_hints_cmd_id(BalloonHints *hints);

/* The driver begins to answer the current id, or ends with another one */
void balloon_hints_receive_id(BalloonHints *hints, uint32_t id);

/* Do the hints that come now count? */
bool balloon_hints_started(BalloonHints *hints);

/* The number of the round, which changes when hints become void */
unsigned balloon_hints_round(BalloonHints *hints);

/**
 * balloon_hints_apply: have migration skip memory
 * @hints: the rounds
 * @round: balloon_hints_round() when the hint was taken from the ring
 * @iov: whole target pages of one RAMBlock that is migrated
 *
 * Runs in a worker thread that is registered with RCU, without the BQL; it may
 * wait for the migration thread.
 *
 * The guest may have used the memory again when its round ended meanwhile, for
 * whatever reason: then the hint is undone, so that the memory is sent.
 */
void balloon_hints_apply(BalloonHints *hints, unsigned round,
                         const struct iovec *iov);

/* What is migrated */
void balloon_hints_save(BalloonHints *hints, uint32_t *cmd_id,
                        uint32_t *state);

/*
 * Take over what was migrated.  The migration that a round belonged to is not
 * this side's, so the driver may have its pages back.  Returns: true when it
 * has to be told so.
 */
bool balloon_hints_load(BalloonHints *hints, uint32_t cmd_id, uint32_t state);

#endif /* HW_VIRTIO_BALLOON_HINT_ROUNDS_H */
