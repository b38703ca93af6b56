//! What users see: counters, jobs in traces, slow and blocked handlers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Once, mpsc};
use std::thread;
use std::time::Duration;

use nix::libc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use ucp_engine::operation::{Chain, File, Handle, Operation, Read};
use ucp_engine::proactor::TaskInitiator;
use ucp_engine::processor::{FaultPlan, KernelProcessor, ThreadProcessor};
use ucp_engine::{CompletionEvent, CompletionHandler, Error, Initiator, Proactor};

use crate::require_io_uring;
use crate::setting::{FOR_EVER, Setting, in_memory, settings, wait_in_slot};
use crate::support::machine;

fn read(file: &File, start: u32, length: u32) -> Read {
    let (handle, buffer) = (Handle::from(file), vec![0; 8].into());
    Read { handle, buffer, offset_bytes: 0, start, length }
}

#[test]
fn stats_tell_what_was_done() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, name, file) = (setting.proactor.initiator(), setting.name, setting.file("a"));
        let before = setting.proactor.stats();
        setting.proactor.block_on(async {
            assert_eq!(tasks.read_at(&file, vec![0; 100], 0).await.0, Ok(100));
            assert_eq!(tasks.read_at(&file, vec![0; 100], 2 * 4096 - 10).await.0, Ok(10));
            assert_eq!(tasks.write_at(&file, vec![0; 64], 50, 0).await.0, Ok(50));
            assert!(tasks.perform(read(&file, 4, 8).into()).await.0.is_err(), "too small");
            let chain = Chain::read_then_write(read(&file, 0, 8), Handle::from(&file), 0);
            assert_eq!(tasks.perform_chain(chain).await.len(), 2);
        });
        let stats = setting.proactor.stats();
        assert_eq!(stats.operations_started - before.operations_started, 6, "{name}");
        assert_eq!(stats.operations_ended, stats.operations_started, "{name}");
        assert_eq!((stats.bytes_read, stats.bytes_written), (118, 58), "{name}");
        assert_eq!((stats.in_flight, stats.tasks, stats.alarms), (0, 0, 0), "{name}");
        assert_eq!((stats.queue_full, stats.stale, stats.handlers_slow), (0, 0, 0), "{name}");
        assert_eq!(stats.enters > 0, name == "io_uring", "{name}");
    }
}

#[test]
fn stats_tell_what_is_in_flight_and_what_found_no_room() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, name) = (setting.proactor.initiator(), setting.name);
        let waiting: Vec<_> =
            (0..11).map(|_| tasks.spawn(wait_in_slot(&tasks, FOR_EVER)).unwrap()).collect();
        let _asleep = tasks.spawn(tasks.sleep(FOR_EVER)).unwrap();
        for _ in 0..3 {
            setting.proactor.turn(Duration::ZERO).unwrap();
        }
        let stats = setting.proactor.stats();
        assert_eq!((stats.in_flight, stats.in_flight_max), (8, 8), "{name}");
        assert!(stats.queue_full >= 3, "{name}: {stats:?}");
        assert_eq!((stats.tasks, stats.alarms), (12, 1), "{name}");
        drop(waiting);
    }
}

#[test]
fn stats_tell_what_a_ring_gave_to_helpers() {
    require_io_uring!();
    for setting in settings(8).into_iter().filter(|setting| setting.name == "io_uring") {
        let (tasks, file) = (setting.proactor.initiator(), setting.file("file"));
        let (source, target) = (file.clone(), file);
        let clone = ucp_engine::operation::CloneFile { source, target };
        drop(setting.proactor.block_on(tasks.perform(clone.into())));
        assert_eq!(setting.proactor.stats().fall_backs, 1, "there is no opcode for it");
    }
}

#[test]
fn what_a_dropped_processor_leaks_is_counted() {
    require_io_uring!();
    let watching = Proactor::new(Box::new(ThreadProcessor::new(0, 4)));
    let before = watching.stats().leaked;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let reader = File::from_fd(reader.into());
    let watched = reader.clone();
    let mut threads = ThreadProcessor::new(1, 4);
    threads.set_drain_timeout(Duration::from_millis(1));
    let proactor = Proactor::new(Box::new(threads));
    let tasks = proactor.initiator();
    let current = ucp_engine::operation::CURRENT_POSITION;
    let mine = tasks.clone();
    let stuck = tasks.spawn(async move { drop(mine.read_at(&reader, vec![0; 8], current).await) });
    proactor.turn(Duration::from_millis(1)).unwrap();
    crate::support::tasks::wait_until_in_call(libc::SYS_read, &watched, 1);
    drop((stuck, tasks, proactor));
    assert!(watching.stats().leaked > before);
    // Lets the helper go.
    std::io::Write::write_all(&mut writer, b"x").unwrap();
}

type Line = BTreeMap<&'static str, String>;

thread_local! {
    /// What this thread is told, as text; none if it does not want to know.
    static LINES: RefCell<Option<Vec<Line>>> = const { RefCell::new(None) };
}

/// One for the whole process, since interest in what is told is: a subscriber that comes and goes
/// with a test may be forgotten while another thread meets the same event first.
struct Told;

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

fn keep(line: Line) {
    LINES.with_borrow_mut(|lines| lines.iter_mut().for_each(|lines| lines.push(line.clone())));
}

