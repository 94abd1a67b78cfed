# SPDX-License-Identifier: GPL-2.0
"""R2, modified maps stay: memory is reclaimed while an fsync is about to collect.

The data was written back, by writeback alone: its extent map is modified and not
logged. An fsync is held just before it collects extent maps. Meanwhile the
shrinker runs, and a direct write elsewhere in the same large folio has it released.
Both try to drop the extent map. If they succeed, the fsync misses the extent.
"""
import os

from bed import BLOCK, aligned, check, drop_caches, main, write_back, Child

N = 16
DATA = b"d" * N * BLOCK
LAST = b"l" * BLOCK


def sync(bed):
    os.fsync(bed.open("file"))


def test(bed):
    fd = bed.open("file")
    # The file's size is durable before, so that only the extents are at stake.
    os.ftruncate(fd, len(DATA))
    os.fsync(fd)
    os.pwrite(fd, DATA, 0)
    write_back(fd)
    bed.hold("fsync_collect")
    syncer = Child("fsync", sync, bed)
    bed.wait_held("fsync_collect", syncer)
    window = bed.wait_event("window", "fsync_collect enter")

    # release_folio first: the shrinker takes all there is.
    direct = bed.open("file", os.O_DIRECT)
    assert os.pwritev(direct, [aligned(LAST)], (N - 1) * BLOCK) == BLOCK
    for _ in range(3):
        drop_caches(2)
    bed.tag("fsync_collect", "off")
    assert syncer.join() == 0
    for who in ("by release_folio", "by shrinker"):
        assert [e for e in bed.events("release_maps", who) if e.when > window.when], \
            "nobody asked to release the extent map: " + who
    bed.evidence(("ordered_finish", "error 0"), ("window", "fsync_collect enter"), ("release_maps", "by release_folio"),
                 ("release_maps", "by shrinker"), ("window", "fsync_collect leave"),
                 ("fsync_collect", ""))
    bed.cut_power()
    os.close(fd)
    os.close(direct)
    bed.after_power_cut()
    data = bed.read("file", len(DATA))
    check(data == DATA[:-BLOCK] + LAST,
          "an extent that fsync acknowledged: %r" % (data and data[:8]))


main(test)
