//! Operations that move bytes over a connection.

use nix::libc;

use crate::buffer::{Buffer, ReceivePool};
use crate::operation::Socket;

/// Receives what has come, or waits for something (`recv(2)`). The result is the number of bytes, at
/// least 1; 0 is the end of the stream. `ECONNRESET` if the peer broke it off.
#[derive(Debug)]
pub struct Receive {
    /// The socket.
    pub socket: Socket,
    /// Where the bytes go.
    pub buffer: Buffer,
    /// The first byte of the buffer to fill.
    pub start: u32,
    /// How many bytes to receive at the most.
    pub length: u32,
    /// Whether the bytes stay to be received once more (MSG_PEEK).
    pub is_peek: bool,
}

/// Receives until it is cancelled, fails, or the stream ends: one event for each piece, with
/// [`super::super::Part`] holding the bytes in a buffer of the pool.
///
/// A buffer is taken when there is something to put into it, so that idle connections have none. With
/// all buffers on loan, bytes stay in the kernel, and the peer has to wait; dropping a buffer goes on.
/// (IORING_RECV_MULTISHOT, Linux 6.0, with a ring of provided buffers.)
#[derive(Debug)]
pub struct ReceiveMany {
    /// The socket.
    pub socket: Socket,
    /// Where the buffers come from; best one of the same processor.
    pub pool: ReceivePool,
}

/// Receives into several buffers, each filled before the next (`recvmsg(2)`). The result is as that
/// of [`Receive`].
#[derive(Debug)]
pub struct ReceiveMessage {
    /// The socket.
    pub socket: Socket,
    /// Where the bytes go: each buffer whole.
    pub buffers: Vec<Buffer>,
}

/// Sends part of a buffer (`send(2)`). The result is the number of bytes that the kernel took, which
/// may be less than asked for: nothing is said of what the peer received. `EPIPE` if nothing can be
/// sent any more.
#[derive(Debug)]
pub struct Send {
    /// The socket.
    pub socket: Socket,
    /// Where the bytes come from.
    pub buffer: Buffer,
    /// The first byte of the buffer to send.
    pub start: u32,
    /// How many bytes to send at the most.
    pub length: u32,
}

/// Sends several buffers, one after the other (`sendmsg(2)`). The result is as that of [`Send`].
#[derive(Debug)]
pub struct SendMessage {
    /// The socket.
    pub socket: Socket,
    /// Where the bytes come from: each buffer whole.
    pub buffers: Vec<Buffer>,
    /// How many bytes of all the buffers together to leave out: they were sent before.
    pub start: u32,
}

/// Sends part of a buffer, and lets the network device read it where it lies: for pieces of some
/// 16 KiB and more that leave the machine. (IORING_OP_SEND_ZC, Linux 6.0.)
///
/// The buffer comes back once the kernel has done with it, which may be when the peer has
/// acknowledged the bytes. Until then there is one more event, [`super::super::End::More`] with
/// the same result, as soon as the kernel took them: the next send may follow.
///
/// Where the kernel would copy all the same (to this machine; where it has said so of an earlier
/// send on the socket; without the opcode; without io_uring), this is a [`Send`], and has one event.
#[derive(Debug)]
pub struct SendZeroCopy {
    /// The socket.
    pub socket: Socket,
    /// Where the bytes come from.
    pub buffer: Buffer,
    /// The first byte of the buffer to send.
    pub start: u32,
    /// How many bytes to send at the most.
    pub length: u32,
}

impl Receive {
    /// Receives into a whole buffer.
    #[must_use]
    pub fn new(socket: &Socket, buffer: impl Into<Buffer>) -> Self {
        let buffer = buffer.into();
        let length = buffer.length();
        Self { socket: socket.clone(), buffer, start: 0, length, is_peek: false }
    }

    pub(crate) const fn flags(&self) -> libc::c_int {
        if self.is_peek { libc::MSG_PEEK } else { 0 }
    }
}

impl Send {
    /// Sends a whole buffer.
    #[must_use]
    pub fn new(socket: &Socket, buffer: impl Into<Buffer>) -> Self {
        let buffer = buffer.into();
        let length = buffer.length();
        Self { socket: socket.clone(), buffer, start: 0, length }
    }
}

impl SendZeroCopy {
    /// Sends a whole buffer.
    #[must_use]
    pub fn new(socket: &Socket, buffer: impl Into<Buffer>) -> Self {
        let buffer = buffer.into();
        let length = buffer.length();
        Self { socket: socket.clone(), buffer, start: 0, length }
    }
}
