# SPDX-License-Identifier: GPL-2.0-or-later
"""The overlay's one rule, and each way of breaking it."""

import contextlib
import io
import os
import subprocess
import tempfile
import unittest
from unittest import mock

import overlay

KCONFIG = "config A\n    bool\n\nconfig B\n    bool\n    default y\n"


class SpliceTest(unittest.TestCase):
    def fails(self, ours, words, theirs=KCONFIG, path="hw/x/Kconfig"):
        with self.assertRaises(overlay.OverlayError) as caught:
            overlay.splice(path, theirs, ours)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_replaces_in_place(self):
        ours = "config A\n    bool\n    default n\n"
        self.assertEqual(overlay.splice("Kconfig", KCONFIG, ours),
                         KCONFIG.replace("config A\n    bool\n", ours))

    def test_nothing_to_replace(self):
        self.fails("config C\n    bool\n", ["hw/x/Kconfig", "'C'", "0 times"])

    def test_twice_to_replace(self):
        self.fails("config A\n    bool\n", ["hw/x/Kconfig", "'A'", "2 times"],
                   theirs=KCONFIG + "\nconfig A\n    bool\n")

    def test_no_block_at_all(self):
        self.fails("# something else\n", ["no block found"])

    def test_new_follows_the_one_before(self):
        ours = "config A\n    bool\n# overlay: new\nconfig C\n    bool\n"
        self.assertEqual(
            overlay.splice("Kconfig", KCONFIG, ours),
            KCONFIG.replace("bool\n", "bool\n\nconfig C\n    bool\n", 1))

    def test_new_after_a_named_one(self):
        ours = ("# overlay: after B\nconfig C\n    bool\n"
                "# overlay: new\nconfig D\n    bool\n")
        self.assertEqual(overlay.splice("Kconfig", KCONFIG, ours),
                         KCONFIG + "\nconfig C\n    bool\n"
                                   "\nconfig D\n    bool\n")

    def test_new_with_nothing_before(self):
        self.fails("# overlay: new\nconfig C\n    bool\n",
                   ["'C'", "overlay: after"])

    def test_new_after_nothing(self):
        self.fails("# overlay: after Z\nconfig C\n    bool\n",
                   ["'Z'", "0 times"])

    def test_new_that_exists(self):
        self.fails("# overlay: after A\nconfig B\n    bool\n",
                   ["'B'", "QEMU has one"])

    def test_what_is_in_no_block(self):
        function = "int f(void)\n{\n    return 1;\n}\n"
        guarded = f"#ifdef X\n{function}#endif\n"
        self.fails(guarded, ["'#ifdef X' is in none"], path="a.c")
        self.fails(f"{function}#endif\n", ["'#endif' is in none"], path="a.c")
        # A comment is for who reads our file
        overlay.splice("hw/x/Kconfig", KCONFIG, "# That\nconfig B\n    x\n")

    def test_unknown_format(self):
        self.fails("text\n", ["docs/x.txt", "no format"], path="docs/x.txt")

    def test_directive_in_each_comment_style(self):
        for path, theirs, ours in (
                ("a.c", "#include <a.h>\n",
                 "/* overlay: after a.h */\n#include <b.h>\n"),
                ("a.rst", "   a.rst\n", ".. overlay: after a.rst\n   b.rst\n"),
                ("meson.build", "x += 'a.h'\n",
                 "# overlay: after x += 'a.h'\ny += 'b.h'\n")):
            new = ours.split("\n", 1)[1]
            self.assertEqual(overlay.splice(path, theirs, ours), theirs + new)


class OwnershipTest(unittest.TestCase):
    def test_balloon_files_are_ours(self):
        for path in ("hw/virtio/virtio-balloon.c", "system/balloon.c",
                     "tests/functional/test_virtio_balloon.py"):
            self.assertTrue(overlay.is_ours(path), path)

    def test_other_files_are_not(self):
        for path in ("hw/hyperv/hv-balloon.c", "hw/virtio/meson.build"):
            self.assertFalse(overlay.is_ours(path), path)


