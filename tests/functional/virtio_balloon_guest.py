# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest with a memory balloon, seen from both sides.

The guest boots a kernel and an initramfs that serves commands on a
virtio-serial port named "lab": one line in; out comes a line "EXIT-CODE
LENGTH", then LENGTH bytes of output.
"""

import asyncio
import fcntl
import os
import re
import signal
import socket
import sys
import time

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
BALLOON_PAGE = 4 * KIB
# Lines of smaps, which counts huge pages apart
RESIDENT = ("Rss:", "Shared_Hugetlb:", "Private_Hugetlb:")
# How many times as long as usual anything may take: with sanitizers, say
PATIENCE = float(os.environ.get("BALLOON_TEST_PATIENCE", "1"))
# A host that is busy must not make the kernel doubt its timer
KERNEL_PARAMETERS = ("console=ttyS0 quiet panic=-1 mitigations=off"
                     " no_timer_check")
POOL = "/proc/sys/vm/nr_hugepages"
# What has the guest's driver go and come: by itself, and with its module
DRIVER = "/sys/bus/virtio/drivers/virtio_balloon"
UNBIND = f"cd {DRIVER} && basename virtio* >/run/name && cat /run/name >unbind"
BIND = f"cat /run/name >{DRIVER}/bind"
UNLOAD = "rmmod virtio_balloon"
RELOAD = "insmod /modules/virtio_balloon.ko"


class GuestError(Exception):
    """The guest or QEMU did not do what was asked of it."""


def pool_size():
    """How many huge pages the host has set aside."""
    with open(POOL, encoding="ascii") as file:
        return int(file.read())


def pool_grow(pages):
    """Make that @pages more; returns by how many it became more."""
    with open(POOL, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)        # other tests may run
        before = pool_size()
        file.write(str(max(0, before + pages)))
        file.flush()
        return pool_size() - before


def expect(condition, complaint):
    if not condition:
        raise GuestError(complaint)


class Channel:
    """Runs commands in the guest."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, command):
        self.socket.sendall(command.encode() + b"\n")

    def answer(self, timeout):
        """(exit code, output) of a command; OSError when none comes."""
        self.socket.settimeout(timeout * PATIENCE)
        head = self.file.readline()
        if not head:
            raise ConnectionError("QEMU closed the guest's channel")
        code, length = map(int, head.split())
        return code, self.file.read(length).decode(errors="replace")


