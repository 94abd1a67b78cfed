# SPDX-License-Identifier: GPL-2.0
"""Rust sources for the static checks: where they are, and their code without comments and literals."""
import os
import re

TOKEN = re.compile(
    r'//[^\n]*'                       # line comment
    r'|/\*(?:[^*]|\*(?!/))*\*/'       # block comment
    r'|b?r(#*)"(?:.|\n)*?"\1'         # raw string
    r'|b?"(?:\\(?:.|\n)|[^"\\])*"'    # string
    r"|b?'(?:\\.[^']*|[^\\'])'")      # character


def blank(text):
    """The code alone: everything else as spaces, newlines kept."""
    return TOKEN.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def sources(top, *folders):
    """The paths of the Rust files in these folders of `top`."""
    for folder in folders:
        for path, dirs, files in os.walk(os.path.join(top, folder)):
            dirs[:] = sorted(d for d in dirs if d not in ("target", "vendor"))
            for name in sorted(files):
                if name.endswith(".rs"):
                    yield os.path.join(path, name)
