//! Temporary files: made, locked, and removed again where a killed run has left them.

use nix::libc;

use super::attributes::Known;
use super::journal::Reached;
use super::publish::{Made, NewFile, Target};
use super::resume::TakenUp;
use super::temporary::temporary_name;
use super::worker::{Labels, Worker};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{LEFTOVER_LOOK_EVERY, LEFTOVER_LOOKS_MAX, TEMPORARY_ATTEMPTS_MAX};
use crate::operation::{
    ChangeOwner, File, FileKind, FileStatus, Lock, Name, Open, Operation, Place, Subject,
};

impl Worker<'_> {
    /// Makes a file under a temporary name, locked, with the owner that the file it replaces has.
    pub(super) async fn make_temporary(
        &self,
        target: &Target,
        replaced: Option<&FileStatus>,
        replaces: bool,
        source: &FileStatus,
        labels: &dyn Labels,
    ) -> Result<NewFile, Error> {
        let label = |error: Error| error.on(labels.target());
        for attempt in 0..TEMPORARY_ATTEMPTS_MAX {
            let name = Name::new(temporary_name(target.name.as_bytes(), self.salt(attempt)))
                .map_err(|errno| label(Error::from_errno("create", errno)))?;
            let open = Open::create_new(Place::at(&target.directory, &name), 0o600).confined();
            let (file, status, reached) = match self.io.open(open).await {
                Ok(file) => match self.claim(&file).await {
                    Ok(Some(status)) => (file, status, Reached::default()),
                    Ok(None) => continue,
                    Err(error) => {
                        self.io.remove(&target.directory, &name, false).await;
                        return Err(label(error));
                    }
                },
                Err(error) if error.errno() == Some(Errno::EEXIST) => {
                    match self.take_up(target, &name, source).await.map_err(label)? {
                        Some(TakenUp { file, status, reached }) => (file, status, reached),
                        None => {
                            self.remove_leftover(target, &name).await.map_err(label)?;
                            continue;
                        }
                    }
                }
                Err(error) => return Err(label(error.doing("create"))),
            };
            let made = Made::Temporary { name, replaces };
            let known = Known {
                owner: Some((status.owner, status.group)),
                file: Some((status.device, status.inode)),
                inherited: target.heritage.permissions,
                ..Known::default()
            };
            let mut new = NewFile { reached, ..NewFile::new(file, target.clone(), made, known) };
            if let Some(replaced) = replaced
                && let Err(error) = self.give_owner(&new.file, &status, replaced).await
            {
                self.discard(new).await;
                return Err(label(error));
            }
            if let Some(replaced) = replaced {
                new.known.owner = Some((replaced.owner, replaced.group));
            }
            if self.job.remembers_created() {
                self.job.remember_created((status.device, status.inode), target.name.as_bytes());
            }
            return Ok(new);
        }
        Err(label(Error::from_errno("create", Errno::EEXIST)))
    }

    async fn give_owner(
        &self,
        file: &File,
        new: &FileStatus,
        replaced: &FileStatus,
    ) -> Result<(), Error> {
        if (new.owner, new.group) == (replaced.owner, replaced.group) {
            return Ok(());
        }
        let (owner, group) = (Some(replaced.owner), Some(replaced.group));
        let change = ChangeOwner { subject: Subject::File(file.clone()), owner, group };
        self.io.perform(Operation::ChangeOwner(change)).await.map(drop)
    }

    /// What makes a temporary name: nothing at first, so that it is found again after a kill, and
    /// once more after a leftover was removed; then chance.
    pub(super) fn salt(&self, attempt: u64) -> u64 {
        if attempt < 2 {
            return 0;
        }
        let now = self.io.tasks.wall_clock();
        now.seconds.unsigned_abs().rotate_left(32) ^ u64::from(now.nanoseconds) ^ attempt << 56
    }

    /// Locks a file that was just made. None if somebody took it for a leftover meanwhile: whoever
    /// has the lock may remove the name, and then it is another's.
    pub(super) async fn claim(&self, file: &File) -> Result<Option<FileStatus>, Error> {
        match self.io.perform(Operation::Lock(Lock { file: file.clone() })).await {
            Err(error) if error.errno() == Some(Errno::EAGAIN) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // A file system without locks has no second run to fear.
            _ => {}
        }
        let status = self.io.status_of(file).await?;
        Ok((status.links > 0).then_some(status))
    }

    /// Removes what a killed run has left of this very file: its temporary name is a second one of
    /// it where a final name is given by a link.
    pub(super) async fn remove_leftover_of(&self, target: &Target) -> Result<(), Error> {
        let name = temporary_name(target.name.as_bytes(), 0);
        let name = Name::new(name).map_err(|errno| Error::from_errno("create", errno))?;
        self.remove_leftover(target, &name).await
    }

    /// Removes a temporary file that a killed run of the same user has left. Anything else stays.
    pub(super) async fn remove_leftover(&self, target: &Target, name: &Name) -> Result<(), Error> {
        let directory = &target.directory;
        let left = self.io.status_at(Place::at(directory, name), false).await?;
        if left.is_some_and(|left| !matches!(left.kind, FileKind::Regular | FileKind::Directory)) {
            if left.is_some_and(|left| self.is_own(&left)) {
                self.io.remove(directory, name, false).await;
            }
            return Ok(());
        }
        let Some(file) = self.open_leftover(directory, name).await? else { return Ok(()) };
        let status = self.io.status_of(&file).await?;
        // Of any mode: the last thing before the final name is the final mode. Nobody else can have
        // made it, and who could rename it to here could have removed it.
        let is_ours = self.is_own(&status)
            && status.kind == FileKind::Regular
            && (status.links == 1
                || self.job.options.preserve.links
                || self.is_published(target, &status).await?);
        if !is_ours {
            return Ok(());
        }
        for _ in 0..LEFTOVER_LOOKS_MAX {
            let is_claimed = self.claim(&file).await?.is_some();
            // With the lock, the name can't change its file any more: only who has it does that.
            let named = self.io.status_at(Place::at(directory, name), false).await?;
            if !named.is_some_and(|named| named.is_same_file(&status)) {
                return Ok(());
            }
            if is_claimed {
                // First: it speaks of this temporary, and of no other.
                self.remove_journal_of(target).await;
                self.io.remove(directory, name, false).await;
                return Ok(());
            }
            self.io.tasks.sleep(LEFTOVER_LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Whether a run of this user may have made it. Who keeps owners gives files away before they
    /// have their names; then it may be anybody's.
    pub(super) fn is_own(&self, left: &FileStatus) -> bool {
        let user = self.job.surroundings.user;
        user == Some(left.owner) || (user == Some(0) && self.job.options.preserve.ownership)
    }

    /// Whether a leftover has its final name already, where that is given by a link.
    async fn is_published(&self, target: &Target, left: &FileStatus) -> Result<bool, Error> {
        let place = Place::at(&target.directory, &target.name);
        let named = self.io.status_at(place, false).await?;
        Ok(left.links == 2 && named.is_some_and(|named| named.is_same_file(left)))
    }

    /// Opens a leftover to lock it, however its mode allows; none if it does not.
    async fn open_leftover(&self, directory: &File, name: &Name) -> Result<Option<File>, Error> {
        for access in [libc::O_RDWR, libc::O_RDONLY, libc::O_WRONLY] {
            let open = Open::new(Place::at(directory, name), access | libc::O_NONBLOCK);
            match self.io.open(open.confined()).await {
                Ok(file) => return Ok(Some(file)),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(_) => {}
            }
        }
        Ok(None)
    }
}
