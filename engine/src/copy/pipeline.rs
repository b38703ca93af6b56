//! Moving the bytes of one large file, as a state machine that does no I/O.
//!
//! One completion goes in and at most one step comes out for it, so there are never more operations
//! in flight than blocks, and back-pressure needs no code.
//!
//! ```text
//! Idle --start--> Reading --all read--> Writing --all written--> Reading, or Idle at the end
//!           \---> Pairing (linked) --both whole--> Reading …
//!                        \--read short--> Reading, \--write short--> Writing
//! ```
//!
//! A short read stays in Reading and a short write stays in Writing, each for the rest. Direct I/O
//! moves whole, aligned pieces: a short transfer is resumed from the last aligned byte, and the
//! tail of the file is padded with zeros, to be cut off by truncation when all is written.
//!
//! With several targets a block is written to one after the other: its buffer belongs to one
//! operation at a time, and the other blocks keep the other targets busy. A target that is lost is
//! passed over from then on.

use std::vec;

use super::PipelineMode;
use super::segments::Segment;
use crate::limits::{BUFFER_ALIGNMENT_BYTES, TARGETS_MAX};

/// The shape of a copy: how much, in which pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Bytes of the file.
    pub(super) size_bytes: u64,
    /// Bytes of one block, a multiple of the alignment.
    pub(super) block_bytes: u32,
    /// Blocks in flight.
    pub(super) depth: u32,
    /// What every read is aligned to; 1 where nothing is.
    pub(super) read_alignment: u32,
    /// What every write is aligned to; 1 where nothing is.
    pub(super) write_alignment: u32,
    pub(super) mode: PipelineMode,
}

impl Geometry {
    /// Whether both sides go through the page cache.
    pub(super) fn is_buffered(&self) -> bool {
        (self.read_alignment, self.write_alignment) == (1, 1)
    }
}

/// Bytes to move between a file and the buffer of one block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) block: u32,
    pub(crate) file_offset: u64,
    pub(crate) buffer_start: u32,
    pub(crate) length: u32,
}

/// What to start next for a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Read(Transfer),
    /// To this target. The last bytes of `transfer` are padding: zeros, from this byte of the buffer
    /// on.
    Write {
        transfer: Transfer,
        zero_from: u32,
        target: u32,
    },
    /// A read and the write of the same bytes behind it, as one chain.
    ReadThenWrite(Transfer),
    /// Nothing: every byte has been given to a block.
    Rest,
}

/// Why a copy cannot go on although the kernel reported no error. The number is the byte reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PipelineError {
    SourceShrank(u64),
    WroteNothing(u64),
}

/// A copy in progress.
#[derive(Debug)]
pub(super) struct Pipeline {
    geometry: Geometry,
    blocks: Vec<BlockState>,
    /// What no block has been given of the segment that is being copied, and the segments behind.
    segment: Segment,
    segments: vec::IntoIter<Segment>,
    /// Bytes that must still be written.
    left: u64,
    targets: Targets,
    is_stopped: bool,
}

/// The files that are written, by their numbers: how many there are, and which are lost.
#[derive(Clone, Copy, Debug)]
struct Targets {
    count: u32,
    lost: u32,
}

/// A piece of the file that one block is moving; `done` bytes of its `length` have moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) file_offset: u64,
    pub(crate) length: u32,
    pub(crate) done: u32,
}

#[derive(Clone, Copy, Debug)]
enum BlockState {
    Idle,
    Reading(Chunk),
    Pairing(Chunk),
    /// To this target.
    Writing(Chunk, u32),
}

impl Pipeline {
    /// A copy of a whole file.
    pub(super) fn new(geometry: Geometry) -> Self {
        let whole = Segment { start: 0, end: geometry.size_bytes };
        Self::with(geometry, whole, Vec::new(), geometry.size_bytes)
    }

    /// A copy of parts of a file. They are in order, and begin and end at multiples of the
    /// alignments, but for the end of the file.
    pub(super) fn of_segments(geometry: Geometry, segments: Vec<Segment>) -> Self {
        let left = segments.iter().map(|segment| segment.length()).sum();
        Self::with(geometry, Segment { start: 0, end: 0 }, segments, left)
    }

