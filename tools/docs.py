#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build QEMU's manual with our pages in it, as QEMU does; warnings are errors.

usage: docs.py TREE OUTPUT

TREE is QEMU with our files laid over it (build/qemu).  The manual is in
OUTPUT/manual afterwards; only what changed is read again.  Needs what
packages-docs.txt lists.
"""

import os
import subprocess
import sys

from base import read

SPHINX = "/usr/bin/sphinx-build"
# What must be in the manual: page, and words of ours on it
PAGES = (
    ("system/devices/virtio-balloon.html", "What a hostile guest can do"),
    ("interop/virtio-balloon-stats.html", "stat-direct-reclaims"),
    ("interop/qemu-qmp-ref.html", "BALLOON_CHANGE"),
    ("system/monitor.html", "suffixes K, M, G and T"),
)


def command(tree, output):
    """The words that run Sphinx."""
    version = read(f"{tree}/VERSION").strip()
    return [SPHINX, "-q", "-W", "--keep-going", "-j", "auto", "-b", "html",
            "-Dkerneldoc_werror=1", f"-Dversion={version}", "-Drelease=",
            f"-Ddepfile={output}/docs.d", f"-Ddepfile_stamp={output}/stamp",
            "-d", f"{output}/doctrees", f"{tree}/docs", f"{output}/manual"]


def missing(output):
    """Those of PAGES that the manual lacks."""
    return [name for name, words in PAGES
            if not os.path.exists(f"{output}/manual/{name}")
            or words not in read(f"{output}/manual/{name}")]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    tree, output = map(os.path.abspath, sys.argv[1:])
    if not os.path.exists(SPHINX):
        sys.exit("docs: install python3-sphinx and python3-sphinx-rtd-theme")
    if not os.path.exists(f"{tree}/VERSION"):
        sys.exit(f"docs: {tree} is no source tree of QEMU: `./balloon build`"
                 " makes build/qemu")
    os.makedirs(output, exist_ok=True)
    environment = dict(os.environ, CONFDIR="/etc/qemu", LC_ALL="C.UTF-8")
    environment.pop("PYTHONPATH", None)
    if subprocess.run(command(tree, output), env=environment,
                      check=False).returncode:
        sys.exit("docs: Sphinx has something to say, see above")
    if missing(output):
        sys.exit(f"docs: not as they should be: {', '.join(missing(output))}")
    print(f"{output}/manual/system/devices/virtio-balloon.html")


if __name__ == "__main__":
    main()
