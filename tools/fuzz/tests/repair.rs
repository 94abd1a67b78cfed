// SPDX-License-Identifier: GPL-2.0

//! Random damage to filesystems with everything in them, and what a repair makes of it.
//!
//! # Model
//!
//! Each seed damages a few blocks of an image. After the repair the checker must find nothing, a
//! second repair must find nothing to do, and every inode that lies in undamaged blocks must be as it
//! was: attributes, data, extended attributes, target, and its names in directories that are
//! undamaged themselves. The undo file must bring the damaged image back byte for byte. A repair that
//! is cut off after any number of writes leaves the old image, damaged as it was, or the new one.
//!
//! The inodes that the log of the image changes are left out, because a repair may lose the log.
//!
//! ORDOFS_REPAIR_SEEDS=FROM..TO replaces the few seeds of each run.

use kernel::prelude::{KVVec, Result, EIO};
use ordofs_engine::engine::btree::{NodeStore, Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm};
use ordofs_engine::engine::format::node::NodeHeader;
use ordofs_engine::engine::format::{NodePtr, Superblock};
use ordofs_engine::engine::log::ahead::Ahead;
use ordofs_engine::engine::log::header::Batch;
use ordofs_engine::engine::log::record::{FilePlace, Record};
use ordofs_engine::engine::log::ring::{self, Area, Flush, Found};
use ordofs_engine::engine::ops::dir::decode;
use ordofs_engine::engine::volume::mount::{tree_of, INODE_TREE};
use ordofs_engine::engine::{Attrs, Fs, MountOptions, S_IFDIR, S_IFMT, S_IFREG};
use ordofs_engine::os::mem::{Image, MemDisk};
use ordofs_engine::os::record::Recorder;
use ordofs_engine::os::{crc32c, Backend, Block, Device, Shared};
use ordofs_fsck::repair::{self, undo};
use ordofs_fsck::{check, Claim, Claims, Options};
use ordofs_fuzz::base;
use ordofs_fuzz::changes::Changes;
use ordofs_fuzz::judge::changes;
use ordofs_fuzz::seal::{self, Agree};
use ordofs_fuzz::structure::Structure;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of each run, for each image.
const SEEDS: u64 = 60;
/// Random recipes of each run.
const RECIPES: u64 = 1500;
/// Seeds of which the repair is cut off at each write.
const CUT: u64 = 12;

/// What is known about an inode, and the blocks that this lies in.
#[derive(Clone, PartialEq, Debug, Default)]
struct Portrait {
    attrs: Attrs,
    parent: u64,
    /// Whether a truncation is under way, and from where on.
    truncation: (u32, u64),
    /// Mappings: file block, length, whether it is written, and the checksum of the data.
    data: Vec<(u64, u64, u32)>,
    xattrs: Vec<(u64, Vec<u8>)>,
    entries: BTreeMap<Vec<u8>, u64>,
    target: Vec<u8>,
}

/// A filesystem: its inodes, and for each the blocks that it depends on.
struct Album {
    inodes: BTreeMap<u64, Portrait>,
    blocks: BTreeMap<u64, BTreeSet<u64>>,
}

struct Reader {
    st: NodeStore,
    sb: Superblock,
}

impl Reader {
    fn new(device: Device) -> Self {
        let sb = Superblock::read(&device).unwrap_or_else(|e| panic!("{}", e.reason));
        let st = NodeStore::new(Shared::new(device).unwrap(), sb.node_id, 256).unwrap();
        Self { st, sb }
    }

    /// The items of a tree, and its leaves.
    fn items(&self, id: TreeId, root: &RootForm<'_>) -> (Vec<(u64, Vec<u8>)>, BTreeSet<u64>) {
        let tree = match root {
            RootForm::Empty => Tree::empty(id),
            RootForm::Inline(items) => Tree::from_inline(id, items).expect("an inline tree"),
            RootForm::Ptr(p) => Tree::from_ptr(id, *p),
        };
        let (mut items, mut nodes) = (Vec::new(), BTreeSet::new());
        let walked = tree.walk(&self.st, &mut |w| {
            match w {
                WalkItem::Item(key, value) => items.push((key, value.to_vec())),
                // Interior nodes are built anew.
                WalkItem::Node(n) if n.addr != 0 && n.level == 0 => drop(nodes.insert(n.addr)),
                _ => {}
            }
            Ok(())
        });
        walked.expect("a whole tree");
        (items, nodes)
    }

    fn portrait(&self, ino: u64, value: &[u8], with_data: bool) -> (Portrait, BTreeSet<u64>) {
        let rec = InodeRecord::decode(ino, value).expect("a record");
        let kind = rec.attrs.mode & S_IFMT;
        let mut p = Portrait {
            attrs: rec.attrs,
            parent: rec.parent,
            truncation: (rec.state, rec.cut),
            ..Portrait::default()
        };
        let id = |kind| TreeId::new(kind, ino);
        let (extents, mut blocks) = self.items(id(TreeKind::Extent), &rec.extents);
        for (key, v) in extents {
            let e = Extent::decode(key, &v, self.sb.blocks).expect("an extent");
            let mut sum = 0;
            if !e.unwritten && with_data {
                for b in e.phys..e.phys + e.len {
                    let mut data = Block::zeroed().unwrap();
                    self.st.device().read(b, &mut data).expect("a block");
                    sum = crc32c(sum, &data[..]);
                    blocks.insert(b);
                }
            }
            p.data.push((e.start, e.len, sum));
        }
        let (entries, nodes) = self.items(id(TreeKind::Dir), &rec.dir);
        blocks.extend(nodes);
        for (_, v) in entries {
            if kind == S_IFDIR {
                let e = decode(ino, &v).expect("an entry");
                p.entries.insert(e.name.to_vec(), e.ino);
            } else {
                p.target.extend(v);
            }
        }
        let (xattrs, nodes) = self.items(id(TreeKind::Xattr), &rec.xattr);
        blocks.extend(nodes);
        p.xattrs = xattrs;
        if kind != S_IFREG {
            p.attrs.size = 0;
        }
        (p, blocks)
    }

    fn album(&self) -> Album {
        let mut album = Album {
            inodes: BTreeMap::new(),
            blocks: BTreeMap::new(),
        };
        let mut leaf = 0;
        let tree = tree_of(INODE_TREE, self.sb.inode_root);
        let walked = tree.walk(&self.st, &mut |w| {
            match w {
                WalkItem::Node(n) => leaf = n.addr,
                WalkItem::Item(ino, value) => {
                    let (p, mut blocks) = self.portrait(ino, value, true);
                    blocks.insert(leaf);
                    album.inodes.insert(ino, p);
                    album.blocks.insert(ino, blocks);
                }
                WalkItem::Bad(_) => {}
            }
            Ok(())
        });
        walked.expect("a whole tree");
        album
    }
}

/// An image and what is in it, with and without its log.
struct Original {
    name: &'static str,
    /// How many copies its nodes have.
    copies: u8,
    blocks: u64,
    image: Image,
    structure: Structure,
    album: Album,
    /// The inodes that the log changes.
    logged: BTreeSet<u64>,
    /// What they are after a mount.
    after: BTreeMap<u64, Portrait>,
    /// A block of data that only the log names.
    named: u64,
}

