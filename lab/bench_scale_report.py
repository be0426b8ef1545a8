# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of guests of different sizes, as plain dictionaries and tables."""

from bench_report import Spread, table
from virtio_balloon_guest import GIB

MIGRATION_FIGURES = {
    "switchover": "switchover, ms",
    "saving": "of that the device",
    "load": "load without memory, ms",
    "loading": "of that the device",
    "size": "KiB of that state",
}


def size_text(size):
    gib = size // GIB
    return f"{gib // 1024} TiB" if gib >= 1024 else f"{gib} GiB"


def spread_text(spread, digits=1):
    middle, low, high = (f"{value:.{digits}f}" for value in spread.values())
    return f"{middle} ({low}..{high})"


def plain(found, missing):
    """A dictionary for JSON."""
    rows = {}
    for size, costs in found["requests"].items():
        for key, passes in costs.items():
            name = ", ".join(part for part in key if part)
            for figure in ("cpu", "wall"):
                rows.setdefault(name, {}).setdefault(figure, {})[
                    size_text(size)] = Spread.of(
                        getattr(cost, figure) for cost in passes)._asdict()
    return {
        "requests": rows,
        "map": {layout: {"held": Spread.of(p[0] for p in passes)._asdict(),
                         "range": Spread.of(p[1] for p in passes)._asdict()}
                for layout, passes in found["map"].items()},
        "migration": {name: {figure: Spread.of(getattr(p, figure) for p in
                                               passes)._asdict()
                             for figure in MIGRATION_FIGURES}
                      for name, passes in found["migration"].items()},
        "calls": {", ".join(key): counts
                  for key, counts in found["calls"].items()},
        "missing": missing}


def growth(figures):
    """How many times the smallest guest's figure the largest one's is."""
    medians = [spread["median"] for spread in figures.values()]
    return medians[-1] / medians[0]


def request_table(rows, figure, title):
    sizes = list(next(iter(rows.values()))[figure])
    lines = [[name, *(spread_text(spread) for spread in row[figure].values()),
              f"{growth(row[figure]):.2f}"]
             for name, row in rows.items()]
    return table([title, *sizes, "largest/smallest"], lines)


def map_table(figures):
    return table(["what the map takes, KiB", "a GiB in the balloon",
                  "a GiB of memory it lies in"],
                 [[layout, spread_text(row["held"]),
                   spread_text(row["range"])]
                  for layout, row in figures.items()])


def migration_table(figures):
    lines = []
    for name, row in figures.items():
        row = row | {"size": {key: value / 1024
                              for key, value in row["size"].items()}}
        lines.append([name, *(spread_text(row[key], 2)
                              for key in MIGRATION_FIGURES)])
    return table(["migration", *MIGRATION_FIGURES.values()], lines)


def calls_table(figures):
    return table(["system calls, 64 MiB", "process_madvise", "without"],
                 [[name, *(str(counts.get(kind, "?"))
                           for kind in ("vector", "single"))]
                  for name, counts in figures.items()])


def tables(scale):
    """All that is printed."""
    parts = []
    if scale["requests"]:
        parts += [request_table(scale["requests"], "cpu",
                                "CPU of a request, us"),
                  request_table(scale["requests"], "wall",
                                "time until its answer, us")]
    parts += [map_table(scale["map"]), migration_table(scale["migration"]),
              calls_table(scale["calls"])]
    parts += [f"{what}: left out: {why}"
              for what, why in scale["missing"].items()]
    return "\n\n".join(parts)
