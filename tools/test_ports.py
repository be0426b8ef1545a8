# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports: where they apply, and that they match as often as they say."""

import os
import unittest
from unittest import mock

import overlay
import ports
from ports import Move, Port

TEXTS = {"a.c": "one two\n", "b.c": "two\ntwo\n", "t/x.py": "x\n"}


class PortsTest(unittest.TestCase):
    def apply(self, *wanted, version="10.2.1"):
        with mock.patch.dict(ports.PORTS, {(10, 2): wanted}, clear=True):
            return ports.apply(version, TEXTS)

    def fails(self, port, words):
        with self.assertRaisesRegex(ports.PortError, words):
            self.apply(port)

    def test_substitutes(self):
        found = self.apply(Port("why", "*.c", "^t(wo)", r"T\1", 2))
        self.assertEqual(found["a.c"], ("a.c", "one two\n"))
        self.assertEqual(found["b.c"], ("b.c", "Two\nTwo\n"))

    def test_moves(self):
        found = self.apply(Move("t/x", "t/y/x"))
        self.assertEqual(found["t/x.py"], ("t/y/x.py", "x\n"))

    def test_older_release(self):
        for version in ("10.0.9", "10.1.0", ""):
            found = self.apply(Port("why", "*.c", "two", "", 3),
                               version=version)
            self.assertEqual(found["a.c"], ("a.c", TEXTS["a.c"]))

    def test_later_release(self):
        found = self.apply(Port("why", "*.c", "two", "2", 3), version="11.0.0")
        self.assertEqual(found["a.c"], ("a.c", "one 2\n"))

    def test_too_often(self):
        self.fails(Port("why", "*.c", "two", "", 2), "'why'.* 3 times, not 2")

    def test_never(self):
        self.fails(Port("why", "*.c", "three", "", None), "matches 0 times")
        self.fails(Port("why", "*.h", "two", "", None), "matches 0 times")

    def test_since(self):
        text = "# @x: new (since 10.1)\n# Since: 10.1\n# Since: 0.14\n"
        for version, since in (("10.0.13", "10.1"), ("10.2.2", "11.0"),
                               ("11.1.50", "11.2")):
            with mock.patch.dict(ports.PORTS, {}, clear=True):
                found = ports.apply(version, {"qapi/machine.json": text})
            self.assertEqual(found["qapi/machine.json"][1],
                             text.replace("10.1", since))


class RepositoryTest(unittest.TestCase):
    def test_ports_match(self):
        repo = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        texts = {path: overlay.read(os.path.join(repo, path))
                 for path in overlay.our_files(repo)}
        for release in ports.PORTS:
            ports.apply(".".join(map(str, release)), texts)


if __name__ == "__main__":
    unittest.main()
