//! From operations to submission queue entries.
//!
//! Nothing here is unsafe: an entry is numbers. What its pointers demand is proved where it is
//! pushed (`kernel.rs`); to make that proof short, every pointer here is to what the operation owns
//! or to its slot's side storage.

use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{DestinationSlot, Fd, Fixed, FsyncFlags, OpenHow, Timespec};
use io_uring::{Probe, opcode};
use nix::libc;

use super::groups::Groups;
use super::slots::Side;
use crate::buffer::Buffer;
use crate::limits::CONNECT_AGAIN_AFTER;
use crate::operation::{
    Address, CURRENT_POSITION, Connect, Descriptor, File, Handle, Name, Open, Operation, Place,
    ProcessorIdentity, Socket, Statx, Subject, SyncReach, ZeroCopy,
};
use crate::sys::file::{STATX_MASK, open_flags, status_flags};
use crate::sys::ring::REPORT_USAGE;
use crate::sys::socket::{SEND_FLAGS, header};

/// Which opcodes the kernel knows.
#[derive(Clone, Debug)]
pub(super) struct Opcodes([bool; 256]);

/// Memory that an entry names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    address: *mut u8,
    length: u32,
    registered: Option<u16>,
}

/// What an entry names a file by.
enum Target {
    Fd(RawFd),
    Slot(u32),
}

impl Opcodes {
    pub(super) fn probe(probe: &Probe) -> Self {
        let known = |code: usize| u8::try_from(code).is_ok_and(|code| probe.is_supported(code));
        Self(std::array::from_fn(known))
    }

    /// Forgets the opcodes of sockets: as on a kernel without them.
    pub(super) fn forget_sockets(&mut self) {
        let codes = [
            opcode::Socket::CODE,
            opcode::Accept::CODE,
            opcode::Connect::CODE,
            opcode::Shutdown::CODE,
            opcode::Recv::CODE,
            opcode::RecvMsg::CODE,
            opcode::Send::CODE,
            opcode::SendMsg::CODE,
            opcode::SendZc::CODE,
        ];
        codes.into_iter().for_each(|code| self.0[usize::from(code)] = false);
    }

    pub(super) fn has_zero_copy(&self) -> bool {
        self.has(opcode::SendZc::CODE)
    }

    fn has(&self, code: u8) -> bool {
        self.0[usize::from(code)]
    }
}

/// Builds an opcode with the file that a [`Target`] names.
macro_rules! with_target {
    ($target:expr, |$fd:ident| $entry:expr) => {
        match $target {
            Target::Fd(fd) => {
                let $fd = Fd(fd);
                $entry.build()
            }
            Target::Slot(slot) => {
                let $fd = Fixed(slot);
                $entry.build()
            }
        }
    };
}

