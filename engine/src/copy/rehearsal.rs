//! A dry run: the walk of a copy, which looks at everything and touches nothing.
//!
//! Each thing that a copy would make is held against what stands in its place, by the same rules,
//! and told. What would write and was not thought of here is refused where operations are started, so
//! that it fails and touches nothing. Below a directory that would be made nothing stands yet, as in a stage.

use nix::libc;

use super::publication::{Decision, decide};
use super::publish::Target;
use super::stage::Stage;
use super::standing::refused;
use super::worker::{Labels, Worker};
use super::{Action, Copied, EntryKind, Event, Publication};
use crate::error::{Errno, Error, Refusal};
use crate::operation::{File, FileKind, FileStatus, Name, Open, Operation, Place};

impl Worker<'_> {
    /// Whether nothing may be touched.
    pub(super) fn is_rehearsal(&self) -> bool {
        self.job.options.selection.dry_run
    }

    /// Tells what copying a file would do.
    pub(super) async fn rehearse_file(
        &self,
        source: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let publication = self.foresee_file(source, target, labels).await?;
        {
            let mut summary = self.summary.borrow_mut();
            summary.files += 1;
            summary.bytes += source.size_bytes;
        }
        self.tell_rehearsed(EntryKind::File, publication, source.size_bytes, labels);
        self.rehearse_removal(source, labels).await;
        Ok(())
    }

    /// Tells what copying a symbolic link would do.
    pub(super) async fn rehearse_link(
        &self,
        source: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let publication = match self.standing_at(target, labels).await? {
            None if target.is_staged => Publication::Staged,
            None => Publication::New,
            Some(standing) if standing.kind == FileKind::Directory => {
                return Err(refused(Refusal::FileOntoDirectory, labels));
            }
            Some(standing) => {
                self.check_overwrite(source, &standing, target, labels)?;
                Publication::Replaced
            }
        };
        match source.kind {
            FileKind::SymbolicLink => self.summary.borrow_mut().links += 1,
            _ => self.summary.borrow_mut().specials += 1,
        }
        self.tell_rehearsed(EntryKind::of(source.kind), publication, 0, labels);
        Ok(())
    }

    /// Opens the copy of a directory if it is there. For one that would be made, something that
    /// nobody looks into stands in, and the mode that it would have.
    pub(super) async fn rehearse_directory(
        &self,
        parent: &File,
        name: &Name,
        source: &FileStatus,
        is_staged: bool,
    ) -> Result<(File, Option<u32>, Option<Stage>), Error> {
        let standing = match is_staged {
            true => None,
            false => self.io.status_at(Place::at(parent, name), false).await?,
        };
        let refusal = match standing {
            None => return Ok((parent.clone(), Some(source.mode), None)),
            Some(standing) if standing.kind != FileKind::Directory => Refusal::DirectoryOntoFile,
            Some(standing) if standing.is_same_file(source) => Refusal::SameFile,
            Some(_) => return Ok((self.open_below(parent, name).await?, None, None)),
        };
        Err(Error::refused("create", refusal))
    }

    /// Tells that a directory would be made.
    pub(super) fn tell_rehearsed_directory(&self, is_staged: bool, labels: &dyn Labels) {
        if self.is_rehearsal() {
            let publication = if is_staged { Publication::Staged } else { Publication::New };
            self.tell_rehearsed(EntryKind::Directory, publication, 0, labels);
        }
    }

    /// Opens a directory to list it; in a rehearsal so that not even the time of its last reading
    /// changes, where that is permitted (`O_NOATIME` of `open(2)`).
    pub(super) async fn open_to_list(&self, open: Open) -> Result<File, Error> {
        if self.is_rehearsal() {
            let quiet = Open { flags: open.flags | libc::O_NOATIME, ..open.again() };
            match self.io.open(quiet).await {
                Err(error) if error.errno() == Some(Errno::EPERM) => {}
                opened => return opened,
            }
        }
        self.io.open(open).await
    }

    async fn foresee_file(
        &self,
        source: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<Publication, Error> {
        let refuse = |refusal| Err(refused(refusal, labels));
        if target.is_staged {
            return Ok(Publication::Staged);
        }
        let status = self.standing_at(target, labels).await?;
        if let Some(status) = &status {
            self.check_overwrite(source, status, target, labels)?;
        }
        let standing = self.standing(target, status.as_ref()).await;
        match decide(standing, &self.job.options, target.is_operand) {
            Decision::Create => Ok(Publication::New),
            Decision::Replace | Decision::Renew => Ok(Publication::Replaced),
            Decision::InPlace(reason) => Ok(Publication::InPlace(reason)),
            Decision::Refuse(refusal) => refuse(refusal),
            Decision::FollowLink => {
                let place = Place::at(&target.directory, &target.name);
                let led_to = self.io.status_at(place, true).await;
                match led_to.map_err(|error| error.on(labels.target()))? {
                    None => refuse(Refusal::DanglingTarget),
                    Some(status) if status.kind == FileKind::Directory => {
                        refuse(Refusal::FileOntoDirectory)
                    }
                    Some(status) => {
                        self.check_overwrite(source, &status, target, labels)?;
                        Ok(match status.kind {
                            FileKind::Regular => Publication::Replaced,
                            _ => Publication::InPlace("not a regular file"),
                        })
                    }
                }
            }
        }
    }

    async fn standing_at(
        &self,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<Option<FileStatus>, Error> {
        if target.is_staged {
            return Ok(None);
        }
        let place = Place::at(&target.directory, &target.name);
        self.io.status_at(place, false).await.map_err(|error| error.on(labels.target()))
    }

    fn tell_rehearsed(
        &self,
        kind: EntryKind,
        publication: Publication,
        bytes: u64,
        labels: &dyn Labels,
    ) {
        let (source, target) = (labels.source(), labels.target());
        let action = if kind == EntryKind::Directory { Action::Made } else { Action::Copied };
        let copied = Copied { action, publication, bytes, ..Copied::new(&source, &target, kind) };
        self.job.observer.on_event(&Event::WouldCopy(&copied));
    }
}

/// Whether an operation only looks.
pub(super) fn touches_nothing(operation: &Operation) -> bool {
    match operation {
        Operation::Nop
        | Operation::Timeout(_)
        | Operation::LinkTimeout(_)
        | Operation::Read(_)
        | Operation::ReadVectored(_)
        | Operation::Seek(_)
        | Operation::CacheStatus(_)
        | Operation::Close(_)
        | Operation::ReadLink(_)
        | Operation::ListDirectory(_)
        | Operation::Statx(_)
        | Operation::FileSystemStatus(_)
        | Operation::DeviceStatus(_)
        | Operation::GetAttribute(_)
        | Operation::ListAttributes(_) => true,
        Operation::Open(open) => {
            let writes = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
            open.flags & writes == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{MakeDirectory, Unlink};

    #[test]
    fn what_writes_is_no_look() {
        let place = || Place::path("a").unwrap();
        let open = |flags| Operation::Open(Open::new(place(), flags));
        let cases = [
            (open(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOATIME), true),
            (open(libc::O_PATH), true),
            (open(libc::O_WRONLY), false),
            (open(libc::O_RDWR), false),
            (open(libc::O_RDONLY | libc::O_CREAT), false),
            (open(libc::O_RDONLY | libc::O_TRUNC), false),
            (Operation::Nop, true),
            (Operation::Unlink(Unlink { place: place(), is_directory: false }), false),
            (Operation::MakeDirectory(MakeDirectory { place: place(), mode: 0 }), false),
        ];
        for (operation, want) in cases {
            assert_eq!(touches_nothing(&operation), want, "{operation:?}");
        }
    }
}
