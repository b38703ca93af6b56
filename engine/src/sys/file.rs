//! System calls on files and names.
//!
//! What `nix` wraps is called through it; the rest is here. Each returns what the kernel returned.

#![allow(unsafe_code, reason = "a home of unsafe: the system call boundary")]

use std::ffi::{CStr, CString};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, FallocateFlags, OFlag, PosixFadviseAdvice, RenameFlags};
use nix::libc;
use nix::sys::stat::{self, FchmodatFlags, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::sys::uio;
use nix::unistd::{self, Gid, LinkatFlags, Uid, UnlinkatFlags};

/// A name and the directory that it is relative to.
pub(crate) type At<'a> = (BorrowedFd<'a>, &'a CStr);

/// Names are relative to the current directory.
pub(crate) const CURRENT_DIRECTORY: BorrowedFd<'static> = fcntl::AT_FDCWD;

/// What has no offsets (a pipe, a terminal) is read from where it is, as io_uring does it; so is
/// everything at an offset of `u64::MAX`.
pub(crate) fn read_at(fd: BorrowedFd<'_>, bytes: &mut [u8], offset: u64) -> Result<u32, Errno> {
    match positioned(offset, |offset| uio::pread(fd, bytes, offset)) {
        Err(Errno::ESPIPE) => unistd::read(fd, bytes),
        read => read,
    }
    .map(count)
}

/// What has no offsets is written to where it is; so is everything at an offset of `u64::MAX`.
pub(crate) fn write_at(fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Result<u32, Errno> {
    match positioned(offset, |offset| uio::pwrite(fd, bytes, offset)) {
        Err(Errno::ESPIPE) => unistd::write(fd, bytes),
        written => written,
    }
    .map(count)
}

pub(crate) fn read_vectored_at(
    fd: BorrowedFd<'_>,
    parts: &mut [&mut [u8]],
    offset: u64,
) -> Result<u32, Errno> {
    let mut parts: Vec<_> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
    match positioned(offset, |offset| uio::preadv(fd, &mut parts, offset)) {
        Err(Errno::ESPIPE) => uio::readv(fd, &mut parts),
        read => read,
    }
    .map(count)
}

pub(crate) fn write_vectored_at(
    fd: BorrowedFd<'_>,
    parts: &[&[u8]],
    offset: u64,
) -> Result<u32, Errno> {
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    match positioned(offset, |offset| uio::pwritev(fd, &parts, offset)) {
        Err(Errno::ESPIPE) => uio::writev(fd, &parts),
        written => written,
    }
    .map(count)
}

/// Reads at an offset, and leaves no page in the page cache that was not there (`readv(2)`,
/// RWF_DONTCACHE). `EOPNOTSUPP` before Linux 6.14, and where the file system can't.
pub(crate) fn read_uncached_at(
    fd: BorrowedFd<'_>,
    parts: &mut [&mut [u8]],
    offset: u64,
) -> Result<u32, Errno> {
    let mut parts: Vec<_> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
    let count = i32::try_from(parts.len()).map_err(|_| Errno::EINVAL)?;
    let vectors = parts.as_mut_ptr().cast();
    uncached(offset, |offset, flags| {
        // SAFETY: the kernel writes into the parts, which are borrowed mutably, and so alive and
        // unshared, until the call returns; an `IoSliceMut` is an `iovec` (its documentation), and
        // `count` counts them. `fd` is open while it is borrowed.
        unsafe { libc::preadv2(fd.as_raw_fd(), vectors, count, offset, flags) }
    })
}

/// Writes at an offset, begins to put that on the device, and leaves no page in the page cache once
/// it is there. `EOPNOTSUPP` as above.
pub(crate) fn write_uncached_at(
    fd: BorrowedFd<'_>,
    parts: &[&[u8]],
    offset: u64,
) -> Result<u32, Errno> {
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let count = i32::try_from(parts.len()).map_err(|_| Errno::EINVAL)?;
    let vectors = parts.as_ptr().cast();
    uncached(offset, |offset, flags| {
        // SAFETY: the kernel reads the parts, which are borrowed, and so alive and unchanged, until
        // the call returns; an `IoSlice` is an `iovec` (its documentation), and `count` counts them.
        // `fd` is open while it is borrowed.
        unsafe { libc::pwritev2(fd.as_raw_fd(), vectors, count, offset, flags) }
    })
}

/// Moves bytes uncached at an offset; where there are none, from where the file is (-1).
fn uncached(
    offset: u64,
    transfer: impl Fn(i64, libc::c_int) -> libc::ssize_t,
) -> Result<u32, Errno> {
    let flags = libc::RWF_DONTCACHE;
    match positioned(offset, |offset| length(transfer(offset, flags))) {
        Err(Errno::ESPIPE) => length(transfer(-1, flags)),
        moved => moved,
    }
}

/// Moves bytes at an offset; `ESPIPE` if it stands for the file's own position.
fn positioned<T>(offset: u64, transfer: impl FnOnce(i64) -> Result<T, Errno>) -> Result<T, Errno> {
    if offset == u64::MAX { Err(Errno::ESPIPE) } else { transfer(signed(offset)?) }
}

pub(crate) fn sync_data(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    unistd::fdatasync(fd).map(|()| 0)
}

pub(crate) fn sync_file(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    unistd::fsync(fd).map(|()| 0)
}

pub(crate) fn sync_file_system(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: syncfs(2) takes a descriptor and no memory; `fd` is open while it is borrowed.
    checked(unsafe { libc::syncfs(fd.as_raw_fd()) })
}

pub(crate) fn allocate(
    fd: BorrowedFd<'_>,
    flags: i32,
    offset: u64,
    length: u64,
) -> Result<u32, Errno> {
    let flags = FallocateFlags::from_bits_retain(flags);
    fcntl::fallocate(fd, flags, signed(offset)?, signed(length)?).map(|()| 0)
}

pub(crate) fn truncate(fd: BorrowedFd<'_>, length: u64) -> Result<u32, Errno> {
    unistd::ftruncate(fd, signed(length)?).map(|()| 0)
}

pub(crate) fn seek(fd: BorrowedFd<'_>, is_data: bool, offset: u64) -> Result<u64, Errno> {
    let whence = if is_data { unistd::Whence::SeekData } else { unistd::Whence::SeekHole };
    unistd::lseek(fd, signed(offset)?, whence).map(unsigned)
}

pub(crate) fn clone_file(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: FICLONE takes a descriptor by value and no memory (ioctl_ficlone(2)); both
    // descriptors are open while they are borrowed.
    checked(unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) })
}

