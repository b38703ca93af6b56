//! All regular files of a tree: pieces of work in a queue, done by whoever is free.
//!
//! Nothing is kept open but what is worked on: a directory that waits to be entered keeps the one that
//! it is in, and a listing its own. Symbolic links are not followed, and are no files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;

use super::worker::Worker;
use crate::buffer::Buffer;
use crate::error::{Errno, Error};
use crate::limits::{LISTING_BYTES, NAME_BYTES_MAX};
use crate::operation::{
    File, FileKind, FileStatus, ListDirectory, Name, Open, Operation, Place, directory_entries,
};
use crate::proactor::WorkQueue;

/// A directory that is open.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

/// A piece of work.
pub(super) enum Piece {
    Enter { parent: Arc<Folder>, name: Name },
    List(Arc<Folder>),
}

/// What is done with the files of a tree, on the way.
pub(super) trait Visitor {
    /// A regular file was met, and is open.
    async fn visit(&self, worker: &Worker<'_>, path: &Path, opened: (File, FileStatus));

    /// Something that is no file is left out.
    fn skip(&self, worker: &Worker<'_>, path: &Path, reason: &'static str);

    /// Something can't be read.
    fn fail(&self, worker: &Worker<'_>, error: Error);
}

impl Folder {
    pub(crate) fn path_of(&self, name: &Name) -> PathBuf {
        self.path.join(name.as_os_str())
    }
}

impl Worker<'_> {
    /// Does pieces until there are none, and can be none.
    pub(super) async fn walk(&self, pieces: &WorkQueue<Piece>, visitor: &impl Visitor) {
        // What the queue has no room for is done here, newest first: the queue stays bounded, and so
        // does this, by one batch of names a level.
        let mut own = Vec::new();
        while let Some((piece, _unfinished)) = pieces.take().await {
            own.push(piece);
            while let Some(piece) = own.pop() {
                if self.io.check().is_err() {
                    self.summary.borrow_mut().was_cancelled = true;
                    own.clear();
                    break;
                }
                let listed = match piece {
                    Piece::List(folder) => Ok(folder),
                    Piece::Enter { parent, name } => self.enter(&parent, &name).await,
                };
                match listed {
                    Ok(folder) => self.list(folder, pieces, &mut own, visitor).await,
                    Err(error) => visitor.fail(self, error),
                }
            }
        }
    }

    pub(crate) async fn enter(&self, parent: &Folder, name: &Name) -> Result<Arc<Folder>, Error> {
        let path = parent.path_of(name);
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let open = Open::new(Place::at(&parent.file, name), flags).confined();
        match self.io.open(open).await {
            Ok(file) => Ok(Arc::new(Folder { file, path })),
            Err(error) => Err(error.on(path)),
        }
    }

    async fn list(
        &self,
        folder: Arc<Folder>,
        pieces: &WorkQueue<Piece>,
        own: &mut Vec<Piece>,
        visitor: &impl Visitor,
    ) {
        let (entries, is_last) = match self.read_names(&folder.file).await {
            Ok(batch) => batch,
            Err(error) => return visitor.fail(self, error.on(&folder.path)),
        };
        if !is_last {
            offer(Piece::List(Arc::clone(&folder)), pieces, own);
        }
        for (name, kind) in entries {
            if self.io.check().is_err() {
                self.summary.borrow_mut().was_cancelled = true;
                return;
            }
            self.meet(&folder, name, kind, pieces, own, visitor).await;
        }
    }

    async fn meet(
        &self,
        folder: &Arc<Folder>,
        name: Name,
        kind: FileKind,
        pieces: &WorkQueue<Piece>,
        own: &mut Vec<Piece>,
        visitor: &impl Visitor,
    ) {
        let kind = match kind {
            FileKind::Unknown => {
                match self.io.status_at(Place::at(&folder.file, &name), false).await {
                    Ok(Some(status)) => status.kind,
                    // It has gone since it was listed.
                    Ok(None) => return,
                    Err(error) => return visitor.fail(self, error.on(folder.path_of(&name))),
                }
            }
            kind => kind,
        };
        match kind {
            FileKind::Directory => {
                offer(Piece::Enter { parent: Arc::clone(folder), name }, pieces, own);
            }
            FileKind::Regular => {
                let path = folder.path_of(&name);
                match self.open_regular(folder, &name).await {
                    Ok(opened) => visitor.visit(self, &path, opened).await,
                    Err(error) => visitor.fail(self, error.on(path)),
                }
            }
            FileKind::SymbolicLink => {}
            kind => visitor.skip(self, &folder.path_of(&name), not_a_file(kind)),
        }
    }

    /// Opens a regular file, and looks at it. Whatever comes into its place meanwhile is not waited
    /// for.
    pub(crate) async fn open_regular(
        &self,
        folder: &Folder,
        name: &Name,
    ) -> Result<(File, FileStatus), Error> {
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        let open = Open::new(Place::at(&folder.file, name), flags).confined();
        let file = self.io.open(open).await?;
        let status = self.io.status_of(&file).await?;
        match status.kind {
            FileKind::Regular => Ok((file, status)),
            _ => Err(Error::from_errno("open", Errno::ESTALE)),
        }
    }

    /// Reads names from where the last listing of this open directory stopped; true if these were the
    /// last.
    pub(crate) async fn read_names(
        &self,
        directory: &File,
    ) -> Result<(Vec<(Name, FileKind)>, bool), Error> {
        let mut entries = Vec::new();
        loop {
            let mut bytes = self.listing.take();
            bytes.resize(LISTING_BYTES, 0);
            let list = ListDirectory { directory: directory.clone(), buffer: Buffer::Vec(bytes) };
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
                return Ok((entries, true));
            }
            // A listing that stops short of a name's room has most likely come to the end: asking
            // once more is cheaper than another piece.
            if length as usize + 2 * NAME_BYTES_MAX > LISTING_BYTES {
                return Ok((entries, false));
            }
        }
    }
}

fn offer(piece: Piece, pieces: &WorkQueue<Piece>, own: &mut Vec<Piece>) {
    if let Err(piece) = pieces.push(piece) {
        own.push(piece);
    }
}

/// Why something in a tree is left out.
pub(crate) fn not_a_file(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Fifo => "it is a FIFO",
        FileKind::Socket => "it is a socket",
        FileKind::CharacterDevice | FileKind::BlockDevice => "it is a device",
        _ => "it is not a regular file",
    }
}
