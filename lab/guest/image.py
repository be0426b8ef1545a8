#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A small Linux guest: Debian 13's cloud kernel and an initramfs of ours.

The initramfs holds busybox, `init` and the PROGRAMS of this folder and the
kernel modules named in MODULES.  Both are kept in the user's cache folder and
made anew when something they are made of changes.

usage: image.py     make the image if need be; prints two lines of NAME=PATH
"""

import functools
import glob
import hashlib
import lzma
import os
import re
import subprocess
import sys
import tempfile
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "tools")]

import base  # noqa: E402
import newc  # noqa: E402

META_PACKAGE = "linux-image-cloud-amd64"
# Those that the kernel has built in, and what they depend on, are seen to; the
# last of them must be there.
MODULES = ("virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk",
           "virtio_balloon")
# Programs made of a C file of this folder
PROGRAMS = ("memtool", "kexec")
FOLDERS = ("bin", "dev", "mem", "modules", "proc", "run", "sys")


class Image(NamedTuple):
    """Paths of what QEMU boots with -kernel and -initrd."""

    kernel: str
    initrd: str


def read(path):
    with open(path, "rb") as file:
        return file.read()


def kernel_folder():
    """Folder of the unpacked kernel package."""
    return base.fetch_deb(base.dependency(META_PACKAGE, "linux-image-"))


def only(pattern):
    """The one file that matches @pattern."""
    paths = glob.glob(pattern, recursive=True)
    if len(paths) != 1:
        raise base.BaseError(f"{pattern}: {len(paths)} files, 1 expected")
    return paths[0]


def module_bytes(path):
    data = read(path)
    return lzma.decompress(data) if path.endswith(".xz") else data


def dependencies(module):
    """Names of the modules that @module, its bytes, says it depends on."""
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    return match[1].decode().split(",") if match and match[1] else []


def modules(kernel, names=MODULES):
    """Bytes of modules by file name, in an order they can be loaded."""
    found = {}

    def add(name):
        pattern = f"{kernel}/**/kernel/**/{name.replace('_', '[_-]')}.ko*"
        for path in glob.glob(pattern, recursive=True):
            data = module_bytes(path)
            for needed in dependencies(data):
                add(needed)
            found.setdefault(f"{name}.ko", data)

    for name in names:
        add(name)
    if f"{names[-1]}.ko" not in found:
        raise base.BaseError(f"{kernel} has no module {names[-1]}")
    return found


def compiled(source):
    """The program made of the C file @source, linked statically."""
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "program")
        subprocess.run(["gcc", "-static", "-O2", "-o", program, source],
                       check=True)
        return read(program)


def parents(name):
    """The folders on the way to the file @name."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def initrd_bytes(busybox, kernel, programs=(), names=MODULES, more=()):
    """The initramfs, from the paths of busybox and the kernel's folder.

    @programs: which of PROGRAMS it gets.  @names: of the modules.
    @more: files as newc.archive() takes them, and their folders.
    """
    drivers = modules(kernel, names)
    files = {"init": (read(f"{HERE}/init"), 0o755),
             "bin/busybox": (read(busybox), 0o755),
             "modules/order": ("\n".join(drivers).encode() + b"\n", 0o644)}
    for name in programs:
        files[f"bin/{name}"] = compiled(f"{HERE}/{name}.c"), 0o755
    for name, data in drivers.items():
        files[f"modules/{name}"] = data, 0o644
    files.update(more)
    folders = {parent for name in files for parent in parents(name)}
    return newc.archive(sorted({*FOLDERS, *folders}), files,
                        {"bin/sh": "busybox"})


def content_key(*paths):
    digest = hashlib.sha256()
    for path in paths:
        digest.update(read(path))
    return digest.hexdigest()[:16]


@functools.cache
def image():
    """Make the image unless it is there; returns an Image.

    The environment may name another kernel and initramfs.  Raises BaseError
    when the packages cannot be had.
    """
    given = Image(os.environ.get("BALLOON_GUEST_KERNEL", ""),
                  os.environ.get("BALLOON_GUEST_INITRD", ""))
    if all(given):
        return given
    kernel = kernel_folder()
    vmlinuz = only(f"{kernel}/boot/vmlinuz-*")
    busybox = only(f"{base.fetch_deb('busybox-static')}/**/bin/busybox")
    key = content_key(vmlinuz, busybox, __file__, f"{HERE}/newc.py",
                      f"{HERE}/init",
                      *(f"{HERE}/{name}.c" for name in PROGRAMS))
    initrd = base.cache("guest", f"initrd-{key}.cpio")
    with base.locked("guest"):
        if not os.path.exists(initrd):
            base.say("making the guest's initramfs")
            with open(initrd + ".new", "wb") as file:
                file.write(initrd_bytes(busybox, kernel, PROGRAMS))
            os.rename(initrd + ".new", initrd)
    return Image(vmlinuz, initrd)


def variables():
    """The image as environment variables; image() believes them."""
    made = image()
    return {"BALLOON_GUEST_KERNEL": made.kernel,
            "BALLOON_GUEST_INITRD": made.initrd}


def main():
    try:
        for name, path in variables().items():
            print(f"{name}={path}")
    except base.BaseError as error:
        sys.exit(f"image: {error}")


if __name__ == "__main__":
    main()
