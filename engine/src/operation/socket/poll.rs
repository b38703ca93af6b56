//! Waiting until something could be done, without doing it.

use std::ops::BitOr;

use nix::libc;

use crate::operation::{File, Handle, Socket};

/// Waits until a socket or a file is ready (`poll(2)`). The result is what for, as
/// [`PollEvents::from_bits`] reads it; errors and hang-ups are always told.
///
/// For descriptors that other code reads and writes: a library's connection, an eventfd. Regular
/// files are always ready.
#[derive(Debug)]
pub struct Poll {
    /// The socket or the file.
    pub handle: Handle,
    /// What to wait for: any of it.
    pub events: PollEvents,
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PollEvents(u32);

impl Poll {
    /// Waits for a socket.
    #[must_use]
    pub fn socket(socket: &Socket, events: PollEvents) -> Self {
        Self { handle: Handle::of_socket(socket.clone()), events }
    }

    /// Waits for a file: a pipe, an eventfd.
    #[must_use]
    pub fn file(file: &File, events: PollEvents) -> Self {
        Self { handle: file.into(), events }
    }
}

impl PollEvents {
    /// There is something to read or to accept, or the end of the stream (POLLIN).
    pub const READABLE: Self = Self(events(libc::POLLIN));
    /// There is room to write, or the connect has ended (POLLOUT).
    pub const WRITABLE: Self = Self(events(libc::POLLOUT));
    /// Something went wrong (POLLERR). Always told.
    pub const ERROR: Self = Self(events(libc::POLLERR));
    /// The other end is closed, or both directions are shut down (POLLHUP). Always told.
    pub const HANG_UP: Self = Self(events(libc::POLLHUP));

    /// The events of a result of [`Poll`].
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The numbers of `poll(2)`.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in it.
    #[must_use]
    pub(crate) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for PollEvents {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[expect(clippy::cast_sign_loss, reason = "the bits are small and positive")]
const fn events(bits: libc::c_short) -> u32 {
    bits as u32
}
