//! Operations that move the bytes of a file, or decide where they lie.

use nix::libc;

use super::{File, Handle};
use crate::buffer::Buffer;

/// As an offset: wherever the file's position is, which moves. For pipes, terminals and sockets.
pub const CURRENT_POSITION: u64 = u64::MAX;

/// Reads bytes of a file at an offset into part of a buffer. The result is the number of bytes,
/// which may be less than asked for; 0 is the end of the file.
#[derive(Debug)]
pub struct Read {
    /// The file.
    pub handle: Handle,
    /// Where the bytes go.
    pub buffer: Buffer,
    /// The first byte of the file to read.
    pub offset_bytes: u64,
    /// The first byte of the buffer to fill.
    pub start: u32,
    /// How many bytes to read at the most.
    pub length: u32,
}

/// Writes part of a buffer to a file at an offset. The result is the number of bytes, which may be
/// less than asked for.
#[derive(Debug)]
pub struct Write {
    /// The file.
    pub handle: Handle,
    /// Where the bytes come from.
    pub buffer: Buffer,
    /// The first byte of the file to write.
    pub offset_bytes: u64,
    /// The first byte of the buffer to take.
    pub start: u32,
    /// How many bytes to write at the most.
    pub length: u32,
}

/// Reads bytes of a file at an offset into several buffers, each filled before the next.
#[derive(Debug)]
pub struct ReadVectored {
    /// The file.
    pub handle: Handle,
    /// Where the bytes go: each buffer whole.
    pub buffers: Vec<Buffer>,
    /// The first byte of the file to read.
    pub offset_bytes: u64,
}

/// Writes several buffers, one after the other, to a file at an offset.
#[derive(Debug)]
pub struct WriteVectored {
    /// The file.
    pub handle: Handle,
    /// Where the bytes come from: each buffer whole.
    pub buffers: Vec<Buffer>,
    /// The first byte of the file to write.
    pub offset_bytes: u64,
}

/// Puts what was written on stable storage.
///
/// A failure is reported once; the pages that failed are clean afterwards, so a second try
/// succeeds and proves nothing (`fsync(2)`, NOTES). Discard the file instead.
#[derive(Debug)]
pub struct Sync {
    /// The file, or any file of the file system.
    pub file: File,
    /// How much of it.
    pub reach: SyncReach,
}

/// How much a [`Sync`] covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SyncReach {
    /// The file's data, and what is needed to read it back (`fdatasync(2)`).
    Data,
    /// The file's data and all its metadata (`fsync(2)`).
    File,
    /// Everything on the file's file system (`syncfs(2)`; reports errors since Linux 5.8).
    FileSystem,
}

/// Reserves room for a range of a file, and makes the file as long, or digs a hole.
#[derive(Debug)]
pub struct Allocate {
    /// The file.
    pub file: File,
    /// What to do with the range.
    pub mode: AllocateMode,
    /// The first byte of the range.
    pub offset_bytes: u64,
    /// The length of the range.
    pub length_bytes: u64,
}

/// What an [`Allocate`] does (`fallocate(2)`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AllocateMode {
    /// Reserves room, and makes the file longer if the range ends behind it.
    Extend,
    /// Reserves room and leaves the length as it is.
    KeepSize,
    /// Gives the room of the range back: it reads as zeros. Of a block device: if the device can
    /// (`EOPNOTSUPP`).
    PunchHole,
    /// Makes the range read as zeros and keeps its room. Of a block device: the kernel writes zeros
    /// where the device can't do it by itself.
    ZeroRange,
}

/// Makes a file this long: shorter, or longer by a hole.
#[derive(Debug)]
pub struct Truncate {
    /// The file.
    pub file: File,
    /// The new length.
    pub length_bytes: u64,
}

/// Finds where data or a hole starts, at or behind an offset (`lseek(2)`, SEEK_DATA, SEEK_HOLE).
///
/// `ENXIO` if there is none. A hole is a hint: some file systems lie.
#[derive(Debug)]
pub struct Seek {
    /// The file.
    pub file: File,
    /// What to look for.
    pub target: SeekTarget,
    /// Where to start; where it was found, once the operation succeeded.
    pub offset_bytes: u64,
}

/// What a [`Seek`] looks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SeekTarget {
    /// Bytes that were written.
    Data,
    /// A hole, or the end of the file.
    Hole,
}

/// Makes the target share the source's extents, whole (`ioctl_ficlone(2)`).
#[derive(Debug)]
pub struct CloneFile {
    /// The file to share.
    pub source: File,
    /// The file that becomes its copy.
    pub target: File,
}

/// Copies bytes inside the kernel or on the server (`copy_file_range(2)`). The result is the number
/// of bytes; 0 is the end of the source, or a file system that does not say (`/proc`).
#[derive(Debug)]
pub struct CopyRange {
    /// Where the bytes come from.
    pub source: File,
    /// Where they go.
    pub target: File,
    /// The first byte of the source.
    pub source_offset_bytes: u64,
    /// The first byte of the target.
    pub target_offset_bytes: u64,
    /// How many, at most [`crate::limits::COPY_RANGE_BYTES_MAX`].
    pub length: u32,
}

/// Tells the kernel how a range of a file will be used (`posix_fadvise(2)`). A length of 0 means
/// to the end.
#[derive(Debug)]
pub struct Advise {
    /// The file.
    pub file: File,
    /// What will be done.
    pub advice: Advice,
    /// The first byte of the range.
    pub offset_bytes: u64,
    /// The length of the range; 0 is to the end.
    pub length_bytes: u64,
}

/// How a file will be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Advice {
    /// From its start to its end.
    Sequential,
    /// Soon: read it ahead.
    WillNeed,
    /// Not again: drop what is clean of it from the page cache.
    DontNeed,
}

/// Counts how much of a range of a file is in the page cache (`cachestat(2)`, Linux 6.5). The
/// result is the number of resident pages.
#[derive(Debug)]
pub struct CacheStatus {
    /// The file.
    pub file: File,
    /// The first byte of the range.
    pub offset_bytes: u64,
    /// The length of the range; 0 is to the end.
    pub length_bytes: u64,
}

/// Makes an open file move data past the page cache, or through it (`fcntl(2)`, O_DIRECT). `EINVAL`
/// where the file system can't.
#[derive(Debug)]
pub struct SetDirect {
    /// The file. All clones of it are changed.
    pub file: File,
    /// Whether data goes past the page cache.
    pub is_direct: bool,
}

/// Takes an advisory lock on a file, for as long as it is open, without waiting (`flock(2)`).
/// `EAGAIN` if another has it.
#[derive(Debug)]
pub struct Lock {
    /// The file.
    pub file: File,
}

impl AllocateMode {
    pub(crate) const fn flags(self) -> libc::c_int {
        match self {
            Self::Extend => 0,
            Self::KeepSize => libc::FALLOC_FL_KEEP_SIZE,
            Self::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            Self::ZeroRange => libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
        }
    }
}

impl Advice {
    pub(crate) const fn flag(self) -> libc::c_int {
        match self {
            Self::Sequential => libc::POSIX_FADV_SEQUENTIAL,
            Self::WillNeed => libc::POSIX_FADV_WILLNEED,
            Self::DontNeed => libc::POSIX_FADV_DONTNEED,
        }
    }
}
