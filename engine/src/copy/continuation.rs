//! Going on with a stage that an interrupted run has left; `mark` decides what is believed.
//!
//! ```text
//! begin:      lock the stage -> read its mark -> go on with it, or remove it
//! file:       whole -> counted; large, and in part -> gone on with (`resume`); else removed, and copied
//! directory:  entered, with the rights and attributes of a new one
//! finish:     remove every name that was not copied -> remove the mark -> as any stage
//! ```
//!
//! What can't be made as new, or has no mark, is removed, and copied like the rest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;

use super::access::{Attribute, attribute};
use super::directory::Directory;
use super::extraneous::NameSet;
use super::file_system::tells_at_close;
use super::mark::{Copying, MARK, MARK_BYTES, is_whole};
use super::publish::Target;
use super::stage::Stage;
use super::worker::{Labels, Worker};
use super::{Durability, Event, KeepMode, Make, Resume};
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{LEFTOVER_LOOK_EVERY, LEFTOVER_LOOKS_MAX};
use crate::operation::{
    File, FileKind, FileStatus, GetAttribute, Name, Operation, Place, RemoveAttribute, Subject,
    SyncReach,
};
use crate::units::WallTime;

/// What all that is copied in one stage shares.
#[derive(Debug)]
pub(super) struct Staging {
    /// The stage itself.
    directory: File,
    /// Another run may go on with it.
    is_marked: AtomicBool,
    /// When the interrupted run began that has left it; none if it is new.
    began: Option<WallTime>,
    /// Bytes of the files in it that are whole, or have a journal that says how far they are.
    bytes: AtomicU64,
}

/// What is known of the names in a directory that an interrupted run has left: which of them are
/// copied by now. All others go.
#[derive(Debug, Default)]
pub(super) struct Continued(Mutex<NameSet>);

impl Staging {
    pub(super) fn new(directory: File, is_marked: bool, began: Option<WallTime>) -> Arc<Self> {
        let (is_marked, bytes) = (AtomicBool::new(is_marked), AtomicU64::new(0));
        Arc::new(Self { directory, is_marked, began, bytes })
    }

    pub(super) fn directory(&self) -> &File {
        &self.directory
    }

    /// Whether another run may go on with it.
    pub(super) fn is_marked(&self) -> bool {
        self.is_marked.load(Ordering::Acquire)
    }

    /// Whether it was left by an interrupted run.
    pub(super) fn is_continued(&self) -> bool {
        self.began.is_some()
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Continued {
    /// A name is copied, whatever was there before.
    pub(super) fn note(&self, name: &Name) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.extend([name.as_bytes()]);
    }

    /// All names that were copied.
    fn take(&self) -> NameSet {
        let mut names = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        names.sort();
        names
    }
}

impl Worker<'_> {
    /// Whether stages are marked, so that they can be gone on with: it must be told by its times
    /// that a file is whole.
    fn marks_stages(&self) -> bool {
        let options = &self.job.options;
        options.resume == Resume::Auto
            && options.preserve.timestamps
            && options.existing.make == Make::Copy
    }

    /// Marks a stage that was just made; returns whether it has a mark.
    pub(super) async fn mark_stage(
        &self,
        stage: &File,
        status: &FileStatus,
        source: &FileStatus,
    ) -> bool {
        // What a file system could not write it may tell when a file is closed, and to nobody later.
        if !self.marks_stages() || tells_at_close(self.magic(status.device, stage).await) {
            return false;
        }
        let began = self.io.tasks.wall_clock();
        let Some(copying) = self.copying(status, source).await else { return false };
        let mark = copying.mark(began).to_vec();
        self.set_attribute(stage, MARK.into(), mark).await.is_ok()
    }

