#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrate Linux guests live between this QEMU and the stock one.

For each machine type and each property of the balloon a guest boots in the
stock QEMU, moves to ours and back again, inflated, with memory that must not
change and memory that is rewritten all the time.  Prints a table; the exit
code is 1 when a cell of it is not "ok".
"""

import argparse
import concurrent.futures
import contextlib
import os
import sys
import tempfile
import time
from typing import NamedTuple

import guests
from virtio_balloon_guest import MIB, expect

STOCK = os.path.join(guests.BUILD, "stock", "qemu-system-x86_64")
MACHINES = ("3.1", "4.0", "5.0", "9.2", "10.0")
PROPERTIES = ("free-page-hint", "page-poison", "free-page-reporting",
              "deflate-on-oom", "qemu-4-0-config-size")
COLUMNS = ("none", *PROPERTIES, "all")
MEMORY = 288 * MIB
KEPT = "/mem/kept 40 77"                # file, MiB, seed
BUSY = "/mem/busy 8 5"
BALLOON = "/machine/peripheral/balloon0"


class Case(NamedTuple):
    """A machine type and the column that says which properties are on."""

    machine: str
    column: str

    def on(self, name):
        return self.column in (name, "all")

    def device(self):
        words = ["virtio-balloon-pci"]
        words += [f"{name}={'on' if self.on(name) else 'off'}"
                  for name in PROPERTIES]
        if self.on("free-page-hint"):
            words.append("iothread=io0")
        return ",".join(words)

    def settings(self):
        """Without init_on_free Linux does not accept page-poison."""
        poison = "init_on_free=1" if self.on("page-poison") else ""
        return {"memory": MEMORY, "balloon": self.device(),
                "parameters": poison}


class Journey:
    """One guest on its way from QEMU to QEMU."""

    def __init__(self, options, case, stack):
        self.options, self.case, self.stack = options, case, stack
        self.folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="balloon-"))
        self.current, self.whole = None, None

    def new(self, qemu, *arguments):
        """A guest not yet started in @qemu."""
        options = argparse.Namespace(qemu=qemu, tree=self.options.tree)
        arguments += ("-object", "iothread,id=io0",
                      "-machine", f"pc-i440fx-{self.case.machine}")
        return self.stack.enter_context(guests.guest(
            options, arguments, **self.case.settings()))

    def depart(self, qemu):
        """Boot in @qemu and get busy."""
        guest = self.current = self.new(qemu)
        guest.start()
        guest.run(f"memtool fill {KEPT}", timeout=120)
        self.whole = guest.total()
        guest.run("memtool dirty 100")
        guest.resize(208 * MIB)
        guest.churn(BUSY)

    def move(self, qemu):
        """Migrate live to @qemu."""
        uri = f"unix:{self.folder}/migration"
        source, target = self.current, self.new(qemu, "-incoming", uri)
        target.start()
        source.bandwidth(256 * MIB)
        size = source.actual()
        source.move(target, uri)
        source.stop()
        self.current = target
        self.check(size)

    def check(self, size):
        """Is all there, and does the balloon work where the guest is now?"""
        guest = self.current
        expect(guest.actual() == size, f"actual is {guest.actual()}")
        guest.run(f"memtool verify {KEPT}")
        for new_size in (256 * MIB, 208 * MIB):
            guest.resize(new_size)
            left = self.whole - guest.total()
            expect(left == (0 if self.case.on("deflate-on-oom")
                            else MEMORY - new_size),
                   f"MemTotal fell by {left}")
        guest.run("memtool dirty 40")
        guest.run(f"memtool verify {KEPT}")
        guest.vm.cmd("qom-set", path=BALLOON,
                     property="guest-stats-polling-interval", value=1)
        guest.until(lambda: self.statistics()["last-update"] > 0, 10,
                    lambda: "no statistics")

    def statistics(self):
        return self.current.vm.cmd("qom-get", path=BALLOON,
                                   property="guest-stats")


def travel(options, case):
    """Stock to ours and back; returns the results and a complaint or None."""
    results = ["-", "-"]
    with contextlib.ExitStack() as stack:
        try:
            journey = Journey(options, case, stack)
            journey.depart(options.stock)
            for leg, qemu in enumerate((options.qemu, options.stock)):
                results[leg] = "FAIL"
                journey.move(qemu)
                results[leg] = "ok"
            results[1] = "FAIL"
            journey.current.end_churn(BUSY)
            results[1] = "ok"
        except Exception as error:  # pylint: disable=broad-except
            return results, f"{case.machine} {case.column}: {error!r}"
    return results, None


def table(results):
    """Print a line a machine; cells: to ours, back to stock."""
    width = max(map(len, COLUMNS))
    print("\nstock -> ours, ours -> stock; a column: what is on\n")
    print("  ".join(["machine"] + [c.ljust(width) for c in COLUMNS]))
    for machine in dict.fromkeys(case.machine for case in results):
        cells = [", ".join(results[Case(machine, column)]).ljust(width)
                 if Case(machine, column) in results else " " * width
                 for column in COLUMNS]
        print("  ".join([machine.ljust(7)] + cells))


def run(options):
    """True when every guest arrived well, both ways."""
    os.environ.update(guests.image.variables())     # looked for only once
    cases = [Case(machine, column) for machine in options.machine
             for column in options.column]
    results, complaints = {}, []
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        jobs = {pool.submit(travel, options, case): case for case in cases}
        try:
            for job in concurrent.futures.as_completed(jobs):
                case, (result, complaint) = jobs[job], job.result()
                results[case] = result
                complaints += [complaint] if complaint else []
                print(f"[{len(results)}/{len(cases)}] {case.machine}"
                      f" {case.column}: {', '.join(result)}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)  # when interrupted
    table(results)
    for complaint in complaints:
        print(f"\n{complaint}")
    return not complaints


@guests.told("migration")
def main():
    parser = guests.parser(__doc__)
    parser.add_argument("--stock", default=STOCK, help="the stock QEMU")
    parser.add_argument("--jobs", type=guests.positive, default=2)
    parser.add_argument("--machine", nargs="+", default=MACHINES,
                        choices=MACHINES)
    parser.add_argument("--column", nargs="+", default=COLUMNS,
                        choices=COLUMNS)
    started = time.monotonic()
    passed = run(guests.understood(parser.parse_args()))
    print(f"\n{'passed' if passed else 'FAILED'} in"
          f" {time.monotonic() - started:.0f} s")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
