//! Copying a tree: pieces of work in a queue, done by whoever is free.
//!
//! ```text
//! List: read names -> files and links are copied at once, directories become pieces
//! Enter: open a directory on both sides -> List
//! ```
//!
//! A directory is finished (mode, times, publication) when its last piece is. Listing goes on as a
//! piece of its own, so a flat directory of any size is shared, and nothing holds all its names.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::libc;

use super::publish::Target;
use super::stage::Stage;
use super::worker::{Labels, Worker};
use super::{Durability, Event, FollowLinks, Publication, Stage as StageOption};
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{LISTING_BYTES, NAME_BYTES_MAX};
use crate::operation::{
    ChangeMode, ChangeTimes, File, FileKind, FileStatus, ListDirectory, MakeDirectory, Name, Open,
    Operation, Place, Rename, Subject, SymbolicLink, SyncReach, directory_entries,
};
use crate::proactor::WorkQueue;

/// A directory that is being copied.
pub(super) struct Directory {
    parent: Option<Arc<Directory>>,
    /// Its name, or the operand's path.
    source_path: PathBuf,
    target_path: PathBuf,
    source: File,
    target: File,
    status: FileStatus,
    target_status: FileStatus,
    /// The mode that it was made with; none if it was there before.
    made_with: Option<u32>,
    /// Nobody sees it before a stage above it is published, or its own.
    is_staged: bool,
    /// It is a stage itself, to be published when it is finished.
    stage: Option<Stage>,
    /// The directory above, where it was made in the open and is no part of this tree: its name is
    /// to be made durable there.
    above: Option<File>,
    /// Links were made in it in the open. A link can't be synced by itself: what it says is durable
    /// with its name, its times only with the whole file system.
    has_open_links: AtomicBool,
    /// Pieces that are not done.
    pending: AtomicUsize,
}

/// A piece of work.
pub(super) enum Piece {
    Enter { parent: Arc<Directory>, name: Name },
    List(Arc<Directory>),
}

/// Pieces that wait.
pub(super) type Pieces = WorkQueue<Piece>;

/// A name below a directory that is being copied.
struct Entry<'a> {
    directory: &'a Directory,
    name: &'a Name,
}

/// Names of one listing.
struct Batch {
    entries: Vec<(Name, FileKind)>,
    is_last: bool,
}

