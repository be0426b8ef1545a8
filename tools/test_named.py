# SPDX-License-Identifier: GPL-2.0-or-later
"""Which names of tests in a table are found, and which are not."""

import os
import tempfile
import unittest
from unittest import mock

import named

TABLE = """# Title with `no-test`

| Feature | Tests |
|---|---|
| It is `fast` | `a-test /x/{one,two}`, `b-test` |
| It is safe | `a-test /x/*/y` |

Text with `no-test`.

| Option | Meaning |
|---|---|
| `o` | no `test` |
"""


class NamedTest(unittest.TestCase):
    def test_names(self):
        self.assertEqual(list(named.named(TABLE)),
                         [(5, "a-test /x/{one,two}"), (5, "b-test"),
                          (6, "a-test /x/*/y")])

    def test_cells(self):
        self.assertEqual(list(named.named_in_cells(
            "     - ``tell/a``\n     - ``x/a-b``, ``x/*``\n"
            "     - as ``no/test``\nof ``no/test``\n     - ``no.c``\n")),
            [(1, "tell/a"), (2, "x/a-b"), (2, "x/*")])

    def test_nothing_built(self):
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch("sys.argv", ["named", folder]), \
                self.assertRaisesRegex(SystemExit, "check unit"):
            named.main()

    def test_expand(self):
        self.assertEqual(named.expand("a"), ["a"])
        self.assertEqual(named.expand("{a,b}/{c,d}"),
                         ["a/c", "a/d", "b/c", "b/d"])

    def test_matches(self):
        paths = ["/x/one/y", "/x/two"]
        for pattern in ("/x", "/x/one", "/x/two", "/x/*", "/x/*/y"):
            self.assertTrue(named.matches(pattern, paths), pattern)
        for pattern in ("/x/t", "/x/two/y", "/y", "/x/two/*"):
            self.assertFalse(named.matches(pattern, paths), pattern)

    def build(self):
        build = named.Build.__new__(named.Build)
        build.meson = "test('share', suite: 'guest')\n'qom-test': ['x86_64']"
        build.lists = {"a-test": ["/x/one"]}
        build.program = build.lists.get
        return build

    def test_missing(self):
        text = TABLE.replace("`b-test`", "`share`, `qom-test-x86_64`, "
                             "`check guest`, `check nothing`")
        self.assertEqual(named.missing(text, self.build()),
                         [(5, "a-test /x/two"), (5, "check nothing"),
                          (6, "a-test /x/*/y")])

    def test_lists_of_old_and_new_glib(self):
        for text in ("/x/one\n/x/two/y\n",
                     "TAP version 14\n# random seed: R0\n1..2\n"
                     "# Start of x tests\n# /x/one\n# /x/two/y\n"):
            with tempfile.TemporaryDirectory() as folder:
                path = f"{folder}/a-test"
                with open(path, "w", encoding="ascii") as file:
                    file.write("#!/bin/sh\n[ $1 = -l ]\n"
                               f"cat <<EOF\n{text}EOF\n")
                os.chmod(path, 0o755)
                self.assertEqual(named.tests_of(path, None),
                                 ["/x/one", "/x/two/y"])

    def test_python(self):
        build = self.build()
        with mock.patch.object(build, "python", return_value=["test_it"]):
            self.assertTrue(build.has("test_file.test_it"))
            self.assertTrue(build.has("test_file.*"))
            self.assertFalse(build.has("test_file.test_that"))


if __name__ == "__main__":
    unittest.main()
