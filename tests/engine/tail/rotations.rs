//! Each kind of rotation is told apart, and what a checkpoint is worth when it is damaged.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ucp_engine::Proactor;
use ucp_engine::buffer::BufferPool;
use ucp_engine::error::Errno;
use ucp_engine::processor::{
    FaultPlan, MountOptions, OperationKind, SimulatedProcessor, SimulatedWorld,
};
use ucp_engine::tail::{Batch, Change, Event, Options, Part, Tail};

/// Long enough to be a file of its own.
const OLD: &str = "the first line of a log that is long enough to be known by\nand a second line\n";
const NEW: &str = "what a program writes after its log was rotated\n";

/// A tail that has everything acknowledged at once, on a world that a test changes between its turns.
struct Follower {
    world: SimulatedWorld,
    proactor: Proactor,
    tail: Option<Tail>,
    pool: BufferPool,
    told: Vec<String>,
    lines: Vec<String>,
    is_narrow: bool,
}

fn append(world: &SimulatedWorld, path: &str, more: &str) {
    let before = world.read(path).unwrap();
    world.add_file(path, [&before, more.as_bytes()].concat());
}

impl Follower {
    fn new(is_narrow: bool) -> Self {
        let options = MountOptions { reuses_inodes: true, ..MountOptions::default() };
        let world = SimulatedWorld::with_root(options);
        world.add_directory("/log");
        world.add_directory("/state");
        Self::on(world, is_narrow, FaultPlan::none())
    }

    fn on(world: SimulatedWorld, is_narrow: bool, plan: FaultPlan) -> Self {
        let proactor = Proactor::new(Box::new(SimulatedProcessor::new(1, 64, &world, plan)));
        let pool = BufferPool::unregistered(2, 128).unwrap();
        let (told, lines) = (Vec::new(), Vec::new());
        Self { world, proactor, tail: None, pool, told, lines, is_narrow }
    }

    fn start(&mut self) -> &mut Tail {
        let is_narrow = self.is_narrow;
        let mut options = Options::new("/state/checkpoint").follow("/log", move |name| {
            name.as_bytes() == b"log" || (!is_narrow && name.as_bytes().starts_with(b"log"))
        });
        options.linger = Duration::from_secs(1);
        let tasks = self.proactor.initiator();
        let tail = Tail::start(&tasks, self.pool.clone(), options);
        self.tail.insert(self.proactor.block_on(tail).unwrap())
    }

    /// Lets the tail look, read and save for some looks.
    fn follow(&mut self) {
        if self.tail.is_none() {
            self.start();
        }
        for _ in 0..5 {
            while let Some(event) = self.advance() {
                match event {
                    Event::Batch(batch) => self.receive(&batch),
                    Event::Change(change) => self.told.push(describe(&change)),
                    Event::Failed(error) => self.told.push(format!("{error}")),
                }
            }
            self.pass(Duration::from_millis(260));
        }
    }

    fn advance(&mut self) -> Option<Event> {
        let tail = self.tail.as_mut().unwrap();
        self.proactor.block_on(tail.advance())
    }

    fn receive(&mut self, batch: &Batch) {
        self.tail.as_mut().unwrap().acknowledge(batch.receipt());
        let text = batch.lines().map(|line| String::from_utf8(line.to_vec()).unwrap());
        self.lines.extend(text);
    }

    fn pass(&self, time: Duration) {
        self.proactor.block_on(self.proactor.initiator().sleep(time));
    }

    /// The tail ends and begins anew, with its checkpoint up to date.
    fn restart(&mut self, meanwhile: impl FnOnce(&SimulatedWorld)) {
        self.proactor.block_on(self.tail.as_mut().unwrap().save()).unwrap();
        self.tail = None;
        meanwhile(&self.world);
        self.start();
    }
}

