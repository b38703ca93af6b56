//! Performs an operation on the simulated world.

use super::walk::At;
use super::world::World;
use crate::buffer::Buffer;
use crate::error::Errno;
use crate::operation::{
    Advice, Close, Descriptor, File, Handle, Name, Open, Operation, Place, ProcessorIdentity,
    Subject,
};
use crate::processor::slots::Memory;

/// An operation that moves data through memory that was named beforehand, without that memory.
#[derive(Clone, Debug)]
pub(super) enum Transfer {
    Read { descriptor: u32, offset: u64, is_uncached: bool },
    Write { descriptor: u32, offset: u64, is_uncached: bool },
    ReadLink { directory: Option<u32>, name: Name },
    ListDirectory { descriptor: u32 },
    GetAttribute { descriptor: u32, name: Name },
    SetAttribute { descriptor: u32, name: Name },
    ListAttributes { descriptor: u32 },
}

/// Whether an operation moves data through memory.
pub(super) fn has_memory(operation: &Operation) -> bool {
    use Operation as O;

    matches!(
        operation,
        O::Read(_)
            | O::Write(_)
            | O::ReadVectored(_)
            | O::WriteVectored(_)
            | O::ReadLink(_)
            | O::ListDirectory(_)
            | O::GetAttribute(_)
            | O::SetAttribute(_)
            | O::ListAttributes(_)
            | O::Receive(_)
            | O::ReceiveMessage(_)
            | O::Send(_)
            | O::SendMessage(_)
            | O::SendZeroCopy(_)
    )
}

/// What an operation with memory asks for.
pub(super) fn transfer(
    operation: &Operation,
    identity: ProcessorIdentity,
) -> Result<Transfer, Errno> {
    Ok(match operation {
        Operation::Read(read) => Transfer::Read {
            descriptor: of_handle(&read.handle, identity)?,
            offset: read.offset_bytes,
            is_uncached: read.handle.is_uncached(),
        },
        Operation::ReadVectored(read) => Transfer::Read {
            descriptor: of_handle(&read.handle, identity)?,
            offset: read.offset_bytes,
            is_uncached: read.handle.is_uncached(),
        },
        Operation::Write(write) => Transfer::Write {
            descriptor: of_handle(&write.handle, identity)?,
            offset: write.offset_bytes,
            is_uncached: write.handle.is_uncached(),
        },
        Operation::WriteVectored(write) => Transfer::Write {
            descriptor: of_handle(&write.handle, identity)?,
            offset: write.offset_bytes,
            is_uncached: write.handle.is_uncached(),
        },
        Operation::ReadLink(link) => Transfer::ReadLink {
            directory: link.place.directory.as_ref().map(of_file).transpose()?,
            name: link.place.name.clone(),
        },
        Operation::ListDirectory(list) => {
            Transfer::ListDirectory { descriptor: of_file(&list.directory)? }
        }
        Operation::GetAttribute(get) => {
            Transfer::GetAttribute { descriptor: of_file(&get.file)?, name: get.name.clone() }
        }
        Operation::SetAttribute(set) => {
            Transfer::SetAttribute { descriptor: of_file(&set.file)?, name: set.name.clone() }
        }
        Operation::ListAttributes(list) => {
            Transfer::ListAttributes { descriptor: of_file(&list.file)? }
        }
        _ => unreachable!("{} has no memory", operation.verb()),
    })
}

impl Transfer {
    /// The file whose data is moved, if a transfer of it can be short.
    pub(super) fn data(&self) -> Option<u32> {
        match self {
            Self::Read { descriptor, .. } | Self::Write { descriptor, .. } => Some(*descriptor),
            _ => None,
        }
    }

