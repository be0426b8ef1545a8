#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Say which lines of the device no test reaches.

usage: coverage.py BUILD           a table, and the lines that were not reached
       coverage.py --clear BUILD   forget what was reached so far

BUILD was set up with -Dinstrument=coverage.  A line that no test can reach
stands in tools/unreached.txt, with the reason; any other that was not reached
is an error, and so is an entry there that matches no line.
"""

import argparse
import collections
import glob
import json
import os
import subprocess
import sys

from base import REPO, read

UNREACHED = os.path.join(REPO, "tools", "unreached.txt")


class Line:
    """A line of code: in which function, and how often it was run."""

    def __init__(self, function):
        self.function = function
        self.count = 0


def data_files(build, suffix):
    return sorted(glob.glob(f"{build}/qemu-build/**/*balloon*.{suffix}",
                            recursive=True))


def gcov(path):
    """What gcov knows of the object that has the notes @path."""
    folder, name = os.path.split(path)
    output = subprocess.run(
        ["gcov", "--json-format", "--stdout", name], cwd=folder, check=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return [json.loads(line) for line in output.splitlines() if line]


def our_name(report, name):
    """Path in the repository of a source file, or None if it is not ours."""
    path = os.path.realpath(os.path.join(report["current_working_directory"],
                                         name))
    relative = os.path.relpath(path, REPO)
    return relative if relative.startswith(("hw/", "system/")) else None


def collect(reports):
    """{path: {line number: Line}} of what any program ran."""
    files = collections.defaultdict(dict)
    for report in reports:
        for file in report["files"]:
            name = our_name(report, file["file"])
            for entry in file["lines"] if name else ():
                line = files[name].setdefault(
                    entry["line_number"], Line(entry.get("function_name")))
                line.count += entry["count"]
    return files


def parse_reasons(text):
    """{(path, function, code): reason}"""
    reasons = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            path, function, code, reason = map(str.strip,
                                               line.split(" | ", 3))
            reasons[path, function, code] = reason
    return reasons


def report_file(path, lines, reasons):
    """One row of the table, and (number, function, code) not reached."""
    source = read(os.path.join(REPO, path)).splitlines()
    missed = [(number, line.function, source[number - 1].strip())
              for number, line in sorted(lines.items()) if not line.count]
    reached = len(lines) - len(missed)
    excused = sum((path, function, code) in reasons
                  for _, function, code in missed)
    print(f"{path:40} {len(lines):6} {reached:8} {excused:8}"
          f" {100 * reached / len(lines):7.1f} %")
    return missed


def stale(files, reasons):
    """Entries that match no line of code."""
    there = {(path, line.function,
              read(os.path.join(REPO, path)).splitlines()[number - 1].strip())
             for path, lines in files.items()
             for number, line in lines.items()}
    return [key for key in reasons if key not in there]


def show(files, reasons):
    """Print the table and what is wrong; returns how much is wrong."""
    print(f"{'file':40} {'lines':>6} {'reached':>8} {'excused':>8}"
          f" {'reached':>9}")
    missed = [(path, *line) for path in sorted(files)
              for line in report_file(path, files[path], reasons)]
    total = sum(map(len, files.values()))
    reached = total - len(missed)
    print(f"{'all':40} {total:6} {reached:8}"
          f" {'':8} {100 * reached / max(total, 1):7.1f} %")
    wrong = 0
    for path, number, function, code in missed:
        reason = reasons.get((path, function, code))
        wrong += reason is None
        print(f"{path}:{number}: {function}: {code}\n"
              f"    {reason or 'NO TEST REACHES THIS, and no reason is given'}")
    for path, function, code in stale(files, reasons):
        wrong += 1
        print(f"tools/unreached.txt: {path} has no line '{code}' in"
              f" {function}()")
    return wrong


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("--clear", action="store_true")
    parser.add_argument("build", type=os.path.abspath)
    args = parser.parse_args()
    if args.clear:
        for path in data_files(args.build, "gcda"):
            os.remove(path)
        return
    notes = data_files(args.build, "gcno")
    if not notes:
        sys.exit(f"coverage: {args.build} has no coverage build")
    files = collect(report for path in notes for report in gcov(path))
    if show(files, parse_reasons(read(UNREACHED))):
        sys.exit("coverage: lines were not reached, or reasons are stale: see"
                 " above")


if __name__ == "__main__":
    main()
