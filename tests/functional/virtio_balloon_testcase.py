# SPDX-License-Identifier: GPL-2.0-or-later
"""What the functional tests of the memory balloon share.

The environment says what to boot: BALLOON_GUEST_KERNEL and
BALLOON_GUEST_INITRD (see virtio_balloon_guest.py for what the initramfs must
do), BALLOON_GUEST_ACCEL (default: tcg).  BALLOON_STOCK=1 leaves out what this
device does better than the one it replaces.
"""

import os
import unittest

from qemu_test import QemuSystemTest
from virtio_balloon_guest import GIB, MIB, BalloonGuest

# Host memory that may stay beyond what the balloon leaves to the guest:
# firmware, and what is left of a huge page
SLACK = 16 * MIB

improved = unittest.skipIf(os.environ.get("BALLOON_STOCK"),
                           "the stock device does not do this")


class BalloonTest(QemuSystemTest):
    """Boots guests; each is shut down when its test ends."""

    memory = GIB

    def setUp(self):
        super().setUp()
        self.image = (os.environ.get("BALLOON_GUEST_KERNEL"),
                      os.environ.get("BALLOON_GUEST_INITRD"))
        if not all(self.image):
            self.skipTest("BALLOON_GUEST_KERNEL and BALLOON_GUEST_INITRD"
                          " name no guest")
        self.guests = 0

    def guest(self, *arguments, **settings):
        """A BalloonGuest, not started; @arguments are more for QEMU."""
        self.guests += 1
        folder = os.path.join(self.socket_dir().name, str(self.guests))
        os.mkdir(folder)
        settings.setdefault("memory", self.memory)
        vm = self.get_vm()
        vm.add_args(*arguments)
        guest = BalloonGuest(
            vm, folder, self.image,
            accelerator=os.environ.get("BALLOON_GUEST_ACCEL", "tcg"),
            **settings)
        self.addCleanup(guest.stop)
        return guest

    def booted(self, *arguments, **settings):
        """A BalloonGuest that answers, its balloon driver loaded."""
        guest = self.guest(*arguments, **settings)
        guest.start()
        guest.run("true", timeout=120)
        return guest

    def assert_event(self, guest, size, timeout=60):
        """A BALLOON_CHANGE that says @size comes, or came, along."""
        event = guest.vm.event_wait("BALLOON_CHANGE", timeout,
                                    {"data": {"actual": size}})
        self.assertIsNotNone(event)
