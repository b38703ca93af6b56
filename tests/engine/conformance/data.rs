//! Operations that move the bytes of a file, or decide where they lie.

use std::sync::Arc;

use nix::libc;
use ucp_engine::Operation;
use ucp_engine::buffer::Buffer;
use ucp_engine::operation::*;
use ucp_engine::units::MIB;

use super::world::{World, read, text, told, write};
use super::{Case, conform};

#[test]
fn reads_and_writes() {
    let cases: [Case; 22] = [
        (
            "what is moved uncached is moved, or refused by all alike",
            |it| {
                let file = it.file("a", b"hello");
                let handle = || Handle::from(&file).uncached();
                // A read behind the end tells which.
                match &*it.tell(read(handle(), vec![0], 1 << 62)) {
                    "0" => {}
                    // The disk's kernel or file system can't.
                    refusal => return refusal.replace("EOPNOTSUPP", "2, 4 heyo, 3, 7 heyoabc"),
                }
                let content = |it: &mut World, length| {
                    let ended = it.run(read(handle(), vec![0; length], 0));
                    format!("{} {}", ended.told(), text(ended.bytes()))
                };
                let written = it.tell(write(handle(), b"yo".to_vec(), 2));
                let first = content(it, 4);
                let buffers = vec![Buffer::Vec(b"a".to_vec()), Buffer::Vec(b"bc".to_vec())];
                let vectored = WriteVectored { handle: handle(), buffers, offset_bytes: 4 };
                let vectored = it.tell(vectored);
                told([written, first, vectored, content(it, 7)])
            },
            "2, 4 heyo, 3, 7 heyoabc",
        ),
        (
            "a fifo is not written uncached",
            |it| {
                let mode = libc::S_IFIFO | 0o600;
                it.tell(MakeNode { place: it.place("f"), mode, device: 0 });
                let handle = Handle::from(it.open("f", libc::O_RDWR)).uncached();
                let written = [0, CURRENT_POSITION];
                told(written.map(|at| it.tell(write(handle.clone(), b"ab".to_vec(), at))))
            },
            "EOPNOTSUPP, EOPNOTSUPP",
        ),
        (
            "a read fills the buffer",
            |it| {
                let file = it.file("a", b"hello");
                it.read(&file, 0, 5)
            },
            "5 hello",
        ),
        (
            "a read is short at the end",
            |it| {
                let file = it.file("a", b"hello");
                it.read(&file, 2, 8)
            },
            "3 llo.....",
        ),
        (
            "a read behind the end brings nothing",
            |it| {
                let file = it.file("a", b"hello");
                it.read(&file, 99, 2)
            },
            "0 ..",
        ),
        (
            "a read of nothing is nothing",
            |it| {
                let file = it.file("a", b"hello");
                it.read(&file, 0, 0)
            },
            "0 ",
        ),
        (
            "a read touches its part of the buffer only",
            |it| {
                let file = it.file("a", b"hello");
                let ended =
                    it.run(Read { start: 2, length: 3, ..read(&file, b"......".to_vec(), 1) });
                told([ended.told(), text(ended.bytes())])
            },
            "3, ..ell.",
        ),
        (
            "a read outside the buffer is refused",
            |it| {
                let file = it.file("a", b"hello");
                it.tell(Read { start: 2, length: 3, ..read(&file, vec![0; 4], 0) })
            },
            "EINVAL",
        ),
        (
            "a part that ends above the numbers is refused",
            |it| {
                let file = it.file("a", b"hello");
                it.tell(Read { start: 2, length: u32::MAX, ..read(&file, vec![0; 4], 0) })
            },
            "EINVAL",
        ),
        (
            "a read into bytes that others read is refused",
            |it| {
                let file = it.file("a", b"hello");
                let shared: Arc<[u8]> = Arc::from(*b"shared");
                let ended = it.run(read(&file, Arc::clone(&shared), 0));
                told([ended.told(), text(&shared)])
            },
            "EINVAL, shared",
        ),
        (
            "a read at an offset that no file has is refused",
            |it| {
                let file = it.file("a", b"hello");
                told([1 << 63, u64::MAX - 1].map(|offset| it.read(&file, offset, 4)))
            },
            "EINVAL, EINVAL",
        ),
        (
            "reads at the file's own position go on where they stopped",
            |it| {
                it.file("a", b"hello");
                let file = it.open("a", libc::O_RDONLY);
                told([2, 8, 1].map(|length| it.read(&file, CURRENT_POSITION, length)))
            },
            "2 he, 3 llo....., 0 .",
        ),
        (
            "a fifo is written and read at any offset",
            |it| {
                let mode = libc::S_IFIFO | 0o600;
                it.tell(MakeNode { place: it.place("f"), mode, device: 0 });
                let file = it.open("f", libc::O_RDWR);
                let written = [0, 99, CURRENT_POSITION].map(|at| it.write(&file, b"ab", at));
                told([told(written), it.read(&file, 7, 3), it.read(&file, CURRENT_POSITION, 9)])
            },
            "2, 2, 2, 3 aba, 3 bab......",
        ),
        (
            "a read of what is open for writing only is refused",
            |it| {
                it.file("a", b"hello");
                let file = it.open("a", libc::O_WRONLY);
                it.read(&file, 0, 4)
            },
            "EBADF",
        ),
        (
            "a read of a directory is refused",
            |it| {
                let directory = it.directory("d");
                it.read(&directory, 0, 4)
            },
            "EISDIR",
        ),
        (
            "a write puts its part of the buffer",
            |it| {
                let file = it.file("a", b"hello");
                let part = Write { start: 1, length: 2, ..write(&file, b"HELLO".to_vec(), 3) };
                told([it.tell(part), it.read(&file, 0, 5)])
            },
            "2, 5 helEL",
        ),
        (
            "a write behind the end leaves zeros",
            |it| {
                let file = it.file("a", b"a");
                told([it.write(&file, b"b", 3), it.read(&file, 0, 9)])
            },
            r"1, 4 a\x00\x00b.....",
        ),
        (
            "a write from shared bytes leaves them shared",
            |it| {
                let file = it.file("a", b"");
                let shared: Arc<[u8]> = Arc::from(*b"shared");
                let written = it.tell(write(&file, Arc::clone(&shared), 0));
                told([written, it.read(&file, 0, 6), text(&shared)])
            },
            "6, 6 shared, shared",
        ),
        (
            "a write outside the buffer is refused",
            |it| {
                let file = it.file("a", b"hello");
                it.tell(Write { start: 4, length: 1, ..write(&file, vec![0; 4], 0) })
            },
            "EINVAL",
        ),
        (
            "a write at an offset that no file has is refused",
            |it| {
                let file = it.file("a", b"hello");
                told([1 << 63, u64::MAX - 1].map(|offset| it.write(&file, b"x", offset)))
            },
            "EINVAL, EINVAL",
        ),
        (
            "a write to what is open for reading only is refused",
            |it| {
                it.file("a", b"hello");
                let file = it.open("a", libc::O_RDONLY);
                it.write(&file, b"x", 0)
            },
            "EBADF",
        ),
        (
            "the buffer comes back with a failure",
            |it| {
                it.file("a", b"hello");
                let file = it.open("a", libc::O_RDONLY);
                let ended = it.run(write(&file, b"mine".to_vec(), 0));
                told([ended.told(), text(ended.bytes())])
            },
            "EBADF, mine",
        ),
    ];
    conform(&cases);
}

