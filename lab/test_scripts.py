# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the programs in scripts/, with QMP servers that play QEMU."""

import argparse
import asyncio
import contextlib
import importlib.util
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import guests
from virtio_balloon_guest import MIB

TREE = os.environ.get("QEMU_TREE", guests.TREE)
SCRIPTS = os.path.join(TREE, "scripts")
PSI = "some avg10={0:.2f} avg60=0.00 avg300=0.00 total=0\n"
GREETING = {"QMP": {"version": {}, "capabilities": []}}


def load(name):
    """The program @name as a module."""
    path = os.path.join(SCRIPTS, f"virtio-balloon-{name}.py")
    sys.path += guests.python_paths(TREE)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeQemu:
    """A QMP server with a balloon, as large as it is told; sizes in MiB.

    @balloon: what query-balloon says beyond `actual`; None: no balloon.
    @used: by the guest, so that statistics say it has the rest; None: there
    are none.  @devices: what query-memory-devices says.
    """

    def __init__(self, path, whole=512, actual=None, balloon=None,
                 used=None, devices=()):
        self.path = path
        self.whole = whole
        self.actual = actual or whole
        self.balloon = balloon
        self.used = used
        self.devices = list(devices)
        self.targets = []               # all that were set
        self.asked = 0                  # how often for the balloon
        self.silent = False             # accept commands, and do not answer
        self.server = self.writer = None

    async def start(self):
        self.server = await asyncio.start_unix_server(self.serve, self.path)

    async def serve(self, reader, writer):
        self.writer = writer
        self.send(GREETING)
        with contextlib.suppress(ConnectionError):
            while text := await reader.read(65536):
                # Requests come whole, and may come together
                text = text.decode()
                while text:
                    request, end = json.JSONDecoder().raw_decode(text)
                    text = text[end:].lstrip()
                    self.reply(request)
        writer.close()

    def reply(self, request):
        if self.silent:
            return
        if request["execute"] == "qmp_capabilities":
            self.send({"return": {}})
        else:
            self.send({**self.answer(request), "id": request["id"]})

    def send(self, message):
        self.writer.write(json.dumps(message).encode() + b"\n")

    def event(self, name, **data):
        self.send({"event": name, "data": data,
                   "timestamp": {"seconds": 0, "microseconds": 0}})

    def gone(self):
        self.server.close()
        self.writer.close()

    def answer(self, request):
        name = request["execute"].replace("-", "_")
        if not hasattr(self, f"do_{name}"):
            return self.error("CommandNotFound", f"no {name}")
        return getattr(self, f"do_{name}")(**request.get("arguments", {}))

    @staticmethod
    def error(kind, text):
        return {"error": {"class": kind, "desc": text}}

    def do_query_memory_size_summary(self):
        return {"return": {"base-memory": self.whole * MIB,
                           "plugged-memory": 7777}}

    def do_query_memory_devices(self):
        return {"return": [{"type": kind, "data": {"size": size * MIB}}
                           for kind, size in self.devices]}

    def do_query_balloon(self):
        self.asked += 1
        if self.balloon is None:
            return self.error("DeviceNotActive", "no balloon")
        return {"return": {"actual": self.actual * MIB, **self.balloon}}

    def do_balloon(self, value):
        self.targets.append(value // MIB)
        if "state" in self.balloon:
            self.balloon["target"] = value
            self.move(value // MIB)
        return {"return": {}}

    def move(self, target):
        """Follow at once."""
        self.actual = target
        self.event("BALLOON_STATE_CHANGE", **self.balloon)

    def do_request_balloon_stats(self):
        if self.used is None:
            return self.error("CommandNotFound", "no such command")
        mem = sum(size for kind, size in self.devices if kind == "virtio-mem")
        self.event("BALLOON_STATS", **{
            "available-memory": (self.actual + mem - self.used) * MIB})
        return {"return": {}}


class Whole:
    """Of a guest, what shares() looks at."""

    def __init__(self, whole):
        self.whole = whole


def state(name, target=512, **more):
    return {"state": name, "target": target * MIB, **more}


class Scripts(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        logging.disable()               # as the programs do
        folder = tempfile.TemporaryDirectory(prefix="balloon-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    async def asyncSetUp(self):
        # Connections that end in the middle are what is tested
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def qemu(self, name, **settings):
        qemu = FakeQemu(os.path.join(self.folder, name), **settings)
        await qemu.start()
        self.addCleanup(qemu.server.close)
        return qemu

    async def until(self, condition, complaint=None):
        """Let others run until @condition; fail after a minute."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 60
        while not condition():
            self.assertLess(loop.time(), deadline, complaint and complaint())
            await asyncio.sleep(0.01)


class PackageTest(unittest.TestCase):
    def test_missing(self):
        for name in "share", "wait":
            with tempfile.TemporaryDirectory() as folder:
                program = shutil.copy(
                    f"{SCRIPTS}/virtio-balloon-{name}.py", folder)
                done = subprocess.run(
                    [sys.executable, "-I", "-S", program, "socket"], text=True,
                    check=False, stderr=subprocess.PIPE)
            self.assertRegex(done.stderr, "^install .*qemu.qmp[^\n]*\n$")
            self.assertEqual(done.returncode, 1)


class ShareTest(Scripts):
    """The example that shares memory among guests."""

    @classmethod
    def setUpClass(cls):
        cls.example = load("share")
        cls.example.SPACE = 0

    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.pressure = os.path.join(self.folder, "pressure")
        self.press(0)
        self.output = io.StringIO()

    def press(self, percent):
        with open(self.pressure + ".new", "w", encoding="ascii") as file:
            file.write(PSI.format(percent))
        os.rename(self.pressure + ".new", self.pressure)

    def start(self, *qemus):
        """Let the example share among @qemus; returns its task."""
        options = argparse.Namespace(
            sockets=[qemu.path for qemu in qemus], pressure=self.pressure,
            high=10, low=1, interval=0.01)

        async def run():
            with contextlib.redirect_stdout(self.output), \
                 contextlib.redirect_stderr(self.output):
                return await self.example.run(options)

        task = asyncio.create_task(run())
        self.addAsyncCleanup(self.end, task)
        return task

    async def end(self, task):
        """End it as a signal does."""
        if not task.done():
            signal.raise_signal(signal.SIGTERM)
            self.assertTrue(await asyncio.wait_for(task, 60))

    async def looks(self, count=3):
        """Wait until it has looked at all guests @count times."""
        wanted = self.output.getvalue().count("budget") + count
        await self.until(
            lambda: self.output.getvalue().count("budget") >= wanted)

    def said(self, text):
        return text in self.output.getvalue()

    async def test_pressure(self):
        """The idle guest loses, the busy one has what it needs."""
        idle = await self.qemu("idle", balloon=state("reached"), used=100)
        busy = await self.qemu("busy", balloon=state("reached"), used=500)
        self.start(idle, busy)
        await self.looks()
        self.assertEqual(idle.targets + busy.targets, [])
        self.press(40)
        await self.until(lambda: idle.actual == 132, self.output.getvalue)
        self.assertEqual(busy.targets, [])
        self.press(0)
        await self.until(lambda: idle.actual == 512)

    async def test_gives_back(self):
        """Ended by a signal, or by an error."""
        for reason in "signal", "error":
            qemu = await self.qemu(reason, balloon=state("reached", 448),
                                   actual=448, used=100)
            self.press(40)
            task = self.start(qemu)
            await self.until(lambda: qemu.actual == 132)
            if reason == "signal":
                await self.end(task)
            else:
                os.unlink(self.pressure)
                with self.assertRaises(FileNotFoundError):
                    await task
            self.assertEqual(qemu.targets[-1], 448)

    async def test_host_without_pressure(self):
        """It says so in a line, and how to have it."""
        qemu = await self.qemu("quiet", balloon=state("reached"), used=100)
        process = await asyncio.create_subprocess_exec(
            sys.executable, f"{SCRIPTS}/virtio-balloon-share.py",
            "--pressure", f"{self.folder}/none", qemu.path,
            stderr=asyncio.subprocess.PIPE,
            env=dict(os.environ,
                     PYTHONPATH=":".join(guests.python_paths(TREE))))
        _, text = await asyncio.wait_for(process.communicate(), 60)
        self.assertRegex(text.decode(), "^[^\n]*none[^\n]*psi=1[^\n]*\n$")
        self.assertEqual(process.returncode, 1)

    async def test_statistics_of_another_size(self):
        """What a guest had free before it moved says nothing of its use."""
        qemu = await self.qemu("moves", balloon=state("reached", 448),
                               actual=448, used=0)
        qemu.do_request_balloon_stats = lambda: {"return": {}}
        guest = self.example.Guest(qemu.path)
        await guest.start()
        self.addAsyncCleanup(guest.end)
        for actual, free, used in ((248, 348, None), (248, 148, 100),
                                   (448, 148, 100), (448, 48, 400)):
            await guest.ask()
            qemu.actual, qemu.balloon["target"] = actual, actual * MIB
            looks = qemu.asked
            qemu.event("BALLOON_STATS", **{"available-memory": free * MIB})
            qemu.event("BALLOON_CHANGE", actual=actual * MIB)
            await self.until(lambda: qemu.asked == looks + 2)
            self.assertEqual(guest.used, used and used * MIB)

    async def test_takes_nothing_at_the_end(self):
        """A guest that got more than it had keeps that."""
        qemu = await self.qemu("small", balloon=state("reached", 256),
                               actual=256, used=244)
        task = self.start(qemu)
        await self.until(lambda: qemu.actual > 256)
        await self.end(task)
        self.assertGreater(qemu.actual, 256)

    async def test_other_balloons(self):
        """Those that tell less are left alone, and count as they are."""
        stock = await self.qemu("stock", balloon={}, actual=300)
        hyperv = await self.qemu("hyperv", balloon={},
                                 devices=[("hv-balloon", 64)])
        ours = await self.qemu("ours", balloon=state("reached"), used=100)
        self.press(40)
        task = self.start(stock, hyperv, ours)
        await self.until(lambda: ours.actual == 132)
        stock.event("BALLOON_CHANGE", actual=310 * MIB)
        hyperv.event("HV_BALLOON_STATUS_REPORT", committed=1, available=1)
        await self.looks()
        self.assertTrue(self.said("stock unknown actual 300 target 300"
                                  " used -1"))
        await self.end(task)
        self.assertEqual(stock.targets + hyperv.targets, [])

    async def test_silent_guests(self):
        """No statistics, or old ones, and nobody takes anything."""
        never = await self.qemu("never", balloon=state("reached"))
        odd = await self.qemu("odd", balloon=state("reached"), used=100)
        odd.do_request_balloon_stats = lambda: odd.event(
            "BALLOON_STATS") or {"return": {}}
        self.press(40)
        self.start(never, odd)
        await self.looks(30)
        self.assertEqual(never.targets + odd.targets, [])

    async def test_states(self):
        """Who cannot follow is left alone, or has all that can be had."""
        for name in "no-driver", "broken", "inflating", "deflating":
            qemu = await self.qemu(name, balloon=state("reached"), used=100)
            self.press(5)
            task = self.start(qemu)
            await self.looks(10)        # what it uses is known by then
            qemu.balloon["state"] = name
            qemu.event("BALLOON_STATE_CHANGE", state=name)
            await self.until(lambda: self.said(f"/{name} {name} "))
            self.press(40)
            await self.looks(10)
            await self.end(task)
            self.assertEqual(qemu.targets, [], name)
        pinned = await self.qemu("pinned", actual=300, balloon=state(
            "reached", 300, **{"inhibited-by": "pinned-memory"}))
        self.press(0)
        task = self.start(pinned)
        await self.until(lambda: pinned.targets == [512])
        await self.end(task)
        stalled = await self.qemu("stalled", balloon=state("stalled", 300),
                                  actual=450)
        self.press(40)
        self.start(stalled)
        await self.until(lambda: stalled.targets)
        self.assertGreaterEqual(min(stalled.targets), 450)

    async def test_gone(self):
        """One goes away, one hangs, one is not there: the rest goes on."""
        self.example.PATIENCE = 2
        self.addCleanup(setattr, self.example, "PATIENCE", 10)
        names = "goes", "hangs", "stays"
        goes, hangs, stays = [
            await self.qemu(name, balloon=state("reached"), used=100)
            for name in names]
        nothing = FakeQemu(os.path.join(self.folder, "nothing"))
        self.press(5)
        task = self.start(nothing, goes, hangs, stays)
        await self.looks()
        goes.gone()
        hangs.silent = True
        await self.until(lambda: all(self.said(f"{name}: ") for name in (
            "nothing", "goes", "hangs")) and self.said("no answer"),
            self.output.getvalue)
        self.press(40)
        await self.until(lambda: stays.actual == 132,
                         self.output.getvalue)
        stays.gone()
        await asyncio.wait_for(task, 60)

    async def test_no_balloon(self):
        """Is said, and is the end of it."""
        qemu = await self.qemu("none", used=100)
        await asyncio.wait_for(self.start(qemu), 60)
        self.assertTrue(self.said("no balloon"))

    async def test_virtio_mem(self):
        """Its size is the guest's, and not the balloon's."""
        devices = [("virtio-mem", 256), ("dimm", 128), ("nvdimm", 64)]
        qemu = await self.qemu("mem", balloon=state("reached", 640),
                               actual=640, used=100, devices=devices)
        self.press(40)
        self.start(qemu)
        # 896 in all, 100 in use, 32 to spare: less than virtio-mem alone
        await self.until(lambda: qemu.targets and qemu.targets[-1] == 1,
                         self.output.getvalue)
        qemu.devices[0] = ("virtio-mem", 0)
        qemu.used = 500
        qemu.event("MEMORY_DEVICE_SIZE_CHANGE")
        self.press(0)
        await self.until(lambda: qemu.actual == 640, self.output.getvalue)

    def test_shares(self):
        """What a budget comes to: nobody has less than it needs."""
        for budget, sizes, expected in (
                (700, ((512, 100), (512, 200)), [300, 400]),
                (900, ((512, 100), (256, 200)), [512, 256]),
                (600, ((512, 100), (256, 200)), [344, 256]),
                (100, ((512, 100), (512, 200)), [100, 200]),
                (100, (), [])):
            needs = {Whole(whole): need for whole, need in sizes}
            targets = self.example.shares(budget, needs)
            self.assertEqual([targets[guest] for guest in needs], expected)


class WaitTest(Scripts):
    """The program that waits for a target."""

    @classmethod
    def setUpClass(cls):
        cls.program = load("wait")

    async def wait(self, qemu, size=None, patient=False):
        """Exit code and output."""
        output = io.StringIO()
        options = argparse.Namespace(socket=qemu.path, size=size,
                                     patient=patient)
        with contextlib.redirect_stdout(output):
            code = await asyncio.wait_for(self.program.run(options), 60)
        return code, output.getvalue()

    async def test_ends(self):
        for name, code in (("reached", 0), ("no-driver", 3), ("broken", 4),
                           ("stalled", 5)):
            qemu = await self.qemu(name, balloon=state(name))
            ended, text = await self.wait(qemu)
            self.assertEqual(ended, code)
            self.assertIn(f"{name}: the guest has 512 MiB of 512 MiB", text)

    async def test_events(self):
        """It sleeps until an event comes, and asks what is so by then."""
        qemu = await self.qemu("moves", balloon=state("inflating"))
        qemu.move = lambda target: None
        task = asyncio.create_task(self.wait(qemu, 256))
        await self.until(lambda: qemu.asked == 1)
        # one that is late, and one that is not
        qemu.event("BALLOON_STATE_CHANGE", state="reached")
        await self.until(lambda: qemu.asked == 2)
        qemu.balloon["state"] = "reached"
        qemu.actual = 256
        qemu.event("BALLOON_STATE_CHANGE", state="reached")
        code, text = await task
        self.assertEqual(code, 0)
        self.assertEqual([line.split(":")[0] for line in text.splitlines()],
                         ["inflating", "inflating", "reached"])

    async def test_inhibited(self):
        qemu = await self.qemu("pinned", balloon=state(
            "reached", **{"inhibited-by": "pinned-memory"}))
        code, text = await self.wait(qemu)
        self.assertEqual(code, 0)
        self.assertIn("none of it back: pinned-memory", text)

    async def test_patient(self):
        qemu = await self.qemu("boots", balloon=state("no-driver"))
        task = asyncio.create_task(self.wait(qemu, patient=True))
        for number, name in enumerate(("stalled", "broken", "reached"), 1):
            await self.until(lambda: qemu.asked == number)
            qemu.balloon["state"] = name
            qemu.event("BALLOON_STATE_CHANGE", state=name)
        self.assertEqual((await task)[0], 0)

    async def test_gone_meanwhile(self):
        """QEMU goes after it was asked, before anybody sleeps."""
        program = self.program

        class Qmp:
            """What tells of a change but once, as a QMPClient does."""
            runstate = program.Runstate.RUNNING
            changed = asyncio.Event()

            async def runstate_changed(self):
                await self.changed.wait()

            def go(self):
                self.runstate = program.Runstate.DISCONNECTING
                self.changed.set()
                self.changed.clear()

            def get(self):
                """No event; QEMU goes before anybody listens."""
                asyncio.get_running_loop().call_soon(self.go)
                return asyncio.sleep(60)

        qmp = Qmp()
        with self.assertRaisesRegex(program.QMPError, "gone"):
            await asyncio.wait_for(program.change(qmp, qmp), 10)

    async def test_errors(self):
        """Stock, no balloon, nobody there, and one that goes away."""
        stock = await self.qemu("stock", balloon={})
        none = await self.qemu("none")
        nobody = FakeQemu(os.path.join(self.folder, "nobody"))
        for qemu, text in ((stock, "state"), (none, "no balloon"),
                           (nobody, "")):
            with self.assertRaisesRegex(Exception, text) as caught:
                await self.wait(qemu)
            self.assertNotIsInstance(caught.exception, asyncio.TimeoutError)
        goes = await self.qemu("goes", balloon=state("inflating"))
        task = asyncio.create_task(self.wait(goes))
        await self.until(lambda: goes.asked == 1)
        goes.gone()
        with self.assertRaisesRegex(Exception, "gone"):
            await task
