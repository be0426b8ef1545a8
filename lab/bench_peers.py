# SPDX-License-Identifier: GPL-2.0-or-later
"""What else takes memory from a running guest, beside the balloon.

The same Linux guest, once with each: all its memory is touched and freed, then
it is left with 512 MiB, then it gets everything back.  With free page reporting
nobody asks: the host gets what the guest has freed, and keeps giving it.
"""

import contextlib
import os
import time
from typing import NamedTuple

from bench_guest import SMALL, TIMEOUT, Tested, booted, splits
from bench_machine import BACKINGS, cpu_ns
from virtio_balloon_guest import GIB, MIB

BACKING = "anonymous"
DEVICE = "/machine/peripheral/mem0"
INTERVAL = 0.02                 # s between two looks at the memory
REST = 1.0                      # s in which nothing happens
ENOUGH = 0.9                    # of what comes back
NOISE = MIB                     # less than that is no change


class Sample(NamedTuple):
    """What the host holds at a moment."""

    seconds: float
    held: int


class Watched(NamedTuple):
    """What was seen, with the moments of the target and the last change."""

    samples: list
    reached: float
    changed: float


class Step(NamedTuple):
    """One way, down or up; CPU in seconds."""

    watched: Watched
    main: float                 # of QEMU's main thread
    process: float              # of all threads, beyond what the guest's loop
                                # takes when nothing else happens
    slowest: float              # ms that the slowest round of the loop took


class Result(NamedTuple):
    """Down and up; None: there is no such step.

    CPU seconds are those of a GiB that the host gets, or the guest does.
    """

    down_seconds: float
    given_seconds: float        # until the host has nine tenths of
    given: float                # these MiB
    down_main: float
    down_process: float
    splits: float               # transparent huge pages, a GiB
    down_slowest: float
    up_seconds: float
    up_main: float
    up_process: float
    up_slowest: float
    rest_slowest: float         # when nothing happens


def given_seconds(samples, share=ENOUGH):
    """Seconds until @share of what comes back in @samples has come."""
    first, last = samples[0].held, samples[-1].held
    wanted = first - (first - last) * share
    return next(s.seconds for s in samples if s.held <= wanted)


def watch(held, reached, still, clock=time):
    """Look on until it is reached and nothing has changed for some time.

    @held, @reached: what to call for the figure and for the end.
    Raises TimeoutError.
    """
    start = clock.monotonic()
    samples, at, changed = [Sample(0.0, held())], None, 0.0
    level = samples[0].held
    while at is None or samples[-1].seconds < max(at, changed) + still:
        now = clock.monotonic() - start
        if now > TIMEOUT:
            raise TimeoutError(f"no end after {TIMEOUT} s, {samples[-1]}")
        samples.append(Sample(now, held()))
        if abs(samples[-1].held - level) > NOISE:
            level, changed = samples[-1].held, now
        if at is None and reached():
            at = clock.monotonic() - start
        clock.sleep(INTERVAL)
    return Watched(samples, at, changed)


