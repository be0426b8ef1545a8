#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Prove that the series is one that can be taken, commit by commit.

On a pristine tree each patch is applied with `git am`; then QEMU is built,
where a warning is an error, the tests of the balloon that QEMU's build knows by
then are run, and the patch is shown to checkpatch.pl.  At the end the tree has
to be the one that overlay.py makes.

usage: prove.py [NUMBER...]    build and test only the commits with these numbers

The table goes to build/series-proof.md, too; what is built is kept below
build/proof, so that only the first proof takes long.
"""

import argparse
import filecmp
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from typing import NamedTuple

import base
import build
import overlay
import series

FOLDER = base.build_folder(base.REPO)
ROOT = f"{FOLDER}/proof"
TREE = f"{ROOT}/qemu"
BUILD = f"{ROOT}/qemu-build"
EMULATOR = "qemu-system-x86_64"
QOS = "/x86_64/pc/i440FX-pcihost/pci-bus-pc/pci-bus/virtio-balloon-pci"
# What checkpatch says of each patch that adds a file.  The entry comes with the
# first commit of the series; that it covers the file is checked here
# (checkpatch.pl of 10.0, and that of 10.2)
REMINDERS = ("WARNING: added, moved or deleted file(s), does MAINTAINERS need"
             " updating?", "WARNING: added, moved or deleted file(s):")
ENTRY = "virtio-balloon"


class ProofError(base.BaseError):
    """What does not hold."""


class Row(NamedTuple):
    number: int
    subject: str
    built: str
    tests: str
    checkpatch: str
    seconds: float


def run(command, environment=None, folder=TREE):
    """(exit code, all output) of @command."""
    done = subprocess.run(command, cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, errors="replace")
    return done.returncode, done.stdout


def must(what, command, environment=None, folder=TREE):
    code, output = run(command, environment, folder)
    if code:
        raise ProofError(f"{what}:\n{output[-4000:]}")
    return output


# --- the tree --------------------------------------------------------------

def is_same(one, other):
    """The same bytes, the same right to execute; links count as links go."""
    if os.path.isfile(one) != os.path.isfile(other):
        return False
    if not os.path.isfile(one):
        return os.path.lexists(one) == os.path.lexists(other)
    return (filecmp.cmp(one, other, shallow=False)
            and os.access(one, os.X_OK) == os.access(other, os.X_OK))


def check_same(what, one, other):
    paths = {*overlay.files_below(one), *overlay.files_below(other)}
    wrong = sorted(path for path in paths - {overlay.MANIFEST}
                   if not is_same(f"{one}/{path}", f"{other}/{path}"))
    if wrong:
        raise ProofError(f"{what}: {len(wrong)} files differ, the first is"
                         f" {wrong[0]}")


class Tree:
    """A tree to apply patches to, out of reach of its build for git."""

    def __init__(self, scratch):
        self.environment = dict(scratch.environment(), GIT_DIR=f"{ROOT}/git",
                                GIT_WORK_TREE=TREE)

    def git(self, *arguments):
        return must(f"git {arguments[0]}", ["git", *arguments],
                    self.environment)

    def begin(self, scratch, commit, pristine):
        """Make the tree the base again; changed files get a new time."""
        os.makedirs(TREE, exist_ok=True)
        shutil.rmtree(f"{ROOT}/git", ignore_errors=True)
        self.git("init", "-q")
        self.git("fetch", "-q", scratch.folder, "refs/tags/base-*:refs/tags/*")
        self.git("reset", "-q", commit)
        self.git("checkout", "-q", "-f", "-B", "proof", commit)
        self.git("clean", "-q", "-xdff")
        check_same("the tree is not the pristine one", TREE, pristine)

    def am(self, patch):
        self.git("am", "-q", patch)

    def added(self):
        """Files that the last commit added."""
        return self.git("diff", "--name-only", "--diff-filter=A", "HEAD^",
                        "HEAD").split()


# --- build -------------------------------------------------------------------

def configure(environment):
    options = [*build.OPTIONS, f"--target-list={EMULATOR[12:]}-softmmu",
               "--cc=ccache gcc"]
    build.configure(TREE, BUILD, options, environment)
    # What a change of commits would alter in the program is not ours
    build.write_launcher(f"{ROOT}/{EMULATOR}", f"{BUILD}/{EMULATOR}")


def our_tests():
    """(name, command) of the tests of the balloon that QEMU's build knows."""
    for test in json.loads(overlay.read(f"{BUILD}/meson-info/intro-tests.json")):
        name = test["name"]
        if name == f"qtest-{EMULATOR[12:]}/qos-test":
            yield name, [*test["cmd"], "-r", QOS]
        elif "balloon" in name and not name.startswith("func-"):
            yield name, test["cmd"]


def our_modules():
    """Libraries that tests of the balloon load."""
    for target in json.loads(
            overlay.read(f"{BUILD}/meson-info/intro-targets.json")):
        if target["type"] == "shared module" and "balloon" in target["name"]:
            yield from target["filename"]


