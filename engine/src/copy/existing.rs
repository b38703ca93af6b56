//! What stands at the target already and needs no copy.

use nix::libc;

use super::fingerprint::Wanted;
use super::publish::Target;
use super::verify::Found;
use super::worker::{Labels, Worker};
use super::{CheckExisting, Event};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, ErrorKind};
use crate::operation::{File, FileKind, FileStatus, Open, Place, SyncReach};

impl Worker<'_> {
    /// Whether what stands at the target is the source's copy already, and so is left alone.
    pub(super) async fn is_up_to_date(
        &self,
        source: &File,
        status: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        let Some(check) = self.job.options.verification.check_existing else { return Ok(false) };
        if target.is_staged || status.kind != FileKind::Regular {
            return Ok(false);
        }
        let place = Place::at(&target.directory, &target.name);
        let standing = self.io.status_at(place, target.is_operand).await;
        let Some(standing) = standing.map_err(|error| error.on(labels.target()))? else {
            return Ok(false);
        };
        if standing.kind != FileKind::Regular
            || standing.size_bytes != status.size_bytes
            || standing.is_same_file(status)
        {
            return Ok(false);
        }
        let has_same_time = standing.modified == status.modified;
        let digest = match check {
            CheckExisting::SizeAndTime if !has_same_time => return Ok(false),
            CheckExisting::SizeAndTime => self.digest_of(target, &standing, labels).await?,
            CheckExisting::Hash => {
                match self.compare(source, status, target, &standing, labels).await? {
                    Ok(digest) => digest,
                    Err(difference) => {
                        // Nobody changed it, by its times; somebody should know.
                        if has_same_time {
                            self.warn_of_target(&difference, labels);
                        }
                        return Ok(false);
                    }
                }
            }
        };
        self.tell_up_to_date(digest, status, labels);
        if check == CheckExisting::Hash {
            self.remove_compared(status, &standing, target, labels).await;
        }
        Ok(true)
    }

    /// Counts a copy in a stage that an interrupted run has left as this one's, if what is asked for
    /// shows that it is right: it is verified if copies are, and read if a digest of it is wanted.
    pub(super) async fn accept(
        &self,
        source: &File,
        status: &FileStatus,
        target: &Target,
        standing: &FileStatus,
        labels: &dyn Labels,
    ) -> Result<bool, Error> {
        let wanted = self.wanted();
        let digest = if wanted.units.is_some() {
            match self.compare(source, status, target, standing, labels).await? {
                Ok(digest) => digest,
                Err(difference) => {
                    self.warn_of_target(&difference, labels);
                    return Ok(false);
                }
            }
        } else {
            self.digest_of(target, standing, labels).await?
        };
        if wanted.whole.is_some() && digest.is_none() {
            return Ok(false);
        }
        self.tell_up_to_date(digest, status, labels);
        Ok(true)
    }

    fn tell_up_to_date(&self, digest: Option<Digest>, status: &FileStatus, labels: &dyn Labels) {
        if let Some(digest) = digest {
            self.list_in_manifest(digest, status.size_bytes, labels);
        }
        self.summary.borrow_mut().up_to_date += 1;
        if self.job.observer.wants_copies() {
            let (source, target) = (&labels.source(), &labels.target());
            self.job.observer.on_event(&Event::UpToDate { source, target });
        }
    }

    /// The digest of a target that is not read otherwise, if a list needs it.
    async fn digest_of(
        &self,
        target: &Target,
        standing: &FileStatus,
        labels: &dyn Labels,
    ) -> Result<Option<Digest>, Error> {
        let wanted = Wanted { units: None, ..self.wanted() };
        if wanted.is_nothing() {
            return Ok(None);
        }
        let on_target = |error: Error| error.on(labels.target());
        let Some(file) = self.open_existing(target, standing).await.map_err(on_target)? else {
            return Ok(None);
        };
        let found = self.read_whole(&file, standing.size_bytes, 1, wanted).await;
        match found.map_err(on_target)? {
            Found::Whole(fingerprint) => Ok(fingerprint.whole),
            Found::Shorter(_) => Ok(None),
        }
    }

    /// Compares a source with what stands at its target, which is read from the device: the digest,
    /// if one is wanted, or how they differ.
    async fn compare(
        &self,
        source: &File,
        status: &FileStatus,
        target: &Target,
        standing: &FileStatus,
        labels: &dyn Labels,
    ) -> Result<Result<Option<Digest>, Error>, Error> {
        let on_target = |error: Error| error.on(labels.target());
        let Some(file) = self.open_existing(target, standing).await.map_err(on_target)? else {
            let reason = "the target was exchanged meanwhile";
            return Ok(Err(on_target(Error::new(ErrorKind::DoesNotVerify, "verify", reason))));
        };
        let units = self.wanted().units.or(Some(Algorithm::Xxh3_128));
        let wanted = Wanted { units, ..self.wanted() };
        let size = status.size_bytes;
        let expected = self.fingerprint_of(source, status, size, wanted, labels).await?;
        // A file system that is read-only, or none, has nothing to write back.
        let _ = self.sync(&file, SyncReach::Data).await;
        let compared = self.compare_with_device(source, &file, &expected).await;
        match compared {
            Ok(_) => Ok(Ok(expected.whole)),
            Err(error) if error.kind() == ErrorKind::DoesNotVerify => Ok(Err(on_target(error))),
            Err(error) => Err(on_target(error)),
        }
    }

    /// Opens what stands at a target to read it; none if that is something else by now. Reading is
    /// no use of the file: where it may, it leaves no trace in its times.
    pub(super) async fn open_existing(
        &self,
        target: &Target,
        standing: &FileStatus,
    ) -> Result<Option<File>, Error> {
        let open = |flags| {
            let place = Place::at(&target.directory, &target.name);
            let open = Open::new(place, libc::O_RDONLY | libc::O_NONBLOCK | flags);
            if target.is_operand { open } else { open.confined() }
        };
        let file = match self.io.open(open(libc::O_NOATIME)).await {
            Ok(file) => file,
            Err(_) => self.io.open(open(0)).await?,
        };
        let status = self.io.status_of(&file).await?;
        Ok(status.is_same_file(standing).then_some(file))
    }

    fn warn_of_target(&self, difference: &Error, labels: &dyn Labels) {
        let at = difference.offset_bytes().unwrap_or(0);
        let reason = difference.reason();
        let warning = format!(
            "it differs from its source at byte {at}, though size and time are the same ({reason}); \
             it is copied again"
        );
        self.job.observer.on_event(&Event::Warned { path: &labels.target(), warning: &warning });
    }
}
