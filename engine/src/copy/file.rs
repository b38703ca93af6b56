//! Copying one regular file, from its open source to its published target.
//!
//! ```text
//! status -> make target -> data -> status again -> attributes -> sync -> close -> publish
//!   ^                                   |
//!   +------- the source was changed ----+   once; then it is given up
//! ```

use super::data::Moved;
use super::publish::{NewFile, Target};
use super::worker::{Labels, Worker};
use super::{Action, Copied, Durability, EntryKind, Event};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::SOURCE_CHANGED_RETRIES;
use crate::operation::{Close, File, FileKind, FileStatus, Operation, SyncReach};
use crate::units::Moment;

impl Worker<'_> {
    /// Copies a regular file, or what is read like one, and tells what came of it.
    pub(super) async fn copy_file(
        &self,
        source: &File,
        status: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        self.job.progress.find_file(status.size_bytes);
        let copied = self.copy_unchanged(source, *status, target, labels).await;
        self.job.progress.add_file();
        copied
    }

    /// Copies a file, once more if it is changed meanwhile.
    async fn copy_unchanged(
        &self,
        source: &File,
        mut status: FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let mut retries = 0;
        loop {
            let started = self.started();
            let new = self.make_target(target, &status, labels).await?;
            // What a pipe was given can't be taken back.
            let may_retry = !new.is_stream() && retries < SOURCE_CHANGED_RETRIES;
            match self.copy_once(source, &status, new, started, labels).await {
                Err(error) if may_retry && error.kind() == ErrorKind::SourceChanged => {
                    retries += 1;
                    status = self.io.status_of(source).await.map_err(|e| e.on(labels.source()))?;
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
        started: Option<Moment>,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let is_stream = status.kind != FileKind::Regular;
        let (new, moved) = self.fill(source, status, new, labels).await?;
        let new = match self.complete(source, status, &new, is_stream, labels).await {
            Ok(()) => new,
            Err(error) => {
                self.discard(new).await;
                return Err(error);
            }
        };
        let (new, publication) = match self.publish(&new, labels).await {
            Ok(publication) => (new, publication),
            Err(error) if Self::may_write_in_place(&new, &error) => {
                let new = self.reopen_in_place(new, labels).await?;
                let (new, _) = self.fill(source, status, new, labels).await?;
                self.complete(source, status, &new, is_stream, labels).await?;
                let publication = self.publish(&new, labels).await?;
                (new, publication)
            }
            Err(error) => {
                self.discard(new).await;
                return Err(error);
            }
        };
        self.close(new, labels).await?;
        let mut summary = self.summary.borrow_mut();
        summary.files += 1;
        summary.bytes += moved.bytes;
        summary.paths.count(moved.path);
        drop(summary);
        if self.job.observer.wants_copies() {
            let (source, target) = (labels.source(), labels.target());
            let (source, target) = (source.as_path(), target.as_path());
            let copied = Copied {
                action: Action::Copied,
                path: Some(moved.path),
                path_reason: Some(moved.reason),
                fell_back: &moved.fell_back,
                publication,
                bytes: moved.bytes,
                holes_bytes: moved.holes_bytes(),
                is_shared: moved.is_shared(),
                elapsed: started.map(|started| self.io.tasks.now().since(started)),
                ..Copied::new(source, target, EntryKind::File)
            };
            self.job.observer.on_event(&Event::Copied(&copied));
        }
        Ok(())
    }

    /// Moves the data into a new file; discards it if that fails.
    async fn fill(
        &self,
        source: &File,
        status: &FileStatus,
        new: NewFile,
        labels: &dyn Labels,
    ) -> Result<(NewFile, Moved), Error> {
        match self.move_data(source, status, &new, labels).await {
            Ok(moved) => Ok((new, moved)),
            Err(error) => {
                self.discard(new).await;
                Err(error)
            }
        }
    }

    /// What makes a file with all its bytes complete: the source was not changed under it, and it
    /// has its attributes, and is on the disk if it must be.
    async fn complete(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
        is_stream: bool,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if !is_stream {
            self.check_unchanged(source, status, labels).await?;
        }
        let label = |error: Error| error.on(labels.target());
        self.keep_file_attributes(source, status, new, labels).await.map_err(label)?;
        // A stage is put on the disk whole, before it is published.
        if !new.is_staged() {
            match self.job.options.durability {
                Durability::None => {}
                Durability::Data => self.sync(&new.file, SyncReach::Data).await.map_err(label)?,
                Durability::Full => self.sync_all(new).await.map_err(label)?,
            }
        }
        Ok(())
    }

    /// A pipe has no disk to be on.
    async fn sync_all(&self, new: &NewFile) -> Result<(), Error> {
        match self.sync(&new.file, SyncReach::File).await {
            Err(error) if new.is_in_place() && error.errno() == Some(Errno::EINVAL) => Ok(()),
            synced => synced,
        }
    }

    /// Grown only: what was there is copied, with a warning. Changed otherwise: given up.
    async fn check_unchanged(
        &self,
        source: &File,
        before: &FileStatus,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let after = self.io.status_of(source).await.map_err(|error| error.on(labels.source()))?;
        if after.size_bytes > before.size_bytes {
            let warning = "the file grew while it was copied; what was added is not in the copy";
            self.warn(labels, warning);
            return Ok(());
        }
        if (after.size_bytes, after.modified, after.changed)
            == (before.size_bytes, before.modified, before.changed)
        {
            return Ok(());
        }
        let reason = "the file was changed while it was copied";
        Err(Error::new(ErrorKind::SourceChanged, "copy", reason).on(labels.source()))
    }

    /// Closes a file that is published: where a file system tells of a failure only now, it is told.
    async fn close(&self, new: NewFile, labels: &dyn Labels) -> Result<(), Error> {
        let close = Operation::Close(Close::file(new.into_file()));
        let closed = self.io.perform_always(close).await;
        closed.map(drop).map_err(|error| error.on(labels.target()))
    }
}
