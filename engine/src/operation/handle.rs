//! Handles: counted owners of what the kernel calls a descriptor.
//!
//! An operation holds a clone of its handle until it ends, so a descriptor is closed only when
//! nothing is in flight on it: closing a descriptor does not cancel what io_uring does with it
//! (`io_uring_cancelation(7)`).

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Errno;

/// An open file, directory or device. Clones share it; the last one closes it.
#[derive(Clone, Debug)]
pub struct File(Arc<Descriptor>);

/// A file in a ring's table of registered files. It moves data only: there is no `statx` and no
/// `fsetxattr` on a slot of the table. The last clone gives the slot back.
#[derive(Clone, Debug)]
pub struct RegisteredFile(Arc<Descriptor>);

/// A socket: one that listens, or one end of a connection. Clones share it; the last one closes it.
///
/// An operation in flight has a clone.
#[derive(Clone, Debug)]
pub struct Socket(Arc<Descriptor>);

/// What data is moved through: a file or a registered file.
#[derive(Clone, Debug)]
pub struct Handle {
    descriptor: Arc<Descriptor>,
    is_uncached: bool,
}

/// What a handle owns.
#[derive(Debug)]
pub(crate) enum Descriptor {
    Kernel(OwnedFd),
    Socket(SocketDescriptor),
    Registered(Registration),
    Simulated(SimulatedDescriptor),
}

/// A socket of the kernel's, and what is known of it.
#[derive(Debug)]
pub(crate) struct SocketDescriptor {
    pub(crate) fd: OwnedFd,
    is_nonblocking: AtomicBool,
    zero_copy: AtomicU8,
}

/// Whether a send on a socket leaves its bytes where they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ZeroCopy {
    /// Nobody has looked.
    Unknown,
    /// It may.
    Possible,
    /// They are copied.
    Copied,
}

/// A slot of a processor's table of registered files.
pub(crate) struct Registration {
    /// Whose table: a slot means nothing to another processor.
    pub(crate) owner: ProcessorIdentity,
    pub(crate) index: u32,
    /// What the slot refers to where the table is emulated; none in a table of the kernel's.
    pub(crate) file: Mutex<Option<File>>,
    pub(crate) released: Released,
}

/// A descriptor of the simulated processor.
#[derive(Debug)]
pub(crate) struct SimulatedDescriptor {
    pub(crate) number: u32,
    pub(crate) released: Released,
}

/// Tells processors apart, so that what is registered with one is never used as registered with
/// another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ProcessorIdentity(pub(crate) u64);

/// Numbers that were given back by the last owner, to be reused by the processor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Released(Arc<Mutex<Vec<u32>>>);

impl File {
    /// Owns a descriptor of the kernel's.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(Arc::new(Descriptor::Kernel(fd)))
    }

    pub(crate) fn simulated(number: u32, released: Released) -> Self {
        Self(Arc::new(Descriptor::Simulated(SimulatedDescriptor { number, released })))
    }

    /// The kernel's descriptor, for calls that the engine does not make.
    ///
    /// # Errors
    ///
    /// `EBADF` if the file is simulated.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.0.fd().ok_or(Errno::EBADF)
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.0
    }
}

impl Socket {
    /// Owns a socket of the kernel's: a `TcpListener`, a `UnixStream` …
    ///
    /// A processor without a ring makes it non-blocking (O_NONBLOCK), for all who have it.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self::of(fd, false)
    }

    /// Owns a socket that was made non-blocking.
    pub(crate) fn nonblocking(fd: OwnedFd) -> Self {
        Self::of(fd, true)
    }

    fn of(fd: OwnedFd, is_nonblocking: bool) -> Self {
        Self(Arc::new(Descriptor::Socket(SocketDescriptor {
            fd,
            is_nonblocking: is_nonblocking.into(),
            zero_copy: AtomicU8::new(ZeroCopy::Unknown as u8),
        })))
    }

    pub(crate) fn simulated(number: u32, released: Released) -> Self {
        Self(Arc::new(Descriptor::Simulated(SimulatedDescriptor { number, released })))
    }

    /// The kernel's descriptor, for calls that the engine does not make.
    ///
    /// # Errors
    ///
    /// `EBADF` if the socket is simulated.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.0.fd().ok_or(Errno::EBADF)
    }

    pub(crate) fn shared(&self) -> &Arc<Descriptor> {
        &self.0
    }

    /// Whether it is known that no call on it waits.
    pub(crate) fn is_nonblocking(&self) -> bool {
        self.known().is_some_and(|known| known.is_nonblocking.load(Ordering::Relaxed))
    }

    pub(crate) fn note_nonblocking(&self) {
        if let Some(known) = self.known() {
            known.is_nonblocking.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn zero_copy(&self) -> ZeroCopy {
        let known = self.known().map(|known| known.zero_copy.load(Ordering::Relaxed));
        [ZeroCopy::Unknown, ZeroCopy::Possible]
            .into_iter()
            .find(|it| known == Some(*it as u8))
            .unwrap_or(ZeroCopy::Copied)
    }

    pub(crate) fn note_zero_copy(&self, zero_copy: ZeroCopy) {
        if let Some(known) = self.known() {
            known.zero_copy.store(zero_copy as u8, Ordering::Relaxed);
        }
    }

    fn known(&self) -> Option<&SocketDescriptor> {
        match &*self.0 {
            Descriptor::Socket(known) => Some(known),
            _ => None,
        }
    }
}

impl Descriptor {
    /// The kernel's descriptor, if it is one.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Kernel(fd) | Self::Socket(SocketDescriptor { fd, .. }) => Some(fd.as_fd()),
            Self::Registered(_) | Self::Simulated(_) => None,
        }
    }

    /// The kernel's descriptor itself, if it is one.
    pub(crate) fn into_fd(self) -> Option<OwnedFd> {
        match self {
            Self::Kernel(fd) | Self::Socket(SocketDescriptor { fd, .. }) => Some(fd),
            Self::Registered(_) | Self::Simulated(_) => None,
        }
    }
}

