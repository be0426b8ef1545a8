#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What management learns of a Linux guest and its balloon."""

from qemu_test import QemuSystemTest
from virtio_balloon_guest import GIB, MIB, UNLOAD
from virtio_balloon_testcase import BalloonTest, improved

CAUSES = {"repeated", "taken-back", "not-ram", "partial", "inhibited",
          "poison", "unsupported", "refused"}


class VirtioBalloonManage(BalloonTest):
    """State, counters, fresh statistics."""

    @improved
    def test_state(self):
        """Events alone tell when a target is reached, or nobody follows."""
        guest = self.booted()
        self.assert_state(guest, "reached")
        for size in 512 * MIB, GIB:
            guest.target(size)
            self.assert_state(guest, "reached")
            self.assertEqual(guest.actual(), size)
            self.assertEqual(self.info(guest)["target"], size)
        guest.run(UNLOAD)
        self.assert_state(guest, "no-driver")
        self.assertEqual(self.info(guest)["state"], "no-driver")

    @improved
    def test_counters(self):
        """Each byte that the guest gave up has its place."""
        guest = self.booted(
            balloon="virtio-balloon-pci,free-page-reporting=on")
        guest.run("memtool dirty 600")
        guest.resize(512 * MIB)
        counters = self.info(guest)["counters"]
        skipped = counters["skipped"]
        self.assertEqual(set(skipped), CAUSES)
        given = counters["inflated"] + counters["reported"]
        self.assertGreaterEqual(given, 512 * MIB)
        self.assertEqual(given, counters["discarded"] + counters["waiting"] +
                         sum(skipped.values()))
        self.assertGreaterEqual(counters["discarded"], 512 * MIB)
        guest.resize(GIB)
        counters = self.info(guest)["counters"]
        self.assertGreaterEqual(counters["deflated"], 512 * MIB)

    @improved
    def test_fresh_statistics(self):
        """Asked, a guest answers; a guest without a driver cannot."""
        guest = self.booted()
        self.assertEqual(self.statistics(guest)["total-memory"], guest.total())
        for _ in range(3):
            guest.vm.cmd("request-balloon-stats")
            stats = self.statistics(guest)
        before = stats["free-memory"]
        guest.run("memtool fill /mem/file 200 1")
        guest.vm.cmd("request-balloon-stats")
        stats = self.statistics(guest)
        self.assertLess(stats["free-memory"], before - 150 * MIB)
        known = guest.vm.cmd("query-balloon-stats")
        self.assertEqual(known["stats"], stats)
        self.assertFalse(known["pending"])
        guest.run(UNLOAD)
        error = guest.vm.qmp("request-balloon-stats")["error"]
        self.assertIn("no driver", error["desc"])

    @staticmethod
    def statistics(guest):
        """What comes with the next event."""
        return guest.event("BALLOON_STATS")["data"]

    @staticmethod
    def assert_state(guest, state):
        """The next events, up to the one of @state, come along."""
        guest.event("BALLOON_STATE_CHANGE", {"data": {"state": state}})

    @staticmethod
    def info(guest):
        return guest.vm.cmd("query-balloon")


if __name__ == "__main__":
    QemuSystemTest.main()
