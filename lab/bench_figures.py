#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures that README.md tells, and the file that keeps them.

`./balloon bench --record` reduces what it found to that file, and writes
README's tables from it; a test sees to it that they say what the file says.
Run by itself, this writes README's tables anew.
"""

import json
import os
import re
import sys
import textwrap

import guests
import bench_noise
import bench_peers_report
from bench_report import markdown, milliseconds

FILE = os.path.join(guests.LAB, "figures.json")
README = os.path.join(guests.REPO, "README.md")
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)",
                    re.S)
PARTS = ("device", "guest", "peers", "waits")   # of the benchmark
DIGITS = 4                      # of a figure that are kept

# The device alone; the floor has its pages in order
COSTS = {
    "inflate, pages in order": "anonymous inflate ascending touched",
    "inflate, pages in random order": "anonymous inflate random touched",
    "inflate, transparent huge pages": "thp inflate ascending touched",
    "inflate, shared memfd": "memfd inflate ascending touched",
    "inflate, shared memfd, random order": "memfd inflate random touched",
    "inflate, private mapping of a file": "file inflate ascending touched",
    "deflate": "anonymous deflate ascending empty",
    "reports of free pages": "anonymous report ascending touched",
}
FLOORS = {row for row in COSTS.values() if "ascending touched" in row}
# A Linux guest: (what it is, digits)
GUEST = {
    "inflate_seconds": ("Linux guest, {gib} GiB to 512 MiB, seconds", 1),
    "inflate_cpu": ("CPU but for its processors, s/GiB", 2),
    "splits": ("huge pages split, for a GiB inflated", 0),
}
# QMP's answers: (scenario, who asks)
WAITS = {
    "while the guest only writes to memory":
        ("Linux guest writing to memory", "qmp"),
    "while the guest inflates": ("Linux guest inflating", "qmp"),
    "the same, QEMU first": ("Linux guest inflating", "qmp_first"),
    "a ring of 256-page lists, QEMU first":
        ("ring of 256-page lists", "qmp_first"),
    "one list of 64 MiB": ("one 64 MiB list", "qmp"),
}
# What makes them doubtful: said of the processors
DOUBTS = {
    "calibration": "whose speed changed by {:.0%}",
    "steal": "{:.0%} of whose time was stolen",
    "others": "{:.0%} of whose time other processes took",
}
COLUMNS = {"stock": "stock", "ours": "this one",
           "told": "with `must-tell-host`"}


def rounded(value):
    return value if isinstance(value, bool) else float(f"{value:.{DIGITS}g}")


def kept(spread):
    """A dictionary of Spread as it is kept."""
    return {name: rounded(value) for name, value in spread.items()}


def machine(conditions):
    """What is kept of the machine: its kind."""
    def version(text, parts):
        return re.search(r"\d+" + r"\.\d+" * (parts - 1), text)[0]

    return {"stock": version(conditions["stock"], 3),
            "kernel": version(conditions["kernel"], 2),
            **{name: conditions[name] for name in
               ("processors", "accelerator", "passes", "quick")}}


def device_costs(document):
    rows = {" ".join(row[name] for name in
                     ("backing", "operation", "order", "state")): row
            for row in document["device"]}
    costs = {}
    for name, key in COSTS.items():
        if key not in rows:
            continue            # the host has no such memory
        costs[name] = {side: kept(rows[key][side]["cpu"])
                       for side in ("stock", "ours")}
        backing = key.split()[0]
        if key in FLOORS and backing in document["floor"]:
            costs[name]["floor"] = kept(document["floor"][backing])
    return costs


def reduced(document):
    """What is kept of a document of the benchmark."""
    sides = document["guest"]["sides"]
    return {
        "conditions": machine(document["conditions"]),
        "noise": {"calibration": kept(document["noise"]["calibration"]),
                  "steal": rounded(document["noise"]["steal"]),
                  "others": rounded(document["noise"]["others"])},
        "costs": device_costs(document),
        "guest": {"gib": document["guest"]["gib"], "sides": {
            side: {name: kept(figures[name]) for name in GUEST}
            for side, figures in sides.items()}},
        "waits": {name: {side: {what: rounded(value) for what, value in
                                found[who].items()}
                         for side, found in
                         document["waits"].get(scenario, {}).items()
                         if who in found}
                  for name, (scenario, who) in WAITS.items()},
        "peers": {size: {peer: {name: kept(spread) for name, spread
                                in figures.items()}
                         for peer, figures in peers.items()}
                  for size, peers in document["peers"].items()},
    }


# --- README's tables --------------------------------------------------------

def text_costs(figures):
    found, noise = figures["conditions"], figures["noise"]
    quick = " --quick" if found["quick"] else ""
    doubts = "".join(", " + DOUBTS[name].format(value) for name, value in
                     bench_noise.doubts(noise).items())
    words = (f"`./balloon bench{quick} --record`, ours against stock"
             f" {found['stock']}, in turns in one run: medians of up to"
             f" {found['passes']} passes on {found['processors']} processors"
             f"{doubts} (Linux {found['kernel']},"
             f" {found['accelerator'].upper()}).  CPU seconds of the device"
             " for a GiB, touched memory, a vCPU running:")

    def cell(row, side):
        # what is less than nothing is the noise of what was taken off
        return f"{max(0.0, row[side]['median']):.2f}" if side in row else ""

    rows = [[name, *(cell(row, side) for side in ("stock", "ours", "floor"))]
            for name, row in figures["costs"].items()]
    head = ["", "stock", "this one", "a plain loop of 1 MiB discards"]
    return (textwrap.fill(words, 79, break_on_hyphens=False) + "\n\n" +
            markdown(head, rows))


def wait_cell(wait):
    if not wait:
        return ""
    return (milliseconds(wait["percentile"]) + ", "
            + milliseconds(wait["longest"], wait["cut"]))


def text_guest(figures):
    guest = figures["guest"]
    rows = [[text.format(gib=guest["gib"]),
             *(f"{guest['sides'][side][name]['median']:.{digits}f}"
               for side in COLUMNS)]
            for name, (text, digits) in GUEST.items()]
    rows += [[f"QMP answer, {name}, 99 % and longest, ms",
              *(wait_cell(found.get(side)) for side in COLUMNS)]
             for name, found in figures["waits"].items()]
    return markdown(["", *COLUMNS.values()], rows)


def text_peers(figures):
    return bench_peers_report.tables(figures["peers"], markdown, whole=False)


SECTIONS = {"costs": text_costs, "guest": text_guest, "peers": text_peers}


def filled(readme, figures):
    """@readme with the tables that @figures give."""
    def section(match):
        return f"{match[1]}{SECTIONS[match[2]](figures)}\n{match[3]}"

    text, count = MARKED.subn(section, readme)
    if count != len(SECTIONS):
        raise ValueError(f"README.md has {count} tables of figures")
    return text


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def one_line_each(text):
    """JSON whose innermost objects have a line each."""
    return re.sub(r"\{[^{}]*\}", lambda found: re.sub(r"\s+", " ", found[0]),
                  text)


def renew():
    """Write README's tables anew."""
    write(README, filled(read(README), json.loads(read(FILE))))


def record(document):
    """Keep the figures of @document; returns the paths of what is written."""
    write(FILE, one_line_each(json.dumps(reduced(document), indent=1)) + "\n")
    renew()
    return [FILE, README]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    renew()
