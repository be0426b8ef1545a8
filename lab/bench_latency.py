# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a balloon keeps the monitor and the vCPUs waiting.

The percentiles are those of a client that asks every millisecond: a command
that waits longer stands for those which could not be given meanwhile.
"""

import collections
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import guests
from bench_device import Row, traffic
from bench_machine import AREA, machine, put_ahead
from bench_qtest import INFLATE, RING
from virtio_balloon_guest import BALLOON_PAGE, MIB

BURST = 0.7                     # seconds; the kernel lets others in after 0.95
LIST = 64 * MIB                 # address and size of the largest request
INTERVAL = 0.001                # seconds between two commands
# What firmware in bench/lock.S keeps
LONGEST, CLOCK, CLASSES, CLASS_COUNT, UNIT = 0x1000, 0x1008, 0x1100, 160, 256


class Waits(NamedTuple):
    """The longest wait and the 99th percentile, in seconds; @cut: the longest
    was not over when the benchmark gave up."""

    longest: float
    percentile: float
    cut: bool = False


def summary(waits, cut=False):
    """Waits of a list of (seconds, count)."""
    counted = collections.Counter()
    for wait, count in waits:
        for missed in range(int(wait / INTERVAL) + 1):
            counted[wait - missed * INTERVAL] += count
    rest = 0.01 * counted.total()
    for wait in sorted(counted, reverse=True):
        rest -= counted[wait]
        if rest < 0:
            break
    return Waits(max(counted), wait, cut)


class Monitor:
    """Asks QEMU for its status again and again while the body runs.

    A process of its own does that, ahead of all others where the host allows
    it: what is wanted is how long QEMU takes, not how long the client waits
    for a processor.
    """

    def __init__(self, path, limit):
        self.limit = limit
        self.waits, self.cut = [], False
        self.over = multiprocessing.Event()
        self.process = self.answer = None
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        self.ask("qmp_capabilities")
        self.socket.settimeout(limit)

    def __enter__(self):
        self.answer, end = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(target=self.poll, args=(end,))
        self.process.start()
        end.close()
        return self

    def __exit__(self, *_exception):
        self.over.set()
        self.waits, self.cut = self.answer.recv()
        self.process.join()
        self.file.close()
        self.socket.close()

    def ask(self, command):
        self.socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while b'"return"' not in self.file.readline():
            pass                # an event

    def poll(self, end):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            put_ahead(0, 2)
        while not self.cut and not self.over.is_set():
            before = time.perf_counter()
            try:
                self.ask("query-status")
            except TimeoutError:
                self.cut = True
            self.waits.append((time.perf_counter() - before, 1))
            time.sleep(INTERVAL)
        end.send((self.waits, self.cut))

    def summary(self):
        return summary(self.waits, self.cut)


@contextlib.contextmanager
def busy_process():
    """A processor is taken, as by a main loop that has work to do."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()


def lock_firmware():
    """Firmware whose vCPU takes the big lock all the time."""
    source = os.path.join(guests.LAB, "bench", "lock.S")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        subprocess.run(["gcc", "-m32", "-c", "-o", f"{folder}/o", source],
                       check=True)
        subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0", "--oformat",
                        "binary", "-o", f"{folder}/bin", f"{folder}/o"],
                       check=True)
        with open(f"{folder}/bin", "rb") as file:
            return file.read()


class Lock:
    """The vCPU's waits for the big lock since this was made."""

    def __init__(self, memory):
        self.memory = memory
        first = self.sample()
        time.sleep(0.1)         # any time will do, it is measured
        self.base = self.sample()
        self.frequency = ((self.base[0] - first[0]) /
                          (self.base[1] - first[1]))
        memory.write(LONGEST, bytes(4))
        memory.write(CLASSES, bytes(4 * CLASS_COUNT))

    def ticks(self):
        """The time stamp counter when the vCPU last asked for the lock."""
        return int.from_bytes(self.memory.read(CLOCK, 8), "little")

    def sample(self):
        """(ticks, seconds) of one moment in which both threads run."""
        found = []
        for _ in range(20):
            start, old = time.perf_counter(), self.ticks()
            ticks, now = old, start
            while ticks == old and now < start + 0.001:
                ticks, now = self.ticks(), time.perf_counter()
            found.append((now - start, ticks, now))
        return min(found)[1:]

    def waits(self):
        """(seconds, count) of all of them; one under way has its age."""
        age = (time.perf_counter() - self.base[1] -
               (self.ticks() - self.base[0]) / self.frequency)
        counts = struct.unpack(f"<{CLASS_COUNT}I",
                               self.memory.read(CLASSES, 4 * CLASS_COUNT))
        longest, = struct.unpack("<I", self.memory.read(LONGEST, 4))
        longest *= UNIT / self.frequency
        waits = [(max(age, 0.0), 1)]
        for number, count in enumerate(counts):
            exponent, part = divmod(number, 4)
            end = (5 + part) * 2.0 ** (exponent - 2) * UNIT / self.frequency
            wait = min(end, longest)
            # as many as would be under way when looked at each INTERVAL
            waits.append((wait, count * min(1, wait / INTERVAL)))
        return waits


