#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build QEMU with our files in other forms than the usual one, and test them.

usage: forms.py [NAME...]

  clang      with clang instead of gcc, our tests as well
  targets    for other architectures of guests: aarch64, ppc64, s390x
  no-device  with Kconfig leaving the balloon out: the commands stay, and link
  default    as QEMU's configure does it: all features, tools, manual

In each a warning is an error.  Each is built in build/form-NAME, from the tree
in build/qemu, is asked whether it has the device, and passes those qtests of
the balloon that its machines can run.
"""

import glob
import os
import re
import subprocess
import sys
from typing import NamedTuple, Tuple

import base
import build
import overlay

FOLDER = base.build_folder(build.REPO)
DEVICE = "virtio-balloon-device"


class Form(NamedTuple):
    targets: Tuple[str, ...] = ("x86_64",)
    cc: str = "gcc"
    options: Tuple[str, ...] = build.OPTIONS
    # what to build beside the emulators: ours, or all
    more: str = "ours"
    # the architecture and program of a test
    tests: Tuple[Tuple[str, str], ...] = ()
    has_device: bool = True


FORMS = {
    "clang": Form(cc="clang", tests=(
        ("x86_64", "qos-test"), ("x86_64", "virtio-balloon-test"),
        ("x86_64", "virtio-balloon-tell-test"))),
    "targets": Form(targets=("aarch64", "ppc64", "s390x"), tests=(
        ("aarch64", "qos-test"), ("ppc64", "qos-test"),
        ("ppc64", "virtio-balloon-endian-test"),
        ("s390x", "device-introspect-test"))),
    # What a machine needs is on, the rest of the devices is not
    "no-device": Form(options=(*build.OPTIONS, "--without-default-devices"),
                      more="none", has_device=False),
    # Debian's source of QEMU comes without its firmware
    "default": Form(options=("--enable-werror", "--enable-tools",
                             "--enable-docs", "--disable-download",
                             "--disable-install-blobs"),
                    more="all", tests=(("x86_64", "qos-test"),)),
}


class FormError(Exception):
    """A form that is not what it should be."""


def our_programs(tree):
    """The test programs of the balloon, as Ninja knows them."""
    return sorted(os.path.relpath(path, tree)[:-2] for path in
                  glob.glob(f"{tree}/tests/unit/test-*balloon*.c")
                  + glob.glob(f"{tree}/tests/qtest/virtio-balloon*-test.c")
                  if is_program(tree, os.path.basename(path)[:-2]))


def is_program(tree, name):
    """Has tests/*/meson.build a program of that name, not only a file?"""
    text = "".join(overlay.read(f"{tree}/tests/{folder}/meson.build")
                   for folder in ("unit", "qtest"))
    return re.search(rf"'{re.escape(name)}'\s*:", text) is not None


def goals(form, tree):
    """What Ninja is to build."""
    if form.more == "all":
        return []
    programs = [f"qemu-system-{target}" for target in form.targets]
    if form.tests and "x86_64" in form.targets:
        programs += our_programs(tree)
    return programs + sorted({f"tests/qtest/{name}" for _, name in form.tests})


def check_device(emulator, form):
    """Does @emulator have the device, as it should or should not?"""
    text = subprocess.run([emulator, "-device", "help"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    if (f'"{DEVICE}"' in text) != form.has_device:
        raise FormError(f"{emulator} should have {DEVICE}: {form.has_device}")


def paths_of(program, environment):
    """Paths of the tests in @program that are to run, as GLib's -r wants."""
    if os.path.basename(program) != "qos-test":
        return [None]
    listed = subprocess.run([program, "-l"], env=environment, text=True,
                            check=True, stdout=subprocess.PIPE).stdout
    below = re.findall(r"^(/\S*/virtio-balloon-tests)/", listed, re.M)
    if not below:
        raise FormError(f"{program} has no test of the balloon")
    return sorted(set(below))


def run_test(folder, target, name):
    """Run a test; returns how many cases passed."""
    emulator = f"{folder}/run/qemu-system-{target}"
    os.makedirs(f"{folder}/run", exist_ok=True)
    build.write_launcher(emulator, f"{folder}/qemu-system-{target}")
    environment = dict(os.environ, QTEST_QEMU_BINARY=emulator)
    program = f"{folder}/tests/qtest/{name}"
    passed = 0
    for path in paths_of(program, environment):
        done = subprocess.run(
            [program, "--tap", "-k", "-m", "quick",
             *(["-r", path] if path else [])], env=environment, text=True,
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        cases = len(re.findall(r"^ok \d", done.stdout, re.M))
        if done.returncode or not cases or "\nnot ok" in done.stdout:
            raise FormError(f"{name} fails for {target}:\n"
                            f"{done.stdout[-3000:]}")
        passed += cases
    return passed


def build_form(name, tree, environment):
    form = FORMS[name]
    folder = f"{FOLDER}/form-{name}"
    base.say(f"building the form {name} in {folder}")
    environment = dict(environment, CCACHE_BASEDIR=FOLDER)
    targets = ",".join(f"{target}-softmmu" for target in form.targets)
    build.configure(tree, folder, [
        *form.options, f"--target-list={targets}", f"--cc=ccache {form.cc}"],
        environment)
    build.ninja(folder, goals(form, tree), environment)
    for target in form.targets:
        check_device(f"{folder}/qemu-system-{target}", form)
    passed = [f"{target} {test}: {run_test(folder, target, test)} passed"
              for target, test in form.tests]
    print(f"{name}: built without a warning, "
          f"{'with' if form.has_device else 'without'} {DEVICE}"
          + "".join(f"; {line}" for line in passed), flush=True)


def main():
    names = sys.argv[1:] or list(FORMS)
    if not set(names) <= set(FORMS):
        sys.exit(__doc__)
    tree = f"{FOLDER}/qemu"
    try:
        environment = base.build_environment()
        overlay.lay(build.REPO, base.source(), tree)
        for name in names:
            build_form(name, tree, environment)
    except (base.BaseError, overlay.OverlayError, FormError) as error:
        sys.exit(f"forms: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"forms: {error.cmd[0]} failed; what it said is above")


if __name__ == "__main__":
    main()
