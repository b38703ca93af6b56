//! Operations on names: what makes, finds, moves and removes them.

use std::ops::BitOr;

use nix::libc;

use super::{File, Handle, Name, Place, RegisteredFile, Socket};
use crate::buffer::Buffer;

/// Opens a file, and makes it where asked (`openat2(2)`, Linux 5.6).
///
/// The descriptor is always closed on exec and never becomes the controlling terminal.
#[derive(Debug)]
pub struct Open {
    /// The file's name.
    pub place: Place,
    /// How it is opened: `O_RDONLY`, `O_CREAT` and so on, as in `open(2)`.
    pub flags: i32,
    /// The mode of a file that is made, before the process's umask.
    pub mode: u32,
    /// How the name may be resolved.
    pub resolve: Resolve,
    /// The slot of the table of registered files that receives the file instead of a descriptor.
    /// Only in a chain.
    pub slot: Option<RegisteredFile>,
    /// The open file, once the operation succeeded and if no slot was named.
    pub file: Option<File>,
}

/// How a name may be resolved: the RESOLVE_ flags of `openat2(2)`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Resolve(u32);

/// Closes a file and tells whether the file system had anything to complain of (`close(2)`).
///
/// If other clones of the handle exist, this gives up its own and succeeds.
#[derive(Debug)]
pub struct Close {
    /// The file; none once it is closed.
    pub handle: Option<Handle>,
}

/// Has a file system tell what it would tell when the file is closed, and leaves the file open: a
/// duplicate of the descriptor is closed (`dup(2)`, `close(2)`).
///
/// NFS, CIFS and FUSE write at the latest then, and complain then. Never tried again: an interrupted
/// one has closed its duplicate, and nobody knows what was written (`close(2)`, NOTES).
#[derive(Debug)]
pub struct Flush {
    /// The file.
    pub file: File,
}

/// Gives a file another name, and takes its old one away (`renameat2(2)`).
#[derive(Debug)]
pub struct Rename {
    /// The old name.
    pub source: Place,
    /// The new name.
    pub target: Place,
    /// Whether an existing target is replaced; `EEXIST` if it may not be.
    pub replace: bool,
}

/// Removes a name.
#[derive(Debug)]
pub struct Unlink {
    /// The name.
    pub place: Place,
    /// Whether it is an empty directory's (`rmdir(2)`).
    pub is_directory: bool,
}

/// Makes an empty directory.
#[derive(Debug)]
pub struct MakeDirectory {
    /// Its name.
    pub place: Place,
    /// Its mode, before the process's umask.
    pub mode: u32,
}

/// Makes a symbolic link.
#[derive(Debug)]
pub struct SymbolicLink {
    /// Its name.
    pub place: Place,
    /// What it says.
    pub content: Name,
}

/// Gives a file one more name (`linkat(2)`).
#[derive(Debug)]
pub struct Link {
    /// The file.
    pub source: Place,
    /// The new name.
    pub target: Place,
    /// Whether a symbolic link is followed, or gets one more name itself.
    pub follow: bool,
}

/// Reads what a symbolic link says. The result is the number of bytes; as many as the buffer has
/// room for mean that the rest was cut off.
#[derive(Debug)]
pub struct ReadLink {
    /// The link.
    pub place: Place,
    /// Where the bytes go.
    pub buffer: Buffer,
}

/// Makes a FIFO, a socket or a device node (`mknod(2)`).
#[derive(Debug)]
pub struct MakeNode {
    /// Its name.
    pub place: Place,
    /// Its type and mode, as in `st_mode`, before the process's umask.
    pub mode: u32,
    /// The device, for device nodes.
    pub device: u64,
}

/// Reads entries of an open directory (`getdents64(2)`), from where the last listing stopped. The
/// result is the number of bytes; 0 is the end. [`super::directory_entries`] takes them apart.
#[derive(Debug)]
pub struct ListDirectory {
    /// The directory.
    pub directory: File,
    /// Where the entries go.
    pub buffer: Buffer,
}

impl Resolve {
    /// As any path is.
    pub const ANY: Self = Self(0);
    /// Never to anything outside the directory that the name is relative to.
    pub const BENEATH: Self = Self(0x08);
    /// Through no symbolic link at all.
    pub const NO_SYMLINKS: Self = Self(0x04);
    /// Through no magic link, as those of `/proc/self/fd`.
    pub const NO_MAGICLINKS: Self = Self(0x02);
    /// Into no other mount.
    pub const NO_CROSS_DEVICE: Self = Self(0x01);

    /// What everything below an operand is opened with: beneath, through no link.
    pub const CONFINED: Self = Self(Self::BENEATH.0 | Self::NO_SYMLINKS.0 | Self::NO_MAGICLINKS.0);

    pub(crate) const fn bits(self) -> u64 {
        self.0 as u64
    }
}

impl BitOr for Resolve {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Open {
    /// Opens for reading, resolving the name as any path is.
    #[must_use]
    pub fn read(place: Place) -> Self {
        Self::new(place, libc::O_RDONLY)
    }

    /// Opens with these flags of `open(2)`, resolving the name as any path is.
    #[must_use]
    pub fn new(place: Place, flags: i32) -> Self {
        Self { place, flags, mode: 0, resolve: Resolve::ANY, slot: None, file: None }
    }

    /// Makes a new file for reading and writing; `EEXIST` if the name exists.
    #[must_use]
    pub fn create_new(place: Place, mode: u32) -> Self {
        Self { mode, ..Self::new(place, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL) }
    }

    /// The same once more.
    pub(crate) fn again(&self) -> Self {
        Self { place: self.place.clone(), slot: self.slot.clone(), file: None, ..*self }
    }

    /// The same, with the name resolved inside the directory that it is relative to and through no
    /// link. A symbolic link at the name itself is refused with `ELOOP`.
    #[must_use]
    pub fn confined(mut self) -> Self {
        self.resolve = Resolve::CONFINED;
        self.flags |= libc::O_NOFOLLOW;
        self
    }
}

impl Close {
    /// Closes a file.
    #[must_use]
    pub fn file(file: File) -> Self {
        Self { handle: Some(file.into()) }
    }

    /// Closes a socket.
    #[must_use]
    pub fn socket(socket: Socket) -> Self {
        Self { handle: Some(Handle::of_socket(socket)) }
    }

    /// Empties a slot of the table of registered files.
    #[must_use]
    pub fn registered(file: &RegisteredFile) -> Self {
        Self { handle: Some(file.into()) }
    }
}
