# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the parts of this folder that need no guest."""

import collections
import contextlib
import io
import json
import os
import random
import shutil
import socket
import struct
import sys
import tempfile
import threading
import unittest
import unittest.mock

import guests  # sets the path of what follows
import bench_device
import bench_latency
import bench_migration
import bench_plot
import bench_report
import demo
import migration
import newcomer
import plot
import record
import soak
import thread
from guests import GuestError
from virtio_balloon_guest import MIB, BalloonGuest, Channel

sys.path += guests.python_paths(os.environ.get("QEMU_TREE", guests.TREE))
# pylint: disable=wrong-import-position,import-error
from qemu.machine import QEMUMachine
from qemu.qmp.legacy import QEMUMonitorProtocol


class SilentMachine(QEMUMachine):
    """A QEMU that sends no event, with a thread in its place."""

    def __init__(self, folder):
        super().__init__("true")
        path = os.path.join(folder, "qmp")
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen()
        self.thread = threading.Thread(target=self.greet)
        self.thread.start()
        self._qmp_connection = QEMUMonitorProtocol(path)
        self._qmp.connect()

    def greet(self):
        version = {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""}
        with self.server, self.server.accept()[0] as client:
            client.sendall(json.dumps({"QMP": {
                "version": version, "capabilities": []}}).encode() + b"\n")
            client.recv(1000)
            client.sendall(b'{"return": {}}\n')
            client.recv(1)

    def end(self):
        self._qmp.close()
        self.thread.join()


class EventTest(unittest.TestCase):
    def test_an_event_that_does_not_come(self):
        with tempfile.TemporaryDirectory() as folder:
            machine = SilentMachine(folder)
            self.addCleanup(machine.end)
            guest = BalloonGuest(machine, folder, ("kernel", "initrd"))
            with self.assertRaisesRegex(GuestError, "no event RESET in 0.1 s"):
                guest.event("RESET", timeout=0.1)


class LastWordsTest(unittest.TestCase):
    """What QEMU says when it ends, with a script in its place."""

    def stopped(self, script):
        """What is said when a guest is stopped after @script."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "qemu")
            with open(path, "w", encoding="ascii") as file:
                file.write(f"#!/bin/sh\n{script}\n")
            os.chmod(path, 0o755)
            machine = QEMUMachine(path, base_temp_dir=folder, log_dir=folder)
            machine.set_qmp_monitor(False)
            guest = BalloonGuest(machine, folder, ("kernel", "initrd"))
            machine.launch()
            guest.until(lambda: not machine.is_running(), 10,
                        lambda: "it runs")
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                guest.stop()
            return said.getvalue()

    def test_a_crash(self):
        self.assertIn("QEMU ended with -6: last words",
                      self.stopped("echo last words >&2; kill -ABRT $$"))

    def test_a_good_end(self):
        self.assertEqual("", self.stopped("echo nothing to say >&2"))


class ChannelTest(unittest.TestCase):
    """The protocol, with a thread in the place of the guest."""

    def talk(self, *pieces):
        """What the channel makes of @pieces, sent by the guest."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "port")
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path)
                server.listen()

                def serve():
                    with server.accept()[0] as guest:
                        guest.recv(100)
                        for piece in pieces:
                            guest.sendall(piece)

                thread = threading.Thread(target=serve)
                thread.start()
                channel = Channel(path)
                try:
                    channel.send("command")
                    return channel.answer(10)
                finally:
                    channel.close()
                    thread.join()

    def test_answer(self):
        self.assertEqual(self.talk(b"0 5\na\nb\nc"), (0, "a\nb\nc"))

    def test_answer_in_pieces(self):
        self.assertEqual(self.talk(b"12", b"7 ", b"4\nno", b"pe"),
                         (127, "nope"))

    def test_closed(self):
        with self.assertRaises(OSError):
            self.talk()


