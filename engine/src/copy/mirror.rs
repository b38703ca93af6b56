//! Deleting what is in the target and not in the source: the last thing that a copy does, and only
//! if all of it succeeded.
//!
//! Both trees are walked once more, side by side. A name goes only if a complete listing of the
//! source's directory did not have it, the source's directory was not changed since the copy began,
//! nothing stands there under that name a moment before, and what goes is what was looked at.
//! Whatever is in doubt stays, and is said.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::libc;

use super::extraneous::{Fate, NameSet, fate};
use super::manifest::ManifestPlace;
use super::parked::Counted;
use super::publish::Target;
use super::verdict::looks_like_backup;
use super::worker::{Job, Labels, Worker};
use super::{Durability, EntryKind, Event, FollowLinks};
use crate::error::{Errno, Error, ErrorKind};
use crate::operation::{
    ChangeTimes, File, FileKind, FileStatus, Name, Open, Operation, Place, Subject, SyncReach,
    Unlink,
};
use crate::units::WallTime;

/// The roots of a tree that was copied.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) source: File,
    pub(super) target: File,
    pub(super) source_path: PathBuf,
    pub(super) target_path: PathBuf,
    /// It was there before: a new one has nothing to delete.
    pub(super) existed: bool,
}

/// A directory of the target that is being looked through.
struct Frame {
    /// None while it is parked: descriptors are short, and one below it is looked through.
    sides: Option<OpenSides>,
    status: FileStatus,
    /// Its name in the one above; the root has none.
    name: Option<Name>,
    against: Against,
    /// Names that are still to be looked at.
    entries: Vec<(Name, FileKind)>,
    is_listed: bool,
    has_deleted: bool,
}

/// A directory that is open, and the one that it is held against, if there is one.
struct OpenSides {
    source: Option<File>,
    target: File,
    _counted: Counted,
}

/// What a directory of the target is held against.
enum Against {
    /// A directory of the source.
    Source { status: FileStatus, names: NameSet },
    /// Nothing: it goes as a whole, but for what stays in it.
    Nothing { has_kept: bool },
}

/// What is never deleted, wherever it is met.
struct Kept<'a> {
    sources: Vec<FileStatus>,
    /// Where the list of this run will be; the one of an earlier run may stand there.
    list: Option<&'a ManifestPlace>,
}

/// A name in a directory that is looked through, for messages.
struct Named<'a> {
    root: &'a Root,
    path: &'a Path,
}

