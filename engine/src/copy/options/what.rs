//! What is copied.

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

/// What becomes of FIFOs, sockets and devices.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Specials {
    /// In a tree they are made anew; as operands they are read, as streams.
    #[default]
    Auto,
    /// They are made anew, and never opened (`-R`).
    Made,
    /// They are read to their end (`--copy-contents`).
    Read,
}
