//! Copying files and trees.

mod absence;
mod access;
mod account;
mod ahead;
mod attributes;
mod backup;
mod batch;
mod blocks;
mod cache;
mod continuation;
mod data;
mod device;
mod directory;
mod doctor;
mod durable;
mod existing;
mod extraneous;
mod file;
pub(crate) mod file_system;
mod fingerprint;
mod hard_links;
mod holes;
mod in_flight;
pub(crate) mod io;
mod journal;
mod lanes;
mod leftover;
mod linking;
mod listing;
mod manifest;
mod mark;
mod mirror;
mod muster;
mod node;
mod once;
mod operands;
mod options;
pub(crate) mod pace;
mod parents;
mod parked;
pub(crate) mod pipeline;
mod publication;
mod publish;
mod readers;
mod reading;
mod reason;
mod receiver;
mod rehearsal;
mod remove_source;
pub(crate) mod reread;
mod resume;
pub(crate) mod route;
mod segments;
mod signature;
mod sparse;
mod stage;
mod standing;
mod temporary;
pub(crate) mod throttle;
mod together;
mod told;
mod tree;
mod verdict;
mod verify;
mod worker;
mod zeros;

use std::future::Future;
use std::iter;
use std::num::NonZero;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::thread;

pub use account::*;
pub use doctor::{Findings, Forecast, Trial, doctor};
use lanes::{Branch, Team};
use operands::first_piece;
pub use options::*;
use readers::Readers;
pub use reason::*;
use worker::{BlockEngine, Job, Surroundings};

use crate::error::{Error, ErrorKind};
use crate::limits::{TARGETS_MAX, TREE_SHARDS_MAX, TREE_TASKS};
use crate::proactor::{Proactor, Shards, join_all};
use crate::processor::{Configuration, ThreadProcessor};

/// A copy to be made.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is copied: files and directories, as the user wrote them.
    pub sources: Vec<PathBuf>,
    /// Where to.
    pub target: PathBuf,
    /// Further directories that each source is copied into, with no byte of it read again; then
    /// `target` is a directory, too.
    pub also: Vec<PathBuf>,
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
/// by side, [`crate::limits::TREE_TASKS`] for each target: a file whose blocks find none fails.
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
    if let Some(reason) = request.contradiction() {
        return Err(Error::new(ErrorKind::Operand, "copy", reason));
    }
    let has_several = request.sources.len() > 1;
    let mut options = request.options.clone().complete();
    if !request.also.is_empty() {
        // A journal says how far one copy came.
        options.resume = Resume::Never;
    }
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
    let further = (1..=request.also.len()).map(|lane| job.beside(lane, has_several));
    let further: Vec<_> = further.collect();
    let jobs: Vec<_> = iter::once(job).chain(further).collect();
    let readers = Readers::default();
    let team = Team::new(&jobs, &readers, &tasks, || crew.block_engine());
    let worker = team.lead();
    // Started now, though it may not be needed: what runs, and why, is part of every account.
    let engine = worker.block_tasks()?.capabilities();
    let mut ways = team.ways(request).await?;
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
        if let Some(branch) = team.copy_operand(source, &mut ways).await {
            if worker.job.mirrors() {
                roots.push(branch.first().root_to_mirror());
            }
            copy_tree(&jobs, branch, &team, crew).await;
        }
        team.finish_parents(&mut ways).await;
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
    let mut summary = team.take_summary();
    summary.is_dry_run = worker.is_rehearsal();
    summary.elapsed = tasks.now().since(started);
    summary.engine = engine.to_string();
    summary.engine_name = engine.engine.to_string();
    summary.engine_reason = engine.reason;
    Ok(summary)
}

async fn copy_tree(jobs: &[Job<'_>], roots: Branch, team: &Team<'_>, crew: Crew<'_>) {
    let lanes = roots.len();
    let pieces = first_piece(roots);
    let lead = team.lead();
    match crew {
        Crew::Shards(configuration) => {
            let total = Mutex::new(Summary::default());
            let cores = thread::available_parallelism().map_or(1, NonZero::get);
            // Questions come one at a time, and in the order of the names.
            let is_asked = lead.job.options.existing.overwrite == Overwrite::Ask;
            let (count, count_max) =
                if is_asked { (1, 1) } else { (cores, (TREE_SHARDS_MAX / lanes).max(cores)) };
            let shards = Shards { count, count_max };
            shards.run(&pieces, || {
                let proactor = inline_proactor();
                let blocks = || BlockEngine::own(configuration);
                let team = Team::new(jobs, team.readers, &proactor.initiator(), blocks);
                proactor.block_on(team.work(&pieces));
                let part = team.take_summary();
                total.lock().unwrap_or_else(PoisonError::into_inner).add(&part);
            });
            let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
            lead.summary.borrow_mut().add(&total);
        }
        Crew::Tasks => {
            let team_of = |_| Team::new(jobs, team.readers, &lead.io.tasks, BlockEngine::same);
            let teams: Vec<_> = (0..TREE_TASKS).map(team_of).collect();
            let work = teams.iter().map(|team| {
                let work: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(team.work(&pieces));
                work
            });
            join_all(work.collect()).await;
            for team in &teams {
                lead.summary.borrow_mut().add(&team.take_summary());
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
    /// All directories that are copied into, or the one target.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &PathBuf> {
        iter::once(&self.target).chain(&self.also)
    }

    /// Why these things can't be had together; none if they can.
    #[must_use]
    pub fn contradiction(&self) -> Option<&'static str> {
        let Options { selection, verification, .. } = &self.options;
        if self.also.is_empty() {
            return self.options.contradiction();
        }
        if self.also.len() >= TARGETS_MAX {
            Some("there are more targets than 16")
        } else if self.target_role == TargetRole::Name {
            Some("several targets are directories to copy into")
        } else if selection.remove_source_files {
            Some("a source may go only once each of several targets has it")
        } else if selection.delete {
            Some("one source can't say what several targets lose")
        } else if verification.manifest.is_some() {
            Some("a list of digests is of one target")
        } else {
            self.options.contradiction()
        }
    }

    /// A copy of `sources` to `target`, made as `ucp SOURCE… TARGET` makes it.
    pub fn new<P: Into<PathBuf>>(
        sources: impl IntoIterator<Item = P>,
        target: impl Into<PathBuf>,
    ) -> Self {
        Self {
            sources: sources.into_iter().map(Into::into).collect(),
            target: target.into(),
            also: Vec::new(),
            target_role: TargetRole::default(),
            options: Options::default(),
            engine: Configuration::default(),
        }
    }
}