impl Worker<'_> {
    /// Deletes below each root what its source does not have.
    pub(super) async fn mirror(
        &self,
        roots: &[Root],
        since: WallTime,
        list: Option<&ManifestPlace>,
    ) {
        let is_whole = {
            let summary = self.summary.borrow();
            summary.failed == 0 && !summary.was_cancelled
        };
        if !is_whole {
            let warning = "nothing was deleted, because not everything was copied";
            for root in roots.iter().filter(|root| root.existed) {
                self.warn(&Named { root, path: Path::new("") }, warning);
            }
            return;
        }
        for root in roots.iter().filter(|root| root.existed) {
            let deleted = match self.check_apart(root, roots).await {
                Ok(()) => self.mirror_tree(root, roots, since, list).await,
                Err(error) => Err(error),
            };
            if let Err(error) = deleted {
                self.fail(&error.on(&root.target_path));
            }
        }
    }

    /// Fails if what is deleted in one tree could be a part of another.
    async fn check_apart(&self, root: &Root, roots: &[Root]) -> Result<(), Error> {
        let refuse = |reason| Err(Error::new(ErrorKind::Operand, "delete", reason));
        let target = self.io.status_of(&root.target).await?;
        for other in roots {
            if self.is_inside(&other.source, &target).await? {
                return refuse("a source is inside the target");
            }
            let is_itself = std::ptr::eq(other, root);
            if !is_itself && self.is_inside(&other.target, &target).await? {
                return refuse("another source was copied into it");
            }
        }
        Ok(())
    }

    /// Whether a directory is another, or is inside it.
    pub(super) async fn is_inside(
        &self,
        directory: &File,
        other: &FileStatus,
    ) -> Result<bool, Error> {
        let mut directory = directory.clone();
        let mut status = self.io.status_of(&directory).await?;
        loop {
            if status.is_same_file(other) {
                return Ok(true);
            }
            let place = Place::at(&directory, &Name::from(c".."));
            let open = Open::new(place, libc::O_PATH | libc::O_DIRECTORY);
            let above = self.io.open(open).await?;
            let above_status = self.io.status_of(&above).await?;
            if above_status.is_same_file(&status) {
                return Ok(false);
            }
            (directory, status) = (above, above_status);
        }
    }

    /// Walks the target, depth first, and holds it against the source.
    async fn mirror_tree(
        &self,
        root: &Root,
        roots: &[Root],
        since: WallTime,
        list: Option<&ManifestPlace>,
    ) -> Result<(), Error> {
        let mut kept = Kept { sources: Vec::new(), list };
        for root in roots {
            kept.sources.push(self.io.status_of(&root.source).await?);
        }
        let here = Name::from(c".");
        let first = self.open_mirrored((&root.source, &root.target), &here).await?;
        let first = Frame { name: None, ..first };
        let mut frames = Vec::new();
        frames.extend(self.list_source(first, &root.source_path, since).await?);
        while self.reopen_last(&mut frames, None, root).await
            && let Some(frame) = frames.last_mut()
        {
            self.io.check()?;
            if let Some((name, kind)) = frame.entries.pop() {
                let path = path_of(&frames, Some(&name));
                let labels = Named { root, path: &path };
                let frame = frames.last_mut().expect("it was just looked at");
                match self.settle(frame, &name, kind, &path, &kept, &labels).await {
                    Ok(None) => {}
                    Ok(Some(below)) => {
                        let source_path = root.source_path.join(&path);
                        let begun = self.list_source(below, &source_path, since).await;
                        if let Some(below) = self.report_on(begun, &labels).flatten() {
                            self.park_above(&mut frames, &below).await;
                            frames.push(below);
                        }
                    }
                    Err(error) => {
                        frame.keep();
                        self.report_on::<()>(Err(error), &labels);
                    }
                }
            } else if frame.is_listed {
                let path = path_of(&frames, None);
                let ended = frames.pop().expect("it was just looked at");
                let labels = Named { root, path: &path };
                self.reopen_last(&mut frames, Some(&ended), root).await;
                let ended = self.leave(ended, frames.last_mut(), &labels).await;
                self.report_on(ended, &labels);
            } else {
                if let Err(error) = self.list_on(frame).await {
                    frame.is_listed = true;
                    frame.keep();
                    let path = path_of(&frames, None);
                    self.report_on::<()>(Err(error), &Named { root, path: &path });
                }
            }
        }
        Ok(())
    }

    /// Reads some more names of a directory.
    async fn list_on(&self, frame: &mut Frame) -> Result<(), Error> {
        let batch = self.read_batch(frame.target()).await?;
        frame.entries.extend(batch.entries);
        frame.is_listed = batch.is_last;
        Ok(())
    }

    /// Parks the last directory, if descriptors are short and one below it is about to be looked
    /// through. The root stays open: from there the way is walked down.
    async fn park_above(&self, frames: &mut [Frame], below: &Frame) {
        let [_, .., last] = frames else { return };
        // What only the target has does not lead back to the source.
        let leads_back = last.is_in_source() == below.is_in_source();
        if !leads_back || !self.are_directories_short() {
            return;
        }
        // Where a listing stopped is known to its descriptor alone.
        while !last.is_listed {
            if self.list_on(last).await.is_err() {
                return;
            }
        }
        last.sides = None;
    }

    /// Opens the last directory again if it is parked, by way of one in it, or down from the root.
    /// One that is not found any more is given up, with all that is in it; then the one above it is
    /// the last. Returns whether there is one.
    async fn reopen_last(
        &self,
        frames: &mut Vec<Frame>,
        mut below: Option<&Frame>,
        root: &Root,
    ) -> bool {
        while let Some(frame) = frames.last() {
            if frame.sides.is_some() {
                return true;
            }
            let path = path_of(frames, None);
            let up = match below.take() {
                Some(below) => self.open_above_of(below, frame).await.ok(),
                None => None,
            };
            let opened = match up {
                Some(sides) => Ok(sides),
                None => self.walk_down_to(frame, &path, root).await,
            };
            let opened = self.report_on(opened, &Named { root, path: &path });
            let is_given_up = opened.is_none();
            if is_given_up {
                frames.pop();
            }
            match frames.last_mut() {
                Some(above) if is_given_up => above.keep(),
                Some(frame) => frame.sides = opened,
                None => {}
            }
        }
        false
    }

    /// Opens the directory above one that is open, on both sides.
    async fn open_above_of(&self, below: &Frame, frame: &Frame) -> Result<OpenSides, Error> {
        let name = Name::from(c"..");
        let up = async |file: &File| self.open_directory(Place::at(file, &name)).await;
        let source = match (frame.is_in_source(), below.source()) {
            (true, Some(below)) => Some(up(below).await),
            _ => None,
        };
        let target = up(below.target()).await;
        self.expect_sides(frame, source, target).await
    }

    /// Opens a directory by way of all above it, on both sides.
    async fn walk_down_to(
        &self,
        frame: &Frame,
        path: &Path,
        root: &Root,
    ) -> Result<OpenSides, Error> {
        let path = path.as_os_str().as_bytes();
        let is_followed = self.job.options.links == FollowLinks::Always;
        let source = match frame.is_in_source() {
            true => Some(self.open_far(&root.source, path, libc::O_RDONLY, is_followed).await),
            false => None,
        };
        let target = self.open_far(&root.target, path, libc::O_RDONLY, false).await;
        self.expect_sides(frame, source, target).await
    }

    /// Fails if what was found is not what was looked at before.
    async fn expect_sides(
        &self,
        frame: &Frame,
        source: Option<Result<File, Error>>,
        target: Result<File, Error>,
    ) -> Result<OpenSides, Error> {
        let source = match (source, &frame.against) {
            (Some(found), Against::Source { status, .. }) => {
                Some(self.expect(found, status).await?)
            }
            _ => None,
        };
        let target = self.expect(target, &frame.status).await?;
        Ok(self.sides(source, target))
    }

    fn sides(&self, source: Option<File>, target: File) -> OpenSides {
        OpenSides { source, target, _counted: self.job.open_directories.count() }
    }

    /// Reports a failure about one name; the others go on.
    fn report_on<T>(&self, outcome: Result<T, Error>, labels: &Named<'_>) -> Option<T> {
        outcome.map_err(|error| self.fail(&error.on(labels.target()))).ok()
    }

    /// Opens a directory that is on both sides.
    async fn open_mirrored(
        &self,
        (source, target): (&File, &File),
        name: &Name,
    ) -> Result<Frame, Error> {
        let open = Open::new(Place::at(source, name), libc::O_RDONLY | libc::O_DIRECTORY);
        let is_followed = self.job.options.links == FollowLinks::Always;
        let open = if is_followed { open } else { open.confined() };
        let directory = self.open_to_list(open).await?;
        let status = self.io.status_of(&directory).await?;
        let target = self.open_below(target, name).await?;
        let against = Against::Source { status, names: NameSet::default() };
        Frame::new((Some(directory), target), name, against, self).await
    }

    /// Lists the source of a directory that is on both sides. None if nothing may be deleted there.
    async fn list_source(
        &self,
        mut frame: Frame,
        source_path: &Path,
        since: WallTime,
    ) -> Result<Option<Frame>, Error> {
        let Some(directory) = frame.source().cloned() else { return Ok(Some(frame)) };
        let Against::Source { status, names } = &mut frame.against else { return Ok(Some(frame)) };
        // Times of files go on in ticks of some milliseconds: what changed in the first of them counts
        // as having changed before.
        if status.changed >= since {
            let reason = "nothing is deleted in it: its source was changed while it was copied";
            return Err(Error::new(ErrorKind::SourceChanged, "delete", reason));
        }
        loop {
            let listed = self.read_batch(&directory).await;
            let batch = listed.map_err(|error| error.on(source_path))?;
            names.extend(batch.entries.iter().map(|(name, _)| name.as_bytes()));
            if batch.is_last {
                names.sort();
                return Ok(Some(frame));
            }
        }
    }

    /// Does what is to be done about one name: deletes it, or returns it as a directory to be
    /// looked through.
    async fn settle(
        &self,
        frame: &mut Frame,
        name: &Name,
        kind: FileKind,
        path: &Path,
        kept: &Kept<'_>,
        labels: &Named<'_>,
    ) -> Result<Option<Frame>, Error> {
        let place = Place::at(frame.target(), name);
        let kind = match kind {
            FileKind::Unknown => match self.io.status_at(place.clone(), false).await? {
                Some(status) => status.kind,
                None => return Ok(None),
            },
            kind => kind,
        };
        let is_directory = kind == FileKind::Directory;
        let is_excluded = self.job.options.selection.excludes(|| path, is_directory);
        let in_source = match &frame.against {
            Against::Source { names, .. } => Some(names),
            Against::Nothing { .. } => None,
        };
        let backup = self.job.options.existing.backup.as_ref();
        let is_backup = backup.is_some_and(|backup| looks_like_backup(name.as_bytes(), backup));
        match fate(name.as_bytes(), is_directory, is_excluded, is_backup, in_source) {
            Fate::Stay => frame.keep(),
            Fate::Enter => {
                let Some(source) = frame.source() else { return Ok(None) };
                let both = (source, frame.target());
                return match self.open_mirrored(both, name).await {
                    Ok(below) => Ok(Some(below)),
                    // No directory in the source, or a link that was not followed.
                    Err(error) if is_no_directory(&error) => Ok(None),
                    Err(error) => Err(error),
                };
            }
            Fate::Leftover if self.is_rehearsal() => {}
            Fate::Leftover => self.remove_dead(frame, name, is_directory).await?,
            Fate::Go => return self.delete_extraneous(frame, name, kept, labels).await,
        }
        Ok(None)
    }

    /// Removes what a run has left that is not alive any more; anything else of that name stays.
    async fn remove_dead(
        &self,
        frame: &mut Frame,
        name: &Name,
        is_directory: bool,
    ) -> Result<(), Error> {
        if is_directory {
            self.remove_left_stage(frame.target(), name).await?;
        } else {
            let directory = frame.target().clone();
            let target = Target::new(directory, name.clone());
            self.remove_leftover(&target, name).await?;
        }
        if self.io.status_at(Place::at(frame.target(), name), false).await?.is_some() {
            frame.keep();
        }
        Ok(())
    }

    /// Deletes a name that is in the target only, or returns it as a directory to be emptied first.
    async fn delete_extraneous(
        &self,
        frame: &mut Frame,
        name: &Name,
        kept: &Kept<'_>,
        labels: &Named<'_>,
    ) -> Result<Option<Frame>, Error> {
        let place = Place::at(frame.target(), name);
        let Some(status) = self.io.status_at(place, false).await? else { return Ok(None) };
        if !self.is_still_missing(frame, name).await? {
            return Ok(None);
        }
        let is_foreign = (status.device, status.mount) != (frame.status.device, frame.status.mount);
        if status.is_mount_point || is_foreign {
            frame.keep();
            self.skip_target(labels, "it is not deleted: another file system is mounted there");
            return Ok(None);
        }
        if kept.sources.iter().any(|source| source.is_same_file(&status)) {
            frame.keep();
            self.skip_target(labels, "it is not deleted: it is a source");
            return Ok(None);
        }
        if kept.list.is_some_and(|list| list.is(&status)) {
            frame.keep();
            return Ok(None);
        }
        if status.kind != FileKind::Directory {
            self.delete_name(frame, name, &status, labels).await?;
            return Ok(None);
        }
        let target = self.open_below(frame.target(), name).await?;
        let has_kept = kept.list.is_some_and(|list| list.is_in(&status));
        let against = Against::Nothing { has_kept };
        let below = Frame::new((None, target), name, against, self).await?;
        if !below.status.is_same_file(&status) {
            return Err(exchanged());
        }
        Ok(Some(below))
    }

    /// Whether the source's directory is there and does not have the name, now. Below a directory
    /// that goes as a whole nothing is asked any more.
    async fn is_still_missing(&self, frame: &Frame, name: &Name) -> Result<bool, Error> {
        let Some(directory) = frame.source() else { return Ok(true) };
        if self.io.status_at(Place::at(directory, name), false).await?.is_some() {
            return Ok(false);
        }
        if self.io.status_of(directory).await?.links == 0 {
            let reason = "its source has vanished";
            return Err(Error::new(ErrorKind::SourceChanged, "delete", reason));
        }
        Ok(true)
    }

    /// Deletes a name, if it still stands for what was looked at.
    async fn delete_name(
        &self,
        frame: &mut Frame,
        name: &Name,
        status: &FileStatus,
        labels: &Named<'_>,
    ) -> Result<(), Error> {
        let place = Place::at(frame.target(), name);
        match self.io.status_at(place.clone(), false).await? {
            None => return Ok(()),
            Some(now) if !now.is_same_file(status) => return Err(exchanged()),
            Some(_) => {}
        }
        let (path, kind) = (labels.target(), entry_kind(status.kind));
        if self.is_rehearsal() {
            self.summary.borrow_mut().deleted += 1;
            self.job.observer.on_event(&Event::WouldDelete { path: &path, kind });
            return Ok(());
        }
        let is_directory = status.kind == FileKind::Directory;
        match self.io.perform(Operation::Unlink(Unlink { place, is_directory })).await {
            Ok(_) => {}
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
        frame.has_deleted = true;
        self.summary.borrow_mut().deleted += 1;
        self.job.observer.on_event(&Event::Deleted { path: &path, kind });
        Ok(())
    }

    /// Finishes a directory that was looked through: one that goes is deleted, one that stays gets
    /// the times back that the copy gave it.
    async fn leave(
        &self,
        ended: Frame,
        above: Option<&mut Frame>,
        labels: &Named<'_>,
    ) -> Result<(), Error> {
        match &ended.against {
            Against::Nothing { has_kept } => {
                let (Some(above), Some(name)) = (above, &ended.name) else { return Ok(()) };
                if *has_kept {
                    above.keep();
                    return Ok(());
                }
                let deleted = self.delete_name(above, name, &ended.status, labels).await;
                if deleted.is_err() {
                    above.keep();
                }
                deleted
            }
            Against::Source { status, .. } => {
                if !ended.has_deleted {
                    return Ok(());
                }
                if ended.status.modified == status.modified {
                    let subject = Subject::File(ended.target().clone());
                    let change = ChangeTimes { subject, times: Box::new(ended.status.times()) };
                    self.io.perform(Operation::ChangeTimes(change)).await?;
                }
                if self.job.options.durability == Durability::Full {
                    self.sync(ended.target(), SyncReach::File).await?;
                }
                Ok(())
            }
        }
    }

    fn skip_target(&self, labels: &Named<'_>, reason: &str) {
        self.summary.borrow_mut().skipped += 1;
        self.job.observer.on_event(&Event::Skipped { source: &labels.target(), reason });
    }
}

