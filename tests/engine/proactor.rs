//! The proactor, its handlers and its tasks, over every processor: what they start ends and comes
//! back, whatever they do meanwhile: panic, start more, lose interest, or are forgotten.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use nix::libc;
use ucp_engine::buffer::{Buffer, BufferPool, Lease};
use ucp_engine::operation::*;
use ucp_engine::proactor::{JoinHandle, TaskInitiator, join_all, yield_now};
use ucp_engine::processor::FaultPlan;
use ucp_engine::random::Random;
use ucp_engine::{CompletionEvent, CompletionHandler, Error, Initiator, Operation};

use crate::setting::{
    BLOCK_BYTES, BLOCKS, FOR_EVER, Setting, in_memory, message, open_files, poll_once, settings,
    wait_in_slot,
};
use crate::support::machine;

/// How many scenarios the suite plays.
const SCENARIOS: u64 = 3_000;

/// Reads blocks side by side, each again and again, and panics where it is told to.
struct Reader {
    file: File,
    pool: BufferPool,
    blocks: u32,
    /// Reads that it may still start.
    left: u32,
    /// Events that it has got.
    events: u32,
    panics_at: Option<u32>,
    fails_at: Option<u32>,
    keeps: Vec<Buffer>,
    in_flight: u32,
}

impl Reader {
    fn new(setting: &Setting, file: &File, blocks: u32, left: u32) -> Self {
        let (file, pool) = (file.clone(), setting.pool.clone());
        let (panics_at, fails_at, keeps) = (None, None, Vec::new());
        Self { file, pool, blocks, left, events: 0, panics_at, fails_at, keeps, in_flight: 0 }
    }

    fn start_read(&mut self, buffer: Buffer, initiator: &mut Initiator<'_>) {
        let handle = Handle::from(&self.file);
        let read = Read { handle, buffer, offset_bytes: 0, start: 0, length: BLOCK_BYTES };
        self.left -= 1;
        // A full processor gives the lease back at once.
        self.in_flight += u32::from(initiator.start(read.into(), 0).is_ok());
    }
}

impl CompletionHandler for Reader {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        for _ in 0..self.blocks.min(self.left) {
            let lease = self.pool.lease().expect("a block is free");
            self.start_read(lease.into(), initiator);
        }
        assert_ne!(self.panics_at, Some(0), "as the test wants");
        Ok(())
    }

    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        self.events += 1;
        self.in_flight -= 1;
        assert_ne!(self.panics_at, Some(self.events), "as the test wants");
        if self.fails_at == Some(self.events) {
            return Err(Error::new(ucp_engine::ErrorKind::Io, "read", "as the test wants"));
        }
        let Some(Operation::Read(read)) = event.into_operation() else { panic!("it was a read") };
        match self.left {
            0 => self.keeps.push(read.buffer),
            _ => self.start_read(read.buffer, initiator),
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.left == 0 && self.in_flight == 0
    }
}

#[test]
fn a_handler_that_panics_leaves_everything_consistent() {
    let _hold = machine::shared();
    let cases = [
        ("at its start", 0),
        ("at its first event", 1),
        ("at one in between", 4),
        ("at its last event", 8),
    ];
    for (case, panics_at) in cases {
        for setting in settings(64) {
            let what = format!("{}: {case}", setting.name);
            let file = setting.file("file");
            let mut bad = Reader::new(&setting, &file, 4, 8);
            bad.panics_at = Some(panics_at);
            let good = Reader::new(&setting, &file, 3, 30);
            let tasks = setting.proactor.initiator();
            let (mine, other) = (tasks.clone(), tasks.clone());
            let bad = tasks.spawn(async move { mine.run(bad).await }).unwrap();
            let good = tasks.spawn(async move { other.run(good).await }).unwrap();
            let sleeper = tasks.clone();
            let sleeper =
                tasks.spawn(async move { sleeper.sleep(Duration::from_millis(1)).await }).unwrap();
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                setting.proactor.block_on(std::future::pending::<()>());
            }));
            let panic = panicked.expect_err("the handler panics");
            assert!(message(&*panic).contains("as the test wants"), "{what}");

            let (good, outcome) = setting.proactor.block_on(good);
            assert_eq!((outcome.is_ok(), good.events), (true, 30), "{what}: the other goes on");
            setting.proactor.block_on(sleeper);
            if panics_at == 0 {
                // The task that ran it went down with it.
                let joined = catch_unwind(AssertUnwindSafe(|| setting.proactor.block_on(bad)));
                assert!(joined.is_err(), "{what}");
            } else {
                let (bad, outcome) = setting.proactor.block_on(bad);
                assert_eq!(outcome.unwrap_err().reason(), "it has panicked", "{what}");
                assert_eq!(bad.events, panics_at, "{what}: it was called again");
            }
            setting.drain();
            drop((good, file));
            setting.assert_at_rest(case);
        }
    }
}

