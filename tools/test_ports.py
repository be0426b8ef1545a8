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
    def apply(self, *wanted, version="10.2.1", others=None):
        with mock.patch.dict(ports.PORTS, {(10, 2): wanted}, clear=True):
            return ports.apply(version, TEXTS, others or {})

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

    def test_stands_in(self):
        others = {"ports/10.2/a.c": "two\n", "ports/11.1/a.c": "four\n"}
        for version, text in (("10.0.9", "one two\n"), ("10.2.0", "2\n"),
                              ("11.0.1", "2\n"), ("11.1.0", "four\n")):
            found = self.apply(Port("why", "*.c", "two", "2", 3),
                               version=version, others=others)
            self.assertEqual(found["a.c"], ("a.c", text))

    def test_stands_for_nothing(self):
        with self.assertRaisesRegex(ports.PortError, "x.c stands for no file"):
            self.apply(others={"ports/10.2/x.c": ""})

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
                found = ports.apply(version,
                                    {"qapi/machine.json": text}, {})
            self.assertEqual(found["qapi/machine.json"][1],
                             text.replace("10.1", since))


class RepositoryTest(unittest.TestCase):
    def test_ports_match(self):
        repo = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        texts, others = ({path: overlay.read(os.path.join(repo, path))
                          for path in overlay.our_files(repo, start)}
                         for start in (overlay.IN_TREE, "ports/"))
        for release in ports.releases(others):
            ports.apply(".".join(map(str, release)), texts, others)


if __name__ == "__main__":
    unittest.main()
