#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""tests/vm/bench/report.py on measurements of its own: statistics, table, comparison, pictures."""
import copy
import json
import os
import sys
import tempfile
from xml.dom import minidom

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests/vm/bench"))
import report  # noqa: E402


def sample(workload, fs, number, wall, **fields):
    """A measurement of 10 operations: 2 writes and a flush each."""
    return {"workload": workload, "filesystem": fs, "round": number, "ops": 10, "reads": 0, "writes": 20,
            "flushes": 10, "discards": 0, "read_bytes": 0, "written_bytes": 81920, "cpu_ns": wall // 2,
            "task_ns": wall // 4, "wall_ns": wall, **fields}


def example(workload="append"):
    """Three rounds; in the last one the machine has something else to do. xfs is the best peer, but once."""
    walls = {"ordofs": (500, 600, 4400), "ext4": (1600, 1500, 4000), "xfs": (1000, 1000, 8000)}
    samples = [sample(workload, fs, n + 1, walls[fs][n] * 1000) for n in range(3) for fs in walls]
    counted = [sample(workload, "ordofs", 1, 90000), sample(workload, "ext4", 1, 60000)]
    return report.make_run({"when": "2026-01-01", "rounds": 3}, samples, counted)


def changed(run, kind="samples", fs="ordofs", **fields):
    """The run with other values for one filesystem."""
    run = copy.deepcopy(run)
    for s in run[kind]:
        if s["filesystem"] == fs:
            s.update({k: v(s[k]) if callable(v) else v for k, v in fields.items()})
    return run


def check_statistics():
    run = example()
    assert report.spread([]) is None and report.spread([None]) is None
    assert report.spread([3, 1, 2, 10]) == (1, 2.5, 10)
    # Each round against its own best peer: 500/1000, 600/1000, 4400/4000.
    assert report.ratios(run["samples"], "append", "ordofs", ["wall_ns"]) == (0.5, 0.6, 1.1)
    assert report.ratios(run["samples"], "append", "xfs", ["wall_ns"]) == (1, 1, 2)
    assert report.per_op(run["samples"], "append", "ordofs", "writes") == (2, 2, 2)
    # No peer has read anything, so there is no ratio.
    assert report.ratios(run["samples"], "append", "ordofs", ["reads"]) is None
    assert report.ratios(run["samples"], "append", "ordofs", ["reads", "flushes"]) == (1, 1, 1)
    # A round that failed for a peer is compared with the others; one of ours is left out.
    part = [s for s in run["samples"] if (s["filesystem"], s["round"]) != ("xfs", 1)]
    assert report.ratios(part, "append", "ordofs", ["wall_ns"])[0] == 500 / 1600
    failed = changed(run, error="no space")
    assert report.ratios(failed["samples"], "append", "ordofs", ["wall_ns"]) is None
    assert len(list(report.failures(failed))) == 3


def check_table():
    text = report.table(example()).split("\n")
    assert text[0].split()[:4] == ["workload", "reads", "writes", "flushes"], text[0]
    ours = next(line for line in text if line.startswith("append")).split()
    assert ours == ["append", "ordofs", "0", "2.00", "1.00", "0", "8.00", "4.50", "1.50",
                    "0.60", "0.50..1.10", "0.60", "0.50..1.10", "60.0"], ours
    failed = report.table(changed(example(), fs="xfs", error="no space"))
    assert "FAILED append on xfs, round 2: no space" in failed


def compare(old, new):
    found = report.Comparison(old, new)
    return found.worse, found.better, found.left_out


def check_comparison():
    old = example()
    assert compare(old, old) == ([], [], [])

    def worse(new):
        bad, good, out = compare(old, new)
        assert not out, out
        back = compare(new, old)
        # What is worse in one direction is better in the other.
        assert len(back[1]) == len(bad) and len(back[0]) == len(good)
        return bad

    assert worse(changed(old, flushes=12)) == [] and worse(changed(old, writes=23)) == []
    more = worse(changed(old, writes=60))
    assert len(more) == 1 and more[0].split() == \
        "append writes an operation 2.00 -> 6.00 (+200%)".split(), more
    # From nothing, too.
    assert len(worse(changed(old, reads=100))) == 1
    assert len(worse(changed(old, kind="instructions", cpu_ns=lambda v: v * 1.12))) == 1
    assert worse(changed(old, kind="instructions", cpu_ns=lambda v: v * 1.08)) == []
    # Times: the rounds of the two runs overlap; then they do not.
    assert worse(changed(old, wall_ns=lambda v: v * 1.5)) == []
    assert len(worse(changed(old, wall_ns=lambda v: v * 3))) == 1
    # A peer that becomes slower is not ours, but the ratio says that we became faster.
    assert worse(changed(old, fs="ext4", flushes=100)) == []
    other = changed(old, ops=20)
    assert compare(old, other) == ([], [], ["append: another number of operations"])
    assert compare(old, example("other"))[2]
    text, bad = report.comparison(old, changed(old, writes=60))
    assert bad and text.split("\n")[-1] == "1 worse, 0 better than the run of 2026-01-01", text


def check_pictures():
    run = example()
    for name in report.PLOTS:
        picture = minidom.parseString(report.plot(run, name))
        texts = [t.firstChild.data for t in picture.getElementsByTagName("text")]
        assert "append" in texts and "ordofs" in texts and "1" in texts, texts
    assert report.plot(report.make_run({}, run["samples"]), "instructions") is None
    assert report.x_of(1e-9) == report.x_of(report.LOWEST) < report.x_of(1) < report.x_of(1e9)


def check_files():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(example(), f)
        assert report.load(path) == example()
        with open(path, "w", encoding="utf-8") as f:
            json.dump(dict(example(), version=report.VERSION + 1), f)
        try:
            report.load(path)
        except ValueError:
            pass
        else:
            raise AssertionError("another version of the format was read")
    lines = "".join(json.dumps(s) + "\n" for s in example()["samples"])
    assert report.parse(lines + "\n") == example()["samples"]


for check in (check_statistics, check_table, check_comparison, check_pictures, check_files):
    check()
