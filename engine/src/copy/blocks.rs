//! The handler that moves a large file through many blocks in flight: it does what the pipeline
//! decides.

use std::sync::Arc;

use super::in_flight::{Hashed, InFlight};
use super::io::cancelled;
use super::journal::Note;
use super::pipeline::{Geometry, Pipeline, PipelineError, Step, Transfer};
use super::resume::Journal;
use super::throttle::Throttle;
use super::zeros::{LeftOut, leave_out};
use super::{Cancellation, Progress};
use crate::buffer::{Buffer, BufferPool, Lease};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{RETRIES_MAX, THROTTLE_WAIT_MAX};
use crate::operation::{
    Cause, Chain, CompletionEvent, File, Handle, Operation, OperationError, Read, Timeout, Write,
};
use crate::proactor::{CompletionHandler, Initiator};
use crate::units::Moment;

/// Copies the bytes of one file to another, or to several.
pub(super) struct BlockCopy {
    pipeline: Pipeline,
    geometry: Geometry,
    /// Whether zeros become holes; otherwise all is written.
    finds_zeros: bool,
    source: Handle,
    pub(super) targets: Vec<BlockTarget>,
    pool: BufferPool,
    /// The read's side of a pair, until the write's side comes.
    pairs: Vec<Option<Pair>>,
    /// What hashes the bytes, where that is wanted.
    pub(super) hashing: Option<InFlight>,
    retries: u32,
    throttle: Option<Arc<Throttle>>,
    /// Steps that wait until their bytes may be moved.
    waiting: Vec<Option<Waiting>>,
    progress: Progress,
    cancellation: Cancellation,
    /// Which side the failure was on, for its message.
    pub(super) failed_side: Option<Side>,
    /// Where it is noted how far it came, and the file that this is of.
    pub(super) journal: Option<(Journal, File)>,
}

/// A file that is written.
pub(super) struct BlockTarget {
    pub(super) handle: Handle,
    /// What of it is to become holes.
    pub(super) left_out: LeftOut,
    /// Why it gets nothing more.
    pub(super) failed: Option<Error>,
}

/// What the operations for the journal are tagged with: no block has this number.
const JOURNAL_TAG: u32 = u32::MAX;

/// One of the two sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Source,
    Target,
}

/// A step that waits until its bytes may be moved.
struct Waiting {
    step: Step,
    buffer: Buffer,
    until: Moment,
}

struct Pair {
    read: Result<u32, OperationError>,
    buffer: Buffer,
}

impl BlockCopy {
    pub(super) fn new(
        (geometry, pipeline, finds_zeros): (Geometry, Pipeline, bool),
        (source, targets): (Handle, Vec<BlockTarget>),
        pool: BufferPool,
        hashing: Option<InFlight>,
        progress: Progress,
        cancellation: Cancellation,
    ) -> Self {
        Self {
            pipeline,
            geometry,
            finds_zeros,
            source,
            targets,
            pool,
            pairs: (0..geometry.depth).map(|_| None).collect(),
            hashing,
            retries: 0,
            throttle: None,
            waiting: (0..geometry.depth).map(|_| None).collect(),
            progress,
            cancellation,
            failed_side: None,
            journal: None,
        }
    }

    /// The same, noting how far it came.
    pub(super) fn with_journal(self, journal: Option<(Journal, File)>) -> Self {
        Self { journal, ..self }
    }

    /// Before this byte all is written.
    pub(super) fn written_below(&self) -> u64 {
        self.pipeline.written_below()
    }

    /// Notes how far it came, now and then. What can't be noted is copied again one day.
    fn note_progress(&mut self, initiator: &mut Initiator<'_>) {
        let end = self.pipeline.written_below();
        let Some((journal, _)) = &mut self.journal else { return };
        let note = journal.recorder.on_progress(end);
        self.note(note, initiator);
    }

    fn note(&mut self, note: Option<Note>, initiator: &mut Initiator<'_>) {
        let (Some((journal, target)), Some(note)) = (&self.journal, note) else { return };
        if initiator.start(journal.operation(note, target), JOURNAL_TAG).is_err() {
            // What is under way stays so: nothing more is noted.
            self.retries += 1;
        }
    }

