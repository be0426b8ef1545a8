#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest with a balloon is recorded, and replayed to its end."""

import time

from qemu.qmp import QMPError
from virtio_balloon_full import BIND, UNBIND
from virtio_balloon_guest import KERNEL_PARAMETERS, MIB, PATIENCE
from virtio_balloon_testcase import BalloonTest, improved

MEMORY = 256 * MIB
SMALL = 160 * MIB
# Queues are served when the guest kicks, not when a main loop comes to it
BALLOON = ("virtio-balloon-pci,free-page-reporting=on,id=balloon0,"
           "guest-stats-polling-interval=1,ioeventfd=off")
# Memory is freed, and the balloon is emptied and filled again
WORK = (f"sleep 2; memtool dirty 64; sleep 3; {UNBIND}; {BIND}; sleep 2;"
        " memtool dirty 32; grep balloon_ /proc/vmstat; echo THE END")
# So long a busy host may keep the guest from going on
TIMEOUT = 60 * PATIENCE


class VirtioBalloonReplay(BalloonTest):
    """Nothing that a guest can see comes from the host's clock."""

    memory = MEMORY

    @improved
    def test_replay(self):
        """With reports, statistics, an inflate and a deflate."""
        self.replay(BALLOON)

    @improved
    def test_replay_must_tell(self):
        """And with a driver that must tell before it uses a page again."""
        self.replay(f"{BALLOON},must-tell-host=on")

    def replay(self, balloon):
        said = [self.run_guest(mode, balloon) for mode in ("record", "replay")]
        self.assertRegex(said[0], r"balloon_inflate [1-9]")
        self.assertRegex(said[0], r"balloon_deflate [1-9]")
        self.assertIn("THE END", said[0])
        self.assertEqual(*said)

    def run_guest(self, mode, balloon):
        """What the guest says on its console until it is switched off."""
        console = self.scratch_file(f"{mode}.txt")
        kernel, initrd = self.image
        vm = self.get_vm(
            "-nodefaults", "-S", "-m", f"{MEMORY // MIB}M", "-icount",
            f"shift=auto,rr={mode},rrfile={self.scratch_file('log')}",
            "-kernel", kernel, "-initrd", initrd,
            "-append", f'{KERNEL_PARAMETERS} -- run "{WORK}"',
            "-serial", f"file:{console}", "-device", balloon, name=mode)
        vm.launch()
        vm.cmd("balloon", value=SMALL)
        vm.cmd("cont")
        self.await_end(vm)
        self.assertEqual(vm.exitcode(), 0, vm.get_log())
        with open(console, encoding="utf-8", errors="replace") as file:
            return file.read()

    def await_end(self, vm):
        """Wait until QEMU ends by itself; meanwhile the guest has to go on."""
        before, deadline = None, 0
        try:
            while vm.is_running():
                now = vm.cmd("query-replay")["icount"]
                if now != before:
                    before, deadline = now, time.monotonic() + TIMEOUT
                self.assertLess(time.monotonic(), deadline,
                                f"it stands at instruction {now}")
                time.sleep(0.5)
        except (QMPError, OSError):
            deadline = time.monotonic() + TIMEOUT
        while vm.is_running():
            self.assertLess(time.monotonic(), deadline, "it does not end")
            time.sleep(0.1)
        # Its monitor may have broken off in the middle of a command
        vm.kill()


if __name__ == "__main__":
    BalloonTest.main()
