#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest of the functional tests, from Debian 13's packages.

Packages and initramfs are kept in the user's cache folder; the latter is made
anew when something it is made of changes.

usage: image.py     make the image if need be; prints two lines of NAME=PATH
"""

import functools
import hashlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, f"{REPO}/tools", f"{REPO}/tests/functional"]

import base  # noqa: E402
import virtio_balloon_image as made_of  # noqa: E402
from virtio_balloon_guest import GuestError  # noqa: E402
from virtio_balloon_image import Image, make, only, read  # noqa: E402,F401

META_PACKAGE = "linux-image-cloud-amd64"
# A device of virtio-mem may be there as well; the balloon must be the last
MODULES = ("virtio_mem", *made_of.MODULES)


def package_names():
    return "busybox-static", base.dependency(META_PACKAGE, "linux-image-")


def packages():
    """Folders of the unpacked packages: (busybox, kernel)."""
    return tuple(map(base.fetch_deb, package_names()))


def asset_variables():
    """Have the tests find the packages in QEMU's way, and fetch nothing."""
    folders = {base.fetch_asset(name) for name in package_names()}
    return {"QEMU_TEST_CACHE_DIR": folders.pop(),
            "QEMU_TEST_NO_DOWNLOAD": "1"}


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
    busybox, kernel = packages()
    vmlinuz = only(f"{kernel}/boot/vmlinuz-*")
    key = content_key(vmlinuz, only(f"{busybox}/**/bin/busybox"), __file__,
                      made_of.__file__, made_of.INIT,
                      *map(made_of.source, made_of.PROGRAMS))
    initrd = base.cache("guest", f"initrd-{key}.cpio")
    with base.locked("guest"):
        if not os.path.exists(initrd):
            base.say("making the guest's initramfs")
            make(busybox, kernel, initrd, made_of.PROGRAMS, MODULES)
    return Image(vmlinuz, initrd)


def variables():
    """The image as environment variables; image() believes them."""
    made = image()
    return {"BALLOON_GUEST_KERNEL": made.kernel,
            "BALLOON_GUEST_INITRD": made.initrd}


@base.told("image", GuestError)
def main():
    for name, path in variables().items():
        print(f"{name}={path}")


if __name__ == "__main__":
    main()
