//! Making a target as a link to its source: one more name (`-l`), or a symbolic link (`-s`).

use std::os::unix::ffi::OsStrExt;

use super::publish::Target;
use super::standing::refused;
use super::temporary::temporary_name;
use super::worker::{Labels, Worker};
use super::{Action, Copied, EntryKind, Event, Make, Overwrite, Publication};
use crate::error::{Errno, Error, Refusal};
use crate::limits::TEMPORARY_ATTEMPTS_MAX;
use crate::operation::{FileKind, FileStatus, Link, Name, Operation, Place, Rename, SymbolicLink};
use crate::units::Moment;

impl Worker<'_> {
    /// Makes a target as a link to `source`, as the options say which.
    pub(super) async fn make_link_to(
        &self,
        source: Place,
        is_followed: bool,
        status: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let started = self.started();
        let waits = self.will_link_wait(target, labels).await;
        let existing = &self.job.options.existing;
        let is_symbolic = existing.make == Make::SymbolicLink;
        // As cp, which removes what stands in the way of links and special files that it keeps.
        let is_node = !is_followed && status.kind != FileKind::Regular;
        let made = if is_symbolic {
            self.check_leads_there(target, labels).await?;
            let path = labels.source();
            let content = Name::new(path.as_os_str().as_bytes())
                .map_err(|errno| Error::from_errno("make symbolic link", errno))?;
            let make = |place| {
                let content = content.clone();
                Operation::SymbolicLink(SymbolicLink { place, content })
            };
            self.make_link(target, status, make, is_node, labels).await
        } else {
            let make = |place| {
                let (source, follow) = (source.clone(), is_followed);
                Operation::Link(Link { source, target: place, follow })
            };
            let replaces = is_node || existing.overwrite == Overwrite::Ask;
            self.make_link(target, status, make, replaces, labels).await
        };
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                let error = error.on(labels.target()).copying(labels.source());
                return self.keep_or_fail(error, labels);
            }
        };
        if is_symbolic {
            let kept = self.keep_made_link_times(status, target, labels).await;
            kept.map_err(|error| error.on(labels.target()))?;
        }
        self.remember_made(&target.directory, &target.name).await;
        self.sync_link(target, waits).await.map_err(|error| error.on(labels.target()))?;
        let action = if is_symbolic { Action::Made } else { Action::Linked };
        self.tell_link(made, action, started, labels);
        self.settle_link(target, waits, labels);
        Ok(())
    }

    /// Makes a link at a target: where something stands, over it, if it may be replaced.
    async fn make_link(
        &self,
        target: &Target,
        status: &FileStatus,
        make: impl Fn(Place) -> Operation,
        replaces: bool,
        labels: &dyn Labels,
    ) -> Result<(Publication, Option<Name>), Error> {
        let existing = &self.job.options.existing;
        let replaces = replaces || existing.remove || existing.backup.is_some();
        match self.io.perform(make(Place::at(&target.directory, &target.name))).await {
            Ok(_) if target.is_staged => Ok((Publication::Staged, None)),
            Ok(_) => Ok((Publication::New, None)),
            Err(error) if error.errno() == Some(Errno::EEXIST) && replaces && !target.is_staged => {
                let backup = self.replace_by_link(target, status, make, labels).await?;
                Ok((Publication::Replaced, backup))
            }
            Err(error) => Err(error),
        }
    }

    /// A symbolic link that is relative is made in the current directory only: what it says is
    /// what the user wrote, and would lead elsewhere from any other.
    async fn check_leads_there(&self, target: &Target, labels: &dyn Labels) -> Result<(), Error> {
        if labels.source().is_absolute() {
            return Ok(());
        }
        let current = Place { directory: None, name: Name::from(c".") };
        let current = self.io.status_at(current, true).await?;
        let directory = self.io.status_of(&target.directory).await?;
        if current.is_some_and(|current| current.is_same_file(&directory)) {
            return Ok(());
        }
        Err(refused(Refusal::RelativeLink, labels))
    }

    /// Counts a link that was made, and tells of it.
    pub(super) fn tell_link(
        &self,
        (publication, backup): (Publication, Option<Name>),
        action: Action,
        started: Option<Moment>,
        labels: &dyn Labels,
    ) {
        self.summary.borrow_mut().links += 1;
        if self.job.observer.wants_copies() {
            let (source, target) = (labels.source(), labels.target());
            let backup = backup.map(|name| target.with_file_name(name.as_os_str()));
            let is_hard = self.job.options.existing.make == Make::HardLink;
            let kind = if is_hard { EntryKind::File } else { EntryKind::SymbolicLink };
            let copied = Copied {
                action,
                publication,
                elapsed: started.map(|started| self.io.tasks.now().since(started)),
                backup: backup.as_deref(),
                removed: self.has_removed(publication),
                ..Copied::new(&source, &target, kind)
            };
            self.job.observer.on_event(&Event::Copied(&copied));
        }
    }

    /// Whether what stood at a target was removed because that was asked for, or could not be
    /// written in place though that was.
    pub(super) fn has_removed(&self, publication: Publication) -> bool {
        let existing = &self.job.options.existing;
        let is_replaced = publication == Publication::Replaced;
        let is_meant = existing.remove || self.job.options.in_place;
        is_replaced && is_meant && existing.backup.is_none()
    }

    /// Puts a link in the place of what stands there, as cp does; never of a directory. Returns
    /// where that is kept.
    pub(super) async fn replace_by_link(
        &self,
        target: &Target,
        source: &FileStatus,
        make: impl Fn(Place) -> Operation,
        labels: &dyn Labels,
    ) -> Result<Option<Name>, Error> {
        let place = Place::at(&target.directory, &target.name);
        let standing = self.io.status_at(place.clone(), false).await?;
        Self::check_seen(target, standing.as_ref(), labels)?;
        if let Some(standing) = standing {
            if standing.kind == FileKind::Directory {
                return Err(refused(Refusal::FileOntoDirectory, labels));
            }
            self.check_overwrite(source, &standing, target, labels)?;
        }
        let mut backup = None;
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
            // Not before there is something to put in its place: where what stands there can't have
            // one more name, it loses the one that it has.
            if backup.is_none() {
                backup = match self.back_up(target).await {
                    Ok(backup) => backup,
                    Err(error) => {
                        self.io.remove(&target.directory, &name, false).await;
                        return Err(error);
                    }
                };
            }
            let source = Place::at(&target.directory, &name);
            let rename = Rename { source, target: place.clone(), replace: true };
            match self.io.perform_always(Operation::Rename(rename)).await {
                Ok(_) => {
                    // Where both are names of one file already, the kernel leaves both: rename(2).
                    if self.job.options.existing.make == Make::HardLink {
                        self.io.remove(&target.directory, &name, false).await;
                    }
                    return Ok(backup);
                }
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
