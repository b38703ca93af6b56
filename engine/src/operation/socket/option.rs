//! Operations that set and ask for options of sockets.

use std::time::Duration;

use nix::libc;

use crate::operation::Socket;

/// Sets an option of a socket (`setsockopt(2)`).
#[derive(Debug)]
pub struct SetSocketOption {
    /// The socket.
    pub socket: Socket,
    /// The option and its value.
    pub option: SocketOption,
}

/// Asks for an option of a socket (`getsockopt(2)`). The result is its value.
#[derive(Debug)]
pub struct GetSocketOption {
    /// The socket.
    pub socket: Socket,
    /// Which option.
    pub option: SocketOptionName,
}

/// What can be set of a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SocketOption {
    /// Whether small pieces are sent at once, and not gathered until the peer has acknowledged those
    /// before (TCP_NODELAY). For dialogues.
    NoDelay(bool),
    /// Whether an address can be bound although connections of an earlier program linger on it
    /// (SO_REUSEADDR). For listeners; before [`super::Bind`].
    ReuseAddress(bool),
    /// Whether several listeners of one user share an address, and the kernel shares the connections
    /// out (SO_REUSEPORT). Before [`super::Bind`].
    ReusePort(bool),
    /// Whether a listener on an IPv6 address refuses IPv4 (IPV6_V6ONLY). Before [`super::Bind`].
    V6Only(bool),
    /// Whether a peer that is silent is asked now and then whether it is there (SO_KEEPALIVE).
    KeepAlive(bool),
    /// How many bytes wait to be received at the most. The kernel doubles it for its own needs and
    /// cuts it to `net.core.rmem_max` (SO_RCVBUF).
    ReceiveBufferBytes(u32),
    /// How many bytes wait to be sent at the most, likewise (SO_SNDBUF).
    SendBufferBytes(u32),
    /// How long unsent bytes are sent for after the socket was closed; no time at all breaks the
    /// connection off, and the peer sees a reset (SO_LINGER). None is the default: in the background.
    Linger(Option<Duration>),
}

/// What can be asked of a socket.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum SocketOptionName {
    /// 1 if small pieces are sent at once.
    NoDelay,
    /// 1 if an address can be bound although connections linger on it.
    ReuseAddress,
    /// 1 if several listeners share the address.
    ReusePort,
    /// 1 if IPv4 is refused.
    V6Only,
    /// 1 if silent peers are asked.
    KeepAlive,
    /// Bytes that wait to be received at the most, the kernel's own needs included.
    ReceiveBufferBytes,
    /// Bytes that wait to be sent at the most, the kernel's own needs included.
    SendBufferBytes,
    /// The errno of what went wrong since this was asked, or 0; asking clears it (SO_ERROR).
    Error,
}

impl SocketOption {
    /// Which option it is; none if it can't be asked for.
    #[must_use]
    pub const fn name(self) -> Option<SocketOptionName> {
        use SocketOptionName as Name;

        Some(match self {
            Self::NoDelay(_) => Name::NoDelay,
            Self::ReuseAddress(_) => Name::ReuseAddress,
            Self::ReusePort(_) => Name::ReusePort,
            Self::V6Only(_) => Name::V6Only,
            Self::KeepAlive(_) => Name::KeepAlive,
            Self::ReceiveBufferBytes(_) => Name::ReceiveBufferBytes,
            Self::SendBufferBytes(_) => Name::SendBufferBytes,
            Self::Linger(_) => return None,
        })
    }

    /// The value as the kernel takes it; none if it is not a number.
    pub(crate) fn value(self) -> Option<i32> {
        match self {
            Self::NoDelay(is_set)
            | Self::ReuseAddress(is_set)
            | Self::ReusePort(is_set)
            | Self::V6Only(is_set)
            | Self::KeepAlive(is_set) => Some(is_set.into()),
            Self::ReceiveBufferBytes(bytes) | Self::SendBufferBytes(bytes) => {
                Some(i32::try_from(bytes).unwrap_or(i32::MAX))
            }
            Self::Linger(_) => None,
        }
    }
}

impl SocketOptionName {
    /// The kernel's level and name for it.
    pub(crate) const fn numbers(self) -> (libc::c_int, libc::c_int) {
        match self {
            Self::NoDelay => (libc::IPPROTO_TCP, libc::TCP_NODELAY),
            Self::ReuseAddress => (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            Self::ReusePort => (libc::SOL_SOCKET, libc::SO_REUSEPORT),
            Self::V6Only => (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
            Self::KeepAlive => (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            Self::ReceiveBufferBytes => (libc::SOL_SOCKET, libc::SO_RCVBUF),
            Self::SendBufferBytes => (libc::SOL_SOCKET, libc::SO_SNDBUF),
            Self::Error => (libc::SOL_SOCKET, libc::SO_ERROR),
        }
    }
}
