//! Copying files and trees.

mod access;
mod account;
mod attributes;
mod backup;
mod batch;
mod blocks;
mod continuation;
mod data;
mod device;
mod directory;
mod doctor;
mod durable;
mod existing;
mod extraneous;
mod file;
mod file_system;
mod fingerprint;
mod hard_links;
mod holes;
mod in_flight;
mod io;
mod journal;
mod leftover;
mod linking;
mod listing;
mod manifest;
mod mark;
mod mirror;
mod node;
mod operands;
mod options;
mod pace;
mod parents;
mod parked;
mod pipeline;
mod publication;
mod publish;
mod reading;
mod reason;
mod receiver;
mod rehearsal;
mod remove_source;
mod reread;
mod resume;
mod route;
mod segments;
mod signature;
mod sparse;
mod stage;
mod standing;
mod temporary;
mod throttle;
mod tree;
mod verdict;
mod verify;
mod worker;
mod zeros;

use std::future::Future;
use std::num::NonZero;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::thread;

pub use account::*;
pub use doctor::{Findings, Forecast, Trial, doctor};
use operands::{Outcome, first_piece};
pub use options::*;
use parents::Parents;
pub use reason::*;
use tree::Piece;
use worker::{BlockEngine, Job, Surroundings, Worker};

use crate::error::Error;
use crate::limits::{TREE_SHARDS_MAX, TREE_TASKS};
use crate::proactor::{Proactor, Shards, join_all};
use crate::processor::{Configuration, ThreadProcessor};

/// A copy to be made.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is copied: files and directories, as the user wrote them.
    pub sources: Vec<PathBuf>,
    /// Where to.
    pub target: PathBuf,
    /// What the target is.
    pub target_role: TargetRole,
    /// How.
    pub options: Options,
    /// By what.
    pub engine: Configuration,
}

/// What the target operand is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TargetRole {
    /// A directory to copy into if it is one, otherwise the new name.
    #[default]
    Guess,
    /// A directory to copy into (`-t`).
    Directory,
    /// The new name, even if a directory stands there (`-T`).
    Name,
}

/// Copies files and trees, and tells what happened.
///
/// Small files are copied by one thread a core, or more while they wait for the disk; large ones
/// through a ring. Failures of single files are told to the observer and counted; the other files
/// go on.
///
/// # Errors
///
/// If nothing could be begun: the target is not a directory, io_uring was demanded and is missing.
///
/// # Examples
///
/// ```
/// use ucp_engine::copy::{self, Cancellation, Progress, Request};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// let (source, target) = (scratch.path().join("a"), scratch.path().join("b"));
/// std::fs::write(&source, "text")?;
/// let request = Request::new([source], &target);
/// let summary = copy::copy(&request, &(), &Progress::default(), &Cancellation::default())?;
/// assert_eq!((summary.files, summary.bytes, summary.failed), (1, 4, 0));
/// assert_eq!(std::fs::read(target)?, b"text");
/// # Ok(())
/// # }
/// ```
pub fn copy(
    request: &Request,
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
) -> Result<Summary, Error> {
    let proactor = inline_proactor();
    let crew = Crew::Shards(&request.engine);
    proactor.block_on(copy_with(request, observer, progress, cancellation, &proactor, crew))
}

/// Copies files and trees on one proactor, several pieces side by side.
///
/// For programs that have a proactor, and for simulations: everything that the copy does goes
/// through it. Its processor must have room for all blocks of as many large files as are copied side
/// by side, [`crate::limits::TREE_TASKS`]: a file whose blocks find none fails.
///
/// # Errors
///
/// As [`copy`].
pub fn copy_on(
    proactor: &Proactor,
    request: &Request,
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
) -> Result<Summary, Error> {
    let crew = Crew::Tasks;
    proactor.block_on(copy_with(request, observer, progress, cancellation, proactor, crew))
}

/// Who copies the pieces of a tree.
#[derive(Clone, Copy)]
enum Crew<'a> {
    /// Threads, each with a proactor of its own, and one more for blocks of large files.
    Shards(&'a Configuration),
    /// Tasks on the proactor that everything runs on.
    Tasks,
}

