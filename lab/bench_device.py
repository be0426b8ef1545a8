# SPDX-License-Identifier: GPL-2.0-or-later
"""The device alone: what inflating, deflating and reporting cost QEMU.

Every figure is the CPU time of some requests less the CPU time of the same
requests with nothing to discard: lists of pages that do not exist, reports of
less than a page.  Requests are those of Linux: 256 page numbers in a list, 32
blocks of 2 MiB in a report.
"""

import contextlib
import os
import random
import struct
import subprocess
import tempfile
from typing import NamedTuple

import guests
from bench_machine import (AREA, Calls, HUGE_PAGE, Unavailable, backing_ready,
                           machine)
from bench_qtest import DEFLATE, INFLATE, LISTS, REPORT, RING
from virtio_balloon_guest import BALLOON_PAGE, GIB, MIB

HOLE = 0xd0000000               # an address with nothing behind it
PFNS = 256                      # in a request
BLOCKS = 32                     # in a report
FLOORS = ("anonymous", "thp", "memfd", "file")
COUNTED = 16 * MIB              # memory of a pass under strace, at most


class Row(NamedTuple):
    """What is measured."""

    backing: str
    operation: str
    order: str
    state: str                  # of the memory before: touched or empty


def rows(backing):
    """The rows of one backing; the memory's state matters to the order."""
    orders = {"hugetlb": ("ascending", "descending"),
              "anonymous-idle": ("ascending", "random")}.get(
                  backing, ("ascending", "descending", "random"))
    yield from (Row(backing, "inflate", order, "touched") for order in orders)
    if backing == "anonymous-idle":
        return
    yield Row(backing, "deflate", "ascending", "empty")
    yield Row(backing, "report", "ascending", "touched")
    if backing == "anonymous":
        yield Row(backing, "inflate", "ascending", "empty")
        yield Row(backing, "inflate", "random", "empty")
        yield Row(backing, "deflate", "random", "empty")
        yield Row(backing, "deflate", "ascending", "touched")
        yield Row(backing, "report", "ascending", "empty")


class Result(NamedTuple):
    """One measurement of a row: CPU seconds a GiB, share given back."""

    net: float
    gross: float
    returned: float


def ordered(count, order, seed):
    numbers = list(range(count))
    if order == "descending":
        numbers.reverse()
    elif order == "random":
        random.Random(seed).shuffle(numbers)
    return numbers


def list_chains(driver, start, numbers):
    """Requests that list the pages @numbers from the address @start on."""
    first = start // BALLOON_PAGE
    data = struct.pack(f"<{len(numbers)}I", *(first + n for n in numbers))
    driver.memory.write(LISTS, data)
    step = 4 * PFNS
    return [[(LISTS + at, min(step, len(data) - at), False)]
            for at in range(0, len(data), step)]


def report_chains(numbers, size):
    """Reports of @size bytes of each of the blocks @numbers."""
    return [[(AREA + n * HUGE_PAGE, size, True)
             for n in numbers[at:at + BLOCKS]]
            for at in range(0, len(numbers), BLOCKS)]


def traffic(driver, row, size, seed, empty):
    """(queue, chains) of @row for @size bytes, or with @empty for none."""
    if row.operation == "report":
        numbers = ordered(size // HUGE_PAGE, row.order, seed)
        return REPORT, report_chains(numbers, BALLOON_PAGE // 2 if empty
                                     else HUGE_PAGE)
    queue = INFLATE if row.operation == "inflate" else DEFLATE
    numbers = ordered(size // BALLOON_PAGE, row.order, seed)
    return queue, list_chains(driver, HOLE if empty else AREA, numbers)


def serve(tested, queue, chains):
    """CPU time in ns that the machine needs for @chains."""
    room = RING // max(map(len, chains))
    spent = 0
    for at in range(0, len(chains), room):
        tested.driver.post(queue, chains[at:at + room])
        before = tested.cpu()
        tested.driver.kick(queue)
        tested.driver.wait(queue)
        spent += tested.cpu() - before
    return spent


def prepare(tested, row, size):
    """Bring the area into the state that @row starts from."""
    if row.state == "touched":
        tested.touch(size)
    elif tested.resident(size):
        whole = Row(row.backing, "inflate", "ascending", "touched")
        serve(tested, *traffic(tested.driver, whole, size, 0, False))


def measure(tested, row, size, seed):
    """A Result of one pass."""
    scale = GIB / size / 1e9
    with tested.running():
        idle = serve(tested, *traffic(tested.driver, row, size, seed, True))
        prepare(tested, row, size)
        before = tested.resident(size)
        spent = serve(tested, *traffic(tested.driver, row, size, seed, False))
        returned = before - tested.resident(size)
    return Result((spent - idle) * scale, spent * scale, returned / size)


def count(tested, row, size):
    """Discarding system calls a GiB."""
    size = min(size, COUNTED)
    with tested.running():
        prepare(tested, row, size)
        chains = traffic(tested.driver, row, size, 1, False)
        with Calls(tested.pid) as calls:
            serve(tested, *chains)
            return calls.count() * GIB // size


@contextlib.contextmanager
def floor_program():
    """A function of a backing and a size in MiB: CPU seconds a GiB that the
    kernel takes for discarding 1 MiB at a time."""
    source = os.path.join(guests.LAB, "bench", "floor.c")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        program = f"{folder}/floor"
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program, source],
                       check=True)

        def floor(backing, size):
            return float(subprocess.run([program, backing, str(size)],
                                        stdout=subprocess.PIPE, check=True,
                                        text=True).stdout)
        yield floor


def bench_backing(options, backing, progress):
    """{row: {"ours": [Result...], "stock": ..., "calls": {...}}}, and the
    floor: CPU seconds a GiB.

    Raises Unavailable when the host has no such memory.
    """
    size = options.size * MIB
    with contextlib.ExitStack() as stack:
        stack.enter_context(backing_ready(backing))
        sides = {name: stack.enter_context(machine(side, backing))
                 for name, side in options.sides.items()}
        found = {row: {side: [] for side in sides} | {"calls": {}}
                 for row in rows(backing)}
        floor, floors = stack.enter_context(floor_program()), []
        for seed in range(options.repeat):
            progress(f"{backing}: pass {seed + 1} of {options.repeat}")
            if backing in FLOORS:
                floors.append(floor(backing, options.size))
            for row, results in found.items():
                for side, tested in sides.items():
                    results[side].append(measure(tested, row, size, seed))
        progress(f"{backing}: counting system calls")
        for row, results in found.items():
            for side, tested in sides.items():
                results["calls"][side] = count(tested, row, size)
    return found, floors


def bench(options, progress):
    """All rows, the floors, {backing: [...]}, and what could not be measured,
    {backing: why}."""
    found, floors, missing = {}, {}, {}
    for backing in options.backings:
        try:
            rows_found, figures = bench_backing(options, backing, progress)
            found |= rows_found
            if figures:
                floors[backing] = figures
        except Unavailable as error:
            missing[backing] = str(error)
            progress(f"{backing}: left out: {error}")
    return found, floors, missing
