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
    Cancellation, Direct, Durability, Event, Observer, Progress, Reflink, Request, Stage, copy_on,
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

/// Where the kernel tells which boot it is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Copies a file of many blocks with a journal; returns how many operations that took.
fn copy_large(world: &SimulatedWorld, direct: Direct, plan: FaultPlan) -> u64 {
    let record = plan.record();
    let mut request = Request::new(["/large"], "/target/large");
    let options = &mut request.options;
    (options.direct, options.reflink, options.block_bytes) = (direct, Reflink::Never, 4096);
    (options.small_bytes_max, options.large_bytes_min, options.resume_bytes_min) = (1, 1, 1);
    options.journal_every_bytes = 4096;
    let proactor = Proactor::new(Box::new(SimulatedProcessor::new(1, 64, world, plan)));
    let cancellation = Cancellation::default();
    let summary = copy_on(&proactor, &request, &(), &Progress::default(), &cancellation);
    assert_eq!(summary.unwrap().failed, 0);
    record.completions()
}

#[test]
fn a_second_run_goes_on_and_believes_after_a_power_cut_only_what_was_synced() {
    let content: Vec<u8> = (0..400_000_u32).flat_map(|it| (it | 1).to_le_bytes()).collect();
    let content = &content[..300_000];
    let new = || {
        let world = SimulatedWorld::new();
        world.add_directory("/proc/self");
        world.add_directory("/target");
        world.add_file("/proc/self/status", "Umask:\t0022\n");
        world.add_file(BOOT, "11111111-1111-4111-8111-111111111111\n");
        world.add_file("/large", content);
        world
    };
    for direct in [Direct::On, Direct::Off] {
        let whole = copy_large(&new(), direct, FaultPlan::none());
        let (mut fewer_after_kill, mut fewer_after_cut) = (0, 0);
        for moment in 0..whole {
            let world = new();
            let left: Rc<RefCell<Vec<(bool, SimulatedWorld)>>> = Rc::default();
            let sink = Rc::clone(&left);
            let plan = FaultPlan::none().call_after(moment, move |world: &SimulatedWorld| {
                let cuts = (0..3).map(|seed| (true, world.crash(moment * 3 + seed)));
                sink.borrow_mut().extend(cuts);
                sink.borrow_mut().push((false, world.after_kill()));
            });
            copy_large(&world, direct, plan);
            for (is_cut, left) in left.take() {
                if is_cut {
                    left.add_file(BOOT, "22222222-2222-4222-8222-222222222222\n");
                }
                let operations = copy_large(&left, direct, FaultPlan::none());
                let is_whole = left.read("/target/large").as_deref() == Some(content);
                assert!(is_whole, "after {moment} operations, a power cut: {is_cut}, {direct:?}");
                assert_eq!(left.files("/target").len(), 1, "after {moment}: {is_cut}, {direct:?}");
                let fewer = if is_cut { &mut fewer_after_cut } else { &mut fewer_after_kill };
                *fewer += u64::from(operations + 20 < whole);
            }
        }
        assert!(fewer_after_kill > whole / 3, "{direct:?}: {fewer_after_kill} of {whole} went on");
        // Only what goes past the page cache is synced on the way.
        let goes_on = direct == Direct::On;
        assert_eq!(fewer_after_cut > 0, goes_on, "{direct:?}: {fewer_after_cut}");
    }
}