#[test]
fn a_handler_that_fails_is_given_back_when_nothing_of_it_is_in_flight() {
    let _hold = machine::shared();
    for setting in settings(64) {
        let file = setting.file("file");
        let mut reader = Reader::new(&setting, &file, 4, 20);
        reader.fails_at = Some(3);
        let (reader, outcome) = setting.proactor.run(reader);
        assert_eq!(outcome.unwrap_err().reason(), "as the test wants", "{}", setting.name);
        assert_eq!(reader.events, 3, "{}: it was called again", setting.name);
        drop((reader, file));
        setting.assert_at_rest("failed");
    }
}

#[test]
fn a_handler_may_start_more_from_each_event_than_there_are_slots() {
    let _hold = machine::shared();
    for setting in settings(4) {
        let file = setting.file("file");
        let (reader, outcome) = setting.proactor.run(Reader::new(&setting, &file, 4, 1000));
        assert!(outcome.is_ok(), "{}", setting.name);
        assert_eq!(reader.events, 1000, "{}", setting.name);
        drop((reader, file));
        setting.assert_at_rest("finished");
    }
}

#[test]
fn a_handler_whose_run_is_dropped_goes_on_to_its_end_and_is_freed() {
    let _hold = machine::shared();
    for setting in settings(64) {
        let file = setting.file("file");
        let tasks = setting.proactor.initiator();
        {
            let mut run = pin!(tasks.run(Reader::new(&setting, &file, 4, 40)));
            assert!(poll_once(run.as_mut()).is_pending(), "{}", setting.name);
        }
        setting.drain();
        drop(file);
        setting.assert_at_rest("dropped");
    }
}

#[test]
fn a_task_that_panics_is_over_and_the_others_go_on() {
    let _hold = machine::shared();
    for setting in settings(64) {
        let name = setting.name;
        let (file, lease) = (setting.file("file"), setting.lease());
        let tasks = setting.proactor.initiator();
        let mine = tasks.clone();
        let bad: JoinHandle<()> = tasks
            .spawn(async move {
                let (result, _lease) = mine.read_at(&file, lease, 0).await;
                panic!("as the test wants: {result:?}");
            })
            .unwrap();
        let mine = tasks.clone();
        let waits_for_it = tasks.spawn(bad).unwrap();
        let good = tasks
            .spawn(async move {
                mine.sleep(Duration::from_millis(1)).await;
                7
            })
            .unwrap();
        // Who awaits it gets to know, and panics in turn.
        for want in ["as the test wants", "the task panicked"] {
            let panicked = catch_unwind(AssertUnwindSafe(|| setting.drain()));
            assert!(message(&*panicked.unwrap_err()).contains(want), "{name}");
        }
        assert!(
            catch_unwind(AssertUnwindSafe(|| setting.proactor.block_on(waits_for_it))).is_err()
        );
        assert_eq!(setting.proactor.block_on(good), 7, "{name}");
        setting.drain();
        setting.assert_at_rest("panicked");
        let next = tasks.spawn(async { 8 }).unwrap();
        assert_eq!(setting.proactor.block_on(next), 8, "{name}");
    }
}

#[test]
fn tasks_run_handlers_and_spawn_tasks_that_do() {
    async fn descend(tasks: TaskInitiator, level: u32, make: Rc<dyn Fn() -> Reader>) -> u32 {
        let (reader, outcome) = tasks.run(make()).await;
        outcome.unwrap();
        let events = reader.events;
        drop(reader);
        if level == 0 {
            return events;
        }
        let below = descend(tasks.clone(), level - 1, make);
        events + tasks.spawn(Box::pin(below) as Pin<Box<dyn Future<Output = u32>>>).unwrap().await
    }

    let _hold = machine::shared();
    for setting in settings(8) {
        let file = setting.file("file");
        let (pool, copy) = (setting.pool.clone(), file.clone());
        let make: Rc<dyn Fn() -> Reader> = Rc::new(move || Reader {
            file: copy.clone(),
            pool: pool.clone(),
            blocks: 2,
            left: 5,
            events: 0,
            panics_at: None,
            fails_at: None,
            keeps: Vec::new(),
            in_flight: 0,
        });
        let tasks = setting.proactor.initiator();
        assert_eq!(setting.proactor.block_on(descend(tasks, 6, make)), 35, "{}", setting.name);
        drop(file);
        setting.assert_at_rest("finished");
    }
}

