//! Copying one regular file, from its open source to its published target.
//!
//! ```text
//! status -> make target -> data -> status again -> mode -> times -> sync -> close -> publish
//!   ^                                   |
//!   +------- the source was changed ----+   once; then it is given up
//! ```

use super::blocks::{BlockCopy, Side};
use super::pipeline::{Geometry, Pipeline, PipelineError, Step};
use super::publish::{NewFile, Target};
use super::route::{End, Facts, choose, magic, may_clone, may_copy_range};
use super::worker::{Labels, Worker};
use super::{DataPath, Durability, Event, PipelineMode};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{COPY_RANGE_BYTES_MAX, SOURCE_CHANGED_RETRIES};
use crate::operation::{
    Allocate, AllocateMode, CURRENT_POSITION, CacheStatus, ChangeMode, ChangeTimes, CloneFile,
    Close, CopyRange, File, FileKind, FileStatus, Handle, Operation, Read, SetDirect, Subject,
    SyncReach, Truncate, Write,
};

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

/// What a page of the page cache holds.
const PAGE_BYTES: u64 = 4096;

impl Worker<'_> {
    /// Copies a regular file, or what is read like one, and tells what came of it.
    pub(super) async fn copy_file(
        &self,
        source: &File,
        status: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        self.job.progress.find_file(status.size_bytes);
        let copied = self.copy_unchanged(source, *status, target, labels).await;
        self.job.progress.add_file();
        copied
    }

    /// Copies a file, once more if it is changed meanwhile.
    async fn copy_unchanged(
        &self,
        source: &File,
        mut status: FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let mut retries = 0;
        loop {
            let mode = self.wanted_mode(&status) & !SET_ID;
            let new = self.make_target(target, &status, mode, labels).await?;
            // What a pipe was given can't be taken back.
            let may_retry = !new.is_stream() && retries < SOURCE_CHANGED_RETRIES;
            match self.copy_once(source, &status, new, labels).await {
                Err(error) if may_retry && error.kind() == ErrorKind::SourceChanged => {
                    retries += 1;
                    status = self.io.status_of(source).await.map_err(|e| e.on(labels.source()))?;
                }
                copied => return copied,
            }
        }
    }

    /// The mode that the copy of a file gets: a stream has none worth keeping.
    fn wanted_mode(&self, source: &FileStatus) -> u32 {
        match source.kind {
            FileKind::Regular => source.mode,
            _ => 0o666 & !self.job.options.umask,
        }
    }

    async fn copy_once(
        &self,
        source: &File,
        status: &FileStatus,
        new: NewFile,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let is_stream = status.kind != FileKind::Regular;
        let mode = self.wanted_mode(status);
        let (new, path, bytes) = self.fill(source, status, new, labels).await?;
        let new = match self.complete(source, status, &new, mode, is_stream, labels).await {
            Ok(()) => new,
            Err(error) => {
                self.discard(new).await;
                return Err(error);
            }
        };
        let (new, publication) = match self.publish(&new, labels).await {
            Ok(publication) => (new, publication),
            Err(error) if Self::may_write_in_place(&new, &error) => {
                let new = self.reopen_in_place(new, labels).await?;
                let (new, ..) = self.fill(source, status, new, labels).await?;
                self.complete(source, status, &new, mode, is_stream, labels).await?;
                let publication = self.publish(&new, labels).await?;
                (new, publication)
            }
            Err(error) => {
                self.discard(new).await;
                return Err(error);
            }
        };
        self.close(new, labels).await?;
        let mut summary = self.summary.borrow_mut();
        summary.files += 1;
        summary.bytes += bytes;
        summary.paths.count(path);
        drop(summary);
        if self.job.observer.wants_copies() {
            let (source, target) = (labels.source(), labels.target());
            let (source, target) = (source.as_path(), target.as_path());
            let path = Some(path);
            self.job.observer.on_event(&Event::Copied { source, target, path, publication, bytes });
        }
        Ok(())
    }

    /// Moves the data into a new file; discards it if that fails.
    async fn fill(
        &self,
        source: &File,
        status: &FileStatus,
        new: NewFile,
        labels: &dyn Labels,
    ) -> Result<(NewFile, DataPath, u64), Error> {
        match self.move_data(source, status, &new, labels).await {
            Ok((path, bytes)) => Ok((new, path, bytes)),
            Err(error) => {
                self.discard(new).await;
                Err(error)
            }
        }
    }

    /// What makes a file with all its bytes complete: the source was not changed under it, and it
    /// has its mode and times, and is on the disk if it must be.
    async fn complete(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
        mode: u32,
        is_stream: bool,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if !is_stream {
            self.check_unchanged(source, status, labels).await?;
        }
        let label = |error: Error| error.on(labels.target());
        self.set_mode(status, new, mode).await.map_err(label)?;
        if !is_stream {
            let change = ChangeTimes {
                subject: Subject::File(new.file.clone()),
                times: Box::new(status.times()),
            };
            let changed = self.io.perform(Operation::ChangeTimes(change)).await;
            // What is written in place may be a device, or another's.
            if !new.is_in_place() {
                changed.map_err(label)?;
            }
        }
        // A stage is put on the disk whole, before it is published.
        if !new.is_staged() {
            match self.job.options.durability {
                Durability::None => {}
                Durability::Data => self.sync(&new.file, SyncReach::Data).await.map_err(label)?,
                Durability::Full => self.sync_all(new).await.map_err(label)?,
            }
        }
        Ok(())
    }

    /// A pipe has no disk to be on.
    async fn sync_all(&self, new: &NewFile) -> Result<(), Error> {
        match self.sync(&new.file, SyncReach::File).await {
            Err(error) if new.is_in_place() && error.errno() == Some(Errno::EINVAL) => Ok(()),
            synced => synced,
        }
    }

    /// Grown only: what was there is copied, with a warning. Changed otherwise: given up.
    async fn check_unchanged(
        &self,
        source: &File,
        before: &FileStatus,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let after = self.io.status_of(source).await.map_err(|error| error.on(labels.source()))?;
        if after.size_bytes > before.size_bytes {
            let warning = "the file grew while it was copied; what was added is not in the copy";
            self.warn(labels, warning);
            return Ok(());
        }
        if (after.size_bytes, after.modified, after.changed)
            == (before.size_bytes, before.modified, before.changed)
        {
            return Ok(());
        }
        let reason = "the file was changed while it was copied";
        Err(Error::new(ErrorKind::SourceChanged, "copy", reason).on(labels.source()))
    }

    /// Sets the mode that a file was not made with. Set-id bits only where the owner is the
    /// source's: they would lend another's rights.
    async fn set_mode(&self, source: &FileStatus, new: &NewFile, mode: u32) -> Result<(), Error> {
        let has_set_id = mode & SET_ID != 0;
        let is_right = new.has_its_mode() && !has_set_id && !self.job.surroundings.has_umask;
        if is_right || new.is_in_place() {
            return Ok(());
        }
        let mut mode = mode;
        if has_set_id {
            let status = self.io.status_of(&new.file).await?;
            if (status.owner, status.group) != (source.owner, source.group) {
                mode &= !SET_ID;
            }
        }
        let change = ChangeMode { file: new.file.clone(), mode };
        self.io.perform(Operation::ChangeMode(change)).await.map(drop)
    }

    /// Closes a file that is published: where a file system tells of a failure only now, it is told.
    async fn close(&self, new: NewFile, labels: &dyn Labels) -> Result<(), Error> {
        let close = Operation::Close(Close::file(new.into_file()));
        let closed = self.io.perform_always(close).await;
        closed.map(drop).map_err(|error| error.on(labels.target()))
    }

    /// Moves all bytes, the way that the evidence says. Returns the way, and how many.
    async fn move_data(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
        labels: &dyn Labels,
    ) -> Result<(DataPath, u64), Error> {
        let target = &new.file;
        let size = status.size_bytes;
        // What has no size is read to its end: pipes, and most of /proc.
        if status.kind != FileKind::Regular || size == 0 || self.is_attribute(source, status).await
        {
            let bytes = self.move_stream(source, status, new, labels).await?;
            return Ok((
                if size == 0 && bytes == 0 { DataPath::Small } else { DataPath::Stream },
                bytes,
            ));
        }
        let path = if size <= u64::from(self.job.options.small_bytes_max) || new.is_stream() {
            self.move_small(source, new, size, labels).await?;
            DataPath::Small
        } else if self.try_clone(source, status, target, labels).await? {
            self.job.progress.add_bytes(size);
            DataPath::Clone
        } else if size >= self.job.options.large_bytes_min {
            self.move_large(source, status, new, labels).await?
        } else {
            self.move_small(source, new, size, labels).await?;
            DataPath::Small
        };
        if new.is_in_place() {
            self.cut(target, size, labels).await?;
        }
        Ok((path, size))
    }

    /// Whether it is a setting or a figure of the kernel: each is said to be a page long, and most
    /// are shorter.
    async fn is_attribute(&self, file: &File, status: &FileStatus) -> bool {
        status.size_bytes == PAGE_BYTES
            && matches!(self.magic(status.device, file).await, magic::SYSFS | magic::CONFIGFS)
    }

    /// Cuts a regular file to its length; others have none.
    async fn cut(&self, target: &File, size: u64, labels: &dyn Labels) -> Result<(), Error> {
        let truncate = Truncate { file: target.clone(), length_bytes: size };
        match self.io.perform(Operation::Truncate(truncate)).await {
            Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(()),
            cut => cut.map(drop).map_err(|error| error.on(labels.target())),
        }
    }

    /// Moves the bytes through one buffer, in this worker's turn.
    async fn move_small(
        &self,
        source: &File,
        new: &NewFile,
        size: u64,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let buffer = self.take_buffer();
        let geometry = Geometry {
            size_bytes: size,
            block_bytes: buffer.length(),
            depth: 1,
            read_alignment: 1,
            write_alignment: 1,
            mode: PipelineMode::Unlinked,
        };
        let is_stream = new.is_stream();
        let mut pipeline = Pipeline::new(geometry);
        let mut step = pipeline.start(0);
        let mut buffer = buffer;
        loop {
            let next;
            (next, buffer) = match step {
                Step::Rest => break,
                Step::Read(transfer) => {
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
        Ok(())
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
            let length = buffer.length();
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

    /// Shares the source's extents, if the file systems can; the verdict is remembered. What may
    /// pass (no room, an I/O error) is a failure: it does not mean that cloning is not supported.
    async fn try_clone(
        &self,
        source: &File,
        status: &FileStatus,
        target: &File,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        if !may_clone(&self.job.options, status.size_bytes) {
            return Ok(false);
        }
        let device = self.io.status_of(target).await.map_err(|e| e.on(labels.target()))?.device;
        let devices = (status.device, device);
        if !self.job.is_clonable(devices) {
            return Ok(false);
        }
        let clone = CloneFile { source: source.clone(), target: target.clone() };
        let Err(error) = self.io.perform(Operation::CloneFile(clone)).await else {
            return Ok(true);
        };
        match error.errno() {
            Some(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::ENOTTY | Errno::ENOSYS) => {
                self.job.remember_unclonable(devices);
                Ok(false)
            }
            Some(Errno::EINVAL | Errno::EPERM | Errno::EBADF | Errno::ETXTBSY) => Ok(false),
            _ => Err(error.on(labels.target())),
        }
    }

    /// Moves the bytes through many blocks in flight, or has the server copy them.
    async fn move_large(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
        labels: &dyn Labels,
    ) -> Result<DataPath, Error> {
        let target = &new.file;
        let size = status.size_bytes;
        let target_status = self.io.status_of(target).await.map_err(|e| e.on(labels.target()))?;
        let ends = (self.end(status, source).await, self.end(&target_status, target).await);
        if may_copy_range(&self.job.options, ends.0, ends.1)
            && self.copy_ranges(source, target, size, labels).await?
        {
            return Ok(DataPath::CopyRange);
        }
        let cached_permille = self.cached_permille(source, size).await;
        let facts = Facts { source: ends.0, target: ends.1, cached_permille };
        let mut route = choose(&self.job.options, &facts);
        if route.preallocate && !new.is_in_place() {
            self.preallocate(target, size, labels).await?;
        }
        if route.read_alignment > 1 && !self.set_direct(source, true).await {
            (route.read_alignment, route.path) = (1, DataPath::MixedDirect);
        }
        if route.write_alignment > 1 && !self.set_direct(target, true).await {
            (route.write_alignment, route.path) = (1, DataPath::MixedDirect);
        }
        if (route.read_alignment, route.write_alignment) == (1, 1) {
            route.path = DataPath::Buffered;
        }
        let geometry = Geometry {
            size_bytes: size,
            block_bytes: self.job.options.block_bytes,
            depth: self.job.options.depth,
            read_alignment: route.read_alignment,
            write_alignment: route.write_alignment,
            mode: self.job.options.pipeline,
        };
        let moved = self.move_blocks(source, target, geometry, labels).await;
        if route.read_alignment > 1 {
            // If it is read again, because it was changed, it may be read through the page cache.
            self.set_direct(source, false).await;
        }
        moved?;
        if Pipeline::is_padded(&geometry) {
            self.cut(target, size, labels).await?;
        }
        Ok(route.path)
    }

    async fn move_blocks(
        &self,
        source: &File,
        target: &File,
        geometry: Geometry,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let pool = self.block_pool()?;
        let tasks = self.block_tasks()?;
        // A table that is full or not there costs little: files are then found by descriptor.
        let handle = |file| match tasks.register_file(Some(file)) {
            Ok(registered) => Handle::from(&registered),
            Err(_) => Handle::from(file),
        };
        // What is written through the page cache is written by a helper, who has no table.
        let is_direct = geometry.write_alignment > 1;
        let target = if is_direct { handle(target) } else { Handle::from(target) };
        let files = (handle(source), target);
        let (progress, cancellation) = (self.job.progress.clone(), self.job.cancellation.clone());
        let copy = BlockCopy::new(geometry, files, pool, progress, cancellation);
        let (copy, outcome) = self.run_blocks(copy).await;
        let failed_side = copy.failed_side;
        drop(copy);
        tasks.release_files();
        outcome.map_err(|error| match failed_side {
            Some(Side::Source) => error.on(labels.source()),
            _ => error.on(labels.target()),
        })
    }

    async fn end(&self, status: &FileStatus, file: &File) -> End {
        End {
            magic: self.magic(status.device, file).await,
            direct_alignment: status.direct_memory_alignment.max(status.direct_offset_alignment),
        }
    }

    async fn cached_permille(&self, file: &File, size: u64) -> Option<u32> {
        let status = CacheStatus { file: file.clone(), offset_bytes: 0, length_bytes: size };
        let (resident, _) = self.io.perform_counted(Operation::CacheStatus(status)).await.ok()?;
        let pages = size.div_ceil(PAGE_BYTES).max(1);
        u32::try_from(u64::from(resident).min(pages) * 1000 / pages).ok()
    }

    /// Reserves room, so that a full disk is found before anything is written; best effort where
    /// the file system can't.
    async fn preallocate(
        &self,
        target: &File,
        size: u64,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let mode = AllocateMode::Extend;
        let allocate = Allocate { file: target.clone(), mode, offset_bytes: 0, length_bytes: size };
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

    /// Switches direct I/O on or off; false if the file system can't.
    async fn set_direct(&self, file: &File, is_direct: bool) -> bool {
        let set = SetDirect { file: file.clone(), is_direct };
        self.io.perform(Operation::SetDirect(set)).await.is_ok()
    }

    /// Has the server copy; false if it can't. A 0 before the end means that it does not say.
    async fn copy_ranges(
        &self,
        source: &File,
        target: &File,
        size: u64,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        let mut copied = 0;
        while copied < size {
            let length = u32::try_from(size - copied).unwrap_or(u32::MAX).min(COPY_RANGE_BYTES_MAX);
            let range = CopyRange {
                source: source.clone(),
                target: target.clone(),
                source_offset_bytes: copied,
                target_offset_bytes: copied,
                length,
            };
            self.io.check()?;
            match self.io.perform_counted(Operation::CopyRange(range)).await {
                Ok((0, _)) => return Ok(false),
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
