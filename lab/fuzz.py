#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the fuzzers of the balloon, with QEMU's fuzzing program.

usage: fuzz.py [--seconds N | --runs N] BUILD [TARGET...]

BUILD was set up with -Dinstrument=fuzz; inputs that reach something new are
kept in BUILD/fuzz/TARGET, and what fails an input in BUILD/fuzz.  The targets
share the seconds.  An input is run again by giving it to the program:
BUILD/qemu-build/qemu-fuzz-x86_64 --fuzz-target=TARGET INPUT
"""

import argparse
import glob
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
FIRMWARE = ("/usr/share/seabios", "/usr/share/qemu")
# Seconds are shared by weight; QEMU's own target knows nothing of queues
TARGETS = {
    "virtio-balloon-queues": 4,
    "virtio-balloon-shared": 2,
    "virtio-balloon-host": 3,
    "generic-fuzz-virtio-balloon": 1,
}
# The longest input, in bytes
LENGTH = {"generic-fuzz-virtio-balloon": 4096}
# Threads of QEMU live for ever, and so does what it allocates at its start
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:handle_abort=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


def install_firmware(build):
    """Give QEMU its firmware where it looks, beside the program."""
    folder = f"{build}/qemu-build/qemu-bundle/usr/local/share/qemu"
    os.makedirs(folder, exist_ok=True)
    for source in FIRMWARE:
        for path in glob.glob(f"{source}/*.bin") + glob.glob(f"{source}/*.rom"):
            link = os.path.join(folder, os.path.basename(path))
            if not os.path.lexists(link):
                os.symlink(path, link)


def command(build, target, limit):
    """The fuzzer with its corpora; new inputs go to the first."""
    corpus = f"{build}/fuzz/{target}"
    os.makedirs(corpus, exist_ok=True)
    line = [f"{build}/qemu-build/qemu-fuzz-x86_64", f"--fuzz-target={target}",
            corpus]
    seeds = f"{HERE}/fuzz/{target}"
    if os.path.isdir(seeds):
        line.append(seeds)
    return line + [limit, f"-artifact_prefix={build}/fuzz/{target}-",
                   f"-max_len={LENGTH.get(target, 1024)}", "-timeout=60",
                   "-rss_limit_mb=4096", "-print_final_stats=1",
                   "-detect_leaks=0"]


def figures(log):
    """Executions, and lines of branches covered, from what libFuzzer says."""
    runs = re.findall(r"number_of_executed_units:\s*(\d+)", log)
    covered = re.findall(r" cov: (\d+)", log)
    return (int(runs[-1]) if runs else 0), (int(covered[-1]) if covered else 0)


def run(build, target, limit):
    """One fuzzer; True if nothing was found."""
    log_path = f"{build}/fuzz/{target}.log"
    line = command(build, target, limit)
    begin = time.monotonic()
    with open(log_path, "w", encoding="utf-8") as log:
        result = subprocess.run(line, stdout=log, stderr=log, check=False,
                                env=dict(os.environ, **SANITIZERS))
    seconds = time.monotonic() - begin
    with open(log_path, encoding="utf-8", errors="replace") as log:
        text = log.read()
    runs, covered = figures(text)
    print(f"{target:30} {runs:10} executions {runs / seconds:8.0f} /s"
          f" {covered:6} edges"
          f"   {'finding' if result.returncode else 'no finding'}", flush=True)
    if result.returncode:
        print(text[-6000:])
        print(f"what it was doing is in {log_path}")
    return result.returncode == 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--seconds", type=int, default=3600)
    limit.add_argument("--runs", type=int)
    parser.add_argument("build", type=os.path.abspath)
    parser.add_argument("target", nargs="*")
    args = parser.parse_args()
    install_firmware(args.build)
    targets = args.target or list(TARGETS)
    total = sum(TARGETS.get(target, 1) for target in targets)
    good = True
    for target in targets:
        seconds = args.seconds * TARGETS.get(target, 1) // total
        good &= run(args.build, target, f"-runs={args.runs}" if args.runs else
                    f"-max_total_time={max(seconds, 1)}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
