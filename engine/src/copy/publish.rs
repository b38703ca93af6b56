//! Making the file that will be a target, and giving it its name.
//!
//! ```text
//! in a stage:        made under its own name; nobody sees it before the stage is published
//! new, or replacing: made under a temporary name, mode 0600, locked; renamed when it is complete
//! in place:          what stands there is opened, written, and cut to its new length
//! ```

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

use nix::libc;

use super::access::Heritage;
use super::attributes::Known;
use super::continuation::Staging;
use super::journal::Reached;
use super::publication::{Decision, Standing, decide};
use super::resume::{Journal, TakenUp};
use super::route::magic;
use super::standing::{Seen, refused};
use super::worker::{Labels, Worker};
use super::{KeepMode, Make, Publication};
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind, Refusal};
use crate::limits::LINKS_FOLLOWED_MAX;
use crate::operation::{
    File, FileKind, FileStatus, Link, ListAttributes, Name, Open, Operation, Place, Rename, Sync,
    SyncReach,
};

/// A name to be given to a copy.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) directory: File,
    pub(super) name: Name,
    /// Nobody sees the directory before it is published whole.
    pub(super) is_staged: bool,
    /// The user named it.
    pub(super) is_operand: bool,
    /// What the directory hands down.
    pub(super) heritage: Heritage,
    /// It is in a directory that this run has made, and that is published already.
    pub(super) is_in_created: bool,
    /// An interrupted run has left the directory, and maybe something under this name.
    pub(super) is_continued: bool,
    /// What it shares with all that is in the same stage.
    pub(super) staging: Option<Arc<Staging>>,
    /// It is a backup itself, and gets none.
    pub(super) is_backup: bool,
    /// What was found there when it was asked whether it may be replaced.
    pub(super) seen: Seen,
}

/// A file that is being made.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) file: File,
    pub(super) target: Target,
    pub(super) made: Made,
    /// What is known of its attributes.
    pub(super) known: Known,
    /// How much of it an interrupted copy has left.
    pub(super) reached: Reached,
    /// Where it is noted how far the copy has come, if it is.
    pub(super) journal: RefCell<Option<Journal>>,
    /// Before this byte all was written when its copy was interrupted.
    pub(super) interrupted_at: Cell<u64>,
    /// So many bytes were not copied again, as an interrupted copy had them already.
    pub(super) resumed_bytes: Cell<u64>,
    /// Where what it replaced is kept.
    pub(super) backup: OnceCell<Name>,
}

#[derive(Debug)]
pub(super) enum Made {
    Staged,
    Temporary {
        name: Name,
        replaces: bool,
    },
    InPlace {
        reason: &'static str,
        is_stream: bool,
    },
    /// A block device, which is written over in blocks of this size.
    Device {
        block_bytes: u32,
    },
}

impl Target {
    /// A name that nobody has looked at, in a directory that all may see.
    pub(super) fn new(directory: File, name: Name) -> Self {
        Self {
            directory,
            name,
            is_staged: false,
            is_operand: false,
            heritage: Heritage::default(),
            is_in_created: false,
            is_continued: false,
            staging: None,
            is_backup: false,
            seen: Seen::NotLooked,
        }
    }
}

impl NewFile {
    /// A file that nothing is written of.
    pub(super) fn new(file: File, target: Target, made: Made, known: Known) -> Self {
        let (reached, journal) = (Reached::default(), RefCell::default());
        let (interrupted_at, resumed_bytes) = (Cell::new(0), Cell::new(0));
        let backup = OnceCell::new();
        Self { file, target, made, known, reached, journal, interrupted_at, resumed_bytes, backup }
    }

    /// A file in a stage that an interrupted run has left in part.
    fn taken_up(TakenUp { file, status, reached }: TakenUp, target: &Target) -> Self {
        let owner = Some((status.owner, status.group));
        let inherited = target.heritage.permissions;
        let known = Known { owner, inherited, ..Known::default() };
        Self { reached, ..Self::new(file, target.clone(), Made::Staged, known) }
    }

    /// Whether it is part of a stage.
    pub(super) fn is_staged(&self) -> bool {
        matches!(self.made, Made::Staged)
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// Whether it takes bytes only one after the other: a pipe, a terminal, a device.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.made, Made::InPlace { is_stream: true, .. })
    }

