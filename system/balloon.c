/*
 * The machine's memory balloon: one provider, driven by QMP and HMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qmp/qerror.h"
#include "system/balloon.h"
#include "system/kvm.h"
#include "trace.h"

/* A query for statistics keeps the monitor from other commands: milliseconds */
#define QUERY_MAX_MS 60000

/* The one balloon of this machine; @opaque is NULL while there is none.  BQL */
static struct {
    const QEMUBalloonOps *ops;
    void *opaque;
} provider;

int qemu_add_balloon_handler(const QEMUBalloonOps *ops, void *opaque)
{
    if (provider.opaque) {
        return -EBUSY;
    }
    provider.ops = ops;
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
    provider.ops->get_info(provider.opaque, info);
    return info;
}

BalloonStats *coroutine_fn qmp_query_balloon_stats(int64_t timeout,
                                                   Error **errp)
{
    if (!balloon_usable(errp)) {
        return NULL;
    }
    if (timeout < 1 || timeout > QUERY_MAX_MS) {
        error_setg(errp, "Parameter 'timeout' expects milliseconds from 1 to"
                   " %d", QUERY_MAX_MS);
        return NULL;
    }
    return provider.ops->query_stats(provider.opaque, timeout, errp);
}

/* For people; programs can ask for the limits */
static void append_range(Error **errp, uint64_t min, uint64_t max)
{
    g_autofree char *least = size_to_str(min);
    g_autofree char *most = size_to_str(max);

    error_append_hint(errp, min ? "The guest can be left with %s to %s.\n" :
                      "The guest can be left with more than %s, up to %s.\n",
                      least, most);
}

void qmp_balloon(int64_t value, Error **errp)
{
    ERRP_GUARD();
    uint64_t min, max;

    if (!balloon_usable(errp)) {
        return;
    }
    provider.ops->get_range(provider.opaque, &min, &max);
    if (value <= 0) {
        error_setg(errp, QERR_INVALID_PARAMETER_VALUE, "value", "a size");
        append_range(errp, min, max);
    } else if (value < min) {
        trace_balloon_refused(provider.opaque, value, min);
        error_setg(errp, "%" PRId64 " bytes is too small a target: the"
                   " balloon's min-size is %" PRIu64 " bytes, give at least"
                   " that", value, min);
        append_range(errp, min, max);
    } else {
        trace_balloon_target(provider.opaque, value);
        provider.ops->set_target(provider.opaque, value);
    }
}
