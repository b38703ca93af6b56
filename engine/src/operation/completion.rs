//! What comes back from an operation.

use std::fmt;
use std::mem;

use super::{Operation, Socket};
use crate::buffer::Lease;
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
    /// More events follow; the processor keeps the operation. This is what the event brought.
    More(Part),
    /// The operation has ended. Its buffer and handles are the receiver's again, and what it
    /// brought (an opened file, a status) is in it; dropping it closes and frees them.
    Last(Operation),
}

/// What an event brings of an operation that goes on. Dropping it closes and frees it.
#[derive(Debug)]
pub enum Part {
    /// Only a number: that of the bytes of a zero-copy send whose buffer is still out.
    Nothing,
    /// A connection that was accepted.
    Socket(Socket),
    /// Bytes that were received: as many as the lease is long.
    Bytes(Lease),
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
///
/// Events are written and read field by field, in place: a whole event that was just put together
/// would be copied while the parts are still on their way to memory, and wait for them.
#[derive(Debug, Default)]
pub struct CompletionEventQueue {
    /// A ring of events; those outside of the queue are empty.
    places: Vec<CompletionEvent>,
    first: usize,
    length: usize,
}

impl OperationError {
    /// The kernel refused with `errno`.
    #[must_use]
    pub const fn failed(errno: Errno) -> Self {
        Self { errno, cause: Cause::Failed }
    }
}

impl From<Errno> for OperationError {
    fn from(errno: Errno) -> Self {
        Self::failed(errno)
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
    fn empty() -> Self {
        let id = OperationId { index: 0, generation: 0 };
        Self { id, token: Token::default(), result: Ok(0), end: End::More(Part::Nothing) }
    }

    /// The operation, if this was its last event.
    #[must_use]
    pub fn into_operation(self) -> Option<Operation> {
        match self.end {
            End::More(_) => None,
            End::Last(operation) => Some(operation),
        }
    }
}

impl CompletionEventQueue {
    /// An empty queue with room for `capacity` events before it must grow.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let mut queue = Self::default();
        queue.places.resize_with(capacity, CompletionEvent::empty);
        queue
    }

    /// Adds the newest event.
    #[inline(always)]
    pub fn push(&mut self, event: CompletionEvent) {
        if self.length == self.places.len() {
            self.grow();
        }
        let place = self.place(self.length);
        let place = &mut self.places[place];
        place.id = event.id;
        place.token = event.token;
        place.result = event.result;
        place.end = event.end;
        self.length += 1;
    }

    /// Takes the oldest event.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<CompletionEvent> {
        if self.length == 0 {
            return None;
        }
        let place = &mut self.places[self.first];
        let end = mem::replace(&mut place.end, End::More(Part::Nothing));
        let event = CompletionEvent { id: place.id, token: place.token, result: place.result, end };
        self.first = self.place(1);
        self.length -= 1;
        Some(event)
    }

    /// Takes all events of another queue, behind the ones here.
    #[inline]
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            mem::swap(self, other);
            return;
        }
        while let Some(event) = other.pop() {
            self.push(event);
        }
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The place that is `distance` behind the first.
    fn place(&self, distance: usize) -> usize {
        let place = self.first + distance;
        if place < self.places.len() { place } else { place - self.places.len() }
    }

    #[cold]
    fn grow(&mut self) {
        self.places.rotate_left(self.first);
        self.first = 0;
        let capacity = (2 * self.places.len()).max(64);
        self.places.resize_with(capacity, CompletionEvent::empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_in_the_order_they_went_in_however_it_grows_and_wraps() {
        let event = |tag| CompletionEvent {
            token: Token { handler: 0, tag },
            end: End::Last(Operation::Nop),
            ..CompletionEvent::empty()
        };
        let mut queue = CompletionEventQueue::with_capacity(3);
        let (mut pushed, mut popped) = (0, 0);
        for round in 0..200 {
            for _ in 0..round % 7 {
                queue.push(event(pushed));
                pushed += 1;
            }
            for _ in 0..round % 5 {
                let Some(event) = queue.pop() else { break };
                assert_eq!(event.token.tag, popped);
                assert!(event.into_operation().is_some());
                popped += 1;
            }
            assert_eq!(queue.len(), (pushed - popped) as usize);
        }
        let mut other = CompletionEventQueue::default();
        other.push(event(pushed));
        queue.append(&mut other);
        assert!(other.is_empty());
        assert_eq!(std::iter::from_fn(|| queue.pop()).last().unwrap().token.tag, pushed);
    }
}
