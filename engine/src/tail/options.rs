//! What is followed, and how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::operation::Name;

/// What a [`Tail`](super::Tail) follows, and how.
///
/// # Examples
///
/// ```
/// use ucp_engine::tail::Options;
///
/// let options = Options::new("/var/lib/shipper/checkpoint")
///     .follow("/var/log/app", |name| name.as_bytes().ends_with(b".log"))
///     .follow("/var/log/nginx", |name| name.as_bytes().starts_with(b"access"));
/// ```
pub struct Options {
    /// The directories, and which of their names are followed.
    pub(super) directories: Vec<Directory>,
    /// The file that holds the checkpoint. Beside it, with `.new` and `.old` behind its name, are the
    /// next one and the one before.
    pub(super) checkpoint: PathBuf,
    /// How long after one look at the directories the next one comes; 250 ms. A look costs a listing
    /// of each directory and a `statx(2)` of each name that is followed.
    ///
    /// A file that comes and goes between two looks is never seen.
    pub look_every: Duration,
    /// How long what was acknowledged may wait to be written down; 1 s. What was not is sent again
    /// after a crash.
    pub save_every: Duration,
    /// How long a file that was rotated must not have grown to be at its end, and a copy of a file to
    /// be taken for another file; 5 s.
    pub linger: Duration,
    /// Whether a symbolic link is followed; if not, it is passed over. Who may write to the directory
    /// can have any file shipped then.
    pub follow_links: bool,
}

/// A directory, and which of its names are followed.
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) wants: Box<dyn Fn(&Name) -> bool>,
}

impl Options {
    /// Follows nothing yet, and keeps its checkpoint in this file.
    #[must_use]
    pub fn new(checkpoint: impl Into<PathBuf>) -> Self {
        Self {
            directories: Vec::new(),
            checkpoint: checkpoint.into(),
            look_every: Duration::from_millis(250),
            save_every: Duration::from_secs(1),
            linger: Duration::from_secs(5),
            follow_links: false,
        }
    }

    /// Follows the regular files of a directory whose names `wants` accepts. Let it accept the names
    /// that rotation gives, too: a file whose name it does not accept any more is read to its end,
    /// but is not found again if it leaves the directory while nothing runs.
    #[must_use]
    pub fn follow(
        mut self,
        directory: impl Into<PathBuf>,
        wants: impl Fn(&Name) -> bool + 'static,
    ) -> Self {
        self.directories.push(Directory { path: directory.into(), wants: Box::new(wants) });
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directories: Vec<_> = self.directories.iter().map(|it| &it.path).collect();
        f.debug_struct("Options")
            .field("directories", &directories)
            .field("checkpoint", &self.checkpoint)
            .finish_non_exhaustive()
    }
}