fn originals() -> Vec<Original> {
    let both = [1, 2].into_iter().flat_map(base::with_copies);
    let all = both.map(|b| {
        let disk = MemDisk::from_image(b.blocks, b.image.clone());
        let album = Reader::new(disk.device()).album();
        let fs = Fs::mount(disk.device(), MountOptions::default());
        let fs = fs.unwrap_or_else(|e| panic!("{}", e.reason));
        fs.unmount().expect("an unmount");
        drop(fs);
        let after = Reader::new(disk.device()).album();
        let all: BTreeSet<u64> = album
            .inodes
            .keys()
            .chain(after.inodes.keys())
            .copied()
            .collect();
        let logged = all
            .into_iter()
            .filter(|i| album.inodes.get(i) != after.inodes.get(i));
        Original {
            name: b.name,
            copies: Reader::new(disk.device()).sb.copies,
            blocks: b.blocks,
            image: b.image,
            structure: b.structure,
            logged: logged.collect(),
            named: named(&disk),
            after: after.inodes.clone(),
            album,
        }
    });
    all.collect()
}

/// The first block of the newest file with data.
fn named(disk: &MemDisk) -> u64 {
    let r = Reader::new(disk.device());
    let mut found = 256;
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let walked = tree.walk(&r.st, &mut |w| {
        if let WalkItem::Item(ino, value) = w {
            let rec = InodeRecord::decode(ino, value).expect("a record");
            let (items, _) = r.items(TreeId::new(TreeKind::Extent, ino), &rec.extents);
            if let Some((key, v)) = items.first() {
                found = Extent::decode(*key, v, r.sb.blocks)
                    .expect("an extent")
                    .phys;
            }
        }
        Ok(())
    });
    walked.expect("a whole tree");
    found
}

/// Lets the search for blocks of nodes begin at a block.
fn search_from(disk: &MemDisk, block: u64) {
    let mut sb = Superblock::read(&disk.device()).expect("one");
    sb.node_goal = block;
    sb.write(&disk.device()).expect("a write");
}

/// Damages some blocks. Returns which.
fn damage(disk: &MemDisk, image: &Image, rng: &mut fastrand::Rng) -> BTreeSet<u64> {
    let written: Vec<u64> = image.keys().copied().collect();
    let mut bad = BTreeSet::new();
    for _ in 0..rng.usize(1..6) {
        let block = written[rng.usize(..written.len())];
        // Superblocks have tests of their own.
        if [16, 128, 2064, 2176, 16400, 16512].contains(&block) {
            continue;
        }
        bad.insert(block);
        match rng.u8(..4) {
            0 => disk.corrupt(block, rng.usize(..4096), 1 << rng.u8(..8)),
            1 => (0..4096).for_each(|i| disk.corrupt(block, i, rng.u8(..))),
            2 => {
                let old = disk.image()[&block].clone();
                (0..4096).for_each(|i| disk.corrupt(block, i, old[i]));
            }
            _ => {
                let from = rng.usize(..8) * 512;
                (from..from + 512).for_each(|i| disk.corrupt(block, i, rng.u8(..)));
            }
        }
    }
    bad
}

fn same(a: &Image, b: &Image) -> bool {
    let zero = [0; 4096];
    let of = |i: &Image, k: &u64| i.get(k).map_or(zero, |b| **b);
    a.keys().chain(b.keys()).all(|k| of(a, k) == of(b, k))
}

fn silent() {
    kernel::print::set_level(kernel::print::SILENT);
}

fn undo_path(seed: u64, name: &str) -> PathBuf {
    let name = name.replace(' ', "-");
    let path = format!("/dev/shm/ordofs-undo.{}.{name}.{seed}", std::process::id());
    PathBuf::from(path)
}

/// Repairs as fsck.ordofs does: the plan, and then a mount.
fn mended(disk: &MemDisk, undo: Option<&PathBuf>) -> std::result::Result<Vec<String>, String> {
    let plan = repair::plan(disk.device())?;
    let file = undo.map(|path| {
        let made = undo::Undo::create(path, disk.device().blocks(), plan.superblock());
        made.expect("an undo file")
    });
    let saving = undo::Shared::new(undo::Saving::new(disk.device(), file));
    repair::apply(&plan, &saving.device())?;
    finish(saving.device()).map_err(|e| format!("the mount after it: {e:?}"))?;
    Ok(plan.said)
}

fn finish(device: Device) -> Result {
    let fs = Fs::mount(device, repair::rescue()).map_err(|e| {
        eprintln!("{}", e.reason);
        e.error
    })?;
    fs.unmount()
}

/// The blocks of which there is no other copy.
fn lost(o: &Original, bad: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut lost = bad.clone();
    for p in o.structure.nodes.iter().map(|n| n.ptr) {
        if p.addr2 != 0 && !bad.contains(&p.addr2) {
            lost.remove(&p.addr);
        }
    }
    lost
}

/// What is wrong with the outcome.
fn judged(o: &Original, disk: &MemDisk, bad: &BTreeSet<u64>) -> std::result::Result<(), String> {
    let report = check(disk.device(), Options::default()).map_err(|e| e.reason.to_owned())?;
    if let Some(p) = report.problems.first() {
        return Err(format!("after the repair: {p}"));
    }
    let now = Reader::new(disk.device()).album();
    let bad = &lost(o, bad);
    let intact = |ino: &u64| {
        let blocks = &o.album.blocks[ino];
        !o.logged.contains(ino) && blocks.is_disjoint(bad)
    };
    for (ino, was) in &o.album.inodes {
        if !intact(ino) {
            continue;
        }
        let Some(is) = now.inodes.get(ino) else {
            return Err(format!("inode {ino} is gone"));
        };
        let (mut was, mut is) = (was.clone(), is.clone());
        // Names: those whose inodes are intact stay. Others may have come, and links with them.
        for (name, child) in std::mem::take(&mut was.entries) {
            let there = is.entries.get(&name) == Some(&child);
            if !there && o.album.inodes.contains_key(&child) && intact(&child) {
                let name = String::from_utf8_lossy(&name).into_owned();
                return Err(format!("inode {ino} has lost its entry {name:?}"));
            }
        }
        is.entries.clear();
        if was.parent != is.parent && intact(&was.parent) {
            return Err(format!("inode {ino} has another parent"));
        }
        (was.parent, is.parent) = (0, 0);
        (was.attrs.nlink, is.attrs.nlink) = (0, 0);
        if was != is {
            return Err(format!("inode {ino} is not as it was: {was:?} {is:?}"));
        }
    }
    Ok(())
}

