// SPDX-License-Identifier: GPL-2.0

//! Inode records: the bytes of a record with every field set; what is refused, and why; flipped bits
//! with right checksums; sections that must be kept although nothing here knows them.

mod common;
#[path = "support/forge.rs"]
#[allow(dead_code)]
mod forge;

use common::{dirty, make, mount, read, regular, write};
use forge::{leaf, replaced};
use kernel::error::code::EUCLEAN;
use kernel::prelude::KVec;
use ordofs_engine::engine::format::inode::{
    inline_tree_max, InodeRecord, RootForm, INLINE_TREE_MAX, MAX_RECORD, STATE_TRUNCATE,
};
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::engine::ops::xattr;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Shared, Time};

const INODE: u8 = 1;

fn time(n: u32) -> Time {
    Time {
        sec: -i64::from(n),
        nsec: 0x0101_0101 * n,
    }
}

/// A record in which every field of a regular file has a value of its own.
fn full() -> InodeRecord<'static> {
    InodeRecord {
        attrs: Attrs {
            mode: S_IFREG | 0o4755,
            nlink: 0x0403_0201,
            uid: 0x0807_0605,
            gid: 0x0c0b_0a09,
            project: 0x100f_0e0d,
            handle_generation: 0x1413_1211,
            size: 0x0001_0203_0405_0607,
            rdev: 0,
            flags: 0x3332_3130,
            atime: time(1),
            mtime: time(2),
            ctime: time(3),
            btime: time(4),
            change: 0x7776_7574_7372_7170,
            home_ag: 0x8b8a_8988,
            xflags: 0x0001_7d02,
            extent_hint: 0x0001_9190,
        },
        blocks: 0x0001_2625_2423_2221,
        state: STATE_TRUNCATE,
        cut: 0x0003_7c7b_7a79_7879,
        parent: 0,
        generation: 0x8786_8584_8382_8180,
        extents: RootForm::Ptr(NodePtr {
            addr: 0x0001_0000_0000_1234,
            addr2: 0x0001_0000_0000_5678,
            generation: 9,
            crc: 0xdead_beef,
            level: 2,
        }),
        dir: RootForm::Empty,
        xattr: RootForm::Inline(b"items"),
        data: &[],
        crypt: b"context",
        verity: b"v",
        ignorable: &[0x88, 3, 2, 0, 0xaa, 0xbb, 0x90, 7, 1, 0, 0xcc],
    }
}

fn encoded(r: &InodeRecord<'_>) -> Vec<u8> {
    let mut v = KVec::new();
    r.encode(&mut v).unwrap();
    v.as_slice().to_vec()
}

const GOLDEN: &str = "
    ed890000 01020304 05060708 090a0b0c 0d0e0f10 11121314 0706050403020100
    2122232425260100 0000000000000000 30313233 01000000 0000000000000000
    ffffffffffffffff 01010101 feffffffffffffff 02020202
    fdffffffffffffff 03030303 fcffffffffffffff 04040404
    7071727374757677 7978797a7b7c0300 8081828384858687 88898a8b 027d0100 90910100
    000000000000000000000000
    01022000 3412000000000100 7856000000000100 0900000000000000 efbeadde 02000000
    03010500 6974656d73
    06030700 636f6e74657874
    07030100 76
    88030200 aabb 90070100 cc";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let pairs = digits.chunks_exact(2);
    pairs.map(|p| (p[0] << 4 | p[1]) as u8).collect()
}

