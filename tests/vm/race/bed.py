# SPDX-License-Identifier: GPL-2.0
"""What the reproducers of races share.

A reproducer holds somebody in a window by an error tag, lets others do what must
not be done there, shows by the trace that the window was entered, cuts the power,
mounts again (which replays the log) and checks the data and the filesystem.

It fails with status 1, and a line that begins with "LOST", when the filesystem did
something wrong, and with status 2 when the test itself did not do what it was meant
to do: a window that was not entered is of the second kind. The first kind is what
mutants have to show.
"""
import ctypes
import fcntl
import mmap
import os
import re
import struct
import subprocess
import sys
import time
import traceback

TRACING = "/sys/kernel/tracing"
FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
BLOCK = 4096
HOLD = 30000
libc = ctypes.CDLL(None, use_errno=True)


class Lost(Exception):
    """The filesystem broke its promise."""


def check(good, what):
    if not good:
        raise Lost(what)


def put(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def get(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def drop_caches(what):
    put("/proc/sys/vm/drop_caches", str(what))


def fallocate(fd, mode, pos, length):
    if libc.fallocate(fd, mode, ctypes.c_long(pos), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


def write_back(fd, pos=0, length=0):
    """Writeback, and nothing else: no fsync, no metadata."""
    if libc.sync_file_range(fd, ctypes.c_long(pos), ctypes.c_long(length), 7):
        raise OSError(ctypes.get_errno(), "sync_file_range")


def aligned(data):
    """A buffer that direct I/O takes."""
    buf = mmap.mmap(-1, len(data))
    buf[:] = data
    return buf


class Child:
    """A call in a process of its own: a page fault that waits holds up a whole process."""

    def __init__(self, name, what, *args):
        self.name = name
        self.status = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 0
            try:
                what(*args)
            except BaseException:
                traceback.print_exc()
                status = 1
            sys.stdout.flush()
            os._exit(status)

    def running(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is None

    def runs_for(self, seconds):
        """Whether it is still running after that time; returns at once when it has ended."""
        until = time.monotonic() + seconds
        while self.running() and time.monotonic() < until:
            time.sleep(0.02)
        return self.running()

    def join(self, seconds=60):
        """Waits; the exit status."""
        assert not self.runs_for(seconds), "%s does not end" % self.name
        return self.status


class Event:
    LINE = re.compile(r"\s*(.+)-(\d+)\s+\[\d+\]\s+\S+\s+([\d.]+): (?:ordofs_)?(\w+): (.*)")

    def __init__(self, line):
        match = self.LINE.match(line)
        assert match, "not an event: " + line
        self.task, self.pid = match[1].strip(), int(match[2])
        self.when, self.name, self.text = float(match[3]), match[4], match[5]

    def __str__(self):
        return "%.6f %s-%d %s: %s" % (self.when, self.task, self.pid, self.name, self.text)


class Bed:
    """A new filesystem on TEST_DEV, mounted at TEST_MNT, with all events being recorded."""

    def __init__(self, quiet=False):
        self.quiet = quiet
        # How long something that must wait is watched. The trace's order says the same.
        self.patience = 0.1 if quiet else 0.7
        self.dev, self.mnt = os.environ["TEST_DEV"], os.environ["TEST_MNT"]
        self.sys = "/sys/fs/ordofs/" + os.path.basename(self.dev)
        self.trace = TRACING + "/instances/ordofs-test"
        os.makedirs(self.trace, exist_ok=True)
        put(self.trace + "/trace_clock", "global")
        put(self.trace + "/trace", "")
        put(self.trace + "/events/ordofs/enable", "1")
        self.run("mkfs.ordofs", self.dev, text="y\n")
        self.mount()

    @staticmethod
    def run(*command, text=None):
        result = subprocess.run(command, input=text, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, check=False)
        if result.returncode:
            print(result.stdout)
        assert result.returncode == 0, " ".join(command)
        return result.stdout

    def mount(self):
        # No commit in between, unless the test asks for one.
        self.run("mount", "-t", "ordofs", "-o", "commit=300", self.dev, self.mnt)

    def umount(self):
        self.run("umount", self.mnt)

    def path(self, name):
        return os.path.join(self.mnt, name)

    def open(self, name, flags=0):
        return os.open(self.path(name), os.O_RDWR | os.O_CREAT | flags, 0o600)

    def spoil(self, name, content):
        """Writes to the device where the first blocks of a file are: what lay there before the file
        got them. Unmounts for that, since some kernels refuse writes to a device in use."""
        lines = self.run("filefrag", "-v", self.path(name)).split("\n")
        first = next(int(line.split()[3].rstrip(".")) for line in lines if line.strip().startswith("0:"))
        self.umount()
        fd = os.open(self.dev, os.O_WRONLY | os.O_DIRECT)
        assert os.pwritev(fd, [aligned(content)], first * BLOCK) == len(content)
        os.close(fd)
        self.mount()

    # Error tags.

    def tag(self, window, setting):
        put("%s/errortag/%s" % (self.sys, window), setting)

    def hold(self, window, more="times=1"):
        """The next task that comes there is held until the tag is set again."""
        self.tag(window, "delay=%d %s" % (HOLD, more))

    def held(self, window):
        words = dict(w.split("=") for w in get("%s/errortag/%s" % (self.sys, window)).split())
        return int(words["waiting"])

    def wait_held(self, window, who):
        """Waits until a task is held there: the window was entered, or the test fails."""
        until = time.monotonic() + 30
        while not self.held(window):
            assert time.monotonic() < until, "nobody came to " + window
            assert who.running(), "%s ended without coming to %s" % (who.name, window)
            time.sleep(0.005)

    # Events.

    def events(self, name=None, text=""):
        found = [Event(line) for line in get(self.trace + "/trace").split("\n")
                 if line and not line.startswith("#")]
        return [e for e in found if name in (None, e.name) and text in e.text]

    def wait_event(self, name, text="", seconds=30, unless=None, after=0.0):
        """The first such event, when it has come; None if the process `unless` ended without."""
        until = time.monotonic() + seconds
        while True:
            ended = unless is not None and not unless.running()
            found = [e for e in self.events(name, text) if e.when > after]
            if found:
                return found[0]
            if ended:
                return None
            assert time.monotonic() < until, "no event %s %s" % (name, text)
            time.sleep(0.02)

    def evidence(self, *wanted):
        """Prints events (name, text), which must have happened in this order. Returns the last."""
        last = None
        for name, text in wanted:
            found = [e for e in self.events(name, text) if last is None or e.when >= last.when]
            assert found, "the trace has no %s %s after %s" % (name, text, last)
            last = found[0]
            self.show(last)
        return last

    def show(self, event):
        """Prints an event as evidence, the first time round."""
        if not self.quiet:
            print("trace:", event)

    # Power cut.

    def cut_power(self):
        """From now on nothing is written; what is in memory only is lost."""
        fd = os.open(self.mnt, os.O_RDONLY)
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(fd)

    def after_power_cut(self):
        """Mounts again, which replays the log."""
        self.umount()
        self.mount()

    def read(self, name, length, pos=0):
        """What is on disk; None for a read error."""
        fd = os.open(self.path(name), os.O_RDONLY)
        try:
            return os.pread(fd, length, pos)
        except OSError as e:
            print("reading %s at %d: %s" % (name, pos, e.strerror))
            return None
        finally:
            os.close(fd)

    def finish(self):
        put(self.trace + "/events/ordofs/enable", "0")
        self.umount()
        result = subprocess.run(["fsck.ordofs", "-n", self.dev], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, check=False)
        if result.returncode:
            print(result.stdout)
        check(result.returncode == 0, "fsck.ordofs -n finds damage")

    def failed(self):
        """Shows what happened last, and lets all tasks go on."""
        for e in self.events()[-60:]:
            print("  ", e)
        put(self.trace + "/events/ordofs/enable", "0")
        for name in os.listdir(self.sys + "/errortag"):
            self.tag(name, "off")


def main(test):
    """Runs a reproducer LOOPS times."""
    status = 0
    bed = None
    loops = int(os.environ.get("LOOPS") or 1)
    try:
        for n in range(1, loops + 1):
            start = time.monotonic()
            bed = Bed(quiet=n > 1)
            test(bed)
            bed.finish()
            print("passed (%.1f s), round %d of %d" % (time.monotonic() - start, n, loops))
            sys.stdout.flush()
    except Lost as e:
        print("LOST: %s" % e)
        status = 1
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        status = 2
    if status and bed is not None:
        try:
            bed.failed()
        except OSError as e:
            print("no trace: %s" % e)
    sys.stdout.flush()
    os._exit(status)
