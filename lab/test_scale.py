# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the benchmark with guests of any size, without one."""

import os
import tempfile
import unittest
import unittest.mock

import guests  # noqa: F401  pylint: disable=unused-import  sets the path
import bench_scale
import bench_scale_machine
import bench_scale_report
from bench_machine import Unavailable
from virtio_balloon_guest import GIB, MIB


class ScaleTest(unittest.TestCase):
    """Pages of guests of any size, and what is printed about them."""

    @staticmethod
    def runs(numbers):
        return sum(n and a + 1 != b for n, (a, b) in
                   enumerate(zip([0, *numbers], numbers))) + 1

    def test_layouts(self):
        found = {layout: bench_scale.pages(GIB, 8 * MIB, layout)
                 for layout in bench_scale.LAYOUTS}
        self.assertEqual([(len(p), self.runs(p)) for p in found.values()],
                         [(2048, 1), (1024, 2), (1024, 1024)])
        for numbers in found.values():
            self.assertEqual(numbers[0], GIB // 4096)
            self.assertLess(numbers[-1], (GIB + 8 * MIB) // 4096)

    def test_all_requests_are_of_memory(self):
        """Not of the hole below 4 GiB, nor of pages that are not there."""
        for size in bench_scale.SIZES:
            memory = [range(size // 2 // 4096, 3 * GIB // 4096),
                      range(4 * GIB // 4096, (size + GIB) // 4096)]
            for order in bench_scale.ORDERS:
                lists = bench_scale.requests(order, size, 1)
                numbers = {n for numbers in lists for n in numbers}
                self.assertEqual([len(numbers) for numbers in lists],
                                 [256] * bench_scale.REQUESTS)
                self.assertEqual(len(numbers), 256 * bench_scale.REQUESTS)
                self.assertTrue(all(n in memory[0] or n in memory[1]
                                    for n in numbers), (size, order))

    def test_a_quarter_is_of_memory_that_no_request_is_of(self):
        for size in bench_scale.SIZES:
            requested = {n for order in bench_scale.ORDERS
                         for numbers in bench_scale.requests(order, size, 1)
                         for n in numbers}
            for layout in bench_scale.LAYOUTS:
                start, length = bench_scale.quarter(size, layout, "told", False)
                self.assertTrue(start >= 4 * GIB or
                                start + length <= 3 * GIB, size)
                self.assertLessEqual(start + length, size)
                area = range(start // 4096, (start + length) // 4096)
                self.assertFalse([n for n in requested if n in area])

    def test_a_quarter_is_one_where_there_is_time(self):
        def length(size, layout, title="told"):
            return bench_scale.quarter(size * GIB, layout, title, False)[1]

        self.assertEqual(length(1024, "one piece"), 256 * GIB)
        self.assertEqual(length(64, "every second page"), 16 * GIB)
        self.assertEqual(length(4, "2 MiB pieces"), GIB)
        self.assertEqual(length(8192, "every second page"), 16 * GIB)
        self.assertEqual(length(64, "one piece", "stock"), GIB)

    @unittest.mock.patch.object(bench_scale, "LARGE", 64 * MIB)
    def test_lists_are_all_pages(self):
        for layout, count in zip(bench_scale.LAYOUTS, (2, 3, 3)):
            lists = list(bench_scale.lists_of(GIB, 80 * MIB, layout))
            self.assertEqual(len(lists), count)
            self.assertEqual([n for numbers in lists for n in numbers],
                             list(bench_scale.pages(GIB, 80 * MIB, layout)))

    def scale(self):
        cost = bench_scale.Cost
        small, large = 4 * GIB, 2048 * GIB
        return bench_scale_report.plain({
            "requests": {size: {("told", "far", "inflate"): [
                cost(cpu, 1.0) for cpu in cpus]}
                for size, cpus in ((small, (2.0, 4.0, 9.0)),
                                   (large, (6.0, 6.0, 6.0)))},
            "quarter": {size: {("told", "one piece", "inflate"): [
                cost(5.0, 8.0)]} for size in (small, large)},
            "map": {small: {"nothing": [0.0]},
                    large: {"nothing": [4.0], "one piece": [7.0]}},
            "migration": {},
            "calls": {("memfd", "one piece"): {"vector": 5}}},
            {"guest of 8 TiB": "no memory"})

    def test_tables(self):
        text = bench_scale_report.tables(self.scale())
        self.assertRegex(text, r"told, far, inflate +4\.0 \(2\.0\.\.9\.0\)"
                               r" +6\.0 \(6\.0\.\.6\.0\) +1\.50")
        self.assertRegex(text, r"told, one piece, inflate +(8\.0 "
                               r"\(8\.0\.\.8\.0\) +){2}1\.00")
        self.assertRegex(text, r"nothing +0\.0 \(0\.0\.\.0\.0\) +4\.0 \(")
        self.assertRegex(text, r"one piece {20,}7\.0 \(7\.0\.\.7\.0\) +1\.00")
        self.assertRegex(text, r"memfd, one piece +5 +\?")
        self.assertIn("guest of 8 TiB: left out: no memory", text)

    def test_pictures(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = bench_scale_report.pictures(folder, self.scale())
            self.assertEqual(
                [os.path.relpath(path, folder) for path in paths
                 if path.endswith(".svg")],
                ["scale.svg", "scale-quarter.svg", "scale-map.svg"])
            with open(f"{folder}/scale-map.dat", encoding="ascii") as file:
                rows = [line.split() for line in file]
        self.assertEqual(rows, [["4"] + ["NaN"] * 6,
                                ["2048", *["4.0"] * 3, *["7.0"] * 3]])

    def test_device_time_is_the_last_one_of_the_balloon(self):
        line = ("vmstate_downtime_save type=non-iterable idstr={} "
                "instance_id=0 downtime={}\n")
        with tempfile.NamedTemporaryFile("w") as log:
            log.write(line.format("0000:00:04.0/virtio-balloon", 1500) +
                      line.format("0000:00:04.0/virtio-balloon", 2500) +
                      line.format("cpu", 7))
            log.flush()
            self.assertEqual(
                bench_scale_machine.device_time(log.name, "save"), 2.5)
            with self.assertRaises(Unavailable):
                bench_scale_machine.device_time(log.name, "load")


if __name__ == "__main__":
    unittest.main()
