//! Files that are opened, and asked for, before it is their turn.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ucp_engine::buffer::{BufferPool, ReceivePool};
use ucp_engine::copy::{
    Cancellation, LookAhead, Options, Progress, Request, Stage, TargetRole, copy_on,
};
use ucp_engine::operation::*;
use ucp_engine::processor::{Capabilities, Full, ThreadProcessor, Wake};
use ucp_engine::units::{Moment, WallTime};
use ucp_engine::{Errno, Error, OperationProcessor, Proactor};

use crate::support::scratch;

const FILES: usize = 40;

/// What a copy asked for.
#[derive(Default)]
struct Seen {
    /// How often each name was opened to be read.
    opened: BTreeMap<String, usize>,
    asked_for: usize,
    /// How many were opened when the first file was made.
    opened_before_first: Option<usize>,
}

struct Witness {
    processor: ThreadProcessor,
    seen: Rc<RefCell<Seen>>,
}

impl Witness {
    fn look(&self, operation: &Operation) {
        let mut seen = self.seen.borrow_mut();
        match operation {
            Operation::Open(open) if open.flags & nix::libc::O_CREAT != 0 => {
                let count = seen.opened.len();
                seen.opened_before_first.get_or_insert(count);
            }
            Operation::Open(open) => {
                let name = open.place.name.as_bytes().escape_ascii().to_string();
                *seen.opened.entry(name).or_default() +=
                    usize::from(open.place.directory.is_some());
            }
            Operation::Advise(Advise { advice: Advice::WillNeed, .. }) => seen.asked_for += 1,
            _ => {}
        }
    }
}

impl OperationProcessor for Witness {
    fn accept(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        self.look(&operation);
        self.processor.accept(operation, token)
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        self.processor.accept_chain(chain, token)
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

    fn waker(&self) -> Arc<dyn Wake> {
        self.processor.waker()
    }
}

fn copy(place: &Path, options: Options) -> Seen {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let processor = ThreadProcessor::new(1, 64);
    let proactor = Proactor::new(Box::new(Witness { processor, seen: Rc::clone(&seen) }));
    let mut request = Request::new([place.join("source")], place.join("target"));
    request.target_role = TargetRole::Name;
    request.options = options;
    let summary =
        copy_on(&proactor, &request, &(), &Progress::default(), &Cancellation::default()).unwrap();
    assert_eq!((summary.failed, summary.files), (0, FILES as u64), "{summary:?}");
    drop(proactor);
    for file in 0..FILES {
        let name = file.to_string();
        let [source, target] =
            ["source", "target"].map(|side| fs::read(place.join(side).join(&name)).unwrap());
        assert!(source == target, "{name}");
    }
    seen.take()
}

#[test]
fn each_file_is_opened_once_and_asked_for_before_its_turn() {
    let scratch = scratch::directory();
    fs::create_dir(scratch.path().join("source")).unwrap();
    for file in 0..FILES {
        let path = scratch.path().join("source").join(file.to_string());
        fs::write(path, vec![u8::try_from(file).unwrap(); file * 100]).unwrap();
    }
    let in_turn = copy(scratch.path(), Options::default());
    assert_eq!((in_turn.asked_for, in_turn.opened.get("7")), (0, Some(&1)));
    fs::remove_dir_all(scratch.path().join("target")).unwrap();

    let always = || Options { look_ahead: LookAhead::Always, ..Options::default() };
    let ahead = copy(scratch.path(), always());
    assert_eq!(ahead.asked_for, FILES);
    assert!(ahead.opened_before_first > Some(10), "{:?}", ahead.opened_before_first);
    for file in 0..FILES {
        assert_eq!(ahead.opened.get(&file.to_string()), Some(&1), "{file}");
    }

    // What stands already may be kept: nothing is read that may not be needed.
    let shown = copy(scratch.path(), Options { stage: Stage::Never, ..always() });
    assert_eq!(shown.asked_for, 0);
}
