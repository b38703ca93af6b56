//! Shards: threads that each have a proactor of their own, and a queue that feeds them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, Scope, Thread};
use std::time::Duration;

use crate::limits::SHARD_FILES;
use crate::sys::thread as sys;

/// A bounded queue of work that makes more work, shared by shards or tasks.
///
/// It ends when every piece that was pushed has been finished, and then no more can come: pieces
/// are pushed only by whoever is working on one.
pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    is_starved: AtomicBool,
}

struct State<T> {
    items: VecDeque<T>,
    /// Pieces that were pushed and not finished.
    unfinished: usize,
    waiters: Vec<Waker>,
}

/// A crew of shards over one queue.
pub struct Shards {
    /// Shards at the start: one for each core, pinned to it.
    pub count: usize,
    /// Shards at the most, while they mostly wait.
    pub count_max: usize,
}

/// How often the crew is looked at.
const REVIEW_INTERVAL: Duration = Duration::from_millis(2);

impl<T> WorkQueue<T> {
    /// An empty queue with room for `capacity` pieces.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let state = State { items: VecDeque::new(), unfinished: 0, waiters: Vec::new() };
        Self { state: Mutex::new(state), capacity, is_starved: AtomicBool::new(false) }
    }

    /// Adds a piece.
    ///
    /// # Errors
    ///
    /// Gives it back when the queue is full: do it yourself, now.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.items.len() >= self.capacity {
            return Err(item);
        }
        state.items.push_back(item);
        state.unfinished += 1;
        let waiter = state.waiters.pop();
        drop(state);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
        Ok(())
    }

    /// Takes the newest piece, and waits for one if there is none; none once all is finished. What
    /// comes with the piece is dropped when it is finished, and what it led to was pushed.
    pub async fn take(&self) -> Option<(T, Unfinished<'_, T>)> {
        poll_fn(|context| {
            let mut state = self.lock();
            if let Some(item) = state.items.pop_back() {
                return Poll::Ready(Some((item, Unfinished(self))));
            }
            if state.unfinished == 0 {
                return Poll::Ready(None);
            }
            if !state.waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
                state.waiters.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// The same, but for what has to be done before one waits or is told that all is finished. To
    /// look first and take then would be wrong: another may take the piece that was seen.
    pub async fn take_after(
        &self,
        before_waiting: impl AsyncFnOnce(),
    ) -> Option<(T, Unfinished<'_, T>)> {
        let newest = self.lock().items.pop_back();
        if let Some(item) = newest {
            return Some((item, Unfinished(self)));
        }
        before_waiting().await;
        self.take().await
    }

    fn finish(&self) {
        let mut state = self.lock();
        state.unfinished -= 1;
        if state.unfinished == 0 {
            let waiters = std::mem::take(&mut state.waiters);
            drop(state);
            waiters.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether work waits for somebody to take it.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.lock().items.is_empty()
    }

    /// Whether cores have idled although work waited: what is done with a piece waits for something.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.is_starved.load(Ordering::Relaxed)
    }

    /// Whether every piece was finished.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.lock().unfinished == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece that was taken. Dropping it says that it is finished: so a panic does, and nobody waits
/// for ever.
pub struct Unfinished<'a, T>(&'a WorkQueue<T>);

impl<T> Drop for Unfinished<'_, T> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// How many files this process may have open.
pub(crate) fn open_files_max() -> u64 {
    sys::open_files_max()
}

impl Shards {
    /// Runs `work` on every shard until all of them return. While work waits and the cores idle,
    /// shards are added: what they wait for (a cold disk) serves more of them at a time.
    pub fn run<T: Send>(&self, queue: &WorkQueue<T>, work: impl Fn() + Sync) {
        let is_waiting = || {
            let is_waiting = queue.is_waiting();
            // It is asked only while the cores idle.
            if is_waiting {
                queue.is_starved.store(true, Ordering::Relaxed);
            }
            is_waiting
        };
        self.run_while(&is_waiting, work);
    }

    /// The same, where somebody else knows whether work waits.
    pub fn run_while(&self, is_waiting: &dyn Fn() -> bool, work: impl Fn() + Sync) {
        let running = AtomicUsize::new(0);
        thread::scope(|scope| {
            let mut count = 0;
            while count < self.count {
                if !start(scope, &running, Some(count), &work) {
                    break;
                }
                count += 1;
            }
            if count == 0 {
                // No thread is to be had: this one does it all.
                work();
                return;
            }
            self.review(scope, is_waiting, &running, count, &work);
        });
    }

    /// Adds shards while work waits and the cores idle.
    fn review<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        is_waiting: &dyn Fn() -> bool,
        running: &'scope AtomicUsize,
        mut count: usize,
        work: &'scope (impl Fn() + Sync),
    ) {
        let mut usage = sys::processor_time();
        // Half of them are for what is not a shard's.
        let affordable = sys::open_files_max() / 2 / SHARD_FILES;
        let affordable = usize::try_from(affordable).unwrap_or(usize::MAX);
        let count_max = self.count_max.min(affordable);
        while running.load(Ordering::Acquire) > 0 && count < count_max {
            thread::park_timeout(REVIEW_INTERVAL);
            let now = sys::processor_time();
            // Less than three quarters of the cores' time was used.
            let is_idle =
                (now - usage) * 4 < REVIEW_INTERVAL * u32::try_from(self.count).unwrap_or(1) * 3;
            usage = now;
            if is_idle && is_waiting() && start(scope, running, None, work) {
                count += 1;
            }
        }
    }
}

/// A shard that runs. It is counted out at its end, even if that is a panic.
struct Leaving<'a> {
    running: &'a AtomicUsize,
    reviewer: Thread,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.reviewer.unpark();
        }
    }
}

fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    running: &'scope AtomicUsize,
    core: Option<usize>,
    work: &'scope (impl Fn() + Sync),
) -> bool {
    running.fetch_add(1, Ordering::AcqRel);
    let reviewer = thread::current();
    let shard = move || {
        if let Some(core) = core {
            sys::pin(core);
        }
        let _leaving = Leaving { running, reviewer };
        work();
    };
    let started = thread::Builder::new().name("ucp-shard".into()).spawn_scoped(scope, shard);
    if started.is_err() {
        running.fetch_sub(1, Ordering::AcqRel);
    }
    started.is_ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::pin;
    use std::task::Context;

    use super::*;
    use crate::Proactor;
    use crate::processor::ThreadProcessor;

    #[test]
    fn nobody_waits_or_ends_with_something_left_to_do() {
        let queue = WorkQueue::new(4);
        queue.push("first").unwrap();
        let proactor = Proactor::new(Box::new(ThreadProcessor::new(0, 4)));
        let told = Cell::new(0);
        let take = || queue.take_after(async || told.set(told.get() + 1));
        let (piece, unfinished) = proactor.block_on(take()).expect("it waits");
        assert_eq!((piece, told.get()), ("first", 0), "a piece is there");
        let (mut waiting, mut context) = (pin!(take()), Context::from_waker(Waker::noop()));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!(told.get(), 1, "before it waits");
        drop(unfinished);
        assert!(waiting.as_mut().poll(&mut context).is_ready());
        assert!(proactor.block_on(take()).is_none());
        assert_eq!(told.get(), 2, "before it is told that all is finished");
    }

    #[test]
    fn shards_do_all_work_that_work_makes() {
        let queue = WorkQueue::new(4);
        let done = AtomicUsize::new(0);
        queue.push(10_u32).unwrap();
        let shards = Shards { count: 2, count_max: 8 };
        shards.run(&queue, || {
            let proactor = Proactor::new(Box::new(ThreadProcessor::new(0, 4)));
            proactor.block_on(async {
                while let Some((first, _unfinished)) = queue.take().await {
                    let mut mine = vec![first];
                    while let Some(piece) = mine.pop() {
                        done.fetch_add(1, Ordering::Relaxed);
                        for _ in 0..u32::from(piece > 0) * 2 {
                            mine.extend(queue.push(piece - 1).err());
                        }
                    }
                }
            });
        });
        assert_eq!(done.into_inner(), (1 << 11) - 1);
        assert!(queue.is_finished());
    }

    #[test]
    fn a_shard_that_panics_keeps_nobody_waiting() {
        let queue = WorkQueue::new(4);
        let done = AtomicUsize::new(0);
        (0..3).for_each(|piece| queue.push(piece).unwrap());
        let work = || {
            let proactor = Proactor::new(Box::new(ThreadProcessor::new(0, 4)));
            proactor.block_on(async {
                while let Some((piece, _unfinished)) = queue.take().await {
                    assert_ne!(piece, 2, "one piece can't be worked on");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        };
        let shards = Shards { count: 2, count_max: 2 };
        let ran = catch_unwind(AssertUnwindSafe(|| shards.run(&queue, work)));
        assert!(ran.is_err(), "the panic is not lost");
        assert_eq!(done.into_inner(), 2, "the other shard does the rest");
    }
}
