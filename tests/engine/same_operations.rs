//! A copy asks a ring for the same as it asks threads for: the same names by the same directories,
//! with the same flags. So what `docs/access.md` says of system calls, which strace can see, holds
//! for the operations of a ring, which it can't.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use ucp_engine::buffer::{BufferPool, ReceivePool};
use ucp_engine::copy::{
    Backup, BackupStyle, Cancellation, Durability, FollowLinks, Keep, KeepMode, Listed, Make,
    Options, Overwrite, Preserve, Progress, Request, Specials, Stage, Summary, TargetRole, Update,
    Verification, copy_on,
};
use ucp_engine::operation::*;
use ucp_engine::processor::{Capabilities, Full, KernelProcessor, ThreadProcessor, Wake};
use ucp_engine::units::{Moment, WallTime};
use ucp_engine::{Errno, Error, Operation, OperationProcessor, Proactor};

use crate::require_io_uring;
use crate::support::scratch;

/// What was asked for, in order.
type Log = Vec<String>;

#[test]
fn a_ring_is_asked_for_the_same_as_threads() {
    require_io_uring!();
    let scratch = scratch::directory();
    let place = scratch.path().join("place");
    for (name, options) in cases() {
        for has_old in [false, true] {
            let logs = [false, true].map(|is_ring| {
                prepare(&place, has_old);
                copy_recorded(&place, &options, is_ring)
            });
            is_same(&format!("{name}, old {has_old}"), &logs);
        }
    }
}

#[test]
fn a_ring_goes_on_with_a_large_file_as_threads_do() {
    require_io_uring!();
    let scratch = scratch::directory();
    let place = scratch.path().join("place");
    let options = Options { stage: Stage::Never, ..options() };
    let logs = [false, true].map(|is_ring| {
        prepare(&place, false);
        let cancellation = Cancellation::default();
        let after_writes = Some((6, cancellation.clone()));
        let recorder = Recorder::over(false, after_writes);
        let summary = copy(recorder, &request(&place, &options), &cancellation);
        assert!(summary.was_cancelled, "{summary:?}");
        let log = copy_recorded(&place, &options, is_ring);
        let journal = log.iter().any(|line| line.starts_with("open") && line.contains(".journal"));
        assert!(journal, "nobody looked for a journal: {log:#?}");
        log
    });
    is_same("gone on with", &logs);
}

#[track_caller]
fn is_same(name: &str, [threads, ring]: &[Log; 2]) {
    assert!(threads.len() > 10, "{name}: {threads:#?}");
    let first = threads.iter().zip(ring).position(|(threads, ring)| threads != ring);
    let at = first.unwrap_or(threads.len().min(ring.len()));
    let rest = |log: &Log| log[at.saturating_sub(3)..log.len().min(at + 5)].to_vec();
    let is_same = first.is_none() && threads.len() == ring.len();
    assert!(is_same, "{name}: threads {:#?}, ring {:#?}", rest(threads), rest(ring));
}

fn options() -> Options {
    Options {
        large_bytes_min: 1 << 20,
        block_bytes: 1 << 16,
        resume_bytes_min: 1 << 20,
        journal_every_bytes: 1 << 16,
        ..Options::default()
    }
}

