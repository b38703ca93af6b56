//! Putting small files on stable storage, a batch at a time; `batch` decides, here it is done.
//!
//! ```text
//! open a descriptor -> write temporaries … -> sync the file system -> rename each -> sync each directory
//! ```
//!
//! The descriptor comes first: a write that failed is told once to each descriptor that was open
//! before (`errseq_t`, Linux 4.13; by `syncfs(2)` since 5.8). After such a failure nobody knows which
//! pages are lost, and a second sync of them would succeed and prove nothing. So every temporary of
//! the batch is discarded, and each file is copied once more, to a fresh one with a sync of its own:
//! those that can be written are, and each that can't is reported by its name.

use std::path::PathBuf;
use std::sync::Arc;

use nix::libc;

use super::batch::{Addition, Load, Reach, waits};
use super::directory::{Directory, Entry, NamedIn};
use super::file::Written;
use super::publish::{Made, NewFile, Target};
use super::worker::{Labels, Worker};
use super::{Done, Durability, Event, Publication};
use crate::error::Error;
use crate::operation::{File, FileKind, FileStatus, Name, Open, Place, SyncReach};

/// Files that wait to be made durable together.
pub(super) struct Batch {
    load: Load,
    /// Opened before the first byte of any of them was written.
    descriptor: File,
    device: u64,
    members: Vec<Member>,
}

/// A file that waits.
struct Member {
    directory: Arc<Directory>,
    name: Name,
    what: Waiting,
}

enum Waiting {
    /// A file under its temporary name.
    File { new: Box<NewFile>, written: Box<Written> },
    /// Something that has its name already: a link.
    Named,
}

/// A file that got its name, or something that had it.
struct Named {
    member: Member,
    publication: Publication,
}

/// A file of a tree that is copied for a second time: it waits for no other.
struct Alone<'a>(Entry<'a>);

