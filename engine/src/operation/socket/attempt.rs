//! Performs an operation on a socket with system calls, without waiting.
//!
//! The thread processor's knowledge of sockets, and the kernel processor's for what its kernel has no
//! opcode for.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::*;
use crate::buffer::{Buffer, Lease};
use crate::error::Errno;
use crate::operation::{Descriptor, Operation, Part, Socket};
use crate::sys::socket as call;

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The operation has ended.
    Ended(Result<u32, Errno>),
    /// Something came of an operation that goes on.
    Part(u32, Part),
    /// It would have to wait until its socket is ready.
    Blocked,
    /// It would have to wait until a buffer of its pool is free.
    Starved,
}

/// Attempts an operation on sockets; what it brings is put into it.
///
/// # Panics
///
/// If it is no operation on sockets.
pub(crate) fn attempt(operation: &mut Operation) -> Attempt {
    let result = match operation {
        Operation::AcceptMany(accept) => match accept_part(accept) {
            Ok(part) => return Attempt::Part(0, part),
            Err(errno) => Err(errno),
        },
        Operation::ReceiveMany(receive) => {
            let Some(lease) = receive.pool.take() else { return Attempt::Starved };
            match receive_part(receive, lease) {
                Ok((length @ 1.., part)) => return Attempt::Part(length, part),
                Ok(_) => Ok(0),
                Err(errno) => Err(errno),
            }
        }
        operation => attempt_once(operation),
    };
    match result {
        Err(Errno::EAGAIN) => Attempt::Blocked,
        result => Attempt::Ended(result),
    }
}

/// Performs an operation on sockets and waits for it, on a thread that has nothing else to do.
pub(crate) fn perform_waiting(operation: &mut Operation) -> Result<u32, Errno> {
    loop {
        match attempt(operation) {
            Attempt::Ended(result) => return result,
            Attempt::Blocked => {}
            // Who performs an operation to its end has nobody to give the parts of one to.
            Attempt::Part(..) | Attempt::Starved => return Err(Errno::EINVAL),
        }
        let (descriptor, events) = operation.readiness().ok_or(Errno::EINVAL)?;
        call::poll(descriptor.fd().ok_or(Errno::EBADF)?, events.bits(), true)?;
    }
}

fn attempt_once(operation: &mut Operation) -> Result<u32, Errno> {
    match operation {
        Operation::MakeSocket(make) => {
            make.socket = Some(Socket::nonblocking(call::socket(make.family.domain())?));
            Ok(0)
        }
        Operation::Bind(bind) => call::bind(bind.socket.fd()?, &bind.address.encode()?),
        Operation::Listen(listen) => call::listen(listen.socket.fd()?, listen.backlog),
        Operation::Accept(it) => {
            it.socket = Some(Socket::nonblocking(call::accept(ready_fd(&it.listener)?)?));
            Ok(0)
        }
        Operation::Connect(connect) => attempt_connect(connect),
        Operation::Shutdown(it) => call::shut_down(it.socket.fd()?, it.direction.flag()),
        Operation::SocketAddress(it) => {
            let address = call::address(it.socket.fd()?, it.whose == Whose::Peer)?;
            it.address = Some(address.try_into()?);
            Ok(0)
        }

        Operation::Receive(it) => {
            let flags = it.flags();
            let bytes = it.buffer.part_mut(it.start, it.length).ok_or(Errno::EINVAL)?;
            call::receive(it.socket.fd()?, bytes, flags)
        }
        Operation::ReceiveMessage(it) => {
            let mut parts = Vec::with_capacity(it.buffers.len());
            for buffer in &mut it.buffers {
                parts.push(IoSliceMut::new(buffer.as_mut_slice().ok_or(Errno::EINVAL)?));
            }
            call::receive_message(it.socket.fd()?, &mut parts)
        }
        Operation::Send(it) => send(&it.socket, &it.buffer, it.start, it.length),
        Operation::SendZeroCopy(it) => send(&it.socket, &it.buffer, it.start, it.length),
        Operation::SendMessage(it) => {
            let mut parts: Vec<_> =
                it.buffers.iter().map(|buffer| IoSlice::new(buffer.as_slice())).collect();
            let length: usize = parts.iter().map(|part| part.len()).sum();
            let start = it.start as usize;
            if start > length {
                return Err(Errno::EINVAL);
            }
            let mut parts = parts.as_mut_slice();
            IoSlice::advance_slices(&mut parts, start);
            call::send_message(it.socket.fd()?, parts)
        }

        Operation::SetSocketOption(SetSocketOption { socket, option }) => {
            match (option.name(), option.value(), *option) {
                (Some(name), Some(value), _) => {
                    call::set_option(socket.fd()?, name.numbers(), value)
                }
                (_, _, SocketOption::Linger(linger)) => call::set_linger(socket.fd()?, linger),
                _ => Err(Errno::ENOPROTOOPT),
            }
        }
        Operation::GetSocketOption(it) => call::option(it.socket.fd()?, it.option.numbers()),
        Operation::Poll(poll) => {
            let fd = poll.handle.shared().fd().ok_or(Errno::EBADF)?;
            match call::poll(fd, poll.events.bits(), false)? {
                0 => Err(Errno::EAGAIN),
                events => Ok(events),
            }
        }
        other => unreachable!("{} is nothing to do with a socket", other.verb()),
    }
}