    /// Whether it was there before, with a mode, an owner and readers of its own.
    pub(super) fn is_in_place(&self) -> bool {
        matches!(self.made, Made::InPlace { .. } | Made::Device { .. })
    }

    /// What a block device reads and writes whole; none if it is not one.
    pub(super) fn device_block_bytes(&self) -> Option<u32> {
        match self.made {
            Made::Device { block_bytes } => Some(block_bytes),
            _ => None,
        }
    }
}

impl Worker<'_> {
    /// Makes the file that will become `target`, a copy of `source`.
    pub(super) async fn make_target(
        &self,
        target: &Target,
        source: &FileStatus,
        labels: &dyn Labels,
    ) -> Result<NewFile, Error> {
        if target.is_staged {
            let made = self.make_staged(target, source).await;
            return made.map_err(|error| error.on(labels.target()));
        }
        let mut target = target.clone();
        for _ in 0..LINKS_FOLLOWED_MAX {
            if target.is_operand && self.job.options.preserve.mode != KeepMode::Bits {
                target.heritage = self.heritage(&target.directory).await;
            }
            let place = Place::at(&target.directory, &target.name);
            let status = self.io.status_at(place, false).await;
            let status = status.map_err(|error| error.on(labels.target()))?;
            Self::check_seen(&target, status.as_ref(), labels)?;
            if let Some(status) = &status {
                self.check_overwrite(source, status, &target, labels)?;
            }
            let device = self.open_device(&target, source, status.as_ref(), labels).await?;
            if let Some(device) = device {
                return Ok(device);
            }
            let standing = self.standing(&target, status.as_ref()).await;
            let decision = match decide(standing, &self.job.options, target.is_operand) {
                // As cp: the other names of what stands there keep what they have.
                Decision::InPlace(_)
                    if standing == Standing::Regular
                        && self.job.options.preserve.links
                        && self.job.options.existing.make == Make::Copy
                        && status.as_ref().is_some_and(|status| status.links > 1) =>
                {
                    Decision::Renew
                }
                decision => decision,
            };
            let result = match decision {
                Decision::Refuse(refusal) => Err(refused(refusal, labels)),
                Decision::FollowLink => match self.follow_link(&target, labels).await? {
                    Some(followed) => {
                        target = followed;
                        continue;
                    }
                    None => {
                        let reason = "not a regular file";
                        self.open_in_place(&target, Expected::Linked, reason, labels).await
                    }
                },
                Decision::Create => self.make_temporary(&target, None, false, source, labels).await,
                Decision::Renew => self.make_temporary(&target, None, true, source, labels).await,
                Decision::Replace => {
                    let replaced = status.as_ref();
                    match self.make_temporary(&target, replaced, true, source, labels).await {
                        Err(error) if is_refusal(&error) => {
                            let reason = "a new file can't be made beside it";
                            self.open_in_place(&target, (&status).into(), reason, labels).await
                        }
                        made => made,
                    }
                }
                Decision::InPlace(reason) => {
                    if status.as_ref().is_some_and(|status| status.links > 1) {
                        self.remove_leftover_of(&target)
                            .await
                            .map_err(|e| e.on(labels.target()))?;
                    }
                    match self.open_in_place(&target, (&status).into(), reason, labels).await {
                        // What can't be written is removed, in one step with its replacement.
                        Err(error)
                            if self.job.options.existing.force && error.errno().is_some() =>
                        {
                            self.make_temporary(&target, None, true, source, labels).await
                        }
                        opened => opened,
                    }
                }
            };
            return result;
        }
        Err(Error::from_errno("open", Errno::ELOOP).on(labels.target()))
    }

    /// Makes a file in a stage, under its own name. What an interrupted run has left there is gone on
    /// with, or removed.
    async fn make_staged(&self, target: &Target, source: &FileStatus) -> Result<NewFile, Error> {
        let keeps_journal = self.keeps_staged_journal(target, source);
        let mode = match keeps_journal {
            // Whoever goes on with it opens it once more.
            true => 0o600,
            false => self.mode_made_with(source, target),
        };
        let open = || {
            let open = Open::create_new(Place::at(&target.directory, &target.name), mode);
            let flags = self.write_access() | libc::O_CREAT | libc::O_EXCL;
            Open { flags, ..open }.confined()
        };
        let file = match self.io.open(open()).await {
            Err(error) if target.is_continued && error.errno() == Some(Errno::EEXIST) => {
                if let Some(left) = self.take_up_staged(target, source).await? {
                    return Ok(NewFile::taken_up(left, target));
                }
                self.clear(target).await;
                self.io.open(open()).await?
            }
            opened => opened?,
        };
        let known = self.known_of_new(target, mode);
        let mut new = NewFile::new(file, target.clone(), Made::Staged, known);
        if keeps_journal {
            new.known.mode = None;
            // What a killed process still has in flight is over when the lock is free.
            if let Err(error) = self.claim(&new.file).await {
                self.discard(new).await;
                return Err(error);
            }
        }
        Ok(new)
    }

    /// What a target is opened for: what is to be verified is read back, and by a read it is found out
    /// whether the page cache can be spared.
    fn write_access(&self) -> i32 {
        match self.job.options.verification.verify {
            None if !self.bypasses_cache() => libc::O_WRONLY,
            _ => libc::O_RDWR,
        }
    }

    /// Gives a file that is complete its name. On failure it is left as it was, under its
    /// temporary name; on success that name is another's.
    pub(super) async fn publish(
        &self,
        new: &NewFile,
        labels: &dyn Labels,
    ) -> Result<Publication, Error> {
        let Made::Temporary { name, replaces } = &new.made else {
            return Ok(match new.made {
                Made::InPlace { reason, .. } => Publication::InPlace(reason),
                Made::Device { .. } => Publication::InPlace("a block device"),
                _ => Publication::Staged,
            });
        };
        self.io.check()?;
        let directory = &new.target.directory;
        let to = Place::at(directory, &new.target.name);
        if *replaces {
            self.check_asked(&new.target, labels).await?;
            let backup = self.back_up(&new.target).await;
            if let Some(backup) = backup.map_err(|error| error.on(labels.target()))? {
                let _ = new.backup.set(backup);
            }
        }
        self.rename(Place::at(directory, name), to, *replaces)
            .await
            .map_err(|error| error.on(labels.target()))?;
        Ok(if *replaces { Publication::Replaced } else { Publication::New })
    }

    /// Whether a failed publication may be tried again by writing in place.
    pub(super) fn may_write_in_place(&self, new: &NewFile, error: &Error) -> bool {
        if self.job.options.existing.replaces_links() {
            return false;
        }
        let is_busy = error.errno() == Some(Errno::EBUSY);
        matches!(new.made, Made::Temporary { replaces: true, .. }) && (is_busy || is_refusal(error))
    }

    /// Opens what stands at the target of a file that could not be renamed there.
    pub(super) async fn reopen_in_place(
        &self,
        new: NewFile,
        labels: &dyn Labels,
    ) -> Result<NewFile, Error> {
        let target = new.target.clone();
        self.discard(new).await;
        let reason = "it can't be renamed over";
        self.open_in_place(&target, Expected::Unlinked, reason, labels).await
    }

    /// Removes a file that will not be published. What was written in place stays.
    pub(super) async fn discard(&self, new: NewFile) {
        let name = match &new.made {
            Made::Staged => &new.target.name,
            Made::Temporary { name, .. } => name,
            Made::InPlace { .. } | Made::Device { .. } => return,
        };
        if new.journal.borrow().is_some() || new.reached != Reached::default() {
            self.remove_journal(&new).await;
        }
        // The descriptor keeps the lock until the name is gone.
        let is_gone = self.io.remove(&new.target.directory, name, false).await;
        if !is_gone && new.is_staged() {
            self.job.forbid_stages();
        }
    }

    /// Renames, replacing nothing unless told to. Where the file system can't promise that, links
    /// and unlinks, which replaces nothing either.
    pub(super) async fn rename(
        &self,
        source: Place,
        target: Place,
        replace: bool,
    ) -> Result<(), Error> {
        let rename = |replace| Rename { source: source.clone(), target: target.clone(), replace };
        let renamed = self.io.perform_always(Operation::Rename(rename(replace))).await;
        match renamed {
            Err(error) if !replace && error.errno() == Some(Errno::EINVAL) => {
                let target = target.clone();
                let link = Link { source: source.clone(), target, follow: false };
                self.io.perform_always(Operation::Link(link)).await?;
                if let Some(directory) = &source.directory {
                    self.io.remove(directory, &source.name, false).await;
                }
                Ok(())
            }
            other => other.map(drop),
        }
    }

    pub(super) async fn sync(&self, file: &File, reach: SyncReach) -> Result<(), Error> {
        let sync = Sync { file: file.clone(), reach };
        self.io.perform_always(Operation::Sync(sync)).await.map(drop)
    }

    /// Puts the names in a directory on the disk. One that may not be read can't be synced by
    /// itself: then all of its file system is, by what was made in it.
    pub(super) async fn sync_names(&self, directory: &File, made: &File) -> Result<(), Error> {
        match self.sync(directory, SyncReach::File).await {
            Err(error) if error.errno() == Some(Errno::EBADF) => {
                self.sync(made, SyncReach::FileSystem).await
            }
            synced => synced,
        }
    }

    /// Refuses to copy a file onto itself, or over what this run has made.
    pub(super) fn check_overwrite(
        &self,
        source: &FileStatus,
        standing: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if target.seen != Seen::NotLooked {
            // The verdict has come to that, and may know better.
            return Ok(());
        }
        let is_directory = standing.kind == FileKind::Directory;
        if standing.is_same_file(source) {
            Err(refused(Refusal::SameFile, labels))
        } else if !is_directory && self.has_created(target, standing) {
            Err(refused(Refusal::JustCreated, labels))
        } else {
            Ok(())
        }
    }

    /// Whether a copy gets its source's access control lists, or none: then the target's own need
    /// not be reproduced.
    fn replaces_lists(&self) -> bool {
        matches!(self.job.options.preserve.mode, KeepMode::Lists | KeepMode::Fresh)
    }

    /// What stands at a target's name, as far as publication cares.
    pub(super) async fn standing(&self, target: &Target, status: Option<&FileStatus>) -> Standing {
        let Some(status) = status else { return Standing::Nothing };
        match status.kind {
            FileKind::Directory => Standing::Directory,
            FileKind::SymbolicLink => Standing::SymbolicLink,
            FileKind::Regular if status.is_mount_point => Standing::Fixed("a mount point"),
            FileKind::Regular if status.is_protected => Standing::Fixed("protected"),
            FileKind::Regular if !self.replaces_lists() && self.has_access_list(target).await => {
                Standing::Fixed("it has an access control list")
            }
            FileKind::Regular => Standing::Regular,
            _ => Standing::Special,
        }
    }

    /// Whether the file that stands at the target has an access control list, which a new file
    /// would not have.
    async fn has_access_list(&self, target: &Target) -> bool {
        let open = Open::read(Place::at(&target.directory, &target.name)).confined();
        let open = Open { flags: open.flags | libc::O_NONBLOCK, ..open };
        let Ok(file) = self.io.open(open).await else { return false };
        let list = ListAttributes { file, buffer: Buffer::Vec(vec![0; 4096]) };
        let listed = self.io.perform_counted(Operation::ListAttributes(list)).await;
        let Ok((length, Operation::ListAttributes(list))) = listed else { return false };
        let names = list.buffer.part(0, length).unwrap_or_default();
        names.split(|byte| *byte == 0).any(|name| name == b"system.posix_acl_access")
    }

    /// The target that a symbolic link leads to, one step on; none if what it leads to is written
    /// in place, by the link.
    pub(super) async fn follow_link(
        &self,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<Option<Target>, Error> {
        let label = |error: Error| error.on(labels.target());
        let place = Place::at(&target.directory, &target.name);
        let Some(status) = self.io.status_at(place.clone(), true).await.map_err(label)? else {
            if !self.job.options.existing.through_dangling_links {
                return Err(refused(Refusal::DanglingTarget, labels));
            }
            return self.lead_on(target, place, labels).await.map(Some);
        };
        // A link of /proc is an open file: its name may be another's by now, or nobody's.
        let directory_status = self.io.status_of(&target.directory).await.map_err(label)?;
        let magic = self.magic(directory_status.device, &target.directory).await;
        if magic == magic::PROC || status.kind != FileKind::Regular {
            return Ok(None);
        }
        self.lead_on(target, place, labels).await.map(Some)
    }

    /// The target that a symbolic link says.
    async fn lead_on(
        &self,
        target: &Target,
        link: Place,
        labels: &dyn Labels,
    ) -> Result<Target, Error> {
        let label = |error: Error| error.on(labels.target());
        let content = self.io.read_link(link).await.map_err(label)?;
        let (parent, leaf) = split_path(content.as_bytes());
        let parent = Name::new(parent).map_err(|errno| Error::from_errno("open", errno));
        let place = Place { directory: Some(target.directory.clone()), name: parent? };
        let directory = self.open_directory(place).await.map_err(label)?;
        let name = Name::new(leaf).map_err(|errno| Error::from_errno("open", errno))?;
        Ok(Target { directory, name, ..target.clone() })
    }

    /// Opens a directory that the user named, for names in it and for syncing it; where it may not
    /// be read, for names only.
    pub(super) async fn open_directory(&self, place: Place) -> Result<File, Error> {
        let open = |flags| Open::new(place.clone(), flags | libc::O_DIRECTORY);
        match self.io.open(open(libc::O_RDONLY)).await {
            Err(error) if error.errno() == Some(Errno::EACCES) => {
                self.io.open(open(libc::O_PATH)).await
            }
            opened => opened,
        }
    }

    /// Opens what stands at the target, to be written over. If something else stands there by now
    /// than what was decided on, nothing is written.
    async fn open_in_place(
        &self,
        target: &Target,
        expected: Expected<'_>,
        reason: &'static str,
        labels: &dyn Labels,
    ) -> Result<NewFile, Error> {
        let follow = matches!(expected, Expected::Linked);
        let label = |error: Error| error.on(labels.target());
        let place = Place::at(&target.directory, &target.name);
        // A pipe or a terminal is never opened for reading too.
        let access = match self.write_access() {
            libc::O_WRONLY => libc::O_WRONLY,
            access => match self.io.status_at(place.clone(), follow).await {
                Ok(Some(status))
                    if matches!(status.kind, FileKind::Regular | FileKind::BlockDevice) =>
                {
                    access
                }
                _ => libc::O_WRONLY,
            },
        };
        let open = Open::new(place, access);
        let open = if follow { open } else { open.confined() };
        let opened = self.io.open(open).await;
        let file = opened.map_err(|error| label(error.doing("open for writing")))?;
        let found = self.io.status_of(&file).await.map_err(label)?;
        if matches!(expected, Expected::File(expected) if !found.is_same_file(expected)) {
            let reason = "the target was exchanged meanwhile";
            return Err(label(Error::new(ErrorKind::Io, "open", reason)));
        }
        let is_stream = found.kind != FileKind::Regular;
        if self.job.remembers_created() {
            self.job.remember_created((found.device, found.inode), target.name.as_bytes());
        }
        let known = Known {
            owner: Some((found.owner, found.group)),
            file: Some((found.device, found.inode)),
            mode: Some(found.mode),
            is_existing: true,
            inherited: None,
        };
        let made = Made::InPlace { reason, is_stream };
        Ok(NewFile::new(file, target.clone(), made, known))
    }
}

