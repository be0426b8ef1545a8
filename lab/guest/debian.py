# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux guests of any suite and architecture that Debian has.

Kernel and busybox are fetched once, and stay in the user's cache folder; to
have newer ones, remove its folder `guests`.
"""

import glob
import os
import re
import subprocess
import tarfile
import tempfile

import image
from image import base

# What a guest needs of a kernel's packages, and of busybox's
WANTED = re.compile(r"/bin/busybox$|/(vmlinu[xz]\b|virtio)[^/]*$")


def unpack(deb, folder):
    """Unpack what is wanted of a package into @folder."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb],
                          stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile() and WANTED.search(member.name):
                    archive.extract(member, folder)
    if process.returncode:
        raise base.BaseError(f"{deb} is damaged")


def download(packages, folder, environment):
    """Fetch and unpack @packages into @folder."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as debs:
        base.run(["apt-get", "-q", "download", *packages], environment, debs)
        for deb in glob.glob(f"{debs}/*.deb"):
            unpack(deb, folder)


def version_key(match):
    """Sorts names of packages by the versions in them."""
    return [int(number) for number in re.findall(r"\d+", match[0])]


def kernels(names, flavour):
    """Lists of packages that make a kernel, the newest kernel first.

    @names: of all packages there are.  Newer kernels come in two parts.
    """
    pattern = rf"linux-image-(\d[\d.]*(?:-\d+|[+~]\w+)*-{flavour})"
    found = filter(None, (re.fullmatch(pattern, name) for name in names))
    for match in sorted(found, key=version_key, reverse=True):
        parts = [f"linux-{part}-{match[1]}" for part in ("binary", "modules")]
        yield parts if set(parts) <= set(names) else [match[0]]


def package_names(environment):
    return base.query(["pkgnames"], environment).split()


def fetched(name, suite, architecture, choices):
    """Folder of what was unpacked of the first of @choices to be had.

    @choices: takes the names of all packages, returns lists of some.
    """
    path = base.cache("guests", name)
    with base.locked("guests"):
        if os.path.isdir(path):
            return path
        for refresh in (False, True):
            environment = base.apt_environment(refresh, suite, architecture)
            for packages in choices(package_names(environment)):
                base.say(f"fetching {' '.join(packages)} of {suite}")
                try:
                    with base.unpacking(path) as folder:
                        download(packages, folder, environment)
                    return path
                except base.BaseError as error:
                    base.say(str(error).partition(":")[0])
    raise base.BaseError(f"Debian's {suite} for {architecture} gives no {name}")


def guest_image(suite, architecture, flavour):
    """An Image of the newest kernel that can be had; BaseError if none can."""
    kernel = fetched(f"{suite}-{flavour}", suite, architecture,
                     lambda names: kernels(names, flavour))
    busybox = fetched(f"busybox-{architecture}", base.SUITE, architecture,
                      lambda names: [["busybox-static"]])
    return image.make(busybox, kernel,
                      base.cache("guests", f"{suite}-{flavour}.cpio"))