#[test]
fn the_loop_does_not_run_inside_of_itself() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let proactor = &setting.proactor;
    let calls: [(&str, &dyn Fn()); 2] = [
        ("block_on", &|| proactor.block_on(async {})),
        ("turn", &|| proactor.turn(Duration::ZERO).unwrap()),
    ];
    for (name, call) in calls {
        let panicked = catch_unwind(AssertUnwindSafe(|| proactor.block_on(async { call() })));
        assert!(message(&*panicked.unwrap_err()).contains("runs already"), "{name}");
    }
    proactor.block_on(proactor.initiator().sleep(Duration::from_secs(1)));
}

/// What makes a future to be left alone, by name.
type Case = (&'static str, fn(&Setting, &File) -> Pin<Box<dyn Future<Output = ()>>>);

const CASES: [Case; 7] = [
    ("read", |setting, file| {
        let (tasks, lease) = (setting.proactor.initiator(), setting.lease());
        let file = file.clone();
        Box::pin(async move { drop(tasks.read_at(&file, lease, 0).await) })
    }),
    ("write", |setting, file| {
        let (tasks, mut lease) = (setting.proactor.initiator(), setting.lease());
        lease.fill(9);
        let file = file.clone();
        Box::pin(async move { drop(tasks.write_at(&file, lease, BLOCK_BYTES, 0).await) })
    }),
    ("open", |setting, _| {
        let tasks = setting.proactor.initiator();
        let open = Open::read(setting.place("file"));
        Box::pin(async move { drop(tasks.open(open).await) })
    }),
    ("list", |setting, _| {
        let tasks = setting.proactor.initiator();
        let open = Open::new(setting.place("."), libc::O_RDONLY | libc::O_DIRECTORY);
        let directory = setting.proactor.block_on(tasks.open(open)).unwrap();
        let list = ListDirectory { directory, buffer: setting.lease().into() };
        Box::pin(async move { drop(tasks.perform(list.into()).await) })
    }),
    ("status", |setting, file| {
        let (tasks, subject) = (setting.proactor.initiator(), Subject::File(file.clone()));
        Box::pin(async move { drop(tasks.status(subject, false).await) })
    }),
    ("chain", |setting, file| {
        let (tasks, lease) = (setting.proactor.initiator(), setting.lease());
        let handle = Handle::from(file);
        let (buffer, length) = (lease.into(), BLOCK_BYTES);
        let read = Read { handle: handle.clone(), buffer, offset_bytes: 0, start: 0, length };
        let chain = Chain::read_then_write(read, handle, u64::from(BLOCK_BYTES));
        Box::pin(async move { drop(tasks.perform_chain(chain).await) })
    }),
    ("timeout", |setting, _| {
        let tasks = setting.proactor.initiator();
        Box::pin(async move { drop(wait_in_slot(&tasks, FOR_EVER).await) })
    }),
];

#[test]
fn what_a_dropped_future_owns_comes_back_when_its_operation_has_ended() {
    let _hold = machine::shared();
    for (case, begin) in CASES {
        for setting in settings(64) {
            let file = setting.file("file");
            let mut future = begin(&setting, &file);
            let is_done = poll_once(future.as_mut()).is_ready();
            assert!(!is_done || setting.name == "in turn", "{}: {case}", setting.name);
            drop((future, file));
            setting.drain();
            setting.assert_at_rest(case);
            let is_written = setting.content("file")[0] == 9;
            assert_eq!(is_written, case == "write", "{}: {case}", setting.name);
        }
    }
}

#[test]
fn a_future_dropped_after_its_event_came_loses_nothing() {
    let _hold = machine::shared();
    for (case, begin) in CASES.into_iter().filter(|(case, _)| *case != "timeout") {
        for setting in settings(64) {
            let file = setting.file("file");
            let mut future = begin(&setting, &file);
            let _ = poll_once(future.as_mut());
            setting.drain();
            drop((future, file));
            setting.assert_at_rest(case);
        }
    }
}

#[test]
fn a_future_dropped_before_it_was_polled_starts_nothing() {
    let _hold = machine::shared();
    for (case, begin) in CASES {
        for setting in settings(64) {
            let file = setting.file("file");
            drop((begin(&setting, &file), file));
            setting.assert_at_rest(case);
            assert_eq!(setting.content("file")[0], 7, "{}: {case}", setting.name);
        }
    }
}

#[test]
fn forgetting_a_future_frees_nothing_that_is_in_use() {
    let _hold = machine::shared();
    for (case, begin) in CASES.into_iter().filter(|(case, _)| *case != "timeout") {
        for setting in settings(64) {
            let name = setting.name;
            let file = setting.file("file");
            let mut future = begin(&setting, &file);
            if poll_once(future.as_mut()).is_ready() {
                continue;
            }
            let available = setting.pool.available();
            std::mem::forget(future);
            setting.drain();
            assert_eq!(setting.proactor.in_flight(), 0, "{name}: {case}");
            assert_eq!(setting.pool.available(), available, "{name}: {case}: it was freed");
            let tasks = setting.proactor.initiator();
            let (result, _) = setting.proactor.block_on(tasks.read_at(&file, vec![0; 8], 0));
            assert_eq!(result, Ok(8), "{name}: {case}: the others go on");
        }
    }
}

#[test]
fn dropping_a_future_cancels_a_read_and_no_write() {
    let _hold = machine::shared();
    for setting in settings(64) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        if setting.name != "io_uring" {
            continue;
        }
        // Room for no more than is written here: the write waits for somebody who reads.
        let room = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        assert_eq!(room, 4096);
        let (reader, writer) = (File::from_fd(reader), File::from_fd(writer));
        let tasks = setting.proactor.initiator();
        {
            let mut read = pin!(tasks.read_at(&reader, setting.lease(), CURRENT_POSITION));
            assert!(poll_once(read.as_mut()).is_pending());
            setting.proactor.turn(Duration::from_millis(1)).unwrap();
            assert_eq!(setting.proactor.in_flight(), 1);
        }
        setting.drain();
        setting.assert_at_rest("the read that would never end was cancelled");
        let full = tasks.write_at(&writer, vec![1; 4096], 4096, CURRENT_POSITION);
        assert_eq!(setting.proactor.block_on(full).0, Ok(4096));
        {
            let mut write = pin!(tasks.write_at(&writer, vec![2; 8], 8, CURRENT_POSITION));
            assert!(poll_once(write.as_mut()).is_pending());
            setting.proactor.turn(Duration::from_millis(1)).unwrap();
        }
        setting.proactor.turn(Duration::from_millis(1)).unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < 4104 {
            let read = tasks.read_at(&reader, vec![0; 4096], CURRENT_POSITION);
            let (length, buffer) = setting.proactor.block_on(read);
            bytes.extend_from_slice(buffer.part(0, length.unwrap()).unwrap());
        }
        assert_eq!(bytes[4096..], [2; 8], "the write ran to its end");
    }
}

