//! Names of one file of the source become names of one copy, across the whole run.
//!
//! The first name is copied; each later one is linked to the first's copy. Who meets a file while
//! another shard copies it does not wait: the name is left to that shard. A copy is remembered by a
//! directory that is held, its anchor, and the path below it: the root of a tree, or a stage, whose
//! own name changes when it is published. Then its anchor is based on the directory above.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;

use super::directory::Directory;
use super::publish::{Target, split_path};
use super::standing::refused;
use super::temporary::temporary_name;
use super::worker::{Labels, Worker};
use super::{Action, Copied, Durability, EntryKind, Event, FollowLinks, Publication};
use crate::error::{Errno, Error, ErrorKind, Refusal};
use crate::limits::TEMPORARY_ATTEMPTS_MAX;
use crate::operation::{File, FileKind, FileStatus, Link, Name, Operation, Place, SyncReach};

/// Files of the source that have several names, and what became of each: by device and inode.
#[derive(Default)]
pub(super) struct HardLinks(Mutex<HashMap<(u64, u64), State>>);

enum State {
    /// It is being copied. These names came meanwhile.
    Copying(Vec<Waiting>),
    Copied(First),
}

/// A name that waits for the copy of its file. It keeps its directory from being finished.
pub(super) struct Waiting {
    pub(super) directory: Arc<Directory>,
    pub(super) name: Name,
    pub(super) kind: FileKind,
}

/// Where the first copy of a file is.
#[derive(Clone)]
struct First {
    anchor: Arc<Anchor>,
    path: Arc<[u8]>,
    /// Device and inode; none in a stage, where nobody can exchange it.
    file: Option<(u64, u64)>,
}

/// A directory that paths of copies are relative to.
pub(super) struct Anchor(Mutex<Base>);

#[derive(Clone)]
enum Base {
    /// It is held open.
    Open(File),
    /// It is found, or was published, under this path below another.
    Below(Arc<Anchor>, Vec<u8>),
}

/// What to do about a name.
enum Meeting {
    /// It is the first: copy it, then say what came of it.
    First,
    /// Link it to the first.
    Later(First),
    /// Nothing: another does it.
    Left,
}

impl HardLinks {
    /// Somebody has come to a name of a file. `failed` is the copy that could not be linked to.
    fn meet(
        &self,
        file: (u64, u64),
        failed: Option<&First>,
        wait: impl FnOnce() -> Option<Waiting>,
    ) -> Meeting {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match files.get_mut(&file) {
            Some(State::Copying(waiting)) => {
                waiting.extend(wait());
                Meeting::Left
            }
            Some(State::Copied(first))
                if failed.is_none_or(|failed| !Arc::ptr_eq(&failed.path, &first.path)) =>
            {
                Meeting::Later(first.clone())
            }
            Some(State::Copied(_)) | None => {
                files.insert(file, State::Copying(Vec::new()));
                Meeting::First
            }
        }
    }

    /// The first name was copied, or not; returns who came meanwhile.
    fn settle(&self, file: (u64, u64), first: Option<First>) -> Vec<Waiting> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = match first {
            Some(first) => files.insert(file, State::Copied(first)),
            None => files.remove(&file),
        };
        match state {
            Some(State::Copying(waiting)) => waiting,
            _ => Vec::new(),
        }
    }
}

impl Anchor {
    pub(super) fn open(directory: &File) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Base::Open(directory.clone()))))
    }

    /// A directory in a deep tree, which is not held open.
    pub(super) fn below(above: Arc<Self>, path: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Base::Below(above, path))))
    }

    /// A stage was published: its copies are found by the directory above from now on.
    pub(super) fn rebase(&self, above: Arc<Self>, path: Vec<u8>) {
        let base = Base::Below(above, path);
        drop(mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), base));
    }

    /// Whether it is a directory that is held open still: a stage, until it is published.
    fn is_open(&self) -> bool {
        matches!(self.base(), Base::Open(_))
    }

    fn base(&self) -> Base {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A directory that is held open, and the path of a copy below it.
    fn resolve(&self, path: &[u8]) -> (File, Vec<u8>) {
        let mut ways = vec![path.to_vec()];
        let mut base = self.base();
        loop {
            match base {
                Base::Open(directory) => {
                    ways.reverse();
                    return (directory, ways.join(&b'/'));
                }
                Base::Below(above, way) => {
                    ways.push(way);
                    base = above.base();
                }
            }
        }
    }
}

