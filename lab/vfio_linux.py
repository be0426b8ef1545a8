# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest with a balloon beside a disk that is truly assigned to it."""

import array
import base64
import hashlib
import time
import zlib

import vfio_nest
from guests import progress
from virtio_balloon_guest import BALLOON_PAGE, MIB, GuestError

MEMORY = 512 * MIB
SMALL = 192 * MIB
GRANULE = 2 * MIB
SHARE = 0.9                     # of the whole granules in the balloon
DEVICE = "/dev/nvme0n1"
OFFLINE = 23                    # bit of a balloon's page in /proc/kpageflags
TIMEOUT = 2400                  # seconds for a guest in a guest


class Story:
    """The guest, and what it does to its disk @path."""

    def __init__(self, host, made, linux, path):
        self.host = host
        self.made = made
        self.linux = linux
        self.path = path
        self.blocks = 0

    def check_disk(self):
        """Direct I/O: all of the disk is read, and a part of it written."""
        with open(self.path, "rb") as file:
            whole = file.read()
        self.check_sum(f"dd if={DEVICE} bs=256k iflag=direct", whole)
        self.blocks += 1
        self.linux.run("dd if=/dev/urandom of=/mem/data bs=1M count=2"
                       " 2>/dev/null")
        self.linux.run(f"dd if=/mem/data of={DEVICE} bs=256k oflag=direct"
                       f" seek={self.blocks * 8} 2>/dev/null", TIMEOUT)
        with open(self.path, "rb") as file:
            file.seek(self.blocks * 2 * MIB)
            self.check_sum("cat /mem/data", file.read(2 * MIB))
        self.linux.run("rm /mem/data")

    def check_sum(self, command, data):
        found = self.linux.run(f"{command} 2>/dev/null | sha256sum", TIMEOUT)
        if found.split()[0] != hashlib.sha256(data).hexdigest():
            raise GuestError(f"`{command}` gives other bytes than the disk has")

    def resize(self, size):
        self.made.cmd("balloon", value=size)
        self.made.until(
            lambda: self.made.cmd("query-balloon")["actual"] == size, TIMEOUT,
            lambda: f"balloon: {self.made.cmd('query-balloon')}")

    def settled(self, size):
        """Wait until the host has had @size bytes; returns the counters."""
        self.made.until(lambda: self.made.counters()["discarded"] >= size, 60,
                        lambda: f"counters: {self.made.counters()}")
        return self.made.counters()

    def granules(self):
        """How many granules are in the balloon as a whole, says the guest."""
        text = self.linux.run("dd if=/proc/kpageflags bs=64k 2>/dev/null"
                              " | gzip -1 | base64", TIMEOUT)
        return whole_granules(array.array("Q", zlib.decompress(
            base64.b64decode(text), wbits=31)))


def whole_granules(flags):
    """The granules of which every page is a balloon's, by its flags."""
    step = GRANULE // BALLOON_PAGE
    return sum(all(flag >> OFFLINE & 1 for flag in flags[n:n + step])
               for n in range(0, len(flags) - step + 1, step))


def share(text, size, expected):
    if size < SHARE * expected:
        raise GuestError(f"{text}: {size} bytes, {expected} are expected")
    return f"{size / MIB:.0f}"


def run(host, disk, figures):
    """The story; @disk is the path of the image that the guest is given."""
    before = time.monotonic()
    with vfio_nest.booted(host, MEMORY) as (made, linux):
        linux.run("true", TIMEOUT)
        progress("Linux in it has booted")
        figures["Linux boots in it, s"] = f"{time.monotonic() - before:.0f}"
        story = Story(host, made, linux, disk)
        story.check_disk()
        progress("direct I/O before")
        locked, resident = made.locked(), made.resident()
        story.resize(SMALL)
        whole = story.granules() * GRANULE
        counters = story.settled(SHARE * whole)
        given = counters["inflated"]
        figures["given up, of that in whole granules, so counted, MiB"] = (
            f"{given / MIB:.0f}, {whole / MIB:.0f},"
            f" {counters['discarded'] / MIB:.0f}")
        figures["unlocked, left the process, MiB"] = ", ".join((
            share("unlocked", locked - made.locked(), whole),
            share("left the process", resident - made.resident(), whole)))
        progress("the balloon is full")
        story.check_disk()
        progress("direct I/O meanwhile")
        low = made.resident()
        story.resize(MEMORY)
        if made.locked() != locked:
            raise GuestError(f"{made.locked()} bytes are locked, not {locked}")
        figures["came back, MiB"] = share("came back", made.resident() - low,
                                          whole)
        story.check_disk()
        progress("direct I/O afterwards")
    if host.faults():
        raise GuestError(f"faults at {host.faults()}")
