#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run every kind of Linux guest that Debian has with the balloon.

Each boots its own kernel, does all that a balloon is for, and is a row of the
table that is printed; the exit code is 1 when a cell of it is not "ok".  A
kernel that cannot be fetched is said in its row; the exit code is 77 when none
can.

The guests have busybox and no program of ours, so that no compiler is needed
for their architectures.
"""

import argparse
import concurrent.futures
import os
import sys
import time
from typing import NamedTuple, Tuple

import guests
import debian
from guests import GuestError
from guests_checks import CHECKS, DIRTY, MEMORY, Trial
from virtio_balloon_guest import KIB, MIB

sys.path.insert(0, os.path.join(guests.REPO, "tools"))
import build  # noqa: E402  pylint: disable=wrong-import-position

# An exit code that says that nothing was tested
SKIPPED = 77


class Machine(NamedTuple):
    """How QEMU emulates an architecture."""

    debian: str                         # Debian's name for it
    console: str
    bus: str = "pci"
    arguments: Tuple[str, ...] = ()
    usual: bool = True                  # of those that ./balloon build builds


class Guest(NamedTuple):
    """A kernel of Debian's and what it runs on."""

    target: str
    suite: str
    flavour: str
    parameters: str = ""                # more for the kernel
    hints: int = DIRTY * 3 // 4         # the least that it hints at


MACHINES = {
    "x86_64": Machine("amd64", "ttyS0"),
    "s390x": Machine("s390x", "ttysclp0", "ccw"),
    "ppc64": Machine("ppc64el", "hvc0"),
    # The first processor with 16 KiB pages, and without costly signed pointers
    "aarch64": Machine("arm64", "ttyAMA0", usual=False, arguments=(
        "-machine", "virt", "-cpu", "cortex-a76")),
    "riscv64": Machine("riscv64", "ttyS0", usual=False, arguments=(
        "-machine", "virt")),
}
GUESTS = {
    "x86_64-5.10": Guest("x86_64", "bullseye", "cloud-amd64"),
    "x86_64-6.1": Guest("x86_64", "bookworm", "cloud-amd64"),
    "x86_64-6.12": Guest("x86_64", "trixie", "cloud-amd64"),
    "x86_64-newest": Guest("x86_64", "sid", "cloud-amd64"),
    "s390x": Guest("s390x", "trixie", "s390x"),
    "s390x-newest": Guest("s390x", "sid", "s390x"),
    "ppc64le": Guest("ppc64", "trixie", "powerpc64le"),
    "ppc64le-64k": Guest("ppc64", "trixie", "powerpc64le-64k"),
    "ppc64le-64k-newest": Guest("ppc64", "sid", "powerpc64le-64k"),
    "aarch64": Guest("aarch64", "trixie", "cloud-arm64"),
    # Hints are its largest blocks, 32 MiB, and so are reports unless it is told
    # otherwise: a small guest has hardly any that is free
    "aarch64-16k": Guest("aarch64", "trixie", "arm64-16k",
                         "page_reporting.page_reporting_order=5", 32 * MIB),
    "riscv64": Guest("riscv64", "trixie", "riscv64"),
}


class Row(NamedTuple):
    """What became of a guest."""

    kernel: str                         # version, or why there is none
    page: int                           # KiB; 0: it was never there
    cells: dict                         # name of a check: "ok", "FAIL"
    seconds: float
    complaints: tuple = ()

    def passed(self):
        return bool(self.cells) and set(self.cells.values()) == {"ok"}


def table(rows):
    """Lines of a table in Markdown: {name of a guest: Row}."""
    def line(*cells):
        return "| " + " | ".join(map(str, cells)) + " |"

    names = [check.name for check in CHECKS]
    lines = [line("guest", "Linux", "page", *names, "s"),
             "|---" * (len(names) + 4) + "|"]
    for name, row in rows.items():
        page = f"{row.page} KiB" if row.page else ""
        lines.append(line(name, row.kernel, page,
                          *(row.cells.get(check, "") for check in names),
                          f"{row.seconds:.0f}"))
    return lines


# --- a row -----------------------------------------------------------------

class Runner:
    """Runs the checks on one kind of guest."""

    def __init__(self, options, name, image):
        self.options, self.name, self.image = options, name, image
        self.kind = GUESTS[name]
        self.machine = MACHINES[self.kind.target]
        self.kernel, self.page = "does not boot", 0
        self.cells, self.complaints = {}, []

    def guest(self, properties, *more):
        """A guest, not started."""
        options = argparse.Namespace(
            qemu=emulator(self.options, self.kind.target),
            tree=self.options.tree)
        bus = self.machine.bus
        return guests.guest(
            options, (*self.machine.arguments, "-object", "iothread,id=io0",
                      *more),
            memory=MEMORY, balloon=f"virtio-balloon-{bus}{properties}",
            serial=f"virtio-serial-{bus}", image=self.image,
            parameters=f"console={self.machine.console}"
            f" {self.kind.parameters}")

    def run(self):
        pending = [check for check in CHECKS
                   if not self.options.check or check.name in
                   self.options.check]
        while pending:
            pending = self.run_some(pending)

    def run_some(self, checks):
        """Run those of @checks that one guest can serve; returns the others.

        After a failure a new guest takes over.
        """
        properties = checks[0].properties
        current = checks[0]
        try:
            with self.guest(properties) as guest:
                trial = Trial(guest, self.kind,
                              lambda *more: self.guest(properties, *more))
                trial.boot()
                self.kernel = trial.run("uname -r").strip()
                self.page = trial.page() // KIB
                while checks and checks[0].properties == properties:
                    current = checks[0]
                    self.say(current.name)
                    current.function(trial)
                    self.cells[current.name] = "ok"
                    checks = checks[1:]
                    if current.ends_guest:
                        break
            return checks
        except Exception as error:  # pylint: disable=broad-except
            self.cells[current.name] = "FAIL"
            self.complaints.append(f"{self.name}, {current.name}: {error}")
            self.say(f"{current.name} FAILS: {error}")
            return checks[1:] if self.page else []

    def say(self, what):
        guests.progress(f"{self.name}: {what}")


