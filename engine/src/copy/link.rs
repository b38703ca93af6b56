//! Copying a symbolic link as a link.

use super::publish::Target;
use super::temporary::temporary_name;
use super::worker::{Labels, Worker};
use super::{Action, Copied, Durability, EntryKind, Event, Publication};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::TEMPORARY_ATTEMPTS_MAX;
use crate::operation::{
    ChangeTimes, FileKind, FileStatus, Name, Operation, Place, Rename, Subject, SymbolicLink,
    SyncReach,
};

impl Worker<'_> {
    /// Copies a symbolic link as a link, with its times.
    pub(super) async fn copy_symbolic_link(
        &self,
        source: Place,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let started = self.started();
        let on_source = |error: Error| error.on(labels.source());
        let on_target = |error: Error| error.on(labels.target());
        // Reading the link would change the time of its last reading.
        let status = self.io.status_at(source.clone(), false).await.map_err(on_source)?;
        let status = status.ok_or_else(|| on_source(Error::from_errno("status", Errno::ENOENT)))?;
        if self.is_rehearsal() {
            return self.rehearse_link(&status, target, labels).await;
        }
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
        let is_synced = target.is_operand && self.job.options.durability == Durability::Full;
        if is_synced {
            // Its times are durable with the whole file system only.
            self.sync(&target.directory, SyncReach::FileSystem).await.map_err(on_target)?;
        }
        self.summary.borrow_mut().links += 1;
        if self.job.observer.wants_copies() {
            let (source, target) = (labels.source(), labels.target());
            let (source, target) = (source.as_path(), target.as_path());
            let kind = EntryKind::SymbolicLink;
            let elapsed = started.map(|started| self.io.tasks.now().since(started));
            let copied = Copied {
                action: Action::Copied,
                publication,
                elapsed,
                ..Copied::new(source, target, kind)
            };
            self.job.observer.on_event(&Event::Copied(&copied));
            if is_synced {
                self.tell_done(target, false);
            }
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
        for attempt in 0..TEMPORARY_ATTEMPTS_MAX {
            let salt = self.salt(attempt);
            let name = temporary_name(target.name.as_bytes(), salt);
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
}
