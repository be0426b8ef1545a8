#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the tests of hints and migration on a QEMU with ThreadSanitizer.

usage: thread.py BUILD

BUILD was set up with -Dinstrument=thread.  What counts is a report with one of
our functions on a stack; lab/thread.supp has those that are none of ours to
mend, with the reason.  All reports, QEMU's own too, stay in BUILD/thread.
"""

import argparse
import collections
import glob
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = (
    ("virtio-balloon-test", "hint"),
    ("virtio-balloon-test", "improved/hint"),
    ("virtio-balloon-test", "migration"),
    ("virtio-balloon-hostile-test", "migration"),
    ("virtio-balloon-hostile-test", "improved/migration"),
    ("virtio-balloon-tell-test", "improved/tell"),
)
REPORT = re.compile(r"^WARNING: ThreadSanitizer: .*?^={18}$", re.M | re.S)
SUMMARY = re.compile(r"^SUMMARY: ThreadSanitizer: (.*)$", re.M)
OURS = re.compile(r"(?:hw/virtio/virtio-balloon[\w-]*|system/balloon)\.c:")


def run_tests(build):
    """Run them all; returns those that failed."""
    binary = f"{build}/qemu-system-x86_64"
    options = (f"log_path={build}/thread/report exitcode=0 history_size=4"
               f" suppressions={HERE}/thread.supp")
    environment = dict(os.environ, QTEST_QEMU_BINARY=binary,
                       TSAN_OPTIONS=options)
    failed = []
    for program, group in TESTS:
        path = f"{build}/qemu-build/tests/qtest/{program}"
        result = subprocess.run(
            [path, "--tap", "-k", "-m", "quick", "-r",
             f"/x86_64/virtio-balloon/{group}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False)
        cases = len(re.findall(r"^ok ", result.stdout, re.M))
        print(f"{program} {group}: {cases} passed", flush=True)
        if result.returncode or not cases:
            failed.append(f"{program} {group}")
            print(result.stdout[-3000:])
    return failed


def reports(build):
    """The reports of all processes."""
    for path in sorted(glob.glob(f"{build}/thread/report.*")):
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from (match[0] for match in REPORT.finditer(file.read()))


def summary(report):
    match = SUMMARY.search(report)
    return match[1] if match else report.splitlines()[0]


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("build", type=os.path.abspath)
    build = parser.parse_args().build
    shutil.rmtree(f"{build}/thread", ignore_errors=True)
    os.makedirs(f"{build}/thread")
    failed = run_tests(build)
    ours, others = {}, collections.Counter()
    for report in reports(build):
        if OURS.search(report):
            ours.setdefault(summary(report), report)
        else:
            others[summary(report)] += 1
    for report in ours.values():
        print(report)
    print(f"{len(ours)} different reports with our functions,"
          f" {len(others)} of QEMU's own alone")
    sys.exit(1 if ours or failed else 0)


if __name__ == "__main__":
    main()
