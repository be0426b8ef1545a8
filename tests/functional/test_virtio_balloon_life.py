#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest boots again or sleeps while its balloon is full."""

from virtio_balloon_full import (KEPT, LOOKS, MEMORY, SLEEP, SMALL,
                                 FullBalloonTest)
from virtio_balloon_guest import BIND, DRIVER, UNBIND
from virtio_balloon_testcase import TELL, improved

# Puts all of its PCI functions out of reach, as a driver may on its way out
DISABLE = ("printf '\\0\\0' | dd bs=1 seek=4 conv=notrunc of=$(realpath"
           f" {DRIVER}/virtio*)/../config")


@improved
class VirtioBalloonLife(FullBalloonTest):
    """Reboot, unbind, sleep and hibernation with a full balloon."""

    def test_kexec(self):
        """The next kernel has all memory until its driver inflates."""
        guest = self.inflated()
        self.kexec(guest)
        self.begun_anew(guest)

    def test_kexec_without_reset(self):
        """A kernel may take no more than bus mastering from its devices.

        The next one does not even look at the balloon.
        """
        self.far = True
        guest = self.inflated()
        guest.run(DISABLE)
        self.kexec(guest, "acpi=off")
        guest.run("true", timeout=120)
        verify = self.check(guest)
        target = self.moved(guest)
        self.assertEqual(target.actual(), MEMORY)
        for _ in range(LOOKS):
            target.run(verify)
        target.run("rm /mem/all")
        self.kexec(target)
        self.begun_anew(target)

    def test_reboot(self):
        """So it is after a reset, by whomever."""
        guest = self.inflated()
        for begin in (lambda: guest.vm.cmd("system_reset"),
                      lambda: guest.channel.send("reboot -f")):
            self.reset(guest, begin)
            guest.run(f"memtool fill {KEPT}", timeout=120)
            guest.reach(SMALL)
            guest.run(f"memtool verify {KEPT}")
        self.check_end(guest)

    def test_unbind(self):
        """Without its driver a guest has all memory."""
        guest = self.inflated()
        for _ in range(2):
            guest.run(UNBIND)
            verify = self.check(guest)
            guest.run(f"{verify} && rm /mem/all && {BIND}")
            guest.reach(SMALL)
        self.check_end(guest)

    def test_suspend(self):
        """Sleep in memory."""
        guest = self.inflated()
        for _ in range(2):
            guest.channel.send(SLEEP)
            self.wake(guest)
            guest.reach(SMALL)
            guest.run(f"memtool verify {KEPT}")
        self.check_end(guest)

    def test_hibernation(self):
        """Sleep on a disk, and wake up in another QEMU."""
        disk = self.scratch_file("swap")
        with open(disk, "wb") as file:
            file.truncate(MEMORY)
        arguments = ("-drive", f"if=none,id=swap,file={disk},format=raw",
                     "-device", "virtio-blk-pci,drive=swap,addr=0x10")
        guest = self.guest(*arguments, balloon=TELL)
        guest.start()
        guest.run(f"memtool fill {KEPT} && mkswap /dev/vda && swapon /dev/vda",
                  timeout=120)
        guest.resize(SMALL)
        guest.channel.send("echo disk >/sys/power/state")
        guest.vm.wait(120)
        guest.stop()

        woken = self.guest(*arguments, balloon=TELL)
        woken.start()
        woken.run("memtool fill /mem/all 200 5", timeout=120)
        woken.run("rm /mem/all")
        woken.resize(SMALL)
        woken.channel.send("cat /sys/block/vda/dev >/sys/power/resume")
        # The answer to what the guest was asked before it went to sleep
        self.assertEqual(woken.channel.answer(120), (0, ""))
        woken.run("swapoff /dev/vda")
        self.check_end(woken)


if __name__ == "__main__":
    FullBalloonTest.main()
