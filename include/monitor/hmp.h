/* overlay: after hmp_handle_error */
/**
 * monitor_eval: the value of an expression, as commands take them
 * @mon: a human monitor; it is told what is wrong
 * @text: numbers, registers and operators, and nothing after them
 * @value: set to the value
 *
 * Returns: false when @text is no expression.
 */
bool monitor_eval(Monitor *mon, const char *text, int64_t *value);