def emulator(options, target):
    if target in options.emulator:
        return options.emulator[target]
    folder = guests.BUILD
    if not MACHINES[target].usual:
        folder = os.path.join(folder, "guests", "run")
    return os.path.join(folder, f"qemu-system-{target}")


def visit(options, name):
    """The Row of the guest @name."""
    started = time.monotonic()
    kind = GUESTS[name]
    try:
        image = debian.guest_image(kind.suite, MACHINES[kind.target].debian,
                                   kind.flavour)
    except (debian.base.BaseError, GuestError) as error:
        return Row(f"cannot be had: {error}", 0, {},
                   time.monotonic() - started)
    runner = Runner(options, name, image)
    runner.run()
    return Row(runner.kernel, runner.page, runner.cells,
               time.monotonic() - started, tuple(runner.complaints))


def build_emulators(options, names):
    """Build those that ./balloon build does not."""
    targets = sorted({GUESTS[name].target for name in names} - {
        name for name, machine in MACHINES.items() if machine.usual}
        - set(options.emulator))
    if not targets:
        return
    folder = os.path.join(guests.BUILD, "guests")
    environment = dict(build.base.build_environment(),
                       CCACHE_BASEDIR=guests.BUILD)
    every = ",".join(f"{name}-softmmu" for name, machine in MACHINES.items()
                     if not machine.usual)
    build.base.say(f"building QEMU for {', '.join(targets)}")
    build.configure(options.tree, folder, [
        *build.OPTIONS, f"--target-list={every}", "--cc=ccache gcc"],
        environment)
    build.ninja(folder, [f"qemu-system-{target}" for target in targets],
                environment)
    os.makedirs(f"{folder}/run", exist_ok=True)
    for target in targets:
        build.write_launcher(emulator(options, target),
                             f"{folder}/qemu-system-{target}")


def run(options):
    """Rows by the names of the guests; printed on the way."""
    rows = {}
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        jobs = {pool.submit(visit, options, name): name
                for name in options.guest}
        try:
            for job in concurrent.futures.as_completed(jobs):
                name, row = jobs[job], job.result()
                rows[name] = row
                guests.progress(f"[{len(rows)}/{len(jobs)}] {name}: "
                                + ("passed" if row.passed() else "NOT passed"))
        finally:
            pool.shutdown(cancel_futures=True)  # when interrupted
    return {name: rows[name] for name in options.guest}


def verdict(rows):
    """The exit code: 1 if a guest failed, 77 if none was there to fail."""
    there = [row for row in rows if row.cells]
    if not there:
        return SKIPPED
    return int(not all(row.passed() for row in there))


def given_emulator(text):
    target, _, path = text.partition("=")
    if target not in MACHINES or not path:
        raise argparse.ArgumentTypeError("TARGET=PATH is expected")
    return target, path


@guests.told("guests")
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("guest", nargs="*", help=", ".join(GUESTS))
    parser.add_argument("--check", action="append",
                        choices=[check.name for check in CHECKS],
                        help="only this column")
    parser.add_argument("--jobs", type=guests.positive, default=2)
    parser.add_argument("--tree", default=guests.TREE,
                        help="QEMU's source, for the Python packages in it")
    parser.add_argument("--emulator", type=given_emulator, action="append",
                        default=[], help="TARGET=PATH of an emulator to run")
    options = parser.parse_args()
    options.emulator = dict(options.emulator)
    options.guest = options.guest or list(GUESTS)
    unknown = set(options.guest) - set(GUESTS)
    if unknown:
        parser.error(f"no guest {', '.join(unknown)}; known are "
                     + ", ".join(GUESTS))
    guests.understood(options)
    build_emulators(options, options.guest)
    started = time.monotonic()
    rows = run(options)
    print("\n".join(table(rows)))
    for row in rows.values():
        for complaint in row.complaints:
            print(f"\n{complaint}")
    absent = sum(not row.cells for row in rows.values())
    passed = sum(row.passed() for row in rows.values())
    print(f"\n{passed} guests passed, {len(rows) - passed - absent} failed,"
          f" {absent} could not be had, in {time.monotonic() - started:.0f} s")
    sys.exit(verdict(rows.values()))


if __name__ == "__main__":
    main()