    fn on_noted(
        &mut self,
        result: Result<u32, OperationError>,
        is_sync: bool,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let at = self.pipeline.written_below();
        let Some((journal, _)) = &mut self.journal else { return Ok(()) };
        match (result, is_sync) {
            // What the sync could not write is lost, and counts as written (`fsync(2)`, NOTES).
            (Err(error), true) => return Err(self.fail(error.errno, Side::Target, at)),
            (Ok(_), true) => {
                let note = journal.recorder.on_synced();
                self.note(Some(note), initiator);
            }
            (Ok(bytes), false) if journal.is_recorded(bytes) => journal.recorder.on_recorded(),
            // Nothing more is noted behind a record that is not whole.
            (_, false) => {}
        }
        Ok(())
    }

    /// The same, at this rate.
    pub(super) fn with_throttle(self, throttle: Option<Arc<Throttle>>) -> Self {
        Self { throttle, ..self }
    }

    fn take(
        &mut self,
        block: u32,
        step: Result<Step, PipelineError>,
        buffer: Buffer,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        if self.cancellation.is_cancelled() {
            self.pipeline.stop();
            return Err(cancelled());
        }
        let (step, buffer) = match (step, &mut self.hashing) {
            (Ok(Step::Write { transfer, zero_from, target }), Some(hashing)) => {
                match hashing.hold(Hashed { transfer, zero_from, target, buffer }) {
                    Some(hashed) => hashed.into_step(),
                    None => return self.go_on_in_order(initiator),
                }
            }
            (step, _) => (step, buffer),
        };
        self.go_on(block, step, buffer, initiator)
    }

    /// Writes the blocks that were read and before which nothing is missing any more.
    fn go_on_in_order(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        while let Some(block) = self.hashing.as_mut().and_then(InFlight::take_hashed) {
            let number = block.transfer.block;
            let (step, buffer) = block.into_step();
            self.go_on(number, step, buffer, initiator)?;
        }
        Ok(())
    }

    fn go_on(
        &mut self,
        block: u32,
        step: Result<Step, PipelineError>,
        buffer: Buffer,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        match step.and_then(|step| self.leave_out(step, &buffer)) {
            Ok(step) => {
                // Now, and not when it may start at last: reads are begun in the order of the file.
                if let (Step::Read(transfer), Some(hashing)) = (step, &mut self.hashing) {
                    hashing.on_read_start(transfer);
                }
                self.pace(step, buffer, initiator)
            }
            Err(PipelineError::WroteNothing(at)) => {
                let error = Error::new(ErrorKind::Storage, "write", "nothing was written").at(at);
                self.lose_target(block, error, buffer, initiator)
            }
            Err(PipelineError::SourceShrank(at)) => {
                self.pipeline.stop();
                self.failed_side = Some(Side::Source);
                let reason = "the file became shorter while it was copied";
                Err(Error::new(ErrorKind::SourceChanged, "read", reason).at(at))
            }
        }
    }

    /// A target can't be written any more: the others go on, if there are any.
    fn lose_target(
        &mut self,
        block: u32,
        error: Error,
        buffer: Buffer,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let target = self.pipeline.target_of(block) as usize;
        self.targets[target].failed.get_or_insert_with(|| error.clone());
        match self.pipeline.on_target_lost(block) {
            Some(step) => self.take(block, Ok(step), buffer, initiator),
            None => {
                self.failed_side = Some(Side::Target);
                Err(error)
            }
        }
    }

    /// Leaves out zeros, if they become holes.
    fn leave_out(&mut self, step: Step, buffer: &Buffer) -> Result<Step, PipelineError> {
        if !self.finds_zeros {
            return Ok(step);
        }
        let (targets, buffer) = (&self.targets, buffer.as_slice());
        let left_out_of = |target: u32| &targets[target as usize].left_out;
        let (step, bytes) = leave_out(&mut self.pipeline, step, buffer, left_out_of)?;
        self.progress.add_bytes(bytes);
        Ok(step)
    }

    /// Starts a step when the bytes that it will read may be moved.
    fn pace(
        &mut self,
        step: Step,
        buffer: Buffer,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let (Some(throttle), Step::Read(read) | Step::ReadThenWrite(read)) = (&self.throttle, step)
        else {
            return self.start_step(step, buffer, initiator);
        };
        let until = throttle.book(u64::from(read.length), initiator.now());
        self.wait(read.block, Waiting { step, buffer, until }, initiator)
    }

