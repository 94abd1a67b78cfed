#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""scripts/xfstests-table on reports of its own: what is merged, and what the page says of it."""
import importlib.machinery
import importlib.util
import os
import sys
import tempfile

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PATH = os.path.join(TOP, "scripts/xfstests-table")
LOADER = importlib.machinery.SourceFileLoader("xfstests_table", PATH)
table = importlib.util.module_from_spec(importlib.util.spec_from_loader("xfstests_table", LOADER))
LOADER.exec_module(table)

REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite
 name="xfstests" report_timestamp="%s">
  <properties><property name="KERNEL" value="7.3"/></properties>
%s
</testsuite>
"""


def run(folder, mode, when, cases):
    """Leaves a run's files in a folder, as scripts/xfstests and ./check would."""
    os.makedirs(folder)
    with open(os.path.join(folder, "run.txt"), "w", encoding="utf-8") as file:
        file.write("type ordofs\nmode %s\ncommit c-%s\nupstream u\n" % (mode, when[:10]))
    body = "".join('<testcase classname="xfstests.global" name="%s" time="%d">%s</testcase>\n' % case
                   for case in cases)
    with open(os.path.join(folder, "result.xml"), "w", encoding="utf-8") as file:
        file.write(REPORT % (when, body))


def verdicts(mode):
    return {test: row.verdict for test, row in table.view(table.load(), mode, table.excluded()).items()}


def expect(got, wanted):
    if got != wanted:
        sys.exit("%s, not %s" % (got, wanted))


def main(folder):
    table.TABLE = os.path.join(folder, "results.tsv")
    table.EXCLUDE = os.path.join(folder, "exclude")
    with open(table.EXCLUDE, "w", encoding="utf-8") as file:
        file.write("# About the list.\n\n# Makes no\n# sense.\ngeneric/005\ngeneric/006 # Neither.\n")
    tests = os.path.join(folder, "tree/tests/generic")
    os.makedirs(tests)
    groups = {"001": "auto quick", "002": "quick auto", "003": "auto", "004": "auto rw", "005": "auto",
              "006": "auto", "007": "automount quick", "common": "auto"}
    for name, words in groups.items():
        with open(os.path.join(tests, name), "w", encoding="utf-8") as file:
            file.write("#! /bin/bash\n_begin_fstest %s\n" % words)
    table.group(os.path.join(folder, "tree"))

    later = os.path.join(folder, "later")
    run(later, "plain", "2026-01-02T01:00:00+00:00", [
        ("generic/001", 3, ""),
        ("generic/002", 4, '<failure message="[failed] - output mismatch (see /results/x)" type="TestFail"/>'),
        ("generic/003", 1, '<skipped message="knows &lt;nothing&gt;\n of a | sort " />'),
        ("generic/007", 1, "")])
    # An hour before that, though its local time is later.
    earlier = os.path.join(folder, "earlier")
    run(earlier, "plain", "2026-01-02T02:00:00+02:00", [("generic/001", 9, "<failure message=''/>"),
                                                        ("generic/004", 2, "")])
    run(os.path.join(folder, "taught/1"), "taught", "2026-01-03T00:00:00+00:00", [("generic/003", 7, "")])
    table.add([later, earlier, os.path.join(folder, "taught")])
    table.add([earlier])
    table.group(os.path.join(folder, "tree"))

    plain = {"generic/001": "passed", "generic/002": "failed", "generic/003": "not run",
             "generic/004": "passed", "generic/005": "excluded", "generic/006": "excluded"}
    expect(verdicts("plain"), plain)
    expect(verdicts("taught"), dict(plain, **{"generic/003": "passed"}))
    row = table.load()["generic/002", "plain"]
    expect(row.reason, "[failed] - output mismatch")
    expect((row.commit, row.kernel, row.time), ("c-2026-01-02", "7.3", "2026-01-02T01:00:00Z"))
    page = table.tables(table.load())
    for wanted in ("| passed | 2 | 3 |", "| failed | 1 | 1 |", "| not run | 1 | 0 |", "| excluded | 2 | 2 |",
                   "| 002 | [failed] - output mismatch |", "| 005 | Makes no sense. |", "| 006 | Neither. |",
                   "001 3s, 003t 7s, 004 2s\n", "| knows &lt;nothing> of a \\| sort | 1 | 003 |"):
        if wanted not in page:
            sys.exit("not on the page: %s\n\n%s" % (wanted, page))

    # A run of an unknown commit does not count.
    os.remove(os.path.join(later, "run.txt"))
    try:
        table.add([later])
    except SystemExit:
        return
    sys.exit("a run without run.txt was taken")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        main(directory)
