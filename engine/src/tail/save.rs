//! Reads and writes checkpoints.
//!
//! ```text
//! NAME.new: written, synced --> NAME becomes NAME.old --> NAME.new becomes NAME --> directory synced
//! ```
//!
//! At each moment one of the three is whole. A crash between the renames leaves NAME.new as the
//! latest: it gets its name before anything is built on it, or writing the next one would destroy it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::libc;

use super::checkpoint::{Checkpoint, Damage};
use super::io::{fill, open, perform_on, status};
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::TAIL_CHECKPOINT_BYTES_MAX;
use crate::operation::{
    File, Handle, Open, Operation, Place, Rename, Subject, Sync, SyncReach, Unlink, Write,
};
use crate::proactor::TaskInitiator;

/// The files that checkpoints are in.
pub(super) struct Saver {
    tasks: TaskInitiator,
    path: PathBuf,
    next: PathBuf,
    before: PathBuf,
    /// Written so many times.
    number: u64,
}

impl Saver {
    pub(super) fn new(tasks: &TaskInitiator, path: &Path) -> Self {
        let with = |suffix: &str| {
            let mut name = OsString::from(path);
            name.push(suffix);
            PathBuf::from(name)
        };
        let (next, before) = (with(".new"), with(".old"));
        Self { tasks: tasks.clone(), path: path.to_owned(), next, before, number: 0 }
    }

    /// The latest checkpoint that is whole, and what was wrong with others.
    pub(super) async fn load(&mut self) -> Result<(Checkpoint, Vec<Error>), Error> {
        let mut latest: Option<Checkpoint> = None;
        let mut is_unnamed = false;
        let mut damaged = Vec::new();
        for path in [&self.path, &self.next, &self.before] {
            let Some(bytes) = self.read(path).await? else { continue };
            match Checkpoint::decode(&bytes) {
                Ok(found) if latest.as_ref().is_none_or(|it| it.number < found.number) => {
                    latest = Some(found);
                    is_unnamed = *path == self.next;
                }
                Ok(_) => {}
                Err(Damage::OtherVersion) => {
                    let reason = "it is of another version of this program";
                    return Err(Error::new(ErrorKind::Unsupported, "checkpoint", reason).on(path));
                }
                Err(Damage::Torn) => {
                    let reason = "it is damaged, and the one before it counts";
                    damaged.push(Error::new(ErrorKind::Storage, "checkpoint", reason).on(path));
                }
            }
        }
        let checkpoint = latest.unwrap_or_default();
        self.number = checkpoint.number;
        if is_unnamed {
            // Whoever wrote it may have been killed before it was synced.
            let next = open(&self.tasks, Open::read(place(&self.next)?), &self.next).await?;
            self.publish(next).await?;
        }
        Ok((checkpoint, damaged))
    }

    /// The number of the next checkpoint.
    pub(super) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Puts a checkpoint on stable storage, in place of the one that is there.
    pub(super) async fn save(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        // Not written over: after a sync that failed a second one of the same file proves nothing.
        let unlink = Unlink { place: place(&self.next)?, is_directory: false };
        match perform_on(&self.tasks, unlink, &self.next).await {
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            removed => drop(removed?),
        }
        let create = Open::create_new(place(&self.next)?, 0o600);
        let file = open(&self.tasks, create, &self.next).await?;
        self.write(&file, checkpoint.encode()).await?;
        self.publish(file).await
    }

    /// Gives the next checkpoint its name, for good, and the one before the name that it has then.
    async fn publish(&self, next: File) -> Result<(), Error> {
        self.sync(next, SyncReach::Data, &self.next).await?;
        match self.rename(&self.path, &self.before).await {
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            renamed => renamed?,
        }
        self.rename(&self.next, &self.path).await?;
        let folder = self.path.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let directory = Open::new(place(folder)?, libc::O_RDONLY | libc::O_DIRECTORY);
        let directory = open(&self.tasks, directory, folder).await?;
        self.sync(directory, SyncReach::File, folder).await
    }

    async fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        let file = match open(&self.tasks, Open::read(place(path)?), path).await {
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(None),
            file => file?,
        };
        let found = status(&self.tasks, Subject::File(file.clone()), false, path).await?;
        if found.size_bytes > TAIL_CHECKPOINT_BYTES_MAX {
            return Err(Error::from_errno("read", Errno::EFBIG).on(path));
        }
        let length = usize::try_from(found.size_bytes).unwrap_or(0);
        let range = 0..found.size_bytes;
        let (result, buffer) = fill(&self.tasks, &file, vec![0; length], range, |_| false).await;
        let length = result.map_err(|errno| Error::from_errno("read", errno).on(path))?;
        Ok(Some(buffer.as_slice()[..length].to_vec()))
    }

    async fn write(&self, file: &File, bytes: Vec<u8>) -> Result<(), Error> {
        let mut buffer = Buffer::from(bytes);
        let mut start = 0;
        while start < buffer.length() {
            let length = buffer.length() - start;
            let handle = Handle::from(file);
            let write = Write { handle, buffer, offset_bytes: start.into(), start, length };
            let (result, operation) = super::io::perform(&self.tasks, write).await;
            let Operation::Write(write) = operation else {
                unreachable!("an operation comes back as itself")
            };
            buffer = write.buffer;
            start += match result {
                Ok(0) => return Err(Error::from_errno("write", Errno::ENOSPC).on(&self.next)),
                Ok(bytes) => bytes,
                Err(error) => {
                    return Err(Error::from_errno("write", error.errno).on(&self.next));
                }
            };
        }
        Ok(())
    }

    async fn sync(&self, file: File, reach: SyncReach, path: &Path) -> Result<(), Error> {
        perform_on(&self.tasks, Sync { file, reach }, path).await.map(drop)
    }

    async fn rename(&self, source: &Path, target: &Path) -> Result<(), Error> {
        let names = Rename { source: place(source)?, target: place(target)?, replace: true };
        perform_on(&self.tasks, names, source).await.map(drop)
    }
}

fn place(path: &Path) -> Result<Place, Error> {
    Place::path(path).map_err(|errno| Error::from_errno("open", errno).on(path))
}