fn cases() -> Vec<(&'static str, Options)> {
    let archive = || Preserve {
        mode: KeepMode::Lists,
        ownership: true,
        links: true,
        attributes: Keep::Desired,
        ..Preserve::default()
    };
    let mut cases = vec![
        ("default", options()),
        ("archive", Options { preserve: archive(), ..options() }),
        ("shown as it comes", Options { stage: Stage::Never, ..options() }),
        ("in place", Options { in_place: true, ..options() }),
        ("durable", Options { durability: Durability::Full, preserve: archive(), ..options() }),
        ("links followed", Options { links: FollowLinks::Always, ..options() }),
        ("verified", Options { verification: verified(), ..options() }),
        ("one file system", Options { one_file_system: true, ..options() }),
        ("contents of special files", Options { specials: Specials::Read, ..options() }),
        ("with the directories above", Options { parents: true, ..options() }),
    ];
    let mut change = |name, change: &dyn Fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        cases.push((name, options));
    };
    change("hard links instead", &|it| it.existing.make = Make::HardLink);
    change("symbolic links instead", &|it| it.existing.make = Make::SymbolicLink);
    change("attributes only", &|it| it.existing.make = Make::Attributes);
    for style in [BackupStyle::Simple, BackupStyle::Numbered] {
        let backup = Backup { style, suffix: "~".into() };
        change("with backups", &|it| it.existing.backup = Some(backup.clone()));
    }
    change("what stands stays", &|it| it.existing.overwrite = Overwrite::Never);
    change("asked about", &|it| it.existing.overwrite = Overwrite::Ask);
    change("older ones only", &|it| it.existing.update = Update::Older);
    change("forced", &|it| it.existing.force = true);
    change("removed first", &|it| it.existing.remove = true);
    change("links to directories kept", &|it| it.existing.keep_directory_links = true);
    change("some names", &|it| it.selection.listed = Some(Arc::new(listed())));
    change("mirrored", &|it| it.selection.delete = true);
    change("moved", &|it| it.selection.remove_source_files = true);
    change("rehearsed", &|it| it.selection.dry_run = true);
    cases
}

fn verified() -> Verification {
    let verify = Some(ucp_engine::digest::Algorithm::Xxh3_128);
    Verification { verify, ..Verification::default() }
}

fn listed() -> Listed {
    let mut listed = Listed::default();
    ["b/c", "b/deeper/", "link"].iter().for_each(|name| listed.add(name.as_bytes()).unwrap());
    listed
}

/// Makes the source, and what stands at the target.
fn prepare(place: &Path, has_old: bool) {
    let _ = fs::remove_dir_all(place);
    let source = place.join("source");
    fs::create_dir_all(source.join("b/deeper")).unwrap();
    for (name, size) in [("a", 10), ("b/c", 70_000), ("b/deeper/d", (1 << 20) + 3), ("f", 0)] {
        fs::write(source.join(name), vec![7; size]).unwrap();
    }
    fs::hard_link(source.join("a"), source.join("b/again")).unwrap();
    symlink("a", source.join("link")).unwrap();
    mkfifo(&source.join("b/fifo"), Mode::S_IRWXU).unwrap();
    fs::set_permissions(source.join("b/deeper"), PermissionsExt::from_mode(0o550)).unwrap();
    let target = place.join("target");
    if has_old {
        fs::create_dir_all(target.join("b")).unwrap();
        for name in ["a", "b/c", "link", "extra"] {
            fs::write(target.join(name), "old").unwrap();
        }
        fs::create_dir(target.join("linked")).unwrap();
        symlink("../linked", target.join("b/deeper")).unwrap();
    }
}

fn request(place: &Path, options: &Options) -> Request {
    let mut request = Request::new([place.join("source")], place.join("target"));
    request.target_role = TargetRole::Name;
    request.options = options.clone();
    if options.parents {
        fs::create_dir_all(place.join("target")).unwrap();
        request.sources = ["source/b/c", "source/b/deeper"].map(|name| place.join(name)).to_vec();
        request.target_role = TargetRole::Directory;
    }
    request
}

/// Copies, and returns what was asked for.
fn copy_recorded(place: &Path, options: &Options, is_ring: bool) -> Log {
    let recorder = Recorder::over(is_ring, None);
    let log = Rc::clone(&recorder.log);
    let fifo = place.join("source/b/fifo");
    let writer = (options.specials == Specials::Read)
        .then(|| thread::spawn(move || fs::write(fifo, "through a pipe").unwrap()));
    let request = request(place, options);
    let summary = copy(recorder, &request, &Cancellation::default());
    writer.into_iter().for_each(|writer| writer.join().unwrap());
    assert!(summary.files + summary.links + summary.skipped + summary.failed > 0, "{summary:?}");
    log.take()
}

