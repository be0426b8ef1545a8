#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Set a target for a guest's memory balloon, and wait until it is reached.

SOCKET is a QMP monitor that nobody else uses, made with
-qmp unix:SOCKET,server=on,wait=off.  SIZE is in MiB; without one, the target
that is set is waited for.  Prints each state that it sees.

exit codes:
  0  the target is reached
  1  QEMU refuses, is gone, or has a balloon that tells no state
  3  no driver of the guest runs the balloon
  4  the driver broke the balloon's queues, and has to reset the device
  5  the guest has stalled
  6  the time is over
"""

import argparse
import asyncio
import contextlib
import logging
import os
import sys

sys.path.append(os.path.join(os.path.dirname(__file__), "..", "python"))

try:
    from qemu.qmp import QMPClient, QMPError, Runstate
except ImportError:
    sys.exit("install the Python package qemu.qmp, or run this in QEMU's source"
             " tree")

MIB = 1 << 20
ENDS = {"reached": 0, "no-driver": 3, "broken": 4, "stalled": 5}
OVER = 6


def tell(balloon):
    """Print an answer of query-balloon."""
    text = (f"{balloon['state']}: the guest has {balloon['actual'] // MIB} MiB"
            f" of {balloon['target'] // MIB} MiB")
    if "inhibited-by" in balloon:
        text += f"; the host takes none of it back: {balloon['inhibited-by']}"
    print(text, flush=True)


async def change(qmp, events):
    """Sleep until an event comes; an error when QEMU goes."""
    waits = [asyncio.ensure_future(events.get()),
             asyncio.ensure_future(qmp.runstate_changed())]
    try:
        # Both have to listen before the look: a change is told but once
        await asyncio.sleep(0)
        if qmp.runstate == Runstate.RUNNING:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    if qmp.runstate != Runstate.RUNNING:
        raise QMPError("QEMU is gone")


async def follow(qmp, size, patient):
    """Returns the exit code for what becomes of the balloon.

    An event says that something has changed, and query-balloon what is so now:
    an event may be a second old.  Who begins to listen before the target is
    set, and asks once after that, misses nothing.
    """
    with qmp.listener("BALLOON_STATE_CHANGE") as events:
        if size:
            await qmp.execute("balloon", {"value": size * MIB})
        while True:
            balloon = await qmp.execute("query-balloon")
            if "state" not in balloon:
                raise QMPError("this balloon does not tell its state")
            tell(balloon)
            state = balloon["state"]
            if state == "reached" or (state in ENDS and not patient):
                return ENDS[state]
            await change(qmp, events)


async def run(options):
    qmp = QMPClient()
    try:
        await qmp.connect(options.socket)
        return await follow(qmp, options.size, options.patient)
    finally:
        if qmp.runstate != Runstate.IDLE:
            with contextlib.suppress(QMPError, OSError, EOFError):
                await qmp.disconnect()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("socket", metavar="SOCKET")
    parser.add_argument("size", metavar="SIZE", type=int, nargs="?")
    parser.add_argument("--timeout", type=float, metavar="SECONDS",
                        help="how long to wait (default: for ever)")
    parser.add_argument("--patient", action="store_true",
                        help="wait for the target in other states, too")
    options = parser.parse_intermixed_args()
    logging.disable()                   # what goes wrong is said here
    try:
        return asyncio.run(asyncio.wait_for(run(options), options.timeout))
    except asyncio.TimeoutError:
        print("the time is over", file=sys.stderr)
        return OVER
    except (QMPError, OSError, EOFError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