impl Subscriber for Told {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ucp_engine") && LINES.with_borrow(Option::is_some)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = BTreeMap::from([("span", span.metadata().name().to_owned())]);
        span.record(&mut Fields(&mut line));
        keep(line);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = BTreeMap::new();
        event.record(&mut Fields(&mut line));
        keep(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// How often each message came with each job, of what was told while `act` ran.
fn messages(act: impl FnOnce()) -> BTreeMap<(u64, String), u32> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Told).unwrap());
    LINES.set(Some(Vec::new()));
    act();
    let lines = LINES.take().unwrap();
    let mut counts = BTreeMap::new();
    for line in lines.iter().filter(|line| line.contains_key("message")) {
        let job = line["job"].parse().unwrap();
        *counts.entry((job, line["message"].clone())).or_default() += 1;
    }
    counts
}

#[test]
fn every_operation_of_a_job_carries_its_number() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, name) = (setting.proactor.initiator(), setting.name);
        let job = tasks.job("the test's");
        let number = job.id();
        let told = messages(|| {
            setting.proactor.block_on(async {
                // One of its own, one of a task that it spawns, two of a handler, and a failure.
                let inner = tasks.clone();
                let work = async {
                    wait_in_slot(&inner, Duration::ZERO).await.0.unwrap();
                    let mine = inner.clone();
                    let spawned =
                        inner.spawn(async move { wait_in_slot(&mine, Duration::ZERO).await.0 });
                    spawned.unwrap().await.unwrap();
                    inner.run(Waits { left: 2 }).await.1.unwrap();
                    let mut cancelled = wait_in_slot(&inner, FOR_EVER);
                    let _ = crate::setting::poll_once(std::pin::Pin::new(&mut cancelled));
                    cancelled.cancel();
                    assert!(cancelled.await.0.is_err());
                };
                let beside = wait_in_slot(&tasks, Duration::ZERO);
                assert_eq!(ucp_engine::proactor::join(job.run(work), beside).await.1.0, Ok(0));
            });
        });
        let count = |job, message: &str| told.get(&(job, message.into())).copied().unwrap_or(0);
        assert_eq!(count(number, "accepted"), 5, "{name}: {told:?}");
        assert_eq!(count(number, "completed"), 4, "{name}: {told:?}");
        assert_eq!(count(number, "failed"), 1, "{name}: {told:?}");
        assert_eq!(count(0, "accepted"), 1, "{name}: what is no part of it");
        assert_eq!(told.len(), 5, "{name}: {told:?}");
        assert_ne!(tasks.job("another").id(), number);
    }
}

/// A handler that waits so many times.
struct Waits {
    left: u32,
}

impl CompletionHandler for Waits {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        let duration = Duration::ZERO;
        let timeout = ucp_engine::operation::Timeout { duration };
        self.left -= 1;
        assert!(initiator.start(timeout.into(), 0).is_ok());
        Ok(())
    }

    fn on_complete(
        &mut self,
        _: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        if self.left > 0 { self.start(initiator) } else { Ok(()) }
    }

    fn is_finished(&self) -> bool {
        self.left == 0
    }
}

/// A handler that blocks at its only event until the test lets it go.
struct Blocks(mpsc::Receiver<()>, bool);

impl CompletionHandler for Blocks {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        assert!(initiator.start(Operation::Nop, 0).is_ok());
        Ok(())
    }

    fn on_complete(&mut self, _: CompletionEvent, _: &mut Initiator<'_>) -> Result<(), Error> {
        self.0.recv().unwrap();
        self.1 = true;
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.1
    }

    fn name(&self) -> &'static str {
        "blocks, as the test wants"
    }
}

/// Runs `work` on a setting of its own thread, and returns what blocks it once it does; then lets it
/// go on.
fn who_blocks(work: impl FnOnce(TaskInitiator, mpsc::Receiver<()>, &Setting) + Send) {
    let (go, wait) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let setting = in_memory(1, 8, FaultPlan::none());
            let watch = setting.proactor.watch(Duration::from_millis(2));
            assert_eq!(watch.blocked(), None);
            tell.send(watch).unwrap();
            work(setting.proactor.initiator(), wait, &setting);
            assert_eq!(setting.proactor.stats().handlers_slow, 1);
        });
        let watch = told.recv().unwrap();
        let (name, taken) = loop {
            if let Some(blocked) = watch.blocked() {
                break blocked;
            }
            thread::yield_now();
        };
        assert!(taken >= Duration::from_millis(2));
        assert!(watch.slow().is_empty(), "it has not returned");
        go.send(()).unwrap();
        while watch.slow().is_empty() {
            thread::yield_now();
        }
        let slow = watch.slow();
        assert_eq!((slow[0].name, slow[0].count), (name, 1));
        assert!(slow[0].longest >= taken);
        assert!(name == "blocks, as the test wants" || name.contains("who_blocks"), "{name}");
    });
}

#[test]
fn who_blocks_the_loop_is_seen_from_outside_and_counted_when_it_goes_on() {
    who_blocks(|tasks, wait, setting| {
        setting.proactor.block_on(tasks.run(Blocks(wait, false))).1.unwrap();
    });
    who_blocks(|tasks, wait, setting| {
        let task = tasks.spawn(async move { wait.recv().unwrap() }).unwrap();
        setting.proactor.block_on(task);
    });
    who_blocks(|_, wait, setting| setting.proactor.block_on(async { wait.recv().unwrap() }));
}

#[test]
fn a_kernel_processor_counts_its_enters() {
    require_io_uring!();
    let proactor = Proactor::new(Box::new(KernelProcessor::new(8, 1).unwrap()));
    let tasks = proactor.initiator();
    proactor.block_on(async {
        for _ in 0..10 {
            assert_eq!(tasks.perform(Operation::Nop).await.0, Ok(0));
        }
    });
    let enters = proactor.stats().enters;
    assert!((10..=25).contains(&enters), "{enters}: about one a turn");
}