class BalloonGuest:
    """A QEMUMachine that runs the guest; @folder takes sockets and logs."""

    def __init__(self, vm, folder, image, memory=GIB,
                 balloon="virtio-balloon-pci", accelerator="tcg",
                 parameters="", serial="virtio-serial-pci"):
        """@image: (kernel, initrd).  @balloon: what -device is given, without
        an id; it becomes balloon0 (None: no balloon).  @parameters: more for
        the kernel.  @serial: the device that has the port for commands."""
        self.vm = vm
        self.memory = memory
        self.channel = None
        self.console = os.path.join(folder, "console.txt")
        self.port = os.path.join(folder, "lab")
        self.ram = None
        kernel, initrd = image
        vm.add_args("-nodefaults", "-accel", accelerator,
                    "-m", f"{memory // KIB}k",
                    "-kernel", kernel, "-initrd", initrd, "-append",
                    f"{KERNEL_PARAMETERS} {parameters}",
                    "-serial", f"file:{self.console}",
                    "-chardev",
                    f"socket,id=lab,path={self.port},server=on,wait=off",
                    "-device", serial,
                    "-device", "virtserialport,chardev=lab,name=lab")
        if balloon:
            vm.add_args("-device", f"{balloon},id=balloon0")

    def start(self):
        """Launch QEMU; the guest answers some seconds later."""
        self.vm.launch()
        self.channel = Channel(self.port)

    def stop(self):
        """End QEMU; one that had ended badly before is quoted."""
        if self.channel:
            self.channel.close()
        self.vm.shutdown(hard=True)
        code = self.vm.exitcode()
        if code not in (None, 0, -signal.SIGKILL):
            print(f"QEMU ended with {code}: {self.vm.get_log()}",
                  file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.stop()

    # The guest's side

    def attempt(self, command, timeout=60):
        """Run @command in the guest; returns its exit code and output."""
        try:
            self.channel.send(command)
            return self.channel.answer(timeout)
        except OSError as error:
            raise self.error(f"no answer to `{command}` within {timeout} s"
                             f" ({error})") from error

    def run(self, command, timeout=60):
        """Output of @command in the guest, which must succeed."""
        code, output = self.attempt(command, timeout)
        if code:
            raise self.error(f"`{command}` ended with {code}: {output}")
        return output

    def total(self):
        """The guest's MemTotal in bytes."""
        return self.meminfo("MemTotal")

    def meminfo(self, name):
        text = self.run("cat /proc/meminfo")
        return int(re.search(rf"^{name}: *(\d+)", text, re.M)[1]) * KIB

    def churn(self, pattern):
        """Have a file rewritten all the time; @pattern: FILE MIB SEED."""
        self.run(f"memtool churn {pattern} >/mem/log &")

    def end_churn(self, pattern):
        """Memory that was rewritten all the time is what was written."""
        self.run(f"touch {pattern.split()[0]}.stop")
        self.until(lambda: "rounds" in self.run("cat /mem/log"), 30,
                   lambda: "it changed: " + self.run("cat /mem/log"))
        self.run(f"memtool verify {pattern}")

    # QEMU's side

    def hmp(self, line):
        """Answer of the human monitor to @line, without the line end."""
        answer = self.vm.cmd("human-monitor-command", command_line=line)
        return answer.replace("\r\n", "\n").rstrip("\n")

    def actual(self):
        return self.vm.cmd("query-balloon")["actual"]

    def target(self, size):
        self.vm.cmd("balloon", value=size)

    def reach(self, size, timeout=60):
        """Wait until `actual` is @size."""
        self.until(lambda: self.actual() == size, timeout,
                   lambda: f"actual is {self.actual()}, not {size}")

    def resize(self, size, timeout=60):
        self.target(size)
        self.reach(size, timeout)

    def resident(self):
        """Bytes of the guest's RAM that the host holds in memory."""
        return self.mapped(RESIDENT, lambda in_ram, *_: in_ram)

    def await_resident(self, size, timeout=30):
        """Wait until the host holds no more than @size bytes of it."""
        self.until(lambda: self.resident() <= size, timeout,
                   lambda: f"the host holds {self.resident() // MIB} MiB,"
                   f" which should be {size // MIB}")

    def mapped(self, figures, counts):
        """Bytes of memory that QEMU has mapped, by the host's account.

        @figures: beginnings of the lines of smaps to add up.  @counts: which
        mappings to look at, by whether they are the guest's RAM, by their
        permissions, such as "rw-p", and by their name.
        """
        if not self.ram:
            self.ram = self.ram_range()
        kib = 0
        with open(f"/proc/{self.vm.get_pid()}/smaps", encoding="utf-8",
                  errors="replace") as file:
            counted = False
            for line in file:
                head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)"
                                r"(?: +\S+){3} *(.*)$", line)
                if head:
                    in_ram = (int(head[1], 16) < self.ram[1] and
                              int(head[2], 16) > self.ram[0])
                    counted = counts(in_ram, head[3], head[4])
                elif counted and line.startswith(figures):
                    kib += int(line.split()[1])
        return kib * KIB

    def ram_range(self):
        """Host addresses (first, end) of the largest RAM block."""
        rows = re.findall(r"0x\w+ +0x\w+ +0x(\w+) +0x(\w+) +r[ow]$",
                          self.hmp("info ramblock"), re.M)
        size, start = max((int(s, 16), int(a, 16)) for s, a in rows)
        return start, start + size

    def migrate(self, uri, timeout=120, hints=0):
        """Migrate to @uri; returns the final answer of query-migrate.

        @hints: so many bytes at least must be left out for the guest's hints,
        before whose end next to nothing is sent, however slow the guest is.
        """
        if hints:
            self.bandwidth(MIB)
        self.vm.cmd("migrate", uri=uri)
        if hints:
            self.await_hints(hints, timeout)
            self.bandwidth(128 * MIB)
        return self.migrated(timeout)

    def move(self, target, uri, timeout=120, hints=0):
        """Migrate live to @target, started with -incoming @uri.

        The rest is as migrate() has it.
        """
        self.vm.cmd("migrate-set-parameters", **{"downtime-limit": 1000})
        info = self.migrate(uri, timeout, hints)
        target.arrive(timeout)
        return info

    def bandwidth(self, size):
        """What a migration may send in a second."""
        self.vm.cmd("migrate-set-parameters", **{"max-bandwidth": size})

    def await_hints(self, least, timeout):
        """Wait until a guest at work has nothing more to hint at."""
        def over():
            before = self.left_out()
            self.run("head -c 4194304 /dev/zero | md5sum", timeout)
            return least <= self.left_out() <= before

        self.until(over, timeout,
                   lambda: f"{self.left_out() // MIB} MiB are left out of"
                   f" {least // MIB}: {self.vm.cmd('query-migrate')}")

    def left_out(self):
        """Bytes that the migration need not send, as far as it has come."""
        ram = self.vm.cmd("query-migrate").get("ram")
        if not ram:
            return 0
        sent = (ram["duplicate"] + ram["normal"]) * ram["page-size"]
        return ram["total"] - ram["remaining"] - sent

    def migrated(self, timeout=120):
        """Wait until the migration that goes on is complete."""
        def over():
            status = self.vm.cmd("query-migrate").get("status")
            return status in ("completed", "failed", "cancelled")

        self.until(over, timeout,
                   lambda: f"migration: {self.vm.cmd('query-migrate')}")
        info = self.vm.cmd("query-migrate")
        if info["status"] != "completed":
            raise self.error(f"migration: {info}")
        return info

    def arrive(self, timeout=60):
        """Wait until a guest that was migrated to this QEMU runs here."""
        self.until(lambda: self.vm.cmd("query-status")["running"], timeout,
                   lambda: f"status: {self.vm.cmd('query-status')}")

    # Waiting

    def event(self, name, match=None, timeout=60):
        """Wait until QEMU sends an event, or has sent it and nobody took it.

        @match: what it must hold.  Returns: the event, which is taken now.
        """
        try:
            # With an int, QEMUMachine waits for ever
            return self.vm.event_wait(name, float(timeout * PATIENCE), match)
        except asyncio.TimeoutError:
            wanted = f"{name} with {match}" if match else name
            raise self.error(f"no event {wanted} in {timeout} s") from None

    def until(self, condition, timeout, complaint):
        """Poll @condition; at the deadline fail with what @complaint says."""
        deadline = time.monotonic() + timeout * PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise self.error(f"after {timeout} s: {complaint()}")
            time.sleep(0.02)

    def error(self, message):
        """A GuestError with the last lines of the guest's console."""
        try:
            with open(self.console, encoding="utf-8",
                      errors="replace") as file:
                tail = "".join(file.readlines()[-12:])
        except OSError:
            tail = ""
        return GuestError(f"{message}\nlast lines of the console:\n{tail}")
