#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the fuzzers of the balloon, with QEMU's fuzzing program.

usage: fuzz.py [--seconds N | --runs N | --distil] BUILD [TARGET...]

BUILD was set up with -Dinstrument=fuzz; inputs that reach something new are
kept in BUILD/fuzz/TARGET, and what fails an input in BUILD/fuzz.  The targets
share the seconds, and as many run at a time as there are processors.  An input
is run again by giving it to the program:
BUILD/qemu-build/qemu-fuzz-x86_64 --fuzz-target=TARGET INPUT

Each run begins with the inputs in lab/fuzz/TARGET.txt, one a line, in
hexadecimal.  --distil writes these files anew: of the inputs in BUILD, as few
and as short ones as reach what all short ones do.
"""

import argparse
import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import guests

HERE = os.path.dirname(os.path.abspath(__file__))
FIRMWARE = ("/usr/share/seabios", "/usr/share/qemu")
# Seconds are shared by weight, most for what runs most inputs in a second;
# QEMU's own target knows nothing of queues
TARGETS = {
    "virtio-balloon-queues": 6,
    "virtio-balloon-shared": 5,
    "virtio-balloon-host": 2,
    "generic-fuzz-virtio-balloon": 1,
}
# The longest input, in bytes; and the longest that the repository has
LENGTH = {"generic-fuzz-virtio-balloon": 4096}
SEED_LENGTH = 96
# Threads of QEMU live for ever, and so does what it allocates at its start
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:handle_abort=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
PROGRESS_SECONDS = 60


def install_firmware(build):
    """Give QEMU its firmware where it looks, beside the program."""
    folder = f"{build}/qemu-bundle/usr/local/share/qemu"
    os.makedirs(folder, exist_ok=True)
    for source in FIRMWARE:
        for path in glob.glob(f"{source}/*.bin") + glob.glob(f"{source}/*.rom"):
            link = os.path.join(folder, os.path.basename(path))
            if not os.path.lexists(link):
                os.symlink(path, link)


def read_seeds(target):
    """The inputs in the repository."""
    with open(f"{HERE}/fuzz/{target}.txt", encoding="ascii") as file:
        return [bytes.fromhex(line) for line in file
                if not line.startswith("#")]


def write_seeds(target, inputs):
    with open(f"{HERE}/fuzz/{target}.txt", "w", encoding="ascii") as file:
        file.write("# Inputs that reach what longer ones do; written by"
                   " lab/fuzz.py --distil\n")
        for data in sorted(inputs, key=lambda data: (len(data), data)):
            file.write(data.hex() + "\n")


def fresh_folder(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def unpack_seeds(build, target):
    """A folder with the inputs in the repository, for libFuzzer."""
    folder = fresh_folder(f"{build}/fuzz/seeds/{target}")
    for number, data in enumerate(read_seeds(target)):
        with open(f"{folder}/{number}", "wb") as file:
            file.write(data)
    return folder


def command(build, target, *options):
    return [f"{build}/qemu-build/qemu-fuzz-x86_64", f"--fuzz-target={target}",
            f"-artifact_prefix={build}/fuzz/{target}-", "-timeout=60",
            "-rss_limit_mb=4096", "-detect_leaks=0", "-entropic=0", *options]


def corpus_of(build, target):
    folder = f"{build}/fuzz/{target}"
    os.makedirs(folder, exist_ok=True)
    return folder


def figures(log):
    """Executions, and edges covered, from what libFuzzer says."""
    runs = re.findall(r"number_of_executed_units:\s*(\d+)", log)
    runs = runs or re.findall(r"^#(\d+)", log, re.M)
    covered = re.findall(r" cov: (\d+)", log)
    return (int(runs[-1]) if runs else 0), (int(covered[-1]) if covered else 0)


def open_log(build, target, mode="r"):
    return open(f"{build}/fuzz/{target}.log", mode, encoding="utf-8",
                errors="replace")


def read_log(build, target):
    with open_log(build, target) as log:
        return log.read()


def call(build, target, line):
    """Run the fuzzer; returns its exit code."""
    with open_log(build, target, "w") as log:
        return subprocess.run(line, stdout=log, stderr=log, check=False,
                              env=dict(os.environ, **SANITIZERS)).returncode


def run(build, target, limit):
    """One fuzzer; returns how many executions, and whether all was well."""
    begin = time.monotonic()
    code = call(build, target, command(
        build, target, corpus_of(build, target), unpack_seeds(build, target),
        limit, f"-max_len={LENGTH.get(target, 256)}", "-print_final_stats=1"))
    seconds = time.monotonic() - begin
    text = read_log(build, target)
    runs, covered = figures(text)
    print(f"{target:30} {runs:10} executions {runs / seconds:8.0f} /s"
          f" {covered:6} edges   {'finding' if code else 'no finding'}",
          flush=True)
    if code:
        print(text[-6000:])
        print(f"what it was doing is in {build}/fuzz/{target}.log")
    return runs, code == 0


def show_progress(build, targets, done):
    while not done.wait(PROGRESS_SECONDS):
        runs = {target: figures(read_log(build, target))[0]
                for target in targets}
        print("so far: " + ", ".join(f"{target} {number}" for target, number
                                     in runs.items() if number),
              file=sys.stderr, flush=True)


def fuzz(build, targets, args):
    """All targets; returns whether nothing was found."""
    at_once = min(guests.processors(), len(targets))
    weight = sum(TARGETS[target] for target in targets)

    def run_one(target):
        share = args.seconds * at_once * TARGETS[target] // weight
        return run(build, target, f"-runs={args.runs}" if args.runs else
                   f"-max_total_time={min(max(share, 1), args.seconds)}")

    for target in targets:
        open_log(build, target, "w").close()    # what it said was before
    done = threading.Event()
    watcher = threading.Thread(target=show_progress,
                               args=(build, targets, done))
    watcher.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            results = list(pool.map(run_one, targets))
    finally:
        done.set()
        watcher.join()
    print(f"{'all':30} {sum(runs for runs, _ in results):10} executions")
    return all(good for _, good in results)


def distil(build, target):
    """Write the inputs of the repository anew."""
    short = fresh_folder(f"{build}/fuzz/short/{target}")
    for path in glob.glob(f"{corpus_of(build, target)}/*"):
        if os.path.getsize(path) <= SEED_LENGTH:
            shutil.copy(path, short)
    merged = fresh_folder(f"{build}/fuzz/distilled/{target}")
    call(build, target, command(build, target, "-merge=1", merged, short,
                                unpack_seeds(build, target)))
    inputs = set()
    for path in glob.glob(f"{merged}/*"):
        with open(path, "rb") as file:
            inputs.add(file.read())
    write_seeds(target, inputs)
    print(f"{target:30} {len(inputs):10} inputs"
          f" {sum(map(len, inputs)):8} bytes", flush=True)


@guests.told("fuzz")
def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--seconds", type=int, default=3600)
    how.add_argument("--runs", type=int)
    how.add_argument("--distil", action="store_true")
    parser.add_argument("build", type=os.path.abspath)
    parser.add_argument("target", nargs="*")
    args = parser.parse_args()
    program = f"{args.build}/qemu-build/qemu-fuzz-x86_64"
    if not os.access(program, os.X_OK):
        sys.exit(f"fuzz: there is no {program}: `./balloon fuzz` builds it")
    unknown = set(args.target) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; known are "
                     + ", ".join(TARGETS))
    install_firmware(f"{args.build}/qemu-build")
    os.makedirs(f"{args.build}/fuzz", exist_ok=True)
    targets = args.target or list(TARGETS)
    if args.distil:
        for target in targets:
            distil(args.build, target)
    elif not fuzz(args.build, targets, args):
        sys.exit(1)


if __name__ == "__main__":
    main()
