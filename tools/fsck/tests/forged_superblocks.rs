// SPDX-License-Identifier: GPL-2.0

//! Superblocks with impossible numbers and right checksums: the check and a trial of the recovery end with a
//! verdict, without a panic. (`tools/engine/tests/damage.rs` does the same to the nodes of trees.)

use kernel::print::{set_level, SILENT};
use ordofs_engine::engine::format::places::slot;
use ordofs_engine::engine::format::superblock::seal;
use ordofs_engine::engine::{Fs, MountOptions};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{random_u64, Block};
use ordofs_fsck::{check, Options, Overlay};
use ordofs_testkit::image::make_filesystem;

const BLOCKS: u64 = 70_000;

/// Where the numbers of a superblock are, and their lengths (docs/FORMAT.md, 3).
fn fields() -> Vec<(usize, usize)> {
    let counts = [
        (8, 4),
        (12, 4),
        (188, 4),
        (200, 4),
        (204, 4),
        (208, 1),
        (1544, 4),
    ];
    let large = [
        16, 24, 32, 56, 64, 192, 512, 528, 536, 544, 552, 568, 576, 584, 592, 1536,
    ];
    let times = [152, 160, 164, 172, 176, 184].map(|at| (at, 4));
    // A NodePtr: two addresses, the generation, the checksum, the level.
    let roots = (1024..1120).step_by(32);
    let ags = [2048, 2560]
        .into_iter()
        .flat_map(|at| (at..at + 480).step_by(32));
    let roots = roots.chain(ags).flat_map(|at| {
        [
            (at, 8),
            (at + 8, 8),
            (at + 16, 8),
            (at + 24, 4),
            (at + 28, 1),
        ]
    });
    let large = large.map(|at| (at, 8)).into_iter();
    counts
        .into_iter()
        .chain(large)
        .chain(times)
        .chain(roots)
        .collect()
}

/// A pseudo-random number that is often one of those at which arithmetic goes wrong.
fn number(rng: &mut impl FnMut(u64) -> u64, old: u64) -> u64 {
    match rng(8) {
        0 => 0,
        1 => u64::MAX - rng(3),
        2 => old.wrapping_add(rng(3)).wrapping_sub(1),
        3 => 1 << rng(64),
        4 => (1u64 << rng(64)).wrapping_sub(1),
        5 => old ^ 1 << rng(64),
        6 => rng(1 << 16),
        _ => rng(u64::MAX),
    }
}

#[test]
fn a_forged_superblock_has_a_verdict() {
    set_level(SILENT);
    let empty = MemDisk::new(BLOCKS);
    make_filesystem(empty.device());
    let fields = fields();
    let seed = random_u64();
    let mut state = seed | 1;
    let mut rng = move |below: u64| {
        // xorshift*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) % below.max(1)
    };
    println!("seed {seed}");
    let (mut refused, mut dirty) = (0, 0);
    for _ in 0..6000 {
        let disk = empty.fork();
        for parity in [0, 1] {
            let mut sb = Block::zeroed().expect("memory");
            disk.device()
                .read(slot(parity, 0, BLOCKS), &mut sb)
                .expect("read");
            for _ in 0..=rng(3) {
                let (at, len) = fields[rng(fields.len() as u64) as usize];
                let mut old = [0; 8];
                old[..len].copy_from_slice(&sb[at..at + len]);
                let new = number(&mut rng, u64::from_le_bytes(old));
                sb[at..at + len].copy_from_slice(&new.to_le_bytes()[..len]);
            }
            let generation = u64::from_le_bytes(sb[192..200].try_into().expect("8 bytes"));
            for copy in [0, 1] {
                // Half of the time what a copy says of itself is left wrong.
                if rng(2) == 0 {
                    sb[200..204].copy_from_slice(&(copy as u32).to_le_bytes());
                }
                seal(&mut sb, generation);
                let at = slot(parity, copy, BLOCKS);
                disk.device().write(&[(at, &sb)]).expect("write");
            }
        }
        match check(disk.device(), Options { data: true }) {
            Err(_) => refused += 1,
            Ok(report) => dirty += u32::from(!report.is_clean()),
        }
        let trial = Overlay::new(disk.device());
        if let Ok(fs) = Fs::mount(trial.device(), MountOptions::default()) {
            let _ = fs.unmount();
            let _ = check(trial.device(), Options { data: true });
        }
    }
    // Else the numbers are not where this test thinks. Per 3,000, 2,620 are refused and 118 dirty on average,
    // 85 to 148 in 200 runs with other seeds.
    assert!(
        refused > 300 && dirty > 100,
        "{refused} refused, {dirty} dirty"
    );
}
