# SPDX-License-Identifier: GPL-2.0-or-later
"""What ./balloon says of a command line, and what it does."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import unittest

BALLOON = os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "balloon")

TOOL = """\
#!/bin/sh
[ "${0##*/}" != sudo ] || exec "$@"
[ "${0##*/}" != getent ] || exec echo "x:x:0:0:x:$ROOT/home:/bin/sh"
echo "${0##*/} $*" >>"$ROOT/log"
case "${0##*/} $*" in
"apt-get update"*) exit 100 ;;
"apt-get install"*) rm "$ROOT/missing" ;;
esac
"""
BASE = """\
import os, sys
if sys.argv[1] == "packages":
    print("one two" if os.path.exists(os.environ["ROOT"] + "/missing") else "")
"""
DEMO = """\
import os, sys
sys.exit(99 if "BALLOON_UNDERSTOOD" in os.environ else 0)
"""
MESON = """\
import os, sys
with open(os.environ["ROOT"] + "/log", "a") as file:
    print("meson", *sys.argv[1:], file=file)
build = sys.argv[-2]
os.makedirs(build, exist_ok=True)
open(build + "/build.ninja", "w").close()
"""


class CommandLineTest(unittest.TestCase):
    def said(self, *words, code=2, source=""):
        """The lines that it says before it does anything."""
        with tempfile.TemporaryDirectory() as cache, \
                tempfile.TemporaryDirectory() as tools:
            # A fault may have it install packages: not on this machine
            for name in "apt-get", "sudo":
                os.symlink("/bin/false", f"{tools}/{name}")
            done = subprocess.run(
                [BALLOON, *words], check=False, text=True,
                env=dict(os.environ, XDG_CACHE_HOME=cache, QEMU_SRC=source,
                         QEMU_BASE="",
                         PATH=f"{tools}:{os.environ['PATH']}"),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(os.listdir(cache), [])
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout.splitlines()

    def refusal(self, *words):
        line, = self.said(*words)
        return line

    def test_suites(self):
        self.assertIn("no suite 'qtset'", self.refusal("check", "qtset"))
        self.assertIn("no suite 'guset'",
                      self.refusal("check", "unit", "guset"))
        self.assertIn("no suite 'qtset'",
                      self.refusal("check", "unit", "--sanitize", "qtset"))

    def test_suites_with_a_build_of_their_own(self):
        for words in ("fuzz", "unit"), ("unit", "thread"), \
                ("thread", "--sanitize"):
            self.assertIn("check it alone", self.refusal("check", *words))

    def test_what_a_program_is_asked(self):
        for words, complaint in (
                (("soak", "5"), "20 resizes"),
                (("bench", "--repeat", "0"), "0 is less than 1"),
                (("bench", "--record", "--parts", "scale"), "--record needs"),
                (("migration", "--jobs", "0"), "0 is less than 1"),
                (("guests", "--jobs", "0"), "0 is less than 1"),
                (("guests", "pdp11"), "no guest pdp11"),
                (("run", "it"), "it"),
                (("forms", "nosuch"), "no form nosuch; known are clang"),
                (("series", "a", "b"), "unrecognized arguments: b"),
                (("series", "--prove", "one"), "'one'"),
                (("vfio", "--windows"), "--windows")):
            self.assertIn(complaint, self.said(*words)[-1])

    def test_tree_that_is_none(self):
        self.assertIn("/dev is no source tree",
                      self.said("soak", code=1, source="/dev")[-1])

    def test_help_of_a_program(self):
        for command in ("run", "soak", "vfio", "bench", "migration", "guests",
                        "forms", "series", "series --prove"):
            self.assertIn("--help", "".join(
                self.said(*command.split(), "--help", code=0)))
        for command in "build", "check", "coverage", "fuzz":
            self.assertIn("usage: ./balloon COMMAND",
                          self.said(command, "--help", code=0))

    def test_words_too_many(self):
        self.assertIn("'now'", self.refusal("build", "now"))
        self.assertIn("'now'", self.refusal("coverage", "now"))
        self.assertIn("'60'", self.refusal("fuzz", "30", "60"))

    def test_seconds(self):
        for words in "abc", "0", "-5", "":
            self.assertIn(f"seconds, not '{words}'",
                          self.refusal("fuzz", words))

    def test_commits(self):
        self.assertIn("no commit 99",
                      self.said("series", "--prove", "99", code=1)[-1])


class StubsTest(unittest.TestCase):
    """What it does, where what it calls does nothing but leave a line."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        os.chmod(self.root, 0o755)
        os.mkdir(f"{self.root}/repo")
        shutil.copy(BALLOON, f"{self.root}/repo")
        for name, text in (
                ("repo/tools/base.py", BASE), ("repo/lab/demo.py", DEMO),
                ("home/.cache/virtio-balloon/packages/meson/usr/bin/meson",
                 MESON),
                *((f"bin/{name}", TOOL) for name in
                  ("apt-get", "getent", "ninja", "sudo"))):
            path = f"{self.root}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
            os.chmod(path, 0o755)
        self.environment = dict(
            os.environ, HOME=f"{self.root}/home", ROOT=self.root, QEMU_SRC="",
            QEMU_BASE="", PATH=f"{self.root}/bin:{os.environ['PATH']}")
        self.environment.pop("XDG_CACHE_HOME", None)

    def start(self, *words, repo="repo", **settings):
        return subprocess.Popen(
            [f"{self.root}/{repo}/balloon", *words], env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            **settings)

    def said(self, *words, code=0, **settings):
        with self.start(*words, **settings) as process:
            output = process.stdout.read()
        self.assertEqual(process.returncode, code, output)
        return output

    def log(self):
        with open(f"{self.root}/log", encoding="ascii") as file:
            return file.read().splitlines()

    def test_packages(self):
        """They are installed once, whatever apt-get update says."""
        open(f"{self.root}/missing", "w", encoding="ascii").close()
        self.environment["missing"] = "evil"
        output = self.said("run")
        self.assertIn("installing Debian packages: one two\n", output)
        self.assertIn("apt-get update fails", output)
        installed, = [line for line in self.log() if " install " in line]
        self.assertTrue(installed.endswith(" one two"), installed)

    def test_another_tree_of_the_same_version(self):
        for name in "a", "b":
            os.mkdir(f"{self.root}/{name}")
            with open(f"{self.root}/{name}/VERSION", "w",
                      encoding="ascii") as file:
                file.write("11.1.0\n")
            self.environment["QEMU_SRC"] = f"{self.root}/{name}"
            self.said("build")
        self.assertEqual(
            [line.split("-Dsource=")[1].split()[0] for line in self.log()
             if "setup" in line], [f"{self.root}/a", f"{self.root}/b"])

    def test_set_up_once(self):
        patches = f"{self.root}/repo/build/series"
        os.makedirs(patches)
        for _ in range(2):
            self.said("build")
        self.assertEqual(sum("setup" in line for line in self.log()), 1)
        # What was made without a set-up
        self.assertTrue(os.path.isdir(patches))

    def test_moved(self):
        """What was built elsewhere is of no use, nor is half a set-up."""
        self.said("build")
        os.rename(f"{self.root}/repo", f"{self.root}/moved")
        old = f"{self.root}/moved/build/qemu-build"
        os.mkdir(old)
        for _ in range(2):
            self.said("build", repo="moved")
            self.assertFalse(os.path.exists(old))
        self.assertEqual([line.split()[-2] for line in self.log()
                          if "setup" in line],
                         [f"{self.root}/{name}/build" for name in
                          ("repo", "moved")])
        os.remove(f"{self.root}/moved/build/.place")
        self.said("build", repo="moved")
        self.assertEqual(sum("setup" in line for line in self.log()), 3)

    def test_guests_of_another_architecture(self):
        path = f"{self.root}/bin/dpkg"
        with open(path, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\necho arm64\n")
        os.chmod(path, 0o755)
        for command in "run", "check":
            self.assertIn("amd64's", self.said(command, code=2))
        self.said("build")

    def test_no_home(self):
        del self.environment["HOME"], self.environment["QEMU_SRC"]
        self.assertIn("ready: ", self.said("build"))

    def test_paths_that_qemu_cannot_be_built_in(self):
        os.rename(f"{self.root}/repo", f"{self.root}/a repo")
        self.assertIn("a space or a colon",
                      self.said("build", repo="a repo", code=2))
        os.rename(f"{self.root}/a repo", f"{self.root}/repo")
        for cache, words in (("/a:b", "a space or a colon"),
                             ("a", "has to begin with /")):
            self.environment["XDG_CACHE_HOME"] = cache
            self.assertIn(words, self.said("build", code=2))
        self.assertFalse(os.path.exists(f"{self.root}/log"))

    def test_folders_of_somebody_else(self):
        # Root may write everywhere
        self.addCleanup(os.umask, os.umask(0o022))
        settings = {"user": 65534} if os.getuid() == 0 else {}
        for name in ("repo", "repo/build", "home/.cache/virtio-balloon"):
            path = f"{self.root}/{name}"
            os.makedirs(path, exist_ok=True)
            os.chmod(path, 0o555)
            self.assertIn(f"may not write to {path}, which is",
                          self.said("build", code=1, **settings))
            os.chmod(path, 0o777)
        os.chmod(f"{self.root}/home", 0o555)
        self.environment["XDG_CACHE_HOME"] = f"{self.root}/home/new"
        output = self.said("build", code=1, **settings)
        self.assertIn("set XDG_CACHE_HOME", output)
        # That folder is not ours to have another owner
        self.assertNotIn("chown", output)
        os.chmod(f"{self.root}/home", 0o755)
        self.assertFalse(os.path.exists(f"{self.root}/log"))

    def test_two_at_once(self):
        os.mkdir(f"{self.root}/repo/build")
        with open(f"{self.root}/repo/build/.lock", "w",
                  encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with self.start("build") as process:
                while "waiting for another" not in process.stdout.readline():
                    self.assertIsNone(process.poll())
                self.assertFalse(os.path.exists(f"{self.root}/log"))
                fcntl.flock(file, fcntl.LOCK_UN)
                self.assertIn("ready: ", process.stdout.read())

    def test_all_is_built_in_one_go(self):
        self.said("run")
        self.assertEqual([line for line in self.log() if "ninja" in line],
                         [f"ninja -C {self.root}/repo/build emulator.built"])


if __name__ == "__main__":
    unittest.main()
