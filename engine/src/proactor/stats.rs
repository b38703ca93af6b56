//! What a proactor has done and is doing, in numbers.

use std::cell::Cell;

use super::Core;
use crate::operation::{CompletionEvent, End, Operation, Part};
use crate::processor::{self, Counters};

/// What a proactor has done and is doing. Made by [`super::Proactor::stats`].
///
/// Counts are since the proactor was made, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Operations that were accepted, members of chains each.
    pub operations_started: u64,
    /// Operations that have ended.
    pub operations_ended: u64,
    /// Bytes that reads, and copies within the kernel, have brought.
    pub bytes_read: u64,
    /// Bytes that writes, and copies within the kernel, have taken.
    pub bytes_written: u64,
    /// Operations in flight now.
    pub in_flight: u32,
    /// Operations in flight at the most.
    pub in_flight_max: u32,
    /// How often the processor had no room for an operation or a chain.
    pub queue_full: u64,
    /// Calls of `io_uring_enter(2)`.
    pub enters: u64,
    /// Operations that a ring gave to helper threads, as the kernel has no asynchronous form of them.
    pub fall_backs: u64,
    /// Completions that named nobody: each a bug, and harmless.
    pub stale: u64,
    /// Operations that dropped processors could not wait for, and leaked: of the whole process.
    pub leaked: u64,
    /// Calls of handlers, and turns of tasks, that took longer than [`super::Proactor::watch`] allows.
    pub handlers_slow: u64,
    /// Tasks that have not ended now.
    pub tasks: usize,
    /// Alarms that are set now: sleeping tasks and deadlines.
    pub alarms: usize,
}

/// What the proactor itself counts.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) started: Cell<u64>,
    ended: Cell<u64>,
    bytes_read: Cell<u64>,
    bytes_written: Cell<u64>,
    in_flight_max: Cell<u32>,
    pub(super) queue_full: Cell<u64>,
}

impl Counts {
    /// An operation was performed in the caller's turn.
    pub(super) fn performed(&self, operation: &Operation, bytes: u32) {
        add(&self.started, 1);
        self.end(operation, bytes);
    }

    #[inline]
    pub(super) fn on_complete(&self, event: &CompletionEvent) {
        match &event.end {
            End::Last(operation) => self.end(operation, event.result.unwrap_or(0)),
            End::More(Part::Bytes(_)) => add(&self.bytes_read, event.result.unwrap_or(0).into()),
            // A send whose buffer is still out ends with its number once more.
            End::More(_) => {}
        }
    }

    #[inline]
    fn end(&self, operation: &Operation, bytes: u32) {
        add(&self.ended, 1);
        let (reads, writes) = moves(operation);
        add(&self.bytes_read, if reads { bytes.into() } else { 0 });
        add(&self.bytes_written, if writes { bytes.into() } else { 0 });
    }

    pub(super) fn ended(&self) -> u64 {
        self.ended.get()
    }

    /// So many are in flight now.
    #[inline]
    pub(super) fn see_in_flight(&self, count: u32) {
        self.in_flight_max.set(self.in_flight_max.get().max(count));
    }
}

#[inline]
pub(super) fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}

/// Whether an operation's result is bytes that it brought, and that it took.
fn moves(operation: &Operation) -> (bool, bool) {
    match operation {
        Operation::Read(_)
        | Operation::ReadVectored(_)
        | Operation::Receive(_)
        | Operation::ReceiveMessage(_) => (true, false),
        Operation::Write(_)
        | Operation::WriteVectored(_)
        | Operation::Send(_)
        | Operation::SendMessage(_)
        | Operation::SendZeroCopy(_) => (false, true),
        Operation::CopyRange(_) => (true, true),
        _ => (false, false),
    }
}

impl Core {
    pub(super) fn stats(&self) -> Stats {
        let processor = self.processor.borrow();
        let Counters { enters, fall_backs, stale } = processor.counters();
        let in_flight = processor.in_flight();
        self.counts.see_in_flight(in_flight);
        Stats {
            operations_started: self.counts.started.get(),
            operations_ended: self.counts.ended.get(),
            bytes_read: self.counts.bytes_read.get(),
            bytes_written: self.counts.bytes_written.get(),
            in_flight,
            in_flight_max: self.counts.in_flight_max.get(),
            queue_full: self.counts.queue_full.get(),
            enters,
            fall_backs,
            stale,
            leaked: processor::leaked(),
            handlers_slow: self.watch.get().map_or(0, super::Watch::count),
            tasks: self.tasks.count(),
            alarms: self.timers.len(),
        }
    }
}
