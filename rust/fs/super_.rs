// SPDX-License-Identifier: GPL-2.0

//! Mounting, syncing, the commit thread and the thread that deletes in the background.
//!
//! # Locking
//!
//! `committer` and `reaper` are taken under `s_umount` held exclusively (mount, remount, umount). The commit thread
//! holds `frozen` around a commit, not while it heals, outside all locks of the engine; freezing takes it
//! under `s_umount`.
//!
//! Tests: tests/vm/t/021-mount.sh, 026-read-only.sh, 027-after-shutdown.sh, 030-hibernation.sh.

use core::{ffi::CStr, fmt};
use kernel::prelude::*;

use super::{scrub, stats, OrdoFs, Params};
use crate::{
    engine::{self, ops::trim::TrimRange},
    fs::os::{
        atomic::{AtomicBool, Ordering},
        cond_resched, Device, LockClass, Mutex, NoFs, Shared, Tags,
    },
    vfs::{
        object::sysfs::{File, Group},
        os::kthread,
        os::workqueue::IoQueues,
        traits::mount::{Access, MountError, MountOperations, Param, PosixAcls},
        traits::super_block::{
            FsTrimRange, Ioctl, StatFs, SuperOperations, SyncUntil, TrimCall, FSLABEL_MAX,
        },
        OpenDevice, SuperBlock,
    },
};

static COMMITTER: LockClass = LockClass::new(c"ordofs_committer");
static REAPER: LockClass = LockClass::new(c"ordofs_reap_thread");
static SCRUBBER: LockClass = LockClass::new(c"ordofs_scrubber");
static FROZEN: LockClass = LockClass::new(c"ordofs_frozen");

/// How long the commit thread sleeps at most, in milliseconds.
const TICK: u64 = 1000;

impl From<engine::MountError> for MountError {
    fn from(e: engine::MountError) -> Self {
        MountError {
            error: e.error,
            reason: e.reason,
        }
    }
}

impl OrdoFs {
    /// Starts the commit thread, if there is none.
    fn start_committer(&self, sb: &SuperBlock<Self>) -> Result {
        let mut committer = self.committer.lock();
        if committer.is_some() {
            return Ok(());
        }
        let engine = self.engine.clone();
        let frozen = self.frozen.clone();
        *committer = Some(kthread::spawn(c"ordofs", sb.id(), move || {
            // The image of a hibernation has the filesystem as it is in memory: the disk must not get
            // newer than that before the image is complete.
            kthread::set_freezable();
            while !kthread::should_stop() {
                engine.commit_wait(TICK);
                kthread::try_to_freeze();
                if kthread::should_stop() {
                    break;
                }
                let frozen = frozen.lock();
                if *frozen {
                    continue;
                }
                let _nofs = NoFs::enter();
                // An error has shut the filesystem down; it was reported there, and every later
                // operation reports it again.
                let _ = engine.commit_tick();
                // Freezing and syncing do not wait for what follows.
                drop(frozen);
                engine.heal(&|| kthread::should_stop());
            }
        })?);
        Ok(())
    }

    /// Starts the thread that deletes in the background, if there is none.
    fn start_reaper(&self, sb: &SuperBlock<Self>) -> Result {
        let mut reaper = self.reaper.lock();
        if reaper.is_some() {
            return Ok(());
        }
        let engine = self.engine.clone();
        *reaper = Some(kthread::spawn(c"ordofs-reap", sb.id(), move || {
            kthread::set_freezable();
            while !kthread::should_stop() {
                engine.reap_wait(TICK);
                kthread::try_to_freeze();
                while !kthread::should_stop() && engine.reap_step() {
                    kthread::try_to_freeze();
                    cond_resched();
                }
            }
        })?);
        self.engine.serve_reaper(true);
        Ok(())
    }

    /// Starts the threads of a mount that may write.
    fn start_threads(&self, sb: &SuperBlock<Self>) -> Result {
        self.start_committer(sb)?;
        self.start_reaper(sb)
    }

    /// The options in force.
    fn params(&self) -> Params {
        let acl = self.acl.load(Ordering::Relaxed);
        Params {
            rescue_data: self.rescue_data,
            ..Params::from_options(&self.engine.options(), self.norecovery, acl)
        }
    }

