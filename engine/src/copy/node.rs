//! Copying what has no bytes: symbolic links, FIFOs, sockets and devices, which are made anew and
//! never opened.

use nix::libc;

use super::attributes::{Known, Pair};
use super::publish::Target;
use super::standing::refused;
use super::temporary::temporary_name;
use super::worker::{Labels, Worker};
use super::{
    Action, Context, Copied, Durability, EntryKind, Event, FollowLinks, Keep, KeepMode, Make,
    Publication, Specials,
};
use crate::error::{Errno, Error, ErrorKind, Refusal};
use crate::limits::TEMPORARY_ATTEMPTS_MAX;
use crate::operation::{
    ChangeTimes, File, FileKind, FileStatus, MakeNode, Name, Open, Operation, Place, Rename,
    Subject, SymbolicLink, SyncReach,
};

impl EntryKind {
    /// The kind that a file of the source has.
    pub(super) fn of(kind: FileKind) -> Self {
        match kind {
            FileKind::Regular | FileKind::Unknown => Self::File,
            FileKind::Directory => Self::Directory,
            FileKind::SymbolicLink => Self::SymbolicLink,
            FileKind::Fifo => Self::Fifo,
            FileKind::Socket => Self::Socket,
            FileKind::CharacterDevice => Self::CharacterDevice,
            FileKind::BlockDevice => Self::BlockDevice,
        }
    }
}

/// A node that is to be made once more.
struct Node<'a> {
    source: &'a Place,
    status: &'a FileStatus,
    /// What a symbolic link says.
    content: Option<Name>,
    /// The mode that others are made with.
    mode: u32,
}

impl Node<'_> {
    fn make(&self, place: Place) -> Operation {
        match &self.content {
            Some(content) => {
                Operation::SymbolicLink(SymbolicLink { place, content: content.clone() })
            }
            None => {
                let kind = u32::from(self.status.kind.entry()) << 12;
                let device = self.status.node_device;
                Operation::MakeNode(MakeNode { place, mode: kind | self.mode, device })
            }
        }
    }
}

