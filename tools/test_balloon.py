# SPDX-License-Identifier: GPL-2.0-or-later
"""What ./balloon says of a command line that it does not understand."""

import os
import subprocess
import tempfile
import unittest

BALLOON = os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "balloon")


class CommandLineTest(unittest.TestCase):
    def said(self, *words, code=2, source=""):
        """The lines that it says before it does anything."""
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [BALLOON, *words], check=False, text=True,
                env=dict(os.environ, XDG_CACHE_HOME=cache, QEMU_SRC=source),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(os.listdir(cache), [])
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout.splitlines()

    def refusal(self, *words):
        line, = self.said(*words)
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

    def test_what_a_program_is_asked(self):
        for words, complaint in (
                (("soak", "5"), "20 resizes"),
                (("bench", "--repeat", "0"), "0 is less than 1"),
                (("bench", "--record", "--parts", "scale"), "--record needs"),
                (("migration", "--jobs", "0"), "0 is less than 1"),
                (("guests", "--jobs", "0"), "0 is less than 1"),
                (("guests", "pdp11"), "no guest pdp11"),
                (("run", "it"), "it"),
                (("vfio", "--windows"), "--windows")):
            self.assertIn(complaint, self.said(*words)[-1])

    def test_tree_that_is_none(self):
        self.assertIn("/dev is no source tree",
                      self.said("soak", code=1, source="/dev")[-1])

    def test_help_of_a_program(self):
        for command in "run", "soak", "vfio", "bench", "migration", "guests":
            self.assertIn("--help", "".join(self.said(command, "--help",
                                                      code=0)))

    def test_words_too_many(self):
        self.assertIn("'now'", self.refusal("build", "now"))
        self.assertIn("'now'", self.refusal("coverage", "now"))
        self.assertIn("'60'", self.refusal("fuzz", "30", "60"))


if __name__ == "__main__":
    unittest.main()
