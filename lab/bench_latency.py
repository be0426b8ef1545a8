# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a balloon keeps the monitor and the vCPUs waiting.

The percentiles are those of a client that asks every millisecond: a command
that waits longer stands for those which could not be given meanwhile.
"""

import collections
import json
import os
import socket
import struct
import subprocess
import tempfile
import threading
import time
from typing import NamedTuple

import guests
from bench_device import Row, traffic
from bench_machine import AREA, machine
from bench_qtest import INFLATE, RING
from virtio_balloon_guest import BALLOON_PAGE, MIB

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
    """Asks QEMU for its status again and again while the body runs."""

    def __init__(self, path, limit):
        self.limit = limit
        self.waits = []
        self.cut = False
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.poll)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        self.ask("qmp_capabilities")
        self.socket.settimeout(limit)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.over.set()
        self.thread.join()
        self.file.close()
        self.socket.close()

    def ask(self, command):
        self.socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while b'"return"' not in self.file.readline():
            pass                # an event

    def poll(self):
        while not self.over.is_set():
            before = time.perf_counter()
            try:
                self.ask("query-status")
            except TimeoutError:
                self.cut = True
            self.waits.append((time.perf_counter() - before, 1))
            if self.cut:
                return
            time.sleep(INTERVAL)

    def summary(self):
        return summary(self.waits, self.cut)


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
        first = self.ticks(), time.perf_counter()
        time.sleep(0.1)         # any time will do, it is measured
        self.base = self.ticks(), time.perf_counter()
        self.frequency = ((self.base[0] - first[0]) /
                          (self.base[1] - first[1]))
        memory.write(LONGEST, bytes(4))
        memory.write(CLASSES, bytes(4 * CLASS_COUNT))

    def ticks(self):
        """The time stamp counter when the vCPU last asked for the lock."""
        return int.from_bytes(self.memory.read(CLOCK, 8), "little")

    def summary(self, cut):
        """The wait under way, which may be @cut, counts with its age."""
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
        return summary(waits, cut)


# What a driver may do, each at full speed

def linux_requests(tested):
    """Requests as Linux makes them, of touched memory."""
    row = Row(tested.backing, "inflate", "descending", "touched")
    tested.touch(RING * MIB)
    return traffic(tested.driver, row, RING * MIB, 0, False)[1]


def large_requests(tested, count):
    """@count requests for the list of page numbers that fills LIST."""
    pages = LIST // BALLOON_PAGE
    first = AREA // BALLOON_PAGE
    numbers = struct.pack(f"<{pages}I", *range(first, first + pages))
    for at in range(LIST, 2 * LIST, len(numbers)):
        tested.memory.write(at, numbers)
    tested.touch(LIST)
    return [[(LIST, LIST, False)]] * count


SCENARIOS = {
    "no request at all": None,
    "ring of requests of 256 pages": linux_requests,
    "one request of 64 MiB": lambda tested: large_requests(tested, 1),
    "ring of requests of 64 MiB": lambda tested: large_requests(tested, RING),
}


def post_for(tested, scenario, seconds):
    """Keep the queue busy for @seconds."""
    driver = tested.driver
    end = time.monotonic() + seconds
    while scenario and time.monotonic() < end:
        driver.post(INFLATE, scenario(tested))
        driver.kick(INFLATE)
        while not driver.served(INFLATE) and time.monotonic() < end:
            time.sleep(0.001)
    time.sleep(max(0.0, end - time.monotonic()))


def measure(options, side, scenario):
    """{"qmp": Waits, "vcpu": Waits} under one of SCENARIOS."""
    with machine(side, "anonymous", firmware=lock_firmware()) as tested:
        tested.vm.cmd("cont")
        lock = Lock(tested.memory)
        with Monitor(tested.monitor, options.patience) as monitor:
            post_for(tested, scenario, options.seconds)
        return {"qmp": monitor.summary(), "vcpu": lock.summary(monitor.cut)}


def bench(options, progress):
    """{scenario: {side: {"qmp": Waits, "vcpu": Waits}}}."""
    found = {}
    for name, scenario in SCENARIOS.items():
        found[name] = {}
        for title, side in options.sides.items():
            progress(f"waits: {name}: {title}")
            found[name][title] = measure(options, side, scenario)
    return found
