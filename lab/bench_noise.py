# SPDX-License-Identifier: GPL-2.0-or-later
"""How far the machine can be relied on: what else went on while it measured.

A loop that always does the same work is timed before, between and after the
parts of a benchmark.
"""

import hashlib
import resource
import statistics
import time
from typing import NamedTuple

from bench_report import Spread

DATA = bytes(4 * 1024 * 1024)
ROUNDS = 9
TICK = 0.01                     # s, the unit of /proc/stat
STEAL, IDLE, WAITING = 7, 3, 4  # columns of it
# More than that makes figures doubtful
DOUBTFUL = {"calibration": 0.1, "steal": 0.05, "others": 0.1}


class Look(NamedTuple):
    """The machine's clocks, in seconds of all processors."""

    columns: tuple              # of /proc/stat
    own: float                  # of this process and its children that ended


def look():
    with open("/proc/stat", encoding="ascii") as file:
        columns = file.readline().split()[1:9]
    usage = [resource.getrusage(who) for who in
             (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Look(tuple(int(column) * TICK for column in columns),
                sum(u.ru_utime + u.ru_stime for u in usage))


def shares(before, after):
    """Parts of all processors' time that went to the host's other guests, and
    to other processes."""
    spent = [b - a for a, b in zip(before.columns, after.columns)]
    whole = sum(spent) or TICK
    busy = sum(spent) - spent[IDLE] - spent[WAITING] - spent[STEAL]
    others = busy - (after.own - before.own)
    return {"steal": spent[STEAL] / whole, "others": max(0.0, others / whole)}


def calibrate():
    """ms of a round, the median of some."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        hashlib.sha256(DATA).digest()
        found.append((time.perf_counter() - start) * 1000)
    return statistics.median(found)


class Noise:
    """Looks at the machine between the parts of a benchmark."""

    def __init__(self):
        self.rounds = [calibrate()]
        self.first = self.last = look()
        self.parts = {}

    def part(self, name):
        """The part @name, none of whose processes lives, is over."""
        now = look()
        self.parts[name] = shares(self.last, now)
        self.rounds.append(calibrate())
        self.last = look()

    def document(self):
        return {"calibration": Spread.of(self.rounds)._asdict(),
                **shares(self.first, self.last), "parts": self.parts}


def drift(noise):
    """By which part of its median the calibrating loop changed."""
    loop = noise["calibration"]
    return (loop["high"] - loop["low"]) / loop["median"]


def doubts(noise):
    """What makes the figures doubtful: name -> by how much."""
    found = {"calibration": drift(noise), "steal": noise["steal"],
             "others": noise["others"]}
    return {name: found[name] for name, limit in DOUBTFUL.items()
            if found[name] > limit}


def text(noise):
    """What the machine did, for people."""
    line = (f"noise: the same loop took {Spread(**noise['calibration'])} ms;"
            f" {noise['steal']:.0%} of the processors' time was stolen,"
            f" {noise['others']:.0%} went to other processes")
    found = doubts(noise)
    return line + (f"\nDOUBTFUL by {', '.join(found)}" if found else "")
