# SPDX-License-Identifier: GPL-2.0
"""R6, I/O owns its buffer: reclaim runs while metadata nodes are read.

Somebody who looks names up in a directory is held with a node coming from the device (its marker is
in the cache), and again with the node in the cache and not yet in its hands. Each
time reclaim takes everything that nobody holds. The reader must get what it read,
and so must another that comes meanwhile.
"""
import os

from bed import check, drop_caches, main, Child

FILES = 400


def name(i):
    return "dir/%05d-%s" % (i, "x" * 60)


def names(bed):
    # By name first: of a listing, the VFS would show the part that came before an error.
    for i in range(FILES):
        os.stat(bed.path(name(i)))
    assert len(os.listdir(bed.path("dir"))) == FILES


def test(bed):
    os.mkdir(bed.path("dir"))
    for i in range(FILES):
        os.close(bed.open(name(i)))
    for window in ("node_read", "node_cached"):
        # Everything on disk, nothing in memory.
        bed.umount()
        bed.mount()
        os.stat(bed.path("dir"))
        bed.hold(window)
        reader = Child("reader", names, bed)
        bed.wait_held(window, reader)
        for _ in range(3):
            drop_caches(2)
        bed.tag(window, "off")
        check(reader.join() == 0, "what was read was taken away from its reader")
        first = bed.evidence(("window", window + " enter"), ("node_shrink", ""))
        left = bed.evidence(("window", window + " leave"))
        inside = [e for e in bed.events("node_shrink") if first.when <= e.when < left.when]
        word = "reading 0" if window == "node_read" else "held 0"
        met = [e for e in inside if word not in e.text]
        assert met, "reclaim did not come across the node in the window"
        bed.show(met[0])
        check(len(os.listdir(bed.path("dir"))) == FILES, "the next reader")
    bed.cut_power()
    bed.after_power_cut()
    check(len(os.listdir(bed.path("dir"))) == FILES, "names after the power cut")


main(test)
