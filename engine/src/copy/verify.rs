//! Verifying a copy: what the target's device gives back is held against what was read from the
//! source, before the target is published.
//!
//! ```text
//! data in flight, or the source once more ──► expected ──┐
//! sync ─► direct I/O, or drop the pages ─► read ─► found ─┴─► the same, or the first byte that differs
//! ```

use super::data::{Moved, PAGE_BYTES};
use super::fingerprint::{Fingerprint, Fingerprinter, Wanted};
use super::pipeline::Geometry;
use super::publish::NewFile;
use super::reading::Reading;
use super::remove_source::is_unchanged;
use super::reread::{Reread, choose_reread};
use super::route::End;
use super::segments::Segment;
use super::worker::{Labels, Worker};
use super::{DataPath, PipelineMode, Verified};
use crate::buffer::Buffer;
use crate::digest::Algorithm;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::FINGERPRINT_UNIT_BYTES;
use crate::operation::{File, FileKind, FileStatus, Handle, Operation, Read, SetDirect, SyncReach};

/// How a file is read to its end: from what, and aligned to what.
#[derive(Clone, Copy, Debug)]
struct Way {
    alignment: u32,
    reaches: Verified,
}

/// What reading a file of a known size came to.
pub(super) enum Found {
    Whole(Fingerprint),
    /// It ended at this byte already.
    Shorter(u64),
}

