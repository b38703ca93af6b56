//! Two trees side by side: pieces of work in a queue, done by whoever is free.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::content::{Blamed, first_difference};
use super::metadata::{compare_attributes, compare_status};
use super::{Comparison, Difference, Event, Side};
use crate::error::{Errno, Error};
use crate::limits::TREE_QUEUE_MAX;
use crate::operation::{File, FileKind, FileStatus, Name, Place};
use crate::proactor::{TaskInitiator, WorkQueue};
use crate::sum::walk::Folder;
use crate::sum::worker::{Job, Worker};
use crate::sum::{Summary, crew};

/// Two directories of one name.
struct Pair {
    folders: [Arc<Folder>; 2],
    /// Their path below what is compared.
    below: Vec<u8>,
}

/// A piece of work.
enum Piece {
    Enter { parents: Arc<Pair>, name: Name },
    List(Arc<Pair>, Side),
}

/// Two open files, and what they are.
type Opened = (File, FileStatus);

impl Pair {
    fn path_of(&self, name: &Name) -> Vec<u8> {
        match self.below.is_empty() {
            true => name.as_bytes().to_vec(),
            false => [self.below.as_slice(), b"/", name.as_bytes()].concat(),
        }
    }

    fn blame(&self, (number, error): Blamed, name: &Name) -> Error {
        error.on(self.folders[number].path_of(name))
    }
}

/// The path that a record is about.
pub(super) fn path_of(key: &[u8]) -> &Path {
    // Behind a NUL stands what orders the differences of one file.
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
    Path::new(OsStr::from_bytes(&key[..end]))
}

