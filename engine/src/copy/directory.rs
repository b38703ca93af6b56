//! A directory that is being copied: made or opened at first, finished when its last piece is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use nix::libc;

use super::access::Heritage;
use super::attributes::{Known, Pair};
use super::continuation::{Continued, Staging};
use super::hard_links::Anchor;
use super::listing::ListedNames;
use super::mirror::Root;
use super::parked::Sides;
use super::publish::Target;
use super::stage::Stage;
use super::worker::{Labels, Worker};
use super::{
    Action, Copied, Durability, EntryKind, Event, FollowLinks, KeepMode, Listed, Publication,
    Stage as StageOption,
};
use crate::error::{Errno, Error, Refusal};
use crate::limits::ANCHOR_PATH_BYTES;
use crate::operation::{
    File, FileKind, FileStatus, MakeDirectory, Name, Open, Operation, Place, SyncReach,
};

/// A directory that is being copied.
pub(super) struct Directory {
    parent: Option<Arc<Directory>>,
    /// Its name, or the operand's path.
    source_path: PathBuf,
    target_path: PathBuf,
    pub(super) sides: Sides,
    pub(super) status: FileStatus,
    target_status: FileStatus,
    /// What its copy hands down to what is made in it.
    pub(super) heritage: Heritage,
    /// The mode that it was made with; none if it was there before.
    made_with: Option<u32>,
    /// Nobody sees it before a stage above it is published, or its own.
    pub(super) is_staged: bool,
    /// This run has made and published it before: what is in it came from another operand.
    pub(super) is_created: bool,
    /// It is a stage itself, to be published when it is finished.
    stage: Option<Stage>,
    /// What it shares with all that is in the same stage.
    staging: Option<Arc<Staging>>,
    /// An interrupted run has left it: which of the names in it are copied by now.
    pub(super) continued: Option<Continued>,
    /// The directory above, where it was made in the open and is no part of this tree: its name is
    /// to be made durable there.
    above: Option<File>,
    /// Its name, and those of the directories above it that were made, are on stable storage.
    is_name_durable: AtomicBool,
    /// Links were made in it in the open. A link can't be synced by itself: what it says is durable
    /// with its name, its times only with the whole file system.
    pub(super) has_open_links: AtomicBool,
    /// What copies in it are found by later; of a root, of a stage, and of some in a deep tree.
    anchor: OnceLock<Arc<Anchor>>,
    /// A symbolic link has led to it: sources in it are not removed.
    pub(super) keeps_sources: bool,
    /// The names in it that are copied; none if all are.
    pub(super) listed: Option<ListedNames>,
    /// The lane that its copy belongs to.
    pub(super) lane: usize,
    /// Pieces that are not done.
    pub(super) pending: AtomicUsize,
}

/// Where a directory has its name.
pub(super) enum NamedIn<'a> {
    Directory(&'a Directory),
    File(&'a File),
}

/// A directory of the source that was opened.
#[derive(Clone)]
pub(super) struct Opened {
    source: File,
    status: FileStatus,
    keeps_sources: bool,
}

/// A name below a directory that is being copied.
pub(super) struct Entry<'a> {
    pub(super) directory: &'a Arc<Directory>,
    pub(super) name: &'a Name,
}

