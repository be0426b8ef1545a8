#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The program of the manual that waits for a target, as it is there.

BALLOON_FAKE_VFIO names the library virtio-balloon-fake-vfio.so of the qtests,
if that is not in the build folder.  BALLOON_UNCOORDINATED=1 leaves out what a
QEMU cannot do that has no coordinated discards.
"""

import mmap
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from qemu.machine.qtest import QEMUQtestMachine
from virtio_balloon_guest import MIB, RELOAD, UNLOAD
from virtio_balloon_testcase import BalloonTest, improved

PROGRAM = str(Path(__file__).absolute().parents[2] / "scripts" /
              "virtio-balloon-wait.py")
REACHED, GONE, NO_DRIVER, BROKEN, STALLED, OVER = 0, 1, 3, 4, 5, 6

# Legacy virtio on PCI: where a driver has its registers, and their offsets
PORTS, SLOT = 0xc000, 4
QUEUE_PAGE, QUEUE_SIZE, QUEUE_SELECT, QUEUE_NOTIFY, STATUS = 8, 12, 14, 16, 18
NUM_PAGES, ACTUAL = 20, 24
STATUS_OK = 7
RING_PAGE = 0x100
COORDINATED = ("virtio-balloon-pci,must-tell-host=on,coordinated-discards=on,"
               "discard-granule=64K")
# The fake host's file: its size, and where it has what may be mapped, and is
FAKE_SIZE, MAX_BYTES, BYTES = 32 + 65535 * 16, 0, 16
# 64 KiB, in balloon pages
LARGE = 16


class PlayedGuest:
    """A QEMU whose guest is played here, by a driver without queues."""

    def __init__(self, vm):
        self.vm = vm

    def command(self, *words):
        answer = self.vm.qtest(" ".join(map(str, words))).split()
        assert answer[0] == "OK", answer
        return int(answer[1], 0) if len(answer) > 1 else None

    def config_write(self, offset, value):
        self.command("outl", 0xcf8, 0x80000000 | SLOT << 11 | offset)
        self.command("outl", 0xcfc, value)

    def start(self):
        """Bring up the device, as much as this driver needs."""
        self.config_write(0x10, PORTS)
        self.config_write(0x04, 5)              # ports, bus master
        self.command("outb", PORTS + STATUS, STATUS_OK)

    def follow(self):
        """Give up, or take, whole pages of 64 KiB."""
        pages = self.command("inl", PORTS + NUM_PAGES)
        self.command("outl", PORTS + ACTUAL, -(-pages // LARGE) * LARGE)

    def break_queue(self):
        """Claim that the inflate queue holds more than it can."""
        self.command("outw", PORTS + QUEUE_SELECT, 0)
        self.command("outl", PORTS + QUEUE_PAGE, RING_PAGE)
        size = self.command("inw", PORTS + QUEUE_SIZE)
        self.command("writew", RING_PAGE * 4096 + size * 16 + 2, 0x7fff)
        self.command("outw", PORTS + QUEUE_NOTIFY, 0)

    def pass_time(self):
        """A tenth of a second, as the guest and QEMU's events have it."""
        self.command("clock_step", 100000000)