    /// Moves the data, at most `limit` bytes of a file's.
    pub(super) fn perform(
        &self,
        world: &mut World,
        memory: &mut Memory<'_>,
        limit: Option<usize>,
    ) -> Result<u32, Errno> {
        match self {
            Self::Read { descriptor, offset, is_uncached: true } => {
                world.read_uncached(*descriptor, *offset, memory, limit)
            }
            Self::Read { descriptor, offset, is_uncached: false } => {
                world.read(*descriptor, *offset, memory, limit)
            }
            Self::Write { descriptor, offset, is_uncached } => {
                if *is_uncached {
                    world.check_uncached(*descriptor)?;
                }
                world.write(*descriptor, *offset, memory, limit)
            }
            Self::ReadLink { directory, name } => {
                if memory.length() == 0 {
                    return Err(Errno::EINVAL);
                }
                let at = At { directory: *directory, path: name.as_bytes() };
                let content = world.read_link(at)?;
                let length = content.len().min(memory.length());
                memory.put(0, &content[..length]);
                Ok(u32::try_from(length).unwrap_or(u32::MAX))
            }
            Self::ListDirectory { descriptor } => world.list_directory(*descriptor, memory),
            Self::GetAttribute { descriptor, name } => {
                world.get_attribute(*descriptor, name.as_bytes(), memory)
            }
            Self::SetAttribute { descriptor, name } => {
                let value = memory.bytes().collect::<Vec<_>>().concat();
                world.set_attribute(*descriptor, name.as_bytes(), value)
            }
            Self::ListAttributes { descriptor } => world.list_attributes(*descriptor, memory),
        }
    }
}

/// Performs an operation without memory and returns what its completion event would carry. What it
/// brings (a file, a status, an offset) is put into it.
pub(super) fn perform(
    world: &mut World,
    operation: &mut Operation,
    identity: ProcessorIdentity,
    limit: Option<usize>,
) -> Result<u32, Errno> {
    match operation {
        Operation::Nop | Operation::Timeout(_) | Operation::LinkTimeout(_) => Ok(0),

        Operation::Sync(sync) => world.sync(of_file(&sync.file)?, sync.reach),
        Operation::Allocate(it) => {
            world.allocate(of_file(&it.file)?, it.mode, it.offset_bytes, it.length_bytes)
        }
        Operation::Truncate(truncate) => {
            world.truncate(of_file(&truncate.file)?, truncate.length_bytes)
        }
        Operation::Seek(seek) => {
            seek.offset_bytes = world.seek(of_file(&seek.file)?, seek.target, seek.offset_bytes)?;
            Ok(0)
        }
        Operation::CloneFile(clone) => {
            world.clone_file(of_file(&clone.source)?, of_file(&clone.target)?)
        }
        Operation::CopyRange(range) => world.copy_range(
            (of_file(&range.source)?, range.source_offset_bytes),
            (of_file(&range.target)?, range.target_offset_bytes),
            range.length,
            limit,
        ),
        Operation::Advise(advise) => {
            let drops = advise.advice == Advice::DontNeed;
            world.advise(of_file(&advise.file)?, drops, advise.offset_bytes, advise.length_bytes)
        }
        Operation::CacheStatus(status) => {
            world.cache_status(of_file(&status.file)?, status.offset_bytes, status.length_bytes)
        }
        Operation::SetDirect(set) => world.set_direct(of_file(&set.file)?, set.is_direct),
        Operation::Lock(lock) => world.lock_file(of_file(&lock.file)?),

        Operation::Open(open) => perform_open(world, open, identity),
        Operation::Close(close) => perform_close(world, close, identity),
        Operation::Flush(flush) => world.file(of_file(&flush.file)?).map(|_| 0),
        Operation::Rename(rename) => {
            world.rename(at(&rename.source)?, at(&rename.target)?, rename.replace)
        }
        Operation::Unlink(unlink) => world.unlink(at(&unlink.place)?, unlink.is_directory),
        Operation::MakeDirectory(make) => world.make_directory(at(&make.place)?, make.mode),
        Operation::SymbolicLink(link) => {
            world.symbolic_link(link.content.as_bytes(), at(&link.place)?)
        }
        Operation::Link(link) => world.link(at(&link.source)?, at(&link.target)?, link.follow),
        Operation::MakeNode(make) => world.make_node(at(&make.place)?, make.mode, make.device),

        Operation::Statx(statx) => {
            let number = world.subject(subject(&statx.subject)?, statx.follow)?;
            statx.status = Some(Box::new(world.status_of(number)));
            Ok(0)
        }
        Operation::FileSystemStatus(status) => {
            let answer = world.file_system_status(of_file(&status.file)?)?;
            (status.magic, status.available_bytes) = answer;
            Ok(0)
        }
        // Nothing here is a block device that could be opened.
        Operation::DeviceStatus(status) => {
            world.file(of_file(&status.file)?)?;
            Err(Errno::ENOTTY)
        }
        Operation::ChangeOwner(change) => {
            world.change_owner(subject(&change.subject)?, change.owner, change.group)
        }
        Operation::ChangeMode(change) => world.change_mode(of_file(&change.file)?, change.mode),
        Operation::ChangeTimes(change) => {
            let number = match &change.subject {
                Subject::Place(place) => world.resolve(at(place)?, false)?,
                Subject::File(file) => world.named_by(of_file(file)?)?,
            };
            world.change_times(number, *change.times)
        }
        Operation::RemoveAttribute(remove) => {
            world.remove_attribute(of_file(&remove.file)?, remove.name.as_bytes())
        }

        Operation::Read(_)
        | Operation::Write(_)
        | Operation::ReadVectored(_)
        | Operation::WriteVectored(_)
        | Operation::ReadLink(_)
        | Operation::ListDirectory(_)
        | Operation::GetAttribute(_)
        | Operation::SetAttribute(_)
        | Operation::ListAttributes(_) => unreachable!("{} has memory", operation.verb()),
        operation => unreachable!("{} is an operation on sockets", operation.verb()),
    }
}