impl Worker<'_> {
    /// Opens a directory of the source below `parent`.
    pub(super) async fn open_below_source(
        &self,
        parent: &Arc<Directory>,
        name: &Name,
    ) -> Result<Opened, Error> {
        let labels = Entry { directory: parent, name };
        let on_source = |error: Error| error.on(labels.source());
        let (parent_source, parent_target) = self.opened_sides(parent).await?;
        let open = Open::new(Place::at(&parent_source, name), libc::O_RDONLY | libc::O_DIRECTORY);
        let is_followed = self.job.options.links == FollowLinks::Always;
        let open = if is_followed { open } else { open.confined() };
        let opened = self.open_to_list(open).await;
        let source = opened.map_err(|error| on_source(error.doing("enter")))?;
        let status = self.io.status_of(&source).await.map_err(on_source)?;
        if is_followed && let Err(error) = parent.check_no_loop(&status) {
            self.check_no_file(&parent_target, &labels).await?;
            return Err(on_source(error));
        }
        let place = Place::at(&parent_source, name);
        let keeps_sources = parent.keeps_sources
            || (is_followed && self.is_reached_by_link(place, &status).await.map_err(on_source)?);
        Ok(Opened { source, status, keeps_sources })
    }

    /// Makes or opens the copy of a directory that was opened below `parent`.
    pub(super) async fn open_copy_below(
        &self,
        parent: &Arc<Directory>,
        name: &Name,
        Opened { source, status, keeps_sources }: Opened,
    ) -> Result<Directory, Error> {
        let labels = Entry { directory: parent, name };
        let on_source = |error: Error| error.on(labels.source());
        let on_both = |error: Error| on_source(error).copying(labels.target());
        parent.check_not_a_copy(&status).map_err(on_both)?;
        let is_staged = parent.is_staged;
        let parent_target = self.opened_target(parent).await?;
        let taken_up = self.take_up_directory(parent, &parent_target, name).await;
        let taken_up = taken_up.map_err(|error| error.on(labels.target()))?;
        let is_continued = taken_up.is_some();
        let (target, made_with, stage) = match taken_up {
            Some(directory) => (directory, Some(0o700), None),
            None => self
                .open_or_make(&parent_target, name, &status, is_staged)
                .await
                .map_err(|error| error.on(labels.target()).copying(labels.source()))?,
        };
        let is_imagined = self.is_rehearsal() && made_with.is_some();
        if is_imagined {
            self.tell_rehearsed_directory(is_staged, &labels);
        }
        let target_status = self.status_of_target(&target, made_with).await;
        let target_status = target_status.map_err(|error| error.on(labels.target()))?;
        let heritage = match made_with {
            Some(_) => self.heritage_of_new(&target, &target_status, parent.heritage).await,
            None => self.heritage(&target).await,
        };
        let anchor = match &stage {
            Some(_) => OnceLock::from(Anchor::open(&target)),
            None => OnceLock::new(),
        };
        let listed = labels.listed().and_then(ListedNames::new);
        let staging = stage.as_ref().map(Stage::staging).or(parent.staging.as_ref()).cloned();
        let continued = continued(is_continued, stage.as_ref());
        parent.note_copied(name);
        Ok(Directory {
            parent: Some(Arc::clone(parent)),
            source_path: PathBuf::from(name.as_os_str()),
            target_path: PathBuf::from(name.as_os_str()),
            sides: Sides::counted(source, target, &self.job.open_directories),
            status,
            target_status,
            heritage,
            made_with,
            is_staged: is_staged || stage.is_some() || is_imagined,
            is_created: self.note_directory(&target_status, name.as_os_str(), made_with.is_some()),
            stage,
            staging,
            continued,
            above: None,
            is_name_durable: AtomicBool::new(false),
            has_open_links: AtomicBool::new(false),
            anchor,
            keeps_sources,
            listed,
            lane: self.job.lane,
            pending: AtomicUsize::new(1),
        })
    }

    /// Fails if no directory stands where one would go: as in cp, that comes before other reasons not
    /// to copy it.
    async fn check_no_file(&self, parent: &File, labels: &Entry<'_>) -> Result<(), Error> {
        let standing = self.io.status_at(Place::at(parent, labels.name), false).await;
        let standing = standing.ok().flatten();
        if standing.is_some_and(|standing| standing.kind != FileKind::Directory) {
            let error = Error::refused("create", Refusal::DirectoryOntoFile);
            return Err(error.on(labels.target()).copying(labels.source()));
        }
        Ok(())
    }

    /// Opens the copy of a directory, or makes it: in the open inside a stage, else as a stage of
    /// its own.
    pub(super) async fn open_or_make(
        &self,
        parent: &File,
        name: &Name,
        source: &FileStatus,
        is_staged: bool,
    ) -> Result<(File, Option<u32>, Option<Stage>), Error> {
        if self.is_rehearsal() {
            return self.rehearse_directory(parent, name, source, is_staged).await;
        }
        if !is_staged {
            let place = Place::at(parent, name);
            if let Some(status) = self.io.status_at(place.clone(), false).await? {
                if status.kind == FileKind::SymbolicLink
                    && let Some(directory) = self.keep_directory_link(&place).await?
                {
                    return Ok((directory, None, None));
                }
                if status.kind != FileKind::Directory {
                    return Err(Error::refused("create", Refusal::DirectoryOntoFile));
                }
                if status.is_same_file(source) {
                    return Err(Error::refused("copy", Refusal::SameFile));
                }
                // A killed run may have come as far as the final name.
                self.remove_left_stage_of(parent, name).await?;
                return Ok((self.open_standing(parent, name).await?, None, None));
            }
            if self.job.options.stage == StageOption::Auto {
                let (stage, directory) = self.make_stage(parent, name, source).await?;
                return Ok((directory, Some(0o700), Some(stage)));
            }
        }
        // What is to be another's, or to have lists, is nobody else's before that.
        let preserve = &self.job.options.preserve;
        let mode = match preserve.mode {
            KeepMode::Bits if !preserve.ownership => source.mode & 0o1777 | 0o700,
            // A change of mode takes the set-group-id bit that is inherited from who is not in that
            // group (chmod(2)): what can be right from the start is.
            KeepMode::Cut if !preserve.ownership => {
                source.mode & 0o1755 & !self.job.options.umask | 0o700
            }
            _ => 0o700,
        };
        let make = MakeDirectory { place: Place::at(parent, name), mode };
        match self.io.perform(Operation::MakeDirectory(make)).await {
            Ok(_) => Ok((self.open_made(parent, name).await?, Some(mode), None)),
            // Somebody else was faster.
            Err(error) if error.errno() == Some(Errno::EEXIST) && !is_staged => {
                Ok((self.open_standing(parent, name).await?, None, None))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the directory that a link leads to, where links to directories are to be kept.
    async fn keep_directory_link(&self, link: &Place) -> Result<Option<File>, Error> {
        if !self.job.options.existing.keep_directory_links {
            return Ok(None);
        }
        let status = self.io.status_at(link.clone(), true).await?;
        if status.is_some_and(|status| status.kind == FileKind::Directory) {
            return self.open_directory(link.clone()).await.map(Some);
        }
        Ok(None)
    }

    /// Remembers a directory that was made; tells of one that was there whether this run made it.
    pub(super) fn note_directory(&self, target: &FileStatus, name: &OsStr, is_made: bool) -> bool {
        let file = (target.device, target.inode);
        if is_made {
            self.job.remember_created(file, name.as_bytes());
            return false;
        }
        !self.job.options.existing.merge_created && self.job.has_created(file, name.as_bytes())
    }

    /// Opens a directory in another, through no link.
    pub(super) async fn open_below(&self, parent: &File, name: &Name) -> Result<File, Error> {
        let open = Open::new(Place::at(parent, name), libc::O_RDONLY | libc::O_DIRECTORY);
        self.open_to_list(open.confined()).await
    }

    /// Opens a directory that was just made. The default list of the one above may have taken the
    /// right to read from its owner (`acl(5)`): it is given back.
    pub(super) async fn open_made(&self, parent: &File, name: &Name) -> Result<File, Error> {
        match self.open_below(parent, name).await {
            Err(error) if error.errno() == Some(Errno::EACCES) => {
                let flags = libc::O_PATH | libc::O_DIRECTORY;
                let open = Open::new(Place::at(parent, name), flags);
                let made = self.io.open(open.confined()).await?;
                self.change_mode(&made, 0o700).await?;
                self.open_below(parent, name).await
            }
            opened => opened,
        }
    }

    /// The status of the copy of a directory. To one that was just made a default list may have
    /// left fewer rights than its owner needs to copy into it: they are given back.
    pub(super) async fn status_of_target(
        &self,
        target: &File,
        made_with: Option<u32>,
    ) -> Result<FileStatus, Error> {
        let mut status = self.io.status_of(target).await?;
        if made_with.is_some() && status.mode & 0o700 != 0o700 && !self.is_rehearsal() {
            let mode = status.mode & 0o7777 | 0o700;
            self.change_mode(target, mode).await?;
            status.mode = mode;
        }
        Ok(status)
    }

    /// Opens a directory that was there, through no link: for names in it only, where it may not be
    /// read.
    async fn open_standing(&self, parent: &File, name: &Name) -> Result<File, Error> {
        match self.open_below(parent, name).await {
            Err(error) if error.errno() == Some(Errno::EACCES) => {
                let flags = libc::O_PATH | libc::O_DIRECTORY;
                self.io.open(Open::new(Place::at(parent, name), flags).confined()).await
            }
            opened => opened,
        }
    }

    /// Gives up one piece of a directory; with the last one it is finished, and so may be those
    /// above it.
    pub(super) async fn release(&self, directory: Arc<Directory>) {
        let mut next = Some(directory);
        while let Some(directory) = next {
            if directory.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            self.open_above(&directory).await;
            if let Err(error) = self.finish(&directory).await {
                self.fail(&error.on(directory.target_path()));
            }
            // Whoever was at work far below still has the way up to it.
            if directory.parent.is_some() {
                directory.sides.close();
            }
            next = directory.parent.clone();
        }
    }

    /// Mode and times last: nothing is written into it any more.
    async fn finish(&self, directory: &Directory) -> Result<(), Error> {
        if let Some(stage) = &directory.stage
            && !self.job.cancellation.is_cancelled()
            && let Err(error) = self.sync_early(stage).await
        {
            self.remove_stage(stage).await;
            return Err(error);
        }
        if self.job.cancellation.is_cancelled() {
            self.summary.borrow_mut().was_cancelled = true;
            if let Some(stage) = &directory.stage
                && !self.keep_stage(stage, directory)
            {
                self.remove_stage(stage).await;
            }
            return Ok(());
        }
        if self.is_rehearsal() {
            self.summary.borrow_mut().directories += 1;
            return Ok(());
        }
        let sides = self.opened_sides(directory).await?;
        self.remove_uncopied(directory, &sides.1).await;
        if let Err(error) = self.finish_attributes(directory, &sides).await {
            // It was cancelled: what has not its mode is not shown.
            if let Some(stage) = &directory.stage {
                self.remove_stage(stage).await;
            }
            return Err(error);
        }
        let publication = match &directory.stage {
            Some(stage) => {
                self.publish_stage(stage, &sides.1).await?;
                directory.rebase(stage);
                Publication::New
            }
            None if directory.is_staged => Publication::Staged,
            None => {
                if self.job.options.durability == Durability::Full {
                    let has_links = directory.has_open_links.load(Ordering::Relaxed);
                    let reach = if has_links { SyncReach::FileSystem } else { SyncReach::File };
                    self.sync(&sides.1, reach).await?;
                    self.sync_names_above(directory).await?;
                }
                match directory.made_with {
                    Some(_) => Publication::New,
                    None => Publication::Existing,
                }
            }
        };
        self.summary.borrow_mut().directories += 1;
        if self.job.observer.wants_copies() {
            let (source, target) = (directory.source_path(), directory.target_path());
            let (source, target) = (source.as_path(), target.as_path());
            let action = match publication {
                Publication::Existing => Action::Merged,
                _ => Action::Made,
            };
            let kind = EntryKind::Directory;
            let copied = Copied { action, publication, ..Copied::new(source, target, kind) };
            self.job.observer.on_event(&Event::Copied(&copied));
            if publication != Publication::Staged {
                self.tell_done(target, directory.stage.is_some());
            }
        }
        Ok(())
    }

    async fn finish_attributes(
        &self,
        directory: &Directory,
        (source, target): &(File, File),
    ) -> Result<(), Error> {
        if let Some(stage) = &directory.stage {
            // Where it may not be written any more, this could not be taken away.
            self.unmark(stage.staging()).await?;
        }
        let is_existing = directory.made_with.is_none();
        if is_existing && !self.job.options.preserve.is_asked {
            return Ok(());
        }
        let status = &directory.target_status;
        let copy = Known {
            owner: Some((status.owner, status.group)),
            mode: Some(status.mode),
            is_existing,
            inherited: directory.heritage.permissions.filter(|_| !is_existing),
            ..Known::default()
        };
        let pair = Pair { source, status: &directory.status, target, copy, staging: None };
        self.keep_attributes(pair, directory).await
    }
}

impl Directory {
    /// The target of a name in it; `target` is its own, open.
    pub(super) fn target_for(&self, target: File, name: &Name) -> Target {
        Target {
            is_staged: self.is_staged,
            is_in_created: self.is_created,
            is_continued: self.continued.is_some(),
            staging: self.staging.clone(),
            heritage: self.heritage,
            ..Target::new(target, name.clone())
        }
    }

    /// Whether it is found again after it was closed.
    pub(super) fn may_be_parked(&self) -> bool {
        self.parent.is_some() && self.stage.is_none()
    }

    /// Its name in the one above, on both sides.
    pub(super) fn name(&self) -> &[u8] {
        self.source_path.as_os_str().as_bytes()
    }

    pub(super) fn target_status(&self) -> &FileStatus {
        &self.target_status
    }

    /// The device of the operand that it belongs to.
    pub(super) fn root_device(&self) -> u64 {
        let mut top = self;
        while let Some(above) = top.parent.as_deref() {
            top = above;
        }
        top.status.device
    }

    /// The root of a tree.
    pub(super) fn root(
        is_created: bool,
        source: (File, FileStatus, &Path),
        target: (File, FileStatus, &Path),
        (made_with, stage, above): (Option<u32>, Option<Stage>, Option<File>),
        heritage: Heritage,
    ) -> Self {
        let anchor = OnceLock::from(Anchor::open(&target.0));
        let staging = stage.as_ref().map(Stage::staging).cloned();
        let continued = continued(false, stage.as_ref());
        Self {
            parent: None,
            source_path: source.2.to_owned(),
            target_path: target.2.to_owned(),
            sides: Sides::of_root(source.0, target.0),
            status: source.1,
            target_status: target.1,
            heritage,
            made_with,
            is_staged: stage.is_some(),
            is_created,
            stage,
            staging,
            continued,
            above,
            is_name_durable: AtomicBool::new(false),
            has_open_links: AtomicBool::new(false),
            anchor,
            keeps_sources: false,
            listed: None,
            lane: 0,
            pending: AtomicUsize::new(1),
        }
    }

    /// The mode that its copy had when it was made or opened.
    pub(super) fn target_mode(&self) -> u32 {
        self.target_status.mode
    }

    /// Whether it is a copy of the same directory as another.
    pub(super) fn is_copy_beside(&self, other: &Self) -> bool {
        self.status.is_same_file(&other.status)
    }

    /// The device that its copy is on.
    pub(super) fn device(&self) -> u64 {
        self.target_status.device
    }

    pub(super) fn parent(&self) -> Option<&Self> {
        self.parent.as_deref()
    }

    /// One piece more of it is not done.
    pub(super) fn retain(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// Where its name is to be synced, if it was made in the open and that is not done yet; with
    /// `all`, also if it was there before: a run that was killed may have made it.
    pub(super) fn name_to_sync(&self, all: bool) -> Option<NamedIn<'_>> {
        let is_made = (all || self.made_with.is_some()) && !self.is_staged;
        if !is_made || self.is_name_durable.load(Ordering::Acquire) {
            return None;
        }
        let above = self.above.as_ref().map(NamedIn::File);
        self.parent().map(NamedIn::Directory).or(above)
    }

    pub(super) fn mark_name_durable(&self) {
        self.is_name_durable.store(true, Ordering::Release);
    }

    /// Where a copy in it is found again, whatever becomes of its stage: below which anchor, by which
    /// path. In a deep tree the whole path would be a large part of a MiB for each copy.
    pub(super) fn anchored(&self, name: &[u8]) -> (Arc<Anchor>, Vec<u8>) {
        let mut path = name.to_vec();
        let mut directory = self;
        loop {
            if let Some(anchor) = directory.anchor.get() {
                return (Arc::clone(anchor), path);
            }
            let above = directory.parent.as_deref().expect("a root has an anchor");
            if path.len() > ANCHOR_PATH_BYTES {
                let (above, way) = above.anchored(directory.name());
                let anchor = directory.anchor.get_or_init(|| Anchor::below(above, way));
                return (Arc::clone(anchor), path);
            }
            path = [directory.name(), b"/", &path].concat();
            directory = above;
        }
    }

    /// Its stage was published: copies in it are found by the directory above.
    fn rebase(&self, stage: &Stage) {
        let Some(anchor) = self.anchor.get() else { return };
        let (above, path) = match &self.parent {
            Some(parent) => parent.anchored(stage.final_name().as_bytes()),
            None => (Anchor::open(stage.parent()), stage.final_name().as_bytes().to_vec()),
        };
        anchor.rebase(above, path);
    }

    pub(super) fn source_path(&self) -> PathBuf {
        self.path_from(|root| root.source_path.clone())
    }

    pub(super) fn target_path(&self) -> PathBuf {
        self.path_from(|root| root.target_path.clone())
    }

    /// Its path below the root, put behind what the root is called.
    fn path_from(&self, of_root: impl FnOnce(&Self) -> PathBuf) -> PathBuf {
        let (mut names, mut at) = (Vec::new(), self);
        while let Some(above) = at.parent() {
            names.push(at.source_path.as_path());
            at = above;
        }
        let mut path = of_root(at);
        path.extend(names.into_iter().rev());
        path
    }

    /// The same, for looking through it once more in the end.
    pub(super) fn root_to_mirror(&self) -> Root {
        let (source, target) = self.sides.get().expect("a root stays open");
        Root {
            source,
            target,
            source_path: self.source_path.clone(),
            target_path: self.target_path.clone(),
            existed: self.made_with.is_none(),
        }
    }

    /// The path below the operand; of the operand itself it is empty.
    pub(super) fn relative(&self) -> PathBuf {
        self.path_from(|_| PathBuf::new())
    }

    /// Fails if a link or a mount leads from the source to a directory that is being written: its
    /// copy would be copied into it without end.
    fn check_not_a_copy(&self, below: &FileStatus) -> Result<(), Error> {
        let mut above = Some(self);
        while let Some(directory) = above {
            if directory.target_status.is_same_file(below) {
                return Err(Error::refused("enter", Refusal::IntoItself));
            }
            above = directory.parent.as_deref();
        }
        Ok(())
    }

    /// Fails if a followed link leads back to a directory that is being copied.
    fn check_no_loop(&self, below: &FileStatus) -> Result<(), Error> {
        let mut above = Some(self);
        while let Some(directory) = above {
            if directory.status.is_same_file(below) {
                return Err(Error::refused("enter", Refusal::LinkLoop));
            }
            above = directory.parent.as_deref();
        }
        Ok(())
    }
}

/// What is known of the names in a directory if an interrupted run has left it, or the stage that it
/// is.
fn continued(is_continued: bool, stage: Option<&Stage>) -> Option<Continued> {
    let is_continued = is_continued || stage.is_some_and(|it| it.staging().is_continued());
    is_continued.then(Continued::default)
}

impl Entry<'_> {
    /// What is listed at and below it, where only listed names are copied.
    pub(super) fn listed(&self) -> Option<&Arc<Listed>> {
        self.directory.listed.as_ref()?.below(self.name)
    }

    /// The path below the operand.
    pub(super) fn relative(&self) -> PathBuf {
        self.directory.relative().join(self.name.as_os_str())
    }
}

impl Labels for Directory {
    fn source(&self) -> PathBuf {
        self.source_path()
    }

    fn target(&self) -> PathBuf {
        self.target_path()
    }
}

impl Labels for Entry<'_> {
    fn source(&self) -> PathBuf {
        self.directory.source_path().join(self.name.as_os_str())
    }

    fn target(&self) -> PathBuf {
        self.directory.target_path().join(self.name.as_os_str())
    }

    fn entry(&self) -> Option<(Arc<Directory>, Name)> {
        Some((Arc::clone(self.directory), self.name.clone()))
    }
}
