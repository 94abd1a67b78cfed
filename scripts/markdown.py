# SPDX-License-Identifier: GPL-2.0
"""Markdown as the checks read it."""
import re


def without_code(text):
    """The lines of a page; those of code blocks are empty.

    Code is what is between fences, and what is indented by four spaces after an empty line, unless a
    list goes on there.
    """
    lines = []
    fenced = code = listed = False
    previous = ""
    for line in text.split("\n"):
        fence = line.lstrip().startswith("```")
        if fenced or fence:
            fenced ^= fence
            lines.append("")
            previous = ""
            continue
        if line.strip():
            item = re.match(r" *(?:\d+\.|[-*]) ", line)
            if not line.startswith(" "):
                listed = bool(item)
            code = line.startswith("    ") and not listed and (code or not previous.strip())
        lines.append("" if code else line)
        previous = line
    return lines