impl RegisteredFile {
    pub(crate) fn new(
        owner: ProcessorIdentity,
        index: u32,
        file: Option<File>,
        released: Released,
    ) -> Self {
        let file = Mutex::new(file);
        Self(Arc::new(Descriptor::Registered(Registration { owner, index, file, released })))
    }

    pub(crate) fn registration(&self) -> &Registration {
        match &*self.0 {
            Descriptor::Registered(registration) => registration,
            _ => unreachable!("a registered file is made from a registration only"),
        }
    }
}

impl Handle {
    /// The same file, through the page cache but without leaving anything there: pages that are made
    /// for what is moved by this handle go when it was read, or has reached the device. Pages that
    /// were there before stay, and are used.
    ///
    /// `EOPNOTSUPP` where the kernel or the file system can't do that.
    ///
    /// # Source
    ///
    /// `readv(2)`, `RWF_DONTCACHE`, Linux 6.14. It is a hint: a page that another uses meanwhile stays.
    #[must_use]
    pub fn uncached(self) -> Self {
        Self { is_uncached: true, ..self }
    }

    /// Whether what it moves leaves nothing in the page cache.
    #[must_use]
    pub fn is_uncached(&self) -> bool {
        self.is_uncached
    }

    /// A socket, to be closed or watched. Not for everybody: data is moved by operations of its own,
    /// which wait where reading a file would not.
    pub(crate) fn of_socket(socket: Socket) -> Self {
        Self { descriptor: socket.0, is_uncached: false }
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Calls `act` with the kernel's descriptor, looked up if the handle is a slot of an emulated
    /// table.
    pub(crate) fn with_fd<T>(
        &self,
        act: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match &*self.descriptor {
            Descriptor::Registered(slot) => act(slot.file().ok_or(Errno::EBADF)?.fd()?),
            descriptor => act(descriptor.fd().ok_or(Errno::EBADF)?),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// Whether nobody else has the descriptor; then nobody else can come by it, either.
    pub(crate) fn is_only_owner(&self) -> bool {
        Arc::strong_count(&self.descriptor) == 1
    }

    /// The descriptor itself, if this is its only owner.
    pub(crate) fn into_descriptor(self) -> Option<Descriptor> {
        Arc::into_inner(self.descriptor)
    }
}

impl Registration {
    /// What an emulated slot refers to.
    pub(crate) fn file(&self) -> Option<File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes an emulated slot refer to `file`, or to nothing; returns what it referred to.
    pub(crate) fn replace(&self, file: Option<File>) -> Option<File> {
        std::mem::replace(&mut self.file.lock().unwrap_or_else(PoisonError::into_inner), file)
    }
}

impl From<File> for Handle {
    fn from(file: File) -> Self {
        Self { descriptor: file.0, is_uncached: false }
    }
}

impl From<&File> for Handle {
    fn from(file: &File) -> Self {
        file.clone().into()
    }
}

impl From<&RegisteredFile> for Handle {
    fn from(file: &RegisteredFile) -> Self {
        Self { descriptor: Arc::clone(&file.0), is_uncached: false }
    }
}

impl ProcessorIdentity {
    /// One that no other processor of the program has.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Released {
    pub(crate) fn take(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, number: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.released.put(self.index);
    }
}

impl Drop for SimulatedDescriptor {
    fn drop(&mut self) {
        self.released.put(self.number);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({})", self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_clone_gives_the_number_back() {
        let released = Released::default();
        let file = File::simulated(7, released.clone());
        let handle = Handle::from(&file);
        drop(file);
        assert_eq!(released.take(), Vec::<u32>::new());
        drop(handle);
        assert_eq!(released.take(), [7]);
    }
}
