// SPDX-License-Identifier: GPL-2.0

//! The corpus, a few thousand random recipes, and what the fuzzer must notice.

use ordofs_crash::engine::format::node::TreeKind;
use ordofs_crash::engine::mutant::{self, Mutant};
use ordofs_fuzz::base;
use ordofs_fuzz::exercise::{exercise, How};
use ordofs_fuzz::judge::{changes, judge};
use ordofs_fuzz::{leaf, structure};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Random recipes of each run.
const RANDOM: u64 = 3000;
/// The most recipes until a missing check is noticed.
const LIMIT: u64 = 20_000;

fn silent() {
    kernel::print::set_level(kernel::print::SILENT);
}

#[test]
fn images_without_a_change_are_in_order() {
    silent();
    for b in base::all() {
        let r = exercise(b.blocks, b.image.clone());
        assert_eq!(r, Ok(How::InOrder), "{}", b.name);
    }
}

/// The images have nodes of all kinds of trees, interior ones of those that grow with the device, and
/// groups of all forms.
#[test]
fn the_images_have_everything() {
    silent();
    let (mut nodes, mut forms) = (BTreeSet::new(), BTreeSet::new());
    for b in base::all() {
        for n in &b.structure.nodes {
            let data = &b.image[&n.block];
            let (kind, level) = (structure::kind(data), structure::level(data));
            nodes.insert((kind, level));
            if kind == TreeKind::Groups as u8 && level == 0 {
                forms.extend(leaf::items(data).iter().map(|(_, v)| v[0]));
            }
            if kind == TreeKind::Ag as u8 && level == 0 {
                // The form of the first record of an inline tree.
                let inline = |(_, v): (u64, Vec<u8>)| (v.get(33) == Some(&1)).then(|| v[48]);
                forms.extend(leaf::items(data).into_iter().filter_map(inline));
            }
        }
    }
    let of = |kind, levels: u8| (0..levels).map(move |l| (kind as u8, l));
    let mut want = BTreeSet::new();
    want.extend(of(TreeKind::Inode, 2));
    want.extend(of(TreeKind::Extent, 2));
    want.extend(of(TreeKind::Dir, 2));
    want.extend(of(TreeKind::Xattr, 2));
    want.extend(of(TreeKind::Ag, 2));
    want.extend(of(TreeKind::Groups, 2));
    want.extend(of(TreeKind::Deferred, 1));
    assert!(want.is_subset(&nodes), "{nodes:?}");
    assert_eq!(forms.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn the_corpus_fails_no_more() {
    silent();
    let bases = base::all();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut n = 0;
    for f in std::fs::read_dir(dir).expect("the corpus") {
        let path = f.expect("a file").path();
        let recipe = std::fs::read(&path).expect("a recipe");
        if let Some(Err(text)) = judge(&bases, &recipe) {
            let words = changes(&bases, &recipe).map(|c| c.words);
            panic!("{}: {text}\n{words:?}", path.display());
        }
        n += 1;
    }
    assert!(n > 0, "no corpus");
}

/// Without a protection, random recipes find out within the number of a few runs.
#[test]
fn a_missing_check_is_noticed() {
    silent();
    let bases = base::all();
    mutant::choose(Some(Mutant::ForgedRecord));
    let mut r = fastrand::Rng::with_seed(1);
    let noticed = (0..LIMIT).find_map(|_| {
        let mut recipe = vec![0; r.usize(8..96)];
        r.fill(&mut recipe);
        match judge(&bases, &recipe) {
            Some(Err(text)) => Some(text),
            _ => None,
        }
    });
    assert!(noticed.is_some(), "not in {LIMIT} recipes");
}

/// The same recipes in each run, so that a failure belongs to a change: `make fuzz` looks for others.
/// Recipes of all kinds must come out, or the fuzzer tests nothing.
#[test]
fn random_recipes() {
    silent();
    let bases = base::all();
    let mut r = fastrand::Rng::with_seed(2);
    let mut outcomes: HashMap<How, u64> = HashMap::new();
    for _ in 0..RANDOM {
        let mut recipe = vec![0; r.usize(8..96)];
        r.fill(&mut recipe);
        match judge(&bases, &recipe) {
            Some(Ok(how)) => *outcomes.entry(how).or_default() += 1,
            Some(Err(text)) => {
                let words = changes(&bases, &recipe).map(|c| c.words);
                panic!("{recipe:?}: {text}\n{words:?}");
            }
            None => {}
        }
    }
    for how in [How::Refused, How::Damaged, How::LogRefused, How::InOrder] {
        let n = outcomes.get(&how).copied().unwrap_or(0);
        assert!(n >= RANDOM / 200, "{how:?}: {outcomes:?}");
    }
}
