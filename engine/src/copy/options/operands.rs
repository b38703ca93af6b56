//! How operands are understood.

/// What becomes of a directory that was named.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Directories {
    /// It is copied with all that is in it.
    #[default]
    Copy,
    /// It is refused: GNU cp copies directories only if told to (`-r`).
    Refuse,
}
