#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure this balloon against QEMU's own: cost, system calls, waits.

All sides are measured in turns, in one run.  Figures are medians with the
smallest and the largest.  Writes tables, bench.json and pictures; compared with
an earlier bench.json, it fails if something of ours got worse.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from typing import NamedTuple

import bench_compare
import bench_device
import bench_figures
import bench_granules
import bench_guest
import bench_latency
import bench_migration
import bench_noise
import bench_peers
import bench_peers_report as peers_report
import bench_plot
import bench_profile
import bench_report as report
import bench_scale
import bench_scale_report as scale_report
import guests
from guests import progress
from bench_machine import BACKINGS, Unavailable
from bench_qtest import MUST_TELL_HOST

FOLDER = os.path.join(guests.BUILD, "bench")
STOCK = os.path.join(guests.BUILD, "stock", "qemu-system-x86_64")
BOUNDS = """\
What bounds ours: scattered pages of a memfd are truncated by the kernel one by
one, whoever asks (nine tenths of the time); where as few calls are made as by
stock, as in reports, it costs 30 to 40 us more each half millisecond to let go
of the big lock: two rounds of the main loop and a switch of threads."""


class Side(NamedTuple):
    """What is compared: a QEMU and its balloon."""

    qemu: str
    tree: str                   # its source
    balloon: str = "virtio-balloon-pci"
    features: int = 0           # for a driver to accept, beyond the usual


def left_out(document, part, error):
    document.setdefault("missing", {})[part] = str(error)
    print(f"\n{part}: left out: {error}")


def run_device(options, document):
    found, floors, missing = bench_device.bench(options, progress)
    document["missing"] = missing
    document["floor"] = {backing: report.Spread.of(figures)._asdict()
                         for backing, figures in floors.items()}
    rows = document["device"] = report.device_rows(found)
    print(report.device_table(rows, document["floor"]))
    for backing, why in missing.items():
        print(f"{backing}: left out: {why}")
    print(BOUNDS)


def run_guest(options, document):
    found = bench_guest.bench(options, progress)
    figures = report.guest_figures(found)
    document["guest"] = {"gib": options.guest, "sides": figures}
    for side, results in found.items():
        for what, waits in results["waits"].items():
            document.setdefault("waits", {}).setdefault(
                f"Linux guest {what}", {})[side] = {
                    who: wait._asdict() for who, wait in waits.items()}
    print("\n" + report.guest_table(figures, options.guest))


def run_hugetlb(options, document):
    try:
        found = bench_guest.bench_hugetlb(options, progress)
    except Unavailable as error:
        left_out(document, "guest in 2 MiB pages", error)
        return
    figures = document["hugetlb"] = report.spreads(found,
                                                   report.HUGETLB_FIGURES)
    print("\n" + report.side_table(
        "Linux guest in 2 MiB pages, 1 GiB to 512 MiB and back", figures,
        report.HUGETLB_FIGURES))


def run_migration(options, document):
    figures = document["migration"] = report.spreads(
        bench_migration.bench(options, progress), report.MIGRATION_FIGURES)
    print("\n" + report.side_table(
        "migration of 2 GiB in a memfd, 1.5 GiB in the balloon", figures,
        report.MIGRATION_FIGURES))


def run_granules(options, document):
    rows = bench_granules.bench(options, progress)
    document["granules"] = {str(granule): row for granule, row in rows.items()}
    print("\n" + bench_granules.table(rows))


def run_scale(options, document):
    scale = document["scale"] = scale_report.plain(
        *bench_scale.bench(options, progress))
    print("\n" + scale_report.tables(scale))


def run_peers(options, document):
    peers = document["peers"] = peers_report.plain(
        bench_peers.bench(options, progress))
    print("\n" + peers_report.tables(peers))


def run_profile(options, document):
    try:
        profile = document["profile"] = bench_profile.bench(options, progress)
    except Unavailable as error:
        left_out(document, "profile", error)
        return
    print("\n" + bench_profile.report(profile))


def run_waits(options, document):
    found = bench_latency.bench(options, progress)
    document.setdefault("waits", {}).update(report.plain(found))


PARTS = {
    "device": run_device,
    "guest": run_guest,
    "hugetlb": run_hugetlb,
    "migration": run_migration,
    "granules": run_granules,
    "peers": run_peers,
    "profile": run_profile,
    "scale": run_scale,
    "waits": run_waits,
}


