//! What can go wrong, in the few classes that a caller acts on differently.

use std::error;
use std::fmt;
use std::path::{Path, PathBuf};

/// The kernel's number for an error, with its name and its words.
pub use nix::errno::Errno;

/// The classes of failure that a caller acts on differently.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The target exists and may not be replaced.
    AlreadyExists,
    /// An operand is not what the request needs: missing, a directory where a file must be.
    Operand,
    /// The target's storage failed: full, an I/O error, read-only.
    Storage,
    /// What was written is not what was read back.
    DoesNotVerify,
    /// The source changed while it was being copied.
    SourceChanged,
    /// The kernel or the file system cannot do this.
    Unsupported,
    /// The work was asked to stop.
    Cancelled,
    /// Anything else; the source says what.
    Io,
}

impl ErrorKind {
    /// The class's stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AlreadyExists => "already-exists",
            Self::Operand => "operand",
            Self::Storage => "storage",
            Self::DoesNotVerify => "does-not-verify",
            Self::SourceChanged => "source-changed",
            Self::Unsupported => "unsupported",
            Self::Cancelled => "cancelled",
            Self::Io => "io",
        }
    }
}

/// What the rules of copying refuse, for callers who have words of their own for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// Source and target are the same file.
    SameFile,
    /// This run has made the target itself.
    JustCreated,
    /// A directory comes where something else stands.
    DirectoryOntoFile,
    /// Something else comes where a directory stands.
    FileOntoDirectory,
    /// A directory would be copied into itself.
    IntoItself,
    /// A symbolic link leads back to a directory above it.
    LinkLoop,
    /// The target is a symbolic link that leads to nothing.
    DanglingTarget,
    /// The source is a symbolic link that leads to nothing.
    DanglingSource,
    /// The backup would have the source's name.
    BackupIsSource,
    /// A symbolic link that is relative would lead elsewhere from there.
    RelativeLink,
    /// A symbolic link stands below the operand: it is not written through.
    LinkBelow,
    /// A device, FIFO or socket stands below the operand: it is not written into.
    SpecialBelow,
    /// Directories are not copied unless asked for.
    DirectoryOmitted,
    /// What stands there may not be replaced.
    NotReplaced,
    /// Where sources keep their paths, the target is not a directory.
    ParentsNeedDirectory,
    /// Several sources, or a target directory, need a directory.
    TargetNotDirectory,
}

/// One failure: what was being done, on which file, at which byte, and why.
///
/// The message names the operation and the place. The cause is in `source()` only, so a caller that
/// prints the whole chain says each thing once.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    what: &'static str,
    path: Option<PathBuf>,
    offset_bytes: Option<u64>,
    errno: Option<Errno>,
    reason: Option<String>,
    refusal: Option<Refusal>,
    copied_from: Option<Box<Path>>,
}

impl Error {
    /// A failure of `what` that the kernel answered with `errno`.
    #[must_use]
    pub fn from_errno(what: &'static str, errno: Errno) -> Self {
        let kind = match errno {
            Errno::ENOSPC | Errno::EDQUOT | Errno::EIO | Errno::EROFS | Errno::EFBIG => {
                ErrorKind::Storage
            }
            Errno::EEXIST => ErrorKind::AlreadyExists,
            Errno::ECANCELED => ErrorKind::Cancelled,
            Errno::EOPNOTSUPP | Errno::ENOSYS => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        Self {
            kind,
            what,
            path: None,
            offset_bytes: None,
            errno: Some(errno),
            reason: None,
            refusal: None,
            copied_from: None,
        }
    }

    /// A failure of `what` for a `reason` that is not an errno.
    #[must_use]
    pub fn new(kind: ErrorKind, what: &'static str, reason: impl Into<String>) -> Self {
        let reason = Some(reason.into());
        Self {
            kind,
            what,
            path: None,
            offset_bytes: None,
            errno: None,
            reason,
            refusal: None,
            copied_from: None,
        }
    }

    /// A failure of `what` because the rules of copying refuse it.
    #[must_use]
    pub fn refused(what: &'static str, refusal: Refusal) -> Self {
        let error = Self::new(ErrorKind::Operand, what, refusal.to_string());
        Self { refusal: Some(refusal), ..error }
    }

    /// The same failure, with what the kernel would say to it.
    #[must_use]
    pub fn because(self, errno: Errno) -> Self {
        let reason = format!("{}: {}", self.reason(), std::io::Error::from(errno));
        Self { errno: Some(errno), reason: Some(reason), ..self }
    }

    /// The same failure, as one of `what`.
    #[must_use]
    pub fn doing(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    /// The same failure, with the source of what was being made.
    #[must_use]
    pub fn copying(mut self, source: impl AsRef<Path>) -> Self {
        self.copied_from.get_or_insert_with(|| source.as_ref().into());
        self
    }

    /// The same failure, with the file that it happened on.
    #[must_use]
    pub fn on(mut self, path: impl Into<PathBuf>) -> Self {
        self.path.get_or_insert_with(|| path.into());
        self
    }

    /// The same failure, with the byte of the file that it happened at.
    #[must_use]
    pub fn at(mut self, offset_bytes: u64) -> Self {
        self.offset_bytes = Some(offset_bytes);
        self
    }

    /// The same failure, in another class.
    #[must_use]
    pub fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The class of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done: a verb such as `read`, or a phrase such as `make directory`.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The file, if one is involved.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The byte of the file, if one is involved.
    #[must_use]
    pub fn offset_bytes(&self) -> Option<u64> {
        self.offset_bytes
    }

    /// The rule that refused, if one did.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The source of what was being made, if that was told.
    #[must_use]
    pub fn copied_from(&self) -> Option<&Path> {
        self.copied_from.as_deref()
    }

    /// The kernel's answer, if the kernel refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// Whether something stands there already.
    pub(crate) fn is_there(&self) -> bool {
        self.errno == Some(Errno::EEXIST)
    }

    /// Why, in words and without the place: the errno's message, or the reason given.
    #[must_use]
    pub fn reason(&self) -> String {
        match (&self.reason, self.errno) {
            (Some(reason), _) => reason.clone(),
            (None, Some(errno)) => std::io::Error::from(errno).to_string(),
            (None, None) => "unknown reason".to_owned(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameFile => "source and target are the same file",
            Self::JustCreated => "will not overwrite just-created file",
            Self::DirectoryOntoFile => "cannot overwrite non-directory with directory",
            Self::FileOntoDirectory => "cannot overwrite a directory with a file",
            Self::IntoItself => "cannot copy a directory into itself",
            Self::LinkLoop => "a symbolic link leads back to a directory above it",
            Self::DanglingTarget => "not writing through dangling symbolic link",
            Self::DanglingSource => "the symbolic link leads to nothing",
            Self::BackupIsSource => "its backup would destroy the source",
            Self::RelativeLink => "can make relative symbolic links only in current directory",
            Self::LinkBelow => "not writing through a symbolic link",
            Self::SpecialBelow => "not writing into a special file",
            Self::DirectoryOmitted => "it is a directory, and -r was not given",
            Self::NotReplaced => "it exists and is not replaced",
            Self::ParentsNeedDirectory => "with --parents, the destination must be a directory",
            Self::TargetNotDirectory => "it is not a directory",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed", self.what)?;
        if let Some(path) = &self.path {
            write!(f, " on {}", path.display())?;
        }
        if let Some(offset_bytes) = self.offset_bytes {
            write!(f, " at byte {offset_bytes}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        Ok(())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(self.errno.as_ref()?)
    }
}
