//! The proactor: waits for completion events and dispatches each to the handler or the task that
//! started its operation.
//!
//! ```text
//! task or handler --start--> Initiator --accept--> processor
//!        ^                                             | submit_and_wait: one enter per turn
//!        +---- dispatch <---- queue of events <--------+
//! ```
//!
//! Handlers are primitive. A task is an adapter over the same slots: its operations carry the token
//! of handler 0, and their events wake it. Events are taken from the queue one by one, when their
//! slot is free already: a handler that panics, or that starts more, leaves everything consistent.

mod backoff;
mod channel;
mod combine;
mod executor;
mod guest;
mod handler;
mod job;
mod offload;
mod parts;
mod permits;
mod scope;
mod semaphore;
mod shard;
mod socket;
mod stats;
mod task;
mod time;
mod timers;
mod trace;
mod wait;
mod watch;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

pub use backoff::Backoff;
pub use channel::{Closed, Receiver, Send, Sender, TrySendError, channel};
pub use combine::{Either, join, join_all, race, select, yield_now};
use executor::Tasks;
use guest::Guest;
pub use guest::Pollable;
use handler::Handlers;
pub use handler::{CompletionHandler, Initiator};
pub use job::Job;
pub use offload::Panicked;
pub use scope::{Scope, Stopped, Stopper};
pub use semaphore::{Acquire, Permit, Semaphore};
pub(crate) use shard::open_files_max;
pub use shard::{Shards, Unfinished, WorkQueue};
pub use socket::{Connections, Pieces};
use stats::Counts;
pub use stats::Stats;
pub use task::{JoinHandle, TaskInitiator};
pub use time::{Elapsed, Idle};
pub use timers::Sleep;
use timers::Timers;
pub use wait::Perform;
use wait::Waits;
pub use watch::{SlowHandler, Watch};

use crate::error::Error;
use crate::limits::SLOTS_DEFAULT;
use crate::operation::{
    Chain, CompletionEvent, CompletionEventQueue, Operation, OperationError, OperationId, Token,
};
use crate::processor::{
    self, Capabilities, Configuration, EngineKind, FaultPlan, Full, OperationProcessor,
    SimulatedProcessor, SimulatedWorld,
};
use crate::units::Moment;

/// One event loop over one processor, on one thread.
pub struct Proactor {
    core: Rc<Core>,
}

/// What handlers, tasks and the loop share.
struct Core {
    handlers: Handlers,
    tasks: Tasks,
    waits: Waits,
    timers: Timers,
    /// Work for other threads.
    pool: offload::Pool,
    /// How many tasks wait for other threads that work for them.
    outside: Cell<u32>,
    /// The scope and the job of what runs now.
    scope: RefCell<Option<Rc<scope::Node>>>,
    job: RefCell<Option<Rc<job::Inner>>>,
    counts: Counts,
    watch: OnceCell<Watch>,
    /// Something was begun or cancelled that the processor has not submitted.
    has_news: Cell<bool>,
    /// There if the loop is another program's.
    guest: OnceCell<Rc<Guest>>,
    events: RefCell<CompletionEventQueue>,
    /// Dropped last: what it still has in flight is drained then.
    processor: RefCell<Box<dyn OperationProcessor>>,
}

/// The handler number that tasks' operations carry.
const TASKS: u32 = 0;

impl Proactor {
    /// Starts the processor that is wanted, or that works, and a proactor over it.
    ///
    /// # Errors
    ///
    /// Only where io_uring is demanded and not to be had.
    pub fn start(configuration: &Configuration) -> Result<Self, Error> {
        processor::start(configuration).map(Self::new)
    }

    /// A proactor over a processor.
    #[must_use]
    pub fn new(processor: Box<dyn OperationProcessor>) -> Self {
        let core = Core {
            handlers: Handlers::default(),
            tasks: Tasks::new(processor.waker()),
            waits: Waits::default(),
            timers: Timers::default(),
            pool: offload::Pool::default(),
            outside: Cell::new(0),
            scope: RefCell::default(),
            job: RefCell::default(),
            counts: Counts::default(),
            watch: OnceCell::new(),
            has_news: Cell::new(false),
            guest: OnceCell::new(),
            events: RefCell::default(),
            processor: RefCell::new(processor),
        };
        Self { core: Rc::new(core) }
    }

    /// A proactor over files in memory and a clock of its own, for tests: nothing goes wrong, and
    /// what happens when is decided by the seed. When all tasks wait, the clock goes forward to
    /// whatever comes next, so that nothing sleeps. With faults:
    /// [`crate::processor::SimulatedProcessor`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use ucp_engine::{Proactor, processor::SimulatedWorld};
    ///
    /// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
    /// let tasks = proactor.initiator();
    /// let start = tasks.now();
    /// proactor.block_on(tasks.sleep(Duration::from_secs(3600))); // takes no time
    /// assert_eq!(tasks.now().since(start).as_secs(), 3600);
    /// ```
    #[must_use]
    pub fn simulated(seed: u64, world: &SimulatedWorld) -> Self {
        let plan = FaultPlan::none();
        Self::new(Box::new(SimulatedProcessor::new(seed, SLOTS_DEFAULT, world, plan)))
    }