fn try_seed(o: &Original, seed: u64) -> std::result::Result<(), String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let bad = damage(&disk, &o.image, &mut rng);
    let before = disk.image();
    let undo = undo_path(seed, o.name);
    let result = mended(&disk, Some(&undo))
        .and_then(|said| judged(o, &disk, &bad).map_err(|e| format!("{e}\nsaid: {said:#?}")))
        .and_then(|()| {
            let again = repair::plan(disk.device())?;
            match again.said.first() {
                None => Ok(()),
                Some(what) => Err(format!("a second repair says: {what}")),
            }
        })
        .and_then(|()| undo::restore(&undo, &disk.device()).map(drop))
        .and_then(|()| match same(&before, &disk.image()) {
            true => Ok(()),
            false => Err("the undo file restores something else".into()),
        });
    let _ = std::fs::remove_file(&undo);
    result.map_err(|e| format!("{}, {} copies, seed {seed}, blocks {bad:?}: {e}", o.name, o.copies))
}

fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("ORDOFS_REPAIR_SEEDS").ok();
    let asked = asked.as_deref().and_then(|s| s.split_once(".."));
    asked.map_or(0..SEEDS, |(from, to)| {
        from.parse().expect("a number")..to.parse().expect("a number")
    })
}

#[test]
fn random_damage_is_repaired() {
    silent();
    let (mut failed, mut tried) = (Vec::new(), 0);
    for o in originals() {
        for seed in seeds() {
            tried += 1;
            failed.extend(try_seed(&o, seed).err());
        }
    }
    for f in failed.iter().take(5) {
        eprintln!("{}", f.chars().take(3000).collect::<String>());
    }
    assert!(failed.is_empty(), "{} of {tried} failed", failed.len());
}

/// What the checker says, and about which generation.
fn verdict(disk: &MemDisk) -> std::result::Result<(u64, Vec<String>), String> {
    let report = check(disk.device(), Options::default()).map_err(|e| e.reason.to_owned())?;
    let said = report.problems.iter().map(ToString::to_string);
    Ok((report.generation, said.collect()))
}

/// A repair that is cut off leaves the old filesystem, as damaged as it was, or the new one.
#[test]
fn a_repair_that_is_cut_off_leaves_the_old_state_or_the_new_one() {
    silent();
    let (mut old, mut new) = (0, 0);
    for o in originals() {
        for seed in 0..CUT {
            let mut rng = fastrand::Rng::with_seed(seed);
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            // Near old nodes, which are the first blocks that must not be taken.
            let near = o.structure.nodes[rng.usize(..o.structure.nodes.len())].block;
            search_from(&disk, near.saturating_sub(rng.u64(..60)).max(256));
            damage(&disk, &o.image, &mut rng);
            let before = verdict(&disk).expect("a superblock");
            let plan = repair::plan(disk.device()).expect("a plan");
            let recorder = Recorder::new(disk);
            repair::apply(&plan, &recorder.device()).expect("no error");
            for n in 0..=recorder.len() {
                for (some, kept) in [(0, false), (1, true), (2, rng.bool())] {
                    let keep = |_: usize| if some == 2 { rng.bool() } else { kept };
                    let cut = recorder.crash_image(n, keep);
                    let mut now = verdict(&cut).expect("a superblock");
                    // Copies that were bad are written after the superblock.
                    if now.0 != before.0 && n < recorder.len() {
                        now.1.retain(|p| !p.contains("the other copy is good"));
                    }
                    if now.0 == before.0 {
                        assert_eq!(now, before, "{}, seed {seed}, {n} writes", o.name);
                        old += 1;
                    } else {
                        assert_eq!(now.1, [""; 0], "{}, seed {seed}, {n} writes", o.name);
                        new += 1;
                    }
                }
            }
        }
    }
    assert!(old > 50 && new > 20, "{old} {new}");
}

/// Records, nodes and superblocks that say what cannot be true, under right checksums: they are put
/// in order, or refused as what a later version may have written.
#[test]
fn forged_images_are_repaired() {
    silent();
    for copies in [1, 2] {
        forged(&base::with_copies(copies));
    }
}

fn forged(bases: &[base::Base]) {
    let (from, to) = (seeds().start, seeds().end.max(RECIPES));
    let (mut why, mut good, mut failed) = (HashMap::<String, u64>::new(), 0, Vec::new());
    for seed in from..to {
        let mut r = fastrand::Rng::with_seed(seed);
        let mut recipe = vec![0; r.usize(8..96)];
        r.fill(&mut recipe);
        let Some(c) = changes(bases, &recipe) else {
            continue;
        };
        let words = c.words.clone();
        if std::env::var("ORDOFS_VERBOSE").is_ok() {
            eprintln!("seed {seed} {words:?}");
        }
        let disk = MemDisk::from_image(c.blocks(), c.image());
        let before = disk.image();
        let said = match mended(&disk, None) {
            Ok(said) => said,
            Err(e) => {
                assert!(
                    same(&before, &disk.image()),
                    "seed {seed}: written, and {e}"
                );
                let kind = e.split(|c: char| c.is_ascii_digit()).collect();
                *why.entry(kind).or_default() += 1;
                if e.contains("would leave") || e.contains("the mount after it") {
                    failed.push(format!("seed {seed}: {e}\n{words:#?}"));
                }
                continue;
            }
        };
        good += 1;
        let fine = verdict(&disk).and_then(|(_, p)| match p.first() {
            None => Ok(()),
            Some(p) => Err(p.clone()),
        });
        let fine = fine.and_then(|()| {
            let again = repair::plan(disk.device())?;
            again
                .said
                .first()
                .map_or(Ok(()), |s| Err(format!("again: {s}")))
        });
        if let Err(e) = fine {
            failed.push(format!("seed {seed}: {e}\n{words:#?}\n{said:#?}"));
        }
    }
    for f in failed.iter().take(6) {
        eprintln!("{}", f.chars().take(2000).collect::<String>());
    }
    eprintln!("{good} repaired; refused: {why:#?}");
    assert!(failed.is_empty(), "{} failed", failed.len());
    assert!(good > (to - from) / 2, "{good} of {}", to - from);
}

/// Repairs a damaged image. What lies in the blocks `bad` may be lost. Returns what the repair said.
fn rebuilt(o: &Original, disk: &MemDisk, bad: &BTreeSet<u64>, what: &str) -> Vec<String> {
    let fail = |e: String| -> Vec<String> { panic!("{}, {what}: {e}", o.name) };
    let said = mended(disk, None).unwrap_or_else(fail);
    if let Err(e) = judged(o, disk, bad) {
        fail(format!("{e}\n{said:#?}"));
    }
    let again = repair::plan(disk.device())
        .map(|p| p.said)
        .unwrap_or_else(fail);
    assert_eq!(again, [""; 0], "{}, {what}", o.name);
    said
}

fn garbage(disk: &MemDisk, block: u64, from: usize, to: usize) {
    (from..to).for_each(|i| disk.corrupt(block, i, (i % 251) as u8 | 1));
}

/// Destroys all copies of a node.
fn lose(disk: &MemDisk, p: &NodePtr) {
    let copies = p.places();
    copies.each().for_each(|at| garbage(disk, at, 0, 4096));
}

