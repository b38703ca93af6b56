//! Finding the holes of a source, and making those of a target.

use super::Holes;
use super::data::PAGE_BYTES;
use super::file_system::has_trusted_map;
use super::holes::{ALL_HOLE_READ_BYTES_MAX, HolePlan, is_sparse};
use super::publish::NewFile;
use super::receiver::{Receiver, alive};
use super::segments::{Answer, Look, Segment, Segments};
use super::worker::{Labels, Worker};
use crate::error::{Errno, Error};
use crate::limits::SEGMENTS_MAX;
use crate::operation::{
    AllocateMode, File, FileKind, FileStatus, Operation, Seek, SeekTarget, Truncate,
};

/// The data of a file that is copied with holes, found part by part: a file may have more segments
/// than are to be remembered at a time.
#[derive(Debug)]
pub(super) struct SparseSource {
    segments: Segments,
    plan: HolePlan,
    size_bytes: u64,
    /// Everything before this byte was given out, or is a hole.
    reached: u64,
    is_ended: bool,
}

/// Data to be copied together.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) segments: Vec<Segment>,
    /// The bytes of the file that it is about: what is not in a segment is a hole.
    pub(super) covers: Segment,
    /// Whether zeros in it become holes.
    pub(super) finds_zeros: bool,
}

impl Part {
    pub(super) fn data_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length()).sum()
    }
}

impl SparseSource {
    /// Of a file that is moved in multiples of `alignment`, to these.
    pub(super) fn new(
        plan: HolePlan,
        size_bytes: u64,
        alignment: u32,
        receivers: &[Receiver<'_>],
    ) -> Self {
        let devices = receivers.iter().filter_map(|receiver| receiver.new.device_block_bytes());
        let alignment = devices.fold(alignment, u32::max);
        let segments = Segments::new(size_bytes, u64::from(alignment));
        Self { segments, plan, size_bytes, reached: 0, is_ended: false }
    }
}

impl Worker<'_> {
    /// What is done about the holes of a file. For one that looks dense it costs no call.
    pub(super) async fn plan_holes(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
    ) -> HolePlan {
        let holes = self.job.options.holes;
        if new.is_stream() || holes == Holes::Never {
            return HolePlan::DENSE;
        }
        // A device has no map, and takes no room on the file system that its name is on.
        let is_regular = status.kind == FileKind::Regular;
        let is_sparse = is_regular && is_sparse(status.size_bytes, status.blocks_512);
        let is_trusted = is_sparse && has_trusted_map(self.magic(status.device, source).await);
        let plan = HolePlan::choose(holes, is_sparse, is_trusted);
        self.plan_device_holes(plan, new, status.size_bytes).await
    }

    /// Makes each target one single hole as long as the source.
    ///
    /// What stands there already must not shine through the holes: it is cut off first, as cp does.
    /// The length is set before the data comes, so that no write makes the file longer: those wait
    /// for each other.
    pub(super) async fn make_holes(&self, receivers: &mut [Receiver<'_>], size_bytes: u64) {
        for receiver in alive(receivers) {
            if receiver.new.device_block_bytes().is_some() {
                continue;
            }
            let is_in_place = receiver.new.is_in_place();
            let lengths: &[u64] = if is_in_place { &[0, size_bytes] } else { &[size_bytes] };
            for length_bytes in lengths {
                let (file, length_bytes) = (receiver.new.file.clone(), *length_bytes);
                let truncate = Operation::Truncate(Truncate { file, length_bytes });
                let made = self.io.perform(truncate).await;
                receiver.take_in(made);
            }
        }
    }

    /// The next data of a file; none at its end. What is left out on the way is progress, too.
    pub(super) async fn next_part(
        &self,
        file: &File,
        source: &mut SparseSource,
        receivers: &mut [Receiver<'_>],
        labels: &dyn Labels,
    ) -> Result<Option<Part>, Error> {
        if source.is_ended {
            return Ok(None);
        }
        let mut finds_zeros = source.plan.finds_zeros;
        let whole = Segment { start: 0, end: source.size_bytes };
        let mut found = Vec::new();
        if source.plan.follows_map {
            while found.len() < SEGMENTS_MAX
                && let Some(look) = source.segments.look()
            {
                let answer = self.look(file, look).await.map_err(|e| e.on(labels.source()))?;
                found.extend(source.segments.on_answer(answer));
            }
            if source.segments.is_all_hole() && source.size_bytes <= ALL_HOLE_READ_BYTES_MAX {
                found.push(whole);
                finds_zeros = !source.plan.writes_zeros;
            }
        } else {
            found.push(whole);
        }
        source.is_ended = !source.plan.follows_map || source.segments.look().is_none();
        let end = found.last().map_or(source.reached, |last| last.end);
        let end = if source.is_ended { source.size_bytes } else { end };
        let covers = Segment { start: source.reached, end };
        let mut part = Part { segments: found, covers, finds_zeros };
        for receiver in alive(receivers) {
            match receiver.new.device_block_bytes() {
                Some(block_bytes) if source.plan.writes_zeros => {
                    let file = &receiver.new.file;
                    let zeroed = self.zero_gaps(file, block_bytes, &mut part).await;
                    receiver.take_in(zeroed);
                }
                _ => self.job.progress.add_bytes(covers.length() - part.data_bytes()),
            }
            receiver.gap_bytes += covers.length() - part.data_bytes();
        }
        source.reached = end;
        Ok(Some(part))
    }

    /// Asks the file system where data, or a hole, begins.
    async fn look(&self, file: &File, look: Look) -> Result<Answer, Error> {
        let (target, offset_bytes) = match look {
            Look::Data(at) => (SeekTarget::Data, at),
            Look::Hole(at) => (SeekTarget::Hole, at),
        };
        let seek = Seek { file: file.clone(), target, offset_bytes };
        match self.io.perform(Operation::Seek(seek)).await {
            Ok(Operation::Seek(seek)) => Ok(Answer::At(seek.offset_bytes)),
            Ok(_) => Ok(Answer::Unsupported),
            Err(error) => match error.errno() {
                Some(Errno::ENXIO) => Ok(Answer::Nothing),
                Some(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Answer::Unsupported),
                _ => Err(error.at(offset_bytes)),
            },
        }
    }

    /// Reserves room for the longer segments: writes into a hole wait for each other, and for short
    /// ones that costs less than reserving.
    pub(super) async fn preallocate_segments(
        &self,
        target: &File,
        segments: &[Segment],
    ) -> Result<(), Error> {
        let is_long = |it: &&Segment| it.length() >= u64::from(self.job.options.small_bytes_max);
        for segment in segments.iter().filter(is_long) {
            self.preallocate(target, AllocateMode::KeepSize, *segment).await?;
        }
        Ok(())
    }
}

/// What zeros are counted in: the target's block, if whole ones fit into `buffer_bytes`.
pub(super) fn zero_unit(target_block_bytes: u32, buffer_bytes: u32, alignment: u32) -> u32 {
    let page = u32::try_from(PAGE_BYTES).unwrap_or(4096);
    let fits = |unit: &u32| {
        unit.is_power_of_two()
            && buffer_bytes.is_multiple_of(*unit)
            && unit.is_multiple_of(alignment)
    };
    [target_block_bytes, page].into_iter().find(fits).unwrap_or(alignment)
}
