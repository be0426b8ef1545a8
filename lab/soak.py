#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Hours of a balloon, condensed: random resizes, with all else mixed in.

A Linux guest allocates, fills, verifies and frees memory while management
does to it and to its balloon what it may: overtakes its own targets, stops the
machine, resets it, pulls the balloon out, migrates, saves and restores.  No
byte may change, and QEMU must hold no more at the end than after a warm-up.
The exit code is 1 otherwise.
"""

import collections
import contextlib
import os
import random
import sys
import time
from typing import NamedTuple

import guests
from bench_report import table
from guests import progress
from soak_figures import MALLOC, Figures
from soak_machine import MEMORY, SMALLEST, Life, Machine
from virtio_balloon_guest import BALLOON_PAGE, GIB, KIB, MIB

RESIZES = 1000
LIFE = 500                      # resizes, then a machine of another kind
RARE = 50                       # resizes for a reset, an unplug, a migration
OFTEN = 8                       # resizes for a stop, for a question
REST = 25                       # resizes between two looks at QEMU
SETTLED = 0.6                   # of its life a machine is in one QEMU
TRAIL = 12                      # steps told when one of them fails

SHORT = 100                     # resizes, with a warm-up that is short, too

# The warm-up is the first half of the time in the first QEMU, with some boots
# at once.  While it boots and for a while afterwards the books of TCG grow, by
# several MiB; after that by half a MiB at most.  What leaks is to be told from
# that: 1 MiB is 7 KiB a resize, 200 KiB a reset.
BOOTS = 4
HEAP, HEAP_SHORT = MIB, 8 * MIB
# Its tables for addresses, which come and go
LARGE = 32 * MIB
# Workers of QEMU's pool of threads stay for ten seconds
WORKERS = 2
# In half a second; a QEMU at rest wakes up for its monitor, and for little
# more.  A timer that is armed again and again shows, and more so each of many.
WAKEUPS = 10

COUNTED = {"resize": "resizes", "pause": "stops", "reset": "resets",
           "unplug": "unplugs", "move": "live migrations",
           "restore": "saved and restored", "cancel": "cancelled migrations",
           "polling": "polling intervals", "statistics": "statistics queries",
           "info": "info balloon"}


class Result(NamedTuple):
    """How a life was."""

    counts: collections.Counter     # by name of the step
    verified: int                   # bytes
    warm: Figures                   # after the warm-up
    settled: Figures                # before it left that QEMU
    end: Figures                    # in its last QEMU
    seconds: float


def draw_size(rng):
    """A target; now and then one beyond the memory there is."""
    if rng.randrange(20) == 0:
        return 2 * MEMORY
    return rng.randrange(SMALLEST, MEMORY, BALLOON_PAGE)


def draw_resize(rng):
    """With how much of the way to wait for; a next one overtakes the rest."""
    return "resize", draw_size(rng), rng.choice((0, 0, rng.random(), 1))


def draw_life(rng, number, stock):
    """Every other life has all that is new, the rest some of what is old."""
    if number % 2 == 0 and not stock:
        names = ["must-tell-host", "free-page-reporting", "free-page-hint"]
    else:
        names = [name for name in ("free-page-reporting", "free-page-hint")
                 if rng.randrange(2)]
    if rng.randrange(2):
        names.append("deflate-on-oom")
    return Life(tuple(names), rng.choice(("anonymous", "memfd")),
                rng.getrandbits(32))


def draw_steps(rng, resizes):
    """A life: a list of steps for each resize, the first of them.

    A step is the name of a method of Machine and its arguments.  What is rare
    happens before the first rest, and after it; the last part of the life is
    spent on journeys.
    """
    steps = [[draw_resize(rng)] for _ in range(resizes)]
    settled = round(resizes * SETTLED)
    every = max(4, min(REST, settled // 3))
    for step in steps:
        step += [draw() for draw in (
            lambda: ("pause", [1, 4 * MEMORY, draw_size(rng)]),
            lambda: ("polling", rng.randrange(4)),
            lambda: ("statistics",),
            lambda: ("info",)) if rng.randrange(OFTEN) == 0]
    often = max(1, round(resizes / RARE))
    warm = BOOTS if resizes >= SHORT else 1
    for part, boots, times in ((steps[:every], warm, 1),
                               (steps[every:], often, often)):
        for _ in range(boots):
            add(rng, part, "reset", rng.randrange(2) == 1, draw_size(rng))
        for _ in range(times):
            add(rng, part, "unplug", draw_size(rng))
            add(rng, part, "cancel")
    for _ in range(often):
        add(rng, steps[settled:], "move")
        add(rng, steps[settled:], "restore")
    rests = {*range(every, resizes, every), settled, resizes}
    for number in rests:
        steps[number - 1].append(("rest",))
    return steps, settled


def add(rng, steps, *step):
    rng.choice(steps).append(step)


def live(options, life, rng, resizes, title):
    """Live through it all; returns a Result."""
    steps, settled = draw_steps(rng, resizes)
    started, counts = time.monotonic(), collections.Counter()
    trail, rests = collections.deque(maxlen=TRAIL), {}
    progress(f"{title}: {life}")
    with contextlib.ExitStack() as stack:
        machine = Machine(options, life, stack)
        try:
            for number, group in enumerate(steps, 1):
                for step in group:
                    trail.append(step)
                    result = getattr(machine, step[0])(*step[1:])
                    counts[step[0]] += 1
                machine.check()
                if result:
                    rests[number] = result
                    progress(f"{title}: {number} of {resizes} resizes,"
                             f" {told(machine, result)}")
        except BaseException:
            print(f"{title} ended at resize {number}; its last steps:",
                  *trail, sep="\n  ")
            raise
        machine.end()
    warm = max([number for number in rests if number <= settled / 2])
    return Result(counts, machine.verified, rests[warm], rests[settled],
                  rests[resizes], time.monotonic() - started)


def told(machine, figures):
    return (f"{machine.verified / GIB:.1f} GiB verified; QEMU:"
            f" {figures.heap // KIB} + {figures.large // KIB} KiB,"
            f" {figures.fds} descriptors,"
            f" {figures.threads} threads, {figures.wakeups} wake-ups,"
            f" {figures.log} lines")


def complaints(result, own_memory=True):
    """What is not flat, or not silent."""
    found, grows = [], (HEAP if result.counts["resize"] >= SHORT else
                        HEAP_SHORT)
    for when, now in ("settled", result.settled), ("at the end", result.end):
        limits = Figures(
            heap=result.warm.heap + grows if own_memory else now.heap,
            large=result.warm.large + LARGE if own_memory else now.large,
            fds=result.warm.fds, threads=result.warm.threads + WORKERS,
            wakeups=WAKEUPS, log=0)
        found += [f"{name}, {when}: {value}, {limit} at most" for
                  name, value, limit in zip(Figures._fields, now, limits)
                  if value > limit]
    return found


def rows(results):
    """The rows of the table; a column a life, then what they add up to."""
    for name, title in COUNTED.items():
        counts = [result.counts[name] for result in results]
        yield [title, *map(str, counts), str(sum(counts))]
    for title, what, form in (
            ("verified, GiB", lambda result: result.verified / GIB, ".1f"),
            ("seconds", lambda result: result.seconds, ".0f")):
        values = list(map(what, results))
        yield [title, *(f"{v:{form}}" for v in (*values, sum(values)))]
    for name, title, unit in (("heap", "heap, KiB", KIB),
                              ("large", "large allocations, KiB", KIB),
                              ("fds", "file descriptors", 1),
                              ("threads", "threads", 1),
                              ("wakeups", "wake-ups in half a second", 1),
                              ("log", "lines in the log", 1)):
        yield [title, *(", ".join(str(getattr(figures, name) // unit) for
                                  figures in (result.warm, result.settled,
                                              result.end))
                        for result in results), ""]


def show(results):
    """Print the table."""
    print()
    print(table(["", *(f"life {n + 1}" for n in range(len(results))), "all"],
                list(rows(results))))
    print("(three figures: after the warm-up, before the first journey, at"
          " the end, in another QEMU)")


def run(options):
    """True when all was verified and is flat."""
    rng = random.Random(options.seed)
    count = max(1, round(options.resizes / LIFE))
    lives = [draw_life(rng, n, options.stock) for n in range(count)]
    results, found = [], []
    options.accelerator = guests.accelerator(options)
    os.environ.update(MALLOC)
    print(f"seed {options.seed}, {options.resizes} resizes,"
          f" {options.accelerator}", flush=True)
    for number, life in enumerate(lives):
        resizes = (options.resizes * (number + 1) // count -
                   options.resizes * number // count)
        title = f"life {number + 1} of {count}"
        results.append(live(options, life, rng, resizes, title))
        found += [f"{title}: {text}" for text in
                  complaints(results[-1], not options.sanitized)]
    show(results)
    for number, life in enumerate(lives):
        print(f"life {number + 1}: {life}")
    for text in found:
        print(f"not flat: {text}")
    return not found


def parse():
    parser = guests.parser(__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10 ** 6,
                        help="repeat the run that said it had this one")
    parser.add_argument("--stock", action="store_true",
                        help="leave out what stock QEMU does not do")
    parser.add_argument("--sanitized", action="store_true",
                        help="leave memory to the sanitizers")
    parser.add_argument("resizes", nargs="?", type=int, default=RESIZES,
                        help="20 at least")
    options = parser.parse_args()
    if options.resizes < 20:
        parser.error("20 resizes are the fewest that make sense")
    return guests.understood(options)


@guests.told("soak")
def main():
    options = parse()
    try:
        passed = run(options)
    except Exception as error:  # pylint: disable=broad-except
        print(f"\n{error or type(error).__name__}")
        passed = False
    print(f"\n{'passed' if passed else 'FAILED'}: seed {options.seed}")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
