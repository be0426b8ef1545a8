# SPDX-License-Identifier: GPL-2.0-or-later
"""What is installed runs without the folder it was built in."""

import os
import shutil
import subprocess
import tempfile
import unittest

import install

EMULATOR = "qemu-build/qemu-system-x86_64"


class InstallTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = f"{folder.name}/build"
        self.prefix = f"{folder.name}/prefix"
        os.makedirs(f"{self.build}/qemu-build/qemu-system-x86_64.p")

    def test_runs_alone(self):
        shutil.copy2("/bin/echo", f"{self.build}/{EMULATOR}")
        for _ in range(2):
            program, = install.install(self.build, self.prefix)
        shutil.rmtree(self.build)
        self.assertEqual(program, f"{self.prefix}/bin/qemu-system-x86_64")
        said = subprocess.run([program, "a b"], stdout=subprocess.PIPE,
                              text=True, check=True).stdout
        self.assertEqual(said, "-L /usr/share/seabios -L /usr/share/qemu"
                               " -L /usr/lib/ipxe/qemu a b\n")

    def test_nothing_built(self):
        self.assertEqual(install.install(self.build, self.prefix), [])


if __name__ == "__main__":
    unittest.main()
