//! What the proactor tells `tracing`: each operation's begin and end, with the job that it is for.
//!
//! With no subscriber for this level each is one comparison with a number in memory.

use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::operation::{CompletionEvent, End, Operation, OperationId};

/// Whether somebody may want to hear of operations.
#[inline(always)]
pub(super) fn is_on() -> bool {
    LevelFilter::TRACE <= tracing::level_filters::STATIC_MAX_LEVEL
        && LevelFilter::TRACE <= LevelFilter::current()
}

/// What is told of an operation once it has an id.
#[derive(Clone, Copy)]
pub(super) struct Begun(Option<&'static str>);

impl Begun {
    #[inline(always)]
    pub(super) fn new(operation: &Operation) -> Self {
        Self(is_on().then(|| operation.verb()))
    }

    #[inline(always)]
    pub(super) fn of_chain() -> Self {
        Self(is_on().then_some("chain"))
    }

    #[inline(always)]
    pub(super) fn accepted(self, job: u64, id: OperationId) {
        if let Self(Some(verb)) = self {
            accepted(job, verb, id);
        }
    }
}

#[cold]
fn accepted(job: u64, operation: &'static str, id: OperationId) {
    tracing::trace!(job, operation, slot = id.index, generation = id.generation, "accepted");
}

#[inline(always)]
pub(super) fn completed(job: u64, event: &CompletionEvent) {
    if is_on() {
        tell_completed(job, event);
    }
}

#[cold]
fn tell_completed(job: u64, event: &CompletionEvent) {
    let (slot, generation) = (event.id.index, event.id.generation);
    let operation = match &event.end {
        End::Last(operation) => operation.verb(),
        End::More(_) => "more",
    };
    match event.result {
        Ok(result) => tracing::trace!(job, operation, slot, generation, result, "completed"),
        Err(error) => {
            let (errno, cause) = (error.errno.desc(), tracing::field::debug(error.cause));
            tracing::trace!(job, operation, slot, generation, errno, cause, "failed");
        }
    }
}

/// An operation was performed in the caller's turn.
#[inline(always)]
pub(super) fn performed(job: u64, operation: &Operation) {
    if is_on() {
        tell_performed(job, operation);
    }
}

#[cold]
fn tell_performed(job: u64, operation: &Operation) {
    tracing::trace!(job, operation = operation.verb(), "performed");
}

#[cold]
pub(super) fn slow(handler: &'static str, taken: Duration) {
    let milliseconds = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(handler, milliseconds, "a handler kept the loop waiting");
}
