    {
        .name       = "balloon",
        .args_type  = "verbose:-v",
        .params     = "[-v]",
        .help       = "show how much memory the balloon leaves to the guest"
                      " (-v: and what has come of the rest)",
        .cmd        = hmp_info_balloon,
    },

SRST
  ``info balloon`` [``-v``]
    Show how much memory the balloon leaves to the guest, in mebibytes.  With
    ``-v`` also the target and how far the guest follows it, how much memory the
    host got back, how much it did not and why, and what the guest said last of
    its memory.
ERST
