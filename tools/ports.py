# SPDX-License-Identifier: GPL-2.0-or-later
"""What is different in our files for a release of QEMU after the oldest.

Our files are written for QEMU 10.0.  QEMU's own code knows nothing of other
releases, and neither do they: where an interface moved, a port says what to put
for what.  It must match as often as it says, or an error names it.  Where an
interface became another one, a file of ours has another text: ports/11.1/PATH
stands for PATH from release 11.1 on.  The release that QAPI's `Since` names is
that which a tree leads to.
"""

import fnmatch
import re
from typing import Dict, NamedTuple, Optional, Tuple

import base


class Port(NamedTuple):
    why: str
    paths: str                  # ours, before they move
    pattern: str                # a regular expression; `.` matches a newline
    text: str
    times: Optional[int]        # in all files together; None: at least once


class Move(NamedTuple):
    """Files that begin so are elsewhere in QEMU's tree."""
    start: str
    place: str


PORTS = {
    (10, 2): (
        Port("headers of the memory system moved",
             "hw/virtio/virtio-balloon*",
             r'"exec/(address-spaces|memory|ramblock)\.h"',
             r'"system/\1.h"',
             None),
        Port("a header of the memory system moved",
             "include/hw/virtio/virtio-balloon.h",
             r'"exec/memory\.h"', '"system/memory.h"', 1),
        Move("include/exec/cpu-common.h", "include/system/ramblock.h"),
        Port("a header of the memory system moved",
             "tests/qtest/fuzz/virtio_balloon_fuzz_driver.c",
             r'"exec/memory\.h"', '"system/memory.h"', 1),
        Port("bits of dirty memory are set elsewhere",
             "hw/virtio/virtio-balloon-hint-rounds.c",
             r'"exec/ram_addr\.h"',
             '"exec/cpu-common.h"\n#include "system/physmem.h"', 1),
        Port("bits of dirty memory are set by another name",
             "hw/virtio/virtio-balloon-hint-rounds.c",
             r"\bcpu_(physical_memory_set_dirty_range\(.*?\n) {4}", r"\1", 1),
        Port("bits of dirty memory are set elsewhere",
             "tests/unit/test-virtio-balloon-hint-rounds.c",
             r'^#define RAM_ADDR_H\n#include "exec/ramblock\.h"',
             '#include "exec/cpu-common.h"\n#include "system/physmem.h"\n'
             '#include "system/ramblock.h"', 1),
        Port("bits of dirty memory are set by another name",
             "tests/unit/test-virtio-balloon-hint-rounds.c",
             r"^static (void )cpu_(physical_memory_set_dirty_range\(.*?\n)"
             r" {11}",
             r"\1\2", 1),
        Port("a failure to load is told",
             "tests/qtest/fuzz/virtio_balloon_fuzz_host.c",
             r"(qemu_load_device_state\(\w+)\)", r"\1, &error_abort)", None),
        Port("replays of what is populated and discarded are of one type",
             "hw/virtio/virtio-balloon-listeners.c",
             r"ReplayRam(Populate|Discard)\b", "ReplayRamDiscardState", 4),
        Port("a replay of what is discarded need not be told from the other",
             "hw/virtio/virtio-balloon-listeners.c",
             r"^typedef struct ReplayDiscard \{.*?\n\}\n\n"
             r"(?=/\*\n \* Migration leaves)", "", 1),
        Port("a replay of what is discarded may fail",
             "hw/virtio/virtio-balloon-listeners.c",
             r"^static void (balloon_listeners_replay_discarded\(.*?\n)"
             r" {47}(.*?\n) {47}(.*?\n) {47}(.*?\n)",
             r"static int \1" + "".join(46 * " " + rf"\{i}" for i in (2, 3, 4)),
             1),
        Port("a replay of what is discarded may fail",
             "hw/virtio/virtio-balloon-listeners.c",
             r" {4}ReplayDiscard replay = \{ fn, opaque \};\n(.*?)"
             r" {4}if \(!(migrate_postcopy_ram\(\)) && "
             r"!(migrate_background_snapshot\(\))\) \{\n"
             r" {8}balloon_region_replay\((.*?\n) {30}(.*?)"
             r"balloon_replay_discard, &replay\);\n {4}\}\n",
             r"\1    if (\2 || \3) {\n        return 0;\n    }\n"
             r"    return balloon_region_replay(\4" + 33 * " " +
             r"\5fn, opaque);\n", 1),
        Port("class data is constant",
             "hw/virtio/virtio-balloon*",
             r"(_class_init\(ObjectClass \*klass, )(void \*data)",
             r"\1const \2", 3),
        Port("setting the status may fail",
             "hw/virtio/virtio-balloon.c",
             r"^static void( virtio_balloon_set_status\(.*?\n)\}\n",
             r"static int\1    return 0;\n}\n", 1),
        Port("devices of virtio are elsewhere in the list",
             "docs/system/device-emulation.rst",
             r"devices/vhost-user\.rst", "devices/vfio-user.rst", 1),
        Port("other tests begin the lists",
             "tests/qtest/meson.build", "'bios-tables-test'",
             "'aspeed_hace-test'", 1),
        Port("a maintainer's address changed",
             "MAINTAINERS", r"david@redhat\.com", "david@kernel.org", 1),
        Port("functional tests are in folders of architectures",
             "MAINTAINERS", "tests/functional/test_",
             "tests/functional/x86_64/test_", 1),
        Move("tests/functional/test_", "tests/functional/x86_64/test_"),
        Port("functional tests are in folders of architectures",
             "tests/functional/meson.build", "test_timeouts",
             "test_x86_64_timeouts", 1),
        Move("tests/functional/meson.build",
             "tests/functional/x86_64/meson.build"),
    ),
    (11, 0): (
        Port("headers of devices moved",
             "hw/virtio/virtio-balloon*",
             r'"hw/(boards|qdev-properties)\.h"', r'"hw/core/\1.h"',
             None),
        Port("a header of devices moved",
             "tests/qtest/fuzz/virtio_balloon_fuzz_driver.c",
             r'"hw/boards\.h"', '"hw/core/boards.h"', 1),
        Port("a header of devices moved",
             "hw/virtio/virtio-balloon*", r'"hw/qdev-core\.h"',
             '"hw/core/qdev.h"', 2),
        Port("a header of threads moved",
             "hw/virtio/virtio-balloon*", r'"block/aio\.h"', '"qemu/aio.h"',
             2),
        Port("the type of an address of RAM moved",
             "include/system/balloon.h",
             r'"exec/cpu-common\.h"', '"system/ram_addr.h"', 1),
        Port("virtio devices are built once for all targets",
             "hw/virtio/meson.build", "specific_virtio_ss",
             "system_virtio_ss", 1),
        Port("a failure to save is told",
             "tests/qtest/fuzz/virtio_balloon_fuzz_host.c",
             r"(qemu_save_device_state\(\w+)\)", r"\1, &error_abort)", None),
        Port("migration has fewer obsolete arguments",
             "tests/qtest/fuzz/virtio_balloon_fuzz_host.c",
             r'(qmp_migrate\("file:/dev/null", false, NULL, false, false), '
             r"false, false,\s+NULL", r"\1, NULL", 1),
        Port("migration's parameters are of one type",
             "tests/qtest/fuzz/virtio_balloon_fuzz_host.c",
             "MigrateSetParameters", "MigrationParameters", 1),
    ),
    (11, 1): (
        Port("devices are saved without a header",
             "tests/qtest/fuzz/virtio_balloon_fuzz_host.c",
             r" {4}/\* A magic number and a version \*/\n"
             r"( {4}qemu_get_be32\(file\);\n){2}", "", 1),
        Port("a discard is traced by another name",
             "system/physmem.c", "trace_ram_block_discard_range",
             "trace_ram_block_discard_shared_range", 1),
        Port("a listener may lack memory beside what is discarded",
             "tests/qtest/virtio-balloon-driver.h",
             "(CAN_COORDINATE) true", r"\1 false", 1),
    ),
}


