//! Operations on what is known about a file: its status, owner, mode, times and extended
//! attributes.

use nix::libc;

use super::{File, Name, Place};
use crate::buffer::Buffer;
use crate::units::WallTime;

/// Asks for a file's status (`statx(2)`). A symbolic link at the name is described itself unless
/// `follow` is set.
#[derive(Debug)]
pub struct Statx {
    /// The file: a name, or an open file.
    pub subject: Subject,
    /// Whether a symbolic link at the name is followed.
    pub follow: bool,
    /// The answer, once the operation succeeded.
    pub status: Option<Box<FileStatus>>,
}

/// A file by its name or by itself.
#[derive(Debug)]
pub enum Subject {
    /// By its name.
    Place(Place),
    /// By itself.
    File(File),
}

/// What a file is.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum FileKind {
    /// Bytes.
    #[default]
    Regular,
    /// Names.
    Directory,
    /// A path to elsewhere.
    SymbolicLink,
    /// A named pipe.
    Fifo,
    /// A unix socket's name.
    Socket,
    /// A device of bytes.
    CharacterDevice,
    /// A device of blocks.
    BlockDevice,
    /// Not told; ask for the status.
    Unknown,
}

/// A file's status, as `statx(2)` gives it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FileStatus {
    /// What it is.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits: the low 12 bits of `st_mode`.
    pub mode: u32,
    /// How many names it has.
    pub links: u32,
    /// Its owner.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// The file system that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its length.
    pub size_bytes: u64,
    /// The room that it takes, in units of 512 bytes.
    pub blocks_512: u64,
    /// The size of block that the file system likes.
    pub block_bytes: u32,
    /// The device that it is, for device nodes.
    pub node_device: u64,
    /// When it was last read.
    pub accessed: WallTime,
    /// When its bytes last changed.
    pub modified: WallTime,
    /// When anything of it last changed.
    pub changed: WallTime,
    /// What the memory of direct I/O must be aligned to; 0 if direct I/O is not supported or the
    /// kernel does not tell (`STATX_DIOALIGN`, Linux 6.1).
    pub direct_memory_alignment: u32,
    /// What the offsets and lengths of direct I/O must be aligned to; 0 as above.
    pub direct_offset_alignment: u32,
    /// The mount that it is on.
    pub mount: u64,
    /// Whether a file system is mounted on it (`STATX_ATTR_MOUNT_ROOT`).
    pub is_mount_point: bool,
    /// Whether it is marked immutable or append-only.
    pub is_protected: bool,
}

/// Asks what kind of file system a file is on (`fstatfs(2)`).
#[derive(Debug)]
pub struct FileSystemStatus {
    /// Any file of it.
    pub file: File,
    /// Its magic number, once the operation succeeded: `EXT4_SUPER_MAGIC` and so on.
    pub magic: u64,
    /// Free bytes for ordinary users, once the operation succeeded.
    pub available_bytes: u64,
}

/// Gives a file another owner and group (`fchownat(2)`); links are not followed.
#[derive(Debug)]
pub struct ChangeOwner {
    /// The file.
    pub subject: Subject,
    /// The new owner; none leaves it.
    pub owner: Option<u32>,
    /// The new group; none leaves it.
    pub group: Option<u32>,
}

/// Gives an open file other permission, set-id and sticky bits (`fchmod(2)`).
#[derive(Debug)]
pub struct ChangeMode {
    /// The file.
    pub file: File,
    /// The bits.
    pub mode: u32,
}

/// Sets when a file was last read and written (`utimensat(2)`); links are not followed.
#[derive(Debug)]
pub struct ChangeTimes {
    /// The file.
    pub subject: Subject,
    /// When it was last read; boxed so that an operation stays small.
    pub times: Box<FileTimes>,
}

/// The two times of a file that can be set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FileTimes {
    /// When it was last read.
    pub accessed: WallTime,
    /// When its bytes last changed.
    pub modified: WallTime,
}

/// Reads an extended attribute. The result is its length; `ERANGE` if the buffer is too small. An
/// empty buffer asks for the length.
#[derive(Debug)]
pub struct GetAttribute {
    /// The file.
    pub file: File,
    /// The attribute's name, with its namespace.
    pub name: Name,
    /// Where the value goes.
    pub buffer: Buffer,
}

