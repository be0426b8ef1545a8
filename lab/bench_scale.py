# SPDX-License-Identifier: GPL-2.0-or-later
"""What the balloon costs in small and in very large guests.

Guests of up to 8 TiB, none of which the host has in memory.  Requests are made
one at a time, of 256 pages, like Linux makes them; what they cost should
depend neither on the size of the guest nor on what is in the balloon.  A
quarter of the memory, or what there is time for, goes into the balloon and
comes out of it again, in longer lists.
"""

import array
import contextlib
import random
import re
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
CHUNK = 32 * MIB                # in which a request lists the pages
LARGE = 4 * GIB                 # the same where all of them are in a row
MAP_RANGE = 8 * GIB             # that the balloon lies in whose map is measured
MOVED = 5 * GIB // 4            # a guest that migrates
# The largest ones that do, in GiB, by what is in their balloons
LARGEST = {"one piece": 1024, "2 MiB pieces": 64, "every second page": 64}
QUICK_LARGE = {"one piece": 64, "2 MiB pieces": 4, "every second page": 4}
CALLS_RANGE = 64 * MIB

SIZES = [4 * GIB, 64 * GIB, 512 * GIB, 1024 * GIB, 8192 * GIB]
QUICK_SIZES = [4 * GIB, 1024 * GIB, 8192 * GIB]
# (title, side, must-tell-host); without it the device does not know what is in
# the balloon
SETTINGS = (("stock", "stock", False), ("at once", "told", False),
            ("told", "told", True))
ORDERS = ("far apart, first", "far apart", "scattered", "contiguous")
LAYOUTS = {"one piece": (1, 1), "2 MiB pieces": (512, 1024),
           "every second page": (1, 2)}
# Memory that at most goes into the balloon, in the order of LAYOUTS
QUARTER = {"one piece": 256 * GIB, "2 MiB pieces": 64 * GIB,
           "every second page": 16 * GIB}
QUICK_QUARTER = {"one piece": 16 * GIB, "2 MiB pieces": 8 * GIB,
                 "every second page": 2 * GIB}
STOCK_QUARTER = GIB             # the same of stock, which makes a call a page


