#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure the way from nothing to a picture, and to a line changed and tested.

A clone is made in a folder of its own, and what README says is done there.
With --cold that has a cache folder of its own, too: all is fetched and compiled
as on a machine that never saw the project.  Both are removed in the end.

usage: newcomer.py [--cold]
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time

import guests

# A line of the device that may be another one without harm
FILE = "hw/virtio/virtio-balloon-reclaim.c"
BEFORE, AFTER = "(100 * SCALE_MS)", "(99 * SCALE_MS)"


def change_line(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if text.count(BEFORE) != 1:
        sys.exit(f"newcomer: {path} should have {BEFORE} once")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(BEFORE, AFTER))


def step(words, folder, environment):
    """Run a command as typed; returns its output."""
    begin = time.monotonic()
    done = subprocess.run(words, cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, shell=True)
    if done.returncode:
        sys.exit(f"newcomer: {words}:\n{done.stdout[-3000:]}")
    print(f"{time.monotonic() - begin:7.0f} s  {words}", flush=True)
    return done.stdout


def walk(folder, environment):
    clone = f"{folder}/balloon"
    begin = time.monotonic()
    step(f"git clone -q {shlex.quote(guests.REPO)} {clone}", folder, environment)
    step("./balloon run", clone, environment)
    print(f"{time.monotonic() - begin:7.0f} s  until the first picture")
    change_line(f"{clone}/{FILE}")
    print(f"           change a line of {FILE}")
    output = step("ninja -C build", clone, environment)
    if not re.search(rf"Compiling.*{re.escape(os.path.basename(FILE))}",
                     output):
        sys.exit(f"newcomer: the change was not compiled:\n{output[-3000:]}")
    output = step("./balloon check qtest", clone, environment)
    print("           " + " ".join(re.findall(r"^(?:Ok|Fail):.*", output, re.M)))
    print(f"{time.monotonic() - begin:7.0f} s  in all, with 4 commands")


def main():
    if sys.argv[1:] not in ([], ["--cold"]):
        sys.exit(__doc__)
    # /tmp may be memory, and small
    place = os.environ.get("TMPDIR", "/var/tmp")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        environment = dict(os.environ)
        if sys.argv[1:]:
            environment["XDG_CACHE_HOME"] = f"{folder}/cache"
        walk(folder, environment)


if __name__ == "__main__":
    main()
