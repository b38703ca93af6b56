//! Chains: operations that run one after the other without coming back.

use std::time::Duration;

use nix::libc;
use ucp_engine::buffer::Buffer;
use ucp_engine::operation::*;

use super::world::{Ended, World, read, text, told, write};
use super::{Case, conform};

const SOON: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn chains() {
    let cases: [Case; 15] = [
        (
            "a block is written and put on stable storage",
            |it| {
                let file = it.file("a", b"");
                let written = write(&file, b"hello".to_vec(), 0);
                let sync = Sync { file: file.clone(), reach: SyncReach::Data };
                let chain = it.run_chain(Chain::write_then_sync(written, sync));
                told([all(&chain), it.read(&file, 0, 5)])
            },
            "5, 0, 5 hello",
        ),
        (
            "a whole file system is synced behind a write",
            |it| {
                let file = it.file("a", b"");
                let written = write(&file, b"hello".to_vec(), 0);
                let sync = Sync { file: file.clone(), reach: SyncReach::FileSystem };
                let chain = it.run_chain(Chain::write_then_sync(written, sync));
                told([all(&chain), it.read(&file, 0, 5)])
            },
            "5, 0, 5 hello",
        ),
        (
            "nothing is synced behind a write that failed",
            |it| {
                it.file("a", b"");
                let file = it.open("a", libc::O_RDONLY);
                let sync = Sync { file: file.clone(), reach: SyncReach::Data };
                all(&it.run_chain(Chain::write_then_sync(write(&file, vec![0; 5], 0), sync)))
            },
            "EBADF, ECANCELED LinkBroken",
        ),
        (
            "nothing is synced behind a write outside its buffer",
            |it| {
                let file = it.file("a", b"");
                let written = Write { start: 9, ..write(&file, vec![0; 5], 0) };
                let sync = Sync { file, reach: SyncReach::Data };
                all(&it.run_chain(Chain::write_then_sync(written, sync)))
            },
            "EINVAL, ECANCELED LinkBroken",
        ),
        (
            "a block is read and written elsewhere",
            |it| {
                let (source, target) = (it.file("a", b"hello"), it.file("b", b""));
                let chain = read_then_write(it, &source, &target, 5);
                told([chain, it.read(&target, 0, 9)])
            },
            "5, 5, buffer with the read: hello, 5 hello....",
        ),
        (
            "nothing is written behind a short read",
            |it| {
                let (source, target) = (it.file("a", b"hell"), it.file("b", b""));
                let chain = read_then_write(it, &source, &target, 5);
                told([chain, it.read(&target, 0, 9)])
            },
            "4, ECANCELED LinkBroken, buffer with the read: hell., 0 .........",
        ),
        (
            "nothing is written behind a read that failed",
            |it| {
                it.file("a", b"hello");
                let (source, target) = (it.open("a", libc::O_WRONLY), it.file("b", b""));
                let chain = read_then_write(it, &source, &target, 5);
                told([chain, it.size("b").to_string()])
            },
            "EBADF, ECANCELED LinkBroken, buffer with the read: ....., 0",
        ),
        (
            "a write that fails behind a read is told",
            |it| {
                let source = it.file("a", b"hello");
                it.file("b", b"");
                let target = it.open("b", libc::O_RDONLY);
                read_then_write(it, &source, &target, 5)
            },
            "5, EBADF, buffer with the read: hello",
        ),
        (
            "part of a buffer is read and written elsewhere",
            |it| {
                let (source, target) = (it.file("a", b"hello"), it.file("b", b""));
                let part = Read { start: 1, length: 2, ..read(&source, b".....".to_vec(), 3) };
                let chain = it.run_chain(Chain::read_then_write(part, (&target).into(), 1));
                told([all(&chain), text(chain[0].bytes()), it.read(&target, 0, 9)])
            },
            r"2, 2, .lo.., 3 \x00lo......",
        ),
        (
            "a small file is opened, read and closed",
            |it| {
                it.file("a", b"hello");
                let slot = it.processor.register_file(None).unwrap();
                let again = open_read_close(it, "a", &slot);
                told([again, open_read_close(it, "a", &slot)])
            },
            "0, 5, 0, hello..., 0, 5, 0, hello...",
        ),
        (
            "nothing is read or closed behind an open that failed",
            |it| {
                let slot = it.processor.register_file(None).unwrap();
                open_read_close(it, "a", &slot)
            },
            "ENOENT, ECANCELED LinkBroken, ECANCELED LinkBroken, ........",
        ),
        (
            "a file that can't be read is closed all the same",
            |it| {
                it.directory("d");
                let slot = it.processor.register_file(None).unwrap();
                let chain = open_read_close(it, "d", &slot);
                told([chain, it.tell(read(&slot, vec![0; 8], 0))])
            },
            "0, EISDIR, 0, ........, EBADF",
        ),
        (
            "an operation that ends in time is not timed out",
            |it| {
                let file = it.file("a", b"hello");
                let bytes: Buffer = vec![b'.'; 5].into();
                let chain = it.run_chain(Chain::with_timeout(read(&file, bytes, 0).into(), NEVER));
                told([all(&chain), text(chain[0].bytes())])
            },
            "5, 0, hello",
        ),
        (
            "an operation of the helpers that ends in time is not timed out",
            |it| {
                let file = it.file("a", b"hello");
                all(&it.run_chain(Chain::with_timeout(Lock { file }.into(), NEVER)))
            },
            "0, 0",
        ),
        (
            "an operation that takes too long is timed out",
            |it| {
                let slow = Timeout { duration: NEVER };
                all(&it.run_chain(Chain::with_timeout(slow.into(), SOON)))
            },
            "ECANCELED TimedOut, ETIME TimedOut",
        ),
    ];
    conform(&cases);
}

fn all(chain: &[Ended]) -> String {
    told(chain.iter().map(Ended::told))
}

fn read_then_write(it: &mut World, source: &File, target: &File, length: usize) -> String {
    let block = read(source, vec![b'.'; length], 0);
    let chain = it.run_chain(Chain::read_then_write(block, target.into(), 0));
    assert!(chain[1].bytes().is_empty(), "the write has no buffer of its own");
    told([all(&chain), format!("buffer with the read: {}", text(chain[0].bytes()))])
}

fn open_read_close(it: &mut World, name: &str, slot: &RegisteredFile) -> String {
    let open = Open::read(it.place(name)).confined();
    let chain = Chain::open_read_close(open, slot, vec![b'.'; 8].into());
    let chain = it.run_chain(chain);
    told([all(&chain), text(chain[1].bytes())])
}