/// Makes `entry` the one for an operation; none if there is no opcode for it here, or if something
/// of it can't be named to the kernel (a buffer that is too small): a helper then gives the right
/// answer.
///
/// The entry is written in place, as each move of its 64 bytes would cost as much as making it.
/// `lent` is the memory of the chain member before, for a member that has none of its own.
pub(super) fn encode(
    operation: &mut Operation,
    side: &mut Side,
    lent: Option<Memory>,
    opcodes: &Opcodes,
    identity: ProcessorIdentity,
    entry: &mut Entry,
) -> Option<()> {
    let code = code(operation)?;
    if !opcodes.has(code) {
        return None;
    }
    *entry = match operation {
        Operation::Nop => opcode::Nop::new().build(),
        Operation::Timeout(timeout) => {
            side.time = timespec(timeout.duration);
            opcode::Timeout::new(&raw const side.time).build()
        }
        Operation::LinkTimeout(timeout) => {
            side.time = timespec(timeout.duration);
            opcode::LinkTimeout::new(&raw const side.time).build()
        }

        Operation::Read(read) => {
            let memory = writable(&mut read.buffer, identity)?.part(read.start, read.length)?;
            let (offset, flags) = (offset(read.offset_bytes)?, flags(&read.handle));
            let target = target(&read.handle, identity)?;
            match memory.registered {
                Some(index) => with_target!(target, |fd| {
                    opcode::ReadFixed::new(fd, memory.address, memory.length, index)
                        .offset(offset)
                        .rw_flags(flags)
                }),
                None => with_target!(target, |fd| {
                    opcode::Read::new(fd, memory.address, memory.length)
                        .offset(offset)
                        .rw_flags(flags)
                }),
            }
        }
        Operation::Write(write) => {
            let memory = match (&mut write.buffer, lent) {
                (Buffer::OfPreviousMember, lent) => lent?,
                (buffer, _) => readable(buffer, identity)?,
            };
            let memory = memory.part(write.start, write.length)?;
            let (offset, flags) = (offset(write.offset_bytes)?, flags(&write.handle));
            let target = target(&write.handle, identity)?;
            match memory.registered {
                Some(index) => with_target!(target, |fd| {
                    opcode::WriteFixed::new(fd, memory.address, memory.length, index)
                        .offset(offset)
                        .rw_flags(flags)
                }),
                None => with_target!(target, |fd| {
                    opcode::Write::new(fd, memory.address, memory.length)
                        .offset(offset)
                        .rw_flags(flags)
                }),
            }
        }
        Operation::ReadVectored(read) => {
            side.name(&mut read.buffers, |buffer| writable(buffer, identity))?;
            let (vectors, count) = side.vectors()?;
            let (offset, flags) = (offset(read.offset_bytes)?, flags(&read.handle));
            with_target!(target(&read.handle, identity)?, |fd| {
                opcode::Readv::new(fd, vectors, count).offset(offset).rw_flags(flags)
            })
        }
        Operation::WriteVectored(write) => {
            side.name(&mut write.buffers, |buffer| readable(buffer, identity))?;
            let (vectors, count) = side.vectors()?;
            let (offset, flags) = (offset(write.offset_bytes)?, flags(&write.handle));
            with_target!(target(&write.handle, identity)?, |fd| {
                opcode::Writev::new(fd, vectors, count).offset(offset).rw_flags(flags)
            })
        }
        Operation::Sync(sync) => {
            let flags = match sync.reach {
                SyncReach::Data => FsyncFlags::DATASYNC,
                SyncReach::File | SyncReach::FileSystem => FsyncFlags::empty(),
            };
            opcode::Fsync::new(fd(&sync.file)?).flags(flags).build()
        }
        Operation::Allocate(allocate) => {
            opcode::Fallocate::new(fd(&allocate.file)?, allocate.length_bytes)
                .offset(allocate.offset_bytes)
                .mode(allocate.mode.flags())
                .build()
        }
        Operation::Truncate(truncate) => {
            opcode::Ftruncate::new(fd(&truncate.file)?, truncate.length_bytes).build()
        }
        Operation::Advise(advise) => {
            // The entry's length has 32 bits.
            let length = u32::try_from(advise.length_bytes).ok()?;
            opcode::Fadvise::new(fd(&advise.file)?, length.into(), advise.advice.flag())
                .offset(advise.offset_bytes)
                .build()
        }

        Operation::Open(open) => encode_open(open, side, identity)?,
        Operation::Close(close) => match target(close.handle.as_ref()?, identity)? {
            Target::Slot(slot) => opcode::Close::new(Fixed(slot)).build(),
            // The operation keeps the descriptor until the kernel has closed it (`land`).
            Target::Fd(fd) if close.handle.as_ref()?.is_only_owner() => {
                opcode::Close::new(Fd(fd)).build()
            }
            // Others still have it: giving up our share is all there is to do.
            Target::Fd(_) => {
                close.handle = None;
                opcode::Nop::new().build()
            }
        },
        Operation::Rename(rename) => {
            let flags = if rename.replace { 0 } else { libc::RENAME_NOREPLACE };
            let (source, source_name) = at(&rename.source)?;
            let (target, target_name) = at(&rename.target)?;
            opcode::RenameAt::new(source, source_name, target, target_name).flags(flags).build()
        }
        Operation::Unlink(unlink) => {
            let flags = if unlink.is_directory { libc::AT_REMOVEDIR } else { 0 };
            let (directory, name) = at(&unlink.place)?;
            opcode::UnlinkAt::new(directory, name).flags(flags).build()
        }
        Operation::MakeDirectory(make) => {
            let (directory, name) = at(&make.place)?;
            opcode::MkDirAt::new(directory, name).mode(make.mode).build()
        }
        Operation::SymbolicLink(link) => {
            let (directory, name) = at(&link.place)?;
            opcode::SymlinkAt::new(directory, pointer(&link.content), name).build()
        }
        Operation::Link(link) => {
            let (source, source_name) = at(&link.source)?;
            let (target, target_name) = at(&link.target)?;
            let flags = if link.follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
            opcode::LinkAt::new(source, source_name, target, target_name).flags(flags).build()
        }

        Operation::Statx(statx) => encode_statx(statx, side)?,
        operation => encode_socket(operation, side, identity)?,
    };
    Some(())
}

