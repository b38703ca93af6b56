//! Copying a tree: pieces of work in a queue, done by whoever is free.
//!
//! ```text
//! List: read names -> files and links are copied at once, directories become pieces
//! Enter: open a directory on both sides -> List
//! ```
//!
//! A directory is finished (mode, times, publication) when its last piece is. Listing goes on as a
//! piece of its own, so a flat directory of any size is shared, and nothing holds all its names.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::libc;

use super::access::Heritage;
use super::directory::{Directory, Entry};
use super::hard_links::Waiting;
use super::lanes::{Branch, Team};
use super::listing::ListedNames;
use super::publish::Target;
use super::readers::Left;
use super::stage::Stage;
use super::worker::{Labels, Worker};
use super::{FollowLinks, LookAhead};
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{LISTING_BYTES, NAME_BYTES_MAX};
use crate::operation::{
    File, FileKind, FileStatus, ListDirectory, Name, Open, Operation, Place, directory_entries,
};
use crate::proactor::WorkQueue;

/// A piece of work, for all lanes.
pub(super) enum Piece {
    Enter { parents: Branch, name: Name },
    List(Branch),
}

/// Pieces that wait.
pub(super) type Pieces = WorkQueue<Piece>;

/// Names of one listing.
pub(super) struct Batch {
    pub(super) entries: Vec<(Name, FileKind)>,
    pub(super) is_last: bool,
}

/// What a name turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Met {
    /// Something that was copied, or left out, or failed.
    Settled,
    /// A directory, which is to be entered.
    Directory,
}