impl Job<'_> {
    /// Whether what the sources do not have is deleted.
    pub(super) fn mirrors(&self) -> bool {
        self.options.selection.delete
    }
}

impl Frame {
    async fn new(
        (source, target): (Option<File>, File),
        name: &Name,
        against: Against,
        worker: &Worker<'_>,
    ) -> Result<Self, Error> {
        let status = worker.io.status_of(&target).await?;
        let sides = Some(worker.sides(source, target));
        let (name, entries) = (Some(name.clone()), Vec::new());
        Ok(Self { sides, status, name, against, entries, is_listed: false, has_deleted: false })
    }

    fn target(&self) -> &File {
        &self.sides.as_ref().expect("what is looked through is open").target
    }

    /// The directory of the source, if there is one.
    fn source(&self) -> Option<&File> {
        self.sides.as_ref()?.source.as_ref()
    }

    fn is_in_source(&self) -> bool {
        matches!(self.against, Against::Source { .. })
    }

    /// Something in it stays, so it does.
    fn keep(&mut self) {
        if let Against::Nothing { has_kept, .. } = &mut self.against {
            *has_kept = true;
        }
    }
}

/// The path of the last directory, or of a name in it, below the root. No directory keeps its own: of a
/// deep tree they would fill the memory.
fn path_of(frames: &[Frame], name: Option<&Name>) -> PathBuf {
    frames.iter().filter_map(|frame| frame.name.as_ref()).chain(name).map(Name::as_os_str).collect()
}

fn entry_kind(kind: FileKind) -> EntryKind {
    match kind {
        FileKind::Regular | FileKind::Unknown => EntryKind::File,
        FileKind::Directory => EntryKind::Directory,
        FileKind::SymbolicLink => EntryKind::SymbolicLink,
        FileKind::Fifo => EntryKind::Fifo,
        FileKind::Socket => EntryKind::Socket,
        FileKind::CharacterDevice => EntryKind::CharacterDevice,
        FileKind::BlockDevice => EntryKind::BlockDevice,
    }
}

fn is_no_directory(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ENOTDIR | Errno::ELOOP))
}

fn exchanged() -> Error {
    Error::new(ErrorKind::Io, "delete", "it was exchanged meanwhile")
}

impl Labels for Named<'_> {
    fn source(&self) -> PathBuf {
        // What is told of is in the target; the source does not have it.
        self.target()
    }

    fn target(&self) -> PathBuf {
        match self.path.as_os_str().is_empty() {
            true => self.root.target_path.clone(),
            false => self.root.target_path.join(self.path),
        }
    }
}
