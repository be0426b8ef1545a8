# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest that is itself a host: QEMU in it, and VFIO to assign devices.

QEMU, the programs that set limits, the libraries of all of them and the
kernel's modules for VFIO are in its initramfs, and so is what a Linux guest in
it boots.
"""

import os
import re
import shlex
import subprocess
import tempfile

import image
from image import base

MODULES = ("vfio_iommu_type1", "vfio_pci")
PROGRAMS = ("/usr/bin/prlimit", "/usr/bin/setpriv")
FIRMWARE = ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin")
# Where things are in the guest
QEMU = "/nest/qemu -L /nest/firmware"
KERNEL, INITRD = "/nest/kernel", "/nest/initrd"


def launched(launcher):
    """What ./balloon build's program starts: (QEMU, folders of firmware)."""
    words = shlex.split(image.read(launcher).decode().splitlines()[-1])
    return words[1], [folder for option, folder in zip(words, words[1:])
                      if option == "-L"]


def stripped(program):
    """The bytes of @program without what is for debuggers."""
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "program")
        subprocess.run(["strip", "-o", output, program], check=True)
        return image.read(output)


def libraries(program):
    """Paths of the shared libraries of @program, its loader included."""
    text = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    return re.findall(r"(/\S+) \(0x", text)


def firmware(folders):
    """Paths of the FIRMWARE, each from the first of @folders that has it."""
    for name in FIRMWARE:
        paths = [f"{folder}/{name}" for folder in folders
                 if os.path.exists(f"{folder}/{name}")]
        if not paths:
            raise base.BaseError(f"no firmware {name} in {' '.join(folders)}")
        yield paths[0]


def files(launcher):
    """Path in the initramfs -> (bytes, permissions), but for the modules."""
    qemu, folders = launched(launcher)
    inner = image.image()
    found = {"nest/qemu": (stripped(qemu), 0o755),
             "nest/kernel": (image.read(inner.kernel), 0o644),
             "nest/initrd": (image.read(inner.initrd), 0o644)}
    for path in firmware(folders):
        name = os.path.basename(path)
        found[f"nest/firmware/{name}"] = image.read(path), 0o644
    for program in (qemu, *PROGRAMS):
        for path in libraries(program):
            found[path.lstrip("/")] = image.read(path), 0o755
    for program in PROGRAMS:
        found[program.lstrip("/")] = image.read(program), 0o755
    return found


def nest(launcher, folder):
    """Make the image in @folder; returns an Image."""
    return image.make(*image.packages(), os.path.join(folder, "nest.cpio"),
                      (), MODULES, files(launcher))
