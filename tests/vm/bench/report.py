#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What benchmarks have measured: report.py NEW.json [OLD.json]

Prints the table of a run (scripts/bench), and what is worse than in an older run.  The status is 1 if
something is.

A run is a dict:
  version     1
  settings    what it was made with: commit, kernel, rounds, scale, ...
  samples     the measurements, as ordofs-bench writes them
  instructions  the same from a VM with a deterministic clock, in which a nanosecond of CPU time is an
              instruction; may be empty
A measurement has ops, the disk's reads, writes, flushes, discards, read_bytes and written_bytes, and
cpu_ns, task_ns and wall_ns; or an error.

The ratio of a filesystem in a round is its value divided by the best one of the peers in the same round:
what else the machine did meanwhile slowed all of them.  This file lies here, and not in scripts/, because
the test in the VM needs it, too.
"""
import json
import math
import statistics
import sys
from xml.sax.saxutils import escape

OURS = "ordofs"
VERSION = 1
COUNTS = ["reads", "writes", "flushes", "discards", "read_bytes", "written_bytes"]
TIMES = ["cpu_ns", "task_ns", "wall_ns"]

# A count or a number of instructions is worse if it has grown by more than a tenth; a time, which the
# machine bends, if it has grown by more than a quarter and no round of one run overlaps with the other.
COUNT_LIMIT, TIME_LIMIT = 1.10, 1.25
# Differences that mean nothing, for all operations of a workload together.
COUNT_NOISE = {"reads": 8, "writes": 8, "flushes": 4, "discards": 8, "read_bytes": 128 << 10,
               "written_bytes": 128 << 10}


# --- the measurements ------------------------------------------------------------

def parse(text):
    """The lines of a file of samples."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def make_run(settings, samples, instructions=()):
    return {"version": VERSION, "settings": settings, "samples": list(samples),
            "instructions": list(instructions)}


def load(path):
    with open(path, encoding="utf-8") as f:
        run = json.load(f)
    if run.get("version") != VERSION:
        raise ValueError("%s: version %s of the format, not %d" % (path, run.get("version"), VERSION))
    return run


def in_order(items):
    return list(dict.fromkeys(items))


def workloads(samples):
    return in_order(s["workload"] for s in samples)


def filesystems(samples):
    return in_order(s["filesystem"] for s in samples)


def rounds(samples, workload, fs):
    """The measurements of one workload on one filesystem that succeeded, by round."""
    return {s["round"]: s for s in samples
            if s["workload"] == workload and s["filesystem"] == fs and "error" not in s}


def spread(values):
    """Smallest, median, largest; None without values."""
    values = sorted(v for v in values if v is not None)
    return (values[0], statistics.median(values), values[-1]) if values else None


def per_op(samples, workload, fs, field):
    """The spread of a counter, divided by the number of operations."""
    return spread(s[field] / s["ops"] for s in rounds(samples, workload, fs).values())


def ratios(samples, workload, fs, fields):
    """The spread of a filesystem's ratios to the best peer in the same round. `fields` are added up."""
    def value(sample):
        return sum(sample[f] for f in fields)

    peers = [rounds(samples, workload, p) for p in filesystems(samples) if p != OURS]
    result = []
    for number, sample in rounds(samples, workload, fs).items():
        best = min((value(p[number]) for p in peers if number in p), default=0)
        if best > 0:
            result.append(value(sample) / best)
    return spread(result)


def failures(run):
    for kind in "samples", "instructions":
        for s in run[kind]:
            if "error" in s:
                yield "%s on %s, round %d: %s" % (s["workload"], s["filesystem"], s["round"], s["error"])


# --- the table -------------------------------------------------------------------

COLUMNS = ("workload", "", "reads", "writes", "flushes", "KiB read", "KiB writ.", "kinstr", "ratio",
           "CPU ratio", "min..max", "time ratio", "min..max", "us")