    /// Goes on with a step if its time has come, and otherwise waits; not for long, so that a
    /// cancelled copy is noticed.
    fn wait(
        &mut self,
        block: u32,
        waiting: Waiting,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        if self.cancellation.is_cancelled() {
            self.pipeline.stop();
            return Err(cancelled());
        }
        let left = waiting.until.since(initiator.now());
        if left.is_zero() {
            return self.start_step(waiting.step, waiting.buffer, initiator);
        }
        self.waiting[block as usize] = Some(waiting);
        let duration = left.min(THROTTLE_WAIT_MAX);
        match initiator.start(Operation::Timeout(Timeout { duration }), block) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.fail_to_start()),
        }
    }

    fn start_step(
        &mut self,
        step: Step,
        mut buffer: Buffer,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let started = match step {
            Step::Rest => return Ok(()),
            Step::Read(transfer) => {
                let read = self.read(transfer, buffer);
                initiator.start(Operation::Read(read), transfer.block).is_ok()
            }
            Step::Write { transfer, zero_from, target } => {
                let end = transfer.buffer_start + transfer.length;
                if end > zero_from
                    && let Some(padding) = buffer.part_mut(zero_from, end - zero_from)
                {
                    padding.fill(0);
                }
                let write = Operation::Write(Write {
                    handle: self.targets[target as usize].handle.clone(),
                    buffer,
                    offset_bytes: transfer.file_offset,
                    start: transfer.buffer_start,
                    length: transfer.length,
                });
                // Through the page cache a write is a copy of memory: another core does it.
                let started = match self.geometry.write_alignment == 1 {
                    true => initiator.start_beside(write, transfer.block),
                    false => initiator.start(write, transfer.block),
                };
                started.is_ok()
            }
            Step::ReadThenWrite(transfer) => {
                let read = self.read(transfer, buffer);
                let target = self.targets[0].handle.clone();
                let chain = Chain::read_then_write(read, target, transfer.file_offset);
                let started = match self.geometry.is_buffered() {
                    true => initiator.start_chain_beside(chain, transfer.block),
                    false => initiator.start_chain(chain, transfer.block),
                };
                started.is_ok()
            }
        };
        if started {
            return Ok(());
        }
        Err(self.fail_to_start())
    }

    fn fail_to_start(&mut self) -> Error {
        self.pipeline.stop();
        Error::new(ErrorKind::Io, "start operation", "the processor has no room")
    }

    fn read(&self, transfer: Transfer, buffer: Buffer) -> Read {
        Read {
            handle: self.source.clone(),
            buffer,
            offset_bytes: transfer.file_offset,
            start: transfer.buffer_start,
            length: transfer.length,
        }
    }

    fn on_read_complete(
        &mut self,
        block: u32,
        result: Result<u32, OperationError>,
        read: Read,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        if self.geometry.mode == super::PipelineMode::Linked && self.pipeline.is_pairing(block) {
            self.pairs[block as usize] = Some(Pair { read: result, buffer: read.buffer });
            return Ok(());
        }
        match result {
            Ok(bytes) => {
                let step = self.pipeline.on_read_complete(block, bytes);
                self.take(block, step, read.buffer, initiator)
            }
            Err(error) => self.retry(error, Operation::Read(read), block, initiator),
        }
    }

    fn on_write_complete(
        &mut self,
        block: u32,
        result: Result<u32, OperationError>,
        write: Write,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        if let Some(pair) = self.pairs[block as usize].take() {
            return self.on_pair_complete(block, pair, result, &write, initiator);
        }
        match result {
            Ok(bytes) => {
                self.progress.add_bytes(u64::from(bytes));
                let step = self.pipeline.on_write_complete(block, bytes);
                self.take(block, step, write.buffer, initiator)?;
                self.note_progress(initiator);
                Ok(())
            }
            Err(error) => self.retry(error, Operation::Write(write), block, initiator),
        }
    }

    /// Both sides of a pair have ended: the read in full, or short or failed with the write undone.
    fn on_pair_complete(
        &mut self,
        block: u32,
        pair: Pair,
        written: Result<u32, OperationError>,
        write: &Write,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let at = write.offset_bytes;
        let read = match pair.read {
            Ok(read) => read,
            Err(error) if is_transient(error.errno) => {
                // The pipeline takes a read of nothing for the end; start the read again instead.
                let step = self.pipeline.restart_pair_as_read(block);
                return self.retry_step(
                    error,
                    Side::Source,
                    at,
                    (block, step),
                    pair.buffer,
                    initiator,
                );
            }
            Err(error) => return Err(self.fail(error.errno, Side::Source, at)),
        };
        let written = match written {
            Ok(written) => Some(written),
            Err(error) if error.cause == Cause::LinkBroken || is_transient(error.errno) => None,
            Err(error) => return Err(self.fail(error.errno, Side::Target, at)),
        };
        self.progress.add_bytes(u64::from(written.unwrap_or(0)));
        let step = self.pipeline.on_pair_complete(block, read, written);
        self.take(block, step, pair.buffer, initiator)?;
        self.note_progress(initiator);
        Ok(())
    }

    /// Starts an operation again that the kernel asked to be tried again. Otherwise the copy fails,
    /// or the target that could not be written is lost.
    fn retry(
        &mut self,
        error: OperationError,
        operation: Operation,
        block: u32,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        if self.cancellation.is_cancelled() {
            self.pipeline.stop();
            return Err(cancelled());
        }
        if is_transient(error.errno) && self.retries < RETRIES_MAX {
            self.retries += 1;
            return match initiator.start(operation, block) {
                Ok(_) => Ok(()),
                Err(_) => Err(self.fail_to_start()),
            };
        }
        match operation {
            Operation::Write(Write { buffer, offset_bytes, .. }) => {
                let error = Error::from_errno("write", error.errno).at(offset_bytes);
                self.lose_target(block, error, buffer, initiator)
            }
            Operation::Read(read) => Err(self.fail(error.errno, Side::Source, read.offset_bytes)),
            _ => unreachable!("blocks are read and written"),
        }
    }

    fn retry_step(
        &mut self,
        error: OperationError,
        side: Side,
        at: u64,
        (block, step): (u32, Step),
        buffer: Buffer,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        if self.retries >= RETRIES_MAX {
            return Err(self.fail(error.errno, side, at));
        }
        self.retries += 1;
        self.take(block, Ok(step), buffer, initiator)
    }

    fn fail(&mut self, errno: Errno, side: Side, at: u64) -> Error {
        self.pipeline.stop();
        self.failed_side = Some(side);
        let verb = if side == Side::Source { "read" } else { "write" };
        Error::from_errno(verb, errno).at(at)
    }
}

