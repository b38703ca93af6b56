//! Where a case runs: a processor, an empty directory, and helpers that run operations to their end.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::libc;
use tempfile::TempDir;
use ucp_engine::buffer::Buffer;
use ucp_engine::operation::*;
use ucp_engine::processor::{
    FaultPlan, KernelProcessor, SimulatedProcessor, SimulatedWorld, ThreadProcessor,
};
use ucp_engine::{CompletionEvent, Operation, OperationError, OperationProcessor};

use crate::support::{scratch, skip};

/// A kind of processor that has to conform.
pub(crate) struct Environment {
    pub(crate) name: &'static str,
    start: fn() -> Start,
    way: Way,
}

/// How operations are given to a processor.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Way {
    Accepted,
    /// Performed in the caller's turn where that can be.
    Inline,
    /// Pairs of a read and a write are performed by a helper where that can be.
    Beside,
}

/// A processor, an empty directory that it works in, and what keeps that directory.
struct Start {
    processor: Box<dyn OperationProcessor>,
    root: File,
    scratch: Option<TempDir>,
}

pub(crate) struct World {
    pub(crate) processor: Box<dyn OperationProcessor>,
    pub(crate) root: File,
    way: Way,
    scratch: Option<TempDir>,
    /// Events of other operations that came while one was waited for.
    kept: Vec<CompletionEvent>,
}

/// What came of an operation, and the operation.
pub(crate) struct Ended {
    pub(crate) result: Result<u32, OperationError>,
    pub(crate) operation: Operation,
}

/// Every processor that has to conform. One more is one more row here.
pub(crate) fn processors() -> Vec<Environment> {
    let mut environments = vec![
        Environment::new("4 threads", || on_disk(four_threads()), Way::Accepted),
        Environment::new("4 threads, beside", || on_disk(four_threads()), Way::Beside),
        Environment::new("no threads", || on_disk(no_threads()), Way::Accepted),
        Environment::new("in turn", || on_disk(no_threads()), Way::Inline),
        Environment::new("simulated", in_memory, Way::Accepted),
    ];
    match KernelProcessor::new(64, 2) {
        Ok(_) => environments.extend([
            Environment::new("io_uring", || on_disk(ring()), Way::Accepted),
            Environment::new("io_uring, beside", || on_disk(ring()), Way::Beside),
        ]),
        Err(errno) => skip::skip(&format!("there is no io_uring: {errno}")),
    }
    environments
}

/// The same for what is done with sockets, and a ring of a kernel without opcodes for them.
pub(crate) fn processors_of_sockets() -> Vec<Environment> {
    let mut environments = processors();
    if environments.iter().any(|it| it.name == "io_uring") {
        let start = || {
            let mut ring = KernelProcessor::new(64, 2).unwrap();
            ring.forget_socket_opcodes();
            on_disk(Box::new(ring))
        };
        let name = "io_uring that polls sockets";
        environments.push(Environment::new(name, start, Way::Accepted));
    }
    environments
}

impl Environment {
    fn new(name: &'static str, start: fn() -> Start, way: Way) -> Self {
        Self { name, start, way }
    }
}

fn ring() -> Box<dyn OperationProcessor> {
    Box::new(KernelProcessor::new(64, 2).unwrap())
}

fn four_threads() -> Box<dyn OperationProcessor> {
    Box::new(ThreadProcessor::new(4, 64))
}

fn no_threads() -> Box<dyn OperationProcessor> {
    Box::new(ThreadProcessor::new(0, 64))
}

fn in_memory() -> Start {
    let world = SimulatedWorld::new();
    world.add_directory("/scratch");
    let processor = Box::new(SimulatedProcessor::new(1, 64, &world, FaultPlan::none()));
    let mut processor: Box<dyn OperationProcessor> = processor;
    let open = Open::read(Place::path("/scratch").unwrap());
    processor.accept(open.into(), Token::default()).expect("there is room");
    let mut events = CompletionEventQueue::default();
    processor.submit_and_wait(1, None, &mut events).unwrap();
    let opened = Ended::from(events.pop().expect("an event was waited for")).opened();
    Start { processor, root: opened.expect("it was just made"), scratch: None }
}

