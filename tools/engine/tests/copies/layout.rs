// SPDX-License-Identifier: GPL-2.0

//! Where the copies are, what they cost, and in which order they are written.

use crate::census::Census;
use crate::common::*;
use crate::disk::*;
use ordofs_engine::engine::format::group::full_record;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::volume::mkfs::default_copies;
use ordofs_engine::engine::*;
use ordofs_engine::os::map::steps as map_steps;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::vec::Vec;

#[test]
fn mkfs_writes_two_copies_where_they_can_be_apart() {
    for (blocks, asked, made) in [
        (1 << 14, 0, 1),
        ((1 << 16) - 1, 0, 1),
        (1 << 16, 0, 2),
        (1 << 23, 0, 2),
        (1 << 16, 1, 1),
        (1 << 14, 2, 2),
    ] {
        let disk = MemDisk::new(blocks);
        format_with(disk.device(), asked);
        let sb = superblock(&disk);
        assert_eq!(sb.copies, made, "{blocks} blocks, {asked}");
        assert!(asked != 0 || default_copies(blocks) == made);
        let census = Census::of(&disk);
        for n in census.nodes.values() {
            assert_eq!(n.copies().count() as u8, made);
            // The AG of a few blocks at the end does not count.
            if blocks >= 1 << 16 && made == 2 {
                assert_ne!(n.addr / sb.ag_blocks, n.addr2 / sb.ag_blocks, "{n:?}");
            }
        }
        fsck(&disk);
    }
}

/// Both copies of each node of a filesystem in use are in different AGs.
#[test]
fn copies_are_in_two_ags_as_the_filesystem_grows_old() {
    let disk = furnished();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let dev = disk.device();
    for round in 0..30u64 {
        for n in 0..20 {
            let name = format!("{n}");
            if let Some(e) = fs.lookup(&root, name.as_bytes()).unwrap() {
                let f = fs.iget(e.ino).unwrap();
                fs.unlink(&root, name.as_bytes(), &f).unwrap();
                fs.delete_inode(f).unwrap();
            }
            let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
            write(&dev, &fs, &f, 0, &vec![round; (n * 7) as usize + 1]).unwrap();
            fs.iput(f);
        }
        fs.sync().unwrap();
    }
    fs.iput(root);
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
    let sb = superblock(&disk);
    for n in Census::of(&disk).nodes.values() {
        assert!(n.addr2 != 0, "{n:?}");
        assert_ne!(n.addr / sb.ag_blocks, n.addr2 / sb.ag_blocks, "{n:?}");
    }
    assert_eq!(problems(&disk), Vec::<String>::new());
}

/// A search for a place costs the same however many there were before it in a commit, also if free
/// blocks are scattered, and if no other AG has one for the second copy.
#[test]
fn a_commit_does_not_search_for_each_node() {
    // 50,000 are enough; 1,900,000 if all AGs are looked at for each node.
    const STEPS: u64 = 200_000;
    use crate::ags::{rewrite, Ag};
    use ordofs_engine::engine::format::bits::Bits;
    use ordofs_engine::engine::format::group::encode;
    const GIB: u64 = 1 << 18;
    let ags = 400;
    let disk = crate::counting::device(|| MemDisk::new(ags * GIB));
    format_with(crate::counting::sparse(&disk, |_| ()), 2);
    let mut used = Bits::zeroed().unwrap();
    used.set(0, 8192);
    used.clear(7, 1);
    let mut bitmap = kernel::prelude::KVec::new();
    encode(&used, 8192, &mut bitmap).unwrap();
    let mut comb = Bits::zeroed().unwrap();
    (0..4096).for_each(|i| comb.set(2 * i, 1));
    let mut holes = kernel::prelude::KVec::new();
    encode(&comb, 8192, &mut holes).unwrap();
    rewrite(&disk, |i| match i {
        // One AG has single blocks everywhere, the others a block each, or none where superblocks and
        // the log are.
        9 => Some(Ag {
            free: 32 * 4096,
            longest: 1,
            groups: (0..32).map(|g| (g, holes.to_vec())).collect(),
        }),
        _ if i % 16 == 0 => Some(Ag {
            free: 0,
            longest: 0,
            groups: vec![(0, full_record(32).to_vec())],
        }),
        _ => Some(Ag {
            free: 1,
            longest: 1,
            groups: vec![(0, bitmap.to_vec()), (1, full_record(31).to_vec())],
        }),
    });
    let fs = mount_on(crate::counting::sparse(&disk, |_| ()));
    let root = fs.iget(fs.root_ino()).unwrap();
    for n in 0..1500 {
        // Each gets a node of its own.
        let f = fs
            .create(&root, format!("{n}").as_bytes(), &regular())
            .unwrap();
        fs.set_xattr(&f, 1, b"x", Some(&[1; 900]), XattrSet::Any)
            .unwrap();
        fs.iput(f);
    }
    let before = map_steps();
    fs.commit_all().unwrap();
    let steps = map_steps() - before;
    println!("{steps} steps");
    assert!(steps < STEPS, "{steps} steps");
    fs.iput(root);
    fs.unmount().unwrap();
}

