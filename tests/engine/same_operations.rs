//! A copy asks a ring for the same as it asks threads for: the same names by the same directories,
//! with the same flags. So what `docs/access.md` says of system calls, which strace can see, holds
//! for the operations of a ring, which it can't.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ucp_engine::buffer::{BufferPool, ReceivePool};
use ucp_engine::copy::{
    Cancellation, Durability, FollowLinks, Keep, KeepMode, Options, Preserve, Progress, Request,
    Stage, TargetRole, Verification, copy_on,
};
use ucp_engine::operation::*;
use ucp_engine::processor::{Capabilities, Full, KernelProcessor, ThreadProcessor, Wake};
use ucp_engine::units::{Moment, WallTime};
use ucp_engine::{Errno, Error, Operation, OperationProcessor, Proactor};

use crate::require_io_uring;
use crate::support::scratch;

/// What was asked for. How often depends on which of two hard links comes first.
type Log = BTreeSet<String>;

#[test]
fn a_ring_is_asked_for_the_same_as_threads() {
    require_io_uring!();
    let place = scratch::directory();
    make_source(&place.path().join("source"));
    for (name, options) in cases() {
        for has_old in [false, true] {
            let logs = [false, true].map(|is_ring| {
                prepare(place.path(), has_old);
                copy(place.path(), &options, is_ring)
            });
            assert!(logs[0].len() > 10, "{name}: {:#?}", logs[0]);
            let [threads, ring] = &logs;
            let (threads, ring): (Vec<_>, Vec<_>) =
                (threads.difference(ring).collect(), ring.difference(threads).collect());
            let is_same = threads.is_empty() && ring.is_empty();
            assert!(is_same, "{name}, old {has_old}: threads {threads:#?}, ring {ring:#?}");
        }
    }
}

fn cases() -> Vec<(&'static str, Options)> {
    let options =
        || Options { large_bytes_min: 1 << 20, block_bytes: 1 << 16, ..Options::default() };
    let archive = || Preserve {
        mode: KeepMode::Lists,
        ownership: true,
        links: true,
        attributes: Keep::Desired,
        ..Preserve::default()
    };
    vec![
        ("default", options()),
        ("archive", Options { preserve: archive(), ..options() }),
        ("shown as it comes", Options { stage: Stage::Never, ..options() }),
        ("in place", Options { in_place: true, ..options() }),
        ("durable", Options { durability: Durability::Full, preserve: archive(), ..options() }),
        ("links followed", Options { links: FollowLinks::Always, ..options() }),
        ("verified", Options { verification: verified(), ..options() }),
    ]
}

fn verified() -> Verification {
    let verify = Some(ucp_engine::digest::Algorithm::Xxh3_128);
    Verification { verify, ..Verification::default() }
}

