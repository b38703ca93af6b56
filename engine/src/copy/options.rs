//! What a copy can be asked for.

/// How a copy is made. The default is what `ucp SOURCE… TARGET` does.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether data goes past the page cache.
    pub direct: Direct,
    /// Whether extents may be shared with the source.
    pub reflink: Reflink,
    /// How a block's read and write follow each other.
    pub pipeline: PipelineMode,
    /// What is on stable storage when the copy returns.
    pub durability: Durability,
    /// Which symbolic links are followed.
    pub links: FollowLinks,
    /// Whether existing targets are written in place rather than replaced.
    pub in_place: bool,
    /// Whether a new directory is staged and published whole.
    pub stage: Stage,
    /// Blocks of a large file in flight.
    pub depth: u32,
    /// Bytes of one block.
    pub block_bytes: u32,
    /// A file up to this size is moved by one read and one write.
    pub small_bytes_max: u32,
    /// From this size on a file is moved in blocks, many in flight.
    pub large_bytes_min: u64,
    /// The mode bits that new files must not have, where the source's mode is not kept.
    pub umask: u32,
}

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

/// Whether extents may be shared with the source.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reflink {
    /// Where the file system can.
    #[default]
    Auto,
    /// Never: every byte exists twice.
    Never,
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

/// What is on stable storage when the copy returns.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// Whatever the system has written by then.
    #[default]
    None,
    /// The data of every file.
    Data,
    /// Data, metadata, names and directories.
    Full,
}

/// Which symbolic links are followed; the others are copied as links.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FollowLinks {
    /// None (`-P`).
    Never,
    /// Those given as operands (`-H`).
    #[default]
    Operands,
    /// All (`-L`).
    Always,
}

/// Whether a new directory is staged and published whole.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// A directory that does not exist yet is.
    #[default]
    Auto,
    /// Files are shown as they come.
    Never,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            direct: Direct::default(),
            reflink: Reflink::default(),
            pipeline: PipelineMode::default(),
            durability: Durability::default(),
            links: FollowLinks::default(),
            in_place: false,
            stage: Stage::default(),
            depth: crate::limits::DEPTH_DEFAULT,
            block_bytes: crate::limits::BLOCK_BYTES_DEFAULT,
            small_bytes_max: crate::limits::SMALL_BYTES_MAX,
            large_bytes_min: crate::limits::LARGE_BYTES_MIN,
            umask: 0,
        }
    }
}
