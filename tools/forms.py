#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build QEMU with our files in other forms than the usual one, and test them.

usage: forms.py [NAME...]

  clang      with clang instead of gcc, our tests as well
  targets    for other architectures of guests: aarch64, ppc64, s390x
  no-device  with Kconfig leaving the balloon out: the commands stay, and link
  default    as QEMU's configure does it: all features, tools, manual
  i386       on a host of 32 bits, run by QEMU's user mode emulation
  mingw      on Windows, run by Wine; GLib for it is built once

In each a warning is an error.  Each is built in build/form-NAME, from the tree
in build/qemu, is asked whether it has the device, and passes the unit tests of
the balloon and those qtests that its machines can run.
"""

import argparse
import glob
import os
import re
import subprocess
from typing import Callable, NamedTuple, Tuple

import base
import build
import hosts
import named
import overlay

FOLDER = base.build_folder(base.REPO)
DEVICE = "virtio-balloon-device"
BELOW = "/virtio-balloon-tests"


class Form(NamedTuple):
    targets: Tuple[str, ...] = ("x86_64",)
    cc: str = "gcc"
    options: Tuple[str, ...] = build.OPTIONS
    # what to build beside the emulators: kinds of our tests, or all there is
    more: Tuple[str, ...] = ("unit",)
    # the architecture and program of a qtest
    tests: Tuple[Tuple[str, str], ...] = ()
    # qtests that are built only
    built: Tuple[str, ...] = ()
    has_device: bool = True
    # QEMU is built so before this release
    before: int = 99
    host: Callable[[], hosts.Host] = hosts.native


FORMS = {
    "clang": Form(cc="clang", more=("unit", "qtest"), tests=(
        ("x86_64", "qos-test"), ("x86_64", "virtio-balloon-test"),
        ("x86_64", "virtio-balloon-tell-test"))),
    "targets": Form(targets=("aarch64", "ppc64", "s390x"), tests=(
        ("aarch64", "qos-test"), ("ppc64", "qos-test"),
        ("ppc64", "virtio-balloon-endian-test"),
        ("s390x", "device-introspect-test"))),
    # What a machine needs is on, the rest of the devices is not
    "no-device": Form(options=(*build.OPTIONS, "--without-default-devices"),
                      more=(), has_device=False),
    # Debian's source of QEMU comes without its firmware
    "default": Form(options=("--enable-werror", "--enable-tools",
                             "--enable-docs", "--disable-download",
                             "--disable-install-blobs"),
                    more=("all",), tests=(("x86_64", "qos-test"),)),
    # QEMU does not emulate 64 bits on 32
    "i386": Form(targets=("i386",), host=hosts.i386, before=11, options=(
        *build.OPTIONS, "--without-default-devices",
        "--with-devices-i386=../x86_64-softmmu/virtio-balloon"),
        # It wants devices that these machines do not have
        built=("virtio-balloon-test",), tests=(("i386", "qos-test"),)),
    # Wine has not the sockets that qtests talk through
    "mingw": Form(host=hosts.mingw, built=("qos-test",), options=(
        *build.OPTIONS, *build.FEW_DEVICES)),
}


class FormError(base.BaseError):
    """A form that is not what it should be."""


def our_programs(tree, kind):
    """The balloon's test programs in tests/@kind, as Ninja knows them."""
    return sorted(os.path.relpath(path, tree)[:-2] for path in
                  glob.glob(f"{tree}/tests/{kind}/*balloon*.c")
                  if is_program(tree, kind, os.path.basename(path)[:-2]))


def is_program(tree, kind, name):
    """Has tests/@kind/meson.build a program of that name, not only a file?"""
    text = overlay.read(f"{tree}/tests/{kind}/meson.build")
    return re.search(rf"'{re.escape(name)}'\s*:", text) is not None


def goals(form, tree, suffix):
    """What Ninja is to build; all if that is empty."""
    if form.more == ("all",):
        return []
    programs = [f"qemu-system-{target}" for target in form.targets]
    for kind in form.more:
        programs += our_programs(tree, kind)
    qtests = {*form.built, *(name for _, name in form.tests)}
    programs += [f"tests/qtest/{name}" for name in qtests]
    return sorted({program + suffix for program in programs})


