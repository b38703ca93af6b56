//! A batch: bytes that were read, where they are from, and the memory that they are in.

use std::fmt;
use std::ops::Range;

use super::cut::Part;
use super::source::{Planned, SourceId};
use crate::buffer::Buffer;

/// Whole lines of one source, or part of a line, in a block on loan from the pool.
///
/// No byte is copied: [`Batch::into_buffer`] gives the block to an operation that writes or sends it.
/// When the block is dropped the pool has it back, and the tail reads on.
pub struct Batch {
    buffer: Buffer,
    planned: Planned,
    source: SourceId,
}

/// What a batch's receiver confirms: everything of a source before an offset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// Which source.
    pub source: SourceId,
    /// The end of what has arrived for good, as an offset of the source.
    pub end_bytes: u64,
}

impl Batch {
    pub(super) fn new(source: SourceId, planned: Planned, buffer: Buffer) -> Self {
        Self { buffer, planned, source }
    }

    /// Whose bytes they are.
    #[must_use]
    pub fn source(&self) -> SourceId {
        self.source
    }

    /// The number of the batch among those of its source: 0, 1, 2 …
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.planned.sequence
    }

    /// Where its first byte stands in the source.
    #[must_use]
    pub fn offset_bytes(&self) -> u64 {
        self.planned.offset_bytes
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        self.planned.length as u64
    }

    /// What it is made of.
    #[must_use]
    pub fn part(&self) -> Part {
        self.planned.part
    }

    /// Whether it was sent before, in this life of the program: after
    /// [`Tail::rewind`](super::Tail::rewind).
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.planned.is_repeated
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer.as_slice()[..self.planned.length]
    }

    /// Its lines, each with its newline if it has one.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.as_bytes().split_inclusive(|byte| *byte == b'\n')
    }

    /// What is to be given to [`Tail::acknowledge`](super::Tail::acknowledge) once the batch has
    /// arrived for good.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        let end_bytes = self.planned.offset_bytes + self.planned.length as u64;
        Receipt { source: self.source, end_bytes }
    }

    /// The block, and which of its bytes are the batch's.
    #[must_use]
    pub fn into_buffer(self) -> (Buffer, Range<u32>) {
        let length = u32::try_from(self.planned.length).unwrap_or(u32::MAX);
        (self.buffer, 0..length)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Planned { sequence, offset_bytes, length, part, .. } = self.planned;
        write!(f, "Batch({}#{sequence}, {length} bytes at {offset_bytes}, {part:?})", self.source)
    }
}
