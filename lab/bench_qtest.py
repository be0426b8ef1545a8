# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio-balloon-pci device driven over QEMU's qtest protocol.

There is no guest: Qtest reads and writes ports and registers, Driver brings
the device up through its modern interface and posts requests to its queues.
"""

import socket
import struct
import time

RING = 128                      # descriptors used of every queue
RINGS = 0x1000000               # where the rings are in guest memory
LISTS = 0x2000000               # and the lists of pages
BAR = 0xe0000000
SLOT = 4                        # of the device on the PCI bus

MUST_TELL_HOST = 1 << 0
FEATURES = 1 << 32 | 1 << 5     # VERSION_1, REPORTING
STATUS_OK = 0x0f                # ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK
INFLATE, DEFLATE, REPORT = 0, 1, 3

NEXT, WRITE = 1, 2              # flags of a descriptor
CAP_VENDOR, COMMON, NOTIFY = 9, 1, 2


class Qtest:
    """The client side of the qtest protocol."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def ask(self, *words):
        """Give a command; returns the words of the answer."""
        self.socket.sendall(" ".join(map(str, words)).encode() + b"\n")
        answer = self.file.readline().split()
        if answer[:1] != [b"OK"]:
            raise ConnectionError(f"qtest answered {answer} to {words[0]}")
        return answer[1:]

    def command(self, *words):
        """Give a command; returns the number of the answer, if any."""
        answer = self.ask(*words)
        return int(answer[0], 0) if answer else None


class Pci:
    """The config space of the device in a slot of the machine pc."""

    def __init__(self, qtest, slot):
        self.qtest = qtest
        self.slot = slot

    def select(self, offset):
        self.qtest.command("outl", 0xcf8,
                           0x80000000 | self.slot << 11 | offset & ~3)

    def read(self, offset, kind="inl"):
        self.select(offset)
        return self.qtest.command(kind, 0xcfc + (offset & 3))

    def write(self, offset, value):
        self.select(offset)
        self.qtest.command("outl", 0xcfc, value)


class Queue:
    """Addresses and state of one split virtqueue."""

    def __init__(self, index):
        self.index = index
        self.table = RINGS + index * 0x10000
        self.avail = self.table + 0x4000
        self.used = self.table + 0x8000
        self.posted = 0         # free-running index into the available ring
        self.doorbell = None


class Driver:
    """Drives the balloon.

    @memory.read(address, size) and .write(address, data) reach the guest's
    memory without QEMU noticing.
    """

    def __init__(self, qtest, memory, features=0):
        """@features: to be accepted beyond FEATURES."""
        self.qtest = qtest
        self.features = FEATURES | features
        self.memory = memory
        self.queues = {i: Queue(i) for i in (INFLATE, DEFLATE, REPORT)}
        self.common = self.notify = self.multiplier = None
        self.find()
        self.bring_up()

    def find(self):
        """Map the device's registers and look where they are."""
        pci = Pci(self.qtest, SLOT)
        pci.write(0x20, BAR)                   # BAR 4, 64 bits wide
        pci.write(0x24, 0)
        pci.write(0x04, 6)                     # memory space, bus master
        cap = pci.read(0x34, "inb")
        while cap:
            if pci.read(cap, "inb") == CAP_VENDOR:
                kind = pci.read(cap + 3, "inb")
                address = BAR + pci.read(cap + 8)
                if kind == COMMON:
                    self.common = address
                elif kind == NOTIFY:
                    self.notify = address
                    self.multiplier = pci.read(cap + 16)
            cap = pci.read(cap + 1, "inb")

    def put(self, size, offset, value):
        self.qtest.command("write" + size, self.common + offset, value)

    def bring_up(self):
        """Negotiate, give the device its rings, start it."""
        self.put("b", 0x14, 0)
        self.put("b", 0x14, STATUS_OK & 3)
        for half in (0, 1):
            self.put("l", 0x08, half)
            self.put("l", 0x0c, self.features >> 32 * half & 0xffffffff)
        self.put("b", 0x14, STATUS_OK & ~4)
        for queue in self.queues.values():
            self.start_queue(queue)
        self.put("b", 0x14, STATUS_OK)
        status = self.qtest.command("readb", self.common + 0x14)
        if status != STATUS_OK:
            raise ConnectionError(f"the device's status is {status:#x}")

    def start_queue(self, queue):
        for ring in queue.avail, queue.used:    # of an earlier driver
            self.memory.write(ring, bytes(4))
        self.put("w", 0x16, queue.index)
        self.put("w", 0x18, RING)
        for offset, address in ((0x20, queue.table), (0x28, queue.avail),
                                (0x30, queue.used)):
            self.put("q", offset, address)
        offset = self.qtest.command("readw", self.common + 0x1e)
        queue.doorbell = self.notify + offset * self.multiplier
        self.put("w", 0x1c, 1)

    def post(self, index, chains):
        """Make @chains available, without telling the device.

        A chain is a list of (address, length, writable); all of them must
        fit into the ring, which must be empty.
        """
        queue = self.queues[index]
        table, heads = [], []
        for chain in chains:
            heads.append(len(table))
            for n, (address, length, writable) in enumerate(chain, 1):
                flags = WRITE * writable | NEXT * (n < len(chain))
                table.append(struct.pack("<QIHH", address, length, flags,
                                         (len(table) + 1) % RING))
        if len(table) > RING:
            raise ValueError(f"{len(table)} descriptors in a ring of {RING}")
        ring = [0] * RING
        for n, head in enumerate(heads):
            ring[(queue.posted + n) % RING] = head
        queue.posted = (queue.posted + len(chains)) % 0x10000
        self.memory.write(queue.table, b"".join(table))
        # no interrupts: nobody would take them
        self.memory.write(queue.avail, struct.pack(f"<HH{RING}H", 1,
                                                   queue.posted, *ring))

    def kick(self, index):
        self.qtest.command("writew", self.queues[index].doorbell, index)

    def served(self, index):
        """Has the device returned all that was posted?"""
        queue = self.queues[index]
        used = self.memory.read(queue.used + 2, 2)
        return int.from_bytes(used, "little") == queue.posted

    def wait(self, index, timeout=60):
        deadline = time.monotonic() + timeout
        while not self.served(index):
            if time.monotonic() > deadline:
                raise TimeoutError(f"queue {index} was not served within"
                                   f" {timeout} s")
            time.sleep(0.0003)
