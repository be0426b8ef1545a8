# SPDX-License-Identifier: GPL-2.0-or-later
"""The series: what is split how, and what is wrong with a description."""

import contextlib
import io
import os
import subprocess
import tempfile
import unittest
from unittest import mock

import base
import overlay
import series
from series import Commit, Unit

KCONFIG = "config A\n    bool\n\nconfig B\n    bool\n"
OURS = ("config A\n    bool\n    default y\n\n# overlay: new\n"
        "config C\n    bool\n")


def commit(name, *wanted):
    return Commit(name, name + "\n", list(wanted))


class DescriptionTest(unittest.TestCase):
    def test_parts(self):
        found = series.parse_commit(
            "series/1", "Subject\n\nText.\n\n-- files\na.c\nKconfig: A\n")
        self.assertEqual(found.message, "Subject\n\nText.\n")
        self.assertEqual(found.wanted, ["a.c", "Kconfig: A"])

    def test_without_files(self):
        for text in ("Subject\n", "Subject\n\n-- files\n"):
            with self.assertRaisesRegex(series.SeriesError, "series/1"):
                series.parse_commit("series/1", text)

    def test_matches(self):
        block = Unit("meson.build", "x += ['a', *b]")
        for line in ("meson.build", "meson.build: x += ['a', *b]", "m*",
                     "meson.build: x*"):
            self.assertTrue(series.matches(line, block), line)
        for line in ("meson", "meson.build: x", "build", "x*"):
            self.assertFalse(series.matches(line, block), line)


class AssignTest(unittest.TestCase):
    units = [Unit("a.c", ""), Unit("ab.c", ""), Unit("Kconfig", "A")]

    def test_the_longest_line_decides(self):
        one, two = commit("1", "a*"), commit("2", "ab.c", "Kconfig: A")
        self.assertEqual(series.assign(self.units, [one, two]),
                         dict(zip(self.units, (one, two, two))))

    def fails(self, words, *commits):
        with self.assertRaises(series.SeriesError) as caught:
            series.assign(self.units, commits)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_in_no_commit(self):
        self.fails(["Kconfig: A is in no commit"], commit("1", "a*"))

    def test_in_two(self):
        self.fails(["ab.c is claimed alike by 1 and 2"],
                   commit("1", "a.c", "ab.c", "Kconfig"), commit("2", "ab.c"))

    def test_twice_in_one(self):
        one = commit("1", "a.c", "*b.c", "ab.*", "Kconfig")
        self.assertEqual(list(series.assign(self.units, [one]).values()),
                         [one] * 3)

    def test_a_line_for_nothing(self):
        self.fails(["1: 'b.c' names nothing"], commit("1", "*", "b.c"))

    def test_a_commit_of_nothing(self):
        self.fails(["2: nothing is left"],
                   commit("1", "a.c", "ab.c", "Kconfig"), commit("2", "a*"))


