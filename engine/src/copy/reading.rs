//! The handler that reads a file, many blocks in flight, and makes its fingerprint in order.
//!
//! It is a copy whose writes are hashing: the same pipeline decides, so that short reads are resumed
//! in one place.

use super::Cancellation;
use super::fingerprint::{Fingerprint, Fingerprinter, Wanted};
use super::io::cancelled;
use super::pipeline::{Geometry, Pipeline, PipelineError, Step, Transfer};
use crate::buffer::{Buffer, BufferPool};
use crate::digest::Order;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::RETRIES_MAX;
use crate::operation::{CompletionEvent, Handle, Operation, Read};
use crate::proactor::{CompletionHandler, Initiator};

/// Reads a file to its end.
pub(super) struct Reading {
    pipeline: Pipeline,
    geometry: Geometry,
    file: Handle,
    pool: BufferPool,
    order: Order<Held>,
    fingerprinter: Fingerprinter,
    retries: u32,
    cancellation: Cancellation,
    /// The byte at which the file ended before its size.
    pub(super) ended_at: Option<u64>,
}

/// A block that was read before those in front of it.
#[derive(Debug)]
struct Held {
    transfer: Transfer,
    buffer: Buffer,
}

impl Reading {
    pub(super) fn new(
        geometry: Geometry,
        file: Handle,
        pool: BufferPool,
        wanted: Wanted,
        cancellation: Cancellation,
    ) -> Self {
        Self {
            pipeline: Pipeline::new(geometry),
            geometry,
            file,
            pool,
            order: Order::new(),
            fingerprinter: Fingerprinter::new(wanted),
            retries: 0,
            cancellation,
            ended_at: None,
        }
    }

    /// What the file came to.
    pub(super) fn finish(self) -> Fingerprint {
        self.fingerprinter.finish(self.geometry.size_bytes)
    }

    fn read(
        &mut self,
        transfer: Transfer,
        buffer: Buffer,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        if transfer.buffer_start == 0 {
            self.order.begin(transfer.file_offset);
        }
        let read = Read {
            handle: self.file.clone(),
            buffer,
            offset_bytes: transfer.file_offset,
            start: transfer.buffer_start,
            length: transfer.length,
        };
        self.start_read(read, transfer.block, initiator)
    }

    fn start_read(
        &mut self,
        read: Read,
        block: u32,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        if initiator.start(Operation::Read(read), block).is_ok() {
            return Ok(());
        }
        self.pipeline.stop();
        Err(Error::new(ErrorKind::Io, "start operation", "the processor has no room"))
    }

    fn on_block_read(
        &mut self,
        transfer: Transfer,
        buffer: Buffer,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        self.order.complete(transfer.file_offset, Held { transfer, buffer });
        while let Some((offset, Held { transfer, buffer })) = self.order.take_next() {
            let bytes = buffer.part(0, transfer.length).unwrap_or_default();
            self.fingerprinter.on_data(offset, bytes);
            let next = self.pipeline.on_write_complete(transfer.block, transfer.length);
            match next {
                Ok(Step::Read(transfer)) => self.read(transfer, buffer, initiator)?,
                Ok(Step::Rest) => {}
                _ => unreachable!("a block that was hashed is read into again, or rests"),
            }
        }
        Ok(())
    }

    fn on_failure(
        &mut self,
        errno: Errno,
        read: Read,
        block: u32,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let is_transient = matches!(errno, Errno::EAGAIN | Errno::EINTR);
        if is_transient && self.retries < RETRIES_MAX {
            self.retries += 1;
            return self.start_read(read, block, initiator);
        }
        self.pipeline.stop();
        Err(Error::from_errno("read", errno).at(read.offset_bytes))
    }
}

impl CompletionHandler for Reading {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        for block in 0..self.geometry.depth {
            let Step::Read(transfer) = self.pipeline.start(block) else { break };
            let Some(lease) = self.pool.lease() else {
                return Err(Error::new(ErrorKind::Io, "lend buffer", "the pool is empty"));
            };
            self.read(transfer, lease.into(), initiator)?;
        }
        Ok(())
    }

    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let (block, result) = (event.token.tag, event.result);
        let Some(Operation::Read(read)) = event.into_operation() else {
            unreachable!("a reading only reads")
        };
        if self.cancellation.is_cancelled() {
            self.pipeline.stop();
            return Err(cancelled());
        }
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => return self.on_failure(error.errno, read, block, initiator),
        };
        match self.pipeline.on_read_complete(block, bytes) {
            Ok(Step::Read(transfer)) => self.read(transfer, read.buffer, initiator),
            Ok(Step::Write { transfer, .. }) => {
                self.on_block_read(transfer, read.buffer, initiator)
            }
            Ok(Step::Rest | Step::ReadThenWrite(_)) => {
                unreachable!("what was read is read on, or hashed")
            }
            Err(PipelineError::SourceShrank(at) | PipelineError::WroteNothing(at)) => {
                self.pipeline.stop();
                self.ended_at = Some(at);
                let reason = "the file is shorter than it was";
                Err(Error::new(ErrorKind::SourceChanged, "read", reason).at(at))
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.pipeline.is_finished()
    }
}
