#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest that must tell before it uses a page of the balloon again."""

from virtio_balloon_guest import BALLOON_PAGE, MIB
from virtio_balloon_testcase import BalloonTest, improved

PATTERN = "/mem/kept 64 21"             # file, MiB, seed
CHURN = "/mem/busy 24 5"
TELL = "virtio-balloon-pci,must-tell-host=on"
HUGE_PAGE = 2 * MIB
# At most so much of what Linux gives up may lie in huge pages that it gives
# up in part only: which pages it picks is up to it
SCATTERED = 0.25
# What a guest and its QEMU use meanwhile, on their own
NOISE = 16 * MIB


def backend(size, options):
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
        memory = backend(self.memory, "")
        source = self.booted(*memory, balloon=TELL)
        source.run(f"memtool fill {PATTERN}")
        source.run("memtool dirty 350")
        source.resize(self.memory - given)
        source.run(f"memtool churn {CHURN} >/mem/log &")
        uri = f"unix:{self.socket_dir().name}/migration"
        target = self.guest(*memory, "-incoming", uri, balloon=TELL)
        target.start()
        ram = source.move(target, uri)["ram"]
        # Of what the guest has, all may have been read for the first time
        self.assertLess(source.resident(), self.memory - given + NOISE)
        skipped = ram["total"] - BALLOON_PAGE * (
            ram["duplicate"] + ram["normal"])
        # The busy part of the guest is sent more than once
        rounds = ram["dirty-sync-count"] * 32 * MIB
        self.assertGreater(skipped, given - rounds)
        source.stop()

        target.run("touch /mem/busy.stop")
        target.until(lambda: "rounds" in target.run("cat /mem/log"), 30,
                     lambda: "it changed: " + target.run("cat /mem/log"))
        target.run(f"memtool verify {PATTERN}")
        target.resize(self.memory)
        target.run("memtool dirty 300")
        target.run(f"memtool verify {PATTERN}")
        target.resize(self.memory - given)
        self.await_resident(target, self.memory - given + NOISE)
        target.run(f"memtool verify {PATTERN}")

    @improved
    def test_restore(self):
        """What was in the balloon when it was saved does not come back."""
        guest = self.booted(balloon=TELL)
        guest.run(f"memtool fill {PATTERN}")
        guest.run("memtool dirty 300")
        guest.resize(192 * MIB)
        uri = f"file:{self.scratch_file('state')}"
        guest.migrate(uri)
        guest.stop()

        restored = self.guest("-incoming", uri, balloon=TELL)
        restored.start()
        restored.migrated()
        restored.vm.cmd("cont")
        self.await_resident(restored, 192 * MIB + NOISE)
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
        self.await_resident(guest, self.memory - given + waiting())

    def await_resident(self, guest, size):
        guest.until(lambda: guest.resident() <= size, 30,
                    lambda: f"the host holds {guest.resident() // MIB} MiB,"
                    f" which should be {size // MIB}")

    def take_huge_pages(self, count):
        """Make the host's pool @count pages larger until the test ends."""
        path = "/proc/sys/vm/nr_hugepages"

        def resize(pages):
            with open(path, encoding="ascii") as file:
                before = int(file.read())
            with open(path, "w", encoding="ascii") as file:
                file.write(str(max(0, before + pages)))
            with open(path, encoding="ascii") as file:
                return int(file.read()) - before

        try:
            grown = resize(count)
        except PermissionError:
            self.skipTest("only root may have huge pages set aside")
        self.addCleanup(resize, -grown)
        if grown < count:
            self.skipTest("the host has no huge pages to spare")


if __name__ == "__main__":
    BalloonTest.main()