fn copy(recorder: Recorder, request: &Request, cancellation: &Cancellation) -> Summary {
    let proactor = Proactor::new(Box::new(recorder));
    copy_on(&proactor, request, &(), &Progress::default(), cancellation).unwrap()
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
///
/// All that is in flight ends before anybody hears of it, in the order in which it began. So what a copy
/// does next does not depend on which engine is faster, and of two hard links the same comes first.
struct Recorder {
    processor: Box<dyn OperationProcessor>,
    log: Rc<RefCell<Log>>,
    /// Which one was begun as the how manieth.
    begun: HashMap<OperationId, usize>,
    /// The same of chains: each member has its own event, and the token of all.
    begun_chains: HashMap<Token, usize>,
    /// After so many writes the copy is cancelled.
    cancel_after: Option<(usize, Cancellation)>,
}

impl Recorder {
    fn over(is_ring: bool, cancel_after: Option<(usize, Cancellation)>) -> Self {
        let processor: Box<dyn OperationProcessor> = match is_ring {
            true => Box::new(KernelProcessor::new(256, 2).unwrap()),
            false => Box::new(ThreadProcessor::new(2, 256)),
        };
        let (begun, begun_chains) = (HashMap::new(), HashMap::new());
        Self { processor, log: Rc::default(), begun, begun_chains, cancel_after }
    }

    /// Writes down what is asked for; `accept` is given it.
    fn record(
        &mut self,
        operation: Operation,
        accept: impl FnOnce(&mut dyn OperationProcessor, Operation) -> Accepted,
    ) -> Accepted {
        self.count_write(&operation);
        let asked = asked(&operation);
        let id = accept(&mut *self.processor, operation)?;
        self.begun.insert(id, self.log.borrow().len());
        self.log.borrow_mut().push(asked);
        Ok(id)
    }

    fn count_write(&mut self, operation: &Operation) {
        if let (Operation::Write(_), Some((left, cancellation))) =
            (operation, &mut self.cancel_after)
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                cancellation.cancel();
            }
        }
    }
}

type Accepted = Result<OperationId, Full<Operation>>;

impl OperationProcessor for Recorder {
    fn accept(&mut self, operation: Operation, token: Token) -> Accepted {
        self.record(operation, |processor, operation| processor.accept(operation, token))
    }

    fn accept_beside(&mut self, operation: Operation, token: Token) -> Accepted {
        self.record(operation, |processor, operation| processor.accept_beside(operation, token))
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        panic!("a copy of these options makes no chain for the ring: {chain:?}, {token:?}")
    }

    fn accept_chain_beside(
        &mut self,
        chain: Chain,
        token: Token,
    ) -> Result<OperationId, Full<Chain>> {
        let members: Vec<String> = chain.members().map(asked).collect();
        chain.members().for_each(|operation| self.count_write(operation));
        let id = self.processor.accept_chain_beside(chain, token)?;
        self.begun_chains.insert(token, self.log.borrow().len());
        self.log.borrow_mut().extend(members);
        Ok(id)
    }

    fn cancel(&mut self, id: OperationId) {
        self.processor.cancel(id);
    }

    fn submit_and_wait(
        &mut self,
        _at_least: u32,
        deadline: Option<Moment>,
        events: &mut CompletionEventQueue,
    ) -> Result<(), Error> {
        let mut ended = CompletionEventQueue::default();
        let is_over = |now| deadline.is_some_and(|deadline| now >= deadline);
        while self.processor.in_flight() > 0 && !is_over(self.processor.now()) {
            let all = self.processor.in_flight();
            self.processor.submit_and_wait(all, deadline, &mut ended)?;
        }
        let mut ended: Vec<_> = std::iter::from_fn(|| ended.pop()).collect();
        ended.sort_by_key(|event| match self.begun.get(&event.id) {
            Some(number) => *number,
            None => self.begun_chains[&event.token],
        });
        ended.into_iter().for_each(|event| events.push(event));
        Ok(())
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
