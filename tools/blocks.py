# SPDX-License-Identifier: GPL-2.0-or-later
"""The named blocks of the file formats that QEMU shares among devices.

A format's `parse` takes the text of a file and returns its blocks in order.
Text between blocks belongs to nobody.
"""

import os
import re
from typing import Callable, List, NamedTuple


class Block(NamedTuple):
    name: str
    start: int
    end: int    # past the newline that ends the block
    gap: str    # what separates a new block from the one before it


class Format(NamedTuple):
    matches: Callable[[str], bool]
    parse: Callable[[str], List[Block]]


def by_regex(pattern, gap, flags=re.M):
    """A parser for blocks that one regular expression finds and names."""
    regex = re.compile(pattern, flags)

    def parse(text):
        return [Block(" ".join(g for g in m.groups() if g), *m.span(), gap)
                for m in regex.finditer(text)]
    return parse


# A definition with its ##-comment; nothing in a definition starts a line with
# anything but a space, a closing bracket or a comment
parse_qapi = by_regex(
    r"(?:^##\n(?:#.*\n)*?##\n)?"
    r"^\{ '(\w+)': '?([\w.-]+)?.*\n(?:[ \]}#].*\n)*", "\n")

# An entry and its documentation
parse_hx = by_regex(
    r'^    \{\n        \.name +?= "([^"]+)",.*?^    \},\n'
    r"(?:(?:#endif\n|\n)*SRST\n.*?^ERST\n)?", "\n", re.M | re.S)

parse_kconfig = by_regex(r"^config (\w+)\n(?:(?:[ \t].*)?\n(?=[ \t]))*"
                         r"(?:[ \t].*\n)?", "\n")

# The events of one source file; its name stands in a comment
parse_trace = by_regex(r"^# (\S+\.[ch])\n(?:(?!# \S+\.[ch]\n)(?:.*\n)*?.+\n"
                       r"(?=\n*(?:# \S+\.[ch]\n|\Z)))?", "\n")

parse_toctree = by_regex(r"^ +([\w./-]+)\n", "")

parse_maintainers = by_regex(r"^(?![A-Z]: )(?![A-Z]:\t)(\S.*)\n"
                             r"(?:[A-Z]:[ \t].*\n)+", "\n")

parse_include = by_regex(r'^#include [<"]([^>"]+)[>"]\n', "")

parse_function = by_regex(
    r"(?:^/\*(?:(?!\*/).)*\*/\n)?"
    r"^[A-Za-z_][\w \t*]*?\n?\b(\w+)\([^;{}()]*(?:\([^;{}()]*\)[^;{}()]*)*\)\n"
    r"\{\n.*?^\}\n", "\n", re.M | re.S)


parse_prototype = by_regex(
    r"(?:^/\*(?:(?!\*/).)*\*/\n)?"
    r"^[A-Za-z_][\w \t*]*?\n?\b(\w+)\([^;{}()]*(?:\([^;{}()]*\)[^;{}()]*)*\);\n",
    "\n", re.M | re.S)


# An element of an array that names its place
parse_element = by_regex(r"^ {4}\[(\w+)\] += .*,\n", "")


# A query that fails in QEMU's test of all of them, and how
parse_failing_query = by_regex(r'^ {8}\{ "([\w-]+)", ERROR_CLASS_\w+ \},\n',
                               "")


def with_functions(parse_others):
    """A parser for functions, and for what is outside of them."""
    def parse(text):
        functions = parse_function(text)
        others = [other for other in parse_others(text)
                  if not any(f.start <= other.start < f.end
                             for f in functions)]
        return sorted(others + functions, key=lambda b: b.start)
    return parse


parse_c = with_functions(
    lambda text: parse_include(text) + parse_element(text))
# In a source file, a prototype has the name of the function that follows
parse_header = with_functions(
    lambda text: parse_include(text) + parse_prototype(text))


def meson_blank(text):
    """@text with strings and comments blanked, of the same length."""
    return re.sub(r"'''.*?'''|'(?:\\.|[^'\\\n])*'|#[^\n]*",
                  lambda m: re.sub(r"[^\n]", "_", m[0]), text, flags=re.S)


def meson_name(text):
    """Callee and first argument, or variable, operator and first element."""
    call = re.match(r"\s*([\w.]+)\(\s*([^,)\n]*)", text)
    if call:
        return f"{call[1]}({call[2].strip()}"
    assignment = re.match(r"\s*(\w+) (\+?=)[\s\\]*[\[{(]*\s*([^,:\]})\n]*)",
                          text)
    if assignment:
        return f"{assignment[1]} {assignment[2]} {assignment[3].strip()}"
    return text.strip()


def parse_meson(text):
    """Statements: lines, joined while a bracket is open or a \\ ends them."""
    blocks, start, depth, at = [], None, 0, 0
    for line in meson_blank(text).splitlines(keepends=True):
        if start is None and line.strip(" \t\n_"):
            start = at
        depth += sum(line.count(c) for c in "([{")
        depth -= sum(line.count(c) for c in ")]}")
        at += len(line)
        if start is not None and not depth and not line.endswith("\\\n"):
            blocks.append(Block(meson_name(text[start:at]), start, at, ""))
            start = None
    return blocks


def suffix(*endings):
    return lambda path: path.endswith(endings)


def named(name):
    return lambda path: os.path.basename(path) == name


FORMATS = (
    Format(suffix(".json"), parse_qapi),
    Format(suffix(".hx"), parse_hx),
    Format(named("qmp-cmd-test.c"), parse_failing_query),
    Format(suffix(".c"), parse_c),
    Format(suffix(".h"), parse_header),
    Format(suffix(".rst"), parse_toctree),
    Format(named("Kconfig"), parse_kconfig),
    Format(named("meson.build"), parse_meson),
    Format(named("trace-events"), parse_trace),
    Format(named("MAINTAINERS"), parse_maintainers),
)


def format_of(path):
    """The format of a shared file, or None."""
    return next((f for f in FORMATS if f.matches(path)), None)