impl Worker<'_> {
    /// Does pieces until there are none, and can be none.
    pub(super) async fn work(&self, pieces: &Pieces) {
        // What the queue has no room for is done here, newest first: the queue stays bounded, and
        // so does this, by one batch of names a level.
        let mut own: Vec<Piece> = Vec::new();
        while let Some((piece, _unfinished)) = pieces.take().await {
            own.push(piece);
            while let Some(piece) = own.pop() {
                match piece {
                    Piece::Enter { parent, name } => {
                        self.enter(parent, &name, pieces, &mut own).await;
                    }
                    Piece::List(directory) => self.list(directory, pieces, &mut own).await,
                }
            }
        }
    }

    /// The root of a tree, with its first piece.
    pub(super) fn root(
        source: (File, FileStatus, &Path),
        target: (File, FileStatus, &Path),
        (made_with, stage, above): (Option<u32>, Option<Stage>, Option<File>),
    ) -> Piece {
        Piece::List(Arc::new(Directory {
            parent: None,
            source_path: source.2.to_owned(),
            target_path: target.2.to_owned(),
            source: source.0,
            target: target.0,
            status: source.1,
            target_status: target.1,
            made_with,
            is_staged: stage.is_some(),
            stage,
            above,
            has_open_links: AtomicBool::new(false),
            pending: AtomicUsize::new(1),
        }))
    }

    fn offer(piece: Piece, pieces: &Pieces, own: &mut Vec<Piece>) {
        if let Err(piece) = pieces.push(piece) {
            own.push(piece);
        }
    }

    async fn enter(
        &self,
        parent: Arc<Directory>,
        name: &Name,
        pieces: &Pieces,
        own: &mut Vec<Piece>,
    ) {
        let entered = self.open_pair(&parent, name).await;
        match entered {
            Ok(directory) => self.list(Arc::new(directory), pieces, own).await,
            Err(error) => {
                self.fail(&error);
                self.release(parent).await;
            }
        }
    }

    /// Opens a directory below `parent`, and makes or opens its copy.
    async fn open_pair(&self, parent: &Arc<Directory>, name: &Name) -> Result<Directory, Error> {
        let labels = Entry { directory: parent, name };
        let on_source = |error: Error| error.on(labels.source());
        let open = Open::new(Place::at(&parent.source, name), libc::O_RDONLY | libc::O_DIRECTORY);
        let is_followed = self.job.options.links == FollowLinks::Always;
        let open = if is_followed { open } else { open.confined() };
        let source = self.io.open(open).await.map_err(on_source)?;
        let status = self.io.status_of(&source).await.map_err(on_source)?;
        if is_followed {
            parent.check_no_loop(&status).map_err(on_source)?;
        }
        parent.check_not_a_copy(&status).map_err(on_source)?;
        let is_staged = parent.is_staged;
        let (target, made_with, stage) = self
            .open_or_make(&parent.target, name, &status, is_staged)
            .await
            .map_err(|error| error.on(labels.target()))?;
        let target_status = self.io.status_of(&target).await;
        let target_status = target_status.map_err(|error| error.on(labels.target()))?;
        Ok(Directory {
            parent: Some(Arc::clone(parent)),
            source_path: PathBuf::from(name.as_os_str()),
            target_path: PathBuf::from(name.as_os_str()),
            source,
            target,
            status,
            target_status,
            made_with,
            is_staged: is_staged || stage.is_some(),
            stage,
            above: None,
            has_open_links: AtomicBool::new(false),
            pending: AtomicUsize::new(1),
        })
    }

    /// Opens the copy of a directory, or makes it: in the open inside a stage, else as a stage of
    /// its own.
    pub(super) async fn open_or_make(
        &self,
        parent: &File,
        name: &Name,
        source: &FileStatus,
        is_staged: bool,
    ) -> Result<(File, Option<u32>, Option<Stage>), Error> {
        if !is_staged {
            let place = Place::at(parent, name);
            if let Some(status) = self.io.status_at(place.clone(), false).await? {
                if status.kind != FileKind::Directory {
                    let reason = "cannot overwrite non-directory with directory";
                    return Err(Error::new(ErrorKind::Operand, "create", reason));
                }
                if status.is_same_file(source) {
                    let reason = "source and target are the same file";
                    return Err(Error::new(ErrorKind::Operand, "copy", reason));
                }
                // A killed run may have come as far as the final name.
                self.remove_left_stage_of(parent, name).await?;
                return Ok((self.open_below(parent, name).await?, None, None));
            }
            if self.job.options.stage == StageOption::Auto {
                let (stage, directory) = self.make_stage(parent, name).await?;
                return Ok((directory, Some(0o700), Some(stage)));
            }
        }
        let mode = source.mode & 0o1777 | 0o700;
        let make = MakeDirectory { place: Place::at(parent, name), mode };
        match self.io.perform(Operation::MakeDirectory(make)).await {
            Ok(_) => Ok((self.open_below(parent, name).await?, Some(mode), None)),
            // Somebody else was faster.
            Err(error) if error.errno() == Some(Errno::EEXIST) && !is_staged => {
                Ok((self.open_below(parent, name).await?, None, None))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a directory in another, through no link.
    pub(super) async fn open_below(&self, parent: &File, name: &Name) -> Result<File, Error> {
        let open = Open::new(Place::at(parent, name), libc::O_RDONLY | libc::O_DIRECTORY);
        self.io.open(open.confined()).await
    }

    /// Reads names, and copies what they stand for.
    async fn list(&self, directory: Arc<Directory>, pieces: &Pieces, own: &mut Vec<Piece>) {
        match self.read_batch(&directory).await {
            Ok(batch) => {
                if !batch.is_last {
                    directory.pending.fetch_add(1, Ordering::Relaxed);
                    Self::offer(Piece::List(Arc::clone(&directory)), pieces, own);
                }
                for (name, kind) in batch.entries {
                    if self.job.cancellation.is_cancelled() {
                        self.summary.borrow_mut().was_cancelled = true;
                        break;
                    }
                    self.copy_entry(&directory, name, kind, pieces, own).await;
                }
            }
            Err(error) => self.fail(&error.on(directory.source_path())),
        }
        self.release(directory).await;
    }

    async fn read_batch(&self, directory: &Directory) -> Result<Batch, Error> {
        let mut entries = Vec::new();
        loop {
            let mut bytes = self.listing.take();
            bytes.resize(LISTING_BYTES, 0);
            let buffer = Buffer::Vec(bytes);
            let list = ListDirectory { directory: directory.source.clone(), buffer };
            self.io.check()?;
            let (length, operation) =
                self.io.perform_counted(Operation::ListDirectory(list)).await?;
            let Operation::ListDirectory(ListDirectory { buffer: Buffer::Vec(bytes), .. }) =
                operation
            else {
                unreachable!("an operation comes back as itself")
            };
            let listing = bytes.get(..length as usize).unwrap_or_default();
            let found = directory_entries(listing);
            entries.extend(found.map(|entry| (Name::from(entry.name), entry.kind)));
            *self.listing.borrow_mut() = bytes;
            if length == 0 {
                return Ok(Batch { entries, is_last: true });
            }
            // A listing that stops short of a name's room has most likely come to the end: asking
            // once more is cheaper than another piece.
            if length as usize + 2 * NAME_BYTES_MAX > LISTING_BYTES {
                return Ok(Batch { entries, is_last: false });
            }
        }
    }

    async fn copy_entry(
        &self,
        directory: &Arc<Directory>,
        name: Name,
        kind: FileKind,
        pieces: &Pieces,
        own: &mut Vec<Piece>,
    ) {
        let is_followed = self.job.options.links == FollowLinks::Always;
        let kind = match kind {
            FileKind::SymbolicLink if is_followed => FileKind::Unknown,
            kind => kind,
        };
        let labels = Entry { directory, name: &name };
        let kind = match kind {
            FileKind::Unknown => {
                let place = Place::at(&directory.source, &name);
                match self.io.status_at(place, is_followed).await {
                    Ok(Some(status)) => status.kind,
                    Ok(None) => {
                        let error = Error::from_errno("status", Errno::ENOENT);
                        return self.fail(&error.on(labels.source()));
                    }
                    Err(error) => return self.fail(&error.on(labels.source())),
                }
            }
            kind => kind,
        };
        let copied = match kind {
            FileKind::Directory => {
                directory.pending.fetch_add(1, Ordering::Relaxed);
                let parent = Arc::clone(directory);
                Self::offer(Piece::Enter { parent, name }, pieces, own);
                return;
            }
            FileKind::Regular => self.copy_regular(directory, &name, &labels).await,
            FileKind::SymbolicLink => self.copy_link(directory, &name, &labels).await,
            _ => {
                self.skip(&labels, "it is not a regular file, a directory or a symbolic link");
                return;
            }
        };
        if let Err(error) = copied {
            self.fail(&error);
        }
    }

    async fn copy_regular(
        &self,
        directory: &Directory,
        name: &Name,
        labels: &Entry<'_>,
    ) -> Result<(), Error> {
        let on_source = |error: Error| error.on(labels.source());
        // Not waiting: what was a file a moment ago may be a FIFO now.
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        let open = Open::new(Place::at(&directory.source, name), flags);
        let is_followed = self.job.options.links == FollowLinks::Always;
        let open = if is_followed { open } else { open.confined() };
        let source = self.io.open(open).await.map_err(on_source)?;
        let status = self.io.status_of(&source).await.map_err(on_source)?;
        if status.kind != FileKind::Regular {
            let reason = "it became something else than a regular file";
            let error = Error::new(ErrorKind::SourceChanged, "open", reason);
            return Err(on_source(error));
        }
        let target = Target {
            directory: directory.target.clone(),
            name: name.clone(),
            is_staged: directory.is_staged,
            is_operand: false,
        };
        self.copy_file(&source, &status, &target, labels).await
    }

    async fn copy_link(
        &self,
        directory: &Directory,
        name: &Name,
        labels: &Entry<'_>,
    ) -> Result<(), Error> {
        let target = Target {
            directory: directory.target.clone(),
            name: name.clone(),
            is_staged: directory.is_staged,
            is_operand: false,
        };
        if !directory.is_staged {
            directory.has_open_links.store(true, Ordering::Relaxed);
        }
        self.copy_symbolic_link(Place::at(&directory.source, name), &target, labels).await
    }

    /// Copies a symbolic link as a link, with its times.
    pub(super) async fn copy_symbolic_link(
        &self,
        source: Place,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let on_source = |error: Error| error.on(labels.source());
        let on_target = |error: Error| error.on(labels.target());
        // Reading the link would change the time of its last reading.
        let status = self.io.status_at(source.clone(), false).await.map_err(on_source)?;
        let status = status.ok_or_else(|| on_source(Error::from_errno("status", Errno::ENOENT)))?;
        let content = self.io.read_link(source).await.map_err(on_source)?;
        let place = Place::at(&target.directory, &target.name);
        let make =
            |place| Operation::SymbolicLink(SymbolicLink { place, content: content.clone() });
        let made = self.io.perform(make(place.clone())).await;
        let publication = match made {
            Ok(_) if target.is_staged => Publication::Staged,
            Ok(_) => Publication::New,
            Err(error) if error.errno() == Some(Errno::EEXIST) && !target.is_staged => {
                self.replace_by_link(target, &status, make, labels).await.map_err(on_target)?;
                Publication::Replaced
            }
            Err(error) => return Err(on_target(error)),
        };
        let times = Box::new(status.times());
        let change = ChangeTimes { subject: Subject::Place(place), times };
        self.io.perform(Operation::ChangeTimes(change)).await.map_err(on_target)?;
        if target.is_operand && self.job.options.durability == Durability::Full {
            // Its times are durable with the whole file system only.
            self.sync(&target.directory, SyncReach::FileSystem).await.map_err(on_target)?;
        }
        self.summary.borrow_mut().links += 1;
        if self.job.observer.wants_copies() {
            let (source, target) = (labels.source(), labels.target());
            let (source, target) = (source.as_path(), target.as_path());
            let event = Event::Copied { source, target, path: None, publication, bytes: 0 };
            self.job.observer.on_event(&event);
        }
        Ok(())
    }

    /// Puts a link in the place of what stands there, as cp does; never of a directory.
    async fn replace_by_link(
        &self,
        target: &Target,
        source: &FileStatus,
        make: impl Fn(Place) -> Operation,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let place = Place::at(&target.directory, &target.name);
        if let Some(standing) = self.io.status_at(place.clone(), false).await? {
            if standing.kind == FileKind::Directory {
                let reason = "cannot overwrite a directory with a link";
                return Err(Error::new(ErrorKind::Operand, "create", reason));
            }
            self.check_overwrite(source, &standing, labels)?;
        }
        for attempt in 0..crate::limits::TEMPORARY_ATTEMPTS_MAX {
            let salt = self.salt(attempt);
            let name = super::temporary::temporary_name(target.name.as_bytes(), salt);
            let name = Name::new(name).map_err(|errno| Error::from_errno("create", errno))?;
            match self.io.perform(make(Place::at(&target.directory, &name))).await {
                Err(error) if error.errno() == Some(Errno::EEXIST) => {
                    self.remove_leftover(target, &name).await?;
                    continue;
                }
                made => made?,
            };
            let source = Place::at(&target.directory, &name);
            let rename = Rename { source, target: place.clone(), replace: true };
            match self.io.perform_always(Operation::Rename(rename)).await {
                Ok(_) => return Ok(()),
                // A link can't be locked: another run has taken it for a leftover.
                Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                Err(error) => {
                    self.io.remove(&target.directory, &name, false).await;
                    return Err(error);
                }
            }
        }
        Err(Error::from_errno("create", Errno::EEXIST))
    }

    /// Gives up one piece of a directory; with the last one it is finished, and so may be those
    /// above it.
    async fn release(&self, directory: Arc<Directory>) {
        let mut next = Some(directory);
        while let Some(directory) = next {
            if directory.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            if let Err(error) = self.finish(&directory).await {
                self.fail(&error.on(directory.target_path()));
            }
            next = directory.parent.clone();
        }
    }

    /// Mode and times last: nothing is written into it any more.
    async fn finish(&self, directory: &Directory) -> Result<(), Error> {
        if self.job.cancellation.is_cancelled() {
            self.summary.borrow_mut().was_cancelled = true;
            if let Some(stage) = &directory.stage {
                self.remove_stage(stage).await;
            }
            return Ok(());
        }
        if let Some(made_with) = directory.made_with
            && let Err(error) = self.finish_attributes(directory, made_with).await
        {
            // What is in it is complete all the same.
            self.fail(&error.on(directory.target_path()));
        }
        let publication = match &directory.stage {
            Some(stage) => {
                self.publish_stage(stage, &directory.target).await?;
                Publication::New
            }
            None if directory.is_staged => Publication::Staged,
            None => {
                if self.job.options.durability == Durability::Full {
                    let has_links = directory.has_open_links.load(Ordering::Relaxed);
                    let reach = if has_links { SyncReach::FileSystem } else { SyncReach::File };
                    self.sync(&directory.target, reach).await?;
                    if let Some(above) = &directory.above {
                        self.sync_names(above, &directory.target).await?;
                    }
                }
                Publication::New
            }
        };
        self.summary.borrow_mut().directories += 1;
        if self.job.observer.wants_copies() {
            let (source, target) = (directory.source_path(), directory.target_path());
            let (source, target) = (source.as_path(), target.as_path());
            let event = Event::Copied { source, target, path: None, publication, bytes: 0 };
            self.job.observer.on_event(&event);
        }
        Ok(())
    }

    async fn finish_attributes(&self, directory: &Directory, made_with: u32) -> Result<(), Error> {
        let source = &directory.status;
        let is_right = source.mode == made_with && !self.job.surroundings.has_umask;
        if !is_right {
            let status = self.io.status_of(&directory.target).await?;
            let is_same_owner = (status.owner, status.group) == (source.owner, source.group);
            // The set-group-id bit of the directory above is inherited, and stays.
            let kept = if is_same_owner { source.mode & 0o6000 } else { 0 };
            let mode = source.mode & 0o1777 | kept | status.mode & 0o2000;
            let change = ChangeMode { file: directory.target.clone(), mode };
            self.io.perform(Operation::ChangeMode(change)).await?;
        }
        let change = ChangeTimes {
            subject: Subject::File(directory.target.clone()),
            times: Box::new(source.times()),
        };
        self.io.perform(Operation::ChangeTimes(change)).await.map(drop)
    }
}

impl Directory {
    fn source_path(&self) -> PathBuf {
        match &self.parent {
            Some(parent) => parent.source_path().join(&self.source_path),
            None => self.source_path.clone(),
        }
    }

    fn target_path(&self) -> PathBuf {
        match &self.parent {
            Some(parent) => parent.target_path().join(&self.target_path),
            None => self.target_path.clone(),
        }
    }

    /// Fails if a link or a mount leads from the source to a directory that is being written: its
    /// copy would be copied into it without end.
    fn check_not_a_copy(&self, below: &FileStatus) -> Result<(), Error> {
        let mut above = Some(self);
        while let Some(directory) = above {
            if directory.target_status.is_same_file(below) {
                let reason = "cannot copy a directory into itself";
                return Err(Error::new(ErrorKind::Operand, "enter", reason));
            }
            above = directory.parent.as_deref();
        }
        Ok(())
    }

    /// Fails if a followed link leads back to a directory that is being copied.
    fn check_no_loop(&self, below: &FileStatus) -> Result<(), Error> {
        let mut above = Some(self);
        while let Some(directory) = above {
            if directory.status.is_same_file(below) {
                let reason = "a symbolic link leads back to a directory above it";
                return Err(Error::new(ErrorKind::Operand, "enter", reason));
            }
            above = directory.parent.as_deref();
        }
        Ok(())
    }
}

impl Labels for Entry<'_> {
    fn source(&self) -> PathBuf {
        self.directory.source_path().join(self.name.as_os_str())
    }

    fn target(&self) -> PathBuf {
        self.directory.target_path().join(self.name.as_os_str())
    }
}