/// The raw call: the wrapper of glibc 2.41 and 2.42 corrupts large ranges (sourceware PR33245).
pub(crate) fn copy_range(
    (source, source_offset): (BorrowedFd<'_>, u64),
    (target, target_offset): (BorrowedFd<'_>, u64),
    length: u32,
) -> Result<u32, Errno> {
    let (mut from, mut to) = (signed(source_offset)?, signed(target_offset)?);
    // SAFETY: the call reads and writes the two offsets, which are alive and unshared until it
    // returns; everything else is passed by value (copy_file_range(2)).
    let copied = unsafe {
        libc::syscall(
            libc::SYS_copy_file_range,
            source.as_raw_fd(),
            &raw mut from,
            target.as_raw_fd(),
            &raw mut to,
            length as usize,
            0,
        )
    };
    Errno::result(copied).map(|copied| count(usize::try_from(copied).unwrap_or(0)))
}

pub(crate) fn advise(
    fd: BorrowedFd<'_>,
    advice: i32,
    offset: u64,
    length: u64,
) -> Result<u32, Errno> {
    let advice = match advice {
        libc::POSIX_FADV_SEQUENTIAL => PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL,
        libc::POSIX_FADV_WILLNEED => PosixFadviseAdvice::POSIX_FADV_WILLNEED,
        libc::POSIX_FADV_DONTNEED => PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        _ => return Err(Errno::EINVAL),
    };
    fcntl::posix_fadvise(fd, signed(offset)?, signed(length)?, advice).map(|()| 0)
}

/// How many pages of a range are in the page cache.
pub(crate) fn cache_status(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<u32, Errno> {
    /// x86-64 and every architecture since: one number (`cachestat(2)`).
    const SYS_CACHESTAT: libc::c_long = 451;
    let range = [offset, length];
    let mut answer = [0_u64; 5]; // resident, dirty, under write-back, evicted, recently evicted
    // SAFETY: the kernel reads two and writes five 64-bit numbers (struct cachestat_range and
    // struct cachestat); both arrays have that size and are alive until the call returns.
    checked_long(unsafe {
        libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), range.as_ptr(), answer.as_mut_ptr(), 0_u32)
    })?;
    Ok(u32::try_from(answer[0]).unwrap_or(u32::MAX))
}

pub(crate) fn set_direct(fd: BorrowedFd<'_>, is_direct: bool) -> Result<u32, Errno> {
    let mut flags = OFlag::from_bits_retain(fcntl::fcntl(fd, fcntl::FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_DIRECT, is_direct);
    fcntl::fcntl(fd, fcntl::FcntlArg::F_SETFL(flags)).map(|_| 0)
}

pub(crate) fn lock(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: flock(2) takes a descriptor and no memory; `fd` is open while it is borrowed.
    checked(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
}

/// Opens with `openat2(2)` where it is asked for what only that can do, else with `openat(2)`, which
/// old filters let pass. Where a filter refuses `openat2` alone, a single name is opened by
/// `openat(2)` without following it, which is as confined; a path is not opened at all.
pub(crate) fn open(
    (directory, name): At<'_>,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd, Errno> {
    let (flags, mode) = open_flags(flags | libc::O_CLOEXEC, mode);
    if resolve == 0 {
        let mode = Mode::from_bits_truncate(mode);
        return fcntl::openat(directory, name, OFlag::from_bits_retain(flags), mode);
    }
    match open_confined((directory, name), flags, mode, resolve) {
        Err(Errno::ENOSYS | Errno::EPERM) if is_single_name(name) => {
            let flags = OFlag::from_bits_retain(flags | libc::O_NOFOLLOW);
            fcntl::openat(directory, name, flags, Mode::from_bits_truncate(mode))
        }
        opened => opened,
    }
}

/// A name of a file in the directory itself: no path, and not the directory above.
fn is_single_name(name: &CStr) -> bool {
    let name = name.to_bytes();
    !name.contains(&b'/') && name != b".."
}

fn open_confined(
    (directory, name): At<'_>,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd, Errno> {
    let how = [u64::from(flags.cast_unsigned()), u64::from(mode), resolve];
    // SAFETY: the kernel reads a NUL-ended name and three 64-bit numbers (struct open_how, 24
    // bytes, as the last argument says); both are alive until the call returns (openat2(2)).
    let fd = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            name.as_ptr(),
            how.as_ptr(),
            size_of_val(&how),
        )
    })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Flags and mode as `openat2(2)` takes them, which refuses what `openat(2)` ignores: a mode where
/// nothing is made, and O_NOCTTY beside O_PATH.
pub(crate) fn open_flags(flags: i32, mode: u32) -> (i32, u32) {
    let makes = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
    let no_terminal = if flags & libc::O_PATH == 0 { libc::O_NOCTTY } else { 0 };
    (flags | no_terminal, if makes { mode & 0o7777 } else { 0 })
}

/// Closes and reports; the descriptor is gone even if this fails (`close(2)`, NOTES).
pub(crate) fn close(fd: OwnedFd) -> Result<u32, Errno> {
    // SAFETY: the descriptor was owned, so this closes it exactly once.
    match checked(unsafe { libc::close(fd.into_raw_fd()) }) {
        Err(Errno::EINTR) => Ok(0),
        result => result,
    }
}

/// Closes a duplicate of a descriptor, for what the file system says to it.
pub(crate) fn flush(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let duplicate = fd.try_clone_to_owned().map_err(|error| errno_of(&error))?;
    // SAFETY: the descriptor was owned, so this closes it exactly once.
    checked(unsafe { libc::close(duplicate.into_raw_fd()) })
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

pub(crate) fn rename(source: At<'_>, target: At<'_>, replace: bool) -> Result<u32, Errno> {
    let flags = if replace { RenameFlags::empty() } else { RenameFlags::RENAME_NOREPLACE };
    fcntl::renameat2(source.0, source.1, target.0, target.1, flags).map(|()| 0)
}

pub(crate) fn unlink((directory, name): At<'_>, is_directory: bool) -> Result<u32, Errno> {
    let flags = if is_directory { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
    unistd::unlinkat(directory, name, flags).map(|()| 0)
}

pub(crate) fn make_directory((directory, name): At<'_>, mode: u32) -> Result<u32, Errno> {
    stat::mkdirat(directory, name, Mode::from_bits_truncate(mode)).map(|()| 0)
}

pub(crate) fn symbolic_link(content: &CStr, (directory, name): At<'_>) -> Result<u32, Errno> {
    unistd::symlinkat(content, directory, name).map(|()| 0)
}

pub(crate) fn link(source: At<'_>, target: At<'_>, follow: bool) -> Result<u32, Errno> {
    let flags = if follow { LinkatFlags::AT_SYMLINK_FOLLOW } else { LinkatFlags::empty() };
    unistd::linkat(source.0, source.1, target.0, target.1, flags).map(|()| 0)
}

pub(crate) fn read_link((directory, name): At<'_>, bytes: &mut [u8]) -> Result<u32, Errno> {
    // SAFETY: the kernel reads a NUL-ended name and writes at most `bytes.len()` bytes to `bytes`,
    // which is borrowed for writing until the call returns (readlinkat(2)).
    let length = unsafe {
        libc::readlinkat(
            directory.as_raw_fd(),
            name.as_ptr(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
        )
    };
    Errno::result(length).map(|length| count(length.unsigned_abs()))
}

pub(crate) fn make_node((directory, name): At<'_>, mode: u32, node: u64) -> Result<u32, Errno> {
    let kind = SFlag::from_bits_truncate(mode & libc::S_IFMT);
    let mode = Mode::from_bits_truncate(mode & 0o7777);
    stat::mknodat(directory, name, kind, mode, node).map(|()| 0)
}

pub(crate) fn list_directory(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<u32, Errno> {
    // SAFETY: the kernel writes at most `bytes.len()` bytes to `bytes`, which is borrowed for
    // writing until the call returns (getdents64(2)).
    let length = unsafe {
        libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), bytes.as_mut_ptr(), bytes.len())
    };
    Errno::result(length).map(|length| count(usize::try_from(length).unwrap_or(0)))
}

/// What `statx(2)` is asked for: the basics, the mount, and the alignment of direct I/O.
pub(crate) const STATX_MASK: u32 =
    libc::STATX_BASIC_STATS | libc::STATX_MNT_ID | libc::STATX_DIOALIGN;

/// `name` may be empty: then the descriptor itself is meant.
pub(crate) fn status((directory, name): At<'_>, follow: bool) -> Result<libc::statx, Errno> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the kernel reads a NUL-ended name and writes a whole struct statx, for which there is
    // room until the call returns (statx(2)).
    checked(unsafe {
        libc::statx(
            directory.as_raw_fd(),
            name.as_ptr(),
            status_flags(name, follow),
            STATX_MASK,
            answer.as_mut_ptr(),
        )
    })?;
    // SAFETY: zeros are a valid struct statx, and the kernel has filled it since.
    Ok(unsafe { answer.assume_init() })
}

/// The flags of `statx(2)` for a name, or for the descriptor itself if the name is empty.
pub(crate) fn status_flags(name: &CStr, follow: bool) -> i32 {
    let empty = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    empty | if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW }
}

/// Magic number and bytes available to ordinary users.
pub(crate) fn file_system_status(fd: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    let mut answer = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel writes a whole struct statfs, for which there is room until the call
    // returns (fstatfs(2)).
    checked(unsafe { libc::fstatfs(fd.as_raw_fd(), answer.as_mut_ptr()) })?;
    // SAFETY: zeros are a valid struct statfs, and the kernel has filled it since.
    let answer = unsafe { answer.assume_init() };
    let block_bytes = unsigned(answer.f_bsize);
    Ok((unsigned(answer.f_type), answer.f_bavail.saturating_mul(block_bytes)))
}

/// `name` may be empty: then the descriptor itself is meant.
pub(crate) fn change_owner(
    (directory, name): At<'_>,
    owner: Option<u32>,
    group: Option<u32>,
) -> Result<u32, Errno> {
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
    unistd::fchownat(directory, name, owner, group, flags).map(|()| 0)
}

pub(crate) fn change_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<u32, Errno> {
    let mode = Mode::from_bits_truncate(mode);
    let changed = stat::fchmod(fd, mode).map(|()| 0);
    or_by_path(fd, changed, |path| {
        let follow = FchmodatFlags::FollowSymlink;
        stat::fchmodat(CURRENT_DIRECTORY, path, mode, follow).map(|()| 0)
    })
}

pub(crate) fn change_times(
    (directory, name): At<'_>,
    [accessed, modified]: [(i64, i64); 2],
) -> Result<u32, Errno> {
    let (accessed, modified) = (time_spec(accessed), time_spec(modified));
    let flags = UtimensatFlags::NoFollowSymlink;
    stat::utimensat(directory, name, &accessed, &modified, flags).map(|()| 0)
}

pub(crate) fn change_file_times(
    fd: BorrowedFd<'_>,
    [accessed, modified]: [(i64, i64); 2],
) -> Result<u32, Errno> {
    let (accessed, modified) = (time_spec(accessed), time_spec(modified));
    let changed = stat::futimens(fd, &accessed, &modified).map(|()| 0);
    or_by_path(fd, changed, |path| {
        let follow = UtimensatFlags::FollowSymlink;
        stat::utimensat(CURRENT_DIRECTORY, path, &accessed, &modified, follow).map(|()| 0)
    })
}

pub(crate) fn get_attribute(
    fd: BorrowedFd<'_>,
    name: &CStr,
    value: &mut [u8],
) -> Result<u32, Errno> {
    let (start, room) = (value.as_mut_ptr().cast(), value.len());
    // SAFETY: the kernel reads a NUL-ended name and writes at most `room` bytes to `value`, which
    // is borrowed for writing until the call returns (fgetxattr(2)).
    let got = length(unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), start, room) });
    or_by_path(fd, got, |path| {
        // SAFETY: as above, with a NUL-ended path (getxattr(2)).
        length(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), start, room) })
    })
}

