#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Share a host's memory among guests that have a memory balloon.

usage: virtio-balloon-share.py [options] SOCKET...

Each SOCKET is a QMP monitor of a guest that nobody else uses, made with
-qmp unix:SOCKET,server=on,wait=off.  While the host has memory to spare, all
guests have theirs.  When processes of the host have to wait for memory, guests
lose what they do not use, a little at a time.

An example: a starting point for a policy of your own.
"""

import argparse
import json
import re
import socket
import sys
import time

MIB = 1 << 20
# Beyond what a guest uses: this, or a quarter of that, whichever is more
HEADROOM = 32 * MIB
# Targets closer than this to the present one are not worth a request
CLOSE = 4 * MIB


class QMPError(Exception):
    """QEMU refused a command."""


class QMP:
    """Commands to one QEMU; its events are passed over."""

    def __init__(self, path):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(path)
        self.file = connection.makefile("rw", encoding="utf-8")
        self.file.readline()                            # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        json.dump({"execute": command, "arguments": arguments}, self.file)
        self.file.write("\n")
        self.file.flush()
        for line in self.file:
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QMPError(answer["error"]["desc"])
        raise ConnectionError("QEMU is gone")


class Guest:
    """What a guest has, and what it needs."""

    def __init__(self, path):
        self.name = path
        self.qmp = QMP(path)
        sizes = self.qmp.execute("query-memory-size-summary")
        self.whole = sizes["base-memory"] + sizes.get("plugged-memory", 0)
        self.look()

    def look(self):
        """Ask QEMU for the balloon's state, and the guest for its needs."""
        self.need = None
        balloon = self.qmp.execute("query-balloon")
        self.state = balloon["state"]
        self.actual, self.target = balloon["actual"], balloon["target"]
        self.need = self.needed()

    def needed(self):
        """Bytes that the guest should keep; None to leave it alone."""
        if self.state in ("no-driver", "inflating", "deflating"):
            return None                 # it cannot follow, or does already
        if self.state == "inhibited":
            return self.whole           # it would lose, and the host not gain
        if self.state == "stalled" and self.target < self.actual:
            return self.actual          # it cannot give more
        try:
            stats = self.qmp.execute("query-balloon-stats", timeout=1000)
            used = self.actual - stats["available-memory"]
        except (QMPError, KeyError):
            return None                 # it does not say
        used = min(max(used, 0), self.actual)   # whatever it says
        return min(used + max(HEADROOM, used // 4), self.whole)

    def resize(self, target):
        """Set @target, in whole MiB, if that changes much."""
        target = target // MIB * MIB
        change = abs(target - self.target)
        if change >= CLOSE or (change and target == self.whole):
            self.qmp.execute("balloon", value=target)
            self.target = target


def shares(budget, guests):
    """Targets of @guests, whose needs are known, as a dictionary.

    Each has what it needs.  What @budget has beyond that is divided evenly,
    as far as the guests have room for it.
    """
    left = max(0, budget - sum(guest.need for guest in guests))
    targets = {}
    by_room = sorted(guests, key=lambda guest: guest.whole - guest.need)
    for number, guest in enumerate(by_room):
        extra = min(guest.whole - guest.need, left // (len(guests) - number))
        targets[guest] = guest.need + extra
        left -= extra
    return targets


def pressure(path):
    """Percent of the last 10 s in which something waited for memory."""
    with open(path, encoding="ascii") as file:
        return float(re.search(r"^some avg10=([\d.]+)", file.read(), re.M)[1])


class Share:
    """The memory that all guests may have together, and who gets it."""

    def __init__(self, guests, options):
        self.guests = guests
        self.options = options
        self.budget = sum(guest.whole for guest in guests)

    def round(self):
        """Look at the host and at all guests, and set targets."""
        now = pressure(self.options.pressure)
        for guest in list(self.guests):
            self.attempt(guest, guest.look)
        ready = [guest for guest in self.guests if guest.need is not None]
        # What the others have is theirs for now
        others = sum(guest.target for guest in self.guests
                     if guest.need is None)
        whole = sum(guest.whole for guest in self.guests)
        needs = others + sum(guest.need for guest in ready)
        if now > self.options.high:
            self.budget -= whole // 16
        elif now < self.options.low:
            self.budget += whole // 16
        self.budget = min(max(self.budget, needs), whole)
        for guest, target in shares(self.budget - others, ready).items():
            self.attempt(guest, guest.resize, target)
        self.report(now)

    def attempt(self, guest, action, *arguments):
        """A guest that ends, or refuses, is no matter for the others."""
        try:
            action(*arguments)
        except QMPError as error:
            print(f"{guest.name}: {error}", file=sys.stderr)
        except (OSError, ValueError) as error:
            print(f"{guest.name}: {error}", file=sys.stderr)
            if guest in self.guests:
                self.guests.remove(guest)

    def report(self, now):
        print(f"pressure {now:.2f} budget {self.budget // MIB}", *(
            f"{guest.name} {guest.state} actual {guest.actual // MIB}"
            f" target {guest.target // MIB}" for guest in self.guests),
            sep="; ", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sockets", nargs="+", metavar="SOCKET")
    parser.add_argument("--pressure", default="/proc/pressure/memory",
                        help="file with the host's pressure")
    parser.add_argument("--high", type=float, default=10,
                        help="take memory above this pressure (percent)")
    parser.add_argument("--low", type=float, default=1,
                        help="give memory below this pressure (percent)")
    parser.add_argument("--interval", type=float, default=2,
                        help="seconds between two looks")
    options = parser.parse_args()
    share = Share([Guest(path) for path in options.sockets], options)
    while share.guests:
        share.round()
        time.sleep(options.interval)


if __name__ == "__main__":
    main()