#[test]
fn every_field_has_its_place() {
    let golden = hex(GOLDEN);
    assert_eq!(encoded(&full()), golden);
    assert_eq!(InodeRecord::parse(&golden).unwrap(), full());
    // What a regular file has not.
    let device = InodeRecord {
        attrs: Attrs {
            mode: S_IFBLK,
            rdev: 0x0d0c_0b0a,
            ..full().attrs
        },
        blocks: 0,
        state: 0,
        cut: 0,
        extents: RootForm::Empty,
        ..full()
    };
    let bytes = encoded(&device);
    assert_eq!(bytes[40..48], hex("0a0b0c0d00000000"));
    assert_eq!(InodeRecord::parse(&bytes).unwrap(), device);
    let dir = InodeRecord {
        attrs: Attrs {
            mode: S_IFDIR,
            rdev: 0,
            ..device.attrs
        },
        parent: 0x0908_0706_0504_0302,
        dir: RootForm::Inline(b"entries"),
        ..device
    };
    let bytes = encoded(&dir);
    assert_eq!(bytes[56..64], hex("0203040506070809"));
    assert_eq!(bytes[160..171], hex("02010700 656e7472696573"));
    assert_eq!(InodeRecord::parse(&bytes).unwrap(), dir);
    let small = InodeRecord {
        blocks: 0,
        extents: RootForm::Empty,
        data: b"content",
        ..full()
    };
    let bytes = encoded(&small);
    assert_eq!(bytes[169..180], hex("05030700 636f6e74656e74"));
    assert_eq!(InodeRecord::parse(&bytes).unwrap(), small);
}

