//! Stages: directories that are made out of sight, and published whole by one rename.

use std::sync::Arc;

use nix::libc;

use super::Durability;
use super::continuation::Staging;
use super::temporary::stage_name;
use super::worker::Worker;
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{LISTING_BYTES, TEMPORARY_ATTEMPTS_MAX};
use crate::operation::{
    ChangeMode, File, FileKind, FileStatus, ListDirectory, MakeDirectory, Name, Open, Operation,
    Place, Rename, Subject, SyncReach, Unlink, directory_entries,
};

/// A directory in the making.
#[derive(Debug)]
pub(super) struct Stage {
    /// Where it is, and where it will be.
    parent: File,
    name: Name,
    final_name: Name,
    staging: Arc<Staging>,
}

impl Stage {
    pub(super) fn parent(&self) -> &File {
        &self.parent
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn final_name(&self) -> &Name {
        &self.final_name
    }

    pub(super) fn staging(&self) -> &Arc<Staging> {
        &self.staging
    }
}

/// How often a directory that is being removed is looked through again.
const SWEEPS_MAX: u32 = 3;

/// A directory that is being removed.
struct Level {
    name: Name,
    /// Once it was opened.
    status: FileStatus,
    /// Names that are still to be removed.
    names: Vec<(Name, FileKind)>,
    is_listed: bool,
    /// How often it was looked through, and something in it stayed.
    sweeps: u32,
}

impl Level {
    fn new(name: Name) -> Self {
        let (status, names) = (FileStatus::default(), Vec::new());
        Self { name, status, names, is_listed: false, sweeps: 0 }
    }
}

impl Worker<'_> {
    /// Makes a stage for the directory `name`, mode 0700, and locks it. What an interrupted run has
    /// left of it is gone on with, or removed first.
    pub(super) async fn make_stage(
        &self,
        parent: &File,
        name: &Name,
        source: &FileStatus,
    ) -> Result<(Stage, File), Error> {
        for attempt in 0..TEMPORARY_ATTEMPTS_MAX {
            let salt = self.salt(attempt);
            let stage = stage_name(name.as_bytes(), salt);
            let stage = Name::new(stage).map_err(|errno| Error::from_errno("create", errno))?;
            let of = |directory: File, staging| {
                let (parent, name, final_name) = (parent.clone(), stage.clone(), name.clone());
                (Stage { parent, name, final_name, staging }, directory)
            };
            let make = MakeDirectory { place: Place::at(parent, &stage), mode: 0o700 };
            match self.io.perform(Operation::MakeDirectory(make)).await {
                Ok(_) => {}
                Err(error) if error.errno() == Some(Errno::EEXIST) => {
                    // Whoever has not let go of its lock by then is alive.
                    if attempt == 0
                        && let Some(staging) = self.take_up_stage(parent, &stage, source).await?
                    {
                        return Ok(of(staging.directory().clone(), staging));
                    }
                    self.remove_left_stage(parent, &stage).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            match self.claim_stage(parent, &stage).await {
                Ok(Some((directory, status))) => {
                    // Nobody finds a random name again.
                    let is_marked = salt == 0 && self.mark_stage(&directory, &status, source).await;
                    let staging = Staging::new(directory.clone(), is_marked, None);
                    return Ok(of(directory, staging));
                }
                Ok(None) => {}
                Err(error) => {
                    self.io.remove(parent, &stage, true).await;
                    return Err(error);
                }
            }
        }
        Err(Error::from_errno("create", Errno::EEXIST))
    }

    /// Opens a stage that was just made, and locks it; none if somebody took it for a leftover.
    async fn claim_stage(
        &self,
        parent: &File,
        stage: &Name,
    ) -> Result<Option<(File, FileStatus)>, Error> {
        let directory = self.open_made(parent, stage).await?;
        Ok(self.claim(&directory).await?.map(|status| (directory, status)))
    }

    /// Gives a stage its final name. If the name has appeared meanwhile, what stands there is
    /// merged with, file by file.
    pub(super) async fn publish_stage(&self, stage: &Stage, directory: &File) -> Result<(), Error> {
        if self.job.are_stages_forbidden() {
            self.remove_stage(stage).await;
            let reason = "a file in it is not whole and can't be removed";
            return Err(Error::new(ErrorKind::Storage, "publish", reason));
        }
        let durability = self.job.options.durability;
        if durability != Durability::None
            && let Err(error) = self.sync(directory, SyncReach::FileSystem).await
        {
            // What could not be written is not shown as if it had been.
            self.remove_stage(stage).await;
            return Err(error);
        }
        let renamed = self.rename_stage(stage).await;
        match renamed {
            Ok(()) => {}
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                self.merge_stage(stage).await?;
                if durability == Durability::Full {
                    // Names were made in directories all over it.
                    self.sync(directory, SyncReach::FileSystem).await?;
                }
            }
            Err(error) => {
                self.remove_stage(stage).await;
                return Err(error);
            }
        }
        if durability == Durability::Full {
            self.sync_names(&stage.parent, directory).await?;
        }
        Ok(())
    }

    /// Removes a stage with all that is in it.
    pub(super) async fn remove_stage(&self, stage: &Stage) {
        self.remove_tree(&stage.parent, &stage.name).await;
    }

    async fn rename_stage(&self, stage: &Stage) -> Result<(), Error> {
        let source = Place::at(&stage.parent, &stage.name);
        let target = Place::at(&stage.parent, &stage.final_name);
        let rename = |replace| Rename { source: source.clone(), target: target.clone(), replace };
        match self.io.perform_always(Operation::Rename(rename(false))).await {
            Err(error) if error.errno() == Some(Errno::EINVAL) => {
                // The file system can't promise to replace nothing. An empty directory claims the
                // name, and a directory is renamed over an empty one only.
                let make = MakeDirectory { place: target.clone(), mode: 0o700 };
                self.io.perform_always(Operation::MakeDirectory(make)).await?;
                self.io.perform_always(Operation::Rename(rename(true))).await.map(drop)
            }
            renamed => renamed.map(drop),
        }
    }

    async fn merge_stage(&self, stage: &Stage) -> Result<(), Error> {
        let from = self.open_below(&stage.parent, &stage.name).await?;
        let merged = match self.open_below(&stage.parent, &stage.final_name).await {
            Ok(to) => self.merge(from, to).await,
            Err(error) => Err(error.of_kind(ErrorKind::AlreadyExists)),
        };
        self.remove_stage(stage).await;
        merged
    }

    /// Moves what is in one directory to another; directories that are on both sides are merged.
    async fn merge(&self, from: File, to: File) -> Result<(), Error> {
        let mut pairs = vec![(from, to)];
        while let Some((from, to)) = pairs.pop() {
            for (name, kind) in self.names_in(&from).await? {
                let (source, target) = (Place::at(&from, &name), Place::at(&to, &name));
                let is_directory = kind == FileKind::Directory;
                let existing = &self.job.options.existing;
                let replace = !is_directory && existing.merges_stages();
                let rename = Rename { source, target, replace };
                match self.io.perform_always(Operation::Rename(rename)).await {
                    Err(error) if is_directory && error.errno() == Some(Errno::EEXIST) => {
                        let below = self.open_below(&from, &name).await?;
                        pairs.push((below, self.open_below(&to, &name).await?));
                    }
                    // It goes with the rest of the stage.
                    Err(error) if existing.keeps_what_stands() && error.is_there() => {}
                    renamed => renamed.map(drop)?,
                }
            }
        }
        Ok(())
    }

    /// Removes what a killed run has left of a stage for `name`.
    pub(super) async fn remove_left_stage_of(
        &self,
        parent: &File,
        name: &Name,
    ) -> Result<(), Error> {
        let stage = stage_name(name.as_bytes(), 0);
        let stage = Name::new(stage).map_err(|errno| Error::from_errno("create", errno))?;
        self.remove_left_stage(parent, &stage).await
    }

    /// Removes what a killed run of the same user has left; anything else stays.
    pub(super) async fn remove_left_stage(&self, parent: &File, name: &Name) -> Result<(), Error> {
        let Ok(left) = self.open_below(parent, name).await else { return Ok(()) };
        let status = self.io.status_of(&left).await?;
        let is_ours = self.is_own(&status);
        if !is_ours || self.claim(&left).await?.is_none() {
            return Ok(());
        }
        // What was opened may be published by now, and another stage have its name.
        let named = self.io.status_at(Place::at(parent, name), false).await?;
        if named.is_some_and(|named| named.is_same_file(&status)) {
            self.remove_tree(parent, name).await;
        }
        Ok(())
    }

    /// Removes a directory of our own with all that is in it; best effort. Never through a link.
    ///
    /// One directory is open at a time, and a batch of names a level is kept, however deep and full
    /// the tree is: the way up is `..`, if that is where it came from.
    pub(super) async fn remove_tree(&self, parent: &File, name: &Name) {
        let mut levels: Vec<Level> = Vec::new();
        let mut at = parent.clone();
        let mut next = Some(Level::new(name.clone()));
        loop {
            if let Some(mut level) = next.take() {
                let unlink = Unlink { place: Place::at(&at, &level.name), is_directory: true };
                let removed = self.io.perform_always(Operation::Unlink(unlink)).await;
                let errno = removed.err().and_then(|error| error.errno());
                let is_full = matches!(errno, Some(Errno::ENOTEMPTY | Errno::EEXIST));
                if is_full
                    && level.sweeps < SWEEPS_MAX
                    && let Some((directory, status)) = self.open_to_remove(&at, &level.name).await
                {
                    level.sweeps += 1;
                    level.is_listed = false;
                    level.status = status;
                    levels.push(level);
                    at = directory;
                } else if let (Some(_), Some(above)) = (errno, levels.last_mut()) {
                    // It stays. What is listed again has it again.
                    above.sweeps += 1;
                }
            }
            let Some(level) = levels.last_mut() else { return };
            if let Some((name, kind)) = level.names.pop() {
                match kind {
                    FileKind::Directory => next = Some(Level::new(name)),
                    _ => drop(self.io.remove(&at, &name, false).await),
                }
                continue;
            }
            if !level.is_listed && level.sweeps <= SWEEPS_MAX {
                level.names = self.some_names_in(&at).await.unwrap_or_default();
                level.is_listed = level.names.is_empty();
                continue;
            }
            next = levels.pop();
            at = match levels.last() {
                None => parent.clone(),
                Some(above) => {
                    let open = Open::new(Place::at(&at, &Name::from(c"..")), libc::O_RDONLY);
                    match self.open_always(open).await {
                        Some((directory, status)) if status.is_same_file(&above.status) => {
                            directory
                        }
                        _ => return,
                    }
                }
            };
        }
    }

    /// Opens a directory of our own so that names in it can be removed.
    async fn open_to_remove(&self, parent: &File, name: &Name) -> Option<(File, FileStatus)> {
        let open = Open::new(Place::at(parent, name), libc::O_RDONLY).confined();
        let (file, status) = self.open_always(open).await?;
        let change = ChangeMode { file: file.clone(), mode: 0o700 };
        // It may have its final, read-only mode already.
        let _ = self.io.perform_always(Operation::ChangeMode(change)).await;
        Some((file, status))
    }

    /// Opens a directory even if the copy was cancelled: to clean up.
    async fn open_always(&self, open: Open) -> Option<(File, FileStatus)> {
        let open = Open { flags: open.flags | libc::O_DIRECTORY, ..open };
        let opened = self.io.perform_always(Operation::Open(open)).await;
        let Ok(Operation::Open(Open { file: Some(file), .. })) = opened else { return None };
        let status = self.io.status_always(Subject::File(file.clone())).await.ok()?;
        Some((file, status))
    }

    /// All names in a directory that nobody else changes, with what they stand for.
    async fn names_in(&self, directory: &File) -> Result<Vec<(Name, FileKind)>, Error> {
        let mut names = Vec::new();
        loop {
            let more = self.some_names_in(directory).await?;
            if more.is_empty() {
                return Ok(names);
            }
            names.extend(more);
        }
    }

    /// The next names in a directory that nobody else changes, with what they stand for. None are
    /// left if there are none.
    async fn some_names_in(&self, directory: &File) -> Result<Vec<(Name, FileKind)>, Error> {
        let mut names = self.next_names(directory).await?;
        for (name, kind) in &mut names {
            if *kind == FileKind::Unknown {
                let subject = Subject::Place(Place::at(directory, name));
                *kind = self.io.status_always(subject).await?.kind;
            }
        }
        Ok(names)
    }

    /// The next names in a directory. None are left if there are none.
    pub(super) async fn next_names(
        &self,
        directory: &File,
    ) -> Result<Vec<(Name, FileKind)>, Error> {
        let mut bytes = vec![0; LISTING_BYTES];
        loop {
            let buffer = Buffer::Vec(bytes);
            let list = ListDirectory { directory: directory.clone(), buffer };
            let listed = self.io.perform_counted(Operation::ListDirectory(list)).await?;
            let (length, Operation::ListDirectory(ListDirectory { buffer, .. })) = listed else {
                unreachable!("an operation comes back as itself")
            };
            let listing = buffer.part(0, length).unwrap_or_default();
            let entries = directory_entries(listing);
            let names: Vec<_> = entries.map(|entry| (Name::from(entry.name), entry.kind)).collect();
            // The first ones may be `.` and `..` alone.
            if length == 0 || !names.is_empty() {
                return Ok(names);
            }
            let Buffer::Vec(back) = buffer else { unreachable!("it was a Vec") };
            bytes = back;
        }
    }
}
