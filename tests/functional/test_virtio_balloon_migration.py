#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest and its balloon move to another QEMU."""

from virtio_balloon_guest import MIB
from virtio_balloon_testcase import CHURN, PATTERN, BalloonTest

HINTING = "virtio-balloon-pci,free-page-hint=on,iothread=io0"
IOTHREAD = ("-object", "iothread,id=io0")


class VirtioBalloonMigration(BalloonTest):
    """Save, restore, live migration, free page hinting."""

    memory = 512 * MIB

    def test_save_and_restore(self):
        """Target, actual and memory come back from a file."""
        guest = self.booted()
        whole = guest.total()
        guest.run(f"memtool fill {PATTERN}")
        guest.resize(256 * MIB)
        guest.vm.cmd("stop")
        guest.target(320 * MIB)         # on its way when the guest is saved
        uri = f"file:{self.scratch_file('state')}"
        guest.migrate(uri)
        guest.stop()

        restored = self.guest("-incoming", uri)
        restored.start()
        restored.migrated()
        self.assertEqual(restored.actual(), 256 * MIB)
        restored.vm.cmd("cont")
        restored.reach(320 * MIB)
        self.assertEqual(whole - restored.total(), 192 * MIB)
        restored.run(f"memtool verify {PATTERN}")
        restored.resize(512 * MIB)
        self.assertEqual(restored.total(), whole)
        restored.run(f"memtool verify {PATTERN}")

    def test_live_migration(self):
        """A busy guest moves inflated and finds all its memory again."""
        source = self.booted()
        source.run(f"memtool fill {PATTERN}")
        source.run("memtool dirty 300")
        source.resize(256 * MIB)
        source.churn(CHURN)
        target, _ = self.move(source)
        self.assertEqual(target.actual(), 256 * MIB)
        target.end_churn(CHURN)
        target.run(f"memtool verify {PATTERN}")
        target.resize(384 * MIB)
        target.run(f"memtool verify {PATTERN}")

    def test_hinting(self):
        """Free pages are not sent, used ones are."""
        source = self.booted(*IOTHREAD, balloon=HINTING)
        source.run(f"memtool fill {PATTERN}")
        source.run("memtool dirty 350")
        source.churn(CHURN)
        self.assertGreater(source.resident(), 350 * MIB)
        target, info = self.move(source, *IOTHREAD, hints=200 * MIB,
                                 balloon=HINTING)
        target.end_churn(CHURN)
        target.run(f"memtool verify {PATTERN}")
        self.assertLess(info["ram"]["normal-bytes"], 300 * MIB)
        target.run("memtool dirty 300")
        target.resize(256 * MIB)
        target.run(f"memtool verify {PATTERN}")

    def move(self, source, *arguments, hints=0, **settings):
        """Migrate live to a new QEMU; returns the guest there and figures."""
        uri = f"unix:{self.socket_dir().name}/migration"
        target = self.guest(*arguments, "-incoming", uri, **settings)
        target.start()
        info = source.move(target, uri, hints=hints)
        source.stop()
        return target, info


if __name__ == "__main__":
    BalloonTest.main()
