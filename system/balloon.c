/*
 * The machine's memory balloon: one provider, driven by QMP and HMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qmp/qerror.h"
#include "system/balloon.h"
#include "system/kvm.h"
#include "trace.h"

/* The one balloon of this machine; @opaque is NULL while there is none.  BQL */
static struct {
    QEMUBalloonEvent *set_target;
    QEMUBalloonStatus *get_info;
    void *opaque;
} provider;

int qemu_add_balloon_handler(QEMUBalloonEvent *event_func,
                             QEMUBalloonStatus *stat_func, void *opaque)
{
    if (provider.opaque) {
        return -EBUSY;
    }
    provider.set_target = event_func;
    provider.get_info = stat_func;
    provider.opaque = opaque;
    return 0;
}

void qemu_remove_balloon_handler(void *opaque)
{
    if (provider.opaque == opaque) {
        provider.opaque = NULL;
    }
}

/* The error classes are what management tells "unsupported" from "failed" by */
static bool balloon_usable(Error **errp)
{
    if (kvm_enabled() && !kvm_has_sync_mmu()) {
        error_set(errp, ERROR_CLASS_KVM_MISSING_CAP,
                  "This host's KVM does not follow changes of the memory map,"
                  " which a balloon needs");
        return false;
    }
    if (!provider.opaque) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_ACTIVE,
                  "No balloon device has been activated");
        return false;
    }
    return true;
}

BalloonInfo *qmp_query_balloon(Error **errp)
{
    BalloonInfo *info;

    if (!balloon_usable(errp)) {
        return NULL;
    }
    info = g_new0(BalloonInfo, 1);
    provider.get_info(provider.opaque, info);
    return info;
}

void qmp_balloon(int64_t value, Error **errp)
{
    if (!balloon_usable(errp)) {
        return;
    }
    if (value <= 0) {
        error_setg(errp, QERR_INVALID_PARAMETER_VALUE, "value", "a size");
        return;
    }
    trace_balloon_target(provider.opaque, value);
    provider.set_target(provider.opaque, value);
}
