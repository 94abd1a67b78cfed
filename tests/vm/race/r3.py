# SPDX-License-Identifier: GPL-2.0
"""R3, faults exclude layout changes: a store while a hole is punched under it.

The punch is held between dropping the pages and freeing the blocks. A store that
comes in that window has to happen before or after the punch as a whole: it waits
for the layout lock, and is there afterwards. Without the lock its page is dirty
over blocks that are gone.
"""
import mmap
import os

from bed import BLOCK, check, fallocate, main, Child

LEN = 16 * BLOCK
AT = 2 * BLOCK
PUNCH = 1 | 2


def store(bed):
    area = mmap.mmap(bed.open("file"), LEN)
    area[AT] = ord("b")


def punch(bed):
    fallocate(bed.open("file"), PUNCH, 0, LEN)


def test(bed):
    fd = bed.open("file")
    os.pwrite(fd, b"a" * LEN, 0)
    os.fsync(fd)
    bed.hold("pages_dropped")
    puncher = Child("punch", punch, bed)
    bed.wait_held("pages_dropped", puncher)
    window = bed.wait_event("window", "pages_dropped enter")
    storer = Child("store", store, bed)
    # A read fault waits for the layout lock, too; a store may come as far as page_mkwrite.
    through = not storer.runs_for(4 * bed.patience)
    bed.tag("pages_dropped", "off")
    assert puncher.join() == 0 and storer.join() == 0
    if through:
        bed.evidence(("window", "pages_dropped enter"), ("fault_done", ""),
                     ("window", "pages_dropped leave"))
    else:
        bed.evidence(("drop_pages", ""), ("window", "pages_dropped enter"), ("window", "pages_dropped leave"),
                     ("layout_done", ""), ("fault_done", ""))
        assert not [e for e in bed.events("fault_done") if e.when < window.when]
    os.fsync(fd)
    bed.cut_power()
    os.close(fd)
    bed.after_power_cut()
    data = bed.read("file", LEN)
    want = bytearray(LEN)
    want[AT] = ord("b")
    check(data == bytes(want), "a store during a punch: %r" % (data and data[AT:AT + 4]))
    check(not through, "a page was made writable over blocks that were being freed")


main(test)