class DemoTest(unittest.TestCase):
    """When does the demonstration say that the guest did not follow?"""

    def phase(self, before, after, actual, target=512):
        return record.Phase("balloon 512", 0.0, before * MIB, target * MIB,
                            1.0, after * MIB, actual * MIB)

    def test_followed(self):
        demo.check(self.phase(950, 480, 512))
        demo.check(self.phase(300, 300, 512))
        demo.check(self.phase(400, 420, 1024, target=1024))

    def test_not_followed(self):
        with self.assertRaisesRegex(GuestError, "did not follow"):
            demo.check(self.phase(950, 480, 513))

    def test_memory_did_not_fall(self):
        for after in (950, 700, 530):
            with self.assertRaisesRegex(GuestError, "did not fall"):
                demo.check(self.phase(950, after, 512))

    def test_marks_name_each_phase(self):
        text = plot.marks([self.phase(1, 1, 1)] * 3, 1088)
        self.assertEqual(text.count('"balloon 512"'), 3)
        self.assertEqual(text.count("set object"), 3)


class MigrationTest(unittest.TestCase):
    def test_columns(self):
        device = migration.Case("4.0", "page-poison").device()
        self.assertIn("page-poison=on", device)
        self.assertEqual(device.count("=on"), 1)
        everything = migration.Case("4.0", "all").device()
        self.assertEqual(everything.count("=on"), len(migration.PROPERTIES))
        self.assertIn("iothread=io0", everything)


class SoakTest(unittest.TestCase):
    def steps(self, seed, resizes):
        return soak.draw_steps(random.Random(seed), resizes)

    def test_seed_repeats_the_program(self):
        self.assertEqual(self.steps(1, 200), self.steps(1, 200))
        self.assertNotEqual(self.steps(1, 200), self.steps(2, 200))

    def test_all_that_is_rare_happens(self):
        for resizes, warm, often in ((20, 1, 1), (500, soak.BOOTS, 10)):
            steps, settled = self.steps(3, resizes)
            counts = collections.Counter(step[0] for group in steps
                                         for step in group)
            self.assertEqual(
                [counts[name] for name in ("resize", "reset", "unplug",
                                           "cancel", "move", "restore")],
                [resizes, warm + often, 1 + often, 1 + often, often, often])
            early = {step[0] for group in steps[:settled] for step in group}
            self.assertFalse(early & {"move", "restore"})
            for group in steps[settled - 1], steps[-1]:
                self.assertIn(("rest",), group)

    def result(self, **changes):
        """A life that began with the same figures, and ended with others."""
        warm = soak.Figures(10 * MIB, 20 * MIB, 22, 5, 1, 0)
        end = warm._replace(**changes)
        return soak.Result(collections.Counter(resize=500), 0, warm, warm, end,
                           1.0)

    def test_what_is_flat(self):
        for changes in ({}, {"heap": 11 * MIB}, {"threads": 7}, {"fds": 20},
                        {"wakeups": 10}):
            self.assertEqual(soak.complaints(self.result(**changes)), [])

    def test_what_is_not_flat(self):
        for changes in ({"heap": 11 * MIB + 1}, {"large": 60 * MIB},
                        {"fds": 23}, {"threads": 8}, {"wakeups": 11},
                        {"log": 1}):
            found = soak.complaints(self.result(**changes))
            self.assertEqual(len(found), 1)
            self.assertTrue(found[0].startswith(*changes), found)

    def test_memory_is_left_to_sanitizers(self):
        result = self.result(heap=100 * MIB, fds=23)
        self.assertEqual(len(soak.complaints(result, own_memory=False)), 1)


