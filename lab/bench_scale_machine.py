# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines of any size without a guest, whose memory nobody ever touched.

They have no vCPU that runs: what their process takes is the device's, the
driver's protocol aside.
"""

import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from typing import NamedTuple

import guests
from bench_machine import Machine, Unavailable
from bench_qtest import FEATURES, LISTS, MUST_TELL_HOST
from virtio_balloon_guest import BALLOON_PAGE, GIB, MIB

PAGES_MAX = 1 << 32             # that a balloon has names for
LISTS_SIZE = 8 * MIB            # room for the lists of pages
CALM = 0.15                     # s after which discards have begun
MEMORY = {"anonymous": "memory-backend-ram",
          "memfd": "memory-backend-memfd,share=on",
          # what migration may leave alone
          "named": "memory-backend-file,share=on,mem-path={folder}/ram"}
SHARED = "/dev/shm"             # where files are memory
# Steps of a migration's stages, only traced then
TRACE = ("-trace", "vmstate_downtime_save", "-trace", "vmstate_downtime_load")
DENY = os.path.join(guests.LAB, "bench", "deny.py")


@contextlib.contextmanager
def ahead(tested):
    """No other process counts, where the host allows that."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(PermissionError):
            stack.enter_context(tested.ahead_of_all())
        yield


