//! What the user named: where each source goes, by the rules of cp.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;

use super::directory::Directory;
use super::lanes::Branch;
use super::parents::Parents;
use super::publish::{Target, split_path};
use super::standing::{Source, refused};
use super::tree::{Piece, Pieces};
use super::worker::{Labels, Worker};
use super::{Directories, Event, FollowLinks, TargetRole};
use crate::error::{Errno, Error, ErrorKind, Refusal};
use crate::operation::{File, FileKind, FileStatus, Name, Open, Place};

/// Where sources go.
#[derive(Debug)]
pub(super) enum Destination {
    /// Into a directory, under their own names.
    Into { directory: File, path: PathBuf },
    /// To this name.
    Name { path: PathBuf },
}

/// A source and its target, as the user wrote them.
struct Operands<'a> {
    source: &'a Path,
    target: &'a Path,
}

/// What is left to do for an operand.
pub(super) enum Outcome {
    Done,
    /// A tree, by its root.
    Tree(Arc<Directory>),
}

impl Worker<'_> {
    /// What a target operand means.
    pub(super) async fn destination(
        &self,
        path: &PathBuf,
        role: TargetRole,
        source_count: usize,
    ) -> Result<Destination, Error> {
        let on_target = |error: Error| error.on(path);
        let place = place(path).map_err(on_target)?;
        // No name is not the current directory.
        if role == TargetRole::Name || path.as_os_str().is_empty() {
            return Ok(Destination::Name { path: path.clone() });
        }
        let status = match self.io.status_at(place.clone(), true).await {
            // A link to itself is no directory, but may be replaced by another link.
            Err(error) if matches!(error.errno(), Some(Errno::ENOTDIR | Errno::ELOOP)) => None,
            status => status.map_err(on_target)?,
        };
        let is_directory = status.is_some_and(|status| status.kind == FileKind::Directory);
        if is_directory {
            let directory = self.open_directory(place).await.map_err(on_target)?;
            return Ok(Destination::Into { directory, path: path.clone() });
        }
        if role == TargetRole::Directory || source_count > 1 {
            let errno = if status.is_some() { Errno::ENOTDIR } else { Errno::ENOENT };
            let is_asked_for = role == TargetRole::Directory;
            let what = if is_asked_for { "open target directory" } else { "open target" };
            let error = Error::refused(what, Refusal::TargetNotDirectory);
            return Err(on_target(error.because(errno)));
        }
        if self.job.options.parents {
            let error = Error::refused("open target", Refusal::ParentsNeedDirectory);
            return Err(on_target(error));
        }
        Ok(Destination::Name { path: path.clone() })
    }

    /// Copies one source; of a tree, only its root.
    pub(super) async fn copy_operand(
        &self,
        source: &Path,
        destination: &Destination,
        parents: &mut Parents,
    ) -> Result<Outcome, Error> {
        let on_source = |error: Error| error.on(source);
        let below = match destination {
            Destination::Into { directory, path } if self.job.options.parents => {
                let (directory, path) =
                    self.make_parents(source, (directory, path), parents).await?;
                Some(Destination::Into { directory, path })
            }
            _ => None,
        };
        let destination = below.as_ref().unwrap_or(destination);
        if source.as_os_str().is_empty() {
            return Err(on_source(Error::from_errno("status", Errno::ENOENT)));
        }
        let source_place = place(source).map_err(on_source)?;
        let follows = self.job.options.links != FollowLinks::Never;
        let status = self.io.status_at(source_place.clone(), follows).await.map_err(on_source)?;
        let Some(status) = status else {
            return Err(on_source(self.missing(source_place).await));
        };
        if self.job.options.selection.listed.is_some() && status.kind != FileKind::Directory {
            let reason = "it is not a directory, so no names can be relative to it";
            return Err(on_source(Error::new(ErrorKind::Operand, "copy", reason)));
        }
        if self.job.mirrors() && status.kind != FileKind::Directory {
            let reason = "it is not a directory, so there is nothing to mirror";
            return Err(on_source(Error::new(ErrorKind::Operand, "copy", reason)));
        }
        let is_directory = status.kind == FileKind::Directory;
        if is_directory && self.job.options.directories == Directories::Refuse {
            return Err(on_source(Error::refused("copy", Refusal::DirectoryOmitted)));
        }
        if self.is_repeated(source, &source_place, &status).await {
            return Ok(Outcome::Done);
        }
        let (target, target_path) = self.target_of(source, &status, destination).await?;
        let (target, target_path) = match self.is_own_backup(source, &status, destination) {
            true => self.own_backup(target, target_path).await?,
            false => (target, target_path),
        };
        let labels = Operands { source, target: &target_path };
        match status.kind {
            FileKind::Directory => {
                let root = self.begin_tree(source_place, target, &labels).await?;
                Ok(Outcome::Tree(root))
            }
            kind if kind == FileKind::SymbolicLink
                || (kind != FileKind::Regular && self.makes_special(true)) =>
            {
                let target = need_name(target, &labels)?;
                let source = Source { place: &source_place, status: &status, is_followed: follows };
                let admitted = self.admit_or_link(source, target, &labels).await?;
                let Some(target) = admitted else { return Ok(Outcome::Done) };
                let copy = async || self.copy_node(&source_place, &status, &target, &labels).await;
                self.copy_linked(&status, &target, None, &labels, copy).await?;
                Ok(Outcome::Done)
            }
            _ => {
                let target = need_name(target, &labels)?;
                // To open a stream would be to take from it, or to wait.
                if self.is_rehearsal() && status.kind != FileKind::Regular {
                    self.rehearse_file(&status, &target, &labels).await?;
                    return Ok(Outcome::Done);
                }
                let is_followed = follows;
                let source = Source { place: &source_place, status: &status, is_followed };
                let admitted = self.admit_or_link(source, target, &labels).await?;
                let Some(target) = admitted else { return Ok(Outcome::Done) };
                let open = Open::new(source_place, libc::O_RDONLY);
                let file = match self.open_source(open, status.kind).await {
                    Ok(file) => file,
                    Err(error) => {
                        self.check_no_directory(&target, &labels).await?;
                        return Err(on_source(error));
                    }
                };
                let status = self.io.status_of(&file).await.map_err(on_source)?;
                let status = self.with_device_size(&file, status).await.map_err(on_source)?;
                let copy = async || self.copy_file(&file, &status, &target, &labels).await;
                self.copy_linked(&status, &target, None, &labels, copy).await?;
                Ok(Outcome::Done)
            }
        }
    }

    /// Fails if a directory stands where a file would go: as in cp, that comes before a source that
    /// can't be opened.
    async fn check_no_directory(
        &self,
        target: &Target,
        labels: &Operands<'_>,
    ) -> Result<(), Error> {
        let place = Place::at(&target.directory, &target.name);
        let standing = self.io.status_at(place, true).await.ok().flatten();
        match standing {
            Some(standing) if standing.kind == FileKind::Directory => {
                Err(refused(Refusal::FileOntoDirectory, labels))
            }
            _ => Ok(()),
        }
    }

    /// Whether a file is to be copied to its own backup: what forcing a backup of a file onto itself
    /// means.
    fn is_own_backup(&self, source: &Path, status: &FileStatus, destination: &Destination) -> bool {
        let existing = &self.job.options.existing;
        let is_asked_for = existing.force && existing.backup.is_some();
        let is_itself =
            matches!(destination, Destination::Name { path } if path.as_path() == source);
        is_asked_for && is_itself && status.kind == FileKind::Regular
    }

    /// The name of a target's backup, as target.
    async fn own_backup(
        &self,
        target: TargetPlace,
        path: PathBuf,
    ) -> Result<(TargetPlace, PathBuf), Error> {
        let TargetPlace::Name { directory, name } = target else { return Ok((target, path)) };
        let target = new_target(directory, name);
        let name = self.next_backup(&target).await.map_err(|error| error.on(&path))?;
        let path = path.with_file_name(name.as_os_str());
        Ok((TargetPlace::Backup { directory: target.directory, name }, path))
    }

    /// Whether a source was named before; then that is told.
    async fn is_repeated(&self, source: &Path, place: &Place, status: &FileStatus) -> bool {
        let is_directory = status.kind == FileKind::Directory;
        // Of a file, each copy is one more backup.
        if !is_directory && self.job.options.existing.backup.is_some() {
            return false;
        }
        if !self.job.remembers_created() {
            return false;
        }
        // The same name in the same directory, however it was written.
        let (parent, leaf) = self.name_of(place).await;
        let parent = parent.map(|parent| (parent.device, parent.inode));
        let is_new = self.job.remember_operand((parent, leaf), (status.device, status.inode));
        if !is_new {
            self.job.observer.on_event(&Event::Repeated { source, is_directory });
        }
        !is_new
    }

    /// Why a source is not there: a link that leads nowhere is said to be one.
    async fn missing(&self, place: Place) -> Error {
        match self.io.status_at(place, false).await {
            Ok(Some(_)) => Error::refused("open", Refusal::DanglingSource).of_kind(ErrorKind::Io),
            _ => Error::from_errno("status", Errno::ENOENT),
        }
    }

    /// The name that a source gets; none if it is the target directory itself (`ucp a/. b`).
    async fn target_of(
        &self,
        source: &Path,
        status: &FileStatus,
        destination: &Destination,
    ) -> Result<(TargetPlace, PathBuf), Error> {
        match destination {
            Destination::Into { directory, path } => {
                let (_, leaf) = split_path(source.as_os_str().as_bytes());
                if matches!(leaf, b"." | b".." | b"") {
                    return Ok((TargetPlace::Directory(directory.clone()), path.clone()));
                }
                let name = Name::new(leaf).map_err(|errno| Error::from_errno("open", errno))?;
                let full = path.join(name.as_os_str());
                Ok((TargetPlace::Name { directory: directory.clone(), name }, full))
            }
            Destination::Name { path } => {
                let on_target = |error: Error| error.on(path);
                let is_directory = status.kind == FileKind::Directory;
                let making = if is_directory { "make directory" } else { "create" };
                let bytes = path.as_os_str().as_bytes();
                let (parent, leaf) = split_path(bytes);
                let ends_with_slash = bytes.ends_with(b"/");
                if path.as_os_str().is_empty() {
                    return Err(on_target(Error::from_errno(making, Errno::ENOENT)));
                }
                if ends_with_slash && status.kind != FileKind::Directory {
                    // What stands there is no directory; nothing stands there.
                    self.io.status_at(place(path)?, true).await.map_err(on_target)?;
                    let error = Error::from_errno("create", Errno::ENOTDIR);
                    return Err(on_target(error.of_kind(ErrorKind::Operand)));
                }
                if matches!(leaf, b"." | b".." | b"") {
                    let directory = self.open_directory(place(path)?).await.map_err(on_target)?;
                    return Ok((TargetPlace::Directory(directory), path.clone()));
                }
                let name = |bytes| Name::new(bytes).map_err(|e| Error::from_errno("open", e));
                let parent = Place { directory: None, name: name(parent)? };
                let directory = self.open_directory(parent).await;
                let directory = directory.map_err(|error| on_target(error.doing(making)))?;
                if ends_with_slash {
                    // The slash asks for what a link leads to, if that is a directory.
                    let named = Place::at(&directory, &name(leaf)?);
                    let named = self.io.status_at(named, false).await.map_err(on_target)?;
                    let is_link = named.is_some_and(|named| named.kind == FileKind::SymbolicLink);
                    if is_link && let Ok(led_to) = self.open_directory(place(path)?).await {
                        return Ok((TargetPlace::Directory(led_to), path.clone()));
                    }
                }
                Ok((TargetPlace::Name { directory, name: name(leaf)? }, path.clone()))
            }
        }
    }

    /// Opens the root of a tree on both sides.
    async fn begin_tree(
        &self,
        source: Place,
        target: TargetPlace,
        labels: &Operands<'_>,
    ) -> Result<Arc<Directory>, Error> {
        let on_source = |error: Error| error.on(labels.source);
        let on_target = |error: Error| error.on(labels.target);
        let open = Open::new(source.clone(), libc::O_RDONLY | libc::O_DIRECTORY);
        let opened = self.open_to_list(open).await;
        let named = source;
        let source = opened.map_err(|error| on_source(error.doing("enter")))?;
        let status = self.io.status_of(&source).await.map_err(on_source)?;
        let keeps_sources = self.is_reached_by_link(named, &status).await.map_err(on_source)?;
        let above = match &target {
            TargetPlace::Directory(directory)
            | TargetPlace::Name { directory, .. }
            | TargetPlace::Backup { directory, .. } => directory,
        };
        self.check_not_inside(&status, above.clone())
            .await
            .map_err(|error| error.on(labels.target).copying(labels.source))?;
        let above_heritage = self.heritage(above).await;
        let (target, made) = match target {
            TargetPlace::Directory(directory) => (directory, (None, None, None)),
            TargetPlace::Name { directory, name } | TargetPlace::Backup { directory, name } => {
                let made = self.open_or_make(&directory, &name, &status, false).await;
                let on_both = |error: Error| on_target(error).copying(labels.source);
                let (target, made_with, stage) = made.map_err(on_both)?;
                // A run that was killed may have made what is there.
                let has_new_name = made_with.is_some() || self.removes_sources();
                let above = has_new_name.then_some(directory);
                (target, (made_with, stage, above))
            }
        };
        let target_status = self.status_of_target(&target, made.0).await.map_err(on_target)?;
        if made.0.is_some() {
            self.tell_rehearsed_directory(false, labels);
        }
        let source = (source, status, labels.source);
        let heritage = match made.0 {
            Some(_) => self.heritage_of_new(&target, &target_status, above_heritage).await,
            None => self.heritage(&target).await,
        };
        let target = (target, target_status, labels.target);
        Ok(self.root(source, target, made, heritage, keeps_sources))
    }

    /// Fails if a directory is, or is inside, the tree that would be copied into it.
    async fn check_not_inside(&self, source: &FileStatus, directory: File) -> Result<(), Error> {
        let mut directory = directory;
        let mut status = self.io.status_of(&directory).await?;
        loop {
            if status.is_same_file(source) {
                return Err(Error::refused("copy", Refusal::IntoItself));
            }
            let place = Place::at(&directory, &Name::from(c".."));
            let open = Open::new(place, libc::O_PATH | libc::O_DIRECTORY);
            let above = self.io.open(open).await?;
            let above_status = self.io.status_of(&above).await?;
            if above_status.is_same_file(&status) {
                return Ok(());
            }
            (directory, status) = (above, above_status);
        }
    }
}

