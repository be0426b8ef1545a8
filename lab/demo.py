#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Shrink and grow a Linux guest with its memory balloon, and show it.

A guest of 1 GiB dirties most of its memory and frees it; then the commands
that a person would type into QEMU's monitor give it other sizes.  Ends with
a table and a picture; the exit code is 1 when the guest did not follow.
"""

import os
import subprocess
import sys
import time

import guests
import plot
import record
from guests import GuestError
from virtio_balloon_guest import GIB, MIB

FOLDER = os.path.join(guests.BUILD, "demo")
DIRTY = "memtool dirty 800"
# Pages the host may hold beyond the target: firmware, huge page remainders
SLACK = 16 * MIB


def say(text):
    print(text, flush=True)


def monitor(guest, line):
    """Give QEMU's monitor @line as if it were typed; show its answer."""
    say(f"(qemu) {line}")
    answer = guest.hmp(line)
    if answer:
        say(answer)
    return answer


def resize(recorder, amount, size):
    """`balloon AMOUNT`, which means @size bytes, and what comes of it."""
    guest = recorder.guest
    refusal = monitor(guest, f"balloon {amount}")
    if refusal:
        raise GuestError(f"the monitor refused `balloon {amount}`: {refusal}")
    phase = recorder.resize(f"balloon {amount}", size)
    monitor(guest, "info balloon -v")
    check(phase)


def check(phase):
    """Did the guest follow, and did the host get its memory back?"""
    if phase.actual != phase.target:
        raise GuestError(
            f"the guest did not follow `{phase.name}`: it has"
            f" {phase.actual / MIB:.1f} MiB left instead of"
            f" {phase.target // MIB} MiB")
    if phase.after > phase.target + SLACK:
        raise GuestError(
            f"the host's memory did not fall with `{phase.name}`: it holds"
            f" {phase.after // MIB} MiB for a guest that may use"
            f" {phase.target // MIB} MiB")


def play(recorder):
    """The demonstration itself."""
    say("\nThe guest dirties 800 MiB and frees them; the host cannot know"
        " that they are free:")
    recorder.work("guest works", DIRTY)
    monitor(recorder.guest, "info balloon -v")
    say("\nShrink it, in two steps:")
    resize(recorder, "640", 640 * MIB)
    resize(recorder, "384", 384 * MIB)
    say("\nGive it everything back; the host gives memory when it is used:")
    resize(recorder, "1G", GIB)
    recorder.work("guest works again", DIRTY)
    say("\nAnd shrink it once more:")
    resize(recorder, "512M", 512 * MIB)


def table(phases):
    head = ("phase", "target", "reached", "seconds", "host before",
            "host after", "guest MemTotal")
    rows = [(p.name, f"{p.target // MIB}", f"{p.actual // MIB}",
             f"{p.end - p.start:.2f}", f"{p.before // MIB}",
             f"{p.after // MIB}", f"{p.total / MIB:.1f}") for p in phases]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    for row in (head, tuple("-" * width for width in widths), *rows):
        first, *rest = (cell.rjust(w) for cell, w in zip(row, widths))
        say("  ".join([first.strip().ljust(widths[0]), *rest]))
    say("(sizes in MiB; host: memory it holds for the guest's RAM)")


def picture(recorder):
    try:
        paths = plot.draw(FOLDER, recorder.samples, recorder.phases,
                          recorder.guest.memory)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"demo: no picture was drawn: {error}")
    for path in paths:
        say(f"picture: {os.path.relpath(path)}")


def run(options):
    accelerator = guests.accelerator(options)
    with guests.guest(options, accelerator=accelerator) as guest:
        say(f"Booting a Linux guest of 1 GiB ({accelerator}) ...")
        started = time.monotonic()
        guest.start()
        release = guest.run("uname -r", timeout=120).strip()
        say(f"Linux {release} is up after"
            f" {time.monotonic() - started:.1f} s, its balloon driver loaded.")
        recorder = record.Recorder(guest)
        recorder.rest()
        try:
            play(recorder)
        finally:
            say("")
            table([phase for phase in recorder.phases if phase.end])
            picture(recorder)


@guests.told("demo")
def main():
    run(guests.understood(guests.parser(__doc__).parse_args()))


if __name__ == "__main__":
    main()
