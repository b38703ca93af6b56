//! Keeping what is replaced under another name.
//!
//! The old file gets the backup's name as one more name, and the new one is renamed over the old
//! name then: at every moment something whole stands there. Where the file system has no links,
//! the old file is renamed, and its name is absent for as long as the second rename takes.

use super::publish::Target;
use super::temporary::temporary_name;
use super::verdict::{backup_number, numbered_backup_name, simple_backup_name};
use super::worker::Worker;
use super::{Backup, BackupStyle};
use crate::error::{Errno, Error};
use crate::limits::BACKUP_ATTEMPTS_MAX;
use crate::operation::{Link, Name, Operation, Place, Rename};

impl Worker<'_> {
    /// Keeps what stands at a target under the name of its backup, if that was asked for. Returns
    /// that name; none if nothing stands there any more.
    pub(super) async fn back_up(&self, target: &Target) -> Result<Option<Name>, Error> {
        let Some(backup) = &self.job.options.existing.backup else { return Ok(None) };
        if target.is_backup {
            return Ok(None);
        }
        let number = self.last_backup(target, backup).await?;
        let kept = match number {
            None => self.back_up_simply(target, backup).await,
            Some(last) => self.back_up_numbered(target, last).await,
        };
        match kept {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            kept => kept.map(Some).map_err(|error| error.doing("back up")),
        }
    }

    /// The name that the next backup of a target would have.
    pub(super) async fn next_backup(&self, target: &Target) -> Result<Name, Error> {
        let backup = self.job.options.existing.backup.as_ref();
        let backup = backup.expect("asked for by whoever makes backups");
        named(&match self.last_backup(target, backup).await? {
            None => simple_backup_name(target.name.as_bytes(), backup),
            Some(last) => numbered_backup_name(target.name.as_bytes(), last.saturating_add(1)),
        })
    }

    /// The number of the last backup of a target, 0 if there is none yet; none if the next one is
    /// a simple one.
    async fn last_backup(&self, target: &Target, backup: &Backup) -> Result<Option<u64>, Error> {
        match backup.style {
            BackupStyle::Simple => Ok(None),
            BackupStyle::Numbered => Ok(Some(self.highest_backup(target).await?.unwrap_or(0))),
            BackupStyle::Existing => self.highest_backup(target).await,
        }
    }

    /// The highest number that a backup of a target has.
    async fn highest_backup(&self, target: &Target) -> Result<Option<u64>, Error> {
        // Of its own, as listing goes on where the last one stopped.
        let directory = self.open_below(&target.directory, &Name::from(c".")).await;
        let directory = directory.map_err(|error| error.doing("back up"))?;
        let mut highest = None;
        loop {
            let names = self.next_names(&directory).await?;
            if names.is_empty() {
                return Ok(highest);
            }
            let number = |name: &Name| backup_number(target.name.as_bytes(), name.as_bytes());
            highest = highest.max(names.iter().filter_map(|(name, _)| number(name)).max());
        }
    }

    async fn back_up_numbered(&self, target: &Target, last: u64) -> Result<Name, Error> {
        let mut number = last;
        for _ in 0..BACKUP_ATTEMPTS_MAX {
            number = number.checked_add(1).ok_or(Error::from_errno("back up", Errno::EOVERFLOW))?;
            let name = named(&numbered_backup_name(target.name.as_bytes(), number))?;
            match self.keep_as(target, &name, false).await {
                // Somebody else makes backups of the same file.
                Err(error) if error.errno() == Some(Errno::EEXIST) => {}
                kept => return kept.map(|()| name),
            }
        }
        Err(Error::from_errno("back up", Errno::EEXIST))
    }

    /// Replaces the last backup, in one step as well.
    async fn back_up_simply(&self, target: &Target, backup: &Backup) -> Result<Name, Error> {
        let name = named(&simple_backup_name(target.name.as_bytes(), backup))?;
        match self.keep_as(target, &name, false).await {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            kept => return kept.map(|()| name),
        }
        for attempt in 0..BACKUP_ATTEMPTS_MAX {
            // By chance: what stands under a name that can be foreseen may be another run's.
            let attempt = u64::from(attempt) + 2;
            let aside = named(&temporary_name(name.as_bytes(), self.salt(attempt)))?;
            match self.keep_as(target, &aside, false).await {
                Err(error) if error.errno() == Some(Errno::EEXIST) => continue,
                kept => kept?,
            }
            let source = Place::at(&target.directory, &aside);
            let replaced = Place::at(&target.directory, &name);
            let rename = Rename { source, target: replaced, replace: true };
            let renamed = self.io.perform_always(Operation::Rename(rename)).await;
            // Where both are names of one file already, the kernel leaves both: rename(2).
            self.io.remove(&target.directory, &aside, false).await;
            return renamed.map(|_| name);
        }
        Err(Error::from_errno("back up", Errno::EEXIST))
    }

    /// Gives what stands at a target one more name; where there are no links, this one instead.
    async fn keep_as(&self, target: &Target, name: &Name, replace: bool) -> Result<(), Error> {
        let source = Place::at(&target.directory, &target.name);
        let to = Place::at(&target.directory, name);
        let link = Link { source: source.clone(), target: to.clone(), follow: false };
        match self.io.perform_always(Operation::Link(link)).await {
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK)
                ) =>
            {
                let rename = Rename { source, target: to, replace };
                self.io.perform_always(Operation::Rename(rename)).await.map(drop)
            }
            linked => linked.map(drop),
        }
    }
}

fn named(name: &[u8]) -> Result<Name, Error> {
    Name::new(name).map_err(|errno| Error::from_errno("back up", errno))
}
