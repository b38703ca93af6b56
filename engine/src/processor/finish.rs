//! From raw results to completion events: one place for every processor, so that all of them mean
//! the same.

use nix::libc;

use super::slots::{Link, Slots};
use crate::error::Errno;
use crate::operation::{
    Cause, CompletionEvent, CompletionEventQueue, End, Operation, OperationError,
};

/// Ends the operation in slot `index` with the kernel's `result`: a number, or an errno below zero.
///
/// A member of a chain is kept until the chain's last member has ended.
pub(super) fn finish(
    slots: &mut Slots,
    index: u32,
    result: i32,
    events: &mut CompletionEventQueue,
) {
    let Some(link) = slots.entry(index).link else {
        end(slots, index, result, ChainState::NONE, events);
        return;
    };
    slots.entry_mut(index).result = Some(result);
    let head = slots.entry_mut(link.head).link.as_mut().expect("a chain's head is linked");
    head.pending -= 1;
    if head.pending == 0 {
        end_chain(slots, link.head, events);
    }
}

/// Joins slots into a chain, in order.
pub(super) fn link(slots: &mut Slots, members: &[u32]) {
    let pending = u32::try_from(members.len()).expect("a chain is short");
    for (place, index) in members.iter().enumerate() {
        let next = members.get(place + 1).copied();
        slots.entry_mut(*index).link = Some(Link { head: members[0], next, pending });
    }
}

/// Numbers or errnos to what a raw result is.
pub(super) fn raw(result: Result<u32, Errno>) -> i32 {
    match result {
        Ok(number) => i32::try_from(number).unwrap_or(i32::MAX),
        Err(errno) => -(errno as i32),
    }
}

/// What the other members of a chain tell about a cancelled one.
#[derive(Clone, Copy)]
struct ChainState {
    is_chain: bool,
    timed_out: bool,
    cancel_requested: bool,
}

impl ChainState {
    const NONE: Self = Self { is_chain: false, timed_out: false, cancel_requested: false };
}

fn end_chain(slots: &mut Slots, head: u32, events: &mut CompletionEventQueue) {
    let mut members = Vec::with_capacity(crate::limits::CHAIN_MEMBERS_MAX);
    let mut next = Some(head);
    let mut state = ChainState { is_chain: true, ..ChainState::NONE };
    while let Some(index) = next {
        let entry = *slots.entry(index);
        let result = entry.result.expect("every member has ended");
        state.timed_out |= result == -libc::ETIME;
        state.cancel_requested |= entry.cancel_requested;
        members.push((index, result));
        next = entry.link.and_then(|link| link.next);
    }
    for (index, result) in members {
        end(slots, index, result, state, events);
    }
}

fn end(
    slots: &mut Slots,
    index: u32,
    result: i32,
    chain: ChainState,
    events: &mut CompletionEventQueue,
) {
    let id = slots.id(index);
    let entry = *slots.entry(index);
    let operation = slots.remove(index);
    let cancel_requested = entry.cancel_requested || chain.cancel_requested;
    let result = match (&operation, result) {
        (Operation::Timeout(_), r) if r == -libc::ETIME => Ok(0),
        (Operation::LinkTimeout(_), r) if r < 0 && r != -libc::ETIME => Ok(0),
        (_, result) => u32::try_from(result).map_err(|_| {
            let errno = Errno::from_raw(-result);
            let cause = match errno {
                Errno::ETIME => Cause::TimedOut,
                Errno::ECANCELED | Errno::EINTR if chain.timed_out => Cause::TimedOut,
                Errno::ECANCELED | Errno::EINTR if cancel_requested => Cause::Cancelled,
                Errno::ECANCELED if chain.is_chain => Cause::LinkBroken,
                _ => Cause::Failed,
            };
            OperationError { errno, cause }
        }),
    };
    events.push(CompletionEvent { id, token: entry.token, result, end: End::Last(operation) });
}