pub(crate) fn set_attribute(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<u32, Errno> {
    let (start, room) = (value.as_ptr().cast(), value.len());
    // SAFETY: the kernel reads a NUL-ended name and `room` bytes of `value`, both borrowed until
    // the call returns (fsetxattr(2)).
    let set = checked(unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), start, room, 0) });
    or_by_path(fd, set, |path| {
        // SAFETY: as above, with a NUL-ended path (setxattr(2)).
        checked(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), start, room, 0) })
    })
}

pub(crate) fn remove_attribute(fd: BorrowedFd<'_>, name: &CStr) -> Result<u32, Errno> {
    // SAFETY: the kernel reads a NUL-ended name, borrowed until the call returns.
    let removed = checked(unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) });
    or_by_path(fd, removed, |path| {
        // SAFETY: the kernel reads two NUL-ended strings, alive until the call returns.
        checked(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) })
    })
}

pub(crate) fn list_attributes(fd: BorrowedFd<'_>, names: &mut [u8]) -> Result<u32, Errno> {
    let (start, room) = (names.as_mut_ptr().cast(), names.len());
    // SAFETY: the kernel writes at most `room` bytes to `names`, which is borrowed for writing
    // until the call returns (flistxattr(2)).
    let listed = length(unsafe { libc::flistxattr(fd.as_raw_fd(), start, room) });
    or_by_path(fd, listed, |path| {
        // SAFETY: as above, with a NUL-ended path (listxattr(2)).
        length(unsafe { libc::listxattr(path.as_ptr(), start, room) })
    })
}

