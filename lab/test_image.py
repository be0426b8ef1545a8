# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what guests boot."""

import os
import tempfile
import unittest
import unittest.mock

import guests  # sets the path of what follows
import debian
import image
import nest
import vfio
import vfio_linux
import vfio_nest
import virtio_balloon_image as made_of
from guests import GuestError


def members(archive):
    """(name, mode, data) of each member of a newc archive."""
    found, offset = [], 0

    def padded(length):
        return length + -length % 4

    while True:
        head = archive[offset:offset + 110]
        assert head[:6] == b"070701"
        fields = [int(head[i:i + 8], 16) for i in range(6, 110, 8)]
        size, name_size = fields[6], fields[11]
        name = archive[offset + 110:offset + 109 + name_size].decode()
        offset += padded(110 + name_size)
        if name == "TRAILER!!!":
            return found
        found.append((name, fields[1], archive[offset:offset + size]))
        offset += padded(size)


class NewcTest(unittest.TestCase):
    def test_round_trip(self):
        archive = made_of.archive(["bin"], {"bin/a": (b"12345", 0o755)},
                               {"bin/b": "a"})
        self.assertEqual(members(archive), [
            ("bin", 0o040755, b""),
            ("bin/a", 0o100755, b"12345"),
            ("bin/b", 0o120777, b"a")])
        self.assertEqual(len(archive) % 4, 0)


class ImageTest(unittest.TestCase):
    def test_dependencies(self):
        self.assertEqual(made_of.dependencies(b"x\0depends=virtio,ring\0y"),
                         ["virtio", "ring"])
        self.assertEqual(made_of.dependencies(b"x\0depends=\0y"), [])
        self.assertEqual(made_of.dependencies(b"nothing"), [])

    def test_modules_are_in_loading_order(self):
        with tempfile.TemporaryDirectory() as kernel:
            folder = os.path.join(kernel, "lib", "kernel", "drivers")
            os.makedirs(folder)
            for name, needs in (("virtio_balloon", "virtio_ring"),
                                ("virtio-ring", "")):
                with open(f"{folder}/{name}.ko", "wb") as file:
                    file.write(f"\0depends={needs}\0".encode())
            self.assertEqual(list(made_of.modules(kernel)),
                             ["virtio_ring.ko", "virtio_balloon.ko"])

    def test_kernel_without_balloon(self):
        with tempfile.TemporaryDirectory() as kernel:
            with self.assertRaisesRegex(GuestError, "no module"):
                made_of.modules(kernel)

    def test_key_follows_content(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "file")
            keys = set()
            for text in ("a", "b"):
                with open(path, "w", encoding="ascii") as file:
                    file.write(text)
                keys.add(image.content_key(path))
            self.assertEqual(len(keys), 2)


    def test_more_files_have_their_folders(self):
        with unittest.mock.patch.object(made_of, "modules", return_value={}), \
                unittest.mock.patch.object(made_of, "read", return_value=b""):
            names = [name for name, *_ in members(made_of.initrd_bytes(
                "busybox", "kernel", more={"usr/lib/a/b": (b"1", 0o644)}))]
        for name in ("usr", "usr/lib", "usr/lib/a"):
            self.assertLess(names.index(name), names.index("usr/lib/a/b"))
            self.assertEqual(names.count(name), 1)