def check_device(emulator, form, environment):
    """Does @emulator have the device, as it should or should not?"""
    text = subprocess.run([emulator, "-device", "help"], env=environment,
                          check=True, text=True, stdout=subprocess.PIPE).stdout
    if (f'"{DEVICE}"' in text) != form.has_device:
        raise FormError(f"{emulator} should have {DEVICE}: {form.has_device}")


def paths_of(program, environment):
    """Paths of the tests in @program that are to run, as GLib's -r wants."""
    if os.path.basename(program) != "qos-test":
        return [None]
    below = {path[:path.index(BELOW) + len(BELOW)]
             for path in named.tests_of(program, environment) if BELOW in path}
    if not below:
        raise FormError(f"{program} has no test of the balloon")
    return sorted(below)


def run_test(program, environment):
    """Run a test program; returns how many cases passed."""
    passed = 0
    for path in paths_of(program, environment):
        done = subprocess.run(
            [program, "--tap", "-k", "-m", "quick",
             *(["-r", path] if path else [])], env=environment, text=True,
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        cases = len(re.findall(r"^ok \d", done.stdout, re.M))
        if done.returncode or not cases or "\nnot ok" in done.stdout:
            raise FormError(f"{program} fails:\n{done.stdout[-3000:]}")
        passed += cases
    return passed


def run_all(form, host, tree, folder, environment):
    """Run what was built; yields programs and how many cases passed."""
    def launcher(program, arguments=""):
        path = f"{folder}/run/{os.path.basename(program)}"
        host.write_launcher(path, f"{folder}/{program}", arguments)
        return path

    os.makedirs(f"{folder}/run", exist_ok=True)
    for target in form.targets:
        check_device(launcher(f"qemu-system-{target}", build.FIRMWARE_OPTIONS),
                     form, environment)
    for unit in our_programs(tree, "unit") if form.more else ():
        yield os.path.basename(unit), run_test(launcher(unit), environment)
    for target, test in form.tests:
        yield f"{target} {test}", run_test(
            launcher(f"tests/qtest/{test}"),
            {**environment, "QTEST_QEMU_BINARY":
             f"{folder}/run/qemu-system-{target}"})


def build_form(name, tree, environment):
    form = FORMS[name]
    host = form.host()
    folder = f"{FOLDER}/form-{name}"
    base.say(f"building the form {name} in {folder}")
    environment = {**environment, **dict(host.environment),
                   "CCACHE_BASEDIR": FOLDER}
    targets = ",".join(f"{target}-softmmu" for target in form.targets)
    build.configure(tree, folder, [
        *form.options, *host.options, f"--target-list={targets}",
        f"--cc=ccache {host.prefix}{form.cc}"], environment)
    build.ninja(folder, goals(form, tree, host.suffix), environment)
    passed = list(run_all(form, host, tree, folder, environment))
    print(f"{name}: built without a warning, "
          f"{'with' if form.has_device else 'without'} {DEVICE}"
          + "".join(f"; {test}: {cases} passed" for test, cases in passed),
          flush=True)


def buildable(names, version):
    """Those of the forms that QEMU of that @version can be built in."""
    for name in names:
        if int(version.partition(".")[0]) < FORMS[name].before:
            yield name
        else:
            base.say(f"QEMU {version} is not built in the form {name}")


@base.told("forms")
def main():
    parser = base.parser(__doc__)
    parser.add_argument("name", nargs="*", help=argparse.SUPPRESS)
    names = parser.parse_args().name or list(FORMS)
    for name in names:
        if name not in FORMS:
            parser.error(f"no form {name}; known are {', '.join(FORMS)}")
    base.understood()
    tree = f"{FOLDER}/qemu"
    environment = base.build_environment()
    overlay.lay(base.REPO, base.source(), tree)
    for name in buildable(names, base.version_of_tree(tree)):
        build_form(name, tree, environment)


if __name__ == "__main__":
    main()
