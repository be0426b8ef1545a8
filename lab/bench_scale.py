# SPDX-License-Identifier: GPL-2.0-or-later
"""What the balloon costs in small and in very large guests.

Guests of up to 8 TiB, none of which the host has in memory.  Requests are made
one at a time, of 256 pages, like Linux makes them; what they cost should
depend neither on the size of the guest nor on what is in the balloon.
"""

import array
import contextlib
import random
import time
from typing import NamedTuple

from bench_machine import Unavailable
from bench_qtest import DEFLATE, INFLATE
from bench_scale_machine import ahead, giant, migrate, set_up
from virtio_balloon_guest import BALLOON_PAGE, GIB, MIB

PFNS = 256                      # in a request
REQUESTS = 16                   # one after another, of one measurement
QUERIES = 100
HOLE_START = 3 * GIB            # of a machine with more memory than that
HOLE_SIZE = GIB
DRIVERS = 64 * MIB              # the first of memory are the driver's
FILLED = GIB                    # where a filled balloon has its pages
MANY = 4096                     # pages of a request that fills a balloon
LARGE = 1024 * 1024             # the same where all of them are in a row
MAP_SIZE = 64 * GIB             # of the guest whose map is measured,
MAP_RANGE = 8 * GIB             # and how much of it the balloon lies in
MOVED = 5 * GIB // 4            # a guest that migrates
CALLS_RANGE = 64 * MIB

SIZES = [4 * GIB, 64 * GIB, 512 * GIB, 1024 * GIB, 8192 * GIB]
QUICK_SIZES = [4 * GIB, 1024 * GIB, 8192 * GIB]
# (title, must-tell-host, a filled balloon); without must-tell-host the device
# does not know what is in it
SETTINGS = (("at once", False, False), ("told", True, False),
            ("told, filled", True, True))
ORDERS = ("far apart, first", "far apart", "scattered", "contiguous")
LAYOUTS = {"one piece": (1, 1), "2 MiB pieces": (512, 1024),
           "every second page": (1, 2)}


class Cost(NamedTuple):
    """Of one request, in us: of CPU in all, and until it was answered."""

    cpu: float
    wall: float


def top(size):
    """The address of the last GiB of a guest's memory."""
    return size + (HOLE_SIZE if size > HOLE_START else 0) - GIB


def address(offset, size):
    """The address of a byte of a guest's memory."""
    return offset + (HOLE_SIZE if offset >= HOLE_START and size > HOLE_START
                     else 0)


def pages(start, length, layout):
    """Numbers of the pages at @start that are in the balloon."""
    count, step = LAYOUTS[layout]
    first, end = start // BALLOON_PAGE, (start + length) // BALLOON_PAGE
    if count == 1:
        return array.array("I", range(first, end, step))
    found = array.array("I")
    for at in range(first, end, step):
        found.extend(range(at, min(at + count, end)))
    return found


