# SPDX-License-Identifier: GPL-2.0-or-later
"""What <memballoon> asks for is what QEMU has, and virsh reaches it."""

import os
import re
import shlex
import xml.etree.ElementTree as ElementTree

import guests
import install
from base import read
from domain import NAMESPACE
from libvirt_testcase import LibvirtTest
from virtio_balloon_guest import GIB, MIB
from virtio_balloon_testcase import improved

DOCUMENT = f"{guests.REPO}/docs/system/devices/virtio-balloon.rst"
PACKAGING = f"{guests.REPO}/PACKAGING.md"
PERIOD = "guest-stats-polling-interval"
VIRTIO_BALLOON = "<memballoon model='virtio'/>"
# PCI device of a transitional and of a virtio 1.x balloon
TRANSITIONAL, MODERN = 0x1002, 0x1045
# What libvirt has no setting for: -global or <qemu:property> gives it
BEYOND = {"page-poison": False, "free-page-hint": True}
# The same, and stock does not know them either
OURS = {"min-size": 32 * MIB, "must-tell-host": True}


class Memballoon(LibvirtTest):
    """Each test starts QEMU, and no guest."""

    def assert_pci(self, domain, device, slot=None, alias="balloon0"):
        found = domain.pci(alias)
        self.assertEqual(found["id"]["vendor"], 0x1af4)
        self.assertEqual(found["id"]["device"], device)
        if slot is not None:
            self.assertEqual(found["slot"], slot)

    def assert_properties(self, domain, expected):
        for name, value in expected.items():
            self.assertEqual(domain.property(name), value, name)

    def test_absent(self):
        """A domain that does not mention a balloon gets one."""
        domain = self.created("")
        self.assertEqual(domain.balloons(),
                         {"balloon0": "virtio-balloon-pci"})
        self.assert_pci(domain, TRANSITIONAL)
        self.assert_properties(domain, {
            "deflate-on-oom": False, "free-page-reporting": False,
            "free-page-hint": False, "page-poison": True, "packed": False,
            "page-per-vq": False, "iommu_platform": False, "ats": False,
            PERIOD: 0})

    def test_virtio_on_pcie(self):
        domain = self.created(VIRTIO_BALLOON, machine="q35")
        self.assertEqual(domain.balloons(),
                         {"balloon0": "virtio-balloon-pci"})
        domain.virsh("resume")
        self.assert_pci(domain, MODERN)

    def test_transitional(self):
        domain = self.created("<memballoon model='virtio-transitional'/>")
        self.assertEqual(domain.balloons(),
                         {"balloon0": "virtio-balloon-pci-transitional"})
        self.assert_pci(domain, TRANSITIONAL)

    def test_non_transitional(self):
        domain = self.created("<memballoon model='virtio-non-transitional'/>")
        self.assertEqual(domain.balloons(),
                         {"balloon0": "virtio-balloon-pci-non-transitional"})
        self.assert_pci(domain, MODERN)

    def test_none(self):
        """No device, no size to set, and statistics without a balloon's."""
        domain = self.created("<memballoon model='none'/>")
        self.assertEqual(domain.balloons(), {})
        self.assertEqual(domain.attempt_cmd("query-balloon")["error"]["class"],
                         "DeviceNotActive")
        self.assertIn("balloon", domain.refusal("setmem", "32M", "--live"))
        self.assertEqual(list(domain.statistics()), ["rss"])

    def test_switched_on(self):
        domain = self.created("<memballoon model='virtio' autodeflate='on'"
                              " freePageReporting='on'/>")
        self.assert_properties(domain, {"deflate-on-oom": True,
                                        "free-page-reporting": True})

    def test_switched_off(self):
        domain = self.created("<memballoon model='virtio' autodeflate='off'"
                              " freePageReporting='off'/>")
        self.assert_properties(domain, {"deflate-on-oom": False,
                                        "free-page-reporting": False})

    def test_period(self):
        """The interval is set at start, and while the domain runs."""
        domain = self.created("<memballoon model='virtio'>"
                              "<stats period='7'/></memballoon>")
        self.assertEqual(domain.property(PERIOD), 7)
        for period in ("3", "0", "2147483647"):
            domain.virsh("dommemstat", "--period", period, "--live")
            self.assertEqual(domain.property(PERIOD), int(period))
        self.assertIn("period", domain.refusal("dommemstat", "--period", "-1"))
        self.assertEqual(domain.property(PERIOD), 2147483647)

    def test_driver(self):
        domain = self.created("<memballoon model='virtio'><driver packed='on'"
                              " page_per_vq='on'/></memballoon>")
        self.assert_properties(domain, {"packed": True, "page-per-vq": True})

    def test_driver_iommu(self):
        """Only a virtio 1.x device can be behind an IOMMU."""
        driver = "<driver iommu='on' ats='on'/></memballoon>"
        domain = self.created("<memballoon model='virtio-non-transitional'>"
                              + driver)
        self.assert_properties(domain, {"iommu_platform": True, "ats": True})

        domain = self.domain("<memballoon model='virtio'>" + driver,
                             name="refused")
        self.assertIn("VIRTIO_F_IOMMU_PLATFORM",
                      self.session.refusal("create", "--paused", domain.path))

    def test_alias_and_address(self):
        domain = self.created(
            "<memballoon model='virtio'><stats period='5'/>"
            "<alias name='ua-mine'/><address type='pci' domain='0' bus='0'"
            " slot='9' function='0'/></memballoon>")
        self.assertEqual(domain.balloons(), {"ua-mine": "virtio-balloon-pci"})
        self.assert_pci(domain, TRANSITIONAL, slot=9, alias="ua-mine")
        self.assertEqual(domain.property(PERIOD, "ua-mine"), 5)

    def test_too_much(self):
        domain = self.created(VIRTIO_BALLOON)
        self.assertIn("higher than max memory",
                      domain.refusal("setmem", "65M", "--live"))
        domain.set_memory(64 * MIB, "--live")

    def test_not_running(self):
        """What is not running has neither size nor statistics."""
        domain = self.domain(VIRTIO_BALLOON)
        domain.define()
        for command in (("setmem", "32M", "--live"), ("dommemstat",)):
            self.assertIn("not running", domain.refusal(*command))
        domain.virsh("dommemstat", "--period", "4", "--config")
        domain.virsh("start", "--paused")
        self.assertEqual(domain.property(PERIOD), 4)

    # Beyond <memballoon>

    def with_global(self, values):
        arguments = "".join(
            "<qemu:arg value='-global'/><qemu:arg"
            f" value='virtio-balloon-device.{name}={as_text(value)}'/>"
            for name, value in values.items())
        return self.created(
            VIRTIO_BALLOON, more="<iothreads>1</iothreads><qemu:commandline>"
            f"{arguments}</qemu:commandline>")

    def with_override(self, values):
        properties = "".join(
            f"<qemu:property name='{name}' type='{kind(value)}'"
            f" value='{str(value).lower()}'/>"
            for name, value in values.items())
        return self.created(
            VIRTIO_BALLOON, more="<iothreads>1</iothreads><qemu:override>"
            f"<qemu:device alias='balloon0'><qemu:frontend>{properties}"
            "</qemu:frontend></qemu:device></qemu:override>")

    def test_global(self):
        """Properties that libvirt does not know, given with -global."""
        domain = self.with_global({"iothread": "iothread1", **BEYOND})
        self.assert_properties(domain, BEYOND)

    def test_override(self):
        """The same with <qemu:override>."""
        domain = self.with_override({"iothread": "iothread1", **BEYOND})
        self.assert_properties(domain, BEYOND)

    @improved
    def test_global_ours(self):
        domain = self.with_global(OURS)
        self.assert_properties(domain, OURS)
        self.assertIn("min-size", domain.refusal("setmem", "31M", "--live"))
        domain.set_memory(32 * MIB, "--live")

    @improved
    def test_override_ours(self):
        self.assert_properties(self.with_override(OURS), OURS)

    # The manual

    @improved
    def test_document(self):
        """What the manual says to paste and to type does what it says."""
        text = read(DOCUMENT)
        fragments = [fragment for block in code_blocks(text, "xml")
                     for fragment in elements(block)]
        balloon, = (f for f in fragments if f.startswith("<memballoon"))
        more = "".join(f for f in fragments if f != balloon)
        domain = self.created(balloon, name="guest", memory=4 * GIB,
                              more=more)
        self.assert_properties(domain, {
            "deflate-on-oom": True, "free-page-reporting": True,
            "free-page-hint": True, "must-tell-host": True, "min-size": GIB,
            PERIOD: 10})
        typed = re.findall(r"^ *\$ virsh (.*)$", text, re.M)
        self.assertGreater(len(typed), 3)
        for line in typed:
            self.session.virsh(*shlex.split(line))
        self.assertEqual(domain.property(PERIOD), 2)

    @improved
    def test_installed_ours(self):
        """A QEMU that was installed, and the XML that points to it."""
        prefix = f"{self.session.folder}/opt"
        built = os.path.dirname(os.environ["QEMU_TEST_QEMU_BINARY"])
        self.assertTrue(install.install(built, prefix))
        block, = re.findall(r"```xml\n(.*?)```", read(PACKAGING), re.S)
        devices = ElementTree.fromstring(block)
        emulator = devices.find("emulator").text.replace("/opt/balloon", prefix)
        balloon = ElementTree.tostring(devices.find("memballoon"), "unicode")
        domain = self.created(balloon, emulator=emulator)
        self.assert_properties(domain, {
            "deflate-on-oom": True, "free-page-reporting": True, PERIOD: 10,
            "must-tell-host": False})


def as_text(value):
    """@value as QEMU's command line has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def kind(value):
    """The type that <qemu:property> calls @value."""
    return {bool: "bool", int: "unsigned", str: "string"}[type(value)]


def code_blocks(text, language):
    """Blocks of @language in a document, as they are there."""
    pattern = rf"^\.\. code-block:: {language}\n\n((?:(?: +.*)?\n)+)"
    return re.findall(pattern, text, re.M)


def elements(text):
    """The elements on the first level of @text."""
    root = ElementTree.fromstring(
        f"<domain xmlns:qemu='{NAMESPACE}'>{text}</domain>")
    ElementTree.register_namespace("qemu", NAMESPACE)
    return [ElementTree.tostring(element, "unicode") for element in root]
