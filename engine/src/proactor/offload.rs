//! Work that blocks or burns time, on a few threads beside the loop.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::semaphore::{Permit, Semaphore};
use super::{Core, TaskInitiator};
use crate::error::{Error, ErrorKind};
use crate::limits::{OFFLOAD_QUEUE_MAX, OFFLOAD_THREADS_MAX};
use crate::operation::Operation;
use crate::processor::EngineKind;

/// The threads of one proactor. They start when there is work, and end with the proactor, each once
/// what it is at is done.
pub(super) struct Pool {
    shared: Arc<Shared>,
    room: Semaphore,
}

/// What an offloaded closure panicked with.
pub struct Panicked(Box<dyn Any + Send>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closing: bool,
}

type Job = Box<dyn FnOnce() + Send>;

/// Where a thread leaves what a closure returned, and who waits for it.
struct Outcome<T> {
    state: Mutex<OutcomeState<T>>,
    is_wanted: AtomicBool,
}

struct OutcomeState<T> {
    result: Option<Result<T, Panicked>>,
    waker: Option<Waker>,
}

/// Whoever waits for an outcome. Dropping this says that nobody does.
struct Waiting<T>(Arc<Outcome<T>>);

impl TaskInitiator {
    /// Runs a closure that blocks, or takes long, on another thread; a handler or a task that did
    /// would stall everything. Waits for room if much is queued already.
    ///
    /// Dropping the future drops a closure that has not begun; one that has runs to its end. In a
    /// simulation it runs on this thread, after a time that the seed decides.
    ///
    /// # Errors
    ///
    /// What the closure panicked with: [`Panicked::resume`] goes on with that.
    ///
    /// # Examples
    ///
    /// ```
    /// use ucp_engine::Proactor;
    ///
    /// let proactor = Proactor::start(&Default::default())?;
    /// let tasks = proactor.initiator();
    /// let sum = proactor.block_on(tasks.offload(|| (1..=1000_u64).sum::<u64>()));
    /// assert_eq!(sum?, 500_500);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn offload<T: Send + 'static>(
        &self,
        closure: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let core = self.core();
        if core.engine() == EngineKind::Simulated {
            // Its latency is the seed's.
            let _ = self.perform(Operation::Nop).await;
            return run(closure);
        }
        let permit = core.pool.room.acquire(1).await;
        let waiting = core.pool.start(closure, permit);
        let _outstanding = core.outside();
        poll_fn(|context| waiting.poll(context)).await
    }
}

impl Core {
    /// While what this returns lives, something outside of the processor is to wake a task.
    fn outside(&self) -> impl Drop + '_ {
        struct Outside<'a>(&'a Core);
        impl Drop for Outside<'_> {
            fn drop(&mut self) {
                self.0.outside.set(self.0.outside.get() - 1);
            }
        }
        self.outside.set(self.outside.get() + 1);
        Outside(self)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self { shared: Arc::default(), room: Semaphore::new(OFFLOAD_QUEUE_MAX) }
    }
}

impl Pool {
    fn start<T: Send + 'static>(
        &self,
        closure: impl FnOnce() -> T + Send + 'static,
        permit: Permit,
    ) -> Waiting<T> {
        let state = Mutex::new(OutcomeState { result: None, waker: None });
        let outcome = Arc::new(Outcome { state, is_wanted: true.into() });
        let waiting = Waiting(Arc::clone(&outcome));
        self.shared.push(Box::new(move || {
            // Begun or given up: there is room for another.
            drop(permit);
            if outcome.is_wanted.load(Ordering::Acquire) {
                outcome.set(run(closure));
            }
        }));
        waiting
    }
}

fn run<T>(closure: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(closure)).map_err(Panicked)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        state.queue.push_back(job);
        let is_short = state.idle < state.queue.len() && state.threads < OFFLOAD_THREADS_MAX;
        if is_short {
            let shared = Arc::clone(self);
            let thread = thread::Builder::new().name("ucp-offload".into());
            state.threads += usize::from(thread.spawn(move || shared.work()).is_ok());
        }
        // No thread is to be had at all: it is done here, late rather than never.
        let job = if state.threads == 0 { state.queue.pop_front() } else { None };
        drop(state);
        match job {
            Some(job) => job(),
            None => self.work.notify_one(),
        }
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            while state.queue.is_empty() {
                if state.is_closing {
                    return;
                }
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
            let job = state.queue.pop_front();
            drop(state);
            if let Some(job) = job {
                job();
            }
        }
    }
}

impl Drop for Pool {
    /// Waits for nobody: what a closure blocks on may never come. One that has not begun is dropped.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closing = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.shared.work.notify_all();
        drop(queue);
    }
}

impl<T> Outcome<T> {
    fn set(&self, result: Result<T, Panicked>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Waiting<T> {
    fn poll(&self, context: &Context<'_>) -> Poll<Result<T, Panicked>> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.0.is_wanted.store(false, Ordering::Release);
    }
}

impl Panicked {
    /// Panics with it, as if the closure had been called here.
    pub fn resume(self) -> ! {
        std::panic::resume_unwind(self.0)
    }

    /// What it was: the text of a `panic!`, or none.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        let text = self.0.downcast_ref::<&str>().copied();
        text.or_else(|| self.0.downcast_ref::<String>().map(String::as_str))
    }
}

impl fmt::Debug for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panicked").field(&self.message()).finish()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it panicked: {}", self.message().unwrap_or("with something that is no text"))
    }
}

impl std::error::Error for Panicked {}

impl From<Panicked> for Error {
    fn from(panicked: Panicked) -> Self {
        Self::new(ErrorKind::Io, "offloaded work", panicked.to_string())
    }
}