#[test]
fn tasks_perform_chains() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let name = setting.name;
        let (file, tasks) = (setting.file("file"), setting.proactor.initiator());
        let handle = Handle::from(&file);
        let read = |buffer: Buffer| {
            let length = buffer.length();
            Read { handle: handle.clone(), buffer, offset_bytes: 0, start: 0, length }
        };
        let write = |buffer: Buffer| {
            let length = buffer.length();
            Write { handle: handle.clone(), buffer, offset_bytes: 0, start: 0, length }
        };
        let slot = tasks.register_file(None).unwrap();
        let chains = [
            (
                "write, then sync",
                Chain::write_then_sync(
                    write(vec![5; 4].into()),
                    Sync { file: file.clone(), reach: SyncReach::Data },
                ),
                vec![Ok(4), Ok(0)],
            ),
            (
                "read, then write",
                Chain::read_then_write(read(setting.lease().into()), handle.clone(), 8192),
                vec![Ok(BLOCK_BYTES), Ok(BLOCK_BYTES)],
            ),
            (
                "open, read and close",
                Chain::open_read_close(
                    Open::read(setting.place("file")),
                    &slot,
                    setting.lease().into(),
                ),
                vec![Ok(0), Ok(BLOCK_BYTES), Ok(0)],
            ),
            (
                "short, so that the rest is not run",
                Chain::read_then_write(read(vec![0; 1 << 20].into()), handle.clone(), 0),
                vec![Ok(3 * BLOCK_BYTES), Err(Cause::LinkBroken)],
            ),
        ];
        for (case, chain, want) in chains {
            let events = setting.proactor.block_on(tasks.perform_chain(chain));
            let got: Vec<_> =
                events.iter().map(|event| event.result.map_err(|error| error.cause)).collect();
            assert_eq!(got, want, "{name}: {case}");
        }
        assert_eq!(setting.content("file")[8192..][..8], [5, 5, 5, 5, 7, 7, 7, 7], "{name}");
        drop((file, handle, slot));
        tasks.release_files();
        setting.assert_at_rest("all chains have ended");
    }
}

