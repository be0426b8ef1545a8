#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Check that the tests exist that COVERAGE.md and docs/devel name.

usage: named.py BUILD

A table's column "Test" or "Tests" has names in backquotes: of a test program,
alone or with the path of a test (`*` is anything, `{a,b}` each of them, and a
path stands for all below it), of a Python test, of a suite or of a test of
meson.build.  A cell of docs/devel/virtio-balloon.rst has paths below
/virtio-balloon/improved/, or coordinated/ in there, of any program.  Programs
of BUILD are asked for what they have.
"""

import fnmatch
import glob
import itertools
import os
import re
import subprocess
import sys

from base import REPO, read

QOS = ("/pc/i440FX-pcihost/pci-bus-pc/pci-bus/virtio-balloon-pci/"
       "virtio-balloon/virtio-balloon-tests")
ARCHITECTURE = "/x86_64"
INSIDE = "docs/devel/virtio-balloon.rst"


def tests_of(program, environment):
    """Paths of the tests that @program, which uses GLib, has."""
    output = subprocess.run(
        [program, "-l"], check=True, text=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    # Newer ones say them in TAP, as comments
    return re.findall(r"^(?:# )?(/\S+)$", output, re.M)


def named(text):
    """(line number, name) of each test that tables name."""
    tests = False
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            tests = False
        elif cells[-1].rstrip(" |") in ("Test", "Tests"):
            tests = True
        elif tests:
            for name in re.findall(r"`([^`]+)`", cells[-1]):
                yield number, name


def named_in_cells(text):
    """(line number, path) of each test in cells that have nothing else."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.fullmatch(r" +- (``[a-z-]+/[a-z*/-]+``(, )?)+", line):
            for path in re.findall(r"``([^`]+)``", line):
                yield number, path


def expand(pattern):
    """What a pattern with {a,b} stands for."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [part.split(",") if i % 2 else [part]
               for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*choices)]


def matches(pattern, paths):
    """Is there such a path, or one below it?"""
    return any(fnmatch.fnmatchcase(path, pattern) or
               path.startswith(pattern + "/") for path in paths)


class Build:
    """What a build folder and the repository have."""

    def __init__(self, build):
        self.build = build
        self.meson = read(os.path.join(REPO, "meson.build"))
        self.lists = {}

    def program(self, name):
        """The test program of that name, or None."""
        for folder in ("qtest", "unit"):
            path = os.path.join(self.build, "qemu-build/tests", folder, name)
            if os.path.exists(path):
                return path
        return None

    def paths(self, name):
        """The paths of a program's tests, without what all have."""
        if name not in self.lists:
            binary = os.path.join(self.build, "qemu-system-x86_64")
            tests = tests_of(self.program(name), dict(
                os.environ, QTEST_QEMU_BINARY=binary))
            prefix = ARCHITECTURE + (QOS if name == "qos-test" else "")
            self.lists[name] = [path.removeprefix(prefix) for path in tests]
        return self.lists[name]

    def has_improved(self, path):
        """Has any program such a test?"""
        programs = glob.glob(f"{self.build}/qemu-build/tests/qtest/"
                             "virtio-balloon-*test")
        paths = [one for program in programs
                 for one in self.paths(os.path.basename(program))]
        return any(matches(f"/virtio-balloon/improved/{below}{path}", paths)
                   for below in ("", "coordinated/"))

    def python(self, module):
        """The tests of a Python file."""
        files = glob.glob(f"{REPO}/tests/functional/{module}.py") + \
            glob.glob(f"{REPO}/lab/**/{module}.py", recursive=True)
        return [test for file in files
                for test in re.findall(r"    def (test_\w+)", read(file))]

    def is_suite(self, name):
        words = name.removeprefix("./balloon ").split()
        return words in (["migration"], ["fuzz"], ["soak"], ["guests"]) or \
            words[0] == "check" and f"suite: '{words[1]}'" in self.meson

    def has(self, name):
        """Is there a test of that name, with all braces resolved?"""
        program, _, path = name.partition(" ")
        if path.startswith("/"):
            return self.program(program) and \
                matches(path, self.paths(program))
        if name.startswith(("check ", "./balloon ")):
            return self.is_suite(name)
        if "." in name:
            module, test = name.split(".")
            return matches(test, self.python(module))
        # QEMU's own have their architecture in their name
        return f"'{name}'" in self.meson or \
            f"'{name.rpartition('-')[0]}'" in self.meson


def missing(text, build):
    """(line number, name) of what is named and does not exist."""
    return [(number, one) for number, name in named(text)
            for one in expand(name) if not build.has(one)]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    build = Build(os.path.abspath(sys.argv[1]))
    if not build.program("qos-test"):
        sys.exit(f"named: no tests are built in {sys.argv[1]}: `./balloon"
                 " check unit` builds them")
    coverage = read(os.path.join(REPO, "COVERAGE.md"))
    cells = list(named_in_cells(read(os.path.join(REPO, INSIDE))))
    wrong = [("COVERAGE.md", *one) for one in missing(coverage, build)]
    wrong += [(INSIDE, *one) for one in cells if not build.has_improved(one[1])]
    for file, number, name in wrong:
        print(f"{file}:{number}: there is no test '{name}'")
    print(f"{len(list(named(coverage))) + len(cells)} names,"
          f" {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
