# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of the benchmark as tables, and as one JSON document."""

import json
import statistics
from typing import NamedTuple

SIDES = {"ours": "ours", "told": "must-tell-host", "stock": "stock"}
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


def markdown(head, rows):
    """The same for a document."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    "splits": "huge pages split, a GiB inflated",
}
HUGETLB_FIGURES = {name: GUEST_FIGURES[name] for name in
                   ("inflate_cpu", "deflate_cpu", "returned")}
MIGRATION_FIGURES = {
    "pages": "pages looked at, thousands",
    "seconds": "seconds",
    "sent": "MiB sent",
    "grown": "MiB of the balloon that the source holds",
    "target": "MiB that the target holds",
}
SHARES = ("returned",)          # more is better


def spreads(found, names):
    """{side: {name: dictionary of Spread}} of {side: [results]}."""
    return {side: {name: Spread.of(getattr(result, name)
                                   for result in results)._asdict()
                   for name in names}
            for side, results in found.items()}


def guest_figures(guest):
    """The figures of each side."""
    found = spreads({side: results["results"]
                     for side, results in guest.items()}, GUEST_FIGURES)
    for side, results in guest.items():
        found[side]["calls_per_mib"] = results["calls"]
    return found


def side_table(title, figures, names):
    """A column a side, and how many times less each costs than stock."""
    sides = [side for side in SIDES if side in figures]
    others = [side for side in sides if side != "stock"]
    lines = []
    for name, text in names.items():
        cells = [str(Spread(**figures[side][name])) for side in sides]
        for side in others:
            cells.append("" if name in SHARES else
                         ratio(figures[side][name]["median"],
                               figures["stock"][name]["median"]))
        lines.append([text, *cells])
    head = [SIDES[side] for side in sides]
    return table([title, *head, *(f"stock/{SIDES[side]}" for side in others)],
                 lines)


def guest_sections(document):
    """(what was done, figures, names) of each part with a Linux guest."""
    for part, title, names in (
            ("guest", "", GUEST_FIGURES),
            ("hugetlb", "2 MiB pages: ", HUGETLB_FIGURES),
            ("migration", "migration: ", MIGRATION_FIGURES)):
        if part in document:
            figures = document[part]
            yield title, figures.get("sides", figures), names


def guest_ratios(document):
    """(name, Spread of ours, Spread of stock): stock's median is 1."""
    for title, figures, names in guest_sections(document):
        for name, text in names.items():
            unit = figures["stock"][name]["median"]
            if name in SHARES or unit <= 0:
                continue
            parts = {side: Spread(*(value / unit
                                    for value in found[name].values()))
                     for side, found in figures.items()}
            for side in parts:
                if side != "stock":
                    more = "" if side == "ours" else f", {SIDES[side]}"
                    yield title + text + more, parts[side], parts["stock"]


def guest_table(figures, memory):
    sides = [SIDES[side] for side in figures]
    calls = [f"{figures[side]['calls_per_mib']:.2f}" for side in figures]
    return (side_table(f"Linux guest, {memory} GiB to 512 MiB and back",
                       figures, GUEST_FIGURES) +
            "\ndiscarding system calls a MiB: " +
            ", ".join(f"{side} {count}" for side, count in zip(sides, calls)))


def milliseconds(seconds, cut=False):
    return f"{'> ' if cut else ''}{seconds * 1000:.1f}"


WAITS = {
    "qmp": "QMP",
    "qmp_first": "QMP, QEMU first",
    "vcpu": "vCPU",
    "vcpu_first": "vCPU, QEMU first",
}


def wait_cells(wait):
    if not wait:
        return ["", ""]
    return [milliseconds(wait["percentile"]),
            milliseconds(wait["longest"], wait["cut"])]


def wait_table(waits):
    """@waits: {scenario: {side: {one of WAITS: dictionary of Waits}}}."""
    lines, head = [], ["waits in ms"]
    for side in SIDES.values():
        head += [f"{side} 99 %", "longest"]
    for scenario, sides in waits.items():
        for who, title in WAITS.items():
            cells = []
            for side in SIDES:
                cells += wait_cells(sides.get(side, {}).get(who))
            if any(cells):
                lines.append([f"{scenario}: {title}", *cells])
    return table(head, lines)


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
