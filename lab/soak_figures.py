# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU holds, and whether it is idle, while its machine is stopped."""

import contextlib
import glob
import os
import re
import time
from typing import NamedTuple

from virtio_balloon_guest import KIB

# For the environment of QEMU: one heap for all threads, and what is large not
# in it.  TCG's tables for addresses grow and shrink with what the guest does.
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(64 * KIB)}
WATCHED = 0.5                   # seconds in which QEMU should do nothing
# What is said, now and then, of a migration that is cancelled, and what a
# sanitizer says of QEMU
EXPECTED = (b"failed to save SaveStateEntry", b"WARNING: ASan doesn't fully")


class Figures(NamedTuple):
    """Bytes, and numbers."""

    heap: int                   # anonymous memory, in the heap
    large: int                  # and elsewhere, but for the guest's RAM
    fds: int
    threads: int
    wakeups: int                # of all threads while it was WATCHED
    log: int                    # lines


def take(guest):
    """The Figures of the QEMU that runs @guest, which is stopped."""
    process = f"/proc/{guest.vm.get_pid()}"
    before = switches(process)
    time.sleep(WATCHED)             # waits for nothing: what happens counts
    after = switches(process)
    return Figures(anonymous(guest, True), anonymous(guest, False),
                   len(os.listdir(f"{process}/fd")), len(after),
                   sum(after[path] - before.get(path, 0) for path in after),
                   len(log(guest)))


def anonymous(guest, heap):
    """Bytes in the heap, or elsewhere, but for RAM and translated code."""
    return guest.mapped(
        ("Anonymous:",), lambda in_ram, permissions, name:
        not in_ram and "x" not in permissions and (name == "[heap]") == heap)


def switches(process):
    """How often each thread of @process has waited for something."""
    found = {}
    for path in glob.glob(f"{process}/task/*/status"):
        # a thread may end at any time
        with contextlib.suppress(OSError), open(path, "rb") as file:
            found[path] = int(re.search(rb"^voluntary_ctxt_switches:\s*(\d+)",
                                        file.read(), re.M)[1])
    return found


def log(guest):
    """Lines that QEMU wrote, but for those that are expected."""
    with open(*glob.glob(f"{os.path.dirname(guest.console)}/*.log"),
              "rb") as file:
        return [line for line in file
                if not any(words in line for words in EXPECTED)]
