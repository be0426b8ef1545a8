# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the benchmark's figures, without a machine."""

import copy
import json
import os
import tempfile
import unittest
from unittest import mock

import guests  # noqa: F401  pylint: disable=unused-import  sets the path
import bench_compare
import bench_figures
import bench_noise
import bench_peers
import bench_peers_report
import bench_profile
from bench_machine import Unavailable
from bench_peers import Sample
from virtio_balloon_guest import MIB


class Clock:
    """A clock that goes on only when somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def spread(median, low=None, high=None):
    return {"median": median, "low": median if low is None else low,
            "high": median if high is None else high}


class WatchTest(unittest.TestCase):
    """When is it done, and when did the memory come?"""

    @staticmethod
    def watch(held, reached, still):
        """@held, @reached: functions of the seconds."""
        clock = Clock()
        return bench_peers.watch(lambda: held(clock.now),
                                 lambda: reached(clock.now), still, clock)

    def test_it_goes_on_until_nothing_changes(self):
        """Memory that comes later than the target is waited for."""
        found = self.watch(lambda now: int(100 - 10 * min(now, 4)) * MIB,
                           lambda now: now >= 1, 0.5)
        self.assertAlmostEqual(found.reached, 1.0, delta=0.05)
        self.assertAlmostEqual(found.changed, 4.0, delta=0.25)
        self.assertAlmostEqual(found.samples[-1].seconds, 4.5, delta=0.3)

    def test_a_target_that_comes_last(self):
        found = self.watch(lambda now: 7 * MIB, lambda now: now >= 3, 0.5)
        self.assertEqual(found.changed, 0.0)
        self.assertAlmostEqual(found.samples[-1].seconds, 3.5, delta=0.1)

    def test_slow_changes_are_changes(self):
        """Each is less than what counts, all of them are more."""
        found = self.watch(lambda now: int(now * MIB / 2) if now < 9 else
                           int(4.5 * MIB), lambda now: True, 4.0)
        self.assertGreater(found.changed, 5.0)

    def test_never(self):
        with self.assertRaises(TimeoutError):
            self.watch(lambda now: 7 * MIB, lambda now: False, 0.5)

    def test_nine_tenths(self):
        samples = [Sample(n, held * MIB) for n, held in
                   enumerate((1000, 1020, 500, 110, 101, 100, 0, 0))]
        self.assertEqual(bench_peers.given_seconds(samples[:-2]), 3)
        self.assertEqual(bench_peers.given_seconds(samples), 5)
        self.assertEqual(bench_peers.given_seconds(samples, 0.5), 2)
        self.assertEqual(bench_peers.given_seconds(samples[:1]), 0)


class PeersReportTest(unittest.TestCase):
    def result(self, **changes):
        names = bench_peers.Result._fields
        return bench_peers.Result(*range(1, len(names) + 1))._replace(**changes)

    def document(self):
        nothing = {name: None for name in bench_peers.Result._fields
                   if name.startswith("up_")}
        return bench_peers_report.plain({2: {
            "stock": [self.result(), self.result(down_main=1)],
            "reporting": [self.result(**nothing)]}})

    def test_all_figures_are_told(self):
        self.assertEqual(set(bench_peers_report.FIGURES),
                         set(bench_peers.Result._fields))
        self.assertEqual(set(bench_peers_report.TITLES),
                         set(bench_peers.PEERS))

    def test_what_there_is_not_is_left_out(self):
        figures = self.document()["2 GiB"]
        self.assertEqual(figures["stock"]["down_main"], spread(2.5, 1, 4))
        self.assertNotIn("up_main", figures["reporting"])
        self.assertIn("splits", figures["reporting"])

    def test_tables(self):
        text = bench_peers_report.tables(self.document())
        line, = (line for line in text.splitlines()
                 if line.startswith("down: CPU of the main"))
        self.assertIn("2.500 (1.000..4.000)", line)
        marked = bench_peers_report.tables(self.document(),
                                           bench_peers_report.markdown)
        rows = [line for line in marked.splitlines() if line[:1] == "|"]
        self.assertEqual(len(rows), 2 + len(bench_peers_report.FIGURES))
        self.assertEqual({line.count("|") for line in rows}, {4})
        self.assertEqual(rows[1], "| --- | --: | --: |")

    def test_pictures_have_no_bar_for_what_there_is_not(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = bench_peers_report.pictures(folder, self.document())
            self.assertEqual([os.path.basename(path) for path in paths],
                             ["peers-2GiB.svg", "peers-2GiB.png",
                              "peers-2GiB.md"])
            with open(f"{folder}/peers-2GiB.dat", encoding="ascii") as file:
                stock, reporting = (line.rstrip("\n").split("\t")
                                    for line in file)
        self.assertEqual(len(stock), len(reporting))
        self.assertNotIn("", stock)
        self.assertEqual(reporting[-6:], [""] * 6)


class ProfileTest(unittest.TestCase):
    """What was a sample of the main thread for?"""

    SAMPLES = """\