impl Worker<'_> {
    /// Copies a name of a file, or links it to the copy of another name of the same file.
    ///
    /// `directory` is where the target is in a tree; an operand has none, and meets nobody.
    pub(super) async fn copy_linked(
        &self,
        status: &FileStatus,
        target: &Target,
        directory: Option<&Arc<Directory>>,
        labels: &dyn Labels,
        copy: impl AsyncFn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let is_followed = self.job.options.links == FollowLinks::Always;
        let is_asked = self.job.options.preserve.links && !self.is_rehearsal();
        // It may have had more names before this run removed them.
        let names = status.links.saturating_add(self.job.removed_names(status));
        if !is_asked || (names < 2 && !is_followed) {
            return copy().await;
        }
        let file = (status.device, status.inode);
        let wait = || {
            let directory = Arc::clone(directory?);
            directory.pending.fetch_add(1, Ordering::Relaxed);
            Some(Waiting { directory, name: target.name.clone(), kind: status.kind })
        };
        let mut failed: Option<First> = None;
        loop {
            match self.job.hard_links.meet(file, failed.as_ref(), wait) {
                Meeting::Left => return Ok(()),
                Meeting::First => {
                    self.published.take();
                    let copied = copy().await;
                    let first = match &copied {
                        Ok(()) => {
                            self.remember_in_manifest(file, labels);
                            self.first(target, directory).await
                        }
                        Err(_) => None,
                    };
                    let waiting = self.job.hard_links.settle(file, first);
                    self.deferred.borrow_mut().extend(waiting);
                    return copied;
                }
                Meeting::Later(first) => {
                    let Err(error) = self.link_to(&first, status, target, labels).await else {
                        return Ok(());
                    };
                    match (error.kind(), error.errno()) {
                        (ErrorKind::Cancelled | ErrorKind::Operand, _) => {
                            return Err(error.on(labels.target()));
                        }
                        // The copy was discarded, or exchanged: this is the first one now.
                        (_, Some(Errno::ENOENT | Errno::ESTALE)) => {}
                        // It is said, and copied all the same.
                        _ => self.fail(&error.on(labels.target())),
                    }
                    failed = Some(first);
                }
            }
        }
    }

    /// Where a file is that was just copied.
    async fn first(&self, target: &Target, directory: Option<&Arc<Directory>>) -> Option<First> {
        let (anchor, path) = match directory {
            Some(directory) => directory.anchored(target.name.as_bytes()),
            None => (Anchor::open(&target.directory), target.name.as_bytes().to_vec()),
        };
        let mut file = None;
        if !target.is_staged {
            file = self.published.take();
            if file.is_none() {
                let place = Place::at(&target.directory, &target.name);
                let status = self.io.status_at(place, false).await.ok()??;
                file = Some((status.device, status.inode));
            }
        }
        Some(First { anchor, path: path.into(), file })
    }

    async fn link_to(
        &self,
        first: &First,
        source: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let waits = self.will_link_wait(target, labels).await;
        let from = self.find_first(first).await?;
        let place = Place::at(&target.directory, &target.name);
        let (publication, backup) = if target.is_staged {
            self.clear(target).await;
            let link = Link { source: from, target: place, follow: false };
            self.io.perform(Operation::Link(link)).await?;
            (Publication::Staged, None)
        } else {
            self.link_in_the_open(first, source, &from, target, labels).await?
        };
        self.sync_link(target, waits).await?;
        self.list_link_in_manifest(source, labels);
        self.summary.borrow_mut().hard_links += 1;
        if self.job.observer.wants_copies() {
            let (from, to) = (labels.source(), labels.target());
            let kind = EntryKind::of(source.kind);
            let action = Action::Linked;
            let backup = backup.map(|name| to.with_file_name(name.as_os_str()));
            let (backup, removed) = (backup.as_deref(), self.has_removed(publication));
            let new = Copied::new(&from, &to, kind);
            let copied = Copied { action, publication, backup, removed, ..new };
            self.job.observer.on_event(&Event::Copied(&copied));
        }
        self.settle_link(target, waits, labels);
        Ok(())
    }

    /// The first copy, by an open directory and a name in it.
    async fn find_first(&self, first: &First) -> Result<Place, Error> {
        let named = |bytes: &[u8]| Name::new(bytes).map_err(|e| Error::from_errno("make link", e));
        let (anchor, path) = first.anchor.resolve(&first.path);
        let (above, leaf) = split_path(&path);
        if above == b"." {
            return Ok(Place::at(&anchor, &named(leaf)?));
        }
        let directory = self.open_far(&anchor, above, libc::O_PATH, false).await?;
        Ok(Place::at(&directory, &named(leaf)?))
    }

    /// Links under a temporary name first: what is linked is looked at before it gets its name.
    /// Returns where what stood there is kept, too.
    async fn link_in_the_open(
        &self,
        first: &First,
        source: &FileStatus,
        from: &Place,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(Publication, Option<Name>), Error> {
        let place = Place::at(&target.directory, &target.name);
        let mut backup = None;
        let standing = self.io.status_at(place.clone(), false).await?;
        if let Some(standing) = &standing {
            if first.file == Some((standing.device, standing.inode)) {
                return Ok((Publication::Existing, None));
            }
            if standing.kind == FileKind::Directory {
                return Err(refused(Refusal::FileOntoDirectory, labels));
            }
            self.check_overwrite(source, standing, target, labels)?;
            Self::check_seen(target, Some(standing), labels)?;
            backup = self.back_up(target).await?;
        }
        let is_in_stage = first.file.is_none() && first.anchor.is_open();
        if is_in_stage && self.job.options.durability != Durability::None {
            // What is in a stage is put on the disk with it, and this name would be there before.
            self.sync(&target.directory, SyncReach::FileSystem).await?;
        }
        for attempt in 0..TEMPORARY_ATTEMPTS_MAX {
            let name = Name::new(temporary_name(target.name.as_bytes(), self.salt(attempt)))
                .map_err(|errno| Error::from_errno("make link", errno))?;
            let temporary = Place::at(&target.directory, &name);
            let link = Link { source: from.clone(), target: temporary.clone(), follow: false };
            match self.io.perform(Operation::Link(link)).await {
                Err(error) if error.errno() == Some(Errno::EEXIST) => {
                    self.remove_leftover(target, &name).await?;
                    continue;
                }
                linked => linked?,
            };
            let named = self.publish_link(first, &temporary, standing.as_ref(), place).await;
            // After a rename onto another name of the same file both are still there.
            if !matches!(named, Ok(true)) {
                self.io.remove(&target.directory, &name, false).await;
            }
            named?;
            let is_new = standing.is_none();
            let publication = if is_new { Publication::New } else { Publication::Replaced };
            return Ok((publication, backup));
        }
        Err(Error::from_errno("make link", Errno::EEXIST))
    }

    /// Gives a link its name; says whether its temporary name is gone with that.
    async fn publish_link(
        &self,
        first: &First,
        temporary: &Place,
        standing: Option<&FileStatus>,
        place: Place,
    ) -> Result<bool, Error> {
        let linked = self.io.status_at(temporary.clone(), false).await?;
        let linked = linked.ok_or_else(|| Error::from_errno("make link", Errno::ENOENT))?;
        let is_right = first.file.is_none_or(|file| file == (linked.device, linked.inode));
        if !is_right {
            return Err(Error::from_errno("make link", Errno::ESTALE));
        }
        if standing.is_some_and(|standing| standing.is_same_file(&linked)) {
            return Ok(false);
        }
        self.rename(temporary.clone(), place, standing.is_some()).await.map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Released;

    fn first(name: &[u8]) -> First {
        let directory = File::simulated(1, Released::default());
        First { anchor: Anchor::open(&directory), path: name.into(), file: None }
    }

    #[test]
    fn the_first_copies_and_the_others_link() {
        let links = HardLinks::default();
        let file = (1, 2);
        assert!(matches!(links.meet(file, None, || None), Meeting::First));
        assert!(matches!(links.meet(file, None, || None), Meeting::Left));
        assert!(matches!(links.meet((1, 3), None, || None), Meeting::First));
        assert!(links.settle(file, Some(first(b"a"))).is_empty());
        let Meeting::Later(found) = links.meet(file, None, || None) else { panic!("it is there") };
        assert_eq!(&*found.path, b"a");
        // It could not be linked to: whoever finds that out first copies the file again.
        assert!(matches!(links.meet(file, Some(&found), || None), Meeting::First));
        assert!(matches!(links.meet(file, Some(&found), || None), Meeting::Left));
        links.settle(file, Some(first(b"b")));
        assert!(matches!(links.meet(file, Some(&found), || None), Meeting::Later(_)));
        links.settle((1, 3), None);
        assert!(matches!(links.meet((1, 3), None, || None), Meeting::First));
    }

    #[test]
    fn a_copy_is_found_below_what_its_stage_became() {
        let root = Anchor::open(&File::simulated(1, Released::default()));
        let stage = Anchor::open(&File::simulated(2, Released::default()));
        assert_eq!(stage.resolve(b"x/y").1, b"x/y");
        stage.rebase(Arc::clone(&root), b"a/stage".to_vec());
        let (directory, path) = stage.resolve(b"x/y");
        assert_eq!(path, b"a/stage/x/y");
        assert_eq!(format!("{directory:?}"), format!("{:?}", root.resolve(b"").0));
    }
}
