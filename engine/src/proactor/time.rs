//! What tasks do with time: wait for a moment, give up at one, notice that nothing happens, try
//! again later. All of it by the processor's clock: in a simulation it takes no time.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::timers::Sleep;
use super::{Backoff, Either, TaskInitiator, race};
use crate::units::Moment;

/// What had a limited time did not end in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Elapsed;

/// Notices that nothing has happened for a while. Clones are told by, and tell, each other.
///
/// To tell it costs a look at the clock and nothing else, so each message of a connection may.
///
/// # Examples
///
/// A connection that nobody uses for 30 s is given up; the test of that takes microseconds, as the
/// clock of a simulation goes forward to the next thing that happens:
///
/// ```
/// use std::time::Duration;
/// use ucp_engine::proactor::{Either, channel, race};
/// use ucp_engine::{Proactor, processor::SimulatedWorld};
///
/// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
/// let tasks = proactor.initiator();
/// let (sender, mut receiver) = channel(1);
/// let idle = tasks.idle(Duration::from_secs(30));
///
/// let mine = tasks.clone();
/// tasks.spawn(async move {
///     for _message in 0..3 {
///         mine.sleep(Duration::from_secs(20)).await;
///         sender.send("still there").await.expect("somebody receives");
///     }
///     std::future::pending::<()>().await; // and says nothing more
/// })?;
///
/// let start = tasks.now();
/// let serve = async {
///     while let Some(_message) = receiver.receive().await {
///         idle.touch();
///     }
/// };
/// let outcome = proactor.block_on(race(serve, idle.expired()));
/// assert_eq!(outcome, Either::Second(()));
/// assert_eq!(tasks.now().since(start).as_secs(), 3 * 20 + 30);
/// # Ok::<(), ucp_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Idle {
    tasks: TaskInitiator,
    limit: Duration,
    touched: Rc<Cell<Moment>>,
}

impl TaskInitiator {
    /// Waits for a time of the processor's clock to pass, counted from this call.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Waits for a moment of the processor's clock.
    pub fn sleep_until(&self, moment: Moment) -> Sleep {
        Sleep::new(Rc::clone(self.shared()), moment)
    }

    /// Runs a future for a limited time, then drops it.
    ///
    /// A read that is dropped may have taken bytes that nobody sees any more. Where that matters, use
    /// a scope with a deadline ([`TaskInitiator::scope_for`]): it lets the future hear what came of
    /// its operations.
    ///
    /// # Errors
    ///
    /// If it was not done in time.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use ucp_engine::{Proactor, processor::SimulatedWorld};
    ///
    /// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
    /// let tasks = proactor.initiator();
    /// let second = Duration::from_secs(1);
    /// assert!(proactor.block_on(tasks.timeout(second, tasks.sleep(2 * second))).is_err());
    /// assert!(proactor.block_on(tasks.timeout(2 * second, tasks.sleep(second))).is_ok());
    /// ```
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        match race(future, self.sleep(duration)).await {
            Either::First(output) => Ok(output),
            Either::Second(()) => Err(Elapsed),
        }
    }

    /// Notices when nothing has happened for so long.
    #[must_use]
    pub fn idle(&self, limit: Duration) -> Idle {
        Idle { tasks: self.clone(), limit, touched: Rc::new(Cell::new(self.now())) }
    }

    /// Does something again until it succeeds, fails for good, or was tried often enough.
    ///
    /// # Errors
    ///
    /// The last failure: the first that is not `worth_retrying`, or the one behind the last wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use ucp_engine::proactor::Backoff;
    /// use ucp_engine::{Proactor, processor::SimulatedWorld};
    ///
    /// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
    /// let tasks = proactor.initiator();
    /// let waits = Backoff::new(Duration::from_secs(1), 5, 42);
    /// let mut attempts = 0;
    /// let result = proactor.block_on(tasks.retry(waits, |error| *error == "busy", async || {
    ///     attempts += 1;
    ///     if attempts < 3 { Err("busy") } else { Ok(attempts) }
    /// }));
    /// assert_eq!(result, Ok(3));
    /// ```
    pub async fn retry<T, E>(
        &self,
        mut waits: Backoff,
        mut worth_retrying: impl FnMut(&E) -> bool,
        mut action: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            let error = match action().await {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            let wait = if worth_retrying(&error) { waits.next() } else { None };
            let Some(wait) = wait else { return Err(error) };
            self.sleep(wait).await;
        }
    }
}

impl Idle {
    /// Something has happened.
    pub fn touch(&self) {
        self.touched.set(self.tasks.now());
    }

    /// Waits until nothing has happened for as long as was set.
    pub async fn expired(&self) {
        loop {
            let until = self.touched.get() + self.limit;
            self.tasks.sleep_until(until).await;
            // It was touched while this slept: the rest is still to come.
            if self.touched.get() + self.limit == until {
                return;
            }
        }
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it took too long")
    }
}

impl std::error::Error for Elapsed {}
