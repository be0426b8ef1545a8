# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests for the programs of this folder: image, accelerator, clean-up."""

import argparse
import contextlib
import glob
import os
import re
import signal
import sys
import tempfile
import time

LAB = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(LAB)
FUNCTIONAL = os.path.join(REPO, "tests", "functional")

sys.path[:0] = [FUNCTIONAL, os.path.join(LAB, "guest")]

import image  # noqa: E402  pylint: disable=wrong-import-position
from virtio_balloon_guest import BalloonGuest, GuestError  # noqa: E402

# Where ./balloon builds
with image.base.told("balloon"):
    BUILD = image.base.build_folder(REPO)
QEMU = os.path.join(BUILD, "qemu-system-x86_64")
TREE = os.path.join(BUILD, "qemu")

understood = image.base.understood
processors = image.base.processors
STARTED = time.monotonic()

# What runs out of time gets SIGTERM: its QEMUs must end then, too
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))


def progress(text):
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", file=sys.stderr,
          flush=True)


def told(name):
    """As base.told(), with the errors of guests."""
    return image.base.told(name, GuestError)


def positive(text):
    """The type of an option of a parser: a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def parser(doc):
    """A parser with the options of every program here; @doc is its help."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--qemu", default=QEMU, help="the QEMU to run")
    made.add_argument("--tree", default=TREE,
                      help="its source tree, for the Python packages in it")
    return made


def python_paths(tree):
    """Where QEMU's Python packages are: some releases build them, too."""
    tree = os.path.abspath(tree)
    return [f"{tree}/python",
            *glob.glob(f"{tree}-build/pyvenv/lib/python3*/site-packages")]


def machine_class(options):
    """The class QEMUMachine of QEMU's tree; GuestError if there is none."""
    if not os.access(options.qemu, os.X_OK):
        raise GuestError(f"no QEMU at {options.qemu}: `./balloon build`"
                         " makes it")
    sys.path[1:1] = python_paths(options.tree)
    try:
        from qemu.machine import QEMUMachine  # pylint: disable=C0415,E0401
    except ImportError as error:
        raise GuestError(f"no source of QEMU in {options.tree}: {error}"
                         ) from error
    return QEMUMachine


@contextlib.contextmanager
def guest(options, arguments=(), **settings):
    """A BalloonGuest, not started; its QEMU is killed at the end.

    @options: what parser() parsed.  @arguments: more for QEMU.
    @settings: passed to BalloonGuest; image: what to boot instead of image().
    """
    booted = settings.pop("image", None) or image.image()
    with tempfile.TemporaryDirectory(prefix="balloon-") as folder:
        vm = machine_class(options)(options.qemu, args=arguments,
                                    base_temp_dir=folder, log_dir=folder)
        with BalloonGuest(vm, folder, booted, **settings) as made:
            yield made


def accelerator(options):
    """'kvm' where it truly runs a guest, 'tcg' elsewhere.

    A machine may have /dev/kvm and be unable to run a guest, so one is
    booted where the processor claims to be able to.
    """
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        capable = re.search(r"^flags.*\b(vmx|svm)\b", file.read(), re.M)
    if not capable or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    with guest(options, accelerator="kvm") as trial:
        try:
            trial.start()
            trial.run("true", timeout=15)
        except Exception:  # pylint: disable=broad-except
            return "tcg"   # whatever went wrong, TCG works
    return "kvm"
