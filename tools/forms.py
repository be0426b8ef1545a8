#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build QEMU with our files in other forms than the usual one.

usage: forms.py [NAME...]

  clang      with clang instead of gcc, our tests as well; warnings are errors
  aarch64    for another architecture of guests
  no-device  with Kconfig leaving the balloon out: the commands stay, and link

Each is built in build/form-NAME, from the tree in build/qemu, and is
then asked whether it has the device.
"""

import glob
import os
import subprocess
import sys
from typing import NamedTuple, Tuple

import base
import build
import overlay

FOLDER = base.build_folder(build.REPO)
DEVICE = "virtio-balloon-device"


class Form(NamedTuple):
    target: str = "x86_64"
    cc: str = "gcc"
    options: Tuple[str, ...] = ()
    has_tests: bool = False
    has_device: bool = True


FORMS = {
    "clang": Form(cc="clang", has_tests=True),
    "aarch64": Form(target="aarch64"),
    # What a machine needs is on, the rest of the devices is not
    "no-device": Form(options=("--without-default-devices",),
                      has_device=False),
}


class FormError(Exception):
    """A form that is not what it should be."""


def our_programs(tree):
    """The test programs of the balloon, as Ninja knows them."""
    return sorted(os.path.relpath(path, tree)[:-2] for path in
                  glob.glob(f"{tree}/tests/unit/test-virtio-balloon-*.c")
                  + [f"{tree}/tests/qtest/{name}.c" for name in
                     ("qos-test", "virtio-balloon-test",
                      "virtio-balloon-endian-test",
                      "virtio-balloon-hostile-test",
                      "virtio-balloon-lifecycle-test",
                      "virtio-balloon-tell-test")])


def check_device(emulator, form):
    """Does @emulator have the device, as it should or should not?"""
    text = subprocess.run([emulator, "-device", "help"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    if (f'"{DEVICE}"' in text) != form.has_device:
        raise FormError(f"{emulator} should have {DEVICE}: {form.has_device}")


def build_form(name, tree, environment):
    form = FORMS[name]
    emulator = f"qemu-system-{form.target}"
    folder = f"{FOLDER}/form-{name}"
    base.say(f"building the form {name} in {folder}")
    environment = dict(environment, CCACHE_BASEDIR=FOLDER)
    build.configure(tree, folder, [
        *build.OPTIONS, f"--target-list={form.target}-softmmu",
        f"--cc=ccache {form.cc}", *form.options], environment)
    build.ninja(folder, [emulator, *(our_programs(tree) if form.has_tests
                                     else [])], environment)
    check_device(f"{folder}/{emulator}", form)
    print(f"{name}: built without a warning, "
          f"{'with' if form.has_device else 'without'} {DEVICE}")


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