    /// Does what mounting read-only left undone.
    fn clean_up(&self) -> Result {
        {
            let _nofs = NoFs::enter();
            self.engine.mend_superblocks()?;
        }
        if self.uncleaned.load(Ordering::Relaxed) {
            let _nofs = NoFs::enter();
            self.engine.clean_orphans()?;
            self.uncleaned.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Stops the threads of a mount that may write, and waits for them.
    fn stop_threads(&self) {
        for thread in [&self.reaper, &self.committer] {
            let thread = thread.lock().take();
            drop(thread);
        }
    }

    /// The filesystem is not frozen any more, or not after all.
    fn thaw(&self) {
        *self.frozen.lock() = false;
        self.engine.pause_healing(false);
        self.engine.pause_reaper(false);
    }

    /// Finishes what is being deleted, makes everything durable and forbids to write. After an error
    /// the mount stays writable.
    fn go_read_only(&self) -> Result {
        self.engine.serve_reaper(false);
        self.engine.reap_all();
        let synced = self.sync(SyncUntil::Durable);
        let _nofs = NoFs::enter();
        let done = synced.and_then(|()| self.engine.go_read_only());
        self.engine.serve_reaper(done.is_err());
        done
    }
}

impl MountOperations for OrdoFs {
    type Params = Params;

    fn initial_params(current: Option<&SuperBlock<Self>>) -> Params {
        match current {
            Some(sb) => {
                let fs = sb.fs();
                fs.params()
            }
            None => Params::from_options(&engine::MountOptions::default(), false, true),
        }
    }

    fn parse_param(params: &mut Params, key: &[u8], value: Option<&[u8]>) -> Param {
        params.parse(key, value)
    }

    fn posix_acls(params: &Params) -> PosixAcls {
        if params.acl {
            PosixAcls::On
        } else {
            PosixAcls::Off
        }
    }

    #[inline(never)]
    fn mount(dev: OpenDevice, params: &Params, access: Access) -> Result<Self, MountError> {
        params.check(access)?;
        let tags = Tags::new()?;
        let dev = Device::new(dev, tags.clone());
        let io = IoQueues::new(c"ordered-read", c"ordered-write")?;
        let committer = Mutex::new(&COMMITTER, None)?;
        let reaper = Mutex::new(&REAPER, None)?;
        let scrubber = Mutex::new(&SCRUBBER, None)?;
        let frozen = Shared::new(Mutex::new(&FROZEN, false)?)?;
        let _nofs = NoFs::enter();
        let engine: Shared<engine::Fs> = engine::Fs::mount(dev, params.options(access))?;
        let first_generation = engine.durable_generation();
        Ok(Self {
            engine,
            io,
            tags,
            committer,
            reaper,
            scrubber,
            frozen,
            uncleaned: AtomicBool::new(access.is_read_only()),
            norecovery: params.norecovery,
            rescue_data: params.rescue_data,
            first_generation,
            acl: AtomicBool::new(params.acl),
        })
    }

    fn started(&self, sb: &SuperBlock<Self>, access: Access) -> Result {
        if access.is_read_only() {
            return Ok(());
        }
        self.start_threads(sb)
    }

    fn reconfigure(
        sb: &SuperBlock<Self>,
        params: &Params,
        access: Access,
    ) -> Result<(), MountError> {
        let fs = sb.fs();
        let read_only = access.is_read_only();
        params.check(access)?;
        if let (false, Some(why)) = (read_only, fs.engine.forbidden()) {
            return Err(why.into());
        }
        if read_only && !sb.read_only() {
            // A mount that stays writable because this fails keeps its threads.
            fs.go_read_only()?;
            fs.stop_threads();
        } else if !read_only && sb.read_only() {
            fs.engine.set_read_only(false);
            // The threads first: large files that a crash left are deleted in the background.
            if let Err(e) = fs.start_threads(sb).and_then(|()| fs.clean_up()) {
                fs.engine.serve_reaper(false);
                fs.engine.reap_all();
                fs.stop_threads();
                fs.engine.set_read_only(true);
                return Err(e.into());
            }
        }
        fs.engine.set_commit_secs(params.commit_secs);
        fs.engine.set_discard(params.discard);
        fs.acl.store(params.acl, Ordering::Relaxed);
        Ok(())
    }
}

#[vtable]
impl SuperOperations for OrdoFs {
    const NAME: &'static CStr = c"ordofs";
    const INODE_CACHE: &'static CStr = c"ordofs_inode";
    // "Ordo"
    const MAGIC: u64 = 0x4f72_646f;
    const FILES: &'static [File<Self>] = stats::FILES;
    const FILE_GROUPS: &'static [Group<Self>] = stats::GROUPS;

    fn root_ino(&self) -> u64 {
        self.engine.root_ino()
    }

    fn uuid(&self) -> [u8; 16] {
        self.engine.uuid()
    }

    fn label(&self) -> Result<[u8; FSLABEL_MAX]> {
        let mut text = [0; FSLABEL_MAX];
        for (to, from) in text.iter_mut().zip(self.engine.label()) {
            *to = from;
        }
        Ok(text)
    }

    fn set_label(&self, text: &[u8; FSLABEL_MAX]) -> Result {
        let (label, rest) = text.split_first_chunk().ok_or(EINVAL)?;
        if rest.iter().any(|b| *b != 0) {
            return Err(EINVAL);
        }
        let _nofs = NoFs::enter();
        self.engine.set_label(*label)
    }

    fn statfs(&self) -> StatFs {
        let s = self.engine.statfs();
        StatFs {
            blocks: s.blocks,
            bfree: s.bfree,
            bavail: s.bavail,
            files: s.files,
            ffree: s.ffree,
        }
    }

    fn readable(&self) -> Result {
        self.engine.readable()
    }

    fn sync(&self, until: SyncUntil) -> Result {
        // A hint that a call that waits follows.
        if until == SyncUntil::Started {
            return Ok(());
        }
        let _nofs = NoFs::enter();
        // `s_umount` keeps freezing out, but not from a shutdown, after which there are no more commits.
        let frozen = *self.frozen.lock();
        match frozen {
            // sync(2) gets here all the same. Nothing is dirty, and a commit that only makes room would
            // overwrite blocks of a generation that a backup of the device may be reading.
            true => self.engine.commit_all(),
            false => self.engine.sync(),
        }
    }

    fn freeze(&self) -> Result {
        let _nofs = NoFs::enter();
        // After a commit and a step of a deletion that are under way; from then on the threads only
        // sleep.
        self.engine.pause_reaper(true);
        *self.frozen.lock() = true;
        // A scrub heals without `frozen`.
        self.engine.pause_healing(true);
        let synced = self.engine.sync();
        if synced.is_err() {
            self.thaw();
        }
        synced
    }

    fn unfreeze(&self) -> Result {
        self.thaw();
        Ok(())
    }

    fn show_options(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.params().show(out)
    }

    fn shrink_count(&self) -> u64 {
        self.engine.shrink_count()
    }

    fn shrink_scan(&self, n: u64) -> u64 {
        self.engine.shrink_scan(n)
    }

    fn trim(&self, range: &mut FsTrimRange, call: &TrimCall) -> Result {
        let mut bytes = TrimRange {
            start: range.start,
            len: range.len,
            min_len: range.min_len,
        };
        let mut trim = self.engine.trim_begin(&mut bytes)?;
        while call.part(|| {
            let _nofs = NoFs::enter();
            self.engine.trim_step(&mut trim, &mut || call.is_urgent())
        })? {}
        range.len = engine::block_to_bytes(trim.trimmed);
        range.min_len = bytes.min_len;
        Ok(())
    }

    fn ioctl(sb: &SuperBlock<Self>, call: &Ioctl) -> Result {
        scrub::ioctl(sb, call)
    }

    fn stop_caching(&self) {
        // ENOTCONN: none runs.
        let _ = self.stop_scrubber();
        self.engine.stop_caching();
    }

    fn hidden(&self) {
        // No tag can be set any more. Completions of I/O, which are waited for next, may be held in a window.
        self.tags.off();
    }

    fn unmount(&self) {
        self.stop_threads();
        let _nofs = NoFs::enter();
        match self.engine.unmount() {
            // After a shutdown there is no last commit; the shutdown was reported.
            Err(_) if self.engine.is_shutdown() => {}
            Err(e) => pr_err!(
                "{}: an error at unmount: {:?}\n",
                self.engine.device_name(),
                e
            ),
            Ok(()) => {}
        }
    }

    fn shutdown(&self) {
        self.engine.abort("the device is gone, or was declared so");
    }
}
