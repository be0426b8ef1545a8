# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU with an assigned device, on a host that is a Linux guest.

The nest is a guest with an emulated IOMMU and an emulated NVMe controller,
which its vfio-pci owns.  A QEMU in it is reached through ports of virtio: its
monitor, its qtest, and the commands of a Linux guest in it.
"""

import base64
import collections
import contextlib
import json
import re
import select
import socket
import threading
import time

import guests
import nest
from bench_qtest import Qtest
from virtio_balloon_guest import (BALLOON_PAGE, GIB, KERNEL_PARAMETERS, KIB,
                                  MIB, Channel, GuestError)

MEMORY = 2 * GIB
NVME = "0000:00:04.0"           # in the nest
PORTS = ("qtest", "monitor", "watch", "commands")
BALLOON_SLOT, NVME_SLOT = 4, 5  # in the QEMU in it
BALLOON = "virtio-balloon-pci,must-tell-host=on,free-page-reporting=on"
COORDINATED = BALLOON + ",coordinated-discards=on"
# Who has this capability may lock as much as he likes
UNPRIVILEGED = "/usr/bin/setpriv --bounding-set=-ipc_lock"
PAUSE = 0.005                   # seconds between two questions


class Monitor:
    """A QMP client; it is there before QEMU, which greets it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.events = collections.deque()

    def close(self):
        self.file.close()
        self.socket.close()

    def greeted(self, is_alive):
        """Wait for QEMU."""
        while not select.select([self.socket], [], [], 1)[0]:
            if not is_alive():
                raise GuestError("QEMU does not start")
        self.next()
        self.cmd("qmp_capabilities")

    def next(self):
        try:
            line = self.file.readline()
        except TimeoutError:
            raise GuestError("QEMU's monitor is silent") from None
        if not line:
            raise GuestError("QEMU's monitor is closed")
        return json.loads(line)

    def cmd(self, name, **arguments):
        """What the command returns."""
        command = {"execute": name, "arguments": arguments}
        self.socket.sendall(json.dumps(command).encode() + b"\n")
        while "return" not in (answer := self.next()):
            if "error" in answer:
                raise GuestError(f"{name}: {answer['error']['desc']}")
            self.events.append(answer["event"])
        return answer["return"]

    def wait(self, event):
        """Wait for an event, by name; those before it are forgotten."""
        while event not in self.events:
            self.events.append(self.next().get("event"))
        while self.events.popleft() != event:
            pass


class Watch:
    """Asks for the status all the time; @longest: it had to wait, seconds."""

    def __init__(self, monitor):
        self.monitor = monitor
        self.longest = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.over.set()
        self.thread.join()

    def run(self):
        with contextlib.suppress(GuestError, OSError, ValueError):
            while not self.over.wait(PAUSE):
                before = time.monotonic()
                self.monitor.cmd("query-status")
                self.longest = max(self.longest, time.monotonic() - before)


class Memory:
    """Guest memory as qtest reaches it."""

    def __init__(self, qtest):
        self.qtest = qtest

    def read(self, address, size):
        return base64.b64decode(self.qtest.ask("b64read", address, size)[0])

    def write(self, address, data):
        self.qtest.ask("b64write", address, len(data),
                       base64.b64encode(data).decode())


class Nest:
    """The guest that is a host; made by nest_guest()."""

    def __init__(self, guest, folder):
        self.guest = guest
        self.folder = folder
        self.paths = {}
        self.run = guest.run

    def start(self):
        self.guest.start()
        self.run("true", timeout=180)
        self.guest.until(self.find_ports, 30, lambda: "ports are missing")
        device = f"/sys/bus/pci/devices/{NVME}"
        self.run(f"cd {device} && echo {NVME} >driver/unbind &&"
                 " echo vfio-pci >driver_override &&"
                 f" echo {NVME} >/sys/bus/pci/drivers_probe &&"
                 " test $(basename $(readlink driver)) = vfio-pci")

        # Its kernel keeps no free memory for each processor: that would count
        # as used
        self.run("echo 100000 >/proc/sys/vm/percpu_pagelist_high_fraction")

    def find_ports(self):
        text = self.run("cd /sys/class/virtio-ports; grep . */name")
        self.paths = {name: f"/dev/{port}" for port, name in
                      re.findall(r"^(\w+)/name:(\w+)$", text, re.M)}
        return set(PORTS) <= set(self.paths)

    def available(self):
        return self.guest.meminfo("MemAvailable")

    def faults(self):
        """Pages where DMA has failed so far, as the IOMMU saw it."""
        with open(f"{self.folder}/trace", encoding="ascii") as file:
            return {int(address, 16) & -BALLOON_PAGE for address in
                    re.findall(r"^vtd_dmar_fault .* addr 0x(\w+)",
                               file.read(), re.M)}

    def reported(self):
        """Those that its kernel tells of: not all, where there are many."""
        return {int(address, 16) for address in
                re.findall(r"DMAR: .*fault addr 0x(\w+)", self.run("dmesg"))}


@contextlib.contextmanager
def nest_guest(options, disk, folder):
    """A Nest that runs; its NVMe controller has the file @disk.

    It has one processor: QEMU before 11.1, emulating two, may end by an
    assertion when one of them moves a device's registers while the other
    accesses some.
    """
    arguments = ["-machine", "q35,kernel-irqchip=split", "-cpu", "max",
                 "-smp", "1", "-D", f"{folder}/trace",
                 "-trace", "vtd_dmar_fault",
                 "-device", "intel-iommu,intremap=on,caching-mode=on",
                 "-drive", f"if=none,id=disk,format=raw,file={disk}",
                 "-device", "nvme,drive=disk,serial=nest,addr=4"]
    with guests.guest(options, arguments, memory=MEMORY, balloon=None,
                      image=nest.nest(options.qemu, folder),
                      parameters="intel_iommu=on") as guest:
        for name in PORTS:
            guest.vm.add_args(
                "-chardev", f"socket,id={name},path={folder}/{name},"
                            "server=on,wait=off",
                "-device", f"virtserialport,chardev={name},name={name}")
        made = Nest(guest, folder)
        made.start()
        yield made