/// What is to be written over.
#[derive(Clone, Copy)]
enum Expected<'a> {
    /// This file.
    File(&'a FileStatus),
    /// What stands under the name itself.
    Unlinked,
    /// The device or open file that the link at an operand leads to.
    Linked,
}

impl<'a> From<&'a Option<FileStatus>> for Expected<'a> {
    fn from(status: &'a Option<FileStatus>) -> Self {
        status.as_ref().map_or(Self::Unlinked, Self::File)
    }
}

/// Whether the directory, not the file, is what refuses.
fn is_refusal(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EACCES | Errno::EPERM))
}

/// A path without its last name, and that name.
pub(super) fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let path = &path[..end];
    match path.iter().rposition(|byte| *byte == b'/') {
        None => (b".", path),
        Some(0) => (b"/", &path[1..]),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_before_its_last_name() {
        let cases: [(&[u8], &[u8], &[u8]); 6] = [
            (b"a", b".", b"a"),
            (b"a/b", b"a", b"b"),
            (b"/a", b"/", b"a"),
            (b"a/b//", b"a", b"b"),
            (b"../x", b"..", b"x"),
            (b"", b".", b""),
        ];
        for (path, parent, leaf) in cases {
            assert_eq!(split_path(path), (parent, leaf), "{path:?}");
        }
    }
}
