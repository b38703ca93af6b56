//! Jobs: what operations are for, so that one can be followed through all that happens.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Core, TaskInitiator};

/// Something that operations are for: a connection, a copy, a request. Clones are the same job.
///
/// Each operation that is begun in it, and each task that is spawned in it, carries its number in
/// every event that it tells `tracing` at the level `TRACE`; and what is told meanwhile lies in the
/// job's span.
///
/// # Examples
///
/// ```
/// use ucp_engine::operation::Operation;
/// use ucp_engine::{Proactor, processor::SimulatedWorld};
///
/// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
/// let tasks = proactor.initiator();
/// let job = tasks.job("greet a client");
/// let (result, _) = proactor.block_on(job.run(tasks.perform(Operation::Nop)));
/// assert_eq!(result, Ok(0));
/// ```
#[derive(Clone)]
pub struct Job {
    core: Rc<Core>,
    inner: Rc<Inner>,
}

pub(super) struct Inner {
    id: u64,
    span: tracing::Span,
}

/// While it lives, what is begun is begun for a job.
pub(super) struct Within<'a> {
    place: &'a RefCell<Option<Rc<Inner>>>,
    before: Option<Rc<Inner>>,
}

impl TaskInitiator {
    /// A new job. Its number is unique in the process.
    #[must_use]
    pub fn job(&self, name: &str) -> Job {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let span = tracing::info_span!("job", id, name);
        Job { core: Rc::clone(self.shared()), inner: Rc::new(Inner { id, span }) }
    }
}

impl Job {
    /// The number that operations carry.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Runs a future as a part of the job.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            let _within = Within::enter(&self.core.job, Some(Rc::clone(&self.inner)));
            self.inner.span.in_scope(|| future.as_mut().poll(context))
        })
        .await
    }
}

impl Inner {
    pub(super) fn in_span<T>(&self, act: impl FnOnce() -> T) -> T {
        self.span.in_scope(act)
    }
}

impl Core {
    /// The number of the job that is running; 0 is none.
    #[inline]
    pub(super) fn job_id(&self) -> u64 {
        self.job.borrow().as_ref().map_or(0, |job| job.id)
    }
}

impl<'a> Within<'a> {
    pub(super) fn enter(place: &'a RefCell<Option<Rc<Inner>>>, job: Option<Rc<Inner>>) -> Self {
        Self { place, before: place.replace(job) }
    }
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        drop(self.place.replace(self.before.take()));
    }
}
