//! The engine by completion handlers.

use std::time::Duration;

use ucp_engine::buffer::Buffer;
use ucp_engine::operation::{File, Handle, Operation, Read, RegisteredFile};
use ucp_engine::{CompletionEvent, CompletionHandler, Error, Initiator};

use super::{READ_BYTES, proactor};
use crate::workload::{NOP_DEPTH, Reading, Reads, Result, Stint};

/// Keeps a read in flight for each buffer.
struct Reader {
    reads: Reads,
    file: RegisteredFile,
    buffers: Vec<Buffer>,
}

/// Keeps a batch of no-ops in flight.
struct Nops(Stint);

pub(crate) fn read(reading: Reading) -> Result {
    let proactor = proactor(reading.depth)?;
    let initiator = proactor.initiator();
    let pool = initiator.buffer_pool(reading.depth, READ_BYTES)?;
    let buffers = std::iter::from_fn(|| pool.lease()).map(Buffer::from).collect();
    let reads = reading.begin();
    let file = initiator.register_file(Some(&File::from_fd(reading.file.into())))?;
    let (reader, outcome) = proactor.run(Reader { reads, file, buffers });
    outcome?;
    reader.reads.report()
}

pub(crate) fn nop(duration: Duration) -> Result {
    let (nops, outcome) = proactor(NOP_DEPTH)?.run(Nops(Stint::new(duration)));
    outcome?;
    nops.0.report()
}

impl Reader {
    fn start_read(&mut self, handle: Handle, buffer: Buffer, initiator: &mut Initiator<'_>) {
        if let Some(offset_bytes) = self.reads.next_offset() {
            let read = Read { handle, buffer, offset_bytes, start: 0, length: READ_BYTES };
            assert!(initiator.start(read.into(), 0).is_ok(), "there is a slot for each buffer");
        }
    }
}

impl CompletionHandler for Reader {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> std::result::Result<(), Error> {
        while let Some(buffer) = self.buffers.pop() {
            self.start_read((&self.file).into(), buffer, initiator);
        }
        Ok(())
    }

    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> std::result::Result<(), Error> {
        let bytes = event.result.map_err(|error| Error::from_errno("read", error.errno))?;
        assert!(self.reads.on_end(bytes as usize).is_ok(), "a read of {bytes} bytes");
        if let Some(Operation::Read(read)) = event.into_operation() {
            self.start_read(read.handle, read.buffer, initiator);
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        true
    }
}

impl CompletionHandler for Nops {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> std::result::Result<(), Error> {
        for _ in 0..NOP_DEPTH {
            assert!(initiator.start(Operation::Nop, 0).is_ok(), "there is room for a batch");
        }
        Ok(())
    }

    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> std::result::Result<(), Error> {
        event.result.map_err(|error| Error::from_errno("no-op", error.errno))?;
        self.0.on_end();
        if self.0.goes_on() {
            assert!(initiator.start(Operation::Nop, 0).is_ok(), "one has just ended");
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        true
    }
}