impl Comparison<'_> {
    pub(super) async fn trees(
        &self,
        job: &Job<'_>,
        tasks: &TaskInitiator,
        (a, b): (Opened, Opened),
        (path_a, path_b): (&Path, &Path),
    ) -> Summary {
        let pieces = WorkQueue::new(TREE_QUEUE_MAX);
        let io = Worker::new(job, tasks.clone());
        self.directories(&io, &(a.clone(), b.clone()), b"", |(number, error)| {
            error.on(if number == 0 { path_a } else { path_b })
        })
        .await;
        let folder = |(file, _): Opened, path: &Path| Arc::new(Folder { file, path: path.into() });
        let folders = [folder(a, path_a), folder(b, path_b)];
        let root = Arc::new(Pair { folders, below: Vec::new() });
        for side in [Side::A, Side::B] {
            let piece = Piece::List(Arc::clone(&root), side);
            assert!(pieces.push(piece).is_ok(), "an empty queue has room");
        }
        let work = async |worker: &Worker<'_>| self.work(worker, &pieces).await;
        let is_waiting = || pieces.is_waiting();
        let mut summary = crew::run(job, tasks, usize::MAX, is_waiting, work).await;
        summary.add(&io.summary.into_inner());
        summary
    }

    async fn work(&self, worker: &Worker<'_>, pieces: &WorkQueue<Piece>) {
        let mut own = Vec::new();
        while let Some((piece, _unfinished)) = pieces.take().await {
            own.push(piece);
            while let Some(piece) = own.pop() {
                if worker.io.check().is_err() {
                    worker.summary.borrow_mut().was_cancelled = true;
                    own.clear();
                    break;
                }
                match piece {
                    Piece::List(pair, side) => {
                        self.list(worker, pair, side, pieces, &mut own).await;
                    }
                    Piece::Enter { parents, name } => {
                        self.enter(worker, &parents, &name, pieces, &mut own).await;
                    }
                }
            }
        }
    }

    async fn enter(
        &self,
        worker: &Worker<'_>,
        parents: &Pair,
        name: &Name,
        pieces: &WorkQueue<Piece>,
        own: &mut Vec<Piece>,
    ) {
        let [a, b] = &parents.folders;
        let entered = (worker.enter(a, name).await, worker.enter(b, name).await);
        let folders = match entered {
            (Ok(a), Ok(b)) => [a, b],
            (Err(error), _) | (_, Err(error)) => return self.fail(worker, &error),
        };
        let below = parents.path_of(name);
        if self.compares_metadata {
            let status = async |folder: &Folder| worker.io.status_of(&folder.file).await;
            let known = (status(&folders[0]).await, status(&folders[1]).await);
            let opened = match known {
                (Ok(a), Ok(b)) => ((folders[0].file.clone(), a), (folders[1].file.clone(), b)),
                (Err(error), _) => return self.fail(worker, &error.on(&folders[0].path)),
                (_, Err(error)) => return self.fail(worker, &error.on(&folders[1].path)),
            };
            let label = |(number, error): Blamed| error.on(&folders[number].path);
            self.directories(worker, &opened, &below, label).await;
        }
        let pair = Arc::new(Pair { folders, below });
        offer(Piece::List(Arc::clone(&pair), Side::A), pieces, own);
        offer(Piece::List(pair, Side::B), pieces, own);
    }

    /// Compares two directories themselves.
    async fn directories(
        &self,
        worker: &Worker<'_>,
        opened: &(Opened, Opened),
        path: &[u8],
        label: impl Fn(Blamed) -> Error,
    ) {
        let (a, b) = opened;
        match self.beside_bytes(worker, a, b).await {
            Ok(differences) => self.tell(worker, path, &differences).await,
            Err(blamed) => self.fail(worker, &label(blamed)),
        }
    }

    /// What differs beside the bytes, if that is asked for.
    async fn beside_bytes(
        &self,
        worker: &Worker<'_>,
        (file_a, a): &Opened,
        (file_b, b): &Opened,
    ) -> Result<Vec<Difference>, Blamed> {
        if !self.compares_metadata {
            return Ok(Vec::new());
        }
        let mut differences = compare_status(a, b);
        let attributes = compare_attributes(worker, file_a, file_b).await;
        differences.extend(attributes.map_err(|error| (0, error))?);
        Ok(differences)
    }

    async fn list(
        &self,
        worker: &Worker<'_>,
        pair: Arc<Pair>,
        side: Side,
        pieces: &WorkQueue<Piece>,
        own: &mut Vec<Piece>,
    ) {
        let [mine, other] = match side {
            Side::A => [&pair.folders[0], &pair.folders[1]],
            Side::B => [&pair.folders[1], &pair.folders[0]],
        };
        let (entries, is_last) = match worker.read_names(&mine.file).await {
            Ok(batch) => batch,
            Err(error) => return self.fail(worker, &error.on(&mine.path)),
        };
        if !is_last {
            offer(Piece::List(Arc::clone(&pair), side), pieces, own);
        }
        for (name, kind) in entries {
            if worker.io.check().is_err() {
                worker.summary.borrow_mut().was_cancelled = true;
                return;
            }
            match worker.io.status_at(Place::at(&other.file, &name), false).await {
                Ok(None) => {
                    let difference = [Difference::OnlyIn(side)];
                    self.tell(worker, &pair.path_of(&name), &difference).await;
                }
                Ok(Some(status)) if side == Side::A => {
                    self.meet(worker, &pair, name, (kind, &status), pieces, own).await;
                }
                Ok(Some(_)) => {}
                Err(error) => self.fail(worker, &error.on(other.path_of(&name))),
            }
        }
    }

    /// Compares what stands under a name on both sides.
    async fn meet(
        &self,
        worker: &Worker<'_>,
        pair: &Arc<Pair>,
        name: Name,
        (kind, status_b): (FileKind, &FileStatus),
        pieces: &WorkQueue<Piece>,
        own: &mut Vec<Piece>,
    ) {
        let [a, b] = &pair.folders;
        if kind == FileKind::Directory && status_b.kind == FileKind::Directory {
            return offer(Piece::Enter { parents: Arc::clone(pair), name }, pieces, own);
        }
        let path = pair.path_of(&name);
        if kind == FileKind::Regular && status_b.kind == FileKind::Regular {
            let opened = (worker.open_regular(a, &name).await, worker.open_regular(b, &name).await);
            let opened = match opened {
                (Ok(a), Ok(b)) => [a, b],
                (Err(error), _) => return self.fail(worker, &error.on(a.path_of(&name))),
                (_, Err(error)) => return self.fail(worker, &error.on(b.path_of(&name))),
            };
            match self.regular(worker, &opened).await {
                Ok(differences) => self.tell(worker, &path, &differences).await,
                Err(blamed) => self.fail(worker, &pair.blame(blamed, &name)),
            }
            return;
        }
        let status_a = match worker.io.status_at(Place::at(&a.file, &name), false).await {
            Ok(Some(status)) => status,
            // It has gone since it was listed.
            Ok(None) => {
                return self.tell(worker, &path, &[Difference::OnlyIn(Side::B)]).await;
            }
            Err(error) => return self.fail(worker, &error.on(a.path_of(&name))),
        };
        // A file system that does not tell kinds in a listing.
        if kind == FileKind::Unknown
            && matches!(status_a.kind, FileKind::Directory | FileKind::Regular)
        {
            let known = (status_a.kind, status_b);
            if known.0 == status_b.kind {
                return Box::pin(self.meet(worker, pair, name, known, pieces, own)).await;
            }
        }
        match self.special(worker, pair, &name, (&status_a, status_b)).await {
            Ok(differences) => self.tell(worker, &path, &differences).await,
            Err(blamed) => self.fail(worker, &pair.blame(blamed, &name)),
        }
    }

    /// Two names of which not both are regular files or directories.
    async fn special(
        &self,
        worker: &Worker<'_>,
        pair: &Pair,
        name: &Name,
        (a, b): (&FileStatus, &FileStatus),
    ) -> Result<Vec<Difference>, Blamed> {
        if a.kind != b.kind {
            return Ok(vec![Difference::Kind(a.kind, b.kind)]);
        }
        let mut differences = Vec::new();
        if a.kind == FileKind::SymbolicLink {
            let mut says = Vec::new();
            for (number, folder) in pair.folders.iter().enumerate() {
                let link = worker.io.read_link(Place::at(&folder.file, name)).await;
                says.push(link.map_err(|error| (number, error))?);
            }
            if says[0] != says[1] {
                differences.push(Difference::Link);
            }
        }
        let is_device = matches!(a.kind, FileKind::CharacterDevice | FileKind::BlockDevice);
        if is_device && a.node_device != b.node_device {
            differences.push(Difference::Node(a.node_device, b.node_device));
        }
        if self.compares_metadata {
            differences.extend(compare_status(a, b));
        }
        Ok(differences)
    }

    /// Two operands of which not both are directories.
    pub(super) async fn pair(
        &self,
        worker: &Worker<'_>,
        (a, b): (Opened, Opened),
        (path_a, path_b): (&Path, &Path),
        path: &[u8],
    ) {
        let both = [a, b];
        let label = |(number, error): Blamed| error.on(if number == 0 { path_a } else { path_b });
        let compared = match both.each_ref().map(|(_, status)| status.kind) {
            [FileKind::Regular, FileKind::Regular] => self.regular(worker, &both).await,
            [a, b] if a != b => Ok(vec![Difference::Kind(a, b)]),
            _ => {
                let error = Error::from_errno("read", Errno::EOPNOTSUPP);
                let reason = "only files and directories are compared";
                Err((0, Error::new(error.kind(), "read", reason)))
            }
        };
        match compared {
            Ok(differences) => self.tell(worker, path, &differences).await,
            Err(blamed) => self.fail(worker, &label(blamed)),
        }
    }

    async fn regular(
        &self,
        worker: &Worker<'_>,
        both: &[Opened; 2],
    ) -> Result<Vec<Difference>, Blamed> {
        let bytes = both[0].1.size_bytes.min(both[1].1.size_bytes);
        worker.job.progress.find_file(bytes);
        let first = first_difference(worker, both).await?;
        let mut differences: Vec<_> = first.map(Difference::Content).into_iter().collect();
        differences.extend(self.beside_bytes(worker, &both[0], &both[1]).await?);
        let mut summary = worker.summary.borrow_mut();
        summary.files += 1;
        summary.bytes += first.unwrap_or(bytes);
        worker.job.progress.add_file();
        Ok(differences)
    }

    /// Keeps what differs until all before it is known.
    async fn tell(&self, worker: &Worker<'_>, path: &[u8], differences: &[Difference]) {
        if differences.is_empty() {
            return;
        }
        worker.summary.borrow_mut().differing += 1;
        for (number, difference) in (0_u32..).zip(differences) {
            let key = [path, &[0, difference.rank()], &number.to_be_bytes()].concat();
            let kept = self.sorter.push(&key, &difference.write(), &worker.io).await;
            if let Err(error) = kept {
                self.fail(worker, &error);
            }
        }
    }

    fn fail(&self, worker: &Worker<'_>, error: &Error) {
        if worker.summary.borrow_mut().fail(error) {
            self.observer.on_event(&Event::Failed(error));
        }
    }
}

fn offer(piece: Piece, pieces: &WorkQueue<Piece>, own: &mut Vec<Piece>) {
    if let Err(piece) = pieces.push(piece) {
        own.push(piece);
    }
}
