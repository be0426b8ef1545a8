# SPDX-License-Identifier: GPL-2.0-or-later
"""What ./balloon says of a command line that it does not understand."""

import os
import subprocess
import tempfile
import unittest

BALLOON = os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "balloon")


class CommandLineTest(unittest.TestCase):
    def refusal(self, *words):
        """What it says, in one line, before it does anything."""
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [BALLOON, *words], check=False, text=True,
                env=dict(os.environ, XDG_CACHE_HOME=cache, QEMU_SRC=cache),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(os.listdir(cache), [])
        self.assertEqual(done.returncode, 2, done.stdout)
        line, = done.stdout.splitlines()
        return line

    def test_suites(self):
        self.assertIn("no suite 'qtset'", self.refusal("check", "qtset"))
        self.assertIn("no suite 'guset'",
                      self.refusal("check", "unit", "guset"))
        self.assertIn("no suite '--sanitize'",
                      self.refusal("check", "unit", "--sanitize"))

    def test_suites_with_a_build_of_their_own(self):
        for words in ("fuzz", "unit"), ("unit", "thread"):
            self.assertIn("check it alone", self.refusal("check", *words))

    def test_words_too_many(self):
        self.assertIn("'now'", self.refusal("build", "now"))
        self.assertIn("'now'", self.refusal("coverage", "now"))
        self.assertIn("'60'", self.refusal("fuzz", "30", "60"))


if __name__ == "__main__":
    unittest.main()
