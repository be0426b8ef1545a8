    {
        .name       = "balloon",
        .args_type  = "",
        .params     = "",
        .help       = "show how much memory the balloon leaves to the guest,"
                      " and what has come of the rest",
        .cmd        = hmp_info_balloon,
    },

SRST
  ``info balloon``
    Show how much memory the balloon leaves to the guest, in mebibytes, then
    the target and how far the guest follows it, how much memory the host got
    back, and how much it did not and why.
ERST
