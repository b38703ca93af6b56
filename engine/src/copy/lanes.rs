//! Copying to several targets at once: each of them is a lane.
//!
//! A lane has a job and workers of its own, so that its target becomes what a copy to it alone would
//! make of it: with its own hard links, stages, batches and failures. What lanes have in common is the
//! walk, which reads the names of the source once, and the bytes, which are read once as well
//! ([`super::together`]). A lane that fails at a file or a directory is missing there, and only there.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem;
use std::ops::Deref;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::directory::Directory;
use super::operands::{Destination, Outcome};
use super::parents::Parents;
use super::readers::{Left, Readers};
use super::together::parts;
use super::told::Told;
use super::worker::{BlockEngine, Job, Worker};
use super::{Request, Summary, TargetRole};
use crate::error::{Error, ErrorKind};
use crate::proactor::{TaskInitiator, join_all};

/// The lanes of one shard: a worker each.
pub(super) struct Team<'a> {
    workers: Vec<Worker<'a>>,
    /// What was told of the name that they are at; none if there is one lane only.
    told: Option<Rc<Told>>,
    /// Who reads files that have several names.
    pub(super) readers: &'a Readers,
    /// What others left to this team.
    pub(super) deferred: RefCell<Vec<Left>>,
}

/// A directory of the source, and its copies: of each lane that has one.
#[derive(Clone)]
pub(super) struct Branch(Arc<[Arc<Directory>]>);

/// Where the sources go in one lane, with the directories that were made for the current one.
pub(super) struct Way {
    pub(super) destination: Destination,
    pub(super) parents: Parents,
}