/// Whether an operation would wait for what another operation does: for the other end of a FIFO.
pub(super) fn would_wait(
    world: &World,
    operation: &Operation,
    identity: ProcessorIdentity,
) -> bool {
    let (handle, is_write, length) = match operation {
        Operation::Open(open) => {
            let at = at(&open.place);
            let resolve = open.resolve.bits();
            return at.is_ok_and(|at| world.open_would_wait(at, open.flags, resolve));
        }
        Operation::Read(read) => (&read.handle, false, read.length as usize),
        Operation::Write(write) => (&write.handle, true, write.length as usize),
        Operation::ReadVectored(read) => (&read.handle, false, total(&read.buffers)),
        Operation::WriteVectored(write) => (&write.handle, true, total(&write.buffers)),
        _ => return false,
    };
    let descriptor = of_handle(handle, identity);
    descriptor.is_ok_and(|descriptor| world.transfer_would_wait(descriptor, is_write, length))
}

fn total(buffers: &[Buffer]) -> usize {
    buffers.iter().map(|buffer| buffer.length() as usize).sum()
}

fn perform_open(
    world: &mut World,
    open: &mut Open,
    identity: ProcessorIdentity,
) -> Result<u32, Errno> {
    if let Some(slot) = &open.slot
        && slot.registration().owner != identity
    {
        return Err(Errno::EBADF);
    }
    let number = world.open(at(&open.place)?, open.flags, open.mode, open.resolve.bits())?;
    let file = File::simulated(number, world.released.clone());
    match &open.slot {
        Some(slot) => drop(slot.registration().replace(Some(file))),
        None => open.file = Some(file),
    }
    Ok(0)
}

/// Closes; the descriptor is gone even if this fails.
pub(super) fn perform_close(
    world: &mut World,
    close: &mut Close,
    identity: ProcessorIdentity,
) -> Result<u32, Errno> {
    let Some(handle) = close.handle.take() else { return Err(Errno::EBADF) };
    let result = match handle.descriptor() {
        Descriptor::Registered(slot) if slot.owner != identity => Err(Errno::EBADF),
        Descriptor::Registered(slot) => slot.replace(None).map(|_| 0).ok_or(Errno::EBADF),
        Descriptor::Simulated(_) => Ok(0),
        Descriptor::Kernel(_) | Descriptor::Socket(_) => Err(Errno::EBADF),
    };
    drop(handle);
    world.close_released();
    result
}

fn subject(subject: &Subject) -> Result<At<'_>, Errno> {
    match subject {
        Subject::Place(place) => at(place),
        Subject::File(file) => Ok(At { directory: Some(of_file(file)?), path: b"" }),
    }
}

fn at(place: &Place) -> Result<At<'_>, Errno> {
    let directory = place.directory.as_ref().map(of_file).transpose()?;
    Ok(At { directory, path: place.name.as_bytes() })
}

pub(super) fn of_file(file: &File) -> Result<u32, Errno> {
    match file.descriptor() {
        Descriptor::Simulated(descriptor) => Ok(descriptor.number),
        _ => Err(Errno::EBADF),
    }
}

fn of_handle(handle: &Handle, identity: ProcessorIdentity) -> Result<u32, Errno> {
    match handle.descriptor() {
        Descriptor::Simulated(descriptor) => Ok(descriptor.number),
        Descriptor::Registered(slot) if slot.owner == identity => {
            of_file(&slot.file().ok_or(Errno::EBADF)?)
        }
        _ => Err(Errno::EBADF),
    }
}
