# SPDX-License-Identifier: GPL-2.0-or-later
"""What is installed runs without the folder it was built in."""

import os
import shutil
import subprocess
import tempfile
import unittest
from unittest import mock

import install

EMULATOR = "qemu-build/qemu-system-x86_64"


class InstallTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = f"{folder.name}/build"
        self.prefix = f"{folder.name}/a prefix"
        os.makedirs(f"{self.build}/qemu-build/qemu-system-x86_64.p")

    def test_runs_alone(self):
        self.addCleanup(os.umask, os.umask(0o077))
        shutil.copy2("/bin/echo", f"{self.build}/{EMULATOR}")
        os.chmod(f"{self.build}/{EMULATOR}", 0o700)
        for _ in range(2):
            program, = install.install(self.build, self.prefix)
        shutil.rmtree(self.build)
        for root, _, files in os.walk(self.prefix):
            for path in (root, *(f"{root}/{name}" for name in files)):
                self.assertEqual(os.stat(path).st_mode & 0o777, 0o755, path)
        self.assertEqual(program, f"{self.prefix}/bin/qemu-system-x86_64")
        said = subprocess.run([program, "a b"], stdout=subprocess.PIPE,
                              text=True, check=True).stdout
        self.assertEqual(said, "-L /usr/share/seabios -L /usr/share/qemu"
                               " -L /usr/lib/ipxe/qemu a b\n")

    def test_nothing_built(self):
        self.assertEqual(install.install(self.build, self.prefix), [])
        self.assertFalse(os.path.exists(self.prefix))

    def test_prefix_that_cannot_be(self):
        shutil.copy2("/bin/echo", f"{self.build}/{EMULATOR}")
        for error, advice in ((None, "Not a directory"),
                              (PermissionError("no"), "sudo")):
            with mock.patch("sys.argv", ["install", "/dev/null/x"]), \
                    mock.patch("install.base.build_folder",
                               return_value=self.build), \
                    mock.patch("install.os.makedirs", side_effect=error,
                               wraps=os.makedirs), \
                    self.assertRaisesRegex(SystemExit, f"^install: .*{advice}"):
                install.main()

    def balloon(self, repo):
        """Run `balloon install` of @repo where it can neither fetch nor build.
        """
        shutil.copy2(f"{install.base.REPO}/balloon", repo)
        shutil.copytree(f"{install.base.REPO}/tools", f"{repo}/tools",
                        ignore=shutil.ignore_patterns("__pycache__"))
        tools = f"{repo}/bin"
        os.mkdir(tools)
        for name in ("ninja", "apt-get", "meson"):
            with open(f"{tools}/{name}", "w", encoding="ascii") as file:
                file.write(f"#!/bin/sh\necho {name} ran\nexit 1\n")
            os.chmod(f"{tools}/{name}", 0o755)
        return subprocess.run(
            [f"{repo}/balloon", "install", self.prefix], check=False, text=True,
            env=dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}",
                     QEMU_SRC="", QEMU_BASE=""),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def test_does_not_build(self):
        with tempfile.TemporaryDirectory() as repo:
            done = self.balloon(repo)
        self.assertEqual(done.stdout, "install: nothing is built; run this"
                                      " first, not as root: ./balloon build\n")
        self.assertNotEqual(done.returncode, 0)


if __name__ == "__main__":
    unittest.main()
