# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU without a guest, and what its process costs and holds.

Unless it is idle, the machine's one vCPU runs an endless loop under TCG, so
that the host's kernel has another processor to tell of every change.
"""

import array
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import tempfile
import time

import guests
from bench_qtest import Driver, Qtest, SLOT
from virtio_balloon_guest import BALLOON_PAGE, MIB, pool_grow

MEMORY = 384 * MIB
AREA = 128 * MIB                # address of the memory given and taken
HUGE_PAGE = 2 * MIB
DISCARDS = ("madvise", "process_madvise", "fallocate")
PR_SET_THP_DISABLE = 41
SYS_PROCESS_MADVISE = 440
MADV_COLLAPSE = 25
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
# At the address where an x86 processor starts: cli; here: jmp here
FIRMWARE = bytes(0xfff0) + b"\xfa\xeb\xfe" + bytes(13)

BACKINGS = {
    "anonymous": "memory-backend-ram",
    "anonymous-idle": "memory-backend-ram",     # and the vCPU does nothing
    "thp": "memory-backend-ram",
    "memfd": "memory-backend-memfd,share=on",
    "hugetlb": "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize=2M",
    "file": "memory-backend-file,share=off,mem-path={folder}/ram",
}


class Unavailable(Exception):
    """This host cannot do a part of the benchmark; the message says why."""


@contextlib.contextmanager
def huge_pages_denied(denied):
    """Processes started meanwhile get no transparent huge pages."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_THP_DISABLE, int(denied), 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)


@contextlib.contextmanager
def huge_pages_reserved(count):
    """@count more 2 MiB pages for hugetlb, given back at the end."""
    try:
        reserved = pool_grow(count)
    except OSError as error:
        raise Unavailable(f"2 MiB pages: {error}") from error
    try:
        if reserved < count:
            raise Unavailable(f"the host has {reserved} 2 MiB pages to give,"
                              f" {count} are needed")
        yield
    finally:
        pool_grow(-reserved)