/// Each node of each tree is destroyed once.
#[test]
fn each_node_is_rebuilt_or_its_items_are_lost() {
    silent();
    let mut seen = BTreeSet::new();
    for o in originals() {
        for n in &o.structure.nodes {
            let header = NodeHeader::decode(&o.image[&n.block]).expect("a node").0;
            let (kind, level) = (header.id.kind, header.level);
            let (first, second) = (n.ptr.addr, n.ptr.addr2);
            let each = [vec![first], vec![second], vec![first, second]];
            for bad in each.into_iter().filter(|bad| !bad.contains(&0)) {
                let disk = MemDisk::from_image(o.blocks, o.image.clone());
                bad.iter().for_each(|at| garbage(&disk, *at, 0, 4096));
                let what = format!("{} node of level {level} at {bad:?}", kind.name());
                let said = rebuilt(&o, &disk, &bad.iter().copied().collect(), &what);
                if second != 0 && bad.len() == 1 {
                    let copies = |s: &String| s.contains("copies of nodes are bad");
                    assert_eq!(said.iter().filter(|s| !copies(s)).count(), usize::from(o.name == "cut off"), "{what}: {said:#?}");
                }
            }
            seen.insert((kind as u8, level));
        }
    }
    // Inodes, orphans, extents, directories, attributes, AGs, groups, deferred blocks.
    for (kind, level) in [
        (1, 0),
        (1, 1),
        (2, 0),
        (3, 0),
        (3, 1),
        (4, 0),
        (4, 1),
        (5, 0),
        (5, 1),
        (6, 0),
        (6, 1),
        (7, 0),
        (12, 0),
    ] {
        assert!(seen.contains(&(kind, level)), "kind {kind}, level {level}");
    }
}

/// Leaves without a parent are found by their second copies, too.
#[test]
fn second_copies_alone_are_found() {
    silent();
    let mut found = 0;
    for o in originals().iter().filter(|o| o.copies == 2) {
        let header = |b: u64| NodeHeader::decode(&o.image[&b]).expect("a node").0;
        for n in &o.structure.nodes {
            let h = header(n.block);
            let space = matches!(h.id.kind, TreeKind::Ag | TreeKind::Groups | TreeKind::Deferred);
            if h.level == 0 || space || h.id.kind == TreeKind::Orphan {
                continue;
            }
            let children = o.structure.nodes.iter().filter(|c| c.from == n.block);
            let children: Vec<u64> = children
                .filter(|c| header(c.block).id == h.id)
                .map(|c| c.ptr.addr)
                .collect();
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            for at in children.iter().chain(&[n.ptr.addr, n.ptr.addr2]) {
                garbage(&disk, *at, 0, 4096);
            }
            let what = format!("children of {}", n.block);
            let said = rebuilt(o, &disk, &BTreeSet::new(), &what);
            let all = format!("{} leaves of it were found", children.len());
            assert!(said.iter().any(|s| s.contains(&all)), "{what}: {said:#?}");
            found += children.len();
        }
    }
    assert!(found > 20, "{found}");
}

/// Superblocks are put together from what is left, and nothing of the files is lost.
#[test]
fn superblocks_are_rebuilt() {
    silent();
    let all = |o: &Original| -> Vec<u64> {
        let twins = ordofs_engine::engine::format::places::twin_base(o.blocks);
        vec![16, 128, twins + 16, twins + 128]
    };
    let sector = |disk: &MemDisk, block, k: usize| garbage(disk, block, k * 512, k * 512 + 512);
    for o in originals() {
        let copies = all(&o);
        let newest = {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            (Superblock::read(&disk.device()).expect("one").generation & 1) as usize
        };
        let with = |what: &str, damage: &dyn Fn(&MemDisk)| {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            damage(&disk);
            rebuilt(&o, &disk, &BTreeSet::new(), what)
        };
        for k in 3..8 {
            with("an empty sector of all copies", &|d| {
                copies.iter().for_each(|b| sector(d, *b, k))
            });
            let slot = [copies[newest], copies[newest + 2]];
            let said = with("an empty sector of the newest", &|d| {
                slot.iter().for_each(|b| sector(d, *b, k))
            });
            assert!(!said.iter().any(|s| s.contains("may be lost")), "{said:#?}");
        }
        let said = with("the roots of all copies", &|d| {
            copies.iter().for_each(|b| sector(d, *b, 2))
        });
        assert!(
            said.iter()
                .any(|s| s.contains("root of the inode tree was lost")),
            "{said:#?}"
        );
        with("all but one copy", &|d| {
            copies.iter().skip(1).for_each(|b| garbage(d, *b, 0, 4096))
        });
        with("one sector left of each", &|d| {
            for (i, b) in copies.iter().enumerate() {
                (0..8).filter(|k| k % 4 != i).for_each(|k| sector(d, *b, k));
            }
        });
        if o.name == "large" {
            with("all copies", &|d| {
                copies.iter().for_each(|b| garbage(d, *b, 0, 4096))
            });
            for k in 0..2 {
                with("a sector of all copies", &|d| {
                    copies.iter().for_each(|b| sector(d, *b, k))
                });
            }
        }
    }
}

/// What a later version may have written is refused, and nothing is written.
#[test]
fn features_are_refused() {
    silent();
    for o in originals() {
        for bits in [(1u64 << 40, 0), (0, 1 << 40), (0, 0)] {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            let mut sb = Superblock::read(&disk.device()).expect("one");
            (sb.incompat, sb.ro_compat) = bits;
            if bits == (0, 0) {
                sb.quota_root = sb.inode_root;
            }
            sb.write(&disk.device()).expect("a write");
            let n = o.structure.nodes.first().expect("a node");
            garbage(&disk, n.block, 0, 4096);
            let before = disk.image();
            let why = mended(&disk, None).expect_err("a refusal");
            assert!(why.contains("feature") || why.contains("quotas"), "{why}");
            assert!(same(&before, &disk.image()));
        }
    }
}

/// Inodes that are being deleted are no files without a name, and a truncation goes on where it was.
#[test]
fn orphans_and_truncations_stay() {
    silent();
    let mut orphans = 0;
    for o in originals() {
        let of_interest = |p: &Portrait| p.attrs.nlink == 0 || p.truncation.0 != 0;
        for n in &o.structure.nodes {
            let header = NodeHeader::decode(&o.image[&n.block]).expect("a node").0;
            // The orphan tree, the AG tree, and interior nodes.
            if !matches!(header.id.kind as u8, 2 | 6) && header.level == 0 {
                continue;
            }
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            garbage(&disk, n.block, 0, 4096);
            let plan = repair::plan(disk.device()).unwrap_or_else(|e| panic!("{e}"));
            repair::apply(&plan, &disk.device()).expect("no error");
            let now = Reader::new(disk.device()).album();
            for (ino, was) in o.album.inodes.iter().filter(|(_, p)| of_interest(p)) {
                let place = format!("inode {ino}: had no name");
                assert!(
                    !plan.said.iter().any(|s| s.starts_with(&place)),
                    "{:#?}",
                    plan.said
                );
                let is = now
                    .inodes
                    .get(ino)
                    .unwrap_or_else(|| panic!("inode {ino} is gone"));
                assert_eq!(is.attrs.nlink, was.attrs.nlink, "inode {ino}");
                assert_eq!(is.truncation, was.truncation, "inode {ino}");
                orphans += u32::from(was.attrs.nlink == 0);
            }
        }
    }
    assert!(orphans > 0, "no image has an orphan");
}

