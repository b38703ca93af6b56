//! System calls on sockets. None of them waits: a descriptor that would have to is answered with
//! `EAGAIN`, save by [`connect`], which is left to the descriptor's own mode.

#![allow(unsafe_code, reason = "a home of unsafe: the system call boundary")]

use std::ffi::CStr;
use std::mem::{self, offset_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

/// An address as the kernel takes it and gives it.
#[derive(Clone, Copy)]
pub(crate) struct RawAddress {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

/// What a [`RawAddress`] says.
pub(crate) enum Decoded {
    Internet(SocketAddr),
    /// The path of a socket in a file system; empty if it has none.
    Unix(Vec<u8>),
}

/// Sends tell a broken connection by an errno only: a signal would end the program.
pub(crate) const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL;

const UNIX_PATH: usize = offset_of!(libc::sockaddr_un, sun_path);

impl RawAddress {
    /// No address, with room for any.
    pub(crate) fn empty() -> Self {
        // SAFETY: the structure is numbers only, and zeros are numbers.
        Self { storage: unsafe { mem::zeroed() }, length: 0 }
    }

    pub(crate) fn internet(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::of(libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => Self::of(libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo().to_be(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            }),
        }
    }

    /// A socket of this path; `ENAMETOOLONG` if the kernel has no room for it.
    pub(crate) fn unix(path: &CStr) -> Result<Self, Errno> {
        let bytes = path.to_bytes_with_nul();
        let mut address = libc::sockaddr_un { sun_family: family(libc::AF_UNIX), sun_path: [0; _] };
        let room = address.sun_path.get_mut(..bytes.len()).ok_or(Errno::ENAMETOOLONG)?;
        for (place, byte) in room.iter_mut().zip(bytes) {
            *place = byte.cast_signed();
        }
        let mut raw = Self::of(address);
        raw.length = length(UNIX_PATH + bytes.len());
        Ok(raw)
    }

    /// What the kernel takes: the address of a `sockaddr` and its length. Good while `self` stays.
    pub(crate) fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.storage).cast(), self.length)
    }

    pub(crate) fn decode(&self) -> Result<Decoded, Errno> {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                let raw: libc::sockaddr_in = self.read();
                let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
                let address = SocketAddrV4::new(ip, u16::from_be(raw.sin_port));
                Ok(Decoded::Internet(address.into()))
            }
            libc::AF_INET6 => {
                let raw: libc::sockaddr_in6 = self.read();
                let (ip, port) = (Ipv6Addr::from(raw.sin6_addr.s6_addr), raw.sin6_port);
                let flow = u32::from_be(raw.sin6_flowinfo);
                let address = SocketAddrV6::new(ip, u16::from_be(port), flow, raw.sin6_scope_id);
                Ok(Decoded::Internet(address.into()))
            }
            libc::AF_UNIX => {
                let raw: libc::sockaddr_un = self.read();
                let length = (self.length as usize).saturating_sub(UNIX_PATH);
                let path = raw.sun_path.iter().take(length).map(|byte| byte.cast_unsigned());
                Ok(Decoded::Unix(path.take_while(|byte| *byte != 0).collect()))
            }
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// One of the kernel's address structures, in room for any of them.
    fn of<T: Copy>(address: T) -> Self {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        const { assert!(align_of::<T>() <= align_of::<libc::sockaddr_storage>()) };
        let mut raw = Self::empty();
        // SAFETY: the storage is large enough and aligned, as asserted, and `raw` is ours alone.
        unsafe { (&raw mut raw.storage).cast::<T>().write(address) };
        raw.length = length(size_of::<T>());
        raw
    }

    fn read<T: Copy>(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        // SAFETY: the storage is as large and every byte of it is initialised; the structures that
        // are read are numbers only, so each content is one.
        unsafe { (&raw const self.storage).cast::<T>().read_unaligned() }
    }
}

/// Makes a stream socket that is closed on exec and does not wait.
pub(crate) fn socket(domain: libc::c_int) -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes numbers only.
    let fd = Errno::result(unsafe { libc::socket(domain, kind, 0) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn bind(fd: BorrowedFd<'_>, address: &RawAddress) -> Result<u32, Errno> {
    let (address, length) = address.parts();
    // SAFETY: the address is valid for its length during the call.
    done(unsafe { libc::bind(fd.as_raw_fd(), address, length) })
}

pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: u32) -> Result<u32, Errno> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: the call takes numbers only.
    done(unsafe { libc::listen(fd.as_raw_fd(), backlog) })
}

/// Takes a connection that waits; it is closed on exec and does not wait.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let (nobody, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: no address is asked for, so no memory is written to.
    let accepted = unsafe { libc::accept4(fd.as_raw_fd(), nobody, no_length, flags) };
    let accepted = Errno::result(accepted)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(accepted) })
}

pub(crate) fn connect(fd: BorrowedFd<'_>, address: &RawAddress) -> Result<u32, Errno> {
    let (address, length) = address.parts();
    // SAFETY: the address is valid for its length during the call.
    done(unsafe { libc::connect(fd.as_raw_fd(), address, length) })
}

pub(crate) fn shut_down(fd: BorrowedFd<'_>, how: libc::c_int) -> Result<u32, Errno> {
    // SAFETY: the call takes numbers only.
    done(unsafe { libc::shutdown(fd.as_raw_fd(), how) })
}

pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    bytes: &mut [u8],
    flags: libc::c_int,
) -> Result<u32, Errno> {
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: the bytes are valid for writing during the call.
    moved(unsafe { libc::recv(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags) })
}

pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<u32, Errno> {
    let flags = SEND_FLAGS | libc::MSG_DONTWAIT;
    // SAFETY: the bytes are valid for reading during the call.
    moved(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

pub(crate) fn receive_message(
    fd: BorrowedFd<'_>,
    parts: &mut [std::io::IoSliceMut<'_>],
) -> Result<u32, Errno> {
    let mut header = header(parts.as_mut_ptr().cast(), parts.len());
    // SAFETY: an `IoSliceMut` has the layout of an `iovec` (its documentation), and each is valid for
    // writing during the call; the header names nothing else.
    moved(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) })
}

pub(crate) fn send_message(
    fd: BorrowedFd<'_>,
    parts: &[std::io::IoSlice<'_>],
) -> Result<u32, Errno> {
    let header = header(parts.as_ptr().cast_mut().cast(), parts.len());
    let flags = SEND_FLAGS | libc::MSG_DONTWAIT;
    // SAFETY: an `IoSlice` has the layout of an `iovec` (its documentation), and each is valid for
    // reading during the call, which writes to none of it; the header names nothing else.
    moved(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags) })
}

/// A message without address and control data.
pub(crate) fn header(parts: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: the structure is numbers and pointers only, for which zeros are good.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = parts;
    header.msg_iovlen = count;
    header
}

/// The address that a socket has, or that its peer has.
pub(crate) fn address(fd: BorrowedFd<'_>, is_peer: bool) -> Result<Decoded, Errno> {
    let mut raw = RawAddress::empty();
    raw.length = length(size_of::<libc::sockaddr_storage>());
    let name = (&raw mut raw.storage).cast();
    // SAFETY: the storage is valid for writing for the length that is given.
    let result = unsafe {
        match is_peer {
            true => libc::getpeername(fd.as_raw_fd(), name, &raw mut raw.length),
            false => libc::getsockname(fd.as_raw_fd(), name, &raw mut raw.length),
        }
    };
    done(result)?;
    raw.decode()
}

pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    (level, name): (libc::c_int, libc::c_int),
    value: libc::c_int,
) -> Result<u32, Errno> {
    set_option_to(fd, (level, name), &value)
}

/// What happens to unsent bytes when the socket is closed (SO_LINGER, `socket(7)`).
pub(crate) fn set_linger(fd: BorrowedFd<'_>, linger: Option<Duration>) -> Result<u32, Errno> {
    let seconds = linger.map_or(0, |it| i32::try_from(it.as_secs()).unwrap_or(i32::MAX));
    let linger = libc::linger { l_onoff: linger.is_some().into(), l_linger: seconds };
    set_option_to(fd, (libc::SOL_SOCKET, libc::SO_LINGER), &linger)
}

fn set_option_to<T>(
    fd: BorrowedFd<'_>,
    (level, name): (libc::c_int, libc::c_int),
    value: &T,
) -> Result<u32, Errno> {
    let size = length(size_of::<T>());
    // SAFETY: the value is valid for reading for its size.
    done(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const *value).cast(), size) })
}

pub(crate) fn option(
    fd: BorrowedFd<'_>,
    (level, name): (libc::c_int, libc::c_int),
) -> Result<u32, Errno> {
    let mut value: libc::c_int = 0;
    let mut size = length(size_of::<libc::c_int>());
    let room = (&raw mut value).cast();
    // SAFETY: the value is valid for writing for the size that is given.
    done(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, room, &raw mut size) })?;
    Ok(value.cast_unsigned())
}

/// Which of these events a descriptor is ready for, after waiting for one if `waits`; 0 if none.
pub(crate) fn poll(fd: BorrowedFd<'_>, events: u32, waits: bool) -> Result<u32, Errno> {
    let events = i16::try_from(events).map_err(|_| Errno::EINVAL)?;
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    let timeout = if waits { -1 } else { 0 };
    // SAFETY: the entry is valid for reading and writing, and there is one.
    done(unsafe { libc::poll(&raw mut entry, 1, timeout) })?;
    if entry.revents & libc::POLLNVAL != 0 {
        return Err(Errno::EBADF);
    }
    Ok(u32::from(entry.revents.cast_unsigned()))
}

/// Has the calls on a descriptor that would wait answer `EAGAIN`.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the call takes numbers only.
    let flags = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_NONBLOCK != 0 {
        return Ok(());
    }
    // SAFETY: as above.
    let set = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) };
    Errno::result(set).map(drop)
}

fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).expect("families are small numbers")
}

fn length(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).expect("addresses and options are small")
}

fn done(result: libc::c_int) -> Result<u32, Errno> {
    Errno::result(result).map(|_| 0)
}

fn moved(result: libc::ssize_t) -> Result<u32, Errno> {
    Errno::result(result).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_it_was_made_of() {
        for text in ["127.0.0.1:80", "255.1.2.3:65535", "[::1]:1", "[fe80::1%7]:443"] {
            let address: SocketAddr = text.parse().unwrap();
            let Ok(Decoded::Internet(decoded)) = RawAddress::internet(&address).decode() else {
                panic!("{text} is an internet address")
            };
            assert_eq!(decoded, address, "{text}");
        }
        let Ok(Decoded::Unix(path)) = RawAddress::unix(c"/run/a").unwrap().decode() else {
            panic!("it is a path")
        };
        assert_eq!(path, b"/run/a");
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_refused() {
        let path = |length| std::ffi::CString::new(vec![b'a'; length]).unwrap();
        assert!(RawAddress::unix(&path(107)).is_ok());
        assert_eq!(RawAddress::unix(&path(108)).err(), Some(Errno::ENAMETOOLONG));
    }
}