def number(value):
    """Three digits that count."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return "%.*f" % (digits, value)


def range_of(triple):
    return "%s..%s" % (number(triple[0]), number(triple[2])) if triple else "-"


def middle(triple, divisor=1):
    return number(triple[1] / divisor if triple else None)


def rows(run):
    """The table's rows, as lists of text: all per operation."""
    samples, counted = run["samples"], run["instructions"]
    for workload in workloads(samples or counted):
        first = True
        for fs in filesystems(samples or counted):
            def of(field, workload=workload, fs=fs):
                return per_op(samples, workload, fs, field)

            cpu = ratios(samples, workload, fs, ["cpu_ns"])
            wall = ratios(samples, workload, fs, ["wall_ns"])
            yield [workload if first else "", fs, middle(of("reads")), middle(of("writes")),
                   middle(of("flushes")), middle(of("read_bytes"), 1024), middle(of("written_bytes"), 1024),
                   middle(per_op(counted, workload, fs, "cpu_ns"), 1000),
                   middle(ratios(counted, workload, fs, ["cpu_ns"])),
                   middle(cpu), range_of(cpu), middle(wall), range_of(wall), middle(of("wall_ns"), 1000)]
            first = False


def table(run):
    lines = [list(COLUMNS), *rows(run)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    text = []
    for line in lines:
        if line[0] and text:
            text.append("")
        text.append("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w)
                              for i, (cell, w) in enumerate(zip(line, widths))).rstrip())
    return "\n".join([*text, "", *legend(run)])


def legend(run):
    settings = run["settings"]
    yield ("Per operation; medians of the rounds. kinstr: thousands of instructions of the guest, in a "
           "round of its own.")
    yield "Ratios are to the best peer in the same round: below 1 is better than every peer."
    yield ", ".join("%s %s" % item for item in settings.items())
    for text in failures(run):
        yield "FAILED " + text


# --- comparison --------------------------------------------------------------------

class Comparison:
    """What is worse, what is better, and what could not be compared: lines of text."""

    def __init__(self, old, new):
        self.worse, self.better, self.left_out = [], [], []
        for workload in workloads(new["samples"] or new["instructions"]):
            if self.comparable(old["samples"], new["samples"], workload, "counts"):
                for field in COUNTS:
                    self.count(old["samples"], new["samples"], workload, field, field, COUNT_NOISE[field])
                self.ratio(old["samples"], new["samples"], workload, "cpu_ns", "ratio of CPU time")
                self.ratio(old["samples"], new["samples"], workload, "wall_ns", "ratio of time")
            if self.comparable(old["instructions"], new["instructions"], workload, "instructions"):
                self.count(old["instructions"], new["instructions"], workload, "cpu_ns", "instructions", 0)

    def comparable(self, old, new, workload, what):
        """Whether both runs have it, with as many operations."""
        ops = [{s["ops"] for s in rounds(samples, workload, OURS).values()} for samples in (old, new)]
        if any(ops) and not all(ops):
            self.left_out.append("%s: only one of the runs has its %s" % (workload, what))
        elif ops[0] != ops[1]:
            self.left_out.append("%s: another number of operations" % workload)
        return all(ops) and ops[0] == ops[1]

    def count(self, old, new, workload, field, what, noise):
        """Medians; a difference of no more than `noise` for all operations means nothing."""
        before, after = (per_op(samples, workload, OURS, field)[1] for samples in (old, new))
        ops = next(iter(rounds(new, workload, OURS).values()))["ops"]
        if abs(after - before) * ops > noise:
            self.note(workload, what + " an operation", before, after, COUNT_LIMIT)

    def ratio(self, old, new, workload, field, what):
        """The ratios to the best peer, since the machine may be another one."""
        before, after = (ratios(samples, workload, OURS, [field]) for samples in (old, new))
        if before and after and (after[0] > before[2] or before[0] > after[2]):
            self.note(workload, what, before[1], after[1], TIME_LIMIT)

    def note(self, workload, what, before, after, limit):
        grown = " (%+.0f%%)" % (100 * (after / before - 1)) if before else ""
        line = "%-26s %-28s %s -> %s%s" % (workload, what, number(before), number(after), grown)
        if after > before * limit:
            self.worse.append(line)
        elif before > after * limit:
            self.better.append(line)


