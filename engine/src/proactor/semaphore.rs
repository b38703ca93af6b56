//! A limit on how much is done at a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::permits::{Permits, Ticket};

/// A number of permits that tasks take and give back, so that only so many do something at a time.
/// Clones share the permits, also on other threads.
///
/// Permits are given out in the order they were asked for. A permit is the proof: dropping it gives
/// it back.
///
/// # Examples
///
/// ```
/// use ucp_engine::proactor::Semaphore;
/// use ucp_engine::{Proactor, processor::SimulatedWorld};
///
/// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
/// let limit = Semaphore::new(2);
/// proactor.block_on(async {
///     let first = limit.acquire(1).await;
///     let _second = limit.acquire(1).await;
///     assert!(limit.try_acquire(1).is_none(), "two at a time");
///     drop(first);
///     assert!(limit.try_acquire(1).is_some());
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Semaphore(Arc<Shared>);

/// Permits that were taken. Dropping this gives them back.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    semaphore: Arc<Shared>,
    count: usize,
}

/// A future that waits for permits. Dropping it leaves the queue.
#[derive(Debug)]
#[must_use = "nothing is taken before it is awaited"]
pub struct Acquire {
    semaphore: Arc<Shared>,
    wanted: usize,
    ticket: Option<Ticket>,
}

#[derive(Debug)]
struct Shared {
    permits: Mutex<Permits>,
    count: usize,
}

impl Semaphore {
    /// So many permits.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Shared { permits: Mutex::new(Permits::new(count)), count }))
    }

    /// Waits for permits, behind those who wait already.
    ///
    /// # Panics
    ///
    /// If there are never so many.
    pub fn acquire(&self, wanted: usize) -> Acquire {
        assert!(wanted <= self.0.count, "{wanted} permits of {} would never come", self.0.count);
        Acquire { semaphore: Arc::clone(&self.0), wanted, ticket: None }
    }

    /// Takes permits if that needs no wait.
    pub fn try_acquire(&self, wanted: usize) -> Option<Permit> {
        let is_there = self.0.lock().try_take(wanted);
        is_there.then(|| Permit { semaphore: Arc::clone(&self.0), count: wanted })
    }

    /// How many permits nobody has.
    #[must_use]
    pub fn available(&self) -> usize {
        self.0.lock().free()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Permits> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let Self { semaphore, wanted, ticket } = &mut *self;
        let is_there = semaphore.lock().poll(ticket, *wanted, context.waker());
        if !is_there {
            return Poll::Pending;
        }
        Poll::Ready(Permit { semaphore: Arc::clone(semaphore), count: *wanted })
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let woken = self.semaphore.lock().leave(ticket);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let woken = self.semaphore.lock().give(self.count);
        woken.into_iter().for_each(Waker::wake);
    }
}
