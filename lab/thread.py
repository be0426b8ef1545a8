#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the tests in which several threads are at work, with ThreadSanitizer.

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
# Which these are, coroutines included
TESTS = {
    "virtio-balloon-test": ("hint", "improved/hint", "migration"),
    "virtio-balloon-tell-test": ("improved/tell",),
    "virtio-balloon-manage-test": (
        "manage/counters/hints", "manage/inhibited/background-snapshot",
        "manage/inhibited/incoming-postcopy", "manage/state/migration",
        "manage/state/stop-cont", "manage/stats"),
}
# It pauses the VM by a device that this QEMU is built without
LEFT_OUT = "/x86_64/virtio-balloon/manage/stats/stopped"
# The tests fork while they have threads.  Much is remembered, for both stacks
# of a report to be known.  What libc is given to copy or to write is passed
# over: guest memory that migration sends while a test writes it would be a
# report for each eight bytes, and a test take a quarter of an hour, or not
OPTIONS = ("exitcode=0 die_after_fork=0 history_size=7 print_suppressions=1"
           " ignore_interceptors_accesses=1")
KINDS = {
    "qemu": "without our functions",
    "ordered": "with them, but both threads hold the same lock",
    "suppressed": "suppressed by lab/thread.supp",
    "ours": "with our functions",
}
REPORT = re.compile(r"^WARNING: ThreadSanitizer: .*?^={18}$", re.M | re.S)
SUMMARY = re.compile(r"^SUMMARY: ThreadSanitizer: (.*)$", re.M)
SUPPRESSED = re.compile(r"^(\d+) (\w+:\S+)$", re.M)
OURS = re.compile(r"(?:hw/virtio/virtio-balloon[\w-]*|system/balloon)\.c:")
ACCESS = re.compile(r"^  \S.* by .*thread.*:$", re.M)
LOCKED = re.compile(r"\bwrite (M\d+)")


def run_tests(build, program, group):
    """Run some tests.  Returns: how many passed, 0 if any failed."""
    environment = dict(
        os.environ, QTEST_QEMU_BINARY=f"{build}/qemu-system-x86_64",
        TSAN_OPTIONS=f"{OPTIONS} log_path={build}/thread/{program}"
                     f" suppressions={HERE}/thread.supp")
    result = subprocess.run(
        [f"{build}/qemu-build/tests/qtest/{program}", "--tap", "-k", "-m",
         "quick", "-r", f"/x86_64/virtio-balloon/{group}", "-x", LEFT_OUT],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False)
    passed = len(re.findall(r"^ok (?!.*# SKIP)", result.stdout, re.M))
    print(f"{program} {group}: {passed} passed", flush=True)
    if result.returncode or not passed:
        print(result.stdout[-3000:])
        return 0
    return passed


def kind_of(report):
    """
    Which of KINDS it is.

    There is no race where both threads hold the same lock.  Such is reported
    once QEMU, loading a VM, let go of the BQL in a coroutine: that is another
    thread to ThreadSanitizer, for which the BQL orders nothing from then on.
    """
    if not OURS.search(report):
        return "qemu"
    held = [set(LOCKED.findall(line)) for line in ACCESS.findall(report)]
    return "ordered" if len(held) > 1 and held[0] & held[1] else "ours"


def find(log, found):
    """Count in @found, by kind and summary, what a process left in its log."""
    for report in REPORT.findall(log):
        key = kind_of(report), SUMMARY.search(report)[1]
        if key[0] == "ours" and key not in found:
            print(report)
        found[key] += 1
    for count, rule in SUPPRESSED.findall(log):
        found["suppressed", rule] += int(count)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("build", type=os.path.abspath)
    build = parser.parse_args().build
    for program in TESTS:
        if not os.path.exists(f"{build}/qemu-build/tests/qtest/{program}"):
            sys.exit(f"thread: {program} is not built in {build}: `./balloon"
                     " check thread` builds it")
    shutil.rmtree(f"{build}/thread", ignore_errors=True)
    os.makedirs(f"{build}/thread")
    passed = [run_tests(build, program, group)
              for program, groups in TESTS.items() for group in groups]
    found = collections.Counter()
    for path in glob.glob(f"{build}/thread/*"):
        with open(path, encoding="utf-8", errors="replace") as log:
            find(log.read(), found)
    for (kind, what), count in sorted(found.items()):
        print(f"{kind:10} {count:6} {what}")
    print(f"{sum(passed)} tests passed, {passed.count(0)} groups of"
          f" {len(passed)} failed; reports, and kinds of them:")
    for kind, text in KINDS.items():
        counts = [count for key, count in found.items() if key[0] == kind]
        print(f"{sum(counts):7} {len(counts):4}  {text}")
    sys.exit(1 if 0 in passed or any(key[0] == "ours" for key in found) else 0)


if __name__ == "__main__":
    main()
