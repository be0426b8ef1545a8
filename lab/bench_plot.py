# SPDX-License-Identifier: GPL-2.0-or-later
"""Pictures of a benchmark's figures, drawn with gnuplot as SVG and PNG."""

import os
import subprocess
from typing import NamedTuple

from bench_report import RESOLUTION, SIDES, WAITS, guest_ratios

TERMINALS = {
    "svg": 'set terminal svg size 1150,{height} font "DejaVu Sans,14" '
           'background "white"\n',
    "png": 'set terminal pngcairo size 1150,{height} font "DejaVu Sans,11.5"'
           ' background "white"\n',
}
# Bars lie on their side: gnuplot's boxxyerror, one row of the data a pair
COMMON = """\
set output "{output}"
set title "{title}" font ",17" offset -{half},0
set datafile separator "\\t"
set border 1 lc rgb "#404040"
set grid xtics lc rgb "#e0e0e0" lt 1 lw 1
set logscale x
set xrange [{low}:{high}]
set yrange [{rows}-0.3:-0.7]
set ytics nomirror scale 0 ({names})
set xtics nomirror out
set xlabel "{unit}" offset -{half},0
set lmargin {margin}
set rmargin 5
set tmargin 3.5
set bmargin 6.5
set key at screen 0.5,{key} center center horizontal maxrows 1 \\
    Left reverse samplen 1.6
set style fill solid 1 noborder
"""
BARS = """\
plot "{data}" using 5:($1+0.19):({low}):5:($1+0.03):($1+0.35) \\
        with boxxyerror lc rgb "#b8b8b8" title "stock", \\
     "" using 2:($1-0.19):({low}):2:($1-0.35):($1-0.03) \\
        with boxxyerror lc rgb "#1f6fb4" title "ours", \\
"""
SPREADS = """\
     "" using 2:($1-0.19):3:4 with xerrorbars pt 0 lc rgb "#0b2f52" \\
        notitle, \\
     "" using 5:($1+0.19):6:7 with xerrorbars pt 0 lc rgb "#555555" \\
        notitle"""
FLOORS = """, \\
     "" using 8:($1-0.38):(0):(0.76) with vectors nohead lw 2.5 \\
        lc rgb "#d9622b" title "kernel (floor)"
"""
PERCENTILES = """\
     "" using 3:($1-0.19) with points pt 7 ps 0.9 lc rgb "#0b2f52" notitle, \\
     "" using 6:($1+0.19) with points pt 7 ps 0.9 lc rgb "#555555" \\
        title "99th percentile"
"""
# A row of the data is a size of the guest, three columns of it a curve.  Curves
# of a group differ in their colours, groups in their dashes and marks
COLOURS = ("#d9622b", "#1f6fb4", "#2f8f4e", "#7a4fa3", "#b0a020", "#404040")
SCALE = """\
set output "{output}"
set title "{title}" font ",17"
set datafile separator "\\t"
set border 3 lc rgb "#404040"
set grid lc rgb "#e0e0e0" lt 1 lw 1
set logscale xy
set xrange [{first}*0.8:{last}*1.25]
set xtics nomirror out ({names})
set ytics nomirror out
set xlabel "memory of the guest"
set ylabel "{unit}: median, smallest and largest"
set key outside right center vertical Left reverse samplen 1.6
plot {lines}
"""
# A row of the data is a peer, three columns of it a figure
PANELS = """\
set output "{output}"
set datafile separator "\t"
set datafile missing ""
set multiplot layout {lines},2 title "{title}" font ",17"
set border 1 lc rgb "#404040"
set grid xtics lc rgb "#e0e0e0" lt 1 lw 1
set xrange [0:0.01<*]
set yrange [{rows}-0.4:-0.6]
set xtics nomirror out
set ytics nomirror scale 0 ({names})
set lmargin {margin}
set rmargin 4
set tmargin 2.5
set bmargin 2.5
set style fill solid 1 noborder
unset key
{panels}
"""
PANEL = """\
set title "{name}" font ",13"
plot "{data}" using {first}:0:(0):{first}:($0-0.3):($0+0.3) \
        with boxxyerror lc rgb "#1f6fb4", \
     "" using {first}:0:{low}:{high} with xerrorbars pt 0 lc rgb "#0b2f52"
"""


class Bar(NamedTuple):
    """A pair of bars: Spread-like triples (median, low, high) of both sides
    and, where there is one, a mark."""

    name: str
    ours: tuple
    stock: tuple
    mark: float = None


def write_data(path, bars, low):
    """Logarithms know no zero: what is less than the axis ends at it."""
    with open(path, "w", encoding="ascii") as file:
        for number, bar in enumerate(bars):
            figures = [max(figure, low) for figure in (*bar.ours, *bar.stock)]
            mark = max(bar.mark, low) if bar.mark else "NaN"
            file.write("\t".join(map(str, (number, *figures, mark))) + "\n")


def draw(folder, name, bars, more, **values):
    """Write name.svg and name.png; returns their paths.

    @more: what is plotted beside the bars.  @values: title, unit, low and
    high end of the axis.  Raises CalledProcessError or FileNotFoundError when
    gnuplot fails.
    """
    data = os.path.join(folder, f"{name}.dat")
    write_data(data, bars, values["low"])
    names = ", ".join(f'"{bar.name}" {n}' for n, bar in enumerate(bars))
    margin = max(len(bar.name) for bar in bars) + 2
    height = 180 + 30 * len(bars)
    paths = []
    for kind, terminal in TERMINALS.items():
        output = os.path.join(folder, f"{name}.{kind}")
        script = (terminal + COMMON + BARS + more).format(
            output=output, data=data, names=names, rows=len(bars),
            height=height, key=25 / height, margin=margin, half=margin / 2,
            **values)
        subprocess.run(["gnuplot"], input=script, text=True, check=True)
        paths.append(output)
    return paths


