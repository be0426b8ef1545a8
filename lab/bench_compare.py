# SPDX-License-Identifier: GPL-2.0-or-later
"""Two documents of the benchmark compared, figure by figure."""

from typing import NamedTuple

import bench_noise
from bench_report import RESOLUTION, Spread, table

MORE_IS_BETTER = ("returned", "given")
SHARES = ("granules",)          # parts in which all figures are such
# Are no figures, or explain some
APART = ("conditions", "noise", "missing", "gib", "profile")
# What is measured beside the balloon of this repository
OTHERS = ("stock", "mem-2M", "mem-128M", "floor", "no request",
          "query-status", "rest_slowest")
TOLERANCE = 0.05                # of a figure: no run repeats another
ALONE = 1.0                     # the same of what was measured only once


class Figure(NamedTuple):
    """A figure of a document."""

    spread: Spread
    tolerance: float = TOLERANCE


class Change(NamedTuple):
    """A figure in two documents."""

    name: str
    before: Spread
    now: Spread
    verdict: str                # "", "worse", "better"
    counts: bool                # is it one of ours?


def figure(value):
    """The Figure that @value is, None if it is none."""
    if isinstance(value, dict):
        if set(value) == set(Spread._fields):
            return Figure(Spread(**value), TOLERANCE if value["low"] <
                          value["high"] else ALONE)
        if "percentile" in value:
            return Figure(Spread(*[value["percentile"] * 1000] * 3), ALONE)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        return Figure(Spread(value, value, value))
    return None


def items(value):
    """(name, value) of what @value consists of."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        for row in value:
            names = [cell for cell in row.values() if isinstance(cell, str)]
            yield " ".join(names), row


def flatten(value, path=()):
    """{path: Figure} of a document."""
    found = {}
    for name, part in items(value):
        if name in APART:
            continue
        one = figure(part)
        found |= {(*path, name): one} if one else flatten(part, (*path, name))
    return found


def is_ours(path):
    return not any(name.startswith(other) for name in path
                   for other in OTHERS)


def verdict(path, before, now, tolerance):
    """Has it changed by more than both spreads and @tolerance, and how?"""
    change = now.median - before.median
    if abs(change) <= max(before.high - before.low, now.high - now.low,
                          tolerance * before.median, RESOLUTION):
        return ""
    more = path[-1] in MORE_IS_BETTER or path[0] in SHARES
    return "better" if (change > 0) == more else "worse"


def compare(before, now):
    """Changes of all figures that both documents have."""
    noise = [bench_noise.drift(document["noise"])
             for document in (before, now) if "noise" in document]
    old, new = flatten(before), flatten(now)
    return [Change(": ".join(path), one.spread, new[path].spread,
                   verdict(path, one.spread, new[path].spread,
                           max(one.tolerance, new[path].tolerance) +
                           max(noise, default=0)),
                   is_ours(path))
            for path, one in old.items() if path in new]


def worse(changes):
    """Those for which the exit code is 1."""
    return [change for change in changes
            if change.counts and change.verdict == "worse"]


def other_conditions(before, now):
    """What was different when it was measured."""
    first, second = (document.get("conditions", {})
                     for document in (before, now))
    return [f"{name}: {first.get(name)}, now {second.get(name)}"
            for name in sorted(first | second) if name != "load"
            and first.get(name) != second.get(name)]


def text(before, now):
    """Two documents side by side, and how many figures got worse."""
    changes = compare(before, now)
    lines = []
    for change in changes:
        quotient = (f"{change.now.median / change.before.median:.2f}"
                    if change.before.median else "")
        mark = change.verdict.upper() if change.counts else change.verdict
        lines.append([change.name, str(change.before), str(change.now),
                      quotient, mark])
    parts = [f"other conditions: {line}"
             for line in other_conditions(before, now)]
    parts.append(table(["figure", "before", "now", "now/before", ""], lines))
    bad = worse(changes)
    parts.append(f"{len(changes)} figures, {len(bad)} of ours got worse"
                 + "".join(f"\n  {change.name}" for change in bad))
    return "\n".join(parts), len(bad)