/// Sets an extended attribute.
#[derive(Debug)]
pub struct SetAttribute {
    /// The file.
    pub file: File,
    /// The attribute's name, with its namespace.
    pub name: Name,
    /// Its value: the whole buffer.
    pub value: Buffer,
}

/// Removes an extended attribute.
#[derive(Debug)]
pub struct RemoveAttribute {
    /// The file.
    pub file: File,
    /// The attribute's name, with its namespace.
    pub name: Name,
}

/// Lists the names of a file's extended attributes, each ended by NUL. The result is the number of
/// bytes; `ERANGE` if the buffer is too small. An empty buffer asks for the length.
#[derive(Debug)]
pub struct ListAttributes {
    /// The file.
    pub file: File,
    /// Where the names go.
    pub buffer: Buffer,
}

impl FileKind {
    /// The kind that a `st_mode` tells.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFREG => Self::Regular,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::SymbolicLink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharacterDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => Self::Unknown,
        }
    }

    /// The kind that a directory entry tells (`d_type` of `getdents64(2)`).
    #[must_use]
    pub const fn from_entry(kind: u8) -> Self {
        Self::from_mode((kind as u32) << 12)
    }

    /// What a directory entry says for this kind.
    #[must_use]
    pub const fn entry(self) -> u8 {
        match self {
            Self::Regular => libc::DT_REG,
            Self::Directory => libc::DT_DIR,
            Self::SymbolicLink => libc::DT_LNK,
            Self::Fifo => libc::DT_FIFO,
            Self::Socket => libc::DT_SOCK,
            Self::CharacterDevice => libc::DT_CHR,
            Self::BlockDevice => libc::DT_BLK,
            Self::Unknown => libc::DT_UNKNOWN,
        }
    }
}

impl FileTimes {
    /// Access and modification time, each as seconds and nanoseconds.
    pub(crate) fn as_pairs(&self) -> [(i64, i64); 2] {
        [self.accessed, self.modified].map(|time| (time.seconds, i64::from(time.nanoseconds)))
    }
}

impl From<&libc::statx> for FileStatus {
    fn from(raw: &libc::statx) -> Self {
        let mode = u32::from(raw.stx_mode);
        let device = |major: u32, minor: u32| libc::makedev(major, minor);
        let attributes = raw.stx_attributes & raw.stx_attributes_mask;
        let protected = libc::STATX_ATTR_IMMUTABLE | libc::STATX_ATTR_APPEND;
        let has = |bits: i32| attributes & u64::from(bits.unsigned_abs()) != 0;
        Self {
            kind: FileKind::from_mode(mode),
            mode: mode & 0o7777,
            links: raw.stx_nlink,
            owner: raw.stx_uid,
            group: raw.stx_gid,
            device: device(raw.stx_dev_major, raw.stx_dev_minor),
            inode: raw.stx_ino,
            size_bytes: raw.stx_size,
            blocks_512: raw.stx_blocks,
            block_bytes: raw.stx_blksize,
            node_device: device(raw.stx_rdev_major, raw.stx_rdev_minor),
            accessed: wall_time(&raw.stx_atime),
            modified: wall_time(&raw.stx_mtime),
            changed: wall_time(&raw.stx_ctime),
            direct_memory_alignment: raw.stx_dio_mem_align,
            direct_offset_alignment: raw.stx_dio_offset_align,
            mount: raw.stx_mnt_id,
            is_mount_point: has(libc::STATX_ATTR_MOUNT_ROOT),
            is_protected: has(protected),
        }
    }
}

fn wall_time(raw: &libc::statx_timestamp) -> WallTime {
    WallTime { seconds: raw.tv_sec, nanoseconds: raw.tv_nsec }
}

impl FileStatus {
    /// Whether both describe the same file.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }

    /// The times that can be set on a copy.
    #[must_use]
    pub fn times(&self) -> FileTimes {
        FileTimes { accessed: self.accessed, modified: self.modified }
    }
}