    /// What tasks start operations with.
    #[must_use]
    pub fn initiator(&self) -> TaskInitiator {
        TaskInitiator::new(Rc::clone(&self.core))
    }

    /// What runs, and why.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.core.processor.borrow().capabilities().clone()
    }

    /// Runs a future, and everything that was spawned, until the future is done.
    ///
    /// # Panics
    ///
    /// * If it is called from one of the proactor's own tasks or handlers.
    /// * If the processor is broken for good.
    /// * On a simulated processor, if the future waits for something that nobody will ever do.
    /// * With whatever a task or a handler panics with. What panicked is not called again; the
    ///   proactor can be used further.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.core.block_on(future)
    }

    /// Runs a future as [`Proactor::block_on`] does, for those who can go on without this proactor.
    ///
    /// # Errors
    ///
    /// If the processor is broken for good: then the future is gone, and the proactor of no more use.
    ///
    /// # Panics
    ///
    /// As [`Proactor::block_on`], but for a processor that is broken.
    pub fn try_block_on<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        self.core.try_block_on(future)
    }

    /// Runs one handler until it is finished and nothing of it is in flight.
    ///
    /// # Errors
    ///
    /// What the handler fails with.
    ///
    /// # Panics
    ///
    /// As [`Proactor::block_on`].
    pub fn run<H: CompletionHandler + 'static>(&self, handler: H) -> (H, Result<(), Error>) {
        self.block_on(self.initiator().run(handler))
    }

    /// Runs one handler as [`Proactor::run`] does, for those who can go on without this proactor.
    ///
    /// # Errors
    ///
    /// If the processor is broken for good: then the handler is gone, and the proactor of no more
    /// use. What the handler itself fails with comes back with it.
    ///
    /// # Panics
    ///
    /// As [`Proactor::block_on`], but for a processor that is broken.
    pub fn try_run<H: CompletionHandler + 'static>(
        &self,
        handler: H,
    ) -> Result<(H, Result<(), Error>), Error> {
        self.core.try_block_on(self.initiator().run(handler))
    }

    /// Runs the tasks that can go on, and dispatches what has completed. If there is neither, waits
    /// up to `patience` for something that is in flight, asleep or offloaded. For programs that have
    /// a loop of their own; see [`Proactor::pollable`].
    ///
    /// # Errors
    ///
    /// Only if the processor is broken for good.
    ///
    /// # Panics
    ///
    /// As [`Proactor::block_on`].
    pub fn turn(&self, patience: Duration) -> Result<(), Error> {
        let _running = self.core.tasks.enter();
        if let (Some(guest), true) = (self.core.guest.get(), patience.is_zero()) {
            return self.core.turn_as_guest(guest);
        }
        self.core.run_ready_tasks();
        let deadline = self.core.now() + patience;
        self.core.turn(!patience.is_zero(), Some(deadline))
    }

    /// Operations that were started and have not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.core.processor.borrow().in_flight()
    }

    /// What it has done and is doing, in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Sees handlers and tasks that take longer than `threshold` a call: counts and names them, tells
    /// `tracing`, and lets other threads ask whether one blocks the loop. The first threshold stays.
    pub fn watch(&self, threshold: Duration) -> Watch {
        self.core.watch.get_or_init(|| Watch::new(threshold)).clone()
    }
}

impl Drop for Proactor {
    /// Drops the tasks and handlers that are not done. Each of them may own the core, which owns
    /// them: nobody else would ever end that, and the processor would never be drained.
    fn drop(&mut self) {
        self.core.tasks.clear();
        self.core.handlers.clear();
    }
}

impl Core {
    /// Submits what was begun, waits if it may and must, and lets happen what follows.
    fn turn(&self, may_wait: bool, deadline: Option<Moment>) -> Result<(), Error> {
        // Again, because who was woken in the last turn may have had no use for the room.
        self.wake_for_room();
        if self.has_in_flight() || self.guest.get().is_some() {
            self.gather(may_wait, deadline)?;
        } else if may_wait && (deadline.is_none() || self.expects_something()) {
            self.rest(deadline);
        }
        self.ring_alarms();
        // Before those that the events wake: they had their turn.
        self.wake_for_room();
        loop {
            let event = self.events.borrow_mut().pop();
            let Some(event) = event else { break };
            self.dispatch(event);
        }
        Ok(())
    }

