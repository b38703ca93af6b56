//! Where the data of a file lies.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::bytes;

/// Makes a file of this length with data in these places (offset and length).
pub(crate) fn make_sparse(path: &Path, size_bytes: u64, pieces: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(size_bytes).unwrap();
    for (number, (offset, length)) in pieces.iter().enumerate() {
        file.write_all_at(&bytes(*length, number as u64 + 1), *offset).unwrap();
    }
    // Until it is on the disk, a file may take more room than it needs in the end.
    file.sync_all().unwrap();
}

/// Where the file system says that there is data: from, and up to.
pub(crate) fn data_map(path: &Path) -> Vec<(i64, i64)> {
    let file = File::open(path).unwrap();
    // Where room is found only at write-back, it is now.
    file.sync_all().unwrap();
    let mut segments = Vec::new();
    let mut reached = 0;
    loop {
        let start = match lseek(&file, reached, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return segments,
            Err(errno) => panic!("{}: {errno}", path.display()),
        };
        reached = lseek(&file, start, Whence::SeekHole).unwrap();
        segments.push((start, reached));
    }
}

pub(crate) fn allocated_bytes(path: &Path) -> u64 {
    File::open(path).unwrap().sync_all().unwrap();
    fs::metadata(path).unwrap().blocks() * 512
}
