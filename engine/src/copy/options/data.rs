//! Which way the bytes take.

/// Whether data goes past the page cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Direct {
    /// Where it is faster: large files that are not cached, on file systems that do it for real.
    #[default]
    Auto,
    /// Wherever the file system allows it.
    On,
    /// Never.
    Off,
}

/// Which holes a target gets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Holes {
    /// If its source has any: those, and one wherever it has a block of zeros.
    #[default]
    Auto,
    /// In any case those of its source, and one wherever it has a block of zeros.
    Always,
    /// None.
    Never,
}

/// Whether extents may be shared with the source.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reflink {
    /// Where the file system can.
    #[default]
    Auto,
    /// In any case: a file that can't is not copied.
    Always,
    /// Never: every byte exists twice.
    Never,
}

/// When the next files of a new directory are opened, and asked for, before it is their turn.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LookAhead {
    /// Once cores idle while there is work: they wait for a disk, which serves many reads at a time.
    #[default]
    Auto,
    /// From the start.
    Always,
}

/// How a block's read and write follow each other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PipelineMode {
    /// The write starts when the read has completed.
    #[default]
    Unlinked,
    /// The kernel starts the write of a full block itself.
    Linked,
}