    fn with(geometry: Geometry, segment: Segment, segments: Vec<Segment>, left: u64) -> Self {
        assert!(geometry.depth > 0);
        for alignment in [geometry.read_alignment, geometry.write_alignment] {
            assert!(alignment.is_power_of_two());
            assert!(u64::from(alignment) <= BUFFER_ALIGNMENT_BYTES);
            assert!(geometry.block_bytes > 0 && geometry.block_bytes.is_multiple_of(alignment));
        }
        let blocks = vec![BlockState::Idle; geometry.depth as usize];
        let (segments, targets) = (segments.into_iter(), Targets { count: 1, lost: 0 });
        Self { geometry, blocks, segment, segments, left, targets, is_stopped: false }
    }

    /// The same copy to several targets; true are those that are lost already.
    pub(super) fn with_targets(mut self, are_lost: impl ExactSizeIterator<Item = bool>) -> Self {
        let count = u32::try_from(are_lost.len()).expect("targets are few");
        assert!(count >= 1 && are_lost.len() <= TARGETS_MAX, "targets are bounded");
        let is_linked = self.geometry.mode == PipelineMode::Linked;
        assert!(!is_linked || count == 1, "a pair has one write");
        self.targets = Targets { count, lost: 0 };
        for (target, is_lost) in (0..).zip(are_lost) {
            self.targets.lost |= u32::from(is_lost) << target;
        }
        self
    }

    /// Gives an idle block the next piece of the source.
    pub(super) fn start(&mut self, block: u32) -> Step {
        while self.segment.length() == 0
            && let Some(next) = self.segments.next()
        {
            self.segment = next;
        }
        let left = self.segment.length();
        let length = u32::try_from(left).unwrap_or(u32::MAX).min(self.geometry.block_bytes);
        if length == 0 || self.is_stopped {
            self.blocks[block as usize] = BlockState::Idle;
            return Step::Rest;
        }
        let chunk = Chunk { file_offset: self.segment.start, length, done: 0 };
        self.segment.start += u64::from(length);
        let is_whole = length == self.geometry.block_bytes;
        if self.geometry.mode == PipelineMode::Linked && is_whole {
            self.blocks[block as usize] = BlockState::Pairing(chunk);
            return Step::ReadThenWrite(chunk.rest(block, 1));
        }
        self.read(block, chunk)
    }

    /// Handles a read that moved `bytes` bytes: read the rest, or write what was read.
    pub(super) fn on_read_complete(
        &mut self,
        block: u32,
        bytes: u32,
    ) -> Result<Step, PipelineError> {
        let BlockState::Reading(chunk) = self.blocks[block as usize] else {
            panic!("block {block} completed a read that it never started");
        };
        let moved = chunk.advanced(bytes, self.geometry.read_alignment);
        if moved.done == moved.length {
            Ok(self.write_from(block, moved, 0))
        } else if moved.done == chunk.done {
            // At its end a file answers 0, or less than its alignment, again and again.
            Err(PipelineError::SourceShrank(chunk.position() + u64::from(bytes)))
        } else {
            Ok(self.read(block, moved))
        }
    }

    /// Handles a write that moved `bytes` bytes: write the rest, or take the next piece.
    pub(super) fn on_write_complete(
        &mut self,
        block: u32,
        bytes: u32,
    ) -> Result<Step, PipelineError> {
        let (chunk, target) = self.writing(block);
        let moved = chunk.advanced(bytes, self.geometry.write_alignment);
        if moved.done == moved.length || self.targets.is_lost(target) {
            Ok(self.write_from(block, moved, target + 1))
        } else if moved.done == chunk.done {
            Err(PipelineError::WroteNothing(chunk.position()))
        } else {
            Ok(self.write(block, moved, target))
        }
    }

    /// Handles a write that failed for good: its target gets nothing more, and the block goes on with
    /// the next. None if no target is left, and with that nothing to do.
    pub(super) fn on_target_lost(&mut self, block: u32) -> Option<Step> {
        let (chunk, target) = self.writing(block);
        self.targets.lost |= 1 << target;
        if self.targets.next_from(0).is_none() {
            self.stop();
            return None;
        }
        Some(self.write_from(block, chunk, target + 1))
    }

