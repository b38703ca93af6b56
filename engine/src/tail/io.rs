//! How a tail starts operations: tried again where the kernel asks for it, and errors that say on
//! which file.

use std::ops::Range;
use std::path::Path;

use super::trail::{Marker, Trail, window_range};
use crate::buffer::Buffer;
use crate::error::{Errno, Error};
use crate::limits::{RETRIES_MAX, TAIL_HEAD_BYTES};
use crate::operation::{
    File, FileStatus, Handle, Open, Operation, OperationError, Read, Statx, Subject,
};
use crate::proactor::TaskInitiator;

/// Performs an operation; what the kernel asks to be tried again is, but for a sync: what that could
/// not write counts as written afterwards.
pub(super) async fn perform(
    tasks: &TaskInitiator,
    operation: impl Into<Operation>,
) -> (Result<u32, OperationError>, Operation) {
    let mut operation = operation.into();
    let mut retries = 0;
    loop {
        let result;
        (result, operation) = tasks.perform(operation).await;
        let is_passing =
            matches!(&result, Err(it) if [Errno::EINTR, Errno::EAGAIN].contains(&it.errno));
        let may_be_repeated = !matches!(operation, Operation::Sync(_)) && retries < RETRIES_MAX;
        if !is_passing || !may_be_repeated {
            return (result, operation);
        }
        retries += 1;
    }
}

/// The same, where only success matters.
pub(super) async fn perform_on(
    tasks: &TaskInitiator,
    operation: impl Into<Operation>,
    path: &Path,
) -> Result<Operation, Error> {
    let (result, operation) = perform(tasks, operation).await;
    match result {
        Ok(_) => Ok(operation),
        Err(error) => Err(Error::from_errno(operation.verb(), error.errno).on(path)),
    }
}

pub(super) async fn open(tasks: &TaskInitiator, open: Open, path: &Path) -> Result<File, Error> {
    match perform_on(tasks, open, path).await? {
        Operation::Open(Open { file: Some(file), .. }) => Ok(file),
        _ => Err(Error::from_errno("open", Errno::EBADF).on(path)),
    }
}

pub(super) async fn status(
    tasks: &TaskInitiator,
    subject: Subject,
    follow: bool,
    path: &Path,
) -> Result<Box<FileStatus>, Error> {
    let statx = Statx { subject, follow, status: None };
    match perform_on(tasks, statx, path).await? {
        Operation::Statx(Statx { status: Some(status), .. }) => Ok(status),
        _ => Err(Error::from_errno("status", Errno::EIO).on(path)),
    }
}

/// Reads into a buffer from an offset until `is_enough`, the buffer is full, or the file ends.
/// Returns the number of bytes, and the buffer in any case.
pub(super) async fn fill(
    tasks: &TaskInitiator,
    file: &File,
    buffer: impl Into<Buffer>,
    range: Range<u64>,
    is_enough: impl Fn(&[u8]) -> bool,
) -> (Result<usize, Errno>, Buffer) {
    let mut buffer = buffer.into();
    let length = u32::try_from(range.end - range.start).unwrap_or(u32::MAX).min(buffer.length());
    let mut start = 0;
    while start < length {
        let read = Read {
            handle: Handle::from(file),
            buffer,
            offset_bytes: range.start + u64::from(start),
            start,
            length: length - start,
        };
        let (result, operation) = perform(tasks, read).await;
        let Operation::Read(read) = operation else {
            unreachable!("an operation comes back as itself")
        };
        buffer = read.buffer;
        let bytes = match result {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) => return (Err(error.errno), buffer),
        };
        let is_done = buffer.part(start, bytes).is_some_and(&is_enough);
        start += bytes;
        if is_done {
            break;
        }
    }
    (Ok(start as usize), buffer)
}

/// The bytes of a file in a range, as far as there are any.
async fn read(tasks: &TaskInitiator, file: &File, range: Range<u64>) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(range.end - range.start).unwrap_or(0);
    if length == 0 {
        return Ok(Vec::new());
    }
    let (result, buffer) = fill(tasks, file, vec![0; length], range, |_| false).await;
    let length = result?;
    Ok(match buffer {
        Buffer::Vec(mut bytes) => {
            bytes.truncate(length);
            bytes
        }
        _ => unreachable!("a buffer comes back as itself"),
    })
}

/// Whether a file carries a marker; the trail there if it does.
pub(super) async fn recall(
    tasks: &TaskInitiator,
    file: &File,
    marker: &Marker,
    path: &Path,
) -> Result<Option<Trail>, Error> {
    let on = |errno| Error::from_errno("read", errno).on(path);
    let head = read(tasks, file, marker.head_range()).await.map_err(on)?;
    if head.len() < marker.head_bytes as usize {
        return Ok(None);
    }
    let window = read(tasks, file, marker.window_range()).await.map_err(on)?;
    Ok(Trail::recall(marker, head, window))
}

/// The trail at an offset of a file.
pub(super) async fn trail_at(
    tasks: &TaskInitiator,
    file: &File,
    offset_bytes: u64,
    path: &Path,
) -> Result<Trail, Error> {
    let on = |errno| Error::from_errno("read", errno).on(path);
    let head = read(tasks, file, 0..TAIL_HEAD_BYTES as u64).await.map_err(on)?;
    let window = read(tasks, file, window_range(offset_bytes)).await.map_err(on)?;
    Ok(Trail::at(offset_bytes, head, window))
}
