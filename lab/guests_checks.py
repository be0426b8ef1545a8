# SPDX-License-Identifier: GPL-2.0-or-later
"""What every kind of Linux guest has to do with its balloon."""

import contextlib
import os
import re
from typing import NamedTuple

from virtio_balloon_guest import (BALLOON_PAGE, BIND, DRIVER, KIB, MIB, UNBIND,
                                  expect)

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

# New pages are written, read again and freed all the time
CHURN = ("(while [ ! -e /mem/stop ]; do"
         " head -c 4194304 /dev/urandom >/mem/new && md5sum /mem/new >/run/sum"
         " && md5sum -c /run/sum >/dev/null && echo good || echo damaged;"
         " rm /mem/new; done; echo over) >/run/log &")


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
    trial.guest.await_resident(high - enough, TIMEOUT)
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
    trial.guest.vm.cmd("migrate-set-parameters", **{"downtime-limit": 2000})
    least = trial.kind.hints
    ram = trial.guest.migrate(f"file:{state}", TIMEOUT, least)["ram"]
    hinted = trial.info()["counters"]["hinted"]
    trial.guest.stop()
    expect(hinted >= least, f"only {hinted} bytes were hinted at")
    # Some of the hints may be of pages that it never wrote to
    expect(ram["normal-bytes"] < held - (least - DIRTY // 4),
           f"{ram['normal-bytes'] // MIB} MiB of {held // MIB} were sent,"
           f" {hinted // MIB} hinted at")

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
        trial.guest.await_resident(SMALL + NOISE, TIMEOUT)
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
    # It leaves no guest behind
    ends_guest: bool = False


REPORTING = ",free-page-reporting=on"
# Reports would take the memory before the hints
HINTS = ",free-page-hint=on,iothread=io0"
TELL = ",must-tell-host=on"
CHECKS = (
    Check("sizes", check_sizes), Check("odd sizes", check_odd),
    Check("reached", check_reached), Check("memory", check_memory),
    Check("statistics", check_statistics), Check("unbind", check_unbind),
    Check("reboot", check_reboot),
    Check("reporting", check_reporting, REPORTING),
    Check("hints", check_hints, HINTS, True), Check("tell", check_tell, TELL),
)
