//! What happens where something stands already, and how a target is made.

use std::ffi::OsString;

/// What happens where something stands already, and how a target is made. The default is what
/// `ucp` does: what stands there is replaced by a copy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Existing {
    /// Whether what stands there may be replaced.
    pub overwrite: Overwrite,
    /// Which of those that may be are.
    pub update: Update,
    /// Under which name the old file stays; none keeps no old file.
    pub backup: Option<Backup>,
    /// How a target is made.
    pub make: Make,
    /// Where the target stands and can't be written, it is removed (`-f`).
    pub force: bool,
    /// What stands there is always replaced by a new file, a symbolic link itself, too
    /// (`--remove-destination`).
    pub remove: bool,
    /// A dangling symbolic link that was named is written through (`POSIXLY_CORRECT`).
    pub through_dangling_links: bool,
    /// Where a directory comes and a symbolic link to one stands, that one is copied into
    /// (`--keep-directory-symlink`).
    pub keep_directory_links: bool,
    /// What a directory of this run has brought may be overwritten by another of the same name, as
    /// by GNU cp. Two operands of one name are refused all the same.
    pub merge_created: bool,
}

/// Whether what stands at a target may be replaced.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Overwrite {
    /// Yes.
    #[default]
    Always,
    /// Never; it stays, which is no failure (`-n`).
    Never,
    /// If whoever is asked says so (`-i`).
    Ask,
}

/// Which existing targets are replaced (`--update`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Update {
    /// All.
    #[default]
    All,
    /// Those that are older than their source.
    Older,
    /// None.
    None,
    /// None, and each is a failure.
    NoneFail,
}

/// How a target is made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Make {
    /// As a copy.
    #[default]
    Copy,
    /// As one more name of the source.
    HardLink,
    /// As a symbolic link to the source.
    SymbolicLink,
    /// Mode, owner, times and so on only: an existing file keeps its bytes, a new one has none.
    Attributes,
}

/// Under which name a file that is replaced stays.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backup {
    /// How it is made from the file's name.
    pub style: BackupStyle,
    /// What is added to the name for a simple one.
    pub suffix: OsString,
}

/// How the name of a backup is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BackupStyle {
    /// `name~`: the last one only.
    Simple,
    /// `name.~1~`, `name.~2~`: all of them.
    Numbered,
    /// Numbered where there are numbered ones already, simple elsewhere.
    Existing,
}

impl Existing {
    /// Whether what stands at a target matters before the source is opened.
    pub(in crate::copy) fn must_look(&self) -> bool {
        self.overwrite != Overwrite::Always
            || self.update != Update::All
            || self.backup.is_some()
            || self.make != Make::Copy
            || self.remove
    }

    /// Whether a symbolic link that stands at a target is itself what is replaced.
    pub(in crate::copy) fn replaces_links(&self) -> bool {
        self.backup.is_some()
            || self.remove
            || matches!(self.make, Make::HardLink | Make::SymbolicLink)
    }

    /// Whether what stands stays, which is no failure.
    pub(in crate::copy) fn keeps_what_stands(&self) -> bool {
        self.overwrite == Overwrite::Never || self.update == Update::None
    }

    /// Whether an existing file may be replaced by one that was made beside it, without a look.
    pub(in crate::copy) fn merges_stages(&self) -> bool {
        !self.must_look()
    }
}