fn make_source(root: &Path) {
    fs::create_dir_all(root.join("b/deeper")).unwrap();
    for (name, size) in [("a", 10), ("b/c", 70_000), ("b/deeper/d", (1 << 20) + 3), ("f", 0)] {
        fs::write(root.join(name), vec![7; size]).unwrap();
    }
    fs::hard_link(root.join("a"), root.join("b/again")).unwrap();
    symlink("a", root.join("link")).unwrap();
    nix::unistd::mkfifo(&root.join("b/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::set_permissions(root.join("b/deeper"), PermissionsExt::from_mode(0o550)).unwrap();
}

fn prepare(place: &Path, has_old: bool) {
    let target = place.join("target");
    let _ = fs::remove_dir_all(&target);
    if has_old {
        fs::create_dir_all(target.join("b")).unwrap();
        for name in ["a", "b/c", "link"] {
            fs::write(target.join(name), "old").unwrap();
        }
    }
}

fn copy(place: &Path, options: &Options, is_ring: bool) -> Log {
    let processor: Box<dyn OperationProcessor> = match is_ring {
        true => Box::new(KernelProcessor::new(256, 2).unwrap()),
        false => Box::new(ThreadProcessor::new(2, 256)),
    };
    let log = Rc::new(RefCell::new(Log::new()));
    let proactor = Proactor::new(Box::new(Recorder { processor, log: Rc::clone(&log) }));
    let mut request = Request::new([place.join("source")], place.join("target"));
    request.target_role = TargetRole::Name;
    request.options = options.clone();
    let summary =
        copy_on(&proactor, &request, &(), &Progress::default(), &Cancellation::default()).unwrap();
    assert_eq!(summary.failed, 0, "{summary:?}");
    drop(proactor);
    log.take()
}

/// What an operation asks for, as far as it says which file is meant, and how.
fn asked(operation: &Operation) -> String {
    let what = match operation {
        Operation::Open(open) => {
            let Open { flags, mode, resolve, .. } = open;
            format!("{} {flags:#o} {mode:#o} {resolve:?}", at(&open.place))
        }
        Operation::Rename(Rename { source, target, replace }) => {
            format!("{} {} {replace}", at(source), at(target))
        }
        Operation::Link(link) => format!("{} {}", at(&link.source), at(&link.target)),
        Operation::Unlink(unlink) => format!("{} {}", at(&unlink.place), unlink.is_directory),
        Operation::MakeDirectory(made) => format!("{} {:#o}", at(&made.place), made.mode),
        Operation::MakeNode(made) => format!("{} {:#o}", at(&made.place), made.mode),
        Operation::SymbolicLink(link) => format!("{} {:?}", at(&link.place), link.content),
        Operation::ReadLink(link) => at(&link.place),
        Operation::Statx(statx) => format!("{} {}", subject(&statx.subject), statx.follow),
        Operation::ChangeOwner(ChangeOwner { subject: of, owner, group }) => {
            format!("{} {owner:?} {group:?}", subject(of))
        }
        Operation::ChangeTimes(change) => subject(&change.subject),
        Operation::ChangeMode(change) => format!("{:#o}", change.mode),
        Operation::GetAttribute(attribute) => format!("{:?}", attribute.name),
        Operation::SetAttribute(attribute) => format!("{:?}", attribute.name),
        Operation::RemoveAttribute(attribute) => format!("{:?}", attribute.name),
        Operation::Sync(sync) => format!("{:?}", sync.reach),
        _ => String::new(),
    };
    format!("{} {what}", operation.verb())
}

fn at(place: &Place) -> String {
    let directory = if place.directory.is_some() { "below" } else { "path" };
    format!("{directory} {:?}", place.name)
}

fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Place(place) => at(place),
        Subject::File(_) => "descriptor".into(),
    }
}

/// Writes down what it is asked for, and has another processor do it.
struct Recorder {
    processor: Box<dyn OperationProcessor>,
    log: Rc<RefCell<Log>>,
}

impl Recorder {
    fn record(&self, operation: &Operation) {
        self.log.borrow_mut().insert(asked(operation));
    }
}

impl OperationProcessor for Recorder {
    fn accept(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        self.record(&operation);
        self.processor.accept(operation, token)
    }

    fn accept_beside(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        self.record(&operation);
        self.processor.accept_beside(operation, token)
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        panic!("a copy of these options makes no chain for the ring: {chain:?}, {token:?}")
    }

    fn accept_chain_beside(
        &mut self,
        chain: Chain,
        token: Token,
    ) -> Result<OperationId, Full<Chain>> {
        chain.members().for_each(|operation| self.record(operation));
        self.processor.accept_chain_beside(chain, token)
    }

    fn cancel(&mut self, id: OperationId) {
        self.processor.cancel(id);
    }

    fn submit_and_wait(
        &mut self,
        at_least: u32,
        deadline: Option<Moment>,
        events: &mut CompletionEventQueue,
    ) -> Result<(), Error> {
        self.processor.submit_and_wait(at_least, deadline, events)
    }

    fn in_flight(&self) -> u32 {
        self.processor.in_flight()
    }

    fn now(&self) -> Moment {
        self.processor.now()
    }

    fn wall_clock(&self) -> WallTime {
        self.processor.wall_clock()
    }

    fn capabilities(&self) -> &Capabilities {
        self.processor.capabilities()
    }

    fn buffer_pool(&mut self, count: u32, block_bytes: u32) -> Result<BufferPool, Errno> {
        self.processor.buffer_pool(count, block_bytes)
    }

    fn receive_pool(&mut self, count: u32, block_bytes: u32) -> Result<ReceivePool, Errno> {
        self.processor.receive_pool(count, block_bytes)
    }

    fn register_file(&mut self, file: Option<&File>) -> Result<RegisteredFile, Errno> {
        self.processor.register_file(file)
    }

    fn release_files(&mut self) {
        self.processor.release_files();
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.processor.waker()
    }
}
