// SPDX-License-Identifier: GPL-2.0

//! Mounting, syncing and the commit thread; and the table of methods that the other files of this
//! directory implement.
//!
//! # Locking
//!
//! `committer` is taken under `s_umount` held exclusively (mount, remount, umount). The commit thread
//! holds `frozen` around a commit, outside all locks of the engine; freezing takes it under
//! `s_umount`.

use core::{ffi::CStr, fmt};
use kernel::prelude::*;

use super::{stats, with_space, InodeData, OrdoFs, Params};
use crate::{
    engine,
    os::{
        atomic::{AtomicBool, Ordering},
        Device, LockClass, Mutex, NoFs, Shared,
    },
    vfs::{
        object::sysfs::File, os::kthread, os::workqueue::IoQueues, AttrChange, Attrs, Emit,
        FileSystem, Identity, Inode, Locked, MountError, Namespace, NewNode, Param, Rename, Shown,
        StatFs, SuperBlock, Times, Timestamp, XattrSet,
    },
};

static COMMITTER: LockClass = LockClass::new(c"ordofs_committer");
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
            }
        })?);
        Ok(())
    }

    /// The options in force.
    fn params(&self) -> Params {
        let acl = self.acl.load(Ordering::Relaxed);
        Params::from_options(&self.engine.options(), self.norecovery, acl)
    }

    /// Does what mounting read-only left undone.
    fn clean_up(&self) -> Result {
        if self.uncleaned.load(Ordering::Relaxed) {
            let _nofs = NoFs::enter();
            self.engine.clean_orphans()?;
            self.uncleaned.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Stops the commit thread and waits for it.
    fn stop_committer(&self) {
        let thread = self.committer.lock().take();
        drop(thread);
    }
}

impl FileSystem for OrdoFs {
    type InodeData = InodeData;
    type Params = Params;

    const NAME: &'static CStr = c"ordofs";
    const INODE_CACHE: &'static CStr = c"ordofs_inode";
    // "Ordo"
    const MAGIC: u64 = 0x4f72_646f;
    const FILES: &'static [File<Self>] = stats::FILES;

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

    fn posix_acls(params: &Params) -> bool {
        params.acl
    }

    #[inline(never)]
    fn mount(dev: Device, params: &Params, read_only: bool) -> Result<Self, MountError> {
        params.check(read_only)?;
        let io = IoQueues::new()?;
        let committer = Mutex::new(&COMMITTER, None)?;
        let frozen = Shared::new(Mutex::new(&FROZEN, false)?)?;
        let _nofs = NoFs::enter();
        let engine: Shared<engine::Fs> = engine::Fs::mount(dev, params.options(read_only))?;
        let first_generation = engine.durable_generation();
        Ok(Self {
            engine,
            io,
            committer,
            frozen,
            uncleaned: AtomicBool::new(read_only),
            norecovery: params.norecovery,
            first_generation,
            acl: AtomicBool::new(params.acl),
        })
    }

    fn started(&self, sb: &SuperBlock<Self>, read_only: bool) -> Result {
        if read_only {
            return Ok(());
        }
        self.start_committer(sb)
    }

    fn reconfigure(
        sb: &SuperBlock<Self>,
        params: &Params,
        read_only: bool,
    ) -> Result<(), MountError> {
        let fs = sb.fs();
        params.check(read_only)?;
        if let (false, Some(why)) = (read_only, fs.engine.forbidden()) {
            return Err(why.into());
        }
        if read_only && !sb.read_only() {
            // A mount that stays writable because this fails keeps its commit thread.
            fs.sync(true)?;
            fs.engine.set_read_only(true);
            fs.stop_committer();
        } else if !read_only && sb.read_only() {
            fs.engine.set_read_only(false);
            if let Err(e) = fs.clean_up().and_then(|()| fs.start_committer(sb)) {
                fs.engine.set_read_only(true);
                return Err(e.into());
            }
        }
        fs.engine.set_commit_secs(params.commit_secs);
        fs.engine.set_discard(params.discard);
        fs.acl.store(params.acl, Ordering::Relaxed);
        Ok(())
    }

    fn unmount(&self) {
        self.stop_committer();
        let _nofs = NoFs::enter();
        match self.engine.unmount() {
            // After a shutdown there is no last commit, and everybody knows.
            Err(_) if self.engine.is_shutdown() => {}
            Err(e) => pr_err!(
                "{}: the last commit failed: {:?}\n",
                self.engine.device_name(),
                e
            ),
            Ok(()) => {}
        }
    }

    fn show_options(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.params().show(out)
    }

    fn root_ino(&self) -> u64 {
        self.engine.root_ino()
    }

    fn uuid(&self) -> [u8; 16] {
        self.engine.uuid()
    }

    fn sync(&self, wait: bool) -> Result {
        // Without `wait` this is a hint that a call with it follows.
        if !wait {
            return Ok(());
        }
        let _nofs = NoFs::enter();
        self.engine.sync()
    }

    fn freeze(&self) -> Result {
        // After a commit that is under way; from then on the commit thread only sleeps.
        *self.frozen.lock() = true;
        let synced = self.sync(true);
        if synced.is_err() {
            *self.frozen.lock() = false;
        }
        synced
    }

    fn unfreeze(&self) -> Result {
        *self.frozen.lock() = false;
        Ok(())
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

    fn shrink_count(&self) -> u64 {
        self.engine.shrink_count()
    }

    fn shrink_scan(&self, n: u64) -> u64 {
        self.engine.shrink_scan(n)
    }

    fn stop_caching(&self) {
        self.engine.stop_caching();
    }

    fn shutdown(&self) {
        self.engine.abort("the device is gone, or was declared so");
    }

    fn readable(&self) -> Result {
        self.engine.readable()
    }

    fn read_inode(sb: &SuperBlock<Self>, ino: u64) -> Result<InodeData> {
        sb.fs().read_inode(ino)
    }

    fn attrs(data: &InodeData) -> Attrs {
        data.attrs()
    }

    fn read_link(sb: &SuperBlock<Self>, data: &InodeData) -> Result<KVec<u8>> {
        let _nofs = NoFs::enter();
        sb.fs().engine.readlink(&data.engine)
    }

    fn evict(sb: &SuperBlock<Self>, data: InodeData, delete: bool) {
        sb.fs().evict(data, delete);
    }

    fn show(data: &InodeData, ctime: &dyn Fn() -> Option<Timestamp>, show: &mut dyn FnMut(&Shown)) {
        data.show(ctime, show);
    }

    fn set_attrs(
        inode: &Locked<'_, Self>,
        acl: Option<&[u8]>,
        change: &mut dyn FnMut() -> AttrChange,
    ) -> Result {
        inode.fs().set_attrs(inode.data(), acl, change)
    }

    fn push_times(inode: &Inode<Self>, times: &dyn Fn() -> Times) -> Result {
        inode.fs().push_times(inode.data(), times)
    }

    fn sync_inode(inode: &Inode<Self>) -> Result {
        let _nofs = NoFs::enter();
        inode.fs().engine.sync_inode(&inode.data().engine)
    }

    fn get_xattr(
        inode: &Inode<Self>,
        ns: Namespace,
        name: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>> {
        inode.fs().get_attribute(inode.data(), ns, name, out)
    }

    fn set_xattr(
        inode: &Inode<Self>,
        ns: Namespace,
        name: &[u8],
        value: Option<&[u8]>,
        how: XattrSet,
    ) -> Result {
        with_space(inode.sb(), || {
            inode.fs().set_attribute(inode.data(), ns, name, value, how)
        })
    }

    fn list_xattr(inode: &Inode<Self>, emit: &mut dyn FnMut(Namespace, &[u8]) -> Result) -> Result {
        inode.fs().list_attributes(inode.data(), emit)
    }

    fn set_acl(
        inode: &Locked<'_, Self>,
        ns: Namespace,
        value: Option<&[u8]>,
        mode: Option<u32>,
    ) -> Result {
        with_space(inode.sb(), || {
            inode.fs().set_list(inode.data(), ns, value, mode)
        })
    }

    fn parent(inode: &Inode<Self>) -> Option<u64> {
        inode.data().parent()
    }

    fn lookup(dir: &Inode<Self>, name: &[u8]) -> Result<Option<u64>> {
        dir.fs().lookup_name(dir, name)
    }

    fn identity(sb: &SuperBlock<Self>) -> Identity {
        sb.fs().identity()
    }

    fn create(dir: &Locked<'_, Self>, name: &[u8], new: &NewNode<'_>) -> Result<InodeData> {
        with_space(dir.sb(), || dir.fs().create_name(dir, name, new))
    }

    fn tmpfile(sb: &SuperBlock<Self>, new: &NewNode<'_>) -> Result<InodeData> {
        with_space(sb, || sb.fs().create_tmpfile(new))
    }

    fn link(dir: &Locked<'_, Self>, name: &[u8], target: &Inode<Self>) -> Result {
        with_space(dir.sb(), || dir.fs().link_name(dir, name, target))
    }

    fn unlink(dir: &Locked<'_, Self>, name: &[u8], victim: &Inode<Self>) -> Result {
        dir.fs().unlink_name(dir, name, victim)
    }

    fn rename(rename: &Rename<'_, Self>) -> Result {
        with_space(rename.inode.sb(), || rename.inode.fs().rename_names(rename))
    }

    fn readdir(dir: &Inode<Self>, pos: u64, emit: Emit<'_>) -> Result {
        dir.fs().engine.readable()?;
        // `emit` copies to user memory and may fault, which may write back pages: no NOFS scope.
        dir.fs().engine.readdir(&dir.data().engine, pos, emit)
    }
}
