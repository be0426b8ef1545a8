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
import contextlib
import os
import re
import sys
import time
from typing import NamedTuple, Tuple

import guests
import debian
from guests import GuestError
from virtio_balloon_guest import BALLOON_PAGE, KIB, MIB

sys.path.insert(0, os.path.join(guests.REPO, "tools"))
import build  # noqa: E402  pylint: disable=wrong-import-position

MEMORY = 512 * MIB
SMALL = 256 * MIB
# Of a pattern that no two pages have alike, and of what fills all memory
KEPT = 16 * MIB
SPARE = 48 * MIB
DIRTY = 128 * MIB
# What an idle guest allocates and frees between two looks
NOISE = 4 * MIB
# Seconds.  Emulated guests of other architectures are slow, a reset s390x
# most of all
TIMEOUT = 300
BOOT = 600
# An exit code that says that nothing was tested
SKIPPED = 77

DRIVER = "/sys/bus/virtio/drivers/virtio_balloon"
UNBIND = f"cd {DRIVER} && basename virtio* >/run/name && cat /run/name >unbind"
BIND = f"cat /run/name >{DRIVER}/bind"
# New pages are written, read again and freed all the time
CHURN = ("(while [ ! -e /mem/stop ]; do"
         " head -c 4194304 /dev/urandom >/mem/new && md5sum /mem/new >/run/sum"
         " && md5sum -c /run/sum >/dev/null && echo good || echo damaged;"
         " rm /mem/new; done; echo over) >/run/log &")


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


def expect(condition, complaint):
    if not condition:
        raise GuestError(complaint)


# --- what is known without a guest -----------------------------------------

