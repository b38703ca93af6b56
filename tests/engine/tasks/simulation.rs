//! Random programs of tasks in simulated worlds: whatever is dropped, forgotten, cancelled, or panics,
//! at whichever await point, every operation that was accepted ends once and nothing is left.
//!
//! `UCP_SEED=17` runs one seed; `UCP_SIMULATIONS=1000000` runs more.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use nix::libc;
use ucp_engine::buffer::{BufferPool, Lease};
use ucp_engine::operation::*;
use ucp_engine::proactor::{
    Backoff, Either, JoinHandle, Receiver, Semaphore, Sender, TaskInitiator, channel, join, race,
    select, yield_now,
};
use ucp_engine::processor::{FaultPlan, POISON};
use ucp_engine::random::Random;
use ucp_engine::{CompletionEvent, CompletionHandler, Error, Initiator, Operation};

use crate::setting::{BLOCK_BYTES, Setting, in_memory, wait_in_slot};

/// How many programs the suite simulates, unless `UCP_SIMULATIONS` asks for another number.
const SIMULATIONS: u64 = 10_000;

const PERMITS: usize = 3;
const IN_FILE: u8 = 1;
const WRITTEN: u8 = 9;

/// What a program panics with: nothing prints it.
struct AsTheTestWants;

/// What tasks do at random, and lose interest in at random.
struct Program {
    tasks: TaskInitiator,
    pool: BufferPool,
    random: RefCell<Random>,
    limit: Semaphore,
    sender: Sender<u64>,
    receiver: RefCell<Option<Receiver<u64>>>,
    /// Items that went into the channel, less those that came out.
    in_channel: Cell<i64>,
    may_forget: bool,
    may_panic: bool,
    happened: RefCell<BTreeMap<&'static str, u64>>,
}

