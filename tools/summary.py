#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Print one line that counts the tests of a Meson test log.

usage: summary.py TESTLOG.json
"""

import collections
import json
import sys

FAILED = ("FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS")


def summarise(lines):
    results = collections.Counter(json.loads(line)["result"] for line in lines)
    failed = sum(results[name] for name in FAILED)
    text = f"{results['OK']} passed, {failed} failed"
    return text + f", {results['SKIP']} skipped" * bool(results["SKIP"])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        with open(sys.argv[1], encoding="utf-8") as log:
            print(summarise(log))
    except (OSError, ValueError):       # not there, or cut off
        print("0 passed, 1 failed")


if __name__ == "__main__":
    main()