/// Whatever is accepted is what it says: it encodes to the same bytes. So no bit is overlooked.
#[test]
fn a_flipped_bit_is_refused_or_means_something() {
    let golden = hex(GOLDEN);
    let mut refused = 0;
    for bit in 0..golden.len() * 8 {
        let mut v = golden.clone();
        v[bit / 8] ^= 1 << (bit % 8);
        match InodeRecord::parse(&v) {
            Ok(r) => {
                assert_eq!(encoded(&r), v, "bit {bit}");
                assert_ne!(r, full(), "bit {bit}");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 500, "{refused}");
    for len in 0..golden.len() {
        let cut = InodeRecord::parse(&golden[..len]);
        assert!(cut.is_err() || encoded(&cut.unwrap()) == golden[..len]);
    }
}

fn fault(v: &[u8]) -> String {
    match InodeRecord::parse(v) {
        Ok(_) => String::new(),
        Err(f) => f.to_string(),
    }
}

#[test]
fn sections_are_in_order_and_known() {
    let head = encoded(&InodeRecord {
        blocks: 0,
        extents: RootForm::Empty,
        xattr: RootForm::Empty,
        crypt: &[],
        verity: &[],
        ignorable: &[],
        ..full()
    });
    assert_eq!(head.len(), 160);
    let section = |kind: u8, form: u8, len: usize| {
        let mut s = vec![kind, form];
        s.extend_from_slice(&(len as u16).to_le_bytes());
        s.resize(4 + len, 1);
        s
    };
    let ptr = || section(1, 2, 32);
    let wrong = "it is there twice, or in the wrong place";
    let long = "it is too long";
    let cases: &[(&str, Vec<Vec<u8>>)] = &[
        (
            "",
            vec![section(3, 1, 5), section(6, 3, 5), section(0x88, 3, 5)],
        ),
        (
            "",
            vec![section(1, 1, 320), section(3, 1, 320), section(0xff, 9, 0)],
        ),
        ("section 0: it", vec![section(0, 1, 5)]),
        (
            "section 3: it is there twice",
            vec![section(3, 1, 5), section(3, 1, 5)],
        ),
        (wrong, vec![section(6, 3, 5), section(3, 1, 5)]),
        (wrong, vec![section(0x88, 3, 5), section(3, 1, 5)]),
        (wrong, vec![section(0x90, 3, 5), section(0x88, 3, 5)]),
        (wrong, vec![section(0x90, 3, 5), section(0x90, 3, 5)]),
        ("section 4: it is unknown", vec![section(4, 1, 5)]),
        ("section 8: it is unknown", vec![section(8, 3, 5)]),
        ("section 127: it is unknown", vec![section(0x7f, 3, 5)]),
        ("section 1: it has an unknown form", vec![section(1, 3, 5)]),
        ("section 2: it has an unknown form", vec![section(2, 0, 5)]),
        ("section 5: it has an unknown form", vec![section(5, 1, 5)]),
        (
            "section 136: it has an unknown form",
            vec![section(0x88, 1, 5)],
        ),
        ("section 3: it is empty", vec![section(3, 1, 0)]),
        ("section 5: it is empty", vec![section(5, 3, 0)]),
        (long, vec![section(3, 1, 321)]),
        ("", vec![section(5, 3, 640)]),
        (long, vec![section(5, 3, 641)]),
        ("", vec![section(6, 3, 64)]),
        (long, vec![section(6, 3, 65)]),
        (long, vec![section(7, 3, 65)]),
        (long, vec![section(0x88, 3, 17)]),
        ("section 3: it has not the length", vec![section(3, 2, 31)]),
        ("section 3: it has not the length", vec![section(3, 2, 33)]),
        ("section 1: malformed root pointer", vec![ptr()]),
        ("", vec![section(0x90, 0, 1044)]),
        (
            "the sections are too long together",
            vec![section(0x90, 0, 1045)],
        ),
        (
            "the sections are too long together",
            vec![section(0x90, 0, 500), section(0x91, 0, 541)],
        ),
        ("the record is too long", vec![section(0x90, 0, 1117)]),
        (
            "blocks and data of a small file",
            vec![section(1, 1, 5), section(5, 3, 5)],
        ),
        ("is not a directory", vec![section(2, 1, 5)]),
    ];
    for (want, sections) in cases {
        let v = [head.clone(), sections.concat()].concat();
        let have = fault(&v);
        assert!(
            have.contains(want) && have.is_empty() == want.is_empty(),
            "{have:?}, must be {want:?}"
        );
    }
    for cut in 1..4 {
        let v = [head.clone(), section(3, 1, 5)[..cut].to_vec()].concat();
        assert!(fault(&v).contains("section 3: it is cut off"));
    }
    let v = [head, section(3, 1, 5)[..8].to_vec()].concat();
    assert!(fault(&v).contains("section 3: it is cut off"));
}

#[test]
fn impossible_fields_are_refused() {
    type Change = fn(&mut InodeRecord<'static>);
    let cases: &[(&str, Change)] = &[
        ("", |_| ()),
        ("impossible file type", |r| r.attrs.mode = 0o755),
        ("impossible file type", |r| r.attrs.mode = S_IFREG | 1 << 16),
        ("impossible number of links", |r| {
            r.attrs.nlink = LINK_MAX + 1;
        }),
        ("not a valid id", |r| r.attrs.uid = u32::MAX),
        ("not a valid id", |r| r.attrs.gid = u32::MAX),
        ("not a valid id", |r| r.attrs.project = u32::MAX),
        ("no generation number", |r| r.attrs.handle_generation = 0),
        ("impossible size", |r| r.attrs.size = 1 << 63),
        ("impossible device number", |r| r.attrs.rdev = 1),
        ("impossible change counter", |r| r.attrs.change = 1 << 63),
        ("impossible extent size hint", |r| {
            r.attrs.extent_hint = (1 << 18) + 1;
        }),
        ("impossible time", |r| r.attrs.btime.nsec = 1_000_000_000),
        ("unknown state bits", |r| r.state = 3),
        ("impossible truncation", |r| r.cut = MAX_FILE_BLOCKS),
        ("impossible truncation", |r| r.cut = 0),
        ("no truncation under way", |r| r.state = 0),
        ("impossible number of blocks", |r| r.blocks = (1 << 51) + 1),
        ("blocks and no extents", |r| r.extents = RootForm::Empty),
        ("impossible parent", |r| r.parent = 2),
        ("no commit wrote it", |r| r.generation = 0),
        ("is not a regular file", |r| {
            r.attrs.mode = S_IFDIR;
            (r.state, r.cut) = (0, 0);
        }),
        ("impossible truncation", |r| {
            r.attrs.mode = S_IFDIR;
            (r.blocks, r.extents) = (0, RootForm::Empty);
        }),
        ("the target is too long", |r| r.attrs.mode = S_IFLNK),
    ];
    for (want, change) in cases {
        let mut r = full();
        change(&mut r);
        let have = fault(&encoded(&r));
        assert!(
            have.contains(want) && have.is_empty() == want.is_empty(),
            "{have:?}, must be {want:?}"
        );
    }
    for parent in [0, 1 << 62, u64::MAX] {
        let dir = InodeRecord {
            attrs: Attrs {
                mode: S_IFDIR,
                ..full().attrs
            },
            blocks: 0,
            state: 0,
            cut: 0,
            extents: RootForm::Empty,
            parent,
            ..full()
        };
        assert_eq!(fault(&encoded(&dir)), "impossible parent");
    }
    for at in 148..160 {
        let mut v = hex(GOLDEN);
        v[at] = 1;
        assert_eq!(fault(&v), "reserved bytes are not zero");
    }
}

#[test]
fn a_record_always_fits() {
    for other in 0..=MAX_RECORD {
        let max = inline_tree_max(other);
        assert!(max <= INLINE_TREE_MAX);
        if other <= 1048 {
            assert!(160 + other + 2 * (4 + max.max(32)) <= MAX_RECORD, "{other}");
        }
    }
}

/// A filesystem with a directory and a file in it, and an inode leaf of the newest generation.
struct Bed {
    disk: MemDisk,
    dir: u64,
    file: u64,
    node: u64,
}

fn bed() -> Bed {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 12);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let mkdir = common::file(S_IFDIR | 0o755);
    let dir = fs.create(&root, b"dir", &mkdir).unwrap();
    let f = fs.create(&dir, b"f", &regular()).unwrap();
    write(&disk.device(), &fs, &f, 0, &[1, 2]).unwrap();
    fs.set_xattr(&f, xattr::USER, b"a", Some(b"v"), XattrSet::Any)
        .unwrap();
    let (dir, file) = (dir.ino(), f.ino());
    fs.unmount().unwrap();
    drop(fs);
    let newest = |d: &[u8]| u64::from_le_bytes(d[24..32].try_into().unwrap());
    let image = disk.image();
    let leaves = image.iter().filter(|(_, d)| !leaf(d, INODE).is_empty());
    let node = *leaves.max_by_key(|(_, d)| newest(&d[..])).unwrap().0;
    Bed {
        disk,
        dir,
        file,
        node,
    }
}

impl Bed {
    /// The record of an inode.
    fn record(&self, ino: u64) -> Vec<u8> {
        let data = **self.disk.image().get(&self.node).unwrap();
        let item = leaf(&data, INODE).into_iter().find(|i| i.key == ino);
        let item = item.unwrap();
        data[item.at..item.at + item.len].to_vec()
    }

    /// The filesystem with another record of an inode, and right checksums.
    fn with(&self, ino: u64, record: &[u8]) -> MemDisk {
        let disk = self.disk.fork();
        let data = **disk.image().get(&self.node).unwrap();
        let data = replaced(&data, INODE, ino, record);
        forge::forge(&disk, self.node, data);
        disk
    }
}

/// Everything that goes through the record and what it leads to.
fn use_inode(fs: &Shared<Fs>, disk: &MemDisk, ino: u64) {
    let Ok(inode) = fs.iget(ino) else { return };
    let _ = fs.readdir(&inode, 0, &mut |_, _, _, _| true);
    let _ = fs.lookup(&inode, b"f");
    let _ = fs.list_xattr(&inode, &mut |_, _, _| Ok(()));
    let _ = fs.readlink(&inode);
    if inode.kind() == S_IFREG {
        let _ = fs.map_report(&inode, 0, 100);
        let _ = dirty(fs, &inode, 3, 2).map(|()| fs.release_delalloc(&inode, 3, 2));
        let _ = fs.preallocate(&inode, 1, 4, Some(20_000));
        let _ = fs.punch(&inode, 0, 2);
        let _ = fs.set_size(&inode, 5000);
        let _ = write(&disk.device(), fs, &inode, 7, &[3]);
    }
    if inode.kind() == S_IFDIR {
        if let Ok(new) = fs.create(&inode, b"new", &regular()) {
            fs.iput(new);
        }
    }
    let _ = fs.set_attrs(&inode, &AttrChange::default());
    let _ = fs.sync_inode(&inode);
    fs.iput(inode);
}

#[test]
fn a_flipped_bit_with_right_checksums_never_panics() {
    let bed = bed();
    for ino in [bed.dir, bed.file] {
        let record = bed.record(ino);
        for bit in 0..record.len() * 8 {
            let mut v = record.clone();
            v[bit / 8] ^= 1 << (bit % 8);
            let refused = InodeRecord::parse(&v).is_err();
            let disk = bed.with(ino, &v);
            let Ok(fs) = Fs::mount(disk.device(), MountOptions::default()) else {
                continue;
            };
            if refused {
                assert_eq!(fs.iget(ino).err(), Some(EUCLEAN), "bit {bit} of {ino}");
            }
            use_inode(&fs, &disk, ino);
            let _ = fs.unmount();
        }
    }
}

#[test]
fn what_is_not_known_is_kept_or_refused() {
    let bed = bed();
    let old = bed.record(bed.file);
    let kept = [
        &[0x88, 3, 2, 0, 7, 8, 0x91, 9, 3, 0, 1, 2, 3, 0xff, 0, 0, 0][..],
        // So much that no tree fits beside it.
        &[&[0x91, 0, 0x10, 4][..], &[5; 0x410]].concat(),
    ];
    for kept in kept {
        let long = kept.len() > 100;
        let disk = bed.with(bed.file, &[&old, kept].concat());
        let fs = mount(&disk);
        let f = fs.iget(bed.file).unwrap();
        let dev = disk.device();
        write(&dev, &fs, &f, 0, &[7, 8]).unwrap();
        fs.set_xattr(&f, xattr::USER, b"b", Some(&[7; 50]), XattrSet::Any)
            .unwrap();
        fs.sync().unwrap();
        fs.iput(f);
        fs.unmount().unwrap();
        drop(fs);
        // Twice: what was read is written again.
        for round in 1..3 {
            let fs = mount(&disk);
            let f = fs.iget(bed.file).unwrap();
            assert_eq!(read(&dev, &fs, &f, 1), Ok(Some(8)));
            let n = fs.get_xattr(&f, xattr::USER, b"b", &mut [0; 50]).unwrap();
            assert_eq!(n, Some(50));
            let mode = Some(0o600 + round);
            let change = AttrChange {
                mode,
                ..AttrChange::default()
            };
            fs.set_attrs(&f, &change).unwrap();
            fs.iput(f);
            fs.unmount().unwrap();
            let image = disk.image();
            let records = image.values().flat_map(|d| {
                let items = leaf(d, INODE).into_iter();
                items.map(|i| (i.key, d[i.at..i.at + i.len].to_vec()))
            });
            let newest = records
                .filter(|(key, v)| *key == bed.file && v.len() > 160)
                .max_by_key(|(_, v)| u64::from_le_bytes(v[128..136].try_into().unwrap()));
            let (_, v) = newest.unwrap();
            assert!(v.ends_with(kept), "{v:?}");
            let r = InodeRecord::parse(&v).unwrap();
            assert_eq!(r.attrs.mode, S_IFREG | (0o600 + round));
            assert_eq!(long, matches!(r.extents, RootForm::Ptr(_)));
            assert_eq!(long, matches!(r.xattr, RootForm::Ptr(_)));
        }
    }
    let refused = [
        &[4, 3, 1, 0, 1][..],
        &[0x7f, 3, 1, 0, 1],
        // Known, and of no use to this code.
        &[6, 3, 1, 0, 1],
        &[7, 3, 1, 0, 1],
    ];
    for section in refused {
        let disk = bed.with(bed.file, &[&old, section].concat());
        let fs = mount(&disk);
        assert_eq!(fs.iget(bed.file).err(), Some(EUCLEAN));
        let dir = fs.iget(bed.dir).unwrap();
        let new = fs.create(&dir, b"beside", &regular()).unwrap();
        fs.iput(new);
        fs.iput(dir);
        fs.unmount().unwrap();
        let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default());
        let all: Vec<String> = report
            .unwrap()
            .problems
            .iter()
            .map(|p| p.to_string())
            .collect();
        let place = format!("inode {}", bed.file);
        assert!(all.iter().any(|p| p.contains(&place)), "{all:?}");
    }
}
