//! Looking at what stands at a target before its source is opened: it may stay, be asked about, or
//! have to be kept under another name.
//!
//! [`super::verdict`] decides; here both sides are looked at, and the question is put. What was
//! looked at is remembered in the target, so that nothing else is replaced in its place.

use super::publish::Target;
use super::verdict::{Case, Known, Verdict, judge, judge_asked, simple_backup_name};
use super::worker::{Labels, Worker};
use super::{Event, FollowLinks, Make, Overwrite, Question, Update};
use crate::error::{Errno, Error, ErrorKind, Refusal};
use crate::limits::LINKS_FOLLOWED_MAX;
use crate::operation::{File, FileKind, FileStatus, Place};

/// What a target is made from.
pub(super) struct Source<'a> {
    pub(super) place: &'a Place,
    /// Of the file that is copied: of the link itself where it is not followed.
    pub(super) status: &'a FileStatus,
    pub(super) is_followed: bool,
}

/// What was found where a target goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Seen {
    /// Nobody has looked.
    #[default]
    NotLooked,
    Nothing,
    /// This file, by device and number.
    File((u64, u64)),
}

impl Worker<'_> {
    /// Whether a source's target may be made, and which it is where a link leads on. None if what
    /// stands there stays; that is told.
    pub(super) async fn admit(
        &self,
        source: Source<'_>,
        target: Target,
        labels: &dyn Labels,
    ) -> Result<Option<Target>, Error> {
        let existing = &self.job.options.existing;
        if !existing.must_look() || target.is_staged || target.is_backup {
            return Ok(Some(target));
        }
        let on_target = |error: Error| error.on(labels.target());
        let is_node = match source.status.kind {
            FileKind::SymbolicLink => true,
            FileKind::Regular => false,
            _ => self.makes_special(target.is_operand),
        };
        let follows_target = target.is_operand && !is_node && !existing.replaces_links();
        let (mut target, named) = self.stand_before(target, follows_target, labels).await?;
        let Some(named) = named else {
            target.seen = Seen::Nothing;
            return Ok(Some(target));
        };
        let place = Place::at(&target.directory, &target.name);
        let standing = match named.kind {
            // One that could not be followed by its words: it leads to an open file.
            FileKind::SymbolicLink if follows_target => {
                self.io.status_at(place, true).await.map_err(on_target)?.unwrap_or(named)
            }
            _ => named,
        };
        let case = self.case(&source, &target, (&named, &standing), follows_target, labels);
        let case = case.await?;
        let verdict = match judge(&case, existing) {
            Verdict::Ask if !self.is_rehearsal() && !self.ask(&standing, labels) => Verdict::Keep,
            Verdict::Ask => judge_asked(&case, existing),
            verdict => verdict,
        };
        target.seen = Seen::File((named.device, named.inode));
        match verdict {
            Verdict::Go => Ok(Some(target)),
            Verdict::Ask => unreachable!("nobody is asked twice"),
            Verdict::Keep => {
                self.keep(labels);
                Ok(None)
            }
            Verdict::Done => Ok(None),
            Verdict::Refuse(refusal) => Err(refused(refusal, labels)),
        }
    }

    /// The same for a name below an operand, which is linked here if links are to be made: then
    /// there is nothing left to do, either.
    pub(super) async fn admit_below(
        &self,
        place: &Place,
        target: Target,
        labels: &dyn Labels,
    ) -> Result<Option<Target>, Error> {
        let options = &self.job.options;
        if !options.existing.must_look() || target.is_staged && !self.makes_links() {
            return Ok(Some(target));
        }
        let is_followed = options.links == FollowLinks::Always;
        let on_source = |error: Error| error.on(labels.source());
        let status = self.io.status_at(place.clone(), is_followed).await.map_err(on_source)?;
        let missing = || on_source(Error::from_errno("status", Errno::ENOENT));
        let status = status.ok_or_else(missing)?;
        let source = Source { place, status: &status, is_followed };
        self.admit_or_link(source, target, labels).await
    }

    /// Whether a source's target may be made, by copying; if links are to be made, makes one.
    pub(super) async fn admit_or_link(
        &self,
        source: Source<'_>,
        target: Target,
        labels: &dyn Labels,
    ) -> Result<Option<Target>, Error> {
        let (place, status, is_followed) =
            (source.place.clone(), source.status, source.is_followed);
        let admitted = self.admit(source, target, labels).await?;
        match admitted {
            // What would be linked is said to be copied.
            Some(target) if self.makes_links() && !self.is_rehearsal() => {
                self.make_link_to(place, is_followed, status, &target, labels).await.map(|()| None)
            }
            admitted => Ok(admitted),
        }
    }

    /// The name that a target comes to, following links if it shall, with what stands there.
    async fn stand_before(
        &self,
        mut target: Target,
        follows: bool,
        labels: &dyn Labels,
    ) -> Result<(Target, Option<FileStatus>), Error> {
        for _ in 0..LINKS_FOLLOWED_MAX {
            let place = Place::at(&target.directory, &target.name);
            let status = self.io.status_at(place, false).await;
            let status = status.map_err(|error| error.on(labels.target()))?;
            let is_link = status.is_some_and(|status| status.kind == FileKind::SymbolicLink);
            if !is_link || !follows {
                return Ok((target, status));
            }
            match self.follow_link(&target, labels).await? {
                Some(followed) => target = followed,
                None => return Ok((target, status)),
            }
        }
        Ok((target, None))
    }

    /// All that the verdict rests on.
    async fn case(
        &self,
        source: &Source<'_>,
        target: &Target,
        (named, standing): (&FileStatus, &FileStatus),
        follows_target: bool,
        labels: &dyn Labels,
    ) -> Result<Case, Error> {
        let existing = &self.job.options.existing;
        let place = Place::at(&target.directory, &target.name);
        let resolution_ns = match existing.update {
            Update::Older => {
                let magic = self.magic(standing.device, &target.directory).await;
                super::route::time_resolution_ns(magic)
            }
            _ => 1,
        };
        let named_source = self.io.status_at(source.place.clone(), false).await;
        let named_source = named_source.map_err(|error| error.on(labels.source()))?;
        let named_source = named_source.unwrap_or(*source.status);
        let source_name = self.name_of(source.place).await;
        let directory = self.io.status_of(&target.directory).await;
        let directory = directory.map_err(|error| error.on(labels.target()))?;
        let is_name = |name: &[u8]| {
            let (parent, leaf) = &source_name;
            parent.is_some_and(|parent| parent.is_same_file(&directory)) && leaf == name
        };
        let backup = existing.backup.as_ref();
        let simple = backup.map(|backup| simple_backup_name(target.name.as_bytes(), backup));
        Ok(Case {
            source: self.known(source.place, &named_source).await,
            target: self.known(&place, named).await,
            follows_source: source.is_followed,
            follows_target,
            is_same_name: is_name(target.name.as_bytes()),
            modified: (source.status.modified, standing.modified),
            resolution_ns,
            is_onto_directory: standing.kind == FileKind::Directory,
            is_onto_created: self.has_created(target, standing),
            is_source_the_backup: simple.is_some_and(|name| is_name(&name)),
        })
    }

    async fn known(&self, place: &Place, named: &FileStatus) -> Known {
        let is_link = named.kind == FileKind::SymbolicLink;
        let resolved = if is_link {
            self.io.status_at(place.clone(), true).await.ok().flatten()
        } else {
            Some(*named)
        };
        Known {
            named: (named.device, named.inode),
            resolved: resolved.map(|status| (status.device, status.inode)),
            is_link,
            links: named.links,
        }
    }

    /// The directory that a name is in, and the last part of the name.
    pub(super) async fn name_of(&self, place: &Place) -> (Option<FileStatus>, Vec<u8>) {
        let (parent, leaf) = super::publish::split_path(place.name.as_bytes());
        let directory = match (&place.directory, parent) {
            (Some(directory), b".") => self.io.status_of(directory).await.ok(),
            (directory, parent) => match crate::operation::Name::new(parent) {
                Ok(name) => {
                    let place = Place { directory: directory.clone(), name };
                    self.io.status_at(place, true).await.ok().flatten()
                }
                Err(_) => None,
            },
        };
        (directory, leaf.to_vec())
    }

    /// Whether this run has made what stands at a target, in a way that forbids to overwrite it.
    pub(super) fn has_created(&self, target: &Target, standing: &FileStatus) -> bool {
        let is_refused = target.is_operand || !self.job.options.existing.merge_created;
        let file = (standing.device, standing.inode);
        is_refused && (target.is_in_created || self.job.has_created(file, target.name.as_bytes()))
    }

    /// Asks whether what stands there may be overwritten; one question at a time.
    fn ask(&self, standing: &FileStatus, labels: &dyn Labels) -> bool {
        let existing = &self.job.options.existing;
        let question = Question {
            target: &labels.target(),
            mode: standing.mode,
            is_replaced: existing.remove || existing.force,
        };
        self.job.observer.may_overwrite(&question)
    }

    /// Tells that what stands at the target stays.
    pub(super) fn keep(&self, labels: &dyn Labels) {
        self.summary.borrow_mut().stayed += 1;
        if self.job.observer.wants_copies() {
            let (source, target) = (labels.source(), labels.target());
            self.job.observer.on_event(&Event::Stayed { source: &source, target: &target });
        }
    }

    /// Turns "it exists" into keeping it, where that was asked for: somebody was faster.
    pub(super) fn keep_or_fail(&self, error: Error, labels: &dyn Labels) -> Result<(), Error> {
        let keeps = self.job.options.existing.keeps_what_stands();
        if keeps && error.kind() == ErrorKind::AlreadyExists {
            self.keep(labels);
            return Ok(());
        }
        Err(error)
    }

    /// Fails if something else stands at a target than what was looked at.
    pub(super) fn check_seen(
        target: &Target,
        status: Option<&FileStatus>,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let is_expected = match (target.seen, status) {
            (Seen::NotLooked, _) | (Seen::Nothing, None) => true,
            (Seen::File(seen), Some(status)) => seen == (status.device, status.inode),
            _ => false,
        };
        if is_expected {
            return Ok(());
        }
        let reason = "the target was exchanged meanwhile";
        Err(Error::new(ErrorKind::AlreadyExists, "open", reason).on(labels.target()))
    }

    /// The same, right before the target is replaced, where somebody was asked about it.
    pub(super) async fn check_asked(
        &self,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if self.job.options.existing.overwrite != Overwrite::Ask || target.seen == Seen::NotLooked {
            return Ok(());
        }
        let place = Place::at(&target.directory, &target.name);
        let status = self.io.status_at(place, false).await;
        let status = status.map_err(|error| error.on(labels.target()))?;
        Self::check_seen(target, status.as_ref(), labels)
    }

    /// Whether a target is made without the source's bytes.
    pub(super) fn makes_links(&self) -> bool {
        matches!(self.job.options.existing.make, Make::HardLink | Make::SymbolicLink)
    }

    /// Remembers what was made in a directory that others may copy into as well.
    pub(super) async fn remember_made(&self, directory: &File, name: &crate::operation::Name) {
        if !self.job.remembers_created() {
            return;
        }
        let status = self.io.status_at(Place::at(directory, name), false).await;
        if let Ok(Some(status)) = status {
            self.job.remember_created((status.device, status.inode), name.as_bytes());
        }
    }
}

/// What the rules refuse, about both sides.
pub(super) fn refused(refusal: Refusal, labels: &dyn Labels) -> Error {
    let what = match refusal {
        Refusal::SameFile | Refusal::JustCreated => "copy",
        Refusal::BackupIsSource => "back up",
        _ => "create",
    };
    Error::refused(what, refusal).on(labels.target()).copying(labels.source())
}
