# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest with its own driver, one of its vCPUs busy all the time.

All its memory is touched, then it is shrunk to 512 MiB and given everything
back.
"""

import contextlib
import os
import tempfile
import time
from typing import NamedTuple

import guests
from bench_latency import Monitor
from bench_machine import (BACKINGS, Calls, HUGE_PAGE, cpu_ns,
                           huge_pages_reserved, put_ahead)
from virtio_balloon_guest import GIB, MIB

SMALL = 512 * MIB
RESERVE = 96 * MIB              # of free memory is left untouched
COUNTED = 64 * MIB              # inflated under strace
TIMEOUT = 120
SETTLED = 4                     # equal figures in a row: nothing goes on
MEMFD = "/memfd:memory-backend-memfd"


class Result(NamedTuple):
    """One time down and up: seconds to get there, and CPU seconds a GiB of
    QEMU's threads, vCPUs excepted."""

    inflate_seconds: float
    inflate_cpu: float
    deflate_seconds: float
    deflate_cpu: float
    returned: float             # of what was inflated, as seen by the host
    splits: float               # transparent huge pages split, a GiB inflated


def splits():
    """Transparent huge pages that the host has split since it booted."""
    with open("/proc/vmstat", encoding="ascii") as file:
        counters = dict(line.split() for line in file)
    return int(counters.get("thp_split_pmd", 0))


def memfd_bytes(pid):
    """What the host holds of the guest's memory in a memfd."""
    total = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(entry.path).startswith(MEMFD):
                total += os.stat(entry.path).st_blocks * 512
    return total


class Tested:
    """A booted guest that is stopped except in running()."""

    LOAD = "(while :; do :; done) &"    # what runs in it all the time

    def __init__(self, guest, monitor, backing):
        self.guest = guest
        self.monitor = monitor
        self.backing = backing
        guest.start()
        guest.run("echo 1 >/proc/sys/vm/overcommit_memory", timeout=TIMEOUT)
        guest.run(self.LOAD)
        self.pid = guest.vm.get_pid()
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
        # available: less what the kernel keeps of each zone for itself
        free = min(self.guest.meminfo("MemFree"),
                   self.guest.meminfo("MemAvailable")) - RESERVE
        self.guest.run(f"memtool dirty {free // MIB}", timeout=TIMEOUT)

    def held(self):
        """Bytes of the guest's memory that the host holds."""
        if self.backing == "anonymous":
            return self.guest.resident()
        return memfd_bytes(self.pid)

    def settle(self):
        """Wait until the host has all that it gets: it may come later."""
        figures = []
        deadline = time.monotonic() + TIMEOUT
        while len(figures) < SETTLED or len(set(figures[-SETTLED:])) > 1:
            if time.monotonic() > deadline:
                raise self.guest.error(f"the memory still changes: {figures}")
            time.sleep(0.1)
            figures.append(self.held() // HUGE_PAGE)

    def resize(self, size):
        """(seconds, CPU seconds a GiB) of getting to @size."""
        amount = abs(self.guest.actual() - size) / GIB
        spent, start = cpu_ns(self.pid, self.vcpus), time.monotonic()
        self.guest.resize(size, TIMEOUT)
        seconds = time.monotonic() - start
        self.settle()
        return seconds, (cpu_ns(self.pid, self.vcpus) - spent) / 1e9 / amount


def memory_arguments(backing, size):
    """What gives a guest @size bytes of memory with @backing."""
    return ["-object", f"{BACKINGS[backing]},id=ram,size={size}",
            "-machine", "memory-backend=ram"]


@contextlib.contextmanager
def booted(options, side, backing="anonymous", memory=None, kind=Tested,
           arguments=(), **settings):
    """A Tested guest, of @kind, that runs on @side's QEMU.

    @arguments: more for QEMU.  @settings: of the guest, as of guests.guest().
    """
    memory = memory or options.guest * GIB
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        monitor = f"{folder}/qmp"
        with guests.guest(
                side, memory=memory, accelerator=options.accelerator,
                arguments=["-smp", "2", *memory_arguments(backing, memory),
                           "-qmp", f"unix:{monitor},server=on,wait=off",
                           *arguments],
                **{"balloon": side.balloon, **settings}) as guest:
            yield kind(guest, monitor, backing)


def measure(tested):
    """A Result."""
    amount = tested.guest.memory - SMALL
    with tested.running():
        tested.touch()
        before = tested.held(), splits()
        down = tested.resize(SMALL)
        split = (splits() - before[1]) * GIB / amount
        returned = (before[0] - tested.held()) / amount
        up = tested.resize(tested.guest.memory)
    return Result(*down, *up, returned, split)


@contextlib.contextmanager
def main_loop_first(pid):
    """QEMU's main loop does not wait for a processor: a host would have more.

    Raises PermissionError where this host does not allow it.
    """
    put_ahead(pid, 1)
    try:
        yield
    finally:
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


def waits(tested):
    """{what the guest does: {"qmp", "qmp_first": Waits of the monitor}}.

    What it writes to its memory asks nothing of the balloon: the floor.
    """
    found = {"writing to memory": {}, "inflating": {}}
    for who, first in (("qmp", contextlib.nullcontext()),
                       ("qmp_first", main_loop_first(tested.pid))):
        with contextlib.suppress(PermissionError), first, tested.running():
            with Monitor(tested.monitor, TIMEOUT) as monitor:
                tested.touch()
            found["writing to memory"][who] = monitor.summary()
            with Monitor(tested.monitor, TIMEOUT) as monitor:
                tested.guest.resize(SMALL, TIMEOUT)
            found["inflating"][who] = monitor.summary()
            tested.resize(tested.guest.memory)
    return found


def count(tested):
    """Discarding system calls a MiB inflated."""
    size = tested.guest.memory
    with tested.running():
        with Calls(tested.pid) as calls:
            tested.resize(size - COUNTED)
            found = calls.count()
        tested.resize(size)
    return found / (COUNTED / MIB)


def bench(options, progress):
    """{side: {"results": [Result...], "waits": of waits(), "calls": number}}."""
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, side in options.all_sides.items():
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


def bench_hugetlb(options, progress):
    """{side: [Result...]} of a guest of 1 GiB in 2 MiB pages.

    Raises Unavailable when the host has no such pages.
    """
    found = {side: [] for side in options.told_sides}
    with huge_pages_reserved(GIB // HUGE_PAGE):
        for name, side in options.told_sides.items():
            progress(f"guest in 2 MiB pages: {name}")
            with booted(options, side, "hugetlb", GIB) as tested:
                for _ in range(options.guest_repeat):
                    found[name].append(measure(tested))
    return found
