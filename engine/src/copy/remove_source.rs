//! Removing a source once its copy is safe: a move that no kill, power cut or exchanged name can
//! turn into a loss.
//!
//! ```text
//! copied, verified, on stable storage, under its name -> done -> name looked at once more -> unlink
//! ```
//!
//! Only regular files go, by the name that they were copied by. A name that was linked and not
//! copied stays, as do symbolic links with what is behind them, special files
//! and directories.

use std::os::unix::ffi::OsStrExt;

use super::publish::{NewFile, Target, split_path};
use super::worker::{Labels, Worker};
use super::{Event, Verified};
use crate::error::{Error, ErrorKind};
use crate::operation::{File, FileKind, FileStatus, Name, Operation, Place, SyncReach, Unlink};

impl Worker<'_> {
    /// Whether sources are removed once they were copied.
    pub(super) fn removes_sources(&self) -> bool {
        self.job.options.selection.remove_source_files && !self.is_rehearsal()
    }

    /// Whether a copy that has its name may be the only one: it was verified, and is found again
    /// after a power cut.
    pub(super) async fn may_stand_alone(
        &self,
        new: &NewFile,
        verified: Option<Verified>,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        if !self.removes_sources() || verified.is_none() || new.is_staged() {
            return Ok(false);
        }
        let on_target = |error: Error| error.on(labels.target());
        if self.job.options.parents {
            // Directories above the operand that were there may be those of a run that was killed.
            self.sync(&new.file, SyncReach::FileSystem).await.map_err(on_target)?;
        }
        // Another source may be written into the same file, by another of its names.
        let has_other_names =
            new.is_in_place() && self.io.status_of(&new.file).await.map_err(on_target)?.links > 1;
        if has_other_names {
            self.warn(labels, "it stays: its copy was written into a file that has other names");
        }
        Ok(!has_other_names)
    }

    /// Removes the source of a file that stood at its target already, with the same bytes. What
    /// stands there may be younger than the last sync.
    pub(super) async fn remove_compared(
        &self,
        source: &FileStatus,
        standing: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) {
        if !self.removes_sources() {
            return;
        }
        let file = (standing.device, standing.inode);
        self.job.remember_created(file, target.name.as_bytes());
        match self.settle_standing(target, standing).await {
            Ok(true) => self.remove_source(source, labels).await,
            Ok(false) => {}
            Err(error) => self.fail(&error.on(labels.target())),
        }
    }

    /// Puts what stands at a target on stable storage, with all names that lead to it; false if it
    /// is something else by now.
    async fn settle_standing(&self, target: &Target, standing: &FileStatus) -> Result<bool, Error> {
        let Some(file) = self.open_existing(target, standing).await? else { return Ok(false) };
        self.sync(&file, SyncReach::FileSystem).await.map(|()| true)
    }

    /// Tells in a dry run what would be removed.
    pub(super) async fn rehearse_removal(&self, source: &FileStatus, labels: &dyn Labels) {
        let is_asked = self.job.options.selection.remove_source_files;
        if !is_asked || source.kind != FileKind::Regular || Self::stays(labels) {
            return;
        }
        let Ok(place) = self.source_place(labels).await else { return };
        let found = self.io.status_at(place, false).await;
        if found.is_ok_and(|found| found.is_some_and(|found| found.is_same_file(source))) {
            self.summary.borrow_mut().removed += 1;
            self.job.observer.on_event(&Event::WouldRemove { source: &labels.source() });
        }
    }

    /// Removes the source of a copy that may stand alone. What goes wrong is told: the copy itself
    /// has succeeded.
    pub(super) async fn remove_source(&self, source: &FileStatus, labels: &dyn Labels) {
        if source.kind != FileKind::Regular {
            return;
        }
        match self.try_remove_source(source, labels).await {
            Ok(false) => {}
            Ok(true) => {
                self.summary.borrow_mut().removed += 1;
                if self.job.observer.wants_copies() {
                    self.job.observer.on_event(&Event::Removed { source: &labels.source() });
                }
            }
            Err(error) => self.fail(&error.on(labels.source())),
        }
    }

    /// Removes a source, unless its name is another's by now, or nobody's.
    async fn try_remove_source(
        &self,
        source: &FileStatus,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        if Self::stays(labels) {
            return Ok(false);
        }
        let place = self.source_place(labels).await?;
        let Some(found) = self.io.status_at(place.clone(), false).await? else { return Ok(false) };
        if found.kind == FileKind::SymbolicLink {
            // It was followed: the link stays, and so does what it leads to.
            return Ok(false);
        }
        if !is_unchanged(source, &found, self.job.removed_names(source)) {
            let reason = "it was changed after it was copied, and stays";
            return Err(Error::new(ErrorKind::SourceChanged, "remove", reason));
        }
        if source.links > 1 {
            // Before it is done: the file's ctime changes with it, and others may be looking.
            self.job.count_removed_name(source);
        }
        let unlink = Unlink { place, is_directory: false };
        self.io.perform(Operation::Unlink(unlink)).await.map(|_| true)
    }

    fn stays(labels: &dyn Labels) -> bool {
        labels.entry().is_some_and(|(directory, _)| directory.keeps_sources)
    }

    /// Whether sources in a directory stay, because a symbolic link has led to it: the link may have
    /// been put there by somebody else, meanwhile.
    pub(super) async fn is_reached_by_link(
        &self,
        place: Place,
        opened: &FileStatus,
    ) -> Result<bool, Error> {
        if !self.job.options.selection.remove_source_files {
            return Ok(false);
        }
        let named = self.io.status_at(place, false).await?;
        Ok(named.is_none_or(|named| !named.is_same_file(opened)))
    }

    /// The name of a source, in an open directory.
    async fn source_place(&self, labels: &dyn Labels) -> Result<Place, Error> {
        if let Some((directory, name)) = labels.entry() {
            return Ok(Place::at(&self.opened_source(&directory).await?, &name));
        }
        let path = labels.source();
        let (above, leaf) = split_path(path.as_os_str().as_bytes());
        let named = |bytes| Name::new(bytes).map_err(|e| Error::from_errno("remove", e));
        let above = Place { directory: None, name: named(above)? };
        let directory: File = self.open_directory(above).await?;
        Ok(Place::at(&directory, &named(leaf)?))
    }
}

