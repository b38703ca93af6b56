//! Where a socket is to be found.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use nix::libc;

use crate::error::Errno;
use crate::operation::Name;
use crate::sys::socket::{Decoded, RawAddress};

/// What a socket is bound or connected to.
///
/// # Examples
///
/// ```
/// use ucp_engine::operation::Address;
///
/// let web: Address = "[::1]:8080".parse::<std::net::SocketAddr>()?.into();
/// let local = Address::unix("/run/service")?;
/// assert_eq!(format!("{web} and {local}"), "[::1]:8080 and /run/service");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// A host and a port. Bound to port 0, a socket gets a free one.
    Internet(SocketAddr),
    /// The path of a socket in a file system (`unix(7)`), at most 107 bytes.
    Unix(Name),
    /// A socket of a unix connection that has no name: that is so of who connects.
    Unnamed,
}

/// Which network a socket belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// TCP over IPv4.
    V4,
    /// TCP over IPv6.
    V6,
    /// Streams inside of one machine.
    Unix,
}

impl Address {
    /// The path of a socket in a file system.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is a NUL in it. A path that is too long is refused by who uses it
    /// (`ENAMETOOLONG`).
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, Errno> {
        Name::new(path.as_ref().as_os_str().as_encoded_bytes()).map(Self::Unix)
    }

    /// The network that it is of.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Internet(SocketAddr::V4(_)) => Family::V4,
            Self::Internet(SocketAddr::V6(_)) => Family::V6,
            Self::Unix(_) | Self::Unnamed => Family::Unix,
        }
    }

    /// The host and the port, if it is an internet address.
    #[must_use]
    pub const fn internet(&self) -> Option<SocketAddr> {
        match self {
            Self::Internet(address) => Some(*address),
            Self::Unix(_) | Self::Unnamed => None,
        }
    }

    /// Whether what is sent there never leaves the machine.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Internet(SocketAddr::V4(address)) => address.ip().is_loopback(),
            Self::Internet(SocketAddr::V6(address)) => address.ip().is_loopback(),
            Self::Unix(_) | Self::Unnamed => true,
        }
    }

    /// As the kernel takes it; `ENAMETOOLONG` or, for one without a name, `EINVAL`.
    pub(crate) fn encode(&self) -> Result<RawAddress, Errno> {
        match self {
            Self::Internet(address) => Ok(RawAddress::internet(address)),
            Self::Unix(path) => RawAddress::unix(path.as_c_str()),
            Self::Unnamed => Err(Errno::EINVAL),
        }
    }
}

impl TryFrom<Decoded> for Address {
    type Error = Errno;

    fn try_from(decoded: Decoded) -> Result<Self, Errno> {
        Ok(match decoded {
            Decoded::Internet(address) => Self::Internet(address),
            Decoded::Unix(path) if path.is_empty() => Self::Unnamed,
            Decoded::Unix(path) => Self::Unix(Name::new(path)?),
        })
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Internet(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet(address) => address.fmt(f),
            Self::Unix(path) => path.as_os_str().display().fmt(f),
            Self::Unnamed => f.write_str("(unnamed)"),
        }
    }
}

impl Family {
    pub(crate) const fn domain(self) -> libc::c_int {
        match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
            Self::Unix => libc::AF_UNIX,
        }
    }
}
