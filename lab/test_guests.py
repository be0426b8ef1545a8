# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the matrix of guests."""

import unittest

import guests  # sets the path of what follows
import guests_checks
import guests_matrix


class MatrixTest(unittest.TestCase):
    """What is expected of a guest, and the table."""

    def test_size_is_rounded_as_linux_does(self):
        size, kib = guests_checks.SMALL, 1024

        def rounded(odd, page):
            return guests_checks.rounded(size + odd, page * kib) - size

        self.assertEqual(rounded(0, 64), 0)
        self.assertEqual(rounded(4 * kib, 4), 4 * kib)
        # the device counts whole pages, rather fewer
        self.assertEqual(rounded(1, 4), 4 * kib)
        # the guest gives whole pages of its own, rather more
        self.assertEqual(rounded(4 * kib, 64), 0)
        self.assertEqual(rounded(63 * kib, 64), 64 * kib)
        self.assertEqual(rounded(60 * kib, 64), 0)
        self.assertEqual(rounded(68 * kib, 64), 64 * kib)

    LOOK = ("MemTotal:  900 kB\nMemFree:  50 kB\nMemAvailable:  70 kB\n"
            "Cached:  9 kB\nHugePages_Total:  3\nActive(anon):  8 kB\n"
            "pgmajfault 7\npgfault 100\npswpin 0\npswpout 0\n")

    def test_fields(self):
        found = guests_checks.fields(self.LOOK)
        self.assertEqual(found["MemTotal"], 900 * 1024)
        self.assertEqual(found["HugePages_Total"], 3)
        self.assertEqual(found["Active(anon)"], 8 * 1024)
        self.assertEqual(found["pgfault"], 100)

    def test_statistics_are_between_two_looks(self):
        before = guests_checks.fields(self.LOOK)
        after = dict(before, pgfault=110)
        stats = {"total-memory": 900 * 1024, "free-memory": 50 * 1024,
                 "available-memory": 70 * 1024, "disk-caches": 9 * 1024,
                 "major-faults": 7, "minor-faults": 105, "swap-in": 0,
                 "swap-out": 0}

        def wrong(**changed):
            changed = {name.replace("_", "-"): value
                       for name, value in changed.items()}
            return [text.split()[0] for text in guests_checks.differing(
                {**stats, **changed}, before, after)]

        self.assertEqual(wrong(), [])
        self.assertEqual(wrong(minor_faults=111), ["minor-faults"])
        self.assertEqual(wrong(total_memory=900 * 1024 + 1), ["total-memory"])
        # as of a guest whose byte order is not the device's
        self.assertEqual(wrong(free_memory=50 << 48), ["free-memory"])
        del stats["swap-in"]
        self.assertEqual(wrong(), ["swap-in"])

    def test_table(self):
        row = guests_matrix.Row
        ok = {check.name: "ok" for check in guests_checks.CHECKS}
        rows = {"good": row("6.1", 64, ok, 9.6),
                "bad": row("6.2", 4, {**ok, "tell": "FAIL"}, 9),
                "none": row("cannot be had: x", 0, {}, 1)}
        self.assertEqual([name for name in rows if rows[name].passed()],
                         ["good"])
        head, rule, good, bad, none = guests_matrix.table(rows)
        columns = head.count("|")
        for line in (rule, good, bad, none):
            self.assertEqual(line.count("|"), columns)
        self.assertTrue(good.startswith("| good | 6.1 | 64 KiB | ok |"), good)
        self.assertTrue(good.endswith("| ok | 10 |"), good)
        self.assertIn("FAIL", bad)
        self.assertTrue(none.startswith("| none | cannot be had: x |  |  |"))

    def test_nothing_tested_is_no_success(self):
        row = guests_matrix.Row
        good, bad, none = (row("6.1", 4, {"tell": "ok"}, 1),
                           row("6.1", 4, {"tell": "FAIL"}, 1),
                           row("cannot be had: x", 0, {}, 1))
        for rows, verdict in (([good], 0), ([good, none], 0), ([bad], 1),
                              ([good, bad], 1), ([none, bad], 1),
                              ([none, none], guests_matrix.SKIPPED)):
            self.assertEqual(guests_matrix.verdict(rows), verdict)

    def test_every_guest_has_a_machine(self):
        for guest in guests_matrix.GUESTS.values():
            self.assertIn(guest.target, guests_matrix.MACHINES)


if __name__ == "__main__":
    unittest.main()
