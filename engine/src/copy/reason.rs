//! Why the data of a file took the path that it took, and what was tried before.
//!
//! Each reason has a name for programs, which stays the same, and words for people.

use std::fmt;

use crate::error::Errno;
use crate::units::Bytes;

/// Why a data path was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PathReason {
    /// There is nothing to move.
    Empty,
    /// Only the attributes are copied.
    AttributesOnly,
    /// One read and one write move it.
    Small {
        /// The largest file of which that is so.
        bytes_max: u64,
    },
    /// Many blocks in flight would cost more than they bring.
    NotLarge {
        /// The smallest file that is moved in many blocks.
        bytes_min: u64,
    },
    /// The source's file system misleads a ring that reads.
    NoRingReads,
    /// The target takes bytes only one after the other.
    TargetIsStream,
    /// The source is no regular file.
    SourceIsStream,
    /// The source says that it is empty, or as long as every setting of the kernel, and is read to
    /// find out.
    SizeUnknown,
    /// The file system shares extents between files.
    ExtentsShared,
    /// One server has both files.
    SameServer,
    /// Too little of the source is in the page cache to be worth reading from there.
    NotCached {
        /// How much is, in thousandths; none where the kernel does not tell.
        permille: Option<u32>,
    },
    /// The source is in the page cache.
    Cached {
        /// How much of it, in thousandths.
        permille: u32,
    },
    /// The source is in the page cache, and the target is to be on the disk in the end.
    CachedAndDurable {
        /// How much of it, in thousandths.
        permille: u32,
    },
    /// Direct I/O was asked for.
    DirectAskedFor,
    /// Direct I/O was forbidden.
    DirectForbidden,
    /// What is copied is to stay in the page cache.
    CacheKept,
    /// The page cache is to stay as it was.
    CacheBypassed,
    /// One end has no direct I/O.
    NoDirect {
        /// Which end.
        end: CopyEnd,
        /// What kind of file system it is on: `tmpfs`.
        file_system: &'static str,
    },
    /// One end's direct I/O is none, or slower than the page cache.
    PoorDirect {
        /// Which end.
        end: CopyEnd,
        /// What kind of file system it is on: `btrfs`.
        file_system: &'static str,
    },
    /// Direct I/O was refused when it was switched on.
    DirectRefused,
}

/// One end of a copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CopyEnd {
    /// What is read.
    Source,
    /// What is written.
    Target,
}

/// Something that would have been better and was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FellBack {
    /// What was tried.
    pub from: Attempt,
    /// What the kernel answered; none if it answered by doing nothing.
    pub errno: Option<Errno>,
}

/// What is tried first where it may be better.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Attempt {
    /// Sharing the source's extents (FICLONE).
    Clone,
    /// Having the server copy (`copy_file_range`).
    CopyRange,
    /// Reading past the page cache.
    DirectRead,
    /// Writing past the page cache.
    DirectWrite,
}

impl PathReason {
    /// The reason's stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::AttributesOnly => "attributes-only",
            Self::Small { .. } => "small",
            Self::NotLarge { .. } => "not-large",
            Self::NoRingReads => "no-ring-reads",
            Self::TargetIsStream => "target-is-stream",
            Self::SourceIsStream => "source-is-stream",
            Self::SizeUnknown => "size-unknown",
            Self::ExtentsShared => "extents-shared",
            Self::SameServer => "same-server",
            Self::NotCached { .. } => "not-cached",
            Self::Cached { .. } => "cached",
            Self::CachedAndDurable { .. } => "cached-and-durable",
            Self::DirectAskedFor => "direct-asked-for",
            Self::DirectForbidden => "direct-forbidden",
            Self::CacheKept => "cache-kept",
            Self::CacheBypassed => "cache-bypassed",
            Self::NoDirect { end: CopyEnd::Source, .. } => "source-without-direct",
            Self::NoDirect { end: CopyEnd::Target, .. } => "target-without-direct",
            Self::PoorDirect { end: CopyEnd::Source, .. } => "source-with-poor-direct",
            Self::PoorDirect { end: CopyEnd::Target, .. } => "target-with-poor-direct",
            Self::DirectRefused => "direct-refused",
        }
    }
}

