//! Moving the bytes of one file to another, the way that the evidence says.
//!
//! `route` decides how, and `pipeline` what comes next; here it is done.

use std::mem;

use super::blocks::{BlockCopy, BlockTarget, Side};
use super::fingerprint::Fingerprint;
use super::holes::HolePlan;
use super::in_flight::InFlight;
use super::journal::Reached;
use super::pipeline::{Geometry, Pipeline, PipelineError, Step};
use super::publish::NewFile;
use super::receiver::{Receiver, alive, are_lost};
use super::route::{End, Facts, Route, choose, magic, may_clone, may_copy_range};
use super::segments::Segment;
use super::sparse::{SparseSource, zero_unit};
use super::worker::{Labels, Worker};
use super::zeros::leave_out;
use super::{
    Attempt, CacheEffect, DataPath, FellBack, HoleSearch, PathReason, PipelineMode, Reflink,
    Verified,
};
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{COPY_RANGE_BYTES_MAX, PAIRS_MAX};
use crate::operation::{
    Allocate, AllocateMode, CURRENT_POSITION, CacheStatus, CloneFile, CopyRange, File, FileKind,
    FileStatus, Handle, Operation, Read, SetDirect, Truncate, Write,
};

/// What a page of the page cache holds.
pub(super) const PAGE_BYTES: u64 = 4096;

/// What became of a file's data.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    /// How it was moved.
    pub(super) path: DataPath,
    /// Why that way.
    pub(super) reason: PathReason,
    /// What would have been better and was refused.
    pub(super) fell_back: Vec<FellBack>,
    /// How much there is.
    pub(super) bytes: u64,
    /// How much of it was left out, so that it is a hole.
    pub(super) hole_bytes: u64,
    /// How holes were looked for; none where the file system made the copy.
    pub(super) hole_search: Option<HoleSearch>,
    /// What the bytes that passed by came to, where that was wanted and they did.
    pub(super) fingerprint: Option<Box<Fingerprint>>,
    /// The digest of all of them, where that was wanted.
    pub(super) digest: Option<Box<crate::digest::Digest>>,
    /// What they were compared with after they were written.
    pub(super) verified: Option<Verified>,
    /// What became of the page cache, where it is to stay as it was.
    pub(super) cache: Option<CacheEffect>,
    /// The source was changed meanwhile, and that is allowed.
    pub(super) is_of_changed: bool,
}

/// Which way data went, and why.
type Way = (DataPath, PathReason);

impl Moved {
    /// How many of the bytes are holes; none where the file system made the copy.
    pub(super) fn holes_bytes(&self) -> Option<u64> {
        (!matches!(self.path, DataPath::Clone | DataPath::CopyRange)).then_some(self.hole_bytes)
    }

    /// Whether extents are shared with the source; none where the server may have done so.
    pub(super) fn is_shared(&self) -> Option<bool> {
        match self.path {
            DataPath::Clone => Some(true),
            DataPath::CopyRange => None,
            _ => Some(false),
        }
    }
}

/// How the bytes of a file get to its copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Manner {
    /// They are read to their end, wherever that is.
    Stream,
    /// Through one buffer.
    Small(HolePlan),
    /// Through many blocks in flight.
    Large(HolePlan),
}

/// What came of moving bytes to one file or several.
#[derive(Clone, Debug)]
pub(super) struct Delivered {
    bytes: u64,
    /// Which way it was, where there are several.
    large_way: Option<Way>,
    fell_back: Vec<FellBack>,
    fingerprint: Option<Fingerprint>,
}