impl Worker<'_> {
    /// Whether the copy of this file will wait in a batch, which is then opened: its descriptor must
    /// be older than the first byte that is written.
    pub(super) async fn will_wait(
        &self,
        source: &FileStatus,
        new: &NewFile,
        labels: &dyn Labels,
    ) -> bool {
        let is_made = matches!(new.made, Made::Temporary { .. });
        let is_small = waits(&self.job.options, source.size_bytes, source.links);
        if !is_made || !is_small || source.kind != FileKind::Regular || !labels.may_wait() {
            return false;
        }
        match labels.entry() {
            Some((directory, _)) => self.open_batch(&directory).await,
            None => false,
        }
    }

    /// Opens the batch that files of a directory wait in; false if there can be none.
    async fn open_batch(&self, directory: &Directory) -> bool {
        if let Some(batch) = &*self.batch.borrow() {
            return batch.device == directory.device();
        }
        let Ok(target) = self.opened_target(directory).await else { return false };
        let place = Place::at(&target, &Name::from(c"."));
        let open = Open::new(place, libc::O_RDONLY | libc::O_DIRECTORY).confined();
        let Ok(descriptor) = self.io.open(open).await else { return false };
        let (load, device, members) = (Load::default(), directory.device(), Vec::new());
        *self.batch.borrow_mut() = Some(Batch { load, descriptor, device, members });
        true
    }

    /// Has a file wait that is complete but for its name.
    pub(super) fn wait(&self, new: NewFile, written: Written, labels: &dyn Labels) {
        let (directory, name) = labels.entry().expect("only what is in a directory waits");
        self.join(Member {
            directory,
            name,
            what: Waiting::File { new: Box::new(new), written: Box::new(written) },
        });
    }

    /// Opens a batch for something that is to be made under its own name and can't be synced by
    /// itself; false if it has to be made durable otherwise.
    pub(super) async fn will_name_wait(&self, directory: &Directory) -> bool {
        let is_durable = self.job.options.durability == Durability::Full;
        is_durable && !directory.is_staged && self.open_batch(directory).await
    }

    /// Has something wait that was made under its own name.
    pub(super) fn name_waits(&self, directory: &Arc<Directory>, name: &Name) {
        let (directory, name) = (Arc::clone(directory), name.clone());
        self.join(Member { directory, name, what: Waiting::Named });
    }

    /// The same for one more name of a file, or a link to its source.
    pub(super) async fn will_link_wait(&self, target: &Target, labels: &dyn Labels) -> bool {
        match labels.entry().filter(|_| labels.may_wait() && !target.is_staged) {
            Some((directory, _)) => self.will_name_wait(&directory).await,
            None => false,
        }
    }

    /// Puts such a link on stable storage with its name and what it leads to, unless it waits.
    pub(super) async fn sync_link(&self, target: &Target, waits: bool) -> Result<(), Error> {
        if self.job.options.durability != Durability::Full || target.is_staged || waits {
            return Ok(());
        }
        self.sync(&target.directory, SyncReach::FileSystem).await
    }

    /// Has such a link wait, or tells that it is on stable storage.
    pub(super) fn settle_link(&self, target: &Target, waits: bool, labels: &dyn Labels) {
        match labels.entry().filter(|_| waits) {
            Some((directory, name)) => self.name_waits(&directory, &name),
            None if target.is_staged || !self.job.observer.wants_copies() => {}
            None => self.tell_done(&labels.target(), false),
        }
    }

    fn join(&self, member: Member) {
        let mut batch = self.batch.borrow_mut();
        let batch = batch.as_mut().expect("it was opened");
        let (bytes, has_descriptor) = match &member.what {
            Waiting::File { written, .. } => (written.moved.bytes, true),
            Waiting::Named => (0, false),
        };
        let last = batch.members.last();
        let is_new_directory =
            last.is_none_or(|last| !Arc::ptr_eq(&last.directory, &member.directory));
        let before = batch.load.descriptors();
        let addition = Addition { bytes, has_descriptor, is_new_directory };
        batch.load.add(addition, self.io.tasks.now());
        self.job.hold_descriptors(batch.load.descriptors() - before);
        member.directory.retain();
        batch.members.push(member);
    }

    /// Finishes the batch if nothing more may be added to it.
    pub(super) async fn finish_full_batch(&self) {
        let is_full = self.batch.borrow().as_ref().is_some_and(|batch| {
            batch.load.is_full(self.job.spare_descriptors(), self.io.tasks.now())
        });
        if is_full {
            self.finish_batch().await;
        }
    }

    /// Finishes the batch if files of this directory can't be in it.
    pub(super) async fn finish_batch_elsewhere(&self, directory: &Directory) {
        let device = self.batch.borrow().as_ref().map(|batch| batch.device);
        if device.is_some_and(|device| device != directory.device()) {
            self.finish_batch().await;
        }
    }

    /// Makes all that waits durable, under its names, and tells of it.
    pub(super) async fn finish_batch(&self) {
        let Some(batch) = self.batch.take() else { return };
        self.job.release_descriptors(batch.load.descriptors());
        let directories: Vec<_> =
            batch.members.iter().map(|member| Arc::clone(&member.directory)).collect();
        let mut again = Vec::new();
        if self.job.cancellation.is_cancelled() {
            self.summary.borrow_mut().was_cancelled = true;
            for member in batch.members {
                member.discard(self).await;
            }
        } else {
            let reach = batch.load.reach();
            let written = self.sync_batch(batch, reach, &mut again).await;
            let named = self.name_batch(written, &mut again).await;
            self.settle_batch(named, reach).await;
        }
        for (directory, name) in again {
            if let Err(error) = self.copy_again(&directory, &name).await {
                self.fail(&error);
            }
        }
        for directory in directories {
            self.release(directory).await;
        }
    }

    /// Puts the bytes of all on stable storage; returns those for which that succeeded.
    async fn sync_batch(&self, batch: Batch, reach: Reach, again: &mut Again) -> Vec<Member> {
        let whole = match reach {
            Reach::FileSystem => self.sync(&batch.descriptor, SyncReach::FileSystem).await,
            Reach::Nothing | Reach::EachFile => Ok(()),
        };
        let mut written = Vec::with_capacity(batch.members.len());
        for member in batch.members {
            let synced = match (&member.what, reach) {
                (Waiting::File { new, .. }, Reach::EachFile) => {
                    self.sync(&new.file, self.file_reach()).await
                }
                _ => whole.clone(),
            };
            match synced {
                Ok(()) => written.push(member),
                Err(error) => member.lose(error, self, again).await,
            }
        }
        written
    }

    fn file_reach(&self) -> SyncReach {
        match self.job.options.durability {
            Durability::Data => SyncReach::Data,
            Durability::None | Durability::Full => SyncReach::File,
        }
    }

    /// Gives each its name; returns those that have one.
    async fn name_batch(&self, written: Vec<Member>, again: &mut Again) -> Vec<Named> {
        let mut named = Vec::with_capacity(written.len());
        for member in written {
            let Waiting::File { new, .. } = &member.what else {
                named.push(Named { member, publication: Publication::New });
                continue;
            };
            let published = self.publish(new, &member.labels()).await;
            match published {
                Ok(publication) => named.push(Named { member, publication }),
                Err(error) if self.may_write_in_place(new, &error) => {
                    member.lose(error, self, again).await;
                }
                Err(error) => {
                    if let Err(error) = self.keep_or_fail(error, &member.labels()) {
                        self.fail(&error);
                    }
                    member.discard(self).await;
                }
            }
        }
        named
    }

    /// Puts the names on stable storage, each directory once, and tells of each file.
    async fn settle_batch(&self, named: Vec<Named>, reach: Reach) {
        let is_full = self.job.options.durability == Durability::Full;
        let mut synced: Vec<(Arc<Directory>, Result<(), Error>)> = Vec::new();
        for Named { member, publication } in named {
            let is_same = |it: &&(Arc<_>, _)| Arc::ptr_eq(&it.0, &member.directory);
            let outcome = match synced.iter().rev().find(is_same) {
                _ if !is_full => Ok(()),
                Some((_, outcome)) => outcome.clone(),
                None => {
                    let outcome = self.sync_directory(&member, reach).await;
                    synced.push((Arc::clone(&member.directory), outcome.clone()));
                    outcome
                }
            };
            let labels = Alone(Entry { directory: &member.directory, name: &member.name });
            let settled = match (outcome, member.what) {
                (Ok(()), Waiting::File { new, written }) => {
                    self.finish_file(*new, *written, publication, &labels).await
                }
                (Ok(()), Waiting::Named) => {
                    self.tell_done(&labels.target(), false);
                    Ok(())
                }
                (Err(error), _) => Err(error.on(labels.target())),
            };
            if let Err(error) = settled {
                self.fail(&error);
            }
        }
    }

    async fn sync_directory(&self, member: &Member, reach: Reach) -> Result<(), Error> {
        let directory = &member.directory;
        let target = self.opened_target(directory).await?;
        match &member.what {
            Waiting::File { new, .. } => self.sync_names(&target, &new.file).await?,
            Waiting::Named => self.sync(&target, SyncReach::File).await?,
        }
        // A sync of the file system has covered the directories above.
        if reach == Reach::EachFile { self.sync_names_above(directory).await } else { Ok(()) }
    }

    /// Copies a file again whose temporary could not be put on stable storage.
    async fn copy_again(&self, directory: &Arc<Directory>, name: &Name) -> Result<(), Error> {
        let labels = Alone(Entry { directory, name });
        self.copy_regular(directory, name, &labels).await
    }

    /// Puts the names of directories that were made in the open on stable storage, up to one that
    /// was there: a file is found by all of them. Where sources go, those that were there as well.
    pub(super) async fn sync_names_above(&self, directory: &Directory) -> Result<(), Error> {
        let all = self.removes_sources();
        let mut made = Vec::new();
        let mut at = Some(directory);
        while let Some((directory, above)) = at.and_then(|at| Some((at, at.name_to_sync(all)?))) {
            self.open_above(directory).await;
            let target = self.opened_target(directory).await?;
            match above {
                NamedIn::File(above) => self.sync_names(above, &target).await?,
                NamedIn::Directory(above) => {
                    self.sync_names(&self.opened_target(above).await?, &target).await?;
                }
            }
            if !made.is_empty() {
                self.park_if_short(directory);
            }
            made.push(directory);
            at = directory.parent();
        }
        // Only now: one that is marked vouches for those above it.
        made.into_iter().for_each(Directory::mark_name_durable);
        Ok(())
    }

    /// Tells that a target is on stable storage, under its name.
    pub(super) fn tell_done(&self, target: &std::path::Path, is_tree: bool) {
        if self.job.options.durability == Durability::Full && self.job.observer.wants_copies() {
            self.job.observer.on_event(&Event::Done(&Done { target, is_tree }));
        }
    }
}

/// What is to be copied once more.
type Again = Vec<(Arc<Directory>, Name)>;

impl Member {
    fn labels(&self) -> Entry<'_> {
        Entry { directory: &self.directory, name: &self.name }
    }

    /// Gives up what could not be made durable.
    async fn lose(self, error: Error, worker: &Worker<'_>, again: &mut Again) {
        match self.what {
            Waiting::File { new, written } => {
                worker.discard(*new).await;
                worker.job.progress.forget_file(written.moved.bytes);
                again.push((self.directory, self.name));
            }
            Waiting::Named => worker.fail(&error.on(self.labels().target())),
        }
    }

    async fn discard(self, worker: &Worker<'_>) {
        if let Waiting::File { new, .. } = self.what {
            worker.discard(*new).await;
        }
    }
}

impl Labels for Alone<'_> {
    fn source(&self) -> PathBuf {
        self.0.source()
    }

    fn target(&self) -> PathBuf {
        self.0.target()
    }

    fn entry(&self) -> Option<(Arc<Directory>, Name)> {
        self.0.entry()
    }

    fn may_wait(&self) -> bool {
        false
    }
}