class Giant(Machine):
    """A Machine of any size."""

    def __init__(self, side, backing, folder, size, denied=False):
        """@denied: without process_madvise()."""
        self.size = size
        if denied:
            self.wrapper = (sys.executable, DENY)
        self.log = f"{folder}/trace"
        super().__init__(side, backing, folder)
        if self.driven:
            self.memory.write(LISTS, bytes(LISTS_SIZE))

    def board(self, folder):
        # With more than an AMD processor's TiB, memory would go on elsewhere
        return ["-accel", "qtest",
                "-cpu", "qemu64,vendor=GenuineIntel,phys-bits=46",
                "-M", "pc,memory-backend=ram", "-m", f"{self.size // MIB}",
                "-object", f"{MEMORY[self.backing]},id=ram,size={self.size},"
                           "reserve=off".format(folder=folder),
                "-D", self.log, *TRACE]

    def cpu(self):
        """CPU time in ns of the process, to the instant."""
        # the clock that clock_getcpuclockid() would return
        return time.clock_gettime_ns(~self.pid << 3 | 2)

    def restart(self, told):
        """A new driver, to which the balloon is empty."""
        driver = self.driver
        driver.features = FEATURES | (MUST_TELL_HOST if told else 0)
        driver.put("b", 0x14, 0)
        for queue in driver.queues.values():
            queue.posted = 0
            for ring in (queue.avail, queue.used):
                self.memory.write(ring, bytes(4))
        driver.bring_up()

    def asleep(self):
        with open(f"/proc/{self.pid}/task/{self.pid}/stat",
                  encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "S"

    def request(self, queue, numbers):
        """Have the pages @numbers, an array of "I", served; seconds."""
        size = 4 * len(numbers)
        if size > LISTS_SIZE:
            raise ValueError(f"a list of {size} bytes")
        self.memory.write(LISTS, numbers.tobytes())
        self.driver.post(queue, [[(LISTS, size, False)]])
        start = time.perf_counter()
        self.driver.kick(queue)
        while not self.driver.served(queue):
            if time.perf_counter() > start + 60:
                raise TimeoutError(f"no answer to {len(numbers)} pages")
        return time.perf_counter() - start

    def serve(self, queue, lists):
        """Requests of each of @lists in turn, like Linux makes them.

        Returns: the seconds that each took, and the CPU seconds of all of
        them, what is done after the answers included.
        """
        before = self.cpu()
        with ahead(self):
            walls = [self.request(queue, numbers) for numbers in lists]
        return walls, (self.settle() - before) / 1e9

    def settle(self):
        """Wait until nothing is left to do; the CPU time until then."""
        spent = 0
        while True:
            time.sleep(CALM)
            while not self.asleep():
                time.sleep(0.001)
            at = self.cpu()
            if not self.counters().get("waiting"):
                return at - spent
            spent += self.cpu() - at    # by asking

    def check(self):
        """Were all of the pages that the machine was told of its memory?"""
        lost = self.counters().get("skipped", {}).get("not-ram")
        if lost:
            raise ValueError(f"{lost} bytes listed are not in the memory of"
                             f" {self.size // GIB} GiB")

    def counters(self):
        return self.vm.cmd("query-balloon").get("counters", {})

    def anonymous(self):
        """Bytes that the process holds, its guest's shared memory aside."""
        with open(f"/proc/{self.pid}/smaps_rollup", encoding="ascii") as file:
            return int(re.search(r"^Anonymous: +(\d+) kB", file.read(),
                                 re.M)[1]) * 1024


class Target(Giant):
    """Waits for the state of another machine."""

    driven = False

    def board(self, folder):
        return [*super().board(folder), "-incoming", "defer"]


@contextlib.contextmanager
def giant(side, backing, size, kind=Giant, **settings):
    """A Giant, stopped; Unavailable where the host has no room for it."""
    if size // BALLOON_PAGE > PAGES_MAX:
        raise Unavailable("a balloon has no names for so many pages")
    with tempfile.TemporaryDirectory(
            prefix="bench-", dir=SHARED if backing == "named" else None
            ) as folder:
        try:
            made = kind(side, backing, f"{folder}/vm", size, **settings)
        except Exception as error:
            if not getattr(error, "output", None):
                raise
            # QEMU ended, and said why
            raise Unavailable(error.output.strip().splitlines()[-1]) from error
        try:
            yield made
        finally:
            made.close()


# --- migration -------------------------------------------------------------

SECTION = re.compile(r"vmstate_downtime_(save|load) type=\S+ idstr="
                     r"(\S*virtio-balloon) instance_id=\d+ downtime=(\d+)")


class Migration(NamedTuple):
    """One migration to a file and from it; milliseconds and bytes."""

    switchover: float           # from the stop to the end, at the source
    saving: float               # of that, the device
    load: float                 # from the command to the end, without memory
    loading: float              # of that, the device
    size: float                 # of the state without memory


def device_time(path, what):
    """ms that the balloon's section took last, by the trace in @path."""
    with open(path, encoding="utf-8", errors="replace") as file:
        log = file.read()
    found = [int(us) for kind, _, us in SECTION.findall(log) if kind == what]
    if not found:
        raise Unavailable("this QEMU does not trace the state's parts")
    return found[-1] / 1000


def moment(event):
    stamp = event["timestamp"]
    return stamp["seconds"] * 1e3 + stamp["microseconds"] / 1e3


def completed(vm, timeout=600):
    """Wait for the end of a migration; its moment in ms."""
    end = time.monotonic() + timeout
    while True:
        try:
            event = vm.event_wait("MIGRATION", 1.0)
        except asyncio.TimeoutError:
            if not vm.is_running():
                raise Unavailable("QEMU ended: has the host memory?") from None
            if time.monotonic() > end:
                raise
            continue
        status = event["data"]["status"]
        if status == "failed":
            raise Unavailable(f"migration failed: {vm.get_log()}")
        if status == "completed":
            return moment(event)


def set_up(tested):
    vm = tested.vm
    vm.cmd("migrate-set-capabilities", capabilities=[
        {"capability": "events", "state": True},
        {"capability": "x-ignore-shared",
         "state": tested.backing == "named"}])
    # so little that no page is left for the time without a guest
    vm.cmd("migrate-set-parameters", **{
        "max-bandwidth": 16 * GIB, "downtime-limit": 1})


def save(tested, path):
    """Migrate to the file @path; ms of the switchover, and of the device.

    The source goes on afterwards.
    """
    vm = tested.vm
    vm.get_qmp_events()
    with ahead(tested):
        vm.cmd("migrate", uri=f"file:{path}")
        end = completed(vm)
    took = end - moment(vm.event_wait("STOP", 10.0))
    vm.cmd("cont")
    return took, device_time(tested.log, "save")


def load(side, size, path):
    """Load the state in @path, without memory: ms, and ms of the device."""
    with giant(side, "named", size, kind=Target) as target:
        set_up(target)
        with ahead(target):
            target.vm.get_qmp_events()
            start = time.time() * 1e3
            target.vm.cmd("migrate-incoming", uri=f"file:{path}")
            took = completed(target.vm) - start
        return took, device_time(target.log, "load")


def migrate(side, bare, whole=None):
    """A Migration of two Giants that run and have the same in the balloon.

    The memory of @bare, which is "named", is not migrated.  It is the source,
    too, where the host has no room for @whole.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = f"{folder}/state"
        switchover, saving = save(whole or bare, path)
        if whole:
            os.remove(path)
            save(bare, path)
        return Migration(switchover, saving, *load(side, bare.size, path),
                         os.path.getsize(path))
