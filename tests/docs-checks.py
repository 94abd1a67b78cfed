#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The checks of the documentation find what they are for: docs-checks.py [links|english|mount|pictures]

Each check runs on a small tree that is right, and then on that tree with one fault planted, which it must
report. One word on the command line runs the tests of that check only.
"""
import os
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TRAIL = """### Question {n}

1. [start](README.md)
2. [page](docs/PAGE.md#a-part)
3. [`work`](rust/a.rs)

"""
LINKS = {
    "README.md": "# Top\n\nSee [page](docs/PAGE.md#a-part) and `work` in `rust/a.rs`.\n",
    "docs/PAGE.md": "# Page\n\n## 1. First\n\n## A part\n\nIn [`A::work`](../rust/a.rs).\n\n## Another\n\n    [no](link)\n",
    "CONTRIBUTING.md": "# C\n\n## Five trails\n\n" + "".join(TRAIL.format(n=n) for n in range(5)) + "## End\n",
    "docs/GLOSSARY.md": "# G\n\n| term | meaning |\n|---|---|\n| ant | an |\n| Bee | a |\n\n## More\n\n| ace | x |\n",
    "rust/a.rs": "//! See docs/PAGE.md §1.\nfn work() {}\n",
}
# What is replaced in which file, by what, and a part of the complaint.
LINK_FAULTS = [
    ("README.md", "docs/PAGE.md#a-part", "docs/GONE.md", "no such file"),
    ("README.md", "#a-part", "#no-part", "no such heading"),
    ("README.md", "`rust/a.rs`", "`rust/gone.rs`", "no such path: rust/gone.rs"),
    ("README.md", "`rust/a.rs`", "`rust/*/b.rs`", "no such path"),
    ("README.md", "`work` in", "`moved` in", "rust/a.rs does not have the name moved"),
    ("README.md", "`work` in `rust/a.rs`", "`A::moved`\nin [a](rust/a.rs)", "rust/a.rs does not have the name moved"),
    ("docs/PAGE.md", "A::work", "A::gone", "does not have the name gone"),
    ("rust/a.rs", "fn work", "fn rest", "does not have the name work"),
    ("rust/a.rs", "§1", "§2", "has no number 2"),
    ("rust/a.rs", "docs/PAGE.md", "docs/GONE.md", "no such page: docs/GONE.md"),
    ("docs/GLOSSARY.md", "| Bee |", "| ant |", "not in alphabetical order"),
    ("docs/GLOSSARY.md", "| ant |", "| cat |", "not in alphabetical order"),
    ("CONTRIBUTING.md", "### Question 4", "", "4 trails"),
    ("CONTRIBUTING.md", "[start](README.md)", "[start](docs/PAGE.md)", "does not begin at README.md"),
    ("CONTRIBUTING.md", "3. [`work`](rust/a.rs)",
     "3. [`work`](rust/a.rs)\n4. [x](docs/PAGE.md)\n5. [y](README.md)", "4 hops"),
    # The link is on the page, but not in the part that the hop before leads to.
    ("docs/PAGE.md", "In [`A::work`](../rust/a.rs).\n\n## Another\n", "\n## Another\n\nIn [`A::work`](../rust/a.rs).\n",
     "does not link to rust/a.rs"),
]

ENGLISH = {"README.md": "# Top\n\nThe task returns the error that the caller needs. `whoever` is code.\n\n    somebody\n\n"
                        'They say "nobody wants that". It tells one from the other: no, it tells them apart.\n'}
ENGLISH_FAULTS = [
    "Who aborts does so early.", "It waits; who waits holds the lock.", "The lock goes to whoever comes.",
    "Then somebody is\nheld.", "It is nobody's.", "The device answers.", "A write is told where to go.",
    "The trace tells why.", "It wants a lock.", "Whose an allocated block is.", "Had by those who write.",
    "Not inside a transaction.", "It lets go of it.", "Syncs it himself.", "word " * 21,
]

MOUNT = {
    "docs/MOUNT.md": "# M\n\n## Mount options\n\n| option | x |\n|---|---|\n| `a` | |\n\n| `z` | |\n\n## sysfs\n\n"
                     "| `uuid` | |\n\n## ioctls\n\n| `FS_IOC_X` | |\n\n## Tracepoints\n\n| `ordofs_a` | |\n| `ordofs_b` | |\n\n"
                     "## Error tags\n\n| `tag` | |\n",
    "rust/p.rs": 'fn parse() {\n    b"a" => flag(),\n}\n',
    "rust/s.rs": 'const F: File = File::value(c"uuid", uuid);\nconst FS_IOC_X: c_uint = 1;\n',
    "rust/t.h": "TRACE_EVENT(ordofs_a,\nDEFINE_EVENT(class, ordofs_b,\n",
    "rust/w.rs": 'impl Window {\n    fn name() {\n        Self::Tag => c"tag",\n    }\n}\n',
    "rust/m.rs": "module! {\n    name: \"x\",\n}\n",
}
MOUNT_FAULTS = [
    ("rust/p.rs", 'b"a" =>', 'b"a" => x,\n    b"b" =>', "`b` of the code is missing"),
    ("rust/s.rs", 'c"uuid"', 'c"new"', "`new` of the code is missing"),
    ("rust/s.rs", "FS_IOC_X", "FS_IOC_Y", "`FS_IOC_X` is not in the code"),
    ("rust/t.h", "ordofs_b", "ordofs_c", "`ordofs_c` of the code is missing"),
    ("rust/w.rs", 'c"tag"', 'c"other"', "`other` of the code is missing"),
    ("rust/w.rs", "impl Window", "impl Other", "nothing found"),
    ("docs/MOUNT.md", "| `uuid` | |", "", "`uuid` of the code is missing"),
    ("rust/m.rs", "name:", "params: { a: u32 },\n    name:", "has no parameters"),
]


class Tree:
    """A tree of files in a temporary directory."""

    def __init__(self, files):
        self.folder = tempfile.TemporaryDirectory()
        for path, text in files.items():
            self.write(path, text)

    def write(self, path, text):
        full = os.path.join(self.folder.name, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)

    def check(self, script, *arguments, **environment):
        run = subprocess.run([os.path.join(TOP, "scripts", script), *(arguments or (self.folder.name,))],
                             capture_output=True, text=True, check=False,
                             env=dict(os.environ, GIT_CEILING_DIRECTORIES=os.path.dirname(self.folder.name), **environment))
        return run.returncode, run.stdout + run.stderr


def passes(script, files):
    status, said = Tree(files).check(script)
    assert status == 0, f"{script} complains about a tree that is right:\n{said}"


def fails(script, files, fault):
    path, old, new, complaint = fault
    assert old in files[path], fault
    tree = Tree(files)
    tree.write(path, files[path].replace(old, new, 1))
    status, said = tree.check(script)
    assert status == 1 and complaint in said, f"{script} does not see {fault}:\n{said}"


def test_links():
    passes("check-links", LINKS)
    for fault in LINK_FAULTS:
        fails("check-links", LINKS, fault)


def test_english():
    passes("check-english", ENGLISH)
    for sentence in ENGLISH_FAULTS:
        status, said = Tree({"README.md": "# Top\n\n" + sentence + "\n"}).check("check-english")
        assert status == 1, f"check-english does not see: {sentence}\n{said}"


def test_mount():
    passes("check-mount-docs", MOUNT)
    for fault in MOUNT_FAULTS:
        fails("check-mount-docs", MOUNT, fault)


def test_pictures():
    with open(os.path.join(TOP, "docs/pictures/disk.dot"), encoding="utf-8") as f:
        dot = f.read()
    with open(os.path.join(TOP, "docs/pictures/disk.svg"), encoding="utf-8") as f:
        svg = f.read()
    for text, want in ((dot, 0), (dot + " ", 1)):
        tree = Tree({"disk.dot": text, "disk.svg": svg})
        status, said = tree.check("pictures", "--check", PICTURES=tree.folder.name)
        assert status == want, f"pictures --check: {status} and not {want}:\n{said}"


TESTS = {"links": test_links, "english": test_english, "mount": test_mount, "pictures": test_pictures}

if __name__ == "__main__":
    for name in sys.argv[1:] or TESTS:
        TESTS[name]()