#[test]
fn vectored_reads_and_writes() {
    let cases: [Case; 7] = [
        (
            "buffers are filled one after the other",
            |it| {
                let file = it.file("a", b"hello, world");
                let buffers = vec![vec![b'.'; 2].into(), vec![b'.'; 4].into()];
                scattered(it, &file, buffers, 1)
            },
            "6: el, lo, ",
        ),
        (
            "buffers are filled as far as the file goes",
            |it| {
                let file = it.file("a", b"hello");
                let buffers = vec![vec![b'.'; 3].into(), vec![b'.'; 4].into()];
                scattered(it, &file, buffers, 0)
            },
            "5: hel, lo..",
        ),
        (
            "no buffers are filled with nothing",
            |it| {
                let file = it.file("a", b"hello");
                scattered(it, &file, Vec::new(), 0)
            },
            "0: ",
        ),
        (
            "reading into shared bytes is refused",
            |it| {
                let file = it.file("a", b"hello");
                let shared: Arc<[u8]> = Arc::from(*b"ab");
                scattered(it, &file, vec![vec![b'.'; 2].into(), shared.into()], 0)
            },
            "EINVAL: .., ab",
        ),
        (
            "buffers are written one after the other",
            |it| {
                let file = it.file("a", b"hello");
                let buffers =
                    vec![b"AB".to_vec().into(), Vec::new().into(), b"CDE".to_vec().into()];
                let gathered = WriteVectored { handle: (&file).into(), buffers, offset_bytes: 3 };
                told([it.tell(gathered), it.read(&file, 0, 8)])
            },
            "5, 8 helABCDE",
        ),
        (
            "a write to what is open for reading only is refused",
            |it| {
                it.file("a", b"hello");
                let handle = it.open("a", libc::O_RDONLY).into();
                let buffers = vec![b"AB".to_vec().into()];
                it.tell(WriteVectored { handle, buffers, offset_bytes: 0 })
            },
            "EBADF",
        ),
        (
            "an offset that no file has is refused",
            |it| {
                let file = it.file("a", b"hello");
                let buffers = vec![b"AB".to_vec().into()];
                let offset_bytes = u64::MAX - 1;
                it.tell(WriteVectored { handle: file.into(), buffers, offset_bytes })
            },
            "EINVAL",
        ),
    ];
    conform(&cases);
}