impl Worker<'_> {
    /// What the bytes of each file are turned into.
    pub(super) fn wanted(&self) -> Wanted {
        let asked = &self.job.options.verification;
        Wanted { units: asked.verify, whole: asked.whole() }
    }

    /// A file's data is about to be moved.
    pub(super) fn begin_hashing(&self) {
        let wanted = self.wanted();
        let hashing = (!wanted.is_nothing()).then(|| Fingerprinter::new(wanted));
        self.hashing.replace(hashing);
    }

    /// Bytes of the source that stand at `offset` of it were read into a part of a buffer. What is
    /// left out between two calls is a hole.
    pub(super) fn on_data(&self, offset: u64, buffer: &Buffer, start: u32, length: u32) {
        if let Some(hashing) = self.hashing.borrow_mut().as_mut() {
            hashing.on_data(offset, buffer.part(start, length).unwrap_or_default());
        }
    }

    /// Makes the fingerprint of data that was moved without being seen, and verifies the target, as
    /// far as either was asked for.
    pub(super) async fn check_moved(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
        mut moved: Moved,
        labels: &dyn Labels,
    ) -> Result<Moved, Error> {
        let wanted = self.wanted();
        if wanted.is_nothing() {
            return Ok(moved);
        }
        let has_passed_by = moved.fingerprint.is_some();
        let expected = match moved.fingerprint.take() {
            Some(seen) => *seen,
            None => {
                // A source that grew was cloned as long as it was by then.
                let cloned = self.io.status_of(&new.file).await.map_err(|e| e.on(labels.target()));
                let size = cloned?.size_bytes.max(moved.bytes);
                self.fingerprint_of(source, status, size, wanted, labels).await?
            }
        };
        if wanted.units.is_some() {
            if moved.path == DataPath::Clone {
                let warning = "the copy shares its blocks with its source: what is verified is the \
                               only copy on the device";
                self.warn(labels, warning);
            }
            moved.verified = match self.verify(source, new, &expected, labels).await {
                Err(error) if error.kind() == ErrorKind::DoesNotVerify && !has_passed_by => {
                    return Err(self.blame(source, status, error, labels).await);
                }
                verified => verified?,
            };
        }
        moved.digest = expected.whole.map(Box::new);
        Ok(moved)
    }

    /// Why a copy differs from what its source holds by now: that may have been changed.
    async fn blame(
        &self,
        source: &File,
        before: &FileStatus,
        error: Error,
        labels: &dyn Labels,
    ) -> Error {
        match self.io.status_of(source).await {
            Ok(after) if is_unchanged(before, &after, self.job.removed_names(before)) => error,
            Ok(_) => {
                let reason = "the file was changed while it was copied";
                Error::new(ErrorKind::SourceChanged, "copy", reason).on(labels.source())
            }
            Err(error) => error.on(labels.source()),
        }
    }

    /// Reads a source that no byte of passed by here: it was cloned, or copied by a server.
    pub(super) async fn fingerprint_of(
        &self,
        source: &File,
        status: &FileStatus,
        size: u64,
        wanted: Wanted,
        labels: &dyn Labels,
    ) -> Result<Fingerprint, Error> {
        let end = self.end(status, source).await;
        let way = self.way_past_cache(source, end).await;
        let way = way.unwrap_or(Way { alignment: 1, reaches: Verified::Cache });
        let found = self.read_whole(source, size, way.alignment, wanted).await;
        if way.alignment > 1 {
            self.leave_direct(source).await;
        }
        match found.map_err(|error| error.on(labels.source()))? {
            Found::Whole(fingerprint) => Ok(fingerprint),
            Found::Shorter(at) => {
                let reason = "the file became shorter while it was copied";
                let error = Error::new(ErrorKind::SourceChanged, "read", reason);
                Err(error.on(labels.source()).at(at))
            }
        }
    }

    /// Whether two files are the same in their first `size` bytes, both read through the page cache.
    pub(super) async fn holds_same(
        &self,
        source: &File,
        copy: &File,
        size: u64,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        let wanted = Wanted { units: Some(Algorithm::Xxh3_128), whole: None };
        let mut found = Vec::with_capacity(2);
        for (file, path) in [(source, labels.source()), (copy, labels.target())] {
            // It may have been read or written by direct I/O.
            self.leave_direct(file).await;
            match self.read_whole(file, size, 1, wanted).await.map_err(|error| error.on(path))? {
                Found::Whole(fingerprint) => found.push(fingerprint),
                Found::Shorter(_) => return Ok(false),
            }
        }
        Ok(found[0].first_difference(&found[1]).is_none())
    }

    /// Reads the target back and compares. None if it can't be read back: a pipe, a terminal.
    async fn verify(
        &self,
        source: &File,
        new: &NewFile,
        expected: &Fingerprint,
        labels: &dyn Labels,
    ) -> Result<Option<Verified>, Error> {
        let on_target = |error: Error| error.on(labels.target());
        if new.is_stream() {
            self.warn(labels, "not verified: what was written there can't be read back");
            return Ok(None);
        }
        self.sync(&new.file, SyncReach::Data).await.map_err(on_target)?;
        self.compare_with_device(source, &new.file, expected).await.map(Some).map_err(on_target)
    }

    /// Reads a file that is synced, from the device where there is one, and compares.
    pub(super) async fn compare_with_device(
        &self,
        source: &File,
        target: &File,
        expected: &Fingerprint,
    ) -> Result<Verified, Error> {
        let mut status = self.io.status_of(target).await?;
        if status.kind == FileKind::BlockDevice {
            // What is behind an image on a device is not the copy's.
            status.size_bytes = expected.size_bytes;
        }
        if status.size_bytes != expected.size_bytes {
            let (found, expected) = (status.size_bytes, expected.size_bytes);
            let reason = format!("it has {found} bytes, and should have {expected}");
            return Err(does_not_verify(found.min(expected), reason));
        }
        let end = self.end(&status, target).await;
        let way = self.way_to_device(target, status.size_bytes, end).await;
        let wanted = Wanted { units: expected.algorithm(), whole: None };
        match self.read_whole(target, status.size_bytes, way.alignment, wanted).await? {
            Found::Whole(found) => match expected.first_difference(&found) {
                None => Ok(way.reaches),
                Some(unit) => {
                    let size = status.size_bytes;
                    Err(self.locate(source, target, unit, size, way.alignment).await)
                }
            },
            Found::Shorter(at) => {
                let reason = "it ends there on the device".to_owned();
                Err(does_not_verify(at, reason))
            }
        }
    }

    /// How to read what the device has, and not what the page cache has.
    async fn way_to_device(&self, file: &File, size: u64, end: End) -> Way {
        if let Some(way) = self.way_past_cache(file, end).await {
            return way;
        }
        let whole = Segment { start: 0, end: size.next_multiple_of(PAGE_BYTES) };
        // It may have been written by direct I/O, which this way would not be aligned for.
        self.leave_direct(file).await;
        let is_kept_on_a_device =
            choose_reread(self.job.options.direct, End { direct_alignment: 0, ..end })
                == Reread::Dropped;
        let is_dropped = is_kept_on_a_device && self.drop_pages(file, whole).await;
        let reaches = if is_dropped { Verified::Device } else { Verified::Cache };
        Way { alignment: 1, reaches }
    }

    /// Direct I/O on this file, where it is real.
    async fn way_past_cache(&self, file: &File, end: End) -> Option<Way> {
        let Reread::Direct(alignment) = choose_reread(self.job.options.direct, end) else {
            return None;
        };
        let set = SetDirect { file: file.clone(), is_direct: true };
        self.io.perform(Operation::SetDirect(set)).await.ok()?;
        Some(Way { alignment, reaches: Verified::Device })
    }

    async fn leave_direct(&self, file: &File) {
        let set = SetDirect { file: file.clone(), is_direct: false };
        // Where there is no direct I/O, there is none to leave.
        let _ = self.io.perform(Operation::SetDirect(set)).await;
    }

    /// Reads a file of `size` bytes: a large one with many blocks in flight.
    pub(super) async fn read_whole(
        &self,
        file: &File,
        size: u64,
        alignment: u32,
        wanted: Wanted,
    ) -> Result<Found, Error> {
        let is_large = size >= self.job.options.large_bytes_min && {
            let status = self.io.status_of(file).await?;
            self.has_ring_reads(file, &status).await
        };
        let (pool, depth) = match is_large {
            true => (self.block_pool()?, self.job.options.depth),
            false => (self.small_pool()?, 1),
        };
        let geometry = Geometry {
            size_bytes: size,
            block_bytes: pool.block_bytes(),
            depth,
            read_alignment: alignment,
            write_alignment: 1,
            mode: PipelineMode::Unlinked,
        };
        let cancellation = self.job.cancellation.clone();
        let handle = if alignment == 1 { self.handle(file).await } else { Handle::from(file) };
        let reading = Reading::new(geometry, handle, pool, wanted, cancellation);
        let (reading, outcome) = match is_large {
            true => self.run_blocks(reading).await?,
            false => self.io.tasks.run(reading).await,
        };
        match (outcome, reading.ended_at) {
            (_, Some(at)) => Ok(Found::Shorter(at)),
            (Err(error), None) => Err(error),
            (Ok(()), None) => Ok(Found::Whole(reading.finish())),
        }
    }

    /// The failure of a target that differs from its source in the unit from `unit` on: with the
    /// byte, if both can be read once more.
    async fn locate(
        &self,
        source: &File,
        target: &File,
        unit: u64,
        size: u64,
        alignment: u32,
    ) -> Error {
        match self.first_difference(source, target, unit, size, alignment).await {
            Ok(Some((at, want, got))) => {
                let reason = format!("it is {got:#04x} there, and should be {want:#04x}");
                does_not_verify(at, reason)
            }
            Ok(None) => {
                let reason = "bytes from there on were read back differently, though not again";
                does_not_verify(unit, reason.to_owned())
            }
            Err(_) => {
                let reason =
                    "it differs there or within the next MiB; the source can't be read again";
                does_not_verify(unit, reason.to_owned())
            }
        }
    }

    async fn first_difference(
        &self,
        source: &File,
        target: &File,
        unit: u64,
        size: u64,
        alignment: u32,
    ) -> Result<Option<(u64, u8, u8)>, Error> {
        if self.io.status_of(source).await?.kind != FileKind::Regular {
            return Err(Error::from_errno("read", Errno::ESPIPE));
        }
        let pool = self.small_pool()?;
        let lend = || {
            let lease = pool.lease().map(Buffer::from);
            lease.ok_or_else(|| Error::new(ErrorKind::Io, "lend buffer", "the pool is empty"))
        };
        let end = size.min(unit + FINGERPRINT_UNIT_BYTES);
        let mut at = unit;
        let mut found = lend()?;
        let mut wanted = Buffer::Vec(vec![0; found.length() as usize]);
        while at < end {
            let part = u32::try_from(end - at).unwrap_or(u32::MAX).min(found.length());
            (found, wanted) = (
                self.read_piece(target, found, at, part, alignment).await?,
                self.read_piece(source, wanted, at, part, 1).await?,
            );
            let (found, wanted) = (found.as_slice().iter(), wanted.as_slice().iter());
            let differing = wanted.zip(found).take(part as usize).zip(at..);
            for ((want, got), at) in differing {
                if want != got {
                    return Ok(Some((at, *want, *got)));
                }
            }
            at += u64::from(part);
        }
        Ok(None)
    }

    /// Reads `length` bytes at `offset` into the start of a buffer, all of them.
    async fn read_piece(
        &self,
        file: &File,
        mut buffer: Buffer,
        offset: u64,
        length: u32,
        alignment: u32,
    ) -> Result<Buffer, Error> {
        let mut done = 0;
        while done < length {
            let read = Read {
                handle: file.into(),
                buffer,
                offset_bytes: offset + u64::from(done),
                start: done,
                length: (length - done).next_multiple_of(alignment),
            };
            let (bytes, Operation::Read(read)) =
                self.io.perform_counted(Operation::Read(read)).await?
            else {
                unreachable!("an operation comes back as itself")
            };
            buffer = read.buffer;
            let moved = done + bytes;
            if bytes == 0 || (moved < length && moved - moved % alignment == done) {
                return Err(Error::from_errno("read", Errno::EIO));
            }
            done = if moved < length { moved - moved % alignment } else { length };
        }
        Ok(buffer)
    }
}

fn does_not_verify(at: u64, reason: String) -> Error {
    Error::new(ErrorKind::DoesNotVerify, "verify", reason).at(at)
}
