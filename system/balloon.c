/*
 * The machine's memory balloon: one provider, driven by QMP and HMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"
#include "system/balloon.h"
#include "system/kvm.h"
#include "trace.h"

/*
 * The one balloon of this machine; @opaque is NULL while there is none.  A
 * plain one has @event instead of an operation.  BQL
 */
static struct {
    QEMUBalloonOps ops;
    QEMUBalloonEvent *event;
    void *opaque;
    /*
     * KVM does not follow changes of the memory map.  Asked when the balloon
     * comes: a QEMU that has handed its guest to another one has no KVM.
     */
    bool kvm_lacks;
} provider;

int qemu_add_balloon(const QEMUBalloonOps *ops, void *opaque)
{
    if (provider.opaque) {
        return -EBUSY;
    }
    provider.ops = *ops;
    provider.event = NULL;
    provider.opaque = opaque;
    provider.kvm_lacks = kvm_enabled() && !kvm_has_sync_mmu();
    return 0;
}

static void plain_set_target(void *opaque, uint64_t target)
{
    provider.event(opaque, MIN(target, (ram_addr_t)-1));
}

int qemu_add_balloon_handler(QEMUBalloonEvent *event,
                             QEMUBalloonStatus *status, void *opaque)
{
    QEMUBalloonOps ops = {
        .set_target = plain_set_target,
        .get_info = status,
    };
    int ret = qemu_add_balloon(&ops, opaque);

    if (!ret) {
        provider.event = event;
    }
    return ret;
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
    if (!provider.opaque) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_ACTIVE,
                  "No balloon device has been activated");
        return false;
    }
    if (provider.kvm_lacks) {
        error_set(errp, ERROR_CLASS_KVM_MISSING_CAP,
                  "This host's KVM does not follow changes of the memory map,"
                  " which a balloon needs");
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
    provider.ops.get_info(provider.opaque, info);
    return info;
}

static bool balloon_has_stats(Error **errp)
{
    if (!balloon_usable(errp)) {
        return false;
    }
    if (!provider.ops.get_stats) {
        error_setg(errp, "This machine's balloon has no statistics");
        return false;
    }
    return true;
}

BalloonStatsInfo *qmp_query_balloon_stats(Error **errp)
{
    return balloon_has_stats(errp) ? provider.ops.get_stats(provider.opaque) :
                                     NULL;
}

void qmp_request_balloon_stats(Error **errp)
{
    if (balloon_has_stats(errp)) {
        provider.ops.request_stats(provider.opaque, errp);
    }
}

/* For people; programs can ask for the limits.  Without a range, @max is 0 */
static void append_range(Error **errp, uint64_t min, uint64_t max)
{
    g_autofree char *least = size_to_str(min);
    g_autofree char *most = size_to_str(max);

    if (!max) {
        return;
    }
    error_append_hint(errp, min ? "The guest can be left with %s to %s.\n" :
                      "The guest can be left with more than %s, up to %s.\n",
                      least, most);
}

void qmp_balloon(int64_t value, Error **errp)
{
    ERRP_GUARD();
    uint64_t min = 0, max = 0;

    if (!balloon_usable(errp)) {
        return;
    }
    if (provider.ops.get_range) {
        provider.ops.get_range(provider.opaque, &min, &max);
    }
    if (value > 0 && value >= min) {
        trace_balloon_event(provider.opaque, value);
        provider.ops.set_target(provider.opaque, value);
        return;
    }
    trace_balloon_refused(provider.opaque, value, min);
    if (value <= 0) {
        error_setg(errp, "Parameter 'value' expects a size");
    } else {
        error_setg(errp, "%" PRId64 " bytes is too small a target: the"
                   " balloon's min-size is %" PRIu64 " bytes, give at least"
                   " that", value, min);
    }
    append_range(errp, min, max);
}

/* What did not come back, and why; nothing is said of zeroes */
static void append_skipped(GString *text, uint64_t size, const char *cause)
{
    g_autofree char *bytes = size_to_str(size);

    if (size) {
        g_string_append_printf(text, "not given back: %s, %s\n", bytes, cause);
    }
}