fn scattered(it: &mut World, file: &File, buffers: Vec<Buffer>, offset_bytes: u64) -> String {
    let ended = it.run(ReadVectored { handle: file.into(), buffers, offset_bytes });
    let told_result = ended.told();
    let Operation::ReadVectored(read) = ended.operation else { return "no read".into() };
    let parts = read.buffers.iter().map(|buffer| text(buffer.as_slice()));
    format!("{told_result}: {}", told(parts))
}

#[test]
fn syncs() {
    let cases: [Case; 3] = [
        (
            "each reach succeeds",
            |it| {
                let file = it.file("a", b"hello");
                told(reaches().map(|reach| it.tell(Sync { file: file.clone(), reach })))
            },
            "0, 0, 0",
        ),
        (
            "each reach succeeds on what is open for reading",
            |it| {
                it.file("a", b"hello");
                let file = it.open("a", libc::O_RDONLY);
                told(reaches().map(|reach| it.tell(Sync { file: file.clone(), reach })))
            },
            "0, 0, 0",
        ),
        (
            "a directory can be synced",
            |it| {
                let file = it.directory("d");
                told(reaches().map(|reach| it.tell(Sync { file: file.clone(), reach })))
            },
            "0, 0, 0",
        ),
    ];
    conform(&cases);
}

fn reaches() -> [SyncReach; 3] {
    [SyncReach::Data, SyncReach::File, SyncReach::FileSystem]
}