impl Team<'_> {
    /// Does pieces until there are none, and can be none.
    pub(super) async fn work(&self, pieces: &Pieces) {
        // What the queue has no room for is done here, newest first: the queue stays bounded, and
        // so does this, by one batch of names a level.
        let mut own: Vec<Piece> = Vec::new();
        loop {
            // Nobody knows how long the next piece takes to come, or whether there is one.
            let taken = pieces.take_after(async || self.finish_batches().await).await;
            let Some((piece, _unfinished)) = taken else { return };
            own.push(piece);
            while let Some(piece) = own.pop() {
                match piece {
                    Piece::Enter { parents, name } => {
                        self.enter(parents, &name, pieces, &mut own).await;
                    }
                    Piece::List(branch) => self.list(branch, pieces, &mut own).await,
                }
            }
        }
    }

    async fn finish_batches(&self) {
        for worker in self.workers() {
            worker.finish_batch().await;
        }
    }

    fn offer(piece: Piece, pieces: &Pieces, own: &mut Vec<Piece>) {
        if let Err(piece) = pieces.push(piece) {
            own.push(piece);
        }
    }

    /// Gives up one piece of a directory, in each lane.
    async fn release(&self, branch: Branch) {
        for directory in &*branch {
            self.worker_of(directory).release(Arc::clone(directory)).await;
        }
    }

    async fn enter(&self, parents: Branch, name: &Name, pieces: &Pieces, own: &mut Vec<Piece>) {
        self.turn_to_next_name();
        let first = parents.first();
        let opened = self.worker_of(first).open_below_source(first, name).await;
        let mut entered = Vec::with_capacity(parents.len());
        for parent in &*parents {
            let worker = self.worker_of(parent);
            let copy = match opened.clone() {
                Ok(opened) => worker.open_copy_below(parent, name, opened).await,
                Err(error) => Err(error),
            };
            match copy {
                // Of another file system it is made, and stays empty.
                Ok(directory)
                    if worker.job.options.one_file_system
                        && directory.status.device != directory.root_device() =>
                {
                    worker.release(Arc::new(directory)).await;
                }
                Ok(directory) => {
                    worker.park_if_short(parent);
                    entered.push(Arc::new(directory));
                }
                Err(error) => {
                    worker.fail(&error);
                    worker.release(Arc::clone(parent)).await;
                }
            }
        }
        if let Some(branch) = Branch::of(entered) {
            self.list(branch, pieces, own).await;
        }
    }

    /// Reads names, and copies what they stand for.
    async fn list(&self, branch: Branch, pieces: &Pieces, own: &mut Vec<Piece>) {
        self.turn_to_next_name();
        let first = branch.first();
        let batch = match &first.listed {
            Some(listed) => listed.next_batch(),
            None => {
                let worker = self.worker_of(first);
                match worker.opened_source(first).await {
                    Ok(source) => worker.read_batch(&source).await,
                    Err(error) => Err(error),
                }
            }
        };
        let mut more = None;
        match batch {
            Ok(batch) => {
                if !batch.is_last {
                    branch.retain();
                    let piece = Piece::List(branch.clone());
                    // It can't be parked before all its names are known.
                    match self.lead().are_directories_short() {
                        true => more = Some(piece),
                        false => Self::offer(piece, pieces, own),
                    }
                }
                for directory in &*branch {
                    self.worker_of(directory).finish_batch_elsewhere(directory).await;
                }
                let reads_all = self.will_read_all(&branch);
                let is_always = self.lead().job.options.look_ahead == LookAhead::Always;
                for turn in 0..batch.entries.len() {
                    if reads_all && (is_always || pieces.is_starved()) {
                        self.lead().look_ahead(branch.first(), &batch.entries, turn).await;
                    }
                    let (name, kind) = batch.entries[turn].clone();
                    if self.lead().job.cancellation.is_cancelled() {
                        self.lead().summary.borrow_mut().was_cancelled = true;
                        break;
                    }
                    self.copy_entry(&branch, name, kind, pieces, own).await;
                    self.copy_deferred(pieces, own).await;
                    for directory in &*branch {
                        self.worker_of(directory).finish_full_batch().await;
                    }
                }
                self.lead().look_no_further();
            }
            Err(error) => {
                for directory in &*branch {
                    let error = error.clone().on(directory.source_path());
                    self.worker_of(directory).fail(&error);
                }
            }
        }
        match more {
            Some(piece) => Self::offer(piece, pieces, own),
            None => {
                for directory in &*branch {
                    self.worker_of(directory).mark_listed(directory);
                }
            }
        }
        self.release(branch).await;
    }

    fn will_read_all(&self, branch: &Branch) -> bool {
        branch.len() == 1 && self.lead().will_read_all(branch.first())
    }

    async fn copy_entry(
        &self,
        branch: &Branch,
        name: Name,
        kind: FileKind,
        pieces: &Pieces,
        own: &mut Vec<Piece>,
    ) {
        let parents = if let [directory] = &**branch {
            match self.worker_of(directory).copy_entry(directory, &name, kind).await {
                Met::Directory => Some(branch.clone()),
                Met::Settled => None,
            }
        } else {
            self.copy_entry_together(branch, &name, kind).await
        };
        if let Some(parents) = parents {
            parents.retain();
            Self::offer(Piece::Enter { parents, name }, pieces, own);
        }
    }

    /// Copies a name in several lanes; returns those that are to enter it.
    async fn copy_entry_together(
        &self,
        branch: &Branch,
        name: &Name,
        kind: FileKind,
    ) -> Option<Branch> {
        let shared = self.shared_file(branch, name, kind).await;
        let leave = || {
            branch.retain();
            Left { branch: branch.clone(), name: name.clone(), kind }
        };
        if shared.is_some_and(|file| !self.readers.begin(file, leave)) {
            return None;
        }
        let copy = async |directory: &Arc<Directory>| {
            self.worker_of(directory).copy_entry(directory, name, kind).await
        };
        let met = self.side_by_side(branch.iter(), copy).await;
        if let Some(file) = shared {
            self.deferred.borrow_mut().extend(self.readers.end(file));
        }
        let below = branch.iter().zip(met).filter(|(_, met)| *met == Met::Directory);
        Branch::of(below.map(|(directory, _)| Arc::clone(directory)).collect())
    }

    /// The file that a name stands for, if other names may stand for it too.
    async fn shared_file(
        &self,
        branch: &Branch,
        name: &Name,
        kind: FileKind,
    ) -> Option<(u64, u64)> {
        let worker = self.lead();
        let options = &worker.job.options;
        if kind == FileKind::Directory || !options.preserve.links || worker.is_rehearsal() {
            return None;
        }
        let is_followed = options.links == FollowLinks::Always;
        let source = worker.opened_source(branch.first()).await.ok()?;
        let place = Place::at(&source, name);
        let status = worker.io.status_at(place, is_followed).await.ok()??;
        let has_others = status.links > 1 || is_followed;
        (has_others && status.kind != FileKind::Directory).then_some((status.device, status.inode))
    }

    /// Does what was left to this team, or to a lane of it, by those who met files that it was
    /// copying.
    async fn copy_deferred(&self, pieces: &Pieces, own: &mut Vec<Piece>) {
        loop {
            let next = self.deferred.borrow_mut().pop();
            let Some(Left { branch, name, kind }) = next.or_else(|| self.next_waiting()) else {
                return;
            };
            self.copy_entry(&branch, name, kind, pieces, own).await;
            for directory in &*branch {
                self.worker_of(directory).park_if_short(directory);
            }
            self.release(branch).await;
        }
    }

    fn next_waiting(&self) -> Option<Left> {
        let waiting = |worker: &Worker<'_>| worker.deferred.borrow_mut().pop();
        let Waiting { directory, name, kind } = self.workers().iter().find_map(waiting)?;
        Some(Left { branch: Branch::of(vec![directory])?, name, kind })
    }
}

