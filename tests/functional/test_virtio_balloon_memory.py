#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Linux guest's balloon means for the memory of guest and host."""

import os
import re
import signal
import subprocess
import sys

from virtio_balloon_guest import BALLOON_PAGE, MIB
from virtio_balloon_testcase import SLACK, BalloonTest, improved

DISCARDS = ("madvise", "process_madvise", "fallocate")
KILLED = 128 + signal.SIGKILL


class VirtioBalloonMemory(BalloonTest):
    """Reporting, deflate on OOM, the cost of discarding."""

    def test_free_page_reporting(self):
        """Freed memory goes back to the host without any balloon."""
        guest = self.booted(
            balloon="virtio-balloon-pci,free-page-reporting=on")
        guest.run("memtool fill /mem/kept 100 3")
        guest.run("memtool dirty 600")
        guest.until(lambda: guest.resident() < 400 * MIB, 60,
                    lambda: f"the host holds {guest.resident() // MIB} MiB")
        self.assertEqual(guest.actual(), self.memory)
        guest.run("memtool verify /mem/kept 100 3")

    def test_deflate_on_oom(self):
        """The guest takes pages out of the balloon before it kills."""
        guest = self.booted(balloon="virtio-balloon-pci,deflate-on-oom=on")
        whole = guest.total()
        guest.resize(512 * MIB)
        self.assertEqual(guest.total(), whole)
        guest.run("memtool dirty 600", timeout=120)
        self.assertGreater(guest.actual(), 600 * MIB)

    def test_no_deflate_on_oom(self):
        """Without the feature the balloon is out of the guest's reach."""
        guest = self.booted()
        guest.run("echo 1 >/proc/sys/vm/overcommit_memory")
        guest.resize(512 * MIB)
        code, _ = guest.attempt("memtool dirty 600", timeout=120)
        self.assertEqual(code, KILLED)
        self.assertEqual(guest.actual(), 512 * MIB)

    def test_pattern_survives(self):
        """Inflating and deflating leave all other memory as it was."""
        guest = self.booted()
        guest.run("memtool fill /mem/kept 200 11")
        for size in (512, 768, 384, 1024):
            guest.resize(size * MIB)
            guest.run("memtool verify /mem/kept 200 11")

    @improved
    def test_one_discard_a_run(self):
        """Inflating costs at most one system call a contiguous run."""
        trace = self.scratch_file("trace.txt")
        guest = self.booted("-trace", "virtio_balloon_pages", "-D", trace)
        guest.run("memtool dirty 800")
        calls = self.count_calls(guest, lambda: guest.resize(512 * MIB))
        self.assertLess(guest.resident(), 512 * MIB + SLACK)

        with open(trace, encoding="utf-8") as file:
            requests = [(int(pages), int(runs)) for pages, runs in re.findall(
                r"queue 0: (\d+) balloon pages in (\d+) ranges", file.read())]
        requests = [request for request in requests if request[0]]
        pages = sum(request[0] for request in requests)
        runs = sum(request[1] for request in requests)
        print(f"# {pages} pages, {len(requests)} requests, {runs} runs,"
              f" {calls} calls", file=sys.stderr)
        self.assertEqual(pages, 512 * MIB // BALLOON_PAGE)
        self.assertGreater(calls, 0)
        self.assertLessEqual(calls, runs)
        self.assertLess(runs, pages // 16)

    def count_calls(self, guest, action):
        """Discarding system calls that QEMU makes during @action."""
        output = self.scratch_file("strace.txt")
        with subprocess.Popen(
                ["strace", "-f", "-qq", "-e", "trace=" + ",".join(DISCARDS),
                 "-o", output, "-p", str(guest.vm.get_pid())]) as strace:
            try:
                guest.until(lambda: self.traced(guest), 10,
                            lambda: "strace did not attach")
                action()
            finally:
                strace.send_signal(signal.SIGINT)
        with open(output, encoding="utf-8") as file:
            return len(re.findall(rf"^\d+ +(?:{'|'.join(DISCARDS)})\(",
                                  file.read(), re.M))

    @staticmethod
    def traced(guest):
        """Are all threads of QEMU being traced?"""
        folder = f"/proc/{guest.vm.get_pid()}/task"
        for thread in os.listdir(folder):
            with open(f"{folder}/{thread}/status", encoding="ascii",
                      errors="replace") as file:
                if "TracerPid:\t0\n" in file.read():
                    return False
        return True


if __name__ == "__main__":
    BalloonTest.main()