/// The new superblock is later than every sector that is there, so no two attempts to write one can
/// be taken for one superblock.
#[test]
fn the_new_generation_is_above_all_sectors() {
    silent();
    for o in originals() {
        for ahead in [2, 4, 1000] {
            for torn in [1, 7] {
                let disk = MemDisk::from_image(o.blocks, o.image.clone());
                let sb = Superblock::read(&disk.device()).expect("one");
                let mut later = sb.clone();
                later.generation += ahead;
                let at = ordofs_engine::engine::format::places::slot(later.generation, 0, o.blocks);
                let mut b = Block::zeroed().expect("memory");
                later.encode(0, &mut b);
                let old = disk.image()[&at].clone();
                // The later one is torn: only some of its sectors have arrived.
                b[..512 * torn].copy_from_slice(&old[..512 * torn]);
                disk.device().write(&[(at, &b)]).expect("a write");
                garbage(&disk, sb.ag_root.expect("a root").addr, 0, 4096);
                let plan = repair::plan(disk.device()).unwrap_or_else(|e| panic!("{e}"));
                assert!(
                    plan.superblock().generation > sb.generation + ahead,
                    "{}",
                    o.name
                );
            }
        }
    }
}

/// Of two inodes with one block, the one whose checksum is right keeps it; else that of the later commit.
#[test]
fn a_block_with_two_owners_is_left_to_one() {
    silent();
    let bases = base::all();
    let o = &originals()[0];
    let files: Vec<(u64, u64)> = o
        .album
        .inodes
        .iter()
        .filter(|(_, p)| p.data.len() == 1 && p.data[0].1 == 1 && p.data[0].2 != 0)
        .map(|(ino, _)| (*ino, extent_of(o, *ino)))
        .collect();
    let [(first, a), .., (second, b)] = files[..] else {
        panic!("no files");
    };
    assert!(first < second);
    let sum_of = |block| crc32c(0, &o.image[&block][..]).to_le_bytes();
    // Whether the second one has the checksum of the content; whose record is of the first commit.
    for (same, older, loser) in [
        (false, first, second),
        (false, second, second),
        (true, first, first),
        (true, second, second),
    ] {
        let mut c = Changes::new(&bases[0]);
        forge(&mut c, o, second, |leaf, off, len| {
            let at = (off..off + len - 8).find(|at| leaf[*at..at + 8] == b.to_le_bytes());
            let at = at.expect("its extent");
            leaf[at..at + 8].copy_from_slice(&a.to_le_bytes());
            // Both have the same content.
            assert_eq!(leaf[at + 24..at + 28], sum_of(a));
            leaf[at + 24] ^= u8::from(!same);
        });
        forge(&mut c, o, older, |leaf, off, _| {
            leaf[off + 128..off + 136].copy_from_slice(&1u64.to_le_bytes());
        });
        let disk = MemDisk::from_image(c.blocks(), c.image());
        let report = verdict(&disk).expect("a superblock");
        assert!(
            report.1.iter().any(|p| p.contains("used by")),
            "{report:#?}"
        );
        let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
        let place = format!("inode {loser}: file blocks 0..=0: another owner");
        assert!(said.iter().any(|s| s.starts_with(&place)), "{said:#?}");
        assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
        let now = Reader::new(disk.device()).album();
        for ino in [first, second] {
            assert_eq!(
                now.inodes[&ino].data.is_empty(),
                ino == loser,
                "inode {ino}"
            );
        }
    }
}

mod made {
    use ordofs_crash::engine::volume::mkfs::{format, FormatOptions};
    use ordofs_crash::engine::{Fs, MountOptions, NewInode, S_IFREG};
    use ordofs_engine::os::mem::MemDisk;
    use ordofs_engine::os::Shared;
    use ordofs_fuzz::work;

    fn empty(blocks: u64, copies: u8) -> MemDisk {
        let disk = MemDisk::new(blocks);
        let options = FormatOptions {
            uuid: *b"ordofs-fuzz.uuid",
            label: [0; 64],
            blocks: 0,
            root_owner: (0, 0),
            copies,
        };
        format(disk.device(), &options).unwrap_or_else(|e| panic!("mkfs: {}", e.reason));
        disk
    }

    fn mounted(disk: &MemDisk) -> Shared<Fs> {
        let fs = Fs::mount(disk.device(), MountOptions::default());
        fs.unwrap_or_else(|e| panic!("mount: {}", e.reason))
    }

    fn new_file() -> NewInode<'static> {
        NewInode {
            mode: S_IFREG | 0o644,
            ..Default::default()
        }
    }

    /// A filesystem in which the names of 100 files fill a leaf of their own, and whose log makes the file
    /// `new` with a block, which has the number next to that of the last commit.
    pub(super) fn with_a_logged_file(blocks: u64, copies: u8) -> MemDisk {
        let disk = empty(blocks, copies);
        let fs = mounted(&disk);
        let root = fs.iget(fs.root_ino()).expect("the root");
        for i in 0..100 {
            let f = fs.create(&root, format!("file {i}").as_bytes(), &new_file());
            fs.iput(f.expect("a file"));
        }
        fs.sync().expect("a commit");
        let f = fs.create(&root, b"new", &new_file()).expect("a file");
        work::write(&fs, &disk.device(), &f, 0, 1).expect("data");
        fs.sync_inode(&f).expect("a batch");
        let cut_off = disk.fork();
        fs.iput(f);
        fs.iput(root);
        fs.unmount().expect("an unmount");
        cut_off
    }

    /// A filesystem whose preallocated files have the blocks of old leaves of the inode tree, which have
    /// the records of deleted files. There are `n` of the former, and as many others.
    pub(super) fn with_old_leaves(blocks: u64, n: usize, copies: u8) -> MemDisk {
        let disk = empty(blocks, copies);
        let fs = mounted(&disk);
        let root = fs.iget(fs.root_ino()).expect("the root");
        for i in 0..n {
            let f = fs.create(&root, format!("p{i}").as_bytes(), &new_file());
            fs.iput(f.expect("a file"));
        }
        // Those that are deleted have the highest numbers: no leaf that is left has theirs between its own.
        let mut files = Vec::new();
        for i in 0..n {
            let f = fs.create(&root, format!("{i}").as_bytes(), &new_file());
            files.push(f.expect("a file"));
            if i % 3 == 0 {
                work::write(&fs, &disk.device(), &files[i], 0, 2).expect("data");
            }
        }
        fs.sync().expect("a commit");
        for (i, f) in files.into_iter().enumerate() {
            if i >= n / 2 {
                let gone = fs.unlink(&root, format!("{i}").as_bytes(), &f);
                gone.expect("no error");
            }
            fs.iput(f);
        }
        fs.iput(root);
        fs.unmount().expect("an unmount");
        drop(fs);
        // This mount removes the records of the deleted files.
        let fs = mounted(&disk);
        let root = fs.iget(fs.root_ino()).expect("the root");
        fs.sync().expect("a commit");
        fs.sync().expect("a commit");
        // They get the lowest free blocks.
        for i in (0..n).rev() {
            let found = fs.lookup(&root, format!("p{i}").as_bytes());
            let ino = found.expect("no error").expect("a file").ino;
            let f = fs.iget(ino).expect("a file");
            fs.preallocate(&f, 0, 1, None).expect("room");
            fs.iput(f);
        }
        fs.iput(root);
        fs.unmount().expect("an unmount");
        disk
    }
}