#[test]
fn join_handles_give_what_their_tasks_returned() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let tasks = setting.proactor.initiator();
        let sum = setting.proactor.block_on(async {
            let mut handles = Vec::new();
            for number in 0..100_u64 {
                let mine = tasks.clone();
                let task = async move {
                    mine.sleep(Duration::from_micros(number % 7)).await;
                    number
                };
                handles.push(tasks.spawn(task).unwrap());
            }
            // A handle that is dropped leaves its task running.
            let (seen, mine) = (Rc::new(Cell::new(false)), tasks.clone());
            let flag = Rc::clone(&seen);
            drop(tasks.spawn(async move {
                mine.sleep(Duration::from_micros(1)).await;
                flag.set(true);
            }));
            let mut sum = 0;
            for handle in handles {
                sum += handle.await;
            }
            while !seen.get() {
                yield_now().await;
            }
            sum
        });
        assert_eq!(sum, 4950, "{}", setting.name);
    }
}

#[test]
fn joined_futures_may_borrow_and_end_in_any_order() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, order) = (setting.proactor.initiator(), RefCell::new(Vec::new()));
        let futures = [5, 1, 3].map(|milliseconds| -> Pin<Box<dyn Future<Output = ()> + '_>> {
            let (tasks, order) = (&tasks, &order);
            Box::pin(async move {
                tasks.sleep(Duration::from_millis(milliseconds * 4)).await;
                order.borrow_mut().push(milliseconds);
            })
        });
        setting.proactor.block_on(join_all(futures.into()));
        // Where time is real, all of it may have passed before anyone looks.
        if setting.world.is_none() {
            order.borrow_mut().sort_unstable();
        }
        assert_eq!(*order.borrow(), [1, 3, 5], "{}", setting.name);
        setting.proactor.block_on(join_all(Vec::new()));
    }
}

/// A flag that another thread sets, to be awaited.
#[derive(Clone, Default)]
struct Flag(Arc<Mutex<(bool, Option<Waker>)>>);