impl CompletionHandler for BlockCopy {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        for block in 0..self.geometry.depth {
            let step = self.pipeline.start(block);
            if step == Step::Rest {
                break;
            }
            let lease: Option<Lease> = self.pool.lease();
            let Some(lease) = lease else {
                return Err(Error::new(ErrorKind::Io, "lend buffer", "the pool is empty"));
            };
            self.take(block, Ok(step), lease.into(), initiator)?;
        }
        Ok(())
    }

    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let (block, result) = (event.token.tag, event.result);
        match event.into_operation() {
            Some(Operation::Write(_) | Operation::SetAttribute(_)) if block == JOURNAL_TAG => {
                self.on_noted(result, false, initiator)
            }
            Some(Operation::Sync(_)) => self.on_noted(result, true, initiator),
            Some(Operation::Read(read)) => self.on_read_complete(block, result, read, initiator),
            Some(Operation::Write(write)) => {
                self.on_write_complete(block, result, write, initiator)
            }
            Some(Operation::Timeout(_)) => match self.waiting[block as usize].take() {
                Some(waiting) => self.wait(block, waiting, initiator),
                None => unreachable!("a block waits with the step that it waits for"),
            },
            _ => unreachable!("a copy of blocks reads, writes and waits"),
        }
    }

    fn is_finished(&self) -> bool {
        self.pipeline.is_finished()
    }
}

/// Whether the kernel asks for the same again.
fn is_transient(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::EINTR)
}