impl<'a> Team<'a> {
    /// A worker for each lane. Where each shard has threads that move blocks, its lanes share them:
    /// of several files only one is moved at a time.
    pub(super) fn new(
        jobs: &'a [Job<'a>],
        readers: &'a Readers,
        tasks: &TaskInitiator,
        blocks: impl Fn() -> BlockEngine<'a>,
    ) -> Self {
        let first = Rc::new(blocks());
        let engine = |job: &Job<'_>| match job.lane == 0 || first.is_own() {
            true => Rc::clone(&first),
            false => Rc::new(blocks()),
        };
        let told = (jobs.len() > 1).then(Rc::<Told>::default);
        let worker =
            |job| Worker::new(job, tasks.clone(), engine(job)).beside(told.as_ref().map(Rc::clone));
        let workers = jobs.iter().map(worker).collect();
        Self { workers, told, readers, deferred: RefCell::default() }
    }

    /// All lanes turn to another name.
    pub(super) fn turn_to_next_name(&self) {
        self.told.iter().for_each(|told| told.forget());
    }

    pub(super) fn lead(&self) -> &Worker<'a> {
        &self.workers[0]
    }

    pub(super) fn workers(&self) -> &[Worker<'a>] {
        &self.workers
    }

    /// The worker of the lane that a directory belongs to.
    pub(super) fn worker_of(&self, directory: &Directory) -> &Worker<'a> {
        &self.workers[directory.lane]
    }

    /// What all lanes have done, and not told yet.
    pub(super) fn take_summary(&self) -> Summary {
        let mut total = self.lead().summary.take();
        for worker in &self.workers[1..] {
            total.add(&worker.summary.take());
        }
        total
    }

    /// What the targets mean. None may be another, or in another: what one lane makes would be
    /// overwritten, or copied, by the next.
    pub(super) async fn ways(&self, request: &Request) -> Result<Vec<Way>, Error> {
        let mut ways: Vec<Way> = Vec::new();
        let role = match self.workers.len() {
            1 => request.target_role,
            _ => TargetRole::Directory,
        };
        for (worker, target) in self.workers.iter().zip(request.targets()) {
            let destination = worker.destination(target, role, request.sources.len()).await?;
            ways.push(Way { destination, parents: Parents::default() });
        }
        for (one, way) in ways.iter().enumerate() {
            for (other, above) in ways.iter().enumerate() {
                if one != other {
                    self.check_apart(&way.destination, &above.destination).await?;
                }
            }
        }
        Ok(ways)
    }

    async fn check_apart(&self, one: &Destination, above: &Destination) -> Result<(), Error> {
        let (
            Destination::Into { directory, path },
            Destination::Into { directory: above, path: above_path },
        ) = (one, above)
        else {
            return Ok(());
        };
        let on_target = |error: Error| error.on(path);
        let worker = self.lead();
        let status = worker.io.status_of(above).await.map_err(|error| error.on(above_path))?;
        let own = worker.io.status_of(directory).await.map_err(on_target)?;
        let is_same = own.is_same_file(&status);
        if !is_same && !worker.is_inside(directory, &status).await.map_err(on_target)? {
            return Ok(());
        }
        let relation = if is_same { "the same directory as" } else { "inside of" };
        let reason = format!("it is {relation} the target {}", above_path.display());
        Err(on_target(Error::new(ErrorKind::Operand, "open target directory", reason)))
    }

    /// Copies one source to all targets; of a tree, only its roots.
    pub(super) async fn copy_operand(&self, source: &Path, ways: &mut [Way]) -> Option<Branch> {
        let mut roots = Vec::new();
        if let ([worker], [way]) = (self.workers.as_slice(), &mut *ways) {
            let outcome = worker.copy_operand(source, &way.destination, &mut way.parents).await;
            roots.extend(worker.settle_operand(outcome));
        } else {
            let lanes = self.workers.iter().zip(ways);
            let settled = self
                .side_by_side(lanes, async |(worker, way)| {
                    let outcome = worker.copy_operand(source, &way.destination, &mut way.parents);
                    worker.settle_operand(outcome.await)
                })
                .await;
            for root in settled.into_iter().flatten() {
                match roots.first().is_none_or(|first: &Arc<Directory>| first.is_copy_beside(&root))
                {
                    true => roots.push(root),
                    false => self.give_up_exchanged(root).await,
                }
            }
        }
        Branch::of(roots)
    }

    /// The source of a root was exchanged after another lane had opened it.
    async fn give_up_exchanged(&self, root: Arc<Directory>) {
        let worker = self.worker_of(&root);
        let reason = "the directory was exchanged while it was opened";
        let error = Error::new(ErrorKind::SourceChanged, "enter", reason);
        worker.fail(&error.on(root.source_path()).copying(root.target_path()));
        worker.release(root).await;
    }

    /// Gives the directories above a source that were made their modes and times.
    pub(super) async fn finish_parents(&self, ways: &mut [Way]) {
        for (worker, way) in self.workers.iter().zip(ways) {
            worker.finish_parents(mem::take(&mut way.parents)).await;
        }
    }

    /// Does something about one name in several lanes, each with its part in what is moved together.
    pub(super) async fn side_by_side<'l, L: LaneOf<'a, 'l>, T>(
        &'l self,
        lanes: impl ExactSizeIterator<Item = L>,
        work: impl AsyncFn(L) -> T,
    ) -> Vec<T>
    where
        'a: 'l,
    {
        self.turn_to_next_name();
        let results: Vec<_> = (0..lanes.len()).map(|_| Cell::new(None)).collect();
        let lanes = parts(lanes.len()).zip(lanes).zip(&results);
        let works = lanes.map(|((part, lane), result)| {
            let (worker, work) = (lane.worker(self), &work);
            let lane: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(async move {
                worker.part.replace(Some(part));
                result.set(Some(work(lane).await));
                // One that has not moved anything is waited for until now.
                worker.part.take();
            });
            lane
        });
        join_all(works.collect()).await;
        results.into_iter().filter_map(Cell::into_inner).collect()
    }
}

/// What tells the lane that it belongs to.
pub(super) trait LaneOf<'a, 'l> {
    fn worker(&self, team: &'l Team<'a>) -> &'l Worker<'a>;
}

impl<'a, 'l> LaneOf<'a, 'l> for (&'l Worker<'a>, &mut Way) {
    fn worker(&self, _team: &'l Team<'a>) -> &'l Worker<'a> {
        self.0
    }
}

impl<'a, 'l> LaneOf<'a, 'l> for &Arc<Directory> {
    fn worker(&self, team: &'l Team<'a>) -> &'l Worker<'a> {
        team.worker_of(self)
    }
}

impl<'a> Worker<'a> {
    /// Tells of a source that could not be copied; the root of one that is a tree is left to do.
    fn settle_operand(&self, outcome: Result<Outcome, Error>) -> Option<Arc<Directory>> {
        match outcome {
            Ok(Outcome::Done) => None,
            Ok(Outcome::Tree(root)) => Some(root),
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }
}

impl Branch {
    /// Of those lanes that have entered it; none if nobody has.
    pub(super) fn of(directories: Vec<Arc<Directory>>) -> Option<Self> {
        (!directories.is_empty()).then(|| Self(directories.into()))
    }

    /// Whose source is listed for all.
    pub(super) fn first(&self) -> &Arc<Directory> {
        &self.0[0]
    }

    /// One piece more of it is not done, in each lane.
    pub(super) fn retain(&self) {
        self.iter().for_each(|directory| directory.retain());
    }
}

impl Deref for Branch {
    type Target = [Arc<Directory>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
