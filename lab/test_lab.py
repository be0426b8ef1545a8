# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the parts of this folder that need no guest."""

import collections
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
import debian
import demo
import guests_matrix
import image
import migration
import nest
import newcomer
import plot
import record
import soak
import thread
import vfio
import vfio_linux
import vfio_nest
import virtio_balloon_image as made_of
from guests import GuestError
from virtio_balloon_guest import MIB, BalloonGuest, Channel

sys.path += guests.python_paths(os.environ.get("QEMU_TREE", guests.TREE))
# pylint: disable=wrong-import-position,import-error
from qemu.machine import QEMUMachine
from qemu.qmp.legacy import QEMUMonitorProtocol


def members(archive):
    """(name, mode, data) of each member of a newc archive."""
    found, offset = [], 0

    def padded(length):
        return length + -length % 4

    while True:
        head = archive[offset:offset + 110]
        assert head[:6] == b"070701"
        fields = [int(head[i:i + 8], 16) for i in range(6, 110, 8)]
        size, name_size = fields[6], fields[11]
        name = archive[offset + 110:offset + 109 + name_size].decode()
        offset += padded(110 + name_size)
        if name == "TRAILER!!!":
            return found
        found.append((name, fields[1], archive[offset:offset + size]))
        offset += padded(size)


class NewcTest(unittest.TestCase):
    def test_round_trip(self):
        archive = made_of.archive(["bin"], {"bin/a": (b"12345", 0o755)},
                               {"bin/b": "a"})
        self.assertEqual(members(archive), [
            ("bin", 0o040755, b""),
            ("bin/a", 0o100755, b"12345"),
            ("bin/b", 0o120777, b"a")])
        self.assertEqual(len(archive) % 4, 0)


class ImageTest(unittest.TestCase):
    def test_dependencies(self):
        self.assertEqual(made_of.dependencies(b"x\0depends=virtio,ring\0y"),
                         ["virtio", "ring"])
        self.assertEqual(made_of.dependencies(b"x\0depends=\0y"), [])
        self.assertEqual(made_of.dependencies(b"nothing"), [])

    def test_modules_are_in_loading_order(self):
        with tempfile.TemporaryDirectory() as kernel:
            folder = os.path.join(kernel, "lib", "kernel", "drivers")
            os.makedirs(folder)
            for name, needs in (("virtio_balloon", "virtio_ring"),
                                ("virtio-ring", "")):
                with open(f"{folder}/{name}.ko", "wb") as file:
                    file.write(f"\0depends={needs}\0".encode())
            self.assertEqual(list(made_of.modules(kernel)),
                             ["virtio_ring.ko", "virtio_balloon.ko"])

    def test_kernel_without_balloon(self):
        with tempfile.TemporaryDirectory() as kernel:
            with self.assertRaisesRegex(GuestError, "no module"):
                made_of.modules(kernel)

    def test_key_follows_content(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "file")
            keys = set()
            for text in ("a", "b"):
                with open(path, "w", encoding="ascii") as file:
                    file.write(text)
                keys.add(image.content_key(path))
            self.assertEqual(len(keys), 2)


    def test_more_files_have_their_folders(self):
        with unittest.mock.patch.object(made_of, "modules", return_value={}), \
                unittest.mock.patch.object(made_of, "read", return_value=b""):
            names = [name for name, *_ in members(made_of.initrd_bytes(
                "busybox", "kernel", more={"usr/lib/a/b": (b"1", 0o644)}))]
        for name in ("usr", "usr/lib", "usr/lib/a"):
            self.assertLess(names.index(name), names.index("usr/lib/a/b"))
            self.assertEqual(names.count(name), 1)


