# SPDX-License-Identifier: GPL-2.0-or-later
"""What the migration of a Linux guest with a large balloon costs.

The guest has 2 GiB in a memfd, all of it was touched, and 1.5 GiB of it are in
the balloon when it migrates to another QEMU over a socket.  Reading what the
guest has and never touched makes the source grow in any case, so what counts
is what it holds beyond the 512 MiB that are the guest's.
"""

import contextlib
import tempfile
from typing import NamedTuple

import guests
from bench_guest import SMALL, booted, memfd_bytes, memory_arguments
from virtio_balloon_guest import GIB, MIB

MEMORY = 2 * GIB
BANDWIDTH = 2 * GIB             # bytes a second: no limit in practice


class Result(NamedTuple):
    """One migration."""

    pages: float                # looked at by the source, a thousand
    seconds: float
    sent: float                 # MiB
    grown: float                # MiB beyond the guest's that the source holds
    target: float               # MiB that the target holds


def migrate(options, side, tested):
    """A Result; the guest runs on at the source afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        uri = f"unix:{folder}/migration"
        with guests.guest(
                side, memory=MEMORY, balloon=side.balloon,
                accelerator=options.accelerator,
                arguments=["-smp", "2", *memory_arguments("memfd", MEMORY),
                           "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
                           "-S", "-incoming", uri]) as target:
            target.start()
            info = tested.guest.migrate(uri)
            ram = info["ram"]
            return Result((ram["duplicate"] + ram["normal"]) / 1000,
                          info["total-time"] / 1000,
                          ram["transferred"] / MIB,
                          max(0, tested.held() - SMALL) / MIB,
                          memfd_bytes(target.vm.get_pid()) / MIB)


def measure(options, side, tested):
    with tested.running():
        tested.touch()
        tested.resize(SMALL)
        result = migrate(options, side, tested)
    with tested.running():
        tested.resize(MEMORY)
    return result


def bench(options, progress):
    """{side: [Result...]}."""
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, side in options.told_sides.items():
            progress(f"migration: booting on {name}")
            tested = stack.enter_context(booted(options, side, "memfd",
                                                MEMORY))
            tested.guest.vm.cmd("migrate-set-parameters",
                                **{"max-bandwidth": BANDWIDTH})
            sides[name] = tested
        found = {side: [] for side in sides}
        for turn in range(options.guest_repeat):
            for name, tested in sides.items():
                progress(f"migration: pass {turn + 1} of"
                         f" {options.guest_repeat}: {name}")
                found[name].append(measure(options, options.told_sides[name],
                                           tested))
    return found