class WaitsTest(unittest.TestCase):
    """A wait stands for the commands that could not be given meanwhile."""

    def test_short_waits_count_once(self):
        waits = bench_latency.summary([(0.0001, 10), (0.0009, 10)])
        self.assertEqual(waits, (0.0009, 0.0009, False))

    def test_one_long_wait_is_many(self):
        # 1 s among 100 commands: 1001 waits of 0, 1, ... 1000 ms more
        waits = bench_latency.summary([(0.0, 100), (1.0, 1)], cut=True)
        self.assertEqual(waits.longest, 1.0)
        self.assertAlmostEqual(waits.percentile, 0.989, places=3)
        self.assertTrue(waits.cut)

    def test_percentile_leaves_a_hundredth_out(self):
        waits = bench_latency.summary([(0.0, 990), (0.0005, 10)])
        self.assertEqual(waits.percentile, 0.0)
        waits = bench_latency.summary([(0.0, 989), (0.0005, 11)])
        self.assertEqual(waits.percentile, 0.0005)


class TrafficTest(unittest.TestCase):
    class Driver:
        """Keeps what is written to guest memory."""

        def __init__(self):
            self.memory, self.data = self, b""

        def write(self, _address, data):
            self.data = data

    def test_lists_as_linux_makes_them(self):
        driver = self.Driver()
        row = bench_device.Row("anonymous", "inflate", "random", "touched")
        queue, chains = bench_device.traffic(driver, row, 2 * MIB, 1, False)
        self.assertEqual(queue, bench_device.INFLATE)
        self.assertEqual([chain[0][1] for chain in chains], [1024, 1024])
        first = bench_device.AREA // 4096
        numbers = list(struct.unpack("<512I", driver.data))
        self.assertNotEqual(numbers, sorted(numbers))
        self.assertEqual(sorted(numbers), list(range(first, first + 512)))

    def test_reports_of_nothing_have_as_many_segments(self):
        row = bench_device.Row("anonymous", "report", "ascending", "touched")
        for empty, size in ((False, 2 * MIB), (True, 2048)):
            _, chains = bench_device.traffic(None, row, 128 * MIB, 1, empty)
            self.assertEqual([len(chain) for chain in chains], [32, 32])
            self.assertEqual({length for chain in chains
                              for _, length, _ in chain}, {size})


class ReportTest(unittest.TestCase):
    def test_ratio(self):
        self.assertEqual(bench_report.ratio(0.1, 1.0), "10.0")
        self.assertEqual(bench_report.ratio(0.0, 0.2), ">100")
        self.assertEqual(bench_report.ratio(0.001, 0.0), "=")

    def test_table_has_columns_of_one_width(self):
        lines = bench_report.table(["a", "b"], [["long", "1"], ["x", "123"]])
        self.assertEqual(lines, "a       b\n----  ---\nlong    1\nx     123")

    def figures(self, **sides):
        return bench_report.spreads(
            {side: [bench_migration.Result(pages, 1, 1, 0, 1)
                    for pages in results] for side, results in sides.items()},
            bench_report.MIGRATION_FIGURES)

    def test_sides_are_compared_with_stock(self):
        figures = self.figures(told=[1, 2, 6], stock=[8, 8, 8])
        text = bench_report.side_table("t", figures,
                                       bench_report.MIGRATION_FIGURES)
        head, _, first = text.splitlines()[:3]
        self.assertIn("stock/must-tell-host", head)
        self.assertIn("2.000 (1.000..6.000)", first)
        self.assertTrue(first.endswith("4.0"), first)

    def test_pictures_have_stock_as_their_unit(self):
        document = {"migration": self.figures(told=[1, 2, 6], stock=[8, 8, 4])}
        rows = {name: rest for name, *rest in
                bench_report.guest_ratios(document)}
        ours, stock = rows["migration: pages looked at, thousands,"
                           " must-tell-host"]
        self.assertEqual(ours, (0.25, 0.125, 0.75))
        self.assertEqual(stock, (1.0, 0.5, 1.0))
        # stock's figure is 0: nothing to compare with
        self.assertFalse([name for name in rows if "source" in name])

    def test_waits_of_some_sides(self):
        wait = {"longest": 0.01, "percentile": 0.002, "cut": False}
        stuck = {"longest": 4.0, "percentile": 3.9, "cut": True}
        waits = {"one": {"ours": {"qmp": wait}, "told": {"qmp": wait},
                         "stock": {"qmp": stuck}},
                 "none": {"ours": {"vcpu": wait}, "stock": {"vcpu": wait}}}
        lines = bench_report.wait_table(waits).splitlines()[2:]
        self.assertEqual([line.split() for line in lines],
                         [["one:", "QMP", "2.0", "10.0", "2.0", "10.0",
                           "3900.0", ">", "4000.0"],
                          ["none:", "vCPU", "2.0", "10.0", "2.0", "10.0"]])
        self.assertEqual([bar.name for bar in bench_plot.wait_bars(waits)],
                         ["one: QMP *", "one: QMP, must-tell-host *",
                          "none: vCPU"])


