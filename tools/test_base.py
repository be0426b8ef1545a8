# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the mirror, and telling the user what is missing."""

import contextlib
import fnmatch
import io
import os
import subprocess
import tempfile
import threading
import unittest
from unittest import mock

import base

ONE_LINE = """\
# deb http://no.example/debian trixie main
deb [signed-by=/k] http://m.example/debian trixie main contrib
deb-src http://m.example/debian trixie main
"""
DEB822 = """\
# A comment
Types: deb deb-src
# URIs: http://no.example/
URIs: http://m.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm bookworm-updates
Components: main
Enabled: no
"""
# Of Debian's names, and before it
OTHER = """\
deb http://other.example/deb bookworm main
deb http://browser.example/deb stable main
"""


class SourcesTest(unittest.TestCase):
    def test_one_line(self):
        self.assertEqual(list(base.one_line_sources(ONE_LINE)),
                         [("http://m.example/debian", ["trixie"],
                           ["main", "contrib"])])

    def test_deb822(self):
        self.assertEqual(list(base.deb822_sources(DEB822)),
                         [("http://m.example/debian",
                           ["bookworm", "bookworm-updates"], ["main"])])

    def mirror(self, **files):
        """The mirror where apt has @files: name -> text."""
        files = {f"/etc/apt/sources.list.d/{name.replace('_', '.')}": text
                 for name, text in files.items()}
        files["/etc/os-release"] = "VERSION_CODENAME=bookworm\n"
        with mock.patch("base.read", files.get), \
                mock.patch("base.os.path.isfile", files.__contains__), \
                mock.patch("base.glob.glob", lambda pattern: fnmatch.filter(
                    files, pattern)):
            return base.mirror()

    def test_mirror(self):
        self.assertEqual(self.mirror(a_list=OTHER, debian_sources=DEB822),
                         "http://m.example/debian")
        updates = OTHER + "deb http://m.example/debian bookworm-updates main\n"
        self.assertEqual(self.mirror(a_list=updates, z_sources=DEB822),
                         "http://m.example/debian")
        # where nobody has updates
        self.assertEqual(self.mirror(a_list=OTHER),
                         "http://other.example/deb")
        # apt does not read it
        with self.assertRaisesRegex(base.BaseError, "no mirror"):
            self.mirror(debian_list_bak=OTHER)

    def test_no_mirror(self):
        with mock.patch("base.glob.glob", return_value=[]), \
             mock.patch("base.os.path.isfile", return_value=False):
            with self.assertRaisesRegex(base.BaseError, "QEMU_SRC"):
                base.mirror()


