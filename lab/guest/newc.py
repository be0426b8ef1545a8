# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the cpio archives ("newc") that Linux unpacks as its first root.

Written here because an archive with a device node would otherwise need root,
and because the same input shall give the same bytes everywhere.
"""

import stat


def entry(number, name, mode, data=b"", device=(0, 0)):
    """One member: its header, name and @data, each padded to four bytes."""
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device,
              len(name) + 1, 0)
    head = "070701" + "".join(f"{field:08x}" for field in fields) + name
    head = head.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def archive(folders, files, links, console=True):
    """An archive as bytes.

    @folders: paths, parents first.  @files: path -> (bytes, permissions).
    @links: path -> target.  @console: add /dev/console, which the kernel
    gives its first process before anything can be mounted.
    """
    members = [(name, stat.S_IFDIR | 0o755) for name in folders]
    members += [(name, stat.S_IFREG | permissions, data)
                for name, (data, permissions) in files.items()]
    members += [(name, stat.S_IFLNK | 0o777, target.encode())
                for name, target in links.items()]
    if console:
        members.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
    members.append(("TRAILER!!!", 0))
    return b"".join(entry(number, *member)
                    for number, member in enumerate(members, 1))
