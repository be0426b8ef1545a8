# SPDX-License-Identifier: GPL-2.0-or-later
"""Follow a guest over time: samples, a live line, one record a phase."""

import select
import sys
import time
from dataclasses import dataclass

from virtio_balloon_guest import MIB

PERIOD = 0.04                           # seconds between two samples
BAR = 32                                # characters


@dataclass
class Sample:
    """The guest at one moment; sizes in bytes, time in seconds."""

    time: float
    target: int
    actual: int
    resident: int


@dataclass
class Phase:
    """One step of the demonstration, from its start to its end."""

    name: str
    start: float
    before: int                         # resident when it started
    target: int
    end: float = 0.0
    after: int = 0                      # resident when it ended
    actual: int = 0
    total: int = 0                      # the guest's MemTotal at the end


class Recorder:
    """Samples @guest while something goes on."""

    def __init__(self, guest):
        self.guest = guest
        self.target = guest.memory
        self.origin = time.monotonic()
        self.samples = []
        self.phases = []
        self.live = sys.stdout.isatty()
        self.shown = float("-inf")

    def now(self):
        return time.monotonic() - self.origin

    def sample(self):
        """Take a sample, show it, return it."""
        taken = Sample(self.now(), self.target, self.guest.actual(),
                       self.guest.resident())
        self.samples.append(taken)
        if taken.time - self.shown >= (0.1 if self.live else 1.0):
            self.show(taken)
        return taken

    def show(self, taken):
        """The live line: rewritten in place on a terminal."""
        self.shown = taken.time
        filled = round(BAR * taken.resident / self.guest.memory)
        line = (f"  {taken.time:5.1f} s  target {taken.target // MIB:5} MiB"
                f"  actual {taken.actual // MIB:5} MiB"
                f"  host {taken.resident // MIB:5} MiB"
                f"  {'#' * filled:.<{BAR}}")
        if self.live:
            print("\r" + line, end="", flush=True)
        else:
            print(line, flush=True)

    def end_line(self):
        """Leave the last live line on the terminal as it is."""
        if self.live:
            self.show(self.samples[-1])
            print()

    def watch(self, done, seconds):
        """Sample until @done(sample); False when @seconds did not suffice."""
        deadline = self.now() + seconds
        while not done(self.sample()):
            if self.now() > deadline:
                return False
            time.sleep(PERIOD)
        return True

    def rest(self, seconds=1.2):
        """Sample for a while, so that a viewer sees that nothing changes."""
        self.watch(lambda sample: False, seconds)
        self.end_line()

    def begin(self, name):
        first = self.sample()
        phase = Phase(name, first.time, first.resident, self.target)
        self.phases.append(phase)
        return phase

    def finish(self, phase):
        last = self.sample()
        phase.end, phase.after, phase.actual = (last.time, last.resident,
                                                last.actual)
        phase.total = self.guest.total()

    def work(self, name, command, seconds=60):
        """A phase in which the guest runs @command."""
        phase = self.begin(name)
        channel = self.guest.channel
        channel.send(command)
        answered = self.watch(
            lambda _: select.select([channel.socket], [], [], 0)[0], seconds)
        code, output = channel.answer(1) if answered else (None, "no answer")
        if code != 0:
            raise self.guest.error(f"the guest failed to run `{command}`:"
                                   f" {output}")
        self.finish(phase)
        self.rest()

    def resize(self, name, size, seconds=30):
        """A phase in which the guest follows the target @size, just set."""
        self.target = size
        phase = self.begin(name)
        self.watch(lambda sample: sample.actual == size, seconds)
        self.finish(phase)
        self.rest()
        return phase