fn on_disk(processor: Box<dyn OperationProcessor>) -> Start {
    let scratch = scratch::directory();
    let root = std::fs::File::open(scratch.path()).unwrap();
    Start { processor, root: File::from_fd(root.into()), scratch: Some(scratch) }
}

impl World {
    pub(crate) fn new(environment: &Environment) -> Self {
        let Start { processor, root, scratch } = (environment.start)();
        Self { processor, root, way: environment.way, scratch, kept: Vec::new() }
    }

    /// Runs an operation to its end.
    pub(crate) fn run(&mut self, operation: impl Into<Operation>) -> Ended {
        let mut operation = operation.into();
        if self.way == Way::Inline
            && let Some(result) = self.processor.perform_inline(&mut operation)
        {
            return Ended { result, operation };
        }
        let id = self.processor.accept(operation, Token::default()).expect("there is room");
        loop {
            let events = self.wait_for_some();
            self.kept.extend(events);
            let is_last = |it: &CompletionEvent| it.id == id && matches!(it.end, End::Last(_));
            if let Some(place) = self.kept.iter().position(is_last) {
                return Ended::from(self.kept.remove(place));
            }
        }
    }

    /// Runs an operation to its end, and tells what came of it.
    pub(crate) fn tell(&mut self, operation: impl Into<Operation>) -> String {
        self.run(operation).told()
    }

    /// Locks a file that nobody here holds locked: a child that another test forks holds what was
    /// open until it executes a program.
    pub(crate) fn lock_in_the_end(&mut self, file: &File) -> String {
        for _ in 0..1000 {
            let told = self.tell(Lock { file: file.clone() });
            if told != "EAGAIN" {
                return told;
            }
            thread::sleep(Duration::from_millis(1));
        }
        "EAGAIN".into()
    }

    /// Runs a chain to its end.
    pub(crate) fn run_chain(&mut self, chain: Chain) -> Vec<Ended> {
        let length = chain.length();
        let accepted = match self.way {
            Way::Beside => self.processor.accept_chain_beside(chain, Token::default()),
            _ => self.processor.accept_chain(chain, Token::default()),
        };
        accepted.expect("there is room");
        self.wait(length).into_iter().map(Ended::from).collect()
    }

    /// Waits for this many events.
    pub(crate) fn wait(&mut self, count: usize) -> Vec<CompletionEvent> {
        let mut events = std::mem::take(&mut self.kept);
        while events.len() < count {
            events.extend(self.wait_for_some());
        }
        assert_eq!(events.len(), count, "an event too many");
        events
    }

    fn wait_for_some(&mut self) -> Vec<CompletionEvent> {
        let mut queue = CompletionEventQueue::default();
        assert!(self.processor.in_flight() > 0, "nothing is left to wait for");
        self.processor.submit_and_wait(1, None, &mut queue).unwrap();
        std::iter::from_fn(|| queue.pop()).collect()
    }

