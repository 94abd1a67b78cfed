// SPDX-License-Identifier: GPL-2.0

//! The superblock that a repair begins with.

use crate::{describe, Overlay};
use ordofs_engine::engine::format::places::{backups, SLOTS};
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::volume::mount::find_superblock;
use ordofs_engine::os::Block;

/// Where a repair begins.
pub(super) struct Start {
    pub sb: Superblock,
    /// The generation of the superblock whose slot must survive until the new one is written.
    pub generation: u64,
    /// The least generation of the new superblock.
    pub next: u64,
    /// The log position is not known.
    pub log_lost: bool,
}

/// Finds the superblock to begin with.
pub(super) fn establish(view: &Overlay, said: &mut Vec<String>) -> Result<Start, String> {
    let found = find_superblock(&view.device()).map_err(|e| describe(&e))?;
    if let Some(why) = found.sb.unsupported() {
        return Err(why.into());
    }
    if found.sb.read_only_features() {
        return Err("unknown ro_compat features: a later version is needed".into());
    }
    if found.doubt.is_some() {
        said.push(format!(
            "superblock: one newer than generation {} may be lost, and the last commit with it",
            found.sb.generation
        ));
    }
    Ok(Start {
        generation: found.sb.generation,
        next: found.next,
        log_lost: false,
        sb: (*found.sb).clone(),
    })
}

/// The blocks of the backups that cannot be used, if the filesystem has any.
pub(super) fn bad_backups(view: &Overlay, sb: &Superblock) -> Vec<u64> {
    if sb.backed_up == 0 {
        return Vec::new();
    }
    let device = view.device();
    let bad = |block: &u64| {
        let Ok(mut b) = Block::zeroed() else {
            return false;
        };
        let ours = |b: Superblock| b.node_id == sb.node_id && b.uuid == sb.uuid;
        device.read(*block, &mut b).is_err() || !Superblock::decode(&b).is_ok_and(ours)
    };
    let places = backups(sb.blocks).map(|base| base + SLOTS[0]);
    places.filter(bad).collect()
}
