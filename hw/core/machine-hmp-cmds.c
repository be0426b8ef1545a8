/* overlay: after qemu/error-report.h */
#include "qemu/cutils.h"
/* overlay: new */
#include "qemu/units.h"
/* overlay: new */
#include "system/balloon.h"

/* overlay: after hmp_info_uuid */
/* A balloon other than virtio's has no statistics */
static void hmp_balloon_stats(Monitor *mon)
{
    g_autoptr(BalloonStatsInfo) info = qmp_query_balloon_stats(NULL);

    if (info) {
        g_autoptr(GString) text = qemu_balloon_stats_text(info);

        monitor_printf(mon, "%s", text->str);
    }
}

void hmp_info_balloon(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    g_autoptr(BalloonInfo) info = qmp_query_balloon(&err);

    if (info) {
        /* Scripts take this line apart, and know of no other */
        monitor_printf(mon, "balloon: actual=%" PRId64 "\n",
                       info->actual / MiB);
    }
    if (info && qdict_get_try_bool(qdict, "verbose", false)) {
        g_autoptr(GString) text = qemu_balloon_info_text(info);

        monitor_printf(mon, "%s", text->str);
        hmp_balloon_stats(mon);
    }
    hmp_handle_error(mon, err);
}

/* overlay: new */
/* A number and a letter, or an expression, as ever, that counts MiB */
static bool hmp_balloon_target(Monitor *mon, const char *text, uint64_t *target)
{
    int64_t mib;
    size_t digits = strspn(text, "0123456789.");

    if (digits && text[digits] && !text[digits + 1] &&
        qemu_strtosz(text, NULL, target) == 0) {
        return true;
    }
    if (!monitor_eval(mon, text, &mib)) {
        return false;
    }
    if (mib < 0) {
        monitor_printf(mon, "enter a positive value\n");
        return false;
    }
    *target = MIN((uint64_t)mib, INT64_MAX / MiB) * MiB;
    return true;
}

void hmp_balloon(Monitor *mon, const QDict *qdict)
{
    uint64_t target;
    Error *err = NULL;

    if (!hmp_balloon_target(mon, qdict_get_str(qdict, "target"), &target) ||
        target > INT64_MAX) {
        monitor_printf(mon, "Give MiB, an expression of MiB, or a number with a"
                       " suffix such as 512M or 2G\n"
                       "Try \"help balloon\" for more information\n");
        return;
    }
    qmp_balloon(target, &err);
    hmp_handle_error(mon, err);
}