/// The entry for an operation on sockets.
fn encode_socket(
    operation: &mut Operation,
    side: &mut Side,
    identity: ProcessorIdentity,
) -> Option<Entry> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    Some(match operation {
        Operation::MakeSocket(make) => {
            opcode::Socket::new(make.family.domain(), libc::SOCK_STREAM | flags, 0).build()
        }
        Operation::Accept(it) => {
            let (nobody, no_length) = (ptr::null_mut(), ptr::null_mut());
            opcode::Accept::new(socket(&it.listener)?, nobody, no_length).flags(flags).build()
        }
        Operation::AcceptMany(it) => {
            opcode::AcceptMulti::new(socket(&it.listener)?).flags(flags).build()
        }
        Operation::Connect(connect) => {
            side.address = connect.address.encode().ok()?;
            let (address, length) = side.address.parts();
            opcode::Connect::new(socket(&connect.socket)?, address, length).build()
        }
        Operation::Shutdown(it) => {
            opcode::Shutdown::new(socket(&it.socket)?, it.direction.flag()).build()
        }
        Operation::Receive(it) => {
            let flags = it.flags();
            let memory = writable(&mut it.buffer, identity)?.part(it.start, it.length)?;
            let fd = socket(&it.socket)?;
            opcode::Recv::new(fd, memory.address, memory.length).flags(flags).build()
        }
        Operation::ReceiveMany(it) => {
            let group = Groups::of(&it.pool, identity.0)?;
            opcode::RecvMulti::new(socket(&it.socket)?, group).build()
        }
        Operation::ReceiveMessage(it) => {
            side.name(&mut it.buffers, |buffer| writable(buffer, identity))?;
            side.address_message();
            opcode::RecvMsg::new(socket(&it.socket)?, &raw mut side.message).build()
        }
        Operation::Send(it) => {
            let memory = readable(&mut it.buffer, identity)?.part(it.start, it.length)?;
            let fd = socket(&it.socket)?;
            opcode::Send::new(fd, memory.address, memory.length).flags(SEND_FLAGS).build()
        }
        Operation::SendMessage(it) => {
            side.name(&mut it.buffers, |buffer| readable(buffer, identity))?;
            side.skip(it.start as usize)?;
            side.address_message();
            let flags = SEND_FLAGS.cast_unsigned();
            let fd = socket(&it.socket)?;
            opcode::SendMsg::new(fd, &raw const side.message).flags(flags).build()
        }
        Operation::SendZeroCopy(it) => {
            let memory = readable(&mut it.buffer, identity)?.part(it.start, it.length)?;
            let fd = socket(&it.socket)?;
            if it.socket.zero_copy() != ZeroCopy::Possible {
                let entry = opcode::Send::new(fd, memory.address, memory.length);
                return Some(entry.flags(SEND_FLAGS).build());
            }
            opcode::SendZc::new(fd, memory.address, memory.length)
                .buf_index(memory.registered)
                .flags(SEND_FLAGS)
                .zc_flags(REPORT_USAGE)
                .build()
        }
        Operation::Poll(poll) => {
            let fd = Fd(poll.handle.shared().fd()?.as_raw_fd());
            opcode::PollAdd::new(fd, poll.events.bits()).build()
        }
        _ => return None,
    })
}

/// The entry that tells when an operation on sockets can go on; none if it never waits, or on no
/// descriptor of the kernel's.
pub(super) fn encode_poll(operation: &Operation, side: &mut Side, entry: &mut Entry) -> Option<()> {
    let (descriptor, events) = operation.readiness()?;
    // Nothing tells when a listener of this machine has room for one more to wait.
    if let Operation::Connect(Connect { address: Address::Unix(_), .. }) = operation {
        side.time = timespec(CONNECT_AGAIN_AFTER);
        *entry = opcode::Timeout::new(&raw const side.time).build();
        return Some(());
    }
    let fd = Fd(descriptor.fd()?.as_raw_fd());
    *entry = opcode::PollAdd::new(fd, events.bits()).build();
    Some(())
}

