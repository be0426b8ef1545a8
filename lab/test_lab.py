# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the parts of this folder that need no guest."""

import os
import socket
import tempfile
import threading
import unittest

import guests  # noqa: F401  (sets the path of what follows)
import demo
import image
import migration
import newc
import plot
import record
from guests import GuestError
from virtio_balloon_guest import MIB, Channel


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
        archive = newc.archive(["bin"], {"bin/a": (b"12345", 0o755)},
                               {"bin/b": "a"})
        self.assertEqual(members(archive), [
            ("bin", 0o040755, b""),
            ("bin/a", 0o100755, b"12345"),
            ("bin/b", 0o120777, b"a"),
            ("dev/console", 0o020600, b"")])
        self.assertEqual(len(archive) % 4, 0)


class ImageTest(unittest.TestCase):
    def test_dependencies(self):
        self.assertEqual(image.dependencies(b"x\0depends=virtio,ring\0y"),
                         ["virtio", "ring"])
        self.assertEqual(image.dependencies(b"x\0depends=\0y"), [])
        self.assertEqual(image.dependencies(b"nothing"), [])

    def test_modules_are_in_loading_order(self):
        with tempfile.TemporaryDirectory() as kernel:
            folder = os.path.join(kernel, "lib", "kernel", "drivers")
            os.makedirs(folder)
            for name, needs in (("virtio_balloon", "virtio_ring"),
                                ("virtio-ring", "")):
                with open(f"{folder}/{name}.ko", "wb") as file:
                    file.write(f"\0depends={needs}\0".encode())
            self.assertEqual(list(image.modules(kernel)),
                             ["virtio_ring.ko", "virtio_balloon.ko"])

    def test_kernel_without_balloon(self):
        with tempfile.TemporaryDirectory() as kernel:
            with self.assertRaisesRegex(image.base.BaseError, "no module"):
                image.modules(kernel)

    def test_key_follows_content(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "file")
            keys = set()
            for text in ("a", "b"):
                with open(path, "w", encoding="ascii") as file:
                    file.write(text)
                keys.add(image.content_key(path))
            self.assertEqual(len(keys), 2)


class ChannelTest(unittest.TestCase):
    """The protocol, with a thread in the place of the guest."""

    def talk(self, *pieces):
        """What the channel makes of @pieces, sent by the guest."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "port")
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path)
                server.listen()

                def serve():
                    with server.accept()[0] as guest:
                        guest.recv(100)
                        for piece in pieces:
                            guest.sendall(piece)

                thread = threading.Thread(target=serve)
                thread.start()
                channel = Channel(path)
                try:
                    channel.send("command")
                    return channel.answer(10)
                finally:
                    channel.close()
                    thread.join()

    def test_answer(self):
        self.assertEqual(self.talk(b"0 5\na\nb\nc"), (0, "a\nb\nc"))

    def test_answer_in_pieces(self):
        self.assertEqual(self.talk(b"12", b"7 ", b"4\nno", b"pe"),
                         (127, "nope"))

    def test_closed(self):
        with self.assertRaises(OSError):
            self.talk()


class DemoTest(unittest.TestCase):
    """When does the demonstration say that the guest did not follow?"""

    def phase(self, before, after, actual, target=512):
        return record.Phase("balloon 512", 0.0, before * MIB, target * MIB,
                            1.0, after * MIB, actual * MIB)

    def test_followed(self):
        demo.check(self.phase(950, 480, 512))
        demo.check(self.phase(300, 300, 512))
        demo.check(self.phase(400, 420, 1024, target=1024))

    def test_not_followed(self):
        with self.assertRaisesRegex(GuestError, "did not follow"):
            demo.check(self.phase(950, 480, 513))

    def test_memory_did_not_fall(self):
        for after in (950, 700, 530):
            with self.assertRaisesRegex(GuestError, "did not fall"):
                demo.check(self.phase(950, after, 512))

    def test_marks_name_each_phase(self):
        text = plot.marks([self.phase(1, 1, 1)] * 3, 1088)
        self.assertEqual(text.count('"balloon 512"'), 3)
        self.assertEqual(text.count("set object"), 3)


class MigrationTest(unittest.TestCase):
    def test_columns(self):
        device = migration.Case("4.0", "page-poison").device()
        self.assertIn("page-poison=on", device)
        self.assertEqual(device.count("=on"), 1)
        everything = migration.Case("4.0", "all").device()
        self.assertEqual(everything.count("=on"), len(migration.PROPERTIES))
        self.assertIn("iothread=io0", everything)


class OptionsTest(unittest.TestCase):
    def test_missing_qemu(self):
        class Options:
            qemu, tree = "/nonexistent/qemu", "/nonexistent"

        with self.assertRaisesRegex(GuestError, "balloon build"):
            guests.machine_class(Options)


if __name__ == "__main__":
    unittest.main()
