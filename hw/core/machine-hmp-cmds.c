/* overlay: after qemu/error-report.h */
#include "qemu/cutils.h"
/* overlay: new */
#include "system/balloon.h"

void hmp_info_balloon(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    g_autoptr(BalloonInfo) info = qmp_query_balloon(&err);

    if (info) {
        g_autoptr(GString) text = qemu_balloon_info_text(info);

        monitor_printf(mon, "%s", text->str);
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
