//! The engine by accept and wait: a loop of the program's own over the processor.

use std::time::Duration;

use ucp_engine::OperationProcessor;
use ucp_engine::buffer::Buffer;
use ucp_engine::operation::{CompletionEventQueue, File, Handle, Operation, Read, Token};
use ucp_engine::processor::KernelProcessor;

use super::{READ_BYTES, failure};
use crate::workload::{NOP_DEPTH, Reading, Reads, Result, Stint};

/// Reads to wait for at a time, of those in flight: a share that saves waking up for each.
const BATCH_SHARE: u32 = 4;

pub(crate) fn read(reading: Reading) -> Result {
    let mut kernel = KernelProcessor::new(reading.depth, 1)?;
    let pool = kernel.buffer_pool(reading.depth, READ_BYTES)?;
    let mut reads = reading.begin();
    let file = kernel.register_file(Some(&File::from_fd(reading.file.into())))?;
    let mut events = CompletionEventQueue::default();
    while let Some(lease) = pool.lease() {
        start_read(&mut kernel, &mut reads, (&file).into(), lease.into());
    }
    let batch = (reading.depth / BATCH_SHARE).max(1);
    while kernel.in_flight() > 0 {
        kernel.submit_and_wait(batch.min(kernel.in_flight()), None, &mut events)?;
        while let Some(event) = events.pop() {
            reads.on_end(event.result.map_err(failure)? as usize)?;
            if let Some(Operation::Read(read)) = event.into_operation() {
                start_read(&mut kernel, &mut reads, read.handle, read.buffer);
                if reading.is_direct {
                    // A disk that serves one after the other must not stand still meanwhile.
                    kernel.submit_and_wait(0, None, &mut events)?;
                }
            }
        }
    }
    reads.report()
}

fn start_read(kernel: &mut KernelProcessor, reads: &mut Reads, handle: Handle, buffer: Buffer) {
    if let Some(offset_bytes) = reads.next_offset() {
        let read = Read { handle, buffer, offset_bytes, start: 0, length: READ_BYTES };
        assert!(kernel.accept(read.into(), Token::default()).is_ok(), "a slot for each buffer");
    }
}

pub(crate) fn nop(duration: Duration) -> Result {
    let mut kernel = KernelProcessor::new(NOP_DEPTH, 1)?;
    let mut events = CompletionEventQueue::default();
    let mut stint = Stint::new(duration);
    loop {
        while kernel.in_flight() < NOP_DEPTH && stint.goes_on() {
            let accepted = kernel.accept(Operation::Nop, Token::default());
            assert!(accepted.is_ok(), "there is room for as many as may be in flight");
        }
        if kernel.in_flight() == 0 {
            return stint.report();
        }
        kernel.submit_and_wait(kernel.in_flight(), None, &mut events)?;
        while let Some(event) = events.pop() {
            event.result.map_err(failure)?;
            stint.on_end();
        }
    }
}