impl Worker<'_> {
    /// Moves all bytes, the way that the evidence says: to this file alone, or to those of other
    /// targets beside it.
    pub(super) async fn move_data(
        &self,
        source: &File,
        status: &FileStatus,
        new: NewFile,
        labels: &dyn Labels,
    ) -> (NewFile, Result<Moved, Error>) {
        let mut fell_back = Vec::new();
        match self.share_extents(source, status, &new, &mut fell_back, labels).await {
            Ok(false) => {}
            Ok(true) => {
                let (path, reason) = (DataPath::Clone, PathReason::ExtentsShared);
                let (bytes, hole_bytes, fingerprint) = (status.size_bytes, 0, None);
                let (digest, verified) = (None, None);
                let moved = Moved {
                    path,
                    reason,
                    fell_back,
                    bytes,
                    hole_bytes,
                    hole_search: None,
                    fingerprint,
                    digest,
                    verified,
                    cache: None,
                    is_of_changed: false,
                };
                return (new, Ok(moved));
            }
            Err(error) => return (new, Err(error)),
        }
        let manner = self.manner(source, status, &new).await;
        let (ends, part) = ((source, status), self.part.take());
        match part {
            Some(part) => self.move_together(part, ends, manner, new, fell_back, labels).await,
            None => self.move_alone(ends, manner, new, fell_back, labels).await,
        }
    }

    /// Moves bytes to this file and no other.
    pub(super) async fn move_alone(
        &self,
        (source, status): (&File, &FileStatus),
        manner: Manner,
        new: NewFile,
        fell_back: Vec<FellBack>,
        labels: &dyn Labels,
    ) -> (NewFile, Result<Moved, Error>) {
        let mut receivers = [Receiver::new(&new)];
        let delivered = self.deliver(source, status, manner, &mut receivers, labels).await;
        let [receiver] = receivers;
        let moved = match (delivered, receiver.into_hole_bytes()) {
            (Ok(delivered), Ok(hole_bytes)) => {
                Ok(self.moved(delivered, manner, status, &new, fell_back, hole_bytes))
            }
            (Err(error), _) | (_, Err(error)) => Err(error.on(labels.target())),
        };
        (new, moved)
    }

    /// Shares the source's extents, if that is wanted and the file systems can.
    async fn share_extents(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
        fell_back: &mut Vec<FellBack>,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        let size = status.size_bytes;
        if self.job.options.reflink == Reflink::Always {
            return self.clone_whole(source, new, size, labels).await.map(|()| true);
        }
        let is_small = size <= u64::from(self.job.options.small_bytes_max);
        if !has_size(status) || is_small || new.is_stream() {
            return Ok(false);
        }
        if !self.try_clone(source, status, &new.file, fell_back, labels).await? {
            return Ok(false);
        }
        self.job.progress.add_bytes(size);
        if new.is_in_place() {
            self.cut(&new.file, size).await.map_err(|error| error.on(labels.target()))?;
        }
        Ok(true)
    }

    /// How the bytes get to a file that shares no extents.
    async fn manner(&self, source: &File, status: &FileStatus, new: &NewFile) -> Manner {
        let size = status.size_bytes;
        // What has no size is read to its end: pipes, and most of /proc.
        if !has_size(status) || size == 0 || self.is_attribute(source, status).await {
            return Manner::Stream;
        }
        let plan = self.plan_holes(source, status, new).await;
        let is_small = size <= u64::from(self.job.options.small_bytes_max);
        let is_small = is_small || new.is_stream() || size < self.job.options.large_bytes_min;
        match is_small || !self.has_ring_reads(source, status).await {
            true => Manner::Small(plan),
            false => Manner::Large(plan),
        }
    }

    /// Reads each byte once and writes it to all. What one of them fails with is kept with it.
    pub(super) async fn deliver(
        &self,
        source: &File,
        status: &FileStatus,
        manner: Manner,
        receivers: &mut [Receiver<'_>],
        labels: &dyn Labels,
    ) -> Result<Delivered, Error> {
        let size = status.size_bytes;
        let mut fell_back = Vec::new();
        self.begin_hashing();
        for receiver in alive(receivers).filter(|receiver| !receiver.new.is_stream()) {
            receiver.is_uncached = self.moves_uncached(&receiver.new.file).await;
        }
        let large_way = match manner {
            Manner::Stream => None,
            Manner::Small(plan) => {
                self.move_small(source, receivers, size, plan, labels).await?;
                None
            }
            Manner::Large(plan) => {
                let moved =
                    self.move_large(source, status, receivers, plan, &mut fell_back, labels);
                Some(moved.await?)
            }
        };
        let bytes = match manner {
            Manner::Stream => self.move_stream(source, status, receivers, 0, labels).await?,
            _ if !self.holds_more(source, status, labels).await? => size,
            _ => self.move_stream(source, status, receivers, size, labels).await?,
        };
        for receiver in alive(receivers) {
            if receiver.new.is_in_place() && !receiver.new.is_stream() {
                let cut = self.cut(&receiver.new.file, bytes).await;
                receiver.take_in(cut);
            }
        }
        let is_seen = !matches!(large_way, Some((DataPath::CopyRange, _)));
        let is_whole = !are_lost(receivers);
        let fingerprint = self.hashing.take().filter(|_| is_whole && is_seen);
        let fingerprint = fingerprint.map(|hashing| hashing.finish(bytes));
        Ok(Delivered { bytes, large_way, fell_back, fingerprint })
    }

    /// What became of the data of one file.
    pub(super) fn moved(
        &self,
        delivered: Delivered,
        manner: Manner,
        status: &FileStatus,
        new: &NewFile,
        mut fell_back: Vec<FellBack>,
        hole_bytes: u64,
    ) -> Moved {
        let Delivered { bytes, large_way, fell_back: refused, fingerprint } = delivered;
        fell_back.extend(refused);
        let bytes_max = u64::from(self.job.options.small_bytes_max);
        let bytes_min = self.job.options.large_bytes_min;
        let (path, reason) = match (manner, large_way) {
            (_, Some(way)) => way,
            (Manner::Stream, _) if status.size_bytes == 0 && bytes == 0 => {
                (DataPath::Small, PathReason::Empty)
            }
            (Manner::Stream, _) if status.kind == FileKind::Regular => {
                (DataPath::Stream, PathReason::SizeUnknown)
            }
            (Manner::Stream, _) => (DataPath::Stream, PathReason::SourceIsStream),
            _ if bytes <= bytes_max => (DataPath::Small, PathReason::Small { bytes_max }),
            _ if new.is_stream() => (DataPath::Small, PathReason::TargetIsStream),
            _ if bytes < bytes_min => (DataPath::Small, PathReason::NotLarge { bytes_min }),
            _ => (DataPath::Small, PathReason::NoRingReads),
        };
        let fingerprint = fingerprint.map(Box::new);
        let search = match manner {
            Manner::Stream => HoleSearch::None,
            Manner::Small(plan) | Manner::Large(plan) => plan.search(),
        };
        let hole_search = (path != DataPath::CopyRange).then_some(search);
        let (digest, verified) = (None, None);
        Moved {
            path,
            reason,
            fell_back,
            bytes,
            hole_bytes,
            hole_search,
            fingerprint,
            digest,
            verified,
            cache: None,
            is_of_changed: false,
        }
    }

    /// Whether it is a setting or a figure of the kernel: each is said to be a page long, and most
    /// are shorter.
    async fn is_attribute(&self, file: &File, status: &FileStatus) -> bool {
        status.size_bytes == PAGE_BYTES
            && matches!(self.magic(status.device, file).await, magic::SYSFS | magic::CONFIGFS)
    }

    /// Whether what moves blocks may read it.
    pub(super) async fn has_ring_reads(&self, file: &File, status: &FileStatus) -> bool {
        magic::has_ring_reads(self.magic(status.device, file).await)
    }

    /// Cuts a regular file to its length; others have none.
    async fn cut(&self, target: &File, size: u64) -> Result<(), Error> {
        let truncate = Truncate { file: target.clone(), length_bytes: size };
        match self.io.perform(Operation::Truncate(truncate)).await {
            Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(()),
            cut => cut.map(drop),
        }
    }

    /// Moves the bytes through one buffer, in this worker's turn.
    async fn move_small(
        &self,
        source: &File,
        receivers: &mut [Receiver<'_>],
        size: u64,
        plan: HolePlan,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let geometry = Geometry {
            size_bytes: size,
            block_bytes: self.paced_bytes(self.job.options.small_bytes_max.max(1)),
            depth: 1,
            read_alignment: 1,
            write_alignment: 1,
            mode: PipelineMode::Unlinked,
        };
        if !plan.makes_holes() {
            let pipeline = Pipeline::new(geometry);
            return self.move_in_turn(source, receivers, pipeline, false, labels).await;
        }
        self.make_holes(receivers, size).await;
        self.find_zero_units(receivers, geometry).await;
        let mut sparse = SparseSource::new(plan, size, 1, receivers);
        while let Some(part) = self.next_part(source, &mut sparse, receivers, labels).await? {
            let pipeline = Pipeline::of_segments(geometry, part.segments);
            self.move_in_turn(source, receivers, pipeline, part.finds_zeros, labels).await?;
        }
        Ok(())
    }

    /// Does what a pipeline of one block decides. Zeros are left out if they are to be found.
    async fn move_in_turn(
        &self,
        source: &File,
        receivers: &mut [Receiver<'_>],
        pipeline: Pipeline,
        finds_zeros: bool,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if are_lost(receivers) {
            return Ok(());
        }
        let mut pipeline = pipeline.with_targets(receivers.iter().map(Receiver::is_lost));
        let source = self.handle(source).await;
        let mut buffer = self.take_buffer();
        let mut step = pipeline.start(0);
        loop {
            if finds_zeros {
                let left_out_of = |target: u32| &receivers[target as usize].left_out;
                let left_out = leave_out(&mut pipeline, step, buffer.as_slice(), left_out_of);
                let (next, bytes) = left_out.map_err(|error| explain(error, labels))?;
                step = next;
                self.job.progress.add_bytes(bytes);
            }
            let next;
            (next, buffer) = match step {
                Step::Rest => break,
                Step::Read(transfer) => {
                    self.pace(transfer.length).await?;
                    let read = Read {
                        handle: source.clone(),
                        buffer,
                        offset_bytes: transfer.file_offset,
                        start: transfer.buffer_start,
                        length: transfer.length,
                    };
                    let label = |error: Error| error.on(labels.source()).at(transfer.file_offset);
                    let read =
                        self.io.perform_counted(Operation::Read(read)).await.map_err(label)?;
                    let (bytes, Operation::Read(Read { buffer, .. })) = read else {
                        unreachable!("an operation comes back as itself")
                    };
                    self.on_data(transfer.file_offset, &buffer, transfer.buffer_start, bytes);
                    let next = pipeline.on_read_complete(0, bytes);
                    (Some(next.map_err(|error| explain(error, labels))?), buffer)
                }
                Step::Write { transfer, target, .. } => {
                    let receiver = &mut receivers[target as usize];
                    let at = transfer.file_offset;
                    let part = (at, transfer.buffer_start, transfer.length);
                    let (written, buffer) = self.write_to(receiver, buffer, part).await;
                    let written = written.and_then(|bytes| {
                        let next = pipeline.on_write_complete(0, bytes);
                        next.map_err(|error| explain(error, labels))
                    });
                    let next = match written {
                        Ok(step) => Some(step),
                        Err(error) => {
                            receiver.lose(error);
                            pipeline.on_target_lost(0)
                        }
                    };
                    (next, buffer)
                }
                Step::ReadThenWrite(_) => unreachable!("nothing is linked here"),
            };
            self.io.check()?;
            match next {
                Some(next) => step = next,
                None => break,
            }
        }
        self.give_back(buffer);
        Ok(())
    }

    /// Writes so many bytes of a buffer, from one of it on, to an offset of a file; a stream takes
    /// them where it is.
    async fn write_to(
        &self,
        receiver: &Receiver<'_>,
        buffer: Buffer,
        (offset, start, length): (u64, u32, u32),
    ) -> (Result<u32, Error>, Buffer) {
        let offset_bytes = if receiver.new.is_stream() { CURRENT_POSITION } else { offset };
        let write = Write { handle: receiver.handle(), buffer, offset_bytes, start, length };
        let written = self.io.perform_and_return(Operation::Write(write)).await;
        let (written, Operation::Write(Write { buffer, .. })) = written else {
            unreachable!("an operation comes back as itself")
        };
        let label = |error: Error| error.at(offset);
        let written = written.map_err(label);
        if let Ok(bytes) = written {
            self.job.progress.add_bytes(u64::from(bytes));
        }
        (written, buffer)
    }

    /// Whether a file has bytes behind the size that it told, and tells it still: one that grew is
    /// another matter. Asked only where that may be: it costs a read.
    async fn holds_more(
        &self,
        source: &File,
        status: &FileStatus,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        let size = status.size_bytes;
        if !magic::may_tell_less(self.magic(status.device, source).await) {
            return Ok(false);
        }
        let buffer = Buffer::Vec(vec![0]);
        let read = Read { handle: source.into(), buffer, offset_bytes: size, start: 0, length: 1 };
        let on_source = |error: Error| error.on(labels.source());
        let read = self.io.perform_counted(Operation::Read(read)).await;
        if read.map_err(|error| on_source(error).at(size))?.0 == 0 {
            return Ok(false);
        }
        let now = self.io.status_of(source).await.map_err(on_source)?;
        Ok(now.size_bytes <= size)
    }

    /// Reads on from a byte to the end, wherever that is. Returns where that was.
    async fn move_stream(
        &self,
        source: &File,
        status: &FileStatus,
        receivers: &mut [Receiver<'_>],
        from: u64,
        labels: &dyn Labels,
    ) -> Result<u64, Error> {
        let has_position = status.kind == FileKind::Regular;
        let source = if has_position { self.handle(source).await } else { source.into() };
        let mut buffer = self.take_buffer();
        let mut copied = from;
        while !are_lost(receivers) {
            let length = self.paced_bytes(buffer.length());
            let offset_bytes = if has_position { copied } else { CURRENT_POSITION };
            let handle = source.clone();
            let read = Read { handle, buffer, offset_bytes, start: 0, length };
            let label = |error: Error| error.on(labels.source()).at(copied);
            self.io.check()?;
            let read = self.io.perform_counted(Operation::Read(read)).await.map_err(label)?;
            let (bytes, Operation::Read(read)) = read else {
                unreachable!("an operation comes back as itself")
            };
            buffer = read.buffer;
            if bytes == 0 {
                break;
            }
            self.pace(bytes).await?;
            self.on_data(copied, &buffer, 0, bytes);
            for receiver in alive(receivers) {
                let mut start = 0;
                while start < bytes && !receiver.is_lost() {
                    let offset = copied + u64::from(start);
                    let part = (offset, start, bytes - start);
                    let written;
                    (written, buffer) = self.write_to(receiver, buffer, part).await;
                    match written {
                        Ok(0) => {
                            receiver.lose(explain(PipelineError::WroteNothing(offset), labels));
                        }
                        Ok(written) => start += written,
                        Err(error) => receiver.lose(error),
                    }
                }
            }
            copied += u64::from(bytes);
        }
        self.give_back(buffer);
        Ok(copied)
    }

    /// Shares the source's extents, or fails.
    async fn clone_whole(
        &self,
        source: &File,
        new: &NewFile,
        size: u64,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let clone = || {
            let clone = CloneFile { source: source.clone(), target: new.file.clone() };
            self.io.perform(Operation::CloneFile(clone))
        };
        let mut cloned = clone().await;
        if new.is_in_place() {
            // Nothing of what stands there is cut off before it is known that cloning works at all.
            match cloned.as_ref().map_err(Error::errno) {
                Ok(_) => self.cut(&new.file, size).await.map_err(|e| e.on(labels.target()))?,
                // Shared extents end inside a file only at the end of a block (ioctl_ficlone(2)).
                Err(Some(Errno::EINVAL)) => {
                    self.cut(&new.file, size).await.map_err(|e| e.on(labels.target()))?;
                    cloned = clone().await;
                }
                Err(_) => {}
            }
        }
        cloned.map_err(|error| error.on(labels.target()).copying(labels.source()))?;
        self.job.progress.add_bytes(size);
        Ok(())
    }

    /// Shares the source's extents, if the file systems can; the verdict is remembered. What may
    /// pass (no room, an I/O error) is a failure: it does not mean that cloning is not supported.
    async fn try_clone(
        &self,
        source: &File,
        status: &FileStatus,
        target: &File,
        fell_back: &mut Vec<FellBack>,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        if !may_clone(&self.job.options, status.size_bytes) {
            return Ok(false);
        }
        let device = self.io.status_of(target).await.map_err(|e| e.on(labels.target()))?.device;
        let devices = (status.device, device);
        if let Some(errno) = self.job.refused_clone(devices) {
            fell_back.push(FellBack { from: Attempt::Clone, errno: Some(errno) });
            return Ok(false);
        }
        let clone = CloneFile { source: source.clone(), target: target.clone() };
        let Err(error) = self.io.perform(Operation::CloneFile(clone)).await else {
            return Ok(true);
        };
        match error.errno() {
            Some(errno @ (Errno::EOPNOTSUPP | Errno::EXDEV | Errno::ENOTTY | Errno::ENOSYS)) => {
                self.job.remember_unclonable(devices, errno);
            }
            Some(Errno::EINVAL | Errno::EPERM | Errno::EBADF | Errno::ETXTBSY) => {}
            _ => return Err(error.on(labels.target()).copying(labels.source())),
        }
        fell_back.push(FellBack { from: Attempt::Clone, errno: error.errno() });
        Ok(false)
    }

    /// Moves the bytes through many blocks in flight, or has the server copy them.
    async fn move_large(
        &self,
        source: &File,
        status: &FileStatus,
        receivers: &mut [Receiver<'_>],
        plan: HolePlan,
        fell_back: &mut Vec<FellBack>,
        labels: &dyn Labels,
    ) -> Result<Way, Error> {
        let size = status.size_bytes;
        let source_end = self.end(status, source).await;
        if let [Receiver { new, .. }] = receivers
            && self.copy_on_server(source, source_end, new, size, fell_back, labels).await?
        {
            return Ok((DataPath::CopyRange, PathReason::SameServer));
        }
        let data_bytes = if plan.follows_map { status.blocks_512 * 512 } else { size };
        let cached_permille = self.cached_permille(source, size, data_bytes).await;
        let mut common: Option<Route> = None;
        for receiver in alive(receivers) {
            let status = self.io.status_of(&receiver.new.file).await;
            let Some(status) = receiver.take_in(status) else { continue };
            receiver.block_bytes = Some(status.block_bytes);
            let target = self.end(&status, &receiver.new.file).await;
            let facts = Facts { source: source_end, target, cached_permille };
            let mut route = choose(&self.job.options, &facts);
            if receiver.new.device_block_bytes().is_some()
                && Pipeline::is_padded_by(size, route.write_alignment)
            {
                // Padding would fall on bytes behind the image, which nothing can cut off again.
                route = route.with_write_refused();
            }
            // Of a copy that is gone on with it is there already, and asking again could be refused: XFS
            // looks for all of it anew (xfs_alloc_file_space).
            let has_room = status.blocks_512.saturating_mul(512) >= size;
            let reserves = route.preallocate && !has_room;
            if reserves && !receiver.new.is_in_place() && !plan.makes_holes() {
                let whole = Segment { start: 0, end: size };
                let mode = AllocateMode::Extend;
                let reserved = self.preallocate(&receiver.new.file, mode, whole).await;
                receiver.take_in(reserved);
            }
            common = Some(common.map_or(route, |common| common.with(route)));
        }
        let Some(route) = common else { return Ok((DataPath::Buffered, PathReason::Empty)) };
        let route = self.switch_direct(source, receivers, route, fell_back).await;
        // A linked write would start before its bytes were hashed, and is one.
        let may_link = self.wanted().is_nothing() && receivers.len() == 1;
        let (mode, depth) = match (may_link, route.pairs) {
            (true, true) => (PipelineMode::Linked, self.job.options.depth.min(PAIRS_MAX)),
            (true, false) => (self.job.options.pipeline, self.job.options.depth),
            (false, _) => (PipelineMode::Unlinked, self.job.options.depth),
        };
        let geometry = Geometry {
            size_bytes: size,
            block_bytes: self.paced_block_bytes(route.read_alignment.max(route.write_alignment)),
            depth,
            read_alignment: route.read_alignment,
            write_alignment: route.write_alignment,
            mode,
        };
        let moved = if plan.makes_holes() {
            let preallocates = route.preallocate && !plan.finds_zeros;
            self.move_segments(source, receivers, geometry, plan, preallocates, labels).await
        } else {
            let mut there = 0;
            if let [Receiver { new, .. }] = receivers {
                self.begin_journal(status, new, geometry.write_alignment > 1).await;
                // What is to be hashed is read whole.
                let is_hashed = self.hashing.borrow().is_some();
                there = if is_hashed { 0 } else { new.reached.written_bytes };
            }
            // Blocks begin at multiples of the alignments.
            let start = there - there % u64::from(geometry.block_bytes);
            if let [Receiver { new, .. }] = receivers {
                new.resumed_bytes.set(start);
            }
            let rest = Segment { start, end: size };
            let pipeline = Pipeline::of_segments(geometry, vec![rest]);
            self.job.progress.add_bytes(start);
            self.move_blocks(source, receivers, geometry, pipeline, false, labels).await
        };
        if route.read_alignment > 1 {
            // If it is read again, because it was changed, it may be read through the page cache.
            let _ = self.set_direct(source, false).await;
        }
        moved?;
        for receiver in alive(receivers) {
            if Pipeline::is_padded(&geometry) || receiver.new.reached != Reached::default() {
                let cut = self.cut(&receiver.new.file, size).await;
                receiver.take_in(cut);
            }
        }
        Ok((route.path, route.reason))
    }

    /// Has the server copy, if both files are on one that can.
    async fn copy_on_server(
        &self,
        source: &File,
        source_end: End,
        new: &NewFile,
        size: u64,
        fell_back: &mut Vec<FellBack>,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        // Elsewhere it costs no call to find that out.
        if !may_copy_range(&self.job.options, source_end, source_end) {
            return Ok(false);
        }
        let on_target = |error: Error| error.on(labels.target());
        let status = self.io.status_of(&new.file).await.map_err(on_target)?;
        let target_end = self.end(&status, &new.file).await;
        Ok(may_copy_range(&self.job.options, source_end, target_end)
            && self.copy_ranges(source, &new.file, size, fell_back, labels).await?)
    }

    /// Switches direct I/O on where the route has it. A side that refuses goes through the page cache,
    /// with all of its files.
    async fn switch_direct(
        &self,
        source: &File,
        receivers: &mut [Receiver<'_>],
        mut route: Route,
        fell_back: &mut Vec<FellBack>,
    ) -> Route {
        if route.read_alignment > 1
            && let Err(error) = self.set_direct(source, true).await
        {
            fell_back.push(FellBack { from: Attempt::DirectRead, errno: error.errno() });
            route = route.with_read_refused();
        }
        if route.write_alignment == 1 {
            return route;
        }
        let mut refused = None;
        for receiver in alive(receivers) {
            if let Err(error) = self.set_direct(&receiver.new.file, true).await {
                refused = Some(error.errno());
                break;
            }
        }
        let Some(errno) = refused else { return route };
        fell_back.push(FellBack { from: Attempt::DirectWrite, errno });
        if receivers.len() > 1 {
            for receiver in alive(receivers) {
                let _ = self.set_direct(&receiver.new.file, false).await;
            }
        }
        route.with_write_refused()
    }

    /// Moves what is data, through many blocks in flight.
    async fn move_segments(
        &self,
        source: &File,
        receivers: &mut [Receiver<'_>],
        geometry: Geometry,
        plan: HolePlan,
        preallocates: bool,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let size = geometry.size_bytes;
        self.make_holes(receivers, size).await;
        self.find_zero_units(receivers, geometry).await;
        let alignment = geometry.read_alignment.max(geometry.write_alignment);
        let mut sparse = SparseSource::new(plan, size, alignment, receivers);
        while let Some(part) = self.next_part(source, &mut sparse, receivers, labels).await? {
            if preallocates && !part.finds_zeros {
                for receiver in alive(receivers) {
                    let reserved =
                        self.preallocate_segments(&receiver.new.file, &part.segments).await;
                    receiver.take_in(reserved);
                }
            }
            // A linked write would be on its way before its bytes are looked at.
            let mode = if part.finds_zeros { PipelineMode::Unlinked } else { geometry.mode };
            let geometry = Geometry { mode, ..geometry };
            let pipeline = Pipeline::of_segments(geometry, part.segments);
            let moved =
                self.move_blocks(source, receivers, geometry, pipeline, part.finds_zeros, labels);
            moved.await?;
        }
        Ok(())
    }

    /// Finds out what zeros are counted in, of each file by itself.
    async fn find_zero_units(&self, receivers: &mut [Receiver<'_>], geometry: Geometry) {
        for receiver in alive(receivers) {
            if receiver.block_bytes.is_none() {
                let status = self.io.status_of(&receiver.new.file).await;
                receiver.block_bytes = receiver.take_in(status).map(|status| status.block_bytes);
            }
            let Some(block_bytes) = receiver.block_bytes else { continue };
            receiver.left_out.unit_bytes =
                zero_unit(block_bytes, geometry.block_bytes, geometry.write_alignment);
        }
    }

    /// Does what a pipeline decides. Zeros are left out if they are to be found.
    async fn move_blocks(
        &self,
        source: &File,
        receivers: &mut [Receiver<'_>],
        geometry: Geometry,
        pipeline: Pipeline,
        finds_zeros: bool,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if pipeline.is_finished() || are_lost(receivers) {
            return Ok(());
        }
        let pipeline = pipeline.with_targets(receivers.iter().map(Receiver::is_lost));
        let pool = self.block_pool()?;
        let tasks = self.block_tasks()?;
        // A table that is full or not there costs little: files are then found by descriptor.
        let handle = |file| match tasks.register_file(Some(file)) {
            Ok(registered) => Handle::from(&registered),
            Err(_) => Handle::from(file),
        };
        // What is written through the page cache is written by a helper, who has no table; so is
        // what is read there in a pair.
        let is_direct = geometry.write_alignment > 1;
        let is_read_beside = geometry.is_buffered() && geometry.mode == PipelineMode::Linked;
        let is_uncached = geometry.read_alignment == 1 && self.moves_uncached(source).await;
        let source = if is_read_beside { Handle::from(source) } else { handle(source) };
        let source = if is_uncached { source.uncached() } else { source };
        let targets = receivers.iter_mut().map(|receiver| {
            let handle = if is_direct { handle(&receiver.new.file) } else { receiver.handle() };
            BlockTarget { handle, left_out: mem::take(&mut receiver.left_out), failed: None }
        });
        let targets: Vec<_> = targets.collect();
        let (progress, cancellation) = (self.job.progress.clone(), self.job.cancellation.clone());
        let work = (geometry, pipeline, finds_zeros);
        let hashing = self.hashing.take().map(|hashing| InFlight::new(hashing, geometry.depth));
        let journal = match receivers {
            [Receiver { new, .. }] => new.journal.take().map(|journal| (journal, new.file.clone())),
            _ => None,
        };
        let copy = BlockCopy::new(work, (source, targets), pool, hashing, progress, cancellation)
            .with_throttle(self.job.throttle.clone())
            .with_journal(journal);
        let ran = self.run_blocks(copy).await;
        let (mut copy, outcome) = ran?;
        self.hashing.replace(copy.hashing.take().map(InFlight::into_fingerprinter));
        let (failed_side, journal) = (copy.failed_side, copy.journal.take());
        if let [Receiver { new, .. }] = receivers {
            new.interrupted_at.set(copy.written_below());
            *new.journal.borrow_mut() = journal.map(|(journal, _)| journal);
        }
        for (receiver, target) in receivers.iter_mut().zip(mem::take(&mut copy.targets)) {
            receiver.left_out = target.left_out;
            target.failed.into_iter().for_each(|error| receiver.lose(error));
        }
        drop(copy);
        tasks.release_files();
        match outcome {
            Err(error) if failed_side == Some(Side::Source) => Err(error.on(labels.source())),
            // Each says by itself why it was lost.
            Err(_) if are_lost(receivers) => Ok(()),
            outcome => outcome,
        }
    }

    pub(super) async fn end(&self, status: &FileStatus, file: &File) -> End {
        let magic = match status.kind {
            FileKind::BlockDevice => magic::BLOCK_DEVICE,
            _ => self.magic(status.device, file).await,
        };
        End {
            magic,
            direct_alignment: status.direct_memory_alignment.max(status.direct_offset_alignment),
        }
    }

    /// How much of a file's data is in the page cache. Pages of holes are there when they were read.
    async fn cached_permille(&self, file: &File, size: u64, data_bytes: u64) -> Option<u32> {
        let status = CacheStatus { file: file.clone(), offset_bytes: 0, length_bytes: size };
        let (resident, _) = self.io.perform_counted(Operation::CacheStatus(status)).await.ok()?;
        let pages = data_bytes.div_ceil(PAGE_BYTES).max(1);
        u32::try_from(u64::from(resident).min(pages) * 1000 / pages).ok()
    }

    /// Reserves room, so that a full disk is found before anything is written; best effort where
    /// the file system can't.
    pub(super) async fn preallocate(
        &self,
        target: &File,
        mode: AllocateMode,
        range: Segment,
    ) -> Result<(), Error> {
        let (offset_bytes, length_bytes) = (range.start, range.length());
        let allocate = Allocate { file: target.clone(), mode, offset_bytes, length_bytes };
        match self.io.perform(Operation::Allocate(allocate)).await {
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EIO)
                ) =>
            {
                Err(error)
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            _ => Ok(()),
        }
    }

    /// Switches direct I/O on or off, if the file system can.
    async fn set_direct(&self, file: &File, is_direct: bool) -> Result<(), Error> {
        let set = SetDirect { file: file.clone(), is_direct };
        self.io.perform(Operation::SetDirect(set)).await.map(drop)
    }

    /// Has the server copy; false if it can't. A 0 before the end means that it does not say.
    async fn copy_ranges(
        &self,
        source: &File,
        target: &File,
        size: u64,
        fell_back: &mut Vec<FellBack>,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        let mut refuse = |errno| fell_back.push(FellBack { from: Attempt::CopyRange, errno });
        let mut copied = 0;
        while copied < size {
            let length = u32::try_from(size - copied).unwrap_or(u32::MAX).min(COPY_RANGE_BYTES_MAX);
            let length = self.paced_bytes(length);
            self.pace(length).await?;
            let range = CopyRange {
                source: source.clone(),
                target: target.clone(),
                source_offset_bytes: copied,
                target_offset_bytes: copied,
                length,
            };
            self.io.check()?;
            match self.io.perform_counted(Operation::CopyRange(range)).await {
                Ok((0, _)) => {
                    refuse(None);
                    self.job.progress.take_back_bytes(copied);
                    return Ok(false);
                }
                Ok((bytes, _)) => {
                    copied += u64::from(bytes);
                    self.job.progress.add_bytes(u64::from(bytes));
                }
                Err(error)
                    if copied == 0
                        && matches!(
                            error.errno(),
                            Some(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::ENOSYS | Errno::EINVAL)
                        ) =>
                {
                    refuse(error.errno());
                    return Ok(false);
                }
                Err(error) => return Err(error.on(labels.target()).at(copied)),
            }
        }
        Ok(true)
    }
}

/// Whether a file says how long it is.
fn has_size(status: &FileStatus) -> bool {
    matches!(status.kind, FileKind::Regular | FileKind::BlockDevice)
}

fn explain(error: PipelineError, labels: &dyn Labels) -> Error {
    match error {
        PipelineError::SourceShrank(at) => {
            let reason = "the file became shorter while it was copied";
            Error::new(ErrorKind::SourceChanged, "read", reason).on(labels.source()).at(at)
        }
        PipelineError::WroteNothing(at) => {
            let reason = "nothing was written";
            Error::new(ErrorKind::Storage, "write", reason).at(at)
        }
    }
}
