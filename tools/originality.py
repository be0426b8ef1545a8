#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Find text of QEMU in this repository: there must be none.

Compared are windows of consecutive lines that say something: five lines, or
three where QEMU's file is the balloon's.  Whitespace and comment marks do not
count, and lines without content (blank ones, braces, includes, licence tags)
are passed over.  A window that stands in several files of QEMU is an idiom of
its, which any code there has, and not reported.

Exit status: 0 none, 1 text found, 2 the trees cannot be compared.

usage: originality.py [REPO [PRISTINE-TREE]]
"""

import collections
import os
import re
import sys

import base
import overlay

WINDOW = 5
BALLOON_WINDOW = 3
# In how many of QEMU's files a window is an idiom
IDIOM = 3
SUFFIXES = (".c", ".h", ".inc", ".S", ".py", ".sh", ".rst", ".txt", ".json",
            ".hx", ".build", ".rs", "trace-events", "Kconfig", "MAINTAINERS",
            "meson_options.txt", ".md")
# What QEMU ships of others
FOREIGN = {"roms", "subprojects", "debian", ".git", ".pc", "build"}
LEGAL = {"LICENSE", "COPYING", "COPYING.LIB"}
SAYS_NOTHING = (
    rb"\W*(?:\w\W*){0,7}$",                      # less than eight letters
    rb"#?include[<\"]",
    rb"(?:import|from)[\w.]+$",
    rb".*(?:SPDX-License|[Cc]opyright)",
)
# Where the interfaces of QEMU's objects, or names that others rely on, leave
# no choice of words
PRESCRIBED = (
    rb"staticconst\w+(?:\[\])?=\{$",             # a table and its fields
    rb"\.\w+=[^;]*[,{]$",
    rb"\[\w+\]=[^;]*,$",
    rb"(?:VMSTATE|DEFINE_PROP)_\w+[(,]",
    rb"[A-Z]\w+,[\w*]+\),$",
    rb"(?:type_init|device_class_set_props|set_bit|\w+types_register)\(",
    rb"\w+->[\w.]+=&?\w+;$",                     # a method of a class
    rb"\w+\*\w+=[A-Z_]+\(\w+\);$",               # a cast to a class
    rb"\w+parent_obj;$",
    rb"return\w*;$",
    rb"M:.*<.+@.+>$|S:Maintained$",                # who maintains a file
)
EMPTY = re.compile(b"|".join(b"(?:%s)" % p for p in SAYS_NOTHING + PRESCRIBED))

# Lines FIRST to LAST of OURS are THERE in QEMU's file THEIRS
Match = collections.namedtuple("Match", "ours first last theirs there")


def normalised(data):
    """The lines of @data, bytes, without whitespace and comment marks."""
    return [line.lstrip(b"/*#") for line in
            data.translate(None, b" \t\r\f").split(b"\n")]


def is_empty(line):
    return EMPTY.match(line) is not None


def speaking(data):
    """[(number, line)] of the lines that say something."""
    return [(number, line) for number, line in enumerate(normalised(data), 1)
            if not is_empty(line)]


def windows(lines, size):
    """Yield (index, window) for each run of @size of the @lines."""
    for i in range(len(lines) - size + 1):
        yield i, tuple(line for _, line in lines[i:i + size])


def read(path):
    with open(path, "rb") as file:
        return file.read()


def our_files(repo):
    """Paths of the text files of the repository @repo."""
    return [path for path in overlay.listed_files(repo)
            if os.path.basename(path) not in LEGAL
            and os.path.isfile(os.path.join(repo, path))]


def qemu_files(tree):
    """Paths of the files in the source tree @tree that QEMU's authors wrote."""
    for folder, folders, names in os.walk(tree):
        if folder == tree:
            folders[:] = set(folders) - FOREIGN
        for name in names:
            path = os.path.join(folder, name)
            if (name.endswith(SUFFIXES) and name not in LEGAL
                    and not os.path.islink(path)):
                yield os.path.relpath(path, tree)


def common_runs(data, known):
    """
    Lists of consecutive speaking lines of @data that are all in @known, as
    speaking() has them.  Most files have few: the others are not looked at.
    """
    lines = normalised(data)
    runs, last = [], None
    for i in [i for i, line in enumerate(lines) if line in known]:
        if last is None or not all(map(is_empty, lines[last + 1:i])):
            runs.append([])
        runs[-1].append((i + 1, lines[i]))
        last = i
    return runs


def find_places(tree, wanted, size):
    """{window: [(file, line)]} for those windows of @wanted that QEMU has."""
    known = {line for window in wanted for line in window}
    places = collections.defaultdict(list)
    for path in qemu_files(tree):
        for run in common_runs(read(os.path.join(tree, path)), known):
            for i, window in windows(run, size):
                if window in wanted:
                    places[window].append((path, run[i][0]))
    return places


def is_text(window, places):
    """False when @window is in so many files that it is an idiom."""
    return len({path for path, _ in places.get(window, ())}) < IDIOM


def matches_of(path, lines, places):
    """
    Yield a Match for each stretch of our file @path, as speaking() has it,
    that QEMU has.  @places is of windows of BALLOON_WINDOW lines; longer ones
    are made of those that follow each other in the same file.
    """
    open_runs = {}
    for i, window in [*windows(lines, BALLOON_WINDOW), (None, None)]:
        found = dict(reversed(places.get(window, ())))
        for theirs in set(open_runs) - set(found):
            yield from finish(path, lines, open_runs.pop(theirs), theirs,
                              places)
        for theirs, there in found.items():
            open_runs.setdefault(theirs, [i, i, there])[1] = i


def finish(path, lines, run, theirs, places):
    """Yield the Match of windows @run, if it is long enough and no idiom."""
    first, last, there = run
    end = last + BALLOON_WINDOW - 1
    size = BALLOON_WINDOW if overlay.is_ours(theirs) else WINDOW
    own = [tuple(line for _, line in lines[i:i + BALLOON_WINDOW])
           for i in range(first, last + 1)]
    if end - first + 1 >= size and any(is_text(w, places) for w in own):
        yield Match(path, lines[first][0], lines[end][0], theirs, there)


def compare(repo, tree):
    """The list of all matches between @repo and the pristine @tree."""
    ours = {path: speaking(read(os.path.join(repo, path)))
            for path in our_files(repo)}
    wanted = {window for lines in ours.values()
              for _, window in windows(lines, BALLOON_WINDOW)}
    places = find_places(tree, wanted, BALLOON_WINDOW)
    return [match for path, lines in ours.items()
            for match in matches_of(path, lines, places)]


def main():
    if len(sys.argv) > 3 or sys.argv[1:2] == ["--help"]:
        sys.exit(__doc__)
    repo = sys.argv[1] if len(sys.argv) > 1 else base.REPO
    try:
        tree = sys.argv[2] if len(sys.argv) > 2 else base.source()
        found = compare(repo, tree)
    except (base.BaseError, OSError) as error:
        print(f"originality: {error}", file=sys.stderr)
        sys.exit(2)
    for match in found:
        print(f"{match.ours}:{match.first}-{match.last}"
              f" = {match.theirs}:{match.there}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
