# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU's configure is run."""

import contextlib
import io
import os
import subprocess
import tempfile
import unittest

import build


class ConfigureTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name

        self.said = io.StringIO()

    def configure(self, script):
        with open(f"{self.root}/configure", "w", encoding="ascii") as file:
            file.write(f"#!/bin/sh\n{script}\n")
        os.chmod(f"{self.root}/configure", 0o755)
        with contextlib.redirect_stderr(self.said):
            build.configure(self.root, f"{self.root}/b", [], os.environ)

    def test_once(self):
        self.configure("echo noise")
        self.configure("exit 1")
        self.assertNotIn("noise", self.said.getvalue())

    def test_why_it_fails(self):
        with self.assertRaises(subprocess.CalledProcessError):
            self.configure("echo no pixman; exit 1")
        self.assertIn("no pixman", self.said.getvalue())

    def test_again_after_it_failed(self):
        with self.assertRaises(subprocess.CalledProcessError):
            self.configure("exit 1")
        with self.assertRaises(subprocess.CalledProcessError):
            self.configure("exit 1")


if __name__ == "__main__":
    unittest.main()
