#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure this balloon against QEMU's own: cost, system calls, waits.

Both sides are measured in turns, in one run.  Figures are medians with the
smallest and the largest.  Writes a table, bench.json and pictures.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import bench_device
import bench_guest
import bench_latency
import bench_plot
import bench_report as report
import guests
from bench_machine import BACKINGS

FOLDER = os.path.join(guests.REPO, "build", "bench")
STOCK = os.path.join(guests.REPO, "build", "stock", "qemu-system-x86_64")
PARTS = ("device", "waits", "guest")
FLOORS = ("anonymous", "thp", "memfd", "file")
STARTED = time.monotonic()


def progress(text):
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", file=sys.stderr,
          flush=True)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    guests.add_options(parser)
    parser.add_argument("--stock", default=STOCK,
                        help="the QEMU to compare with")
    parser.add_argument("--quick", action="store_true",
                        help="fewer passes, a smaller guest")
    parser.add_argument("--repeat", type=int, help="passes a row")
    parser.add_argument("--guest", type=int, help="GiB of the Linux guest")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--backings", nargs="+", choices=list(BACKINGS),
                        default=list(BACKINGS))
    parser.add_argument("--output", default=FOLDER)
    options = parser.parse_args()
    quick = options.quick
    options.repeat = options.repeat or (2 if quick else 5)
    options.guest_repeat = min(options.repeat, 1 if quick else 3)
    options.guest = options.guest or (2 if quick else 4)
    options.size = 64 if quick else 128         # MiB of a pass
    options.patience = 4 if quick else 12       # s until a wait is cut short
    options.seconds = 2 if quick else 5         # of a driver at full speed
    options.sides = {
        side: SimpleNamespace(qemu=os.path.abspath(binary), tree=options.tree)
        for side, binary in (("ours", options.qemu), ("stock", options.stock))}
    return options


def floors(options):
    """{backing: Spread}: what the kernel takes for discarding in 1 MiB."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        program = f"{folder}/floor"
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program,
                        f"{guests.LAB}/bench/floor.c"], check=True)
        for backing in FLOORS:
            progress(f"{backing}: floor")
            found[backing] = report.Spread.of(
                float(subprocess.run([program, backing, str(options.size)],
                                     stdout=subprocess.PIPE, check=True,
                                     text=True).stdout)
                for _ in range(options.repeat))._asdict()
    return found


def version(binary):
    return subprocess.run([binary, "--version"], stdout=subprocess.PIPE,
                          text=True, check=True).stdout.splitlines()[0]


def conditions(options):
    """What a reader of the figures needs to know."""
    return {"ours": version(options.qemu), "stock": version(options.stock),
            "kernel": os.uname().release, "processors": os.cpu_count(),
            "load": os.getloadavg()[0], "passes": options.repeat,
            "mib": options.size}


def run_device(options, document):
    found, missing = bench_device.bench(options, progress)
    document["missing"] = missing
    document["floor"] = floors(options)
    rows = document["device"] = report.device_rows(found)
    print(report.device_table(rows, document["floor"]))
    for backing, why in missing.items():
        print(f"{backing}: left out: {why}")


def run_guest(options, document):
    options.accelerator = guests.accelerator(options)
    found = bench_guest.bench(options, progress)
    figures = document["guest"] = report.guest_figures(found)
    document["guest"]["gib"] = options.guest
    document.setdefault("waits", {})["Linux guest inflating"] = {
        side: {"qmp": results["waits"]._asdict()}
        for side, results in found.items()}
    print("\n" + report.guest_table(figures, options.guest))


def run_waits(options, document):
    found = bench_latency.bench(options, progress)
    document.setdefault("waits", {}).update(report.plain(found))


def pictures(folder, document):
    """Draw what there is; returns the paths."""
    paths = []
    if "device" in document:
        paths += bench_plot.draw_device(folder, document["device"],
                                        document["floor"])
    if "waits" in document:
        paths += bench_plot.draw_waits(folder, document["waits"])
    return paths


def run(options):
    """All parts that were asked for."""
    document = {"conditions": conditions(options)}
    for part, function in (("device", run_device), ("guest", run_guest),
                           ("waits", run_waits)):
        if part in options.parts:
            function(options, document)
    if "waits" in document:
        print("\n" + report.wait_table(document["waits"]))
    print()
    path = f"{options.output}/bench.json"
    report.write_json(path, document)
    for path in (path, *pictures(options.output, document)):
        print(f"written: {os.path.relpath(path)}", flush=True)


def main():
    options = parse()
    # QEMUs are ended and huge pages given back when the benchmark is ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    os.makedirs(options.output, exist_ok=True)
    try:
        run(options)
    except (guests.GuestError, guests.image.base.BaseError, OSError,
            subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
    progress("done")


if __name__ == "__main__":
    main()
