//! What becomes of followed files, told as it is noticed.

use std::path::PathBuf;

use super::SourceId;

/// Something that happened to a file that is followed. Each is told once.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A file that was not known is followed from its start.
    Found {
        /// What its bytes are called from now on.
        source: SourceId,
        /// Its name.
        path: PathBuf,
    },
    /// A file that the checkpoint knows is followed from what was acknowledged.
    Resumed {
        /// Which source.
        source: SourceId,
        /// Its name.
        path: PathBuf,
        /// Where it is gone on with.
        offset_bytes: u64,
    },
    /// A file has another name: rotation by rename. It is read to its end.
    Renamed {
        /// Which source.
        source: SourceId,
        /// The name that it had.
        from: PathBuf,
        /// The name that it has; none if no look has found it.
        to: Option<PathBuf>,
    },
    /// A file was copied, and truncated then: rotation by copy-truncate. The copy goes on with the
    /// source; what follows in the file itself is another source.
    CopyTruncated {
        /// Which source.
        source: SourceId,
        /// The file that was truncated.
        path: PathBuf,
        /// Its copy.
        copy: PathBuf,
    },
    /// A file was truncated or written anew, and nobody has found a copy. What follows in it is
    /// another source.
    Truncated {
        /// The source that ends here.
        source: SourceId,
        /// The file.
        path: PathBuf,
        /// Bytes that were seen in the file and never read; more may have been written since.
        unread_bytes: u64,
    },
    /// The last name of a file was removed. Who has it open may go on writing, and it is read to its
    /// end; if that is not known, it went while nobody followed it.
    Deleted {
        /// Which source.
        source: SourceId,
        /// The name that it had.
        path: PathBuf,
        /// Whether what it held can still be read.
        is_open: bool,
    },
    /// While nobody followed it a file went, and its number was given to another.
    InodeReused {
        /// The source that ends here.
        source: SourceId,
        /// The name that it had.
        path: PathBuf,
    },
    /// A file that was rotated away is read to its end, all of it is acknowledged, and it is closed.
    LetGo {
        /// The source that ends here.
        source: SourceId,
        /// The name that it had last.
        path: PathBuf,
    },
}