/// Deleted files do not come back, and take nothing from others.
#[test]
fn old_leaves_in_preallocated_blocks_are_left_out() {
    silent();
    [1, 2].into_iter().for_each(left_out);
}

fn left_out(copies: u8) {
    let original = made::with_old_leaves(4096, 250, copies);
    let album = Reader::new(original.device()).album();
    let sb = Superblock::read(&original.device()).expect("one");
    let root = sb.inode_root.expect("a root");
    assert!(root.level > 0);
    assert_eq!(album.inodes.len(), 376);
    assert!(old_leaves(&original) > 0);
    let space = sb.ag_root.expect("a root");
    without_older_parents(&original);
    for bad in [&[root][..], &[root, space]] {
        let disk = original.fork();
        bad.iter().for_each(|p| lose(&disk, p));
        let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
        let now = Reader::new(disk.device()).album();
        for (ino, was) in &album.inodes {
            let is = now.inodes.get(ino);
            let said = (bad.len(), &said);
            if was.attrs.mode & S_IFMT == S_IFREG {
                assert_eq!(is.map(|p| &p.data), Some(&was.data), "{ino}: {said:#?}");
            }
            assert!(is.is_some(), "inode {ino}: {said:#?}");
        }
        if bad.len() == 1 {
            assert!(now.inodes.keys().eq(album.inodes.keys()), "{said:#?}");
        }
    }
}

/// The same if only the last part of the leaves has no parent: what the others map is known.
#[test]
fn old_leaves_of_a_lost_part_are_left_out() {
    silent();
    [1, 2].into_iter().for_each(left_out_of_a_part);
}

fn left_out_of_a_part(copies: u8) {
    let disk = made::with_old_leaves(1 << 15, 2500, copies);
    let album = Reader::new(disk.device()).album();
    assert!(old_leaves(&disk) > 0);
    let r = Reader::new(disk.device());
    assert_eq!(r.sb.inode_root.expect("a root").level, 2);
    let mut parents = Vec::new();
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let walked = tree.walk(&r.st, &mut |w| {
        if let WalkItem::Node(n) = w {
            parents.extend((n.level == 1).then_some(n.ptr()));
        }
        Ok(())
    });
    walked.expect("a whole tree");
    let lost = *parents.last().expect("a parent of leaves");
    without_older_parents(&disk);
    lose(&disk, &lost);
    let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
    let now = Reader::new(disk.device()).album();
    for (ino, is) in &now.inodes {
        // A file without a name is in the new lost+found.
        let found = is.attrs.mode & S_IFMT == S_IFDIR;
        assert!(album.inodes.contains_key(ino) || found, "{ino}: {said:#?}");
    }
    for (ino, was) in &album.inodes {
        let is = now.inodes.get(ino).map(|p| &p.data);
        assert_eq!(is, Some(&was.data), "{ino}: {said:#?}");
    }
}

/// Older parents would tell which leaves were part of the tree; they have been overwritten.
fn without_older_parents(disk: &MemDisk) {
    let r = Reader::new(disk.device());
    let mut parents = BTreeSet::new();
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let walked = tree.walk(&r.st, &mut |w| {
        if let WalkItem::Node(n) = w {
            parents.insert(n.addr);
        }
        Ok(())
    });
    walked.expect("a whole tree");
    for (at, b) in disk.image() {
        let inner = NodeHeader::decode(&b).is_ok_and(|(h, _)| {
            h.id.kind == TreeKind::Inode && h.level > 0 && h.addr == at && !parents.contains(&at)
        });
        if inner {
            garbage(disk, at, 0, 4096);
        }
    }
}

/// How many old leaves with inodes that are not there any more lie in blocks that a file has.
fn old_leaves(disk: &MemDisk) -> usize {
    let r = Reader::new(disk.device());
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let (mut inodes, mut data) = (BTreeSet::new(), Claims::default());
    let walked = tree.walk(&r.st, &mut |w| {
        if let WalkItem::Item(ino, value) = w {
            inodes.insert(ino);
            let rec = InodeRecord::decode(ino, value).expect("a record");
            for (key, v) in r.items(TreeId::new(TreeKind::Extent, ino), &rec.extents).0 {
                let e = Extent::decode(key, &v, r.sb.blocks).expect("an extent");
                data.add(e.phys, e.len, Claim::Data(ino));
            }
        }
        Ok(())
    });
    walked.expect("a whole tree");
    let image = disk.image();
    let old = image.iter().filter(|(at, b)| {
        let leaf = NodeHeader::decode(b).ok().map(|(h, _)| h);
        let leaf = leaf.filter(|h| h.id.kind == TreeKind::Inode && h.level == 0);
        let first = || u64::from_le_bytes(*b[64..].first_chunk().expect("8 bytes"));
        leaf.is_some_and(|h| h.addr == **at)
            && data.owner(**at).is_some()
            && !inodes.contains(&first())
    });
    old.count()
}

/// The disk block of the only extent of an inode.
fn extent_of(o: &Original, ino: u64) -> u64 {
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let r = Reader::new(disk.device());
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let value = tree
        .get_with(&r.st, ino, <[u8]>::to_vec)
        .expect("a read")
        .expect("a record");
    let rec = InodeRecord::decode(ino, &value).expect("a record");
    let (items, _) = r.items(TreeId::new(TreeKind::Extent, ino), &rec.extents);
    Extent::decode(items[0].0, &items[0].1, o.blocks)
        .expect("an extent")
        .phys
}

/// Calls `f` with the leaf that has the record of an inode, and where the record is in it. The leaf is
/// sealed again.
fn forge(
    c: &mut Changes<'_>,
    o: &Original,
    ino: u64,
    f: impl FnOnce(&mut [u8; 4096], usize, usize),
) {
    let leaf = o.structure.nodes.iter().map(|n| n.block).find(|b| {
        let node = &o.image[b];
        let h = NodeHeader::decode(node).expect("a node").0;
        h.id.kind == TreeKind::Inode && h.level == 0 && o.album.blocks[&ino].contains(b)
    });
    let b = c.block_mut(leaf.expect("the leaf of the inode"));
    let n = u16::from_le_bytes([b[42], b[43]]) as usize;
    let slots = (0..n).map(|i| 64 + 12 * i);
    let slot = slots
        .into_iter()
        .find(|at| b[*at..at + 8] == ino.to_le_bytes());
    let slot = slot.expect("its slot");
    let word = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]) as usize;
    let (off, len) = (word(slot + 8), word(slot + 10));
    f(b, off, len);
    let agree = Agree {
        pointers: true,
        sums: true,
        free: true,
    };
    seal::all(c, agree);
}

