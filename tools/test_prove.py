# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof finds what is wrong."""

import os
import stat
import tempfile
import unittest
from unittest import mock

import prove
from prove import ProofError, Row


class FolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name

    def write(self, name, text="", mode=0o644):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path


class TreesTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.write("one/a/b.c", "same\n")
        os.makedirs(f"{self.root}/two/a")
        os.symlink(f"{self.root}/one/a/b.c", f"{self.root}/two/a/b.c")

    def check(self):
        prove.check_same("they", f"{self.root}/one", f"{self.root}/two")

    def differs(self):
        with self.assertRaisesRegex(ProofError, "they: 1 files differ.*a/"):
            self.check()

    def test_same(self):
        self.write("two/.overlay.json")
        self.write("two/a/__pycache__/b.pyc")
        self.write("one/.git/index")
        self.write("one/build/b.o")
        self.check()

    def test_text(self):
        os.remove(f"{self.root}/two/a/b.c")
        self.write("two/a/b.c", "other\n")
        self.differs()

    def test_mode(self):
        os.remove(f"{self.root}/two/a/b.c")
        self.write("two/a/b.c", "same\n", 0o755)
        self.differs()

    def test_missing_on_either_side(self):
        self.write("one/a/c.c")
        self.differs()
        os.rename(f"{self.root}/one/a/c.c", f"{self.root}/two/a/c.c")
        self.differs()


class TestsTest(FolderTest):
    def run_test(self, script):
        program = self.write("test", f"#!/bin/sh\n{script}\n", stat.S_IRWXU)
        with mock.patch("prove.BUILD", self.root):
            return prove.run_test("test-x", [program], dict(os.environ))

    def test_counts(self):
        self.assertEqual(self.run_test("echo ok 1 a; echo ok 2 b"), 2)

    def test_fails(self):
        for script in ("echo ok 1 a; exit 1", "echo ok 1 a; echo not ok 2 b",
                       "echo 1..0"):
            with self.assertRaisesRegex(ProofError, "test-x fails"):
                self.run_test(script)


class CheckpatchTest(unittest.TestCase):
    def check(self, said, section="virtio-balloon"):
        def run(command, *_):
            is_patch = command[0].endswith("checkpatch.pl")
            return (1, said) if is_patch else (0, f"{section}\n  file\n")

        tree = mock.Mock()
        tree.added.return_value = ["hw/virtio/virtio-balloon-x.c"]
        with mock.patch("prove.run", run):
            return prove.check_patch(tree, "0001.patch")

    def test_clean(self):
        self.assertEqual(self.check(""), "clean")
        for reminder in prove.REMINDERS:
            self.assertEqual(self.check(f"{reminder}\n#40:\nnew file\n"),
                             "clean, reminder")

    def test_complaint(self):
        for said in ("ERROR: trailing whitespace\n", "died at line 3\n",
                     f"{prove.REMINDERS[0]}\nWARNING: line over 80 characters\n"):
            with self.assertRaisesRegex(ProofError, "complains"):
                self.check(said)

    def test_no_entry(self):
        with self.assertRaisesRegex(ProofError, "no entry.*virtio-balloon-x"):
            self.check(f"{prove.REMINDERS[0]}\n", section="THE REST")


class BuildTest(unittest.TestCase):
    def compile(self, output, code=0):
        with mock.patch("prove.run", return_value=(code, output)), \
                mock.patch("prove.our_modules", return_value=[]), \
                mock.patch("prove.our_tests", return_value=[]):
            return prove.compile_tree({})

    def test_steps(self):
        self.assertEqual(self.compile("[1/12] CC a\n[12/12] LD b\n"), 12)
        self.assertEqual(self.compile("ninja: no work to do.\n"), 0)

    def test_warning(self):
        with self.assertRaisesRegex(ProofError, "with a warning"):
            self.compile("[1/1] CC a\na.c:3:1: warning: unused\n")

    def test_error(self):
        with self.assertRaises(ProofError):
            self.compile("a.c:3:1: error: no\n", 1)


class NumbersTest(unittest.TestCase):
    def test_of_no_commit(self):
        prove.check_numbers([1, 33], 33)
        for number in 0, 34:
            with self.assertRaisesRegex(ProofError, "from 1 to 33"):
                prove.check_numbers([2, number], 33)


class TableTest(unittest.TestCase):
    def test_row(self):
        row = Row(1, "a: B", "3 steps", "4 in 1 programs", "clean", 2.4)
        self.assertEqual(prove.table([row])[-1],
                         "| 1 | a: B | 3 steps | 4 in 1 programs | clean | 2 |")


if __name__ == "__main__":
    unittest.main()
