    {
        .name       = "balloon",
        .args_type  = "",
        .params     = "",
        .help       = "show how much memory the balloon leaves to the guest",
        .cmd        = hmp_info_balloon,
    },

SRST
  ``info balloon``
    Show how much memory the balloon leaves to the guest, in mebibytes.
ERST