impl Flag {
    fn set(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|context| {
            let mut state = self.0.lock().unwrap();
            state.1 = Some(context.waker().clone());
            if state.0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[test]
fn another_thread_wakes_a_task_whatever_is_in_flight() {
    let _hold = machine::shared();
    for is_something_in_flight in [false, true] {
        // The simulated processor has a time of its own, in which no other thread acts.
        for setting in settings(8).into_iter().filter(|setting| setting.world.is_none()) {
            let tasks = setting.proactor.initiator();
            let mut sleep = pin!(wait_in_slot(&tasks, FOR_EVER));
            if is_something_in_flight {
                assert!(poll_once(sleep.as_mut()).is_pending());
            }
            // Often enough to meet every moment between a look at the queue and the wait.
            let (give, take) = mpsc::channel::<Flag>();
            let waker = thread::spawn(move || {
                for (flag, round) in take.into_iter().zip(0_u64..) {
                    if round.is_multiple_of(4) {
                        thread::sleep(Duration::from_micros(round % 300));
                    }
                    flag.set();
                }
            });
            for round in 0..1000 {
                let flag = Flag::default();
                give.send(flag.clone()).unwrap();
                match round % 2 {
                    0 => setting.proactor.block_on(flag.wait()),
                    _ => {
                        let task = tasks.spawn(async move { flag.wait().await }).unwrap();
                        setting.proactor.block_on(task);
                    }
                }
            }
            drop(give);
            waker.join().unwrap();
        }
    }
}

#[test]
fn more_tasks_than_slots_all_complete() {
    let _hold = machine::shared();
    for setting in settings(4) {
        let (file, tasks) = (setting.file("file"), setting.proactor.initiator());
        let done = Rc::new(Cell::new(0));
        let handles: Vec<_> = (0..300)
            .map(|number| {
                let (mine, file, done) = (tasks.clone(), file.clone(), Rc::clone(&done));
                tasks.spawn(async move {
                    for _ in 0..3 {
                        let (result, _) = mine.read_at(&file, vec![0; 16], number).await;
                        assert_eq!(result, Ok(16));
                    }
                    let read = Read {
                        handle: Handle::from(&file),
                        buffer: vec![0; 16].into(),
                        offset_bytes: 0,
                        start: 0,
                        length: 16,
                    };
                    let chain = Chain::with_timeout(read.into(), FOR_EVER);
                    assert_eq!(mine.perform_chain(chain).await[0].result, Ok(16));
                    done.set(done.get() + 1);
                })
            })
            .collect();
        let futures = (0..300).map(|_| -> Pin<Box<dyn Future<Output = ()> + '_>> {
            Box::pin(async { assert_eq!(tasks.read_at(&file, vec![0; 16], 0).await.0, Ok(16)) })
        });
        setting.proactor.block_on(async {
            join_all(futures.collect()).await;
            for handle in handles {
                handle.unwrap().await;
            }
        });
        assert_eq!(done.get(), 300, "{}", setting.name);
        drop(file);
        setting.assert_at_rest("all completed");
    }
}

#[test]
fn tasks_that_go_on_leave_room_for_one_that_waits() {
    let _hold = machine::shared();
    for setting in settings(4) {
        let (tasks, is_done) = (setting.proactor.initiator(), Rc::new(Cell::new(false)));
        let greedy: Vec<_> = (0..8)
            .map(|_| {
                let (mine, is_done) = (tasks.clone(), Rc::clone(&is_done));
                let task = async move {
                    while !is_done.get() {
                        drop(wait_in_slot(&mine, Duration::from_micros(1)).await);
                    }
                };
                tasks.spawn(task).unwrap()
            })
            .collect();
        let mine = tasks.clone();
        let modest =
            tasks.spawn(async move { wait_in_slot(&mine, Duration::from_micros(1)).await });
        setting.proactor.block_on(async {
            assert_eq!(modest.unwrap().await.0, Ok(0));
            is_done.set(true);
            for handle in greedy {
                handle.await;
            }
        });
    }
}

#[test]
fn room_that_a_task_has_no_use_for_goes_to_the_next() {
    let _hold = machine::shared();
    for (case, polls) in [("it has ended", 1), ("it loses interest when it is woken", 2)] {
        for setting in settings(4) {
            let tasks = setting.proactor.initiator();
            let mut sleeps = [20, 3_600_000, 3_600_000, 3_600_000].map(|milliseconds| {
                let mine = tasks.clone();
                Box::pin(
                    async move { wait_in_slot(&mine, Duration::from_millis(milliseconds)).await },
                )
            });
            for sleep in &mut sleeps {
                assert!(poll_once(sleep.as_mut()).is_pending(), "{case}");
            }
            // More of them than there is room for.
            let fickle: Vec<_> = (0..6)
                .map(|_| {
                    let (mine, mut left) = (tasks.clone(), polls);
                    let fickle = async move {
                        let mut sleep = Box::pin(wait_in_slot(&mine, Duration::from_secs(1)));
                        poll_fn(|context| {
                            left -= 1;
                            let _ = sleep.as_mut().poll(context);
                            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
                        })
                        .await;
                    };
                    tasks.spawn(fickle).unwrap()
                })
                .collect();
            let mine = tasks.clone();
            let next = async move { wait_in_slot(&mine, Duration::from_micros(1)).await };
            let next = tasks.spawn(next).unwrap();
            setting.proactor.block_on(async {
                assert_eq!(next.await.0, Ok(0));
                for fickle in fickle {
                    fickle.await;
                }
            });
        }
    }
}

#[test]
fn a_turn_runs_tasks_too() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, is_done) = (setting.proactor.initiator(), Rc::new(Cell::new(false)));
        let (mine, flag) = (tasks.clone(), Rc::clone(&is_done));
        let task = async move {
            for _ in 0..10 {
                mine.sleep(Duration::from_micros(10)).await;
            }
            flag.set(true);
        };
        drop(tasks.spawn(task).unwrap());
        while !is_done.get() {
            setting.proactor.turn(FOR_EVER).unwrap();
        }
    }
}