def compile_tree(environment):
    """Build emulator and tests; returns how many steps it took."""
    must("Meson fails", ["ninja", "build.ninja"], environment, BUILD)
    files = [*(command[0] for _, command in our_tests()), *our_modules()]
    programs = {os.path.relpath(path, BUILD) for path in files}
    output = must("it does not build",
                  ["ninja", f"-j{base.processors() + 1}", EMULATOR,
                   *sorted(programs)], environment, BUILD)
    if re.search(r"\bwarning:", output):
        raise ProofError(f"it builds with a warning:\n{output[-4000:]}")
    steps = re.findall(r"^\[\d+/(\d+)\]", output, re.M)
    return int(steps[-1]) if steps else 0


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def run_test(name, command, environment):
    """How many tests passed."""
    environment = dict(environment, QTEST_QEMU_BINARY=f"{ROOT}/{EMULATOR}")
    if name.startswith("qtest-"):
        command = [*command, "-m", "quick"]
    code, output = run(command, environment, BUILD)
    passed = len(re.findall(r"^ok \d", output, re.M))
    if code or re.search(r"^not ok", output, re.M) or not passed:
        raise ProofError(f"{name} fails:\n{output[-4000:]}")
    return passed


def run_tests(environment, known):
    """What to say of the tests.

    @known: how many passed, for each program with each emulator so far.
    """
    emulator = digest(f"{BUILD}/{EMULATOR}")
    programs = passed = again = 0
    for name, command in our_tests():
        key = (name, emulator, digest(command[0]))
        again += key in known
        if key not in known:
            known[key] = run_test(name, command, environment)
        programs += 1
        passed += known[key]
    same = f", {again} of them unchanged" if again else ""
    return f"{passed} in {programs} programs{same}"


# --- checkpatch --------------------------------------------------------------

def uncovered(paths):
    """Those of @paths that no entry of MAINTAINERS of ours covers."""
    for path in paths:
        output = must("get_maintainer.pl", [
            "scripts/get_maintainer.pl", "--nogit", "--nogit-fallback",
            "--sections", "-f", path])
        if ENTRY not in output.splitlines():
            yield path


def check_patch(tree, patch):
    """What to say of checkpatch.pl."""
    _, output = run(["scripts/checkpatch.pl", "-q", patch])
    said = re.findall(r"^(?:WARNING|ERROR):.*", output, re.M)
    wrong = [line for line in said if line not in REMINDERS]
    if wrong or not said and output.strip():
        raise ProofError(f"checkpatch.pl complains:\n{output[-4000:]}")
    for path in uncovered(tree.added()):
        raise ProofError(f"MAINTAINERS has no entry '{ENTRY}' for {path}")
    return "clean, reminder" if said else "clean"


# --- the proof -----------------------------------------------------------------

def subject(patch):
    name = re.search(r"^Subject: \[.*?\] (.*(?:\n .*)*)", overlay.read(patch),
                     re.M)
    return name[1].replace("\n", "")


def prove_commit(tree, number, patch, environment, known, skip):
    start = time.monotonic()
    tree.am(patch)
    said = check_patch(tree, patch)
    built = tests = "left out"
    if not skip:
        built = f"{compile_tree(environment)} steps"
        tests = run_tests(environment, known)
    return Row(number, subject(patch), built, tests, said,
               time.monotonic() - start)


def table(rows):
    lines = ["| | commit | builds | tests pass | checkpatch | seconds |",
             "|---|---|---|---|---|---|"]
    return lines + [f"| {r.number} | {r.subject} | {r.built} | {r.tests} |"
                    f" {r.checkpatch} | {r.seconds:.0f} |" for r in rows]


def check_numbers(numbers, last):
    for number in numbers:
        if not 1 <= number <= last:
            raise ProofError(f"there is no commit {number}: they are numbered"
                             f" from 1 to {last}")


def prove(pristine, numbers):
    """Yield the rows of the table."""
    scratch, first, patches = series.export(
        base.REPO, pristine, f"{FOLDER}/series")
    base.say(f"a pristine tree, and its build, in {ROOT}: the first commit"
             " takes minutes, the others seconds to build")
    tree = Tree(scratch)
    tree.begin(scratch, first, pristine)
    environment = dict(base.build_environment(), CCACHE_BASEDIR=ROOT)
    configure(environment)
    known = {}
    for number, patch in enumerate(patches[1:], 1):
        base.say(f"{number}/{len(patches) - 1} {subject(patch)}")
        try:
            yield prove_commit(tree, number, patch, environment, known,
                               numbers and number not in numbers)
        except ProofError as error:
            raise ProofError(f"{os.path.basename(patch)}: {error}") from None
    base.say("comparing the tree with the overlaid one")
    laid = f"{FOLDER}/qemu"
    overlay.lay(base.REPO, pristine, laid)
    check_same("the last commit is not the overlaid tree", TREE, laid)


@base.told("prove")
def main():
    parser = base.parser(__doc__)
    parser.add_argument("number", nargs="*", type=int, help=argparse.SUPPRESS)
    numbers = parser.parse_args().number
    check_numbers(numbers, len(series.read_commits(base.REPO)))
    base.understood()
    rows = []
    pristine = base.source()
    try:
        for row in prove(pristine, numbers):
            rows.append(row)
    finally:
        text = "\n".join(table(rows))
        print(text)
    text += ("\n\nThe last commit is, byte for byte, the overlaid tree of"
             f" {os.path.basename(pristine)}.")
    print(text.splitlines()[-1])
    overlay.replace(f"{FOLDER}/series-proof.md", text + "\n")


if __name__ == "__main__":
    main()
