# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt sizes a Linux guest, reads its statistics, saves and restores it."""

import os
import textwrap
import time

from domain import LinuxGuest
from libvirt_testcase import LibvirtTest
from session import until
from test_memballoon import DOCUMENT, code_blocks, read
from virtio_balloon_guest import KIB, MIB
from virtio_balloon_testcase import improved

WHOLE, SMALL = 512 * MIB, 256 * MIB
IMAGE = ("BALLOON_GUEST_KERNEL", "BALLOON_GUEST_INITRD")
BALLOON = "<memballoon model='virtio'><stats period='1'/></memballoon>"
PERIOD = "guest-stats-polling-interval"
# From the guest by way of virtio; without swap and huge pages some are 0
FROM_GUEST = {"swap_in", "swap_out", "major_fault", "minor_fault", "unused",
              "available", "usable", "disk_caches", "hugetlb_pgalloc",
              "hugetlb_pgfail"}


class Memory(LibvirtTest):
    """One guest, which each test finds with all its memory."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.guest = LinuxGuest(cls.session, [os.environ[n] for n in IMAGE],
                               "linux", BALLOON, WHOLE)
        cls.guest.vm.define()
        cls.guest.start()

    def setUp(self):
        self.settle(WHOLE)

    def settle(self, size):
        """Resize, and wait for libvirt to know: it follows the events, which
        come once a second at most."""
        self.guest.resize(size)
        until(lambda: self.xml_memory() == size, self.xml_memory)

    def xml_memory(self, *flags):
        """currentMemory in the XML, in bytes."""
        return int(self.guest.vm.virsh(
            "dumpxml", "--xpath", "//currentMemory/text()", *flags)) * KIB

    def test_setmem(self):
        """The guest follows, and the host has its memory back."""
        whole = self.guest.total()
        self.guest.run("memtool dirty 380")
        before = self.guest.resident()
        self.settle(SMALL)
        self.assertEqual(whole - self.guest.total(), WHOLE - SMALL)
        self.assertLess(self.guest.resident(), before - 128 * MIB)

    @improved
    def test_wait(self):
        """The manual's script that waits for a target, as it is printed."""
        script, = code_blocks(read(DOCUMENT), "sh")
        script = textwrap.dedent(script).replace("domain=guest",
                                                 "domain=linux")
        output = self.session.shell(script.replace("2G", f"{SMALL // MIB}M"))
        self.assertEqual(output.splitlines()[-1], "reached")
        self.assertEqual(self.guest.actual(), SMALL)

    def test_setmem_config(self):
        """--config leaves a guest that runs alone; the next start follows."""
        vm = self.guest.vm
        vm.set_memory(SMALL, "--config")
        self.addCleanup(vm.set_memory, WHOLE, "--config")
        self.assertEqual(self.xml_memory("--inactive"), SMALL)
        self.assertEqual(self.xml_memory(), WHOLE)
        self.assertEqual(self.guest.actual(), WHOLE)

        vm.virsh("destroy")
        self.guest.start()
        self.guest.reach(SMALL)
        self.assertLess(self.guest.total(), SMALL)

    def test_statistics(self):
        """What the guest says of its memory, fresh, in KiB."""
        started = int(time.time())
        values = self.guest.statistic("last_update", lambda at: at > started)
        self.assertLessEqual(FROM_GUEST, set(values))
        self.assertEqual(values["actual"], WHOLE // KIB)
        self.assertEqual(values["available"], self.guest.total() // KIB)
        for part in ("unused", "usable", "disk_caches"):
            self.assertTrue(0 < values[part] < values["available"], part)

        self.guest.resize(SMALL)
        self.guest.statistic("available", lambda size: (
            values["available"] - size == (WHOLE - SMALL) // KIB))

    def test_statistics_on_request(self):
        """With the period off the last values stay; switched on, they move."""
        vm = self.guest.vm
        self.guest.statistic("unused", lambda size: size > 0)
        vm.virsh("dommemstat", "--period", "0", "--live")
        self.assertEqual(vm.property(PERIOD), 0)
        values = vm.statistics()
        self.assertLessEqual(FROM_GUEST, set(values))
        vm.virsh("dommemstat", "--period", "1", "--live")
        self.guest.statistic("last_update",
                             lambda at: at > values["last_update"])

    def test_event(self):
        """virsh that listens hears the size at which the guest arrives."""
        heard = []
        with self.guest.vm.session.popen(
                "event", "--domain", "linux", "--event", "balloon-change",
                "--loop", "--timeout", "120") as listener:
            self.addCleanup(listener.kill)
            os.set_blocking(listener.stdout.fileno(), False)

            def hears(size):
                self.guest.resize(size)
                heard.extend(listener.stdout.readlines())
                return any(f" {size // KIB}KiB" in line for line in heard)

            # it listens from some moment on: move until it says so
            until(lambda: hears(SMALL) or hears(WHOLE), lambda: heard)
            listener.kill()
        self.assertIn("event 'balloon-change' for domain 'linux'", heard[0])

    def moved(self, save, restore):
        """The guest and its balloon after @save and @restore."""
        self.guest.run("memtool fill /mem/kept 32 5")
        self.settle(SMALL)
        save()
        self.assertEqual(self.guest.vm.virsh("domstate"), "shut off")
        restore()
        self.guest.connect()
        self.guest.run("memtool verify /mem/kept 32 5 && rm /mem/kept")
        self.assertEqual(self.guest.actual(), SMALL)
        self.assertEqual(self.xml_memory(), SMALL)
        self.assertEqual(self.guest.vm.property(PERIOD), 1)
        started = int(time.time())
        self.guest.statistic("last_update", lambda at: at > started)
        self.guest.resize(WHOLE)

    def test_save_and_restore(self):
        path = f"{self.session.folder}/run/saved"
        vm = self.guest.vm
        self.moved(lambda: vm.virsh("save", path),
                   lambda: self.session.virsh("restore", path))

    def test_managed_save(self):
        vm = self.guest.vm
        self.moved(lambda: vm.virsh("managedsave"), lambda: vm.virsh("start"))

    def test_daemon_restart(self):
        """A guest that moves while libvirtd is away is found as it is."""
        self.guest.run("true")
        self.guest.target(SMALL)
        self.session.stop()
        self.guest.until(
            lambda: self.guest.total() < WHOLE - SMALL, 60,
            lambda: f"MemTotal is {self.guest.total()}")
        self.session.start()
        self.guest.reach(SMALL)
        until(lambda: self.xml_memory() == SMALL, self.xml_memory)
        started = int(time.time())
        self.guest.statistic("last_update", lambda at: at > started)
        self.guest.resize(WHOLE)
