//! Block devices (`linux/fs.h`).

#![allow(unsafe_code, reason = "a home of unsafe: the system call boundary")]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{self, Whence};

/// The length of a block device, and of the blocks that it reads and writes whole, in bytes. Moves
/// the descriptor's position.
pub(crate) fn device_status(fd: BorrowedFd<'_>) -> Result<(u64, u32), Errno> {
    let mut block_bytes: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int, which is alive and unshared until the call returns; the
    // descriptor is open while it is borrowed.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::BLKSSZGET, &raw mut block_bytes) })?;
    let end = unistd::lseek(fd, 0, Whence::SeekEnd)?;
    Ok((end.unsigned_abs(), block_bytes.unsigned_abs()))
}