/// A part of a program.
type Step<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Program {
    fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    fn note(&self, what: &'static str) {
        *self.happened.borrow_mut().entry(what).or_default() += 1;
    }

    fn has_forgotten(&self) -> bool {
        self.happened.borrow().contains_key("forgotten")
    }

    fn moment(&self) -> Duration {
        Duration::from_micros(self.below(200))
    }

    /// Some steps, one after the other, each with interest in it or not.
    fn steps(self: Rc<Self>, level: u32) -> Step<'static> {
        Box::pin(async move {
            for _ in 0..self.below(4) {
                let step = Rc::clone(&self).step(level);
                self.disturb(step).await;
                if self.may_panic && self.below(40) == 0 {
                    self.note("panicked");
                    resume_unwind(Box::new(AsTheTestWants));
                }
            }
        })
    }

    /// Goes on with a step to its end, or for some polls.
    async fn disturb(&self, mut step: Step<'_>) {
        if self.below(2) == 0 {
            return step.await;
        }
        for _ in 0..self.below(8) {
            let polled = poll_fn(|context| Poll::Ready(step.as_mut().poll(context))).await;
            if polled.is_ready() {
                return;
            }
            yield_now().await;
        }
        if self.may_forget && self.below(3) == 0 {
            self.note("forgotten");
            std::mem::forget(step);
        } else {
            self.note("dropped");
        }
    }

    fn step(self: Rc<Self>, level: u32) -> Step<'static> {
        let kinds = if level == 0 { 7 } else { 14 };
        match self.below(kinds) {
            0 => Box::pin(self.tasks.sleep(self.moment())),
            1..=3 => Box::pin(async move { self.use_a_file().await }),
            4 => Box::pin(async move { self.cancel_an_operation().await }),
            5 => Box::pin(async move { self.use_the_channel().await }),
            6 => Box::pin(async move { self.offload().await }),
            7 => Box::pin(async move {
                let [one, other] = [(), ()].map(|()| Rc::clone(&self).steps(level - 1));
                join(one, other).await;
            }),
            8 => Box::pin(async move {
                let [one, other] = [(), ()].map(|()| Rc::clone(&self).steps(level - 1));
                race(one, other).await;
            }),
            9 => Box::pin(async move {
                let (moment, steps) = (self.moment(), Rc::clone(&self).steps(level - 1));
                if self.tasks.timeout(moment, steps).await.is_err() {
                    self.note("timed out");
                }
            }),
            10 => Box::pin(async move { self.run_a_scope(level).await }),
            11 => Box::pin(async move {
                let handle = self.tasks.spawn(Rc::clone(&self).steps(level - 1)).unwrap();
                self.wait_for(&handle).await;
            }),
            12 => Box::pin(async move {
                let wanted = 1 + usize::try_from(self.below(2)).unwrap();
                let acquired = self.tasks.timeout(self.moment(), self.limit.acquire(wanted)).await;
                if let Ok(_permit) = acquired {
                    Rc::clone(&self).steps(level - 1).await;
                }
            }),
            _ => Box::pin(async move { self.retry(level).await }),
        }
    }

    /// Waits for a task for a while: it may have panicked, or wait for what was forgotten.
    async fn wait_for<T>(&self, handle: &JoinHandle<T>) {
        for _ in 0..self.below(20) {
            if handle.is_finished() {
                return;
            }
            self.tasks.sleep(self.moment()).await;
        }
    }

    async fn use_a_file(&self) {
        let name = ["/scratch/a", "/scratch/b", "/scratch/none"];
        let name = name[usize::try_from(self.below(3)).unwrap()];
        let open = Open::new(Place::path(name).unwrap(), libc::O_RDWR);
        let Ok(file) = self.tasks.open(open).await else { return };
        let Some(mut lease) = self.pool.lease() else { return };
        let (handle, offset_bytes) = (Handle::from(&file), self.below(9000));
        match self.below(5) {
            0 => {
                lease.fill(WRITTEN);
                drop(self.tasks.write_at(&file, lease, BLOCK_BYTES, offset_bytes).await);
            }
            1 => {
                let (buffer, length) = (lease.into(), BLOCK_BYTES);
                let read = Read { handle: handle.clone(), buffer, offset_bytes, start: 0, length };
                let chain = match self.below(2) {
                    0 => Chain::read_then_write(read, handle, 0),
                    _ => Chain::with_timeout(read.into(), self.moment()),
                };
                drop(self.tasks.perform_chain(chain).await);
            }
            2 => {
                let reads = Reads { handle, lease: Some(lease), left: 1 + self.below(4) };
                drop(self.tasks.run(reads).await);
            }
            _ => {
                let (result, buffer) = self.tasks.read_at(&file, lease, offset_bytes).await;
                let length = result.unwrap_or(0) as usize;
                // Or a hole, where it was written behind the end.
                let is_whole = |byte: &u8| [0, IN_FILE, WRITTEN].contains(byte);
                assert!(buffer.as_slice()[..length].iter().all(is_whole), "what was read");
                assert!(buffer.as_slice().iter().all(|byte| *byte != POISON), "not yet read");
            }
        }
    }

    async fn cancel_an_operation(&self) {
        let operation = match self.below(2) {
            0 => wait_in_slot(&self.tasks, self.moment()),
            _ => {
                let subject = Subject::Place(Place::path("/scratch/a").unwrap());
                self.tasks.perform(Statx { subject, follow: true, status: None }.into())
            }
        };
        let patience = self.moment() / 8;
        let Either::Second((mut operation, ())) =
            select(operation, self.tasks.sleep(patience)).await
        else {
            return;
        };
        operation.cancel();
        match operation.await {
            (Ok(_), Operation::Statx(statx)) => {
                assert!(statx.status.is_some(), "a success brings what it was asked for");
                self.note("cancelled too late");
            }
            (Ok(_), _) => {}
            (Err(_), _) => self.note("cancelled"),
        }
    }

    async fn use_the_channel(&self) {
        if self.below(2) == 0 {
            let item = self.below(100);
            if self.tasks.timeout(self.moment(), self.sender.send(item)).await == Ok(Ok(())) {
                self.in_channel.set(self.in_channel.get() + 1);
            }
            return;
        }
        // One at a time receives; whoever is forgotten at it takes the receiver along.
        let Some(receiver) = self.receiver.take() else { return };
        let mut lent = Lent { receiver: Some(receiver), place: &self.receiver };
        let receive = lent.receiver.as_mut().expect("it was just put there").receive();
        if let Ok(Some(_)) = self.tasks.timeout(self.moment(), receive).await {
            self.in_channel.set(self.in_channel.get() - 1);
        }
    }

    async fn offload(&self) {
        let panics = self.below(4) == 0;
        let closure = move || if panics { resume_unwind(Box::new(AsTheTestWants)) } else { 7 };
        match self.tasks.offload(closure).await {
            Ok(number) => assert_eq!(number, 7),
            Err(panicked) => assert!(panics && panicked.message().is_none()),
        }
    }

    async fn run_a_scope(self: Rc<Self>, level: u32) {
        let scope = match self.below(2) {
            0 => self.tasks.scope(),
            _ => self.tasks.scope_for(self.moment()),
        };
        let handle = scope.spawn(Rc::clone(&self).steps(level - 1)).unwrap();
        let stopper = scope.stopper();
        let stop = async {
            self.tasks.sleep(self.moment()).await;
            stopper.cancel();
        };
        let (outcome, ()) = join(scope.run(Rc::clone(&self).steps(level - 1)), stop).await;
        if outcome.is_err() {
            self.note("stopped");
        }
        // What was forgotten in it never leaves it.
        let patience = Duration::from_secs(10);
        let has_ended = self.tasks.timeout(patience, scope.ended()).await.is_ok();
        assert!(has_ended || self.has_forgotten(), "a scope that was stopped ends");
        assert!(handle.is_finished() || !has_ended);
    }

    async fn retry(self: Rc<Self>, level: u32) {
        let waits = Backoff::new(self.moment(), 3, self.below(1000));
        let attempt = async || {
            Rc::clone(&self).steps(level - 1).await;
            if self.below(2) == 0 { Ok(()) } else { Err(self.below(3)) }
        };
        let _ = self.tasks.retry(waits, |error| *error > 0, attempt).await;
    }
}