    /// The target that a block is being written to.
    pub(super) fn target_of(&self, block: u32) -> u32 {
        self.writing(block).1
    }

    fn writing(&self, block: u32) -> (Chunk, u32) {
        let BlockState::Writing(chunk, target) = self.blocks[block as usize] else {
            panic!("block {block} completed a write that it never started");
        };
        (chunk, target)
    }

    /// Handles a linked pair: the read moved `read` bytes, and the write moved `written`, or never
    /// ran because the read was short.
    pub(super) fn on_pair_complete(
        &mut self,
        block: u32,
        read: u32,
        written: Option<u32>,
    ) -> Result<Step, PipelineError> {
        let BlockState::Pairing(chunk) = self.blocks[block as usize] else {
            panic!("block {block} completed a pair that it never started");
        };
        if read < chunk.length {
            assert!(written.is_none(), "a short read breaks the chain");
            self.blocks[block as usize] = BlockState::Reading(chunk);
            return self.on_read_complete(block, read);
        }
        self.blocks[block as usize] = BlockState::Writing(chunk, 0);
        match written {
            Some(bytes) => self.on_write_complete(block, bytes),
            None => Ok(self.write(block, chunk, 0)),
        }
    }

    /// Whether a linked pair of this block is in flight.
    pub(super) fn is_pairing(&self, block: u32) -> bool {
        matches!(self.blocks[block as usize], BlockState::Pairing(_))
    }

    /// Handles a linked pair whose read is to be tried again: as a read of its own.
    pub(super) fn restart_pair_as_read(&mut self, block: u32) -> Step {
        let BlockState::Pairing(chunk) = self.blocks[block as usize] else {
            panic!("block {block} completed a pair that it never started");
        };
        self.read(block, chunk)
    }

    /// All bytes before this one are written, or need not be.
    pub(super) fn written_below(&self) -> u64 {
        let in_flight = self.blocks.iter().filter_map(|block| match block {
            BlockState::Idle => None,
            BlockState::Reading(chunk)
            | BlockState::Pairing(chunk)
            | BlockState::Writing(chunk, _) => Some(chunk.file_offset),
        });
        in_flight.min().unwrap_or(self.segment.start)
    }

    /// Gives no block anything new: the copy has failed or was cancelled.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Whether every byte has been written.
    pub(super) fn is_finished(&self) -> bool {
        self.left == 0
    }

    /// Whether the last write goes behind the end of the file, so that it must be cut off.
    pub(super) fn is_padded(geometry: &Geometry) -> bool {
        Self::is_padded_by(geometry.size_bytes, geometry.write_alignment)
    }

    /// The same, of a file of this size and writes of this alignment.
    pub(super) fn is_padded_by(size_bytes: u64, write_alignment: u32) -> bool {
        !size_bytes.is_multiple_of(u64::from(write_alignment))
    }

    fn read(&mut self, block: u32, chunk: Chunk) -> Step {
        self.blocks[block as usize] = BlockState::Reading(chunk);
        Step::Read(chunk.rest(block, self.geometry.read_alignment))
    }

    /// Writes all of a chunk to the first target from `target` on that is not lost; behind the last
    /// one the chunk is done.
    fn write_from(&mut self, block: u32, chunk: Chunk, target: u32) -> Step {
        match self.targets.next_from(target) {
            Some(target) => self.write(block, Chunk { done: 0, ..chunk }, target),
            None => {
                self.left -= u64::from(chunk.length);
                self.start(block)
            }
        }
    }

    fn write(&mut self, block: u32, chunk: Chunk, target: u32) -> Step {
        self.blocks[block as usize] = BlockState::Writing(chunk, target);
        let transfer = chunk.rest(block, self.geometry.write_alignment);
        Step::Write { transfer, zero_from: chunk.length, target }
    }
}

impl Targets {
    fn is_lost(self, target: u32) -> bool {
        self.lost & (1 << target) != 0
    }