def far_pages(size, count, seed):
    """@count pages anywhere in a guest's memory but where the driver is."""
    numbers = random.Random(seed).sample(
        range(DRIVERS // BALLOON_PAGE, size // BALLOON_PAGE), count)
    return array.array("I", (address(n * BALLOON_PAGE, size) // BALLOON_PAGE
                             for n in numbers))


def split(numbers, count):
    return [numbers[at:at + count] for at in range(0, len(numbers), count)]


def requests(order, size, seed):
    """Lists of pages for REQUESTS requests."""
    count = PFNS * REQUESTS
    first = top(size) // BALLOON_PAGE
    if order == "contiguous":
        numbers = array.array("I", range(first, first + count))
    elif order == "scattered":
        numbers = array.array("I", (first + n for n in random.Random(
            seed).sample(range(GIB // BALLOON_PAGE), count)))
    else:
        numbers = far_pages(size, count, seed)
    return split(numbers, PFNS)


def fill(tested, start, length, layout):
    """Put the memory at @start into the balloon."""
    count = LARGE if layout == "one piece" else MANY
    for numbers in split(pages(start, length, layout), count):
        tested.request(INFLATE, numbers)


# --- requests and queries --------------------------------------------------

def measure_requests(tested, seed):
    """{(order, operation): Cost} with what is in the balloon."""
    found = {}
    for order in ORDERS:
        lists = requests(order, tested.size, seed)
        for name, queue in (("inflate", INFLATE), ("deflate", DEFLATE)):
            walls, cpu = tested.serve(queue, lists)
            found[order, name] = Cost(cpu / REQUESTS * 1e6,
                                      sum(walls) / REQUESTS * 1e6)
    return found


def measure_query(tested, command):
    """Cost of a QMP command."""
    with ahead(tested):
        before, start = tested.cpu(), time.perf_counter()
        for _ in range(QUERIES):
            tested.vm.cmd(command)
        wall = time.perf_counter() - start
    return Cost((tested.cpu() - before) / QUERIES / 1e3, wall / QUERIES * 1e6)


def measure(tested, seed):
    """{(setting, order, operation): Cost}; queries have no order."""
    found = {}
    for title, told, filled in SETTINGS:
        tested.restart(told)
        if filled:
            fill(tested, FILLED, GIB, "every second page")
        tested.settle()
        for (order, name), cost in measure_requests(tested, seed).items():
            found[title, order, name] = cost
        found[title, "", "query-balloon"] = measure_query(tested,
                                                          "query-balloon")
    tested.check()
    found["", "", "query-status"] = measure_query(tested, "query-status")
    return found


def start_all(options, stack, missing, progress):
    """{size: Giant that runs} of those that the host takes."""
    machines = {}
    for size in QUICK_SIZES if options.quick else SIZES:
        progress(f"scale: starting a guest of {size // GIB} GiB")
        try:
            tested = stack.enter_context(giant(options.all_sides["told"],
                                               "anonymous", size))
        except Unavailable as error:
            missing[f"guest of {size // GIB} GiB"] = str(error)
            continue
        stack.enter_context(tested.running())
        machines[size] = tested
    return machines


def bench_requests(options, missing, progress):
    """{size: {(setting, order, operation): [Cost...]}}."""
    with contextlib.ExitStack() as stack:
        machines = start_all(options, stack, missing, progress)
        found = {size: {} for size in machines}
        for seed in range(options.repeat):
            progress(f"scale: pass {seed + 1} of {options.repeat}")
            for size, tested in machines.items():
                for key, cost in measure(tested, seed).items():
                    found[size].setdefault(key, []).append(cost)
    return found


# --- what the map takes ----------------------------------------------------

def measure_map(side, layout):
    """KiB that QEMU grows by for each GiB in the balloon, and for each GiB of
    the memory that it lies in."""
    with giant(side, "memfd", MAP_SIZE) as tested, tested.running():
        fill(tested, 1 * GIB, 64 * MIB, layout)     # what requests need
        numbers = pages(top(MAP_SIZE) + GIB - MAP_RANGE, MAP_RANGE, layout)
        tested.settle()         # what QEMU frees after its start is free
        before = tested.anonymous()
        for some in split(numbers, MANY):
            tested.request(INFLATE, some)
        tested.check()
        grown = (tested.anonymous() - before) / 1024
        held = len(numbers) * BALLOON_PAGE
        return grown / held * GIB, grown / MAP_RANGE * GIB


def bench_map(options, missing, progress):
    """{layout: [(KiB a GiB held, KiB a GiB of the range)...]}."""
    found = {}
    for turn in range(options.guest_repeat):
        for layout in LAYOUTS:
            progress(f"scale: map of {layout}, pass {turn + 1} of"
                     f" {options.guest_repeat}")
            try:
                found.setdefault(layout, []).append(
                    measure_map(options.all_sides["told"], layout))
            except Unavailable as error:
                missing[f"map of {layout}"] = str(error)
    return {layout: figures for layout, figures in found.items() if figures}


# --- migration -------------------------------------------------------------

def movers(stack, side, size, layout):
    """Two Giants to migrate, whole and without memory, with a GiB and @layout
    of the balloon."""
    for backing in ("anonymous", "named"):
        tested = stack.enter_context(giant(side, backing, size))
        stack.enter_context(tested.running())
        set_up(tested)
        if size > MOVED:        # all of it but the first GiB
            fill(tested, GIB, 2 * GIB, "one piece")
            fill(tested, 4 * GIB, size - HOLE_START, "one piece")
        elif layout:
            fill(tested, top(size), GIB, layout)
        tested.settle()
        tested.check()
        yield tested


def bench_migration(options, missing, progress):
    """{name: [Migration...]}."""
    side = options.all_sides["told"]
    cases = {"empty balloon": (MOVED, None)}
    cases |= {f"1 GiB, {layout}": (MOVED, layout) for layout in LAYOUTS}
    large = (64 if options.quick else 1024) * GIB
    cases[f"{large // GIB} GiB, one piece"] = large, None
    found = {}
    with contextlib.ExitStack() as stack:
        machines = {}
        for name, (size, layout) in cases.items():
            progress(f"scale: migration: {name}")
            try:
                machines[name] = list(movers(stack, side, size, layout))
            except Unavailable as error:
                missing[f"migration: {name}"] = str(error)
        for turn in range(options.guest_repeat):
            for name, tested in machines.items():
                progress(f"scale: migration: {name}, pass {turn + 1} of"
                         f" {options.guest_repeat}")
                try:
                    found.setdefault(name, []).append(migrate(side, *tested))
                except Unavailable as error:
                    missing[f"migration: {name}"] = str(error)
    return {name: results for name, results in found.items() if results}


# --- system calls ----------------------------------------------------------

def measure_calls(side, backing, layout, denied):
    """Discarding system calls for CALLS_RANGE with @layout."""
    with giant(side, backing, 4 * GIB, denied=denied) as tested:
        with tested.running():
            tested.memory.write(top(tested.size), b"\xa5" * CALLS_RANGE)
            tested.serve(INFLATE, split(pages(top(tested.size), CALLS_RANGE,
                                              layout), PFNS))
            return tested.counters()["discard-calls"]


def bench_calls(options, missing, progress):
    """{(backing, layout): {"vector" or "single": calls}}."""
    found = {}
    for backing in ("memfd", "anonymous"):
        for layout in ("one piece", "every second page"):
            progress(f"scale: system calls: {backing}, {layout}")
            counts = found[backing, layout] = {}
            for name, denied in (("vector", False), ("single", True)):
                try:
                    counts[name] = measure_calls(
                        options.all_sides["told"], backing, layout, denied)
                except (Unavailable, OSError) as error:
                    missing[f"system calls, {backing}, {name}"] = str(error)
    return found


def bench(options, progress):
    """What was found of each section, and what could not be: {what: why}."""
    missing = {}
    found = {"calls": bench_calls(options, missing, progress),
             "map": bench_map(options, missing, progress),
             "migration": bench_migration(options, missing, progress),
             "requests": bench_requests(options, missing, progress)}
    return found, missing
