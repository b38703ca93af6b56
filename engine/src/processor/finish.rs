//! From raw results to completion events: one place for every processor, so that all of them mean
//! the same.

use std::mem;

use nix::libc;

use super::slots::{Entry, Link, Slots};
use crate::buffer::Buffer;
use crate::error::Errno;
use crate::operation::{
    Cause, Chain, CompletionEvent, CompletionEventQueue, End, Operation, OperationError, Part,
    Read, Token, Write,
};

/// Ends the operation in slot `index` with the kernel's `result`: a number, or an errno below zero.
///
/// A member of a chain is kept until the chain's last member has ended.
#[inline(always)]
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

/// Ends a member of a chain that is run here and not by the kernel, or an operation of no chain.
/// Returns the slot of the member to begin next.
pub(super) fn complete(
    slots: &mut Slots,
    index: u32,
    result: i32,
    events: &mut CompletionEventQueue,
) -> Option<u32> {
    let next = slots.entry(index).link.and_then(|link| link.next);
    let begun = next.and_then(|next| follow(slots, index, next, result, events));
    return_buffer(slots, index);
    finish(slots, index, result, events);
    begun
}

/// Decides what becomes of the members behind one that ends.
fn follow(
    slots: &mut Slots,
    index: u32,
    next: u32,
    result: i32,
    events: &mut CompletionEventQueue,
) -> Option<u32> {
    let is_broken = Chain::is_broken_by(slots.operation(index), u32::try_from(result));
    let behind = slots.operation(next);
    let is_timeout = matches!(behind, Operation::LinkTimeout(_));
    let stops = is_timeout || (is_broken && !Chain::runs_anyway(behind));
    if !stops && !slots.entry(next).cancel_requested {
        lend_buffer(slots, index, next);
        return Some(next);
    }
    let mut rest = Some(next);
    while let Some(index) = rest {
        let entry = slots.entry(index);
        rest = entry.link.and_then(|link| link.next);
        // A timeout that has run out has ended already.
        if entry.result.is_none() {
            finish(slots, index, raw(Err(Errno::ECANCELED)), events);
        }
    }
    None
}

/// Moves the buffer of a member to the next, if the next has none of its own.
fn lend_buffer(slots: &mut Slots, index: u32, next: u32) {
    let Operation::Write(Write { buffer: Buffer::OfPreviousMember, .. }) = slots.operation(next)
    else {
        return;
    };
    let Operation::Read(read) = slots.prepare(index).0 else { return };
    let lent = mem::replace(&mut read.buffer, Buffer::OfPreviousMember);
    if let Operation::Write(write) = slots.prepare(next).0 {
        write.buffer = lent;
    }
}

/// Moves a buffer that was lent to a member back to the chain's head.
fn return_buffer(slots: &mut Slots, index: u32) {
    let Some(Link { head, .. }) = slots.entry(index).link else { return };
    if head == index {
        return;
    }
    let Operation::Read(Read { buffer: Buffer::OfPreviousMember, .. }) = slots.operation(head)
    else {
        return;
    };
    let Operation::Write(write) = slots.prepare(index).0 else { return };
    let lent = mem::replace(&mut write.buffer, Buffer::OfPreviousMember);
    if let Operation::Read(read) = slots.prepare(head).0 {
        read.buffer = lent;
    }
}

/// Keeps the members of a chain, for which there must be room, and joins their slots in order.
/// Returns the first.
pub(super) fn insert_chain(slots: &mut Slots, chain: Chain, token: Token) -> u32 {
    let pending = u32::try_from(chain.length()).expect("a chain is short");
    let mut head = None;
    let mut last = None;
    for member in chain.into_members() {
        let index = slots.insert(member, token).expect("room was checked");
        let head = *head.get_or_insert(index);
        slots.entry_mut(index).link = Some(Link { head, next: None, pending });
        if let Some(last) = last.replace(index) {
            let link = slots.entry_mut(last).link.as_mut().expect("it was linked above");
            link.next = Some(index);
        }
    }
    head.expect("a chain has members")
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
    let mut state = ChainState { is_chain: true, ..ChainState::NONE };
    for index in members(slots, head) {
        let entry = slots.entry(index);
        state.timed_out |= entry.result == Some(-libc::ETIME);
        state.cancel_requested |= entry.cancel_requested;
    }
    let mut next = Some(head);
    while let Some(index) = next {
        let Entry { link, result, .. } = *slots.entry(index);
        next = link.and_then(|link| link.next);
        end(slots, index, result.expect("every member has ended"), state, events);
    }
}

/// The slots of a chain from `first` on.
pub(super) fn members(slots: &Slots, first: u32) -> impl Iterator<Item = u32> + '_ {
    std::iter::successors(Some(first), |index| slots.entry(*index).link?.next)
}

#[inline(always)]
fn end(
    slots: &mut Slots,
    index: u32,
    result: i32,
    chain: ChainState,
    events: &mut CompletionEventQueue,
) {
    match u32::try_from(result) {
        Ok(number) => push(slots, index, Ok(number), events),
        Err(_) => end_failed(slots, index, result, chain, events),
    }
}

#[cold]
fn end_failed(
    slots: &mut Slots,
    index: u32,
    result: i32,
    chain: ChainState,
    events: &mut CompletionEventQueue,
) {
    let result = failure(slots, index, Errno::from_raw(-result), chain);
    push(slots, index, result, events);
}

#[inline(always)]
fn push(
    slots: &mut Slots,
    index: u32,
    result: Result<u32, OperationError>,
    events: &mut CompletionEventQueue,
) {
    let id = slots.id(index);
    let token = slots.entry(index).token;
    events.push(CompletionEvent { id, token, result, end: End::Last(slots.remove(index)) });
}

/// Tells what came of an operation that goes on.
pub(super) fn tell_part(
    slots: &Slots,
    index: u32,
    number: u32,
    part: Part,
    events: &mut CompletionEventQueue,
) {
    let (id, token) = (slots.id(index), slots.entry(index).token);
    events.push(CompletionEvent { id, token, result: Ok(number), end: End::More(part) });
}

/// What a failure means for the operation in a slot.
fn failure(
    slots: &Slots,
    index: u32,
    errno: Errno,
    chain: ChainState,
) -> Result<u32, OperationError> {
    match (slots.operation(index), errno) {
        (Operation::Timeout(_), Errno::ETIME) => return Ok(0),
        (Operation::LinkTimeout(_), errno) if errno != Errno::ETIME => return Ok(0),
        _ => {}
    }
    let cancel_requested = slots.entry(index).cancel_requested || chain.cancel_requested;
    let cause = match errno {
        Errno::ETIME => Cause::TimedOut,
        Errno::ECANCELED | Errno::EINTR if chain.timed_out => Cause::TimedOut,
        Errno::ECANCELED | Errno::EINTR if cancel_requested => Cause::Cancelled,
        Errno::ECANCELED if chain.is_chain => Cause::LinkBroken,
        _ => Cause::Failed,
    };
    Err(OperationError { errno, cause })
}
