# SPDX-License-Identifier: GPL-2.0-or-later
"""Every format finds QEMU's blocks, whole and in order.

Needs QEMU_TREE, a QEMU source tree.
"""

import collections
import glob
import os
import unittest

import blocks
from overlay import read, splice

TREE = os.environ["QEMU_TREE"]


def tree_files(*patterns):
    paths = [path for pattern in patterns
             for path in glob.glob(os.path.join(TREE, pattern),
                                   recursive=True)]
    return sorted(os.path.relpath(p, TREE) for p in paths
                  if os.path.isfile(p) and not os.path.islink(p))


SHARED = {
    "qapi": tree_files("qapi/*.json"),
    "hx": tree_files("hmp-commands*.hx"),
    "c": tree_files("hw/core/*.c", "hw/virtio/*.c", "system/*.c",
                    "monitor/*.c"),
    "header": tree_files("include/migration/*.h", "include/exec/*.h",
                         "include/qemu/*.h", "include/system/*.h"),
    "kconfig": tree_files("hw/**/Kconfig"),
    "meson": tree_files("hw/**/meson.build", "tests/*/meson.build",
                        "system/meson.build"),
    "trace": tree_files("hw/**/trace-events", "system/trace-events"),
    "toctree": tree_files("docs/system/device-emulation.rst",
                          "docs/interop/index.rst"),
    "maintainers": tree_files("MAINTAINERS"),
}


class IdentityTest(unittest.TestCase):
    """A block that replaces itself changes nothing, in any file."""

    def check(self, kind, least):
        replaced = 0
        for path in SHARED[kind]:
            text = read(os.path.join(TREE, path))
            found = blocks.format_of(path).parse(text)
            self.assertEqual(found, sorted(found, key=lambda b: b.start), path)
            for before, after in zip(found, found[1:]):
                self.assertLessEqual(before.end, after.start, path)
            names = collections.Counter(b.name for b in found)
            unique = [b for b in found if names[b.name] == 1]
            ours = "\n".join(text[b.start:b.end] for b in unique)
            again = [b.name for b in blocks.format_of(path).parse(ours)]
            if unique and again == [b.name for b in unique]:
                self.assertEqual(splice(path, text, ours), text, path)
                replaced += len(unique)
        self.assertGreaterEqual(replaced, least)

    def test_qapi(self):
        self.check("qapi", 1000)

    def test_hx(self):
        self.check("hx", 150)

    def test_c(self):
        self.check("c", 3000)

    def test_header(self):
        self.check("header", 1500)

    def test_kconfig(self):
        self.check("kconfig", 300)

    def test_meson(self):
        self.check("meson", 500)

    def test_trace(self):
        self.check("trace", 200)

    def test_toctree(self):
        self.check("toctree", 30)

    def test_maintainers(self):
        self.check("maintainers", 200)


class NameTest(unittest.TestCase):
    """Blocks are named as a reader would, and hold what belongs to them."""

    def names(self, path, text):
        return [b.name for b in blocks.format_of(path).parse(text)]

    def test_qapi(self):
        text = ("##\n# @x:\n#\n# Since: 1\n##\n"
                "{ 'command': 'x',\n  'data': { 'a': 'int' } }\n"
                "\n{ 'enum': 'Y', 'data': [ 'a' ] }\n")
        self.assertEqual(self.names("a.json", text), ["command x", "enum Y"])

    def test_c(self):
        text = ("#include <a/b.h>\n\n/* Why */\nstatic int *\nf(int (*g)(int),"
                "\n  int b)\n{\n    if (b) {\n    }\n}\n\nint h(void);\n")
        found = blocks.format_of("a.c").parse(text)
        self.assertEqual([b.name for b in found], ["a/b.h", "f"])
        self.assertTrue(text[found[1].start:].startswith("/* Why */"))

    def test_element(self):
        text = ("static int a[] = {\n    /* Why */\n    [ONE]  = { 1 },\n"
                "    [TWO] = { 2 },\n};\n")
        found = blocks.format_of("a.c").parse(text)
        self.assertEqual([b.name for b in found], ["ONE", "TWO"])
        self.assertEqual(text[found[0].start:found[0].end],
                         "    [ONE]  = { 1 },\n")

    def test_failing_query(self):
        text = ('    } fails[] = {\n        { "query-x", ERROR_CLASS_NO },\n'
                '        { NULL, -1 }\n')
        found = blocks.format_of("tests/qtest/qmp-cmd-test.c").parse(text)
        self.assertEqual([b.name for b in found], ["query-x"])

    def test_header(self):
        text = ("#include <a/b.h>\n\n/**\n * h: (why)\n */\nint h(void);\n\n"
                "static inline int f(int a)\n{\n    return g(a);\n}\n"
                "int *k(int (*g)(int),\n       int b);\n")
        found = blocks.format_of("a.h").parse(text)
        self.assertEqual([b.name for b in found], ["a/b.h", "h", "f", "k"])
        self.assertTrue(text[found[1].start:].startswith("/**\n * h"))

    def test_meson(self):
        text = ("# note (\nss.add(when: 'CONFIG_A', if_true: files(\n  'a.c',\n"
                "))\nx += {\n  'k': [],\n}\ny = ['p'] + \\\n  ['q']\nif z\n")
        self.assertEqual(self.names("meson.build", text),
                         ["ss.add(when: 'CONFIG_A'", "x += 'k'", "y = 'p'",
                          "if z"])

    def test_trace(self):
        text = "# head\n\n# a.c\na() \"\"\n\n# b.c\n#\nb() \"\"\n"
        found = blocks.format_of("trace-events").parse(text)
        self.assertEqual([b.name for b in found], ["a.c", "b.c"])
        self.assertEqual(text[found[0].start:found[0].end],
                         "# a.c\na() \"\"\n")


if __name__ == "__main__":
    unittest.main()