/// Whether a file is as it was when its copy began. Its ctime may differ where this run itself has
/// removed other names of it.
pub(super) fn is_unchanged(before: &FileStatus, now: &FileStatus, removed_names: u32) -> bool {
    let names_gone = before.links.checked_sub(now.links);
    let is_own_change = matches!(names_gone, Some(gone) if (1..=removed_names).contains(&gone));
    now.is_same_file(before)
        && (now.kind, now.size_bytes, now.modified)
            == (before.kind, before.size_bytes, before.modified)
        && (now.changed == before.changed || is_own_change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::WallTime;

    #[test]
    fn a_file_is_unchanged_by_all_that_its_status_tells() {
        let time = |nanoseconds| WallTime { seconds: 5, nanoseconds };
        let before = FileStatus {
            kind: FileKind::Regular,
            links: 3,
            device: 1,
            inode: 2,
            size_bytes: 10,
            modified: time(1),
            changed: time(1),
            ..FileStatus::default()
        };
        let renamed = FileStatus { changed: time(2), ..before };
        let cases = [
            ("nothing", before, 0, true),
            ("another file", FileStatus { inode: 3, ..before }, 9, false),
            ("another device", FileStatus { device: 3, ..before }, 9, false),
            ("another kind", FileStatus { kind: FileKind::SymbolicLink, ..before }, 9, false),
            ("another size", FileStatus { size_bytes: 11, ..before }, 9, false),
            ("written", FileStatus { modified: time(2), ..before }, 9, false),
            ("written, and its time set back", renamed, 9, false),
            ("read", FileStatus { accessed: time(9), ..before }, 0, true),
            ("a name gone, by others", FileStatus { links: 2, ..renamed }, 0, false),
            ("a name gone, by this run", FileStatus { links: 2, ..renamed }, 1, true),
            ("two names gone, one by this run", FileStatus { links: 1, ..renamed }, 1, false),
            ("a name more", FileStatus { links: 4, ..renamed }, 1, false),
            (
                "a name gone by this run, and written",
                FileStatus { links: 2, modified: time(2), ..renamed },
                1,
                false,
            ),
        ];
        for (name, now, removed_names, want) in cases {
            assert_eq!(is_unchanged(&before, &now, removed_names), want, "{name}");
        }
    }
}