/// The memory of a buffer that the kernel writes to; none if others read it at the same time.
pub(super) fn writable(buffer: &mut Buffer, identity: ProcessorIdentity) -> Option<Memory> {
    match buffer {
        Buffer::Shared(_) => None,
        buffer => readable(buffer, identity),
    }
}

/// The memory of a buffer that the kernel reads; none if it has none of its own.
fn readable(buffer: &mut Buffer, identity: ProcessorIdentity) -> Option<Memory> {
    let registered = match buffer {
        Buffer::Lease(lease) => lease.registered(),
        Buffer::Vec(_) | Buffer::Shared(_) | Buffer::OfPreviousMember => None,
    };
    // Known to another ring is unknown here.
    let registered = registered.filter(|known| known.ring == identity.0).map(|known| known.index);
    let length = buffer.length();
    let address = match buffer {
        Buffer::OfPreviousMember => return None,
        Buffer::Shared(bytes) => bytes.as_ptr().cast_mut(),
        buffer => buffer.as_mut_slice()?.as_mut_ptr(),
    };
    Some(Memory { address, length, registered })
}

impl Memory {
    fn part(self, start: u32, length: u32) -> Option<Self> {
        let end = start.checked_add(length)?;
        let address = self.address.wrapping_add(start as usize);
        (end <= self.length).then_some(Self { address, length, ..self })
    }
}

/// The opcode for an operation, if there is one.
fn code(operation: &Operation) -> Option<u8> {
    Some(match operation {
        Operation::Nop => opcode::Nop::CODE,
        Operation::Timeout(_) => opcode::Timeout::CODE,
        Operation::LinkTimeout(_) => opcode::LinkTimeout::CODE,
        Operation::Read(_) => opcode::Read::CODE,
        Operation::Write(_) => opcode::Write::CODE,
        Operation::ReadVectored(_) => opcode::Readv::CODE,
        Operation::WriteVectored(_) => opcode::Writev::CODE,
        Operation::Sync(sync) if sync.reach != SyncReach::FileSystem => opcode::Fsync::CODE,
        Operation::Allocate(_) => opcode::Fallocate::CODE,
        Operation::Truncate(_) => opcode::Ftruncate::CODE,
        Operation::Advise(_) => opcode::Fadvise::CODE,
        Operation::Open(_) => opcode::OpenAt2::CODE,
        Operation::Close(_) => opcode::Close::CODE,
        Operation::Rename(_) => opcode::RenameAt::CODE,
        Operation::Unlink(_) => opcode::UnlinkAt::CODE,
        Operation::MakeDirectory(_) => opcode::MkDirAt::CODE,
        Operation::SymbolicLink(_) => opcode::SymlinkAt::CODE,
        Operation::Link(_) => opcode::LinkAt::CODE,
        Operation::Statx(_) => opcode::Statx::CODE,
        Operation::MakeSocket(_) => opcode::Socket::CODE,
        Operation::Accept(_) | Operation::AcceptMany(_) => opcode::Accept::CODE,
        // To a listener that has no room, the ring has a non-blocking socket not wait (EAGAIN).
        Operation::Connect(Connect { address: Address::Unix(_), .. }) => return None,
        Operation::Connect(_) => opcode::Connect::CODE,
        Operation::Shutdown(_) => opcode::Shutdown::CODE,
        Operation::Receive(_) | Operation::ReceiveMany(_) => opcode::Recv::CODE,
        Operation::ReceiveMessage(_) => opcode::RecvMsg::CODE,
        Operation::Send(_) => opcode::Send::CODE,
        Operation::SendMessage(_) => opcode::SendMsg::CODE,
        Operation::SendZeroCopy(it) if it.socket.zero_copy() == ZeroCopy::Possible => {
            opcode::SendZc::CODE
        }
        Operation::SendZeroCopy(_) => opcode::Send::CODE,
        Operation::Poll(_) => opcode::PollAdd::CODE,
        // Binding, listening and options do not wait: a call is as fast as an entry (and the first
        // two have opcodes since Linux 6.11 only).
        // The ring leaves extended attributes to threads, too (`io_uring/xattr.c`), and can't reach
        // those of a file that was opened with O_PATH.
        _ => return None,
    })
}

