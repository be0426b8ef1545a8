#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A balloon beside a device that is truly assigned, without any hardware.

A Linux guest with an emulated IOMMU is the host; its vfio-pci owns an emulated
NVMe controller.  QEMU in it has the controller and the balloon, and is driven
by a program: the controller reads and writes memory that was in the balloon, is
in it, or never was.  What is in the balloon must be neither locked nor within
its reach, all else always both.  With --linux a Linux guest is in that QEMU
instead, which takes half an hour.
"""

import os
import statistics
import struct
import sys
import tempfile
import time

import guests
import vfio_linux
import vfio_nest
from bench_qtest import DEFLATE, INFLATE, LISTS, MUST_TELL_HOST, Driver
from guests import progress
from vfio_nest import BALLOON, COORDINATED, NVME_SLOT, Memory
from vfio_nvme import PAGE, Nvme
from virtio_balloon_guest import BALLOON_PAGE, MIB, GuestError, expect

MEMORY = 256 * MIB
GRANULE = 2 * MIB
SAFE = 0x3800000                # an address that is never in the balloon
AREA = 64 * MIB
GRANULES = 80                   # from AREA on, which come and go
TAIL = AREA + GRANULES * GRANULE
PART = 300 * BALLOON_PAGE       # of the granule at TAIL
DISK = 16 * MIB
SCRATCH = 2048                  # the page of the disk that is written to
SHARE = 0.9                     # of what was given up, is to be had
ERROR = "Cannot allocate memory"


def pattern(page):
    """What the page of the disk holds at first."""
    return struct.pack("<Q", page + 1) * (PAGE // 8)


def make_disk(path):
    with open(path, "wb") as file:
        for page in range(DISK // PAGE):
            file.write(pattern(page))


class Figures(dict):
    """What was measured: name -> text, in the order of the story."""

    def milliseconds(self, name, *seconds):
        self[name] = ", ".join(f"{s * 1000:.1f}" for s in seconds)

    def show(self):
        width = max(map(len, self))
        for name, text in self.items():
            print(f"{name:{width}}  {text}")


class Story:
    """A driver of the balloon and one of the controller, on one machine."""

    def __init__(self, host, made, qtest):
        self.host = host
        self.made = made
        self.qtest = qtest
        self.memory = Memory(qtest)
        self.driver = Driver(qtest, self.memory, MUST_TELL_HOST)
        self.nvme = Nvme(qtest, self.memory, NVME_SLOT)
        self.page = 0                   # of the disk, to be read next
        self.provoked = host.faults()
        self.all = made.locked()
        expect(self.all >= MEMORY, f"only {self.all} bytes are locked")

    # The balloon

    def post(self, queue, address, size):
        first, count = address // BALLOON_PAGE, size // BALLOON_PAGE
        self.memory.write(LISTS, struct.pack(
            f"<{count}I", *range(first, first + count)))
        self.driver.post(queue, [[(LISTS, 4 * count, False)]])
        self.driver.kick(queue)

    def inflate(self, address, size, waiting=0):
        self.post(INFLATE, address, size)
        self.driver.wait(INFLATE)
        self.made.settled(waiting)

    def deflate(self, address, size):
        self.post(DEFLATE, address, size)
        self.driver.wait(DEFLATE)

    # What must be so

    def check_locked(self, missing):
        """All memory is locked but @missing bytes."""
        locked = self.made.locked()
        expect(locked == self.all - missing,
               f"{locked} bytes are locked of {self.all} less {missing}")

    def check_dma(self, address):
        """The controller reaches memory at @address, both ways."""
        page = self.page = (self.page + 1) % SCRATCH
        self.memory.write(address, bytes(PAGE))
        status = self.nvme.read(page, address)
        expect(status == 0, f"DMA to {address:#x}: status {status:#x}")
        expect(self.memory.read(address, PAGE) == pattern(page),
               f"the wrong bytes at {address:#x}")
        data = os.urandom(PAGE)
        self.memory.write(address, data)
        expect(self.nvme.write(SCRATCH, address) == 0,
               f"DMA from {address:#x} fails")
        self.memory.write(address, bytes(PAGE))
        expect(self.nvme.read(SCRATCH, address) == 0 and
               self.memory.read(address, PAGE) == data,
               f"other bytes on the disk than were at {address:#x}")

    def check_fault(self, move, address):
        """The controller does not, and only the IOMMU says so."""
        move(1, address)
        self.provoked.add(address)
        self.check_faults()

    def check_faults(self):
        odd = self.provoked ^ self.host.faults()
        expect(not odd, f"faults, or none, at {' '.join(map(hex, odd))}")

    def check_all(self, addresses):
        """All memory is locked, and within reach."""
        self.check_locked(0)
        for address in addresses:
            self.check_dma(address)
        self.check_faults()

    def held(self):
        return self.made.cmd("query-balloon").get("held")

    def check_held(self, size):
        """Memory waits, and it is said why; @size: at least so much."""
        self.made.until(lambda: self.held() and "error" in self.held(), 60,
                        lambda: f"held: {self.held()}")
        held = self.held()
        expect(held["error"] == ERROR and held["size"] >= size,
               f"held: {held}, {size} bytes and `{ERROR}` are expected")


def granule(number):
    """An address somewhere in the granule."""
    return AREA + number * GRANULE + number * PAGE


SOME = [SAFE, TAIL, *map(granule, range(0, GRANULES, 16))]


# --- the story --------------------------------------------------------------

def start_up(host, figures):
    """How long QEMU takes to start, coordinated or not."""
    took = {BALLOON: [], COORDINATED: []}
    for balloon in list(took) * 2:
        with vfio_nest.driven(host, MEMORY, balloon=balloon) as (made, _):
            took[balloon].append(made.started)
    figures.milliseconds(f"start with {MEMORY // MIB} MiB, assigned device:"
                         " not coordinated, coordinated, ms",
                         *map(min, took.values()))


def in_and_out(story, figures):
    """Memory goes and comes back, and DMA follows."""
    story.check_all(SOME)
    resident, available = story.made.resident(), story.host.available()
    with story.made.watch() as idle:
        story.check_dma(SAFE)
    given = GRANULES * GRANULE
    with story.made.watch() as discarding:
        story.inflate(AREA, given)
        story.inflate(TAIL, PART, PART)
    story.check_locked(given)
    fell = resident - story.made.resident()
    expect(fell >= SHARE * given, f"{fell} of {given} bytes left the process")

    def freed():
        return story.host.available() - available

    story.made.until(lambda: freed() >= SHARE * given, 60,
                     lambda: f"the host has {freed()} of {given} bytes")
    freed_now = freed()
    for address in SAFE, TAIL, AREA - PAGE:
        story.check_dma(address)
    for number, move in ((0, story.nvme.read), (7, story.nvme.write),
                         (GRANULES - 1, story.nvme.read)):
        story.check_fault(move, granule(number))
    story.made.until(story.host.reported, 30,
                     lambda: "the host's kernel tells of no fault")
    story.check_locked(given)
    before = time.monotonic()
    with story.made.watch() as populating:
        story.deflate(AREA, given + PART)
    took = time.monotonic() - before
    for number in 0, 7, GRANULES - 1:
        expect(not any(story.memory.read(granule(number), PAGE)),
               f"a fault left something in granule {number}")
        story.check_dma(granule(number))
    story.check_all(SOME)
    rose = story.made.resident() - (resident - fell)
    expect(rose >= SHARE * given, f"{rose} of {given} bytes came back")
    figures[f"of {given // MIB} MiB: unlocked, left the process, for the host,"
            " came back, MiB"] = ", ".join(
                f"{size / MIB:.0f}" for size in (given, fell, freed_now, rose))
    figures.milliseconds(f"deflate of {given // MIB} MiB, ms", took)
    figures.milliseconds(
        "monitor's longest wait: idle, while discarding, while populating, ms",
        idle.longest, discarding.longest, populating.longest)


def limited_deflate(story):
    """The request waits for memory that may not be locked yet."""
    story.inflate(AREA, 4 * GRANULE)
    story.made.limit(story.all - 3 * GRANULE)
    story.post(DEFLATE, AREA, 4 * GRANULE)
    story.check_held(GRANULE)
    story.check_locked(3 * GRANULE)
    expect(not story.driver.served(DEFLATE), "the request does not wait")
    for address in SAFE, TAIL, AREA:
        story.check_dma(address)
    story.made.limit("unlimited")
    story.driver.wait(DEFLATE)
    expect(not story.held(), f"held: {story.held()}")
    story.check_all(map(granule, range(4)))


def reset(story, figures):
    """The driver is gone, and all memory is the guest's."""
    story.inflate(AREA, GRANULES * GRANULE)
    before = time.monotonic()
    with story.made.watch() as watch:
        story.driver.put("b", 0x14, 0)
        story.made.monitor.wait("STOP")
        story.made.monitor.wait("RESUME")
        took = time.monotonic() - before
    story.check_all(map(granule, range(GRANULES)))
    figures.milliseconds(f"reset with {GRANULES * GRANULE // MIB} MiB in the"
                         " balloon, monitor's longest wait meanwhile, ms",
                         took, watch.longest)


