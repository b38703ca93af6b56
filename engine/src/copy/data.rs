//! Moving the bytes of one file to another, the way that the evidence says.
//!
//! `route` decides how, and `pipeline` what comes next; here it is done.

use super::blocks::{BlockCopy, Side};
use super::fingerprint::Fingerprint;
use super::holes::HolePlan;
use super::in_flight::InFlight;
use super::journal::Reached;
use super::pipeline::{Geometry, Pipeline, PipelineError, Step};
use super::publish::NewFile;
use super::route::{End, Facts, choose, magic, may_clone, may_copy_range};
use super::segments::Segment;
use super::sparse::{SparseSource, zero_unit};
use super::worker::{Labels, Worker};
use super::zeros::leave_out;
use super::{Attempt, DataPath, FellBack, HoleSearch, PathReason, PipelineMode, Reflink, Verified};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::COPY_RANGE_BYTES_MAX;
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

impl Worker<'_> {
    /// Moves all bytes, the way that the evidence says.
    pub(super) async fn move_data(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
        labels: &dyn Labels,
    ) -> Result<Moved, Error> {
        let target = &new.file;
        let size = status.size_bytes;
        let mut fell_back = Vec::new();
        if self.job.options.reflink == Reflink::Always {
            self.clone_whole(source, new, size, labels).await?;
            let way = (DataPath::Clone, PathReason::ExtentsShared);
            return Ok(self.moved(way, fell_back, size, 0));
        }
        self.begin_hashing();
        // What has no size is read to its end: pipes, and most of /proc.
        let has_size = matches!(status.kind, FileKind::Regular | FileKind::BlockDevice);
        if !has_size || size == 0 || self.is_attribute(source, status).await {
            let bytes = self.move_stream(source, status, new, labels).await?;
            let is_empty = size == 0 && bytes == 0;
            let (path, reason) = match (is_empty, status.kind) {
                (true, _) => (DataPath::Small, PathReason::Empty),
                (false, FileKind::Regular) => (DataPath::Stream, PathReason::SizeUnknown),
                (false, _) => (DataPath::Stream, PathReason::SourceIsStream),
            };
            return Ok(self.moved((path, reason), fell_back, bytes, 0));
        }
        let bytes_max = u64::from(self.job.options.small_bytes_max);
        let bytes_min = self.job.options.large_bytes_min;
        let is_small = size <= bytes_max || new.is_stream();
        let plan = self.plan_holes(source, status, new).await;
        let search = plan.search();
        let ((path, reason), hole_bytes) = if is_small {
            let hole_bytes = self.move_small(source, new, size, plan, labels).await?;
            let is_small = size <= bytes_max;
            let reason = PathReason::Small { bytes_max };
            let reason = if is_small { reason } else { PathReason::TargetIsStream };
            ((DataPath::Small, reason), hole_bytes)
        } else if self.try_clone(source, status, target, &mut fell_back, labels).await? {
            self.job.progress.add_bytes(size);
            ((DataPath::Clone, PathReason::ExtentsShared), 0)
        } else if size >= bytes_min && !self.has_ring_reads(source, status).await {
            let hole_bytes = self.move_small(source, new, size, plan, labels).await?;
            ((DataPath::Small, PathReason::NoRingReads), hole_bytes)
        } else if size >= bytes_min {
            self.move_large(source, status, new, plan, &mut fell_back, labels).await?
        } else {
            let hole_bytes = self.move_small(source, new, size, plan, labels).await?;
            ((DataPath::Small, PathReason::NotLarge { bytes_min }), hole_bytes)
        };
        if new.is_in_place() {
            self.cut(target, size, labels).await?;
        }
        let moved = self.moved((path, reason), fell_back, size, hole_bytes);
        let hole_search = moved.hole_search.map(|_| search);
        Ok(Moved { hole_search, ..moved })
    }

    fn moved(
        &self,
        (path, reason): Way,
        fell_back: Vec<FellBack>,
        bytes: u64,
        hole_bytes: u64,
    ) -> Moved {
        let is_seen = !matches!(path, DataPath::Clone | DataPath::CopyRange);
        let fingerprint = self.end_hashing(bytes).filter(|_| is_seen).map(Box::new);
        let hole_search = is_seen.then_some(HoleSearch::None);
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
    async fn cut(&self, target: &File, size: u64, labels: &dyn Labels) -> Result<(), Error> {
        let truncate = Truncate { file: target.clone(), length_bytes: size };
        match self.io.perform(Operation::Truncate(truncate)).await {
            Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(()),
            cut => cut.map(drop).map_err(|error| error.on(labels.target())),
        }
    }

    /// Moves the bytes through one buffer, in this worker's turn. Returns how many were left out.
    async fn move_small(
        &self,
        source: &File,
        new: &NewFile,
        size: u64,
        plan: HolePlan,
        labels: &dyn Labels,
    ) -> Result<u64, Error> {
        let geometry = Geometry {
            size_bytes: size,
            block_bytes: self.paced_bytes(self.job.options.small_bytes_max.max(1)),
            depth: 1,
            read_alignment: 1,
            write_alignment: 1,
            mode: PipelineMode::Unlinked,
        };
        if !plan.makes_holes() {
            return self.move_in_turn(source, new, Pipeline::new(geometry), None, labels).await;
        }
        self.make_hole(new, size, labels).await?;
        let target = self.io.status_of(&new.file).await.map_err(|e| e.on(labels.target()))?;
        let unit = zero_unit(&target, geometry.block_bytes, 1);
        let alignment = new.device_block_bytes().unwrap_or(1);
        let mut sparse = SparseSource::new(plan, size, alignment);
        let mut written = 0;
        while let Some(part) = self.next_part(source, &mut sparse, new, labels).await? {
            let data = part.data_bytes();
            let pipeline = Pipeline::of_segments(geometry, part.segments);
            let unit = part.finds_zeros.then_some(unit);
            written += data - self.move_in_turn(source, new, pipeline, unit, labels).await?;
        }
        Ok(size - written)
    }

    /// Does what a pipeline of one block decides. With a unit, zeros are left out; returns how many
    /// bytes were.
    async fn move_in_turn(
        &self,
        source: &File,
        new: &NewFile,
        mut pipeline: Pipeline,
        zero_unit: Option<u32>,
        labels: &dyn Labels,
    ) -> Result<u64, Error> {
        let is_stream = new.is_stream();
        let mut buffer = self.take_buffer();
        let mut step = pipeline.start(0);
        let mut left_out = 0;
        loop {
            if let Some(unit) = zero_unit {
                let (next, bytes) = leave_out(&mut pipeline, step, buffer.as_slice(), unit)
                    .map_err(|error| explain(error, labels))?;
                step = next;
                left_out += bytes;
                self.job.progress.add_bytes(bytes);
            }
            let next;
            (next, buffer) = match step {
                Step::Rest => break,
                Step::Read(transfer) => {
                    self.pace(transfer.length).await?;
                    let read = Read {
                        handle: source.into(),
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
                    (pipeline.on_read_complete(0, bytes), buffer)
                }
                Step::Write { transfer, .. } => {
                    let offset = transfer.file_offset;
                    let write = Write {
                        handle: Handle::from(&new.file),
                        buffer,
                        offset_bytes: if is_stream { CURRENT_POSITION } else { offset },
                        start: transfer.buffer_start,
                        length: transfer.length,
                    };
                    let label = |error: Error| error.on(labels.target()).at(offset);
                    let written = self.io.perform_counted(Operation::Write(write)).await;
                    let (bytes, Operation::Write(Write { buffer, .. })) = written.map_err(label)?
                    else {
                        unreachable!("an operation comes back as itself")
                    };
                    self.job.progress.add_bytes(u64::from(bytes));
                    (pipeline.on_write_complete(0, bytes), buffer)
                }
                Step::ReadThenWrite(_) => unreachable!("nothing is linked here"),
            };
            self.io.check()?;
            step = next.map_err(|error| explain(error, labels))?;
        }
        self.give_back(buffer);
        Ok(left_out)
    }

    /// Reads to the end, wherever that is. Returns how many bytes there were.
    async fn move_stream(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
        labels: &dyn Labels,
    ) -> Result<u64, Error> {
        let has_position = status.kind == FileKind::Regular;
        let is_stream = new.is_stream();
        let mut buffer = self.take_buffer();
        let mut copied = 0;
        loop {
            let length = self.paced_bytes(buffer.length());
            let offset_bytes = if has_position { copied } else { CURRENT_POSITION };
            let read = Read { handle: source.into(), buffer, offset_bytes, start: 0, length };
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
            let mut start = 0;
            while start < bytes {
                let offset = copied + u64::from(start);
                let offset_bytes = if is_stream { CURRENT_POSITION } else { offset };
                let handle = Handle::from(&new.file);
                let write = Write { handle, buffer, offset_bytes, start, length: bytes - start };
                let label = |error: Error| error.on(labels.target()).at(offset);
                let written = self.io.perform_counted(Operation::Write(write)).await;
                let (written, Operation::Write(write)) = written.map_err(label)? else {
                    unreachable!("an operation comes back as itself")
                };
                if written == 0 {
                    return Err(explain(PipelineError::WroteNothing(offset), labels));
                }
                buffer = write.buffer;
                start += written;
            }
            copied += u64::from(bytes);
            self.job.progress.add_bytes(u64::from(bytes));
        }
        self.give_back(buffer);
        if new.is_in_place() && !is_stream {
            self.cut(&new.file, copied, labels).await?;
        }
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
                Ok(_) => self.cut(&new.file, size, labels).await?,
                // Shared extents end inside a file only at the end of a block (ioctl_ficlone(2)).
                Err(Some(Errno::EINVAL)) => {
                    self.cut(&new.file, size, labels).await?;
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
        new: &NewFile,
        plan: HolePlan,
        fell_back: &mut Vec<FellBack>,
        labels: &dyn Labels,
    ) -> Result<(Way, u64), Error> {
        let target = &new.file;
        let size = status.size_bytes;
        let target_status = self.io.status_of(target).await.map_err(|e| e.on(labels.target()))?;
        let ends = (self.end(status, source).await, self.end(&target_status, target).await);
        if may_copy_range(&self.job.options, ends.0, ends.1)
            && self.copy_ranges(source, target, size, fell_back, labels).await?
        {
            return Ok(((DataPath::CopyRange, PathReason::SameServer), 0));
        }
        let data_bytes = if plan.follows_map { status.blocks_512 * 512 } else { size };
        let cached_permille = self.cached_permille(source, size, data_bytes).await;
        let facts = Facts { source: ends.0, target: ends.1, cached_permille };
        let mut route = choose(&self.job.options, &facts);
        if new.device_block_bytes().is_some() && Pipeline::is_padded_by(size, route.write_alignment)
        {
            // Padding would fall on bytes behind the image, which nothing can cut off again.
            route = route.with_write_refused();
        }
        if route.preallocate && !new.is_in_place() && !plan.makes_holes() {
            let whole = Segment { start: 0, end: size };
            self.preallocate(target, AllocateMode::Extend, whole, labels).await?;
        }
        if route.read_alignment > 1
            && let Err(error) = self.set_direct(source, true).await
        {
            fell_back.push(FellBack { from: Attempt::DirectRead, errno: error.errno() });
            route = route.with_read_refused();
        }
        if route.write_alignment > 1
            && let Err(error) = self.set_direct(target, true).await
        {
            fell_back.push(FellBack { from: Attempt::DirectWrite, errno: error.errno() });
            route = route.with_write_refused();
        }
        let geometry = Geometry {
            size_bytes: size,
            block_bytes: self.paced_block_bytes(route.read_alignment.max(route.write_alignment)),
            depth: self.job.options.depth,
            read_alignment: route.read_alignment,
            write_alignment: route.write_alignment,
            // A linked write would start before its bytes were hashed.
            mode: match self.wanted().is_nothing() {
                true => self.job.options.pipeline,
                false => PipelineMode::Unlinked,
            },
        };
        let moved = if plan.makes_holes() {
            let unit = zero_unit(&target_status, geometry.block_bytes, geometry.write_alignment);
            let preallocates = route.preallocate && !plan.finds_zeros;
            self.move_segments(source, new, geometry, plan, (unit, preallocates), labels).await
        } else {
            self.begin_journal(status, new, geometry.write_alignment > 1).await;
            // Blocks begin at multiples of the alignments.
            // What is to be hashed is read whole.
            let is_hashed = self.hashing.borrow().is_some();
            let there = if is_hashed { 0 } else { new.reached.written_bytes };
            let start = there - there % u64::from(geometry.block_bytes);
            let rest = Segment { start, end: size };
            let pipeline = Pipeline::of_segments(geometry, vec![rest]);
            self.job.progress.add_bytes(start);
            self.move_blocks(source, new, geometry, pipeline, None, labels).await
        };
        if route.read_alignment > 1 {
            // If it is read again, because it was changed, it may be read through the page cache.
            let _ = self.set_direct(source, false).await;
        }
        let hole_bytes = moved?;
        if Pipeline::is_padded(&geometry) || new.reached != Reached::default() {
            self.cut(target, size, labels).await?;
        }
        Ok(((route.path, route.reason), hole_bytes))
    }

    /// Moves what is data, through many blocks in flight. Returns how many bytes were left out.
    async fn move_segments(
        &self,
        source: &File,
        new: &NewFile,
        geometry: Geometry,
        plan: HolePlan,
        (zero_unit, preallocates): (u32, bool),
        labels: &dyn Labels,
    ) -> Result<u64, Error> {
        let size = geometry.size_bytes;
        self.make_hole(new, size, labels).await?;
        let alignment = geometry.read_alignment.max(geometry.write_alignment);
        let alignment = alignment.max(new.device_block_bytes().unwrap_or(1));
        let mut sparse = SparseSource::new(plan, size, alignment);
        let mut written = 0;
        while let Some(part) = self.next_part(source, &mut sparse, new, labels).await? {
            if preallocates && !part.finds_zeros {
                self.preallocate_segments(&new.file, &part.segments, labels).await?;
            }
            let data = part.data_bytes();
            let unit = part.finds_zeros.then_some(zero_unit);
            // A linked write would be on its way before its bytes are looked at.
            let mode = if unit.is_some() { PipelineMode::Unlinked } else { geometry.mode };
            let geometry = Geometry { mode, ..geometry };
            let pipeline = Pipeline::of_segments(geometry, part.segments);
            let moved = self.move_blocks(source, new, geometry, pipeline, unit, labels);
            written += data - moved.await?;
        }
        Ok(size - written)
    }

    /// Does what a pipeline decides. With a unit, zeros are left out; returns how many bytes were.
    async fn move_blocks(
        &self,
        source: &File,
        new: &NewFile,
        geometry: Geometry,
        pipeline: Pipeline,
        zero_unit: Option<u32>,
        labels: &dyn Labels,
    ) -> Result<u64, Error> {
        if pipeline.is_finished() {
            return Ok(0);
        }
        let pool = self.block_pool()?;
        let tasks = self.block_tasks()?;
        // A table that is full or not there costs little: files are then found by descriptor.
        let handle = |file| match tasks.register_file(Some(file)) {
            Ok(registered) => Handle::from(&registered),
            Err(_) => Handle::from(file),
        };
        // What is written through the page cache is written by a helper, who has no table.
        let is_direct = geometry.write_alignment > 1;
        let target = &new.file;
        let target = if is_direct { handle(target) } else { Handle::from(target) };
        let files = (handle(source), target);
        let (progress, cancellation) = (self.job.progress.clone(), self.job.cancellation.clone());
        let work = (geometry, pipeline, zero_unit);
        let hashing = self.hashing.take().map(|hashing| InFlight::new(hashing, geometry.depth));
        let copy = BlockCopy::new(work, files, pool, hashing, progress, cancellation)
            .with_throttle(self.job.throttle.clone())
            .with_journal(new.journal.take().map(|journal| (journal, new.file.clone())));
        let ran = self.run_blocks(copy).await;
        let (mut copy, outcome) = ran.map_err(|error| error.on(labels.target()))?;
        self.hashing.replace(copy.hashing.take().map(InFlight::into_fingerprinter));
        let (failed_side, left_out) = (copy.failed_side, copy.left_out);
        new.interrupted_at.set(copy.written_below());
        *new.journal.borrow_mut() = copy.journal.take().map(|(journal, _)| journal);
        drop(copy);
        tasks.release_files();
        outcome.map(|()| left_out).map_err(|error| match failed_side {
            Some(Side::Source) => error.on(labels.source()),
            _ => error.on(labels.target()),
        })
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
        labels: &dyn Labels,
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
                Err(error.on(labels.target()))
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

fn explain(error: PipelineError, labels: &dyn Labels) -> Error {
    match error {
        PipelineError::SourceShrank(at) => {
            let reason = "the file became shorter while it was copied";
            Error::new(ErrorKind::SourceChanged, "read", reason).on(labels.source()).at(at)
        }
        PipelineError::WroteNothing(at) => {
            let reason = "nothing was written";
            Error::new(ErrorKind::Storage, "write", reason).on(labels.target()).at(at)
        }
    }
}
