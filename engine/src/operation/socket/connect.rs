//! Operations that make, connect and end sockets.

use nix::libc;

use super::{Address, Family};
use crate::operation::Socket;

/// Makes a stream socket (`socket(2)`); it is closed on exec.
#[derive(Debug)]
pub struct MakeSocket {
    /// The network that it belongs to.
    pub family: Family,
    /// The socket, once the operation succeeded.
    pub socket: Option<Socket>,
}

/// Gives a socket an address of its own (`bind(2)`). `EADDRINUSE` if another has it; `EINVAL` if
/// the socket has one.
#[derive(Debug)]
pub struct Bind {
    /// The socket.
    pub socket: Socket,
    /// The address; port 0 is any free one. A path is made in the file system and stays there.
    pub address: Address,
}

/// Has a socket wait for connections (`listen(2)`).
#[derive(Debug)]
pub struct Listen {
    /// The socket.
    pub socket: Socket,
    /// How many connections may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
    pub backlog: u32,
}

/// Waits for a connection, and takes it (`accept4(2)`).
#[derive(Debug)]
pub struct Accept {
    /// A socket that listens.
    pub listener: Socket,
    /// The connection, once the operation succeeded.
    pub socket: Option<Socket>,
}

/// Takes connections until it is cancelled or fails: one event for each, with [`super::super::Part`]
/// holding the socket. (IORING_ACCEPT_MULTISHOT, Linux 5.19.)
///
/// `EMFILE` ends it: the engine does not guess whether descriptors will be free again. A connection
/// that was aborted before it was taken (`ECONNABORTED`) does not.
#[derive(Debug)]
pub struct AcceptMany {
    /// A socket that listens.
    pub listener: Socket,
}

/// Connects a socket (`connect(2)`). `ECONNREFUSED` if nobody listens there; `EISCONN` if the socket
/// is connected; `ETIMEDOUT` after some two minutes without an answer: use a timeout.
///
/// A socket whose connect has failed or was cancelled is of no use any more: make another one.
#[derive(Debug)]
pub struct Connect {
    /// The socket.
    pub socket: Socket,
    /// Who listens.
    pub address: Address,
}

/// Ends a connection's traffic in one direction or both, for all who have the socket
/// (`shutdown(2)`). `ENOTCONN` if it is not connected.
#[derive(Debug)]
pub struct Shutdown {
    /// The socket.
    pub socket: Socket,
    /// Which direction.
    pub direction: Direction,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// From the peer: receiving tells the end of the stream from now on.
    Receiving,
    /// To the peer, who will see the end of the stream behind what was sent.
    Sending,
    /// Both.
    Both,
}

/// Asks for the address of a socket or of its peer (`getsockname(2)`, `getpeername(2)`). `ENOTCONN` if
/// there is no peer.
#[derive(Debug)]
pub struct SocketAddress {
    /// The socket.
    pub socket: Socket,
    /// Whose address.
    pub whose: Whose,
    /// The address, once the operation succeeded.
    pub address: Option<Address>,
}

/// Whose address is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whose {
    /// The socket's own.
    Own,
    /// The other end's.
    Peer,
}

impl Direction {
    pub(crate) const fn flag(self) -> libc::c_int {
        match self {
            Self::Receiving => libc::SHUT_RD,
            Self::Sending => libc::SHUT_WR,
            Self::Both => libc::SHUT_RDWR,
        }
    }
}