/// The receiver, while one uses it.
struct Lent<'a> {
    receiver: Option<Receiver<u64>>,
    place: &'a RefCell<Option<Receiver<u64>>>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        *self.place.borrow_mut() = self.receiver.take();
    }
}

/// A handler that reads the same block so many times.
struct Reads {
    handle: Handle,
    lease: Option<Lease>,
    left: u64,
}

impl CompletionHandler for Reads {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let (handle, length) = (self.handle.clone(), BLOCK_BYTES);
        let read = Read { handle, buffer: lease.into(), offset_bytes: 0, start: 0, length };
        self.left -= 1;
        // Where there is no room, it stops before it is done.
        drop(initiator.start(read.into(), 0));
        Ok(())
    }

    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let Some(Operation::Read(read)) = event.into_operation() else { panic!("it was a read") };
        if self.left > 0 {
            self.left -= 1;
            drop(initiator.start(read.into(), 0));
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.left == 0
    }
}

/// Runs until all is over, whatever panics.
fn run_to_the_end(setting: &Setting, handles: &[JoinHandle<()>]) {
    let tasks = setting.proactor.initiator();
    let all_over = || async {
        let is_over = || handles.iter().all(JoinHandle::is_finished);
        while !(is_over() && setting.proactor.stats().tasks == 0) {
            tasks.sleep(Duration::from_micros(50)).await;
        }
    };
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| setting.proactor.block_on(all_over())))
    {
        if !panic.is::<AsTheTestWants>() {
            resume_unwind(panic);
        }
    }
    // What was left alone ends as well.
    while setting.proactor.in_flight() > 0 {
        setting.proactor.turn(Duration::from_millis(10)).unwrap();
    }
}

