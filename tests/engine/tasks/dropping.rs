//! Losing interest in an operation, whichever: nothing that it owns or brought is lost.
//!
//! The examples are made from the closed set of operations: one of a new kind must be added here, or
//! these tests fail.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use nix::libc;
use ucp_engine::Operation;
use ucp_engine::buffer::Buffer;
use ucp_engine::operation::*;
use ucp_engine::processor::OperationKind;
use ucp_engine::units::WallTime;

use crate::setting::{BLOCK_BYTES, FOR_EVER, Setting, poll_once, settings};
use crate::support::machine;

/// The kinds that need a peer: `teardown.rs` and `sockets` have their tests.
const OF_SOCKETS: [OperationKind; 17] = {
    use OperationKind as K;

    [
        K::MakeSocket,
        K::Bind,
        K::Listen,
        K::Accept,
        K::AcceptMany,
        K::Connect,
        K::Shutdown,
        K::SocketAddress,
        K::Receive,
        K::ReceiveMany,
        K::ReceiveMessage,
        K::Send,
        K::SendMessage,
        K::SendZeroCopy,
        K::SetSocketOption,
        K::GetSocketOption,
        K::Poll,
    ]
};

fn kinds() -> impl Iterator<Item = OperationKind> {
    OperationKind::ALL.iter().copied().filter(|kind| !OF_SOCKETS.contains(kind))
}

/// What a task may wait for.
enum Example {
    One(Operation),
    Chain(Chain),
}

/// An operation of a kind that owns whatever operations of this kind can own, on a setting with a
/// file.
fn example(kind: OperationKind, setting: &Setting, file: &File) -> Example {
    use OperationKind as K;

    let buffer = || Buffer::from(setting.lease());
    let (file, other) = (file.clone(), || setting.open("other", libc::O_RDWR));
    let handle = Handle::from(&file);
    let (offset_bytes, start, length) = (0, 0, BLOCK_BYTES);
    let (new, link) = (setting.place("new"), setting.place("link"));
    let name = Name::new("user.test").unwrap();
    let subject = Subject::File(file.clone());
    let one = match kind {
        K::Nop => Operation::Nop,
        K::Timeout => Timeout { duration: FOR_EVER }.into(),
        K::LinkTimeout => {
            let read = Read { handle, buffer: buffer(), offset_bytes, start, length };
            return Example::Chain(Chain::with_timeout(read.into(), FOR_EVER));
        }
        K::Read => Read { handle, buffer: buffer(), offset_bytes, start, length }.into(),
        K::Write => Write { handle, buffer: buffer(), offset_bytes, start, length }.into(),
        K::ReadVectored => {
            ReadVectored { handle, buffers: vec![buffer(), buffer()], offset_bytes }.into()
        }
        K::WriteVectored => {
            WriteVectored { handle, buffers: vec![buffer(), buffer()], offset_bytes }.into()
        }
        K::Sync => Sync { file, reach: SyncReach::File }.into(),
        K::Allocate => {
            let mode = AllocateMode::KeepSize;
            Allocate { file, mode, offset_bytes, length_bytes: 4096 }.into()
        }
        K::Truncate => Truncate { file, length_bytes: 100 }.into(),
        K::Seek => Seek { file, target: SeekTarget::Data, offset_bytes }.into(),
        K::CloneFile => CloneFile { source: other(), target: file }.into(),
        K::CopyRange => {
            let (source_offset_bytes, target_offset_bytes) = (0, 0);
            let (source, target) = (other(), file);
            CopyRange { source, target, source_offset_bytes, target_offset_bytes, length }.into()
        }
        K::Advise => {
            Advise { file, advice: Advice::WillNeed, offset_bytes, length_bytes: 4096 }.into()
        }
        K::CacheStatus => CacheStatus { file, offset_bytes, length_bytes: 4096 }.into(),
        K::SetDirect => SetDirect { file, is_direct: true }.into(),
        K::Lock => Lock { file }.into(),
        K::Open => Open::create_new(new, 0o600).into(),
        K::Close => Close::file(other()).into(),
        K::Flush => Flush { file }.into(),
        K::Rename => Rename { source: setting.place("other"), target: new, replace: false }.into(),
        K::Unlink => Unlink { place: setting.place("other"), is_directory: false }.into(),
        K::MakeDirectory => MakeDirectory { place: new, mode: 0o700 }.into(),
        K::SymbolicLink => {
            SymbolicLink { place: new, content: Name::new("elsewhere").unwrap() }.into()
        }
        K::Link => Link { source: setting.place("other"), target: new, follow: false }.into(),
        K::ReadLink => ReadLink { place: link, buffer: buffer() }.into(),
        K::MakeNode => MakeNode { place: new, mode: libc::S_IFIFO | 0o600, device: 0 }.into(),
        K::ListDirectory => {
            let directory = setting.open(".", libc::O_RDONLY | libc::O_DIRECTORY);
            ListDirectory { directory, buffer: buffer() }.into()
        }
        K::Statx => Statx { subject, follow: false, status: None }.into(),
        K::FileSystemStatus => FileSystemStatus { file, magic: 0, available_bytes: 0 }.into(),
        K::DeviceStatus => DeviceStatus { file, size_bytes: 0, block_bytes: 0 }.into(),
        K::ChangeOwner => ChangeOwner { subject, owner: None, group: None }.into(),
        K::ChangeMode => ChangeMode { file, mode: 0o600 }.into(),
        K::ChangeTimes => {
            let time = WallTime { seconds: 1, nanoseconds: 0 };
            let times = Box::new(FileTimes { accessed: time, modified: time });
            ChangeTimes { subject, times }.into()
        }
        K::GetAttribute => GetAttribute { file, name, buffer: buffer() }.into(),
        K::SetAttribute => SetAttribute { file, name, value: buffer() }.into(),
        K::RemoveAttribute => RemoveAttribute { file, name }.into(),
        K::ListAttributes => ListAttributes { file, buffer: buffer() }.into(),
        kind => panic!("there is no example of {kind:?}: what becomes of one that is dropped?"),
    };
    assert_eq!(OperationKind::of(&one), kind, "an example of its own kind");
    Example::One(one)
}