def limited_reset(story):
    """The machine stands until its memory may be locked."""
    story.driver = Driver(story.qtest, story.memory, MUST_TELL_HOST)
    story.inflate(AREA, 4 * GRANULE)
    story.made.limit(story.all - 3 * GRANULE)
    story.driver.put("b", 0x14, 0)
    story.made.monitor.wait("STOP")
    story.check_held(3 * GRANULE)
    story.check_locked(3 * GRANULE)
    expect(not story.made.cmd("query-status")["running"], "the machine runs")
    story.made.limit("unlimited")
    story.made.monitor.wait("RESUME")
    expect(not story.held(), f"held: {story.held()}")
    story.check_all(map(granule, range(4)))


def trace_costs(trace):
    """Seconds of each discard and of each populate, a granule."""
    discards, populates = [], []
    for (before, _, _), (at, name, text), (after, _, _) in zip(
            trace, trace[1:], trace[2:]):
        if name.endswith("coordinator_discard"):
            start, end = (int(word, 16) for word in text.split()
                          if word.startswith("0x"))
            discards.append((after - at) * GRANULE / (end - start))
        elif name.endswith("coordinator_populate"):
            populates.append(at - before)
    return discards, populates


def told(costs):
    ordered = sorted(costs)
    return statistics.median(ordered), ordered[-1]


