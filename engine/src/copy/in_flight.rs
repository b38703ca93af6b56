//! Hashing in flight: blocks that were read are hashed in order, and written only then.
//!
//! A buffer belongs to the operation that uses it, so a block is hashed between its read and its
//! write; one that was read too early waits for those before it. The device has the others' reads
//! and writes to do meanwhile.

use super::fingerprint::Fingerprinter;
use super::pipeline::{PipelineError, Step, Transfer};
use crate::buffer::Buffer;
use crate::digest::Order;

/// What hashes the blocks of one copy.
#[derive(Debug)]
pub(super) struct InFlight {
    order: Order<Hashed>,
    fingerprinter: Fingerprinter,
    /// Which blocks hold a chunk that was hashed: the rest of a short write is not hashed again.
    is_hashed: Vec<bool>,
}

/// A block that is to be written next.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) transfer: Transfer,
    pub(super) zero_from: u32,
    pub(super) target: u32,
    pub(super) buffer: Buffer,
}

impl Hashed {
    /// The write that it waits for, and its buffer.
    pub(super) fn into_step(self) -> (Result<Step, PipelineError>, Buffer) {
        let Self { transfer, zero_from, target, buffer } = self;
        (Ok(Step::Write { transfer, zero_from, target }), buffer)
    }
}

impl InFlight {
    pub(super) fn new(fingerprinter: Fingerprinter, depth: u32) -> Self {
        Self { order: Order::new(), fingerprinter, is_hashed: vec![false; depth as usize] }
    }

    /// A read was started: of a chunk that is new, or of the rest of one.
    pub(super) fn on_read_start(&mut self, transfer: Transfer) {
        if transfer.buffer_start == 0 {
            self.order.begin(transfer.file_offset);
            self.is_hashed[transfer.block as usize] = false;
        }
    }

    /// A block could be written now. Gives it back if it was hashed before; else keeps it, and
    /// [`InFlight::take_hashed`] gives what may be written.
    pub(super) fn hold(&mut self, block: Hashed) -> Option<Hashed> {
        if self.is_hashed[block.transfer.block as usize] {
            return Some(block);
        }
        self.order.complete(block.transfer.file_offset, block);
        None
    }

    /// Hashes the next block in order, if it was read, and gives it back to be written.
    pub(super) fn take_hashed(&mut self) -> Option<Hashed> {
        let (offset, block) = self.order.take_next()?;
        // The rest is padding.
        let bytes = block.buffer.part(0, block.zero_from).unwrap_or_default();
        self.fingerprinter.on_data(offset, bytes);
        self.is_hashed[block.transfer.block as usize] = true;
        Some(block)
    }

    pub(super) fn into_fingerprinter(self) -> Fingerprinter {
        self.fingerprinter
    }
}
