# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest with a full balloon, and what may happen to it.

Besides what virtio_balloon_guest.py asks for, its initramfs has a program
`kexec KERNEL INITRD PARAMETERS`, which boots another kernel at once.
"""

from virtio_balloon_guest import KERNEL_PARAMETERS, MIB
from virtio_balloon_testcase import TELL, BalloonTest

# A balloon on a root bus of its own, which a kernel does not find without
# ACPI.  A legacy driver does not wait for a reset that does not get through
FAR = ("-device", "pxb,id=far,bus_nr=128",
       "-device", f"{TELL},disable-modern=on,bus=far,id=balloon0")
MEMORY = 512 * MIB
SMALL = 256 * MIB
KEPT = "/mem/kept 48 21"                # file, MiB, seed
# What the guest needs besides, when a pattern fills all of its memory
SPARE = 40 * MIB
# How often a pattern is looked at that nobody may change
LOOKS = 3

SLEEP = "echo mem >/sys/power/state"


class FullBalloonTest(BalloonTest):
    """A guest with a balloon of half of its memory."""

    memory = MEMORY
    far = False                 # the balloon is that of FAR

    def make(self, *arguments):
        """A guest, not started, that can boot its kernel once more."""
        disks = [word for i, path in enumerate(self.image) for word in (
            "-drive", f"if=none,id=d{i},file={path},format=raw,readonly=on",
            "-device", f"virtio-blk-pci,drive=d{i}")]
        guest = self.guest(*disks, *arguments,
                           balloon=None if self.far else TELL)
        if self.far:
            guest.vm.add_args(*FAR)     # a bus attracts what comes later
        return guest

    def full(self):
        """A guest that has all its memory, and wrote to nearly all of it."""
        guest = self.make()
        guest.start()
        guest.run(f"memtool fill {KEPT}", timeout=120)
        self.fill(guest)
        guest.run("rm /mem/all")
        return guest

    def inflated(self):
        """A guest whose balloon is full of pages that it wrote to."""
        guest = self.full()
        guest.resize(SMALL)
        return guest

    @staticmethod
    def fill(guest):
        """Fill nearly all memory; returns how to verify it."""
        size = (guest.meminfo("MemAvailable") - SPARE) // MIB
        guest.run(f"memtool fill /mem/all {size} 77")
        return f"memtool verify /mem/all {size} 77"

    def check(self, guest):
        """All memory is the guest's, and stays as it is.

        Returns how to verify it.
        """
        self.assertEqual(guest.actual(), MEMORY)
        verify = self.fill(guest)
        # What is in the balloon would be discarded once more
        guest.target(guest.vm.cmd("query-balloon")["target"])
        for _ in range(LOOKS):
            guest.run(verify)
        return verify

    def check_end(self, guest):
        """The guest inflates, in the end, and gets all its memory again."""
        guest.reach(SMALL)
        guest.run(f"memtool verify {KEPT}")
        guest.resize(MEMORY)
        self.check(guest)
        guest.run(f"rm /mem/all && memtool verify {KEPT}")

    @staticmethod
    def kexec(guest, parameters=""):
        """Boot the kernel again, by the one that runs."""
        guest.run("cat /dev/vda >/run/kernel && cat /dev/vdb >/run/initrd")
        boots = banners(guest)
        guest.channel.send("kexec /run/kernel /run/initrd"
                           f" '{KERNEL_PARAMETERS} loglevel=7 {parameters}'")
        # What is sent earlier is lost
        guest.until(lambda: banners(guest) > boots, 60,
                    lambda: "no other kernel begins")

    def reset(self, guest, begin):
        """Wait for the reset of the machine that @begin begins."""
        guest.vm.get_qmp_events()       # firmware may have reset it, too
        begin()
        guest.event("RESET")

    def begun_anew(self, guest):
        """The kernel has booted, by itself."""
        guest.run(f"memtool fill {KEPT}", timeout=120)
        self.check_end(guest)

    def wake(self, guest):
        """Wake up a guest that goes to sleep by a command."""
        guest.until(lambda: status(guest) == "suspended", 60,
                    lambda: f"it is {status(guest)}, not asleep")
        guest.vm.cmd("system_wakeup")
        self.assertEqual(guest.channel.answer(60), (0, ""))

    def moved(self, source, live=True):
        """Migrate; returns the guest there, running.

        @live: a machine that is stopped runs on at once, not when it is there.
        """
        uri = f"unix:{self.socket_dir().name}/migration-{self.guests}"
        target = self.make("-incoming", uri)
        target.start()
        source.vm.cmd("migrate-set-parameters", **{"downtime-limit": 1000})
        source.vm.cmd("migrate", uri=uri)
        if live and status(source) == "paused":
            source.vm.cmd("cont")
        source.migrated()
        source.stop()
        target.until(lambda: status(target) != "inmigrate", 60,
                     lambda: "it does not arrive")
        if status(target) == "paused":
            target.vm.cmd("cont")
        return target


def status(guest):
    return guest.vm.cmd("query-status")["status"]


def banners(guest):
    """How many kernels have said on the console who they are."""
    with open(guest.console, encoding="utf-8", errors="replace") as file:
        return file.read().count("Linux version")
