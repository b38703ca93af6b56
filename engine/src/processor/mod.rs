//! Asynchronous operation processors: what performs operations while the program goes on.
//!
//! All of them give the same answers; a conformance suite over every operation and its errors holds
//! them together (`tests/engine/conformance/`).

mod encode;
mod finish;
mod groups;
mod helpers;
mod kernel;
mod readiness;
mod simulated;
mod slots;
mod start;
mod threads;
mod timers;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub use kernel::KernelProcessor;
pub use simulated::{
    Fault, FaultPlan, FaultRecord, MountOptions, OperationKind, POISON, SimulatedProcessor,
    SimulatedWorld, SourceChange, TreeEntry,
};
pub use slots::leaked;
pub use start::{Configuration, EngineChoice, start};
pub use threads::ThreadProcessor;

use nix::sys::eventfd::EventFd;

use crate::buffer::{Arena, BufferPool, ReceivePool};
use crate::error::{Errno, Error};
use crate::limits::RECEIVE_BLOCKS_MAX;
use crate::operation::{
    Chain, CompletionEventQueue, File, Operation, OperationError, OperationId, RegisteredFile,
    Token,
};
use crate::units::{Moment, WallTime};

/// Performs operations: accepts them, and hands each back with its result.
///
/// A processor belongs to one thread. Dropping it cancels what can be cancelled and waits for the
/// rest; what cannot be waited for is leaked, never freed.
pub trait OperationProcessor {
    /// Takes an operation and keeps it, with all it owns, until its last completion event.
    ///
    /// # Errors
    ///
    /// Gives the operation back when the processor is full: that is the back-pressure.
    fn accept(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>>;

    /// Takes an operation as [`OperationProcessor::accept`] does, and has it performed on another
    /// core, one after the other: large writes into the page cache, which copy memory and exclude
    /// each other by the inode's lock. (IOSQE_ASYNC has eight workers fight for that lock: a copy
    /// from page cache to page cache then took twice the time.) Not for timeouts.
    ///
    /// # Errors
    ///
    /// Gives the operation back when the processor is full.
    fn accept_beside(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        self.accept(operation, token)
    }

    /// Takes a chain, all of it or nothing. Each member completes with `token`, in order, once the
    /// last has ended. The id is the first member's; cancelling it ends the chain there.
    ///
    /// # Errors
    ///
    /// Gives the chain back when there is no room for all of it.
    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>>;

    /// Takes a chain as [`OperationProcessor::accept_chain`] does. A read and the write of the same
    /// bytes are performed by one helper, and several such pairs side by side: through the page
    /// cache both are copies of memory, and the second finds the bytes in its own core's cache.
    /// Such a pair is not cancelled any more once it was begun.
    ///
    /// # Errors
    ///
    /// As [`OperationProcessor::accept_chain`].
    fn accept_chain_beside(
        &mut self,
        chain: Chain,
        token: Token,
    ) -> Result<OperationId, Full<Chain>> {
        self.accept_chain(chain, token)
    }

    /// Performs an operation in the caller's turn, if this processor has nothing better for it than
    /// a system call: then a task goes on without a wait. None leaves it untouched, to be accepted.
    fn perform_inline(
        &mut self,
        _operation: &mut Operation,
    ) -> Option<Result<u32, OperationError>> {
        None
    }

    /// Asks for an operation to be given up. The outcome arrives as the operation's own completion
    /// event, and may be a success. A stale id does nothing.
    fn cancel(&mut self, id: OperationId);

    /// Submits all that was accepted, waits for `at_least` completion events or until `deadline`,
    /// whichever is first, and puts the events into `events`. Never waits with nothing in flight,
    /// and may return early: a signal or a wake-up ends the wait.
    ///
    /// # Errors
    ///
    /// Only if the processor is broken for good.
    fn submit_and_wait(
        &mut self,
        at_least: u32,
        deadline: Option<Moment>,
        events: &mut CompletionEventQueue,
    ) -> Result<(), Error>;

    /// Operations that were accepted and have not ended.
    fn in_flight(&self) -> u32;

    /// The processor's monotonic clock.
    fn now(&self) -> Moment;

    /// The processor's calendar clock.
    fn wall_clock(&self) -> WallTime;

    /// What runs, and why.
    fn capabilities(&self) -> &Capabilities;

    /// Lends blocks of memory that this processor reads and writes fastest: aligned for direct I/O,
    /// and registered where it can be.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no room for them.
    fn buffer_pool(&mut self, count: u32, block_bytes: u32) -> Result<BufferPool, Errno>;

    /// Lends blocks of memory for sockets to receive into, each when something has come: with a ring,
    /// one of provided buffers.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no room for them; `EINVAL` if they are more than
    /// [`RECEIVE_BLOCKS_MAX`].
    fn receive_pool(&mut self, count: u32, block_bytes: u32) -> Result<ReceivePool, Errno>;

    /// Puts a file into the table of registered files, where operations find it faster; or with no
    /// file, reserves a slot for a chain to open one into.
    ///
    /// # Errors
    ///
    /// `ENFILE` if the table is full, or as the kernel answers.
    fn register_file(&mut self, file: Option<&File>) -> Result<RegisteredFile, Errno>;

    /// Closes the registered files that nobody has any more, now and not with the next submission:
    /// until then the table keeps their locks, and the room of those that were removed.
    fn release_files(&mut self) {}

    /// Ends a wait of [`OperationProcessor::submit_and_wait`] from another thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Has `event` written to whenever something has completed or a wait would end, for who waits for
    /// it beside other descriptors. What comes back is to be waited for as well, until it is readable.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if nobody else can tell when that is; or as the kernel answers.
    fn notify(&mut self, event: Arc<EventFd>) -> Result<Option<OwnedFd>, Errno> {
        drop(event);
        Err(Errno::EOPNOTSUPP)
    }

    /// When something happens by itself that no event is written for: a timeout of its own.
    fn next_alarm(&self) -> Option<Moment> {
        None
    }

    /// Lets time pass until a moment, in which nothing is in flight; false where it passes by itself.
    fn skip_to(&mut self, moment: Moment) -> bool {
        let _ = moment;
        false
    }

    /// What it has counted.
    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// What a processor counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Calls of `io_uring_enter(2)`.
    pub enters: u64,
    /// Operations that a ring gave to helper threads.
    pub fall_backs: u64,
    /// Completions that named nobody: late, or sent twice.
    pub stale: u64,
}

/// Memory for the blocks of a pool that sockets receive into, if they are not too many.
fn receive_arena(count: u32, block_bytes: u32) -> Result<Arc<Arena>, Errno> {
    let is_right = (1..=RECEIVE_BLOCKS_MAX).contains(&count) && block_bytes > 0;
    if is_right { Arena::new(count, block_bytes).map(Arc::new) } else { Err(Errno::EINVAL) }
}

/// Ends another thread's wait.
pub trait Wake: Send + std::marker::Sync {
    /// Ends the wait that is going on, or else the next one.
    fn wake(&self);
}

/// What a processor had no room for.
#[derive(Debug)]
pub struct Full<T>(pub T);

/// Which processor runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EngineKind {
    /// io_uring.
    Uring,
    /// Threads that make system calls.
    Threads,
    /// Files in memory.
    Simulated,
}

/// What runs, and why.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Which processor.
    pub engine: EngineKind,
    /// Why io_uring is not used, if it was wanted: "not permitted (kernel.io_uring_disabled=2)".
    pub reason: Option<String>,
    /// What the ring was set up with: "SINGLE_ISSUER DEFER_TASKRUN …"; empty without one.
    pub features: Vec<&'static str>,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Threads => "threads",
            Self::Simulated => "simulated",
        })
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "io_uring: {reason}; using {}", self.engine),
            None => write!(f, "using {}", self.engine),
        }
    }
}
