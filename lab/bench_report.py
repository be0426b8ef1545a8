# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of the benchmark as tables, and as one JSON document."""

import json
import statistics
from typing import NamedTuple

# A cost below this (CPU seconds a GiB) cannot be told from none
RESOLUTION = 0.002


class Spread(NamedTuple):
    """Median, smallest and largest of some figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures):
        figures = list(figures)
        return cls(statistics.median(figures), min(figures), max(figures))

    def __str__(self):
        return f"{self.median:.3f} ({self.low:.3f}..{self.high:.3f})"


def ratio(ours, stock):
    """How many times less ours costs, as a text."""
    if max(ours, stock) <= RESOLUTION:
        return "="
    if ours <= RESOLUTION:
        return f">{stock / RESOLUTION:.0f}"
    return f"{stock / ours:.1f}"


def table(head, rows):
    """Lines of a table: the first column to the left, the rest to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = []
    for row in (head, ["-" * width for width in widths], *rows):
        first, *rest = (cell.rjust(w) for cell, w in zip(row, widths))
        lines.append("  ".join([first.strip().ljust(widths[0]), *rest]))
    return "\n".join(lines)


def device_rows(device):
    """One dictionary of plain figures a row of the device part."""
    found = []
    for row, results in device.items():
        sides = {}
        for side in ("ours", "stock"):
            passes = results[side]
            sides[side] = {
                "cpu": Spread.of(p.net for p in passes)._asdict(),
                "cpu_with_traffic": Spread.of(p.gross
                                              for p in passes)._asdict(),
                "returned": statistics.median(p.returned for p in passes),
                "calls": results["calls"][side]}
        found.append(row._asdict() | sides)
    return found


def device_table(rows, floors):
    head = ["CPU s/GiB, net of traffic", "ours", "stock", "stock/ours",
            "floor", "calls/GiB ours", "stock", "given back ours", "stock"]
    lines = []
    for row in rows:
        ours, stock = row["ours"], row["stock"]
        name = (f"{row['backing']}: {row['operation']} {row['order']},"
                f" {row['state']}")
        floor = ""
        if row["state"] == "touched" and row["operation"] != "deflate":
            floor = floors.get(row["backing"], "")
        lines.append([
            name, str(Spread(**ours["cpu"])), str(Spread(**stock["cpu"])),
            ratio(ours["cpu"]["median"], stock["cpu"]["median"]),
            floor and f"{floor['median']:.3f}",
            f"{ours['calls']}", f"{stock['calls']}",
            f"{ours['returned']:.0%}", f"{stock['returned']:.0%}"])
    return table(head, lines)


GUEST_FIGURES = {
    "inflate_seconds": "seconds until the target is reached",
    "inflate_cpu": "inflating, CPU s/GiB",
    "deflate_seconds": "seconds until all is given back to the guest",
    "deflate_cpu": "deflating, CPU s/GiB",
    "returned": "share of it that the host gets",
}


def guest_figures(guest):
    """The figures of each side."""
    found = {}
    for side, results in guest.items():
        found[side] = {
            name: Spread.of(getattr(result, name)
                            for result in results["results"])._asdict()
            for name in GUEST_FIGURES}
        found[side]["calls_per_mib"] = results["calls"]
    return found


def guest_table(figures, memory):
    ours, stock = figures["ours"], figures["stock"]
    lines = [[title, str(Spread(**ours[name])), str(Spread(**stock[name])),
              "" if name == "returned" else
              ratio(ours[name]["median"], stock[name]["median"])]
             for name, title in GUEST_FIGURES.items()]
    calls = [figures[side]["calls_per_mib"] for side in ("ours", "stock")]
    lines.append(["discarding system calls a MiB",
                  *(f"{count:.2f}" for count in calls),
                  f"{calls[1] / calls[0]:.0f}" if calls[0] else ""])
    return table([f"Linux guest, {memory} GiB to 512 MiB and back", "ours",
                  "stock", "stock/ours"], lines)


def milliseconds(seconds, cut=False):
    return f"{'> ' if cut else ''}{seconds * 1000:.1f}"


def wait_table(waits):
    """@waits: {scenario: {side: {"qmp" or "vcpu": dictionary of Waits}}}."""
    lines = []
    for scenario, sides in waits.items():
        for who, title in (("qmp", "QMP"), ("vcpu", "vCPU")):
            if who not in sides["ours"]:
                continue
            cells = []
            for side in ("ours", "stock"):
                wait = sides[side][who]
                cells += [milliseconds(wait["percentile"]),
                          milliseconds(wait["longest"], wait["cut"])]
            lines.append([f"{scenario}: {title}", *cells])
    return table(["waits in ms", "ours 99 %", "longest", "stock 99 %",
                  "longest"], lines)


def plain(waits):
    """@waits with dictionaries in place of Waits."""
    return {scenario: {side: {who: wait._asdict()
                              for who, wait in values.items()}
                       for side, values in sides.items()}
            for scenario, sides in waits.items()}


def write_json(path, document):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
