//! A directory of a test's own.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::run::{Ran, UCP, run};

/// A directory that is empty at first and gone in the end.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    /// None if somebody else removes it.
    _removed_at_end: Option<TempDir>,
}

impl Scratch {
    /// A directory below `target/`, so on a disk.
    pub(crate) fn new() -> Self {
        Self::owned(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    /// A directory that every user may enter, with a copy of the program that every user may run.
    pub(crate) fn public() -> Self {
        let scratch = Self::owned(TempDir::new().unwrap());
        fs::set_permissions(&scratch.path, Permissions::from_mode(0o755)).unwrap();
        // Not by this process: a test beside it that forks meanwhile would keep the file open for
        // writing until it executes another, and nobody could execute this one (ETXTBSY).
        run(Command::new("cp").arg(UCP).arg(scratch.path("ucp"))).exits(0);
        scratch
    }

    /// A directory that belongs to something else, such as a file system mounted there.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), _removed_at_end: None }
    }

    fn owned(directory: TempDir) -> Self {
        Self { path: directory.path().to_owned(), _removed_at_end: Some(directory) }
    }

    /// The path of `name` in it; of itself if `name` is empty.
    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        match name.as_ref() {
            name if name.is_empty() => self.path.clone(),
            name => self.path.join(name),
        }
    }

    pub(crate) fn write(&self, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: impl AsRef<OsStr>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn make_directory(&self, name: impl AsRef<OsStr>) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    pub(crate) fn link(&self, content: impl AsRef<Path>, name: impl AsRef<OsStr>) {
        symlink(content, self.path(name)).unwrap();
    }

    pub(crate) fn set_mode(&self, name: impl AsRef<OsStr>, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn exists(&self, name: impl AsRef<OsStr>) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Runs `ucp` in it.
    pub(crate) fn ucp<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Ran {
        run(Command::new(UCP).args(words).current_dir(&self.path))
    }

    /// Runs the copy of `ucp` in it as the user nobody.
    pub(crate) fn ucp_as_nobody<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Ran {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        run(command.arg(self.path("ucp")).args(words).current_dir(&self.path))
    }
}