def gib(text):
    """GiB of a text like "4 GiB"."""
    number, unit = text.split()
    return int(number) * {"GiB": 1, "TiB": 1024}[unit]


def draw_curves(folder, name, rows, group, **texts):
    """Lines over the size of the guest, both axes logarithmic.

    @rows: {name: {size: Spread-like dictionary}}; some may lack a size.
    @group: how many of them make a group.  @texts: title, unit.
    """
    data = os.path.join(folder, f"{name}.dat")
    sizes = list(max(rows.values(), key=len))
    with open(data, "w", encoding="ascii") as file:
        for size in sizes:
            cells = [gib(size)]
            for row in rows.values():
                # a logarithm knows no zero
                cells += [value if value > 0 else "NaN" for value in
                          triple(row[size])] if size in row else ["NaN"] * 3
            file.write("\t".join(map(str, cells)) + "\n")
    lines = ", ".join(
        f'"{data}" using 1:{3 * n + 2}:{3 * n + 3}:{3 * n + 4} with'
        f' yerrorlines lw 1.5 pt {n // group + 4} ps 0.9 dt {n // group + 1}'
        f' lc rgb "{COLOURS[n % group]}" title "{curve}"'
        for n, curve in enumerate(rows))
    names = ", ".join(f'"{size}" {gib(size)}' for size in sizes)
    paths = []
    for kind, terminal in TERMINALS.items():
        paths.append(os.path.join(folder, f"{name}.{kind}"))
        script = terminal.format(height=max(500, 200 + 22 * len(rows))) + (
            SCALE.format(output=paths[-1], names=names, lines=lines,
                         first=gib(sizes[0]), last=gib(sizes[-1]), **texts))
        subprocess.run(["gnuplot"], input=script, text=True, check=True)
    return paths


def triple(spread):
    return spread["median"], spread["low"], spread["high"]


def draw_device(folder, rows, floors):
    """The device alone: a pair of bars a row."""
    bars = []
    for row in rows:
        floor = None
        if row["operation"] != "deflate" and row["state"] == "touched":
            floor = floors.get(row["backing"], {}).get("median")
        bars.append(Bar(
            f"{row['backing']}: {row['operation']} {row['order']},"
            f" {row['state']}", triple(row["ours"]["cpu"]),
            triple(row["stock"]["cpu"]), floor))
    return draw(folder, "device", bars, SPREADS + FLOORS, low=RESOLUTION,
                high=10, title="What the balloon costs QEMU's process",
                unit="CPU seconds a GiB: median, smallest and largest (no bar:"
                     f" less than {RESOLUTION})")


def draw_guest(folder, document):
    """Linux guests: each figure as a part of stock's."""
    bars = [Bar(*row) for row in guest_ratios(document)]
    return draw(folder, "guest", bars, SPREADS, low=0.001, high=10,
                title="What a Linux guest's balloon costs",
                unit="times what stock takes: median, smallest and largest"
                     " (no bar: less than a thousandth)")


def draw_peers(folder, name, title, peers, figures):
    """A panel for each of @figures, {name: title}, with a bar for each of
    @peers, {title: {figure: Spread-like dictionary}}."""
    data = os.path.join(folder, f"{name}.dat")
    with open(data, "w", encoding="ascii") as file:
        for found in peers.values():
            cells = []
            for figure in figures:
                cells += triple(found[figure]) if figure in found else [""] * 3
            file.write("\t".join(map(str, cells)) + "\n")
    panels = "".join(PANEL.format(data=data, name=text, first=3 * n + 1,
                                  low=3 * n + 2, high=3 * n + 3)
                     for n, text in enumerate(figures.values()))
    names = ", ".join(f'"{peer}" {n}' for n, peer in enumerate(peers))
    lines = (len(figures) + 1) // 2
    paths = []
    for kind, terminal in TERMINALS.items():
        paths.append(os.path.join(folder, f"{name}.{kind}"))
        script = terminal.format(height=80 + 250 * lines) + PANELS.format(
            output=paths[-1], title=title, lines=lines, rows=len(peers),
            names=names, margin=max(map(len, peers)) + 2, panels=panels)
        subprocess.run(["gnuplot"], input=script, text=True, check=True)
    return paths


def wait_bars(waits):
    """A pair of bars for each of WAITS, and for each of our sides."""
    def figures(wait):
        longest = wait["longest"] * 1000
        return longest, wait["percentile"] * 1000, longest

    for scenario, sides in waits.items():
        for who, title in WAITS.items():
            for side in ("ours", "told"):
                if who not in sides.get(side, {}):
                    continue
                more = "" if side == "ours" else f", {SIDES[side]}"
                stock = sides["stock"][who]
                yield Bar(f"{scenario}: {title}{more}"
                          f"{' *' if stock['cut'] else ''}",
                          figures(sides[side][who]), figures(stock))


def draw_waits(folder, waits):
    """Longest waits as bars, the percentile as a point."""
    return draw(folder, "waits", list(wait_bars(waits)), PERCENTILES, low=0.01,
                high=20000, title="How long the balloon keeps others waiting",
                unit="longest wait, ms (*: stock went on for longer than was"
                     " waited for)")
