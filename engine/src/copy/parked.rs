//! Directories above the one that is being worked on: they are parked when descriptors run short,
//! and opened again to enter one more directory in them, or to finish them.
//!
//! A tree may be deeper than a process may have files open. What is opened again must be the device
//! and inode that it was at first, by whatever way it was found: who moves directories meanwhile can
//! make the copy of one fail, and not lead it elsewhere. Roots and stages stay open: from there the
//! way is walked down, and a descriptor keeps a stage locked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::libc;

use super::FollowLinks;
use super::directory::Directory;
use super::worker::Worker;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{OPEN_DIRECTORIES_SHARE, PATH_BYTES_MAX};
use crate::operation::{File, FileStatus, Name, Open, Place};
use crate::proactor::open_files_max;

/// Source and target of a directory, while they are open.
pub(super) struct Sides(Mutex<State>);

struct State {
    open: Option<(File, File, Counted)>,
    /// All names were read: until then the descriptor knows how far that came.
    is_listed: bool,
    /// It was to be parked before that.
    is_left: bool,
}

/// How many directories are open, and how many may be before some are parked.
#[derive(Clone)]
pub(super) struct OpenDirectories {
    count: Arc<AtomicUsize>,
    max: usize,
}

/// One that is open; a root is not counted.
pub(super) struct Counted(Option<Arc<AtomicUsize>>);

impl OpenDirectories {
    pub(super) fn new(max: Option<usize>) -> Self {
        let share = || usize::try_from(open_files_max() / OPEN_DIRECTORIES_SHARE);
        let max = max.unwrap_or_else(|| share().unwrap_or(usize::MAX));
        Self { count: Arc::default(), max }
    }

    fn are_short(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.max
    }

