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
mod handler;
mod parts;
mod permits;
mod semaphore;
mod shard;
mod socket;
mod task;
mod wait;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

pub use backoff::Backoff;
pub use channel::{Closed, Receiver, Send, Sender, TrySendError, channel};
pub use combine::{Either, join, join_all, race, select, yield_now};
use executor::Tasks;
use handler::Handlers;
pub use handler::{CompletionHandler, Initiator};
pub use semaphore::{Acquire, Permit, Semaphore};
pub(crate) use shard::open_files_max;
pub use shard::{Shards, Unfinished, WorkQueue};
pub use socket::{Connections, Pieces};
pub use task::{JoinHandle, TaskInitiator};
pub use wait::Perform;
use wait::Waits;

use crate::error::Error;
use crate::limits::SLOTS_DEFAULT;
use crate::operation::{CompletionEvent, CompletionEventQueue};
use crate::processor::{
    self, Capabilities, Configuration, FaultPlan, OperationProcessor, SimulatedProcessor,
    SimulatedWorld,
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
    /// up to `patience` for something that is in flight. For programs that have a loop of their
    /// own.
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
        self.core.run_ready_tasks();
        let deadline = self.core.processor.borrow().now() + patience;
        self.core.turn(!patience.is_zero(), Some(deadline))
    }

    /// Operations that were started and have not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.core.processor.borrow().in_flight()
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
    fn turn(&self, may_wait: bool, deadline: Option<Moment>) -> Result<(), Error> {
        // Again, because who was woken in the last turn may have had no use for the room.
        self.wake_for_room();
        {
            let mut processor = self.processor.borrow_mut();
            let mut events = self.events.borrow_mut();
            let is_waiting = may_wait && events.is_empty() && self.tasks.fall_asleep();
            let waited = processor.submit_and_wait(is_waiting.into(), deadline, &mut events);
            // Before anything is dispatched: to wake a task from here need not end a wait.
            self.tasks.wake_up();
            waited?;
        }
        // Before those that the events wake: they had their turn.
        self.wake_for_room();
        loop {
            let event = self.events.borrow_mut().pop();
            let Some(event) = event else { break };
            self.dispatch(event);
        }
        Ok(())
    }

    /// Wakes who may find room, until one of them goes on: the others have ended meanwhile.
    fn wake_for_room(&self) {
        let in_flight = self.processor.borrow().in_flight();
        while self.waits.wake_for_room(in_flight) && self.tasks.are_waiting() {}
    }

    fn dispatch(&self, event: CompletionEvent) {
        match event.token.handler {
            TASKS => self.waits.on_complete(event),
            _ => self.handlers.on_complete(event, self),
        }
    }
}
