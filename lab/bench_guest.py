# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest with its own driver, one of its vCPUs busy all the time.

All its memory is touched, then it is shrunk to 512 MiB and given everything
back.
"""

import contextlib
import tempfile
import time
from typing import NamedTuple

import guests
from bench_latency import Monitor
from bench_machine import Calls, cpu_ns
from virtio_balloon_guest import GIB, MIB

SMALL = 512 * MIB
RESERVE = 96 * MIB              # of free memory is left untouched
COUNTED = 256 * MIB             # inflated under strace
TIMEOUT = 120


class Result(NamedTuple):
    """One time down and up: seconds to get there, and CPU seconds a GiB of
    QEMU's threads, vCPUs excepted."""

    inflate_seconds: float
    inflate_cpu: float
    deflate_seconds: float
    deflate_cpu: float
    returned: float             # of what was inflated, as seen by the host


class Tested:
    """A booted guest that is stopped except in running()."""

    def __init__(self, guest, monitor):
        self.guest = guest
        self.monitor = monitor
        guest.start()
        guest.run("echo 1 >/proc/sys/vm/overcommit_memory", timeout=TIMEOUT)
        guest.run("(while :; do :; done) &")
        self.vcpus = [cpu["thread-id"]
                      for cpu in guest.vm.cmd("query-cpus-fast")]
        guest.vm.cmd("stop")

    @contextlib.contextmanager
    def running(self):
        self.guest.vm.cmd("cont")
        yield self
        self.guest.vm.cmd("stop")

    def touch(self):
        """Let the guest write to all its memory, and free it."""
        free = self.guest.meminfo("MemFree") - RESERVE
        self.guest.run(f"memtool dirty {free // MIB}", timeout=TIMEOUT)

    def resize(self, size):
        """(seconds, CPU seconds a GiB) of getting to @size."""
        pid = self.guest.vm.get_pid()
        amount = abs(self.guest.actual() - size) / GIB
        spent, start = cpu_ns(pid, self.vcpus), time.monotonic()
        self.guest.resize(size, TIMEOUT)
        seconds = time.monotonic() - start
        return seconds, (cpu_ns(pid, self.vcpus) - spent) / 1e9 / amount


@contextlib.contextmanager
def booted(options, side):
    """A Tested guest that runs on @side's QEMU."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        monitor = f"{folder}/qmp"
        with guests.guest(
                side, memory=options.guest * GIB,
                accelerator=options.accelerator,
                arguments=["-smp", "2", "-qmp",
                           f"unix:{monitor},server=on,wait=off"]) as guest:
            yield Tested(guest, monitor)


def measure(tested):
    """A Result."""
    guest = tested.guest
    with tested.running():
        tested.touch()
        before = guest.resident()
        down = tested.resize(SMALL)
        returned = (before - guest.resident()) / (guest.memory - SMALL)
        up = tested.resize(guest.memory)
    return Result(*down, *up, returned)


def waits(tested):
    """Waits of the monitor while the guest inflates."""
    with tested.running():
        tested.touch()
        with Monitor(tested.monitor, TIMEOUT) as monitor:
            tested.resize(SMALL)
        tested.resize(tested.guest.memory)
    return monitor.summary()


def count(tested):
    """Discarding system calls a MiB inflated."""
    guest = tested.guest
    with tested.running():
        with Calls(guest.vm.get_pid()) as calls:
            tested.resize(guest.memory - COUNTED)
            found = calls.count()
        tested.resize(guest.memory)
    return found / (COUNTED / MIB)


def bench(options, progress):
    """{side: {"results": [Result...], "waits": Waits, "calls": number}}."""
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, side in options.sides.items():
            progress(f"guest of {options.guest} GiB: booting on {name}")
            sides[name] = stack.enter_context(booted(options, side))
        found = {side: {"results": []} for side in sides}
        for turn in range(options.guest_repeat):
            progress(f"guest: pass {turn + 1} of {options.guest_repeat}")
            for side, tested in sides.items():
                found[side]["results"].append(measure(tested))
        for side, tested in sides.items():
            progress(f"guest: waits and system calls on {side}")
            found[side]["waits"] = waits(tested)
            found[side]["calls"] = count(tested)
    return found