/// What is known about a file that was opened with O_PATH (a link, a device) is refused by its
/// descriptor with `EBADF`. Its entry in `/proc` leads to that very file, whatever bears its name
/// by now, and not on from there if it is a link (`proc_pid_fd(5)`, `open(2)` under O_PATH).
fn or_by_path(
    fd: BorrowedFd<'_>,
    result: Result<u32, Errno>,
    by_path: impl FnOnce(&CStr) -> Result<u32, Errno>,
) -> Result<u32, Errno> {
    let is_path = || {
        let flags = fcntl::fcntl(fd, fcntl::FcntlArg::F_GETFL);
        flags.is_ok_and(|flags| flags & libc::O_PATH != 0)
    };
    if result != Err(Errno::EBADF) || !is_path() {
        return result;
    }
    let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    by_path(&path.map_err(|_| Errno::EINVAL)?)
}

fn length(result: libc::ssize_t) -> Result<u32, Errno> {
    Errno::result(result).map(|length| count(length.unsigned_abs()))
}

fn checked(result: libc::c_int) -> Result<u32, Errno> {
    Errno::result(result).map(i32::unsigned_abs)
}

fn checked_long(result: libc::c_long) -> Result<(), Errno> {
    Errno::result(result).map(drop)
}

/// An offset as the kernel takes it: `EINVAL` above the largest one, as the kernel would say.
fn signed(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset).map_err(|_| Errno::EINVAL)
}

fn unsigned(offset: i64) -> u64 {
    offset.unsigned_abs()
}

/// The kernel moves less than 2 GiB at a time (`read(2)`, NOTES).
fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn time_spec((seconds, nanoseconds): (i64, i64)) -> TimeSpec {
    TimeSpec::new(seconds, nanoseconds)
}