fn describe(change: &Change) -> String {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    match change {
        Change::Found { path, .. } => format!("found {}", name(path)),
        Change::Resumed { path, offset_bytes, .. } => {
            format!("resumed {} at {offset_bytes}", name(path))
        }
        Change::Renamed { from, to: Some(to), .. } => {
            format!("renamed {} to {}", name(from), name(to))
        }
        Change::Renamed { from, to: None, .. } => format!("renamed {} away", name(from)),
        Change::CopyTruncated { path, copy, .. } => {
            format!("copied {} to {} and truncated it", name(path), name(copy))
        }
        Change::Truncated { path, unread_bytes, .. } => {
            format!("truncated {}, {unread_bytes} unread", name(path))
        }
        Change::Deleted { path, is_open: true, .. } => format!("deleted {}", name(path)),
        Change::Deleted { path, is_open: false, .. } => format!("deleted {} before", name(path)),
        Change::InodeReused { path, .. } => format!("another has the inode of {}", name(path)),
        Change::LetGo { path, .. } => format!("let {} go", name(path)),
        _ => format!("{change:?}"),
    }
}

/// What is done to a log that was read, and what is told of it.
type Case =
    (&'static str, bool, fn(&mut Follower), &'static [&'static str], &'static [&'static str]);

#[test]
fn each_rotation_is_told_apart_and_nothing_is_read_twice() {
    let cases: [Case; 14] = [
        ("growth", false, |it| append(&it.world, "/log/log", NEW), &[], &[NEW]),
        (
            "rename to a name that is followed, and a new file",
            false,
            |it| {
                it.world.rename("/log/log", "/log/log.1");
                append(&it.world, "/log/log.1", "late\n");
                it.world.add_file("/log/log", NEW);
            },
            &["renamed log to log.1", "found log"],
            &["late\n", NEW],
        ),
        (
            "rename to a name that is not followed",
            true,
            |it| {
                it.world.rename("/log/log", "/log/old");
                append(&it.world, "/log/old", "late\n");
                it.follow();
            },
            &["renamed log to old", "let old go"],
            &["late\n"],
        ),
        (
            "rename out of sight",
            true,
            |it| {
                it.world.rename("/log/log", "/elsewhere");
                append(&it.world, "/elsewhere", "late\n");
                it.follow();
            },
            &["renamed log away", "let log go"],
            &["late\n"],
        ),
        (
            "deletion",
            false,
            |it| {
                append(&it.world, "/log/log", "late\n");
                it.world.remove("/log/log");
                it.follow();
            },
            &["deleted log", "let log go"],
            &["late\n"],
        ),
        (
            "deletion, and another with its inode",
            false,
            |it| {
                it.world.remove("/log/log");
                it.follow();
                it.follow();
                it.world.add_file("/log/log", NEW);
            },
            &["deleted log", "let log go", "found log"],
            &[NEW],
        ),
        (
            "truncation",
            false,
            |it| it.world.add_file("/log/log", ""),
            &["truncated log, 0 unread"],
            &[],
        ),
        (
            "truncation, and written beyond where reading was",
            false,
            |it| it.world.add_file("/log/log", NEW.repeat(3)),
            &["found log", "truncated log, 67 unread"],
            &[NEW, NEW, NEW],
        ),
        (
            "copy and truncation at once",
            false,
            |it| {
                it.world.add_file("/log/log.1", [OLD, "late\n"].concat());
                it.world.add_file("/log/log", NEW);
            },
            &["copied log to log.1 and truncated it", "found log"],
            &["late\n", NEW],
        ),
        (
            "copy under any name, and truncation later",
            false,
            |it| {
                it.world.add_file("/log/log-copy", OLD);
                it.follow_shortly();
                append(&it.world, "/log/log", "late\n");
                it.world.add_file("/log/log-copy", [OLD, "late\n"].concat());
                it.follow_shortly();
                it.world.add_file("/log/log", "");
            },
            &["copied log to log-copy and truncated it"],
            &["late\n"],
        ),
        (
            "copy without truncation",
            false,
            |it| {
                it.world.add_file("/log/log-copy", OLD);
                it.follow();
            },
            &["found log-copy"],
            &[
                "the first line of a log that is long enough to be known by\n",
                "and a second line\n",
            ],
        ),
        (
            "rename while nothing runs",
            true,
            |it| {
                it.restart(|world| {
                    world.add_file("/log/log", [OLD, "late\n"].concat());
                    world.rename("/log/log", "/log/old");
                });
            },
            &["resumed old at 77", "renamed log to old"],
            &["late\n"],
        ),
        (
            "deletion while nothing runs",
            false,
            |it| it.restart(|world| world.remove("/log/log")),
            &["deleted log before"],
            &[],
        ),
        (
            "inode reuse while nothing runs",
            false,
            |it| {
                it.restart(|world| {
                    world.remove("/log/log");
                    world.add_file("/log/log.2", NEW.repeat(3));
                });
            },
            &["found log.2", "another has the inode of log"],
            &[NEW, NEW, NEW],
        ),
    ];
    for (name, is_narrow, act, told, lines) in cases {
        let mut follower = Follower::new(is_narrow);
        follower.world.add_file("/log/log", OLD);
        follower.follow();
        assert_eq!(follower.told, ["found log"], "{name}");
        assert_eq!(follower.lines.concat(), OLD, "{name}");
        (follower.told, follower.lines) = (Vec::new(), Vec::new());
        act(&mut follower);
        follower.follow();
        assert_eq!(follower.told, told, "{name}");
        assert_eq!(follower.lines, lines, "{name}");
    }
}

impl Follower {
    /// For less time than a copy is waited for.
    fn follow_shortly(&mut self) {
        while let Some(event) = self.advance() {
            match event {
                Event::Batch(batch) => self.receive(&batch),
                Event::Change(change) => self.told.push(describe(&change)),
                Event::Failed(error) => panic!("{error}"),
            }
        }
        self.pass(Duration::from_millis(260));
    }
}

#[test]
fn an_unterminated_line_is_sent_when_its_file_is_rotated_and_does_not_grow() {
    let mut follower = Follower::new(false);
    follower.world.add_file("/log/log", "whole\nhalf");
    follower.follow();
    assert_eq!(follower.lines, ["whole\n"]);
    follower.world.rename("/log/log", "/log/log.1");
    follower.follow();
    assert_eq!(follower.lines, ["whole\n", "half"]);
    follower.world.add_file("/log/log.1", "whole\nhalf a line\n");
    follower.follow();
    assert_eq!(follower.lines, ["whole\n", "half", " a line\n"]);
}

#[test]
fn nothing_is_read_while_there_is_no_block() {
    let mut follower = Follower::new(false);
    follower.world.add_file("/log/log", "0123456789\n".repeat(100));
    follower.start();
    let mut batches = Vec::new();
    for _ in 0..20 {
        if let Some(Event::Batch(batch)) = follower.advance() {
            batches.push(batch);
        }
        follower.pass(Duration::from_millis(10));
    }
    assert_eq!(batches.len(), 2, "the pool has two blocks");
    assert_eq!(batches[1].offset_bytes(), batches[0].length_bytes());
    assert!(batches.iter().all(|batch| batch.part() == Part::Lines));
    let (buffer, range) = batches.remove(0).into_buffer();
    assert!(buffer.part(range.start, range.end).unwrap().ends_with(b"9\n"));
    drop(buffer);
    assert!(matches!(follower.advance(), Some(Event::Batch(batch)) if batch.sequence() == 2));
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_it_counts() {
    let mut follower = Follower::new(false);
    follower.world.add_file("/log/log", "one\n");
    follower.follow();
    follower.world.add_file("/log/log", "one\ntwo\n");
    follower.follow();
    // The one before knows the file, and not that anything of it arrived.
    let mut damaged = follower.world.read("/state/checkpoint").unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    follower.tail = None;
    follower.world.add_file("/state/checkpoint", damaged);
    (follower.told, follower.lines) = (Vec::new(), Vec::new());
    follower.follow();
    let told =
        "checkpoint failed on /state/checkpoint: it is damaged, and the one before it counts";
    assert_eq!(follower.told[0], told);
    assert!(follower.told[1].starts_with("resumed log at "), "{:?}", follower.told);
    assert!(follower.lines.concat().ends_with("two\n"), "{:?}", follower.lines);
}

/// Without the sync of the checkpoint, or of its directory, or with another order of the renames, a
/// power cut leaves less than was there before.
#[test]
fn a_power_cut_at_any_completion_of_a_save_leaves_one_checkpoint_or_the_other() {
    for seed in 0..8 {
        for completions in 1..60 {
            let left: Rc<RefCell<Option<SimulatedWorld>>> = Rc::default();
            let mut follower = Follower::new(false);
            follower.world.add_file("/log/log", OLD);
            follower.follow();
            append(&follower.world, "/log/log", NEW);
            let before = follower.world.crash(seed);
            let hook = Rc::clone(&left);
            let plan = FaultPlan::none().call_after(completions, move |world| {
                *hook.borrow_mut() = Some(world.crash(seed));
            });
            let mut second = Follower::on(follower.world.clone(), false, plan);
            second.follow();
            let saved = second.proactor.block_on(second.tail.as_mut().unwrap().save());
            saved.unwrap();
            let after = second.world.crash(seed);
            let (old, new) = ("resumed log at 77", "resumed log at 125");
            let worlds = [
                ("before", Some(before), vec![old]),
                ("while", left.take(), vec![old, new]),
                ("after", Some(after), vec![new]),
            ];
            for (when, world, resumed) in worlds {
                let Some(world) = world else { continue };
                let mut third = Follower::on(world, false, FaultPlan::none());
                third.follow();
                // Before that it may be told that the next checkpoint was not completed.
                let last = third.told.last().map(String::as_str).unwrap_or_default();
                assert!(resumed.contains(&last), "{when}: {seed}, {completions}: {:?}", third.told);
                assert!(third.told.len() <= 2, "{when}: {seed}, {completions}: {:?}", third.told);
            }
        }
    }
}

#[test]
fn nothing_of_a_new_file_is_sent_before_its_record_is_safe() {
    let mut follower = Follower::new(false);
    let world = follower.world.clone();
    let plan = FaultPlan::none().fail_nth(1, OperationKind::Sync, Errno::EIO);
    follower = Follower::on(world, false, plan);
    follower.world.add_file("/log/log", OLD);
    follower.start();
    let mut events = Vec::new();
    while let Some(event) = follower.advance() {
        events.push(format!("{event:?}"));
    }
    assert_eq!(events.len(), 2, "found, and a checkpoint that failed: {events:?}");
    follower.pass(Duration::from_secs(2));
    follower.follow();
    assert_eq!(follower.lines.concat(), OLD);
}

/// A kill leaves a checkpoint that was written and not synced. To take it for the latest is right; to
/// let it replace the one that is on stable storage is not, unless it is synced first.
#[test]
fn a_checkpoint_that_a_kill_left_unsynced_survives_a_power_cut() {
    for completions in 1..60 {
        let mut first = Follower::new(false);
        first.world.add_file("/log/log", OLD);
        first.follow();
        append(&first.world, "/log/log", NEW);
        let left: Rc<RefCell<Option<SimulatedWorld>>> = Rc::default();
        let hook = Rc::clone(&left);
        let plan = FaultPlan::none().call_after(completions, move |world| {
            *hook.borrow_mut() = Some(world.after_kill());
        });
        let mut second = Follower::on(first.world.clone(), false, plan);
        second.follow();
        let Some(world) = left.take() else { continue };
        for seed in 0..8 {
            let world = world.after_kill();
            let mut third = Follower::on(world.clone(), false, FaultPlan::none());
            third.start();
            let mut fourth = Follower::on(world.crash(seed), false, FaultPlan::none());
            fourth.follow();
            let last = fourth.told.last().map(String::as_str).unwrap_or_default();
            let is_kept = ["resumed log at 77", "resumed log at 125"].contains(&last);
            assert!(is_kept, "{completions}, {seed}: {:?}", fourth.told);
        }
    }
}
