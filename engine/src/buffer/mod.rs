//! Buffers: memory that an operation owns while the kernel uses it.

pub mod align;
mod arena;
mod pool;

use std::fmt;
use std::sync::Arc;

pub(crate) use arena::{Arena, Block};
pub(crate) use pool::Registered;
pub use pool::{BufferPool, Lease, ReceivePool};

/// Memory for an operation.
///
/// All three kinds lie on the heap or in an arena, so moving the buffer moves no byte.
pub enum Buffer {
    /// A block on loan from a pool.
    Lease(Lease),
    /// Bytes of the caller's.
    Vec(Vec<u8>),
    /// Bytes that several operations write from; nothing can be read into them.
    Shared(Arc<[u8]>),
    /// In a chain: what the member before has.
    OfPreviousMember,
}

impl Buffer {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Vec(Vec::new())
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Lease(lease) => lease,
            Self::Vec(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::OfPreviousMember => &[],
        }
    }

    /// The bytes for writing to; none if they are shared.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Lease(lease) => Some(lease),
            Self::Vec(bytes) => Some(bytes),
            Self::Shared(_) => None,
            Self::OfPreviousMember => Some(&mut []),
        }
    }

    /// How many bytes there are, cut to what one operation can move.
    #[must_use]
    pub fn length(&self) -> u32 {
        u32::try_from(self.as_slice().len()).unwrap_or(u32::MAX)
    }

    /// `length` bytes from `start`; none if they are not all there.
    #[must_use]
    pub fn part(&self, start: u32, length: u32) -> Option<&[u8]> {
        self.as_slice().get(start as usize..)?.get(..length as usize)
    }

    /// `length` bytes from `start` for writing to; none if they are not all there or shared.
    #[must_use]
    pub fn part_mut(&mut self, start: u32, length: u32) -> Option<&mut [u8]> {
        self.as_mut_slice()?.get_mut(start as usize..)?.get_mut(..length as usize)
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Vec(bytes)
    }
}

impl From<Lease> for Buffer {
    fn from(lease: Lease) -> Self {
        Self::Lease(lease)
    }
}

impl From<Arc<[u8]>> for Buffer {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Lease(_) => "Lease",
            Self::Vec(_) => "Vec",
            Self::Shared(_) => "Shared",
            Self::OfPreviousMember => "OfPreviousMember",
        };
        write!(f, "{kind}({} bytes)", self.as_slice().len())
    }
}