    fn next_from(self, target: u32) -> Option<u32> {
        (target..self.count).find(|target| !self.is_lost(*target))
    }
}

impl Chunk {
    pub(crate) fn position(self) -> u64 {
        self.file_offset + u64::from(self.done)
    }

    /// What has not moved, its end rounded up.
    pub(crate) fn rest(self, block: u32, alignment: u32) -> Transfer {
        let length = (self.length - self.done).next_multiple_of(alignment);
        Transfer { block, file_offset: self.position(), buffer_start: self.done, length }
    }

    /// The chunk after `bytes` more have moved. Padding does not count, and what is resumed starts
    /// at an aligned byte.
    pub(crate) fn advanced(self, bytes: u32, alignment: u32) -> Self {
        let asked = (self.length - self.done).next_multiple_of(alignment);
        assert!(bytes <= asked, "the kernel moved more than it was asked to");
        let done = self.done + bytes;
        if done >= self.length {
            return Self { done: self.length, ..self };
        }
        Self { done: done - done % alignment, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn geometry(size_bytes: u64, block_bytes: u32, depth: u32) -> Geometry {
        Geometry {
            size_bytes,
            block_bytes,
            depth,
            read_alignment: 1,
            write_alignment: 1,
            mode: PipelineMode::Unlinked,
        }
    }

    fn index(number: u64) -> usize {
        usize::try_from(number).unwrap()
    }

    /// A source and a target in memory that move any part of what they are asked to.
    struct Files {
        random: Random,
        source: Vec<u8>,
        targets: Vec<Vec<u8>>,
        buffers: Vec<Vec<u8>>,
    }

    impl Files {
        fn read(&mut self, transfer: Transfer) -> u32 {
            let from = index(transfer.file_offset);
            let there = self.source.len().saturating_sub(from);
            let bytes = self.part(transfer.length).min(u32::try_from(there).unwrap());
            let start = transfer.buffer_start as usize;
            let read = &self.source[from..from + bytes as usize];
            let buffer = &mut self.buffers[transfer.block as usize];
            buffer[start..start + bytes as usize].copy_from_slice(read);
            bytes
        }

        fn write(&mut self, transfer: Transfer, target: u32) -> u32 {
            let bytes = self.part(transfer.length) as usize;
            let (from, start) = (index(transfer.file_offset), transfer.buffer_start as usize);
            let end = from + bytes;
            let target = &mut self.targets[target as usize];
            target.resize(target.len().max(end), 0);
            let buffer = &self.buffers[transfer.block as usize];
            target[from..end].copy_from_slice(&buffer[start..start + bytes]);
            u32::try_from(bytes).unwrap()
        }

        /// Some of it, and all of it every other time; whole sectors where direct I/O moves.
        fn part(&mut self, length: u32) -> u32 {
            let some = 1 + u32::try_from(self.random.below(u64::from(length))).unwrap();
            let sectors =
                if length.is_multiple_of(512) { some.next_multiple_of(512) } else { some };
            if self.random.once_in(2) { length } else { sectors }
        }
    }

    /// Random segments at multiples of 512, and zeros between them, where nothing may be read.
    fn segments(random: &mut Random, source: &mut [u8]) -> Vec<Segment> {
        let (mut segments, mut reached, size) = (Vec::new(), 0, source.len() as u64);
        while reached < size {
            let start = reached + 512 * random.below(6);
            let end = (start + 512 * (1 + random.below(8))).min(size);
            source[index(reached)..index(start.min(size))].fill(0);
            if start < size {
                segments.push(Segment { start, end });
            }
            reached = end.max(start);
        }
        segments
    }

    /// Copies a random file with short transfers that finish in random order, to one target or
    /// several, which may be lost at any write. The seed decides all.
    fn copy_with_faults(seed: u64) {
        let mut random = Random::new(seed);
        let mut source: Vec<u8> =
            (0..random.below(20_000)).map(|_| random.next().to_le_bytes()[0]).collect();
        let segments = random.once_in(2).then(|| segments(&mut random, &mut source));
        let alignments = [1, 512];
        let count = [1, 1, 2, 3][index(random.below(4))];
        let modes = [PipelineMode::Unlinked, PipelineMode::Linked];
        let mode = modes[if count == 1 { index(random.below(2)) } else { 0 }];
        let geometry = Geometry {
            size_bytes: source.len() as u64,
            block_bytes: 512 * u32::try_from(1 + random.below(6)).unwrap(),
            depth: u32::try_from(1 + random.below(8)).unwrap(),
            read_alignment: alignments[index(random.below(2))],
            write_alignment: alignments[index(random.below(2))],
            mode,
        };
        let buffers = vec![vec![0xdb; geometry.block_bytes as usize]; geometry.depth as usize];
        let mut lost: Vec<bool> =
            (0..count).map(|target| target > 0 && random.once_in(8)).collect();
        let mut files = Files { random, source, targets: vec![Vec::new(); count], buffers };
        let has_holes = segments.is_some();
        let mut pipeline = match segments {
            Some(segments) => Pipeline::of_segments(geometry, segments),
            None => Pipeline::new(geometry),
        }
        .with_targets(lost.iter().copied());
        let mut in_flight: Vec<Step> =
            (0..geometry.depth).map(|block| pipeline.start(block)).collect();
        in_flight.retain(|step| *step != Step::Rest);

        while !in_flight.is_empty() {
            let choice = index(files.random.below(in_flight.len() as u64));
            let next = match in_flight.swap_remove(choice) {
                Step::Read(transfer) => {
                    let bytes = files.read(transfer);
                    pipeline.on_read_complete(transfer.block, bytes)
                }
                Step::Write { transfer, target, .. }
                    if count > 1 && files.random.once_in(64) || lost[target as usize] =>
                {
                    lost[target as usize] = true;
                    match pipeline.on_target_lost(transfer.block) {
                        Some(step) => Ok(step),
                        None => return assert!(lost.iter().all(|is_lost| *is_lost)),
                    }
                }
                Step::Write { transfer, zero_from, target } => {
                    let end = (transfer.buffer_start + transfer.length) as usize;
                    if end > zero_from as usize {
                        files.buffers[transfer.block as usize][zero_from as usize..end].fill(0);
                    }
                    let bytes = files.write(transfer, target);
                    pipeline.on_write_complete(transfer.block, bytes)
                }
                Step::ReadThenWrite(transfer) => {
                    let read = files.read(transfer);
                    let written = (read == transfer.length).then(|| files.write(transfer, 0));
                    pipeline.on_pair_complete(transfer.block, read, written)
                }
                Step::Rest => unreachable!("a resting block has nothing in flight"),
            };
            in_flight.push(next.unwrap());
            in_flight.retain(|step| *step != Step::Rest);
            assert!(in_flight.len() <= geometry.depth as usize, "seed {seed}: more than blocks");
        }
        assert!(pipeline.is_finished(), "seed {seed}: stopped early");
        for (mut target, _) in files.targets.into_iter().zip(lost).filter(|(_, is_lost)| !is_lost) {
            let is_padded = target.len() > files.source.len();
            let may_pad = Pipeline::is_padded(&geometry);
            assert!(is_padded == may_pad || (has_holes && may_pad), "seed {seed}: padding");
            let padding = target.iter().skip(files.source.len());
            assert!(padding.copied().all(|byte| byte == 0), "seed {seed}");
            target.resize(files.source.len(), 0);
            assert_eq!(target, files.source, "seed {seed}: the copy differs");
        }
    }

    #[test]
    fn copies_every_byte_when_transfers_are_short_and_reordered() {
        for seed in 0..2_000 {
            copy_with_faults(seed);
        }
    }

    #[test]
    fn reading_nothing_before_the_end_means_that_the_source_shrank() {
        let mut pipeline = Pipeline::new(geometry(100, 64, 1));
        pipeline.start(0);
        pipeline.on_read_complete(0, 10).unwrap();
        assert_eq!(pipeline.on_read_complete(0, 0), Err(PipelineError::SourceShrank(10)));
    }

    #[test]
    fn less_than_a_sector_before_the_end_means_that_the_source_shrank() {
        let aligned = Geometry { read_alignment: 512, ..geometry(4096, 1024, 1) };
        let mut pipeline = Pipeline::new(aligned);
        pipeline.start(0);
        pipeline.on_read_complete(0, 612).unwrap();
        assert_eq!(pipeline.on_read_complete(0, 100), Err(PipelineError::SourceShrank(612)));
    }

    #[test]
    fn a_write_of_nothing_is_an_error_and_not_a_loop() {
        let mut pipeline = Pipeline::new(geometry(100, 64, 1));
        pipeline.start(0);
        pipeline.on_read_complete(0, 64).unwrap();
        assert_eq!(pipeline.on_write_complete(0, 0), Err(PipelineError::WroteNothing(0)));
    }

    #[test]
    fn each_target_gets_the_block_whole_before_the_next_is_read() {
        // What the two targets take of 100 bytes at a time: short writes in every order.
        let cases: [(&[u32], &[u32]); 4] =
            [(&[100], &[100]), (&[1, 99], &[100]), (&[100], &[99, 1]), (&[40, 60], &[60, 30, 10])];
        for writes in cases {
            let mut pipeline =
                Pipeline::new(geometry(150, 100, 1)).with_targets([false; 2].iter().copied());
            pipeline.start(0);
            let mut step = pipeline.on_read_complete(0, 100).unwrap();
            for (number, writes) in [writes.0, writes.1].into_iter().enumerate() {
                let mut done = 0;
                for bytes in writes {
                    let Step::Write { transfer, target, .. } = step else { panic!("{step:?}") };
                    let got = (target as usize, transfer.buffer_start, transfer.length);
                    assert_eq!(got, (number, done, 100 - done), "{writes:?}");
                    step = pipeline.on_write_complete(0, *bytes).unwrap();
                    done += bytes;
                }
            }
            let Step::Read(transfer) = step else { panic!("{step:?}") };
            assert_eq!((transfer.file_offset, transfer.length), (100, 50));
        }
    }

    #[test]
    fn a_target_that_is_lost_keeps_no_other_from_its_bytes() {
        let mut pipeline =
            Pipeline::new(geometry(200, 100, 2)).with_targets([false; 3].iter().copied());
        (0..2).for_each(|block| assert!(matches!(pipeline.start(block), Step::Read(_))));
        let to = |step: Step| match step {
            Step::Write { transfer, target, .. } => {
                (target, transfer.buffer_start, transfer.length)
            }
            step => panic!("{step:?}"),
        };
        for block in 0..2 {
            let step = pipeline.on_read_complete(block, 100).unwrap();
            assert_eq!(to(step), (0, 0, 100));
        }
        // Lost in the middle of a block, with another block on its way to it.
        assert_eq!(to(pipeline.on_write_complete(0, 30).unwrap()), (0, 30, 70));
        assert_eq!(to(pipeline.on_target_lost(0).unwrap()), (1, 0, 100));
        assert_eq!(to(pipeline.on_write_complete(1, 50).unwrap()), (1, 0, 100), "short, and lost");
        assert_eq!(to(pipeline.on_write_complete(0, 100).unwrap()), (2, 0, 100));
        assert_eq!(pipeline.on_write_complete(0, 100), Ok(Step::Rest));
        assert_eq!(to(pipeline.on_target_lost(1).unwrap()), (2, 0, 100));
        assert!(!pipeline.is_finished());
        assert_eq!(pipeline.on_target_lost(1), None, "nobody is left");
    }

    #[test]
    fn a_stopped_pipeline_starts_nothing_new() {
        let mut pipeline = Pipeline::new(geometry(1000, 100, 2));
        pipeline.start(0);
        pipeline.stop();
        assert_eq!(pipeline.start(1), Step::Rest);
        assert!(!pipeline.is_finished());
    }

    #[test]
    fn an_empty_source_is_finished_at_once() {
        let mut pipeline = Pipeline::new(geometry(0, 64, 1));
        assert_eq!(pipeline.start(0), Step::Rest);
        assert!(pipeline.is_finished());
    }
}
