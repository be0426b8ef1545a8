#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Lay this repository's files over a QEMU source tree.

One rule.  A file that QEMU does not have, or that is the balloon's alone, is
linked into the tree whole.  A file that QEMU shares with other devices holds
only our blocks here; each replaces the block of the same name, which must be
there exactly once.  A block that QEMU does not have says so in a comment line
before it: `overlay: new` puts it after the block before it in our file,
`overlay: after NAME` after QEMU's block NAME.

For a QEMU later than the one that our files are written for, ports.py says
what is different in them; such a file is written instead of linked.

usage: overlay.py REPO PRISTINE TREE
"""

import json
import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import base
import ports
from blocks import format_of

IN_TREE = ("configs/", "hw/", "include/", "migration/", "monitor/", "system/",
           "qapi/", "tests/", "util/", "docs/", "scripts/", "hmp-commands.hx",
           "hmp-commands-info.hx", "MAINTAINERS")
MANIFEST = ".overlay.json"
DIRECTIVE = re.compile(r"^[ \t]*(?:#|//|/\*|\.\.|HXCOMM)[ \t]*overlay:[ \t]*"
                       r"(?P<how>new|after (?P<anchor>.+?))[ \t]*(?:\*/)?\n",
                       re.M)


class OverlayError(base.BaseError):
    """A block or a file that cannot be laid over the tree, and why."""


class OurFile(NamedTuple):
    source: str     # path in the repository
    path: str       # in QEMU's tree
    text: str       # as it is for this QEMU
    is_link: bool   # that is the text in the repository
    is_shared: bool


def is_ours(path):
    """True for a file that is the balloon's alone, whoever has one."""
    name = os.path.basename(path).replace("_", "-")
    return "balloon" in name and "hv-balloon" not in name


def check_between(text, blocks):
    """What is in no block, an #ifdef say, would be lost without a word."""
    last = 0
    for block in [*blocks, None]:
        between = text[last:block.start if block else None]
        stray = re.sub(r"^[ \t]*(?:# .*|//.*|/\*.*\*/)$", "", between,
                       flags=re.M).strip()
        if stray:
            raise OverlayError(f"'{stray.splitlines()[0]}' is in none of our"
                               " blocks, and would not be in QEMU's file")
        last = block.end if block else last


def our_blocks(text, fmt):
    """Yield (block, text of the block, directive match or None) of our file."""
    directives = []
    plain, last = "", 0
    for match in DIRECTIVE.finditer(text):
        plain += text[last:match.start()]
        last = match.end()
        directives.append((len(plain), match))
    plain += text[last:]
    blocks = fmt.parse(plain)
    check_between(plain, blocks)
    for number, block in enumerate(blocks):
        before = blocks[number - 1].start if number else -1
        mine = [m for at, m in directives if before < at <= block.start]
        yield block, plain[block.start:block.end], mine[-1] if mine else None


def find_one(blocks, name, path):
    """The only block of that name, or an error that says how many there are."""
    found = [b for b in blocks if b.name == name]
    if len(found) != 1:
        raise OverlayError(f"{path}: block '{name}' matches {len(found)} times"
                           " in QEMU's file; it must match once")
    return found[0]


def splice(path, pristine, ours, wanted=None):
    """Return QEMU's text of a shared file with our blocks in it.

    @wanted: names of the only blocks to put in (None: all of them).
    """
    fmt = format_of(path)
    if fmt is None:
        raise OverlayError(f"{path}: QEMU has this file, and no format is known"
                           " to tell blocks of it apart")
    theirs = fmt.parse(pristine)
    edits = []
    place = None
    for block, text, directive in our_blocks(ours, fmt):
        if directive is None:
            old = find_one(theirs, block.name, path)
            if wanted is None or block.name in wanted:
                edits.append((old.start, old.end, text))
            place = old.end
            continue
        if any(b.name == block.name for b in theirs):
            raise OverlayError(f"{path}: block '{block.name}' is announced as"
                               " new, but QEMU has one")
        if directive["anchor"]:
            place = find_one(theirs, directive["anchor"], path).end
        if place is None:
            raise OverlayError(f"{path}: no block comes before the new"
                               f" '{block.name}'; say `overlay: after NAME`")
        if wanted is None or block.name in wanted:
            edits.append((place, place, block.gap + text))
    if not edits:
        raise OverlayError(f"{path}: no block found in our file")
    return apply_edits(pristine, edits)


def apply_edits(text, edits):
    """Replace text[start:end] for each edit; equal places keep their order."""
    result, last = "", 0
    for start, end, new in sorted(edits, key=lambda e: e[:2]):
        result += text[last:start] + new
        last = end
    return result + text[last:]