fn encode_open(open: &Open, side: &mut Side, identity: ProcessorIdentity) -> Option<Entry> {
    // A slot is not a descriptor: it is never inherited, and refuses the flag.
    let close_on_exec = if open.slot.is_none() { libc::O_CLOEXEC } else { 0 };
    let (flags, mode) = open_flags(open.flags | close_on_exec, open.mode);
    side.how = OpenHow::new()
        .flags(u64::from(flags.cast_unsigned()))
        .mode(mode.into())
        .resolve(open.resolve.bits());
    let (directory, name) = at(&open.place)?;
    let entry = opcode::OpenAt2::new(directory, name, &raw const side.how);
    let Some(slot) = &open.slot else { return Some(entry.build()) };
    let Target::Slot(slot) = target(&Handle::from(slot), identity)? else { return None };
    let slot = DestinationSlot::try_from_slot_target(slot).ok()?;
    Some(entry.file_index(Some(slot)).build())
}

fn encode_statx(statx: &Statx, side: &mut Side) -> Option<Entry> {
    let (directory, name, flags) = match &statx.subject {
        Subject::Place(place) => {
            let (directory, name) = at(place)?;
            (directory, name, status_flags(place.name.as_c_str(), statx.follow))
        }
        Subject::File(file) => (fd(file)?, c"".as_ptr(), status_flags(c"", statx.follow)),
    };
    let status = (&raw mut side.status).cast();
    Some(opcode::Statx::new(directory, name, status).flags(flags).mask(STATX_MASK).build())
}

fn target(handle: &Handle, identity: ProcessorIdentity) -> Option<Target> {
    match handle.descriptor() {
        Descriptor::Registered(slot) if slot.owner == identity => Some(Target::Slot(slot.index)),
        descriptor => descriptor.fd().map(|fd| Target::Fd(fd.as_raw_fd())),
    }
}

fn socket(socket: &Socket) -> Option<Fd> {
    socket.fd().ok().map(|fd| Fd(fd.as_raw_fd()))
}

fn fd(file: &File) -> Option<Fd> {
    file.fd().ok().map(|fd| Fd(fd.as_raw_fd()))
}

fn at(place: &Place) -> Option<(Fd, *const libc::c_char)> {
    let directory = match &place.directory {
        Some(directory) => fd(directory)?,
        None => Fd(libc::AT_FDCWD),
    };
    Some((directory, pointer(&place.name)))
}

/// An offset that a file may have, or [`CURRENT_POSITION`], which is the kernel's word for it, too.
fn offset(bytes: u64) -> Option<u64> {
    (bytes == CURRENT_POSITION || i64::try_from(bytes).is_ok()).then_some(bytes)
}

/// How data is moved by a handle (`readv(2)`).
fn flags(handle: &Handle) -> i32 {
    if handle.is_uncached() { libc::RWF_DONTCACHE } else { 0 }
}

fn timespec(duration: Duration) -> Timespec {
    // The kernel's seconds are signed.
    Timespec::from(duration.min(Duration::from_secs(i64::MAX.unsigned_abs())))
}

fn pointer(name: &Name) -> *const libc::c_char {
    name.as_c_str().as_ptr()
}

impl Side {
    /// Lists the memory of `buffers` in the side storage.
    fn name(
        &mut self,
        buffers: &mut [Buffer],
        mut memory: impl FnMut(&mut Buffer) -> Option<Memory>,
    ) -> Option<()> {
        self.vectors.clear();
        for buffer in buffers {
            let memory = memory(buffer)?;
            let iov_len = memory.length as usize;
            self.vectors.push(libc::iovec { iov_base: memory.address.cast(), iov_len });
        }
        Some(())
    }

    /// Makes the message one of the memory that is listed.
    fn address_message(&mut self) {
        self.message = header(self.vectors.as_mut_ptr(), self.vectors.len());
    }

    fn vectors(&self) -> Option<(*const libc::iovec, u32)> {
        Some((self.vectors.as_ptr(), u32::try_from(self.vectors.len()).ok()?))
    }
}
