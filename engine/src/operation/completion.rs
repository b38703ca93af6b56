//! What comes back from an operation.

use std::collections::VecDeque;
use std::fmt;

use super::Operation;
use crate::error::Errno;

/// Whose an operation is: a handler or a task of the proactor's, and a number of its own choice.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Token {
    /// The handler, by its index in the proactor.
    pub handler: u32,
    /// A number that the handler tells its operations apart by.
    pub tag: u32,
}

/// One operation that a processor keeps. Never reused while anyone could mistake it for another.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct OperationId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// The news of an operation: whose it was, what came of it, and everything handed back.
#[derive(Debug)]
pub struct CompletionEvent {
    /// Which operation.
    pub id: OperationId,
    /// Whose it was.
    pub token: Token,
    /// What came of it: mostly a number of bytes. A success is a success even if a cancel was
    /// asked for.
    pub result: Result<u32, OperationError>,
    /// Whether more events follow, and if not, the operation with all it owns.
    pub end: End,
}

/// Whether an operation has ended.
#[derive(Debug)]
pub enum End {
    /// More events follow; the processor keeps the operation.
    More,
    /// The operation has ended. Its buffer and handles are the receiver's again, and what it
    /// brought (an opened file, a status) is in it; dropping it closes and frees them.
    Last(Operation),
}

/// Why an operation did not succeed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OperationError {
    /// The kernel's answer.
    pub errno: Errno,
    /// What led to it.
    pub cause: Cause,
}

/// What led to an operation's failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// The kernel refused, or the device failed.
    Failed,
    /// A cancel was asked for, and came in time.
    Cancelled,
    /// The chain's timeout ran out.
    TimedOut,
    /// An earlier member of the chain failed or was short; this one never ran.
    LinkBroken,
}

/// Where a processor puts completion events: first in, first out.
#[derive(Debug, Default)]
pub struct CompletionEventQueue(VecDeque<CompletionEvent>);

impl OperationError {
    /// The kernel refused with `errno`.
    #[must_use]
    pub const fn failed(errno: Errno) -> Self {
        Self { errno, cause: Cause::Failed }
    }
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Failed => write!(f, "the operation failed"),
            Cause::Cancelled => write!(f, "the operation was cancelled"),
            Cause::TimedOut => write!(f, "the operation took too long"),
            Cause::LinkBroken => write!(f, "an earlier operation of the chain did not complete"),
        }
    }
}

impl std::error::Error for OperationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.errno)
    }
}

impl CompletionEvent {
    /// The operation, if this was its last event.
    #[must_use]
    pub fn into_operation(self) -> Option<Operation> {
        match self.end {
            End::More => None,
            End::Last(operation) => Some(operation),
        }
    }
}

impl CompletionEventQueue {
    /// An empty queue with room for `capacity` events before it must grow.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(VecDeque::with_capacity(capacity))
    }

    /// Adds the newest event.
    pub fn push(&mut self, event: CompletionEvent) {
        self.0.push_back(event);
    }

    /// Takes the oldest event.
    pub fn pop(&mut self) -> Option<CompletionEvent> {
        self.0.pop_front()
    }

    /// Takes all events of another queue, behind the ones here.
    pub fn append(&mut self, other: &mut Self) {
        if self.0.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.0.append(&mut other.0);
        }
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
