//! What is promised about targets: how they appear, and what is on stable storage.

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

/// Whether the copy of a large file or of a new directory that was interrupted goes on where it
/// stopped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Resume {
    /// It does, as far as its source is as it was.
    #[default]
    Auto,
    /// It begins again, and nothing is kept of an interrupted one.
    Never,
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
