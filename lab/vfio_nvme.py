# SPDX-License-Identifier: GPL-2.0-or-later
"""An NVMe controller driven over QEMU's qtest protocol: it does the DMA."""

import struct
import time

from bench_qtest import Pci

BAR = 0xe1000000
QUEUES = 0x3000000              # where its queues are in guest memory
DEPTH = 16
PAGE = 4096                     # the most that one command moves here
BLOCK = 512
SUBMIT, COMPLETE = 64, 16       # bytes of an entry

# Registers
CONFIG, STATUS, ADMIN_DEPTH, ADMIN_SUBMIT, ADMIN_COMPLETE, DOORBELLS = (
    0x14, 0x1c, 0x24, 0x28, 0x30, 0x1000)
ENABLE = 6 << 16 | 4 << 20 | 1  # sizes of entries as powers of two
# Commands
CREATE_SUBMIT, CREATE_COMPLETE, WRITE, READ = 0x01, 0x05, 0x01, 0x02


class Queue:
    """A pair of rings; number 0 is for administration."""

    def __init__(self, number):
        self.number = number
        self.submit = QUEUES + number * 2 * PAGE
        self.complete = self.submit + PAGE
        self.tail = self.head = 0
        self.phase = 1


class Nvme:
    """Reads blocks of the disk into guest memory, and writes them."""

    def __init__(self, qtest, memory, slot):
        self.qtest = qtest
        self.memory = memory
        self.admin, self.queue = Queue(0), Queue(1)
        self.find(slot)
        self.enable()

    def find(self, slot):
        pci = Pci(self.qtest, slot)
        pci.write(0x10, BAR)
        pci.write(0x14, 0)
        pci.write(0x04, 0x406)  # memory space, bus master, no interrupts

    def put(self, offset, value, size="l"):
        self.qtest.command("write" + size, BAR + offset, value)

    def until(self, condition, timeout=30):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("the NVMe controller does not answer")

    def enable(self):
        def is_ready():
            return self.qtest.command("readl", BAR + STATUS) & 1

        self.put(CONFIG, 0)
        self.until(lambda: not is_ready())
        for queue in self.admin, self.queue:
            self.memory.write(queue.complete, bytes(DEPTH * COMPLETE))
        self.put(ADMIN_DEPTH, DEPTH - 1 << 16 | DEPTH - 1)
        self.put(ADMIN_SUBMIT, self.admin.submit, "q")
        self.put(ADMIN_COMPLETE, self.admin.complete, "q")
        self.put(CONFIG, ENABLE)
        self.until(is_ready)
        number = self.queue.number
        for opcode, address, flags in (
                (CREATE_COMPLETE, self.queue.complete, 1),
                (CREATE_SUBMIT, self.queue.submit, number << 16 | 1)):
            status = self.command(self.admin, opcode, address,
                                  (DEPTH - 1 << 16 | number, flags))
            if status:
                raise ConnectionError(f"NVMe command {opcode}: {status:#x}")

    def command(self, queue, opcode, address, dwords, namespace=0):
        """Have it done; returns its status, 0 if it went well."""
        self.memory.write(
            queue.submit + queue.tail * SUBMIT,
            struct.pack("<BBHIQQQQ6I", opcode, 0, queue.tail, namespace, 0, 0,
                        address, 0, *dwords, *[0] * (6 - len(dwords))))
        queue.tail = (queue.tail + 1) % DEPTH
        self.put(DOORBELLS + 8 * queue.number, queue.tail)
        return self.completion(queue)

    def completion(self, queue):
        status = None

        def is_done():
            nonlocal status
            status, = struct.unpack("<H", self.memory.read(
                queue.complete + queue.head * COMPLETE + 14, 2))
            return status & 1 == queue.phase

        self.until(is_done)
        queue.head = (queue.head + 1) % DEPTH
        if not queue.head:
            queue.phase ^= 1
        self.put(DOORBELLS + 8 * queue.number + 4, queue.head)
        return status >> 1

    def read(self, page, address):
        """Read page number @page of the disk; returns the status."""
        return self.move(READ, page, address)

    def write(self, page, address):
        return self.move(WRITE, page, address)

    def move(self, opcode, page, address):
        blocks = PAGE // BLOCK
        return self.command(self.queue, opcode, address,
                            (page * blocks, 0, blocks - 1), namespace=1)
