/*
 * Who pins main memory, and what they are told: nobody, and nothing
 *
 * When a listener comes, QEMU 11.1 asks in steps of a granule, from where its
 * memory begins, which need not be where a granule does, what is populated.  A
 * step that has a part of what is discarded is not populated for it, so that it
 * would lack memory that the guest uses.  It says neither that a listener came,
 * nor that it went, nor that it could not have its memory.  So there is no
 * coordinator: balloon_listeners_possible() is all that is called.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "virtio-balloon-listeners.h"

bool balloon_listeners_possible(Error **errp)
{
    error_setg(errp, "coordinated-discards: this QEMU does not let a device"
               " have all of the memory beside what is discarded");
    return false;
}

bool balloon_listeners_any(BalloonCoordinator *c)
{
    return false;
}

uint64_t balloon_listeners_lack(BalloonCoordinator *c)
{
    return 0;
}

void balloon_listeners_retry(BalloonCoordinator *c)
{
}

void balloon_listeners_discard(BalloonCoordinator *c, CoordinatedRegion *r,
                               unsigned long g, unsigned long end)
{
}

int balloon_listeners_populate(BalloonCoordinator *c, CoordinatedRegion *r,
                               unsigned long g)
{
    return 0;
}

void balloon_listeners_attach(BalloonCoordinator *c, CoordinatedRegion *r)
{
}

/* --- as a type, of which QMP makes an object to look at ------------------- */

InterfaceInfo balloon_listeners_interfaces[] = {
    { }
};

void balloon_listeners_class_init(ObjectClass *klass)
{
}

void balloon_listeners_init(BalloonCoordinator *c, BalloonListenersFn *lacking,
                            BalloonListenersFn *none)
{
}

void balloon_listeners_finalize(BalloonCoordinator *c)
{
}
