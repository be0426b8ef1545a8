# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the benchmark with guests of any size, without one."""

import tempfile
import unittest

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
            memory = [range(bench_scale.DRIVERS // 4096, 3 * GIB // 4096),
                      range(4 * GIB // 4096, (size + GIB) // 4096)]
            for order in bench_scale.ORDERS:
                lists = bench_scale.requests(order, size, 1)
                numbers = {n for numbers in lists for n in numbers}
                self.assertEqual([len(numbers) for numbers in lists],
                                 [256] * bench_scale.REQUESTS)
                self.assertEqual(len(numbers), 256 * bench_scale.REQUESTS)
                self.assertTrue(all(n in memory[0] or n in memory[1]
                                    for n in numbers), (size, order))

    def test_tables(self):
        costs = {size: {("told", "far", "inflate"): [
            bench_scale.Cost(cpu, 1.0) for cpu in cpus]}
            for size, cpus in ((4 * GIB, (2.0, 4.0, 9.0)),
                               (2048 * GIB, (6.0, 6.0, 6.0)))}
        scale = bench_scale_report.plain(
            {"requests": costs, "map": {}, "migration": {},
             "calls": {("memfd", "one piece"): {"vector": 5}}},
            {"guest of 8 TiB": "no memory"})
        text = bench_scale_report.tables(scale)
        self.assertRegex(text, r"told, far, inflate +4\.0 \(2\.0\.\.9\.0\)"
                               r" +6\.0 \(6\.0\.\.6\.0\) +1\.50")
        self.assertRegex(text, r"memfd, one piece +5 +\?")
        self.assertIn("guest of 8 TiB: left out: no memory", text)

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
