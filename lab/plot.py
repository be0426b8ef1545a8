# SPDX-License-Identifier: GPL-2.0-or-later
"""Draw the three curves of a recording with gnuplot, as SVG and as PNG."""

import os
import subprocess

from virtio_balloon_guest import MIB

SCRIPT = """\
set output "{output}"
set title "A Linux guest follows its memory balloon" font ",18" offset 0,2
set xlabel "time since the guest was up (seconds)"
set ylabel "memory (MiB)"
set xrange [0:{end}]
set yrange [0:{top}]
set ytics 128
set grid ytics lc rgb "#e0e0e0" lt 1 lw 1
set border 3 lc rgb "#404040"
set tics nomirror out
set tmargin 7
set rmargin 4
set bmargin 6
set key at screen 0.52,0.045 center center horizontal maxrows 1 \\
    Left reverse samplen 2.5
{marks}
plot "{data}" using 1:4 with filledcurves y1=0 fc rgb "#cfe3f5" notitle, \\
     "" using 1:2 with steps lw 7 lc rgb "#b8b8b8" \\
        title "target (asked for)", \\
     "" using 1:3 with lines lw 2.5 lc rgb "#d9622b" \\
        title "actual (left to the guest)", \\
     "" using 1:4 with lines lw 2.5 lc rgb "#1f6fb4" \\
        title "host memory behind it"
"""
SHARE_SCRIPT = """\
set output "{output}"
set title "Two Linux guests share memory" font ",18"
set xlabel "time (seconds)"
set ylabel "memory left to the guest (MiB)"
set y2label "pressure of the host (percent)"
set xrange [0:{end}]
set yrange [0:{top}]
set y2range [0:100]
set ytics 64 nomirror
set y2tics 20
set xtics nomirror out
set grid ytics lc rgb "#e0e0e0" lt 1 lw 1
set border 11 lc rgb "#404040"
set bmargin 6
set key at screen 0.52,0.045 center center horizontal maxrows 1 \\
    Left reverse samplen 2.5
{events}
plot "{data}" using 1:2 axes x1y2 with filledcurves y1=0 fc rgb "#f3e0d0" \\
        title "pressure", \\
     "" using 1:3 with lines lw 2.5 lc rgb "#d9622b" title "first guest", \\
     "" using 1:4 with lines lw 2.5 lc rgb "#1f6fb4" title "second guest"
"""
TERMINALS = {
    "svg": 'set terminal svg size 1100,620 font "DejaVu Sans,14" '
           'background "white" enhanced',
    "png": 'set terminal pngcairo size 1100,620 font "DejaVu Sans,11.5" '
           'background "white" enhanced',
}


def write_data(path, samples):
    """One line a sample: seconds, then target, actual, resident in MiB."""
    with open(path, "w", encoding="ascii") as file:
        file.write("# seconds target actual resident (MiB)\n")
        for taken in samples:
            file.write(f"{taken.time:.3f} {taken.target / MIB:.2f}"
                       f" {taken.actual / MIB:.2f}"
                       f" {taken.resident / MIB:.2f}\n")


def marks(phases, top):
    """A shaded band and a name above the curves for each phase."""
    lines = []
    for number, phase in enumerate(phases, 1):
        middle = (phase.start + phase.end) / 2
        height = 0.7 + 1.1 * (number % 2)       # neighbours must not collide
        lines.append(f"set object {number} rectangle from"
                     f" {phase.start:.3f},0 to {phase.end:.3f},{top} behind"
                     ' fc rgb "#f3f0e6" fs solid noborder')
        lines.append(f'set label {number} "{phase.name}" at {middle:.3f},{top}'
                     f" center offset 0,{height} font ',11'")
    return "\n".join(lines)


def draw(folder, samples, phases, memory):
    """Write balloon.svg and balloon.png into @folder; returns their paths.

    Raises CalledProcessError or FileNotFoundError when gnuplot fails.
    """
    os.makedirs(folder, exist_ok=True)
    data = os.path.join(folder, "balloon.dat")
    write_data(data, samples)
    top = memory // MIB + 64
    return write(folder, "balloon", SCRIPT, data=data, top=top,
                 end=f"{samples[-1].time:.2f}", marks=marks(phases, top))


def draw_shares(folder, data, end, events, whole):
    """Write share.svg and share.png; @events: (seconds, text); else as draw().

    @data: seconds, pressure, and the sizes of two guests in MiB, a line each.
    """
    arrows = "\n".join(
        f"set arrow from {when:.2f},0 to {when:.2f},{whole + 30} nohead dt 2"
        f' lc rgb "#909090"\nset label "{text}" at {when:.2f},'
        f"{whole + 110 - 26 * (number % 3)} left offset 0.3,0 font ',11'"
        for number, (when, text) in enumerate(events))
    return write(folder, "share", SHARE_SCRIPT, data=data, end=f"{end:.2f}",
                 top=whole + 130, events=arrows)


def write(folder, name, script, **settings):
    """Draw one picture in all formats; returns the paths."""
    paths = []
    for kind, terminal in TERMINALS.items():
        output = os.path.join(folder, f"{name}.{kind}")
        filled = script.format(output=output, **settings)
        subprocess.run(["gnuplot"], input=f"{terminal}\n{filled}", text=True,
                       check=True)
        paths.append(output)
    return paths
