/* overlay: after get_expr */
bool monitor_eval(Monitor *mon, const char *text, int64_t *value)
{
    if (get_expr(mon, value, &text)) {
        return false;
    }
    if (*text) {
        monitor_printf(mon, "'%s' does not belong to an expression\n", text);
        return false;
    }
    return true;
}
