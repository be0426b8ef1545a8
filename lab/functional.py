#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one of the functional tests with our guest image.

usage: functional.py [--qemu PATH] [--tree PATH] [--stock] [--assets]
                     TEST [NAME...]

With --assets they make it themselves, as under QEMU's own build, of packages
that were fetched before; when Debian has newer ones than those the tests name,
they are skipped.

TEST is the name of a file in tests/functional, as test_virtio_balloon.py, or
the path of another; NAMEs of single tests as VirtioBalloon.test_resize
restrict the run.  Output is TAP.
"""

import os
import signal
import sys
import tempfile
import unittest

import guests
from guests import image

# From where the QEMU to run is
FAKE_VFIO = "qemu-build/tests/qtest/virtio-balloon-fake-vfio.so"


def environment(options):
    """What QEMU's test framework and our tests read from the environment."""
    booted = image.asset_variables if options.assets else image.variables
    return {**booted(),
            "QEMU_TEST_QEMU_BINARY": os.path.abspath(options.qemu),
            "PYTHONPATH": ":".join(guests.python_paths(options.tree)),
            "BALLOON_FAKE_VFIO": os.path.join(
                os.path.dirname(os.path.abspath(options.qemu)), FAKE_VFIO),
            "BALLOON_GUEST_ACCEL": guests.accelerator(options),
            "BALLOON_STOCK": "1" if options.stock else ""}


def ending_early(suite):
    """@suite, but SIGTERM ends the test that runs and leaves out the rest."""
    def call(result):
        def end(*_):
            result.stop()
            sys.exit("ended by SIGTERM")

        signal.signal(signal.SIGTERM, end)
        suite(result)
    return call


def run(options, folder):
    """Run the tests; True when all passed."""
    os.environ.update(environment(options), QEMU_BUILD_ROOT=folder,
                      MESON_BUILD_ROOT=folder)
    pycotap = image.base.fetch_deb("python3-pycotap")
    where, module = os.path.split(options.test.removesuffix(".py"))
    sys.path[:0] = [where or guests.FUNCTIONAL, guests.FUNCTIONAL,
                    *guests.python_paths(options.tree),
                    f"{options.tree}/tests/functional",
                    f"{pycotap}/usr/lib/python3/dist-packages"]
    from pycotap import LogMode, TAPTestRunner  # pylint: disable=C0415,E0401
    names = [f"{module}.{name}" for name in options.names] or [module]
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    runner = TAPTestRunner(message_log=LogMode.LogToError,
                           test_output_log=LogMode.LogToError)
    return runner.run(ending_early(suite)).wasSuccessful()


@guests.told("functional")
def main():
    parser = guests.parser(__doc__)
    parser.add_argument("--stock", action="store_true",
                        help="leave out what stock QEMU does not do")
    parser.add_argument("--assets", action="store_true",
                        help="boot what QEMU's own build would")
    parser.add_argument("test")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="balloon-") as folder:
        passed = run(options, folder)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