    /// The whole path of a name in the directory of the case.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let root = self.scratch.as_ref().map_or(Path::new("/scratch"), |it| it.path());
        root.join(name)
    }

    /// A name in the directory of the case.
    pub(crate) fn place(&self, name: &str) -> Place {
        Place::at(&self.root, &Name::new(name).unwrap())
    }

    /// Opens something that is there.
    pub(crate) fn open(&mut self, name: &str, flags: i32) -> File {
        let ended = self.run(Operation::Open(Open::new(self.place(name), flags)));
        ended.opened().unwrap_or_else(|| panic!("{name} can't be opened"))
    }

    /// Makes a file with these bytes in it, open for reading and writing.
    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) -> File {
        let ended = self.run(Operation::Open(Open::create_new(self.place(name), 0o644)));
        let file = ended.opened().expect("the name is free");
        let written = self.write(&file, bytes, 0);
        assert_eq!(written, bytes.len().to_string());
        file
    }

    pub(crate) fn directory(&mut self, name: &str) -> File {
        let made = self.tell(MakeDirectory { place: self.place(name), mode: 0o755 });
        assert_eq!(made, "0", "{name}");
        self.open(name, libc::O_RDONLY | libc::O_DIRECTORY)
    }

    pub(crate) fn symbolic_link(&mut self, name: &str, content: &str) {
        let (place, content) = (self.place(name), Name::new(content).unwrap());
        assert_eq!(self.tell(SymbolicLink { place, content }), "0", "{name}");
    }

    pub(crate) fn write(&mut self, file: &File, bytes: &[u8], offset_bytes: u64) -> String {
        self.tell(write(file, bytes.to_vec(), offset_bytes))
    }

    /// Reads up to `length` bytes, and tells how many and which.
    pub(crate) fn read(&mut self, file: &File, offset_bytes: u64, length: usize) -> String {
        let ended = self.run(read(file, vec![b'.'; length], offset_bytes));
        let told = ended.told();
        match ended.operation {
            Operation::Read(read) if ended.result.is_ok() => {
                format!("{told} {}", text(read.buffer.as_slice()))
            }
            _ => told,
        }
    }

    /// The status of something in the directory of the case, itself.
    pub(crate) fn status(&mut self, name: &str) -> Option<FileStatus> {
        let subject = Subject::Place(self.place(name));
        self.run(Statx { subject, follow: false, status: None }).status()
    }

    pub(crate) fn size(&mut self, name: &str) -> u64 {
        self.status(name).expect("it is there").size_bytes
    }
}

impl Ended {
    /// The number, or the name of the error and what led to it.
    pub(crate) fn told(&self) -> String {
        match self.result {
            Ok(number) => number.to_string(),
            Err(OperationError { errno, cause: Cause::Failed }) => format!("{errno:?}"),
            Err(OperationError { errno, cause }) => format!("{errno:?} {cause:?}"),
        }
    }

    pub(crate) fn opened(self) -> Option<File> {
        match self.operation {
            Operation::Open(open) => open.file,
            _ => None,
        }
    }

    pub(crate) fn status(self) -> Option<FileStatus> {
        match self.operation {
            Operation::Statx(statx) => statx.status.map(|status| *status),
            _ => None,
        }
    }

    /// The bytes of the buffer that came back.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.operation {
            Operation::Read(read) => read.buffer.as_slice(),
            Operation::Write(write) => write.buffer.as_slice(),
            Operation::ReadLink(read) => read.buffer.as_slice(),
            Operation::GetAttribute(get) => get.buffer.as_slice(),
            Operation::ListAttributes(list) => list.buffer.as_slice(),
            Operation::ListDirectory(list) => list.buffer.as_slice(),
            Operation::Receive(receive) => receive.buffer.as_slice(),
            Operation::Send(send) => send.buffer.as_slice(),
            other => panic!("{other:?} has no buffer"),
        }
    }
}

impl From<CompletionEvent> for Ended {
    fn from(event: CompletionEvent) -> Self {
        let result = event.result;
        Self { result, operation: event.into_operation().expect("the operation has ended") }
    }
}

pub(crate) fn read(file: impl Into<Handle>, buffer: impl Into<Buffer>, offset_bytes: u64) -> Read {
    let buffer = buffer.into();
    let length = buffer.length();
    Read { handle: file.into(), buffer, offset_bytes, start: 0, length }
}

pub(crate) fn write(
    file: impl Into<Handle>,
    buffer: impl Into<Buffer>,
    offset_bytes: u64,
) -> Write {
    let buffer = buffer.into();
    let length = buffer.length();
    Write { handle: file.into(), buffer, offset_bytes, start: 0, length }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// What several steps of a case told.
pub(crate) fn told(steps: impl IntoIterator<Item = impl ToString>) -> String {
    let steps: Vec<_> = steps.into_iter().map(|step| step.to_string()).collect();
    steps.join(", ")
}