/// A truncation that is under way, and that the orphan tree has forgotten.
#[test]
fn a_truncation_under_way_keeps_its_place() {
    silent();
    let (bases, o) = (base::all(), &originals()[0]);
    let file = o
        .album
        .inodes
        .iter()
        .find(|(_, p)| p.data.len() == 1 && p.data[0].2 != 0);
    let ino = *file.expect("a file").0;
    let mut c = Changes::new(&bases[0]);
    forge(&mut c, o, ino, |b, off, _| {
        b[off + 52] = 1;
        // So the record has to be written anew.
        b[off + 4] += 1;
        b[off + 120..off + 128].copy_from_slice(&1234u64.to_le_bytes());
    });
    let disk = MemDisk::from_image(c.blocks(), c.image());
    let plan = repair::plan(disk.device()).unwrap_or_else(|e| panic!("{e}"));
    repair::apply(&plan, &disk.device()).expect("no error");
    assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
    let now = Reader::new(disk.device()).album();
    assert_eq!(now.inodes[&ino].truncation, (1, 1234));
}

/// If the trees of space are lost, the log is replayed all the same, and its data is not overwritten.
#[test]
fn the_log_is_replayed() {
    silent();
    let mut tried = 0;
    for o in originals()
        .iter()
        .filter(|o| !o.structure.batches.is_empty())
    {
        let space = |kind| matches!(kind, 6 | 7 | 12);
        let nodes = o.structure.nodes.iter().map(|n| n.block);
        let kind = |b: &u64| NodeHeader::decode(&o.image[b]).expect("a node").0.id.kind as u8;
        let nodes: Vec<u64> = nodes.filter(|b| space(kind(b))).collect();
        for some in nodes.iter().map(|b| vec![*b]).chain([nodes.clone()]) {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            search_from(&disk, o.named);
            some.iter().for_each(|b| garbage(&disk, *b, 0, 4096));
            let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
            let replayed = said.iter().any(|s| s.contains("batches were replayed"));
            assert!(replayed || o.name != "cut off", "{said:#?}");
            let report = check(disk.device(), Options { data: true }).expect("a superblock");
            assert_eq!(report.problems, []);
            let now = Reader::new(disk.device()).album().inodes;
            assert!(now.keys().eq(o.after.keys()));
            for (ino, mut was) in o.after.clone() {
                let mut is = now[&ino].clone();
                // The times of what a mount does.
                (was.attrs, is.attrs) = (no_times(&was.attrs), no_times(&is.attrs));
                assert_eq!(is, was, "inode {ino}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 3, "{tried}");
}

/// A lost leaf of inodes or names does not take the log.
#[test]
fn a_lost_leaf_does_not_take_the_log() {
    silent();
    let (mut tried, mut found) = (0, 0);
    let all = originals();
    let o = all.iter().find(|o| o.name == "cut off").expect("an image");
    let only_logged: Vec<_> = o
        .after
        .iter()
        .filter(|(i, _)| !o.album.inodes.contains_key(*i))
        .collect();
    for n in &o.structure.nodes {
        let header = NodeHeader::decode(&o.image[&n.block]).expect("a node").0;
        if header.level > 0 || !matches!(header.id.kind, TreeKind::Inode | TreeKind::Dir) {
            continue;
        }
        let disk = MemDisk::from_image(o.blocks, o.image.clone());
        garbage(&disk, n.block, 0, 4096);
        let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
        let replayed = said.iter().any(|s| s.contains("batches were replayed"));
        assert!(replayed, "{said:#?}");
        let now = Reader::new(disk.device()).album().inodes;
        for (ino, was) in &only_logged {
            let is = now.get(*ino).map(|p| &p.data);
            assert_eq!(is, Some(&was.data), "{ino}: {said:#?}");
        }
        found += usize::from(said.iter().any(|s| s.contains("had no name")));
        assert!(said.len() > 1, "nothing is said of what is lost: {said:#?}");
        tried += 1;
    }
    assert!(tried > 5 && found > 0 && !only_logged.is_empty());
}

/// The new lost+found does not get the number of the first inode that the log makes.
#[test]
fn lost_and_found_has_a_number_that_the_log_does_not_use() {
    silent();
    [1, 2].into_iter().for_each(numbers_of_the_log);
}

fn numbers_of_the_log(copies: u8) {
    let disk = made::with_a_logged_file(4096, copies);
    let sb = Superblock::read(&disk.device()).expect("one");
    let names = TreeId::new(TreeKind::Dir, sb.root_ino);
    let mut lost = 0;
    for (at, b) in disk.image() {
        if NodeHeader::decode(&b).is_ok_and(|(h, _)| h.id == names) {
            garbage(&disk, at, 0, 4096);
            lost += 1;
        }
    }
    assert!(lost > 0);
    let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
    let now = Reader::new(disk.device()).album().inodes;
    let root = &now[&sb.root_ino];
    assert_eq!(root.entries.get(&b"new"[..]), Some(&sb.next_ino), "{said:#?}");
    assert_eq!(now[&sb.next_ino].data.len(), 1);
    let found = root.entries[&b"lost+found"[..]];
    assert_eq!(now[&found].entries.len(), 100, "{said:#?}");
}

/// An operation on an inode that is lost is left out of the log, and the others are not.
#[test]
fn a_record_that_does_not_fit_does_not_take_the_log() {
    silent();
    let all = originals();
    let o = all.iter().find(|o| o.name == "cut off").expect("an image");
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let record = Record::Grow {
        ino: 1 << 40,
        bytes: 1,
    };
    append(&disk, &record);
    let sb = Superblock::read(&disk.device()).expect("one");
    garbage(&disk, sb.ag_root.expect("a root").addr, 0, 4096);
    let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
    let with = |what: &str| said.iter().any(|s| s.contains(what));
    assert!(
        with("batches were replayed") && with("1 operations"),
        "{said:#?}"
    );
    let now = Reader::new(disk.device()).album().inodes;
    assert!(now.keys().eq(o.after.keys()));
}

/// Appends a record to the log, in a batch of its own.
fn append(disk: &MemDisk, record: &Record<'_>) {
    let sb = Superblock::read(&disk.device()).expect("one");
    let device = Shared::new(disk.device()).expect("memory");
    let st = NodeStore::new(device, sb.node_id, 0).expect("memory");
    let area = Area {
        start: sb.log_start,
        len: sb.log_len,
    };
    let (mut at, mut payload) = ((sb.log_pos, sb.log_seq), KVVec::new());
    loop {
        let mut ahead = Ahead::new(st.device()).expect("memory");
        match ring::read(&st, area, &mut ahead, at, &mut payload).expect("memory") {
            Found::Whole(h) => at = h.next(),
            _ => break,
        }
    }
    payload.clear();
    let appended = record.append(&mut payload, sb.generation + 1, Default::default());
    appended.expect("memory");
    let batch = Batch {
        pos: at.0,
        seq: at.1,
        flushed: at.1 - 1,
        generation: sb.generation,
        data_durable: true,
    };
    ring::write(&st, area, batch, &payload, Flush::Now).expect("a write");
}

/// A device that fails.
struct Flaky {
    disk: Device,
    blocks: Vec<u64>,
    /// How many reads of these blocks fail.
    reads: AtomicU64,
    /// Whether writes of them fail.
    writes: bool,
}

impl Flaky {
    fn of(disk: &MemDisk, blocks: &[u64], reads: u64, writes: bool) -> Device {
        Device::new(Self {
            disk: disk.device(),
            blocks: blocks.to_vec(),
            reads: AtomicU64::new(reads),
            writes,
        })
    }
}

impl Backend for Flaky {
    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }

    fn readonly(&self) -> bool {
        false
    }

    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        let left = self.reads.load(Ordering::Relaxed);
        if left > 0 && self.blocks.contains(&block) {
            self.reads.store(left - 1, Ordering::Relaxed);
            return Err(EIO);
        }
        let mut b = Block::zeroed()?;
        self.disk.read(block, &mut b)?;
        *buf = *b;
        Ok(())
    }

    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        if self.writes && self.blocks.contains(&block) {
            return Err(EIO);
        }
        let mut b = Block::zeroed()?;
        b.copy_from_slice(data);
        self.disk.write(&[(block, &b)])
    }

    fn flush(&self) -> Result {
        self.disk.flush()
    }

    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        self.write(block, data)
    }

    fn discard(&self, _start: u64, _len: u64) -> Result {
        Ok(())
    }
}

