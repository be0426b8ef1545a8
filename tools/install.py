#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Install the QEMU that was built, so that it can be used without this folder.

usage: install.py PREFIX

PREFIX/bin gets a program for each target, named like QEMU's; the emulators are
in PREFIX/libexec/virtio-balloon.  Firmware is Debian's, where it is.
"""

import glob
import os
import shutil
import subprocess
import sys

import base
import build

PLACE = "libexec/virtio-balloon"


def emulators(folder):
    """The emulators that were built in @folder."""
    return sorted(path for path in
                  glob.glob(f"{folder}/qemu-build/qemu-system-*")
                  if os.path.isfile(path) and os.access(path, os.X_OK))


def install(folder, prefix):
    """Install what is in @folder; returns the programs."""
    programs = []
    if not emulators(folder):
        return programs
    # For everybody, as what is installed is
    os.umask(0o022)
    os.makedirs(f"{prefix}/{PLACE}", exist_ok=True)
    os.makedirs(f"{prefix}/bin", exist_ok=True)
    for emulator in emulators(folder):
        name = os.path.basename(emulator)
        # One that runs is not written into
        new = f"{prefix}/{PLACE}/{name}.new"
        shutil.copyfile(emulator, new)
        os.chmod(new, 0o755)
        subprocess.run(["strip", "--strip-debug", new], check=True)
        os.rename(new, f"{prefix}/{PLACE}/{name}")
        programs.append(f"{prefix}/bin/{name}")
        build.write_launcher(programs[-1], f"{prefix}/{PLACE}/{name}")
    return programs


@base.told("install")
def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        programs = install(base.build_folder(base.REPO),
                           os.path.abspath(sys.argv[1]))
    except PermissionError as error:
        sys.exit(f"install: {error}: run this with sudo, or give another"
                 " PREFIX")
    if not programs:
        sys.exit("install: nothing is built; run this first, not as root:"
                 " ./balloon build")
    print("\n".join(programs))


if __name__ == "__main__":
    main()
