/* overlay: after qemu/error-report.h */
#include "qemu/cutils.h"
/* overlay: new */
#include "qemu/units.h"

/* overlay: after hmp_info_uuid */
/* What did not come back, and why; nothing is said of zeroes */
static void balloon_print_skipped(Monitor *mon, uint64_t size,
                                  const char *cause)
{
    g_autofree char *text = size_to_str(size);

    if (size) {
        monitor_printf(mon, "not given back: %s, %s\n", text, cause);
    }
}

/* overlay: new */
static void balloon_print_counters(Monitor *mon, const BalloonCounters *c)
{
    const BalloonSkipped *skipped = c->skipped;
    g_autofree char *discarded = size_to_str(c->discarded);
    g_autofree char *waiting = size_to_str(c->waiting);

    monitor_printf(mon, "given back to the host: %s (system calls: %" PRIu64
                   ")\n", discarded, c->discard_calls);
    if (c->waiting) {
        monitor_printf(mon, "waiting to be given back: %s\n", waiting);
    }
    balloon_print_skipped(mon, skipped->repeated, "listed more than once");
    balloon_print_skipped(mon, skipped->taken_back,
                          "taken back by the guest before that");
    balloon_print_skipped(mon, skipped->not_ram,
                          "not the machine's memory");
    balloon_print_skipped(mon, skipped->partial,
                          "in pieces of the backend's pages");
    balloon_print_skipped(mon, skipped->inhibited,
                          "when something forbade it");
    balloon_print_skipped(mon, skipped->poison,
                          "to keep what the guest put there");
    balloon_print_skipped(mon, skipped->unsupported,
                          "which the backend cannot do");
    balloon_print_skipped(mon, skipped->refused, "refused by the host");
}

/* overlay: new */
static void balloon_print_state(Monitor *mon, const BalloonInfo *info)
{
    g_autofree char *target = size_to_str(info->target);

    monitor_printf(mon, "target: %s\nstate: %s%s%s%s\n", target,
                   BalloonState_str(info->state),
                   info->has_inhibited_by ? " (" : "",
                   info->has_inhibited_by ?
                       BalloonInhibitor_str(info->inhibited_by) : "",
                   info->has_inhibited_by ? ")" : "");
    monitor_printf(mon, "free page reporting: %s\nfree page hinting: %s\n",
                   info->reporting ? "on" : "off",
                   info->hinting ? "on" : "off");
}

void hmp_info_balloon(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    g_autoptr(BalloonInfo) info = qmp_query_balloon(&err);

    if (info) {
        monitor_printf(mon, "balloon: actual=%" PRId64 "\n",
                       info->actual / MiB);
        balloon_print_state(mon, info);
        balloon_print_counters(mon, info->counters);
    }
    hmp_handle_error(mon, err);
}

/* A bare number counts MiB, as it always has; a suffix says otherwise */
void hmp_balloon(Monitor *mon, const QDict *qdict)
{
    const char *target = qdict_get_str(qdict, "target");
    uint64_t value;
    Error *err = NULL;

    if (*target == '-') {
        monitor_printf(mon, "enter a positive value\n"
                       "Try \"help balloon\" for more information\n");
        return;
    }
    if (qemu_strtosz_MiB(target, NULL, &value) < 0 || value > INT64_MAX) {
        monitor_printf(mon, "invalid size '%s': give MiB, or a number with a"
                       " suffix such as 512M or 2G\n", target);
        return;
    }
    qmp_balloon(value, &err);
    hmp_handle_error(mon, err);
}