# What a driver may do, each at full speed

def linux_requests(tested):
    """Requests as Linux makes them; the vCPU touches the memory meanwhile."""
    row = Row(tested.backing, "inflate", "descending", "touched")
    return traffic(tested.driver, row, RING * MIB, 0, False)[1]


def large_requests(tested, count):
    """@count requests for the list of page numbers that fills LIST."""
    pages = LIST // BALLOON_PAGE
    first = AREA // BALLOON_PAGE
    numbers = struct.pack(f"<{pages}I", *range(first, first + pages))
    for at in range(LIST, 2 * LIST, len(numbers)):
        tested.memory.write(at, numbers)
    return [[(LIST, LIST, False)]] * count


# (requests, is another process busy): without requests it is the floor
SCENARIOS = {
    "no request": (None, False),
    "no request, a busy process": (None, True),
    "ring of 256-page lists": (linux_requests, False),
    "one 64 MiB list": (lambda tested: large_requests(tested, 1), False),
    "ring of 64 MiB lists":
        (lambda tested: large_requests(tested, RING), False),
}


def post_for(tested, chains, seconds):
    """Keep the queue busy with @chains for @seconds."""
    driver = tested.driver
    end = time.monotonic() + seconds
    while chains and time.monotonic() < end:
        if driver.served(INFLATE):
            driver.post(INFLATE, chains)
            driver.kick(INFLATE)
        time.sleep(0.0005)
    time.sleep(max(0.0, end - time.monotonic()))


def measure_burst(options, tested, chains, seconds):
    """Waits of QMP, whether the last was cut short, waits of the vCPU."""
    with contextlib.ExitStack() as stack:
        if seconds == BURST:
            stack.enter_context(tested.ahead_of_all())
        lock = Lock(tested.memory)
        with Monitor(tested.monitor, options.patience) as monitor:
            post_for(tested, chains, seconds)
        return monitor.waits, monitor.cut, lock.waits()


def measure(options, side, requests, busy, bursts):
    """{"qmp": Waits, "vcpu": Waits} under one of SCENARIOS.

    In @bursts, ahead of all other processes, or for some seconds if it is 0.
    """
    qmp, vcpu, cut = [], [], False
    with contextlib.ExitStack() as stack:
        tested = stack.enter_context(
            machine(side, "anonymous", firmware=lock_firmware()))
        tested.vm.cmd("cont")
        chains = requests and requests(tested)
        if busy:
            stack.enter_context(busy_process())
        for _ in range(bursts or 1):
            if not cut:
                more_qmp, cut, more_vcpu = measure_burst(
                    options, tested, chains, BURST if bursts else
                    options.seconds)
                qmp += more_qmp
                vcpu += more_vcpu
    return {"qmp": summary(qmp, cut), "vcpu": summary(vcpu, cut)}


def may_be_ahead():
    """Does the host let this process run ahead of others?"""
    try:
        put_ahead(0, 1)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        return False
    return True


def bench(options, progress):
    """{scenario: {side: {"qmp", "vcpu", "qmp_first", "vcpu_first": Waits}}}.

    "_first": of a QEMU whose threads never wait for a processor, which needs
    two of them.
    """
    found = {}
    first = may_be_ahead() and guests.processors() > 1
    for name, scenario in SCENARIOS.items():
        found[name] = {}
        sides = options.sides if scenario[0] is None else options.all_sides
        for title, side in sides.items():
            progress(f"waits: {name}: {title}")
            waits = measure(options, side, *scenario, 0)
            if first:
                more = measure(options, side, *scenario, options.bursts)
                waits |= {f"{who}_first": wait for who, wait in more.items()}
            found[name][title] = waits
    return found