async fn copy_with(
    request: &Request,
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
    proactor: &Proactor,
    crew: Crew<'_>,
) -> Result<Summary, Error> {
    let tasks = proactor.initiator();
    let (started, began) = (tasks.now(), tasks.wall_clock());
    let has_several = request.sources.len() > 1;
    let options = request.options.clone().complete()?;
    let mut job = Job::new(options, observer, progress, cancellation, has_several);
    let io = io::Io {
        tasks: tasks.clone(),
        cancellation: cancellation.clone(),
        is_rehearsal: request.options.selection.dry_run,
    };
    if request.options.verification.manifest.is_some() {
        job.list = Some(manifest::List::new(&request.target));
    }
    job.surroundings = Surroundings::look(&io).await;
    let worker = Worker::new(&job, tasks.clone(), crew.block_engine());
    // Started now, though it may not be needed: what runs, and why, is part of every account.
    let engine = worker.block_tasks()?.capabilities();
    let destination = worker.destination(request).await?;
    let mut roots = Vec::new();
    progress.set_phase(Phase::Copying);
    let manifest = match &request.options.verification.manifest {
        Some(manifest) => {
            Some((manifest, worker.manifest_place(manifest, &request.sources).await?))
        }
        None => None,
    };
    for source in &request.sources {
        if cancellation.is_cancelled() {
            worker.summary.borrow_mut().was_cancelled = true;
            break;
        }
        let mut parents = Parents::default();
        match worker.copy_operand(source, &destination, &mut parents).await {
            Ok(Outcome::Done) => {}
            Ok(Outcome::Tree(piece)) => {
                roots.extend(piece.root_to_mirror().filter(|_| job.mirrors()));
                copy_tree(&job, piece, &worker, crew).await;
            }
            Err(error) => worker.fail(&error),
        }
        worker.finish_parents(parents).await;
    }
    let list = manifest.as_ref().map(|(_, place)| place);
    worker.mirror(&roots, began, list).await;
    if let Some((manifest, place)) = manifest
        && !worker.summary.borrow().was_cancelled
        && !worker.is_rehearsal()
        && let Err(error) = worker.write_manifest(manifest, &place).await
    {
        worker.fail(&error);
    }
    progress.set_phase(Phase::Ending);
    let mut summary = worker.summary.take();
    summary.is_dry_run = worker.is_rehearsal();
    summary.elapsed = tasks.now().since(started);
    summary.engine = engine.to_string();
    summary.engine_name = engine.engine.to_string();
    summary.engine_reason = engine.reason;
    Ok(summary)
}

async fn copy_tree(job: &Job<'_>, piece: Piece, worker: &Worker<'_>, crew: Crew<'_>) {
    let pieces = first_piece(piece);
    match crew {
        Crew::Shards(configuration) => {
            let total = Mutex::new(Summary::default());
            let cores = thread::available_parallelism().map_or(1, NonZero::get);
            // Questions come one at a time, and in the order of the names.
            let is_asked = job.options.existing.overwrite == Overwrite::Ask;
            let (count, count_max) =
                if is_asked { (1, 1) } else { (cores, TREE_SHARDS_MAX.max(cores)) };
            let shards = Shards { count, count_max };
            shards.run(&pieces, || {
                let proactor = inline_proactor();
                let tasks = proactor.initiator();
                let worker = Worker::new(job, tasks, BlockEngine::own(configuration));
                proactor.block_on(worker.work(&pieces));
                let part = worker.summary.take();
                total.lock().unwrap_or_else(PoisonError::into_inner).add(&part);
            });
            let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
            worker.summary.borrow_mut().add(&total);
        }
        Crew::Tasks => {
            let workers: Vec<_> = (0..TREE_TASKS)
                .map(|_| Worker::new(job, worker.io.tasks.clone(), BlockEngine::same()))
                .collect();
            let work = workers.iter().map(|worker| {
                let work: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(worker.work(&pieces));
                work
            });
            join_all(work.collect()).await;
            for part in &workers {
                worker.summary.borrow_mut().add(&part.summary.take());
            }
        }
    }
}

/// A proactor whose operations are performed in the caller's turn.
fn inline_proactor() -> Proactor {
    Proactor::new(Box::new(ThreadProcessor::new(0, INLINE_SLOTS)))
}

/// Slots of a proactor that performs nearly everything at once.
const INLINE_SLOTS: u32 = 16;

impl<'a> Crew<'a> {
    fn block_engine(self) -> BlockEngine<'a> {
        match self {
            Self::Shards(configuration) => BlockEngine::own(configuration),
            Self::Tasks => BlockEngine::same(),
        }
    }
}

impl Request {
    /// A copy of `sources` to `target`, made as `ucp SOURCE… TARGET` makes it.
    pub fn new<P: Into<PathBuf>>(
        sources: impl IntoIterator<Item = P>,
        target: impl Into<PathBuf>,
    ) -> Self {
        Self {
            sources: sources.into_iter().map(Into::into).collect(),
            target: target.into(),
            target_role: TargetRole::default(),
            options: Options::default(),
            engine: Configuration::default(),
        }
    }
}
