#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Write our files as a series of patches for QEMU, one commit after another.

Each file in the folder series/ describes a commit, in the order of their
names: the message, a line `-- files`, and what the commit brings, a line each:

    PATH           a file, or all of our blocks of a file that QEMU shares
    PATH: BLOCK    one of those blocks, by the name that overlay.py gives it

`*` stands for anything.  Everything that is laid over QEMU's tree must be in
one commit; where several lines match, the longest decides.  series/cover-letter
is subject and text of the cover letter, in which `{guest[gib]}`, for instance,
is a figure of lab/figures.json, which the benchmark writes.

usage: series.py [OUTPUT]     default: build/series
"""

import argparse
import collections
import contextlib
import glob
import json
import os
import re
import shutil
import subprocess
from typing import List, NamedTuple

import base
import overlay
from blocks import format_of

# Of the base; each commit is a minute younger than the one before.  Not the time
# of day: the same files make the same patches
DATE = 1745280000
WHOLE = ""


class SeriesError(base.BaseError):
    """What is wrong with the description of the series."""


class Commit(NamedTuple):
    name: str           # of the file that describes it
    message: str
    wanted: List[str]


class Unit(NamedTuple):
    """What a commit brings: a block of a shared file, or a whole file."""
    path: str
    block: str

    def __str__(self):
        return f"{self.path}: {self.block}" if self.block else self.path


def parse_commit(name, text):
    message, found, files = text.partition("\n-- files\n")
    wanted = [line.strip() for line in files.splitlines() if line.strip()]
    if not found or not wanted:
        raise SeriesError(f"{name}: no files are listed below `-- files`")
    return Commit(name, message.strip() + "\n", wanted)


def read_commits(repo):
    return [parse_commit(f"series/{os.path.basename(path)}",
                         overlay.read(path))
            for path in sorted(glob.glob(f"{repo}/series/[0-9]*"))]


def all_units(repo, pristine):
    """Everything that is laid over the tree: {unit: file of ours}."""
    units = {}
    for ours in overlay.ours_for(repo, pristine):
        blocks = [WHOLE]
        if ours.is_shared:
            blocks = [block.name for block, _, _ in overlay.our_blocks(
                ours.text, format_of(ours.source))]
        units.update((Unit(ours.source, block), ours) for block in blocks)
    return units


def matches(line, unit):
    """Is @unit what @line of a description names?"""
    regex = ".*".join(map(re.escape, line.split("*")))
    return any(re.fullmatch(regex, name) for name in (str(unit), unit.path))


def takers(unit, commits):
    """The commits whose longest line that matches @unit is the longest."""
    found = [(len(line), commit) for commit in commits
             for line in commit.wanted if matches(line, unit)]
    longest = max((length for length, _ in found), default=0)
    return [commit for commit in commits if (longest, commit) in found]


def assign(units, commits):
    """{unit: commit}, or an error that names what is wrong."""
    result, wrong = {}, []
    for unit in units:
        found = takers(unit, commits)
        if len(found) == 1:
            result[unit] = found[0]
        elif found:
            wrong.append(f"{unit} is claimed alike by "
                         + " and ".join(c.name for c in found))
        else:
            wrong.append(f"{unit} is in no commit: name it in one of series/*")
    wrong += [f"{commit.name}: '{line}' names nothing of ours"
              for commit in commits for line in commit.wanted
              if not any(matches(line, unit) for unit in units)]
    wrong = wrong or [f"{commit.name}: nothing is left for this commit"
                      for commit in commits if commit not in result.values()]
    if wrong:
        raise SeriesError("\n".join(wrong))
    return result


def states(repo, pristine, commits):
    """Yield (commit, [(file, its text)]), what each commit changes."""
    ours = all_units(repo, pristine)
    where = assign(ours, commits)
    come = collections.defaultdict(set)
    for commit in commits:
        mine = [unit for unit, taker in where.items() if taker is commit]
        for unit in mine:
            come[ours[unit]].add(unit.block)
        yield commit, [
            (file, overlay.spliced(pristine, file, come[file])
             if file.is_shared else file.text)
            for file in sorted({ours[unit] for unit in mine})]


# --- a repository of the base and of the series on it ---------------------

def identity():
    """(name, address) of whoever runs this."""
    def ask(key):
        return subprocess.run(
            ["git", "-C", base.REPO, "config", key], stdout=subprocess.PIPE,
            text=True, check=False).stdout.strip()
    name, address = ask("user.name"), ask("user.email")
    if not name or not address:
        raise SeriesError("git does not know who signs off: set user.name and"
                          " user.email with `git config`")
    return name, address


class Scratch:
    """A bare repository in @folder, whose work tree is where it is told."""

    def __init__(self, folder):
        self.folder = folder
        self.name, self.address = identity()

    def environment(self, minutes=0):
        date = f"{DATE + 60 * minutes} +0000"
        return dict(
            os.environ, GIT_DIR=self.folder, LC_ALL="C.UTF-8",
            GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null",
            GIT_AUTHOR_NAME=self.name, GIT_COMMITTER_NAME=self.name,
            GIT_AUTHOR_EMAIL=self.address, GIT_COMMITTER_EMAIL=self.address,
            GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)

    def git(self, *arguments, minutes=0, text=None, tree=None):
        """What git has to say."""
        environment = self.environment(minutes)
        if tree:
            environment["GIT_WORK_TREE"] = tree
        return subprocess.run(
            ["git", *arguments], env=environment, check=True, input=text,
            stdout=subprocess.PIPE, text=True, cwd=tree).stdout.strip()

    def commit(self, message, parents, minutes):
        """Commit what is in the index."""
        parents = [word for parent in parents for word in ("-p", parent)]
        return self.git("commit-tree", self.git("write-tree"), *parents,
                        text=message, minutes=minutes)

    def add(self, path, text, executable):
        mode = "100755" if executable else "100644"
        blob = self.git("hash-object", "-w", "--stdin", text=text)
        self.git("update-index", "--add", "--cacheinfo",
                 f"{mode},{blob},{path}")


def base_commit(scratch, pristine):
    """The commit with the pristine tree, made once."""
    tag = "base-" + os.path.basename(pristine).replace("+", "-")
    if os.path.isdir(scratch.folder) and base.is_fetched(pristine):
        with contextlib.suppress(subprocess.CalledProcessError):
            return scratch.git("rev-parse", "-q", "--verify",
                               f"{tag}^{{commit}}")
    base.say("committing QEMU's tree to a scratch repository (once)")
    scratch.git("init", "-q", "--bare", scratch.folder)
    scratch.git("read-tree", "--empty")
    # Not `git add`, which takes a clone in the tree for a submodule
    scratch.git("update-index", "--add", "-z", "--stdin", tree=pristine,
                text="\0".join(overlay.files_below(pristine)))
    commit = scratch.commit(f"QEMU {os.path.basename(pristine)}\n", [], 0)
    scratch.git("tag", "-f", tag, commit)
    return commit


def is_executable(repo, pristine, ours):
    source = (os.path.join(pristine, ours.path) if ours.is_shared
              else os.path.join(repo, ours.source))
    return os.access(source, os.X_OK)


def make_commits(scratch, repo, pristine):
    """Commit the series on the base; returns (first parent, last commit)."""
    first = last = base_commit(scratch, pristine)
    scratch.git("read-tree", first)
    sign = f"\nSigned-off-by: {scratch.name} <{scratch.address}>\n"
    commits = read_commits(repo)
    for number, (commit, files) in enumerate(states(repo, pristine, commits)):
        for ours, text in files:
            scratch.add(ours.path, text, is_executable(repo, pristine, ours))
        last = scratch.commit(commit.message + sign, [last], number + 1)
    return first, last


def cover_letter(repo):
    """The cover letter, with the figures that it tells."""
    figures = json.loads(overlay.read(f"{repo}/lab/figures.json"))
    try:
        return overlay.read(f"{repo}/series/cover-letter").format(**figures)
    except KeyError as error:
        raise SeriesError(f"series/cover-letter: lab/figures.json has no"
                          f" {error}") from None


def write_patches(scratch, repo, first, last, output):
    """The patches as files in @output; returns their paths."""
    os.makedirs(output, exist_ok=True)
    for path in glob.glob(f"{output}/[0-9]*.patch"):
        os.remove(path)
    scratch.git("update-ref", "refs/heads/series", last)
    scratch.git("config", "branch.series.description", cover_letter(repo))
    # A file that is another one now is removed and added, so that it can be
    # read; and the version of git leaves no trace
    return scratch.git(
        "format-patch", "--cover-letter", "--cover-from-description=subject",
        "--break-rewrites", "--no-renames", "--stat=72", "--no-signature",
        "--zero-commit", "-o", output, f"{first}..series").splitlines()


def export(repo, pristine, output):
    """Write the series; returns (scratch, base commit, paths of patches)."""
    scratch = Scratch(f"{base.build_folder(repo)}/series.git")
    first, last = make_commits(scratch, repo, pristine)
    return scratch, first, write_patches(scratch, repo, first, last, output)


@base.told("series")
def main():
    parser = base.parser(__doc__)
    parser.add_argument("output", nargs="?", type=os.path.abspath,
                        default=f"{base.build_folder(base.REPO)}/series",
                        help=argparse.SUPPRESS)
    output = parser.parse_args().output
    # To be told after minutes of fetching would be late
    if shutil.which("git"):
        identity()
    base.understood()
    _, _, patches = export(base.REPO, base.source(), output)
    print("\n".join(patches))


if __name__ == "__main__":
    main()