def comparison(old, new):
    """The text of a comparison, and whether something is worse."""
    found = Comparison(old, new)
    lines = ["worse   " + line for line in found.worse] + ["better  " + line for line in found.better]
    lines += ["not compared: " + line for line in found.left_out]
    lines.append("%d worse, %d better than the run of %s" % (
        len(found.worse), len(found.better), old["settings"].get("when", "an unknown time")))
    return "\n".join(lines), bool(found.worse)


# --- pictures ------------------------------------------------------------------------

PLOTS = {
    "time": ("Time", "samples", ["wall_ns"]),
    "cpu": ("CPU time of the system", "samples", ["cpu_ns"]),
    "requests": ("Requests of the disk: reads, writes and flushes", "samples", ["reads", "writes", "flushes"]),
    "instructions": ("Instructions of the guest", "instructions", ["cpu_ns"]),
}
COLOURS = {"ordofs": "#c0392b", "ext4": "#2471a3", "xfs": "#1e8449", "btrfs": "#b7950b"}
LOWEST, HIGHEST = 1 / 8, 32  # ratios; what lies outside is drawn at the edge
LEFT, ROW, TOP_MARGIN, WIDTH = 190, 18, 62, 900


def x_of(ratio):
    """Horizontal place of a ratio on a logarithmic scale."""
    ratio = min(max(ratio, LOWEST), HIGHEST)
    share = (math.log2(ratio) - math.log2(LOWEST)) / (
        math.log2(HIGHEST) - math.log2(LOWEST))
    return LEFT + share * (WIDTH - LEFT - 30)


def plot(run, name):
    """An SVG picture of ratios, a row for each workload; None if there is nothing to be drawn."""
    title, kind, fields = PLOTS[name]
    samples = run[kind]
    all_of_it = [(w, {fs: ratios(samples, w, fs, fields) for fs in filesystems(samples)})
                 for w in workloads(samples)]
    all_of_it = [(w, by_fs) for w, by_fs in all_of_it if any(by_fs.values())]
    if not all_of_it:
        return None
    height = TOP_MARGIN + ROW * len(all_of_it) + 16
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-size="11" '
             'font-family="DejaVu Sans,Verdana,sans-serif">' % (WIDTH, height),
             '<rect width="100%" height="100%" fill="white"/>',
             '<text x="8" y="18" font-size="14">%s, relative to the best peer (less is better)</text>'
             % escape(title)]
    parts += [mark(300 + 80 * i, 34, fs) + '<text x="%d" y="38">%s</text>' % (308 + 80 * i, escape(fs))
              for i, fs in enumerate(filesystems(samples))]
    ratio = LOWEST
    while ratio <= HIGHEST:
        x = x_of(ratio)
        parts.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s"/>' % (
            x, x, TOP_MARGIN - 8, height - 10, "#555" if ratio == 1 else "#ddd"))
        parts.append('<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%g</text>' % (
            x, TOP_MARGIN - 12, ratio))
        ratio *= 2
    for i, (workload, by_fs) in enumerate(all_of_it):
        parts += row(TOP_MARGIN + ROW * i + 8, workload, by_fs)
    return "\n".join([*parts, "</svg>", ""])


def row(y, workload, by_fs):
    yield '<text x="%d" y="%d" text-anchor="end">%s</text>' % (LEFT - 12, y + 4, escape(workload))
    # Ours last, above the others.
    for fs in sorted(by_fs, key=lambda fs: fs == OURS):
        if by_fs[fs]:
            low, median, high = by_fs[fs]
            yield '<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s"/>' % (
                x_of(low), x_of(high), y, y, COLOURS.get(fs, "black"))
            yield mark(x_of(median), y, fs)


def mark(x, y, fs):
    return '<circle cx="%.1f" cy="%d" r="%s" fill="%s"/>' % (
        x, y, "4.5" if fs == OURS else "3", COLOURS.get(fs, "black"))


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    new = load(sys.argv[1])
    print(table(new))
    if len(sys.argv) == 3:
        text, worse = comparison(load(sys.argv[2]), new)
        print("\n" + text)
        sys.exit(worse)


if __name__ == "__main__":
    main()