def listed_files(repo):
    """The repository's files by git, whoever owns it, or else all there are."""
    try:
        return subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", repo, "ls-files", "-co",
             "--exclude-standard"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return [path for path in files_below(repo)
                if not path.startswith(("build/", "build-"))]


def our_files(repo, start=IN_TREE):
    """Paths of the repository that have a place in QEMU's tree."""
    return sorted(p for p in listed_files(repo) if p.startswith(start)
                  and os.path.isfile(os.path.join(repo, p)))


def read(path):
    with open(path, encoding="utf-8") as file:
        try:
            return file.read()
        except UnicodeDecodeError:
            raise OverlayError(f"{path} is not text in UTF-8") from None


def left_out(root):
    """Which names in a folder of QEMU's tree @root are no source.

    Git, a build and Python leave them there; as shutil.copytree() asks.
    """
    def names(folder, _):
        return {".git", "__pycache__", *(["build"] if folder == root else [])}
    return names


def files_below(root):
    """Paths of all files of the tree @root, relative to it."""
    names_out = left_out(root)
    for folder, folders, names in os.walk(root):
        names += [name for name in folders
                  if os.path.islink(os.path.join(folder, name))]
        out = names_out(folder, names)
        folders[:] = set(folders) - out
        for name in set(names) - out:
            yield os.path.join(folder, name)[len(root) + 1:]


def version_of(pristine):
    """Version of QEMU's tree; empty if it does not say."""
    path = os.path.join(pristine, "VERSION")
    return read(path).strip() if os.path.exists(path) else ""


def ours_for(repo, pristine):
    """An OurFile for each of our files, for this QEMU."""
    texts, others = ({path: read(os.path.join(repo, path))
                      for path in our_files(repo, start)}
                     for start in (IN_TREE, "ports/"))
    try:
        ported = ports.apply(version_of(pristine), texts, others)
    except ports.PortError as error:
        raise OverlayError(str(error)) from None
    return [OurFile(source, path, text, text == texts[source],
                    not is_ours(path)
                    and os.path.exists(os.path.join(pristine, path)))
            for source, (path, text) in ported.items()]


def spliced(pristine, ours, wanted=None):
    """Text of a shared file in the tree; see splice()."""
    theirs = read(os.path.join(pristine, ours.path))
    return splice(ours.source, theirs, ours.text, wanted)


def replace(path, text):
    """Write @text, unless the file has it already: builds go by its time."""
    if os.path.lexists(path):
        if not os.path.islink(path) and read(path) == text:
            return
        os.remove(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def link(target, path):
    if os.path.islink(path) and os.readlink(path) == target:
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.remove(path)
    os.symlink(target, path)


def restore(pristine, path):
    """Bring back what QEMU has at @path of the tree, maybe nothing."""
    if os.path.lexists(path):
        os.remove(path)
    if os.path.exists(pristine):
        shutil.copy(pristine, path)


def state_of(pristine):
    """What is another one when the tree changed."""
    if base.is_fetched(pristine):
        return [pristine]
    times = [os.lstat(os.path.join(pristine, path)).st_ctime_ns
             for path in files_below(pristine)]
    return [pristine, len(times), max(times)]


def prepare_tree(pristine, state, tree):
    """Copy the pristine tree, unless that was done when it was in @state.

    Returns: the files laid over it so far.
    """
    try:
        manifest = json.loads(read(os.path.join(tree, MANIFEST)))
        if manifest["pristine"] == state:
            return manifest["files"]
    except (OSError, ValueError):
        pass
    base.say("copying QEMU's source")
    shutil.rmtree(tree, ignore_errors=True)
    # With new times, so that no object of another tree seems to be of this one
    shutil.copytree(pristine, tree, symlinks=True, copy_function=shutil.copy,
                    ignore=left_out(pristine))
    return []


def lay(repo, pristine, tree):
    """Make @tree what @pristine with the files of @repo is."""
    repo, pristine = os.path.abspath(repo), os.path.abspath(pristine)
    state = state_of(pristine)
    before = prepare_tree(pristine, state, tree)
    files = ours_for(repo, pristine)
    shared = {ours.path: spliced(pristine, ours)
              for ours in files if ours.is_shared}
    # From here on nothing of ours can be wrong
    for ours in files:
        path = os.path.join(tree, ours.path)
        if ours.is_shared:
            replace(path, shared[ours.path])
        elif ours.is_link:
            link(os.path.join(repo, ours.source), path)
        else:
            replace(path, ours.text)
            shutil.copymode(os.path.join(repo, ours.source), path)
    paths = [ours.path for ours in files]
    for path in set(before) - set(paths):
        restore(os.path.join(pristine, path), os.path.join(tree, path))
    replace(os.path.join(tree, MANIFEST),
            json.dumps({"pristine": state, "files": paths}, indent=1))


@base.told("overlay")
def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    lay(*sys.argv[1:])


if __name__ == "__main__":
    main()
