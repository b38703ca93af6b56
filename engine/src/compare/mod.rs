//! Whether two files, or two trees, are the same: their bytes, and what else is asked for.
//!
//! ```text
//! list A: each name is looked up in B ─► both are there: compared     └► only in A
//! list B: each name is looked up in A ─► only in B
//! ```
//!
//! So no list of names is kept, however long it is. Bytes are read as for digests, of both files side
//! by side, up to the first difference.

mod content;
mod difference;
mod metadata;
mod pairs;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use difference::{Difference, Side};

use crate::cache_policy::CachePolicy;
use crate::copy::{Cancellation, Phase, Progress};
use crate::error::Error;
use crate::operation::FileKind;
use crate::proactor::Proactor;
use crate::processor::Configuration;
use crate::sum::spill::Sorter;
use crate::sum::worker::{Crew, Job, Worker, inline_proactor};
use crate::sum::{self, Options};

/// Two files or trees to be compared.
#[derive(Clone, Debug)]
pub struct Request {
    /// The first; a symbolic link is followed.
    pub a: PathBuf,
    /// The second, likewise.
    pub b: PathBuf,
    /// Whether owner, group, mode, time of modification and extended attributes are compared.
    pub compares_metadata: bool,
    /// How files are read. A range is not looked at.
    pub options: Options,
    /// By what large files are read.
    pub engine: Configuration,
}

/// Is told what happens, from any thread.
pub trait Observer: Sync {
    /// Something is known of one pair of files. Differences come in the order of the names, byte by
    /// byte; failures as they happen.
    fn on_event(&self, event: &Event<'_>);
}

impl Observer for () {
    fn on_event(&self, _event: &Event<'_>) {}
}

/// What is known of one pair of files.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// They differ.
    Differs {
        /// Their path below what is compared; empty for that itself.
        path: &'a Path,
        /// In what.
        difference: &'a Difference,
    },
    /// They could not be compared. The others go on.
    Failed(&'a Error),
}

/// What comparing came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Pairs of regular files whose bytes were compared.
    pub files: u64,
    /// Bytes that were compared, of one of the two.
    pub bytes: u64,
    /// Names that are only in one, or whose files differ.
    pub differing: u64,
    /// Files that could not be compared.
    pub failed: u64,
    /// Whether it was asked to stop.
    pub was_cancelled: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// What read large files, and why; empty if there were none.
    pub engine: String,
}

/// Compares two files or two trees, and tells of each difference.
///
/// # Errors
///
/// If nothing could be begun: one of the two can't be opened, io_uring was demanded and is missing.
///
/// # Examples
///
/// ```
/// use ucp_engine::compare::{self, Request};
/// use ucp_engine::copy::{Cancellation, Progress};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
/// std::fs::write(&a, "one text")?;
/// std::fs::write(&b, "one test")?;
/// let request = Request::new(&a, &b);
/// let summary = compare::compare(&request, &(), &Progress::default(), &Cancellation::default())?;
/// assert_eq!((summary.files, summary.differing, summary.failed), (1, 1, 0));
/// # Ok(())
/// # }
/// ```
pub fn compare(
    request: &Request,
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
) -> Result<Summary, Error> {
    let proactor = inline_proactor();
    let job = Job::new(&request.options, progress, cancellation, Crew::Threads(&request.engine));
    proactor.block_on(compare_with(request, &job, observer, &proactor))
}

/// Compares on one proactor, several files side by side: for programs that have one, and for
/// simulations.
///
/// # Errors
///
/// As [`compare`].
pub fn compare_on(
    proactor: &Proactor,
    request: &Request,
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
) -> Result<Summary, Error> {
    let job = Job::new(&request.options, progress, cancellation, Crew::Tasks);
    proactor.block_on(compare_with(request, &job, observer, proactor))
}

/// What all workers of a comparison share.
pub(super) struct Comparison<'a> {
    pub(super) compares_metadata: bool,
    pub(super) sorter: Sorter<'a>,
    pub(super) observer: &'a dyn Observer,
}

async fn compare_with(
    request: &Request,
    job: &Job<'_>,
    observer: &dyn Observer,
    proactor: &Proactor,
) -> Result<Summary, Error> {
    let options = &request.options;
    options.check()?;
    let tasks = proactor.initiator();
    let started = tasks.now();
    job.progress.set_phase(Phase::Reading);
    let sorter = Sorter::new(options.sort_bytes_max, &options.spill_directory);
    let comparison = Comparison { compares_metadata: request.compares_metadata, sorter, observer };
    let worker = Worker::new(job, tasks.clone());
    let open = async |path: &Path| worker.open_operand(path).await.map_err(|error| error.on(path));
    let (a, b) = (open(&request.a).await?, open(&request.b).await?);
    let names = (request.a.as_path(), request.b.as_path());
    let both_are = |kind| a.1.kind == kind && b.1.kind == kind;
    let mut summary = match both_are(FileKind::Directory) {
        true => comparison.trees(job, &tasks, (a, b), names).await,
        false => {
            comparison.pair(&worker, (a, b), names, b"").await;
            worker.summary.into_inner()
        }
    };
    let io = job.io(tasks.clone());
    let tell = |path: &[u8], value: &[u8]| {
        let path = pairs::path_of(path);
        observer.on_event(&Event::Differs { path, difference: &Difference::read(value) });
    };
    let told = comparison.sorter.drain(&io, |record| tell(&record.name, &record.value)).await;
    if let Err(error) = told
        && summary.fail(&error)
    {
        observer.on_event(&Event::Failed(&error));
    }
    job.progress.set_phase(Phase::Ending);
    summary.elapsed = tasks.now().since(started);
    Ok(summary.into())
}

impl Request {
    /// A comparison of bytes, which leaves the page cache as it was.
    pub fn new(a: impl Into<PathBuf>, b: impl Into<PathBuf>) -> Self {
        Self {
            a: a.into(),
            b: b.into(),
            compares_metadata: false,
            options: Options { cache: CachePolicy::Bypass, ..Options::default() },
            engine: Configuration::default(),
        }
    }
}

impl From<sum::Summary> for Summary {
    fn from(summary: sum::Summary) -> Self {
        let sum::Summary {
            files, bytes, differing, failed, was_cancelled, elapsed, engine, ..
        } = summary;
        Self { files, bytes, differing, failed, was_cancelled, elapsed, engine }
    }
}