class NestTest(unittest.TestCase):
    """QEMU in a guest, with an assigned device."""

    def test_launcher(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write('#!/bin/sh\nexec /a/qemu -L /b -L /c/d "$@"\n')
            file.flush()
            self.assertEqual(nest.launched(file.name),
                             ("/a/qemu", ["/b", "/c/d"]))

    def test_firmware_is_the_first_found(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a", "b"):
                os.mkdir(f"{folder}/{name}")
                for firmware in nest.FIRMWARE[name == "a":]:
                    open(f"{folder}/{name}/{firmware}", "wb").close()
            folders = [f"{folder}/a", f"{folder}/b"]
            self.assertEqual(
                list(nest.firmware(folders)),
                [f"{folder}/b/{nest.FIRMWARE[0]}",
                 *(f"{folder}/a/{name}" for name in nest.FIRMWARE[1:])])
            with self.assertRaisesRegex(image.base.BaseError, "no firmware"):
                list(nest.firmware(folders[:1]))

    def test_faults_are_told_by_the_page(self):
        with tempfile.TemporaryDirectory() as folder:
            host = vfio_nest.Nest(unittest.mock.Mock(), folder)
            with open(f"{folder}/trace", "w", encoding="ascii") as file:
                for address in (0x5000, 0x5004, 0x9ffc):
                    file.write("vtd_dmar_fault sid 0x20 fault 5"
                               f" addr {address:#x} write 1\n")
            self.assertEqual(host.faults(), {0x5000, 0x9000})

    def test_whole_granules(self):
        step = vfio_linux.GRANULE // vfio_linux.BALLOON_PAGE
        flags = [1 << vfio_linux.OFFLINE] * (3 * step)
        self.assertEqual(vfio_linux.whole_granules(flags), 3)
        flags[step] = 1
        self.assertEqual(vfio_linux.whole_granules(flags), 2)
        self.assertEqual(vfio_linux.whole_granules(flags[1:]), 1)

    def test_costs_are_those_of_a_granule(self):
        name = "virtio_balloon_coordinator_"
        self.assertEqual(vfio.trace_costs([
            (1.0, "virtio_balloon_flush", "1 ranges, 2097152 bytes"),
            (2.0, name + "discard", "region ram from 0x0 to 0x400000"),
            (2.5, "virtio_balloon_reclaim", "partial: 1"),
            (3.0, name + "populate", "region ram offset 0x0 ret 0"),
            (4.0, "virtio_balloon_reclaim", "partial: 1")]),
            ([0.25], [0.5]))


class DebianTest(unittest.TestCase):
    """Which packages make a guest's kernel."""

    def test_newest_of_a_flavour_comes_first(self):
        names = ["linux-image-6.9.2+deb13-arm64", "linux-image-arm64",
                 "linux-image-6.12.107+deb13-arm64",
                 "linux-image-6.12.117+deb13-arm64",
                 "linux-image-6.12.117+deb13-arm64-16k",
                 "linux-image-6.12.117+deb13-arm64-unsigned",
                 "linux-image-6.12.117+deb13-cloud-arm64",
                 "linux-image-5.10.0-32-cloud-amd64"]
        self.assertEqual(list(debian.kernels(names, "arm64")), [
            ["linux-image-6.12.117+deb13-arm64"],
            ["linux-image-6.12.107+deb13-arm64"],
            ["linux-image-6.9.2+deb13-arm64"]])
        self.assertEqual(list(debian.kernels(names, "cloud-amd64")),
                         [["linux-image-5.10.0-32-cloud-amd64"]])

    def test_kernel_in_two_parts(self):
        names = [f"linux-{part}-7.2.13+deb14-s390x"
                 for part in ("image", "binary", "modules")]
        self.assertEqual(list(debian.kernels(names, "s390x")), [names[1:]])

    def test_what_is_unpacked(self):
        def wanted(path):
            return bool(debian.WANTED.search(path))

        drivers = "./usr/lib/modules/7.2/kernel/drivers/virtio"
        self.assertTrue(wanted(f"{drivers}/virtio_balloon.ko.xz"))
        self.assertTrue(wanted("./boot/vmlinuz-6.1.0-50-cloud-amd64"))
        self.assertTrue(wanted("./usr/lib/modules/7.2/vmlinuz"))
        self.assertTrue(wanted("./usr/bin/busybox"))
        self.assertFalse(wanted(f"{drivers}/../gpu/drm.ko.xz"))
        self.assertFalse(wanted("./usr/share/initramfs-tools/hooks/busybox"))


class MatrixTest(unittest.TestCase):
    """What is expected of a guest, and the table."""

    def test_size_is_rounded_as_linux_does(self):
        size, kib = guests_matrix.SMALL, 1024

        def rounded(odd, page):
            return guests_matrix.rounded(size + odd, page * kib) - size

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
        found = guests_matrix.fields(self.LOOK)
        self.assertEqual(found["MemTotal"], 900 * 1024)
        self.assertEqual(found["HugePages_Total"], 3)
        self.assertEqual(found["Active(anon)"], 8 * 1024)
        self.assertEqual(found["pgfault"], 100)

    def test_statistics_are_between_two_looks(self):
        before = guests_matrix.fields(self.LOOK)
        after = dict(before, pgfault=110)
        stats = {"total-memory": 900 * 1024, "free-memory": 50 * 1024,
                 "available-memory": 70 * 1024, "disk-caches": 9 * 1024,
                 "major-faults": 7, "minor-faults": 105, "swap-in": 0,
                 "swap-out": 0}

        def wrong(**changed):
            changed = {name.replace("_", "-"): value
                       for name, value in changed.items()}
            return [text.split()[0] for text in guests_matrix.differing(
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
        ok = {check.name: "ok" for check in guests_matrix.CHECKS}
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
