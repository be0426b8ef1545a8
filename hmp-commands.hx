    {
        .name       = "balloon",
        .args_type  = "target:S",
        .params     = "target",
        .help       = "ask the guest to shrink or grow to 'target'"
                      " (MiB, or with a suffix such as 512M or 2G)",
        .cmd        = hmp_balloon,
    },

SRST
``balloon`` *target*
  Ask the guest to give memory back to the host, or to take it again, until
  the memory left to it is *target*.  A number, or an expression, counts
  mebibytes; the suffixes K, M, G and T are understood, so ``balloon 2048``,
  ``balloon 1024+1024`` and ``balloon 2G`` ask for the same.  The command
  returns at once and the guest follows at its own pace: see ``info balloon``.
  Where the target is not accepted, the range that is possible is shown.
ERST