#[test]
fn a_task_that_an_event_wakes_does_not_ring_the_bell() {
    fn writes() -> u64 {
        let account = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        let line = account.lines().find_map(|line| line.strip_prefix("syscw: "));
        line.expect("proc_pid_io(5)").parse().unwrap()
    }

    let _hold = machine::shared();
    for setting in settings(8).into_iter().filter(|setting| setting.name == "io_uring") {
        let tasks = setting.proactor.initiator();
        let before = writes();
        setting.proactor.block_on(async {
            for _ in 0..1000 {
                assert_eq!(tasks.perform(Operation::Nop).await.0, Ok(0));
            }
        });
        assert!(writes() - before < 10, "a write to the bell is a system call a turn");
    }
}

#[test]
fn sleep_passes_in_virtual_time() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let (tasks, order) = (setting.proactor.initiator(), Rc::new(RefCell::new(Vec::new())));
    let before = tasks.now();
    setting.proactor.block_on(async {
        let mut handles = Vec::new();
        for hours in [3, 1, 2] {
            let (mine, order) = (tasks.clone(), Rc::clone(&order));
            let task = async move {
                mine.sleep(FOR_EVER * hours).await;
                order.borrow_mut().push(hours);
            };
            handles.push(tasks.spawn(task).unwrap());
        }
        for handle in handles {
            handle.await;
        }
    });
    let passed = tasks.now().since(before);
    assert!(passed >= 3 * FOR_EVER && passed < 4 * FOR_EVER, "{passed:?}");
    assert_eq!(*order.borrow(), [1, 2, 3]);
}

#[test]
fn dropping_a_proactor_drops_its_tasks_and_handlers_and_drains() {
    let _hold = machine::shared();
    for setting in settings(64) {
        let (file, tasks) = (setting.file("file"), setting.proactor.initiator());
        let (mine, lease) = (tasks.clone(), setting.lease());
        let sleeper = tasks.spawn(async move {
            mine.sleep(FOR_EVER).await;
            drop(lease);
        });
        let (mine, handler) = (tasks.clone(), Reader::new(&setting, &file, 4, u32::MAX));
        let runner = tasks.spawn(async move { drop(mine.run(handler).await) });
        for _ in 0..5 {
            setting.proactor.turn(Duration::ZERO).unwrap();
        }
        let Setting { name, proactor, pool, directory, world, _scratch } = setting;
        assert!(pool.available() < BLOCKS as usize, "{name}");
        drop((file, tasks, sleeper, runner));
        drop(proactor);
        assert_eq!(pool.available(), BLOCKS as usize, "{name}: a lease is missing");
        assert_eq!(open_files(world.as_ref(), &directory), 0, "{name}: a file is open");
    }
}

/// Polls a future a few times, then loses interest in it.
async fn disturb(future: impl Future<Output = ()>, polls: u64, forgets: bool) -> bool {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if polled.is_ready() {
            return false;
        }
        yield_now().await;
    }
    if forgets {
        std::mem::forget(future);
    }
    forgets
}

/// Tasks that do random things, and lose interest at random moments.
struct Scenario {
    pool: BufferPool,
    random: RefCell<Random>,
    may_forget: bool,
    has_forgotten: Cell<bool>,
}

impl Scenario {
    fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    async fn act(self: Rc<Self>, tasks: TaskInitiator, level: u32) {
        for _ in 0..self.below(6) {
            let step = Box::pin(Rc::clone(&self).step(tasks.clone(), level));
            match self.below(3) {
                0 => step.await,
                _ => {
                    let forgets = self.may_forget && self.below(3) == 0;
                    let has_forgotten = disturb(step, self.below(8), forgets).await;
                    self.has_forgotten.set(self.has_forgotten.get() || has_forgotten);
                }
            }
        }
    }