/// An error of the device that goes away loses nothing. Superblocks that cannot be read are put
/// together from a backup, and a backup that cannot be written does not end the repair.
#[test]
fn errors_of_the_device_lose_no_more_than_they_must() {
    silent();
    let all = originals();
    for o in &all {
        for n in o.structure.nodes.iter().take(10) {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            let plan = repair::plan(Flaky::of(&disk, &[n.block], 1, false));
            let said = plan.unwrap_or_else(|e| panic!("{e}")).said;
            assert!(
                !said.iter().any(|s| s.contains("cannot be read")),
                "{said:#?}"
            );
        }
    }
    let o = all.iter().find(|o| o.name == "large").expect("an image");
    let copies = copies(o.blocks);
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let plan = repair::plan(Flaky::of(&disk, &copies, u64::MAX, false));
    plan.unwrap_or_else(|e| panic!("{e}"));
    let backup = ordofs_engine::engine::format::places::backups(o.blocks).next();
    let backup = backup.expect("a backup") + 16;
    garbage(&disk, backup, 0, 4096);
    let plan = repair::plan(disk.device()).unwrap_or_else(|e| panic!("{e}"));
    let done = repair::apply(&plan, &Flaky::of(&disk, &[backup], 0, true));
    assert_eq!(done.expect("no error").len(), 1);
}

fn copies(blocks: u64) -> Vec<u64> {
    let twins = ordofs_engine::engine::format::places::twin_base(blocks);
    vec![16, 128, twins + 16, twins + 128]
}

/// The backups of a filesystem that another one has replaced.
#[test]
fn another_filesystem_is_not_overwritten() {
    silent();
    let all = originals();
    let o = all.iter().find(|o| o.name == "large").expect("an image");
    for (block, at, magic, what) in [
        (0, 1080, &b"\x53\xef"[..], "ext2/3/4"),
        (16, 65600 - 65536, b"_BHRfS_M", "btrfs"),
        (16, 0, b"OrdoFS\0\x83", "another version"),
    ] {
        let disk = MemDisk::from_image(o.blocks, o.image.clone());
        for b in copies(o.blocks) {
            (0..4096).for_each(|i| disk.corrupt(b, i, o.image[&b][i]));
        }
        for (i, x) in magic.iter().enumerate() {
            disk.corrupt(block, at + i, *x);
        }
        let before = disk.image();
        let why = mended(&disk, None).expect_err("a refusal");
        assert!(why.contains(what), "{why}");
        assert!(same(&before, &disk.image()));
    }
}

/// A leaf of a commit that was cut off is not taken for the root of a small tree.
#[test]
fn a_leaf_of_a_commit_that_was_cut_off_is_no_root() {
    silent();
    let disk = made::with_old_leaves((1 << 15) * 100 + 100, 250, 1);
    let sb = Superblock::read(&disk.device()).expect("one");
    let tree = tree_of(INODE_TREE, sb.inode_root);
    let st = NodeStore::new(Shared::new(disk.device()).unwrap(), sb.node_id, 256).unwrap();
    let mut leaf = None;
    let walked = tree.walk(&st, &mut |w| {
        if let WalkItem::Node(n) = w {
            leaf = leaf.or((n.level == 0).then_some(n.addr));
        }
        Ok(())
    });
    walked.expect("a whole tree");
    let mut b = Block::zeroed().expect("memory");
    disk.device()
        .read(leaf.expect("a leaf"), &mut b)
        .expect("a read");
    let mut h = NodeHeader::decode(&b).expect("a node").0;
    (h.addr, h.generation) = (sb.blocks - 5000, sb.generation + 1);
    h.seal(&mut b);
    disk.device().write(&[(h.addr, &b)]).expect("a write");
    for c in copies(sb.blocks) {
        garbage(&disk, c, 0, 4096);
    }
    let why = mended(&disk, None).expect_err("a refusal");
    assert!(why.contains("may have been cut off"), "{why}");
}

/// Where each free block has an old node, there is room for new ones.
#[test]
fn blocks_with_old_nodes_are_room() {
    silent();
    let all = originals();
    let o = all.iter().find(|o| o.name == "clean").expect("an image");
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let used = o.structure.nodes.iter().find(|n| {
        let h = NodeHeader::decode(&o.image[&n.block]).expect("a node").0;
        h.id.kind == TreeKind::Dir && h.level == 0
    });
    let used = used.expect("a leaf").block;
    let mut h = NodeHeader::decode(&o.image[&used]).expect("a node").0;
    h.generation = 1;
    for at in (256..o.blocks).filter(|at| !o.image.contains_key(at)) {
        let mut b = Block::zeroed().expect("memory");
        b.copy_from_slice(&o.image[&used][..]);
        h.addr = at;
        h.seal(&mut b);
        disk.device().write(&[(at, &b)]).expect("a write");
    }
    garbage(&disk, used, 0, 4096);
    rebuilt(o, &disk, &BTreeSet::from([used]), "old nodes everywhere");
}

fn no_times(a: &Attrs) -> Attrs {
    Attrs {
        atime: Default::default(),
        mtime: Default::default(),
        ctime: Default::default(),
        btime: Default::default(),
        change: 0,
        ..*a
    }
}

/// A record of a later version in the log is no damage, and is not thrown away.
#[test]
fn a_log_of_a_later_version_is_refused() {
    silent();
    let all = originals();
    let o = all.iter().find(|o| o.name == "cut off").expect("an image");
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let sb = Superblock::read(&disk.device()).expect("one");
    let record = Record::Swap {
        one: FilePlace { ino: 5, start: 0 },
        other: FilePlace { ino: 6, start: 0 },
        len: 1,
    };
    append(&disk, &record);
    for damaged in [false, true] {
        if damaged {
            garbage(&disk, sb.ag_root.expect("a root").addr, 0, 4096);
        }
        let before = disk.image();
        let why = mended(&disk, None).expect_err("a refusal");
        assert!(why.contains("later"), "{why}");
        assert!(same(&before, &disk.image()));
    }
}
