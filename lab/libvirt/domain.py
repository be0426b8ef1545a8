# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains with a memory balloon: their XML, QMP and virsh."""

import contextlib
import json
import os

from session import LibvirtError, until
from virtio_balloon_guest import (KERNEL_PARAMETERS, KIB, MIB, BalloonGuest,
                                  Channel)

NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
XML = """\
<domain type='qemu' xmlns:qemu='{namespace}'>
  <name>{name}</name>
  <memory unit='KiB'>{memory}</memory>
  <currentMemory unit='KiB'>{current}</currentMemory>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    {boot}
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    {balloon}
    {devices}
  </devices>
  {more}
</domain>
"""
BOOT = """\
<kernel>{kernel}</kernel>
<initrd>{initrd}</initrd>
<cmdline>{parameters}</cmdline>
"""
DEVICES = """\
<serial type='file'>
  <source path='{folder}/console.txt'/>
</serial>
<channel type='unix'>
  <source mode='bind' path='{folder}/lab'/>
  <target type='virtio' name='lab'/>
</channel>
"""


class Domain:
    """A domain of @session that has yet to be defined or created.

    @balloon: its <memballoon>.  @boot, @devices, @more: XML for <os>, for
    <devices>, and beside them.  @memory, @current: bytes.  @emulator: a QEMU
    other than the session's.
    """

    def __init__(self, session, name, balloon, memory=64 * MIB, current=None,
                 machine="pc", boot="", devices="", more="", emulator=None):
        self.session = session
        self.name = name
        self.memory = memory
        self.path = os.path.join(session.folder, f"{name}.xml")
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(XML.format(
                namespace=NAMESPACE, name=name, memory=memory // KIB,
                current=(current or memory) // KIB, machine=machine, boot=boot,
                balloon=balloon, devices=devices, more=more,
                emulator=emulator or session.emulator))

    def define(self):
        self.session.virsh("define", self.path)

    def create(self):
        """Start it, its processors stopped; it is forgotten when it ends."""
        self.session.virsh("create", "--paused", self.path)

    def remove(self):
        """Nothing of it stays, whatever it has come to."""
        self.session.attempt("destroy", self.name)
        self.session.attempt("undefine", "--managed-save", self.name)

    def virsh(self, command, *arguments):
        """virsh @command on this domain."""
        return self.session.virsh(command, self.name, *arguments)

    def refusal(self, command, *arguments):
        return self.session.refusal(command, self.name, *arguments)

    # QEMU's own view

    def attempt_cmd(self, command, **arguments):
        """The whole answer of QMP."""
        request = {"execute": command, "arguments": arguments}
        return json.loads(self.virsh("qemu-monitor-command",
                                     json.dumps(request)))

    def cmd(self, command, **arguments):
        """What a QMP command returns, as QEMUMachine.cmd() does."""
        answer = self.attempt_cmd(command, **arguments)
        if "return" not in answer:
            raise LibvirtError(f"{command}: {answer}")
        return answer["return"]

    def balloons(self):
        """QOM types of the balloon devices, by their alias."""
        return {child["name"]: child["type"][len("child<"):-1]
                for child in self.cmd("qom-list", path="/machine/peripheral")
                if child["type"].startswith("child<virtio-balloon")}

    def property(self, name, alias="balloon0"):
        return self.cmd("qom-get", path=f"/machine/peripheral/{alias}",
                        property=name)

    def pci(self, alias="balloon0"):
        """What query-pci says of the balloon.

        Behind a bridge, it is there once the firmware has been at it.
        """
        def found():
            return [device for bus in self.cmd("query-pci")
                    for device in with_bridged(bus["devices"])
                    if device["qdev_id"] == alias]

        device, = until(found, lambda: f"no {alias} on PCI")
        return device

    # libvirt's view

    def statistics(self):
        """dommemstat: numbers by name."""
        rows = (line.split() for line in self.virsh("dommemstat").splitlines())
        return {name: int(value) for name, value in rows}

    def set_memory(self, size, *flags):
        self.virsh("setmem", str(size // KIB), *flags)


def with_bridged(devices):
    """@devices and those behind them."""
    for device in devices:
        yield device
        yield from with_bridged(
            device.get("pci_bridge", {}).get("devices", []))


class LinuxGuest(BalloonGuest):
    """A BalloonGuest that libvirt runs."""

    def __init__(self, session, image, name, balloon, memory, current=None):
        # pylint: disable=super-init-not-called
        kernel, initrd = map(session.staged, image)
        boot = BOOT.format(
            kernel=kernel, initrd=initrd, parameters=KERNEL_PARAMETERS)
        self.vm = Domain(session, name, balloon, memory, current, boot=boot,
                         devices=DEVICES.format(folder=session.folder))
        self.memory = memory
        self.console = f"{session.folder}/console.txt"
        self.port = f"{session.folder}/lab"
        self.channel = None

    def start(self):
        """Start it, or resume it where it was saved."""
        self.vm.virsh("start")
        self.connect()

    def connect(self):
        """Meet a guest that runs, or runs again."""
        if self.channel:
            self.channel.close()
        self.channel = Channel(self.port)
        self.run("true", timeout=240)

    def stop(self):
        with contextlib.suppress(LibvirtError):
            self.vm.virsh("destroy")

    # libvirt instead of QEMU's monitor

    def actual(self):
        return self.vm.statistics()["actual"] * KIB

    def target(self, size):
        self.vm.set_memory(size, "--live")

    def resident(self):
        """Bytes that QEMU has in memory, its own included."""
        return self.vm.statistics()["rss"] * KIB

    def statistic(self, name, condition, timeout=60):
        """Wait for a statistic that satisfies @condition; returns all."""
        def good():
            values = self.vm.statistics()
            return name in values and condition(values[name]) and values

        return until(good, lambda: f"{name}: {self.vm.statistics()}", timeout)