class ExportTest(unittest.TestCase):
    """A series on a small tree."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.write("qemu/Kconfig", KCONFIG)
        self.write("qemu/hw/x/Kconfig", KCONFIG)
        self.write("qemu/.gitignore", "*.log\n")
        self.write("qemu/kept.log", "in the base\n")
        self.write("repo/hw/x/Kconfig", OURS)
        self.write("repo/hw/x/balloon.c", "ours\n")
        os.chmod(self.path("repo/hw/x/balloon.c"), 0o755)
        self.write("repo/series/cover-letter",
                   "A subject\n\nIt took {guest[stock][median]:.1f} s.\n")
        self.write("repo/lab/figures.json",
                   '{"guest": {"stock": {"median": 1.26}}}')
        self.write("repo/series/1", "First\n\n-- files\n"
                                    "hw/x/Kconfig: C\n")
        self.write("repo/series/2", "Second\n\n-- files\nhw/*\n")
        who = mock.patch.object(series, "identity",
                                return_value=("A Name", "a@b.example"))
        who.start()
        self.addCleanup(who.stop)

    def path(self, name):
        return os.path.join(self.root, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def export(self, output="out"):
        with contextlib.redirect_stderr(io.StringIO()):
            return series.export(self.path("repo"), self.path("qemu"),
                                 self.path(output))

    def test_states(self):
        scratch, first, patches = self.export()
        self.assertEqual([os.path.basename(p) for p in patches],
                         ["0000-cover-letter.patch", "0001-First.patch",
                          "0002-Second.patch"])
        with_c = KCONFIG.replace("bool\n", "bool\n\nconfig C\n    bool\n", 1)
        for revision, text in (
                (first, KCONFIG), ("series~1", with_c),
                ("series", overlay.splice("Kconfig", KCONFIG, OURS))):
            self.assertEqual(
                scratch.git("show", f"{revision}:hw/x/Kconfig"), text.strip())
        self.assertIn("100755", scratch.git("ls-tree", "series", "hw/x/"))
        self.assertIn("kept.log", scratch.git("ls-tree", "series"))

    def test_a_tree_that_is_a_clone(self):
        for folder in "qemu", "qemu/subprojects/a":
            self.write(f"{folder}/a.c", "\n")
            subprocess.run(["git", "init", "-q", self.path(folder)], check=True)
        self.write("qemu/build/a.o", "\n")
        scratch, first, _ = self.export()
        self.assertEqual(
            scratch.git("ls-tree", "-r", "--name-only", first).split(),
            [".gitignore", "Kconfig", "a.c", "hw/x/Kconfig", "kept.log",
             "subprojects/a/a.c"])

    def test_messages(self):
        _, _, patches = self.export()
        cover, first = overlay.read(patches[0]), overlay.read(patches[1])
        self.assertIn("Subject: [PATCH 0/2] A subject", cover)
        self.assertIn("It took 1.3 s.", cover)
        self.assertIn("Signed-off-by: A Name <a@b.example>\n---\n", first)

    def test_a_figure_that_there_is_not(self):
        self.write("repo/lab/figures.json", "{}")
        with self.assertRaisesRegex(series.SeriesError, "no 'guest'"):
            self.export()

    def test_the_same_twice(self):
        first = [overlay.read(path) for path in self.export()[2]]
        again = [overlay.read(path) for path in self.export("other")[2]]
        self.assertEqual(first, again)

    def test_a_change_is_in_its_patch(self):
        before = [overlay.read(path) for path in self.export()[2]]
        self.write("repo/hw/x/balloon.c", "changed\n")
        after = [overlay.read(path) for path in self.export("other")[2]]
        self.assertEqual(before[1], after[1])
        self.assertIn("+ours\n", before[2])
        self.assertIn("+changed\n", after[2])

    def test_old_patches_go(self):
        self.write("out/0009-old.patch", "\n")
        self.write("out/notes", "\n")
        self.export()
        self.assertFalse(os.path.exists(self.path("out/0009-old.patch")))
        self.assertTrue(os.path.exists(self.path("out/notes")))


class RepositoryTest(unittest.TestCase):
    def test_everything_is_in_a_commit(self):
        units = series.all_units(base.REPO, base.source())
        taken = series.assign(units, series.read_commits(base.REPO))
        device = series.Unit("hw/virtio/virtio-balloon.c", series.WHOLE)
        self.assertEqual(taken[device].name, "series/15-device")

    def test_every_functional_test_is_registered(self):
        # QEMU's own meson.build has the one that it has, too
        folder = f"{base.REPO}/tests/functional"
        registered = overlay.read(f"{folder}/meson.build")
        for name in os.listdir(folder):
            if name.startswith("test_") and name != "test_virtio_balloon.py":
                self.assertIn(f"'{name[5:-3]}'", registered)

    def test_cover_letter_tells_figures(self):
        self.assertNotRegex(series.cover_letter(base.REPO), "[{}]")

    def test_lengths_of_lines(self):
        for one in series.read_commits(base.REPO):
            lines = one.message.splitlines()
            self.assertLessEqual(max(map(len, lines)), 80, one.name)
            self.assertEqual(lines[1:2], [""], one.name)


if __name__ == "__main__":
    unittest.main()