impl Worker<'_> {
    /// Copies a symbolic link or a special file, with what is kept of it.
    pub(super) async fn copy_node(
        &self,
        source: &Place,
        status: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if self.is_rehearsal() {
            return self.rehearse_link(status, target, labels).await;
        }
        let started = self.started();
        let on_target = |error: Error| error.on(labels.target());
        let mut target = target.clone();
        let preserve = &self.job.options.preserve;
        if target.is_operand && preserve.mode != KeepMode::Bits {
            target.heritage = self.heritage(&target.directory).await;
        }
        let content = match status.kind {
            FileKind::SymbolicLink => {
                let content = self.io.read_link(source.clone()).await;
                Some(content.map_err(|error| error.on(labels.source()))?)
            }
            _ => None,
        };
        // Until it has its owner it is nobody else's.
        let wanted = self.mode_made_with(status, &target);
        let mode = if preserve.ownership { wanted & 0o700 } else { wanted };
        let node = Node { source, status, content, mode };
        let (publication, backup) = match self.place_node(&node, &target, labels).await {
            Ok(placed) => placed,
            Err(error) => {
                let is_fifo = status.kind == FileKind::Fifo && error.what() == "make node";
                let error = if is_fifo { error.doing("make fifo") } else { error };
                return self.keep_or_fail(on_target(error), labels);
            }
        };
        self.remember_made(&target.directory, &target.name).await;
        let is_synced = target.is_operand && self.job.options.durability == Durability::Full;
        if is_synced {
            // Its attributes are durable with the whole file system only.
            self.sync(&target.directory, SyncReach::FileSystem).await.map_err(on_target)?;
        }
        let is_link = status.kind == FileKind::SymbolicLink;
        match is_link {
            true => self.summary.borrow_mut().links += 1,
            false => self.summary.borrow_mut().specials += 1,
        }
        if self.job.observer.wants_copies() {
            let (from, to) = (labels.source(), labels.target());
            let backup = backup.map(|name| to.with_file_name(name.as_os_str()));
            let copied = Copied {
                action: if is_link { Action::Copied } else { Action::Made },
                publication,
                elapsed: started.map(|started| self.io.tasks.now().since(started)),
                backup: backup.as_deref(),
                removed: self.has_removed(publication),
                ..Copied::new(&from, &to, EntryKind::of(status.kind))
            };
            self.job.observer.on_event(&Event::Copied(&copied));
            if is_synced {
                self.tell_done(&to, false);
            }
        }
        Ok(())
    }

    /// Whether a special file is made anew rather than read.
    pub(super) fn makes_special(&self, is_operand: bool) -> bool {
        match self.job.options.specials {
            Specials::Auto => !is_operand,
            Specials::Made => true,
            Specials::Read => false,
        }
    }

    /// Makes a node under its name, or in the place of what stands there.
    async fn place_node(
        &self,
        node: &Node<'_>,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(Publication, Option<Name>), Error> {
        let place = Place::at(&target.directory, &target.name);
        self.clear(target).await;
        match self.io.perform(node.make(place.clone())).await {
            Ok(_) => {
                let kept = self.keep_node_attributes(node, place, target, labels).await;
                if let Err(error) = kept {
                    self.io.remove(&target.directory, &target.name, false).await;
                    return Err(error);
                }
                let is_staged = target.is_staged;
                Ok((if is_staged { Publication::Staged } else { Publication::New }, None))
            }
            Err(error) if error.is_there() && self.may_replace_by_node(node, target) => {
                let backup = self.replace_by_node(node, target, labels).await?;
                Ok((Publication::Replaced, backup))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a node may be put in the place of what stands there: as in cp, not one that was to be
    /// followed, unless that is to go.
    fn may_replace_by_node(&self, node: &Node<'_>, target: &Target) -> bool {
        let existing = &self.job.options.existing;
        let is_kept = existing.keeps_what_stands();
        let goes = !self.is_led_to(node) || existing.replaces_links();
        let is_copied = existing.make != Make::Attributes || existing.replaces_links();
        !target.is_staged && !is_kept && goes && is_copied
    }

    /// Puts a node in the place of what stands there, as cp does; never of a directory. Returns
    /// where that is kept.
    async fn replace_by_node(
        &self,
        node: &Node<'_>,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<Option<Name>, Error> {
        let place = Place::at(&target.directory, &target.name);
        let standing = self.io.status_at(place.clone(), false).await?;
        Self::check_seen(target, standing.as_ref(), labels)?;
        if let Some(standing) = standing {
            if standing.kind == FileKind::Directory {
                return Err(refused(Refusal::FileOntoDirectory, labels));
            }
            self.check_overwrite(node.status, &standing, target, labels)?;
        }
        let mut backup = None;
        for attempt in 0..TEMPORARY_ATTEMPTS_MAX {
            let salt = self.salt(attempt);
            let name = temporary_name(target.name.as_bytes(), salt);
            let name = Name::new(name).map_err(|errno| Error::from_errno("create", errno))?;
            let temporary = Place::at(&target.directory, &name);
            match self.io.perform(node.make(temporary.clone())).await {
                Err(error) if error.errno() == Some(Errno::EEXIST) => {
                    self.remove_leftover(target, &name).await?;
                    continue;
                }
                made => made?,
            };
            let kept = self.keep_node_attributes(node, temporary.clone(), target, labels).await;
            // Not before there is something to put in its place: where what stands there can't have
            // one more name, it loses the one that it has.
            let kept = match kept {
                Ok(()) if backup.is_none() => self.back_up(target).await.map(|name| backup = name),
                kept => kept,
            };
            let renamed = match kept {
                Ok(()) => {
                    let (source, target) = (temporary, place.clone());
                    let rename = Rename { source, target, replace: true };
                    self.io.perform_always(Operation::Rename(rename)).await.map(drop)
                }
                Err(error) => Err(error),
            };
            match renamed {
                Ok(()) => return Ok(backup),
                // A node can't be locked: another run has taken it for a leftover.
                Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                Err(error) => {
                    self.io.remove(&target.directory, &name, false).await;
                    return Err(error);
                }
            }
        }
        Err(Error::from_errno("create", Errno::EEXIST))
    }

    /// Keeps what is to be kept of a node that was just made at `made`.
    async fn keep_node_attributes(
        &self,
        node: &Node<'_>,
        made: Place,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let preserve = &self.job.options.preserve;
        let status = node.status;
        let needs_descriptor = status.kind != FileKind::SymbolicLink
            || preserve.ownership
            || preserve.wants_attributes()
            || matches!(preserve.context, Context::Set(_));
        if !needs_descriptor {
            if preserve.timestamps {
                // Nobody else can exchange what is made in a stage.
                let subject = match target.is_staged {
                    true => Subject::Place(made),
                    false => Subject::File(self.open_made_node(made, status).await?.0),
                };
                let change = ChangeTimes { subject, times: Box::new(status.times()) };
                let changed = self.io.perform(Operation::ChangeTimes(change)).await;
                self.tell(changed, Keep::Required, labels)?;
            }
            return Ok(());
        }
        let source = self.open_node(node.source.clone(), self.is_led_to(node)).await?;
        if !self.io.status_of(&source).await?.is_same_file(status) {
            let reason = "it was exchanged while it was copied";
            return Err(Error::new(ErrorKind::SourceChanged, "open", reason).on(labels.source()));
        }
        let (copy, found) = self.open_made_node(made, status).await?;
        let known = Known {
            owner: Some((found.owner, found.group)),
            mode: Some(found.mode),
            inherited: target.heritage.permissions,
            ..Known::default()
        };
        let pair = Pair { source: &source, status, target: &copy, copy: known, staging: None };
        self.keep_attributes(pair, labels).await
    }

    /// Opens a node that was just made, and makes sure that it is not another file.
    pub(super) async fn open_made_node(
        &self,
        made: Place,
        source: &FileStatus,
    ) -> Result<(File, FileStatus), Error> {
        let copy = self.open_node(made, false).await?;
        let found = self.io.status_of(&copy).await?;
        let is_ours = self.job.surroundings.user.is_none_or(|user| user == found.owner);
        if found.kind != source.kind || found.links != 1 || !is_ours {
            let reason = "what was made there was exchanged meanwhile";
            return Err(Error::new(ErrorKind::Io, "open", reason));
        }
        Ok((copy, found))
    }

    /// Opens a node to ask and change what is known of it, which does nothing to it.
    async fn open_node(&self, place: Place, follow: bool) -> Result<File, Error> {
        let is_below = place.directory.is_some();
        let no_follow = if follow { 0 } else { libc::O_NOFOLLOW };
        let open = Open::new(place, libc::O_PATH | no_follow);
        self.io.open(if is_below && !follow { open.confined() } else { open }).await
    }

    /// Whether a link may have led to a source.
    fn is_led_to(&self, node: &Node<'_>) -> bool {
        let is_operand = node.source.directory.is_none();
        let is_followed = match self.job.options.links {
            FollowLinks::Never => false,
            FollowLinks::Operands => is_operand,
            FollowLinks::Always => true,
        };
        is_followed && node.status.kind != FileKind::SymbolicLink
    }
}