def drive(host, figures):
    """All of it but Linux."""
    start_up(host, figures)
    progress("QEMU starts")
    with vfio_nest.driven(host, MEMORY) as (made, qtest):
        story = Story(host, made, qtest)
        for name, part in (
                ("into the balloon and out", lambda: in_and_out(story,
                                                                figures)),
                ("a deflate, locked memory is limited",
                 lambda: limited_deflate(story)),
                ("a reset", lambda: reset(story, figures)),
                ("a reset, locked memory is limited",
                 lambda: limited_reset(story))):
            try:
                part()
            except (GuestError, OSError) as error:
                raise made.error(f"{name}: {error}") from error
            progress(name)
        discards, populates = trace_costs(made.trace())
    figures.milliseconds(f"a granule's discard: median, longest of"
                         f" {len(discards)}, ms", *told(discards))
    figures.milliseconds(f"a granule's populate: median, longest of"
                         f" {len(populates)}, ms", *told(populates))


def run(options):
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="balloon-vfio-") as folder:
        disk = f"{folder}/disk"
        make_disk(disk)
        progress("the nest boots")
        with vfio_nest.nest_guest(options, disk, folder) as host:
            progress("it has booted")
            if options.linux:
                vfio_linux.run(host, disk, figures)
            else:
                drive(host, figures)
    figures.show()


def parse():
    parser = guests.parser(__doc__)
    parser.add_argument("--linux", action="store_true",
                        help="a Linux guest in the QEMU in it")
    return guests.understood(parser.parse_args())


@guests.told("vfio")
def main():
    options = parse()
    try:
        run(options)
    except Exception as error:  # pylint: disable=broad-except
        sys.exit(f"FAILED: {error or type(error).__name__}")
    print("passed")


if __name__ == "__main__":
    main()
