//! Block devices as sources and targets: images.
//!
//! A device is read by its length. One is written in place, and only if nobody uses it and it looks
//! empty, unless its name was repeated (`Options::destroy_data`): what is overwritten there is gone.
//! O_EXCL is the kernel's own check against mounts, swap, and devices on top of it, for whole disks
//! and partitions alike; nobody can take the device while it is held.

use nix::libc;

use super::attributes::Known;
use super::holes::HolePlan;
use super::publish::{Made, NewFile, Target};
use super::segments::Segment;
use super::signature::{self, HEAD_BYTES, TAIL_BYTES};
use super::sparse::Part;
use super::worker::{Labels, Worker};
use super::{Holes, Resume};
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind};
use crate::operation::{
    Allocate, AllocateMode, DeviceStatus, File, FileKind, FileStatus, Open, Operation, Place, Read,
};
use crate::units::Bytes;

/// Why an image that was interrupted is not gone on with.
const SILENT: &str = "a device does not tell whether it is written to in between";

impl Worker<'_> {
    /// Why the copy of something large would begin again, if it were interrupted: of images only.
    ///
    /// A file's times and inode vouch for what a journal says of it. Nothing vouches for a device: what
    /// is mounted or stacked on it, its other nodes, the file behind it or another machine write to it
    /// and leave no trace, and the kernel's own counts stop when statistics are switched off. An image
    /// of two moments would look like one that is right.
    pub(super) fn begins_again(&self, source: &FileStatus, new: &NewFile) -> Option<&'static str> {
        let options = &self.job.options;
        let is_image = source.kind == FileKind::BlockDevice || new.device_block_bytes().is_some();
        let is_large = source.size_bytes >= options.resume_bytes_min;
        (is_image && is_large && options.resume == Resume::Auto).then_some(SILENT)
    }

    /// The status of a source, with the length that a block device has but does not tell.
    pub(super) async fn with_device_size(
        &self,
        file: &File,
        status: FileStatus,
    ) -> Result<FileStatus, Error> {
        if status.kind != FileKind::BlockDevice {
            return Ok(status);
        }
        let (size_bytes, _) = self.device_status(file).await?;
        Ok(FileStatus { size_bytes, ..status })
    }

    /// Opens the block device that stands at a target that the user named, to be written over; none
    /// if something else stands there. `status` is that of the name itself.
    pub(super) async fn open_device(
        &self,
        target: &Target,
        source: &FileStatus,
        status: Option<&FileStatus>,
        labels: &dyn Labels,
    ) -> Result<Option<NewFile>, Error> {
        let label = |error: Error| error.on(labels.target());
        let place = Place::at(&target.directory, &target.name);
        let kind = match status.map(|status| status.kind) {
            // What is to be renamed or removed is not written into.
            _ if !target.is_operand || self.job.options.existing.replaces_links() => {
                return Ok(None);
            }
            Some(FileKind::SymbolicLink) => {
                let followed = self.io.status_at(place.clone(), true).await.map_err(label)?;
                followed.map(|status| status.kind)
            }
            kind => kind,
        };
        if kind != Some(FileKind::BlockDevice) {
            return Ok(None);
        }
        let may_destroy = !self.job.options.protect_devices
            || self.job.options.destroy_data.contains(&labels.target());
        let file = match self.open_exclusively(place, may_destroy, labels).await {
            // It gives way to a file, as whatever can't be written.
            Err(error)
                if self.job.options.existing.force && may_destroy && error.errno().is_some() =>
            {
                return Ok(None);
            }
            opened => opened?,
        };
        let found = self.io.status_of(&file).await.map_err(label)?;
        if found.kind != FileKind::BlockDevice {
            let reason = "the target was exchanged meanwhile";
            return Err(label(Error::new(ErrorKind::Io, "open", reason)));
        }
        if source.kind == FileKind::BlockDevice && source.node_device == found.node_device {
            let reason = "source and target are the same device";
            return Err(label(Error::new(ErrorKind::Operand, "copy", reason)));
        }
        let (size_bytes, block_bytes) = self.device_status(&file).await.map_err(label)?;
        if source.size_bytes > size_bytes {
            let (needed, there) = (Bytes(source.size_bytes), Bytes(size_bytes));
            let reason = format!("the device is too small: {needed} do not fit into {there}");
            return Err(label(Error::new(ErrorKind::Storage, "open", reason)));
        }
        if !may_destroy && let Some(what) = self.find_signature(&file, size_bytes, labels).await? {
            return Err(refused(&format!("it holds {what}"), labels));
        }
        let made = Made::Device { block_bytes };
        let known = Known { is_existing: true, ..Known::default() };
        Ok(Some(NewFile::new(file, target.clone(), made, known)))
    }

    async fn open_exclusively(
        &self,
        place: Place,
        may_destroy: bool,
        labels: &dyn Labels,
    ) -> Result<File, Error> {
        let open = |flags| Open::new(place.clone(), libc::O_RDWR | flags);
        let on_target = |error: Error| error.doing("open for writing").on(labels.target());
        match self.io.open(open(libc::O_EXCL)).await {
            Err(error) if error.errno() == Some(Errno::EBUSY) => {
                if !may_destroy {
                    let what = "it is in use: mounted, swap, or part of another device";
                    return Err(refused(what, labels));
                }
                self.io.open(open(0)).await.map_err(on_target)
            }
            opened => opened.map_err(on_target),
        }
    }

    /// What a device holds, as far as its marks tell.
    async fn find_signature(
        &self,
        file: &File,
        size_bytes: u64,
        labels: &dyn Labels,
    ) -> Result<Option<&'static str>, Error> {
        let tail_at = size_bytes.saturating_sub(u64::from(TAIL_BYTES));
        let head = self.read_part(file, 0, HEAD_BYTES, labels).await?;
        let tail = self.read_part(file, tail_at, TAIL_BYTES, labels).await?;
        Ok(signature::find(&head, &tail, size_bytes))
    }

    /// Reads up to `length` bytes: as many as there are.
    async fn read_part(
        &self,
        file: &File,
        offset_bytes: u64,
        length: u32,
        labels: &dyn Labels,
    ) -> Result<Vec<u8>, Error> {
        let mut buffer = Buffer::Vec(vec![0; length as usize]);
        let mut start = 0;
        while start < length {
            let at = offset_bytes + u64::from(start);
            let (handle, length) = (file.into(), length - start);
            let read = Read { handle, buffer, offset_bytes: at, start, length };
            let read = self.io.perform_counted(Operation::Read(read)).await;
            let (bytes, operation) = read.map_err(|error| error.on(labels.target()).at(at))?;
            let Operation::Read(read) = operation else {
                unreachable!("an operation comes back as itself")
            };
            buffer = read.buffer;
            if bytes == 0 {
                break;
            }
            start += bytes;
        }
        let Buffer::Vec(mut bytes) = buffer else { unreachable!("the buffer comes back") };
        bytes.truncate(start as usize);
        Ok(bytes)
    }

    async fn device_status(&self, file: &File) -> Result<(u64, u32), Error> {
        let status = DeviceStatus { file: file.clone(), size_bytes: 0, block_bytes: 0 };
        match self.io.perform(Operation::DeviceStatus(status)).await? {
            Operation::DeviceStatus(status) => Ok((status.size_bytes, status.block_bytes)),
            _ => Err(Error::from_errno("device status", Errno::EIO)),
        }
    }

    /// Gives back all the room of a device that will be written, so that it reads as zeros, if the
    /// device promises that.
    pub(super) async fn discard_device(&self, file: &File, size_bytes: u64) -> bool {
        self.zero_range(file, AllocateMode::PunchHole, 0, size_bytes).await.is_ok()
    }

    /// Makes what lies between the data of a part zeros. Where neither the device nor the kernel
    /// does it, the zeros become data of the part, to be read from the source's holes.
    pub(super) async fn zero_gaps(
        &self,
        file: &File,
        block_bytes: u32,
        part: &mut Part,
    ) -> Result<(), Error> {
        let mut segments = Vec::with_capacity(part.segments.len());
        let last = Segment { start: part.covers.end, end: part.covers.end };
        let mut reached = part.covers.start;
        for segment in part.segments.iter().copied().chain([last]) {
            // What ends inside of a block can only be written.
            let end = segment.start - segment.start % u64::from(block_bytes.max(1));
            if end > reached {
                let mode = AllocateMode::ZeroRange;
                match self.zero_range(file, mode, reached, end - reached).await {
                    Ok(()) => {
                        self.job.progress.add_bytes(end - reached);
                        reached = end;
                    }
                    Err(error) if is_unsupported(&error) => {}
                    Err(error) => return Err(error.at(reached)),
                }
            }
            let gap = Segment { start: reached, end: segment.start };
            segments.extend([gap, segment].into_iter().filter(|it| it.length() > 0));
            reached = segment.end;
        }
        part.segments = segments;
        Ok(())
    }

    async fn zero_range(
        &self,
        file: &File,
        mode: AllocateMode,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<(), Error> {
        let allocate = Allocate { file: file.clone(), mode, offset_bytes, length_bytes };
        self.io.perform(Operation::Allocate(allocate)).await.map(drop)
    }

    /// What is done about holes when a device is written: its old bytes must not shine through.
    pub(super) async fn plan_device_holes(
        &self,
        plan: HolePlan,
        new: &NewFile,
        size_bytes: u64,
    ) -> HolePlan {
        let Some(block_bytes) = new.device_block_bytes() else { return plan };
        let is_whole = size_bytes.is_multiple_of(u64::from(block_bytes.max(1)));
        let wants_discard = self.job.options.holes == Holes::Always && is_whole;
        if wants_discard && self.discard_device(&new.file, size_bytes).await {
            return plan;
        }
        HolePlan { finds_zeros: false, writes_zeros: plan.follows_map, ..plan }
    }
}

fn is_unsupported(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENODEV))
}

fn refused(what: &str, labels: &dyn Labels) -> Error {
    let target = labels.target();
    let reason = format!(
        "{what}; to overwrite it all the same, add --destroy-data={}",
        target.display().to_string().escape_default()
    );
    Error::new(ErrorKind::Operand, "open", reason).on(target)
}
