// SPDX-License-Identifier: GPL-2.0

//! `/sys/fs/ordofs/<device>`: the state of a mount, one value a file.
//!
//! Nothing here takes a lock that is held across I/O: the files can be read while the filesystem hangs.
//!
//! Tests: tests/vm/t/035-observing.sh, 032-interface.sh, 068-scrub.sh.

use core::fmt;

use super::OrdoFs;
use crate::{
    engine::state::scrub::{Phase, ScrubStatus},
    fs::os::atomic::Ordering,
    vfs::object::sysfs::{File, Group},
};

/// The files.
pub(super) const FILES: &[File<OrdoFs>] = &[
    File::value(c"uuid", uuid),
    File::value(c"label", |fs, out| {
        let label = fs.engine().label();
        let end = label.iter().position(|b| *b == 0).unwrap_or(label.len());
        // A label is UTF-8: what is not was refused.
        for part in label.get(..end).unwrap_or(&[]).utf8_chunks() {
            out.write_str(part.valid())?;
        }
        Ok(())
    }),
    File::value(c"generation", |fs, out| {
        write!(out, "{}", fs.engine().durable_generation())
    }),
    File::value(c"commits", |fs, out| {
        let now = fs.engine().durable_generation();
        write!(out, "{}", now.saturating_sub(fs.first_generation))
    }),
    File::value(c"log_batches", |fs, out| {
        let n = fs.engine().log.batches.load(Ordering::Relaxed);
        write!(out, "{n}")
    }),
    File::value(c"log_used", |fs, out| {
        write!(out, "{}", fs.engine().log_space().0)
    }),
    File::value(c"log_blocks", |fs, out| {
        write!(out, "{}", fs.engine().log_space().1)
    }),
    File::value(c"extent_maps", |fs, out| {
        let n = fs.engine().em_count.all.load(Ordering::Relaxed);
        write!(out, "{}", n.max(0))
    }),
    File::value(c"cached_nodes", |fs, out| {
        write!(out, "{}", fs.engine().node_store().cached())
    }),
    File::value(c"bad_copy_reads", |fs, out| {
        write!(out, "{}", fs.engine().node_store().bad_copies().reads())
    }),
    File::value(c"healed_copies", |fs, out| {
        write!(out, "{}", fs.engine().node_store().bad_copies().healed())
    }),
    File::value(c"unhealed_copies", |fs, out| {
        write!(out, "{}", fs.engine().node_store().bad_copies().failed())
    }),
    File::value(c"shutdown", |fs, out| {
        write!(out, "{}", u32::from(fs.engine().is_shutdown()))
    }),
    File::value(c"scrub_state", |fs, out| {
        out.write_str(phase_name(status(fs).phase))
    }),
    File::value(c"scrub_total", |fs, out| {
        write!(out, "{}", status(fs).total_blocks)
    }),
    File::value(c"scrub_nodes", |fs, out| {
        write!(out, "{}", status(fs).nodes)
    }),
    File::value(c"scrub_data", |fs, out| {
        write!(out, "{}", status(fs).data_blocks)
    }),
    File::value(c"scrub_inodes", |fs, out| {
        write!(out, "{}", status(fs).inodes)
    }),
    File::value(c"scrub_left_out", |fs, out| {
        write!(out, "{}", status(fs).left_out)
    }),
    File::value(c"scrub_bad_copies", |fs, out| {
        write!(out, "{}", status(fs).bad_copies)
    }),
    File::value(c"scrub_healed", |fs, out| {
        write!(out, "{}", status(fs).healed)
    }),
    File::value(c"scrub_lost_nodes", |fs, out| {
        write!(out, "{}", status(fs).lost_nodes)
    }),
    File::value(c"scrub_bad_records", |fs, out| {
        write!(out, "{}", status(fs).bad_records)
    }),
    File::value(c"scrub_bad_data", |fs, out| {
        write!(out, "{}", status(fs).bad_blocks)
    }),
    File::value(c"scrub_bad_inodes", |fs, out| {
        write!(out, "{}", status(fs).bad_inodes)
    }),
    #[cfg(ordofs_planted)]
    File::command(c"planted", |_, name| {
        crate::vfs::testing::planted::plant(name)
    }),
];

/// The subdirectories.
pub(super) const GROUPS: &[Group<OrdoFs>] = &[
    #[cfg(ordofs_debug)]
    Group {
        name: c"errortag",
        files: super::errortag_files::FILES,
    },
];

/// The numbers of the scrub.
fn status(fs: &OrdoFs) -> ScrubStatus {
    fs.engine().scrub_status()
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Never => "never",
        Phase::Running => "running",
        Phase::Finished => "finished",
        Phase::Cancelled => "cancelled",
        Phase::Failed => "failed",
    }
}

fn uuid(fs: &OrdoFs, out: &mut dyn fmt::Write) -> fmt::Result {
    for (i, byte) in fs.engine().uuid().iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.write_str("-")?;
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}