impl Worker<'_> {
    /// The root of a tree.
    pub(super) fn root(
        &self,
        source: (File, FileStatus, &Path),
        target: (File, FileStatus, &Path),
        made: (Option<u32>, Option<Stage>, Option<File>),
        heritage: Heritage,
        keeps_sources: bool,
    ) -> Arc<Directory> {
        let name = target.2.file_name().unwrap_or_default();
        let is_created = self.note_directory(&target.1, name, made.0.is_some());
        let is_imagined = self.is_rehearsal() && made.0.is_some();
        let mut root = Directory::root(is_created, source, target, made, heritage);
        root.is_staged |= is_imagined;
        root.keeps_sources = keeps_sources;
        root.lane = self.job.lane;
        root.listed = self.job.options.selection.listed.as_ref().and_then(ListedNames::new);
        Arc::new(root)
    }

    /// Reads names from where the last listing of this open directory stopped.
    pub(super) async fn read_batch(&self, directory: &File) -> Result<Batch, Error> {
        let mut entries = Vec::new();
        loop {
            let mut bytes = self.listing.take();
            bytes.resize(LISTING_BYTES, 0);
            let buffer = Buffer::Vec(bytes);
            let list = ListDirectory { directory: directory.clone(), buffer };
            self.io.check()?;
            let (length, operation) =
                self.io.perform_counted(Operation::ListDirectory(list)).await?;
            let Operation::ListDirectory(ListDirectory { buffer: Buffer::Vec(bytes), .. }) =
                operation
            else {
                unreachable!("an operation comes back as itself")
            };
            let listing = bytes.get(..length as usize).unwrap_or_default();
            let found = directory_entries(listing);
            entries.extend(found.map(|entry| (Name::from(entry.name), entry.kind)));
            *self.listing.borrow_mut() = bytes;
            if length == 0 {
                return Ok(Batch { entries, is_last: true });
            }
            // A listing that stops short of a name's room has most likely come to the end: asking
            // once more is cheaper than another piece.
            if length as usize + 2 * NAME_BYTES_MAX > LISTING_BYTES {
                return Ok(Batch { entries, is_last: false });
            }
        }
    }

    /// Copies what a name stands for; a directory is left to whoever asks.
    async fn copy_entry(&self, directory: &Arc<Directory>, name: &Name, kind: FileKind) -> Met {
        let is_followed = self.job.options.links == FollowLinks::Always;
        let kind = match kind {
            FileKind::SymbolicLink if is_followed => FileKind::Unknown,
            kind => kind,
        };
        let labels = Entry { directory, name };
        let kind = match kind {
            FileKind::Unknown => {
                let status = match self.opened_source(directory).await {
                    Ok(source) => self.io.status_at(Place::at(&source, name), is_followed).await,
                    Err(error) => Err(error),
                };
                match status {
                    Ok(Some(status)) => status.kind,
                    // What can't be looked at may be what the user does not want looked at.
                    _ if self.is_excluded(&labels, false) => return self.exclude(),
                    found => {
                        let error = match found {
                            Err(error) => error,
                            Ok(_) => Error::from_errno("status", Errno::ENOENT),
                        };
                        let is_told = match error.errno() {
                            Some(errno) => self.fail_listed_below(&labels, errno),
                            None => true,
                        };
                        if is_told {
                            self.fail(&error.on(labels.source()));
                        }
                        return Met::Settled;
                    }
                }
            }
            kind => kind,
        };
        if self.is_excluded(&labels, kind == FileKind::Directory) {
            return self.exclude();
        }
        if kind != FileKind::Directory && !self.fail_listed_below(&labels, Errno::ENOTDIR) {
            return Met::Settled;
        }
        let copied = match kind {
            FileKind::Directory => return Met::Directory,
            FileKind::Regular => self.copy_regular(directory, name, &labels).await,
            FileKind::SymbolicLink => self.copy_node_of(directory, name, &labels).await,
            _ if self.makes_special(false) => self.copy_node_of(directory, name, &labels).await,
            _ => self.copy_contents_of(directory, name, &labels).await,
        };
        match copied {
            Ok(()) => directory.note_copied(name),
            Err(error) => {
                if error.kind() != ErrorKind::Cancelled
                    && let Ok(target) = self.opened_target(directory).await
                {
                    self.clear(&directory.target_for(target, name)).await;
                }
                self.fail(&error);
            }
        }
        Met::Settled
    }

    /// Whether the user wants a name left out.
    pub(super) fn is_excluded(&self, labels: &Entry<'_>, is_directory: bool) -> bool {
        self.job.options.selection.excludes(|| labels.relative(), is_directory)
    }

    fn exclude(&self) -> Met {
        self.summary.borrow_mut().excluded += 1;
        Met::Settled
    }

    pub(super) async fn copy_regular(
        &self,
        directory: &Arc<Directory>,
        name: &Name,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let on_source = |error: Error| error.on(labels.source());
        let (place, target) = self.places_of(directory, name).await?;
        let Some(target) = self.admit_below(&place, target, labels).await? else { return Ok(()) };
        let source = match self.opened_ahead(directory, name) {
            Some(source) => source,
            None => self.io.open(self.open_of_regular(place)).await.map_err(on_source)?,
        };
        let status = self.io.status_of(&source).await.map_err(on_source)?;
        if status.kind != FileKind::Regular {
            let reason = "it became something else than a regular file";
            let error = Error::new(ErrorKind::SourceChanged, "open", reason);
            return Err(on_source(error));
        }
        let copy = async || self.copy_file(&source, &status, &target, labels).await;
        self.copy_linked(&status, &target, Some(directory), labels, copy).await
    }

    /// How a regular file is opened. Not waiting: what was a file a moment ago may be a FIFO now.
    pub(super) fn open_of_regular(&self, place: Place) -> Open {
        let open = Open::new(place, libc::O_RDONLY | libc::O_NONBLOCK);
        match self.job.options.links {
            FollowLinks::Always => open,
            _ => open.confined(),
        }
    }

    /// A name in a directory, on both sides.
    async fn places_of(
        &self,
        directory: &Directory,
        name: &Name,
    ) -> Result<(Place, Target), Error> {
        let (source, target) = self.opened_sides(directory).await?;
        Ok((Place::at(&source, name), directory.target_for(target, name)))
    }

    /// Reads a special file to its end, and waits for one who writes.
    async fn copy_contents_of(
        &self,
        directory: &Arc<Directory>,
        name: &Name,
        labels: &Entry<'_>,
    ) -> Result<(), Error> {
        let on_source = |error: Error| error.on(labels.source());
        let (place, target) = self.places_of(directory, name).await?;
        let admitted = self.admit_below(&place, target, labels).await?;
        let Some(target) = admitted else { return Ok(()) };
        let open = Open::new(place, libc::O_RDONLY);
        let is_followed = self.job.options.links == FollowLinks::Always;
        let open = if is_followed { open } else { open.confined() };
        // It is no regular file, or would be copied elsewhere.
        let source = self.open_source(open, FileKind::Fifo).await.map_err(on_source)?;
        let status = self.io.status_of(&source).await.map_err(on_source)?;
        let copy = async || self.copy_file(&source, &status, &target, labels).await;
        self.copy_linked(&status, &target, Some(directory), labels, copy).await
    }

    /// Copies a link or a special file.
    async fn copy_node_of(
        &self,
        directory: &Arc<Directory>,
        name: &Name,
        labels: &Entry<'_>,
    ) -> Result<(), Error> {
        let on_source = |error: Error| error.on(labels.source());
        let (source, target) = self.places_of(directory, name).await?;
        let admitted = self.admit_below(&source, target, labels).await?;
        let Some(target) = admitted else { return Ok(()) };
        let waits = self.will_name_wait(directory).await;
        if !directory.is_staged && !waits {
            directory.has_open_links.store(true, Ordering::Relaxed);
        }
        // Before the link is read: reading it would change the time of its last reading.
        let is_followed = self.job.options.links == FollowLinks::Always;
        let status = self.io.status_at(source.clone(), is_followed).await.map_err(on_source)?;
        let status = status.ok_or_else(|| on_source(Error::from_errno("status", Errno::ENOENT)))?;
        if matches!(status.kind, FileKind::Regular | FileKind::Directory) {
            let reason = "it became something else than it was listed as";
            return Err(on_source(Error::new(ErrorKind::SourceChanged, "status", reason)));
        }
        let copy = async || {
            self.copy_node(&source, &status, &target, labels).await?;
            if waits {
                self.name_waits(directory, name);
            }
            Ok(())
        };
        self.copy_linked(&status, &target, Some(directory), labels, copy).await
    }
}
