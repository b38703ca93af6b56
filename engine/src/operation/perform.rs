//! Performs an operation with system calls, in the caller's turn.
//!
//! This is all of the thread processor's knowledge of operations, and the kernel processor's for
//! what has no opcode.

use std::time::Duration;

use super::*;
use crate::buffer::Buffer;
use crate::error::Errno;
use crate::limits::RETRIES_MAX;
use crate::sys::{device, file as call};

/// Performs `operation` and returns what its completion event would carry. What it brings (a file,
/// a status, an offset) is put into it.
///
/// It may block. A buffer that can't hold what it is asked to is answered with `EINVAL`.
pub(crate) fn perform(operation: &mut Operation) -> Result<u32, Errno> {
    let mut result = perform_once(operation);
    for _ in 0..RETRIES_MAX {
        let Err(Errno::EINTR) = result else { break };
        // What an interrupted close has written, nobody can find out by a second one.
        if matches!(operation, Operation::Close(_) | Operation::Flush(_)) {
            break;
        }
        result = perform_once(operation);
    }
    result
}

/// Performs a read and, if that was whole, the write of the same bytes, which stay in the read's
/// buffer.
pub(crate) fn perform_pair(
    read: &mut Operation,
    write: &Operation,
) -> (Result<u32, Errno>, Result<u32, Errno>) {
    let first = perform(read);
    let (Operation::Read(read), Operation::Write(write), false) =
        (&*read, write, Chain::is_broken_by(read, first))
    else {
        return (first, Err(Errno::ECANCELED));
    };
    let Some(bytes) = read.buffer.part(write.start, write.length) else {
        return (first, Err(Errno::EINVAL));
    };
    let mut second = write_part(write, bytes);
    for _ in 0..RETRIES_MAX {
        let Err(Errno::EINTR) = second else { break };
        second = write_part(write, bytes);
    }
    (first, second)
}

/// Writes these bytes to where a write goes.
fn write_part(write: &Write, bytes: &[u8]) -> Result<u32, Errno> {
    let (is_uncached, at) = (write.handle.is_uncached(), write.offset_bytes);
    write.handle.with_fd(|fd| match is_uncached {
        true => call::write_uncached_at(fd, &[bytes], at),
        false => call::write_at(fd, bytes, at),
    })
}