class NestTest(unittest.TestCase):
    """QEMU in a guest, with an assigned device."""

    def test_launcher(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write('#!/bin/sh\nexec /a/qemu -L /b -L /c/d "$@"\n')
            file.flush()
            self.assertEqual(nest.launched(file.name),
                             ("/a/qemu", ["/b", "/c/d"]))

    def test_firmware_is_the_first_found(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a", "b"):
                os.mkdir(f"{folder}/{name}")
                for firmware in nest.FIRMWARE[name == "a":]:
                    open(f"{folder}/{name}/{firmware}", "wb").close()
            folders = [f"{folder}/a", f"{folder}/b"]
            self.assertEqual(
                list(nest.firmware(folders)),
                [f"{folder}/b/{nest.FIRMWARE[0]}",
                 *(f"{folder}/a/{name}" for name in nest.FIRMWARE[1:])])
            with self.assertRaisesRegex(image.base.BaseError, "no firmware"):
                list(nest.firmware(folders[:1]))

    def test_faults_are_told_by_the_page(self):
        with tempfile.TemporaryDirectory() as folder:
            host = vfio_nest.Nest(unittest.mock.Mock(), folder)
            with open(f"{folder}/trace", "w", encoding="ascii") as file:
                for address in (0x5000, 0x5004, 0x9ffc):
                    file.write("vtd_dmar_fault sid 0x20 fault 5"
                               f" addr {address:#x} write 1\n")
            self.assertEqual(host.faults(), {0x5000, 0x9000})

    def test_whole_granules(self):
        step = vfio_linux.GRANULE // vfio_linux.BALLOON_PAGE
        flags = [1 << vfio_linux.OFFLINE] * (3 * step)
        self.assertEqual(vfio_linux.whole_granules(flags), 3)
        flags[step] = 1
        self.assertEqual(vfio_linux.whole_granules(flags), 2)
        self.assertEqual(vfio_linux.whole_granules(flags[1:]), 1)

    def test_costs_are_those_of_a_granule(self):
        name = "virtio_balloon_coordinator_"
        self.assertEqual(vfio.trace_costs([
            (1.0, "virtio_balloon_flush", "1 ranges, 2097152 bytes"),
            (2.0, name + "discard", "region ram from 0x0 to 0x400000"),
            (2.5, "virtio_balloon_reclaim", "partial: 1"),
            (3.0, name + "populate", "region ram offset 0x0 ret 0"),
            (4.0, "virtio_balloon_reclaim", "partial: 1")]),
            ([0.25], [0.5]))


class DebianTest(unittest.TestCase):
    """Which packages make a guest's kernel."""

    def test_newest_of_a_flavour_comes_first(self):
        names = ["linux-image-6.9.2+deb13-arm64", "linux-image-arm64",
                 "linux-image-6.12.107+deb13-arm64",
                 "linux-image-6.12.117+deb13-arm64",
                 "linux-image-6.12.117+deb13-arm64-16k",
                 "linux-image-6.12.117+deb13-arm64-unsigned",
                 "linux-image-6.12.117+deb13-cloud-arm64",
                 "linux-image-5.10.0-32-cloud-amd64"]
        self.assertEqual(list(debian.kernels(names, "arm64")), [
            ["linux-image-6.12.117+deb13-arm64"],
            ["linux-image-6.12.107+deb13-arm64"],
            ["linux-image-6.9.2+deb13-arm64"]])
        self.assertEqual(list(debian.kernels(names, "cloud-amd64")),
                         [["linux-image-5.10.0-32-cloud-amd64"]])

    def test_kernel_in_two_parts(self):
        names = [f"linux-{part}-7.2.13+deb14-s390x"
                 for part in ("image", "binary", "modules")]
        self.assertEqual(list(debian.kernels(names, "s390x")), [names[1:]])

    def test_what_is_unpacked(self):
        def wanted(path):
            return bool(debian.WANTED.search(path))

        drivers = "./usr/lib/modules/7.2/kernel/drivers/virtio"
        self.assertTrue(wanted(f"{drivers}/virtio_balloon.ko.xz"))
        self.assertTrue(wanted("./boot/vmlinuz-6.1.0-50-cloud-amd64"))
        self.assertTrue(wanted("./usr/lib/modules/7.2/vmlinuz"))
        self.assertTrue(wanted("./usr/bin/busybox"))
        self.assertFalse(wanted(f"{drivers}/../gpu/drm.ko.xz"))
        self.assertFalse(wanted("./usr/share/initramfs-tools/hooks/busybox"))


if __name__ == "__main__":
    unittest.main()