fn send(socket: &Socket, buffer: &Buffer, start: u32, length: u32) -> Result<u32, Errno> {
    call::send(socket.fd()?, buffer.part(start, length).ok_or(Errno::EINVAL)?)
}

/// Asked once more when it could go on, a connect tells what became of it (`inet_stream_connect` of
/// the kernel): 0, or why not.
fn attempt_connect(connect: &Connect) -> Result<u32, Errno> {
    match call::connect(ready_fd(&connect.socket)?, &connect.address.encode()?) {
        Err(Errno::EINPROGRESS | Errno::EALREADY) => Err(Errno::EAGAIN),
        result => result,
    }
}

fn accept_part(accept: &AcceptMany) -> Result<Part, Errno> {
    loop {
        match call::accept(ready_fd(&accept.listener)?) {
            Ok(fd) => return Ok(Part::Socket(Socket::nonblocking(fd))),
            // The next one may be well.
            Err(Errno::ECONNABORTED) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn receive_part(receive: &ReceiveMany, mut lease: Lease) -> Result<(u32, Part), Errno> {
    let length = call::receive(receive.socket.fd()?, &mut lease, 0)?;
    Ok((length, Part::Bytes(lease.cut_to(length))))
}

/// The descriptor of a socket on which no call waits: some calls have no flag for it.
fn ready_fd(socket: &Socket) -> Result<BorrowedFd<'_>, Errno> {
    let fd = socket.fd()?;
    if !socket.is_nonblocking() {
        call::set_nonblocking(fd)?;
        socket.note_nonblocking();
    }
    Ok(fd)
}

impl Operation {
    /// Whether it is one of this family.
    pub(crate) const fn is_of_sockets(&self) -> bool {
        matches!(
            self,
            Self::MakeSocket(_)
                | Self::Bind(_)
                | Self::Listen(_)
                | Self::Accept(_)
                | Self::AcceptMany(_)
                | Self::Connect(_)
                | Self::Shutdown(_)
                | Self::SocketAddress(_)
                | Self::Receive(_)
                | Self::ReceiveMany(_)
                | Self::ReceiveMessage(_)
                | Self::Send(_)
                | Self::SendMessage(_)
                | Self::SendZeroCopy(_)
                | Self::SetSocketOption(_)
                | Self::GetSocketOption(_)
                | Self::Poll(_)
        )
    }

    /// Whether it completes many times.
    pub(crate) const fn is_multishot(&self) -> bool {
        matches!(self, Self::AcceptMany(_) | Self::ReceiveMany(_))
    }

    /// What has to become ready for an operation on sockets, and for what; none if it never waits.
    pub(crate) fn readiness(&self) -> Option<(&Arc<Descriptor>, PollEvents)> {
        Some(match self {
            Self::Accept(it) => (it.listener.shared(), PollEvents::READABLE),
            Self::AcceptMany(it) => (it.listener.shared(), PollEvents::READABLE),
            Self::Receive(it) => (it.socket.shared(), PollEvents::READABLE),
            Self::ReceiveMany(it) => (it.socket.shared(), PollEvents::READABLE),
            Self::ReceiveMessage(it) => (it.socket.shared(), PollEvents::READABLE),
            Self::Connect(it) => (it.socket.shared(), PollEvents::WRITABLE),
            Self::Send(it) => (it.socket.shared(), PollEvents::WRITABLE),
            Self::SendMessage(it) => (it.socket.shared(), PollEvents::WRITABLE),
            Self::SendZeroCopy(it) => (it.socket.shared(), PollEvents::WRITABLE),
            Self::Poll(it) => (it.handle.shared(), it.events),
            _ => return None,
        })
    }
}
