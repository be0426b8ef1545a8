# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of the balloon is in whole granules, in a Linux guest.

With coordinated discards the host gets nothing else.
"""

import time

import guests
from virtio_balloon_guest import GIB, MIB

MEMORY = 1 * GIB
GRANULES = (2 * MIB, 4 * MIB, 32 * MIB)
SETTLED = 1                     # s without a change: all is discarded
TIMEOUT = 120
BALLOON = ("virtio-balloon-pci,must-tell-host=on,coordinated-discards=on,"
           "discard-granule={}")


def waiting(guest):
    return guest.vm.cmd("query-balloon")["counters"]["waiting"]


def shares(guest, state):
    """{name: part} for a guest that lives in @state, its balloon empty."""
    free = guest.meminfo("MemAvailable")
    return {f"{state}, {name}": share(guest, int(free * part) // MIB * MIB)
            for name, part in (("a half", 0.5), ("9 of 10", 0.9))}


def share(guest, taken):
    """Take so many bytes in all: which part of them does the host get?"""
    guest.resize(guest.memory - taken, TIMEOUT)
    seen, since = waiting(guest), time.monotonic()
    deadline = since + TIMEOUT
    while time.monotonic() < since + SETTLED:
        if time.monotonic() > deadline:
            raise guest.error("discards do not end")
        time.sleep(0.05)
        if waiting(guest) != seen:
            seen, since = waiting(guest), time.monotonic()
    return 1 - seen / taken


def scatter(guest):
    """Have the guest use most of its memory, and free it in small pieces."""
    guest.resize(guest.memory, TIMEOUT)
    size = guest.meminfo("MemAvailable") * 3 // 4 // MIB
    guest.run(f"memtool scatter /mem/small {size} 1", timeout=TIMEOUT)


def bench(options, progress):
    """{granule: {how the guest fares: part of the balloon that goes}}"""
    rows = {}
    for granule in GRANULES:
        progress(f"granules of {granule // MIB} MiB")
        with guests.guest(options.sides["ours"], memory=MEMORY,
                          balloon=BALLOON.format(granule),
                          accelerator=options.accelerator) as guest:
            guest.start()
            rows[granule] = shares(guest, "fresh")
            scatter(guest)
            rows[granule].update(shares(guest, "scattered"))
    return rows


def table(rows):
    columns = list(next(iter(rows.values())))
    lines = ["share of the balloon in whole granules, Linux guest of 1 GiB",
             f"{'':10}" + "".join(f"{name:>20}" for name in columns)]
    for granule, row in rows.items():
        lines.append(f"{granule // MIB:6} MiB" + "".join(
            f"{row[name]:20.0%}" for name in columns))
    return "\n".join(lines)
