# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests with libvirt share: a daemon for each test program."""

import os
import unittest

from domain import Domain
from session import Session


class LibvirtTest(unittest.TestCase):
    """Each class of tests has a libvirtd."""

    @classmethod
    def setUpClass(cls):
        cls.session = Session(os.environ["QEMU_TEST_QEMU_BINARY"])
        cls.addClassCleanup(cls.session.end)

    def domain(self, balloon, name="test", **settings):
        """A Domain, not defined; removed at the end of the test."""
        domain = Domain(self.session, name, balloon, **settings)
        self.addCleanup(domain.remove)
        return domain

    def created(self, balloon, **settings):
        """A Domain that QEMU has set up; its processors are stopped."""
        domain = self.domain(balloon, **settings)
        domain.create()
        return domain
