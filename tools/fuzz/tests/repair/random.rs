// SPDX-License-Identifier: GPL-2.0

//! Random damage and forged images, and repairs that are cut off.

use crate::album::*;
use crate::support::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::Recorder;
use ordofs_fsck::repair::{self, undo};
use ordofs_fuzz::base;
use ordofs_fuzz::judge::changes;
use std::collections::HashMap;

/// Random recipes of each run.
const RECIPES: u64 = 1500;

/// Seeds of which the repair is cut off at each write.
const CUT: u64 = 12;

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
    result.map_err(|e| {
        format!(
            "{}, {} copies, seed {seed}, blocks {bad:?}: {e}",
            o.name, o.copies
        )
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
                    // Copies and backups that were bad are written after the superblock.
                    if now.0 != before.0 && n < recorder.len() {
                        now.1.retain(|p| !p.contains("the other copy is good"));
                        let backup = |p: &String| p.starts_with("backup of the superblock");
                        now.1.retain(|p| !backup(p) || !before.1.contains(p));
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
