//! `Durability::Full` as a contract, where the device fails while the kernel writes by itself.
//!
//! Such a failure is told once to each description of a file that was open before (`errseq_t`), and
//! the pages count as written from then on. A copy that opens its descriptor too late, or syncs again
//! in hope, tells of files that are not on the disk.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Mutex;

use ucp_engine::copy::{
    Cancellation, Durability, Event, Observer, Progress, Reflink, Request, Stage, copy_on,
};
use ucp_engine::processor::{FaultPlan, OperationKind, SimulatedProcessor, SimulatedWorld};
use ucp_engine::{Errno, Proactor};

/// Files of the tree that is copied.
const FILES: u8 = 12;

#[derive(Default)]
struct Done(Mutex<Vec<PathBuf>>);

impl Observer for Done {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Done(done) = event {
            self.0.lock().unwrap().push(done.target.to_owned());
        }
    }
}

fn content(number: u8) -> Vec<u8> {
    vec![number + 1; 5000 + usize::from(number)]
}

/// A tree of files, and a directory for its copy with an old version of each.
fn world() -> SimulatedWorld {
    let world = SimulatedWorld::new();
    for directory in ["/proc/self", "/source", "/target/source"] {
        world.add_directory(directory);
    }
    for number in 0..FILES {
        world.add_file(format!("/source/{number}"), content(number));
        world.add_file(format!("/target/source/{number}"), "old");
    }
    world
}

fn request() -> Request {
    let mut request = Request::new(["/source"], "/target");
    request.options.durability = Durability::Full;
    request.options.reflink = Reflink::Never;
    request.options.stage = Stage::Never;
    request
}

/// Copies the tree; returns how many files failed, and which were told to be done.
fn copy(world: &SimulatedWorld, plan: FaultPlan) -> (u64, Vec<PathBuf>) {
    let processor = SimulatedProcessor::new(1, 64, world, plan);
    let proactor = Proactor::new(Box::new(processor));
    let done = Done::default();
    let cancellation = Cancellation::default();
    let summary = copy_on(&proactor, &request(), &done, &Progress::default(), &cancellation);
    (summary.unwrap().failed, done.0.into_inner().unwrap())
}

fn check(world: &SimulatedWorld, done: &[PathBuf], when: &str) {
    for seed in 0..4 {
        let left = world.crash(seed);
        for number in 0..FILES {
            let path = PathBuf::from(format!("/target/source/{number}"));
            let found = left.read(&path);
            let is_whole = found.as_ref() == Some(&content(number));
            assert!(is_whole || !done.contains(&path), "{path:?} is done and not whole {when}");
            let is_old = found.as_deref() == Some(b"old".as_slice());
            assert!(is_whole || is_old, "{path:?} is neither old nor new {when}");
        }
    }
}

#[test]
fn files_that_a_write_back_lost_are_copied_once_more() {
    let mut moments = 0..;
    loop {
        let moment = moments.next().unwrap();
        let world = world();
        let has_failed = Rc::new(RefCell::new(false));
        let flag = Rc::clone(&has_failed);
        let plan = FaultPlan::none().call_after(moment, move |world: &SimulatedWorld| {
            world.fail_write_back("/target");
            *flag.borrow_mut() = true;
        });
        let (failed, done) = copy(&world, plan);
        let when = format!("when a write-back failed after {moment} operations");
        assert_eq!(failed, 0, "{when}");
        assert_eq!(done.len(), usize::from(FILES) + 1, "{when}: files, and their directory");
        check(&world, &done, &when);
        if !*has_failed.borrow() {
            assert!(moment > 100, "the copy took {moment} operations only");
            return;
        }
    }
}

#[test]
fn a_sync_that_fails_is_not_taken_for_one_that_succeeds_later() {
    let syncs = 40;
    for number in 1..syncs {
        let world = world();
        let plan = FaultPlan::none().fail_nth(number, OperationKind::Sync, Errno::EIO);
        let (_, done) = copy(&world, plan);
        check(&world, &done, &format!("when the {number}th sync failed"));
    }
}
