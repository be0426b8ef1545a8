#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest follows its balloon's target, through its whole life."""

from virtio_balloon_guest import GIB, MIB, RELOAD, UNLOAD
from virtio_balloon_testcase import SLACK, BalloonTest, improved

UNKNOWN = 2 ** 64 - 1                   # a statistic the guest does not give
TAGS = 16
PERIOD = "guest-stats-polling-interval"


class VirtioBalloon(BalloonTest):
    """Resize, life cycle, statistics."""

    def test_resize(self):
        """Down and up: exact on both sides, and the host gets memory back."""
        guest = self.booted()
        whole = guest.total()
        guest.run("memtool dirty 800")
        self.assertGreater(guest.resident(), 800 * MIB)

        guest.resize(512 * MIB)
        self.assert_event(guest, 512 * MIB)
        self.assertEqual(guest.hmp("info balloon").splitlines()[0],
                         "balloon: actual=512")
        self.assertEqual(whole - guest.total(), 512 * MIB)
        self.assertLess(guest.resident(), 512 * MIB + SLACK)

        guest.resize(GIB)
        self.assert_event(guest, GIB)
        self.assertEqual(guest.total(), whole)
        guest.run("memtool dirty 800")
        self.assertGreater(guest.resident(), 800 * MIB)

    def test_target_before_boot(self):
        """A target is kept until there is a driver, and while paused."""
        guest = self.guest("-S")
        guest.start()
        guest.target(768 * MIB)
        self.assertEqual(guest.actual(), GIB)
        guest.vm.cmd("cont")
        guest.run("true", timeout=120)
        guest.reach(768 * MIB)

        guest.vm.cmd("stop")
        guest.target(640 * MIB)
        self.assertEqual(guest.actual(), 768 * MIB)
        guest.vm.cmd("cont")
        guest.reach(640 * MIB)

    def test_driver_reload(self):
        """Unloading gives all back; a new driver honours the target."""
        guest = self.booted()
        whole = guest.total()
        guest.resize(512 * MIB)
        guest.run(UNLOAD)
        self.assertEqual(guest.actual(), GIB)
        self.assertEqual(guest.total(), whole)

        guest.target(640 * MIB)
        self.assertEqual(guest.actual(), GIB)
        guest.run(RELOAD)
        guest.reach(640 * MIB)
        self.assertEqual(whole - guest.total(), 384 * MIB)

    def test_reboot(self):
        """The target outlives a reboot."""
        guest = self.booted()
        whole = guest.total()
        guest.resize(512 * MIB)
        self.reset(guest)
        guest.run("true", timeout=120)
        guest.reach(512 * MIB)
        # Each boot, the kernel keeps some pages more or less for itself
        guest.until(lambda: abs(whole - guest.total() - 512 * MIB) < MIB, 30,
                    lambda: f"MemTotal is {guest.total()} of {whole}")

    @improved
    def test_reset_empties_the_balloon(self):
        """After a reset no balloon is claimed that the guest does not hold."""
        guest = self.booted()
        guest.resize(512 * MIB)
        guest.vm.cmd("stop")
        self.reset(guest)
        self.assertEqual(guest.actual(), GIB)
        self.assert_event(guest, GIB)

    def reset(self, guest):
        guest.vm.cmd("system_reset")
        guest.event("RESET")

    def test_statistics(self):
        """All tags arrive, first unasked, then once a polling interval."""
        guest = self.booted()
        first = self.statistics(guest)
        self.assertNotEqual(first["last-update"], 0)
        self.assertEqual(len(first["stats"]), TAGS)
        self.assertNotIn(UNKNOWN, first["stats"].values())

        self.property(guest, "qom-set", property=PERIOD, value=1)
        self.assertEqual(
            self.property(guest, "qom-get", property=PERIOD), 1)
        guest.run("memtool fill /mem/file 200 1")
        total, free = guest.total(), guest.meminfo("MemFree")
        for _ in range(2):              # a second one proves the repetition
            now = self.next_statistics(guest)
        stats = now["stats"]
        self.assertEqual(stats["stat-total-memory"], total)
        self.assertAlmostEqual(stats["stat-free-memory"], free,
                               delta=16 * MIB)
        self.assertGreater(stats["stat-disk-caches"], 200 * MIB)
        self.assertGreater(stats["stat-minor-faults"],
                           first["stats"]["stat-minor-faults"])

    def next_statistics(self, guest):
        """Wait for an update that is newer than the one there is."""
        before = self.statistics(guest)["last-update"]
        guest.until(lambda: self.statistics(guest)["last-update"] > before,
                    10, lambda: "no new statistics")
        return self.statistics(guest)

    def statistics(self, guest):
        return self.property(guest, "qom-get", property="guest-stats")

    @staticmethod
    def property(guest, command, **arguments):
        return guest.vm.cmd(command, path="/machine/peripheral/balloon0",
                            **arguments)


if __name__ == "__main__":
    BalloonTest.main()
