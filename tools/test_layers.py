# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls between the files of the device run down only, and are of a few lines.

docs/devel/virtio-balloon.rst says what each layer is for.
"""

import glob
import os
import re
import unittest

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = f"{REPO}/hw/virtio"
# Those on a layer call none of each other, nor anything above
LAYERS = (
    ("", "-pci"),
    ("-roles",),
    ("-config", "-queue", "-stats", "-hint-queue", "-migration"),
    ("-pages", "-hint-rounds"),
    ("-reclaim",),
    ("-state",),
    ("-discard",),
    ("-coordinator",),
    ("-listeners", "-driver", "-map", "-ranges"),
    ("-page-set",),
)
LONGEST = 60


def read(name):
    with open(f"{FOLDER}/virtio-balloon{name}.c", encoding="utf-8") as file:
        return re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)


def functions(text):
    """(name, whether it is static, lines of its body) of each in a file."""
    for match in re.finditer(r"^(static )?(?:[\w*]+ +)*?\**(\w+)\([^;{}]*\)\n"
                             r"(\{\n.*?^\}\n)", text, re.M | re.S):
        yield match[2], bool(match[1]), match[3].count("\n")


class LayersTest(unittest.TestCase):
    texts = {name: read(name) for layer in LAYERS for name in layer}

    def test_every_file_has_a_layer(self):
        self.assertEqual(
            sorted(self.texts), sorted(
                os.path.basename(path)[len("virtio-balloon"):-2]
                for path in glob.glob(f"{FOLDER}/virtio-balloon*.c")))

    def test_calls_run_down(self):
        layer = {name: i for i, names in enumerate(LAYERS) for name in names}
        home = {function: name for name, text in self.texts.items()
                for function, static, _ in functions(text) if not static}
        self.assertEqual(home["virtio_balloon_pages_tell_held"], "-pages")
        wrong = [f"{name} calls {function}() of {home[function]}"
                 for name, text in self.texts.items()
                 for function in set(re.findall(r"\b\w+\b", text)) & set(home)
                 if home[function] != name
                 and layer[home[function]] <= layer[name]]
        self.assertEqual(wrong, [])

    def test_a_backtrace_says_whose_functions_they_are(self):
        self.assertEqual([name for text in self.texts.values()
                          for name, _, _ in functions(text)
                          if not re.match("(virtio_)?balloon_", name)], [])

    def test_functions_fit_a_screen(self):
        self.assertEqual([(name, lines) for text in self.texts.values()
                          for name, _, lines in functions(text)
                          if lines > LONGEST], [])


if __name__ == "__main__":
    unittest.main()