class Inner:
    """A QEMU in the nest; made by inner()."""

    def __init__(self, host):
        self.host = host
        self.pid = None
        self.started = None             # seconds that it took
        self.monitor = Monitor(f"{host.folder}/monitor")
        self.watcher = Monitor(f"{host.folder}/watch")
        self.cmd = self.monitor.cmd

    def start(self, arguments):
        before = time.monotonic()
        self.pid = int(self.host.run(
            "ulimit -l unlimited;"
            f" {UNPRIVILEGED} {nest.QEMU} {' '.join(arguments)}"
            " >/run/inner 2>&1 </dev/null & echo $!"))
        try:
            self.monitor.greeted(self.is_alive)
            self.started = time.monotonic() - before
            self.watcher.greeted(self.is_alive)
        except GuestError as error:
            raise self.error(str(error)) from error

    def is_alive(self):
        return self.host.guest.attempt(f"kill -0 {self.pid}")[0] == 0

    def stop(self):
        if self.pid:
            self.host.run(f"kill -9 {self.pid}; while kill -0 {self.pid}"
                          " 2>/dev/null; do sleep 0.1; done")
        self.monitor.close()
        self.watcher.close()

    def error(self, message):
        """A GuestError with what QEMU had to say."""
        return GuestError(f"{message}\n{self.host.run('tail /run/inner')}")

    def status(self, name):
        """A figure of its process in bytes, as VmLck."""
        text = self.host.run(f"cat /proc/{self.pid}/status")
        return int(re.search(rf"^{name}:\s*(\d+) kB", text, re.M)[1]) * KIB

    def locked(self):
        return self.status("VmLck")

    def resident(self):
        return self.status("VmRSS")

    def limit(self, size):
        """How much it may lock."""
        self.host.run(f"/usr/bin/prlimit --pid {self.pid}"
                      f" --memlock={size}:unlimited")

    def trace(self):
        """(seconds, event, arguments) of all that it traced."""
        return [(float(at), name, arguments) for at, name, arguments in
                re.findall(r"^\d+@([\d.]+):(\w+) (.*)$",
                           self.host.run("cat /run/trace"), re.M)]

    def counters(self):
        return self.cmd("query-balloon")["counters"]

    def watch(self):
        return Watch(self.watcher)

    def until(self, condition, timeout, complaint):
        self.host.guest.until(condition, timeout, complaint)

    def settled(self, waiting, timeout=60):
        """Wait until all has been discarded but @waiting bytes at most."""
        self.until(lambda: self.counters()["waiting"] <= waiting, timeout,
                   lambda: f"counters: {self.counters()}")


@contextlib.contextmanager
def inner(host, memory, arguments, balloon=COORDINATED, assigned=True):
    """An Inner that runs; it may lock as much as it likes."""
    made = Inner(host)
    command = [
        "-nodefaults -vga none -display none -M pc -m", str(memory // MIB),
        "-msg timestamp=on", "-D /run/trace -trace 'virtio_balloon_*'",
        f"-device {balloon},id=balloon0,disable-legacy=on,addr={BALLOON_SLOT}"]
    for name in "monitor", "watch":
        command.append(f"-chardev pipe,id={name},path={host.paths[name]}"
                       f" -mon chardev={name},mode=control")
    if assigned:
        command.append(f"-device vfio-pci,host={NVME},addr={NVME_SLOT}")
    try:
        host.run("rm -f /run/trace")
        made.start([*command, *arguments])
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def driven(host, memory, **settings):
    """An Inner without a guest, and the Qtest that drives it."""
    qtest = Qtest(f"{host.folder}/qtest")
    try:
        with inner(host, memory, [
                "-accel qtest -qtest chardev:qtest -qtest-log /dev/null",
                f"-chardev pipe,id=qtest,path={host.paths['qtest']}"],
                **settings) as made:
            yield made, qtest
    finally:
        qtest.close()


class Linux:
    """A Linux guest in an Inner."""

    def __init__(self, host):
        self.host = host
        self.channel = Channel(f"{host.folder}/commands")

    def run(self, command, timeout=300):
        """Its output; the command must succeed."""
        self.channel.send(command)
        try:
            code, output = self.channel.answer(timeout)
        except OSError as error:
            raise GuestError(f"no answer to `{command}`: {error}; the guest's"
                             f" console:\n{self.host.run('tail /run/console')}"
                             ) from error
        if code:
            raise GuestError(f"`{command}` ended with {code}: {output}")
        return output


@contextlib.contextmanager
def booted(host, memory):
    """An Inner with a Linux guest, which boots; and the Linux."""
    linux = Linux(host)
    try:
        with inner(host, memory, [
                "-accel tcg,tb-size=128 -cpu max",
                f"-kernel {nest.KERNEL} -initrd {nest.INITRD}",
                f"-append '{KERNEL_PARAMETERS}' -serial file:/run/console",
                f"-chardev pipe,id=lab,path={host.paths['commands']}",
                "-device virtio-serial-pci",
                "-device virtserialport,chardev=lab,name=lab"]) as made:
            yield made, linux
    finally:
        linux.channel.close()