impl fmt::Display for PathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("it is empty"),
            Self::AttributesOnly => f.write_str("only its attributes were asked for"),
            Self::Small { bytes_max } => write!(f, "it is no larger than {}", Bytes(bytes_max)),
            Self::NotLarge { bytes_min } => write!(f, "it is smaller than {}", Bytes(bytes_min)),
            Self::NoRingReads => f.write_str("the source's file system misleads a ring that reads"),
            Self::TargetIsStream => f.write_str("the target takes bytes only one after the other"),
            Self::SourceIsStream => f.write_str("the source is not a regular file"),
            Self::SizeUnknown => f.write_str("the source does not tell its size"),
            Self::ExtentsShared => f.write_str("the file system shares extents between files"),
            Self::SameServer => f.write_str("one server has both files"),
            Self::NotCached { permille: Some(permille) } => {
                write!(f, "{} of it is in the page cache", Share(permille))
            }
            Self::NotCached { permille: None } => {
                f.write_str("the kernel does not tell what is in the page cache")
            }
            Self::Cached { permille } => {
                write!(f, "{} of it is in the page cache", Share(permille))
            }
            Self::CachedAndDurable { permille } => {
                write!(f, "{} of it is in the page cache, ", Share(permille))?;
                f.write_str("and the target is to be on the disk")
            }
            Self::DirectAskedFor => f.write_str("direct I/O was asked for"),
            Self::DirectForbidden => f.write_str("direct I/O was forbidden"),
            Self::CacheKept => f.write_str("it is to stay in the page cache"),
            Self::CacheBypassed => f.write_str("the page cache is to stay as it was"),
            Self::NoDirect { end, file_system } => {
                write!(f, "the {end} ({file_system}) has no direct I/O")
            }
            Self::PoorDirect { end, file_system } => {
                write!(f, "direct I/O of the {end} ({file_system}) gains nothing")
            }
            Self::DirectRefused => f.write_str("direct I/O was refused"),
        }
    }
}

/// Thousandths, shown as whole per cent; never 0 % or 100 % unless it is.
struct Share(u32);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("nothing"),
            1..10 => f.write_str("less than 1 %"),
            1000.. => f.write_str("all"),
            permille => write!(f, "{} %", permille / 10),
        }
    }
}

impl fmt::Display for CopyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

impl Attempt {
    /// The attempt's stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::CopyRange => "copy-range",
            Self::DirectRead => "direct-read",
            Self::DirectWrite => "direct-write",
        }
    }
}

impl fmt::Display for FellBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was refused", self.from.name())?;
        match self.errno {
            Some(errno) => write!(f, " ({errno:?})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_in_words() {
        let cases = [
            (PathReason::Small { bytes_max: 262_144 }, "it is no larger than 256.0 KiB"),
            (PathReason::NotCached { permille: Some(0) }, "nothing of it is in the page cache"),
            (PathReason::Cached { permille: 1000 }, "all of it is in the page cache"),
            (PathReason::Cached { permille: 999 }, "99 % of it is in the page cache"),
            (
                PathReason::NoDirect { end: CopyEnd::Target, file_system: "tmpfs" },
                "the target (tmpfs) has no direct I/O",
            ),
        ];
        for (reason, want) in cases {
            assert_eq!(reason.to_string(), want);
        }
    }

    #[test]
    fn what_fell_back_is_told_with_the_kernel_s_answer() {
        let refused = FellBack { from: Attempt::Clone, errno: Some(Errno::EXDEV) };
        assert_eq!(refused.to_string(), "clone was refused (EXDEV)");
        let silent = FellBack { from: Attempt::CopyRange, errno: None };
        assert_eq!(silent.to_string(), "copy-range was refused");
    }
}
