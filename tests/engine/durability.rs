//! `Durability::Full` as a contract, where the device fails while the kernel writes by itself.
//!
//! Such a failure is told once to each description of a file that was open before (`errseq_t`), and
//! the pages count as written from then on. A copy that opens its descriptor too late, or syncs again
//! in hope, tells of files that are not on the disk.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use ucp_engine::copy::{
    Cancellation, Direct, Durability, Event, Make, Observer, Progress, Reflink, Request, Stage,
    copy_on,
};
use ucp_engine::operation::FileKind;
use ucp_engine::processor::{FaultPlan, OperationKind, SimulatedProcessor, SimulatedWorld};
use ucp_engine::{Errno, Proactor};

/// Files of the tree that is copied.
const FILES: u8 = 12;

#[derive(Clone, Default)]
struct Done(Arc<Mutex<Vec<PathBuf>>>);

impl Observer for Done {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Done(done) = event {
            self.0.lock().unwrap().push(done.target.to_owned());
        }
    }
}

impl Done {
    /// What was told to be done by now, in the order of the names.
    fn take(&self) -> Vec<PathBuf> {
        let mut done = self.0.lock().unwrap().clone();
        done.sort();
        done
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
    (summary.unwrap().failed, done.take())
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

/// What each source holds in the tests of names.
const WHOLE: &[u8] = b"what the source holds";

/// What was done before a power cut, and what that left.
type Cut = (Vec<PathBuf>, SimulatedWorld);

/// Cuts the power after each operation of a copy in turn: what was told to be done by then is there,
/// and in the end all that is named is.
fn cut_after_each_operation(new: impl Fn() -> SimulatedWorld, request: &Request, want: &[&str]) {
    let old = new();
    let check = |done: &[PathBuf], left: &SimulatedWorld, when: &str| {
        for path in want.iter().filter(|path| old.read(path).is_some()) {
            let is_old = left.read(path) == old.read(path);
            let is_new = left.read(path).as_deref() == Some(WHOLE);
            assert!(is_old || is_new, "{path:?} is neither old nor new {when}");
        }
        for path in done {
            let is_there = match left.status(path) {
                Some(status) if status.kind == FileKind::Regular => {
                    left.read(path).as_deref() == Some(WHOLE)
                }
                status => status.is_some(),
            };
            assert!(is_there, "{path:?} was done and is not there {when}");
        }
    };
    for moment in 0.. {
        let (world, done) = (new(), Done::default());
        let cut: Rc<RefCell<Vec<Cut>>> = Rc::default();
        let (sink, told) = (Rc::clone(&cut), done.clone());
        let plan = FaultPlan::none().call_after(moment, move |world: &SimulatedWorld| {
            let cuts = (0..4).map(|seed| (told.take(), world.crash(moment * 4 + seed)));
            sink.borrow_mut().extend(cuts);
        });
        let proactor = Proactor::new(Box::new(SimulatedProcessor::new(1, 64, &world, plan)));
        let cancellation = Cancellation::default();
        let summary = copy_on(&proactor, request, &done, &Progress::default(), &cancellation);
        assert_eq!(summary.unwrap().failed, 0, "{request:?}");
        let cut = cut.take();
        for (done, left) in &cut {
            check(done, left, &format!("after {moment} operations: {request:?}"));
        }
        if cut.is_empty() {
            check(&done.take(), &world.crash(moment), &format!("in the end: {request:?}"));
            let want: Vec<&Path> = want.iter().map(Path::new).collect();
            assert_eq!(done.take(), want, "{request:?}");
            return;
        }
    }
}

/// A world with directories, files that hold [`WHOLE`], and further names of them.
fn named(directories: &[&str], files: &[&str], links: &[(&str, &str)]) -> SimulatedWorld {
    let world = SimulatedWorld::new();
    for directory in [&["/proc/self", "/target"], directories].concat() {
        world.add_directory(directory);
    }
    for file in files {
        world.add_file(file, WHOLE);
    }
    for (first, name) in links {
        world.add_link(first, name);
    }
    world
}

fn durable(sources: &[&str], stage: Stage) -> Request {
    let mut request = Request::new(sources, "/target");
    request.options.durability = Durability::Full;
    request.options.stage = stage;
    request
}

#[test]
fn what_is_done_is_found_by_directories_that_were_made_above_it() {
    let new = || {
        let (directories, files) = (["/a/b", "/a/tree"], ["/a/b/file", "/a/tree/file"]);
        named(&directories, &files, &[])
    };
    let file = ["/target/a", "/target/a/b", "/target/a/b/file"];
    let open = ["/target/a", "/target/a/tree", "/target/a/tree/file"];
    let cases = [
        ("/a/b/file", Stage::Auto, &file[..]),
        ("/a/tree", Stage::Auto, &open[..2]),
        ("/a/tree", Stage::Never, &open[..]),
    ];
    for (source, stage, want) in cases {
        let mut request = durable(&[source], stage);
        request.options.parents = true;
        cut_after_each_operation(new, &request, want);
    }
}

#[test]
fn each_name_of_a_file_is_done_when_it_is() {
    let new = || {
        let directories = ["/tree", "/tree/new", "/target/tree"];
        let links = [("/tree/a", "/tree/b"), ("/tree/a", "/tree/new/c"), ("/tree/a", "/tree/z")];
        named(&directories, &["/tree/a"], &links)
    };
    let tree = [
        "/target/tree",
        "/target/tree/a",
        "/target/tree/b",
        "/target/tree/new",
        "/target/tree/new/c",
        "/target/tree/z",
    ];
    let staged = ["/target/tree", "/target/tree/a", "/target/tree/b", tree[3], tree[5]];
    let files = ["/target/a", "/target/b", "/target/z"];
    let cases = [
        (&["/tree"][..], Stage::Never, &tree[..]),
        (&["/tree"], Stage::Auto, &staged),
        (&["/tree/a", "/tree/b", "/tree/z"], Stage::Auto, &files),
    ];
    for (sources, stage, want) in cases {
        let mut request = durable(sources, stage);
        request.options.preserve.links = true;
        cut_after_each_operation(new, &request, want);
    }
}

#[test]
fn a_name_that_leads_into_a_stage_is_old_or_new() {
    // Which of them is met first is the listing's order.
    for (stage, there) in [("a", "b"), ("b", "a")] {
        let names = |end: &str| format!("/tree/{stage}/{end}");
        let (deep, first) = (names("deep/v/w/x/y/z"), names("file"));
        let (old, open) = (format!("/target/tree/{there}/p"), format!("/tree/{there}"));
        let name = format!("{open}/p/name");
        let new = || {
            let world = named(&[&deep, &old, &format!("{open}/p")], &[&first], &[(&first, &name)]);
            world.add_file(format!("/target{name}"), "old");
            world
        };
        let mut request = durable(&["/tree"], Stage::Auto);
        request.options.preserve.links = true;
        let mut want = ["", "/a", "/b", &format!("/{there}/p"), &format!("/{there}/p/name")]
            .map(|it| format!("/target/tree{it}"));
        want.sort();
        cut_after_each_operation(new, &request, &want.each_ref().map(String::as_str));
    }
}

#[test]
fn links_that_are_made_to_sources_are_done() {
    let new = || {
        let world = named(&["/tree", "/target/tree"], &["/tree/a", "/file"], &[]);
        world.add_file("/target/old", "old");
        world.add_file("/old", WHOLE);
        world
    };
    let links = ["/target/file", "/target/old", "/target/tree", "/target/tree/a"];
    for make in [Make::HardLink, Make::SymbolicLink] {
        let mut request = durable(&["/file", "/old", "/tree"], Stage::Auto);
        request.options.existing.make = make;
        request.options.existing.remove = true;
        cut_after_each_operation(new, &request, &links);
    }
    // A tree that is made anew has them at once.
    let new = || named(&["/tree"], &["/tree/a"], &[]);
    let mut request = durable(&["/tree"], Stage::Auto);
    request.options.existing.make = Make::HardLink;
    cut_after_each_operation(new, &request, &["/target/tree"]);
}
