# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as reached, excused and wrong."""

import contextlib
import io
import os
import unittest
from unittest import mock

import coverage

PATH = "hw/virtio/virtio-balloon-ranges.c"
SOURCE = "int f(void)\n{\n    return 1;\n    return 2;\n}\n"


def report(*counts, path=PATH):
    """What gcov says of an object: how often lines 1, 2, ... were run."""
    return {"current_working_directory": coverage.REPO,
            "files": [{"file": path, "lines": [
                {"line_number": number, "count": count, "function_name": "f"}
                for number, count in enumerate(counts, 1)]}]}


class CoverageTest(unittest.TestCase):
    def wrong(self, reports, reasons=""):
        """How much is wrong, and what was said."""
        output = io.StringIO()
        with mock.patch("coverage.read", return_value=SOURCE), \
                contextlib.redirect_stdout(output):
            count = coverage.show(coverage.collect(reports),
                                  coverage.parse_reasons(reasons))
        return count, output.getvalue()

    def test_all_reached(self):
        count, output = self.wrong([report(1, 1, 1, 1, 1)])
        self.assertEqual(count, 0)
        self.assertIn("100.0 %", output)

    def test_any_program_counts(self):
        self.assertEqual(self.wrong([report(1, 1, 1, 0, 1),
                                     report(0, 0, 0, 1, 0)])[0], 0)

    def test_new_line_is_named(self):
        count, output = self.wrong([report(1, 1, 1, 0, 1)])
        self.assertEqual(count, 1)
        self.assertIn(f"{PATH}:4: f: return 2;", output)
        self.assertIn("80.0 %", output)

    def test_reason(self):
        reasons = f"# why\n{PATH} | f | return 2; | it | cannot be\n"
        count, output = self.wrong([report(1, 1, 1, 0, 1)], reasons)
        self.assertEqual(count, 0)
        self.assertIn("it | cannot be", output)

    def test_stale_reason(self):
        reasons = f"{PATH} | f | return 3; | it cannot be\n"
        count, output = self.wrong([report(1, 1, 1, 1, 1)], reasons)
        self.assertEqual(count, 1)
        self.assertIn("has no line 'return 3;'", output)

    def test_others_do_not_count(self):
        files = coverage.collect([report(0, path="/usr/include/glib.h"),
                                  report(0, path="tests/qtest/a.c")])
        self.assertEqual(dict(files), {})

    def test_reasons_of_this_repository(self):
        with open(coverage.UNREACHED, encoding="utf-8") as file:
            reasons = coverage.parse_reasons(file.read())
        for path, _, code in reasons:
            with open(os.path.join(coverage.REPO, path),
                      encoding="utf-8") as file:
                self.assertIn(code, file.read())


if __name__ == "__main__":
    unittest.main()
