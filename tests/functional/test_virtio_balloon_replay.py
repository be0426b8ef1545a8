#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest with a balloon is recorded, and replayed to its end."""

import time

from qemu.qmp import QMPError
from virtio_balloon_guest import (BIND, KERNEL_PARAMETERS, MIB, PATIENCE,
                                  UNBIND)
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


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


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
        said, done = zip(*(self.run_guest(mode, balloon)
                           for mode in ("record", "replay")))
        self.assertRegex(said[0], r"balloon_inflate [1-9]")
        self.assertRegex(said[0], r"balloon_deflate [1-9]")
        self.assertIn("THE END", said[0])
        self.assertEqual(*said)
        self.assertRegex(done[0], r"_report [1-9]")
        # The first statistics come unasked
        self.assertRegex(done[0], r"(?s)_stats_ask .*_stats [1-9]")
        self.assertEqual(*done)

    def run_guest(self, mode, balloon):
        """The console and the trace of a guest until it is switched off."""
        console = self.scratch_file(f"{mode}.txt")
        trace = self.scratch_file(f"{mode}.trace")
        kernel, initrd = self.image
        vm = self.get_vm(
            "-nodefaults", "-S", "-m", f"{MEMORY // MIB}M", "-icount",
            f"shift=auto,rr={mode},rrfile={self.scratch_file('log')}",
            "-kernel", kernel, "-initrd", initrd,
            "-append", f'{KERNEL_PARAMETERS} -- run "{WORK}"',
            "-serial", f"file:{console}", "-device", balloon,
            "-trace", "virtio_balloon_report", "-trace",
            "virtio_balloon_stats*", "-D", trace, name=mode)
        vm.launch()
        vm.cmd("balloon", value=SMALL)
        vm.cmd("cont")
        self.await_end(vm)
        self.assertEqual(vm.exitcode(), 0, vm.get_log())
        return read(console), read(trace)

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
