# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts other than this machine for which QEMU is built, and what runs that.

What Debian has of libraries for them goes into the cache folder, as does GLib
for Windows, which Debian has not: it is built there once from Debian's source.
"""

import contextlib
import glob
import os
import shutil
import subprocess
from typing import NamedTuple, Tuple

import base
import overlay

# What QEMU's configure is told to use of libraries for i386, and their headers
I386 = "i686-linux-gnu"
I386_LIBRARIES = "usr/lib/i386-linux-gnu"
I386_PACKAGES = ("libatomic1", "libc6", "libc6-dev", "libfdt-dev", "libfdt1",
                 "libgcc-s1", "libgio-2.0-dev", "libglib2.0-0t64",
                 "libpcre2-8-0", "libpcre2-dev", "libsysprof-capture-4-dev",
                 "linux-libc-dev", "zlib1g", "zlib1g-dev")

MINGW = "x86_64-w64-mingw32"
# How GLib is built for it
MINGW_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mingw")
# The library, what it needs to run a program, and a header that is generated
GLIB_FILES = ("glib/libglib-2.0-0.dll", "glib/gspawn-win64-helper.exe",
              "glib/gspawn-win64-helper-console.exe",
              "gmodule/gmodule-visibility.h")


class Host(NamedTuple):
    # of the names of the compiler and its like
    prefix: str = ""
    # of the names of programs
    suffix: str = ""
    # of QEMU's configure
    options: Tuple[str, ...] = ()
    # what is added to build and to run
    environment: Tuple[Tuple[str, str], ...] = ()
    # the words of a shell script before a program that it runs
    runner: str = ""

    def write_launcher(self, path, program, arguments=""):
        """A script @path that runs @program, built for this host."""
        overlay.replace(path, f'#!/bin/sh\nexec {self.runner} '
                        f'{program}{self.suffix} {arguments} "$@"\n')
        os.chmod(path, 0o755)


def native():
    return Host()


def i386():
    root = base.fetch_debs(base.cache("hosts", "i386"), I386_PACKAGES, "i386")
    with contextlib.suppress(FileExistsError):
        os.symlink("usr/lib", f"{root}/lib")
    return Host(
        prefix=f"{I386}-",
        options=(f"--cross-prefix={I386}-", f"--extra-cflags=--sysroot={root}"),
        environment=(("PKG_CONFIG", "pkg-config"),
                     ("PKG_CONFIG_LIBDIR", f"{root}/{I386_LIBRARIES}/pkgconfig"
                      f":{root}/usr/share/pkgconfig"),
                     ("PKG_CONFIG_SYSROOT_DIR", root)),
        # A kernel may be unable to run programs of 32 bits; a test that runs
        # itself again takes the script for itself
        runner=f"{base.fetch_deb('qemu-user')}/usr/bin/qemu-i386 -0 $0"
               f" -L {root} -E LD_LIBRARY_PATH=/{I386_LIBRARIES}")


def build_glib(folder, environment):
    """Build GLib, and PCRE2 that it needs, in the new @folder."""
    with base.locked("apt"):
        base.apt_get(["source", "--tar-only", "glib2.0", "pcre2"], folder)
    for archive in glob.glob(f"{folder}/*.orig.tar.*"):
        subprocess.run(["tar", "-xf", archive], cwd=folder, check=True)
    pcre2, = glob.glob(f"{folder}/pcre2-*/")
    glib, = glob.glob(f"{folder}/glib-*/")
    for where, *command in (
            (pcre2, "./configure", "--quiet", f"--host={MINGW}",
             f"--prefix={folder}", "--disable-static"),
            # without its programs
            (pcre2, "make", "--silent", f"-j{base.processors()}",
             "install-libLTLIBRARIES", "install-data"),
            (folder, "meson", "setup", "--wrap-mode=nodownload",
             f"--cross-file={MINGW_FILES}/cross.txt",
             f"-Dc_args=-I{MINGW_FILES}", "-Dauto_features=disabled",
             "-Dtests=false", glib, "build"),
            (folder, "ninja", "-C", "build", *GLIB_FILES)):
        subprocess.run(command, cwd=where, env=environment, check=True,
                       stdout=subprocess.DEVNULL)
    # It is not installed: QEMU asks where its libraries are, and looks for the
    # header of its other library beside those of PCRE2
    os.symlink(f"{glib}gmodule/gmodule.h", f"{folder}/include/gmodule.h")
    with open(f"{folder}/build/meson-uninstalled/glib-2.0-uninstalled.pc", "a",
              encoding="utf-8") as file:
        file.write("bindir=${prefix}/glib\n")


def built_once(folder, build, *arguments):
    """Have @build fill the @folder, unless that was done to its end."""
    stamp = f"{folder}/.built"
    if not os.path.exists(stamp):
        base.say(f"filling {folder}, once")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        build(folder, *arguments)
        with open(stamp, "w", encoding="ascii"):
            pass


def library_folder(name):
    """Where the compiler has a DLL of its own."""
    path = subprocess.run([f"{MINGW}-gcc", f"-print-file-name={name}"],
                          stdout=subprocess.PIPE, text=True, check=True).stdout
    return os.path.dirname(path.strip())


def mingw():
    folder = base.cache("hosts", "mingw")
    environment = (
        ("PKG_CONFIG", "pkg-config"),
        ("PKG_CONFIG_LIBDIR", f"{folder}/build/meson-uninstalled"
         f":{folder}/lib/pkgconfig:{MINGW_FILES}"
         f":/usr/{MINGW}/lib/pkgconfig"),
        ("WINEPREFIX", base.cache("hosts", "wine")), ("WINEDEBUG", "-all"),
        ("WINEPATH", ";".join(f"Z:{path}" for path in (
            f"{folder}/bin", f"{folder}/build/glib", f"/usr/{MINGW}/lib",
            library_folder("libgcc_s_seh-1.dll")))))
    with base.locked("mingw"):
        built_once(folder, build_glib,
                   {**base.build_environment(), **dict(environment)})
    return Host(
        prefix=f"{MINGW}-", suffix=".exe", environment=environment,
        options=(f"--cross-prefix={MINGW}-", "--disable-kvm",
                 "--disable-fdt"),
        runner="/usr/lib/wine/wine64")
