#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build QEMU with our balloon, or the stock one, for Meson's custom targets.

usage: build.py ours  BUILD [--targets T] [--cc CC] [--sanitize]
                            [--instrument HOW] NINJA-TARGET...
       build.py stock BUILD [--targets T] [--cc CC] NINJA-TARGET...

`ours` lays the repository over a copy of QEMU in BUILD/qemu and builds it in
BUILD/qemu-build; `stock` builds the pristine source in the cache folder.  Both
leave a runnable qemu-system-* in BUILD (`stock`: in BUILD/stock).
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys

import base
import overlay

FIRMWARE = ("/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu")
FIRMWARE_OPTIONS = " ".join(f"-L {folder}" for folder in FIRMWARE)
OPTIONS = ("--without-default-features", "--enable-system", "--enable-tcg",
           "--enable-kvm", "--enable-fdt=system", "--enable-werror",
           "--enable-hv-balloon",    # another device that is a balloon
           "--disable-docs", "--disable-install-blobs", "--disable-download",
           # A backtrace has lines, and the compiler takes a fifth less time
           f"--extra-cflags={os.environ.get('CFLAGS', '-g1')}")

# What more QEMU can be built for, and the options of its configure for that
FEW_DEVICES = ("--without-default-devices",
               "--with-devices-x86_64=virtio-balloon")
INSTRUMENT = {
    "none": (),
    "coverage": (),    # tools/cc-coverage.sh is the compiler
    "fuzz": (*FEW_DEVICES, "--enable-fuzzing", "--enable-asan",
             "--enable-ubsan"),
    "thread": (*FEW_DEVICES, "--enable-tsan"),
}


def configure(source, build, options, environment):
    """Configure @build, unless that was done with the same options."""
    command = [f"{source}/configure", "--python=/usr/bin/python3", *options]
    stamp = os.path.join(build, ".configured")
    text = json.dumps(command)
    if os.path.exists(stamp) and overlay.read(stamp) == text:
        return
    base.say("configuring QEMU (half a minute)")
    os.makedirs(build, exist_ok=True)
    base.check_disk(build, "put the clone on another disk")
    done = subprocess.run(command, cwd=build, env=environment, check=False,
                          stdout=subprocess.PIPE, text=True, errors="replace")
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        done.check_returncode()
    overlay.replace(stamp, text)


def ninja(build, targets, environment):
    """Build @targets; those that QEMU's configuration lacks are an error."""
    subprocess.run(["ninja", f"-j{base.processors() + 1}", *targets], cwd=build,
                   env=environment, check=True)


def write_launcher(path, binary):
    """A program named like QEMU's that finds the firmware."""
    overlay.replace(path, f'#!/bin/sh\nexec {shlex.quote(binary)}'
                    f' {FIRMWARE_OPTIONS} "$@"\n')
    os.chmod(path, 0o755)


def write_launchers(folder, build, built):
    """One in @folder for each emulator among the Ninja targets @built."""
    for name in built:
        if name.startswith("qemu-system-"):
            write_launcher(f"{folder}/{name}", f"{build}/{name}")


def for_clangd(command, folder):
    """@command without what clang may not know, for a file out of @folder."""
    command = re.sub(r" -f(zero-call-used-regs|trivial-auto-var-init)=\S+", "",
                     command)
    compiler, arguments = command.split(" -", 1)
    # trace.h is beside the link, not beside the file; and headers, for which
    # clangd takes a neighbour's command, rely on osdep.h
    return (f"{compiler} -iquote {folder} -include qemu/osdep.h"
            f" -{arguments}")


def our_entries(build):
    """The compiler's commands for the files that are links into base.REPO."""
    for entry in json.loads(overlay.read(f"{build}/compile_commands.json")):
        path = os.path.normpath(os.path.join(entry["directory"],
                                             entry["file"]))
        if os.path.islink(path):
            entry["command"] = for_clangd(entry["command"],
                                          os.path.dirname(entry["file"]))
            entry["file"] = os.path.relpath(os.path.realpath(path),
                                            entry["directory"])
            yield entry


def write_compile_commands(folder, build):
    overlay.replace(f"{folder}/compile_commands.json",
                    json.dumps(list(our_entries(build)), indent=1))


def options_of(args):
    compiler = f"ccache {args.cc}"
    if args.instrument == "coverage":
        compiler = f"{base.REPO}/tools/cc-coverage.sh {compiler}"
    options = [*OPTIONS, f"--target-list={args.targets}", f"--cc={compiler}",
               *INSTRUMENT[args.instrument]]
    if args.sanitize:
        options += ["--enable-asan", "--enable-ubsan"]
    return options


def set_coverage(build, environment):
    """Have fuzzers look for paths through our files only.

    Returns: @environment, in which ccache knows of the list of them.
    """
    path = f"{build}/instrumentation-filter"
    text = overlay.read(f"{base.REPO}/lab/fuzz/coverage.txt")
    if overlay.read(path) != text:
        overlay.replace(path, text)
        ninja(build, ["-t", "clean"], environment)
    return dict(environment, CCACHE_EXTRAFILES=path)


def build_in(source, build, args, environment):
    environment = dict(environment, CCACHE_BASEDIR=os.path.dirname(build))
    configure(source, build, options_of(args), environment)
    if args.instrument == "fuzz":
        environment = set_coverage(build, environment)
    ninja(build, args.ninja, environment)


def build_ours(args, environment):
    tree, build = f"{args.build}/qemu", f"{args.build}/qemu-build"
    overlay.lay(base.REPO, base.source(), tree)
    build_in(tree, build, args, environment)
    write_launchers(args.build, build, args.ninja)
    write_compile_commands(args.build, build)


def build_stock(args, environment):
    source = base.source()
    key = hashlib.sha256(repr([source, options_of(args)]).encode()).hexdigest()
    build = base.cache("stock-" + key[:12], "qemu-build")
    with base.locked("stock"):
        build_in(source, build, args, environment)
    os.makedirs(f"{args.build}/stock", exist_ok=True)
    write_launchers(f"{args.build}/stock", build, args.ninja)


@base.told("build")
def main():
    parser = base.parser(__doc__)
    parser.add_argument("what", choices=("ours", "stock"))
    parser.add_argument("build", type=os.path.abspath)
    parser.add_argument("--targets", default="x86_64-softmmu")
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--instrument", default="none", choices=INSTRUMENT)
    parser.add_argument("ninja", nargs="*")
    args = parser.parse_intermixed_args()
    environment = base.build_environment()
    if args.what == "ours":
        build_ours(args, environment)
    else:
        build_stock(args, environment)


if __name__ == "__main__":
    main()