static void append_counters(GString *text, const BalloonCounters *c)
{
    const BalloonSkipped *skipped = c->skipped;
    g_autofree char *discarded = size_to_str(c->discarded);
    g_autofree char *waiting = size_to_str(c->waiting);

    g_string_append_printf(text, "given back to the host: %s (system calls: %"
                           PRIu64 ")\n", discarded, c->discard_calls);
    if (c->waiting) {
        g_string_append_printf(text, "waiting to be given back: %s\n",
                               waiting);
    }
    append_skipped(text, skipped->repeated, "listed more than once");
    append_skipped(text, skipped->taken_back,
                   "taken back by the guest before that");
    append_skipped(text, skipped->not_ram, "not the machine's memory");
    append_skipped(text, skipped->partial, "in pieces of the backend's pages");
    append_skipped(text, skipped->inhibited, "when something forbade it");
    append_skipped(text, skipped->poison, "to keep what the guest put there");
    append_skipped(text, skipped->unsupported, "which the backend cannot do");
    append_skipped(text, skipped->refused, "refused by the host");
}

static void append_switch(GString *text, const char *name, bool on)
{
    g_string_append_printf(text, "%s: %s\n", name, on ? "on" : "off");
}

GString *qemu_balloon_info_text(const BalloonInfo *info)
{
    GString *text = g_string_new(NULL);

    if (info->has_target) {
        g_autofree char *target = size_to_str(info->target);

        g_string_append_printf(text, "target: %s\n", target);
    }
    if (info->has_state) {
        g_string_append_printf(text, "state: %s\n",
                               BalloonState_str(info->state));
    }
    if (info->has_inhibited_by) {
        g_string_append_printf(text, "inhibited by: %s\n",
                               BalloonInhibitor_str(info->inhibited_by));
    }
    if (info->held) {
        g_autofree char *size = size_to_str(info->held->size);

        g_string_append_printf(text, "held, until the guest can have it: %s",
                               size);
        if (info->held->error) {
            g_string_append_printf(text, " (%s)", info->held->error);
        }
        g_string_append_c(text, '\n');
    }
    if (info->has_reporting) {
        append_switch(text, "free page reporting", info->reporting);
    }
    if (info->has_hinting) {
        append_switch(text, "free page hinting", info->hinting);
    }
    if (info->counters) {
        append_counters(text, info->counters);
    }
    return text;
}

static void append_size(GString *text, const char *name, bool has,
                        uint64_t size)
{
    g_autofree char *bytes = size_to_str(size);

    if (has) {
        g_string_append_printf(text, ", %s %s", name, bytes);
    }
}

static void append_count(GString *text, const char *name, bool has, uint64_t n)
{
    if (has) {
        g_string_append_printf(text, ", %s %" PRIu64, name, n);
    }
}

GString *qemu_balloon_stats_text(const BalloonStatsInfo *info)
{
    const BalloonStats *stats = info->stats;
    GString *text = g_string_new(NULL);

    if (stats) {
        g_string_append_printf(text, "guest statistics: %" PRIu64 " s old",
                               info->answered_ago / 1000);
        append_size(text, "free", stats->has_free_memory, stats->free_memory);
        append_size(text, "available", stats->has_available_memory,
                    stats->available_memory);
        append_size(text, "caches", stats->has_disk_caches,
                    stats->disk_caches);
        append_size(text, "total", stats->has_total_memory,
                    stats->total_memory);
        append_size(text, "swapped in", stats->has_swap_in, stats->swap_in);
        append_size(text, "swapped out", stats->has_swap_out,
                    stats->swap_out);
        append_count(text, "major faults", stats->has_major_faults,
                     stats->major_faults);
        append_count(text, "minor faults", stats->has_minor_faults,
                     stats->minor_faults);
        append_count(text, "killed for lack of memory", stats->has_oom_kills,
                     stats->oom_kills);
        g_string_append_c(text, '\n');
    }
    if (info->pending) {
        g_string_append_printf(text, "guest statistics: asked for %" PRIu64
                               " s ago, no answer yet\n",
                               info->asked_ago / 1000);
    }
    return text;
}
