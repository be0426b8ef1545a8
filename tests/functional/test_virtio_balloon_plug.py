#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A balloon comes, goes and sleeps while a Linux guest runs."""

import os

from virtio_balloon_guest import MIB
from virtio_balloon_testcase import BalloonTest

ROUNDS = int(os.environ.get("BALLOON_PLUG_ROUNDS", "8"))
PATTERN = "/mem/kept 64 9"              # file, MiB, seed


class VirtioBalloonPlug(BalloonTest):
    """Hot plug, hot unplug, suspend to RAM."""

    memory = 512 * MIB

    def test_hot_plug(self):
        """Each balloon starts empty, works, and gives all back at the end."""
        guest = self.booted(balloon=None)
        whole = guest.total()
        guest.run(f"memtool fill {PATTERN}")
        self.assert_no_balloon(guest.vm)
        for _ in range(ROUNDS):
            guest.vm.cmd("device_add", driver="virtio-balloon-pci",
                         id="balloon0")
            self.assertEqual(guest.actual(), self.memory)
            guest.resize(320 * MIB)
            self.assertEqual(whole - guest.total(), 192 * MIB)
            guest.vm.cmd("device_del", id="balloon0")
            guest.event("DEVICE_DELETED", {"data": {"device": "balloon0"}})
            self.assert_no_balloon(guest.vm)
            self.assertEqual(guest.total(), whole)
        guest.run(f"memtool verify {PATTERN}")

    def assert_no_balloon(self, vm):
        error = vm.qmp("query-balloon")["error"]
        self.assertEqual(error["class"], "DeviceNotActive")

    def test_suspend(self):
        """The driver empties the balloon to sleep and fills it again."""
        guest = self.booted()
        whole = guest.total()
        guest.run(f"memtool fill {PATTERN}")
        guest.resize(320 * MIB)
        guest.channel.send("echo mem >/sys/power/state")
        guest.event("SUSPEND")
        self.assertEqual(guest.actual(), self.memory)
        guest.vm.cmd("system_wakeup")
        guest.event("WAKEUP")
        self.assertEqual(guest.channel.answer(60), (0, ""))
        guest.reach(320 * MIB)
        guest.until(lambda: whole - guest.total() == 192 * MIB, 30,
                    lambda: f"MemTotal is {guest.total()}")
        guest.run(f"memtool verify {PATTERN}")


if __name__ == "__main__":
    BalloonTest.main()
