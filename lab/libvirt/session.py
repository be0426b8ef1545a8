# SPDX-License-Identifier: GPL-2.0-or-later
"""A libvirtd of our own: private, unprivileged, gone when the program ends.

It is what serves qemu:///session, with all that it reads and writes in a new
folder and out of reach of D-Bus, so that it neither meets nor disturbs another
libvirtd.  Such a one runs as any user but root; root lends it `nobody`, and
copies of the files that this user cannot read.
"""

import atexit
import contextlib
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from virtio_balloon_guest import PATIENCE

# Needs neither virtlogd nor a security driver
CONFIGURATION = 'stdio_handler = "file"\nsecurity_driver = "none"\n'
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


class LibvirtError(Exception):
    """virsh or libvirtd did not do what was asked of it."""


def until(condition, complaint, timeout=60):
    """Poll @condition; returns what it says once that is true."""
    deadline = time.monotonic() + timeout * PATIENCE
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise LibvirtError(f"after {timeout} s: {complaint()}")
        time.sleep(0.02)
    return answer


class Session:
    """The daemon, and virsh to talk to it.

    @emulator: the QEMU that domains are to have; use .emulator in their XML.
    """

    def __init__(self, emulator):
        self.folder = tempfile.mkdtemp(prefix="balloon-libvirt-")
        atexit.register(self.end)
        self.user = AS_NOBODY if os.geteuid() == 0 else []
        self.daemon = None
        self.socket = f"{self.folder}/run/libvirt/libvirt-sock"
        self.log = f"{self.folder}/libvirtd.log"
        self.environment = self.private_environment()
        self.emulator = self.staged_emulator(os.path.abspath(emulator))
        self.write_configuration()
        self.start()

    def private_environment(self):
        nowhere = f"unix:path={self.folder}/no-bus"
        folders = {f"XDG_{name}": f"{self.folder}/{folder}"
                   for name, folder in (("RUNTIME_DIR", "run"),
                                        ("CONFIG_HOME", "config"),
                                        ("CACHE_HOME", "cache"),
                                        ("DATA_HOME", "data"))}
        return {"PATH": PATH, "HOME": self.folder, "LC_ALL": "C.UTF-8",
                "DBUS_SYSTEM_BUS_ADDRESS": nowhere,
                "DBUS_SESSION_BUS_ADDRESS": nowhere, **folders}

    def write_configuration(self):
        folder = f"{self.folder}/config/libvirt"
        os.makedirs(folder)
        os.mkdir(f"{self.folder}/run")
        with open(f"{folder}/qemu.conf", "w", encoding="ascii") as file:
            file.write(CONFIGURATION)
        if self.user:
            for path in (self.folder, folder, os.path.dirname(folder),
                         f"{self.folder}/run"):
                shutil.chown(path, "nobody", "nogroup")

    # Files that the daemon's user can read

    def staged(self, path):
        """@path, or a copy of that file where the user cannot read it."""
        if not self.user:
            return path
        copy = f"{self.folder}/{os.path.basename(path)}"
        shutil.copyfile(path, copy)
        os.chmod(copy, 0o755)
        return copy

    def staged_emulator(self, path):
        """The same for a QEMU, which may be a script that starts another."""
        staged = self.staged(path)
        with open(path, "rb") as file:
            script = file.read(4096)
        program = re.match(rb"#!/bin/sh\nexec (\S+)", script)
        if self.user and program:
            real = f"{self.folder}/program"
            shutil.copy(program[1].decode(), real)
            with open(staged, "wb") as file:
                file.write(script.replace(program[1], real.encode(), 1))
        return staged

    # The daemon

    def start(self):
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(
                [*self.user, "libvirtd"], env=self.environment, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        until(self.listens, lambda: f"libvirtd does not start: {self.tail()}")

    def listens(self):
        if self.daemon.poll() is not None:
            raise LibvirtError(f"libvirtd ended: {self.tail()}")
        with contextlib.suppress(OSError), socket.socket(
                socket.AF_UNIX) as connection:
            connection.connect(self.socket)
            return True
        return False

    def stop(self):
        """Stop the daemon; domains live on."""
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait(60)
            self.daemon = None

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-12:])

    def end(self):
        """Kill the daemon and what it started, and remove the folder."""
        atexit.unregister(self.end)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait()
        until(lambda: not [self.kill(path) for path in self.pid_files()],
              lambda: f"still running: {self.pid_files()}")
        shutil.rmtree(self.folder)

    def pid_files(self):
        """Those of processes that run with our folder in their arguments."""
        return [path for path in glob.glob(f"{self.folder}/**/*.pid",
                                           recursive=True)
                if self.folder.encode() in command_line(pid_in(path))]

    @staticmethod
    def kill(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid_in(path), signal.SIGKILL)

    # Its client

    def popen(self, *arguments):
        """virsh that runs along, its output a line at a time."""
        return subprocess.Popen(
            [*self.user, "stdbuf", "-oL", "virsh", "-q", "-c",
             f"qemu+unix:///session?socket={self.socket}", *arguments],
            env=self.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def shell(self, script):
        """Output of a shell script that calls virsh, and must succeed."""
        process = subprocess.run(
            [*self.user, "sh", "-e", "-c", script], text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=300,
            env={**self.environment, "LIBVIRT_DEFAULT_URI":
                 f"qemu+unix:///session?socket={self.socket}"})
        if process.returncode:
            raise LibvirtError(f"the script ended with {process.returncode}")
        return process.stdout

    def attempt(self, *arguments):
        """Exit code, output and errors of virsh."""
        with self.popen(*arguments) as process:
            output, errors = process.communicate(timeout=300)
        return process.returncode, output.strip(), errors.strip()

    def virsh(self, *arguments):
        """Output of virsh, which must succeed."""
        code, output, errors = self.attempt(*arguments)
        if code:
            raise LibvirtError(f"`virsh {' '.join(arguments)}`: {errors}\n"
                               f"libvirtd's log: {self.tail()}")
        return output

    def refusal(self, *arguments):
        """The error of virsh, which must fail."""
        code, output, errors = self.attempt(*arguments)
        if not code:
            raise LibvirtError(f"`virsh {' '.join(arguments)}` succeeded:"
                               f" {output}")
        return errors


def pid_in(path):
    """The number in a pid file; 0 when there is none."""
    with contextlib.suppress(OSError, ValueError):
        with open(path, encoding="ascii") as file:
            return int(file.read())
    return 0


def command_line(pid):
    """Arguments of the process @pid; nothing of one that is gone."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    return b""
