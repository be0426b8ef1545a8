# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of the balloon and of what else takes memory from a guest."""

import os

from bench_plot import draw_peers
from bench_report import Spread, markdown, table

TITLES = {
    "stock": "stock",
    "ours": "ours",
    "told": "must-tell-host",
    "mem-2M": "virtio-mem, 2 MiB",
    "mem-128M": "virtio-mem, 128 MiB",
    "reporting": "free page reporting",
}
# name: (what it is, digits)
FIGURES = {
    "down_seconds": ("down: seconds until it is done", 2),
    "given_seconds": ("down: seconds until 9/10 are the host's", 2),
    "given": ("MiB that the host gets", 0),
    "down_main": ("down: CPU of the main thread, s/GiB", 3),
    "down_process": ("down: CPU of all of QEMU, s/GiB", 3),
    "splits": ("huge pages split, a GiB", 0),
    "down_slowest": ("down: slowest round in the guest, ms", 1),
    "up_seconds": ("up: seconds until it is done", 2),
    "up_main": ("up: CPU of the main thread, s/GiB", 3),
    "up_process": ("up: CPU of all of QEMU, s/GiB", 3),
    "up_slowest": ("up: slowest round in the guest, ms", 1),
    "rest_slowest": ("at rest: slowest round in the guest, ms", 1),
}
NOTE = """\
CPU of all of QEMU: less what the loop in the guest takes at rest.  Reporting:
nobody asks; what the guest has freed comes back, and is the guest's again
when it writes to it."""


def plain(found):
    """{"2 GiB": {peer: {figure: dictionary of Spread}}} of what was found."""
    return {f"{gib} GiB": {
        peer: {figure: Spread.of(getattr(result, figure)
                                 for result in results)._asdict()
               for figure in FIGURES
               if getattr(results[0], figure) is not None}
        for peer, results in peers.items()} for gib, peers in found.items()}


def cell(spread, digits, whole=True):
    """A figure as a text, with its spread if @whole."""
    if spread is None:
        return ""
    middle, low, high = (f"{spread[name]:.{digits}f}"
                         for name in ("median", "low", "high"))
    return f"{middle} ({low}..{high})" if whole else middle


def rows(peers, whole=True):
    return [[text, *(cell(figures.get(name), digits, whole)
                     for figures in peers.values())]
            for name, (text, digits) in FIGURES.items()]


def head(size, peers):
    return [f"Linux guest, {size} to 512 MiB and back",
            *(TITLES[peer] for peer in peers)]


def tables(document, form=table, whole=True):
    """All sizes as a text; @form: table for a console, or markdown.

    @whole: medians with their spread.
    """
    return "\n\n".join([form(head(size, peers), rows(peers, whole))
                        for size, peers in document.items()] + [NOTE])


def pictures(folder, document):
    """A picture a size; returns the paths."""
    drawn = [name for name in FIGURES if name not in ("given", "up_main",
                                                      "up_process",
                                                      "rest_slowest")]
    paths = []
    for size, peers in document.items():
        name = f"peers-{size.replace(' ', '')}"
        paths += draw_peers(
            folder, name, head(size, peers)[0],
            {TITLES[peer]: figures for peer, figures in peers.items()},
            {name: FIGURES[name][0] for name in drawn})
        path = os.path.join(folder, f"{name}.md")
        with open(path, "w", encoding="utf-8") as file:
            file.write(tables({size: peers}, markdown) + "\n")
        paths.append(path)
    return paths