def collapse(pid, address, size):
    """Make transparent huge pages of some memory of the process @pid.

    What was once discarded in part comes back in small pages otherwise.
    """
    class Iovec(ctypes.Structure):  # pylint: disable=too-few-public-methods
        """struct iovec"""
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]

    pidfd = os.pidfd_open(pid)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(SYS_PROCESS_MADVISE, pidfd,
                        ctypes.byref(Iovec(address, size)), ctypes.c_long(1),
                        MADV_COLLAPSE, 0)
    os.close(pidfd)
    if done < 0:
        raise Unavailable("the kernel makes no transparent huge pages: "
                          + os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def backing_ready(backing):
    """What the host must provide for two machines with @backing."""
    if backing == "thp":
        with open(THP, encoding="ascii") as file:
            if "[never]" in file.read():
                raise Unavailable("transparent huge pages are switched off")
    if backing == "hugetlb":
        with huge_pages_reserved(2 * MEMORY // HUGE_PAGE):
            yield
    else:
        yield


def cpu_ns(pid, without=()):
    """CPU time in ns of the threads of @pid, those in @without excepted."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        if int(thread) in without:
            continue
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat",
                      encoding="ascii") as file:
                total += int(file.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue            # a thread that has just ended
    return total


def put_ahead(thread, priority):
    """Let @thread, 0 for this one, run ahead of those of less priority.

    Raises OSError where the host does not allow it.
    """
    os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))


class Memory:
    """Guest memory at the address @host of the process @pid."""

    def __init__(self, pid, host):
        self.host = host
        self.file = open(f"/proc/{pid}/mem", "r+b", buffering=0)

    def close(self):
        self.file.close()

    def read(self, address, size):
        return os.pread(self.file.fileno(), size, self.host + address)

    def write(self, address, data):
        os.pwrite(self.file.fileno(), data, self.host + address)


class Machine:
    """A QEMU with a balloon and no guest, stopped except in running()."""

    wrapper = ()                # a program to start QEMU with
    driven = True               # by a driver of ours

    def __init__(self, side, backing, folder, firmware=FIRMWARE):
        """@side: with the members of bench.Side."""
        self.backing = backing
        os.makedirs(folder)
        with open(f"{folder}/firmware", "wb") as file:
            file.write(firmware)
        self.vm = guests.machine_class(side)(
            side.qemu, base_temp_dir=folder, log_dir=folder,
            wrapper=self.wrapper, qmp_timer=120, args=[
                "-nodefaults", *self.board(folder),
                "-bios", f"{folder}/firmware", "-S",
                "-device", f"{side.balloon},id=balloon0,addr={SLOT},"
                           "disable-legacy=on,free-page-reporting=on",
                "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
                "-qtest", f"unix:{folder}/qtest,server=on,wait=off",
                "-qtest-log", "/dev/null"])
        self.monitor = f"{folder}/qmp"
        with huge_pages_denied(backing != "thp"):
            self.vm.launch()
        self.pid = self.vm.get_pid()
        self.vcpus = [cpu["thread-id"]
                      for cpu in self.vm.cmd("query-cpus-fast")]
        self.memory = Memory(self.pid, self.host_address())
        self.qtest = Qtest(f"{folder}/qtest")
        self.driver = self.driven and Driver(self.qtest, self.memory,
                                             side.features)

    def board(self, folder):
        """Arguments: the processor and the memory."""
        idle = self.backing == "anonymous-idle"
        return ["-accel", "qtest" if idle else "tcg",
                "-M", "pc,memory-backend=ram", "-m", f"{MEMORY // MIB}",
                "-object", f"{BACKINGS[self.backing]},id=ram,size={MEMORY}"
                .format(folder=folder)]

    def close(self):
        self.memory.close()
        self.qtest.close()
        self.vm.shutdown(hard=True)

    @contextlib.contextmanager
    def ahead_of_all(self):
        """QEMU's threads, and this one, do not wait for a processor."""
        threads = [int(thread)
                   for thread in os.listdir(f"/proc/{self.pid}/task")]
        try:
            for thread in threads:
                put_ahead(thread, 1)
            put_ahead(0, 2)
            yield
        finally:
            for thread in (*threads, 0):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setscheduler(thread, os.SCHED_OTHER,
                                          os.sched_param(0))

    def host_address(self):
        text = self.vm.cmd("human-monitor-command",
                           command_line="info ramblock")
        rows = re.findall(r"0x\w+ +0x\w+ +0x(\w+) +0x(\w+) +r[ow]$",
                          text.replace("\r", ""), re.M)
        return max((int(size, 16), int(at, 16)) for size, at in rows)[1]

    @contextlib.contextmanager
    def running(self):
        self.vm.cmd("cont")
        try:
            yield self
        finally:
            self.vm.cmd("stop")

    def cpu(self):
        """CPU time in ns of all but the vCPUs."""
        return cpu_ns(self.pid, self.vcpus)

    def resident(self, size):
        """Bytes of the area's first @size that the host holds."""
        with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as file:
            entries = array.array("Q", os.pread(
                file.fileno(), size // BALLOON_PAGE * 8,
                (self.memory.host + AREA) // BALLOON_PAGE * 8))
        return sum(entry >> 63 for entry in entries) * BALLOON_PAGE

    def touch(self, size):
        """Write to all of the area's first @size bytes, behind QEMU's back."""
        data = b"\xa5" * (4 * MIB)
        for start in range(AREA, AREA + size, len(data)):
            self.memory.write(start, data[:AREA + size - start])
        if self.backing == "thp":
            collapse(self.pid, self.memory.host + AREA, size)


@contextlib.contextmanager
def machine(side, backing, **settings):
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        made = Machine(side, backing, f"{folder}/vm", **settings)
        try:
            yield made
        finally:
            made.close()


class Calls:
    """Counts the discarding system calls of a process, by strace."""

    def __init__(self, pid):
        self.pid = pid
        self.output = tempfile.NamedTemporaryFile(prefix="bench-strace-")
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen(
            ["strace", "-f", "-qq", "-e", "trace=" + ",".join(DISCARDS),
             "-e", "signal=none", "-o", self.output.name, "-p",
             str(self.pid)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self.attached():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.__exit__()
                raise Unavailable("strace could not attach to QEMU")
            time.sleep(0.01)
        return self

    def __exit__(self, *_exception):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.output.close()

    def attached(self):
        folder = f"/proc/{self.pid}/task"
        for thread in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError), \
                    open(f"{folder}/{thread}/status", encoding="ascii",
                         errors="replace") as file:
                if "TracerPid:\t0\n" in file.read():
                    return False
        return True

    def count(self):
        """Calls since it was attached."""
        with open(self.output.name, encoding="utf-8") as file:
            return len(re.findall(rf"^\d+ +(?:{'|'.join(DISCARDS)})\(",
                                  file.read(), re.M))
