// SPDX-License-Identifier: GPL-2.0

//! What an operation that failed half-way has left in memory never gets to the disk, not even by a commit
//! that was waiting for it.

mod common;

use common::hooked::{hooked, Ask};
use common::{make, mount, mount_on, regular, write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

/// Long enough for a commit in memory, many times over.
const LONG: Duration = Duration::from_secs(2);

#[test]
fn a_commit_that_waited_for_who_aborts_writes_nothing() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(16384);
    {
        // An extent tree that does not fit into the inode: the next mount has to read it.
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        for b in 0..300 {
            write(&disk.device(), &fs, &f, 2 * b, &[b]).unwrap();
        }
        fs.sync().unwrap();
        fs.iput(f);
        fs.iput(root);
    }
    // When armed, each read sends a message and waits until it may go on.
    let armed = Arc::new(AtomicBool::new(false));
    let (reading, was_read) = mpsc::channel();
    let (go_on, may_go) = mpsc::channel::<()>();
    let ends = Mutex::new((reading, may_go));
    let hold = armed.clone();
    let fs = mount_on(hooked(&disk, move |ask| {
        if matches!(ask, Ask::Read(_)) && hold.load(Ordering::SeqCst) {
            let ends = ends.lock().unwrap();
            ends.0.send(()).unwrap();
            ends.1.recv().unwrap();
        }
        Ok(())
    }));
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs
        .iget(fs.lookup(&root, b"f").unwrap().unwrap().ino)
        .unwrap();
    let other = fs.create(&root, b"other", &regular()).unwrap();
    fs.sync().unwrap();
    std::thread::scope(|s| {
        armed.store(true, Ordering::SeqCst);
        let puncher = s.spawn(|| fs.punch(&f, 100, 300));
        // Reads outside of a transaction let a commit pass; the first inside of one does not.
        let waiting = loop {
            was_read
                .recv_timeout(LONG)
                .expect("no read inside of a transaction");
            let before = fs.durable_generation();
            let (fs, other) = (&fs, &other);
            let committer = s.spawn(move || {
                fs.set_size(other, before * 4096)?;
                fs.sync()
            });
            std::thread::sleep(LONG / 10);
            if !committer.is_finished() {
                break committer;
            }
            committer.join().unwrap().unwrap();
            assert!(fs.durable_generation() > before);
            go_on.send(()).unwrap();
        };
        let durable = fs.durable_generation();
        let at_rest = disk.fork();
        fs.abort("as if something had failed half-way");
        armed.store(false, Ordering::SeqCst);
        go_on.send(()).unwrap();
        let _ = puncher.join().unwrap();
        assert!(waiting.join().unwrap().is_err(), "committed");
        assert_eq!(fs.durable_generation(), durable);
        assert!(disk.image() == at_rest.image(), "something was written");
    });
    let again = mount(&disk.fork());
    let root = again.iget(again.root_ino()).unwrap();
    assert!(again.lookup(&root, b"other").unwrap().is_some());
    again.iput(root);
}
