#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Share a host's memory among guests that have a memory balloon.

Each SOCKET is a QMP monitor of a guest that nobody else uses, made with
-qmp unix:SOCKET,server=on,wait=off.  While the host has memory to spare, all
guests have theirs.  When processes of the host have to wait for memory, guests
lose what they do not use, a little at a time.  A guest that does not say what
it uses is left alone.  At the end all have back what was taken.  An example: a
starting point for a policy of your own.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
import time

sys.path.append(os.path.join(os.path.dirname(__file__), "..", "python"))

try:
    from qemu import qmp
except ImportError:
    sys.exit("install the Python package qemu.qmp, or run this in QEMU's source"
             " tree")

MIB = 1 << 20
# Beyond what a guest uses: this, or a quarter of that, whichever is more
HEADROOM = 32 * MIB
CLOSE = 4 * MIB         # to the present target: not worth a request
# Seconds: for an answer of QEMU, between two of a guest, until one is too old
PATIENCE, SPACE, STALE = 10, 1, 10
AT_REST = ("reached", "stalled")


class Guest:
    """What a guest has and uses, in bytes that include those of virtio-mem."""

    def __init__(self, path):
        self.name = path
        self.qmp = qmp.QMPClient()
        self.whole = self.extra = self.actual = self.target = self.first = 0
        self.state, self.inhibited = "unknown", False
        self.used, self.heard, self.task = None, 0.0, None
        # When it was asked what it uses, and how large it was then
        self.asked, self.asked_actual = 0.0, None

    async def start(self):
        await self.qmp.connect(self.name)
        await self.look()
        self.first = self.target - self.extra
        self.task = asyncio.ensure_future(self.follow())

    async def look(self):
        """Ask QEMU, which does not ask the guest."""
        sizes = {"dimm": 0, "virtio-mem": 0}
        for device in await self.qmp.execute("query-memory-devices"):
            if device["type"] in sizes:
                sizes[device["type"]] += device["data"]["size"]
        base = await self.qmp.execute("query-memory-size-summary")
        balloon = await self.qmp.execute("query-balloon")
        self.extra = sizes["virtio-mem"]
        self.whole = base["base-memory"] + sizes["dimm"] + self.extra
        self.actual = balloon["actual"] + self.extra
        self.target = balloon.get("target", balloon["actual"]) + self.extra
        self.state = balloon.get("state", "unknown")
        self.inhibited = "inhibited-by" in balloon

    async def follow(self):
        """Keep up with what QEMU tells; any event may mean other sizes."""
        with contextlib.suppress(qmp.QMPError):
            async for event in self.qmp.events:
                await self.look()
                free = event.get("data", {}).get("available-memory")
                if free is not None:
                    self.hear(free)

    def hear(self, free):
        """The guest has @free bytes; or had, if it has moved since."""
        if self.state in AT_REST and self.actual == self.asked_actual:
            self.heard = time.monotonic()
            self.used = min(max(self.actual - free, 0), self.actual)
        self.asked_actual = None

    async def ask(self):
        """Have the guest say what it uses; an event will tell."""
        if self.task.done() or self.qmp.runstate != qmp.Runstate.RUNNING:
            raise qmp.QMPError("QEMU, or its balloon, is gone")
        age = time.monotonic() - self.heard
        if age > STALE:
            self.used = None
        waits = (self.asked_actual is not None and
                 time.monotonic() - self.asked < PATIENCE)
        if age > SPACE and self.state in AT_REST and not waits:
            self.asked, self.asked_actual = time.monotonic(), self.actual
            with contextlib.suppress(qmp.ExecuteError):     # it cannot say
                await self.qmp.execute("request-balloon-stats")

    def need(self):
        """Bytes that the guest should keep; None to leave it alone."""
        if self.state not in AT_REST:
            return None                 # it cannot follow, or does already
        if self.inhibited:
            return self.whole           # it would lose, and the host not gain
        if self.state == "stalled" and self.target < self.actual:
            return self.actual          # it cannot give more
        if self.used is None:
            return None
        return min(self.used + max(HEADROOM, self.used // 4), self.whole)

    async def resize(self, target):
        """Set @target, in whole MiB, if that changes much."""
        target = max(target // MIB * MIB, self.extra + MIB)
        change = abs(target - self.target)
        if change >= CLOSE or (change and target == self.whole):
            await self.qmp.execute("balloon", {"value": target - self.extra})
            self.target = target

    async def end(self):
        """Give back what was taken."""
        if self.target - self.extra < self.first:
            await self.qmp.execute("balloon", {"value": self.first})
        await self.qmp.disconnect()


def shares(budget, needs):
    """Targets of guests, whose @needs are known; both are dictionaries.

    Each has what it needs.  What @budget has beyond that is divided evenly,
    as far as the guests have room for it.
    """
    left = max(0, budget - sum(needs.values()))
    targets = {}
    by_room = sorted(needs, key=lambda guest: guest.whole - needs[guest])
    for number, guest in enumerate(by_room):
        extra = min(guest.whole - needs[guest], left // (len(needs) - number))
        targets[guest] = needs[guest] + extra
        left -= extra
    return targets


async def attempt(guests, guest, action):
    """A guest that ends, or refuses, is no matter for the others."""
    try:
        await asyncio.wait_for(action, PATIENCE)
    except (qmp.QMPError, OSError, EOFError, asyncio.TimeoutError) as error:
        print(f"{guest.name}: {str(error) or 'no answer'}", file=sys.stderr)
        if not (guest.task and isinstance(error, qmp.ExecuteError)):
            guests.remove(guest)


async def share(guests, budget, options):
    """Set targets, once; returns the bytes that @guests may have together."""
    with open(options.pressure, encoding="ascii") as file:
        now = float(re.search(r"some avg10=([\d.]+)", file.read())[1])
    for guest in list(guests):
        await attempt(guests, guest, guest.ask())
    needs = {g: g.need() for g in guests if g.need() is not None}
    # What those that are left alone have is theirs
    others = sum(guest.target for guest in guests if guest not in needs)
    whole = sum(guest.whole for guest in guests)
    step = (now < options.low) - (now > options.high)
    budget = min(max(budget + step * whole // 16,
                     others + sum(needs.values())), whole)
    for guest, target in shares(budget - others, needs).items():
        await attempt(guests, guest, guest.resize(target))
    print(f"pressure {now:.2f} budget {budget // MIB}", *(
        f"{g.name} {g.state} actual {g.actual // MIB} target"
        f" {g.target // MIB} used {-1 if g.used is None else g.used // MIB}"
        for g in guests), sep="; ", flush=True)
    return budget


async def run(options):
    """Share until a signal comes or no guest is left; True for a signal."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    everyone = [Guest(path) for path in options.sockets]
    guests = everyone[:]
    try:
        for guest in everyone:
            await attempt(guests, guest, guest.start())
        budget = sum(guest.whole for guest in guests)
        while guests and not stop.is_set():
            budget = await share(guests, budget, options)
            await asyncio.wait([asyncio.ensure_future(stop.wait())],
                               timeout=options.interval)
        return stop.is_set()
    finally:
        await asyncio.gather(*(asyncio.wait_for(guest.end(), PATIENCE)
                               for guest in everyone), return_exceptions=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sockets", nargs="+", metavar="SOCKET")
    for name, value, text in (
            ("--pressure", "/proc/pressure/memory", "the host's pressure"),
            ("--high", 10.0, "take memory above this pressure (percent)"),
            ("--low", 1.0, "give memory below this pressure (percent)"),
            ("--interval", 2.0, "seconds between two looks")):
        parser.add_argument(name, default=value, type=type(value), help=text)
    options = parser.parse_args()
    logging.disable()                   # what goes wrong is said here
    try:
        if not asyncio.run(run(options)):
            sys.exit("no guest is left")
    except OSError as error:
        sys.exit(f"{error}: boot the host with psi=1, or give --pressure")


if __name__ == "__main__":
    main()