def read_document(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse():
    parser = guests.parser(__doc__)
    parser.add_argument("--stock", default=STOCK,
                        help="the QEMU to compare with")
    parser.add_argument("--quick", action="store_true",
                        help="fewer passes, a smaller guest")
    parser.add_argument("--repeat", type=guests.positive, help="passes a row")
    parser.add_argument("--guest", type=guests.positive,
                        help="GiB of the Linux guest of the part guest")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--backings", nargs="+", choices=list(BACKINGS),
                        help="of the part device")
    parser.add_argument("--output", default=FOLDER)
    parser.add_argument("--against", metavar="FILE", type=read_document,
                        help="an earlier bench.json to compare with; the exit"
                        "\ncode is 1 if something of ours got worse")
    parser.add_argument("--record", action="store_true",
                        help="keep the figures of README.md, and renew its"
                        " tables; measures what\nthey need if no parts are"
                        " said")
    options = parser.parse_args()
    quick = options.quick
    options.parts = options.parts or (bench_figures.PARTS if options.record
                                      else list(PARTS))
    if options.record and set(bench_figures.PARTS) - set(options.parts):
        parser.error("--record needs " + ", ".join(bench_figures.PARTS))
    for name, part in ("guest", "guest"), ("backings", "device"):
        if getattr(options, name) and part not in options.parts:
            parser.error(f"--{name} is for the part {part}, which is not among"
                         " --parts")
    guests.understood(options)
    options.backings = options.backings or list(BACKINGS)
    options.repeat = options.repeat or (2 if quick else 5)
    options.guest_repeat = min(options.repeat, 1 if quick else 3)
    options.guest = options.guest or (2 if quick else 4)
    options.size = 64 if quick else 128         # MiB of a pass
    options.patience = 2 if quick else 12       # s until a wait is cut short
    options.bursts = 2 if quick else 6          # the same, ahead of others
    options.seconds = 1 if quick else 5         # of a driver at full speed
    ours, stock = (Side(os.path.abspath(binary), options.tree)
                   for binary in (options.qemu, options.stock))
    told = ours._replace(balloon="virtio-balloon-pci,must-tell-host=on",
                         features=MUST_TELL_HOST)
    options.sides = {"ours": ours, "stock": stock}
    options.all_sides = {"ours": ours, "told": told, "stock": stock}
    options.told_sides = {"told": told, "stock": stock}
    return options


def version(binary):
    return subprocess.run([binary, "--version"], stdout=subprocess.PIPE,
                          text=True, check=True).stdout.splitlines()[0]


def conditions(options):
    """What a reader of the figures needs to know."""
    return {"ours": version(options.qemu), "stock": version(options.stock),
            "kernel": os.uname().release, "processors": guests.processors(),
            "accelerator": options.accelerator, "load": os.getloadavg()[0],
            "passes": options.repeat, "quick": options.quick,
            "mib": options.size, "guest": options.guest}


def pictures(folder, document):
    """Draw what there is; returns the paths."""
    paths = []
    if "device" in document:
        paths += bench_plot.draw_device(folder, document["device"],
                                        document["floor"])
    if any(report.guest_sections(document)):
        paths += bench_plot.draw_guest(folder, document)
    if "waits" in document:
        paths += bench_plot.draw_waits(folder, document["waits"])
    if "peers" in document:
        paths += peers_report.pictures(folder, document["peers"])
    if "scale" in document:
        paths += scale_report.pictures(folder, document["scale"])
    return paths


def measure(options, path):
    """All parts that were asked for; what is found is in the file @path, too.
    """
    document = {"conditions": conditions(options)}
    noise = bench_noise.Noise()
    for part, function in PARTS.items():
        if part in options.parts:
            function(options, document)
            noise.part(part)
            document["noise"] = noise.document()
            report.write_json(path, document)
    return document


def run(options):
    """The whole benchmark; returns how many figures of ours got worse."""
    path = f"{options.output}/bench.json"
    options.accelerator = guests.accelerator(options)
    document = measure(options, path)
    if "waits" in document:
        print("\n" + report.wait_table(document["waits"]))
        print("no request: what the machine takes by itself; QEMU first: its"
              " threads never wait\nfor a processor, so that no other process"
              " counts")
    print("\n" + bench_noise.text(document["noise"]) + "\n")
    paths = [path, *pictures(options.output, document)]
    if options.record:
        paths += bench_figures.record(document)
    for written in paths:
        print(f"written: {os.path.relpath(written)}", flush=True)
    if not options.against:
        return 0
    text, worse = bench_compare.text(options.against, document)
    print("\n" + text)
    return worse


@guests.told("bench")
def main():
    options = parse()
    # QEMUs are ended and huge pages given back when the benchmark is ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    os.makedirs(options.output, exist_ok=True)
    worse = run(options)
    progress("done")
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