    /// What is copied to what in this boot; none where the boot can't be told.
    async fn copying(&self, stage: &FileStatus, source: &FileStatus) -> Option<Copying<'_>> {
        Some(Copying {
            boot: self.boot().await?,
            source: (source.device, source.inode),
            stage: (stage.device, stage.inode),
            options: &self.job.options,
        })
    }

    /// Takes up a stage that was left of this very copy, with its lock; none if there is nothing to
    /// go on with. It is believed only if nobody else can have made it, or have been in it.
    pub(super) async fn take_up_stage(
        &self,
        parent: &File,
        name: &Name,
        source: &FileStatus,
    ) -> Result<Option<Arc<Staging>>, Error> {
        if !self.marks_stages() {
            return Ok(None);
        }
        let Ok(left) = self.open_below(parent, name).await else { return Ok(None) };
        for _ in 0..LEFTOVER_LOOKS_MAX {
            let is_claimed = self.claim(&left).await?.is_some();
            let status = self.io.status_of(&left).await?;
            let Some(began) = self.believed_mark(&left, &status, source).await else {
                return Ok(None);
            };
            if is_claimed {
                let named = self.io.status_at(Place::at(parent, name), false).await?;
                let is_named = named.is_some_and(|named| named.is_same_file(&status));
                return Ok(is_named.then(|| Staging::new(left, true, Some(began))));
            }
            self.io.tasks.sleep(LEFTOVER_LOOK_EVERY).await;
        }
        Ok(None)
    }

    /// When the run began that has left a stage, if this one may go on with it.
    async fn believed_mark(
        &self,
        left: &File,
        status: &FileStatus,
        source: &FileStatus,
    ) -> Option<WallTime> {
        let is_private = self.job.surroundings.user == Some(status.owner)
            && status.mode & 0o777 == 0o700
            && status.kind == FileKind::Directory;
        if !is_private {
            return None;
        }
        let copying = self.copying(status, source).await?;
        let buffer = Buffer::Vec(vec![0; MARK_BYTES]);
        let get = GetAttribute { file: left.clone(), name: MARK.into(), buffer };
        let got = self.io.perform_counted(Operation::GetAttribute(get)).await;
        let Ok((length, Operation::GetAttribute(get))) = got else { return None };
        copying.believed(get.buffer.part(0, length)?)
    }

    /// Takes the mark away: it is never seen under the final name, and nobody goes on with a stage
    /// whose times vouch for more than there is.
    pub(super) async fn unmark(&self, staging: &Staging) -> Result<(), Error> {
        if !staging.is_marked() {
            return Ok(());
        }
        let remove = RemoveAttribute { file: staging.directory.clone(), name: MARK.into() };
        match self.io.perform_always(Operation::RemoveAttribute(remove)).await {
            Err(error) if error.errno() != Some(Errno::ENODATA) => return Err(error),
            _ => staging.is_marked.store(false, Ordering::Release),
        }
        Ok(())
    }

    /// Whether so much was copied in a stage that another run should go on with it.
    fn is_worth_keeping(&self, stage: &Stage) -> bool {
        let staging = stage.staging();
        staging.is_marked()
            && staging.bytes.load(Ordering::Relaxed) >= self.job.options.resume_bytes_min
            && !self.job.are_stages_forbidden()
    }

    /// Puts what is in a stage on the disk, if it must be, while another run could still go on with
    /// it: that may take long. What is left to do then does not.
    pub(super) async fn sync_early(&self, stage: &Stage) -> Result<(), Error> {
        if self.job.options.durability == Durability::None || !self.is_worth_keeping(stage) {
            return Ok(());
        }
        self.sync(&stage.staging().directory, SyncReach::FileSystem).await
    }

    /// Keeps the stage of a copy that was cancelled, and tells of it; false if there is too little in
    /// it, or nobody could go on with it.
    pub(super) fn keep_stage(&self, stage: &Stage, labels: &dyn Labels) -> bool {
        let is_kept = self.is_worth_keeping(stage);
        if is_kept {
            let bytes = stage.staging().bytes.load(Ordering::Relaxed);
            let target = labels.target();
            let temporary = target.with_file_name(stage.name().as_os_str());
            let (target, temporary) = (target.as_path(), temporary.as_path());
            self.job.observer.on_event(&Event::Kept { target, temporary, bytes });
        }
        is_kept
    }

    /// Whether what an interrupted run has left of a file is its whole copy.
    pub(super) async fn is_taken_over(
        &self,
        source: &File,
        status: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        if !target.is_continued {
            return Ok(false);
        }
        let Some(staging) = &target.staging else { return Ok(false) };
        let Some(began) = staging.began else { return Ok(false) };
        let place = Place::at(&target.directory, &target.name);
        let standing = self.io.status_at(place, false).await;
        let Some(standing) = standing.map_err(|error| error.on(labels.target()))? else {
            return Ok(false);
        };
        let may_have_names = self.job.options.preserve.links || standing.links == 1;
        if may_have_names && is_whole(status, &standing, began) {
            match self.accept(source, status, target, &standing, labels).await {
                Ok(true) => {
                    staging.add_bytes(status.size_bytes);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                // One that can't be read may still be copied again.
                Ok(false) | Err(_) => {}
            }
        }
        Ok(false)
    }

    /// Removes what an interrupted run has left under a name.
    pub(super) async fn clear(&self, target: &Target) {
        if target.is_continued {
            self.remove_left(&target.directory, &target.name).await;
        }
    }

    async fn remove_left(&self, directory: &File, name: &Name) -> bool {
        let subject = Subject::Place(Place::at(directory, name));
        match self.io.status_always(subject).await {
            Ok(status) if status.kind == FileKind::Directory => {
                self.remove_tree(directory, name).await;
                self.io.remove(directory, name, true).await
            }
            _ => self.io.remove(directory, name, false).await,
        }
    }

    /// Opens a directory that an interrupted run has left, as if it had just been made; none if there
    /// is none.
    pub(super) async fn take_up_directory(
        &self,
        parent: &Directory,
        target: &File,
        name: &Name,
    ) -> Result<Option<File>, Error> {
        if parent.continued.is_none() {
            return Ok(None);
        }
        let status = self.io.status_at(Place::at(target, name), false).await?;
        let Some(status) = status else { return Ok(None) };
        if status.kind == FileKind::Directory {
            match self.renew(parent, target, name, &status).await {
                Ok(directory) => return Ok(Some(directory)),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(_) => {}
            }
        }
        self.remove_left(target, name).await;
        Ok(None)
    }

    /// Takes from a directory what it got when it was finished.
    async fn renew(
        &self,
        parent: &Directory,
        target: &File,
        name: &Name,
        status: &FileStatus,
    ) -> Result<File, Error> {
        let directory = self.open_made(target, name).await?;
        if let Some((owner, group)) = parent.heritage.owner
            && (owner, group) != (status.owner, status.group)
        {
            self.change_owner(&directory, Some(owner), group).await?;
        }
        let preserve = &self.job.options.preserve;
        if preserve.wants_attributes() {
            let names = self.list_attributes(&directory).await?;
            for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                let goes = match attribute(name) {
                    Attribute::AccessList | Attribute::DefaultList => {
                        preserve.mode == KeepMode::Lists
                    }
                    Attribute::Capability | Attribute::Plain => true,
                    Attribute::Context | Attribute::Ignored => false,
                };
                if goes {
                    let name = Name::new(name);
                    let name = name.map_err(|e| Error::from_errno("remove attribute", e))?;
                    self.remove_attribute(&directory, name).await?;
                }
            }
        }
        let mode = 0o700 | parent.inherits_group();
        if status.mode != mode {
            self.change_mode(&directory, mode).await?;
        }
        Ok(directory)
    }

    /// Removes from a directory that is to be finished what an interrupted run has left and this one
    /// has not copied. If that fails, no stage is published.
    pub(super) async fn remove_uncopied(&self, directory: &Directory, target: &File) {
        let Some(continued) = &directory.continued else { return };
        let copied = continued.take();
        let mut uncopied = Vec::new();
        loop {
            match self.next_names(target).await {
                Ok(names) if names.is_empty() => break,
                Ok(names) => uncopied.extend(
                    names.into_iter().filter(|(name, _)| !copied.may_hold(name.as_bytes())),
                ),
                Err(_) => return self.job.forbid_stages(),
            }
        }
        for (name, _) in &uncopied {
            if !self.remove_left(target, name).await {
                self.job.forbid_stages();
            }
        }
    }
}

impl Directory {
    /// A name in it is copied.
    pub(super) fn note_copied(&self, name: &Name) {
        if let Some(continued) = &self.continued {
            continued.note(name);
        }
    }

    /// The bit that hands its group down to directories in it.
    fn inherits_group(&self) -> u32 {
        self.target_mode() & libc::S_ISGID
    }
}
