//! Chains: operations that the kernel runs one after the other without coming back.
//!
//! A chain orders its members and nothing else. A member that fails or moves less than asked ends
//! the chain: the rest complete with [`super::Cause::LinkBroken`]. Only a [`Close`] runs all the same
//! once what it closes was opened. The events of a chain come together, in order, once its last
//! member has ended, so that a buffer that two members use is handed back only when both are done
//! with it, in the operation that brought it.

use std::time::Duration;

use super::{Close, Handle, Open, Operation, Read, RegisteredFile, Sync, Timeout, Write};
use crate::buffer::Buffer;
use crate::limits::CHAIN_MEMBERS_MAX;

/// Operations to run one after the other, pushed to the kernel all or nothing.
#[derive(Debug)]
pub struct Chain {
    members: [Option<Operation>; CHAIN_MEMBERS_MAX],
}

impl Chain {
    /// Writes, then puts the file on stable storage: a one-block file made durable in one step.
    #[must_use]
    pub fn write_then_sync(write: Write, sync: Sync) -> Self {
        Self::of([Operation::Write(write), Operation::Sync(sync)])
    }

    /// Reads a block and writes the same bytes elsewhere. The write takes the read's buffer and
    /// has none of its own; a short read leaves the write undone.
    #[must_use]
    pub fn read_then_write(read: Read, target: Handle, offset_bytes: u64) -> Self {
        let (start, length) = (read.start, read.length);
        let buffer = Buffer::OfPreviousMember;
        let write = Write { handle: target, buffer, offset_bytes, start, length };
        Self::of([Operation::Read(read), Operation::Write(write)])
    }

    /// Opens a file into a slot of the table of registered files, reads from its start, and
    /// empties the slot: a small file in one step.
    #[must_use]
    pub fn open_read_close(open: Open, slot: &RegisteredFile, buffer: Buffer) -> Self {
        let open = Open { slot: Some(slot.clone()), ..open };
        let length = buffer.length();
        let read = Read { handle: slot.into(), buffer, offset_bytes: 0, start: 0, length };
        Self::of([
            Operation::Open(open),
            Operation::Read(read),
            Operation::Close(Close::registered(slot)),
        ])
    }

    /// Runs an operation for `duration` at the most; then it is cancelled and ends with
    /// [`super::Cause::TimedOut`], unless the kernel can't take it back any more.
    ///
    /// # Panics
    ///
    /// If the operation completes many times: a chain ends once. Cancel such an operation instead.
    #[must_use]
    pub fn with_timeout(operation: Operation, duration: Duration) -> Self {
        assert!(!operation.is_multishot(), "{} completes many times", operation.verb());
        Self::of([operation, Operation::LinkTimeout(Timeout { duration })])
    }

    fn of<const N: usize>(members: [Operation; N]) -> Self {
        const { assert!(N > 0 && N <= CHAIN_MEMBERS_MAX) };
        let mut chain = Self { members: [const { None }; CHAIN_MEMBERS_MAX] };
        for (place, member) in chain.members.iter_mut().zip(members) {
            *place = Some(member);
        }
        chain
    }

    /// How many members there are.
    #[must_use]
    pub fn length(&self) -> usize {
        self.members().count()
    }

    /// The members, in order, to look at.
    pub fn members(&self) -> impl Iterator<Item = &Operation> {
        self.members.iter().flatten()
    }

    /// The members, in order.
    pub fn into_members(self) -> impl Iterator<Item = Operation> {
        self.members.into_iter().flatten()
    }

    /// Whether it is a read and the write of the same bytes.
    pub(crate) fn is_pair(&self) -> bool {
        matches!(
            &self.members,
            [
                Some(Operation::Read(_)),
                Some(Operation::Write(Write { buffer: Buffer::OfPreviousMember, .. })),
                None,
                ..
            ]
        )
    }

    /// Whether a member failed to do all that it was asked to, so that the rest must not run
    /// (`io_uring_enter(2)`, IOSQE_IO_LINK). Reading less at the end of a file is short, too.
    pub(crate) fn is_broken_by(member: &Operation, result: Result<u32, impl Sized>) -> bool {
        match (member, result) {
            (_, Err(_)) => true,
            (
                Operation::Read(Read { length, .. }) | Operation::Write(Write { length, .. }),
                Ok(n),
            ) => n < *length,
            (_, Ok(_)) => false,
        }
    }

    /// Whether a member runs even if the one before it was short or failed (IOSQE_IO_HARDLINK):
    /// a file that is shorter than the buffer must be closed as well.
    pub(crate) fn runs_anyway(member: &Operation) -> bool {
        matches!(member, Operation::Close(_))
    }
}
