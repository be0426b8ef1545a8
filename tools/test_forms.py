# SPDX-License-Identifier: GPL-2.0-or-later
"""What a form builds, for which host, and what counts as passed."""

import os
import tempfile
import unittest
from unittest import mock

import base
import forms
import hosts
import overlay

UNIT = "tests += {\n  'test-balloon': [],\n  'test-block': [],\n}\n"
QTEST = "qtests += {\n  'virtio-balloon-test' : files('virtio-balloon-a.c'),\n}\n"
# Says as many tests as it knows that it should
RUNNER = f"""\
case "${{2##*/}} $QTEST_QEMU_BINARY" in
"qemu-system-arm.x ")
    case $* in *" -L "*" -device help") echo '"{forms.DEVICE}"' ;; esac ;;
"u.x ") echo ok 1 ;;
"qtest.x ${{1%/*}}/qemu-system-arm") echo ok 1; echo ok 2 ;;
*) exit 1 ;;
esac
"""


class ProgramsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tree = folder.name
        for name, text in (
                ("unit/meson.build", UNIT), ("qtest/meson.build", QTEST),
                ("unit/test-balloon.c", ""), ("unit/test-block.c", ""),
                ("qtest/virtio-balloon-test.c", ""),
                ("qtest/virtio-balloon-a.c", "")):
            path = f"{self.tree}/tests/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as file:
                file.write(text)

    def test_programs(self):
        self.assertEqual(forms.our_programs(self.tree, "unit"),
                         ["tests/unit/test-balloon"])
        self.assertEqual(forms.our_programs(self.tree, "qtest"),
                         ["tests/qtest/virtio-balloon-test"])

    def goals(self, suffix="", **form):
        return forms.goals(forms.Form(**form), self.tree, suffix)

    def test_goals(self):
        self.assertEqual(self.goals(more=("all",)), [])
        self.assertEqual(self.goals(more=()), ["qemu-system-x86_64"])
        self.assertEqual(
            self.goals(targets=("arm", "ppc"), tests=(("arm", "qos-test"),
                                                      ("ppc", "qos-test"))),
            ["qemu-system-arm", "qemu-system-ppc", "tests/qtest/qos-test",
             "tests/unit/test-balloon"])
        self.assertEqual(
            self.goals(more=("unit", "qtest")),
            ["qemu-system-x86_64", "tests/qtest/virtio-balloon-test",
             "tests/unit/test-balloon"])

    def test_names_on_windows(self):
        self.assertEqual(
            self.goals(".exe", built=("qos-test",)),
            ["qemu-system-x86_64.exe", "tests/qtest/qos-test.exe",
             "tests/unit/test-balloon.exe"])


class RunTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.program = f"{folder.name}/program"

    def write(self, script):
        hosts.native().write_launcher(self.program, f"sh -c '{script}'")
        return self.program

    def test_passed(self):
        for end in (r"\n", r"\r\n"):
            program = self.write(f'printf "ok 1 /a{end}ok 2 /b{end}"')
            self.assertEqual(forms.run_test(program, os.environ), 2)

    def test_failed(self):
        for script in ("echo ok 1 /a; exit 1", "echo ok 1; echo not ok 2",
                       "echo 1..0"):
            with self.assertRaisesRegex(forms.FormError, "fails"):
                forms.run_test(self.write(script), os.environ)

    def test_device(self):
        for says, has in ((f"\\\"{forms.DEVICE}\\\"", True), ("no", False)):
            emulator = self.write(f"echo {says}")
            forms.check_device(emulator, forms.Form(has_device=has),
                               os.environ)
            with self.assertRaisesRegex(forms.FormError, "should have"):
                forms.check_device(emulator, forms.Form(has_device=not has),
                                   os.environ)

    def test_all(self):
        """Each is run by the host's runner, qtests with the emulator's."""
        folder = os.path.dirname(self.program)
        runner = f"{folder}/runner"
        overlay.replace(runner, RUNNER)
        form = forms.Form(targets=("arm",), tests=(("arm", "qtest"),))
        host = hosts.Host(suffix=".x", runner=f"sh {runner} $0")
        with mock.patch("forms.our_programs", return_value=["tests/unit/u"]):
            self.assertEqual(list(forms.run_all(form, host, "", folder, {})),
                             [("u", 1), ("arm qtest", 2)])
            with self.assertRaisesRegex(forms.FormError, "should have"):
                list(forms.run_all(form._replace(has_device=False), host, "",
                                   folder, {}))


class HostTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = f"{folder.name}/new"

    def test_libraries_of_i386(self):
        os.mkdir(self.folder)
        with mock.patch("base.fetch_debs", return_value=self.folder), \
             mock.patch("base.fetch_deb", return_value="/q"):
            for _ in range(2):
                host = hosts.i386()
        self.assertEqual(os.readlink(f"{self.folder}/lib"), "usr/lib")
        self.assertIn(f"--extra-cflags=--sysroot={self.folder}", host.options)
        self.assertEqual(dict(host.environment)["PKG_CONFIG_SYSROOT_DIR"],
                         self.folder)

    def test_built_once(self):
        def build(folder, name):
            self.assertEqual(os.listdir(folder), [])
            with open(f"{folder}/{name}", "w", encoding="ascii"):
                calls.append(name)
            if len(calls) == 1:
                raise base.BaseError("no")

        calls = []
        with self.assertRaises(base.BaseError):
            hosts.built_once(self.folder, build, "a")
        for _ in range(2):
            hosts.built_once(self.folder, build, "b")
        self.assertEqual(calls, ["a", "b"])

    def test_releases(self):
        for version, wanted in (("10.2.2", ["clang", "i386"]),
                                ("11.0.0", ["clang"])):
            self.assertEqual(
                list(forms.buildable(["clang", "i386"], version)), wanted)

    def test_targets(self):
        """Tests are of targets that are built."""
        for name, form in forms.FORMS.items():
            with self.subTest(name):
                self.assertLessEqual({target for target, _ in form.tests},
                                     set(form.targets))


if __name__ == "__main__":
    unittest.main()