fn perform_once(operation: &mut Operation) -> Result<u32, Errno> {
    match operation {
        Operation::Nop | Operation::LinkTimeout(_) => Ok(0),
        Operation::Timeout(timeout) => sleep(timeout.duration),

        Operation::Read(read) => {
            let bytes = read.buffer.part_mut(read.start, read.length).ok_or(Errno::EINVAL)?;
            let (is_uncached, at) = (read.handle.is_uncached(), read.offset_bytes);
            read.handle.with_fd(|fd| match is_uncached {
                true => call::read_uncached_at(fd, &mut [bytes], at),
                false => call::read_at(fd, bytes, at),
            })
        }
        Operation::Write(write) => {
            let bytes = write.buffer.part(write.start, write.length).ok_or(Errno::EINVAL)?;
            write_part(write, bytes)
        }
        Operation::ReadVectored(read) => {
            let mut parts: Vec<&mut [u8]> = Vec::with_capacity(read.buffers.len());
            for buffer in &mut read.buffers {
                parts.push(buffer.as_mut_slice().ok_or(Errno::EINVAL)?);
            }
            let (is_uncached, at) = (read.handle.is_uncached(), read.offset_bytes);
            read.handle.with_fd(|fd| match is_uncached {
                true => call::read_uncached_at(fd, &mut parts, at),
                false => call::read_vectored_at(fd, &mut parts, at),
            })
        }
        Operation::WriteVectored(write) => {
            let parts: Vec<&[u8]> = write.buffers.iter().map(Buffer::as_slice).collect();
            let (is_uncached, at) = (write.handle.is_uncached(), write.offset_bytes);
            write.handle.with_fd(|fd| match is_uncached {
                true => call::write_uncached_at(fd, &parts, at),
                false => call::write_vectored_at(fd, &parts, at),
            })
        }
        Operation::Sync(sync) => match sync.reach {
            SyncReach::Data => call::sync_data(sync.file.fd()?),
            SyncReach::File => call::sync_file(sync.file.fd()?),
            SyncReach::FileSystem => call::sync_file_system(sync.file.fd()?),
        },
        Operation::Allocate(allocate) => call::allocate(
            allocate.file.fd()?,
            allocate.mode.flags(),
            allocate.offset_bytes,
            allocate.length_bytes,
        ),
        Operation::Truncate(truncate) => call::truncate(truncate.file.fd()?, truncate.length_bytes),
        Operation::Seek(seek) => {
            let is_data = seek.target == SeekTarget::Data;
            seek.offset_bytes = call::seek(seek.file.fd()?, is_data, seek.offset_bytes)?;
            Ok(0)
        }
        Operation::CloneFile(clone) => call::clone_file(clone.source.fd()?, clone.target.fd()?),
        Operation::CopyRange(range) => call::copy_range(
            (range.source.fd()?, range.source_offset_bytes),
            (range.target.fd()?, range.target_offset_bytes),
            range.length,
        ),
        Operation::Advise(advise) => call::advise(
            advise.file.fd()?,
            advise.advice.flag(),
            advise.offset_bytes,
            advise.length_bytes,
        ),
        Operation::CacheStatus(status) => {
            call::cache_status(status.file.fd()?, status.offset_bytes, status.length_bytes)
        }
        Operation::SetDirect(set) => call::set_direct(set.file.fd()?, set.is_direct),
        Operation::Lock(lock) => call::lock(lock.file.fd()?),

        Operation::Open(open) => perform_open(open),
        Operation::Close(close) => perform_close(close),
        Operation::Flush(flush) => call::flush(flush.file.fd()?),
        Operation::Rename(rename) => {
            let (source, target) = (at(&rename.source)?, at(&rename.target)?);
            call::rename(source, target, rename.replace)
        }
        Operation::Unlink(unlink) => call::unlink(at(&unlink.place)?, unlink.is_directory),
        Operation::MakeDirectory(make) => call::make_directory(at(&make.place)?, make.mode),
        Operation::SymbolicLink(link) => {
            call::symbolic_link(link.content.as_c_str(), at(&link.place)?)
        }
        Operation::Link(link) => call::link(at(&link.source)?, at(&link.target)?, link.follow),
        Operation::ReadLink(link) => {
            let place = at(&link.place)?;
            call::read_link(place, link.buffer.as_mut_slice().ok_or(Errno::EINVAL)?)
        }
        Operation::MakeNode(make) => call::make_node(at(&make.place)?, make.mode, make.device),
        Operation::ListDirectory(list) => {
            let buffer = list.buffer.as_mut_slice().ok_or(Errno::EINVAL)?;
            call::list_directory(list.directory.fd()?, buffer)
        }

        Operation::Statx(statx) => {
            let status = match &statx.subject {
                Subject::Place(place) => call::status(at(place)?, statx.follow),
                Subject::File(file) => call::status((file.fd()?, c""), statx.follow),
            };
            statx.status = Some(Box::new(FileStatus::from(&status?)));
            Ok(0)
        }
        Operation::FileSystemStatus(status) => {
            (status.magic, status.available_bytes) = call::file_system_status(status.file.fd()?)?;
            Ok(0)
        }
        Operation::DeviceStatus(status) => {
            (status.size_bytes, status.block_bytes) = device::device_status(status.file.fd()?)?;
            Ok(0)
        }
        Operation::ChangeOwner(change) => match &change.subject {
            Subject::Place(place) => call::change_owner(at(place)?, change.owner, change.group),
            Subject::File(file) => {
                call::change_owner((file.fd()?, c""), change.owner, change.group)
            }
        },
        Operation::ChangeMode(change) => call::change_mode(change.file.fd()?, change.mode),
        Operation::ChangeTimes(change) => match &change.subject {
            Subject::Place(place) => call::change_times(at(place)?, change.times.as_pairs()),
            Subject::File(file) => call::change_file_times(file.fd()?, change.times.as_pairs()),
        },
        Operation::GetAttribute(get) => {
            let buffer = get.buffer.as_mut_slice().ok_or(Errno::EINVAL)?;
            call::get_attribute(get.file.fd()?, get.name.as_c_str(), buffer)
        }
        Operation::SetAttribute(set) => {
            call::set_attribute(set.file.fd()?, set.name.as_c_str(), set.value.as_slice())
        }
        Operation::RemoveAttribute(remove) => {
            call::remove_attribute(remove.file.fd()?, remove.name.as_c_str())
        }
        Operation::ListAttributes(list) => {
            let buffer = list.buffer.as_mut_slice().ok_or(Errno::EINVAL)?;
            call::list_attributes(list.file.fd()?, buffer)
        }

        operation => socket::perform_waiting(operation),
    }
}

fn perform_open(open: &mut Open) -> Result<u32, Errno> {
    let fd = call::open(at(&open.place)?, open.flags, open.mode, open.resolve.bits())?;
    let file = File::from_fd(fd);
    match &open.slot {
        Some(slot) => drop(slot.registration().replace(Some(file))),
        None => open.file = Some(file),
    }
    Ok(0)
}

fn perform_close(close: &mut Close) -> Result<u32, Errno> {
    let Some(handle) = close.handle.take() else { return Err(Errno::EBADF) };
    if let Descriptor::Registered(slot) = handle.descriptor() {
        return slot.replace(None).map(|_| 0).ok_or(Errno::EBADF);
    }
    match handle.into_descriptor() {
        Some(Descriptor::Simulated(_)) => Err(Errno::EBADF),
        Some(descriptor) => descriptor.into_fd().map_or(Ok(0), call::close),
        None => Ok(0),
    }
}

fn sleep(duration: Duration) -> Result<u32, Errno> {
    std::thread::sleep(duration);
    Ok(0)
}

fn at(place: &Place) -> Result<call::At<'_>, Errno> {
    let directory = match &place.directory {
        Some(directory) => directory.fd()?,
        None => call::CURRENT_DIRECTORY,
    };
    Ok((directory, place.name.as_c_str()))
}