class LayTest(unittest.TestCase):
    """A tree laid over, changed, and laid over again."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.write("qemu/hw/x/Kconfig", KCONFIG)
        self.write("qemu/hw/x/balloon.c", "stock\n")
        self.write("repo/hw/x/Kconfig", "config A\n    string\n")
        self.write("repo/hw/x/balloon.c", "ours\n")
        self.write("repo/hw/x/new.c", "new\n")
        self.write("repo/tools/not-in-tree.py", "\n")

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def lay(self, pristine="qemu"):
        with contextlib.redirect_stderr(io.StringIO()):
            overlay.lay(*(os.path.join(self.root, name)
                          for name in ("repo", pristine, "build/tree")))

    def tree(self, path):
        return os.path.join(self.root, "build/tree", path)

    def test_links_and_splices(self):
        self.lay()
        self.assertTrue(os.path.islink(self.tree("hw/x/balloon.c")))
        self.assertEqual(overlay.read(self.tree("hw/x/balloon.c")), "ours\n")
        self.assertEqual(overlay.read(self.tree("hw/x/new.c")), "new\n")
        self.assertEqual(overlay.read(self.tree("hw/x/Kconfig")),
                         KCONFIG.replace("bool", "string", 1))
        self.assertFalse(os.path.exists(self.tree("tools/not-in-tree.py")))

    def test_writes_nothing_twice(self):
        self.lay()
        os.utime(self.tree("hw/x/Kconfig"), (1, 1))
        before = os.lstat(self.tree("hw/x/balloon.c")).st_mtime_ns
        self.lay()
        self.assertEqual(os.stat(self.tree("hw/x/Kconfig")).st_mtime, 1)
        self.assertEqual(os.lstat(self.tree("hw/x/balloon.c")).st_mtime_ns,
                         before)

    def test_restores_what_was_removed(self):
        self.lay()
        for name in ("Kconfig", "balloon.c", "new.c"):
            os.remove(os.path.join(self.root, "repo/hw/x", name))
        self.lay()
        self.assertEqual(overlay.read(self.tree("hw/x/Kconfig")), KCONFIG)
        self.assertEqual(overlay.read(self.tree("hw/x/balloon.c")), "stock\n")
        self.assertFalse(os.path.lexists(self.tree("hw/x/new.c")))

    def test_a_file_that_is_another_one_later(self):
        self.lay()
        self.write("qemu/VERSION", "10.0.1\n")
        self.write("repo/ports/10.0/hw/x/balloon.c", "ported\n")
        self.lay()
        self.assertEqual(overlay.read(self.tree("hw/x/balloon.c")), "ported\n")
        self.assertEqual(
            overlay.read(os.path.join(self.root, "repo/hw/x/balloon.c")),
            "ours\n")

    def test_an_error_changes_nothing(self):
        self.lay()
        self.write("repo/hw/x/newer.c", "newer\n")
        self.write("repo/hw/x/Kconfig", "config Z\n    string\n")
        with self.assertRaises(overlay.OverlayError):
            self.lay()
        self.assertFalse(os.path.lexists(self.tree("hw/x/newer.c")))

    def test_another_pristine_tree(self):
        self.lay()
        os.rename(os.path.join(self.root, "qemu"),
                  os.path.join(self.root, "other"))
        self.write("other/VERSION", "10.0.99\n")
        self.lay("other")
        self.assertEqual(overlay.read(self.tree("VERSION")), "10.0.99\n")

    def test_a_tree_that_changes(self):
        self.lay()
        self.write("qemu/hw/x/Kconfig", KCONFIG + "\nconfig C\n    bool\n")
        self.write("qemu/hw/x/more.c", "more\n")
        self.lay()
        self.assertIn("config C", overlay.read(self.tree("hw/x/Kconfig")))
        self.assertEqual(overlay.read(self.tree("hw/x/more.c")), "more\n")
        # What git and a build change is not of the source
        self.write("qemu/.git/index", "\n")
        self.write("qemu/build/balloon.o", "\n")
        os.remove(self.tree("hw/x/more.c"))
        self.lay()
        self.assertFalse(os.path.exists(self.tree("hw/x/more.c")))

    def test_a_copy_is_new_and_only_of_the_source(self):
        for path in ("hw/x/balloon.c", "hw/x/Kconfig", "hw/x/other.c"):
            self.write(f"qemu/{path}", KCONFIG)
            os.utime(os.path.join(self.root, "qemu", path), (1, 1))
        self.write("qemu/.git/index", "\n")
        self.write("qemu/build/balloon.o", "\n")
        self.write("qemu/hw/build/balloon.c", "\n")
        self.lay()
        for name in ("Kconfig", "balloon.c"):
            os.remove(os.path.join(self.root, "repo/hw/x", name))
        self.lay()
        for name in ("Kconfig", "balloon.c", "other.c"):
            self.assertGreater(os.stat(self.tree(f"hw/x/{name}")).st_mtime, 1)
        for path, there in ((".git", False), ("build", False),
                            ("hw/build/balloon.c", True)):
            self.assertEqual(os.path.exists(self.tree(path)), there)

    def test_files_below(self):
        for path in (".git/index", "build/a.o", "hw/x/__pycache__/a.pyc"):
            self.write(f"qemu/{path}", "\n")
        self.write("qemu/subprojects/a/.git/index", "\n")
        self.write("qemu/subprojects/a/build/a.c", "\n")
        os.symlink("x", os.path.join(self.root, "qemu/hw/y"))
        self.assertEqual(
            sorted(overlay.files_below(os.path.join(self.root, "qemu"))),
            ["hw/x/Kconfig", "hw/x/balloon.c", "hw/y",
             "subprojects/a/build/a.c"])

    def test_a_file_that_is_no_text(self):
        with open(os.path.join(self.root, "repo/hw/x/balloon.c"), "wb") as file:
            file.write(b"b0nVIM \xff")
        with self.assertRaisesRegex(overlay.OverlayError, "balloon.c is not"):
            self.lay()

    def test_without_git(self):
        with mock.patch.dict(os.environ, PATH="/nonexistent"):
            files = overlay.our_files(os.path.join(self.root, "repo"))
        self.assertEqual(files, [f"hw/x/{name}" for name in
                                 ("Kconfig", "balloon.c", "new.c")])

    def listed(self):
        return sorted(overlay.listed_files(os.path.join(self.root, "repo")))

    def test_a_repository_of_somebody_else(self):
        subprocess.run(["git", "init", "-q", f"{self.root}/repo"], check=True)
        self.write("repo/.gitignore", "/hw\n")
        with mock.patch.dict(os.environ, GIT_TEST_ASSUME_DIFFERENT_OWNER="1"):
            self.assertEqual(self.listed(),
                             [".gitignore", "tools/not-in-tree.py"])

    def test_files_without_git(self):
        for path in ("build/a", "build-sanitize/a", "hw/build/a"):
            self.write(f"repo/{path}", "\n")
        self.assertEqual(self.listed(), [
            *(f"hw/{path}" for path in ("build/a", "x/Kconfig", "x/balloon.c",
                                        "x/new.c")), "tools/not-in-tree.py"])

    def test_pristine_is_never_touched(self):
        self.lay()
        self.assertEqual(
            overlay.read(os.path.join(self.root, "qemu/hw/x/balloon.c")),
            "stock\n")


if __name__ == "__main__":
    unittest.main()