#[test]
fn room() {
    let cases: [Case; 14] = [
        (
            "reserving makes a file longer",
            |it| {
                let file = it.file("a", b"hello");
                told([allocate(it, &file, AllocateMode::Extend, 0, 4096), it.read(&file, 4, 2)])
            },
            r"0, 2 o\x00",
        ),
        (
            "reserving behind the end keeps the length where asked to",
            |it| {
                let file = it.file("a", b"hello");
                let told_result = allocate(it, &file, AllocateMode::KeepSize, 0, 4096);
                told([told_result, it.size("a").to_string()])
            },
            "0, 5",
        ),
        (
            "what is dug out reads as zeros",
            |it| {
                let file = it.file("a", b"hello");
                told([allocate(it, &file, AllocateMode::PunchHole, 1, 3), it.read(&file, 0, 9)])
            },
            r"0, 5 h\x00\x00\x00o....",
        ),
        (
            "a range becomes zeros and keeps its room",
            |it| {
                let file = it.file("a", b"hello");
                told([allocate(it, &file, AllocateMode::ZeroRange, 1, 3), it.read(&file, 0, 9)])
            },
            r"0, 5 h\x00\x00\x00o....",
        ),
        (
            "zeros behind the end keep the length",
            |it| {
                let file = it.file("a", b"hello");
                let told_result = allocate(it, &file, AllocateMode::ZeroRange, 4, 4096);
                told([told_result, it.size("a").to_string(), it.read(&file, 0, 9)])
            },
            r"0, 5, 5 hell\x00....",
        ),
        (
            "a file is no device",
            |it| {
                let file = it.file("a", b"hello");
                it.tell(DeviceStatus { file, size_bytes: 0, block_bytes: 0 })
            },
            "ENOTTY",
        ),
        (
            "reserving nothing is refused",
            |it| {
                let file = it.file("a", b"hello");
                allocate(it, &file, AllocateMode::Extend, 0, 0)
            },
            "EINVAL",
        ),
        (
            "reserving above the largest file is refused",
            |it| {
                let file = it.file("a", b"hello");
                allocate(it, &file, AllocateMode::Extend, u64::MAX, 1)
            },
            "EINVAL",
        ),
        (
            "reserving in what is open for reading only is refused",
            |it| {
                it.file("a", b"hello");
                let file = it.open("a", libc::O_RDONLY);
                allocate(it, &file, AllocateMode::Extend, 0, 4096)
            },
            "EBADF",
        ),
        (
            "truncating makes a file shorter",
            |it| {
                let file = it.file("a", b"hello");
                told([truncate(it, &file, 2), it.read(&file, 0, 5)])
            },
            "0, 2 he...",
        ),
        (
            "truncating makes a file longer by zeros",
            |it| {
                let file = it.file("a", b"h");
                told([truncate(it, &file, 3), it.read(&file, 0, 5)])
            },
            r"0, 3 h\x00\x00..",
        ),
        (
            "what was cut off does not come back",
            |it| {
                let file = it.file("a", b"hello");
                told([truncate(it, &file, 1), truncate(it, &file, 3), it.read(&file, 0, 5)])
            },
            r"0, 0, 3 h\x00\x00..",
        ),
        (
            "truncating above the largest file is refused",
            |it| {
                let file = it.file("a", b"hello");
                truncate(it, &file, 1 << 63)
            },
            "EINVAL",
        ),
        (
            "truncating what is open for reading only is refused",
            |it| {
                it.file("a", b"hello");
                let file = it.open("a", libc::O_RDONLY);
                truncate(it, &file, 1)
            },
            "EINVAL",
        ),
    ];
    conform(&cases);
}

fn allocate(
    it: &mut World,
    file: &File,
    mode: AllocateMode,
    offset_bytes: u64,
    length_bytes: u64,
) -> String {
    it.tell(Allocate { file: file.clone(), mode, offset_bytes, length_bytes })
}

fn truncate(it: &mut World, file: &File, length_bytes: u64) -> String {
    it.tell(Truncate { file: file.clone(), length_bytes })
}

#[test]
fn data_and_holes() {
    let cases: [Case; 6] = [
        (
            "data is found behind a hole",
            |it| {
                let file = it.file("a", b"");
                it.write(&file, b"data", MIB);
                told([seek(it, &file, SeekTarget::Data, 0), seek(it, &file, SeekTarget::Hole, 0)])
            },
            "0 at 1048576, 0 at 0",
        ),
        (
            "data is found where it is",
            |it| {
                let file = it.file("a", b"data");
                seek(it, &file, SeekTarget::Data, 3)
            },
            "0 at 3",
        ),
        (
            "the end counts as a hole",
            |it| {
                let file = it.file("a", b"data");
                seek(it, &file, SeekTarget::Hole, 1)
            },
            "0 at 4",
        ),
        (
            "there is nothing behind the end",
            |it| {
                let file = it.file("a", b"data");
                told([seek(it, &file, SeekTarget::Data, 4), seek(it, &file, SeekTarget::Hole, 4)])
            },
            "ENXIO at 4, ENXIO at 4",
        ),
        (
            "a file of one hole has no data",
            |it| {
                let file = it.file("a", b"");
                truncate(it, &file, MIB);
                seek(it, &file, SeekTarget::Data, 0)
            },
            "ENXIO at 0",
        ),
        (
            "an offset that no file has is refused",
            |it| {
                let file = it.file("a", b"data");
                seek(it, &file, SeekTarget::Data, 1 << 63).replace(" at 9223372036854775808", "")
            },
            "EINVAL",
        ),
    ];
    conform(&cases);
}

fn seek(it: &mut World, file: &File, target: SeekTarget, offset_bytes: u64) -> String {
    let ended = it.run(Seek { file: file.clone(), target, offset_bytes });
    let told_result = ended.told();
    let Operation::Seek(seek) = ended.operation else { return "no seek".into() };
    format!("{told_result} at {}", seek.offset_bytes)
}

