//! Copying one regular file, from its open source to its published target.
//!
//! ```text
//! status -> make target -> data -> status again -> attributes -> sync -> flush -> publish -> sync names -> close
//!   ^                                   |
//!   +------- the source was changed ----+   once; then it is given up
//! ```

use std::time::Duration;

use super::data::Moved;
use super::file_system::tells_at_close;
use super::journal::Reached;
use super::publish::{Made, NewFile, Target};
use super::remove_source::is_unchanged;
use super::worker::{Labels, Worker};
use super::{
    Action, Copied, DataPath, Durability, EntryKind, Event, Make, PathReason, Publication, Verified,
};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::SOURCE_CHANGED_RETRIES;
use crate::operation::{Close, File, FileKind, FileStatus, Flush, Operation, SyncReach};
use crate::units::Moment;

/// What becomes of a copy whose source was changed under it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Changes {
    /// It is discarded.
    Refused,
    /// It is published, and marked.
    Allowed,
    /// The same; and nobody looks, as it was changed again and again.
    Expected,
}

/// What became of a file that has its bytes and attributes.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) moved: Moved,
    /// What the source was when that began.
    source: FileStatus,
    /// How long that took, where somebody is told.
    elapsed: Option<Duration>,
}

impl Worker<'_> {
    /// Copies a regular file, or what is read like one, and tells what came of it.
    pub(super) async fn copy_file(
        &self,
        source: &File,
        status: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if self.is_rehearsal() {
            return self.rehearse_file(status, target, labels).await;
        }
        self.job.progress.find_file(status.size_bytes);
        if self.is_up_to_date(source, status, target, labels).await?
            || self.is_taken_over(source, status, target, labels).await?
        {
            self.job.progress.add_bytes(status.size_bytes);
            self.job.progress.add_file();
            return Ok(());
        }
        let copied = self.copy_unchanged(source, *status, target, labels).await;
        self.job.progress.add_file();
        copied.or_else(|error| self.keep_or_fail(error, labels))
    }

    /// Copies a file, once more if it is changed meanwhile.
    async fn copy_unchanged(
        &self,
        source: &File,
        mut status: FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let allows_changed = self.job.options.allow_changed;
        let mut retries = 0;
        loop {
            let started = self.started();
            let new = self.make_target(target, &status, labels).await?;
            // What a pipe was given can't be taken back.
            let may_retry = !new.is_stream() && retries < SOURCE_CHANGED_RETRIES;
            let is_last = !may_retry && allows_changed;
            // One that became shorter twice: its length is what there is.
            let reads_on = !new.is_stream() && retries == SOURCE_CHANGED_RETRIES && allows_changed;
            let changes = match (is_last, retries > SOURCE_CHANGED_RETRIES) {
                (false, _) => Changes::Refused,
                (true, false) => Changes::Allowed,
                (true, true) => Changes::Expected,
            };
            match self.copy_once(source, &status, new, (started, changes), labels).await {
                Err(error)
                    if (may_retry || reads_on) && error.kind() == ErrorKind::SourceChanged =>
                {
                    retries += 1;
                    status = self.io.status_of(source).await.map_err(|e| e.on(labels.source()))?;
                    if reads_on {
                        // So it is read to its end, wherever that is by then.
                        status.size_bytes = 0;
                    }
                }
                copied => return copied,
            }
        }
    }

    async fn copy_once(
        &self,
        source: &File,
        status: &FileStatus,
        new: NewFile,
        (started, changes): (Option<Moment>, Changes),
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let waits = self.will_wait(status, &new, labels).await;
        let (new, mut moved) = self.fill(source, status, new, labels).await?;
        let new = match self.complete(source, status, (&new, &mut moved), changes, labels).await {
            Ok(()) => new,
            Err(error) => {
                self.discard(new).await;
                return Err(error);
            }
        };
        let new = self.make_durable(new, waits, labels).await?;
        if new.journal.borrow().is_some() || new.reached != Reached::default() {
            self.remove_journal(&new).await;
        }
        if waits {
            let written = Written { moved, source: *status, elapsed: self.since(started) };
            self.wait(new, written, labels);
            return Ok(());
        }
        let (new, moved, publication) = match self.publish(&new, labels).await {
            Ok(publication) => (new, moved, publication),
            Err(error) if self.may_write_in_place(&new, &error) => {
                let new = self.reopen_in_place(new, labels).await?;
                self.job.progress.take_back_bytes(moved.bytes);
                let (new, mut moved) = self.fill(source, status, new, labels).await?;
                self.complete(source, status, (&new, &mut moved), changes, labels).await?;
                let new = self.make_durable(new, false, labels).await?;
                let publication = self.publish(&new, labels).await?;
                (new, moved, publication)
            }
            Err(error) => {
                self.discard(new).await;
                return Err(error);
            }
        };
        self.published.set(new.known.file);
        self.make_name_durable(&new, labels).await?;
        let written = Written { moved, source: *status, elapsed: self.since(started) };
        self.finish_file(new, written, publication, labels).await
    }

    /// Puts the bytes and attributes of a complete file on stable storage, if they must be, and has
    /// the file system tell what it would tell at the end; discards the file if either fails.
    async fn make_durable(
        &self,
        new: NewFile,
        waits: bool,
        labels: &dyn Labels,
    ) -> Result<NewFile, Error> {
        let synced = if waits { Ok(()) } else { self.sync_new(&new).await };
        let made = match synced {
            Ok(()) => self.flush(&new, labels).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(()) => Ok(new),
            Err(error) => {
                self.discard(new).await;
                Err(error.on(labels.target()))
            }
        }
    }

    async fn sync_new(&self, new: &NewFile) -> Result<(), Error> {
        match self.job.options.durability {
            // A stage is put on the disk whole, before it is published.
            _ if new.is_staged() => Ok(()),
            Durability::None => Ok(()),
            Durability::Data => self.sync_one(new, SyncReach::Data).await,
            Durability::Full => self.sync_one(new, SyncReach::File).await,
        }
    }

    /// A pipe has no disk to be on.
    async fn sync_one(&self, new: &NewFile, reach: SyncReach) -> Result<(), Error> {
        match self.sync(&new.file, reach).await {
            Err(error) if new.is_in_place() && error.errno() == Some(Errno::EINVAL) => Ok(()),
            synced => synced,
        }
    }

    /// What a file system tells only when a file is closed is heard before the file gets its name.
    async fn flush(&self, new: &NewFile, labels: &dyn Labels) -> Result<(), Error> {
        let directory = &new.target.directory;
        let device = match labels.entry() {
            Some((entered, _)) => entered.device(),
            None => self.io.status_of(directory).await?.device,
        };
        let magic = self.magic(device, directory).await;
        if new.is_in_place() || !tells_at_close(magic) {
            return Ok(());
        }
        self.io.perform_always(Operation::Flush(Flush { file: new.file.clone() })).await.map(drop)
    }

    /// Puts the name of a published file on stable storage, if it must be. The file stays whatever
    /// comes of it: its temporary name may be another's by now.
    async fn make_name_durable(&self, new: &NewFile, labels: &dyn Labels) -> Result<(), Error> {
        let is_asked_for = self.job.options.durability == Durability::Full;
        if !is_asked_for || new.is_staged() || new.is_stream() {
            return Ok(());
        }
        let label = |error: Error| error.on(labels.target());
        self.sync_names(&new.target.directory, &new.file).await.map_err(label)?;
        match labels.entry() {
            Some((directory, _)) => self.sync_names_above(&directory).await.map_err(label),
            None => Ok(()),
        }
    }

    fn since(&self, started: Option<Moment>) -> Option<Duration> {
        started.map(|started| self.io.tasks.now().since(started))
    }

    /// Counts a file that has its name, and tells of it.
    pub(super) async fn finish_file(
        &self,
        new: NewFile,
        Written { moved, source: status, elapsed }: Written,
        publication: Publication,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let backup = new.backup.get().cloned();
        if let Some(staging) = &new.target.staging {
            staging.add_bytes(moved.bytes);
        }
        let resumed_bytes = new.resumed_bytes.get();
        let begins_again = self.begins_again(&status, &new);
        let goes = self.may_stand_alone(&new, moved.verified, labels).await?;
        self.close(new, labels).await?;
        if let Some(digest) = &moved.digest {
            self.list_in_manifest(**digest, moved.bytes, labels);
        }
        self.count_file(&moved);
        if self.job.observer.wants_copies() {
            let (source, target) = (labels.source(), labels.target());
            let (source, target) = (source.as_path(), target.as_path());
            let backup = backup.map(|name| target.with_file_name(name.as_os_str()));
            let copied = Copied {
                action: Action::Copied,
                path: Some(moved.path),
                path_reason: Some(moved.reason),
                fell_back: &moved.fell_back,
                publication,
                bytes: moved.bytes,
                resumed_bytes,
                begins_again,
                holes_bytes: moved.holes_bytes(),
                hole_search: moved.hole_search,
                is_shared: moved.is_shared(),
                digest: moved.digest.map(|digest| (*digest).into()).ok_or("not asked for"),
                verified: moved.verified,
                cache: moved.cache,
                elapsed,
                backup: backup.as_deref(),
                removed: self.has_removed(publication),
                is_of_changed: moved.is_of_changed,
                ..Copied::new(source, target, EntryKind::File)
            };
            self.job.observer.on_event(&Event::Copied(&copied));
            if publication != Publication::Staged {
                self.tell_done(target, false);
            }
        }
        // What may be of no single moment is no copy to stand alone.
        if goes && !moved.is_of_changed {
            self.remove_source(&status, labels).await;
        }
        Ok(())
    }

    fn count_file(&self, moved: &Moved) {
        let mut summary = self.summary.borrow_mut();
        summary.files += 1;
        summary.bytes += moved.bytes;
        summary.paths.count(moved.path);
        summary.verified_device += u64::from(moved.verified == Some(Verified::Device));
        summary.verified_cache += u64::from(moved.verified == Some(Verified::Cache));
    }

    /// Moves the data into a new file; discards it if that fails.
    async fn fill(
        &self,
        source: &File,
        status: &FileStatus,
        new: NewFile,
        labels: &dyn Labels,
    ) -> Result<(NewFile, Moved), Error> {
        if self.job.options.existing.make == Make::Attributes {
            let moved = Moved {
                path: DataPath::Small,
                reason: PathReason::AttributesOnly,
                fell_back: Vec::new(),
                bytes: 0,
                hole_bytes: 0,
                hole_search: None,
                fingerprint: None,
                digest: None,
                verified: None,
                cache: None,
                is_of_changed: false,
            };
            return Ok((new, moved));
        }
        let pages = self.look_at_pages(source, status).await;
        let (new, moved) = self.move_data(source, status, new, labels).await;
        let moved = match moved {
            Ok(moved) => self.check_moved(source, status, &new, moved, labels).await,
            Err(error) => Err(error),
        };
        let moved = match moved {
            Ok(moved) => {
                let settled = self.settle_cache(source, pages, &new, moved).await;
                settled.map_err(|error| error.on(labels.target()))
            }
            Err(error) => Err(error),
        };
        match moved {
            Ok(moved) => Ok((new, moved)),
            Err(error) => {
                let is_cancelled = error.kind() == ErrorKind::Cancelled;
                if is_cancelled && let Some(reason) = self.begins_again(status, &new) {
                    self.warn(labels, &format!("the next run begins again: {reason}"));
                }
                if !is_cancelled || !self.keep_interrupted(&new, labels).await {
                    self.discard(new).await;
                }
                Err(error)
            }
        }
    }

    /// What makes a file with all its bytes complete: the source was not changed under it, and it
    /// has its attributes.
    async fn complete(
        &self,
        source: &File,
        status: &FileStatus,
        (new, moved): (&NewFile, &mut Moved),
        changes: Changes,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if status.kind == FileKind::Regular {
            let checked = match changes {
                Changes::Expected => Ok(false),
                _ => self.is_unchanged_but_longer(source, status, (new, moved), labels).await,
            };
            match checked {
                Ok(true) => {}
                Ok(false) if changes != Changes::Refused => {
                    moved.is_of_changed = true;
                    self.warn(
                        labels,
                        "the file was changed while it was copied; the copy may be \
                                       of no single moment",
                    );
                }
                Ok(false) => {
                    let reason = "the file was changed while it was copied";
                    let error = Error::new(ErrorKind::SourceChanged, "copy", reason);
                    return Err(error.on(labels.source()));
                }
                Err(error) => return Err(error),
            }
        }
        let label = |error: Error| error.on(labels.target());
        self.remove_staged_journal(new).await.map_err(label)?;
        self.keep_file_attributes(source, status, new, labels).await.map_err(label)?;
        Ok(())
    }

    /// Whether what was copied is what the source is. If it only grew, what was there is copied,
    /// with a warning.
    async fn is_unchanged_but_longer(
        &self,
        source: &File,
        before: &FileStatus,
        (new, moved): (&NewFile, &Moved),
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        let after = self.io.status_of(source).await.map_err(|error| error.on(labels.source()))?;
        if after.size_bytes <= before.size_bytes {
            return Ok(is_unchanged(before, &after, self.job.removed_names(before)));
        }
        // Its times tell nothing: appending changes them, too.
        let warning = match self.holds_still(source, (new, moved), labels).await? {
            Some(false) => return Ok(false),
            Some(true) => "the file grew while it was copied; what was added is not in the copy",
            None => {
                "the file grew while it was copied; whether it was changed otherwise can't be \
                 told, as what was written can't be read back"
            }
        };
        self.warn(labels, warning);
        Ok(true)
    }

    /// Whether a source that grew holds the bytes that were copied still; none if the copy can't be
    /// read back. If each byte is the same before and after a moment in between, the copy is what
    /// the file was at that moment.
    async fn holds_still(
        &self,
        source: &File,
        (new, moved): (&NewFile, &Moved),
        labels: &dyn Labels,
    ) -> Result<Option<bool>, Error> {
        // A clone is made of one moment.
        if moved.path == DataPath::Clone || moved.bytes == 0 {
            return Ok(Some(true));
        }
        match self.open_copy(new).await {
            Some(copy) => self.holds_same(source, &copy, moved.bytes, labels).await.map(Some),
            None => Ok(None),
        }
    }

    /// Opens what was copied, to read it; none if that can't be.
    async fn open_copy(&self, new: &NewFile) -> Option<File> {
        let name = match &new.made {
            Made::Device { .. } => return Some(new.file.clone()),
            Made::InPlace { is_stream: true, .. } => return None,
            Made::Temporary { name, .. } => name.clone(),
            Made::Staged | Made::InPlace { .. } => new.target.name.clone(),
        };
        let status = self.io.status_of(&new.file).await.ok()?;
        // Only what the user named may be reached by a link.
        let is_operand = new.target.is_operand && new.is_in_place();
        let target = Target { name, is_operand, ..new.target.clone() };
        self.open_existing(&target, &status).await.ok()?
    }

    /// Closes a file that is published: where a file system tells of a failure only now, it is told.
    async fn close(&self, new: NewFile, labels: &dyn Labels) -> Result<(), Error> {
        let close = Operation::Close(Close::file(new.into_file()));
        let closed = self.io.perform_always(close).await;
        closed.map(drop).map_err(|error| error.on(labels.target()))
    }
}
