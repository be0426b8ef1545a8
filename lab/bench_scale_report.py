# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of guests of different sizes, as plain dictionaries and tables."""

from bench_plot import draw_curves
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


def curves(found, figure=lambda value: value):
    """{name: {size: dictionary of Spread}} of {size: {name: [value...]}}."""
    rows = {}
    for size, results in found.items():
        for key, passes in results.items():
            name = key if isinstance(key, str) else ", ".join(filter(None, key))
            rows.setdefault(name, {})[size_text(size)] = Spread.of(
                map(figure, passes))._asdict()
    return rows


def costs(found):
    """{name: {"cpu", "wall": {size: dictionary of Spread}}}."""
    cpu, wall = (curves(found, figure) for figure in
                 (lambda cost: cost.cpu, lambda cost: cost.wall))
    return {name: {"cpu": cpu[name], "wall": wall[name]} for name in cpu}


def plain(found, missing):
    """A dictionary for JSON."""
    return {
        "requests": costs(found["requests"]),
        "quarter": costs(found["quarter"]),
        "map": curves(found["map"]),
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
    return f"{medians[-1] / medians[0]:.2f}" if medians[0] else ""


def curve_table(rows, title):
    """A column a size; a row may lack some."""
    sizes = list(max(rows.values(), key=len))
    lines = [[name, *(spread_text(row[size]) if size in row else ""
                      for size in sizes), growth(row)]
             for name, row in rows.items()]
    return table([title, *sizes, "largest/smallest"], lines)


# (section, figure of it if it has several, title)
CURVES = (
    ("requests", "cpu", "CPU of a request, us"),
    ("requests", "wall", "time until its answer, us"),
    ("quarter", "cpu", "CPU of a GiB of a quarter of the memory, ms"),
    ("quarter", "wall", "time until its answers, ms"),
    ("map", None, "what QEMU takes, KiB"),
)


def sections(scale):
    """(title, rows) of each of CURVES that there is."""
    for section, figure, title in CURVES:
        rows = scale[section]
        if figure:
            rows = {name: row[figure] for name, row in rows.items()}
        if rows:
            yield title, rows


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
    parts = [curve_table(rows, title) for title, rows in sections(scale)]
    parts += [migration_table(scale["migration"]), calls_table(scale["calls"])]
    parts += [f"{what}: left out: {why}"
              for what, why in scale["missing"].items()]
    return "\n\n".join(parts)


# --- pictures ----------------------------------------------------------------

def of_requests(name):
    return name.endswith(", inflate")


def of_queries(name):
    return "query" in name


# name: (section, figure, which rows, how many of them are a group, title, unit)
PICTURES = {
    "scale": ("requests", "cpu", of_requests, 4,
              "What an inflate request of 256 pages takes",
              "CPU, microseconds"),
    "scale-queries": ("requests", "cpu", of_queries, 6,
                      "What query-balloon takes", "CPU, microseconds"),
    "scale-quarter": ("quarter", "cpu", bool, 6,
                      "What a GiB of a quarter of the memory takes",
                      "CPU, milliseconds"),
    "scale-map": ("map", None, bool, 2, "What QEMU takes", "KiB"),
}


def pictures(folder, scale):
    """Curves over the size of the guest; returns the paths."""
    paths = []
    for name, (section, figure, wanted, group, title,
               unit) in PICTURES.items():
        rows = {key: row[figure] if figure else row
                for key, row in scale[section].items() if wanted(key)}
        if rows:
            paths += draw_curves(folder, name, rows, group, title=title,
                                 unit=unit)
    return paths