\tffffffff817062a7 zap_pte_range
\tffffffff8155fa10 __x64_sys_madvise
\t           fc366 madvise
\t          5a1b20 ram_block_discard_range
\t          6b1110 virtio_balloon_discard
\t          887a68 main_loop_wait

\t          6b19b1 virtqueue_split_pop
\t          6b1234 virtio_balloon_serve (/a/path with blanks/qemu)
\t          887a68 main_loop_wait

\tffffffff817062a7 futex_wait
\t           8c373 pthread_mutex_lock@@GLIBC_2.2.5
\t          529f85 bql_lock_impl
\t          887b25 main_loop_wait


\t               0 [unknown]
"""

    def test_the_first_purpose_counts(self):
        """All of them are in the main loop, two in the device."""
        self.assertEqual(bench_profile.shares(self.SAMPLES), {
            "discards": 0.25, "device": 0.25, "monitor": 0, "lock": 0.25,
            "timers": 0, "loop": 0, "other": 0.25})

    def test_no_sample(self):
        with self.assertRaisesRegex(Unavailable, "no sample"):
            bench_profile.shares("\n")

    def test_no_perf(self):
        with mock.patch.dict(os.environ, PATH=os.devnull), \
                self.assertRaisesRegex(Unavailable, "linux-perf"):
            bench_profile.check()

    def test_perf_fails(self):
        """It is not waited for."""
        with tempfile.TemporaryDirectory() as folder:
            os.symlink("/bin/false", f"{folder}/perf")
            with mock.patch.dict(os.environ, PATH=folder), \
                    self.assertRaisesRegex(Unavailable, "main thread"), \
                    bench_profile.recorded(os.getpid(), os.devnull):
                self.fail("there is nothing that takes samples")

    def test_report(self):
        row = {name: spread(0.25) for name in bench_profile.ROWS}
        text = bench_profile.report({"ours": row, "mem-2M": row})
        self.assertEqual(text.count("0.250 (0.250..0.250)"),
                         2 * len(bench_profile.ROWS))
        self.assertIn("virtio-mem, 2 MiB", text)


class NoiseTest(unittest.TestCase):
    def look(self, user, idle, steal, own):
        return bench_noise.Look((user, 0, 0, idle, 0, 0, 0, steal), own)

    def test_shares(self):
        found = bench_noise.shares(self.look(10, 10, 10, 5),
                                   self.look(60, 35, 35, 45))
        self.assertEqual(found, {"steal": 0.25, "others": 0.1})

    def test_nothing_went_on(self):
        look = self.look(1, 1, 1, 1)
        self.assertEqual(bench_noise.shares(look, look),
                         {"steal": 0.0, "others": 0.0})

    def test_doubts(self):
        quiet = {"calibration": spread(10, 9.6, 10.4), "steal": 0.01,
                 "others": 0.02}
        self.assertEqual(bench_noise.doubts(quiet), {})
        self.assertNotIn("DOUBTFUL", bench_noise.text(quiet))
        for name, value in (("calibration", spread(10, 9, 10.1)),
                            ("steal", 0.1), ("others", 0.2)):
            noisy = quiet | {name: value}
            self.assertEqual(list(bench_noise.doubts(noisy)), [name])
            self.assertIn(f"DOUBTFUL by {name}", bench_noise.text(noisy))

    def test_parts_are_told_apart(self):
        noise = bench_noise.Noise()
        noise.part("one")
        noise.part("two")
        document = noise.document()
        self.assertEqual(list(document["parts"]), ["one", "two"])
        self.assertEqual(len(noise.rounds), 3)
        self.assertGreater(document["calibration"]["low"], 0)


class CompareTest(unittest.TestCase):
    DOCUMENT = {
        "conditions": {"passes": 2, "load": 1.0},
        "device": [{"backing": "thp", "operation": "inflate",
                    "order": "random", "state": "touched",
                    "ours": {"cpu": spread(1.0, 0.9, 1.1), "calls": 513,
                             "returned": 1.0},
                    "stock": {"cpu": spread(1.0, 0.9, 1.1)}}],
        "waits": {"list": {"ours": {"qmp": {
            "longest": 0.01, "percentile": 0.002, "cut": False}}}},
        "granules": {"2097152": {"fresh, a half": 0.9}},
    }
    CPU = "device: thp inflate random touched: ours: cpu"

    def verdicts(self, now, before=None):
        return {change.name: change.verdict for change in
                bench_compare.compare(before or self.DOCUMENT, now)
                if change.verdict}

    def changed(self):
        now = copy.deepcopy(self.DOCUMENT)
        return now, now["device"][0]

    def test_the_same(self):
        self.assertEqual(self.verdicts(self.DOCUMENT), {})
        self.assertEqual(len(bench_compare.flatten(self.DOCUMENT)), 6)

    def test_by_more_than_its_spread(self):
        for median, verdict in ((1.15, {}), (1.25, {self.CPU: "worse"}),
                                (0.85, {}), (0.75, {self.CPU: "better"})):
            now, row = self.changed()
            row["ours"]["cpu"] = spread(median, median - 0.05, median + 0.05)
            self.assertEqual(self.verdicts(now), verdict)

    def test_the_larger_spread_counts(self):
        now, row = self.changed()
        row["ours"]["cpu"] = spread(1.25, 1.0, 1.3)
        self.assertEqual(self.verdicts(now), {})

    def test_what_was_measured_once(self):
        now, row = self.changed()
        for median, verdict in ((1.9, {}), (2.1, {self.CPU: "worse"})):
            row["ours"]["cpu"] = spread(median)
            self.assertEqual(self.verdicts(now), verdict)

    def test_noise_is_allowed_for(self):
        now, row = self.changed()
        row["ours"]["cpu"] = spread(1.25, 1.2, 1.3)
        now["noise"] = {"calibration": spread(10, 9, 12)}
        self.assertEqual(self.verdicts(now), {})

    def test_what_has_no_spread(self):
        now, row = self.changed()
        row["ours"]["calls"] = 600
        row["ours"]["returned"] = 0.5
        now["waits"]["list"]["ours"]["qmp"]["percentile"] = 0.0039
        now["granules"]["2097152"]["fresh, a half"] = 0.99
        self.assertEqual(self.verdicts(now), {
            self.CPU.replace("cpu", "calls"): "worse",
            self.CPU.replace("cpu", "returned"): "worse",
            "granules: 2097152: fresh, a half": "better"})
        now["waits"]["list"]["ours"]["qmp"]["percentile"] = 0.0041
        self.assertEqual(self.verdicts(now)["waits: list: ours: qmp"], "worse")

    def test_only_ours_counts(self):
        now, row = self.changed()
        row["stock"]["cpu"] = spread(9.0)
        text, bad = bench_compare.text(self.DOCUMENT, now)
        self.assertEqual(bad, 0)
        self.assertIn("9.00  worse", text)
        row["ours"]["cpu"] = spread(2.0, 1.9, 2.1)
        text, bad = bench_compare.text(self.DOCUMENT, now)
        self.assertEqual(bad, 1)
        self.assertIn("WORSE", text)
        self.assertIn(f"1 of ours got worse\n  {self.CPU}", text)

    def test_what_only_one_has(self):
        now, row = self.changed()
        del now["waits"]
        row["state"] = "empty"
        self.assertEqual([change.name for change in
                          bench_compare.compare(self.DOCUMENT, now)],
                         ["granules: 2097152: fresh, a half"])

    def test_conditions(self):
        now, _ = self.changed()
        now["conditions"] = {"passes": 5, "load": 9.0}
        self.assertEqual(bench_compare.other_conditions(self.DOCUMENT, now),
                         ["passes: 2, now 5"])


class FiguresTest(unittest.TestCase):
    """README's tables, and the file that they are made of."""

    README = ("before\n<!-- figures: costs -->\nold\n<!-- end of figures -->\n"
              "<!-- figures: guest -->\n<!-- end of figures -->\nbetween\n"
              "<!-- figures: peers -->\nold\nolder\n<!-- end of figures -->\n"
              "after\n")

    def figures(self, **changes):
        """What is kept of a document with just what is needed."""
        sides = ("stock", "ours", "told")
        wait = {"longest": 2.0, "percentile": 0.0012345, "cut": True}
        row = {"backing": "thp", "operation": "inflate", "order": "ascending",
               "state": "touched", "ours": {"cpu": spread(0.123456)},
               "stock": {"cpu": spread(3.0)}}
        nothing = row | {"backing": "anonymous", "operation": "deflate",
                         "state": "empty", "ours": {"cpu": spread(-0.002)}}
        guest = {side: {name: spread(n + 0.5) for n, name in
                        enumerate(bench_figures.GUEST)} for side in sides}
        return bench_figures.reduced({
            "conditions": {
                "stock": "QEMU emulator version 10.0.13 (Debian 1:10.0.13-1)",
                "kernel": "6.18.44-some-name", "processors": 2,
                "accelerator": "tcg", "passes": 5, "quick": False},
            "noise": {"calibration": spread(10), "steal": 0, "others": 0.01},
            "device": [row, nothing], "floor": {"thp": spread(0.03)},
            "guest": {"gib": 2, "sides": guest},
            "waits": {"one 64 MiB list": {side: {"qmp": wait}
                                          for side in sides}},
            "peers": {"2 GiB": {"stock": {"given": spread(1536.4)}}},
            **changes})

    def test_the_machine_has_no_name(self):
        found = self.figures()["conditions"]
        self.assertEqual(found["kernel"], "6.18")
        self.assertEqual(found["stock"], "10.0.13")

    def test_what_is_kept_is_short(self):
        found = self.figures()
        cost = found["costs"]["inflate, transparent huge pages"]
        self.assertEqual(cost["ours"]["median"], 0.1235)
        self.assertEqual(cost["floor"]["median"], 0.03)
        wait = found["waits"]["one list of 64 MiB"]["ours"]
        self.assertEqual(wait, {"longest": 2.0, "percentile": 0.001234,
                                "cut": True})
        self.assertLess(len(json.dumps(found)), 5000)

    def test_tables(self):
        text = bench_figures.filled(self.README, self.figures())
        for line in ("| inflate, transparent huge pages | 3.00 | 0.12 | 0.03 |",
                     "| deflate | 3.00 | 0.00 |  |",
                     "| Linux guest, 2 GiB to 512 MiB, seconds | 0.5 | 0.5 |"
                     " 0.5 |",
                     "| QMP answer, one list of 64 MiB, 99 % and longest, ms |"
                     " 1.2, > 2000.0 | 1.2, > 2000.0 | 1.2, > 2000.0 |",
                     "| QMP answer, while the guest inflates, 99 % and longest,"
                     " ms |  |  |  |",
                     "| MiB that the host gets | 1536 |"):
            self.assertIn(line + "\n", text)
        self.assertIn("`./balloon bench --record`, ours against stock 10.0.13",
                      text)
        self.assertNotIn("other processes", text)
        self.assertNotIn("old", text)
        self.assertTrue(text.startswith("before\n"))
        self.assertTrue(text.endswith("after\n"))
        # nothing changes when it is done again
        self.assertEqual(bench_figures.filled(text, self.figures()), text)

    def test_noise_is_told(self):
        noise = {"calibration": spread(10), "steal": 0, "others": 0.62}
        text = bench_figures.filled(self.README, self.figures(noise=noise))
        self.assertIn(", 62% of whose time other processes took (",
                      text.replace("\n", " "))
        noise = {"calibration": {"median": 10, "low": 9, "high": 11},
                 "steal": 0.1, "others": 0}
        text = bench_figures.filled(self.README, self.figures(noise=noise))
        self.assertIn(", whose speed changed by 20%, 10% of whose time was"
                      " stolen (", text.replace("\n", " "))

    def test_a_line_a_figure(self):
        figures = self.figures()
        text = bench_figures.one_line_each(json.dumps(figures, indent=1))
        self.assertEqual(json.loads(text), figures)
        self.assertIn('"floor": { "median": 0.03, "low": 0.03, "high": 0.03 }',
                      text)

    def test_a_table_is_missing(self):
        with self.assertRaisesRegex(ValueError, "2 tables"):
            bench_figures.filled(self.README.replace(": peers", ""),
                                 self.figures())

    def test_readme_says_what_was_measured(self):
        readme = bench_figures.read(bench_figures.README)
        figures = json.loads(bench_figures.read(bench_figures.FILE))
        self.assertEqual(
            bench_figures.filled(readme, figures), readme,
            "README.md's tables are not what lab/figures.json gives:"
            " `python3 lab/bench_figures.py` writes them anew")


if __name__ == "__main__":
    unittest.main()
