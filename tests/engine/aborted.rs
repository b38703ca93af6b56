//! A process that ends at any completion of a copy through a ring leaves each name whole, and the
//! next copy completes. What strace can't see: operations of a ring are no system calls.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use ucp_engine::buffer::{BufferPool, ReceivePool};
use ucp_engine::copy::{Cancellation, Options, Progress, Request, TargetRole, copy_on};
use ucp_engine::operation::*;
use ucp_engine::processor::{Capabilities, Full, KernelProcessor, Wake};
use ucp_engine::units::{Moment, WallTime};
use ucp_engine::{Errno, Error, Operation, OperationProcessor, Proactor};

use crate::require_io_uring;
use crate::support::{child, scratch};

const THIS: &str = "aborted::a_process_that_ends_at_any_completion_leaves_names_whole";
/// Small ones, one of several reads, one in blocks with a tail, and an empty one.
const FILES: [(&str, usize); 5] =
    [("a", 10), ("b/c", 70_000), ("b/d", 300_001), ("b/e", (1 << 20) + 3), ("f", 0)];

#[test]
fn a_process_that_ends_at_any_completion_leaves_names_whole() {
    if let Some(setting) = child::setting() {
        let (left, place) = setting.split_once(' ').unwrap();
        return copy(Path::new(place), left.parse().unwrap());
    }
    require_io_uring!();
    let place = scratch::directory();
    write_files(&place.path().join("new"), 2);
    write_files(&place.path().join("old"), 1);
    let mut aborted = 0;
    for completions in 1.. {
        let target = place.path().join("target");
        let _ = fs::remove_dir_all(&target);
        write_files(&target, 1);
        let is_whole = run_child(place.path(), completions);
        for (name, _) in FILES {
            let content = |root: &str| fs::read(place.path().join(root).join(name)).ok();
            let found = content("target");
            let is_old_or_new = found == content("old") || found == content("new");
            assert!(is_old_or_new, "{name} is torn after {completions} completions");
        }
        if is_whole {
            break;
        }
        aborted += 1;
        // The next run has all the time that it needs.
        assert!(run_child(place.path(), u32::MAX), "after {completions} completions");
        for (name, _) in FILES {
            let content = |root: &str| fs::read(place.path().join(root).join(name)).unwrap();
            assert!(content("target") == content("new"), "{name}, {completions} completions");
        }
        let names: Vec<_> = ["target", "target/b"]
            .iter()
            .flat_map(|below| fs::read_dir(place.path().join(below)).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(".ucp-"))
            .collect();
        assert!(names.is_empty(), "{names:?} are left after {completions} completions");
    }
    assert!(aborted > 60, "only {aborted} completions were met");
}

/// Runs the copy in a process that ends after so many completions; says whether it came to its end.
fn run_child(place: &Path, completions: u32) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", THIS, "--nocapture", "--test-threads=1"])
        .env("UCP_TEST_CHILD", format!("{completions} {}", place.display()))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    match status.code() {
        Some(0) => true,
        Some(ABORTED) => false,
        _ => panic!("after {completions} completions: {status}"),
    }
}

/// What the child ends with when its completions are used up.
const ABORTED: i32 = 77;

fn copy(place: &Path, completions: u32) {
    let ring = KernelProcessor::new(256, 2).unwrap();
    let proactor = Proactor::new(Box::new(Mortal { processor: ring, left: completions }));
    let mut request = Request::new([place.join("new")], place.join("target"));
    request.target_role = TargetRole::Name;
    request.options =
        Options { large_bytes_min: 1 << 20, block_bytes: 1 << 16, ..Options::default() };
    let summary =
        copy_on(&proactor, &request, &(), &Progress::default(), &Cancellation::default()).unwrap();
    assert_eq!(summary.failed, 0, "{summary:?}");
}

fn write_files(root: &Path, seed: u8) {
    fs::create_dir_all(root.join("b")).unwrap();
    for (name, size) in FILES {
        let size = if size == 0 { 0 } else { size + usize::from(seed) };
        fs::write(root.join(name), vec![seed; size]).unwrap();
    }
}

/// A ring whose process ends when so many completions have come.
struct Mortal {
    processor: KernelProcessor,
    left: u32,
}

impl OperationProcessor for Mortal {
    fn accept(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        self.processor.accept(operation, token)
    }

    fn accept_beside(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        self.processor.accept_beside(operation, token)
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        self.processor.accept_chain(chain, token)
    }

    fn accept_chain_beside(
        &mut self,
        chain: Chain,
        token: Token,
    ) -> Result<OperationId, Full<Chain>> {
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
        let mut reaped = CompletionEventQueue::default();
        self.processor.submit_and_wait(at_least, deadline, &mut reaped)?;
        while let Some(event) = reaped.pop() {
            self.left -= 1;
            if self.left == 0 {
                // Nothing on the stack is dropped, drained or cleaned up.
                std::process::exit(ABORTED);
            }
            events.push(event);
        }
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
