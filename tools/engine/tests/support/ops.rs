// SPDX-License-Identifier: GPL-2.0

//! The operations of a test run and how they are generated.

use ordofs_engine::engine::XattrSet;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    File,
    Dir,
    Symlink(u16),
    Fifo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Plain,
    NoReplace,
    Exchange,
    Whiteout,
}

/// An operation; `u8`s choose among what exists.
#[derive(Clone, Debug)]
pub enum Op {
    Create {
        dir: u8,
        name: u8,
        what: What,
    },
    Tmpfile,
    Link {
        dir: u8,
        name: u8,
        target: u8,
    },
    Unlink {
        dir: u8,
        entry: u8,
    },
    Rename {
        dir: u8,
        entry: u8,
        to: u8,
        name: u8,
        how: How,
    },
    SetAttrs {
        target: u8,
        mode: u16,
        uid: u32,
    },
    SetSize {
        file: u8,
        blocks: u64,
        extra: u16,
    },
    Punch {
        file: u8,
        start: u64,
        len: u64,
    },
    Preallocate {
        file: u8,
        start: u64,
        len: u64,
        keep: bool,
    },
    Zero {
        file: u8,
        start: u64,
        len: u64,
    },
    /// Dirties pages.
    Write {
        file: u8,
        start: u64,
        len: u64,
    },
    /// Makes pages writable and does not dirty them after all.
    ShortWrite {
        file: u8,
        start: u64,
        len: u64,
    },
    Writeback {
        file: u8,
        fail: bool,
    },
    Direct {
        file: u8,
        start: u64,
        len: u64,
        fail: bool,
        sync: bool,
    },
    SetXattr {
        target: u8,
        name: u8,
        len: u32,
        how: XattrSet,
    },
    RemoveXattr {
        target: u8,
        name: u8,
    },
    Sync,
    SyncFile {
        file: u8,
    },
    Open {
        file: u8,
    },
    Close {
        file: u8,
    },
    Shrink,
    Remount,
    Crash,
}

fn start() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..96u64, 2 => 0..4096u64, 1 => (1u64 << 40)..(1 << 40) + 64]
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 1..12u64, 2 => 1..100u64, 1 => 200..600u64]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        6 => Just(What::File),
        3 => Just(What::Dir),
        1 => (1u16..4095).prop_map(What::Symlink),
        1 => (1u16..60).prop_map(What::Symlink),
        1 => Just(What::Fifo)
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![5 => Just(How::Plain), 1 => Just(How::NoReplace), 2 => Just(How::Exchange), 1 => Just(How::Whiteout)]
}

fn value_len() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..100u32, 3 => 100..1500u32, 3 => 1200..6000u32, 1 => 20_000..=65_536u32]
}

fn set_how() -> impl Strategy<Value = XattrSet> {
    prop_oneof![8 => Just(XattrSet::Any), 1 => Just(XattrSet::Create), 1 => Just(XattrSet::Replace)]
}

prop_compose! {
    fn place()(file: u8, start in start(), len in len()) -> (u8, u64, u64) { (file, start, len) }
}

pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (any::<u8>(), any::<u8>(), what()).prop_map(|(dir, name, what)| Op::Create { dir, name, what }),
        1 => Just(Op::Tmpfile),
        2 => any::<(u8, u8, u8)>().prop_map(|(dir, name, target)| Op::Link { dir, name, target }),
        6 => any::<(u8, u8)>().prop_map(|(dir, entry)| Op::Unlink { dir, entry }),
        5 => (any::<(u8, u8, u8, u8)>(), how())
            .prop_map(|((dir, entry, to, name), how)| Op::Rename { dir, entry, to, name, how }),
        1 => any::<(u8, u16, u32)>().prop_map(|(target, mode, uid)| Op::SetAttrs { target, mode, uid }),
        3 => (any::<u8>(), start(), 0u16..4096)
            .prop_map(|(file, blocks, extra)| Op::SetSize { file, blocks, extra }),
        4 => place().prop_map(|(file, start, len)| Op::Punch { file, start, len }),
        3 => (place(), any::<bool>())
            .prop_map(|((file, start, len), keep)| Op::Preallocate { file, start, len, keep }),
        2 => place().prop_map(|(file, start, len)| Op::Zero { file, start, len }),
        12 => place().prop_map(|(file, start, len)| Op::Write { file, start, len }),
        2 => place().prop_map(|(file, start, len)| Op::ShortWrite { file, start, len }),
        6 => (any::<u8>(), prop::bool::weighted(0.1)).prop_map(|(file, fail)| Op::Writeback { file, fail }),
        6 => (place(), prop::bool::weighted(0.15), prop::bool::weighted(0.2))
            .prop_map(|((file, start, len), fail, sync)| Op::Direct { file, start, len, fail, sync }),
        7 => (any::<(u8, u8)>(), value_len(), set_how())
            .prop_map(|((target, name), len, how)| Op::SetXattr { target, name, len, how }),
        3 => any::<(u8, u8)>().prop_map(|(target, name)| Op::RemoveXattr { target, name }),
        3 => Just(Op::Sync),
        2 => any::<u8>().prop_map(|file| Op::SyncFile { file }),
        2 => any::<u8>().prop_map(|file| Op::Open { file }),
        1 => any::<u8>().prop_map(|file| Op::Close { file }),
        1 => Just(Op::Shrink),
        1 => Just(Op::Remount),
        1 => Just(Op::Crash),
    ]
}