#[test]
fn copies_inside_the_kernel() {
    let cases: [Case; 6] = [
        (
            "a clone is whole, or not supported",
            |it| {
                let (source, target) = (it.file("a", b"hello"), it.file("b", b""));
                let told_result = it.tell(CloneFile { source, target: target.clone() });
                match told_result.as_str() {
                    "EOPNOTSUPP" => "whole or not supported".into(),
                    "0" if it.read(&target, 0, 5) == "5 hello" => "whole or not supported".into(),
                    _ => told_result,
                }
            },
            "whole or not supported",
        ),
        (
            "a range is copied",
            |it| {
                let (source, target) = (it.file("a", b"hello"), it.file("b", b"....."));
                told([copy_range(it, (&source, 1), (&target, 2), 3), it.read(&target, 0, 9)])
            },
            "3, 5 ..ell....",
        ),
        (
            "a range is copied as far as the source goes",
            |it| {
                let (source, target) = (it.file("a", b"hello"), it.file("b", b""));
                told([copy_range(it, (&source, 3), (&target, 0), 99), it.read(&target, 0, 5)])
            },
            "2, 2 lo...",
        ),
        (
            "there is nothing behind the end",
            |it| {
                let (source, target) = (it.file("a", b"hello"), it.file("b", b""));
                copy_range(it, (&source, 5), (&target, 0), 99)
            },
            "0",
        ),
        (
            "a range onto itself is refused",
            |it| {
                let file = it.file("a", b"hello");
                copy_range(it, (&file, 0), (&file, 1), 3)
            },
            "EINVAL",
        ),
        (
            "a target that is open for reading only is refused",
            |it| {
                let source = it.file("a", b"hello");
                it.file("b", b"");
                let target = it.open("b", libc::O_RDONLY);
                copy_range(it, (&source, 0), (&target, 0), 5)
            },
            "EBADF",
        ),
    ];
    conform(&cases);
}

fn copy_range(
    it: &mut World,
    (source, source_offset_bytes): (&File, u64),
    (target, target_offset_bytes): (&File, u64),
    length: u32,
) -> String {
    let (source, target) = (source.clone(), target.clone());
    it.tell(CopyRange { source, target, source_offset_bytes, target_offset_bytes, length })
}

#[test]
fn advice_and_cache_and_locks() {
    let cases: [Case; 6] = [
        (
            "advice is taken",
            |it| {
                let file = it.file("a", b"hello");
                let advices = [Advice::Sequential, Advice::WillNeed, Advice::DontNeed];
                told(advices.map(|advice| {
                    let file = file.clone();
                    it.tell(Advise { file, advice, offset_bytes: 0, length_bytes: 0 })
                }))
            },
            "0, 0, 0",
        ),
        (
            "advice on a range that 32 bits can't tell is taken",
            |it| {
                let file = it.file("a", b"hello");
                let advice = Advice::Sequential;
                it.tell(Advise { file, advice, offset_bytes: 0, length_bytes: 1 << 33 })
            },
            "0",
        ),
        (
            "what was just written is in the page cache",
            |it| {
                let file = it.file("a", &[7; 8192]);
                it.tell(CacheStatus { file, offset_bytes: 0, length_bytes: 0 })
            },
            "2",
        ),
        (
            "direct I/O is switched on, or not supported, and off",
            |it| {
                let file = it.file("a", b"hello");
                let switched = it.tell(SetDirect { file: file.clone(), is_direct: true });
                let is_known = ["0", "EINVAL"].contains(&switched.as_str());
                let off = it.tell(SetDirect { file: file.clone(), is_direct: false });
                told([is_known.to_string(), off, it.read(&file, 1, 3)])
            },
            "true, 0, 3 ell",
        ),
        (
            "a lock is the first one's until it is closed",
            |it| {
                let first = it.file("a", b"");
                let second = it.open("a", libc::O_RDONLY);
                let locks = [first.clone(), second.clone(), first.clone()];
                let before = told(locks.map(|file| it.tell(Lock { file })));
                drop(first);
                told([before, it.lock_in_the_end(&second)])
            },
            "0, EAGAIN, 0, 0",
        ),
        (
            "a directory can be locked",
            |it| {
                let file = it.directory("d");
                it.tell(Lock { file })
            },
            "0",
        ),
    ];
    conform(&cases);
}