/// Plays the program of a seed, and holds the rules against it. Returns what happened.
fn simulate(seed: u64, lost: &BufferPool) -> BTreeMap<&'static str, u64> {
    let mut random = Random::new(seed);
    let plan = if seed.is_multiple_of(2) { FaultPlan::none() } else { FaultPlan::swarm(seed) };
    let capacity = 4 + u32::try_from(random.below(8)).unwrap();
    let setting = in_memory(seed, capacity, plan);
    setting.add("a", &[IN_FILE; 10_000]);
    setting.add("b", &[IN_FILE; 100]);
    let (may_forget, may_panic, is_cut_short) =
        (random.once_in(4), random.once_in(3), random.once_in(4));
    let pool = if may_forget { lost.clone() } else { setting.pool.clone() };
    let (available, turns) = (pool.available(), random.below(100));
    let (sender, receiver) = channel(1 + usize::try_from(random.below(3)).unwrap());
    let program = Rc::new(Program {
        tasks: setting.proactor.initiator(),
        pool,
        random: RefCell::new(random),
        limit: Semaphore::new(PERMITS),
        sender,
        receiver: RefCell::new(Some(receiver)),
        in_channel: Cell::new(0),
        may_forget,
        may_panic,
        happened: RefCell::default(),
    });
    let handles: Vec<_> =
        (0..3).map(|_| program.tasks.spawn(Rc::clone(&program).steps(3)).unwrap()).collect();
    let world = setting.world.clone().unwrap();
    if is_cut_short {
        for _ in 0..turns {
            let turn = || setting.proactor.turn(Duration::from_micros(5)).unwrap();
            if catch_unwind(AssertUnwindSafe(turn))
                .is_err_and(|panic| !panic.is::<AsTheTestWants>())
            {
                panic!("seed {seed}");
            }
        }
        program.note("cut short");
        drop((handles, setting));
    } else {
        run_to_the_end(&setting, &handles);
        let stats = setting.proactor.stats();
        assert_eq!(stats.operations_started, stats.operations_ended, "seed {seed}: {stats:?}");
        assert_eq!((stats.in_flight, stats.tasks), (0, 0), "seed {seed}: {stats:?}");
        assert!(stats.alarms == 0 || program.has_forgotten(), "seed {seed}: {stats:?}");
        program.note("complete");
    }
    if program.has_forgotten() {
        return program.happened.take();
    }
    let program = Rc::into_inner(program).unwrap_or_else(|| panic!("seed {seed}: a task is left"));
    // The last that has the processor, if the proactor is gone.
    drop(program.tasks);
    assert_eq!(world.open_files(), [""; 0], "seed {seed}: a file is open");
    assert_eq!(program.pool.available(), available, "seed {seed}: a lease is missing");
    assert_eq!(program.limit.available(), PERMITS, "seed {seed}: a permit is missing");
    let mut receiver = program.receiver.take().expect("it was given back");
    let left = std::iter::from_fn(|| receiver.try_receive()).count();
    assert_eq!(program.in_channel.get(), i64::try_from(left).unwrap(), "seed {seed}: an item");
    program.happened.into_inner()
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

#[test]
fn programs_of_tasks_leave_nothing_whatever_they_lose_interest_in() {
    // A lease that is forgotten keeps its pool for ever: one for all who may forget.
    let lost = BufferPool::unregistered(4096, BLOCK_BYTES).unwrap();
    let seeds = match variable("UCP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("UCP_SIMULATIONS").unwrap_or(SIMULATIONS),
    };
    let count = seeds.end - seeds.start;
    let mut total: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        for (what, times) in simulate(seed, &lost) {
            *total.entry(what).or_default() += times;
        }
    }
    for (what, times) in &total {
        println!("{times:>9}  {what}");
    }
    for what in [
        "dropped",
        "forgotten",
        "panicked",
        "cancelled",
        "cancelled too late",
        "timed out",
        "stopped",
        "cut short",
        "complete",
    ] {
        assert!(count == 1 || total.contains_key(what), "nothing was {what}");
    }
}
