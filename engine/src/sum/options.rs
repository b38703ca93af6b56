//! What a sum can be asked for.

use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;

use crate::cache_policy::CachePolicy;
use crate::digest::Algorithm;
use crate::error::{Error, ErrorKind};
use crate::limits::{
    BLOCK_BYTES_DEFAULT, BUFFER_ALIGNMENT_BYTES, DEPTH_DEFAULT, DEPTH_MAX, LARGE_BYTES_MIN,
    SMALL_BYTES_MAX, SORT_BYTES_MAX,
};
use crate::operation::File;
use crate::processor::Configuration;

/// Files and trees to be summed.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which, in the order that they are told of.
    pub operands: Vec<Operand>,
    /// By which algorithms: the digests of each file come in this order, from one pass.
    pub algorithms: Vec<Algorithm>,
    /// How.
    pub options: Options,
    /// By what large files are read.
    pub engine: Configuration,
}

/// A file, or a directory with all that is below it.
#[derive(Clone, Debug)]
pub enum Operand {
    /// By its name; a symbolic link is followed.
    Path(PathBuf),
    /// What is open already, such as standard input; read to its end from where it stands.
    Open {
        /// What it is called in the account.
        name: PathBuf,
        /// The file.
        file: File,
    },
}

/// How files are read. The default is what `ucp sum` does.
#[derive(Clone, Debug)]
pub struct Options {
    /// What reading leaves in the page cache.
    pub cache: CachePolicy,
    /// Which bytes of each file are read; none for all.
    pub range: Option<ByteRange>,
    /// How many bytes may be read in a second, on the whole; none: as many as can.
    pub bytes_per_second_max: Option<NonZero<u64>>,
    /// Blocks of a large file in flight.
    pub depth: u32,
    /// Bytes of one block: a power of two, and at least 4096.
    pub block_bytes: u32,
    /// A file up to this size is read in one go; at least 4096 bytes.
    pub small_bytes_max: u32,
    /// From this size on a file is read in blocks, many in flight.
    pub large_bytes_min: u64,
    /// Bytes of names and digests of a tree that are kept in memory until they are in order.
    pub sort_bytes_max: usize,
    /// Where the rest is written meanwhile, to a file without a name.
    pub spill_directory: PathBuf,
}

/// Some bytes of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ByteRange {
    /// The first.
    pub offset_bytes: u64,
    /// How many; none for all that follow.
    pub length_bytes: Option<u64>,
}

impl Request {
    /// Sums of files and trees by one algorithm.
    pub fn new<P: Into<PathBuf>>(
        algorithm: Algorithm,
        operands: impl IntoIterator<Item = P>,
    ) -> Self {
        Self {
            operands: operands.into_iter().map(|path| Operand::Path(path.into())).collect(),
            algorithms: vec![algorithm],
            options: Options::default(),
            engine: Configuration::default(),
        }
    }
}

impl Options {
    /// Fails if these options can't be met.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_shape = self.block_bytes.is_power_of_two()
            && u64::from(self.block_bytes) >= BUFFER_ALIGNMENT_BYTES
            && u64::from(self.small_bytes_max) >= BUFFER_ALIGNMENT_BYTES
            && (1..=DEPTH_MAX).contains(&self.depth)
            && self.sort_bytes_max > 0;
        if is_shape {
            return Ok(());
        }
        let reason = "a block is a power of two of at least 4096 bytes, and some are in flight";
        Err(Error::new(ErrorKind::Operand, "read", reason))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache: CachePolicy::default(),
            range: None,
            bytes_per_second_max: None,
            depth: DEPTH_DEFAULT,
            block_bytes: BLOCK_BYTES_DEFAULT,
            small_bytes_max: SMALL_BYTES_MAX,
            large_bytes_min: LARGE_BYTES_MIN,
            sort_bytes_max: SORT_BYTES_MAX,
            spill_directory: PathBuf::from("/tmp"),
        }
    }
}

impl ByteRange {
    /// The range in a file of this size.
    ///
    /// # Errors
    ///
    /// If the file ends before the range does: fewer bytes would be summed than were asked for.
    pub(crate) fn within(self, size_bytes: u64) -> Result<Range<u64>, Error> {
        let end = match self.length_bytes {
            Some(length) => self.offset_bytes.saturating_add(length),
            None => size_bytes.max(self.offset_bytes),
        };
        if end > size_bytes {
            return Err(ends_before_range(size_bytes));
        }
        Ok(self.offset_bytes..end)
    }
}

/// A file of this size lacks bytes that were asked for.
pub(super) fn ends_before_range(size_bytes: u64) -> Error {
    let reason = format!("it has {size_bytes} bytes, and ends before the range does");
    Error::new(ErrorKind::Operand, "read", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_whole_or_refused() {
        let cases = [
            (0, Some(0), 0, Some(0..0)),
            (0, None, 10, Some(0..10)),
            (10, None, 10, Some(10..10)),
            (11, None, 10, None),
            (2, Some(8), 10, Some(2..10)),
            (2, Some(9), 10, None),
            (u64::MAX, Some(u64::MAX), 10, None),
        ];
        for (offset_bytes, length_bytes, size, want) in cases {
            let range = ByteRange { offset_bytes, length_bytes };
            assert_eq!(range.within(size).ok(), want, "{range:?} of {size}");
        }
    }
}