class Cost(NamedTuple):
    """Of one request, in us, or of a GiB, in ms: of CPU in all, and until it
    was answered."""

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
    """@count pages anywhere in the upper half of a guest's memory."""
    numbers = random.Random(seed).sample(
        range(size // 2 // BALLOON_PAGE, size // BALLOON_PAGE), count)
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


def lists_of(start, length, layout):
    """Lists of pages that put the memory at @start into the balloon."""
    step = LARGE if layout == "one piece" else CHUNK
    for at in range(start, start + length, step):
        yield pages(at, min(step, start + length - at), layout)


def fill(tested, start, length, layout):
    """Put the memory at @start into the balloon."""
    for numbers in lists_of(start, length, layout):
        tested.request(INFLATE, numbers)


def quarter(size, layout, title, quick):
    """(start, length) of the memory that goes into the balloon, all of it in
    the lower half of the guest's."""
    most = (QUICK_QUARTER if quick else QUARTER)[layout]
    if title == "stock":
        most = STOCK_QUARTER
    start = GIB if size <= HOLE_START + HOLE_SIZE else HOLE_START + HOLE_SIZE
    return start, min(size // 4, most)


# --- requests and queries --------------------------------------------------

def measure_requests(tested, seed):
    """{(order, operation): Cost} with what is in the balloon; the query has no
    order."""
    found = {}
    for order in ORDERS:
        lists = requests(order, tested.size, seed)
        for name, queue in (("inflate", INFLATE), ("deflate", DEFLATE)):
            walls, cpu = tested.serve(queue, lists)
            found[order, name] = Cost(cpu / REQUESTS * 1e6,
                                      sum(walls) / REQUESTS * 1e6)
    found["", "query-balloon"] = measure_query(tested, "query-balloon")
    return found


def measure_quarter(tested, queue, start, length, layout):
    """Cost of a GiB that goes into the balloon, or out of it."""
    walls, cpu = tested.serve(queue, lists_of(start, length, layout))
    count, step = LAYOUTS[layout]
    gib = length * count / step / GIB
    return Cost(cpu / gib * 1e3, sum(walls) / gib * 1e3)


def measure_query(tested, command):
    """Cost of a QMP command."""
    with ahead(tested):
        before, start = tested.cpu(), time.perf_counter()
        for _ in range(QUERIES):
            tested.vm.cmd(command)
        wall = time.perf_counter() - start
    return Cost((tested.cpu() - before) / QUERIES / 1e3, wall / QUERIES * 1e6)


def measure_setting(tested, title, told, quick, seed):
    """({(title, order, operation): Cost}, {(title, layout, operation): Cost})
    of requests, and of a quarter of the memory."""
    found, whole = {}, {}

    def ask(title):
        for key, cost in measure_requests(tested, seed).items():
            found[(title, *key)] = cost

    tested.restart(told)
    ask(title)
    for layout in LAYOUTS:
        area = quarter(tested.size, layout, title, quick)
        tested.restart(told)
        whole[title, layout, "inflate"] = measure_quarter(
            tested, INFLATE, *area, layout)
        if told:
            ask(f"{title}, {layout}")
        whole[title, layout, "deflate"] = measure_quarter(
            tested, DEFLATE, *area, layout)
    tested.check()
    return found, whole


def start_all(options, size, stack, missing, progress):
    """{side: Giant that runs} of those that the host takes."""
    machines = {}
    for _, name, _ in SETTINGS:
        if name in machines:
            continue
        progress(f"scale: starting a guest of {size // GIB} GiB on {name}")
        try:
            tested = stack.enter_context(giant(options.all_sides[name],
                                               "anonymous", size))
        except Unavailable as error:
            missing[f"guest of {size // GIB} GiB, {name}"] = str(error)
            continue
        stack.enter_context(tested.running())
        machines[name] = tested
    return machines


def bench_requests(options, sizes, missing, progress):
    """Twice {size: {(title, order or layout, operation): [Cost...]}}: of
    requests, and of a quarter of the memory."""
    with contextlib.ExitStack() as stack:
        machines = {size: start_all(options, size, stack, missing, progress)
                    for size in sizes}
        found = {size: {} for size in sizes if machines[size]}
        whole = {size: {} for size in found}

        def keep(results, key, cost):
            results.setdefault(key, []).append(cost)

        for seed in range(options.repeat):
            for size in found:
                progress(f"scale: {size // GIB} GiB, pass {seed + 1} of"
                         f" {options.repeat}")
                for title, side, told in SETTINGS:
                    tested = machines[size].get(side)
                    if not tested:
                        continue
                    costs, wholes = measure_setting(tested, title, told,
                                                    options.quick, seed)
                    for key, cost in costs.items():
                        keep(found[size], key, cost)
                    for key, cost in wholes.items():
                        keep(whole[size], key, cost)
                keep(found[size], ("", "", "query-status"), measure_query(
                    next(iter(machines[size].values())), "query-status"))
    return found, whole


# --- what the map takes ----------------------------------------------------

def measure_map(side, size, layout):
    """What QEMU takes, by name, in KiB."""
    with giant(side, "memfd", size) as tested, tested.running():
        fill(tested, 1 * GIB, 64 * MIB, layout)     # what requests need
        length = min(MAP_RANGE, size // 4)
        tested.settle()         # what QEMU frees after its start is free
        before = tested.anonymous()
        fill(tested, top(size) + GIB - length, length, layout)
        tested.settle()
        tested.check()
        grown = (tested.anonymous() - before) / 1024
        count, step = LAYOUTS[layout]
        return {f"{layout}, for a GiB in the balloon":
                grown * step / count / length * GIB,
                f"{layout}, for a GiB that it lies in": grown / length * GIB}


def measure_process(side, size, name):
    """KiB that QEMU takes, its balloon empty.

    Most of it is not the balloon's: QEMU has bits for each page of the guest.
    """
    with giant(side, "memfd", size) as tested, tested.running():
        tested.settle()
        return {f"nothing in the balloon, all of {name}":
                tested.anonymous() / 1024}


def bench_map(options, sizes, missing, progress):
    """{size: {name: [KiB...]}}."""
    found = {size: {} for size in sizes}
    sides = options.all_sides
    for turn in range(options.guest_repeat):
        for size in sizes:
            progress(f"scale: map of {size // GIB} GiB, pass {turn + 1} of"
                     f" {options.guest_repeat}")
            try:
                figures = measure_process(sides["stock"], size, "stock's QEMU")
                figures |= measure_process(sides["told"], size, "our QEMU")
                for layout in LAYOUTS:
                    figures |= measure_map(sides["told"], size, layout)
            except Unavailable as error:
                missing[f"map of {size // GIB} GiB"] = str(error)
                continue
            for name, kib in figures.items():
                found[size].setdefault(name, []).append(kib)
    return {size: figures for size, figures in found.items() if figures}


# --- migration -------------------------------------------------------------

def available():
    """Bytes that the host has to give."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(re.search(r"^MemAvailable: +(\d+)", file.read(),
                             re.M)[1]) * 1024


def fits(size, layout):
    """May all be read that is not in the balloon?  Some kernels give memory to
    who reads what nobody has written."""
    count, step = LAYOUTS[layout or "one piece"]
    return size // step * (step - count) < available() // 2


def movers(stack, side, size, layout, whole):
    """Giants to migrate, without memory and, if @whole, with it, and a GiB or
    more in @layout in the balloon."""
    for backing in ("named", "anonymous") if whole else ("named",):
        tested = stack.enter_context(giant(side, backing, size))
        stack.enter_context(tested.running())
        set_up(tested)
        if size > MOVED:        # all of it but the first GiB
            fill(tested, GIB, 2 * GIB, layout)
            fill(tested, 4 * GIB, size - HOLE_START, layout)
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
    for layout, gib in (QUICK_LARGE if options.quick else LARGEST).items():
        cases[f"{gib} GiB, {layout}"] = gib * GIB, layout
    found = {}
    with contextlib.ExitStack() as stack:
        machines = {}
        for name, (size, layout) in cases.items():
            progress(f"scale: migration: {name}")
            whole = fits(size, layout)
            name += "" if whole else ", memory left alone"
            try:
                machines[name] = list(movers(stack, side, size, layout, whole))
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
    sizes = QUICK_SIZES if options.quick else SIZES
    found = {"calls": bench_calls(options, missing, progress),
             "map": bench_map(options, sizes, missing, progress),
             "migration": bench_migration(options, missing, progress)}
    found["requests"], found["quarter"] = bench_requests(
        options, sizes, missing, progress)
    return found, missing