/// What operations cost: a name, and the blocks that the commit after them writes.
type Costs = Vec<(&'static str, usize)>;

/// Runs the operations of the table in docs/DESIGN.md; `blocks` commits.
fn costs(disk: &MemDisk, fs: &Shared<Fs>, mut blocks: impl FnMut() -> usize) -> Costs {
    let data = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let dir = fs.create(&root, b"dir", &file(S_IFDIR | 0o755)).unwrap();
    for n in 0..3000 {
        let f = fs.create(&dir, format!("file {n}").as_bytes(), &regular());
        fs.iput(f.unwrap());
    }
    let f = fs.create(&root, b"f", &regular()).unwrap();
    (0..2000).for_each(|i| write(&data, fs, &f, i * 2, &[i]).unwrap());
    let large = fs.create(&root, b"large", &regular()).unwrap();
    (0..LARGE / 256).for_each(|i| map_only(fs, &large, i * 256, &[1; 256]));
    // Twice, so that the space trees have their two sets of blocks.
    for _ in 0..2 {
        fs.set_attrs(&f, &AttrChange::default()).unwrap();
        blocks();
    }
    let chmod = AttrChange {
        mode: Some(0o600),
        ..AttrChange::default()
    };
    fs.set_attrs(&f, &chmod).unwrap();
    let mut costs = std::vec![("chmod", blocks())];
    let new = fs.create(&dir, b"new", &regular()).unwrap();
    costs.push(("create", blocks()));
    fs.unlink(&dir, b"new", &new).unwrap();
    fs.delete_inode(new).unwrap();
    costs.push(("unlink", blocks()));
    write(&data, fs, &f, 5000, &[1]).unwrap();
    costs.push(("append", blocks()));
    (0..2000).for_each(|i| write(&data, fs, &f, i * 2, &[i + 1]).unwrap());
    costs.push(("overwrite all", blocks()));
    let mut rng = fastrand::Rng::with_seed(1);
    for (what, n) in [
        ("1 random block", 1),
        ("16", 16),
        ("256", 256),
        ("2048", 2048),
    ] {
        (0..n).for_each(|_| map_only(fs, &large, rng.u64(..LARGE), &[2]));
        costs.push((what, blocks()));
    }
    for inode in [f, large, dir, root] {
        fs.iput(inode);
    }
    costs
}

/// The blocks of the large file.
const LARGE: u64 = 1 << 17;

/// The table in docs/DESIGN.md: the blocks that the commit after an operation writes, without those of the
/// superblock.
#[test]
fn what_an_operation_costs() {
    let mut table = Vec::new();
    for copies in [1, 2] {
        let disk = MemDisk::new(1 << 18);
        format_with(disk.device(), copies);
        let (dev, faults) = faulty(&disk);
        let fs = mount_on(dev);
        table.push(costs(&disk, &fs, || {
            faults.lock().unwrap().writes.clear();
            fs.commit_all().unwrap();
            faults.lock().unwrap().writes.len()
        }));
        fs.unmount().unwrap();
    }
    for (one, two) in table[0].iter().zip(&table[1]) {
        println!("{}: {} and {} blocks", one.0, one.1, two.1);
        assert!(
            two.1 % 2 == 0 && two.1 >= 2 * one.1 && two.1 <= 2 * one.1 + 12,
            "{one:?} {two:?}"
        );
    }
}

/// Both copies of each node are written before the flush of the commit.
#[test]
fn both_copies_are_written_before_the_flush() {
    let disk = make(1 << 16);
    let (dev, faults) = faulty(&disk);
    let fs = mount_on(dev);
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.iput(fs.create(&root, b"f", &regular()).unwrap());
    *faults.lock().unwrap() = Faults::default();
    let before = disk.image();
    fs.commit_all().unwrap();
    fs.iput(root);
    let faults = faults.lock().unwrap();
    let written = faults.at_flush.first().unwrap();
    let mut new = 0;
    for n in Census::of(&disk).nodes.values() {
        let [a, b] = [n.addr, n.addr2].map(|at| written.contains(&at));
        assert_eq!(a, b, "{n:?}");
        assert!(disk.image()[&n.addr] == disk.image()[&n.addr2], "{n:?}");
        let changed = before.get(&n.addr) != disk.image().get(&n.addr);
        assert!(a || !changed, "{n:?}");
        new += u32::from(a);
    }
    assert!(new >= 3, "{new}");
}

/// Numbers of copies that this code does not know are refused by name.
#[test]
fn another_number_of_copies_is_refused() {
    kernel::print::set_level(kernel::print::SILENT);
    for number in [0u8, 3, 255] {
        let mut b = [0; 4096];
        let mut sb = superblock(&make(1 << 14));
        sb.generation = 3;
        sb.encode(0, &mut b);
        b[210] = number;
        format::superblock::seal(&mut b, 3);
        let refused = Superblock::decode(&b).err().unwrap();
        assert!(
            refused.reason.contains("copies of nodes"),
            "{}",
            refused.reason
        );
    }
}