class ThreadTest(unittest.TestCase):
    """Reports of ThreadSanitizer, told apart."""

    @staticmethod
    def report(function, place, locks=("", "")):
        return (f"{'=' * 18}\nWARNING: ThreadSanitizer: data race (pid=7)\n"
                f"  Read of size 4 at 0x7b by thread T8{locks[0]}:\n"
                f"    #0 {function} ../qemu/{place}:2 (qemu+0x1)\n\n"
                f"  Previous write of size 4 at 0x7b by main thread{locks[1]}:"
                f"\n    #0 f ../qemu/util/f.c:1 (qemu+0x2)\n\n"
                f"SUMMARY: ThreadSanitizer: data race {place} in {function}\n"
                f"{'=' * 18}\n")

    def find(self, log):
        found = collections.Counter()
        with unittest.mock.patch("builtins.print") as printed:
            thread.find(log, found)
        return dict(found), printed.call_count

    def test_ours_and_not(self):
        hints = self.report("apply", "hw/virtio/virtio-balloon-hint-rounds.c")
        found, shown = self.find(
            hints + self.report("iothread_run", "iothread.c") + hints +
            self.report("qmp_balloon", "system/balloon.c"))
        self.assertEqual(found, {
            ("ours", "data race hw/virtio/virtio-balloon-hint-rounds.c"
                     " in apply"): 2,
            ("ours", "data race system/balloon.c in qmp_balloon"): 1,
            ("qemu", "data race iothread.c in iothread_run"): 1})
        self.assertEqual(shown, 2)

    def test_locks(self):
        def kinds(*locks):
            found, _ = self.find(self.report(
                "fill", "hw/virtio/virtio-balloon.c", locks))
            return [kind for kind, _ in found]

        self.assertEqual(kinds(" (mutexes: write M12, write M58)",
                               " (mutexes: write M12)"), ["ordered"])
        self.assertEqual(kinds(" (mutexes: write M1)",
                               " (mutexes: write M12)"), ["ours"])
        self.assertEqual(kinds(" (mutexes: write M12)", ""), ["ours"])

    def test_suppressed(self):
        found, _ = self.find("ThreadSanitizer: Matched 8 suppressions (pid=7):"
                             "\n3 race:f\n5 race:g\n")
        self.assertEqual(found, {("suppressed", "race:f"): 3,
                                 ("suppressed", "race:g"): 5})


class NewcomerTest(unittest.TestCase):
    def test_the_line_is_there(self):
        with tempfile.TemporaryDirectory() as folder:
            path = shutil.copy(f"{guests.REPO}/{newcomer.FILE}", folder)
            newcomer.change_line(path)
            with self.assertRaisesRegex(SystemExit, "should have"):
                newcomer.change_line(path)


class OptionsTest(unittest.TestCase):
    def test_missing_qemu(self):
        class Options:
            qemu, tree = "/nonexistent/qemu", "/nonexistent"

        with self.assertRaisesRegex(GuestError, "balloon build"):
            guests.machine_class(Options)


if __name__ == "__main__":
    unittest.main()
