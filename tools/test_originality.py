# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as text of QEMU's, and what does not."""

import os
import subprocess
import tempfile
import unittest
from unittest import mock

import originality

TEXT = """\
int first_of_five(int alpha)
{
    alpha += second_of_five(alpha);
    third_of_five(alpha, "word");

    fourth_of_five(alpha); /* why */
    fifth_of_five(&alpha);
}
"""
# The same, set another way
RESET = """\
    int first_of_five(int alpha) {
        alpha  +=  second_of_five( alpha );

    // third_of_five(alpha, "word");
    #include "another.h"
        fourth_of_five(alpha); /* why */
    }
    fifth_of_five(&alpha);
"""
THREE = "".join(TEXT.splitlines(True)[2:6])
PRESCRIBED = """\
static const VMStateDescription vmstate_thing = {
    .name = "the-thing",
    .version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(first_field, Thing),
        VMSTATE_END_OF_LIST()
    }
};
    Thing *thing = THING(object);
    klass->realize = thing_realize;
    device_class_set_props(klass, thing_properties);
    return thing_number;
"""


class Trees(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.repo = f"{folder.name}/repo"
        self.tree = f"{folder.name}/tree"
        subprocess.run(["git", "init", "-q", self.repo], check=True)
        os.mkdir(self.tree)

    def put(self, root, name, text):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def found(self):
        return [tuple(match)
                for match in originality.compare(self.repo, self.tree)]


class FindTest(Trees):
    def test_copy_is_found_where_it_is(self):
        self.put(self.repo, "a/ours.c", "int something_else;\n\n" + TEXT)
        self.put(self.tree, "hw/theirs.c", "int of_their_own;\n" + TEXT)
        self.assertEqual(self.found(),
                         [("a/ours.c", 3, 9, "hw/theirs.c", 2)])

    def test_layout_and_comment_marks_do_not_hide_it(self):
        self.put(self.repo, "ours.c", RESET)
        self.put(self.tree, "theirs.c",
                 TEXT.replace("alpha)\n{", "alpha) {"))
        self.assertEqual(len(self.found()), 1)

    def test_four_lines_are_no_text(self):
        self.put(self.repo, "ours.c", TEXT.replace("fifth", "sixth"))
        self.put(self.tree, "theirs.c", TEXT)
        self.assertEqual(self.found(), [])

    def test_line_between_ends_a_window(self):
        longer = TEXT.replace("    third", "    another_line(1);\n    third")
        for ours, theirs in ((longer, TEXT), (TEXT, longer)):
            self.put(self.repo, "ours.c", ours)
            self.put(self.tree, "theirs.c", theirs)
            self.assertEqual(self.found(), [])

    def test_three_lines_of_the_balloon_are_text(self):
        self.put(self.repo, "ours.c", THREE)
        self.put(self.tree, "hw/virtio/virtio-balloon.c", TEXT)
        self.put(self.tree, "hw/hyperv/hv-balloon.c", TEXT)
        self.assertEqual(self.found(), [
            ("ours.c", 1, 4, "hw/virtio/virtio-balloon.c", 3)])

    def test_each_place_is_listed(self):
        self.put(self.repo, "ours.c", TEXT)
        self.put(self.tree, "one.c", TEXT)
        self.put(self.tree, "two.c", "int before_that;\n" + TEXT)
        self.assertEqual(sorted(self.found()), [
            ("ours.c", 1, 7, "one.c", 1), ("ours.c", 1, 7, "two.c", 2)])

    def test_copy_in_a_repository_of_somebody_else(self):
        self.put(self.repo, "ours.c", TEXT)
        self.put(self.tree, "theirs.c", TEXT)
        with mock.patch.dict(os.environ, GIT_TEST_ASSUME_DIFFERENT_OWNER="1"):
            self.assertEqual(self.found(), [("ours.c", 1, 7, "theirs.c", 1)])


class PassOverTest(Trees):
    def test_idiom(self):
        self.put(self.repo, "ours.c", TEXT)
        for name in ("one.c", "two.c", "three.c"):
            self.put(self.tree, name, TEXT)
        self.assertEqual(self.found(), [])

    def test_prescribed_forms(self):
        self.put(self.repo, "ours.c", PRESCRIBED)
        self.put(self.tree, "hw/virtio/virtio-balloon.c", PRESCRIBED)
        self.assertEqual(self.found(), [])

    def test_what_is_not_qemus_or_not_in_the_repository(self):
        self.put(self.repo, ".gitignore", "build/\n")
        self.put(self.repo, "build/ours.c", TEXT)
        self.put(self.repo, "LICENSE", TEXT)
        self.put(self.repo, "ours.c", THREE)
        self.put(self.tree, "theirs.c", TEXT)
        self.put(self.tree, "roms/balloon.c", TEXT)
        self.assertEqual(self.found(), [])


if __name__ == "__main__":
    unittest.main()