class VirtioBalloonWait(BalloonTest):
    """Waits by events, and tells what it finds instead."""

    memory = 512 * MIB

    def setUp(self):
        super().setUp()
        self.machines = []
        self.monitor = os.path.join(self.socket_dir().name, "wait.qmp")
        self.option = ("-qmp", f"unix:{self.monitor},server=on,wait=off")

    def tearDown(self):
        for vm in self.machines:        # before their logs are gone
            vm.shutdown(hard=True)
        super().tearDown()

    def program(self, *arguments):
        process = subprocess.Popen(
            [sys.executable, PROGRAM, self.monitor, "--timeout", "120",
             *map(str, arguments)], stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait(self, expected, *arguments):
        """Its output, when it ends with the exit code that is @expected."""
        process = self.program(*arguments)
        output, _ = process.communicate()
        self.assertEqual(process.returncode, expected, output)
        return output

    @improved
    def test_linux(self):
        guest = self.booted(*self.option)
        for size in 256, 512, 300:
            self.assertIn("reached", self.wait(REACHED, size))
            self.assertEqual(guest.actual(), size * MIB)
        guest.run(UNLOAD)
        self.assertIn("no-driver", self.wait(NO_DRIVER, 256))
        waiting = self.program("--patient")
        self.assertIn("no-driver", waiting.stdout.readline())
        guest.run(RELOAD)
        self.assertEqual(waiting.wait(), REACHED)
        waiting = self.program(1, "--patient")
        waiting.stdout.readline()
        guest.stop()
        self.assertEqual(waiting.wait(), GONE)

    def assigned(self, **settings):
        """A booted guest that has a device of the fake host."""
        library = (os.environ.get("BALLOON_FAKE_VFIO") or self.build_file(
            "tests", "qtest", "virtio-balloon-fake-vfio.so"))
        if not os.path.exists(library):
            self.skipTest(f"there is no {library}")
        folder = tempfile.mkdtemp(dir=self.workdir)
        os.symlink("../42", os.path.join(folder, "iommu_group"))
        # The firmware would look for a ROM, which QEMU copies from nowhere
        guest = self.guest(*self.option, "-device",
                           f"vfio-pci,sysfsdev={folder},rombar=0", **settings)
        self.fake = os.path.join(folder, "fake")
        with open(self.fake, "wb") as file:
            file.truncate(FAKE_SIZE)
        options = os.environ.get("ASAN_OPTIONS", "")
        os.environ.update(VIRTIO_BALLOON_FAKE_VFIO=self.fake,
                          LD_PRELOAD=library, ASAN_OPTIONS=options +
                          ":verify_asan_link_order=0")
        try:
            guest.start()
        finally:
            del os.environ["LD_PRELOAD"]
            os.environ["ASAN_OPTIONS"] = options
        guest.run("true", timeout=120)
        return guest

    def await_held(self, guest, error):
        """An event tells that memory waits, because of @error; None: no more"""
        held = {"error": "nobody asked yet"}
        while (held is None) != (error is None) or (
                held and held.get("error") != error):
            held = guest.event("BALLOON_STATE_CHANGE")["data"].get("held")

    @unittest.skipIf(os.environ.get("BALLOON_UNCOORDINATED"),
                     "this QEMU has no coordinated discards")
    @improved
    def test_held(self):
        """The host has no memory for a guest that starts again."""
        guest = self.assigned(balloon=COORDINATED)
        with open(self.fake, "r+b") as file:
            fake = mmap.mmap(file.fileno(), FAKE_SIZE)

        def mapped():
            return struct.unpack_from("Q", fake, BYTES)[0]

        whole = mapped()
        guest.resize(256 * MIB)
        guest.until(lambda: mapped() < whole - 128 * MIB, 60,
                    lambda: f"{mapped()} bytes are mapped of {whole}")
        struct.pack_into("Q", fake, MAX_BYTES, whole - 64 * MIB)
        guest.vm.cmd("system_reset")
        self.await_held(guest, "Cannot allocate memory")
        self.assertFalse(guest.vm.cmd("query-status")["running"])
        struct.pack_into("Q", fake, MAX_BYTES, 0)
        self.await_held(guest, None)
        self.assertTrue(guest.vm.cmd("query-status")["running"])
        self.assertEqual(mapped(), whole)

    @improved
    def test_assigned_device(self):
        """The guest follows, and the host has nothing of it."""
        guest = self.assigned()
        text = self.wait(REACHED, 256)
        self.assertIn("none of it back: pinned-memory", text)
        self.assertEqual(guest.actual(), 256 * MIB)

    def played(self):
        """A PlayedGuest of 512 MiB, its driver not started."""
        vm = QEMUQtestMachine(self.qemu_bin, base_temp_dir=self.workdir)
        self.machines.append(vm)
        vm.add_args("-nodefaults", "-m", "512", *self.option, "-device",
                    f"virtio-balloon-pci,id=balloon0,addr={SLOT}",
                    "-qtest-log", "none")
        vm.launch()
        return PlayedGuest(vm)

    def end(self, process, guest, *actions):
        """Exit code of @process, while @guest does @actions."""
        while process.poll() is None:
            for action in *actions, guest.pass_time:
                action()
        return process.returncode

    @improved
    def test_large_pages(self):
        """A guest cannot come closer to a target than its pages are large."""
        guest = self.played()
        guest.start()
        guest.vm.cmd("balloon", value=256 * MIB + 4096)
        self.assertEqual(self.end(self.program(), guest, guest.follow), REACHED)
        self.assertEqual(guest.vm.cmd("query-balloon")["actual"], 256 * MIB)
        for size in 300, 200:
            process = self.program(size)
            self.assertEqual(self.end(process, guest, guest.follow), REACHED)

    @improved
    def test_no_progress(self):
        """None of these reaches a target, and each is said."""
        guest = self.played()
        self.wait(NO_DRIVER, 256)
        guest.start()
        process = self.program(300)
        self.assertEqual(self.end(process, guest), STALLED)
        process = self.program(200, "--patient", "--timeout", 0.5)
        self.assertEqual(self.end(process, guest), OVER)
        guest.break_queue()
        self.assertEqual(self.end(self.program(256), guest), BROKEN)


if __name__ == "__main__":
    BalloonTest.main()
