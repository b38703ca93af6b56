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