class Peer(Tested):
    """A guest whose size is that of its balloon."""

    LOAD = "true"               # none but the loop of a step
    STILL = 0.5                 # s without a change: it is over

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.whole = self.size()
        self.price = 0.0        # CPU seconds of a round when nothing happens

    def size(self):
        return self.guest.actual()

    def ask(self, size):
        self.guest.target(size)

    def seconds(self, watched):
        """When was it done?"""
        return watched.reached

    def held(self):
        """Bytes that the process holds; what is not the guest's stays."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu(self):
        """CPU seconds of the main thread, and of all."""
        threads = map(int, os.listdir(f"/proc/{self.pid}/task"))
        others = [thread for thread in threads if thread != self.pid]
        return cpu_ns(self.pid, others) / 1e9, cpu_ns(self.pid) / 1e9

    def step(self, reached, still, size=None):
        """A Step, to @size if there is one."""
        self.guest.run("rm -f /run/pace; memtool pace /run/pace &"
                       " until [ -s /run/pace ]; do sleep 0.01; done")
        before = self.cpu()
        if size:
            self.ask(size)
        watched = watch(self.held, reached, still)
        main, process = (after - sooner for after, sooner in
                         zip(self.cpu(), before))
        self.guest.run("killall memtool")
        rounds, slowest = map(int, self.guest.run("cat /run/pace").split())
        if not self.price:
            self.price = process / rounds
        return Step(watched, main, process - rounds * self.price,
                    slowest / 1000)

    def rest(self):
        """A Step in which nothing happens; its rounds are the measure."""
        self.price = 0.0
        return self.step(lambda: True, REST)

    def resize(self, size):
        return self.step(lambda: self.size() == size, self.STILL, size)

    def back(self):
        """A Step that gives the guest all again, if one is to be taken."""
        return self.resize(self.whole)

    def measure(self):
        """A Result of one time down and up."""
        with self.running():
            self.guest.until(lambda: self.size() == self.whole, TIMEOUT,
                             lambda: f"it has {self.size() // MIB} MiB")
            rest = self.rest()
            self.touch()
            before = splits()
            down = self.resize(SMALL)
            split = splits() - before
            up = self.back()
        samples = down.watched.samples
        given = samples[0].held - samples[-1].held
        gib, back = given / GIB, (self.whole - SMALL) / GIB
        return Result(
            self.seconds(down.watched), given_seconds(samples), given / MIB,
            down.main / gib, down.process / gib, split / gib, down.slowest,
            up and up.watched.reached, up and up.main / back,
            up and up.process / back, up and up.slowest, rest.slowest)


class MemoryPeer(Peer):
    """A guest with 512 MiB and what a virtio-mem device has plugged."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.whole = SMALL + self.get("requested-size")

    def get(self, name):
        return self.guest.vm.cmd("qom-get", path=DEVICE, property=name)

    def size(self):
        return SMALL + self.get("size")

    def ask(self, size):
        self.guest.vm.cmd("qom-set", path=DEVICE, property="requested-size",
                          value=size - SMALL)


class ReportingPeer(Peer):
    """A guest that nobody asks; its size does not change."""

    STILL = 5.0                 # a guest reports every 2 s at most

    def seconds(self, watched):
        return watched.changed

    def resize(self, size):
        """What the guest has freed before comes back."""
        return self.step(lambda: True, self.STILL)

    def back(self):
        return None


def with_balloon(kind, side, more=""):
    """A function of options and a size: a booted @kind of @side."""
    def boot(options, memory):
        chosen = options.all_sides[side]
        return booted(options, chosen, BACKING, memory, kind,
                      balloon=chosen.balloon + more)
    return boot


def with_virtio_mem(block_size):
    """The same with virtio-mem for all but 512 MiB, none of which the guest's
    kernel uses for itself."""
    def boot(options, memory):
        pluggable = memory - SMALL
        return booted(
            options, options.sides["ours"], BACKING, SMALL, MemoryPeer,
            ["-m", f"maxmem={2 * memory // MIB}M",
             "-object", f"{BACKINGS[BACKING]},id=more,size={pluggable}",
             "-device", "virtio-mem-pci,id=mem0,memdev=more,"
             f"block-size={block_size},requested-size={pluggable}"],
            balloon=None, parameters="memhp_default_state=online_movable")
    return boot


# name: function of options and a size that boots a guest with it
PEERS = {
    "stock": with_balloon(Peer, "stock"),
    "ours": with_balloon(Peer, "ours"),
    "told": with_balloon(Peer, "told"),
    "mem-2M": with_virtio_mem(2 * MIB),
    "mem-128M": with_virtio_mem(128 * MIB),
    "reporting": with_balloon(ReportingPeer, "ours",
                              ",free-page-reporting=on"),
}


def bench_size(options, memory, progress):
    """{peer: [Result...]} of guests of @memory bytes, in turns."""
    with contextlib.ExitStack() as stack:
        guests = {}
        for name, boot in PEERS.items():
            progress(f"peers: booting {memory // GIB} GiB with {name}")
            guests[name] = stack.enter_context(boot(options, memory))
        found = {name: [] for name in guests}
        for turn in range(options.repeat):
            for name, tested in guests.items():
                progress(f"peers: {memory // GIB} GiB, pass {turn + 1} of"
                         f" {options.repeat}: {name}")
                found[name].append(tested.measure())
    return found


def bench(options, progress):
    """{GiB: {peer: [Result...]}}"""
    return {gib: bench_size(options, gib * GIB, progress)
            for gib in ((2,) if options.quick else (2, 4))}