# The release in which our files say that their interfaces are new
NEXT = "10.1"


class PortError(base.BaseError):
    """A port that does not match as it should."""


def release_of(version):
    """(major, minor) of QEMU @version, as 10.2.3."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def next_release(version):
    """The release that a tree of @version, as 10.2.3 or 11.1.50, leads to."""
    major, minor = release_of(version)
    return f"{major}.{minor + 1}" if minor < 2 else f"{major + 1}.0"


def date_interfaces(version, texts):
    """Have QAPI's `Since` in @texts name the release after @version."""
    for path in fnmatch.filter(texts, "qapi/*.json"):
        texts[path] = re.sub(rf"(?i)(\bsince:? ){re.escape(NEXT)}\b",
                             rf"\g<1>{next_release(version)}", texts[path])


def substitute(port, texts):
    """Apply one port to @texts, {path: text}."""
    found = 0
    for path in fnmatch.filter(texts, port.paths):
        texts[path], times = re.subn(port.pattern, port.text, texts[path],
                                     flags=re.M | re.S)
        found += times
    if not found or port.times not in (None, found):
        raise PortError(f"the port '{port.why}' of {port.paths} matches"
                        f" {found} times, not {port.times or 'once or more'}")


def stand_in(others, release, texts):
    """Put the texts in @others that begin with @release into @texts."""
    folder = "ports/" + ".".join(map(str, release)) + "/"
    for path in others:
        if path.startswith(folder):
            if path[len(folder):] not in texts:
                raise PortError(f"{path} stands for no file of ours")
            texts[path[len(folder):]] = others[path]


def releases(others):
    """All releases that something is different for, oldest first."""
    return sorted({*PORTS, *(release_of(path) for path in others)})


def apply(version, texts: Dict[str, str],
          others: Dict[str, str]) -> Dict[str, Tuple[str, str]]:
    """{our path: (path in QEMU's tree, text)} for QEMU @version.

    @others: the files in the folder ports/
    """
    texts = dict(texts)
    place = {path: path for path in texts}
    for release in releases(others):
        if release > release_of(version):
            break
        stand_in(others, release, texts)
        for port in PORTS.get(release, ()):
            if isinstance(port, Port):
                substitute(port, texts)
                continue
            for path in texts:
                if path.startswith(port.start):
                    place[path] = port.place + path[len(port.start):]
    if version:
        date_interfaces(version, texts)
    return {path: (place[path], text) for path, text in texts.items()}
