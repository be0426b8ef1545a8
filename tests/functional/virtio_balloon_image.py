# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Linux guest boots: a kernel of Debian's, and an initramfs of ours.

The initramfs holds busybox, `init` and the PROGRAMS of the folder
virtio-balloon, and those modules of the kernel that are named in MODULES.
"""

import glob
import lzma
import os
import re
import stat
import subprocess
import tempfile
from typing import NamedTuple

from virtio_balloon_guest import GuestError

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                      "virtio-balloon")
INIT = f"{FOLDER}/init"
# Those that the kernel has built in, and what they depend on, are seen to; the
# last of them must be there.
MODULES = ("virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk",
           "virtio_balloon")
# Made of C files of the folder
PROGRAMS = ("memtool", "kexec")
FOLDERS = ("bin", "dev", "mem", "modules", "proc", "run", "sys")


class Image(NamedTuple):
    """Paths of what QEMU boots with -kernel and -initrd."""

    kernel: str
    initrd: str


def read(path):
    with open(path, "rb") as file:
        return file.read()


def only(pattern):
    """The one file that matches @pattern."""
    paths = glob.glob(pattern, recursive=True)
    if len(paths) != 1:
        raise GuestError(f"{pattern}: {len(paths)} files, 1 expected")
    return paths[0]


def source(program):
    """The path of the C file that @program is made of."""
    return f"{FOLDER}/{program}.c"


# --- what is in it ---------------------------------------------------------

def module_bytes(path):
    data = read(path)
    return lzma.decompress(data) if path.endswith(".xz") else data


def dependencies(module):
    """Names of the modules that @module, its bytes, says it depends on."""
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    return match[1].decode().split(",") if match and match[1] else []


def modules(kernel, names=MODULES):
    """Bytes of modules by file name, in an order they can be loaded.

    @kernel: the folder of a kernel's unpacked package.
    """
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
        raise GuestError(f"{kernel} has no module {names[-1]}")
    return found


def compiled(program):
    """One of PROGRAMS, linked statically, as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "program")
        subprocess.run(["gcc", "-static", "-O2", "-o", output,
                        source(program)], check=True)
        return read(output)


# --- as the archive ("newc") that Linux unpacks ----------------------------

def entry(number, name, mode, data=b""):
    """One member: its header, name and @data, each padded to four bytes."""
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0,
              len(name) + 1, 0)
    head = "070701" + "".join(f"{field:08x}" for field in fields) + name
    head = head.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def archive(folders, files, links):
    """The same bytes for the same members, everywhere, whoever makes it.

    @folders: paths, parents first.  @files: path -> (bytes, permissions).
    @links: path -> target.
    """
    members = [(name, stat.S_IFDIR | 0o755) for name in folders]
    members += [(name, stat.S_IFREG | permissions, data)
                for name, (data, permissions) in files.items()]
    members += [(name, stat.S_IFLNK | 0o777, target.encode())
                for name, target in links.items()]
    members.append(("TRAILER!!!", 0))
    return b"".join(entry(number, *member)
                    for number, member in enumerate(members, 1))


def parents(name):
    """The folders on the way to the file @name."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def initrd_bytes(busybox, kernel, programs=(), names=MODULES, more=()):
    """The initramfs, from the paths of busybox and the kernel's folder.

    @programs: which of PROGRAMS it gets.  @names: of the modules.
    @more: files as archive() takes them; they get their folders.
    """
    drivers = modules(kernel, names)
    files = {"init": (read(INIT), 0o755),
             "bin/busybox": (read(busybox), 0o755),
             "modules/order": ("\n".join(drivers).encode() + b"\n", 0o644)}
    for name in programs:
        files[f"bin/{name}"] = compiled(name), 0o755
    for name, data in drivers.items():
        files[f"modules/{name}"] = data, 0o644
    files.update(more)
    folders = {parent for name in files for parent in parents(name)}
    return archive(sorted({*FOLDERS, *folders}), files,
                   {"bin/sh": "busybox"})


def make(busybox, kernel, initrd, *what):
    """Write the file @initrd; returns the Image.

    @busybox, @kernel: folders of their unpacked packages.
    @what: more for initrd_bytes().
    """
    data = initrd_bytes(only(f"{busybox}/**/bin/busybox"), kernel, *what)
    with open(f"{initrd}.new", "wb") as file:
        file.write(data)
    os.rename(f"{initrd}.new", initrd)
    # In /boot, or beside its modules
    return Image(only(f"{kernel}/**/vmlinu*"), initrd)
