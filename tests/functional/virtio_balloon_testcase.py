# SPDX-License-Identifier: GPL-2.0-or-later
"""What the functional tests of the memory balloon share.

They boot a kernel of Debian 13's and an initramfs that is made here, of two
packages, which are fetched once.  The environment may say what to boot instead:
BALLOON_GUEST_KERNEL and BALLOON_GUEST_INITRD (see virtio_balloon_guest.py for
what the initramfs must do), and how: BALLOON_GUEST_ACCEL (default: tcg).
BALLOON_STOCK=1 leaves out what this device does better than the one it
replaces.
"""

import functools
import os
import subprocess
import tempfile
import unittest

from qemu_test import Asset, QemuSystemTest
from qemu_test.archive import deb_extract
from virtio_balloon_guest import GIB, MIB, BalloonGuest
from virtio_balloon_image import PROGRAMS, Image, make

# Host memory that may stay beyond what the balloon leaves to the guest:
# firmware, and what is left of a huge page
SLACK = 16 * MIB
# What a guest keeps, and what it rewrites: file, MiB, seed
PATTERN = "/mem/kept 64 21"
CHURN = "/mem/busy 24 5"
TELL = "virtio-balloon-pci,must-tell-host=on"

improved = unittest.skipIf(os.environ.get("BALLOON_STOCK"),
                           "the stock device does not do this")


# busybox-static and linux-image-6.12.117+deb13-cloud-amd64
ASSETS = [
    Asset("https://snapshot.debian.org/file/"
          "3827ed7fbd1b3928d5cb45bbe390c27862193e70",
          "598a3fd92bdafc34cd81196b2952ad36e910e47a4ecf162f8ce5e8e262598e53"),
    Asset("https://snapshot.debian.org/file/"
          "5118d1106bc12032a5559bf97c3e87c1a9769205",
          "e9893e5295d0549b8852611f12a4b8b5f6cc4b8128dcc2086b9847793b904ab7"),
]


def unpacked(asset, folder):
    deb_extract(asset.fetch(), folder)
    return folder


@functools.cache
def asset_image():
    """The Image of ASSETS, made for all tests of a program."""
    folder = tempfile.TemporaryDirectory(prefix="virtio-balloon-")
    unittest.addModuleCleanup(folder.cleanup)
    packages = [unpacked(asset, tempfile.mkdtemp(dir=folder.name))
                for asset in ASSETS]
    try:
        return make(*packages, f"{folder.name}/initrd", PROGRAMS)
    except (OSError, subprocess.CalledProcessError) as error:
        raise unittest.SkipTest("the guest's programs need gcc and a static"
                                " libc") from error


class BalloonTest(QemuSystemTest):
    """Boots guests; each is shut down when its test ends."""

    memory = GIB

    def __init_subclass__(cls, **arguments):
        """QEMU looks for what to fetch in the class of a test itself."""
        super().__init_subclass__(**arguments)
        cls.ASSET_BUSYBOX, cls.ASSET_KERNEL = ASSETS

    def setUp(self):
        super().setUp()
        given = Image(os.environ.get("BALLOON_GUEST_KERNEL", ""),
                      os.environ.get("BALLOON_GUEST_INITRD", ""))
        self.image = given if all(given) else asset_image()
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

    @staticmethod
    def assert_event(guest, size, timeout=60):
        """A BALLOON_CHANGE that says @size comes, or came, along."""
        guest.event("BALLOON_CHANGE", {"data": {"actual": size}}, timeout)
