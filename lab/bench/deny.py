#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a program without process_madvise(): deny.py PROGRAM [ARGUMENT]..."""

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
PROCESS_MADVISE = 440           # on all architectures alike
ALLOW, ERRNO = 0x7fff0000, 0x00050000
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06


class Program(ctypes.Structure):  # pylint: disable=too-few-public-methods
    """struct sock_fprog"""
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def deny(call, error):
    code = b"".join(struct.pack("<HBBI", *line) for line in (
        (LOAD, 0, 0, 0),                # the number of the call
        (JUMP_EQUAL, 0, 1, call),
        (RETURN, 0, 0, ERRNO | error),
        (RETURN, 0, 0, ALLOW)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    program = Program(len(code) // 8, code)
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or
            prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    deny(PROCESS_MADVISE, errno.EPERM)
    os.execvp(sys.argv[1], sys.argv[1:])