def rounded(size, page):
    """What a guest with pages of @page bytes makes of a target of @size.

    The balloon is a whole number of balloon pages, of which Linux takes a
    page's worth at a time, rather more than less.
    """
    pages = (MEMORY - size) // BALLOON_PAGE
    return MEMORY - -(-pages * BALLOON_PAGE // page) * page


def fields(text):
    """{name: number} of /proc/meminfo, in bytes, or of /proc/vmstat."""
    return {name: int(number) * (KIB if unit else 1) for name, number, unit in
            re.findall(r"^(\S+?):?\s+(\d+)( kB)?$", text, re.M)}


def differing(stats, before, after):
    """Names of statistics that are not between two looks of the guest.

    @before, @after: what fields() says of meminfo and vmstat.
    """
    wrong = []
    for name, field, slack in (
            ("total-memory", "MemTotal", 0), ("free-memory", "MemFree", NOISE),
            ("available-memory", "MemAvailable", NOISE),
            ("disk-caches", "Cached", NOISE),
            ("major-faults", "pgmajfault", 0), ("minor-faults", "pgfault", 0),
            ("swap-in", "pswpin", 0), ("swap-out", "pswpout", 0)):
        low, high = sorted((before[field], after[field]))
        if not low - slack <= stats.get(name, -1) <= high + slack:
            wrong.append(f"{name} is {stats.get(name)},"
                         f" {field} from {low} to {high}")
    return wrong


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


# --- a guest at work -------------------------------------------------------

class Trial:
    """A guest that runs, and what is looked at in it."""

    def __init__(self, guest, kind, again):
        """@again: makes another such guest, of its arguments besides."""
        self.guest, self.kind, self.again = guest, kind, again
        self.guest.start()

    def run(self, command, timeout=TIMEOUT):
        return self.guest.run(command, timeout)

    def until(self, condition, complaint):
        self.guest.until(condition, TIMEOUT, complaint)

    def boot(self):
        """Wait for the kernel, and for its driver."""
        self.run(f"ls {DRIVER}/virtio*", BOOT)

    def info(self):
        return self.guest.vm.cmd("query-balloon")

    def total(self):
        return self.meminfo()["MemTotal"]

    def meminfo(self):
        return fields(self.run("cat /proc/meminfo"))

    def spare(self):
        """How much memory a pattern may fill."""
        return self.meminfo()["MemAvailable"] - SPARE

    def page(self):
        """Bytes of a page of the guest's."""
        text = self.run("cat /proc/self/smaps")
        return int(re.search(r"KernelPageSize: *(\d+)", text)[1]) * KIB

    def resize(self, size):
        self.guest.resize(size, TIMEOUT)

    def keep(self):
        """Have the guest keep a pattern; returns its sum, for holds()."""
        return self.run(f"head -c {KEPT} /dev/urandom >/mem/kept"
                        " && md5sum </mem/kept")

    def holds(self, kept):
        """The pattern, and its copies, are as they were."""
        sums = self.run("for file in /mem/kept*; do md5sum <$file; done")
        expect(set(sums.splitlines()) == {kept.strip()}, "memory is damaged")

    def fill(self, size):
        """Fill @size bytes with copies of the pattern."""
        self.run(f"for i in $(seq {size // KEPT}); do"
                 " cp /mem/kept /mem/kept.$i; done")

    def free(self):
        self.run("rm /mem/kept.*")

    def dirty(self, size):
        """Write to @size bytes that are free, and to be free again."""
        self.fill(size)
        self.free()

    def whole(self, kept):
        """All memory is the guest's, and none of it changes."""
        expect(self.guest.actual() == MEMORY,
               f"actual is {self.guest.actual()}")
        self.fill(self.spare())
        self.holds(kept)
        self.free()

    def await_resident(self, size):
        resident = self.guest.resident
        self.until(lambda: resident() <= size,
                   lambda: f"the host holds {resident() // MIB} MiB, which"
                   f" should be {size // MIB}")


def check_sizes(trial):
    """Both sides agree to the byte."""
    whole = trial.total()
    for size in (SMALL, MEMORY - 64 * MIB, SMALL + 16 * MIB, MEMORY):
        trial.resize(size)
        left = whole - trial.total()
        expect(left == MEMORY - size, f"MemTotal fell by {left} at {size}")


def check_odd(trial):
    """Targets that are no multiple of a page are rounded as Linux does."""
    whole, page = trial.total(), trial.page()
    for odd in (BALLOON_PAGE, BALLOON_PAGE + 1234, page - BALLOON_PAGE,
                page + 3 * BALLOON_PAGE - 1):
        size = rounded(SMALL + odd, page)
        trial.guest.target(SMALL + odd)
        trial.guest.reach(size, TIMEOUT)
        left = whole - trial.total()
        expect(left == MEMORY - size, f"MemTotal fell by {left} at {size}")
        expect(trial.guest.actual() == size,
               f"actual becomes {trial.guest.actual()} at {size}")
    trial.resize(MEMORY)


def check_reached(trial):
    """The state says so when the guest can follow no further."""
    for size in (SMALL, SMALL + BALLOON_PAGE, SMALL + 7 * BALLOON_PAGE,
                 MEMORY - BALLOON_PAGE, MEMORY):
        trial.guest.target(size)
        trial.guest.until(lambda: trial.info()["state"] == "reached", 60,
                          lambda size=size: f"at the target {size}:"
                          f" {trial.info()}")


def check_memory(trial):
    """What is not in the balloon stays as it is, what was in it is usable."""
    kept = trial.keep()
    trial.dirty(DIRTY)
    for size in (SMALL, MEMORY - 128 * MIB, SMALL + 16 * MIB, MEMORY):
        trial.resize(size)
        trial.holds(kept)
    trial.whole(kept)


def check_statistics(trial):
    """Fresh ones are what /proc says of the same moment."""
    def look():
        return fields(trial.run("cat /proc/meminfo /proc/vmstat"))

    for size in (MEMORY, SMALL, MEMORY):
        trial.resize(size)
        before = look()
        trial.guest.vm.get_qmp_events()
        trial.guest.vm.cmd("request-balloon-stats")
        event = trial.guest.event("BALLOON_STATS", timeout=TIMEOUT)
        wrong = differing(event["data"], before, look())
        expect(not wrong, "; ".join(wrong))


def check_reporting(trial):
    """What the guest frees goes back to the host."""
    kept = trial.keep()
    expect(trial.info()["reporting"], "the driver does not report")
    trial.fill(DIRTY)
    high = trial.guest.resident()
    reported = trial.info()["counters"]["reported"]
    trial.free()
    enough = DIRTY * 3 // 4

    def more():
        return trial.info()["counters"]["reported"] - reported

    trial.until(lambda: more() >= enough,
                lambda: f"only {more()} bytes were reported")
    trial.await_resident(high - enough)
    expect(trial.guest.actual() == MEMORY, "the size has changed")
    trial.holds(kept)
    trial.whole(kept)


def check_hints(trial):
    """A saved guest leaves its free pages out, and loses none that it has."""
    kept = trial.keep()
    trial.dirty(DIRTY)
    held = trial.guest.resident()
    trial.run(CHURN)
    state = os.path.join(os.path.dirname(trial.guest.console), "state")
    # Slow, so that the hints come long before their pages' turn
    trial.guest.vm.cmd("migrate-set-parameters", **{
        "max-bandwidth": 64 * MIB, "downtime-limit": 2000})
    ram = trial.guest.migrate(f"file:{state}", TIMEOUT)["ram"]
    hinted = trial.info()["counters"]["hinted"]
    trial.guest.stop()
    least = trial.kind.hints
    expect(hinted >= least, f"only {hinted} bytes were hinted at")
    # Some of the hints may be of pages that it never wrote to
    expect(ram["normal-bytes"] < held - (least - DIRTY // 4),
           f"{ram['normal-bytes'] // MIB} MiB of {held // MIB} were sent")

    with trial.again("-incoming", f"file:{state}") as guest:
        restored = Trial(guest, trial.kind, trial.again)
        guest.migrated(TIMEOUT)
        with contextlib.suppress(FileNotFoundError):
            os.remove(state)
        if guest.vm.cmd("query-status")["status"] != "running":
            guest.vm.cmd("cont")
        restored.run("touch /mem/stop")
        restored.until(lambda: "over" in restored.run("cat /run/log"),
                       lambda: "it goes on for ever")
        log = restored.run("cat /run/log")
        expect("good" in log and "damaged" not in log,
               "what was written meanwhile is damaged")
        restored.holds(kept)
        restored.resize(SMALL)
        restored.holds(kept)
        restored.resize(MEMORY)
        restored.whole(kept)


def check_tell(trial):
    """must-tell-host is accepted, and keeps its word both ways."""
    features = trial.run(f"cat {DRIVER}/virtio*/features")
    expect(features[0] == "1", "the driver does not accept MUST_TELL_HOST")
    kept = trial.keep()
    for _ in range(2):
        trial.dirty(trial.spare())
        trial.resize(SMALL)
        trial.await_resident(SMALL + NOISE)
        trial.holds(kept)
        trial.resize(MEMORY)
        trial.whole(kept)


def check_unbind(trial):
    """Without its driver the guest has all; bound again, it follows."""
    whole, kept = trial.total(), trial.keep()
    trial.resize(SMALL)
    for _ in range(2):
        trial.run(UNBIND)
        expect(trial.total() == whole, f"MemTotal is {trial.total()}")
        trial.whole(kept)
        expect(trial.info()["state"] == "no-driver", f"{trial.info()}")
        trial.run(BIND)
        trial.guest.reach(SMALL, TIMEOUT)
        trial.holds(kept)
    trial.resize(MEMORY)


def check_reboot(trial):
    """The next kernel finds all memory, and inflates again."""
    kept = trial.keep()
    trial.dirty(trial.spare())
    trial.resize(SMALL)
    trial.holds(kept)
    trial.guest.vm.get_qmp_events()     # firmware may have reset it, too
    trial.guest.channel.send("reboot -f")
    trial.guest.event("RESET", timeout=TIMEOUT)
    trial.boot()
    trial.guest.reach(SMALL, TIMEOUT)
    kept = trial.keep()
    trial.resize(MEMORY)
    trial.whole(kept)


class Check(NamedTuple):
    """A column of the table."""

    name: str
    function: object
    # Checks with the same properties use the same guest
    properties: str = ""


FREE = ",free-page-reporting=on,free-page-hint=on,iothread=io0"
TELL = ",must-tell-host=on"
CHECKS = (
    Check("sizes", check_sizes), Check("odd sizes", check_odd),
    Check("reached", check_reached), Check("memory", check_memory),
    Check("statistics", check_statistics), Check("unbind", check_unbind),
    Check("reboot", check_reboot), Check("reporting", check_reporting, FREE),
    Check("hints", check_hints, FREE), Check("tell", check_tell, TELL),
)


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
                    if current.function is check_hints:
                        break           # the guest is gone
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
