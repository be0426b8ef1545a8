#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Two Linux guests share a host's memory, by the example in the manual.

Work moves from one guest to the other while the host claims to be short of
memory.  Ends with a picture; the exit code is 1 when memory did not move along.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

import guests
import plot
from guests import GuestError
from virtio_balloon_guest import MIB

FOLDER = os.path.join(guests.BUILD, "share")
WHOLE = 384 * MIB
WORK, STEP = 192 * MIB, 16 * MIB
# The least that a guest has free to work with: without it the kernel kills.
# The example gives it 32 MiB, in changes of at least 4
ROOM = STEP + 8 * MIB
NAMES = ("first", "second")
PSI = "some avg10={0:.2f} avg60=0.00 avg300=0.00 total=0\n"


class Sharing:
    """The example, of QEMU's @tree, at work on @pair, two guests.

    What it prints is kept.
    """

    def __init__(self, tree, pair, folder):
        self.pair = pair
        self.pressure = os.path.join(folder, "pressure")
        self.used = [0, 0]              # as the example knows it
        self.rows = []                  # seconds, pressure, actual, actual
        self.marks = []                 # seconds, what happened
        self.origin = time.monotonic()
        self.press(0)
        self.process = subprocess.Popen(
            [sys.executable, f"{tree}/scripts/virtio-balloon-share.py",
             "--pressure", self.pressure,
             "--interval", "0.2", *(socket_of(folder, n) for n in NAMES)],
            stdout=subprocess.PIPE, text=True,
            env=dict(os.environ,
                     PYTHONPATH=":".join(guests.python_paths(tree))))
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def now(self):
        return time.monotonic() - self.origin

    def read(self):
        for line in self.process.stdout:
            level = float(re.match(r"pressure ([\d.]+)", line)[1])
            sizes = map(int, re.findall(r"actual (\d+)", line))
            self.used = list(map(int, re.findall(r"used (-?\d+)", line)))
            self.rows.append((self.now(), level, *sizes))

    def press(self, percent):
        """Let the host claim that pressure."""
        with open(self.pressure + ".new", "w", encoding="ascii") as file:
            file.write(PSI.format(percent))
        os.rename(self.pressure + ".new", self.pressure)

    def mark(self, name):
        self.marks.append((self.now(), name))
        print(name, flush=True)

    def phase(self, name, good):
        """Wait until @good(first, second), their sizes, and a little more."""
        self.mark(name)
        first, second = self.pair
        first.until(lambda: good(first.actual(), second.actual()), 120,
                    lambda: f"{name}: {self.rows[-1:]}")
        self.look(6)
        if not good(first.actual(), second.actual()):
            raise GuestError(f"{name}: did not last: {self.rows[-6:]}")
        print("  MiB:", *(guest.actual() // MIB for guest in self.pair))

    def look(self, count):
        """Wait until the example has looked at the guests @count times."""
        wanted = len(self.rows) + count
        self.pair[0].until(lambda: len(self.rows) >= wanted, 60,
                           lambda: "the example does not look any more")

    def room(self, guest):
        """Wait until @guest has what its next step of work needs."""
        guest.until(lambda: guest.meminfo("MemAvailable") >= ROOM, 60,
                    lambda: f"it got no room for work: {self.rows[-1:]}")

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()


def socket_of(folder, name):
    return os.path.join(folder, f"{name}.qmp")


def work(sharing, guest):
    """Let @guest use memory, no faster than it gets some.

    At the end the example knows of it.
    """
    for number in range(WORK // STEP):
        sharing.room(guest)
        guest.run(f"dd if=/dev/zero of=/mem/work.{number} bs=1M"
                  f" count={STEP // MIB}")
    number = sharing.pair.index(guest)
    guest.until(lambda: sharing.used[number] >= WORK // MIB, 60,
                lambda: f"the example does not know: {sharing.used}")


def idle(guest):
    guest.run("rm /mem/work.*")


def play(sharing):
    """The story; each step fails when memory does not go where it should."""
    first, second = sharing.pair
    sharing.mark("the first works")
    work(sharing, first)
    sharing.phase("enough for all", lambda a, b: a == b == WHOLE)
    sharing.press(40)
    sharing.phase("pressure", lambda a, b: WORK < a and b < WORK)
    idle(first)
    sharing.phase("none works", lambda a, b: a < WORK and b < WORK)
    sharing.press(5)                    # no more, and no less
    sharing.mark("the second works")
    work(sharing, second)
    sharing.phase("its work is done", lambda a, b: a < WORK < b)
    sharing.press(0)
    sharing.phase("given back", lambda a, b: a == b == WHOLE)


def draw(sharing):
    """Write share.svg and share.png; returns their paths."""
    os.makedirs(FOLDER, exist_ok=True)
    data = os.path.join(FOLDER, "share.dat")
    with open(data, "w", encoding="ascii") as file:
        file.write("# seconds pressure first second (percent, MiB)\n")
        for row in sharing.rows:
            file.write("%.3f %.1f %d %d\n" % row)
    return plot.draw_shares(FOLDER, data, sharing.rows[-1][0], sharing.marks,
                            WHOLE // MIB)


def run(options):
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="balloon-"))
        pair = [stack.enter_context(guests.guest(
            options, ("-qmp", f"unix:{socket_of(folder, name)},server=on,"
                      "wait=off"), memory=WHOLE)) for name in NAMES]
        for guest in pair:
            guest.start()
        for guest in pair:
            guest.run("true", timeout=240)
        sharing = Sharing(options.tree, pair, folder)
        try:
            play(sharing)
        finally:
            sharing.end()
        for path in draw(sharing):
            print(f"picture: {os.path.relpath(path)}")


@guests.told("share")
def main():
    run(guests.parser(__doc__).parse_args())


if __name__ == "__main__":
    main()