impl Setting {
    fn open(&self, name: &str, flags: i32) -> File {
        let open = Open::new(self.place(name), flags);
        self.proactor.block_on(self.proactor.initiator().open(open)).unwrap()
    }
}

type Waiting = Pin<Box<dyn Future<Output = ()>>>;

/// A future that performs an example, begun.
fn begin(kind: OperationKind, setting: &Setting) -> (Waiting, bool) {
    let file = setting.file("file");
    drop(setting.file("other"));
    let tasks = setting.proactor.initiator();
    let content = Name::new("file").unwrap();
    let link = SymbolicLink { place: setting.place("link"), content };
    assert_eq!(setting.proactor.block_on(tasks.perform(link.into())).0, Ok(0));
    let mut future: Waiting = match example(kind, setting, &file) {
        Example::One(operation) => Box::pin(async move { drop(tasks.perform(operation).await) }),
        Example::Chain(chain) => Box::pin(async move { drop(tasks.perform_chain(chain).await) }),
    };
    let is_done = poll_once(future.as_mut()).is_ready();
    (future, is_done)
}

/// How interest is lost, by name.
type Way = (&'static str, fn(&Setting, Waiting));

const WAYS: [Way; 3] = [
    ("dropped at once", |_, future| drop(future)),
    ("dropped when it was submitted", |setting, future| {
        setting.proactor.turn(Duration::ZERO).unwrap();
        drop(future);
    }),
    ("dropped when it has ended", |setting, future| {
        for _ in 0..50 {
            setting.proactor.turn(Duration::from_micros(100)).unwrap();
        }
        drop(future);
    }),
];

#[test]
fn whatever_is_dropped_ends_and_loses_nothing() {
    let _hold = machine::shared();
    for kind in kinds() {
        for (way, lose) in WAYS {
            for setting in settings(16) {
                let what = format!("{}: {kind:?}, {way}", setting.name);
                let (future, is_done) = begin(kind, &setting);
                assert!(!is_done || setting.name == "in turn", "{what}");
                lose(&setting, future);
                setting.drain();
                setting.assert_at_rest(&what);
                let stats = setting.proactor.stats();
                assert_eq!(stats.operations_started, stats.operations_ended, "{what}");
                if kind == OperationKind::Open {
                    setting.content("new");
                }
            }
        }
    }
}

#[test]
fn whatever_is_in_flight_when_the_proactor_goes_ends_and_loses_nothing() {
    let _hold = machine::shared();
    for kind in kinds() {
        for setting in settings(16) {
            let what = format!("{}: {kind:?}", setting.name);
            let (future, _) = begin(kind, &setting);
            let Setting { proactor, pool, directory, world, _scratch, .. } = setting;
            drop((future, proactor));
            assert_eq!(pool.available(), crate::setting::BLOCKS as usize, "{what}: a lease");
            assert_eq!(crate::setting::open_files(world.as_ref(), &directory), 0, "{what}: a file");
        }
    }
}

#[test]
fn whatever_is_forgotten_ends_and_keeps_the_others_from_nothing() {
    let _hold = machine::shared();
    for kind in kinds() {
        for setting in settings(16) {
            let what = format!("{}: {kind:?}", setting.name);
            let (future, is_done) = begin(kind, &setting);
            if !is_done {
                std::mem::forget(future);
            }
            let tasks = setting.proactor.initiator();
            // The only one that takes for ever.
            if !matches!(kind, OperationKind::Timeout) {
                setting.drain();
                assert_eq!(setting.proactor.in_flight(), 0, "{what}");
            }
            let nop = setting.proactor.block_on(tasks.perform(Operation::Nop));
            assert_eq!(nop.0, Ok(0), "{what}");
        }
    }
}

#[test]
fn whatever_is_cancelled_tells_what_came_of_it_and_comes_back() {
    let _hold = machine::shared();
    for kind in kinds().filter(|kind| *kind != OperationKind::LinkTimeout) {
        for setting in settings(16) {
            let what = format!("{}: {kind:?}", setting.name);
            let file = setting.file("file");
            drop(setting.file("other"));
            let Example::One(operation) = example(kind, &setting, &file) else {
                panic!("{what}: it is one operation")
            };
            let mut perform = setting.proactor.initiator().perform(operation);
            let polled = poll_once(Pin::new(&mut perform));
            let (result, operation) = match polled {
                std::task::Poll::Ready(done) => done,
                std::task::Poll::Pending => {
                    perform.cancel();
                    setting.proactor.block_on(perform)
                }
            };
            assert_eq!(OperationKind::of(&operation), kind, "{what}");
            if kind == OperationKind::Open {
                let Operation::Open(open) = &operation else { panic!("{what}") };
                assert_eq!(open.file.is_some(), result.is_ok(), "{what}: a success brings a file");
            }
            drop((operation, file));
            setting.drain();
            setting.assert_at_rest(&what);
        }
    }
}
