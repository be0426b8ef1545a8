# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the main thread's time goes while a Linux guest gives memory up.

perf takes samples of the thread, each with the functions that led to it, and
those say what it was for.  How long the thread ran, the kernel says.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter

from bench_guest import SMALL, TIMEOUT
from bench_machine import Unavailable
from bench_peers import PEERS
from bench_peers_report import TITLES, cell
from bench_report import Spread, table
from virtio_balloon_guest import GIB

FREQUENCY = 1000                # samples a second that the thread runs
STACK = 16384                   # bytes of it that a sample has
PARANOID = "/proc/sys/kernel/perf_event_paranoid"
COMPARED = ("stock", "ours", "told", "mem-2M")
# kind: (what it is, how functions of it begin).  The first kind that has a
# function among those of a sample has the sample.
KINDS = {
    "discards": ("giving memory back", (
        "ram_block_discard", "ram_discard_range", "__x64_sys_madvise",
        "__do_sys_process_madvise", "__x64_sys_fallocate")),
    "device": ("the device besides: lists, map, answers", (
        "virtio_balloon_", "balloon_", "virtio_mem_")),
    "monitor": ("the benchmark's monitor and console", (
        "monitor_", "qmp_", "chr_", "tcp_chr_", "io_watch_", "virtio_serial_",
        "virtio_console_")),
    "lock": ("the big lock, to get it and to let it go", (
        "bql_lock", "bql_unlock", "qemu_cond_wait_bql")),
    "timers": ("timers, of the guest for the most part", (
        "qemu_clock_run_all_timers", "timerlist_run_timers")),
    "loop": ("the main loop: sleep, wake up, look what there is", (
        "main_loop_wait", "qemu_main_loop", "__x64_sys_ppoll", "ppoll")),
    "other": ("other", ("",)),
}
REST = "rest"
WHOLE = "main"
ROWS = {WHOLE: "CPU of the main thread, s/GiB",
        **{name: f"- {text}" for name, (text, _) in KINDS.items()},
        REST: "the same time with nothing to do would take"}


def kind(functions):
    """What a sample in @functions was for."""
    return next(name for name, (_, begins) in KINDS.items()
                if any(function.startswith(begins) for function in functions))


def shares(text):
    """{kind: its share} of the samples in @text, which perf script wrote."""
    samples = [re.findall(r"^\s+[0-9a-f]+ (\S+)", sample, re.M)
               for sample in re.split(r"\n\s*\n", text)]
    found = Counter(kind(sample) for sample in samples if sample)
    if not found:
        raise Unavailable("perf took no sample")
    return {name: found[name] / found.total() for name in KINDS}


def check():
    """Raises Unavailable where there is no perf, or none that sees enough."""
    if not shutil.which("perf"):
        raise Unavailable("there is no perf (Debian's package linux-perf)")
    with open(PARANOID, encoding="ascii") as file:
        if os.geteuid() and int(file.read()) > 1:
            raise Unavailable("the kernel hides itself from perf: be root, or"
                              f" write 1 to {PARANOID}")


@contextlib.contextmanager
def recorded(thread, path):
    """Samples of @thread are in the file @path afterwards.

    Raises Unavailable.
    """
    order, ours = os.pipe()
    theirs, answer = os.pipe()
    process = subprocess.Popen(
        ["perf", "record", "--quiet", "--event=cpu-clock",
         f"--freq={FREQUENCY}", f"--call-graph=dwarf,{STACK}",
         "--delay=-1", f"--control=fd:{order},{answer}",
         f"--tid={thread}", f"--output={path}"],
        pass_fds=(order, answer), stderr=subprocess.DEVNULL)
    # If perf ends, the other ends of the pipes have to be closed
    os.close(order)
    os.close(answer)
    with open(ours, "wb", buffering=0) as orders, \
            open(theirs, "rb", buffering=0) as answers:
        try:
            with contextlib.suppress(BrokenPipeError):
                orders.write(b"enable\n")
            if not answers.read(16):
                raise Unavailable("perf cannot look at QEMU's main thread")
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def profiled(peer):
    """{row: seconds a GiB} of @peer's way down."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, \
            peer.running():
        peer.guest.until(lambda: peer.size() == peer.whole, TIMEOUT,
                         lambda: "it does not get its memory")
        rest = peer.rest()
        peer.touch()
        samples = f"{folder}/perf.data"
        with recorded(peer.pid, samples):
            down = peer.resize(SMALL)
        peer.back()
        text = subprocess.run(
            ["perf", "script", "--no-inline", "--fields=ip,sym",
             f"--input={samples}"], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, check=True).stdout
    took, rested = (step.watched.samples for step in (down, rest))
    gib = (took[0].held - took[-1].held) / GIB
    idle = rest.main / rested[-1].seconds * took[-1].seconds
    return {WHOLE: down.main / gib, REST: idle / gib,
            **{name: down.main / gib * share
               for name, share in shares(text).items()}}


def bench(options, progress):
    """{peer: {row: dictionary of Spread}} of a guest of 2 GiB, in turns.

    Raises Unavailable where there is no perf.
    """
    check()
    with contextlib.ExitStack() as stack:
        found = {}
        for name in COMPARED:
            progress(f"profile: booting with {name}")
            found[name] = stack.enter_context(PEERS[name](options, 2 * GIB)), []
        for turn in range(options.guest_repeat):
            for name, (peer, results) in found.items():
                progress(f"profile: pass {turn + 1} of"
                         f" {options.guest_repeat}: {name}")
                results.append(profiled(peer))
    return {name: {row: Spread.of(result[row] for result in results)._asdict()
                   for row in ROWS} for name, (_, results) in found.items()}


def report(document):
    """What bench() returned, as a table."""
    return table(["Linux guest, 2 GiB to 512 MiB",
                  *(TITLES[name] for name in document)],
                 [[text, *(cell(rows[row], 3) for rows in document.values())]
                  for row, text in ROWS.items()])
