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
        Self { kind, what, path: None, offset_bytes: None, errno: Some(errno), reason: None }
    }

    /// A failure of `what` for a `reason` that is not an errno.
    #[must_use]
    pub fn new(kind: ErrorKind, what: &'static str, reason: impl Into<String>) -> Self {
        let reason = Some(reason.into());
        Self { kind, what, path: None, offset_bytes: None, errno: None, reason }
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

    /// The kernel's answer, if the kernel refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno
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