    async fn step(self: Rc<Self>, tasks: TaskInitiator, level: u32) {
        let name = match self.below(3) {
            0 => "/scratch/a",
            1 => "/scratch/b",
            _ => "/scratch/none",
        };
        let open = Open::new(Place::path(name).unwrap(), libc::O_RDWR);
        let duration = Duration::from_micros(self.below(200));
        match self.below(8) {
            0 => tasks.sleep(duration).await,
            1 if level > 0 => {
                let below = Rc::clone(&self).act(tasks.clone(), level - 1);
                let below: Pin<Box<dyn Future<Output = ()>>> = Box::pin(below);
                let handle = tasks.spawn(below).unwrap();
                if self.below(3) > 0 {
                    handle.await;
                }
            }
            2 => {
                let (one, other) = (duration * 2, duration);
                let tasks = &tasks;
                let sleeps = [one, other].map(|it| -> Pin<Box<dyn Future<Output = ()> + '_>> {
                    Box::pin(tasks.sleep(it))
                });
                join_all(sleeps.into()).await;
            }
            kind => {
                let Ok(file) = tasks.open(open).await else { return };
                let Some(lease) = self.pool.lease() else { return };
                self.use_file(&tasks, kind, &file, lease, duration).await;
            }
        }
    }

    async fn use_file(
        &self,
        tasks: &TaskInitiator,
        kind: u64,
        file: &File,
        lease: Lease,
        duration: Duration,
    ) {
        let (handle, offset_bytes) = (Handle::from(file), self.below(9000));
        let length = BLOCK_BYTES;
        match kind {
            3 => drop(tasks.write_at(file, lease, length, offset_bytes).await),
            4 => {
                let buffer = lease.into();
                let read = Read { handle: handle.clone(), buffer, offset_bytes, start: 0, length };
                let chain = match self.below(2) {
                    0 => Chain::read_then_write(read, handle, 0),
                    _ => Chain::with_timeout(read.into(), duration),
                };
                drop(tasks.perform_chain(chain).await);
            }
            5 => {
                drop(lease);
                let blocks = u32::try_from(self.pool.available()).unwrap().min(3);
                let reader = Reader {
                    file: file.clone(),
                    pool: self.pool.clone(),
                    blocks,
                    left: 2 * blocks,
                    events: 0,
                    panics_at: None,
                    fails_at: (self.below(3) == 0)
                        .then(|| 1 + u32::try_from(self.below(4)).unwrap()),
                    keeps: Vec::new(),
                    in_flight: 0,
                };
                drop(tasks.run(reader).await);
            }
            _ => drop(tasks.read_at(file, lease, offset_bytes).await),
        }
    }
}

#[test]
fn whatever_tasks_lose_interest_in_ends_and_comes_back() {
    let mut forgotten = 0;
    // A lease that is forgotten keeps its pool for ever: one for all who may forget.
    let lost = BufferPool::unregistered(4096, BLOCK_BYTES).unwrap();
    let seeds = std::env::var("UCP_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = seeds.map_or(0..SCENARIOS, |seed| seed..seed + 1);
    for seed in seeds {
        let mut random = Random::new(seed);
        let plan = if seed % 2 == 0 { FaultPlan::none() } else { FaultPlan::swarm(seed) };
        let capacity = 4 + u32::try_from(random.below(8)).unwrap();
        let setting = in_memory(seed, capacity, plan);
        setting.add("a", &[1; 10_000]);
        setting.add("b", &[2; 100]);
        let (may_forget, is_cut_short) = (random.once_in(4), random.once_in(4));
        let pool = if may_forget { lost.clone() } else { setting.pool.clone() };
        let (has_forgotten, available) = (Cell::new(false), pool.available());
        let turns = random.below(100);
        let scenario =
            Rc::new(Scenario { pool, random: RefCell::new(random), may_forget, has_forgotten });
        let tasks = setting.proactor.initiator();
        let handles: Vec<_> = (0..4)
            .map(|_| tasks.spawn(Rc::clone(&scenario).act(tasks.clone(), 3)).unwrap())
            .collect();
        drop(tasks);
        let world = setting.world.clone().unwrap();
        if is_cut_short {
            for _ in 0..turns {
                setting.proactor.turn(Duration::from_micros(5)).unwrap();
            }
            drop(handles);
        } else {
            setting.proactor.block_on(async {
                for handle in handles {
                    handle.await;
                }
            });
            setting.drain();
            assert_eq!(setting.proactor.in_flight(), 0, "seed {seed}");
        }
        if scenario.has_forgotten.get() {
            forgotten += 1;
            continue;
        }
        if is_cut_short {
            drop(setting);
        }
        assert_eq!(world.open_files(), [""; 0], "seed {seed}: a file is open");
        assert_eq!(scenario.pool.available(), available, "seed {seed}: a lease is missing");
    }
    println!("{forgotten} scenarios forgot something");
}