class SourceTest(unittest.TestCase):
    def given(self, version):
        with tempfile.TemporaryDirectory() as folder:
            if version:
                with open(f"{folder}/VERSION", "w", encoding="ascii") as file:
                    file.write(version)
            with mock.patch.dict(os.environ, QEMU_SRC=folder):
                return base.source() == folder

    def test_given_tree(self):
        for version in ("10.0.13\n", "11.1.0\n", "11.1.50\n"):
            self.assertTrue(self.given(version))

    def test_not_a_tree(self):
        with self.assertRaisesRegex(base.BaseError, "no source tree"):
            self.given(None)

    def test_wrong_version(self):
        with self.assertRaisesRegex(base.BaseError, r"QEMU 9\.2\.0.*10\.0"):
            self.given("9.2.0\n")

    def test_a_folder_each(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/VERSION", "w", encoding="ascii") as file:
                file.write("11.1.0\n")
            for given, release, name in (
                    ("", "10.0", "build"), ("", "10.2", "build-10.2"),
                    (folder, "10.0", "build-11.1.0")):
                with mock.patch.dict(os.environ, QEMU_SRC=given,
                                     QEMU_BASE=release):
                    self.assertEqual(base.build_folder("/r"), f"/r/{name}")

    def fetch(self, folder, release="10.2"):
        with mock.patch.dict(os.environ, XDG_CACHE_HOME=folder, QEMU_SRC="",
                             QEMU_BASE=release):
            return base.source()

    def test_kept_once_fetched(self):
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch("base.subprocess.run", side_effect=AssertionError):
            tree = f"{folder}/virtio-balloon/source-10.2/qemu-10.2.2+ds"
            os.makedirs(tree)
            self.assertEqual(self.fetch(folder), tree)

    def test_cannot_be_had(self):
        for listed in ("", "Version: 1:10.2.2+ds-1\n"):
            with tempfile.TemporaryDirectory() as folder, \
                    mock.patch("base.check_disk"), \
                    mock.patch("base.mirror", return_value="mirror"), \
                    mock.patch("base.query", return_value=listed), \
                    mock.patch("base.subprocess.run") as run, \
                    self.assertRaises(base.BaseError) as caught:
                run.side_effect = lambda command, **_: mock.Mock(
                    returncode="source" in command)
                self.fetch(folder)
            self.assertRegex(str(caught.exception),
                             r"^QEMU 10\.2 cannot be had: .* QEMU_SRC=<a source"
                             r" tree of QEMU 10\.2>[^\n]*$")

    def test_superseded(self):
        """Lists of some weeks ago name a version that the mirror dropped."""
        listed = ["1:10.2.1+ds-1"]

        def run(command, cwd=None, **_):
            if "update" in command:
                listed[:] = ["1:10.2.2+ds-1"]
            elif command[-1] != "qemu=1:10.2.2+ds-1":
                return mock.Mock(returncode=100)
            else:
                os.mkdir(f"{cwd}/qemu-10.2.2+ds")
            return mock.Mock(returncode=0)

        with tempfile.TemporaryDirectory() as folder, \
                mock.patch("base.check_disk"), \
                mock.patch("base.mirror", return_value="mirror"), \
                mock.patch("base.query",
                           lambda *_: f"Version: {listed[0]}\n"), \
                mock.patch("base.subprocess.run", run):
            lists = f"{folder}/virtio-balloon/apt-sid/lists"
            os.makedirs(lists)
            with open(f"{lists}/sid_Sources", "w", encoding="ascii"):
                pass
            self.assertRegex(self.fetch(folder), r"/qemu-10\.2\.2\+ds$")

    def test_too_little_disk(self):
        with mock.patch("base.shutil.disk_usage") as usage:
            usage.return_value.free = 2**30
            with self.assertRaisesRegex(base.BaseError,
                                        "1.0 GiB are free.* or so"):
                base.check_disk("/", "so")

    def test_mirror_out_of_reach(self):
        """For apt that is no error, unless it is told that it is."""
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.dict(os.environ, XDG_CACHE_HOME=folder), \
                mock.patch("base.mirror", return_value="http://127.0.0.1:9"), \
                self.assertRaisesRegex(base.BaseError, "is there a network"):
            base.apt_environment()

    def test_processors(self):
        for text, count in (("150000 100000\n", 1), ("300000 100000\n", 3),
                            ("1000 100000\n", 1), ("max 100000\n", 8),
                            ("6400000 100000\n", 8)):
            with mock.patch("base.os.sched_getaffinity",
                            return_value=range(8)), \
                    mock.patch("base.read", return_value=text):
                self.assertEqual(base.processors(), count)

    def test_no_network(self):
        with self.assertRaisesRegex(base.BaseError, "is there a network"):
            base.run(["false"], {})

    def test_newest(self):
        with mock.patch("base.query", return_value=(
                "Version: 1:10.0.9+ds-1\nVersion: 1:10.0.13+ds-0+deb13u1\n"
                "Version: 1:10.2.1+ds-1\n")):
            self.assertEqual(base.newest_source({}, "10.0"),
                             "1:10.0.13+ds-0+deb13u1")
            self.assertEqual(base.newest_source({}, "10.2"), "1:10.2.1+ds-1")
        with mock.patch("base.query", return_value="Version: 1:10.1.0+ds-7\n"):
            for release in base.BASES:
                with self.assertRaisesRegex(base.BaseError, f"{release}.x"):
                    base.newest_source({}, release)

    def test_architecture(self):
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch("base.mirror", return_value="mirror"):
            path = base.write_apt_configuration(folder, "sid", "s390x")
            self.assertIn('Architecture "s390x"', base.read(path))
            self.assertEqual(
                base.read(f"{folder}/sources.list"),
                f"deb [signed-by={base.KEYRING}] mirror sid main\n")
            path = base.write_apt_configuration(folder, "sid")
            self.assertIn('Architecture "amd64"', base.read(path))
            self.assertTrue(base.read(f"{folder}/sources.list")
                            .startswith("deb-src "))

    def test_no_debian(self):
        with mock.patch("base.shutil.which", return_value=None):
            with self.assertRaisesRegex(base.BaseError, "on Debian 12 or 13"):
                base.missing_packages(["packages"])

    def test_unknown_base(self):
        with mock.patch.dict(os.environ, QEMU_BASE="7.2"):
            with self.assertRaisesRegex(base.BaseError, "7.2: known are 10.0"):
                base.chosen()


class AptTest(unittest.TestCase):
    def test_nothing_of_this_machine(self):
        """Neither its language, nor what it prefers, reaches our apt."""
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.dict(os.environ, XDG_CACHE_HOME=folder,
                                LANGUAGE="de"), \
                mock.patch("base.mirror", return_value="http://127.0.0.1:9"), \
                mock.patch("base.subprocess.run") as run:
            run.return_value.returncode = 0
            base.apt_get(["download", "x"], folder)
            base.query(["depends", "x"], base.apt_environment())
        commands = [call.args[0] for call in run.call_args_list]
        self.assertLess({"update", "download", "depends"},
                        {word for command in commands for word in command})
        for call in run.call_args_list:
            self.assertIn("APT::Default-Release=", call.args[0])
            self.assertEqual(call.kwargs["env"]["LANGUAGE"], "")

    def test_preferences(self):
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch("base.mirror", return_value="mirror"):
            path = base.write_apt_configuration(folder, "sid")
            said = subprocess.run(
                ["apt-config", "shell", "FILE", "Dir::Etc::preferences/f",
                 "PARTS", "Dir::Etc::preferencesparts/f"],
                env=dict(os.environ, APT_CONFIG=path), text=True, check=True,
                stdout=subprocess.PIPE).stdout
        self.assertEqual(said, "FILE='/dev/null'\nPARTS='/dev/null'\n")


class ToldTest(unittest.TestCase):
    def test_interrupted(self):
        output = io.StringIO()
        with self.assertRaises(SystemExit) as caught, \
                contextlib.redirect_stderr(output), base.told("x"):
            raise KeyboardInterrupt
        self.assertEqual(caught.exception.code, 130)
        self.assertIn("x: interrupted", output.getvalue())

    def test_whose_lock_it_is(self):
        output = io.StringIO()
        with tempfile.TemporaryDirectory() as cache, \
                mock.patch.dict(os.environ, XDG_CACHE_HOME=cache), \
                contextlib.redirect_stderr(output):
            with base.locked("guest"):
                other = threading.Thread(target=base.locked("guest").__enter__)
                other.start()
                while not output.getvalue():
                    self.assertTrue(other.is_alive())
            other.join()
        self.assertIn("busy with guest", output.getvalue())


class FetchTest(unittest.TestCase):
    def test_packages_of_an_architecture(self):
        def apt_get(arguments, folder, architecture):
            fetched.append((arguments, architecture))
            for name in arguments[1:]:
                with open(f"{folder}/{name}.deb", "w", encoding="ascii"):
                    pass

        def unpack(command, check):
            self.assertTrue(check)
            unpacked.append(os.path.basename(command[2]))
            return subprocess.CompletedProcess(command, 0)

        fetched, unpacked = [], []
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.dict(os.environ, XDG_CACHE_HOME=folder), \
                mock.patch("base.apt_get", apt_get), \
                mock.patch("base.subprocess.run", unpack):
            for _ in range(2):
                path = base.fetch_debs(base.cache("hosts", "x"), ["a", "b"],
                                       "s390x")
            self.assertEqual(os.listdir(path), [])
        self.assertEqual(fetched, [(["download", "a", "b"], "s390x")])
        self.assertEqual(sorted(unpacked), ["a.deb", "b.deb"])


if __name__ == "__main__":
    unittest.main()