    /// Has the processor work, and waits for what it has done, or for the next alarm.
    fn gather(&self, may_wait: bool, deadline: Option<Moment>) -> Result<(), Error> {
        let mut processor = self.processor.borrow_mut();
        let mut events = self.events.borrow_mut();
        self.counts.see_in_flight(processor.in_flight());
        self.has_news.set(false);
        let is_waiting = may_wait && events.is_empty() && self.tasks.fall_asleep();
        let until = [deadline, self.timers.next()].into_iter().flatten().min();
        let waited = processor.submit_and_wait(is_waiting.into(), until, &mut events);
        // Before anything is dispatched: to wake a task from here need not end a wait.
        self.tasks.wake_up();
        waited
    }

    /// Nothing is in flight: unless a task can go on, only time or another thread can wake one.
    fn rest(&self, deadline: Option<Moment>) {
        if !self.tasks.are_waiting() {
            return;
        }
        let until = [deadline, self.timers.next()].into_iter().flatten().min();
        if let Some(until) = until
            && self.processor.borrow_mut().skip_to(until)
        {
            return;
        }
        let is_hopeless = until.is_none() && self.engine() == EngineKind::Simulated;
        assert!(!is_hopeless, "a task waits for something that nobody will ever do");
        self.tasks.park(until.map(|until| move || until.since(self.now())));
    }

    fn has_in_flight(&self) -> bool {
        self.processor.borrow().in_flight() > 0 || !self.events.borrow().is_empty()
    }

    /// Whether time or another thread is going to wake a task.
    fn expects_something(&self) -> bool {
        !self.timers.is_empty() || self.outside.get() > 0
    }

    /// Wakes who may find room, until one of them goes on: the others have ended meanwhile.
    fn wake_for_room(&self) {
        if self.waits.is_nobody_waiting_for_room() {
            return;
        }
        let in_flight = self.processor.borrow().in_flight();
        while self.waits.wake_for_room(in_flight) && self.tasks.are_waiting() {}
        // Before those that events wake from here on.
        self.tasks.collect();
    }

    fn dispatch(&self, event: CompletionEvent) {
        self.counts.on_complete(&event);
        match event.token.handler {
            TASKS => self.waits.on_complete(event, &self.tasks),
            _ => self.handlers.on_complete(event, self),
        }
    }

    /// Has the processor take an operation.
    #[inline]
    fn accept(
        &self,
        operation: Operation,
        token: Token,
        job: u64,
    ) -> Result<OperationId, Full<Operation>> {
        let begun = trace::Begun::new(&operation);
        let accepted = self.processor.borrow_mut().accept(operation, token);
        self.account(accepted, 1, begun, job)
    }

    fn accept_beside(
        &self,
        operation: Operation,
        token: Token,
        job: u64,
    ) -> Result<OperationId, Full<Operation>> {
        let begun = trace::Begun::new(&operation);
        let accepted = self.processor.borrow_mut().accept_beside(operation, token);
        self.account(accepted, 1, begun, job)
    }

    /// Has the processor take a chain. What is told of it is told of its first member.
    fn accept_chain(
        &self,
        chain: Chain,
        token: Token,
        job: u64,
    ) -> Result<OperationId, Full<Chain>> {
        let members = u64::try_from(chain.length()).expect("a chain is short");
        let begun = trace::Begun::of_chain();
        let accepted = self.processor.borrow_mut().accept_chain(chain, token);
        self.account(accepted, members, begun, job)
    }

    fn accept_chain_beside(
        &self,
        chain: Chain,
        token: Token,
        job: u64,
    ) -> Result<OperationId, Full<Chain>> {
        let members = u64::try_from(chain.length()).expect("a chain is short");
        let begun = trace::Begun::of_chain();
        let accepted = self.processor.borrow_mut().accept_chain_beside(chain, token);
        self.account(accepted, members, begun, job)
    }

    /// Performs an operation in the caller's turn, where the processor does so.
    #[inline]
    fn perform_inline(&self, operation: &mut Operation) -> Option<Result<u32, OperationError>> {
        let result = self.processor.borrow_mut().perform_inline(operation)?;
        self.counts.performed(operation, result.unwrap_or(0));
        trace::performed(self.job_id(), operation);
        Some(result)
    }

    #[inline]
    fn account<T>(
        &self,
        accepted: Result<OperationId, Full<T>>,
        members: u64,
        begun: trace::Begun,
        job: u64,
    ) -> Result<OperationId, Full<T>> {
        match &accepted {
            Ok(id) => {
                stats::add(&self.counts.started, members);
                begun.accepted(job, *id);
                self.tell_host();
            }
            Err(_) => stats::add(&self.counts.queue_full, 1),
        }
        accepted
    }

    fn now(&self) -> Moment {
        self.processor.borrow().now()
    }

    fn engine(&self) -> EngineKind {
        self.processor.borrow().capabilities().engine
    }
}