/// Where one source goes.
enum TargetPlace {
    Name {
        directory: File,
        name: Name,
    },
    /// This directory itself.
    Directory(File),
    /// The name of a backup, which gets none itself.
    Backup {
        directory: File,
        name: Name,
    },
}

fn new_target(directory: File, name: Name) -> Target {
    Target { is_operand: true, ..Target::new(directory, name) }
}

fn need_name(target: TargetPlace, labels: &Operands<'_>) -> Result<Target, Error> {
    match target {
        TargetPlace::Name { directory, name } => Ok(new_target(directory, name)),
        TargetPlace::Backup { directory, name } => {
            Ok(Target { is_backup: true, ..new_target(directory, name) })
        }
        TargetPlace::Directory(_) => Err(refused(Refusal::FileOntoDirectory, labels)),
    }
}

fn place(path: &Path) -> Result<Place, Error> {
    Place::path(path).map_err(|errno| Error::from_errno("open", errno))
}

impl Labels for Operands<'_> {
    fn source(&self) -> PathBuf {
        self.source.to_owned()
    }

    fn target(&self) -> PathBuf {
        self.target.to_owned()
    }
}

/// Puts the first piece of a tree into an empty queue, which holds fewer where each piece has more
/// directories open.
pub(super) fn first_piece(roots: Branch) -> Pieces {
    let pieces = Pieces::new((crate::limits::TREE_QUEUE_MAX / roots.len()).max(1));
    assert!(pieces.push(Piece::List(roots)).is_ok(), "a new queue has room");
    pieces
}
