#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What 075-bench.sh has measured is plausible: check.py ALL SOME

ALL are samples of every workload on OrdoFS, one round; SOME those of a few workloads, two rounds, on all
filesystems of this kernel.
"""
import json
import os
import subprocess
import sys
import tempfile
from xml.dom import minidom

import report

KIB = 1024
# Per operation on OrdoFS: the least and the most of a counter.
PLAUSIBLE = {
    "append-fsync-1": {"writes": (2, 2.3), "flushes": (1, 1.2), "written_bytes": (8 * KIB, 12 * KIB)},
    "append-fsync-16": {"writes": (1, 2.3), "flushes": (0, 1.2), "written_bytes": (4 * KIB, 12 * KIB)},
    "overwrite-fdatasync-1": {"writes": (1, 2.3), "flushes": (1, 1.2), "written_bytes": (4 * KIB, 12 * KIB)},
    "dsync-direct-qd1": {"writes": (1, 3), "flushes": (0.9, 3), "written_bytes": (4 * KIB, 16 * KIB)},
    "create-4k-1dir": {"written_bytes": (4 * KIB, 8 * KIB), "flushes": (0, 0.5)},
    "create-fsync-4k-1dir": {"flushes": (1, 1.5), "written_bytes": (8 * KIB, 20 * KIB)},
    "stat-warm": {"reads": (0, 0.02), "writes": (0, 0)},
    "stat-cold": {"reads": (0.01, 2)},
    "readdir-warm": {"reads": (0, 0.02)},
    "readdir-cold": {"reads": (0.01, 2)},
    "seq-write": {"written_bytes": (128 * KIB, 140 * KIB)},
    "seq-write-direct": {"written_bytes": (128 * KIB, 140 * KIB), "writes": (1, 3)},
    "seq-read-cold": {"read_bytes": (128 * KIB, 160 * KIB), "writes": (0, 0)},
    "seq-read-warm": {"reads": (0, 0.02), "writes": (0, 0)},
    "seq-read-direct": {"reads": (1, 3), "read_bytes": (128 * KIB, 140 * KIB)},
    "rand-read-direct": {"reads": (1, 1.3), "read_bytes": (4 * KIB, 6 * KIB)},
    "rand-write-direct": {"writes": (1, 1.5), "written_bytes": (4 * KIB, 6 * KIB)},
    "seq-read-scattered": {"read_bytes": (128 * KIB, 160 * KIB)},
    "fault-2": {"written_bytes": (4 * KIB, 8 * KIB)},
    "mount": {"reads": (1, 200)},
    "recover": {"reads": (1, 1000)},
}
FIELDS = ["round", "ops", *report.COUNTS, *report.TIMES]


def read(path):
    with open(path, encoding="utf-8") as f:
        return report.parse(f.read())


def check_shape(samples):
    for s in samples:
        assert "error" not in s, s
        assert sorted(s) == sorted(["workload", "filesystem", *FIELDS]), s
        assert all(isinstance(s[f], int) and s[f] >= 0 for f in FIELDS), s
        assert s["ops"] > 0 and s["wall_ns"] > 0 and s["cpu_ns"] > 0, s


def check_counts(samples):
    seen = set()
    for s in samples:
        if s["filesystem"] != report.OURS:
            continue
        seen.add(s["workload"])
        for field, (least, most) in PLAUSIBLE.get(s["workload"], {}).items():
            value = s[field] / s["ops"]
            # The few operations here bear the whole cost of the last commit.
            slack = 12 / s["ops"] if field in ("writes", "flushes", "reads") else 64 * KIB / s["ops"]
            assert least <= value <= most + (slack if most else 0), (field, value, s)
    assert not set(PLAUSIBLE) - seen, set(PLAUSIBLE) - seen


def check_rounds(samples):
    """Two rounds have counted the same, or nearly so."""
    for workload in report.workloads(samples):
        for fs in report.filesystems(samples):
            both = report.rounds(samples, workload, fs)
            assert sorted(both) == [1, 2], (workload, fs, both)
            if fs == report.OURS:
                for field in "reads", "writes", "flushes":
                    a, b = (both[n][field] for n in (1, 2))
                    assert abs(a - b) <= max(4, max(a, b) / 10), (workload, field, a, b)


def check_output(samples):
    """The table as a program prints it, from a file, and the pictures."""
    run = report.make_run({"when": "now"}, samples, samples)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(run, f)
        text = subprocess.run([sys.executable, report.__file__, path, path], check=True, text=True,
                              stdout=subprocess.PIPE).stdout
    print(text)
    lines = [line.split() for line in text.split("\n")]
    columns = len(report.COLUMNS)
    for workload in report.workloads(samples):
        first = next(i for i, line in enumerate(lines) if line[:1] == [workload])
        for i, fs in enumerate(report.filesystems(samples)):
            line = lines[first + i]
            assert len(line) == columns - (1 if i else 0) and fs in line, line
    assert "0 worse, 0 better" in text
    for name in report.PLOTS:
        minidom.parseString(report.plot(run, name))


every, some = (read(path) for path in sys.argv[1:])
check_shape(every + some)
check_counts(every + some)
check_rounds(some)
check_output(some)
assert len(report.filesystems(some)) > 1, "no peer is in this kernel"
names = subprocess.run(["ordofs-bench", "list"], check=True, text=True, stdout=subprocess.PIPE).stdout
assert [line.split()[0] for line in names.splitlines()] == report.workloads(every)
print("trace: %d workloads; %d measurements" % (len(report.workloads(every)), len(every + some)))
