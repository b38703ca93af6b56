//! Sees handlers and tasks that keep the loop from going on.
//!
//! One that blocks stalls all others of its proactor. How long each call takes is measured in real
//! time, also over a simulation: it is this thread's time that is taken. It costs two looks at the
//! clock a call, so it is done only if it was asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::trace;

/// Tells of slow and of blocked handlers and tasks, also from other threads. Made by
/// [`super::Proactor::watch`]; clones tell the same.
#[derive(Clone)]
pub struct Watch {
    threshold: Duration,
    shared: Arc<Mutex<State>>,
}

/// A handler or task that took too long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlowHandler {
    /// [`super::CompletionHandler::name`], or the type of the task's future.
    pub name: &'static str,
    /// How often.
    pub count: u64,
    /// How long at the longest.
    pub longest: Duration,
}

#[derive(Default)]
struct State {
    running: Option<(&'static str, Instant)>,
    slow: BTreeMap<&'static str, SlowHandler>,
}

/// A call that runs. Dropping this ends it.
pub(super) struct Call<'a>(&'a Watch);

impl Watch {
    pub(super) fn new(threshold: Duration) -> Self {
        Self { threshold, shared: Arc::default() }
    }

    /// What runs now, and for how long, if that is too long already. Asked from another thread, for
    /// instance by a health check: the watched one is not to answer.
    #[must_use]
    pub fn blocked(&self) -> Option<(&'static str, Duration)> {
        let (name, since) = self.lock().running?;
        let taken = since.elapsed();
        (taken >= self.threshold).then_some((name, taken))
    }

    /// Those that took too long, by name.
    #[must_use]
    pub fn slow(&self) -> Vec<SlowHandler> {
        self.lock().slow.values().cloned().collect()
    }

    pub(super) fn count(&self) -> u64 {
        self.lock().slow.values().map(|slow| slow.count).sum()
    }

    /// Measures until what this returns is dropped.
    pub(super) fn begin(&self, name: &'static str) -> Call<'_> {
        self.lock().running = Some((name, Instant::now()));
        Call(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let Some((name, since)) = state.running.take() else { return };
        let taken = since.elapsed();
        if taken < self.0.threshold {
            return;
        }
        let new = || SlowHandler { name, count: 0, longest: Duration::ZERO };
        let slow = state.slow.entry(name).or_insert_with(new);
        slow.count += 1;
        slow.longest = slow.longest.max(taken);
        drop(state);
        trace::slow(name, taken);
    }
}