    /// Counts one that is open, until that is dropped.
    pub(super) fn count(&self) -> Counted {
        self.count.fetch_add(1, Ordering::Relaxed);
        Counted(Some(Arc::clone(&self.count)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Sides {
    /// Those of a root.
    pub(super) fn of_root(source: File, target: File) -> Self {
        Self::new(source, target, Counted(None))
    }

    pub(super) fn counted(source: File, target: File, open: &OpenDirectories) -> Self {
        Self::new(source, target, open.count())
    }

    fn new(source: File, target: File, counted: Counted) -> Self {
        let open = Some((source, target, counted));
        Self(Mutex::new(State { open, is_listed: false, is_left: false }))
    }

    pub(super) fn get(&self) -> Option<(File, File)> {
        self.lock().open.as_ref().map(|(source, target, _)| (source.clone(), target.clone()))
    }

    fn put(&self, source: &File, target: &File, open: &OpenDirectories) {
        let mut state = self.lock();
        // Another may have opened it, too.
        if state.open.is_none() {
            state.open = Some((source.clone(), target.clone(), open.count()));
            state.is_left = false;
        }
    }

    fn park(&self) {
        let mut state = self.lock();
        state.is_left = true;
        let parked = if state.is_listed { state.open.take() } else { None };
        drop(state);
        drop(parked);
    }

    /// It is finished.
    pub(super) fn close(&self) {
        let open = self.lock().open.take();
        drop(open);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker<'_> {
    /// Whether directories that are not worked on should be parked.
    pub(super) fn are_directories_short(&self) -> bool {
        self.job.open_directories.are_short()
    }

    /// Parks a directory that others will need again, if descriptors are short.
    pub(super) fn park_if_short(&self, directory: &Directory) {
        if self.are_directories_short() && directory.may_be_parked() {
            directory.sides.park();
        }
    }

    /// All names of a directory were read.
    pub(super) fn mark_listed(&self, directory: &Directory) {
        let is_left = {
            let mut state = directory.sides.lock();
            state.is_listed = true;
            state.is_left
        };
        if is_left {
            self.park_if_short(directory);
        }
    }

    /// The source of a directory, opened again if need be.
    pub(super) async fn opened_source(&self, directory: &Directory) -> Result<File, Error> {
        self.opened_sides(directory).await.map(|(source, _)| source)
    }

    /// The target of a directory, opened again if need be.
    pub(super) async fn opened_target(&self, directory: &Directory) -> Result<File, Error> {
        self.opened_sides(directory).await.map(|(_, target)| target)
    }

    /// Both, opened again if need be.
    pub(super) async fn opened_sides(&self, directory: &Directory) -> Result<(File, File), Error> {
        match directory.sides.get() {
            Some(sides) => Ok(sides),
            None => self.walk_down(directory).await,
        }
    }

    /// Walks down to a parked directory from the next one above it that is open.
    async fn walk_down(&self, directory: &Directory) -> Result<(File, File), Error> {
        let (mut source_names, mut target_names) = (Vec::new(), Vec::new());
        let mut at = directory;
        let (source, target) = loop {
            if let Some(sides) = at.sides.get() {
                break sides;
            }
            let above = at.parent().expect("a root stays open");
            source_names.push(at.name());
            // What a rehearsal would make stands for the directory above.
            if !at.target_status().is_same_file(above.target_status()) {
                target_names.push(at.name());
            }
            at = above;
        };
        let is_followed = self.job.options.links == FollowLinks::Always;
        let on_source = |error: Error| error.doing("enter").on(directory.source_path());
        let path = path_of(&source_names);
        let found = self.open_far(&source, &path, libc::O_RDONLY, is_followed).await;
        let source = self.expect(found, &directory.status).await.map_err(on_source)?;
        let is_followed = self.job.options.existing.keep_directory_links;
        let on_target = |error: Error| error.doing("enter").on(directory.target_path());
        let path = path_of(&target_names);
        let found = match self.open_far(&target, &path, libc::O_RDONLY, is_followed).await {
            Err(error) if error.errno() == Some(Errno::EACCES) => {
                self.open_far(&target, &path, libc::O_PATH, is_followed).await
            }
            found => found,
        };
        let target = self.expect(found, directory.target_status()).await.map_err(on_target)?;
        directory.sides.put(&source, &target, &self.job.open_directories);
        Ok((source, target))
    }

    /// Opens the directory above one that will not be needed any more: it is one step away now, and
    /// as many as the tree is deep later. If that fails, the way is walked down then.
    pub(super) async fn open_above(&self, directory: &Directory) {
        let Some(above) = directory.parent().filter(|above| above.sides.get().is_none()) else {
            return;
        };
        let Some((source, target)) = directory.sides.get() else { return };
        let name = Name::from(c"..");
        let found = self.open_directory(Place::at(&source, &name)).await;
        let Ok(source) = self.expect(found, &above.status).await else { return };
        let is_imagined = directory.target_status().is_same_file(above.target_status());
        let found = match is_imagined {
            true => Ok(target),
            false => self.open_directory(Place::at(&target, &name)).await,
        };
        if let Ok(target) = self.expect(found, above.target_status()).await {
            above.sides.put(&source, &target, &self.job.open_directories);
        }
    }

    /// Fails if what was found is not what stood there at first.
    pub(super) async fn expect(
        &self,
        found: Result<File, Error>,
        first: &FileStatus,
    ) -> Result<File, Error> {
        let moved = || {
            let reason = "the directory was moved while it was copied";
            Error::new(ErrorKind::SourceChanged, "enter", reason)
        };
        let is_gone = |error: &Error| {
            matches!(error.errno(), Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP))
        };
        let found = found.map_err(|error| if is_gone(&error) { moved() } else { error })?;
        match self.io.status_of(&found).await?.is_same_file(first) {
            true => Ok(found),
            false => Err(moved()),
        }
    }

    /// Opens a directory further below another, by a path of any length. It leads through no link,
    /// unless links are followed.
    pub(super) async fn open_far(
        &self,
        from: &File,
        path: &[u8],
        flags: i32,
        is_followed: bool,
    ) -> Result<File, Error> {
        let (mut at, mut rest) = (from.clone(), path);
        while !rest.is_empty() {
            let is_last = rest.len() < PATH_BYTES_MAX;
            let end = match is_last {
                true => rest.len(),
                false => rest[..PATH_BYTES_MAX]
                    .iter()
                    .rposition(|byte| *byte == b'/')
                    .ok_or_else(|| Error::from_errno("open", Errno::ENAMETOOLONG))?,
            };
            let name = Name::new(&rest[..end]).map_err(|errno| Error::from_errno("open", errno))?;
            let flags = if is_last { flags } else { libc::O_PATH };
            let open = Open::new(Place::at(&at, &name), flags | libc::O_DIRECTORY);
            at = self.io.open(if is_followed { open } else { open.confined() }).await?;
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        Ok(at)
    }
}

/// The path that names make, the innermost first.
fn path_of(names: &[&[u8]]) -> Vec<u8> {
    names.iter().rev().copied().collect::<Vec<_>>().join(&b'/')
}
