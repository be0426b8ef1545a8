#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest that must tell before it uses a page of the balloon again."""

from virtio_balloon_guest import MIB, pool_grow
from virtio_balloon_testcase import (CHURN, PATTERN, TELL, BalloonTest,
                                     improved)

HUGE_PAGE = 2 * MIB
# At most so much of what Linux gives up may lie in huge pages that it gives
# up in part only: which pages it picks is up to it
SCATTERED = 0.25
# What a guest and its QEMU use meanwhile, on their own
NOISE = 16 * MIB


def backend(size, options=""):
    """Arguments for a guest with memory from memory-backend-memfd."""
    return ("-object", f"memory-backend-memfd,id=ram,size={size // MIB}M,"
            f"share=on{options}", "-machine", "memory-backend=ram")


class VirtioBalloonTell(BalloonTest):
    """must-tell-host: huge pages, migration, all memory as it was."""

    memory = 512 * MIB

    @improved
    def test_huge_pages(self):
        """What is whole goes back, although it comes 1 MiB at a time."""
        self.take_huge_pages(self.memory // HUGE_PAGE)
        guest = self.booted(*backend(self.memory, ",hugetlb=on,prealloc=on,"
                                     f"hugetlbsize={HUGE_PAGE // MIB}M"),
                            balloon=TELL)
        guest.run(f"memtool fill {PATTERN}")
        self.assertEqual(guest.resident(), self.memory)
        guest.resize(256 * MIB)
        self.await_whole_pages(guest, 256 * MIB)
        guest.run(f"memtool verify {PATTERN}")
        guest.resize(self.memory)
        guest.run("memtool dirty 300")
        guest.run(f"memtool verify {PATTERN}")
        guest.resize(256 * MIB)
        self.await_whole_pages(guest, 256 * MIB)

    @improved
    def test_live_migration(self):
        """The balloon is not sent, nor does reading it bring it back."""
        given = 256 * MIB
        memory = backend(self.memory)
        source = self.booted(*memory, balloon=TELL)
        source.run(f"memtool fill {PATTERN}")
        source.run("memtool dirty 350")
        source.resize(self.memory - given)
        source.await_resident(self.memory - given + NOISE)
        source.churn(CHURN)
        uri = f"unix:{self.socket_dir().name}/migration"
        target = self.guest(*memory, "-incoming", uri, balloon=TELL)
        target.start()
        ram = source.move(target, uri)["ram"]
        # Of what the guest has, all may have been read for the first time
        self.assertLess(source.resident(), self.memory - given + NOISE)
        self.assert_left_out(ram, given)
        source.stop()

        target.end_churn(CHURN)
        target.run(f"memtool verify {PATTERN}")
        target.resize(self.memory)
        target.run("memtool dirty 300")
        target.run(f"memtool verify {PATTERN}")
        target.resize(self.memory - given)
        target.await_resident(self.memory - given + NOISE)
        target.run(f"memtool verify {PATTERN}")

    @improved
    def test_restore(self):
        """What was in the balloon when it was saved does not come back.

        Nor does it stay, where the host had set memory aside for it.
        """
        given = 320 * MIB
        guest = self.booted(*backend(self.memory), balloon=TELL)
        guest.run(f"memtool fill {PATTERN}")
        guest.run("memtool dirty 300")
        guest.resize(self.memory - given)
        guest.await_resident(self.memory - given + NOISE)
        uri = f"file:{self.scratch_file('state')}"
        self.assert_left_out(guest.migrate(uri)["ram"], given)
        guest.stop()

        restored = self.guest(*backend(self.memory, ",prealloc=on"),
                              "-incoming", uri, balloon=TELL)
        restored.start()
        self.assertEqual(restored.resident(), self.memory)
        restored.migrated()
        restored.vm.cmd("cont")
        restored.await_resident(self.memory - given + NOISE)
        restored.run(f"memtool verify {PATTERN}")
        restored.resize(self.memory)
        restored.run("memtool dirty 300")
        restored.run(f"memtool verify {PATTERN}")

    def await_whole_pages(self, guest, given):
        """Of @given bytes in the balloon all goes back but what waits."""
        def waiting():
            return guest.vm.cmd("query-balloon")["counters"]["waiting"]

        guest.until(lambda: waiting() <= SCATTERED * given, 30,
                    lambda: f"{waiting() // MIB} MiB wait for the rest")
        guest.await_resident(self.memory - given + waiting())

    def assert_left_out(self, ram, given):
        """@given bytes in the balloon, which are discarded, were not sent.

        They would have been sent as pages of zeroes.
        """
        self.assertLess(ram["duplicate"] * ram["page-size"], given // 2)

    def take_huge_pages(self, count):
        """Make the host's pool @count pages larger until the test ends."""
        try:
            grown = pool_grow(count)
        except OSError as error:
            self.skipTest(f"no huge pages may be set aside: {error}")
        self.addCleanup(pool_grow, -grown)
        if grown < count:
            self.skipTest("the host has no huge pages to spare")


if __name__ == "__main__":
    BalloonTest.main()
