# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest at work, and what management may do to it and its balloon.

Every method ends with the machine running.  Each that waits has a deadline.
"""

import os
import re
from typing import NamedTuple

import guests
import soak_figures
from migration import BALLOON
from virtio_balloon_guest import MIB

MEMORY = 320 * MIB
SMALLEST = 176 * MIB            # leaves enough for the guest and its work
KEPT = "/mem/kept 16 77"        # file, MiB, seed
WORK = "/run/work 32"
# Host memory beyond what the balloon leaves: firmware, edges of huge pages
SLACK = 16 * MIB
WAIT = 180                      # seconds; a guest may have half a processor
# TCG keeps books on what it has translated, which grow until its buffer was
# full; so that this is soon, the buffer is small and a kernel is always loaded
# to the same address
TCG = "tcg,tb-size=16"
PARAMETERS = "nokaslr"


class Life(NamedTuple):
    """How a machine is made; it is the same wherever it goes."""

    properties: tuple           # of the balloon, those that are on
    backing: str                # "anonymous" or "memfd"
    seed: int                   # of the guest's work

    def __str__(self):
        return ", ".join([f"{self.backing} memory", *self.properties])

    def device(self):
        words = ["virtio-balloon-pci"]
        words += [f"{name}=on" for name in self.properties]
        if "free-page-hint" in self.properties:
            words.append("iothread=io0")
        return ",".join(words)

    def arguments(self):
        words = ["-object", "iothread,id=io0"]
        if self.backing == "memfd":
            words += ["-object", "memory-backend-memfd,id=ram,share=on,"
                      f"size={MEMORY}", "-machine", "memory-backend=ram"]
        return words


class Machine:
    """One guest, whichever QEMU it is in at the moment."""

    def __init__(self, options, life, stack):
        self.options, self.life, self.stack = options, life, stack
        self.verified = 0       # bytes
        self.seen = 0           # of them, as told by the work of this boot
        self.whole = None       # MemTotal of this boot, its balloon empty
        self.guest = self.new()
        self.guest.start()
        self.booted()

    def new(self, *arguments):
        """A guest, not started; its QEMU ends with the stack at the latest."""
        return self.stack.enter_context(guests.guest(
            self.options, (*self.life.arguments(), *arguments),
            memory=MEMORY, balloon=self.life.device(), parameters=PARAMETERS,
            accelerator=self.options.accelerator.replace("tcg", TCG)))

    def booted(self):
        """Wait for the guest, and set it to work."""
        guest = self.guest
        guest.run("true", WAIT)
        guest.run(f"memtool fill {KEPT}", WAIT)
        guest.run(f": >/run/work; : >/run/work.log; (memtool work {WORK}"
                  f" {self.life.seed} >/run/work.log 2>&1;"
                  " echo ended >>/run/work.log) &")
        self.seen, self.whole = 0, None

    # What is looked at all the time

    def check(self):
        """Was anything damaged, or has anything happened unasked?"""
        text = self.guest.run("cat /run/work /run/work.log", WAIT).strip()
        if not re.fullmatch(r"\d*", text):
            raise self.guest.error(f"the guest's work: {text}")
        self.verified += max(0, int(text or 0) - self.seen)
        self.seen = max(self.seen, int(text or 0))
        self.check_events()
        self.check_counters()

    def check_events(self):
        """Those that came since; the events of a reset are not among them."""
        for event in self.events():
            if (event["event"] in ("RESET", "GUEST_PANICKED", "SHUTDOWN")
                    or "ERROR" in event["event"]):
                raise self.guest.error(f"an event not asked for: {event}")

    def events(self):
        """Those that came before the answer to a command."""
        self.guest.actual()
        return self.guest.vm.get_qmp_events()

    def check_counters(self):
        """What the guest gave up and what became of it must be the same."""
        if self.options.stock:
            return
        counters = self.guest.vm.cmd("query-balloon")["counters"]
        given = sum(counters[name]
                    for name in ("inflated", "reported", "revived"))
        known = (counters["discarded"] + counters["waiting"] +
                 sum(counters["skipped"].values()))
        if given != known:
            raise self.guest.error(f"{given} bytes were given up, {known} are"
                                   f" known: {counters}")

    def check_kept(self):
        self.guest.run(f"memtool verify {KEPT}", WAIT)
        self.verified += int(KEPT.split()[1]) * MIB

    def event(self, name, match=None):
        self.guest.event(name, match, WAIT)

    # What management does

    def resize(self, size, part):
        """Set a target, and wait until @part of the way is done."""
        guest, before = self.guest, self.guest.actual()
        guest.target(size)
        size = min(size, MEMORY)
        left = (1 - part) * abs(size - before)
        guest.until(lambda: abs(size - guest.actual()) <= left, WAIT,
                    lambda: f"from {before} to {size}: only {guest.actual()}")

    def pause(self, sizes):
        """Stop, also while it inflates; nothing moves while it is stopped."""
        guest = self.guest
        guest.vm.cmd("stop")
        before = guest.actual()
        for size in sizes:
            guest.target(size)
        self.info()
        if not self.options.stock:
            refused = guest.vm.qmp("request-balloon-stats")
            if "stopped" not in refused.get("error", {}).get("desc", ""):
                raise guest.error(f"statistics while stopped: {refused}")
        if guest.actual() != before:
            raise guest.error(f"stopped, and from {before} to"
                              f" {guest.actual()}")
        guest.vm.cmd("cont")

    def reset(self, stopped, size):
        """Reset; the guest boots, and follows a target set before it can."""
        guest = self.guest
        self.check_events()
        if stopped:
            guest.vm.cmd("stop")
        guest.vm.cmd("system_reset")
        self.event("RESET")
        if stopped:
            if guest.actual() != MEMORY and not self.options.stock:
                raise guest.error(f"{guest.actual()} after a reset")
            guest.vm.cmd("cont")
        guest.target(size)
        self.booted()
        self.events()                   # the firmware resets once more
        if self.options.stock:          # claims the old balloon until it moves
            guest.resize(SMALLEST, WAIT)
            guest.target(size)
        guest.reach(min(size, MEMORY), WAIT)

    def unplug(self, size):
        """Take the balloon out and put it in again."""
        guest = self.guest
        guest.vm.cmd("device_del", id="balloon0")
        self.event("DEVICE_DELETED", {"data": {"device": "balloon0"}})
        refused = guest.hmp(f"device_add {self.life.device()},id=balloon0")
        if refused:
            raise guest.error(f"device_add: {refused}")
        self.resize(size, 1)

    def polling(self, seconds):
        self.guest.vm.cmd("qom-set", path=BALLOON, value=seconds,
                          property="guest-stats-polling-interval")

    def statistics(self):
        """Fresh ones, where they can be had."""
        if self.options.stock:
            self.last_update()
            return
        self.guest.vm.cmd("request-balloon-stats")
        self.guest.until(
            lambda: not self.guest.vm.cmd("query-balloon-stats")["pending"],
            WAIT, lambda: "no statistics")
        stats = self.guest.vm.cmd("query-balloon-stats")["stats"]
        if not 0 < stats["total-memory"] <= MEMORY:
            raise self.guest.error(f"statistics: {stats}")

    def last_update(self):
        return self.guest.vm.cmd("qom-get", path=BALLOON,
                                 property="guest-stats")["last-update"]

    def info(self):
        text = self.guest.hmp("info balloon").strip()
        if not re.fullmatch(r"balloon: actual=\d+", text):
            raise self.guest.error(f"info balloon: {text}")

    # Other QEMUs

    def move(self):
        """Migrate live to another QEMU."""
        uri = f"unix:{self.folder()}/migration"
        source, target = self.guest, self.new("-incoming", uri)
        target.start()
        source.move(target, uri, WAIT)
        self.arrived(source, target)

    def restore(self):
        """Save to a file, and go on in another QEMU."""
        uri = f"file:{self.folder()}/state"
        source = self.guest
        source.vm.cmd("stop")
        source.migrate(uri, WAIT)
        target = self.new("-incoming", uri)
        target.start()
        target.migrated(WAIT)
        os.unlink(uri.removeprefix("file:"))
        target.vm.cmd("cont")
        self.arrived(source, target)

    def cancel(self):
        """Begin to migrate, and do not."""
        vm = self.guest.vm
        vm.cmd("migrate-set-parameters", **{"max-bandwidth": MIB})
        vm.cmd("migrate", uri="exec:cat >/dev/null")
        self.migration_is("active")
        vm.cmd("migrate_cancel")
        self.migration_is("cancelled")
        vm.cmd("migrate-set-parameters", **{"max-bandwidth": 1024 * MIB})

    def migration_is(self, status):
        def now():
            return self.guest.vm.cmd("query-migrate").get("status")

        self.guest.until(lambda: now() == status, WAIT,
                         lambda: f"migration: {now()}, not {status}")

    def arrived(self, source, target):
        self.guest = source
        self.check_events()
        self.end()
        self.guest = target
        self.check_kept()

    def end(self):
        """Let QEMU quit; it must do so in good order and in silence."""
        guest = self.guest
        if guest.channel:
            guest.channel.close()
        guest.vm.shutdown(timeout=WAIT)
        said = soak_figures.log(guest)
        if guest.vm.exitcode() or said:
            raise guest.error(f"QEMU ended with {guest.vm.exitcode()} and"
                              f" said: {said}")

    def folder(self):
        return os.path.dirname(self.guest.console)

    # At rest

    def rest(self):
        """Figures, after the host got memory back and the guest has all."""
        guest = self.guest
        self.polling(0)
        # All of it is to be given up anew: with transparent huge pages a part
        # of what was given up comes back as its neighbours are used
        guest.resize(MEMORY, WAIT)
        guest.resize(SMALLEST, WAIT)
        guest.until(lambda: guest.resident() <= SMALLEST + SLACK, WAIT,
                    lambda: f"the host holds {guest.resident() // MIB} MiB\n"
                    + guest.hmp("info balloon -v"))
        self.statistics()               # and none is asked for after that
        updated = self.last_update()
        guest.resize(MEMORY, WAIT)
        self.check_whole()
        self.check_kept()
        if self.last_update() != updated and not self.options.stock:
            raise guest.error("statistics came although nobody asked")
        guest.vm.cmd("stop")
        figures = soak_figures.take(guest)
        guest.vm.cmd("cont")
        return figures

    def check_whole(self):
        """Does the guest have all its memory?"""
        guest = self.guest
        self.whole = self.whole or guest.total()
        guest.until(lambda: guest.total() == self.whole, WAIT,
                    lambda: f"MemTotal is {guest.total()}, not {self.whole}")
